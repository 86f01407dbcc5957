"""Point labels: what is wrong with given ones, drawing them, and what training sees of them."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cli_helpers import fustal
from hypothesis import given
from hypothesis import strategies as st
from layout_helpers import LayoutFolder

from fustal_core.annotations import DataError, segments_frame
from fustal_core.data import Dataset, load_dataset
from fustal_core.features import FeatureStore
from fustal_core.point_supervision import PointSupervision, points_in_segments, supervision_of
from fustal_core.points import points_frame, snippets_of

DRAWN = ("gaussian", "uniform", "centre", "start")


# Given points


@pytest.fixture
def hrpro(tmp_path: Path) -> LayoutFolder:
    """Training videos a and b of 40 s, jump in [1, 3.5] s, throw in [10, 12] s of each; 25 fps."""
    return LayoutFolder(tmp_path, "hrpro")


def report_of(folder: LayoutFolder) -> dict:
    answer = fustal("check", folder.root, "--json")
    assert not answer.stderr
    return json.loads(answer.stdout) | {"status": answer.returncode}


def test_more_values_than_names_are_told_as_that(hrpro: LayoutFolder) -> None:
    hrpro.write_points(["jump,0,1,2,a,30,", "throw,0,1,2,a,260,", "jump,0,1,2,b,30,"])
    (problem,) = report_of(hrpro)["problems"]
    assert "found more values, or a comma at the end; expected 6 in a line" in problem["text"]


def test_everything_wrong_with_points_in_one_report(hrpro: LayoutFolder) -> None:
    hrpro.database["b"]["annotations"] = []
    hrpro.database["c"]["annotations"].append({"label": "swim", "segment": [20, 21]})
    hrpro.database["a"]["annotations"].append({"label": "hop", "segment": [20, 21]})
    hrpro.write_annotations()
    hrpro.write_points(
        [
            "jump,0,1,2,a,1001",
            "run,0,1,2,a,30",
            "swim,0,1,2,a,30",
            "jump,0,1,2,b,30",
            "jump,0,1,2,b,35",
            "jump,0,1,2,nobody,30",
            "jump,0,1,2,a,",
        ]
    )
    report = report_of(hrpro)
    assert report["status"] == 1
    about_points = [p["text"] for p in report["problems"] if p["kind"] == "points"]
    expected = [
        "video nobody: not annotated",
        "video a: point '', expected a number",
        "video a: point of jump at 40.04 s, expected within [0, 40] s",
        "video a: class 'run' at 1.2 s, expected one of",
        "video b: found points (2) in a video without a segment",
        "video a: class 'swim' at 1.2 s, expected a class that its video is annotated with",
    ]
    assert len(about_points) == len(expected)
    for text, part in zip(about_points, expected, strict=True):
        assert part in text
        assert "point_labels/point_gaussian.csv: " in text


def test_odd_points_are_warnings(hrpro: LayoutFolder) -> None:
    hrpro.write_points(
        [
            "jump,0,25,87,a,47",  # snippet 2, as the next one; 48 is the first of snippet 3
            "throw,1,250,300,a,32",
            "throw,1,250,300,a,32",
            "jump,0,25,87,a,48",
            "jump,0,25,87,c,50",
        ]
    )
    report = report_of(hrpro)
    assert report["status"] == 0
    for part in (
        "1 training videos have no point: b",
        "1 points of videos that are not trained on: not used",
        "1 points are given twice",
        "1 snippets hold points of several classes, for example video a, snippet 2: jump, throw",
    ):
        assert sum(text.endswith(part) for text in report["warnings"]) == 1
    assert len(report["warnings"]) == 4
    assert [row["points"] for row in report["videos"]] == [4, 0]


def test_unlabelled_training_videos_need_no_point(hrpro: LayoutFolder) -> None:
    hrpro.database["b"]["annotations"] = []
    hrpro.write_annotations()
    hrpro.write_points(["jump,0,25,87,a,50"])
    report = report_of(hrpro)
    assert report["warnings"] == ["1 training videos have no label: left out of training"]
    points = supervision_of(load_dataset(hrpro.root), "auto", 0)
    assert points.videos == ("a",)


def write_gtea_like(folder: Path, fps: float) -> None:
    """A folder as HR-Pro has GTEA: subsets training and validation, frames and points as floats.

    15 frames a second in the annotations; ``fps`` are those the features were extracted at.
    """
    videos = {"S1_Tea": "training", "S2_Tea": "training", "S4_Tea": "validation"}
    database = {
        video: {
            "duration": 77.86666666666666,
            "subset": subset,
            "num_frames": 1168,
            "fps": 15,
            "annotations": [
                {"segment": [1.2, 5.133333333333334], "label": "take"},
                {"segment": [5.6, 7.2], "label": "take"},
                {"segment": [7.266666666666667, 9.133333333333333], "label": "open"},
            ],
        }
        for video, subset in videos.items()
    }
    roles = {"training": "train", "validation": "test"}
    count = int((77.86666666666666 * fps - 16) // 16 + 1)
    for video, subset in videos.items():
        path = folder / "features" / roles[subset] / f"{video}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.random.default_rng(0).random((count, 8), dtype=np.float32))
        with (folder / f"split_{roles[subset]}.txt").open("a") as file:
            file.write(f"{video}\n")
    (folder / "gt_full.json").write_text(json.dumps({"database": database}))
    (folder / "point_labels").mkdir()
    lines = ["class,start_frame,stop_frame,video_id,point"]
    for video in ("S1_Tea", "S2_Tea"):
        lines += [f"take,18.0,77.0,{video},48", f"take,84.0,108.0,{video},96"]
        lines += [f"open,109.0,137.0,{video},123"]
    (folder / "point_labels" / "point_gaussian.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("fps", [25.0, 15.0])
def test_points_of_videos_whose_features_run_at_another_rate(tmp_path: Path, fps: float) -> None:
    write_gtea_like(tmp_path, fps)
    if fps != 25.0:
        with pytest.raises(DataError, match="are stride_frames and fps of the features right"):
            load_dataset(tmp_path)
        (tmp_path / "dataset.yaml").write_text("features: {fps: 15}\n")
    answer = fustal("check", tmp_path)
    assert answer.returncode == 0, answer.stdout
    assert "layout hrpro: " in answer.stdout
    assert "no problem, 0 warnings" in answer.stdout
    points = supervision_of(load_dataset(tmp_path), "given", 0)
    assert points.classes == ("open", "take")
    assert points.points["t"].tolist() == pytest.approx([3.2, 6.4, 8.2] * 2)
    snippets, classes = points.rows_of("S1_Tea")
    # 3.2, 6.4 and 8.2 s in steps of 16/25 s and of 16/15 s; 3.2 and 6.4 s are whole steps.
    assert snippets.tolist() == ([5, 10, 12] if fps == 25.0 else [3, 6, 7])
    assert classes.tolist() == [1, 1, 0]


@given(st.integers(0, 10**6), st.sampled_from([15.0, 24.0, 25.0, 29.97, 30.0]))
def test_a_snippets_first_frame_is_its_own(snippet: int, fps: float) -> None:
    step_s = np.array([16 / fps])
    for frame, expected in ((16 * snippet, snippet), (16 * snippet + 15, snippet)):
        assert snippets_of(np.array([frame / fps]), step_s) == expected


# Drawing


def test_centre_and_start_by_hand() -> None:
    segments = segments_frame(
        [
            ("a", "jump", 2.0, 6.0),
            ("b", "jump", -3.0, 1.0),  # seen from 0 on
            ("a", "throw", 8.0, 14.0),  # seen until 10
            ("a", "jump", 10.0, 12.0),  # begins where the video ends
            ("b", "throw", -2.0, 0.0),
        ]
    )
    durations_s = pd.Series({"a": 10.0, "b": 20.0})
    centre = points_in_segments(segments, durations_s, "centre", 0)
    assert centre.to_numpy().tolist() == [["a", "jump", 4.0], ["b", "jump", 0.5], ["a", "throw", 9]]
    start = points_in_segments(segments, durations_s, "start", 0)
    assert start["t"].tolist() == [2.0, 0.0, 8.0]
    assert points_in_segments(segments[:0], durations_s, "start", 0).empty
    with pytest.raises(ValueError, match="'auto', expected 'gaussian'"):
        points_in_segments(segments, durations_s, "auto", 0)


def test_distributions_of_drawn_points() -> None:
    count = 20_000
    segments = segments_frame([("a", "jump", 10.0, 22.0)] * count)
    durations_s = pd.Series({"a": 100.0})
    t_s = {
        how: points_in_segments(segments, durations_s, how, 3)["t"]
        for how in ("gaussian", "uniform")
    }
    assert t_s["gaussian"].mean() == pytest.approx(16, abs=0.06)
    assert t_s["gaussian"].std() == pytest.approx(2, abs=0.06)  # a sixth, less the clipped 0.3 %
    assert t_s["uniform"].mean() == pytest.approx(16, abs=0.1)
    assert np.quantile(t_s["uniform"], [0.25, 0.75]) == pytest.approx([13, 19], abs=0.15)
    assert points_in_segments(segments, durations_s, "uniform", 4)["t"].ne(t_s["uniform"]).any()


times = st.floats(-50, 150, allow_subnormal=False)
drawn_segments = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["jump", "throw"]), times, times).filter(
        lambda row: row[2] < row[3]
    ),
    max_size=12,
)


@given(drawn_segments, st.sampled_from(DRAWN), st.integers(0, 9))
def test_points_lie_in_their_segments_and_videos(rows: list, how: str, seed: int) -> None:
    durations_s = pd.Series({"a": 60.0, "b": 99.5})
    segments = segments_frame(rows)
    points = points_in_segments(segments, durations_s, how, seed)
    shown = [row for row in rows if row[2] < durations_s[row[0]] and row[3] > 0]
    assert len(points) == len(shown)
    for point, (video, label, start_s, end_s) in zip(points.itertuples(), shown, strict=True):
        assert (point.video, point.label) == (video, label)
        assert max(0, start_s) <= point.t <= min(end_s, durations_s[video])
    again = points_in_segments(segments, durations_s, how, seed)
    pd.testing.assert_frame_equal(points, again, check_exact=True)


# What training sees


def supervision(rows: list[tuple[str, str, float]]) -> PointSupervision:
    """Two videos of 5 and 3 snippets of 16 frames at 8 a second: 2 s each."""
    features = torch.arange(16.0).reshape(8, 2)
    store = FeatureStore(features, {"v": (0, 5), "w": (5, 3)}, 16, 16, {"v": 8.0, "w": 8.0})
    return PointSupervision(("w", "v"), ("hop", "jump", "run"), store, points_frame(rows))


def test_rows_and_labels_by_hand() -> None:
    points = supervision(
        [
            ("v", "run", 4.0),  # the first moment of snippet 2
            ("v", "hop", 0.0),
            ("v", "hop", 3.99),
            ("v", "jump", 30.0),  # beyond the features
            ("v", "run", 1.0),
        ]
    )
    snippets, classes = points.rows_of("v")
    assert snippets.tolist() == [0, 0, 1, 2, 4]
    assert classes.tolist() == [0, 2, 0, 2, 1]
    assert points.multi_hot("v").tolist() == [
        [1, 0, 1],
        [1, 0, 0],
        [0, 0, 1],
        [0, 0, 0],
        [0, 1, 0],
    ]
    assert points.multi_hot("w").tolist() == [[0, 0, 0]] * 3
    assert [len(part) for part in points.rows_of("w")] == [0, 0]
    assert points.labels().tolist() == [[0, 0, 0], [1, 1, 1]]
    with pytest.raises(KeyError, match="x"):
        points.multi_hot("x")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "no points"),
        ([("x", "run", 1.0)], "points of video 'x'"),
        ([("v", "swim", 1.0)], "points of label 'swim'"),
    ],
)
def test_points_that_cannot_be_taught(rows: list, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        supervision(rows)


@pytest.mark.parametrize("how", ["auto", *DRAWN])
def test_supervision_is_of_training_videos_only(tiny_dataset: Dataset, how: str) -> None:
    points = supervision_of(tiny_dataset, how, 5)
    train = tiny_dataset.video_names("train")
    assert list(points.videos) == train
    assert set(points.points["video"]) <= set(train)
    assert list(points.features.offsets) == train
    for video in train:
        assert torch.equal(points.features[video], tiny_dataset.generator_features[video])
    with pytest.raises(KeyError):
        points.features[tiny_dataset.video_names("test")[0]]
    assert torch.equal(points.labels(), tiny_dataset.video_labels("train"))
    same = supervision_of(tiny_dataset, how, 5).points
    pd.testing.assert_frame_equal(points.points, same, check_exact=True)


@pytest.mark.parametrize("how", DRAWN)
def test_test_videos_do_not_move_drawn_points(tiny_dataset: Dataset, how: str) -> None:
    only = tiny_dataset.videos["subset"] == "train"
    alone = replace(
        tiny_dataset, videos=tiny_dataset.videos[only], segments=tiny_dataset.truth("train")
    )
    expected = supervision_of(tiny_dataset, how, 1).points
    pd.testing.assert_frame_equal(supervision_of(alone, how, 1).points, expected, check_exact=True)


def test_what_training_gets_holds_no_segment(tiny_dataset: Dataset) -> None:
    """Neither the truth itself nor a way back to it: there is a moment and nothing else."""
    points = supervision_of(tiny_dataset, "uniform", 0)
    names = [field.name for field in fields(points)]
    assert names == ["videos", "classes", "features", "points"]
    assert points.points.columns.tolist() == ["video", "label", "t"]
    # Where the given points are taken, the truth may be anything.
    false = tiny_dataset.segments.assign(t_start=0.0, t_end=1.0)
    seen = supervision_of(replace(tiny_dataset, segments=false), "given", 0)
    pd.testing.assert_frame_equal(seen.points, supervision_of(tiny_dataset, "given", 0).points)


def test_given_and_auto(tiny_dataset: Dataset) -> None:
    given_points = supervision_of(tiny_dataset, "given", 0).points
    pd.testing.assert_frame_equal(given_points, tiny_dataset.points)
    pd.testing.assert_frame_equal(supervision_of(tiny_dataset, "auto", 0).points, given_points)
    bare = replace(tiny_dataset, points=points_frame())
    drawn = supervision_of(tiny_dataset, "gaussian", 0).points
    pd.testing.assert_frame_equal(supervision_of(bare, "auto", 0).points, drawn)
    with pytest.raises(DataError, match=r"no point labels.*--set hr_pro\.points=gaussian"):
        supervision_of(bare, "given", 0)
    beside = bare.segments.assign(t_start=1e6, t_end=1e6 + 1)
    with pytest.raises(DataError, match="no training segment inside its video"):
        supervision_of(replace(bare, segments=beside), "auto", 0)
