"""Every attribute of TensorRT that our code uses exists in the real bindings, by introspection."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from runtime.backends.trt_package import Package, open_package
from zsd_core.errors import ConfigError

trt = pytest.importorskip("tensorrt_rtx")

ROOT = Path(__file__).parent.parent
FILES = [
    ROOT / "export" / "plans.py",
    ROOT / "runtime" / "backends" / "trt_package.py",
    ROOT / "runtime" / "backends" / "trt_engines.py",
]
# What a variable of this name holds, in those files.
OBJECTS = {
    "builder": "Builder", "network": "INetworkDefinition", "parser": "OnnxParser",
    "config": "IBuilderConfig", "shapes": "IOptimizationProfile", "layer": "ILayer",
    "source": "ILayer", "tensor": "ITensor", "runtime": "Runtime", "context": "IExecutionContext",
    "engine.engine": "ICudaEngine", "inspector": "EngineInspector", "severity": "ILogger",
    "kinds": "LayerType", "e": "ParserError",
}  # fmt: skip


def chain(node: ast.expr) -> list[str]:
    """["trt", "ILogger", "WARNING"] for ``package.trt.ILogger.WARNING``; [] if it is none."""
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
    assert len(found) >= 5
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
    """Of a builder of classic TensorRT, as far as timings go."""

    def __init__(self):
        self.cache, self.known = None, None

    def create_timing_cache(self, known):
        self.known = known
        return self

    def set_timing_cache(self, cache, ignore_mismatch):
        self.cache = cache
        return True

    def get_timing_cache(self):
        return self.cache

    def serialize(self):
        return b"measured"


def test_classic_tensorrt_keeps_timings_and_tensorrt_rtx_does_not(tmp_path):
    for name in ("create_timing_cache", "set_timing_cache", "get_timing_cache"):
        assert hasattr(trt.IBuilderConfig, name)  # the double has what the bindings have
    classic = Package.__new__(Package)
    classic.ahead_of_time = False
    file = tmp_path / "deep" / "timings"
    for known in (b"", b"measured"):
        config = TimingConfig()
        classic.load_timings(config, file)
        assert config.known == known
        classic.save_timings(config, file)
        assert file.read_bytes() == b"measured"
    config = TimingConfig()
    open_package("tensorrt_rtx").load_timings(config, file)
    assert config.cache is None
    assert classic.targets == ()


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


def test_an_unknown_package_lists_the_known():
    with pytest.raises(ConfigError, match="tensorrt_rtx, tensorrt"):
        open_package("tensorflow")
