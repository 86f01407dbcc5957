"""Proposals against a threshold-by-threshold reference, and scores worked by hand."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.interpolate import interp1d

from fustal_core.proposals import (
    FUSTAL,
    Localization,
    find_candidates,
    find_runs,
    generate_proposals,
    normalise,
    outer_inner_contrast,
    upsample,
)
from fustal_core.reference_proposals import consecutive, proposals_by_loops, suppressed

COLUMNS = ["label", "score", "t_start", "t_end"]


def random_video(length: int, classes: int, seed: int) -> tuple[np.ndarray, ...]:
    """T-CAS with stretches of zeros (T, C), its sum, and video scores."""
    rng = np.random.default_rng(seed)
    cas = np.maximum(rng.normal(0.2, 1.0, size=(length, classes)), 0)
    scores = rng.dirichlet(np.ones(classes))
    return cas, cas.sum(1), scores


def in_time(frame: pd.DataFrame) -> np.ndarray:
    return frame.sort_values(["label", "t_start", "t_end", "score"]).to_numpy(float)


# --- against the reference ------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.integers(2, 40), st.integers(1, 5), st.integers(0, 10_000))
def test_candidates_equal_loops(length: int, classes: int, seed: int) -> None:
    video = (*random_video(length, classes, seed), 3 * length, 0.64)
    ours = generate_proposals(*video, nms=False)
    expected = proposals_by_loops(*video, nms=False)
    assert ours.columns.tolist() == COLUMNS
    assert in_time(ours) == pytest.approx(in_time(expected), abs=1e-9)


@settings(max_examples=40)
@given(st.integers(2, 40), st.integers(1, 5), st.integers(0, 10_000))
def test_proposals_are_the_candidates_after_nms_by_loops(
    length: int, classes: int, seed: int
) -> None:
    # Two candidates of one straight flank can have the same score but for its last bit, so both
    # ways must start from the same scores.
    video = (*random_video(length, classes, seed), 3 * length, 0.64)
    expected = []
    for label, rows in generate_proposals(*video, nms=False).groupby("label"):
        candidates = list(rows[COLUMNS[1:]].itertuples(index=False, name=None))
        expected += [(label, *row) for row in suppressed(candidates, 0.5, extra=1.0)]
    found = generate_proposals(*video)
    assert list(found.itertuples(index=False, name=None)) == expected


def test_proposals_of_a_long_video_equal_loops_in_order() -> None:
    video = (*random_video(150, 4, seed=3), 150, 0.64)
    ours, expected = generate_proposals(*video), proposals_by_loops(*video)
    assert len(ours) > 50
    assert ours.to_numpy(float) == pytest.approx(expected.to_numpy(float), abs=1e-9)


def test_kinds_of_arrays_give_the_same() -> None:
    cas, actionness, scores = random_video(30, 3, seed=0)
    expected = generate_proposals(cas, actionness, scores, 30, 0.64)
    tensors = [torch.from_numpy(x).requires_grad_() for x in (cas, actionness, scores)]
    pd.testing.assert_frame_equal(generate_proposals(*tensors, 30, 0.64), expected)
    single = [x.astype(np.float32) for x in (cas, actionness, scores)]
    found = generate_proposals(*single, 30, 0.64, nms=False)
    exact = generate_proposals(cas, actionness, scores, 30, 0.64, nms=False)
    assert found["score"].to_numpy() == pytest.approx(exact["score"].to_numpy(), abs=1e-5)


# --- by hand --------------------------------------------------------------------------------------


def test_thresholds() -> None:
    assert FUSTAL.cas_thresholds == pytest.approx([0.025 * i for i in range(10)])
    assert FUSTAL.actionness_thresholds == pytest.approx([0.1 + 0.025 * i for i in range(33)])


def test_a_ramp_by_hand() -> None:
    """Two snippets 0 and 1 are upsampled to 0, 1/24 .. 47/24: every run ends at the end."""
    ramp = np.array([0.0, 1.0])
    found = generate_proposals(ramp[:, None], ramp, np.array([0.5]), 10, 0.64, nms=False)
    expected = []
    # 1/24 > 0.025 and 2/24 > 0.075 and so on: the first position at or above each threshold.
    cas_starts = [1] + [-(-24 * i // 40) for i in range(1, 10)]
    actionness_starts = [-(-24 * (4 + i) // 40) for i in range(33)]
    for number, first in enumerate(cas_starts + actionness_starts):
        inside = Fraction(sum(range(first, 48)), 24 * (48 - first))
        outside = range(max(0, int(first - 0.25 * (48 - first))), first)
        around = Fraction(0)
        if number >= 10 and len(outside):  # the T-CAS thresholds zero what is outside
            around = Fraction(sum(outside), 24 * len(outside))
        score = inside - around + Fraction(1, 5) * Fraction(1, 2)
        expected.append((0, float(score), first * 6.4 / 48, 6.4))
    frame = pd.DataFrame(expected, columns=COLUMNS)
    assert len(found) == 43
    assert in_time(found) == pytest.approx(in_time(frame), abs=1e-12)


def test_candidates_of_one_bump_by_hand() -> None:
    cas = np.array([0, 0.05, 0.21, 0.21, 0.21, 0, 0, 0])[:, None]
    found = find_candidates(cas, np.zeros(8), np.array([0.4]))
    # Runs 1..4 at thresholds 0, 0.025 and 0.05, runs 2..4 at 0.075 .. 0.2, none at 0.225.
    assert found.first.tolist() == [1] * 3 + [2] * 6
    assert found.last.tolist() == [4] * 9
    wide = (0.05 + 3 * 0.21) / 4 - 0 + 0.2 * 0.4  # margins: position 0 (of 0) and 5
    narrow = 0.21 - 0 + 0.2 * 0.4  # margin: position 1, zeroed at these thresholds
    assert found.score.tolist() == pytest.approx([wide] * 3 + [narrow] * 6)


def test_actionness_runs_are_scored_on_the_untouched_tcas() -> None:
    cas = np.array([0.0, 0.2, 1.0, 1.0, 1.0, 1.0, 0.4, 0.0])[:, None]
    actionness = np.array([0, 0, 0.12, 0.12, 0.12, 0.12, 0, 0])
    found = find_candidates(cas * 0.02, actionness, np.array([0.0]))  # T-CAS: threshold 0 only
    from_actionness = (found.first == 2) & (found.last == 5)
    assert found.first.tolist() == [1, 2]
    assert found.score[from_actionness] == pytest.approx([0.02 * (1 - (0.2 + 0.4) / 2)])


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (2, 5, 1 - Fraction(1, 2) * (Fraction(1, 2) + Fraction(1, 4))),  # margins 1 and 6
        (3, 5, 1 - Fraction(1)),  # int(3 - 0.75) = 2 on the left, int(5 + 0.75) = 5: none right
        (0, 3, Fraction(5, 8) - 1),  # cut at the start: margin 4
        (0, 8, Fraction(21, 36)),  # nothing outside
        (2, 2, 0 + Fraction(1) - Fraction(1, 2)),  # int(2 - 0.25) = 1
    ],
)
def test_contrast_as_fractions(first: int, last: int, expected: Fraction) -> None:
    curve = np.array([[0, 0.5, 1, 1, 1, 1, 0.25, 0.25, 0.25]])
    found = outer_inner_contrast(curve, *map(np.array, ([0], [first], [last])), 0.25)
    assert found.tolist() == pytest.approx([float(expected)])


def test_times_follow_the_videos_own_length() -> None:
    cas = np.array([0.0, 0, 1, 1, 0, 0, 0, 0, 0, 0])
    arguments = (cas[:, None], cas, np.array([1.0]))
    short = generate_proposals(*arguments, num_snippets=10, seconds_per_snippet=0.5)
    long = generate_proposals(*arguments, num_snippets=40, seconds_per_snippet=0.5)
    assert long["t_start"].to_numpy() == pytest.approx(4 * short["t_start"].to_numpy()[: len(long)])
    best = short.iloc[0]
    # Snippets 2 and 3 of 0.5 s: the bump rises from second 0.5 and is gone at second 2.
    assert 0.5 < best["t_start"] < 1.0
    assert 1.5 < best["t_end"] <= 2.0


# --- corners --------------------------------------------------------------------------------------


def test_single_snippet_has_no_proposals() -> None:
    cas = np.array([[0.0, 3.0]])
    found = generate_proposals(cas, cas.sum(1), np.array([0.1, 0.9]), 1, 0.64)
    # Its range is 0, so min-max leaves 0 everywhere: nothing stands out.
    assert found.empty
    assert found.columns.tolist() == COLUMNS


def test_runs_of_one_position_where_they_count() -> None:
    """A spike of one position above 0.4, on curves that are not scaled."""
    cas = np.array([[0.0], [0.0], [0.6], [0.0], [0.0]])
    spike = {"cas_thresholds": (0.4,), "actionness_thresholds": (0.9,), "upsampling": 2}
    arguments = (cas, np.zeros(5), np.array([1.0]), 5, 2.0)
    for shortest, expected in ((1, [[4.0, 5.0]]), (2, [])):
        how = Localization(**spike, min_max=False, class_score_weight=0.0, shortest=shortest)
        found = generate_proposals(*arguments, how=how, nms=False)
        # Upsampled: 0, 0, 0, 0.3, 0.6, 0.3, 0, ..; a position is a second.
        assert found[["t_start", "t_end"]].to_numpy().tolist() == expected
        assert found["score"].tolist() == pytest.approx([0.6] * len(expected))
    single = Localization(min_max=False, shortest=1)
    video = (cas[2:3], np.zeros(1), np.array([1.0]), 1, 2.0)
    found = generate_proposals(*video, how=single, nms=False)
    assert found[["t_start", "t_end"]].to_numpy().tolist() == [[0.0, 2.0]] * 10  # at every cut


@pytest.mark.parametrize("nms", [True, False])
def test_all_zero_tcas_has_no_proposals(nms: bool) -> None:
    found = generate_proposals(np.zeros((9, 3)), np.zeros(9), np.full(3, 1 / 3), 9, 0.64, nms=nms)
    assert found.empty
    assert found.columns.tolist() == COLUMNS
    assert found["t_start"].dtype == float


def test_classes_at_the_threshold_are_in_and_arg_max_is_the_fallback() -> None:
    cas, actionness, _ = random_video(20, 4, seed=0)

    def labels(scores: list[float], **options: object) -> list[int]:
        found = generate_proposals(cas, actionness, np.array(scores), 20, 0.64, **options)
        return found["label"].unique().tolist()

    assert labels([0.2, 0.1, 0.5, 0.19]) == [0, 2]
    assert labels([0.19, 0.19, 0.195, 0.1]) == [2]
    assert labels([0.2, 0.1, 0.5, 0.2], class_threshold=0.3) == [2]
    assert labels([0.2, 0.1, 0.5, 0.2], classes=np.array([1, 3])) == [1, 3]


def test_legacy_plus_one_merges_short_actions() -> None:
    cas = np.zeros(40)
    cas[[5, 8]] = 1.0  # two actions of a second, 3 s apart
    arguments = (cas[:, None], cas, np.array([1.0]), 40, 0.2)
    legacy = generate_proposals(*arguments)
    plain = generate_proposals(*arguments, legacy_plus_one=False)
    assert len(plain) > len(legacy)


@pytest.mark.parametrize("shapes", [((5,), (5,), (1,)), ((5, 2), (4,), (2,)), ((5, 2), (5,), (3,))])
def test_shapes_that_do_not_fit_are_refused(shapes: tuple) -> None:
    with pytest.raises(ValueError, match=r"expected cas \(T, C\)"):
        generate_proposals(*(np.zeros(shape) for shape in shapes), 5, 0.64)


# --- normalising, upsampling, runs ----------------------------------------------------------------


def test_normalise_by_hand() -> None:
    curves = np.array([[1.0, -2.0, 5.0], [3.0, 2.0, 5.0], [2.0, 1.0, 5.0]])
    # A negative minimum counts as 0, and a constant curve has range 1.
    assert normalise(curves).T.tolist() == [[0, 1, 0.5], [0, 1, 0.5], [0, 0, 0]]
    assert normalise(np.full((3, 1), -1.0)).tolist() == [[0], [0], [0]]


@given(
    hnp.arrays(float, st.tuples(st.integers(2, 12), st.integers(1, 3)), elements=st.floats(0, 1)),
    st.integers(1, 24),
)
def test_upsampling_equals_interp1d(curves: np.ndarray, factor: int) -> None:
    length = len(curves)
    line = interp1d(np.arange(length), curves, axis=0, fill_value="extrapolate")
    expected = line(np.arange(factor * length) / factor)
    assert upsample(curves, factor) == pytest.approx(expected, abs=1e-12)


def test_upsampling_of_one_snippet_repeats_it() -> None:
    assert upsample(np.array([[2.0, 3.0]]), 3).tolist() == [[2, 3]] * 3


@given(
    hnp.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 30))),
    st.integers(1, 3),
)
def test_runs_equal_groups_of_consecutive_positions(mask: np.ndarray, shortest: int) -> None:
    expected = [
        (row, group[0], group[-1])
        for row, positions in enumerate(mask)
        for group in consecutive(np.flatnonzero(positions))
        if len(group) >= shortest
    ]
    assert list(zip(*find_runs(mask, shortest), strict=True)) == expected
