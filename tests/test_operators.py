"""The benchmark of the operators, at sizes where only its bookkeeping matters."""

from __future__ import annotations

import json

import pytest

from benchmarks import operators


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_rows_hold_what_the_table_and_the_json_need(capsys):
    rows = operators._product_mlp_rows(operators.Bench(1), 6, 32, 16, (5, 300))
    variants = [(row.variant, row.classes) for row in rows]
    assert variants == [
        *((v, 5) for v in ("float32 dense", "float32 half zero", "int8 dense")),
        *((v, 300) for v in ("float32 dense", "float32 half zero", "int8 dense")),
        ("float32 shortlist 128", 300),
    ]
    assert "GEMM torch" in capsys.readouterr().out
    for row in rows:
        record = json.loads(json.dumps(row.record()))
        assert record["ratio"] == pytest.approx(row.ms / row.reference_ms)
        assert row.ms > 0 and row.reference_ms > 0
    dense = rows[0]
    assert dense.max_difference == 0
    assert dense.top1_agreement == 1
    lines = operators.table(rows).splitlines()
    assert len(lines) == len(rows) + 2
    assert len({line.count("|") for line in lines}) == 1


def test_half_zero_prototypes_are_half_zero():
    prototypes = operators._mlp_arrays(2, 50, 100, 8, 0.5)[1]
    assert 0.45 < (prototypes == 0).mean() < 0.55
    assert not (operators._mlp_arrays(2, 50, 100, 8, 0.0)[1] == 0).any()
