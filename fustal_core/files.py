"""Files that are either whole or not there: atomic writes, checkpoints, tables."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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


def save_checkpoint(path: Path, key: str, state: Mapping[str, Any]) -> None:
    """Save tensors and plain values atomically under a key that says which job they belong to."""
    with atomic_path(path) as temporary:
        torch.save({"key": key, **state}, temporary)


def load_checkpoint(path: Path | None, key: str | None) -> dict[str, Any] | None:
    """The state saved under this key (None: any), on the CPU; None if there is no such checkpoint.

    Only tensors and plain values are read (``weights_only``): a checkpoint cannot run code.
    """
    if path is None or not path.exists():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    return state if key in (None, state["key"]) else None
