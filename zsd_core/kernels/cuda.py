"""The CUDA kernels, where they were built; importing this loads nothing.

``compiled_cuda()`` is the module ``zsd_core._compiled_cuda``. Its functions bear the operators'
names, take device arrays by DLPack or ``__cuda_array_interface__`` and a ``stream`` (an integer
handle, 0 the default stream), write into arrays of the caller and wait for nothing::

    kernels = compiled_cuda()
    kernels.product_mlp(regions, prototypes, weight1, bias1, weight2, bias2, output,
                        stream=torch.cuda.current_stream().cuda_stream)

``propose``, ``detect``, ``top_regions`` and ``second_look`` also take a ``workspace`` of as many
bytes as ``propose_workspace`` and the like say, fill arrays of a fixed capacity and write how many
rows are meant to ``count``; the batch index of the others is -1, which ``roi_align`` and ``detect``
pass over. ``second_look`` gives the positions of the regions to look at and copies their boxes;
``spoken_for`` says which look holds for which region, and ``score_prototypes`` reads that.
``fuse`` takes logits of both scorers, the sigmoid of the unseen ones being its own, and with
``in_use`` (how many of the seen and of the unseen columns are classes) columns may be room for
classes to come. So a whole pipeline of them can be captured in a CUDA graph.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from zsd_core.errors import MissingPackageError

__all__ = ["compiled_cuda"]


def compiled_cuda() -> ModuleType:
    """Return ``zsd_core._compiled_cuda``.

    Raises:
        MissingPackageError: it was not built; nothing falls back to the CPU by itself.
    """
    try:
        return importlib.import_module("zsd_core._compiled_cuda")
    except ImportError as error:
        raise MissingPackageError(
            f"zsd_core._compiled_cuda, the CUDA kernels, cannot be imported ({error}). "
            "Build them where nvcc is: 'scripts/build -DZSD_CUDA=ON' in a checkout."
        ) from error
