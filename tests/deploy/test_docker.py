"""The Dockerfiles and their compose file, read: no image was built, there is no docker daemon.

That what they copy is enough to build the wheel is shown by test_packaging.py, which builds it from
the files that .dockerignore lets through, and from no others.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import dockerfile
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "docker"
FILES = sorted(FOLDER.glob("Dockerfile*"))
yaml = pytest.importorskip("yaml")
tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def stages(request):
    return dockerfile.stages(request.param)


def test_there_is_one_for_each_kind_of_machine():
    assert [path.name for path in FILES] == ["Dockerfile", "Dockerfile.gpu", "Dockerfile.jetson"]


def test_every_file_that_is_copied_exists_and_is_not_ignored(stages):
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in ignored
    sources = [source for paths, _ in dockerfile.copied(stages[0]) for source in paths]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, f".dockerignore leaves {source} out"
    assert {line[1:] for line in ignored if line[0] == "!"} == set(sources)


def test_every_command_is_one_for_the_shell(stages):
    for stage in stages:
        for instruction in stage:
            if instruction.name == "RUN":
                check = ["bash", "-n", "-c", instruction.text]
                assert subprocess.run(check, capture_output=True).returncode == 0, instruction.text


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say(stages):
    for stage in stages:
        for instruction in stage:
            if instruction.name == "RUN":
                said = subprocess.run(
                    ["shellcheck", "--shell=sh", "-"],
                    input=f"#!/bin/sh\n{instruction.text}\n",
                    capture_output=True,
                    text=True,
                )
                assert said.returncode == 0, said.stdout


def test_images_have_a_version_and_run_as_a_user_of_their_own(stages):
    for stage in stages:
        name = stage[0].text.split()[0]
        assert re.search(r":[\w.-]*\d", name) and not name.endswith(":latest")
    users = [instruction.text for instruction in stages[-1] if instruction.name == "USER"]
    assert users == ["contrastzsd"]
    run = " ".join(i.text for i in stages[-1] if i.name == "RUN")
    assert "useradd" in run and "--no-cache-dir" in run


def test_what_the_image_starts_is_a_command_of_ours(stages):
    from contrastzsd.cli import COMMANDS

    last = {i.name: i.text for i in stages[-1]}
    assert json.loads(last["ENTRYPOINT"]) == ["contrastzsd"]
    assert json.loads(last["CMD"])[0] in COMMANDS
    health = json.loads(last["HEALTHCHECK"].partition("CMD ")[2])
    compile(health[2], "HEALTHCHECK", "exec")


def test_extras_of_the_images_exist(stages):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = re.findall(r"whl\)\[([\w,-]+)\]", " ".join(i.text for i in stages[-1]))
    assert len(named) == 1
    assert set(named[0].split(",")) <= set(project["optional-dependencies"])


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))


def test_the_compose_file_names_what_is_there(compose):
    build = compose["services"]["contrastzsd"]["build"]
    context = (FOLDER / build["context"]).resolve()
    assert context == ROOT and (context / build["dockerfile"]).is_file()
    prometheus = compose["services"]["prometheus"]
    assert (FOLDER / prometheus["volumes"][0].split(":")[0]).is_file()
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    scrape = yaml.safe_load((FOLDER / "prometheus.yaml").read_text("utf-8"))["scrape_configs"][0]
    assert scrape["static_configs"] == [{"targets": ["contrastzsd:8000"]}]
    secret = scrape["authorization"]["credentials_file"]
    assert secret == "/run/secrets/token"
    assert secret in compose["services"]["contrastzsd"]["command"]


def compose_command() -> list[str] | None:
    """A compose that checks files without a daemon: docker's plugin, or the older program."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            asked = subprocess.run([*command, "version"], capture_output=True)
            if asked.returncode == 0:
                return command
    return None


def test_compose_itself_reads_the_file():
    command = compose_command()
    if command is None:
        pytest.skip("neither docker compose nor docker-compose is installed")
    said = subprocess.run(
        [*command, "-f", FOLDER / "compose.yaml", "config", "--quiet"],
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_reads_its_file(tmp_path):
    text = (FOLDER / "prometheus.yaml").read_text("utf-8")
    (tmp_path / "token").write_text("secret")
    (tmp_path / "prometheus.yaml").write_text(text.replace("/run/secrets/token", "token"))
    said = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yaml"],
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
