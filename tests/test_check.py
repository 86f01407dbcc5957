"""``fustal check`` and the check before a run, by the real entry point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from cli_helpers import fustal
from layout_helpers import COARSE, LAYOUTS, LayoutFolder, values, write_wtalc

from fustal_core.check import check_folder, to_dict


def damage(folder: LayoutFolder) -> None:
    """Three problems: no file for video a, two videos with NaN."""
    folder.paths("a")[0].unlink()
    for video in "bc":
        array = values(video, 62)
        array[2, 0] = np.nan
        folder.save(video, array)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sound_folder(tmp_path: Path, layout: str) -> None:
    LayoutFolder(tmp_path, layout)
    answer = fustal("check", tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert f"layout {layout}: " in answer.stdout
    assert "no problem, 0 warnings" in answer.stdout
    if layout in ("cola", "fustal"):
        assert "features (flow)" in answer.stdout


def test_nobody_waits_for_torch(tmp_path: Path) -> None:
    """Its import takes longer than the check of a small folder."""
    LayoutFolder(tmp_path, "own")
    program = f"""
import sys
from pathlib import Path
from fustal_core.check import check_folder
assert check_folder(Path({str(tmp_path)!r})).is_sound
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_nobody_waits_for_a_pipe(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "own")
    (file,) = folder.paths("a")
    file.unlink()
    os.mkfifo(file)
    answer = fustal("check", tmp_path)
    assert answer.returncode == 1
    assert "a.npy: video a: not a readable .npy: found no regular file" in answer.stdout


def test_what_is_wrong_is_told_in_short(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "own")
    folder.database["a"]["annotations"] = [[0.5] * 100_000, {"label": ["x"] * 100_000}]
    folder.write_annotations()
    answer = fustal("check", tmp_path)
    assert answer.returncode == 1
    assert "expected segment and label" in answer.stdout
    assert len(answer.stdout) < 3000


@pytest.mark.parametrize("name", ["", "two\nlines"])
def test_a_name_that_no_table_can_hold_is_refused(tmp_path: Path, name: str) -> None:
    LayoutFolder(tmp_path, "own")
    path = tmp_path / "dataset.yaml"
    described = yaml.safe_load(path.read_text()) | {"name": name}
    path.write_text(yaml.safe_dump(described))
    answer = fustal("check", tmp_path)
    assert answer.returncode == 1
    assert "key 'name'" in answer.stdout


def test_problems_are_grouped_with_counts(tmp_path: Path) -> None:
    damage(LayoutFolder(tmp_path, "hrpro"))
    answer = fustal("check", tmp_path)
    assert answer.returncode == 1
    assert "missing file (1)\n" in answer.stdout
    assert "NaN or Inf (2)\n" in answer.stdout
    assert "3 problems" in answer.stdout
    assert "a.npy: no feature file for video a" in answer.stdout
    assert not answer.stderr


def test_the_report_for_machines(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "cola")
    sound = json.loads(fustal("check", tmp_path, "--json").stdout)
    assert sound["sound"]
    assert sound["problems"] == []
    assert sound["videos"][0] | {"hours": 0} == {
        "subset": "train",
        "videos": 2,
        "classes": 2,
        "hours": 0,
        "instances": 4,
        "points": 0,
    }
    rgb = np.concatenate([values(video, 62)[:, :4] for video in "abcd"])
    assert sound["features"][0]["mean"] == pytest.approx(rgb.mean(), abs=1e-5)
    assert sound["features"][0]["std"] == pytest.approx(rgb.std(), abs=1e-5)
    damage(folder)
    broken = json.loads(fustal("check", tmp_path, "--json").stdout)
    assert not broken["sound"]
    assert len(broken["problems"]) == 3
    assert broken["fingerprint"] == ""


def test_no_number_overflows_in_the_report_for_machines(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "own")
    folder.save("a", values("a", COARSE) + 3e20)
    folder.database["b"]["duration"] = 1e308
    folder.write_annotations()
    found = to_dict(check_folder(tmp_path))
    json.dumps(found, allow_nan=False)
    (problem,) = found["problems"]
    assert "b: duration 1e+308, expected a positive number up to 1e+09" in problem["text"]
    assert found["features"][0]["std"] == pytest.approx(1.3e20, rel=0.01)  # of a video in four


@pytest.mark.parametrize("content", [None, "empty", "file"])
def test_folders_that_are_none(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "data"
    if content == "empty":
        folder.mkdir()
    elif content == "file":
        folder.write_text("no folder")
    answer = fustal("check", folder)
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert ("no such data folder" in answer.stdout) == (content != "empty")
    assert ("no layout recognised" in answer.stdout) == (content == "empty")


def test_a_run_makes_the_same_check_and_refuses(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path / "data", "acmnet")
    damage(folder)
    report = fustal("check", folder.root).stdout
    answer = fustal("run", "data", "--data", folder.root, "--run-dir", tmp_path / "run")
    assert answer.returncode == 1
    assert report.strip() in answer.stderr
    assert not (tmp_path / "run").exists()


def test_pickles_run_only_for_those_who_trust_them(tmp_path: Path) -> None:
    write_wtalc(tmp_path / "data")
    arguments = ["--data", tmp_path / "data", "--profile", "smoke", "--run-dir", tmp_path / "run"]
    refused = fustal("run", "generation", *arguments)
    assert refused.returncode == 1
    assert "--trust-pickle" in refused.stderr
    answer = fustal("run", "generation", *arguments, "--trust-pickle")
    assert answer.returncode == 0, answer.stderr
    assert "layout wtalc: recognised by Thumos14reduced" in answer.stderr
    checked = fustal("check", tmp_path / "data", "--trust-pickle")
    assert checked.returncode == 0
