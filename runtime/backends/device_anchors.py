"""Between the networks of a detector with anchors: propose, roi_align, then eq. 6 and eq. 14.

Not run on a GPU yet; see device_pipeline.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.device_arrays import Layout
from runtime.backends.device_program import Program, Shapes, Shared
from runtime.backends.trt_engines import FixedEngine
from zsd_core.config import RegionConfig
from zsd_core.errors import ConfigError
from zsd_core.scoring import ContrastScorer

__all__ = ["AnchorProgram"]

MLPS = ("score_seen", "score_unseen")
LAYERS = ("weight1", "bias1", "weight2", "bias2")


class AnchorProgram(Program):
    """Regions come from anchors; the scoring method is "contrastzsd"."""

    TRUNK = ("features", "objectness", "anchor_deltas")
    READS_SIMILARITY = True

    @staticmethod
    def check(shared: Shared) -> None:
        """See ``Program``: another scoring method or precision, or several maps."""
        if not (isinstance(shared.scorer, ContrastScorer) and shared.scorer.precision == "float32"):
            raise ConfigError(
                "on_device runs the scoring method 'contrastzsd' in float32 only; leave "
                "'on_device' out of backend_options, or scoring_precision."
            )
        maps = shared.config.regions.maps
        if maps != RegionConfig().maps:
            raise ConfigError(
                f"on_device cuts regions from one map, the bundle has "
                f"{', '.join(name for name, _ in maps)}. Export it again with "
                "--whole-head, or leave 'on_device' out of backend_options."
            )

    @staticmethod
    def constants(shared: Shared) -> dict[str, NDArray[Any]]:
        """See ``Program``: both scorers and the anchors."""
        assert isinstance(shared.scorer, ContrastScorer)
        tensors = shared.scorer.tensors
        return {f"{mlp}.{layer}": tensors[f"{mlp}.{layer}"] for mlp in MLPS for layer in LAYERS} | {
            "anchors": shared.config.proposals.anchors()
        }

    @staticmethod
    def prototype_width(shared: Shared) -> int:
        """See ``Program``."""
        assert isinstance(shared.scorer, ContrastScorer)
        return int(shared.scorer.tensors["score_seen.weight1"].shape[1])

    def prepare(self, outputs: list[tuple[int, ...]]) -> tuple[Shapes, Layout]:
        """See ``Program``."""
        features, objectness, _ = outputs
        shared, config = self.shared, self.shared.config
        proposals = config.proposals
        regions = self.regions = proposals.post_nms_top
        patches = (regions, features[1], *config.regions.output_size)
        self.head = FixedEngine(shared.engines["head"], patches)
        embeddings, offsets = self.head.output_shapes
        self._proposing = {"pre_nms_top": proposals.pre_nms_top, "post_nms_top": regions}
        room = shared.kernels.propose_workspace(*objectness, **self._proposing)
        shapes = {
            "roi_scores": (regions,),
            "patches": patches,
            "embeddings": embeddings,
            "offsets": offsets,
            "seen_logits": (regions, 1 + shared.seen + shared.unseen),
            "unseen_logits": (regions, shared.unseen),
        }
        return shapes, {"propose_room": ((room,), np.uint8)}

    def enqueue_regions(self, stream: int) -> None:
        """See ``Program``."""
        kernels, config, inner = self.shared.kernels, self.shared.config, self.inner
        classes, constants = self.own.classes.block, self.own.constants
        regions = inner["rois"], inner["batch_indices"]
        kernels.propose(
            inner["objectness"],
            inner["anchor_deltas"],
            constants["anchors"],
            self.image_sizes,
            *regions,
            inner["roi_scores"],
            inner["num_regions"],
            inner["propose_room"],
            stride=config.proposals.stride,
            nms_threshold=config.proposals.nms_threshold,
            min_size=config.proposals.min_size,
            **self._proposing,
            stream=stream,
        )
        kernels.roi_align(
            inner["features"],
            *regions,
            inner["patches"],
            stream=stream,
            spatial_scale=1 / config.regions.stride,
            sampling_ratio=config.regions.sampling_ratio,
        )
        assert self.head is not None
        self.head.enqueue(stream)
        scored = {
            "score_seen": (classes["prototypes"], inner["seen_logits"]),
            "score_unseen": (
                classes["prototypes"].rows_from(1 + self.shared.seen),
                inner["unseen_logits"],
            ),
        }
        for mlp, (prototypes, logits) in scored.items():
            layers = (constants[f"{mlp}.{layer}"] for layer in LAYERS)
            kernels.product_mlp(inner["embeddings"], prototypes, *layers, logits, stream=stream)
        scoring = config.scoring
        kernels.fuse(
            inner["seen_logits"],
            inner["unseen_logits"],
            classes["similarity"],
            inner["class_scores"],
            fusion=scoring.fusion,
            seen_scale=scoring.seen_scale,
            objectness=inner["roi_scores"],
            objectness_power=scoring.objectness_power,
            seen_evidence=scoring.seen_evidence,
            in_use=classes["in_use"],
            rectify=scoring.seen_activation == "relu",
            stream=stream,
        )
