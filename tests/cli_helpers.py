"""The command line by its real entry point, for the tests of several commands."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path


def fustal(*arguments: str | Path) -> subprocess.CompletedProcess:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "fustal_core", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def assert_refused(result: subprocess.CompletedProcess, status: int, *fragments: str) -> None:
    """The command ended with this status and a message that says all this, without a traceback."""
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    for fragment in fragments:
        assert fragment in result.stderr


def wait_for(path: Path, seconds: float = 120) -> None:
    """Wait until a file appears."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)
