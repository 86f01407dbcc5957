"""Papermill over the notebooks: executed copies in the run directory, skipped when nothing changed."""

from __future__ import annotations

import base64
import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fustal_core.claims import refresh_readme, write_claims
from fustal_core.config import Settings, SettingsError, make_settings, read_settings
from fustal_core.environment import environment
from fustal_core.files import (
    atomic_path,
    file_digest,
    partial_folders,
    remove_partial_files,
    write_text,
)
from fustal_core.jobs import begun_ahead
from fustal_core.locks import RunDirectoryBusyError, making_lock
from fustal_core.pictures import with_fewer_colours
from fustal_core.plan import jobs_of
from fustal_core.progress import NOTE, VARIABLE
from fustal_core.rundir import (
    PACKAGE,
    Product,
    code_hash,
    hash_of,
    is_whole,
    project_root,
)
from fustal_core.stages import Study

if TYPE_CHECKING:
    from nbformat import NotebookNode

Say = Callable[[str], None]
_NOT_SHOWN = ("cli", "report_", "bench", "scale", "figures_scale")
"""Modules of whose results notebooks show nothing, by how their names begin."""


class NotebookError(Exception):
    """A notebook failed; the message says which, where, and with what error."""


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
    files = [path for path in sorted(PACKAGE.glob("tables/*")) if path.stem != "report"]
    tables = [path.read_text(encoding="utf-8") for path in files]
    modules = [path.stem for path in PACKAGE.glob("*.py")]
    code = hash_of(code_hash(name for name in modules if not name.startswith(_NOT_SHOWN)), tables)
    study = Study(settings, run_dir)
    study.fingerprint = fingerprint
    # Without the name of a file: ``not_measured`` has what it says.
    asked = settings.model_dump(exclude={"evaluation": {"ambiguous"}})

    def product_of(name: str) -> Product:
        sources = _cell_sources(notebooks_dir() / f"{name}.ipynb")
        shown = _claims_shown(name, sources, run_dir)
        key = hash_of(sources, asked, study.not_measured, fingerprint, code, *shown)
        return Product(run_dir / name, key)

    damaged = _damaged(stages, study)
    stale = [name for name in stages if name in damaged or not _is_executed(product_of(name))]
    executed = []
    with ExitStack() as stack:
        if stale:
            stack.enter_context(workers)
            stack.enter_context(begun_ahead(jobs_of(name, study) for name in stale))
        for name in stages:
            product = product_of(name)  # again: notebooks before it may claim something else now
            if name not in damaged and _is_executed(product):
                say(f"{name}: unchanged, skipped")
                continue
            say(f"{name}: running")
            start = time.monotonic()
            product.begin()
            with _relayed_progress(name, say):
                _execute(notebooks_dir() / f"{name}.ipynb", _copy_of(product), parameters)
            product.finish(device=study.device)
            executed.append(name)
            say(f"{name}: done in {time.monotonic() - start:.0f} s")
    write_claims(study)
    return executed


def _remove_leftovers(run_dir: Path) -> None:
    """Remove what killed runs left half-written, but where somebody is writing at this moment."""
    for folder in partial_folders(run_dir):
        with suppress(RunDirectoryBusyError), making_lock(folder, patience_s=3):
            remove_partial_files(folder)


def _damaged(stages: Sequence[str], study: Study) -> set[str]:
    """The notebooks that train what is not there, or not whole any more; from whatever it was made.

    What a training started from may be gone, for nothing makes that again while the training is there.
    """
    seen: set[Path] = set()
    found = set()
    for name in stages:
        folders = {job.product.folder for job in jobs_of(name, study)} - seen
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


def _execute(source: Path, target: Path, parameters: dict[str, Any]) -> None:
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    # papermill only warns about a parameter that the notebook does not have.
    missing = set(parameters) - set(papermill.inspect_notebook(str(source)))
    if missing:
        raise NotebookError(f"{source.name}: no parameter {', '.join(sorted(missing))}")
    # NotebookError says that a kernel died; of one shut down with its run asyncio would tell at the end.
    logging.getLogger("asyncio").addFilter(_is_no_dead_kernel)
    failed = target.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    with atomic_path(target) as temporary, tempfile.TemporaryDirectory() as sockets:
        try:
            papermill.execute_notebook(
                str(source),
                str(temporary),
                parameters,
                kernel_name="python3",
                kernel_manager_class=_ipc_kernel_manager(f"{sockets}/kernel"),
                cwd=str(source.parent),
                engine_name=_engine_that_saves_once(),
                progress_bar=False,
                log_output=False,
                coalesce_streams=True,  # how prints are cut into messages is up to chance
                shutdown_kernel="immediate",  # it has nothing left to say but why it was interrupted
            )
        except (PapermillExecutionError, DeadKernelError) as error:
            os.replace(temporary, failed)
            raise NotebookError(
                f"{source.stem}: {_what_failed(error)}\nthe notebook up to there: {failed}"
            ) from None
        write_text(temporary, _without_stamps(nbformat.read(temporary, as_version=4)))


def _is_no_dead_kernel(record: logging.LogRecord) -> bool:
    from nbclient.exceptions import DeadKernelError

    return not (record.exc_info and isinstance(record.exc_info[1], DeadKernelError))


def _what_failed(error: Exception) -> str:
    from papermill.exceptions import PapermillExecutionError

    if isinstance(error, PapermillExecutionError):
        return f"cell {error.exec_count} failed: {error.ename}: {error.evalue}"
    return "its kernel died; was it killed, for lack of memory perhaps?"


def _engine_that_saves_once() -> str:
    """Papermill's own saves the notebook twice a cell, and the kernel waits; this one at the end."""
    from papermill.engines import NBClientEngine, papermill_engines

    class SavedAtTheEnd(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
            path, nb_man.output_path = nb_man.output_path, None
            try:
                return super().execute_managed_notebook(nb_man, kernel_name, **options)
            finally:
                nb_man.output_path = path  # papermill saves there when this returns or raises

    papermill_engines.register(SavedAtTheEnd.__name__, SavedAtTheEnd)
    return SavedAtTheEnd.__name__


def _ipc_kernel_manager(prefix: str) -> type:
    """Kernels reached through files ``PREFIX-1`` .. instead of TCP ports, which runs would race for."""
    from jupyter_client import AsyncKernelManager

    class IPCKernelManager(AsyncKernelManager):
        transport = "ipc"
        ip = prefix

    return IPCKernelManager


def _without_stamps(notebook: NotebookNode) -> str:
    """The notebook as text without times and chance, so that equal runs give equal files."""
    import nbformat

    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = "injected-parameters"  # papermill's is random
    return nbformat.writes(notebook) + "\n"


@contextmanager
def _relayed_progress(name: str, say: Say) -> Iterator[None]:
    """Let the notebook's kernel report its progress to a file, and show the lines as they come."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "progress"
        log.touch()
        over = threading.Event()
        thread = threading.Thread(target=_relay, args=(log, name, say, over), daemon=True)
        thread.start()
        try:
            with environment(**{VARIABLE: str(log)}):
                yield
        finally:
            over.set()
            thread.join()


def _relay(log: Path, name: str, say: Say, over: threading.Event) -> None:
    with log.open() as lines:
        while True:
            ending = over.wait(timeout=1)
            fresh = lines.readlines()
            for line in fresh:
                if line.startswith(NOTE) or line is fresh[-1]:
                    say(f"{name}:   {line.strip()}")
            if ending:
                return


def publish_notebooks(run_dir: Path) -> list[Path]:
    """Copy the outputs of a run's executed notebooks into the checkout's notebooks.

    The committed notebooks then show the run, without its injected parameters.

    Raises:
        SettingsError: not a complete run of the default settings; nothing is changed.
    """
    if read_settings(run_dir / "config.json") != make_settings():
        raise SettingsError(f"{run_dir}: not a run of the default settings")
    texts: dict[Path, str] = {}
    problems = []
    for name in stage_names():
        source = run_dir / name / f"{name}.ipynb"
        # A notebook that failed leaves its last copy, of other code or settings, but not this.
        if not is_whole(source.parent / "made.json"):
            problems.append(f"{source}: not executed to its end, or files beside it were changed")
            continue
        try:
            texts[notebooks_dir() / f"{name}.ipynb"] = _published(source)
        except Exception as error:  # a damaged notebook makes its reader fail in a dozen ways
            reason = str(error).partition("\n")[0][:80] or type(error).__name__
            problems.append(f"{source}: expected an executed notebook: {reason}")
    if problems:
        raise SettingsError("\n".join(problems))
    readme = refresh_readme()  # first: it may be refused as well
    for target, text in texts.items():
        write_text(target, text)
    return [*texts, readme]


def _published(source: Path) -> str:
    """An executed notebook as it is committed: small, and without its injected parameters.

    Raises:
        Exception: it is damaged.
    """
    import nbformat

    executed = nbformat.read(source, as_version=4)
    executed.cells = [
        cell
        for cell in executed.cells
        if "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    if not any(cell.execution_count for cell in _code_cells(executed)):
        raise ValueError("no cell of it was executed")
    for count, cell in enumerate(_code_cells(executed), start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
        _shrink_pictures(cell.outputs)
    return _without_stamps(executed)


def _shrink_pictures(outputs: list[NotebookNode]) -> None:
    """A notebook on the web stays below a megabyte; a run's own copy keeps all colours."""
    for output in outputs:
        picture = output.get("data", {}).get("image/png")
        if picture:
            smaller = with_fewer_colours(base64.b64decode(picture))
            output["data"]["image/png"] = base64.b64encode(smaller).decode()


def _code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def to_stderr(line: str) -> None:
    """Say a line where a batch log shows it."""
    print(line, file=sys.stderr, flush=True)
