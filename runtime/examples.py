"""Classes from examples: what the second look says of boxes that somebody points at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.images import as_image
from zsd_core import kernels
from zsd_core.config import IMAGE, ModelConfig
from zsd_core.errors import ClassError, ConfigError
from zsd_core.files import shown
from zsd_core.kernels.preprocess import Color, check_color
from zsd_core.scoring import VectorScorer
from zsd_core.semantics import as_numbers, unit_rows
from zsd_core.stages import Networks, check_finite

__all__ = ["Example", "can_learn", "with_examples"]

Floats = NDArray[np.float32]
SMALLEST_EDGE = 2  # pixels of a box inside its image; shares of the image are smaller


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """An object in an image.

    Attributes:
        image: ``(H, W, 3)`` uint8, a path or a PIL image, as a ``Detector`` takes it.
        box: ``x1 y1 x2 y2`` in pixels of the image; None: the whole image shows the object.
        color: channel order of an array; OpenCV's and a ``Stream``'s are "bgr".

    Raises:
        ConfigError: ``color`` is neither "rgb" nor "bgr".
    """

    image: Any
    box: Sequence[float] | None = None
    color: Color = "rgb"

    def __post_init__(self) -> None:
        check_color("Example", self.color)

    def pixels(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The box inside an image of this size.

        Raises:
            ClassError: it is no box, is smaller than two pixels, or lies mostly outside.
        """
        if self.box is None:
            return 0.0, 0.0, float(width), float(height)
        told = " ".join(shown(self.box).split())  # of an array, in one line
        must = (
            f"the example's box is {told}, must be x1 y1 x2 y2 in pixels of its image, which is "
            f"{width} x {height}"
        )
        box = as_numbers(self.box)
        if box.shape != (4,) or box.dtype.kind not in "fiu":
            raise ClassError(f"{must}.")
        inside = box.astype(np.float64).clip(0, [width, height] * 2)
        edges = inside[2:] - inside[:2]
        if not (edges > 0).all():
            raise ClassError(f"{must}.")
        if edges.min() < SMALLEST_EDGE:
            raise ClassError(
                f"{must}; {edges[0]:g} x {edges[1]:g} pixels are too few for an example. Shares of "
                "an image are to be multiplied by its width and height."
            )
        x1, y1, x2, y2 = map(float, box)
        if edges.prod() < (x2 - x1) * (y2 - y1) / 2:
            raise ClassError(
                f"{must}; most of it lies outside. If it is x, y, width and height, give "
                "(x, y, x + width, y + height)."
            )
        x1, y1, x2, y2 = map(float, inside)
        return x1, y1, x2, y2


def can_learn(config: ModelConfig, scorer: VectorScorer) -> bool:
    """Whether a model can make classes from examples: it has a second look at the image."""
    return scorer.example_width is not None and config.regions.maps[0][0] == IMAGE


def with_examples(
    classes: Any, networks: Networks, config: ModelConfig, scorer: VectorScorer
) -> Any:
    """Classes with vectors in place of examples.

    Args:
        classes: as a ``Detector`` takes them. In a mapping a value may be an ``Example`` or an
            image (an RGB array, a path or a PIL image), or a list of these.
        networks: of the detector.
        config: of the model.
        scorer: of the model.

    Returns:
        The same, with the mean embedding ``(V,)`` of the examples of a class as its vector.

    Raises:
        BundleError: the head gives numbers that are not finite.
        ClassError: a class has no example, or a box is none or lies outside its image.
        ConfigError: the model cannot learn from examples.
        ImageError: an image cannot be read.
    """
    if not isinstance(classes, Mapping):
        return classes
    return {
        name: _vector(name, value, networks, config, scorer) if _shows(value) else value
        for name, value in classes.items()
    }


def _shows(value: Any) -> bool:
    """Whether the value of a class is examples, and not a vector or None."""
    if isinstance(value, (list, tuple)):
        return not value or isinstance(value[0], str) or not np.isscalar(value[0])
    if value is None:
        return False
    return not hasattr(value, "shape") or len(value.shape) > 1


def _vector(
    name: Any, value: Any, networks: Networks, config: ModelConfig, scorer: VectorScorer
) -> Floats:
    if not can_learn(config, scorer) or scorer.example_width is None:
        raise ConfigError(
            f"class {name!r} is given by examples, and this bundle cannot learn from them: it has "
            "no second look. Open one that has, such as the default: Detector()."
        )
    examples = value if isinstance(value, (list, tuple)) else [value]
    if not examples:
        raise ClassError(f"class {name!r} has an empty list of examples; give one image at least.")
    found = []
    for index, given in enumerate(examples):
        if isinstance(given, (list, tuple)):
            raise ClassError(
                f"example {index} of class {name!r} is a {type(given).__name__}, must be an "
                "image or an Example; a box goes with its image: Example(image, (x1, y1, x2, y2))."
            )
        example = given if isinstance(given, Example) else Example(given)
        image = as_image(example.image, example.color, f"example {index} of class {name!r}")
        box = example.pixels(*image.shape[:2])
        found.append(_embed(networks, config, image, example.color, box, scorer.example_width))
    mean: Floats = unit_rows(np.stack(found)).mean(axis=0)
    return mean


def _embed(
    networks: Networks,
    config: ModelConfig,
    image: NDArray[np.uint8],
    color: Color,
    box: tuple[float, float, float, float],
    width: int,
) -> Floats:
    """Embed a box of an image as the second look sees a region.

    Args:
        networks: of a model that has a second look.
        config: of the model.
        image: ``(H, W, 3)`` uint8.
        color: order of its channels.
        box: ``x1 y1 x2 y2`` in its pixels.
        width: V, the features that classes from examples are compared in.

    Returns:
        ``(V,)`` features.
    """
    preprocess, regions = config.preprocess, config.regions
    height, length = image.shape[:2]
    size = preprocess.resized(height, length)
    tensor = kernels.preprocess(
        image,
        size=size,
        padded=preprocess.padded(*size),
        mean=preprocess.mean,
        std=preprocess.std,
        color=color,
    )
    scale = np.asarray([size[1] / length, size[0] / height] * 2)
    patches = kernels.roi_align(
        tensor[None],
        np.asarray([box] * scale, np.float32),
        np.zeros(1, np.int32),
        output_size=regions.output_size,
        spatial_scale=1 / regions.stride,
        sampling_ratio=regions.sampling_ratio,
    )
    embeddings, _ = outputs = networks.head(patches)
    check_finite("head", outputs)
    return np.asarray(embeddings[0, :width], np.float32)
