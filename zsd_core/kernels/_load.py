"""Find the compiled module, or say how to build it; and turn arrays into what it takes."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zsd_core.errors import MissingPackageError, ShapeError

__all__ = ["check", "check_batch_indices", "compiled", "floats", "integers"]

_module: ModuleType | None = None


def compiled() -> ModuleType:
    """Return ``zsd_core._compiled``.

    Raises:
        MissingPackageError: it was not built; nothing falls back to the slow twins by itself.
    """
    global _module
    if _module is None:
        try:
            _module = importlib.import_module("zsd_core._compiled")
        except ImportError as error:
            raise MissingPackageError(
                f"zsd_core._compiled, the compiled kernels, cannot be imported ({error}). "
                "Build them: 'scripts/build' in a checkout, or 'pip install .'. "
                "zsd_core.kernels.reference holds slow numpy functions of the same names."
            ) from error
    return _module


def floats(array: ArrayLike) -> NDArray[np.float32]:
    """The array as C-contiguous float32; copied only where it is not that already.

    Raises:
        ShapeError: it holds what is no real number, such as texts or complex numbers.
    """
    return np.asarray(_real(array), dtype=np.float32, order="C")


def integers(array: ArrayLike) -> NDArray[np.int32]:
    """The array as C-contiguous int32; copied only where it is not that already.

    Raises:
        ShapeError: an index is no whole number of 32 bits; it would become another one.
    """
    given = _real(array)
    with np.errstate(invalid="ignore"):  # NaN, found below
        result = given.astype(np.int32, order="C", copy=False)
    check(
        result is given or np.array_equal(result, given),
        "indices",
        "they must be whole numbers of 32 bits.",
    )
    return result


def _real(array: ArrayLike) -> NDArray[Any]:
    given = np.asarray(array)
    real = given.dtype.kind in "fiub" or np.can_cast(given.dtype, np.float32, "same_kind")
    if not real:  # numpy would read texts, and drop imaginary parts
        raise ShapeError(
            f"an argument of a kernel has dtype {given.dtype}, must hold real numbers. Convert it "
            "to float32 first; of complex numbers, take the real part."
        )
    return given


def check(condition: bool, where: str, message: str) -> None:
    """Raise ShapeError with ``where: message`` unless ``condition``."""
    if not condition:
        raise ShapeError(f"{where}: {message}")


def check_batch_indices(where: str, indices: NDArray[np.int32], batch: int) -> None:
    """Every index must name one of ``batch`` images.

    Raises:
        ShapeError: one does not.
    """
    if indices.size:
        low, high = int(indices.min()), int(indices.max())
        check(
            0 <= low and high < batch,
            where,
            f"batch_indices lie in [{low}, {high}], must lie in [0, {batch}), the images given.",
        )
