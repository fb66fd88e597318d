"""Checks of the CUDA operators on shapes an engine can run: one function per operator.

Every ``check_*`` calls one operator through an engine and compares with the float64 twin; the bar
is the error PyTorch itself makes at that dtype, twice, plus one unit of rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from cuda_proof.given_cases import given_cases
from torch import Tensor

from zsd_core.kernels import reference

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# R, K, D, M of product_mlp
MLP_SHAPES = [
    (0, 3, 8, 8),  # no proposals: an ordinary image
    (4, 0, 8, 8),  # no classes
    (1, 1, 1, 1),
    (7, 5, 24, 16),  # divides no tile
    (3, 5, 13, 9),  # rows that are not aligned
    (9, 16, 112, 136),  # two blocks, several stages, two passes: the paper's, cut down
    (7, 5, 48, 16),  # rows aligned for int8 too
]


def values(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator)


def largest(difference: Any) -> float:
    return float(np.abs(np.asarray(difference)).max(initial=0.0))


def mlp_arguments(
    shape: tuple[int, int, int, int], dtype: torch.dtype, seed: int = 0
) -> list[Tensor]:
    regions, classes, depth, hidden = shape
    make = torch.Generator().manual_seed(seed + sum(shape))
    return [
        (values(make, regions, depth) - 0.3).relu().to(dtype),
        (values(make, classes, depth) - 0.3).relu().to(dtype),
        ((values(make, hidden, depth) - 0.5) / depth**0.5).to(dtype),
        values(make, hidden) - 0.5,
        (values(make, hidden) - 0.5) / hidden**0.5,
        values(make, 1),
    ]


def check_product_mlp(
    engine: Any, shape: tuple[int, int, int, int], dtype: str, seed: int = 0
) -> None:
    arguments = mlp_arguments(shape, DTYPES[dtype], seed)
    output = torch.full(shape[:2], float("nan"))
    engine.call("product_mlp", *arguments, output)

    exact = reference.product_mlp(*(a.double().numpy() for a in arguments))
    regions, prototypes, *layers = (a.to(DTYPES[dtype]) for a in arguments)
    weight1, bias1, weight2, bias2 = layers
    eager = ((regions[:, None] * prototypes) @ weight1.T + bias1).relu() @ weight2 + bias2
    bar = 2 * largest(eager.double().numpy() - exact) + torch.finfo(DTYPES[dtype]).eps
    error = largest(output.numpy() - exact)
    assert error <= bar, f"error {error:.2e}, twice PyTorch's is {bar:.2e}"


def check_product_mlp_int8(engine: Any, shape: tuple[int, int, int, int], seed: int = 0) -> None:
    arguments = mlp_arguments(shape, torch.float16, seed)
    regions, prototypes, weight1, bias1, weight2, bias2 = arguments
    slopes, direction, rest = reference.split_weights(weight1.float().numpy(), weight2.numpy())
    split = dict(
        zip(("slope", "direction"), map(torch.from_numpy, (slopes, direction)), strict=True)
    )
    integers, scales = map(torch.from_numpy, reference.quantize_weights(rest))

    def run() -> Any:
        output = torch.full(shape[:2], float("nan"))
        engine.call(
            "product_mlp",
            regions,
            prototypes,
            integers,
            bias1,
            weight2,
            bias2,
            output,
            weight_scale=scales,
            **split,
        )
        return output.numpy()

    # The twin in float32 rounds as the kernel does: the same integers, and their sums are exact.
    clean = run()
    twin = reference.product_mlp_int8(*(a.float().numpy() for a in arguments))
    assert largest(clean - twin) <= 1e-5
    # And what that costs against no quantisation at all.
    exact = reference.product_mlp(*(a.double().numpy() for a in arguments))
    assert largest(clean - exact) <= 0.02

    if shape[0] > 1 and shape[1]:  # what is not finite stays in its row, and is not lost in it
        for value in (float("nan"), float("inf")):
            regions[1, -1] = value
            prototypes[:, -1] = 1
            poisoned = run()
            assert np.isnan(poisoned[1]).all()
            assert np.isfinite(np.delete(poisoned, 1, axis=0)).all()


ROI_SHAPES = [
    # B, C, H, W, regions, bins, sampling_ratio
    (1, 3, 5, 7, 0, (2, 2), 2),
    (1, 1, 1, 1, 1, (1, 1), 1),
    (2, 5, 13, 9, 7, (3, 2), 2),
    (2, 23, 11, 17, 5, (7, 7), 0),  # more elements than a block takes; samples by box size
]


def roi_arguments(
    shape: tuple[Any, ...], dtype: str, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, height, width, regions, _, _ = shape
    make = torch.Generator().manual_seed(seed + regions)
    features = (values(make, batch, channels, height, width) - 0.5).to(DTYPES[dtype])
    corners = values(make, regions, 2) * 16 * max(height, width) - 20  # pixels, some outside
    rois = torch.cat([corners, corners + values(make, regions, 2) * 8 * max(height, width)], dim=1)
    if regions > 3:
        rois[0, 2:] = rois[0, :2]  # no area
        rois[1] = torch.tensor([1e4, 1e4, 2e4, 2e4])  # far outside
    images = torch.randint(batch, (regions,), generator=make, dtype=torch.int32)
    return features, rois, images


def check_roi_align(engine: Any, shape: tuple[Any, ...], dtype: str, seed: int = 0) -> None:
    features, rois, images = roi_arguments(shape, dtype, seed)
    bins, options = shape[5], {"spatial_scale": 1 / 16, "sampling_ratio": shape[6]}
    output = torch.full((len(rois), features.shape[1], *bins), float("nan"), dtype=DTYPES[dtype])
    engine.call("roi_align", features, rois, images, output, **options)

    def twin(precision: torch.dtype) -> Any:
        arrays = features.to(precision).numpy(), rois.to(precision).numpy(), images.numpy()
        return reference.roi_align(*arrays, output_size=bins, **options)

    exact = twin(torch.float64)
    rounded = torch.from_numpy(twin(torch.float32)).to(DTYPES[dtype])
    bar = 2 * largest(rounded.double().numpy() - exact) + torch.finfo(DTYPES[dtype]).eps
    assert largest(output.double().numpy() - exact) <= bar


def check_roi_align_backward(
    engine: Any, shape: tuple[Any, ...], dtype: str, seed: int = 0
) -> None:
    features, rois, images = roi_arguments(shape, dtype, seed)
    options = {"spatial_scale": 1 / 16, "sampling_ratio": shape[6]}
    make = torch.Generator().manual_seed(seed + 1)
    gradient = (values(make, len(rois), features.shape[1], *shape[5]) - 0.5).to(DTYPES[dtype])
    output = torch.full(features.shape, float("nan"))
    engine.call("roi_align_backward", gradient, rois, images, output, **options)

    def twin(precision: torch.dtype) -> Any:
        arrays = gradient.to(precision).numpy(), rois.to(precision).numpy(), images.numpy()
        return reference.roi_align_backward(*arrays, tuple(features.shape), **options)

    exact = twin(torch.float64)
    bar = 2 * largest(twin(torch.float32) - exact) + 4 * torch.finfo(torch.float32).eps
    assert largest(output.numpy() - exact) <= bar


FUSE_SHAPES = [(0, 3, 2), (1, 1, 0), (3, 0, 2), (5, 37, 4), (2, 3, 40)]  # R, Ks, U


def check_fuse(
    engine: Any, shape: tuple[int, int, int], fusion: str, power: float, seed: int = 0
) -> None:
    regions, seen, unseen = shape
    make = torch.Generator().manual_seed(seed + sum(shape))
    logits = 8 * values(make, regions, 1 + seen + unseen) - 4
    unseen_logits = 8 * values(make, regions, unseen) - 4
    similarity = values(make, seen, unseen).softmax(dim=1)
    objectness = values(make, regions) if power else None
    options: dict[str, Any] = {
        "fusion": fusion,
        "seen_scale": 0.7,
        "objectness_power": power,
        "objectness": objectness,
        "seen_evidence": fusion != "sigmoid",
    }
    rectify = fusion == "sigmoid"
    output = torch.full((regions, seen + unseen), float("nan"))
    engine.call("fuse", logits, unseen_logits, similarity, output, **options, rectify=rectify)

    if objectness is not None:
        options["objectness"] = objectness.double().numpy()
    activated = logits.double().relu() if rectify else logits.double()
    probabilities = unseen_logits.double().sigmoid()
    exact = reference.fuse(
        *(a.numpy() for a in (activated, probabilities, similarity.double())), **options
    )
    bar = 1e-6 * max(1.0, largest(exact))
    assert largest(output.numpy() - exact) <= bar

    # The same classes in room for more, which holds what must not matter.
    spread = [*range(1 + seen), *range(3 + seen, 3 + seen + unseen)]
    roomy = torch.full((regions, 1 + seen + 2 + unseen + 3), float("nan"))
    roomy[:, spread] = logits
    roomy_unseen = torch.full((regions, unseen + 3), float("nan"))
    roomy_unseen[:, :unseen] = unseen_logits
    roomy_similarity = torch.full((seen + 2, unseen + 3), float("nan"))
    roomy_similarity[:seen, :unseen] = similarity
    output = torch.full((regions, seen + 2 + unseen + 3), float("nan"))
    engine.call(
        "fuse",
        roomy,
        roomy_unseen,
        roomy_similarity,
        output,
        rectify=rectify,
        in_use=torch.tensor([seen, unseen], dtype=torch.int32),
        **options | {"objectness": objectness},
    )
    kept = [column - 1 for column in spread[1:]]
    assert largest(output[:, kept].numpy() - exact) <= bar
    rest = np.delete(output.numpy(), kept, axis=1)
    assert rest.shape[1] == 5 and not rest.any()


CALIBRATE_SHAPES = [(0, 3), (3, 0), (1, 1), (7, 5), (9, 120)]  # R, C; the last: several blocks


def check_calibrate_scores(engine: Any, shape: tuple[int, int], seed: int = 0) -> None:
    make = torch.Generator().manual_seed(seed + sum(shape))
    scores = values(make, *shape)
    if scores.numel() > 30:
        scores[0, :5] = torch.tensor([0.0, -1.0, float("nan"), 1.0, 3.0])
        scores[1] = 1e-9
    parameters = torch.stack(
        [3 * values(make, shape[1]), 3 * values(make, shape[1]), 4 * values(make, shape[1]) - 2],
        dim=1,
    )
    output = scores.clone()
    engine.call("calibrate_scores", output, parameters, output)  # in place
    exact = reference.calibrate_scores(scores.double().numpy(), parameters.double().numpy())
    twin = reference.calibrate_scores(scores.numpy(), parameters.numpy())
    bar = 2 * largest(twin - exact) + torch.finfo(torch.float32).eps
    assert largest(output.numpy() - exact) <= bar


FINITE_SHAPES = [(0, 3), (4, 0), (1, 1), (5, 7), (50, 101)]  # the last takes three blocks


def check_all_finite(engine: Any, shape: tuple[int, int], seed: int = 0) -> None:
    make = torch.Generator().manual_seed(seed + sum(shape))
    numbers = 2e38 * (values(make, *shape) - 0.5)  # of any magnitude that is finite
    size, width = numbers.numel(), shape[1]
    numbers.view(-1)[:3] = torch.tensor([torch.finfo(torch.float32).max, -0.0, 1e-45])[:size]
    owners = torch.arange(shape[0], dtype=torch.int32) % 3

    def run(array: Tensor, found: int = 1, **options: Any) -> int:
        finite = torch.tensor([found], dtype=torch.int32)
        engine.call("all_finite", array, finite, **options)
        return int(finite.item())

    assert run(numbers) == run(numbers, owners=owners) == 1
    assert run(numbers, found=0) == 0, "only the host takes it back"
    for place in {0, size // 2, size - 1} & set(range(size)):
        for odd in (float("nan"), float("inf"), -float("inf")):
            damaged = numbers.clone()
            damaged.view(-1)[place] = odd
            assert run(damaged) == run(damaged, owners=owners) == 0, (place, odd)
        unused = owners.clone()
        unused[place // width] = -1
        assert run(damaged, owners=unused) == 1, place


PREPROCESS_SHAPES = [
    # image, size, padded
    ((1, 1), (1, 1), (2, 3)),
    ((5, 7), (11, 13), (16, 33)),  # larger, and more than a block of columns
    ((37, 53), (9, 20), (9, 20)),  # smaller by whole blocks, the last one partial
    ((64, 40), (64, 21), (65, 32)),
]


def check_preprocess(
    engine: Any, shape: tuple[Any, ...], dtype: str, color: str, seed: int = 0
) -> None:
    image_size, size, padded = shape
    make = torch.Generator().manual_seed(seed)
    image = torch.randint(256, (*image_size, 3), generator=make, dtype=torch.uint8)
    statistics: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    output = torch.full((3, *padded), float("nan"), dtype=DTYPES[dtype])
    engine.call("preprocess", image, output, size=size, color=color, **statistics)
    exact = reference.preprocess(
        image.numpy(), size=size, padded=padded, color=color, dtype=np.float64, **statistics
    )
    rounding = torch.finfo(DTYPES[dtype]).eps * largest(exact)
    assert largest(output.double().numpy() - exact) <= rounding + 1e-5


PROPOSE_SHAPES = [
    # B, A, H, W, pre_nms_top, post_nms_top
    (0, 3, 4, 5, 8, 4),
    (1, 1, 1, 1, 5, 5),
    (2, 3, 4, 5, 40, 7),
    (2, 3, 7, 9, 400, 30),  # fewer anchors than asked for; several words of suppression bits
    (2, 3, 7, 9, 400, 100),  # everything fits
]


def outputs(capacity: int, *columns: torch.dtype) -> list[Tensor]:
    """Boxes, then one array per dtype, then the count; all start as garbage."""
    arrays = [torch.full((capacity, 4), float("nan"))]
    arrays += [torch.full((capacity,), 77, dtype=dtype) for dtype in columns]
    return [*arrays, torch.full((1,), 77, dtype=torch.int32)]


def garbage(size: int) -> Tensor:
    return torch.full((size,), 0xAB, dtype=torch.uint8)


def check_matched(found: Any, exact: Any, share: float) -> None:
    """At least a share of the rows has a counterpart, each way.

    For sizes at which some pair of boxes overlaps by the threshold itself, as far as float32 can
    say, so that float64 may decide otherwise.
    """
    assert len(found) and len(exact), (len(found), len(exact))
    near = np.abs(np.asarray(found)[:, None] - np.asarray(exact)).max(axis=2) <= 1e-3
    least = min(near.any(axis=0).mean(), near.any(axis=1).mean())
    assert least >= share, f"{least:.4f} of the rows agree, must be {share}"


def check_propose(
    engine: Any, shape: tuple[int, ...], seed: int = 0, share: float | None = None
) -> None:
    batch, per_cell, height, width, before, after = shape
    make = torch.Generator().manual_seed(seed + sum(shape))
    # Steps of a quarter: many ties, which the lower index wins.
    logits = (16 * values(make, batch, per_cell, height, width) - 8).round() / 4
    if batch > 1:
        logits[0, 0, 0, 0] = float("nan")
        logits[0, 0, 0, 1] = -0.0
    deltas = values(make, batch, 4 * per_cell, height, width) - 0.5
    deltas[:, 2, 0] = 9.0  # its logarithm of the width is clamped
    deltas[:, 3, -1] = -9.0  # too low
    anchors = torch.tensor([[-20.0, -12, 20, 12], [-8, -8, 8, 8], [-6, -14, 6, 14]])[:per_cell]
    sizes = torch.tensor([[16.0 * height, 16 * width - 9], [16 * height - 5, 16 * width]])[:batch]
    options = {
        "stride": 16,
        "pre_nms_top": before,
        "post_nms_top": after,
        "nms_threshold": 0.25,
        "min_size": 2.0,
    }
    rois, images, scores, count = outputs(batch * after, torch.int32, torch.float32)
    room = engine.module.propose_workspace(
        batch, per_cell, height, width, pre_nms_top=before, post_nms_top=after
    )
    engine.call(
        "propose",
        logits,
        deltas,
        anchors,
        sizes,
        rois,
        images,
        scores,
        count,
        garbage(room),
        **options,
    )

    exact, exact_images, exact_scores = reference.propose(
        *(a.double().numpy() for a in (logits, deltas, anchors, sizes)), **options
    )
    total = int(count[0])
    if share is not None:
        return check_matched(rois[:total], exact, share)
    assert total == len(exact)
    assert images[:total].tolist() == exact_images.tolist()
    assert largest(rois[:total].numpy() - exact) <= 1e-4
    assert largest(scores[:total].numpy() - exact_scores) <= 1e-6
    assert not rois[total:].any() and not scores[total:].any()
    assert bool((images[total:] == -1).all())


def check_propose_lowest(engine: Any, seed: int = 0) -> None:
    """As many logits as are taken, -inf among them; the others, NaN, stay outside.

    Nothing in it is random.
    """
    logits = torch.full((1, 1, 4, 4), float("nan"))
    logits[0, 0, 0, :3] = -float("inf")
    options = {
        "stride": 16,
        "pre_nms_top": 3,
        "post_nms_top": 3,
        "nms_threshold": 0.9,
        "min_size": 2.0,
    }
    deltas, anchors = torch.zeros(1, 4, 4, 4), torch.tensor([[0.0, 0, 16, 16]])
    sizes = torch.tensor([[64.0, 64]])
    rois, images, scores, count = outputs(3, torch.int32, torch.float32)
    room = engine.module.propose_workspace(1, 1, 4, 4, pre_nms_top=3, post_nms_top=3)
    engine.call(
        "propose",
        logits,
        deltas,
        anchors,
        sizes,
        rois,
        images,
        scores,
        count,
        garbage(room),
        **options,
    )
    exact, _, _ = reference.propose(
        *(a.double().numpy() for a in (logits, deltas, anchors, sizes)), **options
    )
    assert int(count[0]) == len(exact) == 3, (int(count[0]), len(exact))
    assert largest(rois.numpy() - exact) <= 1e-4


DETECT_SHAPES = [
    # B, R, C, max_detections
    (1, 0, 3, 4),
    (1, 1, 1, 1),
    (2, 37, 3, 6),
    (3, 70, 5, 200),  # everything fits
]


def check_detect(
    engine: Any, shape: tuple[int, ...], seed: int = 0, share: float | None = None
) -> None:
    batch, regions, classes, most = shape
    make = torch.Generator().manual_seed(seed + sum(shape))
    scores = (40 * values(make, regions, classes)).round() / 40  # ties
    if regions > 1:
        scores[0, 0] = float("nan")
    deltas = values(make, regions, 4) - 0.5
    corners = 60 * values(make, regions, 2)
    rois = torch.cat([corners, corners + 5 + 40 * values(make, regions, 2)], dim=1)
    images = torch.randint(batch, (regions,), generator=make, dtype=torch.int32)
    sizes = torch.tensor([[64.0, 80], [90, 70], [100, 100]])[:batch]
    none = torch.arange(regions) % 6 == 1  # regions of no image, as propose fills its room
    images[none] = -1
    thresholds = torch.full((classes,), 0.3)
    if classes > 2:
        thresholds[1] = float("inf")  # masks a class
    options = {"nms_threshold": 0.4, "max_detections": most, "min_size": 3.0}
    boxes, out_scores, columns, out_images, count = outputs(
        batch * most, torch.float32, torch.int32, torch.int32
    )
    room = engine.module.detect_workspace(regions, classes, batch, max_detections=most)
    engine.call(
        "detect",
        scores,
        deltas,
        rois,
        images,
        sizes,
        thresholds,
        boxes,
        out_scores,
        columns,
        out_images,
        count,
        garbage(room),
        **options,
    )

    arrays = (a[~none].double().numpy() for a in (scores, deltas, rois))
    exact = reference.detect(
        *arrays,
        images[~none].numpy(),
        *(a.double().numpy() for a in (sizes, thresholds)),
        **options,
    )
    total = int(count[0])
    if share is not None:
        ours = np.column_stack([boxes[:total], columns[:total]])
        return check_matched(ours, np.column_stack([exact[0], exact[2]]), share)
    assert total == len(exact[0])
    assert columns[:total].tolist() == exact[2].tolist()
    assert out_images[:total].tolist() == exact[3].tolist()
    assert np.array_equal(out_scores[:total].double().numpy(), exact[1])
    assert largest(boxes[:total].numpy() - exact[0]) <= 1e-4
    assert not any(array[total:].any() for array in (boxes, out_scores, columns))
    assert bool((out_images[total:] == -1).all())


Case = Callable[..., None]


def all_cases(seed: int = 0) -> dict[str, Case]:
    """Every operator on every shape, by name ``operator-details``; another seed, other inputs."""
    cases: dict[str, Case] = {}
    for n, shape in enumerate(MLP_SHAPES):
        for dtype in DTYPES:
            cases[f"product_mlp-{dtype}-{n}"] = partial(check_product_mlp, shape=shape, dtype=dtype)
        cases[f"product_mlp-int8-{n}"] = partial(check_product_mlp_int8, shape=shape)
    for n, shape in enumerate(ROI_SHAPES):
        for dtype in DTYPES:
            options = {"shape": shape, "dtype": dtype}
            cases[f"roi_align-forward-{dtype}-{n}"] = partial(check_roi_align, **options)
            cases[f"roi_align-backward-{dtype}-{n}"] = partial(check_roi_align_backward, **options)
    for n, shape in enumerate(FUSE_SHAPES):
        for fusion, power in (("softmax", 0.5), ("sigmoid", 0.0), ("raw", 2.0)):
            cases[f"fuse-{fusion}-{n}"] = partial(
                check_fuse, shape=shape, fusion=fusion, power=power
            )
    for n, shape in enumerate(CALIBRATE_SHAPES):
        cases[f"calibrate_scores-{n}"] = partial(check_calibrate_scores, shape=shape)
    for n, shape in enumerate(FINITE_SHAPES):
        cases[f"all_finite-{n}"] = partial(check_all_finite, shape=shape)
    for n, shape in enumerate(PREPROCESS_SHAPES):
        for dtype, color in (("float32", "rgb"), ("float16", "bgr"), ("bfloat16", "rgb")):
            cases[f"preprocess-{dtype}-{n}"] = partial(
                check_preprocess, shape=shape, dtype=dtype, color=color
            )
    for n, shape in enumerate(PROPOSE_SHAPES):
        cases[f"propose-{n}"] = partial(check_propose, shape=shape)
    cases["propose-lowest"] = check_propose_lowest
    for n, shape in enumerate(DETECT_SHAPES):
        cases[f"detect-{n}"] = partial(check_detect, shape=shape)
    cases |= given_cases()
    return {name: partial(case, seed=seed) for name, case in cases.items()}
