"""The detector as torch modules: ``trunk``, ``head`` and the scorer between regions and classes."""

from __future__ import annotations

from zsd_core.learning.models.detector import ContrastZSD
from zsd_core.learning.models.head import Head
from zsd_core.learning.models.networks import TorchNetworks, kernels_for
from zsd_core.learning.models.scorers import TrainableScorer
from zsd_core.learning.models.trunk import Trunk

__all__ = ["ContrastZSD", "Head", "TorchNetworks", "TrainableScorer", "Trunk", "kernels_for"]
