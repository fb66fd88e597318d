"""Every attribute of TensorRT that our code uses exists in the real bindings, by introspection."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest

from runtime.backends.trt_package import Package, open_package
from zsd_core.errors import ConfigError

trt = pytest.importorskip("tensorrt_rtx")

ROOT = Path(__file__).parents[2]
FILES = [
    ROOT / "export" / "writing" / "tensorrt_plans.py",
    ROOT / "runtime" / "backends" / "kernel_cache.py",
    ROOT / "runtime" / "backends" / "trt_package.py",
    ROOT / "runtime" / "backends" / "trt_backend.py",
    ROOT / "runtime" / "backends" / "trt_engines.py",
]
# What a variable of this name holds, in those files.
OBJECTS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "shapes": "IOptimizationProfile",
    "layer": "ILayer",
    "source": "ILayer",
    "tensor": "ITensor",
    "runtime": "Runtime",
    "context": "IExecutionContext",
    "engine.engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "cache": "ITimingCache",
    "runtime_cache": "IRuntimeCache",
    "runtime_config": "IRuntimeConfig",
    "strategies": "DynamicShapesKernelSpecializationStrategy",
    "kinds": "LayerType",
    "e": "ParserError",
}


def chain(node: ast.expr) -> list[str]:
    """["trt", "ILogger", "WARNING"] for ``package.trt.ILogger.WARNING``; else []."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return [node.id, *parts] if isinstance(node, ast.Name) else []


def uses(source: str):
    """(what is said, object of the bindings, attribute) for every use of TensorRT."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute):
            continue
        names = chain(node)
        if "trt" in names[:-1]:
            *path, last = names[names.index("trt") + 1 :]
            owner = trt
            for name in path:
                owner = getattr(owner, name, None)
            yield ".".join(names), owner, last
        elif names and ".".join(names[:-1]) in OBJECTS:
            yield ".".join(names), getattr(trt, OBJECTS[".".join(names[:-1])]), names[-1]


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.name)
def test_every_attribute_exists(file):
    found = list(uses(file.read_text(encoding="utf-8")))
    assert len(found) >= 2
    assert [said for said, owner, name in found if not hasattr(owner, name)] == []


def test_the_check_sees_what_it_is_for():
    source = "trt.Builder\ntrt.Bilder\nconfig.set_flag(trt.BuilderFlag.FP16)\ncontext.execute()"
    missing = [said for said, owner, name in uses(source) if not hasattr(owner, name)]
    assert set(missing) == {"trt.Bilder", "trt.BuilderFlag.FP16", "context.execute"}


def test_every_module_that_touches_tensorrt_is_checked():
    known = {file.resolve() for file in FILES}
    for package in ("runtime", "export", "zsd_core", "benchmarks"):
        for path in (ROOT / package).rglob("*.py"):
            if "trt." in path.read_text(encoding="utf-8") and path.resolve() not in known:
                found = list(uses(path.read_text(encoding="utf-8")))
                assert found == [], f"{path} uses {found[0][0]}; list it in FILES"


def test_targets_are_those_of_the_bindings():
    package = open_package("tensorrt_rtx")
    assert package.ahead_of_time
    assert {"sm75", "sm86", "sm89", "sm120"} <= set(package.targets)
    for target in package.targets:
        assert hasattr(trt.ComputeCapability, target.upper())


def test_networks_are_strongly_typed():
    package = open_package("tensorrt_rtx")
    builder = trt.Builder(package.logger)
    network = builder.create_network(package.network_flags())
    assert network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


class TimingConfig:
    """Timing part of a builder of classic TensorRT."""

    def __init__(self, foreign=False):
        self.cache, self.foreign = None, foreign

    def create_timing_cache(self, known):
        return TimingCache(known)

    def set_timing_cache(self, cache, ignore_mismatch):
        if self.foreign and cache.known:
            open_package("tensorrt_rtx").logger.log(trt.ILogger.WARNING, "not of this device")
            return False
        self.cache = cache
        return True

    def get_timing_cache(self):
        return self.cache


class TimingCache:
    def __init__(self, known):
        self.known = known

    def serialize(self):
        return self.known + b"measured"


@pytest.fixture
def classic():
    """The bindings of TensorRT-RTX as if they were those of classic TensorRT."""
    package = object.__new__(Package)
    package.__dict__.update(open_package("tensorrt_rtx").__dict__, ahead_of_time=False)
    return package


def test_classic_tensorrt_keeps_timings_and_tensorrt_rtx_does_not(classic):
    for name in ("create_timing_cache", "set_timing_cache", "get_timing_cache"):
        assert hasattr(trt.IBuilderConfig, name)  # the double has what the bindings have
    config = TimingConfig()
    classic.load_timings(config, b"known, ")
    assert classic.timings(config) == b"known, measured"
    assert classic.timings(TimingConfig()) == b""
    config = TimingConfig()
    open_package("tensorrt_rtx").load_timings(config, b"known")
    assert config.cache is None and open_package("tensorrt_rtx").timings(config) == b""
    assert classic.targets == ()


def test_timings_of_another_device_are_dropped_and_are_no_warning_of_the_build(classic):
    config = TimingConfig(foreign=True)
    with classic.messages() as messages:
        classic.logger.log(trt.ILogger.WARNING, "before")
        classic.load_timings(config, b"of another device")
    assert classic.timings(config) == b"measured"
    assert [m.text for m in messages] == ["before"]


def test_float32_is_float32_and_what_runs_can_be_captured(classic):
    flags = trt.BuilderFlag
    package = open_package("tensorrt_rtx")
    config = trt.Builder(package.logger).create_builder_config()
    assert config.get_flag(flags.TF32)  # which is why it must be cleared
    package.configure(config, "sm86")
    assert not config.get_flag(flags.TF32) and config.get_flag(flags.REQUIRE_USER_ALLOCATION)
    assert config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED
    assert config.get_compute_capability(0) == trt.ComputeCapability.SM86
    config = trt.Builder(package.logger).create_builder_config()
    classic.configure(config, "sm87")
    assert not config.get_flag(flags.TF32) and not config.get_flag(flags.REQUIRE_USER_ALLOCATION)


def test_contexts_of_classic_tensorrt_have_memory_of_their_own(classic):
    engine = SimpleNamespace(create_execution_context=lambda: "context")
    assert classic.runtime_cache(engine) is None
    assert classic.context(engine, eager=True) == "context"
    assert classic.room("context") == 0 and classic.capturable("context", 1)


def test_warnings_are_collected_in_the_body_only():
    package = open_package("tensorrt_rtx")
    with package.messages() as messages:
        package.logger.log(trt.ILogger.WARNING, "one")
        package.logger.log(trt.ILogger.INFO, "not this")
    with package.messages() as later:
        pass
    assert [m.text for m in messages] == ["one"]
    assert later == []
    assert package.last_message == "one"
    package.logger.log(trt.ILogger.WARNING, "nobody asked")  # and nothing grows for ever
    assert later == [] and package.logger.found is None


def test_an_unknown_package_lists_the_known():
    with pytest.raises(ConfigError, match="tensorrt_rtx, tensorrt"):
        open_package("tensorflow")
