"""A double of TensorRT's runtime and of CUDA's driver, for machines without a GPU.

Every call is checked against the signature that the real bindings document, and recorded. The
device computes: an "engine" is a network in ONNX Runtime, memory is host memory under invented
addresses, and a stream does what it was given only when someone waits for it, so that a forgotten
wait, or memory freed too early, shows.
"""

from __future__ import annotations

import ctypes
import re
import threading
from types import SimpleNamespace

import numpy as np


def overloads(function, name):
    """Parameter lists of a binding as (name, has a default), read from its documentation."""
    found = []
    for line in function.__doc__.splitlines():
        match = re.match(rf"\s*(?:\d+\. )?{name}\((.*?)\)(?: ->.*)?$", line)
        if match and match[1] != "*args, **kwargs":
            parts = [p for p in re.split(r",(?![^\[(]*[\])])", match[1]) if p.strip()]
            names = [(p.split("=")[0].split(":")[0].split()[-1], "=" in p) for p in parts]
            found.append([item for item in names if item[0] != "self"])
    return found


def accepts(parameters, positional, named):
    names = [name for name, _ in parameters]
    needed = {name for name, optional in parameters if not optional}
    given = set(names[: len(positional)]) | set(named)
    return len(positional) <= len(names) and set(named) <= set(names) and needed <= given


def checked(owner, name, positional, named):
    """Raise TypeError unless the real binding takes these arguments."""
    real = getattr(owner, name)  # AttributeError: it does not exist
    known = overloads(real, name)
    assert known, f"{name} documents no signature"
    if not any(accepts(parameters, positional, named) for parameters in known):
        raise TypeError(f"{owner.__name__}.{name}{positional} {named}: it takes {known}")


class Double:
    """Stands for an object of a real class; ``do_NAME`` is what a method does here."""

    def __init__(self, real, gpu):
        self._real, self._gpu = real, gpu

    def __getattr__(self, name):
        behaviour = getattr(type(self), f"do_{name}")

        def call(*positional, **named):
            checked(self._real, name, positional, named)
            self._gpu.calls.append((self._real.__name__, name, threading.get_ident()))
            return behaviour(self, *positional, **named)

        return call


class Runtime(Double):
    def do_deserialize_cuda_engine(self, plan):
        network = self._gpu.networks.get(plan)
        if network is None:
            self._gpu.logger.log(self._gpu.trt.ILogger.ERROR, "magic tag does not match")
            return None
        return Engine(self._gpu.trt.ICudaEngine, self._gpu, network)


class Engine(Double):
    def __init__(self, real, gpu, network):
        super().__init__(real, gpu)
        self.network = network

    def do_create_execution_context(self):
        return Context(self._gpu.trt.IExecutionContext, self._gpu, self.network)


class Context(Double):
    def __init__(self, real, gpu, network):
        super().__init__(real, gpu)
        import onnxruntime

        self.session = onnxruntime.InferenceSession(
            str(network), providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.shape, self.addresses = None, {}

    def do_set_input_shape(self, name, shape):
        assert name == self.input
        self.shape = tuple(shape)
        return self.shape[0] <= self._gpu.accepts

    def do_get_tensor_shape(self, name):
        zeros = np.zeros(self.shape, np.float32)  # real TensorRT infers it without running
        return dict(zip(self.outputs, self.session.run(None, {self.input: zeros}), strict=True))[
            name
        ].shape

    def do_set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def do_execute_async_v3(self, stream):
        shape, addresses = self.shape, dict(self.addresses)

        def work():
            array = self._gpu.read(addresses[self.input], shape)
            results = self.session.run(None, {self.input: array})
            for name, result in zip(self.outputs, results, strict=True):
                self._gpu.write(addresses[name], result)

        self._gpu.streams[stream].append(work)
        return True


class Gpu:
    """Memory, streams and the calls made so far."""

    def __init__(self, trt, driver, capability=(8, 6)):
        self.trt, self.driver, self.capability = trt, driver, capability
        self.calls, self.networks, self.memory, self.streams = [], {}, {}, {}
        self.accepts, self.logger, self._next = 1 << 30, None, 4096
        self.status = driver.CUresult.CUDA_SUCCESS

    def read(self, address, shape):
        count = int(np.prod(shape)) * 4
        return np.frombuffer(bytes(self.memory[address][:count]), np.float32).reshape(shape)

    def write(self, address, array):
        data = np.ascontiguousarray(array).tobytes()
        assert len(data) <= len(self.memory[address]), "written beyond the memory's end"
        self.memory[address][: len(data)] = data

    def module(self):
        """What the code imports as the TensorRT package."""
        return SimpleNamespace(
            Runtime=lambda logger: Runtime(self.trt.Runtime, self),
            LayerInformationFormat=self.trt.LayerInformationFormat,
        )

    def driver_module(self):
        """What the code imports as ``cuda.bindings.driver``."""
        real, gpu = self.driver, self

        class Driver:
            CUdevice_attribute = real.CUdevice_attribute
            CUstream_flags = real.CUstream_flags

            def __getattr__(self, name):
                behaviour = getattr(gpu, f"do_{name}")

                def call(*positional):
                    checked(real, name, positional, {})
                    gpu.calls.append(("driver", name, threading.get_ident()))
                    result = behaviour(*positional)
                    return (gpu.status,) if result is None else (gpu.status, result)

                return call

        return Driver()

    def new(self):
        self._next += 4096
        return self._next

    def do_cuInit(self, flags): ...

    def do_cuDeviceGetCount(self):
        return 1

    def do_cuDeviceGet(self, index):
        return index

    def do_cuDeviceGetAttribute(self, kind, device):
        return self.capability["MINOR" in kind.name]

    def do_cuDeviceGetName(self, length, device):
        return b"Double of a GPU\0\0"

    def do_cuDevicePrimaryCtxRetain(self, device):
        return 1

    def do_cuDevicePrimaryCtxRelease(self, device): ...

    def do_cuCtxSetCurrent(self, context): ...

    def do_cuStreamCreate(self, flags):
        stream = self.new()
        self.streams[stream] = []
        return self.driver.CUstream(stream)

    def do_cuStreamDestroy(self, stream):
        assert not self.streams.pop(int(stream)), "destroyed with work left"

    def do_cuMemAlloc(self, size):
        address = self.new()
        self.memory[address] = bytearray(size)
        return self.driver.CUdeviceptr(address)

    def do_cuMemFree(self, address):
        del self.memory[int(address)]

    def do_cuMemcpyHtoDAsync(self, target, source, size, stream):
        def work():
            self.memory[int(target)][:size] = ctypes.string_at(source, size)

        self.streams[int(stream)].append(work)

    def do_cuMemcpyDtoHAsync(self, target, source, size, stream):
        def work():
            ctypes.memmove(target, bytes(self.memory[int(source)][:size]), size)

        self.streams[int(stream)].append(work)

    def do_cuStreamSynchronize(self, stream):
        queue, self.streams[int(stream)] = self.streams[int(stream)], []
        for work in queue:
            work()
