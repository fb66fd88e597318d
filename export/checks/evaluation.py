"""Everything about a bundle on labelled photographs: the protocol's numbers and a scorecard."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from export.checks.labels import bundle_predictor
from runtime.bundle import Bundle
from zsd_core.errors import ConfigError, DataError
from zsd_core.learning import metrics
from zsd_core.learning.data.dataset import Dataset
from zsd_core.learning.data.protocol import Task, test_set
from zsd_core.learning.data.splits import Split
from zsd_core.learning.evaluation import predictions_of
from zsd_core.learning.matching import Matches, match
from zsd_core.learning.scorecard import scorecard
from zsd_core.semantics import fold_name

__all__ = [
    "by_name_alone",
    "evaluate_bundle",
    "everything_in",
    "renamed",
    "seen_of",
    "taught_by",
    "whole_tests",
]

TAUGHT = {"seen": "boxes", "unseen": "nothing"}  # where a manifest does not say


def everything_in(dataset: Dataset, also: Sequence[str] = ()) -> Dataset:
    """All photographs as one test of every category of their annotations.

    Args:
        dataset: photographs and their boxes.
        also: names to ask for besides, of which there is no box: what looks for them is wrong.

    Raises:
        DataError: there is no category, or a name of ``also`` is one.
    """
    names = dataset.categories or tuple(sorted({n for i in dataset.images for n in i.labels}))
    known = {fold_name(name) for name in names}
    twice = [name for name in also if fold_name(name) in known]
    if twice or not names:
        raise DataError(
            f"evaluate: {twice[0]!r} of --also is a category of the annotations."
            if twice
            else "evaluate: the annotations declare no category and hold no box."
        )
    counts = {**dataset.counts, "images": len(dataset), "boxes": dataset.boxes_per_class().total()}
    return Dataset(images=dataset.images, categories=(*names, *also), counts=counts)


def seen_of(bundle: Bundle, names: Sequence[str]) -> list[str]:
    """Names that are seen classes of the bundle's table."""
    known = {fold_name(name) for name in bundle.seen}
    return [name for name in names if fold_name(name) in known]


def taught_by(bundle: Bundle, names: Sequence[str]) -> dict[str, list[str]]:
    """Names by what taught them: "boxes", "pictures" only, or "nothing".

    The manifest's class entries say it as ``taught``; where they do not, boxes taught the seen
    classes and nothing the others.
    """
    known = {
        fold_name(entry["name"]): entry.get("taught", TAUGHT[entry["role"]])
        for entry in bundle.manifest["classes"]
    }
    pictures = bundle.manifest.get("taught", {}).get("pictures", ())
    known = dict.fromkeys(map(fold_name, pictures), "pictures") | known
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(known.get(fold_name(name), "nothing"), []).append(name)
    return groups


def evaluate_bundle(
    bundle: Bundle,
    dataset: Dataset,
    split: Split | None = None,
    *,
    tasks: Sequence[str] = ("all",),
    also: Sequence[str] = (),
    limit: int = 100,
    separate: bool = False,
    samples: int = 1000,
    seed: int = 0,
    score_threshold: float = 0.0,
    **options: Any,
) -> dict[str, Any]:
    """Everything about a bundle on labelled photographs.

    Args:
        bundle: whose detector.
        dataset: human-labelled photographs.
        split: what is seen and unseen in "zsd", "gzsd" and "seen".
        tasks: of "all", "zsd", "gzsd" and "seen".
        also: names that "all" asks for besides the categories.
        limit: detections kept per image.
        separate: see ``zsd_core.evaluate.evaluate``.
        samples: of the bootstrap.
        seed: of the bootstrap.
        score_threshold: detections must score higher to be looked at; average precision wants 0.
        **options: of ``bundle_predictor``.

    Returns:
        JSON values: the split, the conditions, and per task the counts, the numbers of
        ``metrics.report`` and those of ``scorecard``.

    Raises:
        ConfigError: a task needs a split.
        DataError: as ``run_task`` and ``everything_in``.
    """
    if split is None and any(task != "all" for task in tasks):
        raise ConfigError("evaluate: tasks zsd, gzsd and seen need --split; 'all' needs none.")
    result: dict[str, Any] = {"conditions": {}, "tasks": {}}
    named, limits = list[str](), bundle.model_config.detection
    if split is not None:
        result["split"] = {"name": split.name, "seen": len(split.seen), "unseen": len(split.unseen)}
        table = {fold_name(name) for name in bundle.seen + bundle.unseen}
        named = [name for name in split.unseen if fold_name(name) not in table]
    for task in tasks:
        if task == "all":
            test, modes = everything_in(dataset, also), cast(list[Task], ["gzsd"])
        else:
            assert split is not None
            test = test_set(dataset, split, cast(Task, task))
            modes = ["seen", "zsd"] if separate and task == "gzsd" else [cast(Task, task)]
        predict, names, conditions = bundle_predictor(
            bundle,
            None if task == "all" else split,
            score_threshold=score_threshold,
            limit=limit,
            classes=test.categories if task == "all" else None,
            **options,
        )
        predictions = predictions_of(predict, names, test, modes, f"task {task}")
        seen = split.seen if split and task != "all" else seen_of(bundle, test.categories)
        found = match(
            test.images,
            predictions,
            test.categories,
            seen,
            limit=limit,
            separate=separate and task == "gzsd",
        )
        result["tasks"][task] = {
            "counts": dict(test.counts),
            **metrics.report(found, samples=samples, seed=seed),
            **scorecard(
                test.images,
                predictions,
                test.categories,
                seen,
                limit=limit,
                samples=samples,
                seed=seed,
                threshold=limits.score_threshold,
                unseen_threshold=limits.unseen_threshold,
                groups=taught_by(bundle, test.categories),
            ),
        }
        result["conditions"] = {
            "detections per image": f"{limit} + {limit} (seen + unseen)" if separate else limit,
            "matching": "COCO; crowd and difficult boxes ignored",
            **({"zsd images": split.zsd_images} if split else {}),
            **({"asked for besides": len(also)} if also else {}),
            **({"unseen names that the class table lacks": len(named)} if named else {}),
            **conditions,
        }
    return result


def by_name_alone(bundle: Bundle, names: Sequence[str]) -> dict[str, Any]:
    """Vectors of names under names that no table holds, so that no box taught them.

    Raises:
        DataError: a name has no vector.
    """
    table = {fold_name(name): row for row, name in enumerate(bundle.seen + bundle.unseen)}
    vectors = {}
    for name in names:
        row = bundle.vocabulary.row(name)
        if row >= 0:
            vector = bundle.vocabulary.unit_vectors(np.array([row]))[0]
        elif (place := table.get(fold_name(name), -1)) >= 0:
            vector = bundle.class_vectors[place]
        else:
            raise DataError(f"neither table nor vocabulary has a vector of {name!r}.")
        vectors[f"{name} (by its name alone)"] = vector
    return vectors


def renamed(dataset: Dataset, names: Mapping[str, str]) -> Dataset:
    """The same photographs with other names for their categories."""
    images = [
        dataclasses.replace(image, labels=tuple(names[label] for label in image.labels))
        for image in dataset.images
    ]
    return dataclasses.replace(
        dataset,
        images=tuple(images),
        categories=tuple(names[name] for name in dataset.categories),
    )


def whole_tests(bundle: Bundle, dataset: Dataset, **options: Any) -> dict[str, Matches]:
    """Look for all categories of the annotations, matched to their boxes.

    Args:
        bundle: whose detector.
        dataset: human-labelled photographs.
        **options: of ``bundle_predictor``.

    Returns:
        "all"; and, of a model with a second look, "by name": the same categories as if no box had
        taught them, so that the look alone decides.
    """
    test = everything_in(dataset)
    tests: dict[str, tuple[Dataset, Any, Sequence[str]]] = {
        "all": (test, test.categories, seen_of(bundle, test.categories))
    }
    if bundle.model_config.regions.look:
        vectors = by_name_alone(bundle, test.categories)
        tests["by name"] = (
            renamed(test, dict(zip(test.categories, vectors, strict=True))),
            vectors,
            (),
        )
    found = {}
    for name, (asked, classes, seen) in tests.items():
        predict, names, _ = bundle_predictor(bundle, None, classes=classes, **options)
        predictions = predictions_of(predict, names, asked, ["gzsd"], name)
        found[name] = match(asked.images, predictions, asked.categories, seen)
    return found
