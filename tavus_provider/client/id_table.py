"""A compact table from ids to small numbers, for listings of a million rows."""

from __future__ import annotations

from array import array
from typing import Final

_SMALLEST: Final = 256
_BITS: Final = (1 << 64) - 1


class IdTable:
    """
    Remember a number for each id, in 12 bytes per slot and at most 36 bytes per id.

    Only a 64-bit hash of each id is kept. It is keyed with the random hash seed of the process, so a server
    cannot choose ids that collide. Among a million ids, two have the same hash with a probability below
    ``1e-7``; they then count as one.
    """

    def __init__(self) -> None:
        self._allocate(_SMALLEST)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, row_id: str) -> bool:
        return self._hashes[self._slot(_hash(row_id))] != 0

    def get(self, row_id: str) -> int | None:
        """Return the number of an id; ``None`` for an id that was not set."""
        slot = self._slot(_hash(row_id))
        return self._numbers[slot] if self._hashes[slot] else None

    def set(self, row_id: str, number: int) -> bool:
        """
        Set the number of an id.

        :param number: 0 to ``2**32 - 1``
        :returns: whether the id is new
        """
        key = _hash(row_id)
        slot = self._slot(key)
        self._numbers[slot] = number
        if self._hashes[slot]:
            return False
        self._hashes[slot] = key
        self._count += 1
        if 3 * self._count > 2 * len(self._hashes):
            self._grow()
        return True

    def _slot(self, key: int) -> int:
        """Return the slot of a hash, or the empty slot where it belongs."""
        hashes, mask = self._hashes, self._mask
        slot = key & mask
        while hashes[slot] not in (0, key):
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        hashes, numbers = self._hashes, self._numbers
        self._allocate(2 * len(hashes))
        for key, number in zip(hashes, numbers, strict=True):
            if key:
                slot = self._slot(key)
                self._hashes[slot] = key
                self._numbers[slot] = number

    def _allocate(self, size: int) -> None:
        self._hashes = array("Q", bytes(8 * size))
        self._numbers = array("I", bytes(4 * size))
        self._mask = size - 1


def _hash(row_id: str) -> int:
    return hash(row_id) & _BITS or 1  # 0 marks an empty slot
