"""The model card says what the manifest says."""

from __future__ import annotations

import json

import pytest

from export.writing.card import model_card


@pytest.fixture
def manifest(bundle_path):
    return json.loads((bundle_path / "manifest.json").read_text())


def report(**values):
    return {
        "images": 59,
        "boxes": 149,
        "values": values,
        "intervals": {"mAP@0.5 area": {"unseen": [4.0, 8.0]}},
        "bootstrap": {"samples": 1000, "level": 0.95},
    }


def test_classes_roles_vocabulary_and_licence_are_there(manifest):
    card = model_card(manifest)
    assert card.startswith("# tiny\n") and card.endswith("\n")
    assert "- **seen** (3): person, dining table, truck" in card
    assert "- **unseen** (2): cat, cup" in card
    assert "8 names; encoder: random; licence: CC0-1.0" in card
    assert "| Licence | CC0-1.0 |" in card
    assert "Not measured." in card and "## Training" not in card and "## Parity" not in card


def test_a_text_encoder_is_named_with_its_licence_and_worst_agreement(manifest):
    assert "text encoder" not in model_card(manifest)
    runtimes = {"onnxruntime 1": {"worst": 0.99951}, "openvino 2": {"worst": 0.99912}}
    parity = {"against": "float32", "runtimes": runtimes}
    entry = {"encoder": "small", "licence": "CC0-1.0", "template": "a {}", "parity": parity}
    line = "encoder: small; template: a {}; licence: CC0-1.0; worst cosine with float32: 0.9991"
    assert line in model_card(manifest | {"text": entry})


def test_results_stand_beside_their_conditions_and_intervals(manifest):
    zsd = report(**{"mAP@0.5 area": {"unseen": 6.04}, "Recall@100 IoU 0.5": {"unseen": None}})
    metrics = {
        "photographs": {
            "split": {"name": "coco_48_17"},
            "conditions": {"score threshold": 0.001},
            "tasks": {"zsd": zsd},
        }
    }
    card = model_card(manifest | {"metrics": metrics})
    assert "### photographs\n\nsplit: name: coco_48_17; score threshold: 0.001" in card
    assert "ZSD: 59 images, 149 boxes, percent, [95% interval of 1000 bootstrap samples]" in card
    assert "| mAP@0.5 area | 6.0 [4.0, 8.0] |" in card
    assert "| Recall@100 IoU 0.5 | - |" in card


def test_notes_training_and_parity_have_their_sections(manifest):
    parity = {
        "comparisons": [
            {
                "artifact": "detector.onnx",
                "against": "PyTorch",
                "stages": [
                    {
                        "stage": "detections",
                        "matched": 99,
                        "expected": 100,
                        "score_largest": 1e-6,
                        "box_largest": 2e-4,
                    }
                ],
            }
        ]
    }
    training = {"seconds": 1.5, "counts": {"images": 7, "boxes": [1, 2]}, "empty": {}}
    card = model_card(manifest | {"notes": "Boxes by a | machine.", "training": training}, parity)
    assert "## Data, licences and limits\n\nBoxes by a | machine." in card
    assert "| counts | images: 7; boxes: 1, 2 |" in card and "| empty |" not in card
    assert "| detector.onnx | PyTorch | 99 of 100 | 1.0e-06 | 2.0e-04 |" in card


def test_a_value_cannot_break_a_table(manifest):
    card = model_card(manifest | {"training": {"note": "a|b\nc"}})
    assert "| note | a\\|b c |" in card


def test_cells_are_at_most_a_line_long(manifest):
    training = {"cut": {"a": "x" * 50, "b": "y" * 50}, "recipe": "long\ntext " * 20, "seed": 3}
    card = model_card(manifest | {"training": training})
    assert f"| cut: a | {'x' * 50} |\n| cut: b | {'y' * 50} |\n| seed | 3 |" in card
    assert f"- **recipe**: {('long text ' * 20).strip()}" in card
    section = card.split("## Training")[1].split("\n## ")[0]
    assert all(len(line) <= 120 for line in section.splitlines() if line.startswith("|"))


def test_a_given_detector_is_named_with_its_own_input_size(manifest):
    model = manifest["model"] | {"preprocess": manifest["model"]["preprocess"] | {"square": 416}}
    card = model_card(manifest | {"model": model, "training": {"detector": "given.onnx"}})
    assert "| Detector | given.onnx, as its authors trained it |" in card
    assert "| Input | RGB, 416 x 416 pixels |" in card and "| Backbone |" not in card
