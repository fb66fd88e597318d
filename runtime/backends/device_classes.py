"""The classes on a device: room for a fixed number, so that a captured graph outlives a change."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from runtime.backends.cuda_driver import Device
from runtime.backends.device_arrays import Block
from zsd_core.errors import ConfigError
from zsd_core.scoring import ClassSet

__all__ = ["ClassBuffers"]


class ClassBuffers:
    """Buffers of the classes that scoring reads, at fixed addresses; one stream's own.

    Columns are as in a class set, background first, with room for more unseen classes behind.
    How many are in use is a number on the device, and the thresholds of the rest are infinite.

    Args:
        device: whose memory.
        width: of a prototype.
        seen: classes; every class set has them all.
        unseen: room for so many unseen ones.
        similarity: whether scoring reads ``ClassSet.seen_similarity``.

    Attributes:
        block: the arrays ``prototypes``, ``thresholds``, ``in_use`` and, if asked for,
            ``similarity``.
    """

    def __init__(
        self, device: Device, width: int, seen: int, unseen: int, *, similarity: bool = True
    ) -> None:
        self._seen, self._unseen = seen, unseen
        layout: dict[str, tuple[tuple[int, ...], DTypeLike]] = {
            "prototypes": ((1 + seen + unseen, width), np.float32),
            "thresholds": ((seen + unseen,), np.float32),
            "in_use": ((2,), np.int32),
        }
        if similarity:
            layout["similarity"] = ((seen, unseen), np.float32)
        self.block = Block(device, layout, mirrored=True)
        self._written: tuple[ClassSet, NDArray[np.float32]] | None = None

    def write(self, classes: ClassSet, thresholds: NDArray[np.float32], stream: Any) -> None:
        """Write classes and their thresholds ``(Ks + U,)`` in stream order, if they are new.

        The stream must be done with the last copy: the host's side of it is written over.

        Raises:
            ConfigError: there is no room for so many; nothing has changed then.
        """
        if self._written is not None:
            old, limits = self._written
            if old is classes and np.array_equal(limits, thresholds):
                return
        seen, unseen = classes.seen_count, classes.unseen_count
        assert seen == self._seen, "a class set of another bundle"
        if unseen > self._unseen:
            raise ConfigError(
                f"{unseen} unseen classes, the device has room for {self._unseen}. Open the "
                f"detector with backend_options={{'on_device': True, 'unseen_capacity': {unseen}}} "
                "or more."
            )
        host, columns = self.block.host, seen + unseen
        self._written = None  # should the copy fail, what the device holds is nobody's
        host["prototypes"][: 1 + columns] = classes.prototypes
        host["prototypes"][1 + columns :] = 0
        if "similarity" in host:
            host["similarity"][:, :unseen] = classes.seen_similarity
            host["similarity"][:, unseen:] = 0
        host["thresholds"][:columns] = thresholds
        host["thresholds"][columns:] = np.inf
        host["in_use"][:] = seen, unseen
        self.block.upload(stream)
        self._written = classes, thresholds.copy()

    def close(self) -> None:
        """Free the memory."""
        self.block.close()
