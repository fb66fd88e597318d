"""OpenVINO: Intel CPUs, their graphics and neural units."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends import check_floats, check_weights, opened, thread_count
from runtime.bundle import Bundle
from runtime.openvino_core import EXTRA, PACKAGE, core, read_network
from zsd_core.config import ModelConfig
from zsd_core.errors import BundleError, DeviceError, require
from zsd_core.pipeline import HostPipeline, Pipeline
from zsd_core.scoring import Scorer

__all__ = ["EXTRA", "PACKAGE", "OpenVinoBackend", "load"]

Floats = NDArray[np.float32]


def load(
    bundle: Bundle,
    threads: int | None = None,
    precision: str = "float32",
    device: str = "CPU",
) -> OpenVinoBackend:
    """Load both networks.

    Args:
        bundle: whose networks.
        threads: of the device CPU; None takes all that the process may use.
        precision: of the networks; OpenVINO computes in float32 where they are not int8.
        device: OpenVINO's name of a device, such as "CPU", "GPU" or "NPU".
    """
    return OpenVinoBackend(bundle, threads, precision, device)


class OpenVinoBackend:
    """Trunk and head as two compiled models; every thread has requests of its own."""

    name = "openvino"

    def __init__(self, bundle: Bundle, threads: int | None, precision: str, device: str) -> None:
        openvino = require(PACKAGE, EXTRA)
        devices = core().available_devices
        # Of several GPUs, GPU.0 and GPU.1 are listed, and GPU means the first.
        known = {name.partition(".")[0] for name in devices} | {"AUTO"}
        if device not in known | set(devices):
            raise DeviceError(f"openvino has no device {device!r} here, only {', '.join(devices)}.")
        # float32 as exported: on some CPUs the default would be bfloat16.
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        on_cpu = device.partition(".")[0] == "CPU"
        if on_cpu:
            check_weights(bundle, precision, "openvino")
        if threads is not None and on_cpu:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._models: dict[str, tuple[Any, list[str]]] = {}
        for stage in ("trunk", "head"):
            entry, name = bundle.stage(stage), bundle.network_name(stage, precision, "openvino")
            try:
                with bundle.loading(name) as path:
                    model = core().compile_model(read_network(path), device, settings)
            except RuntimeError as error:
                raise BundleError(f"{bundle.path}: openvino cannot load {name}: {error}") from error
            names = [output["name"] for output in entry["outputs"]]
            types = {
                name: output.get_element_type().get_type_name()
                for output in model.outputs
                for name in output.get_names()
            }
            check_floats(f"{bundle.path}/{name}", names, types, "f32")
            self._models[stage] = model, names
        self._requests = threading.local()
        version = openvino.get_version().split("-")[0]
        counted = f", {thread_count(threads)}" if on_cpu else ""
        self.description = f"openvino {version}, {device}, {precision}{counted}"

    def trunk(self, images: Floats) -> tuple[Floats, ...]:
        """Run the backbone and the proposal network."""
        return tuple(self._run("trunk", images))

    def head(self, *region_features: Floats) -> tuple[Floats, Floats]:
        """Run the region network."""
        embeddings, deltas = self._run("head", *region_features)
        return embeddings, deltas

    def pipeline(self, config: ModelConfig, scorer: Scorer) -> Pipeline:
        """Make the host's pipeline: the kernels of the CPU run between the networks."""
        return HostPipeline(self, config, scorer)

    def close(self) -> None:
        """Free both models."""
        self._models.clear()
        self._requests = threading.local()

    def _run(self, stage: str, *arrays: Floats) -> list[Floats]:
        model, names = opened(self._models, stage)
        request = getattr(self._requests, stage, None)
        if request is None:
            request = model.create_infer_request()
            setattr(self._requests, stage, request)
        try:
            results = request.infer(list(arrays), share_inputs=True)
        except RuntimeError as error:
            raise BundleError(f"openvino cannot run the {stage} of the bundle: {error}") from error
        return [np.array(results[name]) for name in names]  # the request reuses its own memory
