"""One line of the operators' benchmark, what is required of it, and both as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["SHIPPED", "Bar", "Row", "table"]

SHIPPED = "product_mlp, shipped model"


@dataclass(frozen=True, slots=True)
class Bar:
    """Limit that one field of a row must keep."""

    field: str
    limit: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Whether ``value`` keeps it."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        """As ``ratio <= 0.4``."""
        return f"{self.field} {'>=' if self.at_least else '<='} {self.limit:g}"


_MEMORY = Bar("extra_mb", 64)
_INT8 = Bar("max_difference", 0.01), Bar("top1_agreement", 0.995, at_least=True)
_SHORTLIST = Bar("detections_lost", 0.005), Bar("score_difference", 0.01)
# By operator and the beginning of the variant. What depends on the weights is asked of the model
# that ships, what depends on the size of the paper's sizes.
_BARS: tuple[tuple[str, str, tuple[Bar, ...]], ...] = (
    ("product_mlp", "float32 dense", (Bar("ratio", 1.05), _MEMORY)),
    ("product_mlp", "float32 half zero", (Bar("ratio", 0.6), _MEMORY)),
    ("product_mlp", "int8", (Bar("ratio", 0.4), _MEMORY)),
    ("product_mlp", "float32 shortlist", (Bar("ratio", 3.0), _MEMORY)),
    (SHIPPED, "int8 dense", _INT8),
    (SHIPPED, "float32 shortlist", _SHORTLIST),
    ("roi_align", "forward 300 x 1024", (Bar("ratio", 0.35),)),
    ("propose", "", (Bar("ratio", 1.0),)),
    ("detect", "", (Bar("ratio", 1.0),)),
    ("preprocess", "", (Bar("ratio", 1.0),)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: times in milliseconds, memory in megabytes, shares in [0, 1].

    Attributes:
        operator: its name, or ``SHIPPED`` for the arrays of the bundle's own model.
        variant: precision and sort of prototypes, or the size.
        classes: K, background and all.
        ms: median wall time.
        reference: what ``reference_ms`` is the median time of.
        gflops: 10^9 multiplications and additions per second, counted as if nothing were skipped.
        share_of_ceiling: the same relative to the machine's fastest GEMM.
        extra_mb: most memory beyond the inputs and the result, packed weights included.
        max_difference: of the softmax over classes from the exact one; of an output elsewhere.
        top1_agreement: share of regions whose best class is the exact one's.
        zeros: share of the prototypes' entries that are exactly 0.
        detections: of the exact scores, in the photographs.
        detections_lost: share of them with no counterpart in the variant's.
        score_difference: largest of counterparts.
    """

    operator: str
    variant: str
    ms: float
    reference: str
    reference_ms: float
    classes: int | None = None
    gflops: float | None = None
    share_of_ceiling: float | None = None
    extra_mb: float | None = None
    max_difference: float | None = None
    top1_agreement: float | None = None
    zeros: float | None = None
    detections: int | None = None
    detections_lost: float | None = None
    score_difference: float | None = None

    @property
    def ratio(self) -> float:
        """Share of the reference's time that this takes."""
        return self.ms / self.reference_ms

    def bars(self) -> dict[Bar, bool | None]:
        """Bars of this row, and whether it is met; None where it was not measured."""
        verdicts: dict[Bar, bool | None] = {}
        for operator, variant, bars in _BARS:
            if self.operator == operator and self.variant.startswith(variant):
                for bar in bars:
                    value = getattr(self, bar.field)
                    verdicts[bar] = None if value is None else bar.met(value)
        return verdicts

    def record(self) -> dict[str, Any]:
        """The row as JSON holds it, with ``ratio`` and ``bars``."""
        bars = {str(bar): met for bar, met in self.bars().items()}
        return {**asdict(self), "ratio": self.ratio, "bars": bars}


_VERDICTS = {True: "met", False: "NOT MET", None: "not measured"}
_COLUMNS = (
    ("classes", "classes", ""),
    ("ms", "ms", ".2f"),
    ("reference", "reference", ""),
    ("reference ms", "reference_ms", ".2f"),
    ("ratio", "ratio", ".3f"),
    ("GFLOP/s", "gflops", ".0f"),
    ("of ceiling", "share_of_ceiling", ".0%"),
    ("extra MB", "extra_mb", ".1f"),
    ("max difference", "max_difference", ".1e"),
    ("top-1", "top1_agreement", ".2%"),
    ("zeros", "zeros", ".0%"),
    ("detections", "detections", ""),
    ("lost", "detections_lost", ".2%"),
    ("score difference", "score_difference", ".1e"),
)


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown, each with its bars and whether it meets them."""
    titles = ["operator", "variant", *(title for title, _, _ in _COLUMNS), "bar"]
    lines = [_line(titles), _line("---" for _ in titles)]
    for row in rows:
        values = ((getattr(row, field), form) for _, field, form in _COLUMNS)
        cells = ["" if value is None else format(value, form) for value, form in values]
        bars = "; ".join(f"{bar}: {_VERDICTS[met]}" for bar, met in row.bars().items())
        lines.append(_line([row.operator, row.variant, *cells, bars]))
    return "\n".join(lines)


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"
