"""Ask a Triton server that serves a bundle; the classes travel with the request.

    python deploy/triton/client.py photo.jpg "cat, cup, fire truck" localhost:8000

Needs ``pip install 'contrastzsd[triton]'`` and the bundle that the server was given, for the
vocabulary and the image size; neither a backend nor a GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.arguments import parse_classes
from runtime.bundle import Bundle, open_bundle
from runtime.classes import ActiveClasses, ClassTable
from runtime.images import read_image
from runtime.thresholds import Limits, ScoreThreshold
from zsd_core import kernels
from zsd_core.commands import command, new_parser
from zsd_core.errors import DeviceError, require
from zsd_core.scoring import scorer_for
from zsd_core.stages import to_original

Arrays = Mapping[str, NDArray[np.generic]]
NAMES = ("boxes", "scores", "columns", "batch_indices")


class Client:
    """Turns images and class names into requests, and answers into detections.

    Args:
        bundle: that the server was given.
        classes: names; None takes the bundle's table.
        ask: sends the inputs by name and returns the outputs by name.
        score_threshold: as of ``Detector``; None takes the bundle's.
    """

    def __init__(
        self,
        bundle: Bundle,
        classes: Sequence[str] | None,
        ask: Callable[[Arrays], Arrays],
        score_threshold: ScoreThreshold | None = None,
    ) -> None:
        self._config, self._ask = bundle.model_config, ask
        scorer = scorer_for(self._config.scoring, bundle.scorer_tensors())
        self._active = ClassTable(bundle, scorer, False).activate(classes, "gzsd", version=1)
        limits = Limits.of(self._config.detection, score_threshold, None, None)
        self._class_inputs = class_inputs(self._active, limits)

    def __call__(self, image: NDArray[np.uint8]) -> list[tuple[str, float, list[float]]]:
        """Name, score and box (``x1 y1 x2 y2``, pixels) of every object of an RGB image."""
        preprocess = self._config.preprocess
        size = preprocess.resized(*image.shape[:2])
        pixels = kernels.preprocess(
            image,
            size=size,
            padded=preprocess.padded(*size),
            mean=preprocess.mean,
            std=preprocess.std,
        )
        answer = self._ask(
            {
                "images": pixels[None],
                "image_sizes": np.asarray([size], np.float32),
                **self._class_inputs,
            }
        )
        boxes = to_original(np.asarray(answer["boxes"], np.float32), size, image.shape[:2])
        names = self._active.class_set.names
        return [
            (names[column], float(score), box.tolist())
            for column, score, box in zip(answer["columns"], answer["scores"], boxes, strict=True)
        ]


def class_inputs(active: ActiveClasses, limits: Limits) -> dict[str, NDArray[np.float32]]:
    """The inputs that say which classes are searched; they are the same for every image."""
    classes = active.class_set
    unseen = classes.unseen_count
    similarity = np.concatenate(
        [np.zeros((1, unseen)), classes.seen_similarity, np.eye(unseen)]  # background, seen, unseen
    )
    return {
        "prototypes": np.ascontiguousarray(classes.prototypes, np.float32),
        "similarity": similarity.astype(np.float32),
        "score_threshold": limits.per_column(active),  # infinity hides a class
    }


def over_http(address: str) -> Callable[[Arrays], Arrays]:
    """Send requests to a Triton server.

    Raises:
        DeviceError: it does not answer, or refuses a request.
    """
    http = require("tritonclient.http", "triton")
    with _answered(address):
        server = http.InferenceServerClient(address.removeprefix("http://"))

    def ask(arrays: Arrays) -> Arrays:
        inputs = []
        for name, array in arrays.items():
            inputs.append(http.InferInput(name, list(array.shape), "FP32"))
            inputs[-1].set_data_from_numpy(array)
        with _answered(address):
            answer = server.infer("contrastzsd", inputs)
        return {name: answer.as_numpy(name) for name in NAMES}

    return ask


@contextmanager
def _answered(address: str) -> Iterator[None]:
    """Name the server in an error of its client."""
    from tritonclient.utils import InferenceServerException

    try:
        yield
    except (InferenceServerException, OSError, ValueError) as error:
        raise DeviceError(
            f"{address}: no Triton server answers: {error}. Is it up, and does it serve the model "
            "contrastzsd?"
        ) from error


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Print what the server finds in a photograph."""
    parser = new_parser("deploy.triton.client", __doc__)
    parser.add_argument("photo", type=Path)
    parser.add_argument("classes", type=parse_classes, help='"cat, cup", or @FILE')
    parser.add_argument("address", nargs="?", default="localhost:8000", help="(localhost:8000)")
    args = parser.parse_args(argv)
    image = read_image(args.photo, "rgb")
    client = Client(open_bundle(), args.classes, over_http(args.address))
    for name, score, box in client(image):
        print(f"{name} {score:.2g} at {', '.join(f'{x:.0f}' for x in box)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
