"""Vectors of any phrase: the text encoder that a bundle carries, on the CPU, without torch."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle
from runtime.processes import check_process, never_freed_in_a_fork
from runtime.spelling import Spelling, trained_name
from runtime.tokenizer_file import check_tokenizer
from zsd_core import kernels
from zsd_core.errors import BundleError, ClassError, MissingPackageError, ZsdError, require
from zsd_core.files import shown
from zsd_core.semantics import fold_name, name_fault, row_lengths
from zsd_core.text import TEMPLATE, fill_template

__all__ = ["NETWORKS", "TextEncoder"]

BATCH = 32  # phrases that go through the network together
UNIT = 1e-2  # of the length of a vector, from 1
KEPT = 4096  # phrases whose vectors are remembered, 1.5 KB each
Floats = NDArray[np.float32]
Network = Callable[[NDArray[np.int64]], Floats]


class TextEncoder:
    """The text encoder of a bundle, ready for any thread.

    Nothing is opened before the first phrase. The network runs on the CPU in ONNX Runtime or else
    in OpenVINO, whichever is installed; where the detector runs does not matter.

    Args:
        bundle: whose encoder.
        threads: CPU threads; None takes all that the process may use.
        package: one of ``NETWORKS``; None takes the first that is installed.
    """

    def __init__(
        self, bundle: Bundle, threads: int | None = None, package: str | None = None
    ) -> None:
        self._bundle, self._package = bundle, package
        self._threads = kernels.thread_limit() if threads is None else threads
        self._info = bundle.text_info
        self._lock = threading.RLock()
        self._known: OrderedDict[str, Floats] = OrderedDict()
        self._process = os.getpid()

    def __bool__(self) -> bool:
        """Whether the bundle has an encoder."""
        return bool(self._info)

    def encode(self, phrases: Sequence[str]) -> Floats:
        """Encode words and phrases.

        Args:
            phrases: texts; the bundle's template goes around each, as it did around the names of
                the training classes.

        Returns:
            ``(len(phrases), E)`` float32 rows of unit length, in the order of ``phrases``.

        Raises:
            BundleError: the bundle has no text encoder, or the encoder cannot be loaded.
            ClassError: ``phrases`` is no list of texts, or one of them is blank.
            DeviceError: this process was forked from the one that opened it.
            MissingPackageError: tokenizers, or every runtime of networks, is not installed.
        """
        if not self:
            raise BundleError(
                f"{self._bundle.path}: this bundle has no text encoder. Add one: "
                f"python -m export.text {self._bundle.path}"
            )
        check_process(self._process, "detector")
        names = [_plain(phrase) for phrase in _listed(phrases)]
        with self._lock:
            unknown = [name for name in dict.fromkeys(names) if name not in self._known]
            found = {name: self._known[name] for name in names if name in self._known}
            found.update(zip(unknown, self._run(unknown), strict=True))
            for name, vector in found.items():
                self._known[name] = vector
                self._known.move_to_end(name)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        rows = np.empty((len(names), int(self._info["width"])), np.float32)
        for row, name in zip(rows, names, strict=True):
            row[:] = found[name]
        return rows

    @cached_property
    def spelling(self) -> Spelling:
        """Judges whether a phrase looks misspelt."""
        bundle = self._bundle
        names = (*bundle.seen, *bundle.unseen, *bundle.vocabulary.names)
        ordinary = bundle.vocabulary.ordinary | self._tokenizer.get_vocab().keys()
        return Spelling(names, ordinary, bundle.seen)

    def check_spelling(self, phrases: Sequence[str]) -> None:
        """Refuse phrases that look misspelt.

        Raises:
            ClassError: some do; all of them are listed, and ``meant`` holds likelier spellings.
        """
        found = {phrase: self.spelling.correction(phrase) for phrase in phrases}
        meant = {phrase: right for phrase, right in found.items() if right}
        if meant:
            said = (f"{phrase!r} (did you mean {right!r}?)" for phrase, right in meant.items())
            raise ClassError(
                f"{len(meant)} class name{'s look' if len(meant) > 1 else ' looks'} misspelt: "
                f"{', '.join(said)}. exact=True takes names as they stand (--exact on a command "
                'line, "exact": true over HTTP).',
                meant=meant,
            )

    def spelling_hints(self, names: Sequence[str]) -> dict[str, str]:
        """Likelier spellings of names that are accepted as they stand, by the name given."""
        bundle = self._bundle
        table = {fold_name(name): name for name in (*bundle.seen, *bundle.unseen)}
        trained = {fold_name(name): name for name in bundle.seen}
        found: dict[str, str | None] = {}
        for name in names:
            if fold_name(name) not in table:
                found[name] = trained_name(name, trained)
                if not found[name] and self and name not in bundle.vocabulary:
                    found[name] = self.spelling.likelier(name)
        return {name: likelier for name, likelier in found.items() if likelier}

    def _run(self, names: Sequence[str]) -> list[Floats]:
        """Vectors of names; names of about the same length go through the network together."""
        if not names:
            return []
        template = str(self._info.get("template") or TEMPLATE)
        # One by one: the library would start threads of its own for a list.
        texts = [fill_template(template, name) for name in names]
        with self._tokenizing():
            tokens = [self._tokenizer.encode(text).ids for text in texts]
        order = sorted(range(len(names)), key=lambda place: len(tokens[place]))
        vectors: list[Floats] = [np.empty(0, np.float32)] * len(names)
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            longest = len(tokens[places[-1]])
            rows = np.full((len(places), longest), int(self._info["padding"]), np.int64)
            for row, place in zip(rows, places, strict=True):
                row[: len(tokens[place])] = tokens[place]
            for place, vector in zip(places, self._encoded(rows), strict=True):
                vectors[place] = vector
        return vectors

    def _encoded(self, tokens: NDArray[np.int64]) -> Floats:
        """Vectors of rows of tokens, which must be what the manifest says."""
        network = self._network
        try:
            vectors = network(tokens)
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise BundleError(
                f"{self._bundle.path}: the text encoder cannot be run: {error}"
            ) from error
        wanted = (len(tokens), int(self._info["width"]))
        if vectors.shape != wanted or not np.isfinite(vectors).all():
            raise BundleError(
                f"{self._bundle.path}: the text encoder gives vectors of shape {vectors.shape}, "
                f"must give {wanted} numbers that are finite."
            )
        lengths = row_lengths(vectors)
        if lengths.size and abs(lengths - 1).max() > UNIT:
            raise BundleError(
                f"{self._bundle.path}: the text encoder gives vectors of lengths from "
                f"{lengths.min():g} to {lengths.max():g}, must give 1."
            )
        return vectors

    @cached_property
    def _tokenizer(self) -> Any:
        library, data = require("tokenizers", "cpu"), self._bundle.read(self._info["tokenizer"])
        check_tokenizer(f"{self._bundle.path}: {self._info['tokenizer']}", data)
        with self._tokenizing():
            tokenizer = library.Tokenizer.from_buffer(data)
            tokenizer.no_padding()
            tokenizer.enable_truncation(int(self._info["max_tokens"]))
        return tokenizer

    @contextmanager
    def _tokenizing(self) -> Iterator[None]:
        """Turn whatever the tokenizer library raises into an error of ours."""
        try:
            yield
        except ZsdError:
            raise
        except BaseException as error:  # a panic of Rust is no Exception
            if not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
                raise
            raise BundleError(
                f"{self._bundle.path}: {self._info['tokenizer']} cannot be read: {error}"
            ) from error

    @cached_property
    def _network(self) -> Network:
        name = self._bundle.onnx_name(self._info["network"])
        for package, load in NETWORKS.items():
            if self._package not in (None, package) or not importlib.util.find_spec(package):
                continue
            try:
                # The bundle was opened long ago, and the first phrase comes now.
                with self._bundle.loading(name, anew=True) as path:
                    network = load(path, self._threads)
                never_freed_in_a_fork(self)
                return network
            except ZsdError:
                raise
            except Exception as error:  # onnxruntime's own exceptions share no base class
                raise BundleError(
                    f"{self._bundle.path}: {package} cannot load {name}: {error}"
                ) from error
        raise MissingPackageError(
            f"a phrase is encoded by {self._package or 'onnxruntime or openvino'}, which is not "
            "installed. Install it: pip install 'contrastzsd[cpu]' or 'contrastzsd[openvino]'"
        )


def _onnxruntime(path: Path, threads: int | None) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; warnings would be about our own graph
    # Idle workers must not spin while a detector runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
    name = session.get_inputs()[0].name
    _check_floats(session.get_outputs()[0].type, "tensor(float)")
    return lambda tokens: np.asarray(session.run(None, {name: tokens})[0])


def _openvino(path: Path, threads: int | None) -> Network:
    from runtime.openvino_core import core, read_network

    # Exactly what ONNX Runtime computes: no bfloat16, and no rounding of activations.
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    model = core().compile_model(read_network(path), "CPU", settings)
    _check_floats(model.outputs[0].get_element_type().get_type_name(), "f32")
    request = model.create_infer_request()  # the encoder's lock keeps threads apart
    return lambda tokens: np.array(request.infer([tokens])[0])


def _check_floats(found: str, float32: str) -> None:
    if found != float32:
        raise TypeError(f"it gives {found}, must give {float32}")


NETWORKS: dict[str, Callable[[Path, int | None], Network]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}


def _listed(phrases: Sequence[str]) -> Sequence[str]:
    if isinstance(phrases, str):
        raise ClassError(f"phrases is the text {phrases!r}, must be a list: {[phrases]!r}.")
    return phrases


def _plain(phrase: object) -> str:
    """A phrase in the form that is encoded: case and blanks do not count for a name."""
    folded = fold_name(phrase) if isinstance(phrase, str) else ""
    if not folded:
        raise ClassError(f"phrase {shown(phrase)} must be a text that is not blank.")
    if fault := name_fault(folded):
        raise ClassError(f"phrase {shown(phrase)} {fault}.")
    return folded
