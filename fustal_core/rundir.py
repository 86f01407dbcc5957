"""The run directory: where it lies, which settings it belongs to, and what of it is still valid.

Every product of a run (trained weights with their proposals, say) lies in a folder of its own beside a
``made.json`` with a key: a hash of the settings, seed, data, earlier products and source code it was
made from; with the digests of its files; and with what made them. It is written last, so a product
without it, with another key or with damaged files is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from fustal_core.config import (
    Settings,
    SettingsError,
    changed_settings,
    make_settings,
    override,
    read_settings,
)
from fustal_core.files import file_digest, remove_partial_files, write_json
from fustal_core.progress import say_note

PACKAGE = Path(__file__).parent
SOURCES = {path.stem: path.read_text(encoding="utf-8") for path in PACKAGE.glob("[!.]*.py")}
"""The package's modules, by name, as they were when this process began."""
PROVENANCE = "provenance.json"
CACHE = "cache"
"""Folder of a run directory for simulated features, and for others that exceed the granted memory."""
_VERSIONS = ("torch", "numpy", "scipy", "pandas", "matplotlib", "papermill")


class RunDirectoryError(SettingsError):
    """A run directory that belongs to other settings."""


def project_root() -> Path:
    """The checkout: the nearest folder upwards, from the package or here, that holds ``notebooks``."""
    for start in (PACKAGE, Path.cwd()):
        for folder in (start, *start.parents):
            if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
                return folder
    return Path.cwd()


_HOW_MUCH = ("ablation.", "analysis.")
"""Settings that say how much is tried, not how: they may change in a run directory."""


def changed_results(old: Settings, new: Settings) -> list[str]:
    """Lines ``name: old -> new`` of settings that differ, but for those of how much is tried."""
    return [line for line in changed_settings(old, new) if not line.startswith(_HOW_MUCH)]


def default_run_dir(settings: Settings) -> Path:
    """``runs/DATA-PROFILE-seedN`` in the checkout; with overrides, a short hash of them follows.

    What is tried beyond the default in ablation and analysis gets a directory that ends in ``-grid``.
    """
    plain = make_settings(settings.data, settings.profile, settings.seed)
    changes, others = changed_settings(plain, settings), changed_results(plain, settings)
    suffix = f"-{hash_of(others)[:6]}" if others else ""
    suffix += "-grid" if len(others) < len(changes) else ""
    is_folder = settings.data != "simulated"
    data = Path(os.path.realpath(settings.data)).name if is_folder else settings.data
    return project_root() / "runs" / f"{data}-{settings.profile}-seed{settings.seed}{suffix}"


def torch_device(settings: Settings) -> str:
    """ "cuda" or "cpu": what the settings ask for, or the best there is for "auto".

    From then on cuDNN computes in float32, not TF32, but where a training asks for that.

    Raises:
        SettingsError: "cuda" asked for where torch sees no GPU.
    """
    has_gpu = torch.cuda.is_available()
    if settings.device == "cuda" and not has_gpu:
        raise SettingsError("device=cuda, but torch sees no GPU here; allowed: auto, cpu")
    torch.backends.cudnn.allow_tf32 = False
    return ("cuda" if has_gpu else "cpu") if settings.device == "auto" else settings.device


def resolve_data(data: str) -> str:
    """ "simulated", or the absolute path of a folder named from here or from the checkout.

    A notebook's working directory is ``notebooks``, the command line's is the caller's.
    """
    if data == "simulated":
        return data
    return str(resolve_file(data))


def resolve_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings by dotted name, with the file among them, if any, by its absolute path.

    Notebooks run in a folder of their own, and workers wherever they were started.
    """
    resolved, name = dict(overrides), "evaluation.ambiguous"
    if resolved.get(name) and isinstance(resolved[name], str):  # other values are refused later
        resolved[name] = str(resolve_file(resolved[name]))
    return resolved


def resolve_file(path: str) -> Path:
    """Absolute path of a file or folder named from here or, if it is not there, from the checkout."""
    from_root = project_root() / path
    found = from_root if from_root.exists() and not Path(path).exists() else path
    return Path(os.path.realpath(found))  # unlike resolve() it ends where links lead to each other


def claim_run_dir(run_dir: Path, settings: Settings, *, force: bool = False) -> None:
    """Write ``config.json``, or see that the one there says the same.

    Args:
        run_dir: made if missing.
        settings: of the run.
        force: take over a directory that was made with other settings. The notebooks, tables and
            figures made with them are removed; trained products stay as far as they are still valid,
            and so does whatever somebody else put there.

    Raises:
        RunDirectoryError: other settings, listed, or unreadable ones, or no run's at all, where
            ``force`` does not help; nothing is changed.
        OSError: the directory cannot be written.
    """
    path = run_dir / "config.json"
    refusal = _refusal(path, settings) if path.exists() else ""
    if refusal and not _is_configuration(path):
        raise RunDirectoryError(
            f"{refusal}\nIs this a run directory at all? If {path.name} may go, remove it."
        )
    if refusal and not force:
        raise RunDirectoryError(
            f"{refusal}\nChoose another run directory (--run-dir, run_dir), or --force to make it "
            "anew there."
        )
    if refusal:
        _remove_results(run_dir)
    if refusal or not path.exists() or read_settings(path) != settings:
        write_json(path, settings.model_dump())


def with_recorded_extent(run_dir: Path, settings: Settings, asked: Iterable[str]) -> Settings:
    """Settings with how much is tried as the run directory says, so that claiming it keeps that.

    Args:
        run_dir: with a ``config.json`` or not.
        settings: of the run.
        asked: settings, by dotted name, that stay as they are.
    """
    try:
        recorded = read_settings(run_dir / "config.json")
    except SettingsError:  # there is none yet, or claiming says what is wrong with it
        return settings
    extent = {
        f"{section}.{name}": value
        for section in ("ablation", "analysis")
        for name, value in getattr(recorded, section)
    }
    return override(settings, {name: extent[name] for name in extent.keys() - set(asked)})


def _refusal(path: Path, settings: Settings) -> str:
    """Why a directory with this ``config.json`` is not one for these settings; empty if it is."""
    try:
        changes = changed_results(read_settings(path), settings)
    except SettingsError as error:
        return f"what {path.parent} was made with cannot be read: {error}"
    if not changes:
        return ""
    lines = "\n  ".join(changes)
    return f"{path.parent} was made with other settings (there -> asked):\n  {lines}"


def _is_configuration(path: Path) -> bool:
    """Whether some version of this study wrote a ``config.json``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"data", "profile", "seed"} <= content.keys()


def _remove_results(run_dir: Path) -> None:
    """Remove what notebooks wrote; products lie in folders of their own and are keyed."""
    for made in run_dir.glob("[0-9][0-9]_*/made.json"):
        if _recorded(made.parent)[0]:
            _remove_made(made.parent)
            made.with_name(f"{made.parent.name}.ipynb").unlink(missing_ok=True)
            made.unlink()


def _remove_made(folder: Path) -> None:
    """Remove the files of the product that was last finished there, and nothing else."""
    files = _recorded(folder)[1]
    for path in folder.iterdir():
        if path.name in files and path.is_file():
            path.unlink()


def _recorded(folder: Path) -> tuple[str, dict[str, str]]:
    """The key of the product that was last finished there, empty if none, and its files' digests."""
    try:
        content = json.loads((folder / "made.json").read_text(encoding="utf-8"))
        return str(content["key"]), dict(content["files"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return "", {}


def write_provenance(run_dir: Path, settings: Settings, fingerprint: str, device: str) -> None:
    """Write ``provenance.json``: seed, versions, device, git revision, data fingerprint."""
    content = {
        "seed": settings.seed,
        "data": settings.data,
        "data_fingerprint": fingerprint,
        "device": device_name(device),
        "python": platform.python_version(),
        "versions": _versions(),
        "git_revision": git_revision(),
    }
    write_json(run_dir / PROVENANCE, content)


@cache
def made_with(device: str) -> dict[str, str]:
    """What this process makes products with: device, git revision, versions of Python and torch."""
    return {
        "device": device_name(device),
        "git_revision": git_revision() or "none",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _versions() -> dict[str, str]:
    """Versions of what is installed: a GPU node may lack plotting and papermill."""
    found = {}
    for name in _VERSIONS:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


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
    """Hash of the source of modules of this package and of all that they import from it.

    As it was when this process began: that is what it computes with, whatever is edited meanwhile.
    """
    return _code_hash(tuple(sorted(set(modules))))


def own_code_hash(modules: Iterable[str]) -> str:
    """Hash of the source of these modules alone, as :func:`code_hash`."""
    return hash_of({name: SOURCES[name] for name in modules})


def all_code() -> str:
    """Hash of the whole package."""
    return code_hash(SOURCES)


@cache
def _code_hash(modules: tuple[str, ...]) -> str:
    sources: dict[str, str] = {}
    waiting = set(modules)
    while waiting:
        name = waiting.pop()
        sources[name] = SOURCES[name]
        imported = re.findall(r"^\s*from fustal_core\.(\w+) import", sources[name], re.MULTILINE)
        waiting |= set(imported) - set(sources)
    return hash_of(sorted(sources.items()))


def is_whole(made: Path) -> bool:
    """Whether the files beside a ``made.json`` are as it says, from whatever they were made."""
    try:
        key = json.loads(made.read_text(encoding="utf-8"))["key"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return False
    return Product(made.parent, key).is_made


@dataclass(frozen=True)
class Product:
    """A folder of files that were made together, valid while its key is the same and they are whole."""

    folder: Path
    key: str

    @property
    def is_made(self) -> bool:
        """Whether all files are there as they were made, from what the key says."""
        key, made = _recorded(self.folder)
        return key == self.key and not self._damaged(made)

    def _damaged(self, made: dict[str, str]) -> list[str]:
        """The files that are missing or not as they were made."""
        there = {path.name: path for path in self._files()}
        return [
            name
            for name, digest in made.items()
            if name not in there or file_digest(there[name]) != digest
        ]

    def _files(self) -> list[Path]:
        """What belongs to the product. Notebooks do not: one opens them, and saves them perhaps."""
        return sorted(
            path
            for path in self.folder.glob("[!.]*")
            if path.is_file() and path.name != "made.json" and path.suffix != ".ipynb"
        )

    @property
    def checkpoint(self) -> Path:
        """Where a training keeps its state until the product is made."""
        return self.folder / "checkpoint.pt"

    def begin(self) -> None:
        """Declare the files incomplete before the first is written; remove a killed run's leftovers.

        Files that were made from something else go, too: not all of them need be written again.
        """
        key, made = _recorded(self.folder)
        damaged = self._damaged(made) if key == self.key else []
        if damaged:
            files = ", ".join(damaged)
            say_note(f"{self.folder}: not as it was made, so it is made again: {files}")
        if made and key != self.key:
            _remove_made(self.folder)
        (self.folder / "made.json").unlink(missing_ok=True)
        remove_partial_files(self.folder)

    def finish(self, *, device: str = "cpu", keep_checkpoint: bool = False) -> None:
        """Declare the files complete, made on that device; others may start from the checkpoint."""
        if not keep_checkpoint:  # first, so that none is left beside a product that is made
            self.checkpoint.unlink(missing_ok=True)
        digests = {path.name: file_digest(path) for path in self._files()}
        content = {"key": self.key, "files": digests, "made_with": made_with(device)}
        write_json(self.folder / "made.json", content)
