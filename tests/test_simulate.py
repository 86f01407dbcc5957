"""Simulated data as a data folder: each layout, and the command that writes it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from cli_helpers import assert_refused, fustal, wait_for
from filelock import FileLock
from simulate_helpers import annotations_of

from fustal_core.annotations import Annotations
from fustal_core.data import DataError, Dataset, load_dataset
from fustal_core.features import FeatureStore
from fustal_core.simulated_folder import WRITABLE, write_simulation
from fustal_core.simulator import SimulatorSettings, plan_simulation, simulate
from fustal_core.stages import open_study

TINY = SimulatorSettings(
    num_classes=4, train_videos=5, test_videos=4, feature_dim=6, max_video_s=30
)
GIVEN = annotations_of(
    [
        ("b", "validation", 21.0, 30.0, [("stir", 2.0, 5.0)]),
        ("z", "training", 30.123456789, 29.97, [("pour", 4.1, 6.3), ("stir", 10.0, 12.5)]),
        ("c", "validation", 25.0, 15.0, [("pour", 3.0, 4.0)]),
        ("a", "training", 16.0, 25.0, [("stir", 1.0, 3.0), ("stir", 14.0, 45.0)]),
    ]
)
TRAINED_ONLY = annotations_of(
    [
        ("a", "train", 20.0, 25.0, [("stir", 1.0, 3.0), ("fry", 4.0, 9.0)]),
        ("b", "test", 20.0, 25.0, [("stir", 1.0, 3.0)]),
    ]
)


# What is read back


@pytest.mark.parametrize("layout", WRITABLE)
@pytest.mark.parametrize(
    ("settings", "given"),
    [
        (TINY, None),
        (TINY.model_copy(update={"fps": 30.0}), None),
        (TINY, GIVEN),
        (TINY, TRAINED_ONLY),
    ],
    ids=["drawn", "at 30 fps", "given", "a class in training only"],
)
def test_a_folder_gives_back_the_built_in_data(
    tmp_path: Path, layout: str, settings: SimulatorSettings, given: Annotations | None
) -> None:
    data = simulate(settings, 3, annotations=given)
    write_simulation(tmp_path / "data", plan_simulation(settings, 3, given), layout)
    read = load_dataset(tmp_path / "data")
    assert (read.name, read.origin, read.classes) == (data.name, "simulated", data.classes)
    for subset in ("train", "test"):
        assert read.video_names(subset) == data.video_names(subset)
        assert read.truth(subset).equals(data.truth(subset))
        assert torch.equal(read.video_labels(subset), data.video_labels(subset))
    assert read.videos["duration_s"].to_dict() == data.videos["duration_s"].to_dict()
    generator, student = expected_stores(data, layout)
    assert_same_features(read.generator_features, generator)
    assert_same_features(read.student_features, student)
    expected_points = data.points if layout in ("own", "hrpro") else data.points[:0]
    pd.testing.assert_frame_equal(
        sorted_points(read.points), sorted_points(expected_points), check_exact=True
    )


def expected_stores(data: Dataset, layout: str) -> tuple[FeatureStore, FeatureStore]:
    if layout in ("own", "fustal"):
        return data.generator_features, data.student_features
    only = data.student_features if layout == "actionformer" else data.generator_features
    return only, only


def assert_same_features(found: FeatureStore, expected: FeatureStore) -> None:
    assert found.fps == expected.fps
    assert found.stride_frames == expected.stride_frames
    assert found.window_frames == expected.window_frames
    for video in expected.offsets:
        assert torch.equal(found[video], expected[video])


def sorted_points(points: pd.DataFrame) -> pd.DataFrame:
    return points.sort_values(["video", "t", "label"], ignore_index=True)


# What lies in a folder


FILES = {
    "own": {"gt.json", "point_labels.csv", "features/a.npy", "features_dense/b.npy"},
    "cola": {
        "gt.json",
        "split_train.txt",
        "split_test.txt",
        "features/train/rgb/a.npy",
        "features/train/flow/a.npy",
        "features/test/rgb/b.npy",
        "features/test/flow/b.npy",
    },
    "acmnet": {"gt.json", "split_train.txt", "split_test.txt", "train/a.npy", "test/b.npy"},
    "hrpro": {
        "gt_full.json",
        "split_train.txt",
        "split_test.txt",
        "point_labels/point_gaussian.csv",
        "features/train/a.npy",
        "features/test/b.npy",
    },
    "actionformer": {"annotations/thumos14.json", "i3d_features/a.npy", "i3d_features/b.npy"},
}
FILES["fustal"] = (FILES["cola"] - {"gt.json"}) | FILES["actionformer"]


def write(folder: Path, layout: str, settings: SimulatorSettings = TINY) -> Path:
    write_simulation(folder, plan_simulation(settings, 0, GIVEN), layout)
    return folder


@pytest.mark.parametrize("layout", WRITABLE)
def test_files_lie_where_the_release_has_them(tmp_path: Path, layout: str) -> None:
    folder = write(tmp_path / "data", layout)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found >= FILES[layout] | {"dataset.yaml"}
    others = {name for name in found - FILES[layout] if Path(name).stem not in ("z", "c")}
    assert others - {"features/b.npy", "features_dense/a.npy"} == {"dataset.yaml"}
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("layout", "subset", "keys"),
    [
        ("cola", "validation", {"frames"}),
        ("acmnet", "validation", {"frames"}),
        ("hrpro", "Validation", {"fps"}),
        ("actionformer", "Validation", {"fps"}),
        ("own", "train", {"fps"}),
    ],
)
def test_annotations_are_spelt_as_in_the_release(
    tmp_path: Path, layout: str, subset: str, keys: set[str]
) -> None:
    (path,) = write(tmp_path / "data", layout).rglob("*.json")
    database = json.loads(path.read_text())["database"]
    assert list(database) == ["b", "z", "c", "a"]
    assert database["z"]["subset"] == subset
    assert database["z"]["duration"] == 30.123456789
    assert set(database["z"]) == {"subset", "duration", "annotations"} | keys
    assert database["z"].get("fps", 29.97) == 29.97
    assert database["z"].get("frames", 903) == 903  # 30.123 * 29.97
    label_id = {"label_id": 0} if layout == "actionformer" else {}
    expected = {"label": "pour", "segment": [4.1, 6.3], **label_id}
    assert database["z"]["annotations"][0] == expected


def test_splits_points_and_streams_as_released(tmp_path: Path) -> None:
    hrpro = write(tmp_path / "hrpro", "hrpro")
    assert (hrpro / "split_train.txt").read_text() == "z\na\n"
    table = pd.read_csv(hrpro / "point_labels/point_gaussian.csv")
    columns = ["class", "class_index", "start_frame", "stop_frame", "video_id", "point"]
    assert table.columns.tolist() == columns
    first = table.iloc[0]
    assert (first["class"], first["class_index"], first["video_id"]) == ("pour", 0, "z")
    assert first["start_frame"] == pytest.approx(4.1 * 29.97)
    assert table["point"].dtype == np.int64
    assert table["point"].between(table["start_frame"], table["stop_frame"]).all()
    cola = write(tmp_path / "cola", "cola") / "features/train"
    both = [np.load(cola / stream / "a.npy") for stream in ("rgb", "flow")]
    assert [part.shape[1] for part in both] == [3, 3]
    whole = np.load(hrpro / "features/train/a.npy")
    np.testing.assert_array_equal(np.concatenate(both, axis=1), whole)
    assert whole.dtype == np.float32


def test_dataset_yaml_says_what_recognition_cannot_know(tmp_path: Path) -> None:
    def description(
        name: str,
        layout: str,
        settings: SimulatorSettings = TINY,
        given: Annotations | None = None,
    ) -> dict[str, Any]:
        write_simulation(tmp_path / name, plan_simulation(settings, 0, given), layout)
        return yaml.safe_load((tmp_path / name / "dataset.yaml").read_text())

    plain = {"name": "THUMOS'14-like", "origin": "simulated"}
    assert description("plain", "hrpro") == plain
    fast = TINY.model_copy(update={"fps": 30.0})
    assert description("fast", "cola", fast) == {**plain, "features": {"fps": 30.0}}
    assert description("dense", "actionformer", fast) == plain
    given = description("given", "acmnet", given=GIVEN)
    assert given == {
        "name": "THUMOS'14-like, given annotations",
        "origin": "simulated",
        "outside_segments": "keep",
    }


# Whole or not there


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    folder, partial = tmp_path / "data", tmp_path / ".data.partial"
    arguments = [folder, "--feature-dim", 256, "--seed", 3]
    command = [sys.executable, "-m", "fustal_core", "simulate", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_for(partial / "features")
    (partial / "features/left.npy").touch()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not folder.exists()
    write(folder, "own")
    assert not (folder / "features/left.npy").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert load_dataset(folder).video_names("train") == ["z", "a"]


def test_a_failing_write_leaves_nothing(tmp_path: Path) -> None:
    """No file may exceed 2 KB, as if the disk were full."""
    command = [sys.executable, "-m", "fustal_core", "simulate", str(tmp_path / "data")]
    result = subprocess.run(
        [*command, "--profile", "smoke"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    assert_refused(result, 1, str(tmp_path / "data"), "too large")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    partial = tmp_path / ".data.partial"
    (partial / "features").mkdir(parents=True)
    with FileLock(partial / ".lock"):
        result = fustal("simulate", tmp_path / "data", "--profile", "smoke")
        assert_refused(result, 1, "data: another process is writing it")
        assert (partial / "features").is_dir()
    assert not (tmp_path / "data").exists()


def test_a_folder_is_somebody_s_until_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, replace, refused = tmp_path / "data", os.replace, []

    def meanwhile(source: Path, target: Path) -> None:
        if target == data:
            with pytest.raises(DataError, match="another process is writing it") as error:
                write_simulation(data, plan_simulation(TINY, 1), "own")
            refused.append(error)
        replace(source, target)

    monkeypatch.setattr(os, "replace", meanwhile)
    write_simulation(data, plan_simulation(TINY, 0), "own")
    assert len(refused) == 1
    assert load_dataset(data).video_names("train")
    assert not (data / ".lock").exists()


def test_more_than_the_disk_holds_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size_bytes = write_simulation(tmp_path / "first", plan_simulation(TINY, 0), "own")
    files = (tmp_path / "first").rglob("*.npy")
    assert size_bytes == sum(np.load(path).nbytes for path in files)
    nearly = SimpleNamespace(free=size_bytes - 1)
    monkeypatch.setattr("fustal_core.simulated_folder.shutil.disk_usage", lambda path: nearly)
    with pytest.raises(OSError, match="no room for") as caught:
        write_simulation(tmp_path / "second", plan_simulation(TINY, 0), "own")
    assert caught.value.filename == str(tmp_path / "second")
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


# The command line


def test_simulate_says_what_it_wrote_and_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "my data"
    folder.mkdir()
    arguments = ["--layout", "acmnet", "--profile", "smoke", "--seed", 4, "--feature-dim", 10]
    result = fustal("simulate", folder, *arguments, "--set", "simulation.noise=0.2")
    assert result.returncode == 0, result.stderr
    assert "20 videos of 4 classes" in result.stderr
    assert f"fustal run --data '{folder}' --profile smoke --seed 4" in result.stderr
    assert result.stdout == ""
    text = (folder / "dataset.yaml").read_text()
    assert "seed 4" in text
    assert "simulation.noise=0.2" in text
    assert load_dataset(folder).generator_features.dim == 10


def test_an_occupied_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert_refused(fustal("simulate", tmp_path), 2, str(tmp_path), "notes.txt", "empty folder")
    assert_refused(fustal("simulate", tmp_path / "notes.txt"), 2, "notes.txt is a file")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--layout", "wtalc"], ["'wtalc'", "own", "hrpro"]),
        (["--layout", "cola", "--feature-dim", "7"], ["cola", "even", "7"]),
        (["--set", "generation.iterations=3"], ["generation.iterations", "fustal run"]),
        (["--set", "simulation.nois=1"], ["simulation.nois", "simulation.noise"]),
        (["--annotations", "gt.json", "--set", "simulation.num_classes=3"], ["num_classes"]),
        (["--annotations", "gt.json", "--set", "simulation.several_classes=2"], ["no meaning"]),
        (["--feature-dim", "8", "--set", "simulation.feature_dim=9"], ["expected one of them"]),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_writes_nothing(
    tmp_path: Path, arguments: list[str], fragments: list[str]
) -> None:
    assert_refused(fustal("simulate", tmp_path / "data", *arguments), 2, *fragments)
    assert list(tmp_path.iterdir()) == []


def test_every_problem_of_an_annotation_file_is_said(tmp_path: Path) -> None:
    stir = {"label": "stir", "segment": [1.0, 2.0]}
    database = {
        "a": {"subset": "train", "duration": -1, "annotations": [{"label": "fry"}]},
        "b": {"subset": "test", "duration": 9.0, "annotations": [stir]},
    }
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"database": database}))
    result = fustal("simulate", tmp_path / "data", "--annotations", path)
    fragments = ["video a: duration -1", "segment None", "'stir' is in no training", "bad.json"]
    assert_refused(result, 1, *fragments)
    assert [found.name for found in tmp_path.iterdir()] == ["bad.json"]


def test_an_annotation_file_gives_videos_and_segments(tmp_path: Path) -> None:
    path = write(tmp_path / "first", "own") / "gt.json"
    result = fustal("simulate", tmp_path / "second", "--annotations", path, "--layout", "hrpro")
    assert result.returncode == 0, result.stderr
    assert "4 videos of 2 classes" in result.stderr
    first, second = load_dataset(tmp_path / "first"), load_dataset(tmp_path / "second")
    assert second.truth("train").equals(first.truth("train"))


@pytest.mark.parametrize("layout", ["own", "cola"])
def test_what_is_trained_on_the_folder_is_what_is_trained_on_the_built_in_data(
    tmp_path: Path, layout: str
) -> None:
    folder = tmp_path / "data"
    written = fustal("simulate", folder, "--profile", "smoke", "--layout", layout)
    assert written.returncode == 0, written.stderr
    found, expected = (
        open_study(data, "smoke", run_dir=tmp_path / name).generation().model.state_dict()
        for name, data in (("folder", folder), ("built-in", "simulated"))
    )
    assert found.keys() == expected.keys()
    assert all(value.equal(expected[name]) for name, value in found.items())
