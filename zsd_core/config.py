"""Every option of the model: frozen, checked when made, the same from training to a device.

The classes need the standard library and numpy only, so an edge device reads a manifest into
exactly what training used. Ambiguities of the paper are fields here, each with its reading; those
of its training are in ``zsd_core.learning.experiment``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zsd_core.calibration import CalibrationConfig
from zsd_core.errors import ConfigError
from zsd_core.options import (
    check_max,
    check_not_negative,
    check_option,
    check_positive,
    check_share,
)
from zsd_core.scoring_config import ScoringConfig

__all__ = [
    "IMAGE",
    "MOST_DETECTIONS",
    "BackboneConfig",
    "CalibrationConfig",
    "DetectionConfig",
    "ModelConfig",
    "PreprocessConfig",
    "ProposalConfig",
    "RegionConfig",
    "ScoringConfig",
]

IMAGE = "image"  # the map that is the network input itself
MOST_DETECTIONS = 1 << 20  # of one image that a bundle or a caller may ask for
MOST_VALUES = 64  # of a list of any length: anchors are every size in every ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessConfig:
    """Steps from an image to the network input: resize, scale to [0, 1], normalise, zero-pad.

    Attributes:
        shorter_edge: pixels of the shorter edge after resizing (paper: 600).
        longer_edge: upper bound of the longer edge; it wins over ``shorter_edge``.
        pad_multiple: right and bottom are padded to this multiple, so that strides divide.
        mean: per channel, RGB, of values in [0, 1].
        std: likewise.
        square: above 0, every image is stretched to a square of so many pixels, as many detectors
            of others want; the edges above do not matter then.
    """

    shorter_edge: int = 600
    longer_edge: int = 1000
    square: int = 0
    pad_multiple: int = 32
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        check_positive(self, "shorter_edge", "pad_multiple", "std")
        check_max(self, 16384, "longer_edge", "square", "pad_multiple")
        check_not_negative(self, "square")
        check_option(
            self.longer_edge >= self.shorter_edge,
            "PreprocessConfig.longer_edge",
            self.longer_edge,
            f"must be at least shorter_edge, {self.shorter_edge}",
        )

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Size ``(height, width)`` of an image after resizing, before padding; at least 1 x 1."""
        if self.square:
            return self.square, self.square
        scale = min(self.shorter_edge / min(height, width), self.longer_edge / max(height, width))
        return max(1, math.floor(height * scale + 0.5)), max(1, math.floor(width * scale + 0.5))

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Size of the network input for an image resized to ``height`` x ``width``."""
        m = self.pad_multiple
        return -(-height // m) * m, -(-width // m) * m


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneConfig:
    """The convolutional network under the detector.

    Attributes:
        name: resnet18, resnet34, resnet50, resnet101 or mobilenet_v2 (torchvision's), or
            efficientnet_lite0, which wants ``PreprocessConfig.mean`` 127 / 255, ``std`` 128 / 255.
        weights: a file with ImageNet weights (a state dict, or its ``features`` part for
            MobileNetV2); "" starts from random weights.
        frozen: how much stays at its initial weights: "none", "bottom" (the paper: stem and first
            stage) or "all" (the region stage too: its outputs can then be cached).
        stride_in_1x1: ResNet's stride sits in the first 1 x 1 convolution (Caffe's layout) and not
            in the 3 x 3 (torchvision's).
    """

    name: Literal[
        "resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2", "efficientnet_lite0"
    ] = "resnet101"
    weights: str = ""
    frozen: Literal["none", "bottom", "all"] = "bottom"
    stride_in_1x1: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalConfig:
    """Source of the regions, and the ones that are kept.

    Attributes:
        source: "anchors" are scored and moved by a region proposal network, as in the paper;
            "queries" are the regions that a given detector offers (``export.given``): the trunk
            gives ``boxes (N, Q, 4)`` and ``logits (N, Q, Ks)`` of the seen classes, and the best
            ``post_nms_top`` are kept. Only that and ``min_size`` matters of the fields below then.
        levels: strides of the backbone maps it sees; (16,) is the paper's. More are brought to
            ``stride`` by resampling and added.
        merge: how: "sum" brings each to ``stride`` and adds; "topdown" goes from the coarsest to
            the finest, which must be that of ``stride``, with a 3 x 3 convolution at each.
        stride: pixels of the network input between two anchors.
        channels: width of its hidden convolution.
        depth: number of hidden 3 x 3 convolutions.
        anchor_sizes: square roots of the anchors' areas, pixels of the network input.
        aspect_ratios: height over width.
        objectness: "classification" is Faster R-CNN's; "background" scores anchors against the
            learned vector a_0 (Background Learnable RPN); "iou" regresses localisation quality of
            objects' anchors; "quality" that of every anchor, 0 where there is no object
            (``zsd_core.learning.quality``).
        pre_nms_top: best anchors of an image that enter NMS.
        post_nms_top: R, most regions of an image that leave it.
        nms_threshold: IoU above which the worse of two regions is dropped (paper: 0.7).
        min_size: regions with a shorter edge are dropped, pixels of the network input.
    """

    source: Literal["anchors", "queries"] = "anchors"
    levels: tuple[int, ...] = (16,)
    merge: Literal["sum", "topdown"] = "sum"
    stride: int = 16
    channels: int = 512
    depth: int = 1
    anchor_sizes: tuple[float, ...] = (128.0, 256.0, 512.0)
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    objectness: Literal["classification", "background", "iou", "quality"] = "classification"
    pre_nms_top: int = 6000
    post_nms_top: int = 300
    nms_threshold: float = 0.7
    min_size: float = 1.0

    def __post_init__(self) -> None:
        name = "ProposalConfig"
        for key in ("levels", "anchor_sizes", "aspect_ratios"):
            value = getattr(self, key)
            check_option(bool(value), f"{name}.{key}", value, "needs at least one value")
            if len(value) > MOST_VALUES:
                raise ConfigError(
                    f"{name}.{key} holds {len(value)} values, must hold at most {MOST_VALUES}."
                )
        check_positive(self, "levels", "stride", "channels", "depth", "nms_threshold")
        check_positive(self, "anchor_sizes", "aspect_ratios")
        check_share(self, "nms_threshold")
        check_not_negative(self, "min_size")
        check_max(self, 1 << 16, "channels", "stride", "pre_nms_top")
        check_max(self, 64, "depth")
        check_max(self, 1 << 16, "anchor_sizes", "aspect_ratios")
        if self.merge == "topdown":
            ordered = sorted(set(self.levels)) == list(self.levels)
            check_option(
                ordered and len(self.levels) > 1 and self.levels[0] == self.stride,
                f"{name}.levels",
                self.levels,
                f"must rise from stride, {self.stride}, where merge is 'topdown'",
            )
        check_option(
            0 < self.post_nms_top <= self.pre_nms_top,
            f"{name}.post_nms_top",
            self.post_nms_top,
            f"must lie between 1 and pre_nms_top, {self.pre_nms_top}",
        )

    def anchors(self) -> NDArray[np.float32]:
        """Anchors of the cell at the origin, ``(A, 4)`` ``x1 y1 x2 y2`` around (0, 0).

        Ratio-major within size-minor, rounded to whole pixels: torchvision's ``AnchorGenerator``.
        The cell in row i, column j adds ``stride * (j, i, j, i)``.
        """
        ratios = np.sqrt(np.asarray(self.aspect_ratios, np.float32))
        sizes = np.asarray(self.anchor_sizes, np.float32)
        widths = ((1 / ratios)[:, None] * sizes).reshape(-1)
        heights = (ratios[:, None] * sizes).reshape(-1)
        return np.round(np.stack([-widths, -heights, widths, heights], axis=1) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionConfig:
    """Rules by which a region's feature is cut from the backbone map.

    Attributes:
        conv5: "region" runs conv5 on every region, as the paper does; "map" runs it once on the
            whole map, which costs a small model far less and sees around a region.
        stride: pixels of the network input per cell of the map that regions are cut from: 16, or
            32 after conv5. The map of a conv5 that runs on the image is enlarged to 16 if asked. 1
            cuts them from the network input itself, a second look: every region then runs through
            a classifier of its own, efficientnet_lite0, at ``output_size``.
        output_size: bins ``(PH, PW)``.
        sampling_ratio: samples per bin side; 0 takes ceil(box side / bins) per region.
        pooling: "align" (RoIAlign) or "pool" (RoI pooling, as the paper says; training and
            PyTorch only, the kernels and bundles know "align").
        box_hidden: 0 regresses boxes linearly from the pooled f, as the paper does. Above 0, the
            hidden units of a regressor that reads the bins of the proposal network's hidden map,
            which know where in the region things are; it needs the map's stride to be that of the
            proposals.
        maps: name of each map that the head reads regions of, and the step from one bin that it
            reads to the next. A bundle may have others than a model does: ``export.graphs.split``.
            The map "image" is the network input itself, of stride 1: the head is an image
            classifier that looks at the region again.
        look: 0 shows every region to the head. Above 0, the head sees the best regions of an image
            alone, so many at most, and only where a class asked for needs it; of two that overlap
            by more than ``look_nms`` it sees the better one.
        look_nms: IoU.
    """

    conv5: Literal["region", "map"] = "region"
    stride: int = 16
    output_size: tuple[int, int] = (14, 14)
    sampling_ratio: int = 2
    pooling: Literal["align", "pool"] = "align"
    box_hidden: int = 0
    maps: tuple[tuple[str, int], ...] = (("features", 1),)
    look: int = 0
    look_nms: float = 0.7

    def __post_init__(self) -> None:
        check_positive(self, "stride", "output_size")
        check_not_negative(self, "sampling_ratio", "box_hidden", "look")
        check_share(self, "look_nms")
        check_max(self, 4096, "stride", "output_size", "sampling_ratio", "box_hidden", "look")
        names = [name for name, _ in self.maps]
        if IMAGE in names and (names != [IMAGE] or self.stride != 1):
            raise ConfigError(
                f"RegionConfig.maps is {self.maps!r} with stride {self.stride}; regions of the "
                "image itself are cut at stride 1, and no other map goes with it."
            )
        check_option(
            0 < len(self.maps) <= MOST_VALUES and all(0 < step <= 4096 for _, step in self.maps),
            "RegionConfig.maps",
            self.maps,
            f"needs 1 to {MOST_VALUES} maps, and steps between 1 and 4096",
        )

    def bins(self, step: int) -> tuple[int, int]:
        """Bins ``(ph, pw)`` of a region that are read at a step."""
        height, width = self.output_size
        return -(-height // step), -(-width // step)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionConfig:
    """Limits of what ``detect`` keeps.

    Attributes:
        score_threshold: what a detection's score must exceed, in [0, 1].
        unseen_threshold: of unseen classes; None takes ``score_threshold``.
        nms_threshold: IoU above which the worse of two boxes of one class is dropped.
        max_detections: most detections of an image, best first.
        min_size: boxes with a shorter edge are dropped, pixels of the network input.
    """

    score_threshold: float = 0.05
    unseen_threshold: float | None = None
    nms_threshold: float = 0.5
    max_detections: int = 100
    min_size: float = 1.0

    def __post_init__(self) -> None:
        check_share(self, "score_threshold", "nms_threshold")
        if self.unseen_threshold is not None:
            check_share(self, "unseen_threshold")
        check_positive(self, "max_detections")
        check_max(self, MOST_DETECTIONS, "max_detections")
        check_not_negative(self, "min_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The detector: everything a checkpoint needs to be rebuilt and a bundle to be run."""

    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    regions: RegionConfig = field(default_factory=RegionConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)

    def __post_init__(self) -> None:
        if self.proposals.source == "queries" and not (
            self.regions.look and self.regions.maps[0][0] == IMAGE
        ):
            raise ConfigError(
                "ProposalConfig.source is 'queries', whose regions the head sees in the image: set "
                "RegionConfig.maps to (('image', 1),), stride to 1 and look above 0."
            )
        if self.regions.stride == 32 and self.regions.conv5 == "region":
            raise ConfigError(
                "RegionConfig.stride is 32, but that map is conv5's output; set conv5 to 'map'."
            )
        if self.regions.stride == 1 and self.regions.conv5 == "map":
            raise ConfigError(
                "RegionConfig.stride is 1, which cuts regions from the image; conv5 runs on each: "
                "set it to 'region'."
            )
        if self.regions.box_hidden and self.regions.stride != self.proposals.stride:
            raise ConfigError(
                f"RegionConfig.box_hidden is {self.regions.box_hidden}, which cuts boxes from the "
                f"proposal network's map of stride {self.proposals.stride}, but RegionConfig.stride"
                f" is {self.regions.stride}; make them equal."
            )
        learned_there = self.proposals.objectness == "background"
        if self.scoring.background == "rpn" and not learned_there:
            raise ConfigError(
                "ScoringConfig.background is 'rpn', but ProposalConfig.objectness is "
                f"{self.proposals.objectness!r}; set it to 'background', where the RPN learns a_0."
            )
