"""Times by kind of layer: every node is counted, operations by hand, the bound by hand."""

from __future__ import annotations

import json
import shutil

import pytest
from made_up import images

from export.layer_times import ALONE, at_most, by_kind, kind_of, layers_table, main
from export.quantize import add_int8

pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(
    ("operator", "weights", "output", "kind", "operations"),
    [
        ("Conv", (8, 4, 1, 1), (1, 8, 5, 7), "1x1 convolution", 2 * 8 * 5 * 7 * 4),
        ("QLinearConv", (8, 4, 3, 3), (1, 5, 7, 8), "3x3 convolution", 2 * 8 * 5 * 7 * 4 * 9),
        ("QLinearConv", (8, 1, 3, 3), (1, 5, 7, 8), "depthwise 3x3", 2 * 8 * 5 * 7 * 9),
        ("FusedGemm", (6, 8), (3, 8), "matrix product", 2 * 3 * 8 * 6),
        ("QGemm", (8, 6), (3, 8), "matrix product", 2 * 3 * 8 * 6),
        ("QLinearAdd", (), (3, 8), "add", 0),
        ("Resize", (), (3, 8), "other", 0),
    ],
)
def test_a_node_has_a_kind_and_operations(operator, weights, output, kind, operations):
    row = kind_of(operator, weights, output)
    assert (row["kind"], row["operations"]) == (kind, operations)
    assert row["type"] == ("" if not operations else "int8" if operator[0] == "Q" else "float")


def test_the_bound_is_what_layers_alone_and_float32_layers_leave():
    """float32 12 ms: 8 of 1x1, of which int8 leaves 2 as they are, 2 depthwise, 2 of other."""
    row = {"type": "float", "operations": 1}
    exact = [
        {**row, "kind": "1x1", "ms": 8.0},
        {**row, "kind": "deep", "ms": 2.0},
        {"kind": "other", "type": "", "operations": 0, "ms": 2.0},
    ]
    rounded = [
        {**row, "kind": "1x1", "ms": 2.0},
        {"kind": "1x1", "type": "int8", "ms": 4.0},
        {"kind": "deep", "type": "int8", "ms": 2.0},
    ]
    stages = {"trunk": {"float32": exact, "int8": rounded}}
    single = {"1x1": {"ratio": 3.0}, "deep": {"ratio": 0.5}}
    assert at_most(stages, "int8", single) == pytest.approx(12 / (2 + 6 / 3 + 2))


def test_layers_too_short_to_time_have_no_bound_and_no_rate():
    row = {"kind": "1x1", "type": "float", "operations": 2, "ms": 0.0}
    stages = {"trunk": {"float32": [row], "int8": [{**row, "type": "int8"}]}}
    assert at_most(stages, "int8", {"1x1": {"ratio": 3.0}}) is None
    how = {"onnxruntime": "1", "threads": 1, "calls": 2, "regions": 4, "int8": "AVX"}
    report = {
        "precision": "int8",
        "stages": stages,
        "alone": {},
        "at_most": None,
        "conditions": how,
    }
    text = layers_table(report)
    assert "| trunk | 1x1 | 0.00 |  | 0.00 |  |  |" in text
    assert "At most" not in text


def test_rows_of_a_kind_are_summed():
    rows = [{"kind": "a", "type": "", "operations": 2, "ms": 1.0}] * 3
    (row,) = by_kind(rows)
    assert (row["ms"], row["operations"], row["nodes"]) == (3.0, 6, 3)


def test_the_command_times_every_layer(bundle_path, tmp_path, capsys):
    path = tmp_path / "tiny"
    shutil.copytree(bundle_path, path)
    assert main([str(path)]) == 1
    assert "python -m export.quantize" in capsys.readouterr().err
    add_int8(path, images(1), sensitive=0, noise=0, crossing=0)
    target = tmp_path / "report.json"
    options = ["--calls", "2", "--threads", "1", "--regions", "4", "--json", str(target)]
    assert main([str(path), *options]) == 0
    report = json.loads(target.read_text())
    for stage, count in (("trunk", 3), ("head", 2)):
        for rows in report["stages"][stage].values():
            layers = [row for row in rows if row["operations"]]
            assert sum(row["nodes"] for row in layers) == count
            assert sum(row["ms"] for row in rows) > 0  # a tiny layer may take 0 whole microseconds
    assert any(row["type"] == "int8" for row in report["stages"]["trunk"]["int8"])
    assert set(report["alone"]) == {kind for kind, *_ in ALONE}
    assert report["at_most"] > 0
    printed = capsys.readouterr().out
    assert "| trunk | all |" in printed
    assert "times as fast" in printed
