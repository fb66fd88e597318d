"""The C++ library finds what Python's ``Detector`` finds, on the same bundle and backend."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from comparing import assert_same

from runtime import Detector
from runtime.bundle import bundled, default_bundle, open_bundle
from zsd_core.errors import ClassError

pytestmark = pytest.mark.slow  # for the build
BUNDLES = sorted(path for path in default_bundle().parent.iterdir() if path.is_dir())


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_photographs_and_classes_added_give_what_python_gives(probe, backend, photographs, bundle):
    description = probe("open", bundle=str(bundle), backend=backend)
    assert description.startswith(f"{open_bundle(bundle).name} on {backend}")
    with Detector(bundle, backend=backend, threads=1) as detector:
        config = detector.bundle.model_config
        few = config.detection.score_threshold / 1000
        usual = dict(detector.limits.by_role)
        row = np.random.default_rng(3).normal(size=config.scoring.vector_dim).astype(np.float32)

        def compare(low: bool) -> int:
            limits = {"seen": few, "unseen": few} if low else usual
            probe("thresholds", thresholds=limits)
            detector.set_thresholds(score_threshold=limits)
            count = 0
            for image, path in photographs.values():
                (answer,) = probe("detect", images=[str(path)])
                expected = detector(image)
                assert_same(answer, expected)
                count += len(expected)
            return count

        assert compare(low=False) > 3 and compare(low=True) > 100
        probe("add", classes=["teacup", "Fire_Truck", ["bracket", row.tolist()]])
        detector.add_classes({"teacup": None, "Fire_Truck": None, "bracket": row})
        compare(low=True)
        probe("remove", names=["person", "TEACUP"])
        detector.remove_classes(["person", "TEACUP"])
        compare(low=True)
        found = probe("state")
        assert found["classes"] == list(detector.classes)
        assert found["roles"] == list(detector.roles)
        others = ["k\u00edtten", "person", "sauce\u0301r"]  # other accents than the vocabulary's
        probe("set", classes=others)
        detector.set_classes(others)
        compare(low=True)


def test_names_with_other_letters_than_the_vocabulary_has_are_found(probe):
    bundle = bundled("coco48")
    plain = {
        "pælla": "paella",
        "bœuf": "boeuf",
        "døer": "doer",
        "aløe": "aloe",
        "a\u0142oe": "aloe",
        "\u0111oer": "doer",
        "canoé": "canoe",
        "a\u0131r-to-a\u0131r missile": "air-to-air missile",
        "CANÖE": "canoe",
        "levi\u2019s": "levi's",
        "men\u2018s": "men's",
        "levi\u02bcs": "levi's",
        **{f"a{dash}bomb": "a-bomb" for dash in "\u2010\u2011\u2012\u2013\u2212"},
    }
    vocabulary = open_bundle(bundle).vocabulary
    for name, word in plain.items():
        assert name not in vocabulary.rows and vocabulary.row(name) == vocabulary.row(word) >= 0
        probe("open", bundle=str(bundle), classes=[name])  # others are no class there
        assert probe("state")["classes"] == [name]


def test_accents_that_nobody_knows_make_no_other_class(probe, photographs):
    bundle, backend = bundled("coco48"), probe("backends")[0]
    names, low = ["zebra", "pe\u0301rson", "canoé"], {"pérson": 1e-4, "seen": 0.9, "unseen": 0.9}
    image, path = photographs["astronaut"]
    thresholds = {"by_class": {"PÉRSON": 1e-4}, "seen": 0.9, "unseen": 0.9}
    probe("open", bundle=str(bundle), classes=names, thresholds=thresholds, backend=backend)
    options = {"backend": backend, "threads": 1, "classes": names, "score_threshold": low}

    def refused(name, message):
        with pytest.raises(ClassError, match=re.escape(message)):
            detector.add_classes([name] if isinstance(name, str) else name)
        with pytest.raises(probe.Refused, match=re.escape(message)):
            probe("add", classes=[name] if isinstance(name, str) else name)

    with Detector(bundle, **options) as detector:
        assert probe("state")["roles"] == list(detector.roles) == ["seen", "seen", "unseen"]
        found = detector(image)
        assert set(found.class_names) == {names[1]}
        assert_same(probe("detect", images=[str(path)])[0], found)
        refused("canoe", "class 'canoe' is already active, as 'canoé'; remove it first.")
        refused("PERSON", f"class 'PERSON' is already active, as {names[1]!r}; remove it first.")
        refused(
            ["kitten", "kítten"],
            "class 'kítten' is given twice (case, blanks and accents do not count).",
        )
        detector.remove_classes(["person", "CANOE"])
        probe("remove", names=["person", "CANOE"])
        assert probe("state")["classes"] == list(detector.classes) == ["zebra"]


def test_many_classes_modes_and_int8_scoring_give_what_python_gives(probe, photographs):
    bundle, backend = bundled("coco48"), probe("backends")[0]
    with Detector(bundle, backend=backend, threads=1, score_threshold=1e-4) as detector:
        words = [w for w in detector.bundle.vocabulary.names[::40] if len(w) > 2][:250]
        image, path = photographs["astronaut"]
        low = {"seen": 1e-4, "unseen": 1e-4}
        probe("open", bundle=str(bundle), classes=words, thresholds=low)
        detector.set_classes(words)
        (answer,) = probe("detect", images=[str(path)])
        expected = detector(image)
        answer["version"] = expected.class_set_version  # one more change in Python
        assert len(expected) > 5
        assert_same(answer, expected)
    for mode in ("zsd", "seen"):
        probe("open", bundle=str(bundle), mode=mode, thresholds=low, int8_scoring=True)
        with Detector(
            bundle,
            backend=backend,
            threads=1,
            score_threshold=1e-4,
            mode=mode,
            scoring_precision="int8",
        ) as detector:
            assert_same(probe("detect", images=[str(path)])[0], detector(image))


def test_a_batch_of_mixed_sizes_colours_and_gaps_gives_what_single_images_give(
    probe, photographs, tmp_path
):
    dot = tmp_path / "dot.ppm"
    dot.write_bytes(b"P6 1 1 255\nabc")
    paths = [str(path) for _, path in photographs.values()] + [str(dot)]
    probe("open", bundle=str(bundled("coco48")), thresholds={"seen": 1e-4, "unseen": 1e-4})
    single = [probe("detect", images=[path])[0] for path in paths]
    assert single[0]["stages"] == [
        "preprocess",
        "trunk",
        "propose",
        "roi_align",
        "head",
        "score",
        "detect",
    ]
    for options in ({}, {"max_batch": 2}, {"bgr": True}, {"gap": 5}):
        batch = probe("detect", images=paths, **options)
        for one, other in zip(single, batch, strict=True):
            boxes = [np.array([o["box"] for o in r["objects"]]) for r in (one, other)]
            np.testing.assert_allclose(*boxes, atol=0.01)
            assert [o["class"] for o in one["objects"]] == [o["class"] for o in other["objects"]]


def test_other_bundles_and_spellings_give_what_python_gives(
    probe, backend, tmp_path, fresh_bundle_path, photo, photo_path
):
    import tiny

    conse = dataclasses.replace(
        tiny.MODEL,
        scoring=dataclasses.replace(
            tiny.MODEL.scoring, method="conse", conse_top=2, objectness_power=0.5, seen_scale=0.5
        ),
    )
    tensors = {
        "background": np.zeros(tiny.VECTOR, np.float32),
        "classifier.weight": tiny.unit_vectors(1 + len(tiny.SEEN), 9, tiny.JOINT),
        "classifier.bias": tiny.unit_vectors(1, 10, 1 + len(tiny.SEEN))[0],
    }
    bundles = {
        "tiny": fresh_bundle_path,
        "split": tiny.split_bundle(tmp_path / "split"),
        "conse": tiny.tiny_bundle(tmp_path / "conse", model=conse, scorer=tensors),
    }
    spellings = ["ZEBRA", " fire__truck ", unicodedata.normalize("NFD", "Crème Brûlée"), "cat"]
    for name, bundle in bundles.items():
        with Detector(bundle, backend=backend, threads=1, score_threshold=0.0) as detector:
            options = {"bundle": str(bundle), "backend": backend}
            probe("open", **options, thresholds={"seen": 0, "unseen": 0})
            expected = detector(photo)
            assert len(expected) > 3, name
            assert_same(probe("detect", images=[str(photo_path)])[0], expected)
            detector.set_classes([*spellings, "Dining Table"])
            probe("set", classes=[*spellings, "Dining Table"])
            assert_same(probe("detect", images=[str(photo_path)])[0], detector(photo))
            limits = {"person": 0.2, "seen": 0.1, "unseen": 0.3}
            detector.set_classes(None, mode="gzsd")
            detector.set_thresholds(score_threshold=limits, nms_threshold=0.9, max_detections=7)
            probe("set", classes=[])
            probe(
                "thresholds",
                thresholds={
                    "by_class": {"Person": 0.2},
                    "seen": 0.1,
                    "unseen": 0.3,
                    "nms": 0.9,
                    "max_detections": 7,
                },
            )
            assert_same(probe("detect", images=[str(photo_path)])[0], detector(photo))
            for change in ({"nms": 0.4}, {"max_detections": 9}, {"by_class": {"cat": 0.01}}, {}):
                probe("thresholds", thresholds=change)
                detector.set_thresholds(
                    score_threshold=change.get("by_class"),
                    nms_threshold=change.get("nms"),
                    max_detections=change.get("max_detections"),
                )
                assert_same(probe("detect", images=[str(photo_path)])[0], detector(photo))


def test_networks_of_another_precision_are_the_ones_that_run(
    probe, backend, fresh_bundle_path, photo_path
):
    file = fresh_bundle_path / "manifest.json"
    manifest = json.loads(file.read_text())
    networks = {backend: {"trunk": "trunk.onnx", "head": "trunk.onnx"}}  # a head that cannot run
    file.write_text(json.dumps({**manifest, "precisions": {"int8": {"networks": networks}}}))
    options = {"bundle": str(fresh_bundle_path), "backend": backend}
    assert "int8" in probe("open", **options, precision="int8")
    with pytest.raises(probe.Refused, match=f"{backend} cannot run the head"):
        probe("detect", images=[str(photo_path)])


def test_classes_that_change_while_images_are_searched_mix_no_frame(
    probe, fresh_bundle_path, photo_path
):
    probe("open", bundle=str(fresh_bundle_path), classes=["teapot"], thresholds={"unseen": 0})
    assert probe("storm", image=str(photo_path)) == 0


def test_spelling_suggestions_are_python_s(probe, bundle_path):
    probe("open", bundle=str(bundle_path))
    with Detector(bundle_path) as detector:
        for text in ("truk", "fire", "creme", "qqq"):
            assert probe("search", text=text) == detector.search(text, 5)


def test_kernel_headers_are_installed(probe):
    assert probe("iou") == pytest.approx(1 / 3)


def test_the_example_prints_what_python_finds(built, probe, photographs):
    image, path = photographs["chelsea"]
    example, bundle = built / "example" / "detect", default_bundle()

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(a) for a in (example, bundle, path, *arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with Detector(bundle, backend=probe("backends")[0]) as detector:
        expected = detector(image)
    assert [line.split()[0] for line in run().stdout.splitlines()] == list(expected.class_names)
    wrong = run("kiten")
    assert wrong.returncode == 1 and "did you mean 'kitten'" in wrong.stderr


def test_the_programs_of_the_documentation_compile(built):
    text = (Path(__file__).resolve().parents[3] / "docs" / "cpp.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```cpp\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    includes = [line for line in lines if line.startswith("#include")]
    program = "\n".join(
        [
            *includes,
            "#include <cstdio>",
            "void f(const unsigned char* pixels, long height, long width,",
            "       const std::vector<float>& vector) {",
            *(line for line in lines if line not in includes),
            "}",
        ]
    )
    command = ["c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c++"]
    command += ["-isystem", str(built / "prefix" / "include"), "-"]
    result = subprocess.run(command, input=program, text=True, capture_output=True, check=False)
    assert len(blocks) >= 3 and result.returncode == 0, result.stderr
