"""The command line by its real entry point, for the tests of several commands."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def fustal(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Run the command in a process of its own, in some folder."""
    command = [sys.executable, "-m", "fustal_core", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def assert_refused(result: subprocess.CompletedProcess, status: int, *fragments: str) -> None:
    """The command ended with this status and a message that says all this, without a traceback."""
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    for fragment in fragments:
        assert fragment in result.stderr


def wait_until(
    condition: Callable[[], object], seconds: float = 120, what: str = "waited in vain"
) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def wait_for(path: Path) -> None:
    """Wait until a file appears."""
    wait_until(path.exists, what=f"{path} did not appear")
