"""Checks that every scoring method passes, for its own test file to call.

A method comes as its configuration, over the sizes of ``SIZES``, and its tensors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import tiny
import torch
from numpy.typing import NDArray

from export.checks.images import NamedImage
from export.graphs.compose import compose_detector, new_builder, sealed
from export.graphs.scorers import graph_of
from export.verify import verify
from runtime import Detector
from zsd_core.config import ScoringConfig
from zsd_core.learning.experiment import LossConfig
from zsd_core.learning.models.head import Projection
from zsd_core.learning.models.scorers import build_scorer
from zsd_core.scoring import scorer_for

__all__ = [
    "NAMES",
    "SIZES",
    "by_hand",
    "check_bundle",
    "check_graph",
    "check_growth",
    "check_hand",
    "check_learns",
    "cross_entropy",
    "halves",
    "regions",
    "unit",
]

SIZES = {"vector_dim": 8, "joint_dim": 16, "hidden_dim": 8, "contrast_dim": 8}
NAMES = [f"s{i}" for i in range(7)]
Tensors = dict[str, NDArray[np.float32]]
Hand = Callable[..., list[float]]


def unit(rows):
    """Rows, or one row, at unit length."""
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def regions(count, seed=1):
    """Embeddings ``(count, 16)``, not negative as those of p_v, and objectness."""
    rng = tiny.random(seed)
    embeddings = np.maximum(rng.normal(size=(count, 16)), 0).astype(np.float32)
    return embeddings, rng.uniform(0.01, 1, size=count).astype(np.float32)


def _vectors(config, count, seed):
    return tiny.unit_vectors(count, seed, config.vector_dim)


def _classes(scorer, config, unseen):
    names = [f"u{i}" for i in range(unseen)]
    return scorer.class_set(NAMES, _vectors(config, 7, 5), names, _vectors(config, unseen, 9))


def by_hand(config: ScoringConfig, tensors: Tensors, hand: Hand, count: int, unseen: int):
    """Scores of regions one at a time, in float64.

    ``hand(config, tensors, v, known, new)`` scores one region ``v`` against rows of seen and of
    unseen classes, without ``seen_scale`` and ``objectness_power``.
    """
    exact = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    known, new = (_vectors(config, n, s).astype(np.float64) for n, s in ((7, 5), (unseen, 9)))
    if config.center:
        known, new = unit(known - exact["center"]), unit(new - exact["center"])
    embeddings, objectness = regions(count)
    scores = np.array(
        [hand(config, exact, v, known, new) for v in embeddings.astype(np.float64)]
    ).reshape(count, 7 + unseen)
    scores[:, :7] *= config.seen_scale
    return scores * objectness.astype(np.float64)[:, None] ** config.objectness_power


def check_hand(config: ScoringConfig, tensors: Tensors, hand: Hand, unseen: int) -> None:
    """The scorer gives the scores by hand; none of no regions."""
    scorer = scorer_for(config, tensors)
    classes = _classes(scorer, config, unseen)
    scores = scorer.score(*regions(11), classes)
    assert scores.shape == (11, 7 + unseen) and scores.dtype == np.float32
    most = max(1, config.seen_scale)
    assert 0 <= scores.min() and scores.max() <= most, f"scores must lie in [0, {most}]"
    expected = by_hand(config, tensors, hand, 11, unseen)
    np.testing.assert_allclose(scores, expected, rtol=3e-5, atol=1e-7)
    assert scorer.score(*regions(0), classes).shape == (0, 7 + unseen)


def check_growth(config: ScoringConfig, tensors: Tensors) -> None:
    """Classes added and kept are those of a set built at once, bit for bit."""
    scorer = scorer_for(config, tensors)
    vectors, names = _vectors(config, 5, 9), [f"u{i}" for i in range(5)]
    seen = _vectors(config, 7, 5)
    whole = scorer.class_set(NAMES, seen, names, vectors)
    grown = scorer.class_set(NAMES, seen, names[:2], vectors[:2])
    grown = scorer.extend(grown, names[2:], vectors[2:], 1)
    kept = scorer.keep(grown, [4, 0], 2)
    few = scorer.class_set(NAMES, seen, ["u4", "u0"], vectors[[4, 0]])
    for ours, theirs in ((grown, whole), (kept, few)):
        assert ours.names == theirs.names
        np.testing.assert_array_equal(
            ours.prototypes,
            theirs.prototypes,
            "a row depends on the rows beside it: multiply with kernels.PackedLinear, not with @",
        )
        np.testing.assert_array_equal(ours.seen_similarity, theirs.seen_similarity)


def check_graph(config: ScoringConfig, tensors: Tensors, unseen: int) -> None:
    """The graph gives the scorer's scores, of no region, one, and several."""
    graph = graph_of(config.method)
    builder = new_builder("score")
    op, dtype = builder.op, ir.DataType.FLOAT
    inputs = [
        builder.input("embeddings", dtype, ["R", 16]),
        builder.input("objectness", dtype, ["R"]),
        builder.input("prototypes", dtype, ["K", graph.prototype_width(config)]),
        builder.input("similarity", dtype, ["K", "U"]),
    ]
    weights = {
        name: builder.initializer(ir.tensor(array, name=name))
        for name, array in tensors.items()
        if name.startswith(graph.WEIGHTS)
    }
    floors = np.zeros(len(NAMES) + unseen, np.float32)
    thresholds = builder.initializer(ir.tensor(floors, name="thresholds"))
    builder.add_output(graph.score(op, *inputs, thresholds, weights, config), "scores")
    proto = ir.to_proto(sealed(builder)).SerializeToString()
    session = onnxruntime.InferenceSession(proto, providers=["CPUExecutionProvider"])
    for prefix in graph.WEIGHTS:
        assert any(name.startswith(prefix) for name in tensors), f"no tensor begins with {prefix!r}"
    scorer = scorer_for(config, tensors)
    classes = _classes(scorer, config, unseen)
    full = [np.zeros((1, unseen)), classes.seen_similarity, np.eye(unseen)]
    for count in (0, 1, 9):
        embeddings, objectness = regions(count)
        values = {
            "embeddings": embeddings,
            "objectness": objectness,
            "prototypes": np.array(classes.prototypes),
            "similarity": np.concatenate(full).astype(np.float32),
        }
        used = {one.name for one in session.get_inputs()}
        (got,) = session.run(None, {name: values[name] for name in used})
        expected = scorer.score(embeddings, objectness, classes)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def check_bundle(path: Path, config: ScoringConfig, tensors: Tensors, photo) -> None:
    """A bundle of the tiny networks: ``detector.onnx`` is the runtime, and classes come and go."""
    model = dataclasses.replace(tiny.MODEL, scoring=config)
    trunk, head = (ir.from_proto(make()) for make in (tiny.trunk_model, tiny.head_model))
    detector = ir.to_proto(compose_detector(trunk, head, tensors, model))
    tiny.tiny_bundle(
        path,
        model=model,
        scorer=tensors,
        classes=[(n, "seen") for n in NAMES] + [("lynx", "unseen"), ("cup", "unseen")],
        class_vectors=_vectors(config, 9, 5),
        vocabulary=(tiny.WORDS, _vectors(config, len(tiny.WORDS), 6)),
        files={
            "trunk.onnx": tiny.trunk_model().SerializeToString(),
            "head.onnx": tiny.head_model().SerializeToString(),
            "detector.onnx": detector.SerializeToString(),
            "MODEL_CARD.md": b"# Tiny\n",
        },
    )
    report = verify(path, [NamedImage("noise", photo), NamedImage("mirror", photo[:, ::-1])])
    assert report["passed"], report
    assert report["conditions"]["classes"] == {"seen": 7, "unseen": 2}

    new = {"zebra": _vectors(config, 1, 33)[0], "fork": _vectors(config, 1, 34)[0]}
    options = {"backend": "onnxruntime", "threads": 1, "score_threshold": 0.0, "mode": "zsd"}
    with Detector(path, **options) as grown:
        grown.add_classes(new)
        found = grown(photo)
        grown.remove_classes(["zebra"])
        fewer = grown(photo)
    every = {name: None for name in (*NAMES, "lynx", "cup")}
    with Detector(path, classes=every | new, **options) as whole:
        again = whole(photo)
    assert len(found) and set(found.class_names) & {"zebra", "fork"}
    assert set(found.class_names) <= {"lynx", "cup", "zebra", "fork"}
    assert "zebra" not in fewer.class_names
    assert found.class_names == again.class_names
    np.testing.assert_array_equal(found.boxes, again.boxes)
    np.testing.assert_array_equal(found.scores, again.scores)


def halves(config: ScoringConfig, vectors: NDArray[np.float32]):
    """A training half, and what the run time has of it: for losses by hand.

    Every weight is away from where it starts, so that a bias, a weight or a centre that one half
    has and the other has not changes the loss.

    Args:
        config: one with ``center``, where the method allows it.
        vectors: of the seen classes, ``(K, E)``.

    Returns:
        The half; its tensors, and class vectors as the run time sees them, in float64.
    """
    torch.manual_seed(3)
    scorer = build_scorer(config, None)
    scorer.read_classes(torch.from_numpy(vectors), torch.zeros(0, config.vector_dim))
    with torch.no_grad():
        for weight in scorer.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    own = {name: tensor.astype(np.float64) for name, tensor in scorer.tensors().items()}
    known = vectors.astype(np.float64)
    return scorer, own, unit(known - own["center"]) if config.center else known


def cross_entropy(own: Tensors, embeddings: NDArray[np.float64], labels: NDArray[np.int64]):
    """Mean loss of ConSE's classifier, in float64, from the tensors of the run time."""
    logits = embeddings @ own["classifier.weight"].T + own["classifier.bias"]
    right = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - right))


def check_learns(
    config: ScoringConfig, losses: set[str], options: LossConfig | None = None, steps: int = 60
) -> None:
    """Training names made-up regions rightly, and what it learned scores them so at run time.

    Every class is a cluster of features, background too; of objects most must score best as their
    own class, and higher than background regions do.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    seen, unseen = (torch.from_numpy(_vectors(config, n, s)) for n, s in ((7, 5), (2, 12)))
    scorer = build_scorer(config, None)
    scorer.read_classes(seen, unseen)
    visual = Projection(24, config.joint_dim)
    labels = torch.arange(160) % 8
    centres = 2 * torch.randn(8, 24)
    features = centres[labels] + 0.3 * torch.randn(160, 24)
    learning = [*visual.parameters(), *scorer.parameters()]
    optimizer = torch.optim.Adam(learning, 0.01)
    totals = []
    for _ in range(steps):
        found = scorer.losses(visual(features), labels, options or LossConfig())
        assert set(found) == losses
        optimizer.zero_grad()
        total = torch.stack(list(found.values())).sum()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.8 * totals[0]
    run = scorer_for(config, scorer.tensors())
    assert set(scorer.tensors()) == set(run.tensors)
    classes = run.class_set(NAMES, seen.numpy(), ["a", "b"], unseen.numpy())
    with torch.no_grad():
        embeddings = visual(features).numpy()
    scores = run.score(embeddings, np.ones(160, np.float32), classes)[:, :7]
    objects = labels.numpy() > 0
    right = scores[objects].argmax(axis=1) == labels.numpy()[objects] - 1
    assert right.mean() > 0.9
    assert scores[objects].max(axis=1).mean() > scores[~objects].max(axis=1).mean()
