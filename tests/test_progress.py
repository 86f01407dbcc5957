"""Progress and notes: a line goes to who asked for it, a file, or the terminal."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from fustal_core import progress
from fustal_core.progress import VARIABLE, reported_to, say_note, show_progress


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv(VARIABLE, str(path))
    return path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the clock shows, one reading after the other."""
    readings: list[float] = []
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: readings.pop(0)))
    return readings


def test_lines_come_every_two_seconds_and_at_the_end(log: Path, clock: list[float]) -> None:
    clock += [100, 101.9, 102, 102.1, 102.2]
    with show_progress("work") as update:
        for done in range(1, 6):
            update(done, 5, f"step {done}" if done < 5 else "")
    assert log.read_text(encoding="utf-8").splitlines() == [
        "work: 1/5 step 1",
        "work: 3/5 step 3",
        "work: 5/5",
    ]


def test_a_line_is_not_said_again(log: Path, clock: list[float]) -> None:
    clock[:] = [10.0, 13.0, 16.0]
    with show_progress("work") as update:
        for done in (1, 1, 2):
            update(done, 3, "")
    assert log.read_text(encoding="utf-8").splitlines() == ["work: 1/3", "work: 2/3"]


def test_a_log_gets_lines_and_no_bar(
    clock: list[float], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of papermill or of Slurm: every ten seconds one, and the last; of quick work none."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    clock += [100, 101, 102, 111.9, 112, 113]
    with show_progress("work") as update:
        for done in range(1, 6):
            update(done, 5, "")
    clock += [200, 201, 201.9]
    with show_progress("quick work") as update:
        for done in (1, 2):
            update(done, 2, "")
    assert capsys.readouterr() == ("", "work: 2/5\nwork: 4/5\nwork: 5/5\n")


def test_lines_of_a_block_go_to_its_report(log: Path, capsys: pytest.CaptureFixture) -> None:
    """Not to the file, to which they go again afterwards; the inner block's to the inner one."""
    outer: list[str] = []
    inner: list[str] = []
    with reported_to(outer.append):
        with show_progress("first") as update:
            update(1, 2, "")
        say_note("odd")
        with reported_to(inner.append):
            say_note("odder")
        with pytest.raises(ZeroDivisionError), reported_to(inner.append):
            _ = 1 / 0
        say_note("odd again")
    say_note("to the file")
    assert outer == ["first: 1/2", "note: odd", "note: odd again"]
    assert inner == ["note: odder"]
    assert log.read_text(encoding="utf-8") == "note: to the file\n"
    assert capsys.readouterr() == ("", "")


def test_a_progress_that_was_begun_reports_where_it_began(log: Path) -> None:
    said: list[str] = []
    with show_progress("begun") as update, reported_to(said.append):
        update(1, 1, "")
    assert said == []
    assert log.read_text(encoding="utf-8") == "begun: 1/1\n"


def test_every_thread_has_its_own_report(log: Path) -> None:
    """Jobs of one process do not hear each other."""

    def job(name: str) -> list[str]:
        said: list[str] = []
        with reported_to(said.append), show_progress(name) as update:
            update(1, 1, "")
            say_note(name)
        return said

    names = [f"job {number}" for number in range(20)]
    with reported_to(pytest.fail), ThreadPoolExecutor(4) as pool:
        found = list(pool.map(job, names))
    assert found == [[f"{name}: 1/1", f"note: {name}"] for name in names]
    assert log.read_text(encoding="utf-8") == ""


def test_without_either_they_are_for_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    say_note("odd")
    with show_progress("work") as update:
        update(1, 2, "")
    assert capsys.readouterr() == ("", "note: odd\n")  # a bar comes after two seconds
