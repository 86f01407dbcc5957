"""A file that serves as memory, of which no more is kept than was granted."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

PAGES_KEPT = 64 * 2**20
"""Bytes that may be taken from a mapped file before its pages are given back."""

READ_AROUND = 64 * 2**10
"""The system maps so many bytes around each place that is read."""


@dataclass
class MappedFile:
    """A file mapped into memory, whose pages are given back now and then.

    Pages that were touched count as this process's memory until then; afterwards they stay in the
    system's cache for as long as nobody needs the room.
    """

    buffer: mmap.mmap
    taken: int = 0

    @classmethod
    def of_file(cls, path: Path) -> MappedFile:
        """Map a file; what is written to the memory does not reach it."""
        with path.open("rb") as file:
            return cls(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))

    def take(self, count: int) -> None:
        """Note that ``count`` bytes were copied from the mapping."""
        self.taken += count
        if self.taken > PAGES_KEPT and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            self.buffer.madvise(mmap.MADV_DONTNEED)
            self.taken = 0
