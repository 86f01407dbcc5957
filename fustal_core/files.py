"""Files that are either whole or not there: atomic writes, checkpoints, tables."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from fustal_core.progress import say_note

_PARTIAL = "partial-"
_PARTIAL_FILES = f".*.{_PARTIAL}*"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without an error.

    A symbolic link stays, and what it names is written. The content reaches the disk before the name
    does, so that a power cut leaves no empty file.

    Raises:
        OSError: with ``path`` as its file name, whatever the block was writing when it failed.
    """
    temporary = None
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():
            raise OSError("not a file that can be replaced")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _new_file_beside(target)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno, reason, str(path)) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _new_file_beside(path: Path) -> Path:
    # Who may read and write it is up to the umask; what tempfile makes is its owner's alone.
    fresh = path.with_name(f".{path.name}.{_PARTIAL}{secrets.token_hex(4)}{path.suffix}")
    fresh.touch(exist_ok=False)
    return fresh


def remove_partial_files(folder: Path) -> None:
    """Remove what a killed process was writing in a folder."""
    for path in folder.glob(_PARTIAL_FILES):
        path.unlink(missing_ok=True)


def partial_folders(folder: Path) -> list[Path]:
    """The folders in it, and itself, where a process is writing a file, or was killed while it did."""
    return sorted({path.parent for path in folder.rglob(_PARTIAL_FILES)})


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(content, indent=1, sort_keys=False) + "\n")


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame as Parquet atomically, without its index."""
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_checkpoint(path: Path, key: str, state: Mapping[str, Any]) -> None:
    """Save tensors and plain values atomically under a key that says which job they belong to."""
    import torch  # here, since who only writes tables need not wait for it

    # Through memory: torch's own writer hides a full disk behind an error of another kind, and puts
    # the file's temporary name into it.
    buffer = io.BytesIO()
    torch.save({"key": key, **state}, buffer)
    write_bytes(path, buffer.getbuffer())


def load_checkpoint(path: Path | None, key: str | None) -> dict[str, Any] | None:
    """The state saved under this key (None: any), on the CPU; None if there is no such checkpoint.

    One that is damaged counts as none, and that is said. Only tensors and plain values are read
    (``weights_only``): a checkpoint cannot run code.
    """
    if path is None or not path.exists():
        return None
    import torch

    content = path.read_bytes()
    try:
        _check_sums(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return state if key in (None, state["key"]) else None
    except Exception as error:  # a damaged file makes the reader fail in a dozen ways
        reason = str(error).partition("\n")[0]
        say_note(f"{path}: not a readable checkpoint, going on without it ({reason})")
        return None


def _check_sums(content: bytes) -> None:
    """Compare the check sums that ``torch.save`` writes and ``torch.load`` ignores."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        damaged = archive.testzip()
    if damaged:
        raise ValueError(f"wrong check sum of {damaged}")
