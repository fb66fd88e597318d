"""OpenVINO's one entry point of this process, and its reader of ONNX files."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from runtime.processes import never_freed_in_a_fork
from zsd_core.errors import require

__all__ = ["EXTRA", "PACKAGE", "core", "read_network"]

PACKAGE, EXTRA = "openvino", "openvino"


@cache
def core() -> Any:
    """Return the one ``openvino.Core`` of this process, which lives as long as the process.

    OpenVINO's CPU plugin gives the thread that loads it a stack for signal handlers and unmaps that
    stack when the plugin goes, in whichever thread that is. If it is another thread, the next
    signal that Python handles in the first one ends the process with a segmentation fault. A core
    that stays keeps the plugin, and a second detector opens sooner.

    Raises:
        MissingPackageError: openvino is not installed.
    """
    return never_freed_in_a_fork(require(PACKAGE, EXTRA).Core())


def read_network(path: Path) -> Any:
    """Read an ONNX file by OpenVINO's reader of ONNX, and by no other.

    ``Core.read_model`` lets the file's content choose. The same file may be ONNX with unknown
    fields, which our checks see, and a network of TensorFlow, which they do not.

    Raises:
        RuntimeError: OpenVINO cannot read it.
    """
    reader = require(PACKAGE, EXTRA).frontend.FrontEndManager().load_by_framework("onnx")
    try:
        network = reader.convert(reader.load(str(path)))
    except Exception as error:  # the reader's own exceptions share no base class
        raise RuntimeError(str(error)) from error
    if not network.outputs:  # unknown fields and no graph
        raise RuntimeError("it has no outputs")
    return network
