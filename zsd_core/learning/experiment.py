"""One experiment: the model and how it is trained, from ``configs/*.yaml`` and overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from zsd_core.config import ModelConfig
from zsd_core.errors import ConfigError
from zsd_core.files import parse_yaml, read_text, shown
from zsd_core.options import (
    check_not_negative,
    check_option,
    check_positive,
    check_share,
    from_mapping,
)

__all__ = ["Config", "DataConfig", "LossConfig", "TrainingConfig", "load_config"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """Weights and readings of the objective, eq. 13.

    Attributes:
        unseen_weight: lambda of eq. 7; 0 is the ablation without the unseen path.
        contrast_weight: beta of eq. 13; 0 is the ablation without RRCL.
        contrast_temperature: tau of eq. 11.
        contrast_normalized: z of eq. 11 has unit length (as in [54]).
        contrast_background: background regions are anchors of eq. 12 too.
        unseen_background: background regions are targets (all zero) of eq. 9 too.
        reduction: "mean" over regions, or "sum" as printed, in eq. 5, 8, 9 and 12.
        sb_margin: of scoring "sb": by how much the cosine of the right class is to lead.
        sb_reconstruction: of "sb": weight of the loss that brings the region's embedding back.
        san_balance: of "san": weight of the max-margin loss; the rest is that of the super-classes.
        san_groups: of "san": number of super-classes that the seen classes form.
        hre_margin: of "hre": by how much the cosine of the right class is to lead.
        pl_alpha: of "pl": weight of the right class in the focal loss; a wrong one has the rest.
        pl_focus: of "pl": exponent of the focal loss, gamma.
        pl_steepness: of "pl": beta of the penalty, how sharply a wrong class above the right one
            counts for more.
    """

    unseen_weight: float = 0.2
    contrast_weight: float = 0.5
    contrast_temperature: float = 0.1
    contrast_normalized: bool = True
    contrast_background: bool = False
    unseen_background: bool = True
    reduction: Literal["mean", "sum"] = "mean"
    sb_margin: float = 1.0
    sb_reconstruction: float = 1e-3
    san_balance: float = 0.8
    san_groups: int = 12
    hre_margin: float = 1.0
    pl_alpha: float = 0.25
    pl_focus: float = 2.0
    pl_steepness: float = 5.0

    def __post_init__(self) -> None:
        check_not_negative(self, "unseen_weight", "contrast_weight", "sb_reconstruction")
        check_positive(
            self, "contrast_temperature", "sb_margin", "san_groups", "hre_margin", "pl_steepness"
        )
        check_not_negative(self, "pl_focus")
        check_share(self, "san_balance", "pl_alpha")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Data to train on.

    Attributes:
        format: "coco" (one JSON of boxes) or "voc" (a folder of XML files).
        annotations: JSON files or ImageSets lists, one per image folder.
        images: image folders.
        subset: "train" leaves the test and validation photographs out that a hash of the ids
            draws (``zsd_core.learning.data.subsets``); "" takes all photographs.
        split: a checked-in split (voc_16_4, coco_48_17, coco_65_15) or a YAML/JSON file.
        vectors: the class vectors: a file in any format of ``zsd_core.learning.vectors``, or
            "minilm".
        template: sentence around a name, for a sentence encoder.
        drop_score: a machine-made box of an unseen or unlisted class drops its image from this
            score on; human boxes have score 1.
        keep_score: a box of a seen class is used from this score on.
    """

    format: Literal["coco", "voc"] = "coco"
    annotations: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    subset: Literal["", "train", "validation", "test"] = ""
    split: str = "coco_48_17"
    vectors: str = ""
    template: str = "a photo of a {}."
    drop_score: float = 0.0
    keep_score: float = 0.0

    def __post_init__(self) -> None:
        check_share(self, "drop_score", "keep_score")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """The schedule.

    Attributes:
        seed: of every random choice.
        optimizer: "sgd" (the paper) or "adamw".
        schedule: "step" divides the rate by 10 after each of ``decay_epochs``; "cosine" lets it
            fall to 0.
        epochs: passes over the images.
        batch_size: images per step and process.
        learning_rate: of SGD, reached after ``warmup_steps``.
        clip_norm: gradients are scaled down to this length; 0 leaves them.
        momentum: of SGD.
        weight_decay: of the optimiser.
        decay_epochs: see ``schedule``.
        warmup_steps: linear warm-up of the rate.
        regions: sampled regions per image, of which ``foreground`` at most are objects.
        foreground: share of object regions.
        balance: with ``cache: regions``, an object region is drawn with a weight of its class's
            count to this power, negated: 0 as they come, 1 every class alike.
        dropout: share of the entries of a region's feature f that are dropped before p_v.
        flip: mirror every other image.
        human_repeats: how often an epoch shows a photograph whose boxes are all human.
        machine_background: weight of background in the proposal network's loss on photographs that
            a machine labelled, with ``objectness: quality``: some objects in them have no box.
        stretch: width is multiplied by one of these, drawn per image and epoch; (4 / 3, 3 / 4)
            undoes a data set whose images were squashed to squares.
        edges: shorter edges to draw from, per image and epoch; () takes ``preprocess``'s.
        cache: "none" trains end to end. "regions", for a backbone frozen whole, keeps the
            backbone's maps in memory and trains the RPN on them, then keeps the features of the
            regions it proposes and trains the heads on those.
        versions: augmented copies of each image that are kept, with ``cache: regions``.
        trunk_epochs: passes over the images, after ``epochs``, in which the backbone from stride 8
            on is trained together with the RPN; 0 skips them. They need ``cache: regions``.
        trunk_rate: learning rate of these passes.
        keep_maps: also write the backbone's maps to maps.pt, likewise: about half a megabyte per
            photograph and version; a run resumed in its first phase need not make them again.
        region_versions: of those, the copies whose regions are kept for the heads; 0 is all.
        warm_start: with ``cache: regions``, p_v and the scoring method start as a ridge regression
            of this strength from features to class vectors (``training/warm_start.py``); 0 starts
            them at random.
        head_epochs: passes over the cached regions, likewise.
        head_batch: regions per step, likewise.
        amp: automatic mixed precision on a GPU; losses stay float32.
        bfloat16: the proposal network's convolutions run in bfloat16 on a CPU, with ``cache:
            regions``: ten times faster where the CPU has AMX, many times slower without AVX-512.
        workers: processes that read images.
    """

    seed: int = 0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    schedule: Literal["step", "cosine"] = "step"
    epochs: int = 12
    batch_size: int = 2
    learning_rate: float = 0.01
    clip_norm: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay_epochs: tuple[int, ...] = (8, 11)
    warmup_steps: int = 500
    regions: int = 128
    foreground: float = 0.25
    balance: float = 0.0
    dropout: float = 0.0
    flip: bool = True
    human_repeats: int = 1
    machine_background: float = 1.0
    stretch: tuple[float, ...] = (1.0,)
    edges: tuple[int, ...] = ()
    cache: Literal["none", "regions"] = "none"
    versions: int = 2
    keep_maps: bool = False
    trunk_epochs: int = 0
    trunk_rate: float = 1e-4
    region_versions: int = 0
    warm_start: float = 0.0
    head_epochs: int = 12
    head_batch: int = 512
    amp: bool = True
    bfloat16: bool = False
    workers: int = 2

    def __post_init__(self) -> None:
        check_not_negative(
            self,
            "seed",
            "epochs",
            "head_epochs",
            "trunk_epochs",
            "trunk_rate",
            "learning_rate",
            "clip_norm",
            "momentum",
            "weight_decay",
            "warmup_steps",
            "balance",
            "workers",
            "machine_background",
            "region_versions",
            "warm_start",
        )
        check_positive(
            self,
            "batch_size",
            "regions",
            "versions",
            "human_repeats",
            "head_batch",
            "stretch",
            "edges",
        )
        check_share(self, "foreground", "dropout")
        name = "TrainingConfig"
        check_option(
            self.region_versions <= self.versions,
            f"{name}.region_versions",
            self.region_versions,
            f"must be at most versions, {self.versions}",
        )
        check_option(self.seed < 2**32, f"{name}.seed", self.seed, "must be below 2 ** 32")
        check_option(self.dropout < 1, f"{name}.dropout", self.dropout, "must be below 1")
        check_option(
            self.cache == "regions" or not self.trunk_epochs,
            f"{name}.trunk_epochs",
            self.trunk_epochs,
            "must be 0 unless cache is 'regions'; without a cache, epochs train the backbone too",
        )
        check_option(bool(self.stretch), f"{name}.stretch", self.stretch, "needs a factor; try [1]")

    @property
    def trunk_phases(self) -> int:
        """Phases before that of the heads, with ``cache: regions``."""
        return 1 + bool(self.trunk_epochs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One experiment: ``configs/*.yaml`` holds it, command-line overrides change it."""

    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


MOST_BASES = 20  # files below each other


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read ``configs/*.yaml`` and apply ``section.field=value`` overrides (values are YAML).

    A file may name another as ``base:``, relative to itself; its own values win.

    Raises:
        ConfigError: a file or an override cannot be read, or an option is unknown or not valid.
    """
    values = _read_yaml(Path(path))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"override {override!r} must look like training.epochs=3.")
        value = parse_yaml(text, f"override {override!r}")
        *sections, last = key.split(".")
        target = values
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigError(
                    f"override {override!r}: {section} is {shown(target)}, not a section."
                )
        target[last] = value
    return from_mapping(Config, values, str(path))


def _read_yaml(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    values = parse_yaml(read_text(path, "configuration", ConfigError), str(path)) or {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a configuration: it must be a mapping of sections.")
    base = values.pop("base", None)
    if base is None:
        return values
    below = (path.resolve(), *above)
    named = isinstance(base, str) and base.isprintable()
    if not named or (path.parent / base).resolve() in below:
        raise ConfigError(f"{path}: base is {shown(base)}, must be the name of another file.")
    if len(below) > MOST_BASES:
        raise ConfigError(f"{path}: {MOST_BASES} files name each other as base already, the most.")
    return _merge(_read_yaml(path.parent / base, below), values)


def _merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        nested = isinstance(old, dict) and isinstance(value, Mapping)
        merged[key] = _merge(old, value) if nested else value  # type: ignore[arg-type]
    return merged
