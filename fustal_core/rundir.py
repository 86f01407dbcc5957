"""The run directory: where it lies, which settings it belongs to, and what of it is still valid.

Every product of a run (trained weights with their proposals, say) lies in a folder of its own beside a
``made.json`` with a key: a hash of the settings, seed, data, earlier products and source code it was
made from. It is written last, so a product without it, or with another key, is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fustal_core.config import Settings, SettingsError, changed_settings, read_settings
from fustal_core.files import write_json

PACKAGE = Path(__file__).parent
_VERSIONS = ("torch", "numpy", "scipy", "pandas", "matplotlib", "papermill")


class RunDirectoryError(SettingsError):
    """A run directory that belongs to other settings."""


def project_root() -> Path:
    """The checkout: the nearest folder upwards, from here or the package, that holds ``notebooks``."""
    for start in (Path.cwd(), PACKAGE):
        for folder in (start, *start.parents):
            if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
                return folder
    return Path.cwd()


def default_run_dir(settings: Settings) -> Path:
    """``runs/DATA-PROFILE-seedN`` in the checkout."""
    data = "simulated" if settings.data == "simulated" else Path(settings.data).resolve().name
    return project_root() / "runs" / f"{data}-{settings.profile}-seed{settings.seed}"


def torch_device(settings: Settings) -> str:
    """ "cuda" or "cpu": what the settings ask for, or the best there is for "auto".

    Raises:
        SettingsError: "cuda" asked for where torch sees no GPU.
    """
    has_gpu = torch.cuda.is_available()
    if settings.device == "cuda" and not has_gpu:
        raise SettingsError("device=cuda, but torch sees no GPU here; allowed: auto, cpu")
    return ("cuda" if has_gpu else "cpu") if settings.device == "auto" else settings.device


def claim_run_dir(run_dir: Path, settings: Settings, *, force: bool = False) -> None:
    """Write ``config.json``, or see that the one there says the same.

    Args:
        run_dir: made if missing.
        settings: of the run.
        force: take over a directory that was made with other settings; what they change is made anew.

    Raises:
        RunDirectoryError: other settings, listed; nothing is changed.
    """
    path = run_dir / "config.json"
    if path.exists() and not force:
        try:
            changes = changed_settings(read_settings(path), settings)
        except SettingsError as error:
            changes = [str(error)]
        if changes:
            raise RunDirectoryError(
                f"{run_dir} was made with other settings (there -> asked):\n  "
                + "\n  ".join(changes)
                + "\nChoose another run directory (--run-dir), or --force to make it anew there."
            )
        return
    try:
        write_json(path, settings.model_dump())
    except OSError as error:
        raise RunDirectoryError(f"{run_dir}: cannot be written: {error.strerror}") from None


def write_provenance(run_dir: Path, settings: Settings, fingerprint: str, device: str) -> None:
    """Write ``provenance.json``: seed, versions, device, git revision, data fingerprint."""
    content = {
        "seed": settings.seed,
        "data": settings.data,
        "data_fingerprint": fingerprint,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _VERSIONS},
        "git_revision": git_revision(),
    }
    write_json(run_dir / "provenance.json", content)


def device_name(device: str) -> str:
    """Name of the hardware behind a torch device."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"cpu ({platform.machine()}, {os.cpu_count()} cores)"


def git_revision() -> str | None:
    """The checkout's commit, marked ``-dirty`` if tracked files differ; None outside a checkout."""
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def hash_of(*parts: Any) -> str:
    """Stable hash of JSON-like values, 16 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code_hash(modules: Iterable[str]) -> str:
    """Hash of the source of modules of this package and of all that they import from it."""
    sources: dict[str, str] = {}
    waiting = set(modules)
    while waiting:
        name = waiting.pop()
        sources[name] = (PACKAGE / f"{name}.py").read_text()
        imported = re.findall(r"^\s*from fustal_core\.(\w+) import", sources[name], re.MULTILINE)
        waiting |= set(imported) - set(sources)
    return hash_of(sorted(sources.items()))


@dataclass(frozen=True)
class Product:
    """A folder of files that were made together, valid while its key is the same."""

    folder: Path
    key: str

    @property
    def is_made(self) -> bool:
        """Whether the files are there and were made from what the key says."""
        try:
            return json.loads((self.folder / "made.json").read_text())["key"] == self.key
        except (OSError, ValueError, KeyError, TypeError):
            return False

    @property
    def checkpoint(self) -> Path:
        """Where a training keeps its state until the product is made."""
        return self.folder / "checkpoint.pt"

    def finish(self, *, keep_checkpoint: bool = False) -> None:
        """Declare the files complete; the checkpoint goes unless others start from it."""
        write_json(self.folder / "made.json", {"key": self.key})
        if not keep_checkpoint:
            self.checkpoint.unlink(missing_ok=True)
