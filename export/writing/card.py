"""``MODEL_CARD.md``: the manifest for people, nothing that is not in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from runtime.bundle import Bundle
from zsd_core.errors import BundleError
from zsd_core.files import parse_json

__all__ = ["model_card", "renewed_card"]

CELL = 80  # characters of a table's cell; longer text stands below the table


def model_card(manifest: Mapping[str, Any], parity: Mapping[str, Any] | None = None) -> str:
    """Write the card of a bundle.

    Args:
        manifest: of the bundle. ``manifest["notes"]`` is Markdown by whoever trained the model:
            data, labeller, licences and limits in their words.
        parity: the content of ``parity.json``.
    """
    parts = [
        _introduction(manifest),
        _classes(manifest),
        _notes(manifest),
        _training(manifest),
        _scores(manifest),
        _results(manifest.get("metrics") or {}),
        _parity(parity),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def renewed_card(bundle: Bundle, **details: Any) -> bytes:
    """``MODEL_CARD.md`` of a bundle whose manifest entries ``details`` are about to be set."""
    parity = None
    if "parity.json" in bundle.manifest["files"]:
        parity = parse_json(bundle.read("parity.json"), f"{bundle.path}/parity.json", BundleError)
    return model_card({**bundle.manifest, **details}, parity).encode()


def _introduction(manifest: Mapping[str, Any]) -> str:
    model = manifest["model"]
    preprocess, scoring = model["preprocess"], model["scoring"]
    rows = {
        "Method": f"{scoring['method']}, fusion {scoring['fusion']}",
        **_networks(manifest),
        "Input": f"RGB, {square} x {square} pixels"
        if (square := preprocess.get("square"))
        else f"RGB, shorter edge {preprocess['shorter_edge']}, longer edge at most "
        f"{preprocess['longer_edge']} pixels",
        "Regions": f"at most {model['proposals']['post_nms_top']} per image",
        "Class vectors": f"{scoring['vector_dim']} numbers per class",
        "Licence": manifest.get("licence") or "not stated",
        "Made": f"{manifest.get('created', '')} by {manifest.get('generator', '')}",
    }
    return (
        f"# {manifest['name']}\n\nA zero-shot object detector: it was trained on "
        f"{_count(manifest, 'seen')} classes and finds any class given as a vector.\n\n"
        + _table(["", ""], rows.items())
    )


def _networks(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The row of the backbone, or of the detector that was given."""
    training = manifest.get("training") or {}
    if training.get("detector"):
        return {"Detector": f"{training['detector']}, as its authors trained it"}
    backbone, passes = manifest["model"]["backbone"], training.get("schedule") or {}
    frozen = f"frozen: {backbone['frozen']}"
    if passes.get("trunk_epochs"):
        frozen = (
            f"frozen for {passes['epochs']} passes over the images, then trained from stride 8 on "
            f"for {passes['trunk_epochs']}"
        )
    return {"Backbone": f"{backbone['name']}, {frozen}"}


def _classes(manifest: Mapping[str, Any]) -> str:
    lines = [
        f"- **{role}** ({_count(manifest, role)}): "
        + (", ".join(c["name"] for c in manifest["classes"] if c["role"] == role) or "none")
        for role in ("seen", "unseen")
    ]
    words = manifest.get("vocabulary") or {}
    if words.get("count"):
        facts = [f"{words['count']} names"]
        facts += [
            f"{k}: {words[k]}" for k in ("encoder", "template", "source", "licence") if words.get(k)
        ]
        lines.append(f"- **vocabulary**: {'; '.join(facts)}")
    text = manifest.get("text") or {}
    if text:
        facts = [f"{k}: {text[k]}" for k in ("encoder", "template", "licence") if text.get(k)]
        cosines = [found["worst"] for found in text.get("parity", {}).get("runtimes", {}).values()]
        if cosines:
            facts.append(f"worst cosine with {text['parity']['against']}: {min(cosines):.4f}")
        lines.append(f"- **text encoder**, for any other phrase: {'; '.join(facts)}")
    return (
        "## Classes\n\nSeen classes were trained on. Unseen classes were not: no box of them was "
        "used. Any name of the vocabulary can be asked for.\n\n" + "\n".join(lines)
    )


def _notes(manifest: Mapping[str, Any]) -> str:
    notes = str(manifest.get("notes") or "").strip()
    return f"## Data, licences and limits\n\n{notes}" if notes else ""


def _training(manifest: Mapping[str, Any]) -> str:
    training = manifest.get("training") or {}
    rows = list(_short_rows(training))
    if not rows:
        return ""
    short = [row for row in rows if len(row[1]) <= CELL]
    long = [f"- **{key}**: {' '.join(text.split())}" for key, text in rows if len(text) > CELL]
    parts = ["## Training", *([_table(["", ""], short)] if short else []), "\n".join(long)]
    return "\n\n".join(part for part in parts if part)


def _short_rows(values: Mapping[str, Any], of: str = "") -> Iterator[tuple[str, str]]:
    """One row a value; a mapping too long for a cell becomes a row for each of its entries."""
    for key, value in values.items():
        if value in ({}, [], ""):
            continue
        name, text = f"{of}{key}", _flat(value)
        if isinstance(value, Mapping) and len(text) > CELL:
            yield from _short_rows(value, f"{name}: ")
        else:
            yield name, text


def _scores(manifest: Mapping[str, Any]) -> str:
    """Meaning of a score, where ``export.calibrate`` has made probabilities of them."""
    fitted = manifest.get("scores")
    if not fitted:
        return ""
    errors = fitted["expected calibration error, percent"]
    detection = manifest["model"]["detection"]
    rows = [
        ("fitted on", f"{fitted['photographs']} photographs, {fitted['boxes']} boxes"),
        *((key, _flat(fitted[key])) for key in ("data", "subset") if fitted.get(key)),
        *(
            (
                f"{role}: a, b, c",
                _flat(entry["curve"]) + ("" if entry["fitted"] else " (not fitted here)"),
            )
            for role, entry in fitted["roles"].items()
        ),
        *(
            (f"expected calibration error, {name}", f"{errors[name]:.1f} %")
            for name in ("before", "after", "held out")
            if errors.get(name) is not None
        ),
        ("default score threshold", _flat(detection["score_threshold"])),
    ]
    if detection["unseen_threshold"] is not None:
        rows.append(("of classes that no box taught", _flat(detection["unseen_threshold"])))
    if false := fitted.get("false finds"):
        rows.append(
            (
                "found falsely above that",
                f"{false['share of photographs, percent']:g} of 100 photographs, for each of "
                f"{false['names']} names, in {false['photographs']}",
            )
        )
    return (
        "## Scores\n\nA score is the probability that a detection is right: "
        "1 / (1 + exp(-(a ln s - b ln(1 - s) + c))) of what the networks say, s. The error is over "
        f"detections above {errors['detections above']:g}, in {errors['bins of [0, 1]']} equal "
        'bins; "held out": each half of the photographs judged by the curve of the other.\n\n'
        + _table(["", ""], rows)
    )


def _results(metrics: Mapping[str, Any]) -> str:
    if not metrics:
        return "## Results\n\nNot measured. `python -m export.evaluate` measures and records them."
    parts = ["## Results"]
    for name, entry in metrics.items():
        facts = {"split": entry.get("split", {}), **entry.get("conditions", {})}
        parts.append(f"### {name}\n\n{_flat(facts)}")
        for task, report in entry.get("tasks", {}).items():
            groups = list(next(iter(report["values"].values())))
            rows = [
                (
                    measure,
                    *(
                        _number(values[g], report["intervals"].get(measure, {}).get(g))
                        for g in groups
                    ),
                )
                for measure, values in report["values"].items()
            ]
            parts.append(
                f"{task.upper()}: {report['images']} images, {report['boxes']} boxes, percent"
                f"{_interval_note(report)}\n\n" + _table(["", *groups], rows)
            )
    return "\n\n".join(parts)


def _parity(parity: Mapping[str, Any] | None) -> str:
    if parity is None:
        return ""
    rows = []
    for part in parity["comparisons"]:
        found = next(row for row in part["stages"] if row["stage"] == "detections")
        rows.append(
            (
                part["artifact"],
                part["against"],
                f"{found['matched']} of {found['expected']}",
                f"{found['score_largest']:.1e}",
                f"{found['box_largest']:.1e}",
            )
        )
    return (
        "## Parity\n\nFinal detections on fixed images with the score threshold lowered; every "
        "stage is in `parity.json`.\n\n"
        + _table(
            [
                "artifact",
                "against",
                "matched",
                "largest score difference",
                "largest box difference, px",
            ],
            rows,
        )
    )


def _count(manifest: Mapping[str, Any], role: str) -> int:
    return sum(entry["role"] == role for entry in manifest["classes"])


def _interval_note(report: Mapping[str, Any]) -> str:
    bootstrap = report.get("bootstrap") or {}
    if not bootstrap.get("samples"):
        return ""
    return f", [{bootstrap['level']:.0%} interval of {bootstrap['samples']} bootstrap samples]"


def _number(value: float | None, span: Sequence[float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" + (f" [{span[0]:.1f}, {span[1]:.1f}]" if span else "")


def _flat(value: Any) -> str:
    """Nested values on one line of Markdown."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_flat(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_flat(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in lines
    )
