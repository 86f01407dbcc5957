"""The command ``report``: a run's figures, tables, claims and settings as one HTML page."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from fustal_core.cli_options import check_writable
from fustal_core.config import SettingsError, make_settings


def report(
    run_dir: Annotated[
        Path | None, typer.Argument(help="A run directory; without it, the default run's.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The page; by default RUN_DIR/report.html.")
    ] = None,
) -> None:
    """Write one self-contained page about a run: claims, results, figures, settings, provenance.

    It needs no network and no other file, can be read on a phone and printed. What a run lacks, the
    page says.
    """
    from fustal_core.files import write_text
    from fustal_core.pipeline import stage_names
    from fustal_core.progress import say_note
    from fustal_core.report import collect_run
    from fustal_core.report_page import render_page
    from fustal_core.rundir import default_run_dir

    folder = run_dir or default_run_dir(make_settings())
    notebooks: list[str] = []
    with suppress(SettingsError):  # outside a checkout nobody knows what a complete run has
        notebooks = stage_names()
    collected = collect_run(folder, notebooks)
    target = output or folder / "report.html"
    # Only a page may be written again: all else in the folder is the run itself.
    own = (path for path in folder.rglob("*") if path.suffix != ".html")
    check_writable(target, inputs=own)
    write_text(target, render_page(collected))
    for section in collected.sections:
        for note in section.notes:
            say_note(f"{section.name}: {note}")
    for note in collected.notes:
        say_note(note)
    typer.echo(target)
