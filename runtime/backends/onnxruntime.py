"""ONNX Runtime, the default backend: any CPU, and every execution provider it was built with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends import check_floats, check_weights, opened, thread_count
from runtime.backends.shares import Later, Run, Shares
from runtime.bundle import Bundle
from runtime.side_by_side import side_by_side
from zsd_core import kernels
from zsd_core.config import ModelConfig
from zsd_core.errors import BundleError, ConfigError, DeviceError, ZsdError, require
from zsd_core.pipeline import HostPipeline, Pipeline
from zsd_core.scoring import Scorer

__all__ = ["CPU", "CPU_OFF", "EXTRA", "PACKAGE", "OnnxRuntimeBackend", "load"]

PACKAGE, EXTRA = "onnxruntime", "cpu"
CPU = "CPUExecutionProvider"
# Rounding that moves up through a slice rounds what the slice leaves out too.
CPU_OFF = ("QDQPropagationTransformer",)
IMAGES = 8  # of a batch, as ``Detector`` passes them on
Floats = NDArray[np.float32]


def load(
    bundle: Bundle,
    threads: int | None = None,
    precision: str = "float32",
    providers: Sequence[str] | None = None,
) -> OnnxRuntimeBackend:
    """Load both networks.

    Args:
        bundle: whose networks.
        threads: None takes all that the process may use.
        precision: of the networks.
        providers: execution providers, best first; None takes CUDA where this ONNX Runtime has it,
            and the CPU. A provider that is named and cannot be used is an error.
    """
    return OnnxRuntimeBackend(bundle, threads, precision, providers)


class OnnxRuntimeBackend:
    """Trunk and head as inference sessions; threads share images and regions between them."""

    name = "onnxruntime"

    def __init__(
        self,
        bundle: Bundle,
        threads: int | None,
        precision: str,
        providers: Sequence[str] | None,
    ) -> None:
        ort = require(PACKAGE, EXTRA)
        available = ort.get_available_providers()
        if isinstance(providers, str):
            raise ConfigError(
                f"providers is the text {providers!r}, must be a list: [{providers!r}]."
            )
        for provider in providers or ():
            if provider not in available:
                raise DeviceError(
                    f"onnxruntime {ort.__version__} has no {provider}, only "
                    f"{', '.join(available)}. For CUDA: pip install 'contrastzsd[gpu]' in place of "
                    "[cpu]; the two cannot share an environment."
                )
        wanted = list(providers or [p for p in ("CUDAExecutionProvider", CPU) if p in available])
        if wanted[0] == CPU:
            check_weights(bundle, precision, "onnxruntime")
        session = partial(_Session, ort, bundle, precision, wanted)
        count = threads or kernels.usable_threads()
        many = _rows(bundle, count) if wanted[0] == CPU else {"trunk": 1, "head": 1}
        # Most programs search single images and look at several regions of each: these two networks
        # are loaded now, side by side. The one for as many images as threads and the one for fewer
        # regions than threads follow when they are used.
        first = [("trunk", threads or 0), ("head", count // many["head"])]
        trunk, head = side_by_side(lambda stage: session(*stage), first, min(2, count))

        def later(stage: str, threads: int) -> Later:
            def make() -> Run:
                return session(stage, threads, anew=True).run

            return Later(make)

        images: Run = trunk.run
        one: Run = head.run
        if many["trunk"] > 1:
            images = later("trunk", count // many["trunk"])
        if many["head"] > 1:
            one = later("head", count)
        self._networks = {
            "trunk": Shares(images, many["trunk"], trunk.run),
            "head": Shares(head.run, many["head"], one),
        }
        used = trunk.providers
        if providers and used[0] != wanted[0]:
            raise DeviceError(
                f"onnxruntime could not start {wanted[0]} and would run on {used[0]}; check the "
                f"driver and libraries it needs, or leave providers out to accept {used[0]}."
            )
        self.description = (
            f"onnxruntime {ort.__version__}, {used[0]}, {precision}, {thread_count(threads)}"
        )

    def trunk(self, images: Floats) -> tuple[Floats, ...]:
        """Run the backbone and the proposal network."""
        return tuple(opened(self._networks, "trunk")(images))

    def head(self, *region_features: Floats) -> tuple[Floats, Floats]:
        """Run the region network."""
        embeddings, deltas = opened(self._networks, "head")(*region_features)
        return embeddings, deltas

    def pipeline(self, config: ModelConfig, scorer: Scorer) -> Pipeline:
        """Make the host's pipeline: the kernels of the CPU run between the networks."""
        return HostPipeline(self, config, scorer)

    def close(self) -> None:
        """Free all sessions."""
        for stage in list(self._networks):
            if network := self._networks.pop(stage, None):
                network.close()


def _rows(bundle: Bundle, threads: int) -> dict[str, int]:
    """Shares of a call of each stage: never more than its images or regions usually are."""
    model = bundle.model_config
    regions = model.regions.look or model.proposals.post_nms_top
    return {"trunk": min(threads, IMAGES), "head": min(threads, regions)}


class _Session:
    """An inference session of a stage.

    Args:
        threads: of one operator; 0 takes all cores.
        anew: hash the files again: the bundle was opened long ago.
    """

    def __init__(
        self,
        ort: Any,
        bundle: Bundle,
        precision: str,
        providers: list[str],
        stage: str,
        threads: int,
        anew: bool = False,
    ) -> None:
        entry, name = bundle.stage(stage), bundle.network_name(stage, precision, "onnxruntime")
        self._inputs = [value["name"] for value in entry["inputs"]]
        self._outputs = [output["name"] for output in entry["outputs"]]
        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors; warnings would be about our own graph
        # A network's idle workers must not spin while the kernels or the other network run.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.intra_op_num_threads = threads
        self._name = f"{bundle.path}/{name}"
        settings: dict[str, Any] = {}
        if providers[0] == CPU:
            # There is nothing to fall back to: ONNX Runtime would load a file that it refused once
            # more, and say so on standard output.
            settings = {"disabled_optimizers": CPU_OFF, "enable_fallback": 0}
        try:
            with bundle.loading(name, anew=anew) as path:
                self._session = ort.InferenceSession(
                    str(path), options, providers=providers, **settings
                )
        except ZsdError:
            raise
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise BundleError(
                f"{bundle.path}: onnxruntime {ort.__version__} cannot load {name}: {error}"
            ) from error
        types = {output.name: output.type for output in self._session.get_outputs()}
        check_floats(self._name, self._outputs, types, "tensor(float)")
        self.providers: list[str] = self._session.get_providers()

    def run(self, *arrays: Floats) -> list[Floats]:
        feeds = dict(zip(self._inputs, arrays, strict=True))
        try:
            outputs: list[Floats] = self._session.run(self._outputs, feeds)
        except Exception as error:  # its own exceptions share no base class
            raise BundleError(
                f"{self._name} cannot be run: {error} Check the bundle: contrastzsd verify"
            ) from error
        return outputs
