"""Between the networks of a given detector: its best regions, a second look, and prototypes.

Not run on a GPU yet; see device_pipeline.py. The head sees as many regions as the model looks at,
whatever their objectness: regions that the ordinary pipeline leaves out, because none of their
scores can pass its threshold, get scores here that do not pass either. Where no class but the
detector's own is asked for, the head does not run at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.device_arrays import Layout
from runtime.backends.device_program import Limits, Program, Shapes, Shared
from runtime.backends.trt_engines import FixedEngine
from zsd_core.errors import ConfigError
from zsd_core.scoring.prototypes import PrototypeScorer

__all__ = ["QueryProgram"]


class QueryProgram(Program):
    """Regions are those that a given detector offers; the scoring method is "prototypes"."""

    TRUNK = ("offered_boxes", "offered_logits")
    HEAD_OFFSETS = "deltas"  # of the regions that are looked at; ``offsets`` is of all
    HEAD_OWNERS = "look_owners"

    @staticmethod
    def check(shared: Shared) -> None:
        """See ``Program``: another scoring method."""
        if not isinstance(shared.scorer, PrototypeScorer):
            raise ConfigError(
                "on_device runs a given detector with the scoring method 'prototypes' only; this "
                f"bundle has {shared.config.scoring.method!r}. Leave 'on_device' out of "
                "backend_options: trunk and head then run on the GPU all the same, and the small "
                "steps between them on the CPU."
            )

    @staticmethod
    def constants(shared: Shared) -> dict[str, NDArray[Any]]:
        """See ``Program``: a class's row holds all that is known of it."""
        return {}

    @staticmethod
    def prototype_width(shared: Shared) -> int:
        """See ``Program``."""
        assert isinstance(shared.scorer, PrototypeScorer)
        tensors = shared.scorer.tensors
        return int(tensors["taught.weights"].shape[1] + tensors["background"].size + 1)

    @staticmethod
    def limits_of(limits: Limits) -> Limits:
        """See ``Program``: without a look there is another program."""
        return limits

    def prepare(self, outputs: list[tuple[int, ...]]) -> tuple[Shapes, Layout]:
        """See ``Program``."""
        _, (_, queries, seen) = outputs
        kernels, config = self.shared.kernels, self.shared.config
        regions = self.regions = config.proposals.post_nms_top
        looked = config.regions.look if self.limits.look else 0
        patches = (looked, 3, *config.regions.output_size)
        embeddings, offsets = (0, self.prototype_width(self.shared)), (0, 4)
        if looked:
            self.head = FixedEngine(self.shared.engines["head"], patches)
            embeddings, offsets = self.head.output_shapes
        top_room = kernels.top_regions_workspace(1, queries, count=regions)
        look_room = kernels.second_look_workspace(regions, batch=1, count=max(looked, 1))
        classes = self.shared.seen + self.shared.unseen
        score_room = kernels.score_prototypes_workspace(looked, classes)
        shapes = {
            "objectness": (regions,),
            "logits": (regions, seen),
            "look_rois": (looked, 4),
            "patches": patches,
            "embeddings": embeddings,
            "deltas": offsets,
            "offsets": (regions, 4),
        }
        return shapes, {
            "positions": ((looked,), np.int32),
            "places": ((regions,), np.int32),
            "look_owners": ((looked,), np.int32),
            "num_looked": ((1,), np.int32),
            "score_room": ((score_room,), np.uint8),
            "top_room": ((top_room,), np.uint8),
            "look_room": ((look_room,), np.uint8),
        }

    def enqueue_regions(self, stream: int) -> None:
        """See ``Program``."""
        kernels, config, inner = self.shared.kernels, self.shared.config, self.inner
        regions, looks = config.regions, (inner["look_rois"], inner["look_owners"])
        kernels.top_regions(
            inner["offered_boxes"],
            inner["offered_logits"],
            self.image_sizes,
            inner["rois"],
            inner["batch_indices"],
            inner["objectness"],
            inner["logits"],
            inner["num_regions"],
            inner["top_room"],
            count=config.proposals.post_nms_top,
            min_size=config.proposals.min_size,
            stream=stream,
        )
        if self.head is not None:
            kernels.second_look(
                inner["rois"],
                inner["batch_indices"],
                inner["num_regions"],
                inner["positions"],
                *looks,
                inner["num_looked"],
                inner["look_room"],
                batch=1,
                count=regions.look,
                nms_threshold=regions.look_nms,
                stream=stream,
            )
            kernels.roi_align(
                inner["images"],
                *looks,
                inner["patches"],
                spatial_scale=1 / regions.stride,
                sampling_ratio=regions.sampling_ratio,
                stream=stream,
            )
            self.head.enqueue(stream)
        kernels.spoken_for(
            inner["rois"],
            inner["batch_indices"],
            inner["positions"],
            inner["deltas"],
            inner["places"],
            inner["offsets"],
            threshold=regions.look_nms,
            stream=stream,
        )
        classes, scoring = self.own.classes.block, config.scoring
        kernels.score_prototypes(
            inner["logits"],
            inner["objectness"],
            inner["embeddings"],
            inner["places"],
            classes["prototypes"].rows_from(1),
            classes["thresholds"],
            inner["class_scores"],
            inner["score_room"],
            seen_scale=scoring.seen_scale,
            objectness_power=scoring.objectness_power,
            contest=scoring.contest,
            contest_margin=scoring.contest_margin,
            rivalry=scoring.rivalry,
            in_use=classes["in_use"],
            stream=stream,
        )
