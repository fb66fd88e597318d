"""The paper-sized model of the benchmarks with everything small but its structure."""

from __future__ import annotations

import dataclasses

from benchmarks.paper import model as paper
from zsd_core.config import BackboneConfig, DetectionConfig, PreprocessConfig, ScoringConfig

__all__ = ["SMALL"]

SMALL = dataclasses.replace(
    paper.CONFIG,
    preprocess=PreprocessConfig(shorter_edge=96, longer_edge=160),
    backbone=BackboneConfig(name="resnet50"),
    proposals=dataclasses.replace(
        paper.CONFIG.proposals, channels=8, anchor_sizes=(24.0, 64.0), post_nms_top=20
    ),
    regions=dataclasses.replace(paper.CONFIG.regions, output_size=(4, 4)),
    scoring=ScoringConfig(vector_dim=12, joint_dim=24, hidden_dim=16, background="rpn"),
    detection=DetectionConfig(score_threshold=1e-4),
)
