"""Pseudo labels as the annotation file that the original student's program reads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from student_helpers import tiny_dataset

from fustal_core.annotations import Report, read_annotations
from fustal_core.results import write_pseudo_labels

SELECTED = pd.DataFrame(
    [
        ("train1", "run", 1 / 3, 2.25, 0.5, 1.5),
        ("train0", "jump", 0.0, 1.2, 0.75, 0.2),
        ("train1", "dive", 3.0, 4.0, -0.125, 0.3),
    ],
    columns=["video", "label", "t_start", "t_end", "score", "iou_score"],
)


def test_the_file_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "pseudo_labels.json"
    dataset = tiny_dataset()
    fps = {**dataset.student_features.fps, "train0": 30.0}
    dataset = replace(dataset, student_features=replace(dataset.student_features, fps=fps))
    write_pseudo_labels(path, SELECTED, dataset, "tests")
    content = json.loads(path.read_text())
    assert content["version"] == "tests"
    assert content["database"]["train0"] == {
        "subset": "Validation",
        "duration": dataset.videos.loc["train0", "duration_s"],
        "fps": 30.0,
        "annotations": [
            {
                "label": "jump",
                "label_id": 1,
                "segment": [0.0, 1.2],
                "segment(frames)": [0.0, 36.0],
                "score": 0.75,
            }
        ],
    }
    found = [(a["label_id"], a["score"]) for a in content["database"]["train1"]["annotations"]]
    assert found == [(2, 0.5), (0, -0.125)]
    assert content["database"]["train2"]["annotations"] == []
    assert content["database"]["test0"]["subset"] == "Test"
    assert "score" not in content["database"]["test0"]["annotations"][0]


def test_it_is_an_annotation_file_with_the_selected_and_the_test_segments(tmp_path: Path) -> None:
    path, dataset, report = tmp_path / "pseudo_labels.json", tiny_dataset(), Report()
    write_pseudo_labels(path, SELECTED, dataset, "tests")
    found = read_annotations(path, report)
    assert not report.problems
    assert found.videos.index.tolist() == dataset.videos.index.tolist()
    train = found.segments["video"].str.startswith("train")
    columns = ["video", "label", "t_start", "t_end"]
    expected = SELECTED[columns].sort_values("video", kind="stable").reset_index(drop=True)
    pd.testing.assert_frame_equal(found.segments[train], expected, check_exact=True)
    truth = found.segments[~train].reset_index(drop=True)
    pd.testing.assert_frame_equal(truth, dataset.truth("test"), check_exact=True)


def test_a_number_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pseudo_labels.json"
    with pytest.raises(ValueError, match="JSON"):
        write_pseudo_labels(path, SELECTED.assign(score=float("nan")), tiny_dataset(), "tests")
    assert not path.exists()
