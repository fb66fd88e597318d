"""The manifest of a bundle: its format, and everything that is checked before a bundle is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.archive import MANIFEST, safe_names
from zsd_core.config import IMAGE, ModelConfig
from zsd_core.errors import BundleError
from zsd_core.files import parse_json, shown
from zsd_core.semantics import fold_name, name_fault

__all__ = ["FORMAT", "SCORER", "VOCABULARY", "check_stages", "parse_manifest"]

FORMAT = 1
SCORER = "scorer.safetensors"
VOCABULARY = "vocabulary.safetensors"
ROLES = ("seen", "unseen")
MOST = 2**63 - 1  # of whole numbers: every reader holds them in 64 bits
SIDES = ("inputs", "outputs")
OPTIONAL: dict[str, type] = {
    **dict.fromkeys(("precisions", "vocabulary", "text", "training", "metrics", "scores"), dict),
    "engines": list,
}
TAUGHT = ("boxes", "pictures", "nothing")  # what may have taught a class, a key of its entry


def parse_manifest(path: Path, text: str) -> dict[str, Any]:
    """Parse a manifest and check all that this version relies on."""
    where = f"{path}/{MANIFEST}"
    manifest = parse_json(text, where, BundleError, strict=True)
    if not isinstance(manifest, dict) or not _whole(manifest.get("format"), 1, 2**64):
        raise BundleError(f"{where} has no integer 'format' of at least 1; is this a bundle?")
    if manifest["format"] > FORMAT:
        raise BundleError(
            f"{where} has format {shown(manifest['format'])}, this version reads up to {FORMAT}. "
            "Upgrade: pip install -U contrastzsd"
        )
    kinds: dict[str, type] = {
        "name": str,
        "model": dict,
        "classes": list,
        "stages": dict,
        "files": dict,
    }
    for key, kind in kinds.items():
        if not isinstance(manifest.get(key), kind):
            raise BundleError(f"{where}: {key!r} is missing or not a {kind.__name__}.")
    if fault := name_fault(manifest["name"]):
        raise BundleError(f"{where}: the name of the bundle, {shown(manifest['name'])}, {fault}.")
    for key, kind in OPTIONAL.items():
        if not isinstance(manifest.get(key, kind()), kind):
            raise BundleError(f"{where}: {key!r} is not a {kind.__name__}.")
    if not _whole(manifest.get("background_index", 0), 0, 0):
        raise BundleError(
            f"{where}: background_index is {shown(manifest['background_index'])}, not 0."
        )
    safe_names(path, manifest["files"])
    for name, record in manifest["files"].items():
        if not (
            isinstance(record, dict)
            and isinstance(record.get("sha256"), str)
            and _whole(record.get("bytes"), 0, MOST)
        ):
            raise BundleError(f"{where}: files[{name!r}] needs 'sha256' and 'bytes'.")
    for name in (SCORER, VOCABULARY):
        if name not in manifest["files"]:
            raise BundleError(f"{where}: {name} is not listed; export the bundle again.")
    _check_classes(where, manifest["classes"])
    _check_text(where, manifest)
    files = manifest["files"]
    for stage, entry in manifest["stages"].items():
        if not (isinstance(entry, dict) and _listed(files, entry.get("file"))):
            raise BundleError(f"{where}: stage {shown(stage)} names no listed file.")
        for side in SIDES:
            _check_values(f"{where}: stage {shown(stage)}, {side}", entry.get(side, []))
    for precision, made in manifest.get("precisions", {}).items():
        _check_precision(f"{where}: precisions[{shown(precision)}]", files, made)
    for index, engine in enumerate(manifest.get("engines", ())):
        if not (isinstance(engine, dict) and _listed(files, engine.get("file"))):
            raise BundleError(f"{where}: engines[{index}] names no listed file.")
    return manifest


def _whole(value: Any, least: int, most: int) -> bool:
    """Whether a value is an integer, and no flag, between ``least`` and ``most``."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _listed(files: Mapping[str, Any], name: Any) -> bool:
    """Whether a value of the manifest is the name of a listed file."""
    return isinstance(name, str) and name in files


def _check_values(where: str, values: Any) -> None:
    """Inputs or outputs of a stage."""
    if not isinstance(values, list):
        raise BundleError(f"{where} are {shown(values)}, must be a list. Export the bundle again.")
    for value in values:
        if not (
            isinstance(value, dict)
            and isinstance(value.get("name"), str)
            and isinstance(value.get("shape"), list)
            and all(isinstance(side, str) or _whole(side, 0, MOST) for side in value["shape"])
        ):
            raise BundleError(
                f"{where}: {shown(value)} must be an object with a name and a shape of whole "
                "numbers and names. Export the bundle again."
            )


def _check_precision(where: str, files: Mapping[str, Any], made: Any) -> None:
    """Networks in another precision."""
    families = made.get("networks") if isinstance(made, dict) else None
    if not isinstance(families, dict) or not all(isinstance(f, dict) for f in families.values()):
        raise BundleError(f"{where} names no networks by family and stage. Make them again.")
    for name in (name for networks in families.values() for name in networks.values()):
        if not _listed(files, name):
            raise BundleError(f"{where} names {shown(name)}, which is no listed file.")
    levels = made.get("weight_levels", {})
    if not (isinstance(levels, dict) and all(_whole(n, 0, MOST) for n in levels.values())):
        raise BundleError(f"{where}.weight_levels is {shown(levels)}, must hold whole numbers.")


def check_stages(where: str, model: ModelConfig, seen: int, stages: Mapping[str, Any]) -> None:
    """The trunk must give what the model's regions need, and the head read them.

    Args:
        where: the manifest, for messages.
        model: configuration of the model.
        seen: number of seen classes.
        stages: the manifest's entries.
    """
    regions = model.regions
    trunk, head = stages.get("trunk", {}), stages.get("head", {})
    values = {
        "trunk": [value["name"] for value in trunk.get("outputs", ())],
        "head": [tuple(value["shape"][2:]) for value in head.get("inputs", ())],
    }
    maps = [name for name, _ in regions.maps if name != IMAGE]
    offered = model.proposals.source == "queries"
    wanted = {
        "trunk": ["boxes", "logits"] if offered else [*maps, "objectness", "deltas"],
        "head": [regions.bins(step) for _, step in regions.maps],
    }
    for stage, found in values.items():
        if stage in stages and found != wanted[stage]:
            what = "outputs are" if stage == "trunk" else "inputs have bins"
            raise BundleError(
                f"{where}: the {stage}'s {what} {found}, model.regions means {wanted[stage]}. "
                "Export the bundle again."
            )
    for stage, side, count in (("trunk", "inputs", 1), ("head", "outputs", 2)):
        there = stages.get(stage, {}).get(side, ())
        if stage in stages and len(there) != count:
            raise BundleError(
                f"{where}: the {stage} has {len(there)} {side}, must have {count}. Export the "
                "bundle again."
            )
    if offered and trunk and trunk["outputs"][1]["shape"][-1:] != [seen]:
        raise BundleError(
            f"{where}: the trunk has logits of shape {trunk['outputs'][1]['shape']}, and the class "
            f"table holds {seen} seen ones. Export the bundle again."
        )


def _check_text(where: str, manifest: Mapping[str, Any]) -> None:
    """The entry of the text encoder, if there is one."""
    entry = manifest.get("text", {})
    if not entry:
        return
    numbers = {"max_tokens": (1, 1 << 16), "padding": (0, 1 << 31), "width": (1, 1 << 16)}
    listed = all(_listed(manifest["files"], entry.get(key)) for key in ("network", "tokenizer"))
    if not listed or not all(_whole(entry.get(key), *ends) for key, ends in numbers.items()):
        raise BundleError(
            f"{where}: 'text' must name a listed network and tokenizer and say max_tokens, padding "
            "and width. Make it again: python -m export.text BUNDLE"
        )


def _check_classes(where: str, classes: list[Any]) -> None:
    roles, names = [], set()
    for index, entry in enumerate(classes):
        if not (
            isinstance(entry, dict)
            and isinstance(entry.get("name"), str)
            and entry.get("role") in ROLES
        ):
            raise BundleError(
                f"{where}: classes[{index}] is {shown(entry)}, needs a name and a role."
            )
        if entry.get("taught", TAUGHT[0]) not in TAUGHT:
            raise BundleError(
                f"{where}: classes[{index}] was taught by {shown(entry['taught'])}, must be one of "
                f"{', '.join(map(repr, TAUGHT))}."
            )
        if not fold_name(entry["name"]):
            raise BundleError(f"{where}: the name of classes[{index}] is blank.")
        if fault := name_fault(entry["name"]):
            raise BundleError(
                f"{where}: the name of classes[{index}], {shown(entry['name'])}, {fault}."
            )
        if fold_name(entry["name"]) in names:
            raise BundleError(f"{where}: class {shown(entry['name'])} is there twice.")
        names.add(fold_name(entry["name"]))
        roles.append(entry["role"])
    if roles != sorted(roles):
        raise BundleError(f"{where}: seen classes must come before unseen ones.")
