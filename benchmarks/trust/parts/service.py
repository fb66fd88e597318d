"""The service at its limit, with clients that break off and a service that is killed and restarted.

Two services share the load. One is never killed: its memory and its times are measured. The other
is killed at random and started again, as systemd does; its clients try again until they have an
answer. Classes change on both all the time, and every answer must be that of one class set.
"""

from __future__ import annotations

import http.client
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.trust.small import HELPERS, helper
from benchmarks.trust.table import Advance, Part, Result
from runtime.detector import Detector

__all__ = ["PARTS", "Server", "service"]

ROOT = HELPERS.parents[1]
CLIENTS = 12  # of each service, for 8 places
SETS = (["person", "cat", "zebra"], ["cup", "truck"], ["zebra", "person", "fire truck", "cat"])
RUDE = 0.15  # share of the requests that are broken off
AGAIN = 60.0  # seconds in which a request must be answered, kills and full queues counted
FLAT = 1.02  # memory of the last quarter over that of the second
MEASURED = 120.0  # seconds below which memory has not settled


@dataclass
class Server:
    """A service in a process of its own, and what its clients saw."""

    bundle: Path
    is_killed: bool
    process: subprocess.Popen[str] | None = None
    url: str = ""
    life: int = 0  # of the process: versions begin again with every one
    answers: int = 0
    refused: int = 0
    seconds: list[float] = field(default_factory=list)
    set_of: dict[tuple[int, int], int] = field(default_factory=dict)  # of (life, version)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Start it, on the port it had."""
        self.life += 1
        port = urlsplit(self.url).port or 0
        command = [sys.executable, "-m", "runtime.serve", "--port", str(port), "--queue", "8"]
        options = ["--bundle", str(self.bundle), "--backend", "onnxruntime", "--threads", "1"]
        self.process = subprocess.Popen(
            [*command, *options, "--score-threshold", "0"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip().rstrip("/") or self.url

    def kill(self, number: signal.Signals) -> None:
        """End it at once."""
        assert self.process is not None and self.process.stdout is not None
        self.process.send_signal(number)
        self.process.wait()
        self.process.stdout.close()

    def memory(self) -> float:
        """Resident megabytes."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def ask(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """One request on a connection of its own: status and JSON."""
        parts = urlsplit(self.url)
        assert parts.hostname
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
        try:
            connection.request(method, path, body=body)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def break_off(self, body: bytes, rng: random.Random) -> None:
        """Send a part of a request, or all of it, and leave."""
        parts = urlsplit(self.url)
        head = (
            f"POST /detect HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        whole = head.encode() + body
        with socket.create_connection(
            (parts.hostname or "", parts.port or 0), timeout=30
        ) as client:
            client.sendall(whole[: rng.choice((rng.randrange(len(whole)), len(whole)))])
            if rng.random() < 0.5:
                time.sleep(rng.uniform(0, 0.05))


def service(budget: float, seed: int, advance: Advance) -> Result:
    """Hold the load for ``budget`` minutes."""
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="trust-") as folder:
        bundle = helper("tiny").tiny_bundle(Path(folder) / "bundle")
        bodies, expected = _pictures(bundle, seed)
        steady, victim = Server(bundle, False), Server(bundle, True)
        try:
            for server in (steady, victim):
                server.start()
            end = time.monotonic() + 60 * budget
            threads = []
            for server in (steady, victim):
                for number in range(CLIENTS):
                    asking = (server, bodies, expected, f"{seed} {number}", end, faults)
                    threads.append(threading.Thread(target=_client, args=asking))
                changing = (server, f"{seed} change", end, faults)
                threads.append(threading.Thread(target=_changer, args=changing))
            for thread in threads:
                thread.start()
            memory, kills = _watch(steady, victim, end, random.Random(seed), advance)
            for thread in threads:
                thread.join()
        finally:
            for server in (steady, victim):
                if server.process and server.process.poll() is None:
                    server.kill(signal.SIGTERM)
    quarter = max(1, len(memory) // 4)
    grown = median(memory[-quarter:]) / median(memory[quarter : 2 * quarter])
    if grown > FLAT and 60 * budget >= MEASURED:
        faults.append(f"memory grew by {100 * (grown - 1):.1f} %")
    cuts = [1e3 * cut for cut in quantiles(steady.seconds, n=1000, method="inclusive")]
    load = (
        f"{2 * CLIENTS} clients, 8 places, {steady.answers + victim.answers:,} answers, "
        f"{steady.refused + victim.refused:,} times 503, {kills} kills; p50 {cuts[499]:.0f} ms, "
        f"p99 {cuts[989]:.0f} ms, p99.9 {cuts[998]:.0f} ms; memory {100 * (grown - 1):+.1f} %"
    )
    return Result(inputs=steady.answers + victim.answers + kills, load=load, faults=faults)


def _pictures(bundle: Path, seed: int) -> tuple[list[bytes], list[list[list[dict[str, Any]]]]]:
    """Bodies, and the detections of every class set in every one of them."""
    import cv2

    rng = np.random.default_rng(seed)
    pictures = [rng.integers(0, 256, (60 + 9 * i, 90, 3), np.uint8) for i in range(4)]
    bodies = [cv2.imencode(".png", picture)[1].tobytes() for picture in pictures]
    expected = []
    with Detector(bundle, backend="onnxruntime", threads=1, score_threshold=0.0) as detector:
        for names in SETS:
            detector.set_classes(names)
            expected.append([detector(p, color="bgr").to_list() for p in pictures])
    return bodies, expected


def _watch(
    steady: Server, victim: Server, end: float, rng: random.Random, advance: Advance
) -> tuple[list[float], int]:
    """Kill and restart the victim now and then; memory of the other, and how many kills."""
    memory, kills, due = [], 0, time.monotonic() + rng.uniform(3, 8)
    while (now := time.monotonic()) < end:
        time.sleep(min(1.0, max(0.0, end - now)))
        advance(1)
        memory.append(steady.memory())
        if time.monotonic() > due and time.monotonic() < end - 5:
            victim.kill(rng.choice((signal.SIGKILL, signal.SIGTERM)))
            with victim.lock:  # no version of the old process is taken for one of the new
                victim.start()
            kills, due = kills + 1, time.monotonic() + rng.uniform(5, 30)
    return memory, kills


def _client(
    server: Server,
    bodies: list[bytes],
    expected: list[list[list[dict[str, Any]]]],
    seed: str,
    end: float,
    faults: list[str],
) -> None:
    """Send pictures; every one must be answered in the end, and rightly."""
    rng = random.Random(seed)
    while time.monotonic() < end:
        place = rng.randrange(len(bodies))
        if rng.random() < RUDE:
            try:
                server.break_off(bodies[place], rng)
            except OSError:
                pass  # its process was just killed
            continue
        begun, life = time.monotonic(), 0
        while True:
            life, started = server.life, time.perf_counter()
            try:
                status, said = server.ask("POST", "/detect", bodies[place])
            except (OSError, http.client.HTTPException, ValueError) as error:
                status, said = 0, repr(error)
            if status == 200:
                server.seconds.append(time.perf_counter() - started)
                server.answers += 1
                _judge(server, life, said, place, expected, faults)
                break
            server.refused += status == 503
            again = status == 503 or (status == 0 and server.is_killed)
            if not again or time.monotonic() - begun > AGAIN:
                faults.append(f"a request was lost: {status} {said}")
                break
            time.sleep(rng.uniform(0.01, 0.2))


def _judge(
    server: Server,
    life: int,
    said: dict[str, Any],
    place: int,
    expected: list[list[list[dict[str, Any]]]],
    faults: list[str],
) -> None:
    """One class set must explain an answer, and all answers of its version."""
    found = [{k: v for k, v in item.items() if k != "color"} for item in said["detections"]]
    right = [index for index, answers in enumerate(expected) if answers[place] == found]
    version = said["class_set_version"]
    if version == 1:  # the bundle's own table, before the first change
        return
    if not right:
        faults.append(f"an answer of version {version} is of no class set: {found}")
    elif server.life == life:
        known = server.set_of.setdefault((life, version), right[0])
        if known not in right:
            faults.append(f"version {version} gave answers of two class sets")


def _changer(server: Server, seed: str, end: float, faults: list[str]) -> None:
    """Change the classes all the time."""
    rng = random.Random(seed)
    while time.monotonic() < end:
        index = rng.randrange(len(SETS))
        body = json.dumps({"classes": SETS[index]}).encode()
        with server.lock:
            life = server.life
            try:
                status, said = server.ask("PUT", "/classes", body)
            except (OSError, http.client.HTTPException, ValueError):
                status, said = 0, {}
        if status == 200:
            known = server.set_of.setdefault((life, said["version"]), index)
            if known != index:
                faults.append(f"version {said['version']} is two class sets")
        elif status:
            faults.append(f"a change of classes: {status} {said}")
        time.sleep(rng.uniform(0.02, 0.3))


PARTS = (
    Part(
        name="service",
        tried="clients that break off, services that are killed, classes that change, at the limit",
        unit="minutes",
        full=20,
        short=0.25,
        run=service,
    ),
)
