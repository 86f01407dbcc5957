"""Result files: the way there and back, and every problem of a bad one in one report."""

import json
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fustal_core import published
from fustal_core.annotations import DataError
from fustal_core.metrics import DETECTION_COLUMNS
from fustal_core.results import (
    keep_subset,
    read_ambiguous,
    read_detections,
    read_ground_truth,
    write_detections,
)

DETECTIONS = pd.DataFrame(
    [("v", "run", 0.5, 2.25, 0.1), ("w", "run", 0.0, 1.0, 0.7), ("v", "jump", 1 / 3, 4.0, 0.9)],
    columns=[*DETECTION_COLUMNS],
)


def test_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "detections.json"
    write_detections(path, DETECTIONS, version="tests")
    expected = DETECTIONS.iloc[[2, 0, 1]].reset_index(drop=True)
    pd.testing.assert_frame_equal(read_detections(path), expected)
    content = json.loads(path.read_text())
    assert content["version"] == "tests"
    assert content["external_data"] == {}
    assert content["results"]["w"] == [{"label": "run", "score": 0.7, "segment": [0.0, 1.0]}]
    assert list(path.parent.iterdir()) == [path]


def test_no_detections(tmp_path: Path) -> None:
    write_detections(tmp_path / "none.json", DETECTIONS[:0], version="tests")
    frame = read_detections(tmp_path / "none.json")
    assert frame.empty
    assert list(frame.columns) == [*DETECTION_COLUMNS]


def test_a_number_that_json_cannot_hold_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "detections.json"
    write_detections(path, DETECTIONS, version="old")
    with pytest.raises(ValueError, match="JSON"):
        write_detections(path, DETECTIONS.assign(score=float("nan")), version="new")
    assert json.loads(path.read_text())["version"] == "old"


def test_all_problems_of_a_file_in_one_report(tmp_path: Path) -> None:
    good = {"label": "run", "score": 1, "segment": [0, 1]}
    results = {
        "a": [good, good | {"segment": [3, 1]}, good | {"score": "0.5"}],
        "b": {"label": "run"},
        "c": [good | {"label": 7}, good | {"segment": [0, None]}, "run", good | {"score": True}],
        "\ud800": [good, good | {"label": "\udfff"}],
    }
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"results": results}))
    with pytest.raises(DataError) as caught:
        read_detections(path)
    problems = caught.value.problems
    assert len(problems) == 9
    assert all(str(path) in problem and "expected" in problem for problem in problems)
    assert "video a: detection 1: segment [3, 1] is reversed" in problems[0]
    assert "score '0.5'" in problems[1]
    assert "video b" in problems[2]
    assert "label 7" in problems[3]
    assert "video \\ud800': expected a name that can be printed" in problems[7]
    assert "label '\\udfff', expected" in problems[8]


@pytest.mark.parametrize("names", [{"\ud800": "run"}, {"v": "\ud800"}])
def test_names_that_cannot_be_encoded_are_refused(tmp_path: Path, names: dict[str, str]) -> None:
    good = {"score": 1, "segment": [0, 1]}
    results = {video: [good | {"label": label}] for video, label in names.items()}
    (tmp_path / "bad.json").write_text(json.dumps({"results": results}))
    with pytest.raises(DataError, match="ud800"):
        read_detections(tmp_path / "bad.json")


@pytest.mark.parametrize("text", ["", "null", "[1, 2]", '{"database": {}}', '{"results": []}'])
def test_files_that_are_no_results(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"odd\.json"):
        read_detections(path)
    with pytest.raises(DataError, match=r"missing\.json"):
        read_detections(tmp_path / "missing.json")


def test_ground_truth_of_a_subset(tmp_path: Path) -> None:
    def video(subset: str) -> dict:
        annotations = [{"segment": [1, 2], "label": "run"}]
        return {"subset": subset, "duration": 9.0, "annotations": annotations}

    path = tmp_path / "truth.json"
    database = {"a": video("Test"), "b": video("validation"), "c": video("Test")}
    path.write_text(json.dumps({"database": database}))
    truth = read_ground_truth(path)
    assert truth.segments["video"].tolist() == ["a", "b", "c"]
    test = keep_subset(truth, "testing", path)
    assert test.segments["video"].tolist() == test.videos.index.tolist() == ["a", "c"]
    assert test.videos.loc["a", "duration_s"] == 9
    with pytest.raises(DataError, match=r"no video in subset 'training'.*Test, validation"):
        keep_subset(truth, "training", path)


def test_published_tables_are_complete_and_in_percent() -> None:
    thumos = published.thumos14().set_index("method")
    assert thumos.loc["FuSTAL", "avg 0.1:0.7"] == 50.8
    cola = thumos.loc["CoLA (released code)"]
    steps = [cola[f"mAP@0.{i}"] for i in range(1, 8)]
    assert sum(steps) / 7 == pytest.approx(cola["avg 0.1:0.7"], abs=0.06)
    assert published.activitynet13().set_index("method").loc["SAL", "avg 0.5:0.95"] == 28.8
    assert thumos["source"].notna().all()


def test_the_papers_histogram() -> None:
    histogram = published.paper_iou_histogram()
    assert (histogram["bin_high"] - histogram["bin_low"]).tolist() == pytest.approx([0.1] * 10)
    assert histogram["false_positives"].is_monotonic_decreasing
    assert histogram["true_positives"].sum() == 4351


def test_ambiguous_intervals(tmp_path: Path) -> None:
    path = tmp_path / "ambiguous.txt"
    path.write_text("video_test_1  0.0 1.4\n\nvideo_test_2\t3 4.5\n")
    expected = [("video_test_1", 0.0, 1.4), ("video_test_2", 3.0, 4.5)]
    assert list(read_ambiguous(path).itertuples(index=False, name=None)) == expected
    path.write_text(path.read_text(), encoding="utf-8-sig")  # as Windows' editors do
    assert list(read_ambiguous(path).itertuples(index=False, name=None)) == expected
    path.write_text(" \n")
    with pytest.raises(DataError, match=r"ambiguous\.txt: no intervals"):
        read_ambiguous(path)
    with pytest.raises(DataError, match=r"none\.txt: cannot be read"):
        read_ambiguous(tmp_path / "none.txt")


NUMBERS = st.sampled_from([0, 1, 2.5, -1, 2**60, 10**400, True, None, "1", [1]])
ENTRIES = st.one_of(
    st.fixed_dictionaries(
        {
            "label": st.just("run"),
            "score": st.just(1),
            "segment": st.sampled_from([[0, 1], [2, 2], [3, 2]]),
        }
    ),
    st.fixed_dictionaries(
        {"label": st.sampled_from(["run", "jump", "", " ", 7, None]), "score": NUMBERS},
        optional={"segment": st.lists(NUMBERS, min_size=1, max_size=3) | NUMBERS},
    ),
    st.sampled_from(["run", 3, None, []]),
)


def is_sound(entry: object) -> bool:
    """What a detection must be, the slow way."""

    def number(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and value < 1e300

    if not isinstance(entry, dict) or not isinstance(entry["label"], str):
        return False
    segment = entry.get("segment")
    return (
        entry["label"].strip() != ""
        and number(entry["score"])
        and isinstance(segment, list)
        and len(segment) == 2
        and all(map(number, segment))
        and segment[0] <= segment[1]
    )


def test_labels_are_read_without_spaces_around_them_as_those_of_the_truth_are(
    tmp_path: Path,
) -> None:
    detection = {"label": " Long Jump ", "score": 0.5, "segment": [0, 1]}
    (tmp_path / "found.json").write_text(json.dumps({"results": {"v": [detection]}}))
    assert read_detections(tmp_path / "found.json")["label"].tolist() == ["Long Jump"]


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), st.lists(ENTRIES, max_size=4)))
def test_a_file_is_read_whole_or_every_bad_detection_is_named(results: dict[str, list]) -> None:
    flat = [(video, entry) for video, entries in results.items() for entry in entries]
    bad = sum(not is_sound(entry) for _, entry in flat)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        path.write_text(json.dumps({"results": results}))
        if bad:
            with pytest.raises(DataError) as caught:
                read_detections(path)
            assert len(caught.value.problems) == bad
            return
        found = read_detections(path)
    expected = [(v, e["label"], *map(float, e["segment"]), float(e["score"])) for v, e in flat]
    assert list(found.itertuples(index=False, name=None)) == expected
