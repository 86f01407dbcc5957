"""Memory that a step of training frees is kept for the next, where the C library lets one ask for that.

glibc's malloc gets large tensors from the system and hands them back when they are freed, and the
system clears every page of the next: a quarter of a generator's step at published size. Dask workers
that are started by hand (``dask worker``) even hand back everything at once: a student took twice to
three times as long.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# Parameters of mallopt(3), with what glibc has them at, or the most that it accepts.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_MAPPINGS = 65_536
_KEPT_BYTES, _NEVER = 2**30, -1
_LARGE_BYTES = 2**25


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is one of which this can be asked; those of macOS and Windows are not."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def keep_freed_memory() -> None:
    """Keep what is freed, up to 1 GB of it, for this process; arrays above 32 MB are handed back."""
    if glibc := _glibc():
        glibc.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        glibc.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)


@contextmanager
def all_freed_memory_kept() -> Iterator[None]:
    """Keep all that is freed while the block runs, for a training, whose steps take the same again.

    Afterwards it is handed back, and :func:`keep_freed_memory` holds. Tensors of many sizes fit badly
    into what others left. A generator's training at published size takes 2.3 GB instead of 1.7, but a
    student's 10.3 instead of 7.6, which is too much for every worker: only generators are trained so.
    """
    glibc = _glibc()
    if not glibc:
        yield
        return
    glibc.mallopt(_MMAP_MAX, 0)
    glibc.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        glibc.mallopt(_MMAP_MAX, _MAPPINGS)
        keep_freed_memory()
        glibc.malloc_trim(0)
