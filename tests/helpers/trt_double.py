"""A double of TensorRT's runtime and of CUDA's driver, for machines without a GPU.

Every call is checked against the signature that the real bindings document, and recorded. The
device computes: an "engine" is a network in ONNX Runtime, a kernel is that of the shim, memory is
host memory that starts as garbage, and a stream does what it was given only when someone waits for
it, so that a forgotten wait, or memory freed too early, shows. A stream that is captured does
nothing but remember; what it remembers, a graph does each time it is launched.
"""

from __future__ import annotations

import ctypes
import itertools
import re
import threading
import weakref
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
            self._gpu.check_current()
            return behaviour(self, *positional, **named)

        return call


class Runtime(Double):
    def do_deserialize_cuda_engine(self, plan):
        network = self._gpu.networks.get(plan)
        if network is None:
            self._gpu.logger.log(self._gpu.trt.ILogger.ERROR, "magic tag does not match")
            return None
        for text in self._gpu.warns:
            self._gpu.logger.log(self._gpu.trt.ILogger.WARNING, text)
        return Engine(self._gpu.trt.ICudaEngine, self._gpu, network)


class Engine(Double):
    def __init__(self, real, gpu, network):
        super().__init__(real, gpu)
        self.network = network

    def do_create_runtime_config(self):
        return RuntimeConfig(self._gpu.trt.IRuntimeConfig, self._gpu)

    def do_create_execution_context(self, config):
        own = self._gpu.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        assert config.allocation == own, "what an engine with REQUIRE_USER_ALLOCATION insists on"
        if not self._gpu.has_room:
            return None
        return Context(self._gpu.trt.IExecutionContext, self._gpu, self.network, config)

    def do_get_tensor_dtype(self, name):
        import onnx

        kinds, types = self._gpu.trt.DataType, onnx.TensorProto
        known = {types.FLOAT: kinds.FLOAT, types.FLOAT16: kinds.HALF, types.INT64: kinds.INT64}
        graph = onnx.load(self.network, load_external_data=False).graph
        values = {value.name: value for value in (*graph.input, *graph.output)}
        return known[values[name].type.tensor_type.elem_type]

    def do_create_engine_inspector(self):
        return Inspector(self._gpu.trt.EngineInspector, self._gpu)


class RuntimeConfig(Double):
    """Takes the settings that the real one has."""

    cache = None

    def __setattr__(self, name, value):
        if name not in ("_real", "_gpu", "allocation", "cache"):
            getattr(self._real, name)  # AttributeError: it does not exist
        object.__setattr__(self, name, value)

    def do_set_execution_context_allocation_strategy(self, strategy):
        self.allocation = strategy

    def do_create_runtime_cache(self):
        return RuntimeCache(self._gpu.trt.IRuntimeCache, self._gpu)

    def do_set_runtime_cache(self, cache):
        self.cache = weakref.ref(cache)  # whoever made it must keep it
        return self._gpu.caches


class RuntimeCache(Double):
    """Remembers what was compiled, in a form that only the same GPU takes."""

    def __init__(self, real, gpu):
        super().__init__(real, gpu)
        self.compiled = set()

    def do_serialize(self):
        return "\n".join([str(self._gpu.capability), *sorted(self.compiled)]).encode()

    def do_deserialize(self, blob):
        capability, *compiled = blob.decode(errors="replace").split("\n")
        if capability != str(self._gpu.capability):
            self._gpu.logger.log(self._gpu.trt.ILogger.ERROR, "made elsewhere")
            return False
        self.compiled.update(compiled)
        return True


class Inspector(Double):
    execution_context = None

    def do_get_engine_information(self, form):
        assert form == self._gpu.trt.LayerInformationFormat.JSON
        return self._gpu.inspected if self.execution_context.shapes else '{"Layers": []}'


class Context(Double):
    def __init__(self, real, gpu, network, config):
        super().__init__(real, gpu)
        self.config, self.network = config, network
        import onnxruntime

        self.session = onnxruntime.InferenceSession(
            str(network), providers=["CPUExecutionProvider"]
        )
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.shapes, self.addresses, self.room = {}, {}, None
        own = RuntimeCache(None, gpu)
        self.cache = config.cache or (lambda: own)

    def do_set_input_shape(self, name, shape):
        assert name in self.inputs
        self.shapes[name] = tuple(shape)
        return shape[0] <= self._gpu.accepts

    def do_is_stream_capturable(self, stream):
        eager = self._gpu.trt.DynamicShapesKernelSpecializationStrategy.EAGER
        strategy = self.config.dynamic_shapes_kernel_specialization_strategy
        return self._gpu.capturable and strategy == eager

    def do_update_device_memory_size_for_shapes(self):
        return 100 * sum(int(np.prod(shape)) for shape in self.shapes.values())

    def do_set_device_memory(self, memory, size):
        assert size >= self.do_update_device_memory_size_for_shapes()
        self.room = memory, size

    def do_get_tensor_shape(self, name):
        # Real TensorRT infers it without running.
        zeros = {name: np.zeros(self.shapes[name], np.float32) for name in self.inputs}
        return dict(zip(self.outputs, self.session.run(None, zeros), strict=True))[name].shape

    def do_set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def do_execute_async_v3(self, stream):
        shapes, addresses, room = dict(self.shapes), dict(self.addresses), self.room
        alive, cache = weakref.ref(self), self.cache
        kernel, known = f"{self.network} {shapes}", cache().compiled
        if kernel not in known:
            assert int(stream) not in self._gpu.captured, "compiled while a stream is captured"
            self._gpu.compiled.append(kernel)
            known.add(kernel)

        def work():
            context = alive()
            assert context and cache(), "a context and its cache must outlive what they enqueued"
            gpu = context._gpu
            gpu.at(*room)[:] = 0xCD  # it is there still, and nobody else's
            arrays = {name: gpu.read(addresses[name], shapes[name]) for name in context.inputs}
            results = context.session.run(None, arrays)
            for name, result in zip(context.outputs, results, strict=True):
                gpu.write(addresses[name], result)

        self._gpu.enqueue(stream, work)
        return True


class Kernels:
    """The shim's module of kernels, whose operators run in the order of their stream."""

    def __init__(self, shim, gpu):
        self._shim, self._gpu = shim, gpu

    def __getattr__(self, name):
        if name.endswith("_workspace"):
            return getattr(self._shim.module, name)

        def launch(*arrays, stream, **options):
            self._gpu.calls.append(("kernels", name, threading.get_ident()))
            self._gpu.enqueue(stream, lambda: self._shim.call(name, *arrays, **options))

        return launch


class Gpu:
    """Memory, streams and the calls made so far."""

    def __init__(self, trt, driver, capability=(8, 6)):
        self.trt, self.driver, self.capability = trt, driver, capability
        self.calls, self.networks, self.memory, self.streams = [], {}, {}, {}
        self.pinned, self.captured, self.graphs = {}, {}, {}
        self.current = {}  # the context of each thread; ours is 1
        self.capturing = {}  # the thread that captures a stream
        self.accepts, self.logger, self._handles = 1 << 30, None, itertools.count(4096, 4096)
        self.capturable, self.has_room, self.inspected = True, True, '{"Layers": []}'
        self.caches, self.compiled = True, []  # whether a context takes a cache; what was compiled
        self.warns = []  # what deserialising an engine warns of
        self.failing = None  # the name of a driver's function that fails

    def at(self, address, size):
        """Bytes of device memory, all of one allocation."""
        for start, memory in list(self.memory.items()):  # another thread may allocate
            if start <= address < start + len(memory):
                assert address + size <= start + len(memory), "beyond the memory's end"
                return memory[address - start : address - start + size]
        raise AssertionError(f"no memory at {address}")

    def read(self, address, shape):
        return self.at(address, int(np.prod(shape)) * 4).view(np.float32).reshape(shape).copy()

    def write(self, address, array):
        self.at(address, array.nbytes).view(array.dtype)[:] = array.ravel()

    def check_current(self):
        """Check that this belongs to the GPU that is the calling thread's current one."""
        assert self.current.get(threading.get_ident()) == 1, "another GPU is current"

    def check_not_capturing(self):
        """The mode of capture forbids it to the thread that captures, and to no other."""
        assert threading.get_ident() not in list(self.capturing.values()), (
            "not while a stream is captured"
        )

    def enqueue(self, stream, work):
        """Put work on a stream, or into the graph that is made of it."""
        self.check_current()
        self.captured.get(int(stream), self.streams[int(stream)]).append(work)

    def module(self):
        """Module that the code imports as the TensorRT package."""
        return SimpleNamespace(
            Runtime=lambda logger: Runtime(self.trt.Runtime, self),
            DataType=self.trt.DataType,
            LayerInformationFormat=self.trt.LayerInformationFormat,
            ComputeCapability=self.trt.ComputeCapability,
            ExecutionContextAllocationStrategy=self.trt.ExecutionContextAllocationStrategy,
            DynamicShapesKernelSpecializationStrategy=(
                self.trt.DynamicShapesKernelSpecializationStrategy
            ),
        )

    def driver_module(self):
        """Module that the code imports as ``cuda.bindings.driver``."""
        real, gpu = self.driver, self

        class Driver:
            CUdevice_attribute = real.CUdevice_attribute
            CUstream_flags = real.CUstream_flags
            CUstreamCaptureMode = real.CUstreamCaptureMode

            def __getattr__(self, name):
                behaviour = getattr(gpu, f"do_{name}")

                def call(*positional):
                    checked(real, name, positional, {})
                    gpu.calls.append(("driver", name, threading.get_ident()))
                    if name.startswith(("cuGraph", "cuMem", "cuStream")):
                        gpu.check_current()
                    if name == gpu.failing:
                        return (real.CUresult.CUDA_ERROR_OUT_OF_MEMORY, None)
                    result = behaviour(*positional)
                    done = real.CUresult.CUDA_SUCCESS
                    return (done,) if result is None else (done, result)

                return call

        return Driver()

    def new(self):
        return next(self._handles)

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

    def do_cuCtxSetCurrent(self, context):
        self.current[threading.get_ident()] = context

    def do_cuStreamCreate(self, flags):
        stream = self.new()
        self.streams[stream] = []
        return self.driver.CUstream(stream)

    def do_cuStreamDestroy(self, stream):
        assert not self.streams.pop(int(stream)), "destroyed with work left"

    def do_cuMemAlloc(self, size):
        self.check_not_capturing()
        memory = np.full(size, 0xAB, np.uint8)
        address = memory.ctypes.data
        self.memory[address] = memory
        return self.driver.CUdeviceptr(address)

    def do_cuMemAllocHost(self, size):
        memory = np.full(size, 0xAB, np.uint8)
        self.pinned[memory.ctypes.data] = memory
        return memory.ctypes.data

    def do_cuMemFreeHost(self, address):
        del self.pinned[address]

    def do_cuStreamBeginCapture(self, stream, mode):
        assert mode == self.driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self.captured[int(stream)] = []
        self.capturing[int(stream)] = threading.get_ident()

    def do_cuStreamEndCapture(self, stream):
        graph = self.new()
        assert self.capturing.pop(int(stream)) == threading.get_ident()
        self.graphs[graph] = self.captured.pop(int(stream))
        return self.driver.CUgraph(graph)

    def do_cuGraphInstantiate(self, graph, flags):
        executable = self.new()
        self.graphs[executable] = list(self.graphs[int(graph)])
        return self.driver.CUgraphExec(executable)

    def do_cuGraphDestroy(self, graph):
        del self.graphs[int(graph)]

    def do_cuGraphExecDestroy(self, graph):
        del self.graphs[int(graph)]

    def do_cuGraphLaunch(self, graph, stream):
        for work in self.graphs[int(graph)]:
            self.enqueue(stream, work)

    def do_cuMemFree(self, address):
        self.check_not_capturing()
        del self.memory[int(address)]

    def do_cuMemcpyHtoDAsync(self, target, source, size, stream):
        def work():
            self.write(int(target), np.frombuffer(ctypes.string_at(source, size), np.uint8))

        self.enqueue(stream, work)

    def do_cuMemcpyDtoHAsync(self, target, source, size, stream):
        def work():
            ctypes.memmove(target, self.at(int(source), size).ctypes.data, size)

        self.enqueue(stream, work)

    def do_cuStreamSynchronize(self, stream):
        assert int(stream) not in self.captured, "waited for a stream that is captured"
        queue, self.streams[int(stream)] = self.streams[int(stream)], []
        for work in queue:
            work()
