"""A run's executed notebooks copied into the checkout, as they are committed."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

from fustal_core.claims import refresh_readme
from fustal_core.config import SettingsError, make_settings, read_settings
from fustal_core.execution import without_stamps
from fustal_core.files import write_text
from fustal_core.pictures import with_fewer_colours
from fustal_core.pipeline import notebooks_dir, stage_names
from fustal_core.rundir import is_whole

if TYPE_CHECKING:
    from nbformat import NotebookNode


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
    return without_stamps(executed)


def _shrink_pictures(outputs: list[NotebookNode]) -> None:
    """A notebook on the web stays below a megabyte; a run's own copy keeps all colours."""
    for output in outputs:
        picture = output.get("data", {}).get("image/png")
        if picture:
            smaller = with_fewer_colours(base64.b64decode(picture))
            output["data"]["image/png"] = base64.b64encode(smaller).decode()


def _code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]
