"""ConSE-ZSD: by hand in float64, growing without re-export, trained, exported, run."""

import dataclasses

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import tiny
import torch

from export.checks.images import NamedImage
from export.graphs.compose import compose_detector, new_builder, sealed
from export.graphs.scorers import conse as graph
from export.onnx import export_bundle
from export.verify import verify
from runtime import Detector
from runtime.bundle import open_bundle
from zsd_core.config import (
    BackboneConfig,
    DetectionConfig,
    ModelConfig,
    PreprocessConfig,
    ProposalConfig,
    RegionConfig,
    ScoringConfig,
)
from zsd_core.errors import BundleError, ConfigError
from zsd_core.learning.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from zsd_core.learning.experiment import Config, LossConfig, TrainingConfig
from zsd_core.learning.models import ContrastZSD
from zsd_core.learning.objective import Objective
from zsd_core.scoring import scorer_for

SEEN = tiny.unit_vectors(7, 5)
UNSEEN = tiny.unit_vectors(2, 12)
NAMES = [f"s{i}" for i in range(7)]
CONFIG = ScoringConfig(
    method="conse", vector_dim=8, joint_dim=16, hidden_dim=8, contrast_dim=8, conse_top=3
)


def tensors():
    draw = tiny.random(2).normal
    return {
        "background": np.zeros(8, np.float32),
        "classifier.weight": draw(size=(8, 16)).astype(np.float32),
        "classifier.bias": draw(size=8).astype(np.float32),
        "center": SEEN.mean(axis=0),
    }


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def by_hand(config, embeddings, objectness, unseen):
    """A region at a time, a class at a time."""
    t = {name: tensor.astype(np.float64) for name, tensor in tensors().items()}
    known, new = SEEN.astype(np.float64), unseen.astype(np.float64)
    if config.center:
        known, new = unit(known - t["center"]), unit(new - t["center"])
    scores = np.zeros((len(embeddings), 7 + len(unseen)))
    for row, (v, o) in enumerate(zip(embeddings.astype(np.float64), objectness, strict=True)):
        powers = np.exp(t["classifier.weight"] @ v + t["classifier.bias"])
        p = powers / powers.sum()
        best = sorted(range(7), key=lambda i: -p[1 + i])[: config.conse_top]
        combined = sum(p[1 + i] * known[i] for i in best)
        for i in range(7):
            scores[row, i] = p[1 + i] * config.seen_scale
        for j, vector in enumerate(new):
            cosine = combined @ vector / np.linalg.norm(combined)
            scores[row, 7 + j] = max(cosine, 0) * (1 - p[0])
        scores[row] *= float(o) ** config.objectness_power
    return scores


def regions(count, seed=1):
    rng = tiny.random(seed)
    embeddings = np.maximum(rng.normal(size=(count, 16)), 0).astype(np.float32)
    return embeddings, rng.uniform(size=count).astype(np.float32)


CASES = [
    CONFIG,
    dataclasses.replace(CONFIG, center=True, conse_top=50),
    dataclasses.replace(CONFIG, conse_top=1, seen_scale=0.3, objectness_power=2.0),
]


@pytest.mark.parametrize("unseen", [0, 1, 4])
@pytest.mark.parametrize("config", CASES)
def test_scores_are_those_by_hand(config, unseen):
    scorer, vectors = scorer_for(config, tensors()), tiny.unit_vectors(unseen, 9)
    embeddings, objectness = regions(11)
    classes = scorer.class_set(NAMES, SEEN, [f"u{i}" for i in range(unseen)], vectors)
    scores = scorer.score(embeddings, objectness, classes)
    assert scores.shape == (11, 7 + unseen) and scores.dtype == np.float32
    expected = by_hand(config, embeddings, objectness, vectors)
    np.testing.assert_allclose(scores, expected, rtol=3e-5, atol=1e-7)
    assert scorer.score(embeddings[:0], objectness[:0], classes).shape == (0, 7 + unseen)


def test_adding_and_keeping_classes_equals_building_them_bit_for_bit():
    scorer, vectors = scorer_for(CASES[1], tensors()), tiny.unit_vectors(5, 9)
    names = [f"u{i}" for i in range(5)]
    whole = scorer.class_set(NAMES, SEEN, names, vectors)
    grown = scorer.class_set(NAMES, SEEN, names[:2], vectors[:2])
    grown = scorer.extend(grown, names[2:], vectors[2:], 1)
    kept = scorer.keep(grown, [4, 0], 2)
    few = scorer.class_set(NAMES, SEEN, ["u4", "u0"], vectors[[4, 0]])
    for ours, theirs in ((grown, whole), (kept, few)):
        assert ours.names == theirs.names
        np.testing.assert_array_equal(ours.prototypes, theirs.prototypes)
        np.testing.assert_array_equal(ours.seen_similarity, theirs.seen_similarity)


def test_a_classifier_of_other_classes_is_refused():
    with pytest.raises(BundleError, match="6 seen classes for a classifier of 7"):
        scorer_for(CONFIG, tensors()).class_set(NAMES[:6], SEEN[:6], [], SEEN[:0])


@pytest.mark.parametrize("unseen", [0, 1, 4])
@pytest.mark.parametrize("config", CASES)
def test_the_graph_scores_as_the_scorer(config, unseen):
    builder = new_builder("score")
    op, dtype = builder.op, ir.DataType.FLOAT
    inputs = [
        builder.input("embeddings", dtype, ["R", 16]),
        builder.input("objectness", dtype, ["R"]),
        builder.input("prototypes", dtype, ["K", 8]),
        builder.input("similarity", dtype, ["K", "U"]),
    ]
    weights = {
        name: builder.initializer(ir.tensor(array, name=name))
        for name, array in tensors().items()
        if name.startswith(graph.WEIGHTS)
    }
    floors = np.zeros(len(NAMES) + unseen, np.float32)
    thresholds = builder.initializer(ir.tensor(floors, name="thresholds"))
    builder.add_output(graph.score(op, *inputs, thresholds, weights, config), "scores")
    proto = ir.to_proto(sealed(builder)).SerializeToString()
    session = onnxruntime.InferenceSession(proto, providers=["CPUExecutionProvider"])
    scorer = scorer_for(config, tensors())
    names, vectors = [f"u{i}" for i in range(unseen)], tiny.unit_vectors(unseen, 9)
    classes = scorer.class_set(NAMES, SEEN, names, vectors)
    full = [np.zeros((1, unseen)), classes.seen_similarity, np.eye(unseen)]
    for count in (0, 1, 9):
        embeddings, objectness = regions(count)
        (got,) = session.run(
            None,
            {
                "embeddings": embeddings,
                "objectness": objectness,
                "prototypes": np.array(classes.prototypes),
                "similarity": np.concatenate(full).astype(np.float32),
            },
        )
        expected = scorer.score(embeddings, objectness, classes)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def checkpoint():
    """A model with random weights that finds boxes of several classes, seen and unseen."""
    torch.manual_seed(1)
    config = ModelConfig(
        preprocess=PreprocessConfig(shorter_edge=96, longer_edge=160),
        backbone=BackboneConfig(name="mobilenet_v2", frozen="all"),
        proposals=ProposalConfig(
            channels=16, pre_nms_top=200, post_nms_top=30, anchor_sizes=(24.0, 48.0, 80.0)
        ),
        regions=RegionConfig(output_size=(4, 4)),
        scoring=CONFIG,
        detection=DetectionConfig(max_detections=50),
    )
    model = ContrastZSD(config).eval()
    model.scorer.read_classes(*torch.from_numpy(np.concatenate([SEEN, UNSEEN])).split([7, 2]))
    with torch.no_grad():
        model.trunk.rpn.objectness.weight.normal_(0, 0.2)
        model.trunk.rpn.deltas.weight.normal_(0, 0.2)
        for layer in (model.head.project_visual.linear1, model.head.project_visual.linear2):
            layer.weight.mul_(8)
        model.scorer.classifier.weight.normal_()
    return Checkpoint(
        config=Config(model=config, training=TrainingConfig()),
        model=model,
        seen=tuple(NAMES),
        unseen=("lynx", "cup"),
        vectors=np.concatenate([SEEN, UNSEEN]),
    )


def test_the_method_learns_from_seen_labels_alone(checkpoint):
    model = ContrastZSD(checkpoint.config.model)
    vectors = torch.from_numpy(checkpoint.vectors)
    own = Objective(model, checkpoint.config, vectors[:7], vectors[7:])
    width = model.head.project_visual.linear1.in_features
    f, labels = torch.rand(24, width), torch.arange(24) % 8
    own.check_alive(f)
    learning = [*model.head.project_visual.parameters(), *model.scorer.parameters()]
    optimizer = torch.optim.Adam(learning, 0.01)
    values = []
    for _ in range(30):
        losses = own.model.scorer.losses(model.head.project_visual(f), labels, LossConfig())
        assert set(losses) == {"seen"}
        optimizer.zero_grad()
        losses["seen"].backward()
        optimizer.step()
        values.append(losses["seen"].item())
    assert values[-1] < 0.5 * values[0]


def test_a_checkpoint_brings_its_classifier(checkpoint, tmp_path):
    save_checkpoint(checkpoint, tmp_path / "last.pt")
    read = load_checkpoint(tmp_path / "last.pt").model.scorer_tensors()
    for name, tensor in checkpoint.model.scorer_tensors().items():
        np.testing.assert_array_equal(read[name], tensor)
    with pytest.raises(ConfigError, match="read_classes"):
        ContrastZSD(checkpoint.config.model).scorer_tensors()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The tiny networks with this method between them, as a bundle with ``detector.onnx``."""
    model = dataclasses.replace(tiny.MODEL, scoring=CONFIG)
    trunk, head = (ir.from_proto(make()) for make in (tiny.trunk_model, tiny.head_model))
    detector = ir.to_proto(compose_detector(trunk, head, tensors(), model))
    return tiny.tiny_bundle(
        tmp_path_factory.mktemp("conse") / "bundle",
        model=model,
        scorer=tensors(),
        classes=[(n, "seen") for n in NAMES] + [("lynx", "unseen"), ("cup", "unseen")],
        class_vectors=np.concatenate([SEEN, UNSEEN]),
        files={
            "trunk.onnx": tiny.trunk_model().SerializeToString(),
            "head.onnx": tiny.head_model().SerializeToString(),
            "detector.onnx": detector.SerializeToString(),
            "MODEL_CARD.md": b"# Tiny\n",
        },
    )


def test_detector_onnx_is_the_runtime(bundle, photo):
    report = verify(bundle, [NamedImage("noise", photo), NamedImage("mirror", photo[:, ::-1])])
    assert report["passed"], report
    assert report["conditions"]["classes"] == {"seen": 7, "unseen": 2}


def test_classes_come_and_go_while_it_runs(bundle, photo):
    new = {"zebra": tiny.unit_vectors(1, 33)[0], "fork": tiny.unit_vectors(1, 34)[0]}
    options = {"backend": "onnxruntime", "threads": 1, "score_threshold": 0.0, "mode": "zsd"}
    with Detector(bundle, **options) as grown:
        grown.add_classes(new)
        found = grown(photo)
        grown.remove_classes(["zebra"])
        fewer = grown(photo)
    every = {name: None for name in (*NAMES, "lynx", "cup")}
    with Detector(bundle, classes=every | new, **options) as whole:
        again = whole(photo)
    assert {"zebra", "fork"} <= set(found.class_names) <= {"lynx", "cup", "zebra", "fork"}
    assert len(fewer) and "zebra" not in fewer.class_names
    assert found.class_names == again.class_names
    np.testing.assert_array_equal(found.boxes, again.boxes)
    np.testing.assert_array_equal(found.scores, again.scores)


@pytest.mark.slow
def test_a_bundle_agrees_with_pytorch(checkpoint, tmp_path):
    from skimage import data

    images = [NamedImage("chelsea", data.chelsea()), NamedImage("rocket", data.rocket())]
    report = export_bundle(checkpoint, tmp_path / "bundle", images=images)
    assert report["passed"]
    assert "detector.onnx" in {comparison["artifact"] for comparison in report["comparisons"]}
    bundle = open_bundle(tmp_path / "bundle")
    assert bundle.model_config.scoring.method == "conse"
