"""The command line by its real entry point: what it runs, and what it says to mistakes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
import yaml
from cli_helpers import assert_refused, fustal

from fustal_core import pipeline, stages, workers
from fustal_core.cli import app
from fustal_core.config import make_settings
from fustal_core.interruption import resumable
from fustal_core.rundir import PROVENANCE, claim_run_dir


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """A sound folder of layout 6: two classes, four videos, 8 channels, 5 snippets a second."""
    folder = tmp_path / "data"
    (folder / "features").mkdir(parents=True)
    rng = np.random.default_rng(0)
    database = {}
    for index, subset in enumerate(["train", "train", "test", "test"]):
        label = ["jump", "throw"][index % 2]
        np.save(folder / "features" / f"v{index}.npy", rng.random((100, 8), dtype=np.float32))
        database[f"v{index}"] = {
            "subset": subset,
            "duration": 20.0,
            "annotations": [{"label": label, "segment": [2.0, 9.0]}],
        }
    (folder / "gt.json").write_text(json.dumps({"database": database}))
    source = {"folder": "features", "stride_frames": 1, "window_frames": 1, "fps": 5}
    description = {
        "name": "four videos",
        "annotations": "gt.json",
        "train_subset": "train",
        "test_subset": "test",
        "features": source,
    }
    (folder / "dataset.yaml").write_text(yaml.safe_dump(description))
    return folder


def test_help_names_the_commands() -> None:
    result = fustal("--help")
    assert result.returncode == 0
    assert "run" in result.stdout
    assert "bench" in result.stdout


@pytest.mark.parametrize(
    ("command", "default"),
    [
        ("run", "runs/DATA-PROFILE-seedN"),
        ("compare", "runs/DATA-PROFILE-generators"),
        ("report", "RUN_DIR/report.html"),
        ("scale", "the system's temporary one"),
        ("evaluate", "by default all"),
    ],
)
def test_help_names_defaults_that_depend_on_others(command: str, default: str) -> None:
    assert default in " ".join(fustal(command, "--help").stdout.replace("│", " ").split())


def test_no_help_text_is_taken_for_markup() -> None:
    """Help is printed by rich, which swallows what stands in square brackets."""
    commands = typer.main.get_command(app).commands.values()
    texts = [parameter.help or "" for command in commands for parameter in command.params]
    texts += [command.help or "" for command in commands]
    assert len(texts) > 50
    assert not [text for text in texts if "[" in text]


def test_settings_lists_what_can_be_set() -> None:
    result = fustal("settings")
    assert result.returncode == 0
    assert "generation.iterations" in result.stdout
    assert "student.ema_decay" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["run", "--profile", "huge"], ["'huge'", "smoke, quick, paper"]),
        (["run", "cooking"], ["'cooking'", "generation"]),
        (["run", "--set", "generation.iteration=3"], ["generation.iterations"]),
        (["run", "--set", "generation.iterations=many"], ["generation.iterations", "many"]),
        (["run", "--set", "student.crop_min=1.5"], ["student.crop_min", "1.5"]),
        (["run", "--set", "generation.iterations"], ["NAME=VALUE"]),
        (["run", "--seed", "-1"], ["seed"]),
        (["walk"], ["walk"]),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_writes_nothing(
    tmp_path: Path, arguments: list[str], fragments: list[str]
) -> None:
    run_dir = tmp_path / "run"
    if arguments[0] == "run":
        arguments = [*arguments, "--run-dir", str(run_dir)]
    assert_refused(fustal(*arguments), 2, *fragments)
    assert not run_dir.exists()


@pytest.mark.parametrize("data", ["simulated", "folder"])
@pytest.mark.parametrize("name", ["ambiguous", "exclude"])
def test_what_cannot_be_left_out_of_the_test_does_not_claim_a_run_directory(
    data_folder: Path, tmp_path: Path, data: str, name: str
) -> None:
    """The directory would refuse the right setting, then."""
    where = data if data == "simulated" else data_folder
    arguments = ["run", "data", "--data", where, "--profile", "smoke"]
    wrong = ["--set", f"evaluation.{name}=nosuch"]
    result = fustal(*arguments, *wrong, "--run-dir", tmp_path / "run")
    assert_refused(result, 1, "nosuch")
    assert not (tmp_path / "run").exists()


def test_a_list_of_what_is_ambiguous_is_named_from_where_one_stands(tmp_path: Path) -> None:
    """And found by notebooks, which run in a folder of their own."""
    (tmp_path / "list.txt").write_text("sim_test_0000 1 2\n")
    asked = ["--profile", "smoke", "--set", "evaluation.ambiguous=list.txt", "--run-dir", "run"]
    asked += ["--set", "generation.iterations=1"]
    result = fustal("run", "data", *asked, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    assert settings["evaluation"]["ambiguous"] == str(tmp_path / "list.txt")


def test_a_scheduler_that_is_not_there_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    asked = ["--profile", "smoke", "--run-dir", "run", "--scheduler", "nonsense://x"]
    assert_refused(fustal("run", "data", *asked, cwd=tmp_path), 2, "--scheduler")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no such names")
def test_arguments_that_no_file_could_name_are_refused() -> None:
    command = [sys.executable, "-m", "fustal_core", "check", b"folder\xff"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert_refused(result, 2, "arguments in UTF-8", r"'folder\udcff'")


def test_a_setting_is_emptied_by_an_argument_that_ends_with_its_name() -> None:
    for arguments in (["--set", "evaluation.exclude="], ["--set=evaluation.exclude="]):
        result = fustal("run", "data", *arguments, "--profile", "nosuch")
        assert_refused(result, 2, "unknown profile")


@pytest.mark.parametrize("argument", [["--run-dir", ""], ["--run-dir="], ["--data", ""]])
def test_an_empty_argument_is_not_the_folder_where_one_stands(
    argument: list[str], tmp_path: Path
) -> None:
    result = fustal("run", "data", "--profile", "smoke", *argument, cwd=tmp_path)
    assert_refused(result, 2, argument[0], "empty argument")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["simulate"], ["run", "--data"]])
def test_links_that_lead_to_each_other_are_refused(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    result = fustal(*command, "loop", "--profile", "smoke", cwd=tmp_path)
    assert_refused(result, 1, "loop")


def test_nobody_need_listen_to_stderr(data_folder: Path) -> None:
    command = (
        f"{shlex.quote(sys.executable)} -m fustal_core check {shlex.quote(str(data_folder))} 2>&-"
    )
    answer = subprocess.run(command, shell=True, stdout=subprocess.PIPE, text=True, check=True)
    assert "no problem" in answer.stdout


def test_more_than_the_memory_holds_is_said(tmp_path: Path) -> None:
    sizes = ["--set", "simulation.feature_dim=1000000", "--set", "simulation.max_video_s=1000000"]
    result = fustal("run", "data", *sizes, "--run-dir", tmp_path / "run")
    assert_refused(result, 1, "not enough memory")


def test_a_missing_data_folder_exits_with_1(tmp_path: Path) -> None:
    result = fustal("run", "--data", tmp_path / "nowhere", "--run-dir", tmp_path / "run")
    assert_refused(result, 1, "nowhere", "no such data folder")
    assert not (tmp_path / "run").exists()


def test_a_malformed_dataset_yaml_exits_with_1(data_folder: Path, tmp_path: Path) -> None:
    (data_folder / "dataset.yaml").write_text("name: x\nfeaturs: {folder: features}\n")
    result = fustal("run", "--data", data_folder, "--run-dir", tmp_path / "run")
    assert_refused(result, 1, "featurs", "annotations", "train_subset")
    assert not (tmp_path / "run").exists()


def test_all_problems_of_a_folder_are_said_at_once(data_folder: Path, tmp_path: Path) -> None:
    (data_folder / "features" / "v0.npy").unlink()
    array = np.load(data_folder / "features" / "v1.npy")
    array[3, 2] = np.nan
    np.save(data_folder / "features" / "v1.npy", array)
    content = json.loads((data_folder / "gt.json").read_text())
    content["database"]["v2"]["annotations"][0]["segment"] = [9.0, 2.0]
    (data_folder / "gt.json").write_text(json.dumps(content))
    result = fustal("run", "--data", data_folder, "--run-dir", tmp_path / "run")
    assert_refused(result, 1, "v0", "v1", "v2", "[9, 2]")
    assert not (tmp_path / "run").exists()


def test_a_run_directory_of_other_settings_is_not_mixed(tmp_path: Path) -> None:
    claim_run_dir(tmp_path, make_settings(profile="smoke"))
    smoke = ["run", "generation", "--profile", "smoke", "--run-dir", tmp_path]
    before = (tmp_path / "config.json").read_text()
    changed = [*smoke, "--set", "generation.iterations=7"]
    assert_refused(fustal(*changed), 2, "generation.iterations: 20 -> 7", "--force")
    assert (tmp_path / "config.json").read_text() == before
    assert fustal(*changed, "--force").returncode == 0
    assert json.loads((tmp_path / "config.json").read_text())["generation"]["iterations"] == 7


def test_real_data_takes_the_same_road(data_folder: Path, tmp_path: Path) -> None:
    arguments = ["run", "generation", "--data", data_folder, "--profile", "smoke"]
    result = fustal(*arguments, "--run-dir", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run/01_generation/metrics.json").read_text())
    assert metrics["data"] == "four videos (real)"


@pytest.fixture
def results(data_folder: Path) -> tuple[Path, Path]:
    """Detections of the two test videos: one right, one that covers half; and the truth."""
    found = {
        "v2": [{"label": "jump", "score": 0.9, "segment": [2.0, 9.0]}],
        "v3": [{"label": "throw", "score": 0.8, "segment": [2.0, 5.5]}],
    }
    path = data_folder / "found.json"
    path.write_text(json.dumps({"version": "x", "results": found, "external_data": {}}))
    return path, data_folder / "gt.json"


def test_evaluate_prints_the_map_of_a_result_file(results: tuple[Path, Path]) -> None:
    answer = fustal("evaluate", *results, "--subset", "test", "--json")
    assert answer.returncode == 0, answer.stderr
    content = json.loads(answer.stdout)
    assert content["mAP"] == {**dict.fromkeys(["0.1", "0.2", "0.3", "0.4", "0.5"], 1.0), **HALF}
    assert content["average"]["0.1:0.5"] == 1.0
    assert content["average"]["0.1:0.7"] == pytest.approx(6 / 7)
    assert content["per_class"]["throw"]["0.7"] == 0.0
    table = fustal("evaluate", *results, "--subset", "test", "--tiou", "0.5:0.05:0.6")
    assert "avg 0.5:0.05:0.6" in table.stdout


HALF = {"0.6": 0.5, "0.7": 0.5}


def test_audit_prints_the_quality_of_proposals(results: tuple[Path, Path]) -> None:
    answer = fustal("audit", *results, "--subset", "test", "--json")
    assert answer.returncode == 0, answer.stderr
    content = json.loads(answer.stdout)
    assert content["precision@0.5"] == 1.0
    assert content["recall@0.7"] == 0.5
    assert content["end_error_s"] == pytest.approx(3.5 / 2)
    assert content["options"] == {"subset": "test"}


def test_bad_result_files_are_refused(results: tuple[Path, Path], tmp_path: Path) -> None:
    found, truth = results
    assert_refused(fustal("evaluate", tmp_path / "none.json", truth), 1, "none.json")
    assert_refused(fustal("evaluate", found, truth, "--subset", "holdout"), 1, "holdout", "test")
    assert_refused(fustal("evaluate", found, truth, "--tiou", "high"), 2, "--tiou", "high")
    found.write_text(found.read_text().replace("throw", "thorw"))
    assert_refused(fustal("evaluate", found, truth, "--subset", "test"), 1, "thorw")


def test_bench_answers_to_its_name() -> None:
    answer = fustal("bench", "--help").stdout
    for option in ("--device", "--growth", "--out", "--json"):
        assert option in answer
    assert shutil.which("fustal", path=str(Path(sys.executable).parent))


# --- interrupted ----------------------------------------------------------------------------------


def fail_when_interrupted(number: int, error: Exception | None) -> None:
    """As a library does that makes an error of its own of whatever is raised within it."""
    with resumable():
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        except KeyboardInterrupt as interrupt:
            raise error or interrupt from None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("error", [None, ValueError("shape of object type 'torch.storage'")])
def test_interrupted_it_says_so(
    number: int, error: Exception | None, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    said = r"^fustal: interrupted; the same command goes on from here$"
    with pytest.raises(SystemExit, match=said):
        fail_when_interrupted(number, error)
    assert signal.getsignal(number) is before
    assert capsys.readouterr().err == (f"note: it ended in {error!r}\n" if error else "")


@pytest.mark.parametrize("closed", [True, False])
def test_any_terminal_will_do(tmp_path: Path, closed: bool) -> None:
    """A closed one too, and one that lacks the characters of a name."""
    command = shlex.join([sys.executable, "-m", "fustal_core", "check", str(tmp_path / "\u017e")])
    command += " >&-" if closed else ""
    env = os.environ | {"PYTHONIOENCODING": "latin-1"}
    answer = subprocess.run(
        command, shell=True, capture_output=True, text=True, env=env, check=False
    )
    assert answer.returncode == 1
    assert not answer.stderr
    assert closed or "\\u017e" in answer.stdout


def test_errors_of_what_was_not_interrupted_are_their_own() -> None:
    with pytest.raises(ZeroDivisionError), resumable():
        _ = 1 // 0


def test_slow_imports_begin_before_the_data_are_drawn_where_all_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a new directory that workers will be started for, and in no other."""
    did: list[str] = []
    monkeypatch.setattr(workers, "begin_slow_imports", lambda: did.append("imports"))
    monkeypatch.setattr(stages, "load_data", lambda *_: did.append("draws") or drawn)
    monkeypatch.setattr(pipeline, "run_notebooks", lambda *_, **__: did.append("runs"))
    drawn = SimpleNamespace(fingerprint="of the data")

    def run(folder: str, *options: str) -> list[str]:
        did.clear()
        arguments = ("run", "--profile", "smoke", "--run-dir", str(tmp_path / folder), *options)
        app(arguments, standalone_mode=False)
        return list(did)

    assert run("two", "--workers", "2") == ["imports", "draws", "runs"]
    assert run("one", "--workers", "1") == ["draws", "runs"]
    (tmp_path / "two" / PROVENANCE).touch()  # who ran here got as far as this
    assert run("two", "--workers", "2") == ["draws", "runs"]
