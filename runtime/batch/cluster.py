"""Spread the shards of a batch over a Ray cluster, or over the processes of this machine."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.batch.folder import Shard
from runtime.batch.shards import search_shard
from runtime.detector import Detector
from zsd_core import kernels
from zsd_core.errors import ConfigError, DeviceError, ZsdError, require

__all__ = ["search_on_ray"]

OBJECT_STORE = 100 << 20  # bytes; only paths and counts pass through it


class _Searcher:
    """One process of the cluster: opens a detector once, then searches shard after shard."""

    def __init__(
        self, place: str, folder: Path, options: Mapping[str, Any], search: Mapping[str, Any]
    ) -> None:
        os.chdir(place)  # paths are relative to the driver's folder
        self._folder, self._search = folder, dict(search)
        self._detector = Detector(**options)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        shard = Shard(item["number"], item["first"], tuple(json.loads(item["paths"])))
        damaged, failure = 0, ""
        try:
            damaged = search_shard(self._detector, shard, self._folder, **self._search)
        except ZsdError as error:  # handed over as text: the driver stops with this sentence
            failure = str(error)
        return {"images": len(shard.paths), "damaged": damaged, "failure": failure}


def search_on_ray(
    address: str,
    shards: Sequence[Shard],
    folder: Path,
    options: Mapping[str, Any],
    progress: Callable[[int, int], object],
    **search: Any,
) -> None:
    """Search shards with Ray Data, one process per ``options["threads"]`` CPUs, one CPU left free.

    Every process writes its shards into ``folder``, which all machines must share.

    Args:
        address: of a cluster, or "local" for the processes of this machine.
        shards: to be searched.
        folder: of the run.
        options: arguments of ``Detector``; ``threads`` is a number.
        progress: is told the images of every finished shard, and how many are damaged.
        **search: further arguments of ``search_shard``.

    Raises:
        ConfigError: the cluster cannot be reached, or has less than two CPUs.
        DeviceError: a process has died.
        MissingPackageError: Ray is not installed.
    """
    # What goes wrong comes as an exception; Ray's core prints alarms about Ray Data's own habits.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray, data = require("ray", "cluster"), require("ray.data", "cluster")
    at_sigterm = signal.getsignal(signal.SIGTERM)  # ray.init puts its own in place
    local = {"num_cpus": max(2, kernels.usable_threads()), "object_store_memory": OBJECT_STORE}
    try:
        ray.init(
            address=address,
            logging_level=logging.ERROR,
            log_to_driver=False,
            include_dashboard=False if address == "local" else None,
            **(local if address == "local" else {}),
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"--ray {address}: {error}; is the cluster up?") from error
    try:
        signal.signal(signal.SIGTERM, at_sigterm)
        # Ray Data runs its own tasks beside the actors: without a free CPU they wait for ever.
        processes = (int(ray.cluster_resources().get("CPU", 0)) - 1) // options["threads"]
        if processes < 1:
            raise ConfigError(
                f"--ray {address}: the cluster has too few CPUs for {options['threads']} threads "
                "and one that stays free; add machines, or lower --threads."
            )
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        data.DataContext.get_current().enable_progress_bars = False
        items = [
            {"number": s.number, "first": s.first, "paths": json.dumps(s.paths)} for s in shards
        ]
        rows = data.from_items(items, override_num_blocks=len(items)).map(
            _Searcher,
            fn_constructor_args=(os.getcwd(), folder, dict(options), search),
            compute=data.ActorPoolStrategy(size=min(processes, len(items))),
            num_cpus=options["threads"],
        )
        for row in rows.iter_rows():
            if row["failure"]:
                raise DeviceError(row["failure"])
            progress(row["images"], row["damaged"])
    except ray.exceptions.RayError as error:
        raise DeviceError(f"--ray {address}: {str(error).strip().splitlines()[-1]}") from error
    finally:
        ray.shutdown()
