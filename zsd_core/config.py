"""Every option of the model: frozen, checked when made, the same from training to a device.

The classes need the standard library and numpy only, so an edge device reads a manifest into
exactly what training used. Ambiguities of the paper are fields here, each with its reading; those
of its training are in ``zsd_core.experiment``.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from zsd_core.errors import ConfigError, did_you_mean

__all__ = [
    "BackboneConfig",
    "DetectionConfig",
    "ModelConfig",
    "PreprocessConfig",
    "ProposalConfig",
    "RegionConfig",
    "ScoringConfig",
    "check_not_negative",
    "check_option",
    "check_positive",
    "check_share",
    "from_mapping",
]

T = TypeVar("T")
Activation = Literal["softmax", "sigmoid", "raw"]


def check_option(condition: bool, where: str, value: object, rule: str) -> None:
    """Raise ConfigError that ``where`` is ``value`` and breaks ``rule``, unless ``condition``."""
    if not condition:
        raise ConfigError(f"{where} is {value!r}, {rule}.")


def check_positive(config: object, *names: str) -> None:
    """Refuse fields that are not above 0, or hold a value that is not."""
    _check(config, names, lambda value: value > 0, "must be above 0")


def check_not_negative(config: object, *names: str) -> None:
    """Refuse fields below 0."""
    _check(config, names, lambda value: value >= 0, "must not be negative")


def check_share(config: object, *names: str) -> None:
    """Refuse fields outside [0, 1]."""
    _check(config, names, lambda value: 0 <= value <= 1, "must lie in [0, 1]")


def _check(
    config: object, names: Sequence[str], condition: Callable[[float], bool], rule: str
) -> None:
    for name in names:
        value = getattr(config, name)
        values = value if isinstance(value, tuple) else (value,)
        check_option(all(map(condition, values)), f"{type(config).__name__}.{name}", value, rule)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessConfig:
    """How an image becomes network input: resize, scale to [0, 1], normalise, zero-pad.

    Attributes:
        shorter_edge: pixels of the shorter edge after resizing (paper: 600).
        longer_edge: upper bound of the longer edge; it wins over ``shorter_edge``.
        pad_multiple: right and bottom are padded to this multiple, so that strides divide.
        mean: per channel, RGB, of values in [0, 1].
        std: likewise.
    """

    shorter_edge: int = 600
    longer_edge: int = 1000
    pad_multiple: int = 32
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        check_positive(self, "shorter_edge", "pad_multiple", "std")
        check_option(
            self.longer_edge >= self.shorter_edge,
            "PreprocessConfig.longer_edge",
            self.longer_edge,
            f"must be at least shorter_edge, {self.shorter_edge}",
        )

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Size ``(height, width)`` of an image after resizing, before padding; at least 1 x 1."""
        scale = min(
            self.shorter_edge / min(height, width), self.longer_edge / max(height, width)
        )  # fmt: skip
        return max(1, math.floor(height * scale + 0.5)), max(1, math.floor(width * scale + 0.5))

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Size of the network input for an image resized to ``height`` x ``width``."""
        m = self.pad_multiple
        return -(-height // m) * m, -(-width // m) * m


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneConfig:
    """The convolutional network under the detector.

    Attributes:
        name: resnet18, resnet34, resnet50, resnet101 or mobilenet_v2 (torchvision's).
        weights: a file with ImageNet weights (a state dict, or its ``features`` part for
            MobileNetV2); "" starts from random weights.
        frozen: how much stays at its initial weights: "none", "bottom" (the paper: stem and first
            stage) or "all" (the region stage too: its outputs can then be cached).
        stride_in_1x1: ResNet's stride sits in the first 1 x 1 convolution (Caffe's layout) and not
            in the 3 x 3 (torchvision's).
    """

    name: Literal["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2"] = "resnet101"
    weights: str = ""
    frozen: Literal["none", "bottom", "all"] = "bottom"
    stride_in_1x1: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalConfig:
    """Region proposal network and what ``propose`` does with its output.

    Attributes:
        levels: strides of the backbone maps it sees; (16,) is the paper's. More are brought to
            ``stride`` by resampling and added.
        stride: pixels of the network input between two anchors.
        channels: width of its hidden convolution.
        depth: number of hidden 3 x 3 convolutions.
        anchor_sizes: square roots of the anchors' areas, pixels of the network input.
        aspect_ratios: height over width.
        objectness: "classification" is Faster R-CNN's; "background" scores anchors against the
            learned vector a_0 (Background Learnable RPN); "iou" regresses localisation quality.
        pre_nms_top: best anchors of an image that enter NMS.
        post_nms_top: R, most regions of an image that leave it.
        nms_threshold: IoU above which the worse of two regions is dropped (paper: 0.7).
        min_size: regions with a shorter edge are dropped, pixels of the network input.
    """

    levels: tuple[int, ...] = (16,)
    stride: int = 16
    channels: int = 512
    depth: int = 1
    anchor_sizes: tuple[float, ...] = (128.0, 256.0, 512.0)
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    objectness: Literal["classification", "background", "iou"] = "classification"
    pre_nms_top: int = 6000
    post_nms_top: int = 300
    nms_threshold: float = 0.7
    min_size: float = 1.0

    def __post_init__(self) -> None:
        name = "ProposalConfig"
        for key in ("levels", "anchor_sizes", "aspect_ratios"):
            value = getattr(self, key)
            check_option(bool(value), f"{name}.{key}", value, "needs at least one value")
        check_positive(
            self, "levels", "stride", "channels", "depth", "anchor_sizes", "aspect_ratios",
            "nms_threshold",
        )  # fmt: skip
        check_share(self, "nms_threshold")
        check_not_negative(self, "min_size")
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
    """How a region's feature is cut from the backbone map.

    Attributes:
        conv5: "region" runs conv5 on every region, as the paper does; "map" runs it once on the
            whole map, which costs a small model far less and sees around a region.
        stride: pixels of the network input per cell of the map that regions are cut from: 16, or
            32 after conv5. The map of a conv5 that runs on the image is enlarged to 16 if asked.
        output_size: bins ``(PH, PW)``.
        sampling_ratio: samples per bin side; 0 takes ceil(box side / bins) per region.
        pooling: "align" (RoIAlign) or "pool" (RoI pooling, as the paper says; training and
            PyTorch only, the kernels and bundles know "align").
        box_hidden: 0 regresses boxes linearly from the pooled f, as the paper does. Above 0, the
            hidden units of a regressor that reads the bins of the proposal network's hidden map,
            which know where in the region things are; it needs the map's stride to be that of the
            proposals.
        maps: name of each map that the head reads regions of, and the step from one bin that it
            reads to the next. A bundle may have others than a model does: ``export.split``.
    """

    conv5: Literal["region", "map"] = "region"
    stride: int = 16
    output_size: tuple[int, int] = (14, 14)
    sampling_ratio: int = 2
    pooling: Literal["align", "pool"] = "align"
    box_hidden: int = 0
    maps: tuple[tuple[str, int], ...] = (("features", 1),)

    def __post_init__(self) -> None:
        check_positive(self, "stride", "output_size")
        check_not_negative(self, "sampling_ratio", "box_hidden")
        check_option(
            bool(self.maps) and all(step > 0 for _, step in self.maps),
            "RegionConfig.maps", self.maps, "needs at least one map, and steps above 0",
        )  # fmt: skip

    def bins(self, step: int) -> tuple[int, int]:
        """Bins ``(ph, pw)`` of a region that are read at a step."""
        height, width = self.output_size
        return -(-height // step), -(-width // step)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringConfig:
    """The visual-semantic alignment: p_v, p_s, g_s, g_u, S and how eq. 14 reads them.

    Attributes:
        method: the scoring method, a file of ``zsd_core/scoring``: "contrastzsd", or "conse", the
            paper's baseline.
        vector_dim: E, width of a class vector (300 word2vec, 384 MiniLM, 64 aPY).
        joint_dim: D, width of the joint space.
        hidden_dim: M, hidden width of g_s and g_u.
        contrast_dim: width of h_v's output, training only.
        seen_activation: last layer of g_s: "linear", or "relu" as eq. 6 says (it can start dead).
        fusion: o_s in eq. 14: "softmax" (default), "sigmoid" or "raw".
        similarity_temperature: of the softmax in S; 1 is the paper's formula.
        seen_scale: multiplies the final scores of seen classes; 1 is the paper's.
        objectness_power: final scores are multiplied by objectness ** power; 0 is the paper's.
        seen_evidence: final scores of unseen classes are also multiplied by what the region's seen
            classes say of them, softmax(o_s of the seen) S; the paper has no such factor.
        background: where a_0 comes from: "rpn" (learned there too), "head" (learned by eq. 8
            alone) or "mean" (fixed at the mean of the seen vectors).
        background_unit: a_0 is scaled to unit length before use.
        center: the mean of the seen vectors is subtracted from every class vector, which is then
            scaled to unit length again; sentence encoders give all names a large common part.
        conse_top: how many of a region's most probable seen classes "conse" combines.
    """

    method: str = "contrastzsd"
    vector_dim: int = 300
    joint_dim: int = 2048
    hidden_dim: int = 1024
    contrast_dim: int = 512
    seen_activation: Literal["linear", "relu"] = "linear"
    fusion: Activation = "softmax"
    similarity_temperature: float = 1.0
    seen_scale: float = 1.0
    objectness_power: float = 0.0
    seen_evidence: bool = False
    background: Literal["rpn", "head", "mean"] = "head"
    background_unit: bool = True
    center: bool = False
    conse_top: int = 10

    def __post_init__(self) -> None:
        check_positive(
            self, "vector_dim", "joint_dim", "hidden_dim", "contrast_dim", "conse_top",
            "similarity_temperature", "seen_scale",
        )  # fmt: skip
        check_not_negative(self, "objectness_power")
        if self.center and self.background == "mean":
            raise ConfigError(
                "ScoringConfig.background is 'mean', which is zero once center is True; learn a_0 "
                "with background: head."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionConfig:
    """What ``detect`` keeps.

    Attributes:
        score_threshold: what a detection's fused score must exceed, in [0, 1].
        nms_threshold: IoU above which the worse of two boxes of one class is dropped.
        max_detections: most detections of an image, best first.
        min_size: boxes with a shorter edge are dropped, pixels of the network input.
    """

    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100
    min_size: float = 1.0

    def __post_init__(self) -> None:
        check_share(self, "score_threshold", "nms_threshold")
        check_positive(self, "max_detections")
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

    def __post_init__(self) -> None:
        if self.regions.stride == 32 and self.regions.conv5 == "region":
            raise ConfigError(
                "RegionConfig.stride is 32, but that map is conv5's output; set conv5 to 'map'."
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


def from_mapping(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build a configuration dataclass from nested mappings (YAML, JSON).

    Raises:
        ConfigError: an unknown key (with the nearest field) or a value of the wrong type.
    """
    where = where or kind.__name__
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} is {values!r}, must be a mapping of fields to values.")
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise ConfigError(f"{where} has no field {key!r}{did_you_mean(key, hints)}")
    return kind(**{k: _convert(hints[k], v, f"{where}.{k}") for k, v in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast(type[Any], hint), value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        check_option(
            value in arguments, where, value, f"must be one of {', '.join(map(repr, arguments))}"
        )
        return value
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _convert(arguments[0], value, where)
    if origin is tuple:
        items = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else None
        check_option(items is not None, where, value, "must be a list")
        assert items is not None
        if arguments[-1] is not Ellipsis:
            check_option(
                len(items) == len(arguments), where, value, f"must hold {len(arguments)} values"
            )
        return tuple(
            _convert(arguments[0 if arguments[-1] is Ellipsis else i], item, f"{where}[{i}]")
            for i, item in enumerate(items)
        )
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            value = float(value)  # YAML 1.1 reads 1e-3 as a string
        except (ValueError, OverflowError):
            pass
    if isinstance(value, float):
        check_option(math.isfinite(value), where, value, "must be finite")
    wrong = not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)
    check_option(not wrong, where, value, f"must be of type {hint.__name__}")
    return value
