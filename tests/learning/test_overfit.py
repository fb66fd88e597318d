"""A detector trained from nothing on coloured shapes finds pairs of shape and colour it never saw.

Class vectors are one hot for the shape beside one hot for the colour, so what the blue disc and the
red square teach is all there is to tell a blue square from a red cross.
"""

from __future__ import annotations

import dataclasses

import pytest
import shapes

from zsd_core.learning.checkpoint import load_checkpoint, save_checkpoint
from zsd_core.learning.data.read import read_dataset
from zsd_core.learning.data.splits import load_split
from zsd_core.learning.evaluation import checkpoint_predictor, evaluate
from zsd_core.train import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A run on pictures of seen pairs alone."""
    folder = tmp_path_factory.mktemp("overfit")
    config = shapes.write_config(folder, images=64)
    assert main([str(config), "--output", str(folder / "run"), "training.epochs=32"]) == 0
    return folder / "run" / "last.pt"


def unseen_map(checkpoint, folder):
    """mAP@0.5 of the unseen pairs in fresh pictures of all nine, in percent."""
    annotations, images = shapes.write_shapes(folder, shapes.CLASSES, 40, seed=7)
    split = load_split(shapes.write_split(folder))
    predict, classes, _ = checkpoint_predictor(checkpoint, split)
    dataset = read_dataset("coco", [str(annotations)], [str(images)])
    result = evaluate(predict, classes, dataset, split, tasks=["zsd"], samples=0)
    return result["tasks"]["zsd"]["values"]["mAP@0.5 area"]["unseen"]


def test_unseen_pairs_are_found_and_told_apart_by_their_vectors(checkpoint, tmp_path):
    found = unseen_map(checkpoint, tmp_path / "as trained")
    assert found >= 40
    kept = load_checkpoint(checkpoint)
    *seen, first, second = range(len(kept.vectors))
    swapped = dataclasses.replace(kept, vectors=kept.vectors[[*seen, second, first]])
    save_checkpoint(swapped, tmp_path / "swapped.pt")
    assert unseen_map(tmp_path / "swapped.pt", tmp_path / "swapped") <= found - 20
