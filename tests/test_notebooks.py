"""Every notebook as it is used: run by papermill, skipped when unchanged, replayed to equal outputs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from cli_helpers import fustal

from fustal_core import plan
from fustal_core.claim_list import CLAIMS
from fustal_core.jobs import Job
from fustal_core.made_from import student_folder
from fustal_core.naming import GENERATORS
from fustal_core.oracle import RUNGS
from fustal_core.pipeline import notebooks_dir, stage_names
from fustal_core.reporting import MAIN_COLUMNS
from fustal_core.results import keep_subset, read_ground_truth
from fustal_core.scheduling import missing_of
from fustal_core.stages import open_study

STAGES = stage_names()


def run_smoke(run_dir: Path) -> subprocess.CompletedProcess:
    return fustal("run", "--profile", "smoke", "--run-dir", run_dir)


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with all notebooks executed in the smoke profile."""
    run_dir = tmp_path_factory.mktemp("smoke")
    result = run_smoke(run_dir)
    assert result.returncode == 0, result.stderr
    return run_dir


def test_a_second_run_skips_every_notebook(smoke_run: Path) -> None:
    result = run_smoke(smoke_run)
    assert result.returncode == 0
    skipped = re.findall(r"(\w+): unchanged, skipped", result.stderr)
    assert skipped == STAGES


def test_the_run_directory_is_as_documented(smoke_run: Path) -> None:
    provenance = json.loads((smoke_run / "provenance.json").read_text())
    assert {"seed", "versions", "device", "git_revision", "data_fingerprint"} <= set(provenance)
    for stage in STAGES:
        assert (smoke_run / stage / f"{stage}.ipynb").exists()
        assert (smoke_run / stage / "metrics.json").exists()
    generation = smoke_run / "01_generation" / "cross-video"
    for name in ("weights.safetensors", "proposals_train.parquet", "proposals_train.json"):
        assert (generation / name).exists()
    main = pd.read_csv(smoke_run / "05_analysis" / "main_results.csv")
    assert list(main.columns) == MAIN_COLUMNS
    assert set(main["origin"]) == {"measured", "published"}
    assert set(GENERATORS.values()) <= set(main["method"])
    measured = main[main["origin"] == "measured"]
    assert measured["data"].str.contains("simulated").all()
    ablation = pd.read_csv(smoke_run / "04_ablation" / "ablation.csv")
    assert ablation.groupby("seed")["cell"].nunique().tolist() == [12, 12]
    quality = pd.read_csv(smoke_run / "05_analysis" / "pseudo_label_quality.csv")
    assert (quality["step"] == "EMA labels").sum() == 2


def with_all_before(wanted: list[Job]) -> list[Job]:
    return [*wanted, *(each for job in wanted for each in with_all_before(list(job.after)))]


def test_what_notebooks_train_is_planned(smoke_run: Path) -> None:
    """All but what depends on results: the rungs of the oracle ladder."""
    study = open_study("simulated", "smoke", 0, smoke_run)
    planned = [job for stage in STAGES for job in with_all_before(plan.jobs_of(stage, study))]
    assert not missing_of(planned)
    trained = {
        path.parent.relative_to(smoke_run)
        for kind in ("01_generation", "03_training", "04_ablation")
        for path in smoke_run.rglob(f"{kind}/*/made.json")
    }
    unplanned = trained - {job.product.folder.relative_to(smoke_run) for job in planned}
    folders = {student_folder(rung, phase) for rung in RUNGS for phase in ("phase_one", "plain")}
    assert {path.name for path in unplanned} < folders
    assert plan.jobs_of("08_somebodys", study) == []


def test_every_claim_is_in_the_one_table(smoke_run: Path) -> None:
    table = pd.read_csv(smoke_run / "claims.csv")
    assert table["claim"].tolist() == [claim.says for claim in CLAIMS]
    over_seeds = table[table["notebook"] == "04_ablation"]
    assert over_seeds["interval"].str.contains("over 2 seeds and videos").all()
    assert len(over_seeds) >= 5


def test_the_selected_labels_are_there_for_the_original_student(smoke_run: Path) -> None:
    path = smoke_run / "02_selection" / "pseudo_labels.json"
    found = keep_subset(read_ground_truth(path), "validation", path)
    study = open_study("simulated", "smoke", 0, smoke_run)
    assert found.videos.index.tolist() == study.dataset.video_names("train")
    columns = ["video", "label", "t_start", "t_end"]
    found, selected = (
        segments[columns].sort_values(columns, ignore_index=True)
        for segments in (found.segments, study.selection().selected)
    )
    pd.testing.assert_frame_equal(found, selected, check_exact=True)


def test_replaying_the_executed_notebooks_gives_equal_outputs(
    smoke_run: Path, tmp_path: Path
) -> None:
    """All products are made anew: equal outputs mean that the computation itself is reproducible."""
    replay = tmp_path / "replay"
    replay.mkdir()
    for stage in STAGES:
        shutil.copy(smoke_run / stage / f"{stage}.ipynb", replay)
        shutil.rmtree(smoke_run / stage)
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-cell-timeout=300", "-q"]
    result = subprocess.run(
        [*command, "-p", "no:cacheprovider", "--rootdir", str(replay), str(replay)],
        capture_output=True,
        text=True,
        env={**os.environ, "FUSTAL_PROGRESS": os.devnull},
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:]
    assert "passed" in result.stdout


@pytest.mark.parametrize("stage", STAGES)
def test_the_committed_notebook_is_fit_to_be_read(stage: str) -> None:
    path = notebooks_dir() / f"{stage}.ipynb"
    text = path.read_text()
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert re.findall(r"^(\w+) = ", tagged[0].source, re.M) == [
        "data",
        "profile",
        "seed",
        "run_dir",
        "overrides",
    ]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert any(cell.outputs for cell in code)
    assert not any(out.output_type == "error" for cell in code for out in cell.outputs)
    assert not re.search(r"/(work|root|tmp|home|Users)/", text)
    assert len(text) < 1_000_000
    assert all(len(cell.source.splitlines()) <= 25 for cell in code)
