"""A pytest plugin: the tests of this process use the compiled kernels at $ZSD_COMPILED."""

from __future__ import annotations

import importlib.util
import os
import sys

NAME = "zsd_core._compiled"
specification = importlib.util.spec_from_file_location(NAME, os.environ["ZSD_COMPILED"])
assert specification is not None and specification.loader is not None
module = importlib.util.module_from_spec(specification)
specification.loader.exec_module(module)
sys.modules[NAME] = module
