"""Interrupted work that goes on later: Ctrl-C, and what a cluster's scheduler asks for by SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from fustal_core.progress import say_note


@contextmanager
def resumable() -> Iterator[None]:
    """Let an interrupt while the block runs end the program with one line and status 1.

    Whatever error it arrives as: it is raised wherever the program is at the time, and libraries turn
    what is raised within them into errors of their own.

    Raises:
        SystemExit: interrupted.
    """
    came = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    except BaseException as error:
        if not came:
            raise
        if not isinstance(error, KeyboardInterrupt):
            say_note(f"it ended in {error!r}")  # which may have come later, for a reason of its own
        raise SystemExit("fustal: interrupted; the same command goes on from here") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
