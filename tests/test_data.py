"""Data folders: what a sound one gives, and every fault found at the door."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from fustal_core.annotations import Report
from fustal_core.data import DataError, Dataset, load_dataset
from fustal_core.feature_folder import FeatureFolder, check_features

DIM = 6
DESCRIPTION = {
    "name": "toy",
    "annotations": "gt.json",
    "train_subset": "training",
    "test_subset": "validation",
    "features": {"folder": "features", "stride_frames": 16, "window_frames": 16, "fps": 25},
}


class Folder:
    """A sound data folder of four 32 s videos (50 snippets each) that a test can damage."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.description = json.loads(json.dumps(DESCRIPTION))
        self.database = {
            name: {
                "subset": subset,
                "duration": 32.0,
                "annotations": [
                    {"label": "jump", "segment": [1.0, 3.5]},
                    {"label": "throw", "segment": [10.0, 12.0]},
                ],
            }
            for name, subset in [
                ("a", "training"),
                ("b", "training"),
                ("c", "validation"),
                ("d", "validation"),
            ]
        }
        rng = np.random.default_rng(0)
        (root / "features").mkdir()
        for name in self.database:
            self.save(name, rng.random((50, DIM), dtype=np.float32))

    def path(self, video: str, folder: str = "features") -> Path:
        return self.root / folder / f"{video}.npy"

    def save(self, video: str, array: np.ndarray, folder: str = "features") -> None:
        np.save(self.path(video, folder), array)

    def load(self) -> Dataset:
        (self.root / "dataset.yaml").write_text(yaml.safe_dump(self.description))
        (self.root / "gt.json").write_text(json.dumps({"database": self.database}))
        return load_dataset(self.root)

    def problems(self) -> list[str]:
        with pytest.raises(DataError) as caught:
            self.load()
        assert str(caught.value).splitlines() == caught.value.problems
        return caught.value.problems

    def problem(self) -> str:
        (only,) = self.problems()
        return only


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


# Each letter stands for nine of the one before.
BOMB = "a: &a [1]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghij")
)

# A sound folder


def test_sound_folder(folder: Folder) -> None:
    data = folder.load()
    assert (data.name, data.origin, data.warnings) == ("toy", "real", ())
    assert data.classes == ("jump", "throw")
    assert data.video_names("train") == ["a", "b"]
    assert data.video_names("test") == ["c", "d"]
    assert data.videos.columns.tolist() == ["subset", "duration_s"]
    assert data.student_features is data.generator_features
    assert data.generator_features.dim == DIM
    np.testing.assert_array_equal(data.generator_features["b"], np.load(folder.path("b")))
    assert len(data.truth("test")) == 4


def test_labels_are_multi_hot_per_video(folder: Folder) -> None:
    del folder.database["a"]["annotations"][1]
    folder.database["b"]["annotations"] *= 2
    assert folder.load().video_labels("train").tolist() == [[1, 0], [1, 1]]


def test_test_video_without_annotations_has_a_zero_row(folder: Folder) -> None:
    folder.database["c"]["annotations"] = []
    data = folder.load()
    assert data.video_labels("test").tolist() == [[0, 0], [1, 1]]


def test_training_videos_without_labels_are_left_out_with_a_warning(folder: Folder) -> None:
    folder.database["a"]["annotations"] = []
    data = folder.load()
    assert data.video_names("train") == ["b"]
    assert any("1 training videos have no label" in line for line in data.warnings)


def test_unknown_subset_is_refused(folder: Folder) -> None:
    with pytest.raises(ValueError, match="'validation'"):
        folder.load().video_names("validation")


def test_subset_spelling_and_times_as_text_are_accepted(folder: Folder) -> None:
    folder.database["a"]["subset"] = "Training"
    folder.database["a"]["annotations"][0]["segment"] = ["1.0", "3.5"]
    data = folder.load()
    assert "a" in data.video_names("train")
    assert data.truth("train")["t_end"].iloc[0] == 3.5


def test_student_features_and_fps_from_the_annotations(folder: Folder) -> None:
    (folder.root / "dense").mkdir()
    for name, entry in folder.database.items():
        entry["fps"] = 30.0
        folder.save(name, np.ones((237, 3), dtype=np.float16), "dense")  # (32 * 30 - 16) / 4 + 1
    folder.description["student_features"] = {
        "folder": "dense",
        "stride_frames": 4,
        "window_frames": 16,
    }
    data = folder.load()
    assert data.student_features.array.dtype == torch.float16
    assert data.student_features.fps["a"] == 30.0
    assert data.generator_features.fps["a"] == 25  # dataset.yaml wins


def test_fingerprint_follows_content(folder: Folder) -> None:
    first, again = folder.load().fingerprint, folder.load().fingerprint
    folder.database["a"]["annotations"][0]["segment"][1] = 3.6
    segment_moved = folder.load().fingerprint
    array = np.load(folder.path("a"))
    array[0, 0] += 1
    folder.save("a", array)
    feature_changed = folder.load().fingerprint
    folder.description["name"] = "other"
    renamed = folder.load().fingerprint
    assert first == again
    assert len({first, segment_moved, feature_changed, renamed}) == 4


@pytest.mark.parametrize("dtype", [np.float64, np.int32])
def test_other_number_types_become_single_precision(folder: Folder, dtype: type) -> None:
    folder.save("a", np.ones((50, DIM), dtype=dtype))
    assert folder.load().generator_features.array.dtype == torch.float32


def test_length_may_differ_by_a_few_snippets(folder: Folder) -> None:
    folder.save("a", np.ones((47, DIM), dtype=np.float32))
    assert folder.load().generator_features.num_snippets("a") == 47


def test_videos_of_other_subsets_are_left_out(folder: Folder) -> None:
    folder.database["e"] = {**folder.database["a"], "subset": "ambiguous"}
    assert folder.load().warnings == (
        "1 annotated videos are in neither subset: left out (annotated 'ambiguous', for example e)",
    )


def test_class_never_tested_is_a_warning(folder: Folder) -> None:
    folder.database["a"]["annotations"].append({"label": "swim", "segment": [20, 22]})
    (warning,) = folder.load().warnings
    assert "gt.json: video a: class 'swim': in no test video, it is not measured" in warning


# Faults of the files


def test_missing_folder_and_yaml(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such data folder"):
        load_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no dataset\.yaml and no layout recognised"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "not readable YAML"),
        ("- 1", "found list, expected keys name, layout"),
        ("", "found NoneType"),
        ("name: a\nname: b\n", "'name' written twice, expected once"),
        ("features: {fps: 25, fps: 30}", "'fps' written twice"),
        ("<<: {a: 1}", "not readable YAML"),
        ("[" * 1000, "not readable YAML"),
        ("fps: !!int ''", "not readable YAML"),
        (BOMB + "layout: *j", "layout [[[...], [...], [...], [...], [...], [...], ...]"),
        (BOMB + "features: *j\nannotations: b", "key 'features': Input should be"),
        (BOMB + "? *j\n: 1", "not readable YAML"),
        ('name: "\\ud800"\nannotations: b\nfeatures: {}', "surrogates not allowed"),
    ],
)
def test_malformed_yaml(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "dataset.yaml").write_text(text)
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path)
    assert expected in str(caught.value)


def test_every_bad_key_of_the_yaml_is_named(folder: Folder) -> None:
    del folder.description["features"]["folder"]
    folder.description["featuers"] = 1
    folder.description["features"]["stride_frames"] = 0
    folder.description["features"]["window_frames"] = 10**400
    folder.description["features"]["fps"] = 1e-310
    folder.description["features"]["hop"] = 2
    problems = "\n".join(folder.problems())
    for expected in (
        "missing key 'features.folder'",
        "unknown key 'featuers', expected one of name",
        "'features.stride_frames'",
        "'features.window_frames': Input should be less than or equal to 1000000, found 1000",
        "'features.fps': Input should be greater",
        "unknown key 'features.hop', expected one of folder",
    ):
        assert expected in problems


@pytest.mark.parametrize("text", ["{", '{"database": {}}', "[]", '{"database": 3}', "\xff", "null"])
def test_malformed_annotations(folder: Folder, text: str) -> None:
    folder.load()
    (folder.root / "gt.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"gt\.json"):
        load_dataset(folder.root)


def test_missing_annotations_and_points(folder: Folder) -> None:
    folder.description["points"] = "points.csv"
    assert "points.csv: no such file" in folder.problem()
    folder.description["annotations"] = "other.json"
    assert "other.json: no such file" in folder.problems()[0]


def test_video_in_both_splits(folder: Folder) -> None:
    folder.load()
    entry = json.dumps(folder.database["a"])
    other = entry.replace("training", "validation")
    text = (folder.root / "gt.json").read_text().replace('"b":', f'"a": {other}, "b":', 1)
    (folder.root / "gt.json").write_text(text)
    with pytest.raises(DataError, match="'a' is listed 2 times") as caught:
        load_dataset(folder.root)
    assert "training, validation" in str(caught.value)


def test_both_subsets_of_one_name(folder: Folder) -> None:
    folder.description["test_subset"] = "training"
    assert any("in both splits" in line for line in folder.problems())


def test_empty_subset_names_what_was_found(folder: Folder) -> None:
    folder.description["test_subset"] = "test"
    assert "'training', 'validation'" in folder.problem()


# Faults of the annotations


@pytest.mark.parametrize(
    ("segment", "expected"),
    [
        ([3.5, 1.0], "end after its start"),
        ([2.0, 2.0], "end after its start"),
        ([1.0, 40.0], "outside the video"),
        ([-9.0, 2.0], "outside the video"),
        ([32.0, 32.3], "outside the video"),  # all of it behind the end, if by less than a snippet
        ([1.0], "expected [start, end]"),
        ("1-2", "expected [start, end]"),
        ([1.0, None], "expected [start, end]"),
        ([float("nan"), 1.0], "expected [start, end]"),
    ],
)
def test_bad_segment(folder: Folder, segment: object, expected: str) -> None:
    folder.database["c"]["annotations"][0]["segment"] = segment
    problem = folder.problem()
    assert expected in problem
    assert "video c" in problem


def test_segments_outside_can_be_kept(folder: Folder) -> None:
    folder.database["c"]["annotations"][0]["segment"] = [1.0, 40.0]
    folder.description["outside_segments"] = "keep"
    dataset = folder.load()
    assert dataset.segments["t_end"].max() == 40.0
    assert any("1 segments lie outside" in line for line in dataset.warnings)


def test_segment_may_overhang_by_a_few_snippets(folder: Folder) -> None:
    folder.database["c"]["annotations"][0]["segment"] = [30.0, 32.5]
    assert folder.load().truth("test")["t_end"].max() == 32.5


def test_bad_entries_are_all_reported(folder: Folder) -> None:
    folder.database["a"]["duration"] = -1
    folder.database["b"]["annotations"].append({"segment": [1, 2]})
    folder.database["c"]["annotations"].append(3)
    del folder.database["d"]["duration"]
    folder.database["e"] = None
    folder.database["f"] = {"annotations": {}}
    problems = "\n".join(folder.problems())
    for expected in ("duration -1", "label None", "found 3", "video d: no duration", "found None"):
        assert expected in problems
    assert "video f: subset None" in problems


def test_class_without_training_video(folder: Folder) -> None:
    folder.database["c"]["annotations"].append({"label": "swim", "segment": [20, 22]})
    assert "'swim': only in test videos" in folder.problem()


def test_no_label_in_training_at_all(folder: Folder) -> None:
    for name in "ab":
        folder.database[name]["annotations"] = []
    assert "no training video has a label, expected at least one segment" in folder.problem()


def test_video_name_that_leaves_the_folder(folder: Folder) -> None:
    folder.database["../b"] = folder.database.pop("b")
    assert any("expected no slash" in line for line in folder.problems())


def test_no_fps_anywhere(folder: Folder) -> None:
    del folder.description["features"]["fps"]
    problem = folder.problem()
    assert "found no fps for 4 videos (a, b, c, ...), expected it as features.fps" in problem


# Faults of the features


def with_value(value: float) -> np.ndarray:
    array = np.ones((50, DIM), dtype=np.float32)
    array[7, 2] = value
    return array


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.ones((DIM, 50), dtype=np.float32), "transposed? expected (T, 6)"),
        (np.ones((50, DIM - 1), dtype=np.float32), "found 5 channels, expected 6"),
        (with_value(np.nan), "NaN or Inf in 1 of 50"),
        (with_value(-np.inf), "NaN or Inf in 1 of 50"),
        (np.full((50, DIM), 1e300), "NaN or Inf in 50 of 50"),
        (np.ones((0, DIM), dtype=np.float32), "found 0 snippets, expected at least 2"),
        (np.ones((1, DIM), dtype=np.float32), "found 1 snippets, expected at least 2"),
        (np.ones((62, DIM), dtype=np.float32), "found 62 snippets, expected about 50"),
        (np.ones((30, DIM), dtype=np.float32), "found 30 snippets, expected about 50"),
        (np.ones(50, dtype=np.float32), "found shape (50,), expected (T, D)"),
        (np.ones((50, DIM), dtype=complex), "expected an array of numbers"),
        (np.array([{}, {}]), "not a readable .npy"),
    ],
)
def test_bad_features(folder: Folder, array: np.ndarray, expected: str) -> None:
    folder.save("c", array)
    problem = folder.problem()
    assert expected in problem
    assert "c.npy" in problem


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ("(50, 6", 1200, "header cannot be read"),
        ("(" * 300, 1200, "header cannot be read"),
        ("(-1, 6)", 1200, "found shape (-1, 6), expected sizes"),
        ("(True, 6)", 1200, "found shape (True, 6), expected sizes"),
        (f"({10**30}, 0)", 1200, "expected sizes"),
        (f"({2**37}, 8)", 2**42, "expected at most"),
    ],
)
def test_strange_headers(folder: Folder, shape: str, size: int, expected: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    with folder.path("c").open("wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        file.truncate(file.tell() + size)  # sparse
    for problem in (folder.problem(), *_unreadable(folder.root / "features")):
        assert expected in problem
        assert "c.npy: " in problem


def _unreadable(folder: Path) -> list[str]:
    """Problems of the same files as features to predict from."""
    report = Report()
    check_features(FeatureFolder(folder), DIM, np.dtype(np.float32), report)
    return [problem.text for problem in report.problems]


@pytest.mark.parametrize("keep", [0, 5, 90, 400])
def test_truncated_feature_file(folder: Folder, keep: int) -> None:
    folder.path("d").write_bytes(folder.path("d").read_bytes()[:keep])
    problem = folder.problem()
    assert "not a readable .npy" in problem
    assert "d.npy: video d" in problem


def test_missing_feature_file_and_folder(folder: Folder) -> None:
    folder.path("a").unlink()
    assert "a.npy: no feature file" in folder.problem()
    folder.description["features"]["folder"] = "i3d"
    assert "i3d: no such folder (features.folder of the data)" in folder.problem()


def test_all_arrays_transposed(folder: Folder) -> None:
    for name, entry in folder.database.items():
        entry["duration"] += 10 * ord(name)
        length = round(entry["duration"] * 25 / 16)
        folder.save(name, np.ones((DIM, length), dtype=np.float32))
    assert [("transposed?" in line) for line in folder.problems()] == [True] * 4


def test_all_problems_come_in_one_report(folder: Folder) -> None:
    folder.path("a").unlink()
    folder.save("b", with_value(np.nan))
    folder.save("c", np.ones((DIM, 50), dtype=np.float32))
    folder.database["d"]["annotations"][0]["segment"] = [5, 4]
    folder.database["c"]["annotations"][0]["label"] = "swim"
    assert len(folder.problems()) == 5
