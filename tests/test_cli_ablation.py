"""The ablation from the command line, by its real entry point and with real worker processes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from cli_helpers import fustal

from fustal_core.config import make_settings
from fustal_core.difficulty import KNOBS
from fustal_core.grid import GROUPS
from fustal_core.rundir import claim_run_dir, default_run_dir


def test_a_grid_with_workers_then_a_larger_one_without(tmp_path: Path) -> None:
    run = ("run", "ablation", "--profile", "smoke", "--run-dir", tmp_path, "--set")
    first = fustal(*run, "ablation.groups=contrast weight", "--seeds", "0:2", "--workers", "2")
    assert first.returncode == 0, first.stderr
    before = pd.read_csv(tmp_path / "04_ablation" / "ablation.csv")
    assert set(before["group"]) == {"contrast weight"}
    assert before.groupby("cell")["seed"].agg(list).map(tuple).unique().tolist() == [(0, 1)]
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("weights.safetensors")}

    larger = fustal(*run, "ablation.groups=contrast weight,pairs", "--seeds", "0:2")
    assert larger.returncode == 0, larger.stderr
    after = pd.read_csv(tmp_path / "04_ablation" / "ablation.csv")
    assert set(after["group"]) == {"contrast weight", "pairs"}
    same = after[after["group"] == "contrast weight"].reset_index(drop=True)
    pd.testing.assert_frame_equal(same, before, check_exact=True)
    assert {path: path.stat().st_mtime_ns for path in made} == made


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generation", "--seeds", "0:2"), "--seeds belongs to the ablation"),
        (("ablation", "--seeds", "2:2"), "ablation.seeds"),
        (("ablation", "--seeds", "1,1"), "expected different seeds"),
        (("ablation", "--workers", "0"), "--workers"),
        (("ablation", "--set", "ablation.resamples=0"), "ablation.resamples"),
    ],
)
def test_mistakes_of_the_command_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    result = fustal("run", *arguments, "--profile", "smoke", "--run-dir", tmp_path / "run")
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "known"), [("ablation.groups", GROUPS), ("analysis.difficulties", KNOBS)]
)
def test_what_cannot_be_tried_is_named_with_what_can(
    name: str, known: dict[str, str], tmp_path: Path
) -> None:
    result = fustal(
        *("run", "data", "--profile", "smoke", "--run-dir", tmp_path / "run"),
        *("--set", f"{name}=gama"),
    )
    assert result.returncode == 2
    assert name in result.stderr
    assert "unknown 'gama'" in result.stderr
    assert all(each in result.stderr for each in known)
    assert not (tmp_path / "run").exists()


def test_no_scheduler_at_the_address(tmp_path: Path) -> None:
    result = fustal(
        *("run", "ablation", "--profile", "smoke", "--run-dir", tmp_path / "run"),
        *("--scheduler", "tcp://127.0.0.1:1"),
    )
    assert result.returncode == 2
    assert "no dask scheduler at tcp://127.0.0.1:1" in result.stderr
    assert "Traceback" not in result.stderr


def test_what_is_tried_beyond_the_default_has_a_run_directory_of_its_own() -> None:
    grid = make_settings("simulated", "smoke", 0, {"ablation.groups": "all"})
    assert default_run_dir(grid).name == "simulated-smoke-seed0-grid"
    other = make_settings("simulated", "smoke", 0, {"ablation.groups": "all", "student.width": 16})
    assert default_run_dir(other).name.startswith("simulated-smoke-seed0-")
    assert default_run_dir(other).name.endswith("-grid")


def test_a_run_directory_may_grow_by_groups_and_seeds(tmp_path: Path) -> None:
    claim_run_dir(tmp_path, make_settings(profile="smoke"))
    more = make_settings(profile="smoke", overrides={"ablation.seeds": "0:5"})
    claim_run_dir(tmp_path, more)
    assert '"seeds": [\n   0,' in (tmp_path / "config.json").read_text()
