"""Try many hostile inputs in a process of their own, which may crash, hang or run out of memory."""

from __future__ import annotations

import importlib
import math
import multiprocessing
import os
import random
import resource
import shutil
import tempfile
import time
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from benchmarks.measure import resident_mb, restart_peak
from benchmarks.trust.table import Advance, Attempt, Part, Prepare, Result
from zsd_core.errors import ZsdError

__all__ = ["Cost", "WrongResultError", "loader_part", "refusal", "tried"]

HANG = 20.0  # seconds of the processor for one input; the slowest takes a fraction of one
STUCK = 600.0  # seconds of waiting for one input, on a machine that others may fill
MEMORY = 3 << 30  # bytes of address space beyond those of the prepared process
SLOW = 3.0  # seconds of the processor that no input may take
GROWN = 400.0  # megabytes of memory that no input of a few may take; a large one has
TIMES = 10  # times its size besides, to be made and read
PREPARING = 600.0  # seconds until the first input
SHARED_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # disks take longer than inputs
LOOK = 0.05  # seconds between two looks at a process


class WrongResultError(Exception):
    """An input was taken, and what came of it is not right."""


def refusal(attempt: Attempt, rng: random.Random) -> str | None:
    """Make one attempt; return None if it succeeds or an error of ours refuses it, or the fault."""
    try:
        attempt(rng)
    except ZsdError as error:
        return None if str(error).strip() else f"{type(error).__name__} without a sentence"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # Rust's panics are no Exception
        last = error.__traceback__
        while last and last.tb_next:
            last = last.tb_next
        place = f"{Path(last.tb_frame.f_code.co_filename).name}:{last.tb_lineno}" if last else ""
        return f"{type(error).__name__} at {place}: {str(error)[:200]}"
    return None


class Cost:
    """Processor time and memory of what is done between ``begin`` and a look at them."""

    def begin(self, *, exact: bool = False) -> None:
        """Forget what came before; ``exact``: see memory that was used and freed before, too."""
        self._before, self._start = restart_peak(trim=exact), time.process_time()

    @property
    def seconds(self) -> float:
        """Seconds of the processor, of all threads."""
        return time.process_time() - self._start

    @property
    def grown_mb(self) -> float:
        """Megabytes between the resident memory at the beginning and its peak."""
        return resident_mb("VmHWM") - self._before

    def fault(self, folder: Path | None = None) -> str | None:
        """A sentence if an input, the files of a folder, took far more than its size needs."""
        if (seconds := self.seconds) > SLOW:
            return f"takes {seconds:.1f} s of the processor"
        if (grown := self.grown_mb) > GROWN:
            files = folder.rglob("*") if folder else ()
            size = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
            if grown > GROWN + TIMES * size:
                return f"takes {grown:,.0f} MB of memory"
        return None


def loader_part(prepare: Prepare, name: str, text: str, full: int, short: int) -> Part:
    """A part that tries inputs of a loader; see ``Part``."""
    return Part(
        name=name,
        tried=text,
        unit="inputs",
        full=full,
        short=short,
        run=partial(tried, prepare),
        loader=prepare,
    )


def tried(
    prepare: Prepare,
    budget: float,
    seed: int,
    advance: Advance,
    first: int = 0,
    seconds: float = math.inf,
) -> Result:
    """Try the first ``budget`` inputs of a loader; input i depends on the seed and i only.

    Args:
        prepare: a function of a module, so that another process can import it.
        budget: number of inputs.
        seed: of the inputs.
        advance: told of inputs that are done.
        first: input to begin with; those before it were tried earlier.
        seconds: no more inputs after that time, but for the first.

    Returns:
        The result, whose ``inputs`` count those before ``first`` too.
    """
    total, spawn = int(budget), multiprocessing.get_context("spawn")
    done: Synchronized[int] = spawn.Value("q", first)
    stop = spawn.Event()
    end = time.monotonic() + seconds
    peak = spawn.Array("d", [0.0, 0.0])  # megabytes, and the input that took them
    ready = spawn.Event()  # imports come before the first input, and take their time
    reader, writer = spawn.Pipe(duplex=False)
    faults: list[str] = []
    shown = first
    while done.value < total and not stop.is_set():
        place = (prepare.__module__, prepare.__name__)
        given = (place, seed, total, done, peak, ready, stop, writer)
        child = spawn.Process(target=_work, args=given)
        ready.clear()
        child.start()
        # Looks are counted, not seconds: a machine may stop this process with its child.
        before, looks, used, begun = -1, 0, 0.0, False
        while child.is_alive():
            child.join(LOOK)
            looks += 1
            if ready.is_set() and not begun:  # what came before is not the first input's
                begun, looks, used = True, 0, _processor_seconds(child.pid)
            while reader.poll():
                faults.append(reader.recv())
            now = done.value
            advance(now - shown)
            shown = now
            if now > first and time.monotonic() > end:
                stop.set()
            if now != before:
                before, looks, used = now, 0, _processor_seconds(child.pid)
            elif not ready.is_set() and looks * LOOK < PREPARING:
                continue
            elif _processor_seconds(child.pid) - used > HANG or looks * LOOK > STUCK:
                child.kill()
                child.join()
                faults.append(f"input {now}: not done after {HANG:g} s")
                done.value = now + 1
        while reader.poll():
            faults.append(reader.recv())
        if child.exitcode and child.exitcode != -9 and done.value < total:
            faults.append(f"input {done.value}: the process ended with {child.exitcode}")
            done.value += 1
    advance(done.value - shown)
    return Result(
        inputs=done.value,
        load="1 process",
        faults=faults,
        peak_mb=peak[0],
        peak_at=int(peak[1]),
    )


def _processor_seconds(pid: int | None) -> float:
    """Time that a process has computed for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has just ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _work(
    place: tuple[str, str],
    seed: int,
    total: int,
    done: Synchronized[int],
    peak: Any,
    ready: Any,
    stop: Any,
    faults: Any,
) -> None:
    """Try inputs from ``done`` on; runs in a process of its own."""
    prepare: Prepare = getattr(importlib.import_module(place[0]), place[1])
    parent = multiprocessing.parent_process()  # whose end is the end of this process too
    assert parent is not None
    with tempfile.TemporaryDirectory(prefix="trust-", dir=SHARED_MEMORY) as folder:
        cache = Path(folder) / "cache"  # where zip bundles are unpacked
        os.environ["XDG_CACHE_HOME"] = str(cache)
        os.environ["RUST_BACKTRACE"] = "0"  # that of every panic takes longer than the input
        attempt = prepare(Path(folder))
        refusal(attempt, random.Random(0))  # imports what it needs before memory is limited
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        ready.set()
        cost = Cost()
        while done.value < total and not stop.is_set() and parent.is_alive():
            index = done.value
            cost.begin()
            if fault := refusal(attempt, random.Random(f"{seed} {index}")) or cost.fault(
                Path(folder)
            ):
                faults.send(f"input {index}: {fault}")
            shutil.rmtree(cache, ignore_errors=True)
            most = resident_mb("VmHWM")  # that of getrusage begins with the parent's
            if most > peak[0]:
                peak[:] = [most, index]
            done.value = index + 1
