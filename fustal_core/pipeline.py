"""Papermill over the notebooks: executed copies in the run directory, skipped when nothing changed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

from fustal_core.claims import write_claims
from fustal_core.config import Settings, SettingsError
from fustal_core.execution import Say, execute, relayed_progress
from fustal_core.files import file_digest, partial_folders, remove_partial_files
from fustal_core.jobs import Job
from fustal_core.locks import RunDirectoryBusyError, making_lock
from fustal_core.plan import jobs_of
from fustal_core.rundir import (
    CACHE,
    PACKAGE,
    PROVENANCE,
    SOURCES,
    Product,
    code_hash,
    hash_of,
    is_whole,
    project_root,
    write_provenance,
)
from fustal_core.scheduling import begun_ahead
from fustal_core.stages import Study

_NOT_SHOWN = ("cli", "publishing", "report_", "bench", "scale", "figures_scale")
"""Modules of whose results notebooks show nothing, by how their names begin."""


def notebooks_dir() -> Path:
    """The checkout's ``notebooks`` folder.

    Raises:
        SettingsError: not run inside a checkout.
    """
    folder = project_root() / "notebooks"
    if not folder.is_dir():
        raise SettingsError("no notebooks folder: run from a checkout of the study")
    return folder


def stage_names() -> list[str]:
    """The notebooks in their order, e.g. ``["00_data", "01_generation", ...]``."""
    return sorted(path.stem for path in notebooks_dir().glob("[0-9][0-9]_*.ipynb"))


def choose_stages(asked: Sequence[str]) -> list[str]:
    """The notebooks asked for, in pipeline order; all of them if none is named.

    Args:
        asked: full names ("01_generation") or the part after the number ("generation").

    Raises:
        SettingsError: unknown names, all listed with the known ones.
    """
    known = stage_names()
    short = {name.partition("_")[2]: name for name in known}
    unknown = [name for name in asked if name not in known and name not in short]
    if unknown:
        raise SettingsError(
            f"unknown stage {', '.join(map(repr, unknown))}; known: {', '.join(short)}"
        )
    wanted = {short.get(name, name) for name in asked} or set(known)
    return [name for name in known if name in wanted]


def run_notebooks(
    stages: Sequence[str],
    settings: Settings,
    overrides: dict[str, Any],
    run_dir: Path,
    fingerprint: str,
    workers: AbstractContextManager[None],
    *,
    say: Say = print,
) -> list[str]:
    """Execute notebooks in order; an unchanged one is skipped, what a killed run left is removed.

    A notebook of which a training was damaged, deleted perhaps, is executed as well.

    Args:
        stages: full names, see :func:`choose_stages`.
        settings: of the run; ``overrides`` are what of them differs from the profile.
        run_dir: whose ``NN_name/NN_name.ipynb`` gets the executed copy.
        fingerprint: of the data.
        workers: makes them available to notebooks, entered if one is executed. They begin at once
            with what all of the notebooks train (see :mod:`fustal_core.plan`).
        say: receives a line at each notebook's start and end, and its progress.

    Returns:
        The notebooks that were executed.

    Raises:
        NotebookError: a cell raised or the kernel died; the copy up to there is kept as
            ``NN_name.failed.ipynb``.
        OSError: a file cannot be written.
        KeyboardInterrupt: after the kernel was shut down.
    """
    run_dir = run_dir.resolve()  # one name for it: a job is known by the folder of its product
    _remove_leftovers(run_dir)
    parameters = {
        "data": settings.data,
        "profile": settings.profile,
        "seed": settings.seed,
        "run_dir": str(run_dir),
        "overrides": overrides,
    }
    study = Study(settings, run_dir)
    study.fingerprint = fingerprint
    if not (run_dir / PROVENANCE).exists():  # reading the data writes it, if anything does
        write_provenance(run_dir, settings, fingerprint, study.device)
    planned = {name: jobs_of(name, study) for name in stages}
    damaged = _damaged(planned)
    code = _code_shown()

    def is_due(notebook: Product) -> bool:
        return notebook.folder.name in damaged or not _is_executed(notebook)

    due = [name for name in stages if is_due(_notebook(name, study, code))]
    executed = []
    with ExitStack() as stack:
        if due:
            stack.enter_context(workers)
            stack.enter_context(begun_ahead(planned[name] for name in due))
        for name in stages:
            notebook = _notebook(name, study, code)  # those before it may claim something else now
            if is_due(notebook):
                _run_notebook(study, notebook, parameters, say)
                executed.append(name)
            else:
                say(f"{name}: unchanged, skipped")
    write_claims(study)
    return executed


def _code_shown() -> str:
    """Of the code and the tables whose results notebooks show."""
    files = [path for path in sorted(PACKAGE.glob("tables/[!.]*")) if path.stem != "report"]
    tables = [path.read_text(encoding="utf-8") for path in files]
    return hash_of(code_hash(name for name in SOURCES if not name.startswith(_NOT_SHOWN)), tables)


def _notebook(name: str, study: Study, code: str) -> Product:
    """A notebook's folder, and the key of its executed copy: of all that it shows."""
    sources = _cell_sources(notebooks_dir() / f"{name}.ipynb")
    shown = _claims_shown(name, sources, study.run_dir)
    # Without the name of a file: ``not_measured`` has what it says.
    asked = study.settings.model_dump(exclude={"evaluation": {"ambiguous"}})
    key = hash_of(sources, asked, study.not_measured, study.fingerprint, code, *shown)
    return Product(study.folder(name), key)


def _run_notebook(study: Study, notebook: Product, parameters: dict[str, Any], say: Say) -> None:
    name = notebook.folder.name
    say(f"{name}: running")
    start = time.monotonic()
    notebook.begin()
    with relayed_progress(name, say):
        execute(notebooks_dir() / f"{name}.ipynb", _copy_of(notebook), parameters)
    notebook.finish(device=study.device)
    say(f"{name}: done in {time.monotonic() - start:.0f} s")


def _remove_leftovers(run_dir: Path) -> None:
    """Remove what killed runs left half-written, but where somebody is writing at this moment.

    The cache of features has locks of its own: who fills it next removes what is left there.
    """
    for folder in partial_folders(run_dir):
        if folder.is_relative_to(run_dir / CACHE):
            continue
        with suppress(RunDirectoryBusyError), making_lock(folder, patience_s=3):
            remove_partial_files(folder)


def _damaged(planned: Mapping[str, Sequence[Job]]) -> set[str]:
    """The notebooks that train what is not there, or not whole any more; from whatever it was made.

    What a training started from may be gone, for nothing makes that again while the training is there.

    planned: the jobs of each notebook, in their order.
    """
    seen: set[Path] = set()
    found = set()
    for name, jobs in planned.items():
        folders = {job.product.folder for job in jobs} - seen
        if not all(is_whole(folder / "made.json") for folder in folders):
            found.add(name)
        seen |= folders
    return found


def _copy_of(notebook: Product) -> Path:
    """Where the executed copy of a notebook lies."""
    return notebook.folder / f"{notebook.folder.name}.ipynb"


def _is_executed(notebook: Product) -> bool:
    """Whether its executed copy is there and can be read; one may have opened and changed it."""
    try:
        copy = _copy_of(notebook).read_text(encoding="utf-8")
        return notebook.is_made and bool(json.loads(copy)["cells"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return False


def _cell_sources(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells]


def _claims_shown(name: str, sources: Sequence[str], run_dir: Path) -> list[str]:
    """Digests of earlier notebooks' claims, where a notebook shows those of all up to itself."""
    if not any("claims.collect(" in source for source in sources):
        return []
    tables = sorted(run_dir.glob("[0-9][0-9]_*/claims.csv"))
    return [file_digest(path) for path in tables if path.parent.name < name]
