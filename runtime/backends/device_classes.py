"""The classes on a device: room for a fixed number, so that a captured graph outlives a change."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.cuda_driver import Device
from runtime.backends.device_arrays import Block
from zsd_core.errors import ConfigError
from zsd_core.scoring import ClassSet

__all__ = ["ClassBuffers"]


class ClassBuffers:
    """What scoring reads of the classes, at addresses that stay; one stream's own.

    Columns are background, room for the seen, room for the unseen classes. Of either room the first
    are in use; how many is a number on the device, and the thresholds of the rest are infinite.

    Args:
        device: whose memory.
        width: of a prototype.
        seen: room for so many seen classes.
        unseen: and so many unseen ones.

    Attributes:
        block: the arrays ``prototypes``, ``similarity``, ``thresholds`` and ``in_use``.
        version: of the class set that was written last.
    """

    def __init__(self, device: Device, width: int, seen: int, unseen: int) -> None:
        self._seen, self._unseen = seen, unseen
        layout = {
            "prototypes": ((1 + seen + unseen, width), np.float32),
            "similarity": ((seen, unseen), np.float32),
            "thresholds": ((seen + unseen,), np.float32),
            "in_use": ((2,), np.int32),
        }
        self.block = Block(device, layout, mirrored=True)
        self.version = 0
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
        if seen > self._seen or unseen > self._unseen:
            raise ConfigError(
                f"{unseen} unseen classes, the device has room for {self._unseen}. Open the "
                f"detector with backend_options={{'on_device': True, 'unseen_capacity': {unseen}}} "
                "or more."
            )
        host, room = self.block.host, self._seen
        host["prototypes"][:] = 0
        host["prototypes"][: 1 + seen] = classes.prototypes[: 1 + seen]
        host["prototypes"][1 + room : 1 + room + unseen] = classes.prototypes[1 + seen :]
        host["similarity"][:] = 0
        host["similarity"][:seen, :unseen] = classes.seen_similarity
        host["thresholds"][:] = np.inf
        host["thresholds"][:seen] = thresholds[:seen]
        host["thresholds"][room : room + unseen] = thresholds[seen:]
        host["in_use"][:] = seen, unseen
        self.block.upload(stream)
        self.version = classes.version
        self._written = classes, thresholds.copy()

    def columns_of(self, found: NDArray[np.int32], classes: ClassSet) -> NDArray[np.int32]:
        """Columns of the class set from columns of the device."""
        moved = found - np.int32(self._seen - classes.seen_count)
        return np.where(found < self._seen, found, moved).astype(np.int32)

    def close(self) -> None:
        """Free the memory."""
        self.block.close()
