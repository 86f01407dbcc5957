"""Locks of a run directory, which the operating system frees when their holder dies.

``.lock`` is held by ``fustal run`` for as long as it works: two of them in one directory would mix their
results. ``.making.lock`` lies in the folder of each product and is held while it is made, by whatever
process makes it: jobs of one run, and notebooks opened in JupyterLab, share a run directory with each
other and with ``fustal run``. Each file holds the number of the process while there is one, and stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from fustal_core.progress import show_progress

# A kernel whose `fustal run` was killed notices within a second or two, later where all is slow.
_PATIENCE_S = 30


class RunDirectoryBusyError(Exception):
    """Another process is at work in the run directory."""


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Be the only ``fustal run`` in a directory, which is made if missing.

    Raises:
        RunDirectoryBusyError: another one is at work there; names its process.
        OSError: the directory cannot be written.
    """
    path = run_dir / ".lock"
    holder = _holder(path)
    lock = FileLock(path)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise RunDirectoryBusyError(f"another run is at work in {run_dir}{holder}") from None
    except OSError as error:
        reason = f"cannot be written as a run directory: {error.strerror}"
        raise OSError(error.errno, reason, str(run_dir)) from None
    with _held(lock, path):
        yield


def refuse_second_run(run_dir: Path) -> None:
    """Raise what :func:`run_lock` would; makes nothing."""
    if (run_dir / ".lock").exists():
        with run_lock(run_dir):
            pass


@contextmanager
def making_lock(folder: Path, patience_s: int = _PATIENCE_S) -> Iterator[None]:
    """Be the only process that makes the product of a folder; wait for another, but not for long.

    Raises:
        RunDirectoryBusyError: another one still makes something after ``patience_s`` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".making.lock"
    holder = _holder(path)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _wait(lock, f"waiting for what else is at work in {folder}{holder}", patience_s)
    if not lock.is_locked:
        raise RunDirectoryBusyError(
            f"another process makes a part of this study in {folder}{holder}, perhaps a notebook "
            "in JupyterLab; wait until it is done, or stop it, or choose another run directory"
        )
    with _held(lock, path):
        yield


def _wait(lock: FileLock, what: str, patience_s: int) -> None:
    with show_progress(what) as progress:
        for second in range(patience_s):
            progress(second, patience_s, "s")
            try:
                lock.acquire(timeout=1)
                return
            except Timeout:
                continue


def _holder(path: Path) -> str:
    """`` (process N)`` as the lock's file has it; read before one tries to get the lock oneself."""
    try:
        number = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
    return f" (process {number})" if number.isdecimal() else ""


@contextmanager
def _held(lock: FileLock, path: Path) -> Iterator[None]:
    """Leave the process's number while the lock is held: an empty file says that all ended well."""
    try:
        path.write_text(f"{os.getpid()}\n", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):  # somebody may have removed the directory
            os.truncate(path, 0)
        lock.release()
