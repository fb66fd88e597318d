"""The detector as torch modules: ``trunk``, ``head`` and the scorer between regions and classes."""

from __future__ import annotations

from zsd_core.models.detector import ContrastZSD
from zsd_core.models.head import Head
from zsd_core.models.networks import TorchNetworks
from zsd_core.models.scorer import Scorer
from zsd_core.models.trunk import Trunk

__all__ = ["ContrastZSD", "Head", "Scorer", "TorchNetworks", "Trunk"]
