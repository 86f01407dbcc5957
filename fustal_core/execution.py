"""A notebook executed by papermill, in a kernel that reports its progress as it goes."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fustal_core.environment import environment
from fustal_core.files import atomic_path, write_text
from fustal_core.progress import NOTE, VARIABLE

if TYPE_CHECKING:
    from nbformat import NotebookNode

Say = Callable[[str], None]


class NotebookError(Exception):
    """A notebook failed; the message says which, where, and with what error."""


def execute(source: Path, target: Path, parameters: dict[str, Any]) -> None:
    """Execute a notebook with parameters; the copy is whole or not there, and has no times in it.

    Args:
        source: the notebook.
        target: gets the executed copy.
        parameters: of papermill, by name; the notebook must have them all.

    Raises:
        NotebookError: a parameter it does not have, a cell that raised, or a kernel that died; the
            copy up to there is kept as ``NAME.failed.ipynb`` beside the target.
    """
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
    # Idle OpenMP threads spin for a while by default, and would take cores from the workers.
    patient = environment(OMP_WAIT_POLICY=os.environ.get("OMP_WAIT_POLICY", "passive"))
    with patient, atomic_path(target) as temporary, _folder_for_sockets() as sockets:
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
        write_text(temporary, without_stamps(nbformat.read(temporary, as_version=4)))


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


def _folder_for_sockets() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder where the system takes a socket's name, of some hundred characters at most.

    A batch system may give every job a folder for temporary files with a name that is too long.
    """
    import zmq

    longest = zmq.IPC_PATH_MAX_LEN - len("/tmp12345678/kernel-5")
    is_long = len(os.fsencode(tempfile.gettempdir())) > longest
    return tempfile.TemporaryDirectory(dir="/tmp" if is_long else None)


def _ipc_kernel_manager(prefix: str) -> type:
    """Kernels of this very Python, reached through files ``PREFIX-1`` .. instead of TCP ports.

    Two runs would race for a port.
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from traitlets import default

    class IPCKernelManager(AsyncKernelManager):
        transport = "ipc"
        ip = prefix

        @default("kernel_spec_manager")
        def _this_python(self) -> KernelSpecManager:
            # Kernels that others installed as "python3" may be of another Python, without this package.
            return KernelSpecManager(kernel_dirs=[], parent=self)

    return IPCKernelManager


def without_stamps(notebook: NotebookNode) -> str:
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
def relayed_progress(name: str, say: Say) -> Iterator[None]:
    """Let the kernel of a notebook executed in the block report its progress, and say it as it comes.

    Args:
        name: of the notebook, before each line.
        say: receives the lines.
    """
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
    with log.open(encoding="utf-8") as lines:
        while True:
            ending = over.wait(timeout=1)
            fresh = lines.readlines()
            for line in fresh:
                if line.startswith(NOTE) or line is fresh[-1]:
                    say(f"{name}:   {line.strip()}")
            if ending:
                return
