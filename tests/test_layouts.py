"""Every released layout loads as it lies there, and every problem in it is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layout_helpers import COARSE, DENSE, LAYOUTS, LayoutFolder, values, write_wtalc

from fustal_core.annotations import subset_roles
from fustal_core.data import DataError, load_dataset


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sound_folder_loads(tmp_path: Path, layout: str) -> None:
    LayoutFolder(tmp_path, layout)
    data = load_dataset(tmp_path)
    assert f"layout {layout}: " in data.found[0]
    assert data.classes == ("jump", "throw")
    assert data.video_names("train") == ["a", "b"]
    assert data.video_names("test") == ["c", "d"]
    assert len(data.truth("test")) == 4
    assert data.warnings == ()
    store = data.generator_features
    dense = layout == "actionformer"
    np.testing.assert_array_equal(store["c"], values("c", DENSE if dense else COARSE))
    assert (store.stride_frames, store.window_frames) == (4 if dense else 16, 16)
    assert store.fps["a"] == 25.0


def test_generator_and_student_read_folders_of_their_own(tmp_path: Path) -> None:
    LayoutFolder(tmp_path, "fustal")
    data = load_dataset(tmp_path)
    assert data.generator_features.stride_frames == 16
    assert data.student_features.stride_frames == 4
    np.testing.assert_array_equal(data.student_features["b"], values("b", DENSE))
    np.testing.assert_array_equal(data.generator_features["b"], values("b", COARSE))


def test_rgb_comes_before_flow(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "cola")
    rgb, flow = folder.paths("a")
    joined = np.hstack([np.load(rgb), np.load(flow)])
    assert rgb.parent.name == "rgb"
    np.testing.assert_array_equal(load_dataset(tmp_path).generator_features["a"], joined)


def test_points_come_in_seconds(tmp_path: Path) -> None:
    LayoutFolder(tmp_path, "hrpro")
    points = load_dataset(tmp_path).points
    assert points.to_numpy().tolist() == [["a", "jump", 2.0], ["b", "throw", 11.0]]


def test_the_yaml_wins_over_recognition(tmp_path: Path) -> None:
    LayoutFolder(tmp_path, "cola")
    text = "name: mine\nfeatures: {fps: 24.5}\nclasses: [jump, throw, swim]\norigin: simulated\n"
    (tmp_path / "dataset.yaml").write_text(text)
    data = load_dataset(tmp_path)
    assert (data.name, data.origin) == ("mine", "simulated")
    assert data.generator_features.fps["a"] == 24.5
    assert data.generator_features.stride_frames == 16


def test_files_that_a_full_description_leaves_unread_are_said(tmp_path: Path) -> None:
    """Of a folder as HR-Pro has it: points would be drawn from the true segments instead."""
    LayoutFolder(tmp_path, "hrpro")
    text = (
        "annotations: gt_full.json\n"
        "features: {folder: 'features/{subset}', stride_frames: 16, window_frames: 16, fps: 25}\n"
    )
    (tmp_path / "dataset.yaml").write_text(text)
    unread = load_dataset(tmp_path).warnings
    assert [warning.partition(":")[0] for warning in unread] == [
        "split_{subset}.txt",
        "point_labels/point_gaussian.csv",
    ]
    assert "state 'points', or 'layout: hrpro'" in unread[1]
    (tmp_path / "dataset.yaml").write_text(
        f"{text}splits: split_{{subset}}.txt\npoints: point_labels/point_gaussian.csv\n"
    )
    assert load_dataset(tmp_path).warnings == ()


def test_two_layouts_in_one_folder_must_be_told_apart(tmp_path: Path) -> None:
    LayoutFolder(tmp_path, "cola")
    LayoutFolder(tmp_path, "acmnet")
    with pytest.raises(DataError, match="several layouts") as caught:
        load_dataset(tmp_path)
    assert "features/train/rgb" in str(caught.value)
    (tmp_path / "dataset.yaml").write_text("layout: acmnet\n")
    assert load_dataset(tmp_path).found[0] == "layout acmnet: named in dataset.yaml"


def test_an_unknown_layout_names_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "dataset.yaml").write_text("layout: mine\n")
    with pytest.raises(DataError, match=r"'mine', expected one of cola, acmnet, hrpro"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("found", "train", "test"),
    [
        (["validation", "test"], "validation", "test"),
        (["Validation", "Test"], "Validation", "Test"),
        (["training", "validation"], "training", "validation"),
        (["training", "validation", "testing"], "training", "validation"),
        (["train", "test"], "train", "test"),
        (["val", "testing"], "val", "testing"),
    ],
)
def test_subset_spellings(found: list[str], train: str, test: str) -> None:
    roles = subset_roles(found)
    assert roles[train] == "train"
    assert roles[test] == "test"
    assert len(roles) == 2


# W-TALC's pickles


def test_pickles_are_refused_and_the_reason_is_given(tmp_path: Path) -> None:
    write_wtalc(tmp_path)
    with pytest.raises(DataError, match="runs whatever code is in it") as caught:
        load_dataset(tmp_path)
    assert "--trust-pickle" in str(caught.value)
    assert "JOINTFeatures.npy" in str(caught.value)


def test_refusing_a_pickle_runs_nothing_of_it(tmp_path: Path) -> None:
    write_wtalc(tmp_path)
    trap = np.empty(1, dtype=object)
    trap[0] = _Trap(tmp_path / "sprung")
    for path in tmp_path.rglob("*.npy"):
        np.save(path, trap, allow_pickle=True)
    with pytest.raises(DataError):
        load_dataset(tmp_path)
    assert not (tmp_path / "sprung").exists()
    np.load(tmp_path / "Thumos14reduced-I3D-JOINTFeatures.npy", allow_pickle=True)
    assert (tmp_path / "sprung").exists()


class _Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple[Path]]:
        return Path.touch, (self.path,)


def test_trusted_pickles_load(tmp_path: Path) -> None:
    write_wtalc(tmp_path)
    data = load_dataset(tmp_path, trust_pickle=True)
    assert data.video_names("train") == ["a", "b"]
    assert data.classes == ("jump", "throw")
    assert data.truth("test")["t_end"].tolist() == [3.5, 12.0, 3.5, 12.0]
    np.testing.assert_array_equal(data.generator_features["d"], values("d", COARSE))


def test_problems_of_pickled_arrays(tmp_path: Path) -> None:
    write_wtalc(tmp_path)
    path = tmp_path / "Thumos14reduced-I3D-JOINTFeatures.npy"
    arrays = np.load(path, allow_pickle=True)
    arrays[1] = arrays[1][:, 0]
    arrays[2] = arrays[2].T
    np.save(path, arrays, allow_pickle=True)
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path, trust_pickle=True)
    first, second = caught.value.problems
    assert "video b: found shape (62,)" in first
    assert "video c: found shape (8, 62), transposed?" in second


# What is wrong with a file, in every layout


def unlink(folder: LayoutFolder) -> None:
    folder.paths("c")[0].unlink()


def truncate(folder: LayoutFolder) -> None:
    path = folder.paths("c")[0]
    path.write_bytes(path.read_bytes()[:-7])


def transpose(folder: LayoutFolder) -> None:
    for path in folder.paths("c"):
        np.save(path, np.load(path).T)


def poison(folder: LayoutFolder) -> None:
    path = folder.paths("c")[-1]
    array = np.load(path)
    array[3, 1] = np.inf
    np.save(path, array)


def cut(folder: LayoutFolder) -> None:
    for path in folder.paths("c"):
        np.save(path, np.load(path)[:-30])


def drop_channels(folder: LayoutFolder) -> None:
    for path in folder.paths("c"):
        np.save(path, np.load(path)[:, 1:])


def empty(folder: LayoutFolder) -> None:
    for path in folder.paths("c"):
        np.save(path, np.load(path)[:0])


def single(folder: LayoutFolder) -> None:
    for path in folder.paths("c"):
        np.save(path, np.load(path)[:1])


def unknown_class(folder: LayoutFolder) -> None:
    folder.database["c"]["annotations"][0]["label"] = "juggle"


def outside(folder: LayoutFolder) -> None:
    folder.database["c"]["annotations"][0]["segment"] = [50.0, 55.0]


def reverse(folder: LayoutFolder) -> None:
    folder.database["c"]["annotations"][0]["segment"] = [3.5, 1.0]


PROBLEMS = [
    (unlink, "no feature file for video c", "c.npy"),
    (truncate, "video c: not a readable .npy: truncated", "c.npy"),
    (transpose, "transposed? expected (T, ", "c.npy"),
    (poison, "NaN or Inf in 1 of", "c.npy"),
    (cut, "snippets, expected about", "c.npy"),
    (drop_channels, "channels, expected", "c.npy"),
    (empty, "found 0 snippets, expected at least 2", "c.npy"),
    (single, "found 1 snippets, expected at least 2", "c.npy"),
    (unknown_class, "class 'juggle': only in test videos", "video c"),
    (
        outside,
        "segment [50, 55] s of jump is outside the video, expected within [0, 40] s",
        "video c",
    ),
    (reverse, "segment [3.5, 1] s of jump, expected its end after its start", "video c"),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("damage", "expected", "where"), PROBLEMS)
def test_each_problem_in_each_layout(
    tmp_path: Path, layout: str, damage: Callable, expected: str, where: str
) -> None:
    folder = LayoutFolder(tmp_path, layout)
    damage(folder)
    folder.write_annotations()
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path)
    assert all(expected in problem and where in problem for problem in caught.value.problems)


@pytest.mark.parametrize("layout", ["cola", "acmnet", "hrpro", "fustal"])
def test_problems_of_split_files(tmp_path: Path, layout: str) -> None:
    folder = LayoutFolder(tmp_path, layout)
    folder.splits["train"] += ["c", "nobody"]
    folder.write_annotations()
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path)
    text = str(caught.value)
    assert "split_test.txt: video c: in both, expected in one" in text
    assert len(caught.value.problems) == 2
    assert "split_train.txt: video nobody: expected a video of the annotations" in text


def test_a_missing_split_file_is_a_problem_if_the_other_is_there(tmp_path: Path) -> None:
    LayoutFolder(tmp_path, "cola")
    (tmp_path / "split_test.txt").unlink()
    with pytest.raises(DataError, match=r"split_test\.txt: no such file"):
        load_dataset(tmp_path)
    (tmp_path / "split_train.txt").unlink()
    assert load_dataset(tmp_path).video_names("test") == ["c", "d"]


def test_rgb_and_flow_of_different_length(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "cola")
    flow = folder.paths("b")[1]
    np.save(flow, np.load(flow)[:-1])
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path)
    (problem,) = caught.value.problems
    assert "b.npy: video b: found 62 rgb and 61 flow snippets" in problem


def test_all_problems_at_once(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "hrpro")
    folder.paths("a")[0].unlink()
    np.save(folder.paths("b")[0], values("b", COARSE).T)
    poison(folder)
    folder.database["d"]["annotations"][1]["segment"] = [90, 99]
    folder.write_annotations()
    folder.write_points(["jump,0,25,87,a,5000", "hop,1,250,300,b,275", "jump,0,1,2,x,1"])
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path)
    assert len(caught.value.problems) == 7


def test_a_wrong_clock_is_suggested_where_most_files_disagree(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "acmnet")
    for video in "abcd":
        folder.save(video, values(video, 2 * COARSE))
    with pytest.raises(
        DataError, match=r"about 1\.98 times as long as expected: are stride_frames"
    ):
        load_dataset(tmp_path)


def problems_of(root: Path, **options: bool) -> list[str]:
    with pytest.raises(DataError) as caught:
        load_dataset(root, **options)
    return caught.value.problems


def test_problems_of_one_video_do_not_hide_each_other(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "cola")
    poison(folder)
    flow_of_d = folder.paths("d")[1]
    np.save(flow_of_d, np.load(flow_of_d)[:-9])
    bad = np.load(folder.paths("d")[0])
    bad[4] = np.nan
    np.save(folder.paths("d")[0], bad)
    folder.paths("c")[0].unlink()
    folder.paths("a")[1].write_bytes(b"")
    np.save(folder.paths("a")[0], np.load(folder.paths("a")[0]).T)
    text = "\n".join(problems_of(tmp_path))
    for expected in (
        "rgb/c.npy: no feature file for video c",
        "flow/c.npy: video c: NaN or Inf in 1 of 62",
        "video d: found 62 rgb and 53 flow snippets",
        "rgb/d.npy: video d: NaN or Inf in 1 of 62",
        "flow/a.npy: video a: not a readable .npy",
        "rgb/a.npy: video a: found shape (4, 62), transposed?",
    ):
        assert expected in text
    assert len(text.splitlines()) == 6


def test_a_missing_stream_folder_is_said_once(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "cola")
    for path in (tmp_path / "features/train/flow").iterdir():
        path.unlink()
    (tmp_path / "features/train/flow").rmdir()
    truncate(folder)
    assert [line.rpartition("/")[2][:25] for line in problems_of(tmp_path)] == [
        "flow: no such folder (fea",
        "c.npy: video c: not a rea",
    ]


@pytest.mark.parametrize(("label", "is_slip"), [("Jump ", False), ("JUMP", True), ("jumq", False)])
def test_a_class_that_is_another_misspelt(tmp_path: Path, label: str, is_slip: bool) -> None:
    folder = LayoutFolder(tmp_path, "own")
    folder.database["a"]["annotations"].append({"label": label, "segment": [20, 21]})
    folder.write_annotations()
    if label == "Jump " or is_slip:
        (problem,) = problems_of(tmp_path)
        assert f"gt.json: video a: class {label.strip()!r}: misspelt? expected 'jump'" in problem
        with (tmp_path / "dataset.yaml").open("a") as file:
            file.write(f"classes: [jump, throw, {label.strip()}]\n")
    (warning,) = load_dataset(tmp_path).warnings
    assert f"class {label.strip()!r}: in no test video" in warning


def test_a_long_name_with_one_letter_wrong_is_a_slip(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "own")
    for entry in folder.database.values():
        entry["annotations"].append({"label": "cut_tomato", "segment": [20, 21]})
    folder.database["a"]["annotations"].append({"label": "cut_tomatoe", "segment": [22, 23]})
    folder.write_annotations()
    (problem,) = problems_of(tmp_path)
    assert "class 'cut_tomatoe': misspelt? expected 'cut_tomato'" in problem


def test_a_segment_may_end_in_the_last_snippet_and_no_later(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "acmnet")
    segment = folder.database["a"]["annotations"][0]
    segment["segment"] = [30.0, 40.6]  # a snippet takes 0.64 s
    folder.write_annotations()
    load_dataset(tmp_path)
    for times in ([30.0, 40.7], [-0.5, 3.0]):
        segment["segment"] = times
        folder.write_annotations()
        (problem,) = problems_of(tmp_path)
        assert "gt.json: video a: segment" in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("layout: [cola]\n", "layout ['cola'], expected one of"),
        ("1: foo\n", "key 1, expected a name"),
        ("features: 3\nannotations: gt.json\n", "key 'features'"),
        ("splits: lists/{subset}.txt\n", "no such file, expected a video a line"),
    ],
)
def test_strange_descriptions(tmp_path: Path, text: str, expected: str) -> None:
    LayoutFolder(tmp_path, "cola")
    (tmp_path / "dataset.yaml").write_text(text)
    assert all(expected in problem for problem in problems_of(tmp_path))


def test_a_missing_split_is_not_said_of_every_class(tmp_path: Path) -> None:
    LayoutFolder(tmp_path, "hrpro")
    (tmp_path / "split_train.txt").write_text("\n")
    (problem,) = problems_of(tmp_path)
    assert "split_train.txt: found no video" in problem


def test_byte_order_marks_and_windows_line_ends(tmp_path: Path) -> None:
    LayoutFolder(tmp_path, "hrpro")
    for path in [*tmp_path.glob("*.txt"), *tmp_path.glob("*.json"), *tmp_path.rglob("*.csv")]:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    data = load_dataset(tmp_path)
    assert data.video_names("train") == ["a", "b"]
    assert len(data.points) == 2


def test_names_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "own")
    folder.database["a"]["annotations"][0]["label"] = "\ud800"
    folder.database["v\ud800"] = folder.database["b"]
    folder.database["b"] = folder.database["b"] | {"subset": "\ud800"}
    folder.write_annotations()
    text = "\n".join(problems_of(tmp_path))
    assert "expected a class name" in text
    assert "expected no slash or control character" in text
    assert "subset '\\ud800', expected a name" in text
    text.encode()


def test_one_mistake_in_a_duration_is_said_once(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "hrpro")
    folder.database["a"]["duration"] = 0
    del folder.database["b"]["duration"]
    folder.paths("b")[0].unlink()
    folder.write_annotations()
    first, second, third = problems_of(tmp_path)
    assert "video a: duration 0, expected a positive number" in first
    assert "video b: no duration" in second
    assert "no feature file for video b" in third


def test_points_need_the_source_videos_fps(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "hrpro")
    for entry in folder.database.values():
        entry["fps"] = None
    folder.write_annotations()
    (problem,) = problems_of(tmp_path)
    assert "2 videos (a, b): no fps in the annotations" in problem


def test_a_stray_file_does_not_change_the_layout(tmp_path: Path) -> None:
    LayoutFolder(tmp_path, "cola")
    np.save(tmp_path / "features/train/x.npy", values("x", 3))
    (tmp_path / "features/train/rgb/._a.npy").write_bytes(b"finder")
    assert "layout cola" in load_dataset(tmp_path).found[0]


@pytest.mark.parametrize(
    ("name", "place", "value", "expected"),
    [
        ("duration", 1, "long", "video b: duration 'long', expected a positive number"),
        ("duration", 1, [], "video b: duration None, expected a positive number"),
        ("segments", 2, [[1.0, 2.0, 3.0], [4.0, 5.0]], "segment [1.0, 2.0, 3.0], expected [start"),
        ("segments", 2, "none", "video c: annotation 0: segment ['none']"),
        ("segments", 2, [[1.0, 2.0]], "video c: annotation 1: segment [None]"),
        ("segments", 2, [[3.0, 2.0], [4.0, 5.0]], "expected its end after its start"),
        ("videoname", 1, "a", "video a: listed 2 times, expected once"),
    ],
)
def test_strange_pickled_annotations(
    tmp_path: Path, name: str, place: int, value: object, expected: str
) -> None:
    write_wtalc(tmp_path)
    path = tmp_path / f"Thumos14reduced-Annotations/{name}.npy"
    loaded = np.load(path, allow_pickle=True)
    array = np.empty(len(loaded), dtype=object)
    for i, row in enumerate(loaded):
        array[i] = row
    array[place] = value
    np.save(path, array, allow_pickle=True)
    assert expected in "\n".join(problems_of(tmp_path, trust_pickle=True))


@pytest.mark.parametrize("dtype", [complex, "U4"])
def test_pickled_features_that_are_no_numbers(tmp_path: Path, dtype: object) -> None:
    write_wtalc(tmp_path)
    path = tmp_path / "Thumos14reduced-I3D-JOINTFeatures.npy"
    arrays = np.load(path, allow_pickle=True)
    arrays[1] = arrays[1].astype(dtype)
    np.save(path, arrays, allow_pickle=True)
    (problem,) = problems_of(tmp_path, trust_pickle=True)
    assert "video b: found" in problem
    assert "expected an array of numbers" in problem


# What the public annotations get wrong


def test_durations_that_took_25_frames_a_second_for_30_are_corrected(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "cola")
    folder.database["c"] |= {"frames": 3000, "duration": 100.0}  # 120 s at 25 frames a second
    folder.database["c"]["annotations"].append({"label": "jump", "segment": [110.0, 118.0]})
    folder.save("c", values("c", 3000 // 16))
    folder.write_annotations()
    data = load_dataset(tmp_path)
    assert data.videos.loc["c", "duration_s"] == 120.0
    assert "1 videos are longer or shorter than annotated" in data.warnings[0]


def test_a_duration_that_is_wrong_otherwise_is_a_problem(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "cola")
    folder.database["c"] |= {"frames": 3000, "duration": 80.0}
    folder.save("c", values("c", 3000 // 16))
    folder.write_annotations()
    with pytest.raises(DataError, match="video c: found 187 snippets, expected about 125"):
        load_dataset(tmp_path)


def test_segments_known_to_lie_outside_are_kept_with_a_warning(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "own")
    video = "video_test_0000814"
    outside_segment = {"label": "ThrowDiscus", "segment": [350.0, 360.0]}
    folder.database[video] = {**folder.database.pop("d"), "duration": 181.1}
    known = {"label": "ThrowDiscus", "segment": [233.6, 240.1]}
    folder.database["a"]["annotations"].append({"label": "ThrowDiscus", "segment": [5.0, 6.0]})
    folder.database[video]["annotations"] += [known, outside_segment]
    np.save(tmp_path / "features" / f"{video}.npy", values("d", 283))
    folder.write_annotations()
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path)
    (problem,) = caught.value.problems
    assert "[350, 360]" in problem
    folder.database[video]["annotations"].remove(outside_segment)
    folder.write_annotations()
    assert "1 segments lie outside" in load_dataset(tmp_path).warnings[0]


def test_classes_listed_in_the_yaml_are_all_there_may_be(tmp_path: Path) -> None:
    LayoutFolder(tmp_path, "cola")
    (tmp_path / "dataset.yaml").write_text("classes: [jump, swim]\n")
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path)
    (problem,) = caught.value.problems
    assert "class 'throw': expected one of jump, swim" in problem


# Points


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("jump,0,25,87,a,1001", "video a: point of jump at 40.04 s, expected within [0, 40] s"),
        ("jump,0,25,87,a,-1", "video a: point of jump at -0.04 s"),
        ("jump,0,25,87,a,soon", "video a: point 'soon', expected a number"),
        ("hop,0,25,87,a,50", "video a: class 'hop' at 2 s, expected one of jump, swim, throw"),
        ("jump,0,25,87,x,50", "video x: not annotated"),
        ("swim,0,25,87,a,50", "video a: class 'swim' at 2 s, expected a class that its video"),
    ],
)
def test_bad_points(tmp_path: Path, line: str, expected: str) -> None:
    folder = LayoutFolder(tmp_path, "hrpro")
    for video in "bc":
        folder.database[video]["annotations"].append({"label": "swim", "segment": [20, 21]})
    folder.write_annotations()
    folder.write_points([line, "jump,0,1,2,a,30", "jump,0,1,2,b,30"])
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path)
    (problem,) = caught.value.problems
    assert "point_gaussian.csv" in problem
    assert expected in problem


def test_a_training_video_without_a_point_is_a_warning(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "hrpro")
    folder.write_points(["jump,0,1,2,a,30", "throw,1,250,300,c,275"])
    data = load_dataset(tmp_path)
    assert data.points["video"].tolist() == ["a"]
    assert "1 training videos have no point: b" in data.warnings[0]


def test_points_of_ones_own_in_seconds(tmp_path: Path) -> None:
    LayoutFolder(tmp_path, "own")
    with (tmp_path / "dataset.yaml").open("a") as file:
        file.write("points: point_labels.csv\n")
    (tmp_path / "point_labels.csv").write_text("video_id,class,time_s\na,jump,2.5\nb,throw,11\n")
    points = load_dataset(tmp_path).points
    assert points["t"].tolist() == [2.5, 11.0]
    (tmp_path / "point_labels.csv").write_text("video,label,t\na,jump,2.5\n")
    with pytest.raises(DataError, match="found columns video, label, t, expected video_id, class"):
        load_dataset(tmp_path)
