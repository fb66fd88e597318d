"""Configurations that cannot be wrong."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from torchvision.models.detection.anchor_utils import AnchorGenerator

from zsd_core.config import ModelConfig, PreprocessConfig, ProposalConfig
from zsd_core.errors import ConfigError
from zsd_core.learning.experiment import Config, load_config
from zsd_core.options import from_mapping
from zsd_core.scoring_config import ScoringConfig

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_loads_and_survives_json(path):
    config = load_config(path)
    assert from_mapping(Config, json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_the_papers_numbers():
    config = load_config(CONFIGS[0].with_name("paper_coco_48_17.yaml"))
    assert config.model.preprocess.shorter_edge == 600
    assert len(config.model.proposals.anchors()) == 9
    assert (config.model.scoring.joint_dim, config.model.scoring.hidden_dim) == (2048, 1024)
    assert (config.loss.unseen_weight, config.loss.contrast_weight) == (0.2, 0.5)
    assert (config.training.learning_rate, config.training.momentum) == (0.01, 0.9)


@pytest.mark.parametrize(("files", "taken"), [(21, True), (22, False)])
def test_files_that_name_each_other_are_limited(tmp_path, files, taken):
    for n in range(files):
        below = f"base: {n + 1}.yaml\n" if n + 1 < files else ""
        (tmp_path / f"{n}.yaml").write_text(f"{below}training: {{seed: {n}}}\n")
    if taken:
        assert load_config(tmp_path / "0.yaml").training.seed == 0
    else:
        with pytest.raises(ConfigError, match=r"20\.yaml: 20 files name each other"):
            load_config(tmp_path / "0.yaml")


def test_overrides_win_and_read_yaml(tmp_path):
    (tmp_path / "base.yaml").write_text("training: {epochs: 3, seed: 1}\n")
    (tmp_path / "own.yaml").write_text("base: base.yaml\ntraining: {seed: 2}\n")
    config = load_config(
        tmp_path / "own.yaml", ["training.learning_rate=1e-3", "training.decay_epochs=[1, 2]"]
    )
    training = config.training
    assert (training.epochs, training.seed, training.learning_rate) == (3, 2, 1e-3)
    assert training.decay_epochs == (1, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"epoch": 3}}, "Config.training has no field 'epoch'; did you mean 'epochs'"),
        ({"training": {"epochs": "three"}}, "Config.training.epochs is 'three', must be of type"),
        ({"training": {"flip": 1}}, "must be of type bool"),
        ({"training": {"epochs": True}}, "must be of type int"),
        ({"training": {"decay_epochs": 3}}, "must be a list"),
        ({"training": 3}, "must be a mapping"),
        ({"model": {"scoring": {"fusion": "max"}}}, "must be one of 'softmax', 'sigmoid', 'raw'"),
        ({"model": {"scoring": {"similarity_temperature": 0}}}, "must be above 0"),
        ({"model": {"scoring": {"seen_scale": 1001}}}, "must be at most 1000"),
        ({"model": {"scoring": {"background": "rpn"}}}, "set it to 'background'"),
        ({"model": {"detection": {"score_threshold": 5}}}, r"must lie in \[0, 1\]"),
        ({"model": {"proposals": {"post_nms_top": 9000}}}, "pre_nms_top, 6000"),
        ({"model": {"regions": {"output_size": [7]}}}, "must hold 2 values"),
        ({"model": {"preprocess": {"longer_edge": 10}}}, "at least shorter_edge, 600"),
        ({"model": {"preprocess": {"std": [1, 0, 1]}}}, r"std is \(1.0, 0.0, 1.0\), must be above"),
        (
            {"model": {"scoring": {"kernel_width": 1e-40}}},
            "kernel_width is 1e-40, must be 0 or a fl",
        ),
        ({"model": {"scoring": {"rivalry": 1e39}}}, "rivalry is 1e[+]39, must be 0 or a float32"),
        ({"model": {"scoring": {"contest_margin": -1e39}}}, r"from 1.2e-38 to 3.4e\+38 without"),
        ({"model": {"preprocess": {"mean": [0, 1e-46, 0]}}}, r"mean\[1\] is 1e-46, must be 0 or"),
        ({"model": {"calibration": {"seen": [1e-46, 1, 0]}}}, r"seen\[0\] is 1e-46, must be 0 or"),
        ({"model": {"proposals": {"anchor_sizes": [1e6]}}}, "anchor_sizes is .*at most 65536"),
        ({"model": {"preprocess": {"std": [1, "nan", 1]}}}, r"std\[1\] is nan, must be finite"),
        (
            {"model": {"preprocess": {"mean": [float("inf"), 0, 0]}}},
            r"mean\[0\] is inf, must be fi",
        ),
        ({"model": {"proposals": {"anchor_sizes": []}}}, "anchor_sizes is .*, needs at least one"),
        ({"model": {"proposals": {"anchor_sizes": [-5]}}}, "anchor_sizes is .*, must be above 0"),
        ({"model": {"proposals": {"aspect_ratios": [0, 1]}}}, "ratios is .*, must be above 0"),
        (
            {"model": {"proposals": {"anchor_sizes": [1.0] * 20_000}}},
            "ProposalConfig.anchor_sizes holds 20000 values, must hold at most 64",
        ),
        ({"model": {"proposals": {"aspect_ratios": [1.0] * 65}}}, "aspect_ratios holds 65 values"),
        ({"model": {"proposals": {"levels": list(range(16, 81))}}}, "levels holds 65 values"),
        ({"model": {"regions": {"maps": [["a", 1]] * 65}}}, "needs 1 to 64 maps"),
        ({"model": {"proposals": {"levels": [0]}}}, "levels is .*, must be above 0"),
        ({"model": {"proposals": {"channels": 0}}}, "channels is 0, must be above 0"),
        ({"model": {"proposals": {"nms_threshold": 0}}}, "nms_threshold is 0.0, must be above 0"),
        ({"model": {"proposals": {"min_size": -1}}}, "min_size is -1.0, must not be negative"),
        ({"model": {"regions": {"stride": 0}}}, "RegionConfig.stride is 0, must be above 0"),
        (
            {"model": {"regions": {"output_size": [7, 0]}}},
            r"output_size is \(7, 0\), must be above",
        ),
        ({"model": {"regions": {"sampling_ratio": -1}}}, "sampling_ratio is -1, must not be neg"),
        ({"model": {"detection": {"score_threshold": 10**400}}}, "must be of type float"),
        ({"model": {1: {}}}, "Config.model has no field 1"),
        ({"training": {"epochs": 2**63}}, "epochs is 9223372036854775808, must have at most 64"),
        ({"training": {"epochs": -(2**63) - 1}}, "must have at most 64 bits"),
        ({"training": {"batch_size": 0}}, "TrainingConfig.batch_size is 0, must be above 0"),
        ({"training": {"seed": 2**32}}, "TrainingConfig.seed is 4294967296, must be below 2"),
        ({"training": {"epochs": -1}}, "TrainingConfig.epochs is -1, must not be negative"),
        ({"training": {"foreground": 25}}, r"TrainingConfig.foreground is 25.0, must lie in \[0"),
        ({"training": {"dropout": 1}}, "TrainingConfig.dropout is 1.0, must be below 1"),
        ({"training": {"stretch": []}}, r"TrainingConfig.stretch is \(\), needs a factor"),
        ({"training": {"edges": [0]}}, r"TrainingConfig.edges is \(0,\), must be above 0"),
        ({"loss": {"contrast_temperature": 0}}, "LossConfig.contrast_temperature is 0.0, must"),
        ({"data": {"keep_score": 30}}, "DataConfig.keep_score is 30.0, must lie in"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(ConfigError, match=message):
        from_mapping(Config, values)


@pytest.mark.parametrize("number", [1e-46, 1e-45, np.nextafter(2.0**-126, 0), 3.5e38])
def test_a_number_that_float32_would_make_another_is_no_option(number):
    with pytest.raises(ConfigError, match="must be 0 or a float32 number"):
        ScoringConfig(similarity_temperature=number)


@pytest.mark.parametrize("number", [np.finfo(np.float32).tiny, np.finfo(np.float32).max])
def test_the_least_and_the_largest_number_of_float32_are_options(number):
    values = {"similarity_temperature": float(number)}
    assert from_mapping(ScoringConfig, values).similarity_temperature == number


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [10**5000, nested(100_000), {"a": nested(100_000)}], ids=["long", "deep", "mapping"]
)
@pytest.mark.parametrize(
    "where", ["training", "training.epochs", "training.learning_rate", "training.decay_epochs"]
)
def test_a_value_that_cannot_be_printed_is_named(where, value):
    """A checkpoint's pickle nests deeper than Python prints, and YAML writes longer numbers."""
    values = value
    for key in reversed(where.split(".")):
        values = {key: values}
    with pytest.raises(ConfigError, match=r"Config\.training.*(must|has no)"):
        from_mapping(Config, values)


def test_a_value_of_many_letters_is_cut():
    with pytest.raises(ConfigError) as error:
        from_mapping(Config, {"training": {"epochs": "x" * 10_000}})
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"decay_epochs": b"\x01\x02"}}, "must be a list"),
        ({"model": {"scoring": {"fusion": np.zeros(2)}}}, "must be one of 'softmax'"),
        ({"model": {"scoring": {"fusion": ["softmax"]}}}, "must be one of 'softmax'"),
    ],
)
def test_a_value_of_a_pickle_is_no_value_of_yaml(values, message):
    with pytest.raises(ConfigError, match=message):
        from_mapping(Config, values)


def test_many_unknown_fields_are_counted():
    with pytest.raises(ConfigError, match=r"no field 'f9'.*are 99990 other fields") as error:
        from_mapping(Config, {f"f{i}": 1 for i in range(100_000)})
    assert len(str(error.value)) < 2000


def test_a_number_as_a_text_is_read_from_yaml_and_not_from_json():
    values = {"mean": ["1e-3", 0, 0.5]}
    assert from_mapping(PreprocessConfig, values).mean == (0.001, 0.0, 0.5)
    with pytest.raises(ConfigError, match=r"mean\[0\] is '1e-3', must be of type float"):
        from_mapping(PreprocessConfig, values, strict=True)
    assert from_mapping(PreprocessConfig, {"mean": [1, 0, 0.5]}, strict=True).mean == (1.0, 0, 0.5)


def test_as_many_anchors_as_are_allowed_can_be_made():
    values = tuple(1.0 + i for i in range(64))
    assert len(ProposalConfig(anchor_sizes=values, aspect_ratios=values).anchors()) == 4096


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read"),
        ("training: {{epochs: !!bool maybe}}", "has the tag"),
        ("training: {{epochs: 3, epochs: 4}}", "a key stands there twice"),
        ('base: "a\\0b"', r"base is 'a\\x00b', must be the name of another file"),
        ("base: " + "x" * 300, "cannot read configuration .*File name too long"),
        ("a: [", "not valid YAML"),
        ("- a", "must be a mapping of sections"),
        ("base: 3", "base is 3, must be the name of another file"),
        ("base: ../{folder}/config.yaml", "must be the name of another file"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text.format(folder=tmp_path.name))
    with pytest.raises(ConfigError, match=message):
        load_config(path)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300])
def test_a_name_that_no_file_has_is_an_error_of_ours(name):
    with pytest.raises(ConfigError, match="cannot read configuration"):
        load_config(name)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_of_an_editor_with_marks_is_read(tmp_path, encoding):
    path = tmp_path / "config.yaml"
    path.write_bytes("training:\r\n  epochs: 3\r\n".encode(encoding))
    assert load_config(path).training.epochs == 3


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "last.pt"
    path.write_bytes(b"PK\x80")
    with pytest.raises(ConfigError, match=r"configuration \S+last\.pt is no text"):
        load_config(path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs=!!bool maybe", "has the tag"),
        ("training.epochs=1:30", "is '1:30', must be of type int"),
        ("training.epochs", r"must look like training\.epochs=3"),
        ("data.images=[photographs", "is not valid YAML"),
        ("training.epochs.most=3", r"epochs is \d+, not a section"),
    ],
)
def test_an_override_that_cannot_be_applied_is_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(CONFIGS[0], [override])


def test_anchors_are_torchvision_s():
    config = ProposalConfig(anchor_sizes=(32.0, 100.0), aspect_ratios=(0.5, 1.0, 2.0))
    generator = AnchorGenerator(((32, 100),), ((0.5, 1.0, 2.0),))
    np.testing.assert_array_equal(config.anchors(), generator.cell_anchors[0].numpy())


@pytest.mark.parametrize(
    ("size", "resized", "padded"),
    [
        ((480, 640), (600, 800), (608, 800)),
        ((640, 480), (800, 600), (800, 608)),
        ((100, 1000), (100, 1000), (128, 1024)),
        ((1, 1), (600, 600), (608, 608)),
        ((1, 4000), (1, 1000), (32, 1024)),
    ],
)
def test_the_size_of_the_network_input(size, resized, padded):
    config = PreprocessConfig()
    assert config.resized(*size) == resized
    assert config.padded(*resized) == padded


def test_a_configuration_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().regions = None


@pytest.mark.parametrize("section", ["preprocess", "proposals", "regions", "scoring", "detection"])
def test_every_option_of_a_bundle_is_known_to_cpp(section):
    text = (ROOT / "csrc/contrastzsd/config.cpp").read_text()
    body = re.search(rf"^\w+ read_{section}\(.*?^}}$", text, re.DOTALL | re.MULTILINE)
    assert body is not None
    options = {one.name for one in dataclasses.fields(getattr(ModelConfig(), section))}
    missing = sorted(name for name in options if f'"{name}"' not in body.group())
    assert not missing, (
        f"add {missing} to fields.ignore or fields.read in csrc/contrastzsd/config.cpp"
    )
