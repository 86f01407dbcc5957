"""Videos and ambiguous intervals that a measure leaves out, by hand and against a slow reference."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fustal_core.annotations import DataError, segments_frame
from fustal_core.left_out import check_excluded, leave_out
from fustal_core.metrics import DETECTION_COLUMNS
from fustal_core.results import read_ambiguous

TRUTH = segments_frame([("v", "run", 0.0, 10.0), ("w", "run", 0.0, 4.0), ("v", "hop", 20.0, 30.0)])


def detections(rows: list[tuple[str, str, float, float]]) -> pd.DataFrame:
    """Rows (video, label, start, end), scored in falling order."""
    scored = [(*row, 1.0 - 0.01 * place) for place, row in enumerate(rows)]
    return pd.DataFrame(scored, columns=list(DETECTION_COLUMNS))


def intervals(rows: list[tuple[str, float, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["video", "t_start", "t_end"])


FOUND = detections(
    [
        ("v", "run", 0.0, 10.0),  # ends where the interval begins
        ("w", "run", 0.0, 4.0),
        ("v", "hop", 9.0, 10.5),  # shares half a second, and is of a class of its own
        ("v", "run", 0.0, 40.0),  # holds it all
        ("v", "run", 12.0, 20.0),  # begins where it ends
        ("w", "run", 10.0, 12.0),  # of another video
        ("v", "run", 11.0, 11.5),  # inside it
    ]
)
AMBIGUOUS = intervals([("v", 10.0, 12.0), ("x", 0.0, 100.0)])


def test_by_hand(tmp_path: Path) -> None:
    listed = tmp_path / "ambiguous.txt"
    listed.write_text("v 10 12\nx 0.0 100.0\n")
    found, truth = leave_out(FOUND, TRUTH, [], read_ambiguous(listed))
    pd.testing.assert_frame_equal(found, FOUND.iloc[[0, 1, 4, 5]].reset_index(drop=True))
    pd.testing.assert_frame_equal(truth, TRUTH)
    found, truth = leave_out(FOUND, TRUTH, ["w", "unheard of"], AMBIGUOUS)
    pd.testing.assert_frame_equal(found, FOUND.iloc[[0, 4]].reset_index(drop=True))
    pd.testing.assert_frame_equal(truth, TRUTH.iloc[[0, 2]].reset_index(drop=True))


def test_nothing_to_leave_out_changes_nothing() -> None:
    for none in (None, AMBIGUOUS[:0]):
        found, truth = leave_out(FOUND, TRUTH, (), none)
        pd.testing.assert_frame_equal(found, FOUND)
        pd.testing.assert_frame_equal(truth, TRUTH)
    found, truth = leave_out(FOUND[:0], TRUTH, ["v"], AMBIGUOUS)
    assert found.empty
    assert found.columns.tolist() == list(DETECTION_COLUMNS)
    assert truth["video"].tolist() == ["w"]


def test_arguments_are_left_as_they_are() -> None:
    before = FOUND.copy(), TRUTH.copy(), AMBIGUOUS.copy()
    leave_out(FOUND, TRUTH, ["v"], AMBIGUOUS)
    for now, then in zip((FOUND, TRUTH, AMBIGUOUS), before, strict=True):
        pd.testing.assert_frame_equal(now, then)


spans = st.tuples(st.sampled_from("vwx"), st.integers(0, 12), st.integers(1, 5))


@given(st.lists(spans, max_size=10), st.lists(spans, max_size=6), st.sets(st.sampled_from("vwy")))
def test_as_a_loop_over_all_pairs(
    found: list[tuple], listed: list[tuple], exclude: set[str]
) -> None:
    rows = [(video, "run", start / 2, (start + length) / 2) for video, start, length in found]
    ambiguous = [(video, start / 2, (start + length) / 2) for video, start, length in listed]
    kept, truth = leave_out(detections(rows), TRUTH, exclude, intervals(ambiguous))
    expected = [
        row
        for row in detections(rows).itertuples(index=False, name=None)
        if row[0] not in exclude
        and not any(
            video == row[0] and min(end, row[3]) > max(start, row[2])
            for video, start, end in ambiguous
        )
    ]
    assert list(kept.itertuples(index=False, name=None)) == expected
    assert not set(truth["video"]) & exclude


def test_lists_that_leave_out_nothing_or_all() -> None:
    check_excluded([], TRUTH)
    check_excluded(["w", "a video the data set does not have"], TRUTH)
    with pytest.raises(DataError, match=r"'W'.*expected a test video"):
        check_excluded(["W"], TRUTH)
    with pytest.raises(DataError, match=r"'v', 'w'.*nothing is left"):
        check_excluded(["w", "v"], TRUTH)
