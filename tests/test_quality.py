"""The pseudo-label quality report on hand-worked videos, and against slow counting."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fustal_core.metrics import DETECTION_COLUMNS, TRUTH_COLUMNS
from fustal_core.quality import (
    KINDS,
    assign,
    boundary_errors,
    pseudo_label_quality,
    quality_by_class,
)
from fustal_core.reference import iou_of_two

TRUTH = pd.DataFrame(
    [("v", "run", 0, 10), ("v", "run", 20, 30), ("v", "jump", 40, 50), ("w", "run", 2, 6)],
    columns=[*TRUTH_COLUMNS],
)
DURATIONS = {"v": 80.0, "w": 20.0}
LABELS = pd.DataFrame(
    [
        ("v", "run", 60, 70, 0.1),  # background
        ("v", "run", 0, 8, 0.9),  # true, tIoU 0.8, end 2 s early
        ("v", "run", 1, 9, 0.8),  # duplicate of the first segment
        ("v", "run", 20, 24, 0.7),  # localisation, tIoU 0.4
        ("v", "run", 41, 49, 0.6),  # wrong class
        ("w", "run", 3, 7, 0.5),  # true, tIoU 0.6, both ends 1 s late
    ],
    columns=[*DETECTION_COLUMNS],
)


def test_kinds_of_proposals() -> None:
    result = assign(LABELS, TRUTH)
    expected = ["background", "true", "duplicate", "localisation", "wrong class", "true"]
    assert result["kind"].tolist() == expected
    assert result["tiou"].tolist() == pytest.approx([0, 0.8, 0.8, 0.4, 0, 0.6])


def test_kinds_keep_the_index_of_the_labels() -> None:
    result = assign(LABELS.set_index(pd.Index([5, 3, 9, 1, 0, 7])), TRUTH)
    assert result.index.tolist() == [5, 3, 9, 1, 0, 7]
    assert result.loc[9, "kind"] == "duplicate"


def test_the_threshold_of_a_true_proposal() -> None:
    assert assign(LABELS, TRUTH, tiou=0.7)["kind"].tolist()[-1] == "localisation"
    assert assign(LABELS, TRUTH, tiou=0.4)["kind"].tolist()[3] == "true"
    with pytest.raises(ValueError, match="tiou: expected"):
        assign(LABELS, TRUTH, tiou=0.05)


def test_report_by_hand() -> None:
    report = pseudo_label_quality(LABELS, TRUTH, DURATIONS)
    assert len(report) == 1
    row = report.iloc[0]
    assert (row["proposals"], row["instances"]) == (6, 4)
    assert row["precision@0.3"] == pytest.approx(3 / 6)  # with the one of tIoU 0.4
    assert row["recall@0.3"] == pytest.approx(3 / 4)
    assert row["precision@0.5"] == pytest.approx(2 / 6)
    assert row["recall@0.5"] == pytest.approx(2 / 4)
    assert row["f1@0.5"] == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert row["precision@0.7"] == pytest.approx(1 / 6)
    assert row["mean_tiou"] == pytest.approx((0.8 + 0.6) / 2)
    assert row["start_error_s"] == pytest.approx((0 + 1) / 2)
    assert row["end_error_s"] == pytest.approx((2 + 1) / 2)
    assert row["start_error_relative"] == pytest.approx((0 + 1 / 4) / 2)
    assert row["end_error_relative"] == pytest.approx((2 / 10 + 1 / 4) / 2)
    assert row["proposals_per_instance"] == pytest.approx(6 / 4)
    assert row["fragments"] == pytest.approx(4 / 3)  # two, one, one; none on "jump"
    # v spurious: 60..70 and 41..49; w: 6..7.  v missed: 9..10, 24..30, 40..50; w: 2..3.
    assert row["spurious_time"] == pytest.approx((10 + 8 + 1) / 100)
    assert row["missed_time"] == pytest.approx((1 + 6 + 10 + 1) / 100)
    assert row["wrong_time"] == pytest.approx((10 + 1 + 6 + 10 + 1 + 1) / 100)
    shares = row[["true", "duplicate", "localisation", "wrong_class", "background"]].tolist()
    assert shares == pytest.approx([2 / 6, 1 / 6, 1 / 6, 1 / 6, 1 / 6])


def test_signed_boundary_errors_by_hand() -> None:
    errors = boundary_errors(LABELS, TRUTH)
    assert errors.index.tolist() == [1, 5]  # rows of the labels, by falling score
    assert errors["start"].tolist() == pytest.approx([0, 1 / 4])
    assert errors["end"].tolist() == pytest.approx([-2 / 10, 1 / 4])
    row = pseudo_label_quality(LABELS, TRUTH, DURATIONS).iloc[0]
    assert errors["end"].abs().mean() == pytest.approx(row["end_error_relative"])
    assert boundary_errors(LABELS[:0], TRUTH).empty


def test_plus_one_changes_kinds_and_tiou_but_no_times() -> None:
    labels = LABELS.iloc[[3, 5]]  # tIoU 4/10 and 3/5; with a second more 5/11 and 4/6
    assert assign(labels, TRUTH, plus_one=True)["tiou"].tolist() == pytest.approx([5 / 11, 4 / 6])
    assert assign(labels, TRUTH, 0.45, plus_one=True)["kind"].tolist() == ["true", "true"]
    assert assign(labels, TRUTH, 0.45)["kind"].tolist() == ["localisation", "true"]
    plain = pseudo_label_quality(labels, TRUTH, DURATIONS).iloc[0]
    longer = pseudo_label_quality(labels, TRUTH, DURATIONS, plus_one=True).iloc[0]
    assert longer["mean_tiou"] == pytest.approx(4 / 6)
    same = ["end_error_s", "end_error_relative", "wrong_time", "spurious_time", "missed_time"]
    assert longer[same].tolist() == plain[same].tolist()


def test_time_beyond_the_video_does_not_count() -> None:
    labels = pd.DataFrame([("w", "run", 0, 500, 0.9)], columns=[*DETECTION_COLUMNS])
    row = pseudo_label_quality(labels, TRUTH[TRUTH["video"] == "w"], {"w": 20.0}).iloc[0]
    assert row["spurious_time"] == pytest.approx(16 / 20)


def test_empty_labels_and_empty_truth() -> None:
    for empty in (pd.DataFrame(), LABELS[:0]):
        row = pseudo_label_quality(empty, TRUTH, DURATIONS).iloc[0]
        assert row["recall@0.5"] == row["precision@0.5"] == row["f1@0.5"] == row["true"] == 0
        assert np.isnan(row["mean_tiou"])
        assert np.isnan(row["fragments"])
        assert row["missed_time"] == row["wrong_time"] == pytest.approx(34 / 100)
        assert assign(empty, TRUTH).empty
    row = pseudo_label_quality(LABELS, TRUTH[:0], DURATIONS).iloc[0]
    assert row["background"] == 1
    assert row["recall@0.5"] == 0


def test_errors_name_the_video() -> None:
    with pytest.raises(ValueError, match="no duration for video 'w'"):
        pseudo_label_quality(LABELS, TRUTH, {"v": 80.0})
    with pytest.raises(ValueError, match=r"reversed.*'v'"):
        assign(LABELS.assign(t_end=LABELS["t_start"] - 1), TRUTH)


def random_case(seed: int, n: int, m: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Integer times in [0, 20], so that time can be counted second by second."""
    rng = np.random.default_rng(seed)

    def rows(count: int) -> pd.DataFrame:
        times = np.sort(rng.integers(0, 21, (count, 2)), axis=1)
        table = {"video": rng.choice(["v", "w"], count), "label": rng.choice(["x", "y"], count)}
        return pd.DataFrame(table | {"t_start": times[:, 0], "t_end": times[:, 1]})

    return rows(n).assign(score=rng.permutation(n) / max(n, 1)), rows(m)


cases = st.builds(random_case, st.integers(0, 2**32 - 1), st.integers(0, 30), st.integers(0, 12))


@settings(max_examples=40, deadline=None)
@given(cases)
def test_time_errors_equal_counting_second_by_second(case: tuple) -> None:
    labels, truth = case
    counts = {"wrong_time": 0, "spurious_time": 0, "missed_time": 0}
    for video in ("v", "w"):
        for second in range(20):
            present = [
                {
                    row.label
                    for row in frame.itertuples()
                    if row.video == video and row.t_start <= second < row.t_end
                }
                for frame in (labels, truth)
            ]
            counts["wrong_time"] += present[0] != present[1]
            counts["spurious_time"] += bool(present[0] - present[1])
            counts["missed_time"] += bool(present[1] - present[0])
    row = pseudo_label_quality(labels, truth, {"v": 20.0, "w": 20.0}).iloc[0]
    for name, count in counts.items():
        assert row[name] == pytest.approx(count / 40)


@settings(max_examples=40, deadline=None)
@given(cases)
def test_kinds_equal_slow_reading_of_their_definition(case: tuple) -> None:
    labels, truth = case
    taken: set[int] = set()
    result = assign(labels, truth)
    for index, label in labels.sort_values("score", ascending=False).iterrows():
        own, other = [], [0.0]
        for row, segment in truth[truth["video"] == label["video"]].iterrows():
            iou = iou_of_two(
                (label["t_start"], label["t_end"]), (segment["t_start"], segment["t_end"])
            )
            if segment["label"] == label["label"]:
                own.append((iou, row))
            else:
                other.append(iou)
        own.sort(reverse=True)
        free = [row for iou, row in own if iou >= 0.5 and row not in taken]
        best = own[0][0] if own else 0.0
        if free:
            taken.add(free[0])
        checks = [bool(free), best >= 0.5, best >= 0.1, max(other) >= 0.1, True]
        assert result.loc[index, "kind"] == KINDS[checks.index(True)]
        assert result.loc[index, "tiou"] == pytest.approx(best)


@settings(max_examples=30, deadline=None)
@given(cases)
def test_report_is_consistent(case: tuple) -> None:
    labels, truth = case
    row = pseudo_label_quality(labels, truth, {"v": 20.0, "w": 20.0}).iloc[0]
    shares = row[[kind.replace(" ", "_") for kind in KINDS]].sum()
    assert shares == pytest.approx(1 if len(labels) else 0)
    assert row["true"] == pytest.approx(row["precision@0.5"])
    assert row["precision@0.3"] >= row["precision@0.7"]
    assert not row["fragments"] < 1


@settings(max_examples=40, deadline=None)
@given(cases)
def test_by_class_is_the_report_on_each_class_alone(case: tuple) -> None:
    labels, truth = case
    table = quality_by_class(labels, truth)
    shown = set().union(*(set(frame["label"]) for frame in case if len(frame)))
    assert table.index.tolist() == sorted(shown)
    for name, found in table.iterrows():
        own = [frame[frame["label"] == name] if len(frame) else frame for frame in case]
        alone = pseudo_label_quality(*own, {"v": 20.0, "w": 20.0}).iloc[0]
        pd.testing.assert_series_equal(found, alone[table.columns], check_names=False, atol=1e-12)


def test_by_class_without_anything() -> None:
    table = quality_by_class(pd.DataFrame(), pd.DataFrame())
    assert len(table) == 0
    assert table.columns[:3].tolist() == ["proposals", "instances", "precision@0.3"]
