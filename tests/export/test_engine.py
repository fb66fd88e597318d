"""Real TensorRT-RTX engines, built without a GPU, and what is refused."""

from __future__ import annotations

import copy
import re
import shutil
import types

import onnx
import pytest
import tiny
from made_up import images

from export import engine
from export.checks.images import photographs
from export.engine import Shapes, build_engines, check_targets, main, parse_range, profiles
from export.fp16 import add_fp16
from export.quantize import add_int8
from export.writing import tensorrt_plans as plans
from export.writing.bundle_writer import amend_bundle
from export.writing.tensorrt_plans import EngineError, build_plan
from runtime.backends.trt_package import open_package, warning_name
from runtime.bundle import bundled, open_bundle
from zsd_core.errors import ConfigError, DeviceError

pytest.importorskip("tensorrt_rtx")
TARGETS = ("sm86", "sm89", "sm120")


def deep(model, count=4):
    """Put ``count`` more convolutions in front of the last layers of the tiny trunk."""
    weight = next(w for w in model.graph.initializer if w.name == "w_objectness")
    channels = weight.dims[1]
    square = tiny.random(9).normal(size=(channels, channels, 1, 1)) / 2
    model.graph.initializer.append(onnx.numpy_helper.from_array(square.astype("float32"), "w_deep"))
    nodes = list(model.graph.node)
    relu = next(n for n in nodes if n.op_type == "Relu")
    source = relu.input[0]
    extra = []
    for index in range(count):
        made = onnx.helper.make_node("Conv", [source, "w_deep"], [f"deep{index}"])
        extra.append(made)
        source = f"deep{index}"
    relu.input[0] = source
    place = nodes.index(relu)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:place], *extra, *nodes[place:]])
    return model


def deep_head(model, count=4):
    """Put ``count`` more matrix products in front of the embedding."""
    square = (tiny.random(8).normal(size=(tiny.JOINT, tiny.JOINT)) / 4).astype("float32")
    model.graph.initializer.append(onnx.numpy_helper.from_array(square, "w_deep"))
    nodes = list(model.graph.node)
    relu = next(n for n in nodes if n.op_type == "Relu")
    source, extra = relu.input[0], []
    for index in range(count):
        extra.append(onnx.helper.make_node("MatMul", [source, "w_deep"], [f"deep{index}"]))
        source = f"deep{index}"
    relu.input[0] = source
    place = nodes.index(relu)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:place], *extra, *nodes[place:]])
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny bundle deep enough that most of its layers can be fp16 or int8; it holds both."""
    path = tmp_path_factory.mktemp("engine") / "deep"
    files = {
        "trunk.onnx": deep(tiny.trunk_model()).SerializeToString(),
        "head.onnx": deep_head(tiny.head_model()).SerializeToString(),
    }
    tiny.tiny_bundle(path, files=files)
    add_fp16(path)
    add_int8(path, images(2), sensitive=0, noise=0, crossing=0)
    return path


@pytest.fixture
def path(made, tmp_path):
    return shutil.copytree(made, tmp_path / "deep")


@pytest.mark.parametrize("precision", ["float32", "fp16", "int8"])
def test_engines_for_three_targets_are_what_was_asked_for(path, precision):
    entries = build_engines(path, targets=TARGETS, precision=precision, progress=False)
    bundle = open_bundle(path)
    assert list(bundle.engines) == entries
    assert [(e["target"], e["stage"]) for e in entries] == [
        (target, stage) for target in TARGETS for stage in ("trunk", "head")
    ]
    wanted = {"float32": "float32", "fp16": "float16", "int8": "int8"}[precision]
    for entry in entries:
        assert entry["layers"][wanted] > sum(entry["layers"].values()) / 2
        assert entry["layers"].get("float32", 0) >= 1  # the last layers
        assert {t["dtype"] for t in entry["tensors"]} == {"float32"}
        assert entry["version"] == open_package("tensorrt_rtx").version
        plan = bundle.file(entry["file"]).read_bytes()  # and its hash is right
        assert len(plan) > 1000
        assert not plan.startswith((b"{", b"PK")), "a plan has no header of ours"
    assert len({bundle.file(e["file"]).read_bytes() for e in entries}) == len(entries)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_coco48_becomes_engines_for_three_targets(tmp_path, precision):
    path = shutil.copytree(bundled("coco48"), tmp_path / "shipped")
    if precision == "int8":
        add_int8(path, photographs()[:1], regions=8, sensitive=0, noise=0, crossing=0)
    shapes = Shapes(batch=(1, 4, 16), size=(320, 640))
    entries = build_engines(
        path, targets=TARGETS, precision=precision, shapes=shapes, progress=False
    )
    assert len(entries) == 2 * len(TARGETS)
    wanted = {"fp16": "float16", "int8": "int8"}[precision]
    kept = open_bundle(path).manifest["precisions"][precision]["float32"]["tensorrt"]
    for entry in entries:  # float32 stay objectness, deltas, and where rounding is amplified
        others = sum(entry["layers"].values()) - entry["layers"][wanted]
        assert 1 <= others <= len(kept[entry["stage"]]) < 10
        assert entry["profile"] and open_bundle(path).file(entry["file"]).stat().st_size > 1e6


@pytest.mark.parametrize("stage", ["head", pytest.param("trunk", marks=pytest.mark.slow)])
def test_open_becomes_engines_too(stage):
    """A given detector with TopK and GridSample, and a look at regions of the image."""
    bundle = open_bundle(bundled("open"))
    profile = profiles(bundle.model_config, bundle, Shapes())[stage]
    (shapes,) = profile.values()
    rest = bundle.stage(stage)["inputs"][0]["shape"][1:]
    most = 8 * (bundle.model_config.regions.look if stage == "head" else 1)
    assert (shapes["min"], shapes["max"]) == ([1, *rest], [most, *rest])
    plan = build_plan(
        open_package("tensorrt_rtx"),
        bundle.network(stage),
        precision="float32",
        target="sm89",
        profile=profile,
    )
    assert set(plan.layers) == {"float32"} and len(plan.data) > 1e6
    assert [t["mode"] for t in plan.tensors] == ["input", "output", "output"]


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "kind"), [("fp16", "float16"), ("int8", "int8")])
def test_open_becomes_engines_for_three_targets(tmp_path, precision, kind):
    path = shutil.copytree(bundled("open"), tmp_path / "shipped")
    if precision == "int8":  # its trunk chooses regions, so it stays float32
        add_int8(path, photographs()[:1], regions=4, sensitive=0, noise=0, crossing=0)
    entries = build_engines(path, targets=TARGETS, precision=precision, progress=False)
    assert [(e["target"], e["stage"]) for e in entries] == [
        (target, stage) for target in TARGETS for stage in ("trunk", "head")
    ]
    for entry in entries:
        quantised = precision == "fp16" or entry["stage"] == "head"
        assert entry["layers"][kind if quantised else "float32"] > 40
        assert {t["dtype"] for t in entry["tensors"]} == {"float32"}


def test_sizes_for_a_trunk_of_one_size_are_an_error():
    bundle = open_bundle(bundled("open"))
    with pytest.raises(ConfigError, match=r"--size is given, but this trunk takes 416 x 416 only"):
        profiles(bundle.model_config, bundle, Shapes(size=(320, 640)))


def test_a_precision_that_was_not_built_is_an_error(path):
    """The float32 network under the name of fp16: what was asked for is not what would be built."""
    single = open_bundle(path).network("trunk").read_bytes()
    amend_bundle(path, {"trunk.fp16.onnx": single})
    before = open_bundle(path).manifest
    with pytest.raises(EngineError, match=r"fp16 was asked for, but the layers are 7 float32"):
        build_engines(path, targets=["sm86"], precision="fp16", progress=False)
    assert open_bundle(path).manifest == before


def test_a_parser_that_changes_types_is_an_error(path, monkeypatch):
    monkeypatch.setattr(plans, "layer_types", lambda *_: {"float16": 7})
    with pytest.raises(EngineError, match=r"file's layers are 7 float32, the network's 7 float16"):
        build_engines(path, targets=["sm86"], precision="float32", progress=False)


def test_a_warning_is_an_error_unless_it_is_allowed_by_name(path, monkeypatch, capsys):
    package = open_package("tensorrt_rtx")
    real = plans.layer_types

    def warn(*arguments):
        text = "Profile 0: minimum of 12 (TopK) is below K"
        package.logger.log(package.trt.ILogger.WARNING, text)
        return real(*arguments)

    monkeypatch.setattr(plans, "layer_types", warn)
    name = "profile-minimum-of-is-below"
    options = {"targets": ["sm86"], "precision": "float32", "progress": False}
    with pytest.raises(EngineError, match=rf"warning {name}.*: Profile 0(.|\n)*--allow-warning"):
        build_engines(path, **options)
    text = "Profile 0: minimum of 12 (TopK) is below K"
    full = warning_name(text)
    entries = build_engines(path, allowed=[full], **options)
    assert entries[0]["allowed_warnings"] == {full: text}
    arguments = ["--target", "sm86", "--precision", "float32", "--no-cache", "--allow-warning"]
    assert main([str(path), *arguments, full]) == 0
    assert f"  allowed warning {full}: {text}" in capsys.readouterr().out  # still shown


def test_the_parser_names_what_it_refuses(tmp_path):
    file = tmp_path / "bad.onnx"
    node = onnx.helper.make_node("NonZero", ["images"], ["y"])
    values = [onnx.helper.make_tensor_value_info("images", 1, [2, 2])]
    outs = [onnx.helper.make_tensor_value_info("y", 7, [2, "n"])]
    graph = onnx.helper.make_graph([node], "g", values, outs)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]), file)
    with pytest.raises(EngineError, match=r"bad\.onnx for sm86 by tensorrt_rtx"):
        build_plan(
            open_package("tensorrt_rtx"),
            file,
            precision="float32",
            target="sm86",
            profile={"images": {"min": [2, 2], "opt": [2, 2], "max": [2, 2]}},
        )


def test_builds_are_cached_by_content(path, tmp_path, monkeypatch):
    cache, count, real = tmp_path / "cache", [], plans.build_plan
    monkeypatch.setattr(engine, "build_plan", lambda *a, **k: count.append(1) or real(*a, **k))

    def build(**changes):
        count.clear()
        options = {"targets": ["sm86"], "precision": "fp16", "cache": cache, "progress": False}
        entries = build_engines(path, **(options | changes))
        files = [open_bundle(path).file(entry["file"]).read_bytes() for entry in entries]
        return len(count), files

    first = build()
    assert first[0] == 2
    assert build() == (0, first[1])
    assert build(targets=["sm89"])[0] == 2
    assert build(shapes=Shapes(regions=(1, 7)))[0] == 1  # the head's profile only
    (damaged,) = [p for p in cache.glob("*.plan") if p.read_bytes() == first[1][0]]
    damaged.write_bytes(b"half a plan")
    again = build()
    assert again[0] == 1
    assert again[1][1] == first[1][1]  # the other one comes from the cache still
    model = deep(tiny.trunk_model(seed=5))
    amend_bundle(path, {"trunk.onnx": model.SerializeToString()})
    add_fp16(path)
    assert build()[0] == 1
    assert not list(cache.glob(".*"))


def test_a_cache_that_cannot_be_written_is_said_before_anything_is_built(path, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match=r"cannot be kept in .*Not a directory.*--no-cache"):
        build_engines(path, targets=["sm86"], cache=tmp_path / "file" / "cache", progress=False)


def test_weights_in_a_file_of_their_own_are_part_of_the_content(tmp_path):
    job = engine._Job(open_package("tensorrt_rtx"), "trunk", "float32", "sm86", "", {})
    keys = []
    for seed in (1, 2):
        model, file = tiny.trunk_model(seed=seed), tmp_path / str(seed) / "trunk.onnx"
        file.parent.mkdir()
        onnx.save(model, file, save_as_external_data=True, location="w.bin", size_threshold=0)
        keys.append(job.key(file))
    graphs = [(tmp_path / str(seed) / "trunk.onnx").read_bytes() for seed in (1, 2)]
    assert graphs[0] == graphs[1] and keys[0] != keys[1]


def test_an_engine_that_is_bound_to_a_gpu_is_cached_for_that_gpu_alone(path):
    network = open_bundle(path).network("head")
    package, profile = open_package("tensorrt_rtx"), {}
    jobs = [engine._Job(package, "head", "fp16", "sm87", gpu, profile) for gpu in ("Orin", "NX/8")]
    assert jobs[0].key(network) != jobs[1].key(network)
    names = [job.timings(network.parent).name for job in jobs]
    assert names[0] != names[1] and names[1].endswith("sm87-NX-8.timings")


def test_measurements_are_kept_when_a_warning_refuses_the_engine(path, tmp_path, monkeypatch):
    package = open_package("tensorrt_rtx")

    def measured(config):
        package.logger.log(package.trt.ILogger.WARNING, "it is late")
        return b"measured"

    monkeypatch.setattr(package, "timings", measured)
    with pytest.raises(EngineError, match="--allow-warning it-is-late"):
        build_engines(path, targets=["sm86"], precision="float32", cache=tmp_path, progress=False)
    assert [file.read_bytes() for file in tmp_path.glob("*.timings")] == [b"measured"]


def test_engines_of_another_build_that_ends_meanwhile_stay(path, monkeypatch):
    real = plans.build_plan

    def slow(*arguments, **options):
        if options["precision"] == "fp16":
            monkeypatch.setattr(engine, "build_plan", real)
            build_engines(path, targets=["sm86"], precision="float32", progress=False)
        return real(*arguments, **options)

    monkeypatch.setattr(engine, "build_plan", slow)
    build_engines(path, targets=["sm86"], precision="fp16", progress=False)
    assert [e["precision"] for e in open_bundle(path).engines] == ["float32"] * 2 + ["fp16"] * 2


def test_networks_that_are_made_again_take_their_engines_with_them(path):
    for precision in ("float32", "fp16"):
        build_engines(path, targets=["sm86"], precision=precision, progress=False)
    add_fp16(path)
    left = [entry["file"] for entry in open_bundle(path).engines]
    assert [file.split(".")[1] for file in left] == ["float32", "float32"]
    plans_left = [name for name in open_bundle(path).manifest["files"] if "engines/" in name]
    assert sorted(left) == sorted(plans_left)


def test_a_long_build_tells_its_phases(path):
    told = []
    bundle = open_bundle(path)
    ranges = profiles(bundle.model_config, bundle, Shapes())
    build_plan(
        open_package("tensorrt_rtx"),
        bundle.network("trunk"),
        precision="float32",
        target="sm86",
        profile=ranges["trunk"],
        progress=told.append,
    )
    assert told and all(re.fullmatch(r".+ \d+/\d+", phase) for phase in told)


def test_profiles_cover_what_the_model_may_be_given(bundle_path):
    bundle = open_bundle(bundle_path)
    config = bundle.model_config
    ranges = profiles(config, bundle, Shapes())
    assert ranges["trunk"]["images"] == {
        "min": [1, 3, 32, 32],
        "opt": [1, 3, 64, 96],
        "max": [8, 3, 96, 96],
    }
    assert ranges["head"]["region_features"]["max"] == [8 * 12, 6, 3, 3]
    asked = profiles(config, bundle, Shapes(batch=(1, 4, 16), size=(64, 320), regions=(2, 9)))
    assert asked["trunk"]["images"]["opt"] == [4, 3, 64, 96]
    assert asked["trunk"]["images"]["max"] == [16, 3, 320, 320]
    assert asked["head"]["region_features"]["min"] == [2, 6, 3, 3]


def test_a_head_of_two_maps_has_a_range_for_each(tmp_path):
    bundle = open_bundle(tiny.split_bundle(tmp_path / "split"))
    assert profiles(bundle.model_config, bundle, Shapes(regions=(2, 9)))["head"] == {
        "region_reduced": {"min": [2, 6, 3, 3], "opt": [9, 6, 3, 3], "max": [9, 6, 3, 3]},
        "region_shortcut": {"min": [2, 5, 2, 2], "opt": [9, 5, 2, 2], "max": [9, 5, 2, 2]},
    }


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (Shapes(batch=(4, 1, 2)), "--batch is 4:1:2, must be"),
        (Shapes(size=(40, 80)), "multiples of 32"),
        (Shapes(regions=(0, 5)), "rising from at least 1"),
    ],
)
def test_a_range_that_cannot_be_is_refused(bundle_path, shapes, message):
    bundle = open_bundle(bundle_path)
    with pytest.raises(ConfigError, match=message):
        profiles(bundle.model_config, bundle, shapes)


def test_ranges_are_read_as_trtexec_users_write_them():
    assert parse_range("1:4:16") == (1, 4, 16)
    assert parse_range("320:640") == (320, 640)
    assert parse_range("8") == (8, 8, 8)


def test_a_target_it_does_not_build_for_lists_those_it_does(path):
    with pytest.raises(ConfigError, match=r"sm75.*sm120.*not for 'sm87'.*--package tensorrt"):
        build_engines(path, targets=["sm87"])


def test_without_a_target_the_gpu_decides_and_its_absence_is_said(path, monkeypatch):
    def absent(*_):
        raise DeviceError("CUDA cannot start: no driver")

    monkeypatch.setattr(engine, "Device", absent)
    with pytest.raises(DeviceError, match="CUDA cannot start"):
        build_engines(path, targets=[])


@pytest.mark.parametrize(
    ("ahead", "targets", "message"),
    [
        (True, [], r"sm75.*not for 'sm90'.*data-centre GPU, run it there with --package tensorrt"),
        (False, ["sm87"], r"builds for sm90, not for 'sm87'.*the GPU it runs on, so run it there"),
    ],
)
def test_a_gpu_that_cannot_be_built_for_is_refused(monkeypatch, ahead, targets, message):
    package = copy.copy(open_package("tensorrt_rtx"))
    package.ahead_of_time = ahead
    here = types.SimpleNamespace(capability="sm90", name="H100", close=lambda: None)
    monkeypatch.setattr(engine, "Device", lambda *_: here)
    with pytest.raises(ConfigError, match=message):
        check_targets(package, targets)
    if not ahead:
        assert check_targets(package, []) == check_targets(package, ["sm90"]) == (("sm90",), "H100")


def test_int8_that_is_not_there_says_how_to_make_it(fresh_bundle_path, capsys):
    arguments = [str(fresh_bundle_path), "--target", "sm86", "--precision", "int8", "--no-cache"]
    assert main(arguments) == 1
    assert "python -m export.quantize" in capsys.readouterr().err


def test_the_command_makes_fp16_builds_and_reports(path, tmp_path, capsys):
    arguments = ["--target", "sm86", "--batch", "1:2:4", "--size", "64:96", "--cache"]
    assert main([str(path), *arguments, str(tmp_path / "cache")]) == 0
    printed = capsys.readouterr()
    assert "trunk.fp16.sm86.tensorrt_rtx-" in printed.out
    assert "5 float16, 2 float32" in printed.out
    assert "[2/2] head, fp16, sm86 ..." in printed.err


def test_warnings_have_names_without_values():
    text = "[onnxOpImporters.cpp:12] Profile 0 (images): kMIN of 12 'abc' is below 3840 for TopK"
    assert warning_name(text) == "profile-kmin-of-is-below-for"
    assert warning_name("12") == "unnamed"
