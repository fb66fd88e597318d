"""Results of other programs, compared with Python's ``Detections``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime.detections import Detections


def assert_same(answer: dict[str, Any], expected: Detections) -> None:
    """Boxes, scores, names, ids, roles, version and near miss of one image."""
    objects = answer["objects"]
    assert [o["class"] for o in objects] == list(expected.class_names)
    assert [o["id"] for o in objects] == expected.class_ids.tolist()
    assert [o["role"] for o in objects] == list(expected.roles)
    boxes = np.array([o["box"] for o in objects]).reshape(-1, 4)
    np.testing.assert_allclose(boxes, expected.boxes, atol=0.01)
    np.testing.assert_allclose([o["score"] for o in objects], expected.scores, rtol=1e-4)
    assert answer["version"] == expected.class_set_version
    near = answer.get("near_miss")
    assert (near and near[0]) == (expected.near_miss and expected.near_miss[0])
    if near:
        assert near[1] == pytest.approx(expected.near_miss[1], rel=1e-4)
