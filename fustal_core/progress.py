"""Progress of long work: a widget bar in JupyterLab, a plain bar or plain lines elsewhere.

The variable ``FUSTAL_PROGRESS`` names a file that gets plain lines instead of a bar; ``fustal run``
sets it for the notebooks it executes and shows the lines as they come, so that a batch log stays
readable and executed notebooks hold no progress bars. What a job of another process does is told to
whom it works for (:func:`reported_to`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path

Progress = Callable[[int, int, str], None]

VARIABLE = "FUSTAL_PROGRESS"
NOTE = "note: "
_SECONDS_BETWEEN_LINES = 2.0
_report: ContextVar[Callable[[str], None] | None] = ContextVar("report", default=None)


@contextmanager
def reported_to(report: Callable[[str], None]) -> Iterator[None]:
    """Hand progress and notes of this thread to a function, as lines, while the block runs."""
    token = _report.set(report)
    try:
        yield
    finally:
        _report.reset(token)


@contextmanager
def show_progress(what: str) -> Iterator[Progress]:
    """A callback ``progress(done, total, note)`` that is shown while the block runs.

    Args:
        what: short name of the work, e.g. "training the generator".
    """
    if write := _line_writer():
        yield _lines(what, write)
        return
    # Only JupyterLab sets this name; in papermill's log a widget would freeze at 0 %.
    in_lab = "JPY_SESSION_NAME" in os.environ
    from tqdm import notebook, std

    live = in_lab or sys.stderr.isatty()
    bar = (notebook if in_lab else std).tqdm(
        desc=what, leave=False, delay=2, mininterval=0.1 if live else 10
    )

    def update(done: int, total: int, note: str) -> None:
        bar.total = total
        if note:
            bar.set_postfix_str(note, refresh=False)
        bar.update(done - bar.n)

    try:
        yield update
    finally:
        bar.close()


def say_note(message: str) -> None:
    """Tell the user something unexpected that the work goes on from; no notebook shows it.

    Goes where progress goes: to stderr, or as a line that starts with ``NOTE`` to ``fustal run``.
    """
    if write := _line_writer():
        write(f"{NOTE}{message}")
    else:
        print(f"{NOTE}{message}", file=sys.stderr, flush=True)


def _line_writer() -> Callable[[str], None] | None:
    """Where lines go instead of a bar: to a job's owner, or into the file that the variable names."""
    target = os.environ.get(VARIABLE)
    if report := _report.get():
        return report
    return partial(_append, Path(target)) if target is not None else None


def _append(target: Path, line: str) -> None:
    with target.open("a") as file:
        file.write(f"{line}\n")


def _lines(what: str, write: Callable[[str], None]) -> Progress:
    last, told = 0.0, ""

    def update(done: int, total: int, note: str) -> None:
        nonlocal last, told
        now = time.monotonic()
        line = f"{what}: {done}/{total}{' ' + note if note else ''}"
        if line == told or (now - last < _SECONDS_BETWEEN_LINES and done < total):
            return
        last, told = now, line
        write(line)

    return update
