"""The benchmark of the operators, at sizes where only its bookkeeping matters."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.operators import __main__ as operators
from benchmarks.operators.scoring import VARIANTS, Sizes, linear_rows, random_arrays, scoring_rows
from benchmarks.operators.shipped import Shipped, lost
from benchmarks.operators.table import SHIPPED, Row, table
from benchmarks.operators.timing import Bench, extra_mb


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_rows_hold_what_the_table_and_the_json_need(capsys):
    rows = scoring_rows(Bench(1), Sizes(6, 32, 16), (5, 300))
    names = [variant.name for variant in VARIANTS]
    expected = [(name, 5) for name in names[:3]] + [(name, 300) for name in names]
    assert [(row.variant, row.classes) for row in rows] == expected
    printed = capsys.readouterr().out
    assert all(library in printed for library in ("torch", "oneDNN", "ONNX Runtime"))
    for row in rows:
        record = json.loads(json.dumps(row.record()))
        assert record["ratio"] == pytest.approx(row.ms / row.reference_ms)
        assert row.ms > 0 and row.reference_ms > 0
        assert any(bar.startswith("ratio <= ") for bar in record["bars"])
    assert rows[0].max_difference < 1e-6  # from eager PyTorch
    assert 0 < rows[2].max_difference < 0.01  # int8
    assert rows[1].zeros == pytest.approx(0.5, abs=0.15)
    lines = table(rows).splitlines()
    assert len(lines) == len(rows) + 2
    assert len({line.count("|") for line in lines}) == 1


def test_a_row_of_linear_is_what_torch_computes():
    rows = linear_rows(Bench(1), (16, 24), (1, 5))
    assert [(row.variant, row.classes) for row in rows] == [
        ("16 to 16", 1),
        ("16 to 16", 5),
        ("24 to 24", 1),
        ("24 to 24", 5),
    ]
    for row in rows:
        assert row.operator == "linear" and row.ms > 0 and row.reference_ms > 0
        assert 0 <= row.max_difference < 1e-5
    assert len(table(rows).splitlines()) == 2 + 4


def test_the_shipped_model_scores_regions_of_photographs():
    model = Shipped.open()
    classes = model.classes(100)
    assert len(classes.prototypes) == 101
    assert len(set(classes.names)) == 100
    exact = model.detections(classes, 0.001)
    again = model.detections(classes, 0.0005, shortlist=101, most=1000)
    assert lost(exact, again)[1:] == (0, 0.0)  # a shortlist of all classes changes nothing
    none = model.detections(classes, 2.0)
    total, missing, _ = lost(exact, none)
    assert total == missing > 0


def test_a_lost_detection_has_no_counterpart_of_its_class_and_place():
    def found(*columns: int, score: float, x: float = 0.0):
        boxes = np.tile(np.float32([x, 0, x + 10, 10]), (len(columns), 1))
        return boxes, np.full(len(columns), score, np.float32), np.asarray(columns, np.int32)

    exact = [found(1, 2, score=0.5)]
    assert lost(exact, [found(2, 1, score=0.25)]) == (2, 0, 0.25)
    assert lost(exact, [found(1, score=0.5)]) == (2, 1, 0.0)
    assert lost(exact, [found(1, 2, score=0.5, x=8)]) == (2, 2, 0.0)


def test_bars_say_met_not_met_and_not_measured():
    def row(**values):
        return Row(
            operator=SHIPPED, variant="int8 dense", ms=1, reference="", reference_ms=1, **values
        )

    assert list(row(max_difference=0.01, top1_agreement=0.995).bars().values()) == [True, True]
    assert list(row(max_difference=0.02).bars().values()) == [False, None]
    line = table([row(max_difference=0.02)]).splitlines()[-1]
    assert "max_difference <= 0.01: NOT MET; top1_agreement >= 0.995: not measured" in line


def test_half_zero_prototypes_are_half_zero():
    prototypes = random_arrays(Sizes(2, 100, 8), 50, 0.5)[1]
    assert 0.45 < (prototypes == 0).mean() < 0.55
    assert not (random_arrays(Sizes(2, 100, 8), 50, 0.0)[1] == 0).any()


def test_extra_memory_is_what_a_call_holds_at_most_beyond_its_result():
    def call():
        temporary = np.ones(8_000_000)  # 64 MB
        return [temporary[:1_000_000].copy()]  # of 8 MB

    measured = extra_mb(call)
    assert measured is None or 50 < measured < 80


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        operators.main(["--help"])
    text = capsys.readouterr().out
    assert "python -m benchmarks.operators --json" in text
    assert all(part in text for part in operators.PARTS)


def test_wrong_options_are_refused_before_the_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(operators.PARTS, "classes", lambda bench: pytest.fail("measured first"))
    with pytest.raises(SystemExit):
        operators.main(["--only", "classes", "--calls", "0"])
    assert "--calls must be at least 1" in capsys.readouterr().err
    assert operators.main(["--only", "classes", "--json", str(tmp_path)]) == 1
    assert "it is a folder; name another file" in capsys.readouterr().err
