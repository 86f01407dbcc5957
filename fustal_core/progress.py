"""Progress of long work: a widget bar in JupyterLab, a plain bar or plain lines elsewhere.

The variable ``FUSTAL_PROGRESS`` names a file that gets plain lines instead of a bar; ``fustal run``
sets it for the notebooks it executes and shows the lines as they come, so that a batch log stays
readable and executed notebooks hold no progress bars.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Progress = Callable[[int, int, str], None]

VARIABLE = "FUSTAL_PROGRESS"
NOTE = "note: "
_SECONDS_BETWEEN_LINES = 2.0


@contextmanager
def show_progress(what: str) -> Iterator[Progress]:
    """A callback ``progress(done, total, note)`` that is shown while the block runs.

    Args:
        what: short name of the work, e.g. "training the generator".
    """
    target = os.environ.get(VARIABLE)
    if target is not None:
        yield _lines(what, Path(target))
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
    target = os.environ.get(VARIABLE)
    if target is None:
        print(f"{NOTE}{message}", file=sys.stderr, flush=True)
        return
    with Path(target).open("a") as file:
        file.write(f"{NOTE}{message}\n")


def _lines(what: str, target: Path) -> Progress:
    last = 0.0

    def update(done: int, total: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _SECONDS_BETWEEN_LINES and done < total:
            return
        last = now
        with target.open("a") as file:
            file.write(f"{what}: {done}/{total}{' ' + note if note else ''}\n")

    return update
