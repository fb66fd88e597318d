"""Checks of the CUDA operators that detectors of somebody else's need, as in ``cases``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zsd_core.kernels import offered, reference

__all__ = ["given_cases"]

NAN = float("nan")


def values(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator)


def largest(difference: Any) -> float:
    return float(np.abs(np.asarray(difference)).max(initial=0.0))


def garbage(size: int) -> Tensor:
    return torch.full((size,), 0xAB, dtype=torch.uint8)


def integers(*shape: int) -> Tensor:
    return torch.full(shape, 77, dtype=torch.int32)


TOP_SHAPES = [
    # B, Q, Ks, count
    (0, 5, 3, 4),
    (2, 0, 3, 4),
    (1, 1, 1, 1),
    (2, 9, 0, 4),  # no seen class: all are equal
    (2, 37, 5, 11),
    (3, 70, 40, 100),  # fewer queries than asked for; more classes than lanes
]


def check_top_regions(engine: Any, shape: tuple[int, ...], seed: int = 0) -> None:
    batch, queries, classes, count = shape
    make = torch.Generator().manual_seed(seed + sum(shape))
    centre, size = values(make, batch, queries, 2), values(make, batch, queries, 2)
    boxes = torch.cat([centre - size / 2, centre + size / 2], dim=2)
    # Steps of a quarter: many ties, which the lower index wins.
    logits = (16 * values(make, batch, queries, classes) - 8).round() / 4
    if batch > 1 and classes and queries:
        logits[0, 0] = -0.0
        logits[0, 1] = 0.0
        logits[0, 2, -1] = NAN  # behind all others
        logits[1, 3] = -float("inf")
        boxes[1, 4, 0] = NAN  # dropped
    sizes = torch.tensor([[40.0, 60], [33, 50], [64, 64]])[:batch]
    capacity = batch * count
    rois, kept = torch.full((capacity, 4), NAN), torch.full((capacity, classes), NAN)
    images, objectness, total = integers(capacity), torch.full((capacity,), NAN), integers(1)
    room = engine.module.top_regions_workspace(batch, queries, count=count)
    engine.call(
        "top_regions",
        boxes,
        logits,
        sizes,
        rois,
        images,
        objectness,
        kept,
        total,
        garbage(room),
        count=count,
        min_size=4.0,
    )
    arrays = (a.numpy() for a in (boxes, logits, sizes))
    exact, owners, likely, rows = offered.top_regions(*arrays, count=count, min_size=4.0)
    n = int(total[0])
    assert n == len(exact), (n, len(exact))
    assert np.array_equal(rois[:n].numpy(), exact)  # the same few roundings
    assert images[:n].tolist() == owners.tolist()
    assert np.array_equal(kept[:n].numpy(), rows, equal_nan=True)
    np.testing.assert_allclose(objectness[:n].numpy(), likely, rtol=1e-6, atol=0)
    assert not any(a[n:].any() for a in (rois, objectness, kept))
    assert bool((images[n:] == -1).all())


LOOK_SHAPES = [
    # B, regions of each image, room for regions, count, threshold
    (0, (), 0, 3, 0.5),
    (1, (0,), 4, 3, 0.5),  # room, and nothing in it
    (1, (1,), 1, 1, 0.5),
    (2, (9, 0), 16, 6, 0.4),
    (3, (40, 33, 27), 130, 6, 0.4),  # several words of suppression bits
    (2, (70, 5), 75, 50, 0.8),  # less than asked for
]


def check_second_look(engine: Any, shape: tuple[Any, ...], seed: int = 0) -> None:
    batch, each, capacity, count, threshold = shape
    make = torch.Generator().manual_seed(seed + capacity + count)
    total = sum(each)
    corners = 40 * values(make, total, 2)
    found = torch.cat([corners, corners + 5 + 40 * values(make, total, 2)], dim=1)
    if total > 3:
        found[2] = found[1]  # of two equal regions the first
    owners = torch.repeat_interleave(torch.arange(len(each)), torch.tensor(each, dtype=torch.int64))
    rois, images = torch.zeros(capacity, 4), torch.full((capacity,), -1, dtype=torch.int32)
    rois[:total], images[:total] = found, owners.int()
    places, looked, number = integers(batch * count), integers(batch * count), integers(1)
    cut = torch.full((batch * count, 4), NAN)
    room = engine.module.second_look_workspace(capacity, batch=batch, count=count)
    engine.call(
        "second_look",
        rois,
        images,
        torch.tensor([total], dtype=torch.int32),
        places,
        cut,
        looked,
        number,
        garbage(room),
        batch=batch,
        count=count,
        nms_threshold=threshold,
    )
    exact = offered.second_look(
        found.numpy(),
        images[:total].numpy(),
        np.linspace(1, 0, total, dtype=np.float32),
        count=count,
        nms_threshold=threshold,
        nms=reference.nms,
    )
    n = int(number[0])
    assert places[:n].tolist() == exact.tolist()
    assert np.array_equal(cut[:n].numpy(), found.numpy()[exact])
    assert looked[:n].tolist() == owners.numpy()[exact].tolist()
    assert not cut[n:].any()
    assert bool((places[n:] == -1).all()) and bool((looked[n:] == -1).all())


PROTOTYPE_SHAPES = [
    # R, L, Ks, U, P
    (0, 0, 3, 2, 5),
    (4, 0, 3, 2, 5),  # nothing is looked at
    (3, 2, 4, 0, 5),  # no class but the detector's
    (2, 1, 0, 1, 1),
    (7, 3, 5, 9, 13),
    (13, 10, 3, 300, 700),  # several blocks of classes, of looks and of depth
]


def check_score_prototypes(
    engine: Any, shape: tuple[int, ...], contest: float, rivalry: float, seed: int = 0
) -> None:
    regions, looked, seen, unseen, width = shape
    make = torch.Generator().manual_seed(seed + sum(shape))
    logits, objectness = 8 * values(make, regions, seen) - 4, values(make, regions)
    embeddings = (values(make, looked, width) - 0.5) / max(width, 1) ** 0.5
    prototypes = 8 * (values(make, seen + unseen, width) - 0.5)
    thresholds = values(make, seen + unseen)
    thresholds[seen + 1 :: 3] = float("inf")  # classes that nobody asks for: no rivals
    places = torch.arange(regions, dtype=torch.int32) % (looked + 1) - 1  # some looks hold for two
    options = {"seen_scale": 0.75, "objectness_power": 0.5}
    options |= {"contest": contest, "contest_margin": 0.25, "rivalry": rivalry}
    arguments = [logits, objectness, embeddings, places]

    def scored(kind: type[np.floating[Any]]) -> Any:
        """The definition, in a type."""
        numbers = (a.numpy().astype(kind) for a in (logits, objectness, embeddings, prototypes))
        offers, likely, looks, rows = numbers
        asked = thresholds.numpy()[seen:] < np.inf
        scores = np.zeros((regions, seen + unseen), kind)
        scores[:, :seen] = kind(0.75) / (1 + np.exp(-offers))
        for region, place in enumerate(places.tolist()):
            if place < 0:
                continue
            said = rows @ looks[place]
            against = kind(rivalry) * said[:seen].max(initial=0)
            likely_look = 1 / (1 + np.exp(against - said[seen:]))
            scores[region, seen:] = likely[region] ** kind(0.5) * likely_look
            rival = said[seen:].max(where=asked, initial=-np.inf) - np.log(kind(max(sum(asked), 1)))
            ahead = rival - np.maximum(said[:seen], 0)
            if contest:
                with np.errstate(over="ignore"):
                    scores[region, :seen] /= 1 + np.exp(kind(contest) * (ahead - kind(0.25)))
        return scores

    exact = scored(np.float64)
    bar = 2 * largest(scored(np.float32) - exact) + torch.finfo(torch.float32).eps
    output = torch.full((regions, seen + unseen), NAN)
    room = engine.module.score_prototypes_workspace(looked, seen + unseen)
    engine.call(
        "score_prototypes", *arguments, prototypes, thresholds, output, garbage(room), **options
    )
    error = largest(output.numpy() - exact)
    assert error <= bar, f"error {error:.2e}, twice numpy's is {bar:.2e}"

    # The same classes in room for more, which holds what must not matter.
    roomy, limits = torch.full((seen + unseen + 40, width), NAN), torch.zeros(seen + unseen + 40)
    roomy[: seen + unseen], limits[: seen + unseen] = prototypes, thresholds
    output = torch.full((regions, seen + unseen + 40), NAN)
    counts = torch.tensor([seen, unseen], dtype=torch.int32)
    memory = garbage(engine.module.score_prototypes_workspace(looked, seen + unseen + 40))
    engine.call(
        "score_prototypes", *arguments, roomy, limits, output, memory, in_use=counts, **options
    )
    assert largest(output[:, : seen + unseen].numpy() - exact) <= bar
    assert not output[:, seen + unseen :].any()


SPOKEN_SHAPES = [
    # regions of each image, room for regions, looks, threshold
    ((0,), 0, 2, 0.5),
    ((3,), 4, 0, 0.5),
    ((9, 5), 20, 6, 0.3),
    ((90, 60), 150, 12, 0.3),  # two blocks
    ((9, 5), 20, 6, 1.0),  # a look holds for its own region only
]


def check_spoken_for(engine: Any, shape: tuple[Any, ...], seed: int = 0) -> None:
    each, capacity, looked, threshold = shape
    make, total = torch.Generator().manual_seed(seed + capacity + looked), sum(each)
    corners = 30 * values(make, total, 2)
    rois, images = torch.zeros(capacity, 4), torch.full((capacity,), -1, dtype=torch.int32)
    rois[:total] = torch.cat([corners, corners + 5 + 30 * values(make, total, 2)], dim=1)
    counts = torch.tensor(each, dtype=torch.int64)
    images[:total] = torch.repeat_interleave(torch.arange(len(each)), counts).int()
    if total > 4:
        rois[3] = rois[1]
    chosen = torch.randperm(total, generator=make)[:looked].sort().values
    positions = torch.full((looked,), -1, dtype=torch.int32)
    positions[: len(chosen)] = chosen.int()
    if looked > 2:
        positions[1] = -1  # room for a look that there was not
    deltas = values(make, looked, 4)
    places, offsets = integers(capacity), torch.full((capacity, 4), NAN)
    engine.call("spoken_for", rois, images, positions, deltas, places, offsets, threshold=threshold)
    moved, boxes = torch.zeros(capacity, 4), rois.double().numpy()
    for r in range(capacity):
        holds = -1
        for place, position in enumerate(positions.tolist()):
            if position == r:
                moved[r] = deltas[place]
            if holds >= 0 or position < 0 or images[r] < 0 or images[position] != images[r]:
                continue
            overlap = reference.iou(boxes[position], boxes[r][None])[0]
            if position == r or overlap > threshold:
                holds = place
        assert int(places[r]) == holds, r
    assert torch.equal(offsets, moved)


def given_cases() -> dict[str, Callable[..., None]]:
    """Every operator of this file on every shape, by name ``operator-number``."""
    checks: dict[str, tuple[Callable[..., None], list[Any]]] = {
        "top_regions": (check_top_regions, TOP_SHAPES),
        "second_look": (check_second_look, LOOK_SHAPES),
        "spoken_for": (check_spoken_for, SPOKEN_SHAPES),
    }
    cases: dict[str, Callable[..., None]] = {
        f"{name}-{number}": partial(check, shape=shape)
        for name, (check, shapes) in checks.items()
        for number, shape in enumerate(shapes)
    }
    for number, shape in enumerate(PROTOTYPE_SHAPES):
        for how, roles in (("alone", (0.0, 0.0)), ("contest", (3.0, 0.0)), ("both", (2.0, 0.7))):
            cases[f"score_prototypes-{how}-{number}"] = partial(
                check_score_prototypes, shape=shape, contest=roles[0], rivalry=roles[1]
            )
    return cases
