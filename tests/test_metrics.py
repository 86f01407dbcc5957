"""Detection mAP: hand-worked scores, invariances, and equality with the row-by-row evaluator."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fustal_core import matching, metrics
from fustal_core.metrics import detection_map, map_summary, precision_recall, temporal_iou
from fustal_core.reference import area_under_steps, detection_map_by_rows, iou_of_two


def frame(*rows: tuple) -> pd.DataFrame:
    """Rows (video, label, start, end[, score])."""
    return pd.DataFrame(rows, columns=[*metrics.DETECTION_COLUMNS][: len(rows[0])])


# --- temporal_iou ---------------------------------------------------------------------------------


def test_temporal_iou_by_hand() -> None:
    a = np.array([[0.0, 2.0], [1.0, 1.0]])
    b = np.array([[1.0, 3.0], [0.0, 2.0], [2.0, 4.0], [1.0, 1.0]])
    expected = [[1 / 3, 1, 0, 0], [0, 0, 0, 0]]  # a point overlaps nothing, not even itself
    assert temporal_iou(a, b) == pytest.approx(np.array(expected), abs=0)


def test_temporal_iou_keeps_the_kind_and_dtype() -> None:
    a, b = torch.rand(5, 2).cumsum(1), torch.rand(3, 2).cumsum(1)
    result = temporal_iou(a, b)
    assert isinstance(result, torch.Tensor)
    assert result.dtype == torch.float32
    assert result.numpy() == pytest.approx(temporal_iou(a.numpy(), b.numpy()), abs=1e-6)
    assert temporal_iou(a[:0], b).shape == (0, 3)


# --- hand-worked average precision ----------------------------------------------------------------

TWO_SEGMENTS = frame(("v", "run", 0, 10), ("v", "run", 20, 30))


def test_false_detection_between_two_true_ones() -> None:
    detections = frame(
        ("v", "run", 0, 10, 0.9), ("v", "run", 50, 60, 0.8), ("v", "run", 20, 30, 0.7)
    )
    ap = detection_map(detections, TWO_SEGMENTS, [0.5]).loc["run", 0.5]
    assert ap == pytest.approx(1 / 2 * 1 + 1 / 2 * (2 / 3))


def test_precision_is_made_monotone_from_the_right() -> None:
    detections = frame(
        ("v", "run", 50, 60, 0.9), ("v", "run", 0, 10, 0.8), ("v", "run", 20, 30, 0.7)
    )
    # Raw precision at the true ones is 1/2, 2/3: the first counts as 2/3 too.
    assert detection_map(detections, TWO_SEGMENTS, [0.5]).loc["run", 0.5] == pytest.approx(2 / 3)


def test_a_second_detection_of_a_segment_is_false() -> None:
    detections = frame(("v", "run", 0, 10, 0.9), ("v", "run", 0, 9, 0.8), ("v", "run", 20, 30, 0.7))
    ap = detection_map(detections, TWO_SEGMENTS, [0.5]).loc["run", 0.5]
    assert ap == pytest.approx(1 / 2 + 1 / 2 * (2 / 3))


def test_a_detection_goes_on_to_its_next_best_segment() -> None:
    truth = frame(("v", "run", 0, 10), ("v", "run", 2, 14))
    detections = frame(("v", "run", 0, 10, 0.9), ("v", "run", 0, 11, 0.8))
    # The second is best on the first segment (10/11), which is taken; it has 9/14 on the other.
    table = detection_map(detections, truth, [0.6, 0.7])
    assert table.loc["run"].tolist() == pytest.approx([1, 1 / 2])


def test_segments_are_taken_at_each_threshold_apart() -> None:
    truth = frame(("v", "run", 0, 10))
    detections = frame(("v", "run", 0, 5, 0.9), ("v", "run", 0, 10, 0.8))
    # At 0.5 the first takes it; at 0.6 it is false and the second takes it at precision 1/2.
    assert detection_map(detections, truth, [0.5, 0.6]).loc["run"].tolist() == [1, 1 / 2]


def test_other_videos_and_other_classes_do_not_match() -> None:
    truth = frame(("v", "run", 0, 10), ("w", "jump", 0, 10))
    detections = frame(
        ("w", "run", 0, 10, 0.9), ("nowhere", "run", 0, 10, 0.8), ("v", "run", 0, 10, 0.7)
    )
    table = detection_map(detections, truth, [0.5])
    assert table.loc["run", 0.5] == pytest.approx(1 / 3)
    assert table.loc["jump", 0.5] == 0


def test_a_later_row_wins_a_tie_in_score() -> None:
    truth = frame(("v", "run", 0, 10))
    right, wrong = ("v", "run", 0, 10, 0.5), ("v", "run", 50, 60, 0.5)
    assert detection_map(frame(wrong, right), truth, [0.5]).iloc[0, 0] == 1
    assert detection_map(frame(right, wrong), truth, [0.5]).iloc[0, 0] == 1 / 2


def test_empty_frames() -> None:
    table = detection_map(pd.DataFrame(), TWO_SEGMENTS, [0.3, 0.5])
    assert table.shape == (1, 2)
    assert (table == 0).all(axis=None)
    assert detection_map(pd.DataFrame(), pd.DataFrame(), [0.3, 0.5]).shape == (0, 2)
    assert precision_recall(pd.DataFrame(), TWO_SEGMENTS).empty


def test_precision_recall_is_the_curve_under_which_the_area_lies() -> None:
    detections, truth = random_case(np.random.default_rng(4), 60, 12)
    curve = precision_recall(detections, truth, 0.4)
    for label, part in curve.groupby("label"):
        area = np.sum(np.diff(part["recall"], prepend=0) * part["monotone"])
        assert area == pytest.approx(detection_map(detections, truth, [0.4]).loc[label, 0.4])
        assert part["score"].is_monotonic_decreasing
        assert (part["monotone"] >= part["precision"]).all()


def test_summary_is_in_percent_and_names_its_ranges() -> None:
    detections = frame(("v", "run", 0, 5.5, 0.9))  # tIoU 0.55: true up to 0.5, recall 1/2
    summary = map_summary(detections, TWO_SEGMENTS)
    assert list(summary) == [f"mAP@0.{i}" for i in range(1, 8)] + [
        "avg 0.1:0.5",
        "avg 0.3:0.7",
        "avg 0.1:0.7",
    ]
    assert summary["mAP@0.5"] == 50
    assert summary["mAP@0.6"] == 0
    assert summary["avg 0.1:0.5"] == 50
    assert summary["avg 0.3:0.7"] == pytest.approx(50 * 3 / 5)
    assert summary["avg 0.1:0.7"] == pytest.approx(50 * 5 / 7)


def test_summary_with_other_thresholds() -> None:
    detections = frame(("v", "run", 0, 10, 0.9))
    activitynet = map_summary(detections, TWO_SEGMENTS, metrics.ACTIVITYNET_TIOU)
    assert [key for key in activitynet if key.startswith("avg")] == ["avg 0.5:0.95"]
    assert list(map_summary(detections, TWO_SEGMENTS, [0.5])) == ["mAP@0.5"]
    spaced = map_summary(detections, TWO_SEGMENTS, np.linspace(0.1, 0.7, 7))
    assert list(spaced) == list(map_summary(detections, TWO_SEGMENTS))


@pytest.mark.parametrize(
    ("tiou", "names"),
    [
        ([0.7, 0.1], ["0.1,0.7"]),
        ([0.5, 0.75, 0.95], ["0.5,0.75,0.95"]),
        ([0.2, 0.3, 0.4], ["0.2:0.4"]),
        ([0.1, 0.4, 0.7], ["0.1:0.3:0.7"]),
        (np.linspace(0.1, 0.7, 13), ["0.1:0.5", "0.3:0.7", "0.1:0.7", "0.1:0.05:0.7"]),
        (np.linspace(0.5, 0.9, 9), ["0.5:0.05:0.9"]),
        (metrics.ACTIVITYNET_TIOU, ["0.5:0.95"]),
    ],
)
def test_an_average_over_other_thresholds_takes_no_standard_name(
    tiou: list[float], names: list[str]
) -> None:
    """The mean of 0.1 and 0.7 alone would be read, and in a run be kept, as that of all seven."""
    ranges = metrics.average_ranges(tiou)
    assert list(ranges) == names
    assert ranges[names[-1]] == sorted(round(t, 10) for t in tiou)


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("detections", "message"),
    [
        (frame(("v", "rum", 0, 1, 0.5)), "class 'rum' unknown to the ground truth.*'run'"),
        (frame(("w7", "run", 3, 1, 0.5)), r"detections: reversed.*'w7'.*\[3, 1\]"),
        (frame(("w7", "run", np.nan, 1, 0.5)), "detections: NaN.*'w7'"),
        (frame(("w7", "run", 0, np.inf, 0.5)), "detections: NaN or infinite.*'w7'"),
        (frame(("w7", "run", 0, 1, np.nan)), "score is NaN.*'w7'"),
        (frame(("v", "run", 0, 1)), "detections: expected columns.*missing score"),
    ],
)
def test_bad_detections_are_named(detections: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detection_map(detections, TWO_SEGMENTS, [0.5])


def test_bad_ground_truth_and_thresholds_are_named() -> None:
    detections = frame(("v", "run", 0, 1, 0.5))
    with pytest.raises(ValueError, match=r"ground truth: reversed.*'x'"):
        detection_map(detections, frame(("x", "run", 2, 1)), [0.5])
    with pytest.raises(ValueError, match="no class"):
        detection_map(detections, TWO_SEGMENTS[:0], [0.5])
    for bad in ([], [0.0], [1.2], [np.nan]):
        with pytest.raises(ValueError, match=r"\(0, 1\]"):
            detection_map(detections, TWO_SEGMENTS, bad)


# --- against the row-by-row evaluator, and invariances --------------------------------------------


def random_case(
    rng: np.random.Generator, detections: int, segments: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Crowded segments on a coarse grid: many ties in tIoU, long chains of refusals."""

    def rows(n: int) -> pd.DataFrame:
        start = rng.integers(0, 12, n) / 2
        length = rng.integers(0, 8, n) / 2
        table = {"video": rng.choice(["a", "b", "c"], n), "label": rng.choice(["x", "y"], n)}
        return pd.DataFrame(table | {"t_start": start, "t_end": start + length})

    truth = rows(segments)
    truth["label"] = np.resize(["x", "y"], segments)
    return rows(detections).assign(score=rng.permutation(detections) / detections), truth


cases = st.builds(
    lambda seed, n, m: random_case(np.random.default_rng(seed), n, m),
    st.integers(0, 2**32 - 1),
    st.integers(1, 80),
    st.integers(2, 25),
)


@settings(max_examples=60, deadline=None)
@given(cases)
def test_equals_the_row_by_row_evaluator(case: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    fast = detection_map(*case, metrics.THUMOS_TIOU)
    slow = detection_map_by_rows(*case, metrics.THUMOS_TIOU)
    pd.testing.assert_frame_equal(fast, slow, check_names=False, rtol=0, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(cases)
def test_plus_one_equals_the_row_by_row_evaluator(case: tuple) -> None:
    fast = detection_map(*case, metrics.THUMOS_TIOU, plus_one=True)
    slow = detection_map_by_rows(*case, metrics.THUMOS_TIOU, plus_one=True)
    pd.testing.assert_frame_equal(fast, slow, check_names=False, rtol=0, atol=1e-12)


def test_plus_one_by_hand() -> None:
    truth = frame(("v", "run", 0, 2))
    apart = frame(("v", "run", 2.5, 3, 0.9))  # inter 2 - 2.5 + 1, union 3 + 1.5 - 0.5
    assert iou_of_two((0, 2), (2.5, 3), extra=1.0) == pytest.approx(1 / 8)
    assert detection_map(apart, truth, [0.1, 0.2], plus_one=True).loc["run"].tolist() == [1, 0]
    assert detection_map(apart, truth, [0.1]).loc["run"].tolist() == [0]
    short = frame(("v", "run", 0, 1, 0.9))  # 2/3 instead of 1/2
    assert detection_map(short, truth, [0.6], plus_one=True).iloc[0, 0] == 1
    assert detection_map(short, truth, [0.6]).iloc[0, 0] == 0
    assert precision_recall(short, truth, 0.6, plus_one=True)["recall"].tolist() == [1]


def test_pairs_made_in_pieces_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(np.random.default_rng(0), 70, 20)
    whole = detection_map(*case)
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", 13)
    pd.testing.assert_frame_equal(detection_map(*case), whole)


@settings(max_examples=30, deadline=None)
@given(cases, st.integers(0, 2**32 - 1))
def test_order_of_rows_does_not_matter(case: tuple, seed: int) -> None:
    detections, truth = case
    shuffled = detections.sample(frac=1, random_state=seed)
    pd.testing.assert_frame_equal(detection_map(shuffled, truth), detection_map(detections, truth))


@settings(max_examples=30, deadline=None)
@given(cases, st.sampled_from([0.25, 4.0]), st.sampled_from([-64.0, 0.0, 1024.0]))
def test_time_shift_and_scale_do_not_matter(case: tuple, scale: float, shift: float) -> None:
    moved = []
    for table in case:
        times = {name: table[name] * scale + shift for name in ("t_start", "t_end")}
        moved.append(table.assign(**times))
    pd.testing.assert_frame_equal(detection_map(*moved), detection_map(*case))


@settings(max_examples=30, deadline=None)
@given(cases)
def test_a_worse_scored_false_detection_never_helps(case: tuple) -> None:
    detections, truth = case
    false = frame(("a", "x", 1000, 1001, -1.0))
    after = detection_map(pd.concat([detections, false]), truth)
    assert (after <= detection_map(detections, truth)).all(axis=None)


@settings(max_examples=30, deadline=None)
@given(cases)
def test_perfect_detections_score_one(case: tuple) -> None:
    _, truth = case
    truth = truth[truth["t_end"] > truth["t_start"]]
    perfect = truth.assign(score=0.5)
    assert (detection_map(perfect, truth, [0.1, 0.5, 1.0]) >= 1 - 1e-12).all(axis=None)


def test_the_reference_area_by_hand() -> None:
    assert area_under_steps([False, True, True], 2) == pytest.approx(2 / 3)
    assert area_under_steps([True, False], 4) == pytest.approx(1 / 4)
