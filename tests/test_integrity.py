"""Killed, run twice, out of space, damaged: what a run directory goes through, done to it here."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from cli_helpers import assert_refused, fustal, wait_until
from filelock import FileLock

from fustal_core.config import make_settings
from fustal_core.files import partial_folders
from fustal_core.kept_simulation import kept_simulation
from fustal_core.locks import RunDirectoryBusyError, making_lock, refuse_second_run, run_lock
from fustal_core.pipeline import run_notebooks
from fustal_core.rundir import CACHE

SETTINGS = {"generation.iterations": 60, "generation.checkpoint_every": 5, "student.epochs": 3}
ASSIGNMENTS = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
SMOKE = ["run", "generation", "training", "--profile", "smoke", *ASSIGNMENTS]
GENERATION = ["run", "generation", "--profile", "smoke", *ASSIGNMENTS]
LONG = ["run", "generation", "--profile", "smoke", "--set", "generation.iterations=100000"]
LONG += ["--set", "generation.checkpoint_every=10"]
COLA = Path("01_generation/cola")
"""The product that a long run is at."""


def start(*arguments: str | Path) -> subprocess.Popen:
    """The command in a process group of its own, not waited for."""
    command = [sys.executable, "-m", "fustal_core", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def contents(run_dir: Path) -> dict[str, bytes]:
    """Every file below a run directory, hidden ones too, but for the locks of what was made.

    Its own path is no part of a result, nor is the checkout's revision, which may change meanwhile;
    a lock stays wherever a killed run's leftovers were removed.
    """
    own = str(run_dir).encode()
    found = {}
    for path in run_dir.rglob("*"):
        if path.is_file() and path.name != ".making.lock":
            text = path.read_bytes().replace(own, b"RUN")
            found[str(path.relative_to(run_dir))] = re.sub(rb'"git_revision": .*', b"", text)
    return found


def generation_part(run_dir: Path) -> dict[str, bytes]:
    """The contents but for the later notebook's, and the table of what all of them claim."""
    found, later = contents(run_dir), ("03_", "claims.")
    return {name: found[name] for name in found if not name.startswith(later)}


def assert_equal_results(run_dir: Path, reference: Path) -> None:
    found, expected = contents(run_dir), contents(reference)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


def holder(lock: Path) -> int:
    """The process that a lock's file names, 0 if none."""
    text = lock.read_text(encoding="utf-8") if lock.exists() else ""
    return int(text) if text.endswith("\n") else 0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed")
    result = fustal(*SMOKE, "--run-dir", run_dir)
    assert result.returncode == 0, result.stderr
    return run_dir


# --- killed ---------------------------------------------------------------------------------------


def test_killed_at_random_moments_it_ends_with_the_same_bits(
    undisturbed: Path, tmp_path: Path
) -> None:
    """Tables, figures, notebooks, weights, everything: of the group killed, and of the parent alone."""
    rng = random.Random(3)
    for kill in (os.killpg, os.kill):
        process = start(*SMOKE, "--run-dir", tmp_path)
        wait_until(lambda: holder(tmp_path / ".lock") == process.pid)  # noqa: B023
        time.sleep(rng.uniform(0.5, 9))
        kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()
    result = fustal(*SMOKE, "--run-dir", tmp_path)
    assert result.returncode == 0, result.stderr
    assert_equal_results(tmp_path, undisturbed)


WRITES = """
import os, signal, sys
from pathlib import Path
from fustal_core.stages import open_study

def run_until(name, count, moment):
    replace = os.replace

    def replace_or_die(source, target):
        nonlocal count
        count -= Path(target).name == name
        if count == 0:
            if moment == "before":
                os.truncate(source, os.path.getsize(source) // 2)
            else:
                replace(source, target)
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = replace_or_die
    open_study(profile="smoke", run_dir=sys.argv[1], overrides=SETTINGS).generation()

for moment in MOMENTS:
    if not (child := os.fork()):
        run_until(*moment)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, moment
"""
MOMENTS = [
    ("config.json", 1, "before"),
    ("provenance.json", 1, "before"),
    ("checkpoint.pt", 3, "before"),
    ("checkpoint.pt", 4, "after"),
    ("weights.safetensors", 1, "before"),
    ("proposals_train.parquet", 1, "before"),
    ("proposals_test.json", 1, "after"),
    ("made.json", 1, "before"),
]
WRITES = WRITES.replace("SETTINGS", repr(SETTINGS)).replace("MOMENTS", repr(MOMENTS))


def test_killed_while_it_writes_it_ends_with_the_same_bits(
    undisturbed: Path, tmp_path: Path
) -> None:
    """One run, killed again and again: with half a file written, or a file written and nothing after."""
    command = [sys.executable, "-c", WRITES, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.rglob(".*.partial-*"))
    result = fustal(*GENERATION, "--run-dir", tmp_path)
    assert result.returncode == 0, result.stderr
    assert generation_part(tmp_path) == generation_part(undisturbed)


def test_a_dead_kernel_is_said_in_a_line(tmp_path: Path) -> None:
    process = start(*LONG, "--run-dir", tmp_path)
    wait_until((tmp_path / COLA / "checkpoint.pt").exists)
    os.kill(holder(tmp_path / COLA / ".making.lock"), signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == 1
    assert "01_generation: its kernel died" in said
    assert "Traceback" not in said
    kept = json.loads((tmp_path / "01_generation" / "01_generation.failed.ipynb").read_text())
    assert any(cell.get("outputs") for cell in kept["cells"])


# --- two at once ----------------------------------------------------------------------------------


def test_a_second_run_is_refused_until_the_first_is_ended(tmp_path: Path) -> None:
    first = start(*LONG, "--run-dir", tmp_path)
    wait_until((tmp_path / COLA / "checkpoint.pt").exists)
    settings = (tmp_path / "config.json").read_bytes()
    said = f"another run is at work in {tmp_path} (process {first.pid})"
    assert_refused(fustal(*LONG, "--run-dir", tmp_path), 1, said)
    other = ["--set", "generation.batch_size=2", "--force"]
    assert_refused(fustal(*LONG, *other, "--run-dir", tmp_path), 1, said)
    assert (tmp_path / "config.json").read_bytes() == settings
    making = tmp_path / COLA
    kernel = holder(making / ".making.lock")
    assert kernel not in (0, first.pid)
    first.terminate()  # as a scheduler does
    _, said = first.communicate()
    assert first.returncode == 1
    assert said.endswith("fustal: interrupted; the same command goes on from here\n")
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        os.kill(kernel, 0)
    with run_lock(tmp_path), making_lock(making, patience_s=0):
        assert holder(tmp_path / ".lock") == holder(making / ".making.lock") == os.getpid()


def test_locks(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    refuse_second_run(folder)
    assert not folder.exists()
    with run_lock(folder):
        with pytest.raises(RunDirectoryBusyError, match=rf"at work in .*\(process {os.getpid()}\)"):
            refuse_second_run(folder)
        # Others than a run's: its kernel makes what it waits for, and jobs one product each.
        with making_lock(folder), making_lock(folder / "a"), making_lock(folder / "b"):
            assert holder(folder / "a/.making.lock") == os.getpid()
    refuse_second_run(folder)
    locks = {
        folder / name for name in (".lock", ".making.lock", "a/.making.lock", "b/.making.lock")
    }
    assert {path for path in folder.rglob("*") if path.is_file()} == locks
    assert {path.read_text() for path in locks} == {""}


def test_making_waits_for_another_process_and_then_gives_up(tmp_path: Path) -> None:
    other = FileLock(tmp_path / ".making.lock")
    other.acquire()
    (tmp_path / ".making.lock").write_text("4711\n")
    with (
        pytest.raises(RunDirectoryBusyError, match=r"process 4711.*JupyterLab; wait until it"),
        making_lock(tmp_path, patience_s=1),
    ):
        raise AssertionError
    other.release()
    with making_lock(tmp_path, patience_s=1):
        pass


def leave_half(path: Path) -> Path:
    """What `files.atomic_path` leaves of a file if its process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.parent / f".{path.name}.partial-abc{path.suffix}"
    half.write_text("half")
    return half


def test_a_run_removes_what_was_left_but_not_what_is_being_written(tmp_path: Path) -> None:
    """Somebody's who makes a product meanwhile, who holds that product's lock."""
    names = ("config.json", "01_generation/table.csv", "variants/v/03_training/raw/weights")
    left = [leave_half(tmp_path / name) for name in names]
    whole = tmp_path / "01_generation/cola/checkpoint.pt"
    being_written = leave_half(whole)
    whole.write_text("whole")
    assert partial_folders(tmp_path) == sorted(path.parent for path in (*left, being_written))
    other = FileLock(tmp_path / COLA / ".making.lock")
    with other:
        run_notebooks([], make_settings(), {}, tmp_path, "data", nullcontext())
        assert not any(path.exists() for path in left)
        assert being_written.exists()
    run_notebooks([], make_settings(), {}, tmp_path, "data", nullcontext())
    assert not being_written.exists()
    assert whole.read_text() == "whole"
    assert partial_folders(tmp_path) == []


# --- no space, no permission ----------------------------------------------------------------------


def run_with_small_files(limit: int, *arguments: str | Path) -> subprocess.CompletedProcess:
    """A limit to the size of files stands for the end of the disk: writing fails in the same way."""
    return subprocess.run(
        [sys.executable, "-m", "fustal_core", *map(str, arguments)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )


def draw_data(run_dir: Path) -> None:
    """What a run begins with, while there is space."""
    kept_simulation(make_settings(profile="smoke").simulation, 0, run_dir / CACHE / "simulated")


def test_out_of_space_it_says_where_and_goes_on_with_space(
    undisturbed: Path, tmp_path: Path
) -> None:
    for limit, fragments in (
        (200_000, ["cache/simulated/student.bin: File too large"]),
        (40_000, ["File too large", "01_generation.ipynb"]),
    ):
        result = run_with_small_files(limit, *GENERATION, "--run-dir", tmp_path)
        assert_refused(result, 1, *fragments)
        draw_data(tmp_path)
    assert fustal(*GENERATION, "--run-dir", tmp_path).returncode == 0
    assert generation_part(tmp_path) == generation_part(undisturbed)


def test_out_of_space_for_a_checkpoint(tmp_path: Path) -> None:
    wide = ["--set", "generation.hidden_channels=1024"]  # 0.6 MB with Adam's moments
    draw_data(tmp_path)
    result = run_with_small_files(300_000, *GENERATION, *wide, "--run-dir", tmp_path)
    assert_refused(result, 1, "OSError", "File too large", "checkpoint.pt")
    assert not list((tmp_path / "01_generation").rglob("made.json"))


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_what_cannot_be_a_run_directory_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    result = fustal("run", "data", "--profile", "smoke", "--run-dir", tmp_path / name)
    assert_refused(result, 1, str(tmp_path / name), "cannot be written as a run directory")
    assert (tmp_path / "file").read_text() == "mine"


# --- damaged --------------------------------------------------------------------------------------


def test_what_was_damaged_is_made_again(undisturbed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(undisturbed, run_dir)
    generation, training = run_dir / "01_generation", run_dir / "03_training"
    truncate = [
        generation / "cola/weights.safetensors",
        generation / "cross-video/proposals_train.parquet",
        training / "03_training.ipynb",
        training / "selected/made.json",
        training / "selected/detections.parquet",
        training / "raw/weights.safetensors",
        training / "raw_phase_one/checkpoint.pt",
    ]
    for path in truncate:
        os.truncate(path, path.stat().st_size // 2)
    (generation / "claims.csv").unlink()
    (training / "students.md").write_text("")
    (training / "truth/.history.parquet.partial-abc.parquet").write_text("left by a kill")
    result = fustal(*SMOKE, "--run-dir", run_dir)
    assert result.returncode == 0, result.stderr
    said = "not as it was made, so it is made again: "
    assert f"{generation}: {said}claims.csv" in result.stderr
    assert f"{generation / 'cola'}: {said}weights.safetensors" in result.stderr
    assert f"{training}: {said}students.md" in result.stderr
    assert_equal_results(run_dir, undisturbed)
