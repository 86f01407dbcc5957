"""Options that several commands share, and a check of what they are to write."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from fustal_core.config import PROFILES, SettingsError

Data = Annotated[str, typer.Option(help="'simulated' or a data folder.")]
Profile = Annotated[str, typer.Option(help=f"One of {', '.join(PROFILES)}.")]
SetOptions = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Override a setting; see 'settings'."),
]
TrustPickle = Annotated[
    bool,
    typer.Option("--trust-pickle", help="Load object arrays (W-TALC), which can run code."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        envvar="FUSTAL_SCHEDULER",
        help="Trainings go to this dask scheduler, e.g. tcp://node7:8786.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        envvar="FUSTAL_WORKERS",
        help="Processes that train; by default one per GPU or CPU core, for smoke 1.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def check_writable(path: Path, option: str = "--output", inputs: Iterable[Path] = ()) -> None:
    """Refuse, before the work, a file that could not be written after it.

    Args:
        path: of the file.
        option: that names it, or its folder.
        inputs: what must not be lost to it: those that are there are compared with it.
    """
    if path.is_dir():
        raise SettingsError(f"{option}: {path} is a folder, expected a file to write")
    if path.exists() and not path.is_file():
        raise SettingsError(f"{option}: {path} is a device or the like, expected a file to write")
    if path.exists() and any(path.samefile(other) for other in inputs if other.exists()):
        raise SettingsError(f"{option}: {path} is itself read here, expected another file to write")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise SettingsError(f"{option}: {folder} is no folder that can be written")
