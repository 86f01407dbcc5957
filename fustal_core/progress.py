"""Progress of long work: a widget bar in JupyterLab, a bar in a terminal, plain lines in a log.

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
_BETWEEN_LINES_S = 2.0
_BETWEEN_LINES_OF_A_LOG_S, _QUIET_S = 10.0, 2.0
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
    if not in_lab and not (sys.stderr and sys.stderr.isatty()):  # it may be closed
        yield _lines(what, to_stderr, _BETWEEN_LINES_OF_A_LOG_S, _QUIET_S)
        return
    from tqdm import notebook, std

    bar = (notebook if in_lab else std).tqdm(desc=what, leave=False, delay=_QUIET_S)

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
        to_stderr(f"{NOTE}{message}")


def _line_writer() -> Callable[[str], None] | None:
    """Where lines go instead of a bar: to a job's owner, or into the file that the variable names."""
    target = os.environ.get(VARIABLE)
    if report := _report.get():
        return report
    return partial(_append, Path(target)) if target is not None else None


def _append(target: Path, line: str) -> None:
    with target.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def to_stderr(line: str) -> None:
    """Say a line where a terminal or a batch log shows it."""
    if sys.stderr:  # it may be closed, and print would take the standard output for it
        print(line, file=sys.stderr, flush=True)


def _lines(
    what: str, write: Callable[[str], None], between_s: float = _BETWEEN_LINES_S, quiet_s: float = 0
) -> Progress:
    """Lines that come no faster than that, but for the last one; none of work that is done at once."""
    begun = time.monotonic() if quiet_s else 0.0
    last, told = 0.0, ""

    def update(done: int, total: int, note: str) -> None:
        nonlocal last, told
        now = time.monotonic()
        line = f"{what}: {done}/{total}{' ' + note if note else ''}"
        soon = now - last < between_s and done < total
        if line == told or soon or now - begun < quiet_s:
            return
        last, told = now, line
        write(line)

    return update
