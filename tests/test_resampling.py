"""Resamples against test sets that really have a video several times; intervals against scipy's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from fustal_core import resampling
from fustal_core.metrics import DETECTION_COLUMNS, THUMOS_TIOU, detection_map
from fustal_core.quality import pseudo_label_quality
from fustal_core.reference import detection_map_by_rows
from fustal_core.resampling import (
    draw_videos,
    paired_interval,
    resampled_label_quality,
    resampled_map,
    t_interval,
)

VIDEOS = ["a", "b", "c", "d"]  # d never has any truth


def frame(*rows: tuple) -> pd.DataFrame:
    """Rows (video, label, start, end[, score])."""
    return pd.DataFrame(rows, columns=[*DETECTION_COLUMNS][: len(rows[0])])


def random_case(
    rng: np.random.Generator, detections: int, segments: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Crowded segments on a coarse grid, and many equal scores."""

    def rows(n: int, videos: list[str]) -> pd.DataFrame:
        start, length = rng.integers(0, 12, n) / 2, rng.integers(0, 8, n) / 2
        table = {"video": rng.choice(videos, n), "label": rng.choice(["x", "y", "z"], n)}
        return pd.DataFrame(table | {"t_start": start, "t_end": start + length})

    truth = rows(segments, VIDEOS[:3])
    found = rows(detections, VIDEOS).assign(score=rng.integers(0, 12, detections) / 4)
    return found[found["label"].isin(truth["label"])].reset_index(drop=True), truth


cases = st.builds(
    lambda seed, n, m: random_case(np.random.default_rng(seed), n, m),
    st.integers(0, 2**32 - 1),
    st.integers(1, 80),
    st.integers(2, 25),
)
some_draws = st.lists(
    st.lists(st.integers(0, 4), min_size=4, max_size=4), min_size=1, max_size=3
).map(np.array)


def duplicated(rows: pd.DataFrame, draw: np.ndarray) -> pd.DataFrame:
    """A test set that has each video so many times, under new names; copies of a row side by side."""
    times = dict(zip(VIDEOS, draw, strict=True))
    copies = [
        row | {"video": f"{row['video']} again {number}"}
        for row in rows.to_dict("records")
        for number in range(times[row["video"]])
    ]
    return pd.DataFrame(copies, columns=rows.columns)


def map_of_duplicates(detections: pd.DataFrame, truth: pd.DataFrame, draw: np.ndarray) -> list:
    found, true = duplicated(detections, draw), duplicated(truth, draw)
    found = found[found["label"].isin(true["label"])]
    return detection_map(found, true, THUMOS_TIOU).mean().tolist()


# --- drawing --------------------------------------------------------------------------------------


def test_a_resample_draws_as_many_videos_as_there_are() -> None:
    draws = draw_videos(VIDEOS, 5000, np.random.default_rng(0))
    assert draws.shape == (5000, 4)
    assert np.issubdtype(draws.dtype, np.integer)
    assert (draws.sum(1) == 4).all()
    # Each is drawn by Binomial(4, 1/4): a mean of 1, a variance of 3/4.
    assert draws.mean(0) == pytest.approx(np.ones(4), abs=0.06)
    assert draws.var(0) == pytest.approx(np.full(4, 0.75), abs=0.06)
    again = draw_videos(VIDEOS, 5000, np.random.default_rng(0))
    np.testing.assert_array_equal(draws, again)


@pytest.mark.parametrize(("videos", "got"), [([], "none"), (["v", "w", "v"], "'v'")])
def test_videos_have_names_of_their_own(videos: list[str], got: str) -> None:
    with pytest.raises(ValueError, match=f"different names, got {got}"):
        draw_videos(videos, 3, np.random.default_rng(0))


# --- mAP of resamples -----------------------------------------------------------------------------


def test_map_by_hand() -> None:
    truth = frame(("a", "x", 0, 10), ("b", "x", 0, 10))
    detections = frame(("a", "x", 0, 10, 0.9), ("b", "x", 50, 60, 0.95), ("b", "x", 0, 10, 0.5))
    draws = np.array([[1, 1, 0, 0], [2, 0, 0, 0], [0, 2, 0, 0], [3, 1, 0, 0], [0, 0, 1, 3]])
    # By score: b's false one, a's true one, b's true one.
    expected = [
        2 / 3,  # precisions 1/2, 2/3: monotone, both count 2/3
        1,
        2 / 4,  # false, false, 1/3, 2/4
        4 / 5,  # false, 1/2, 2/3, 3/4, 4/5
        np.nan,
    ]
    found = resampled_map(detections, truth, [0.5], VIDEOS, draws)
    assert found.shape == (5, 1)
    assert found[:, 0] == pytest.approx(expected, nan_ok=True)


def test_a_true_detection_may_be_false_at_a_lower_threshold() -> None:
    truth = frame(("a", "x", 0, 10), ("b", "x", 0, 10))
    detections = frame(("a", "x", 0, 5, 0.9), ("a", "x", 0, 10, 0.8))
    # At 0.5 the first takes the segment, at 0.6 the second does.
    found = resampled_map(detections, truth, [0.5, 0.6], VIDEOS, np.array([[3, 1, 0, 0]]))
    assert found[0] == pytest.approx([3 / 4, 3 / 4 * 1 / 2])


def test_a_class_without_truth_in_a_resample_does_not_count_there() -> None:
    truth = frame(("a", "x", 0, 10), ("b", "y", 0, 10))
    detections = frame(("a", "x", 0, 10, 0.9), ("a", "y", 0, 10, 0.9))
    found = resampled_map(detections, truth, [0.5], VIDEOS, np.eye(4, dtype=int)[:3])
    assert found[:, 0] == pytest.approx([1, 0, np.nan], nan_ok=True)


@settings(max_examples=80, deadline=None)
@given(cases, some_draws)
def test_a_resample_is_a_test_set_with_videos_several_times(
    case: tuple[pd.DataFrame, pd.DataFrame], draws: np.ndarray
) -> None:
    fast = resampled_map(*case, THUMOS_TIOU, VIDEOS, draws)
    slow = [map_of_duplicates(*case, draw) for draw in draws]
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-12)


def test_so_says_the_row_by_row_evaluator() -> None:
    rng = np.random.default_rng(5)
    detections, truth = random_case(rng, 150, 40)
    draws = draw_videos(VIDEOS, 4, rng)
    draws = draws[draws[:, :3].all(axis=1)]  # every class has truth
    assert len(draws)
    fast = resampled_map(detections, truth, THUMOS_TIOU, VIDEOS, draws)
    for row, draw in zip(fast, draws, strict=True):
        slow = detection_map_by_rows(
            duplicated(detections, draw), duplicated(truth, draw), THUMOS_TIOU
        )
        assert row == pytest.approx(slow.mean().to_numpy())


@settings(max_examples=40, deadline=None)
@given(cases, st.integers(1, 5))
def test_every_video_equally_often_changes_nothing(case: tuple, times: int) -> None:
    found = resampled_map(*case, THUMOS_TIOU, VIDEOS, np.full((1, 4), times))
    assert found[0] == pytest.approx(detection_map(*case, THUMOS_TIOU).mean().to_numpy())


@settings(max_examples=40, deadline=None)
@given(cases, some_draws, st.permutations(range(4)), st.integers(0, 2**32 - 1))
def test_the_order_of_videos_and_rows_does_not_matter(
    case: tuple, draws: np.ndarray, order: list[int], seed: int
) -> None:
    detections, truth = case
    # Without equal scores, whose order counts.
    detections = detections.assign(score=detections["score"] + 1e-3 * np.arange(len(detections)))
    expected = resampled_map(detections, truth, THUMOS_TIOU, VIDEOS, draws)
    shuffled = [table.sample(frac=1, random_state=seed) for table in (detections, truth)]
    names = [VIDEOS[place] for place in order]
    found = resampled_map(*shuffled, THUMOS_TIOU, names, draws[:, order])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("at_once", [1, 300, 10**9])
def test_resamples_made_in_pieces_are_the_same(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    rng = np.random.default_rng(1)
    case, draws = random_case(rng, 200, 30), draw_videos(VIDEOS, 37, rng)
    whole = resampled_map(*case, THUMOS_TIOU, VIDEOS, draws)
    monkeypatch.setattr(resampling, "_VALUES_AT_ONCE", at_once)
    np.testing.assert_allclose(resampled_map(*case, THUMOS_TIOU, VIDEOS, draws), whole, atol=1e-14)


def test_nothing_found_and_nothing_to_find() -> None:
    detections, truth = random_case(np.random.default_rng(0), 9, 5)
    draws = np.array([[1, 1, 1, 1], [0, 0, 0, 4]])
    nothing = resampled_map(detections[:0], truth, [0.3, 0.5], VIDEOS, draws)
    np.testing.assert_array_equal(nothing, [[0, 0], [np.nan, np.nan]])
    missed = frame(("a", "x", 0, 10, 0.9)), frame(("a", "x", 50, 60))
    assert resampled_map(*missed, [0.5], VIDEOS, draws[:1]) == 0
    without = resampled_map(detections[:0], truth[:0], [0.3, 0.5], VIDEOS, draws)
    np.testing.assert_array_equal(without, np.full((2, 2), np.nan))


def test_what_cannot_be_resampled_is_named() -> None:
    truth, found = frame(("a", "x", 0, 10)), frame(("a", "x", 0, 10, 0.9))
    ones = np.ones((2, 1), dtype=int)
    elsewhere = frame(("e", "x", 0, 10, 0.9))
    for measure, tiou in ((resampled_map, [0.5]), (resampled_label_quality, 0.5)):
        with pytest.raises(ValueError, match="'e' is not among those resampled"):
            measure(elsewhere, truth, tiou, ["a"], ones)
        with pytest.raises(ValueError, match="ground truth: video 'e'"):
            measure(found, elsewhere, tiou, ["a"], ones)
        with pytest.raises(ValueError, match=r"draws: expected \(R, 1\), got \(1, 2\)"):
            measure(found, truth, tiou, ["a"], ones.T)
    with pytest.raises(ValueError, match="class 'y' unknown"):
        resampled_map(frame(("a", "y", 0, 1, 0.5)), truth, [0.5], ["a"], ones)


# --- labels of resamples --------------------------------------------------------------------------


def test_precision_and_f1_by_hand() -> None:
    truth = frame(("a", "x", 0, 10), ("b", "x", 0, 10), ("b", "x", 20, 30))
    labels = frame(("a", "x", 0, 10, 0.9), ("a", "x", 50, 60, 0.8), ("b", "x", 0, 9, 0.7))
    draws = np.array([[1, 1, 0, 0], [2, 0, 0, 0], [0, 2, 0, 0], [3, 1, 0, 0], [0, 0, 2, 2]])
    # a: 1 of 2 labels right, 1 segment; b: 1 of 1, 2 segments; c and d have neither.
    precision, f1 = resampled_label_quality(labels, truth, 0.5, VIDEOS, draws)
    assert precision == pytest.approx([2 / 3, 2 / 4, 2 / 2, 4 / 7, 0])
    assert f1 == pytest.approx([2 * 2 / 6, 2 * 2 / 6, 2 * 2 / 6, 2 * 4 / 12, 0])
    # At 0.95 b has none.
    precision, f1 = resampled_label_quality(labels, truth, 0.95, VIDEOS, draws)
    assert precision == pytest.approx([1 / 3, 2 / 4, 0, 3 / 7, 0])
    assert f1 == pytest.approx([2 * 1 / 6, 2 * 2 / 6, 0, 2 * 3 / 12, 0])
    for none in resampled_label_quality(labels[:0], truth, 0.5, VIDEOS, draws):
        assert none.tolist() == [0] * 5


@settings(max_examples=40, deadline=None)
@given(cases, some_draws, st.sampled_from([0.3, 0.5, 0.7]))
def test_quality_is_that_of_videos_several_times(
    case: tuple[pd.DataFrame, pd.DataFrame], draws: np.ndarray, tiou: float
) -> None:
    labels, truth = case
    unknown = labels.assign(label=labels["label"].replace("z", "unknown to the truth"))
    fast = resampled_label_quality(unknown, truth, tiou, VIDEOS, draws)
    for precision, f1, draw in zip(*fast, draws, strict=True):
        found, true = duplicated(unknown, draw), duplicated(truth, draw)
        lengths_s = dict.fromkeys({*found["video"], *true["video"]}, 20.0)
        report = pseudo_label_quality(found, true, lengths_s, (tiou,))
        assert precision == pytest.approx(report[f"precision@{tiou:g}"].item())
        assert f1 == pytest.approx(report[f"f1@{tiou:g}"].item())


# --- intervals ------------------------------------------------------------------------------------


def of_means(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(R,) means of resamples of the videos' values (V,)."""
    return draw_videos(range(len(values)), resamples, rng) @ values / len(values)


def test_with_one_seed_it_is_the_bootstrap_over_videos() -> None:
    rng = np.random.default_rng(0)
    values = rng.exponential(size=40)
    resampled = of_means(values, 4000, rng)[None]
    found = paired_interval(
        resampled,
        np.zeros_like(resampled),
        rng,
        differences=[values.mean()],
        shared_videos=True,
        level=0.9,
    )
    expected = stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, method="percentile", rng=rng
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.02)
    assert (found.over, found.seeds) == ("videos", 1)
    assert np.isnan(found.sd)


@pytest.mark.parametrize("shared", [False, True])
def test_where_videos_do_not_matter_it_is_the_bootstrap_over_seeds(shared: bool) -> None:
    rng = np.random.default_rng(1)
    differences = np.array([0.2, 1.1, -0.7, 2.0, 0.4, 0.9])
    worse = rng.normal(size=(6, 50))
    better = worse + differences[:, None]
    found = paired_interval(better, worse, rng, differences=differences, shared_videos=shared)
    expected = stats.bootstrap((differences,), np.mean, method="percentile", rng=rng)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval), abs=0.07)
    assert found.mean == pytest.approx(3.9 / 6)
    assert found.sd == pytest.approx(differences.std(ddof=1))
    assert (found.over, found.seeds) == ("seeds and videos", 6)


def test_what_a_video_does_to_both_methods_cancels() -> None:
    rng = np.random.default_rng(2)
    worse = rng.normal(0, 10, size=(3, 500))
    found = paired_interval(
        worse + 1.5, worse, rng, differences=[1.5, 1.5, 1.5], shared_videos=True
    )
    assert (found.mean, found.low, found.high, found.sd) == pytest.approx((1.5, 1.5, 1.5, 0))


def test_shared_videos_do_not_average_out_over_seeds() -> None:
    """What the draw of videos does to every seed alike is as wide with nine seeds as with one."""
    rng = np.random.default_rng(3)
    better = np.tile(rng.normal(size=4000), (9, 1))
    widths = {}
    for shared in (False, True):
        found = paired_interval(
            better, 0 * better, rng, differences=np.zeros(9), shared_videos=shared
        )
        widths[shared] = found.high - found.low
    assert widths[True] == pytest.approx(2 * 1.96, rel=0.05)
    assert widths[False] == pytest.approx(2 * 1.96 / 3, rel=0.05)


def test_resamples_are_moved_to_the_difference_on_all_videos() -> None:
    rng = np.random.default_rng(4)
    better = rng.normal([[5], [8]], 1, size=(2, 4000))
    found = paired_interval(better, 0 * better, rng, differences=[1.0, 1.0], shared_videos=False)
    assert found.mean == 1
    assert (found.low, found.high) == pytest.approx((1 - 1.386, 1 + 1.386), abs=0.08)


def test_resamples_without_a_measure_are_left_out() -> None:
    better = np.array([[1.0, np.nan, 3.0]])
    rng = np.random.default_rng(0)
    found = paired_interval(
        better, np.zeros((1, 3)), rng, differences=[2.0], shared_videos=True, level=0.99
    )
    assert (found.low, found.high) == (1, 3)
    with pytest.raises(ValueError, match="one resample of each seed"):
        paired_interval(np.full((1, 3), np.nan), better, rng, differences=[0.0], shared_videos=True)


seeds_and_resamples = st.builds(
    lambda seed, shape: np.random.default_rng(seed).normal(size=(2, *shape)),
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 5), st.integers(2, 30)),
)


@settings(max_examples=40, deadline=None)
@given(seeds_and_resamples, st.booleans(), st.floats(-5, 5), st.floats(0.1, 10))
def test_intervals_move_stretch_and_turn_with_their_values(
    values: np.ndarray, shared: bool, shift: float, scale: float
) -> None:
    better, worse = values
    means = (better - worse).mean(1)

    def interval(
        a: np.ndarray, b: np.ndarray, differences: np.ndarray, level: float = 0.9
    ) -> resampling.Interval:
        rng = np.random.default_rng(0)
        return paired_interval(
            a, b, rng, differences=differences, shared_videos=shared, level=level, count=200
        )

    plain = interval(better, worse, means)
    moved = interval(scale * better + shift, scale * worse, scale * means + shift)
    assert (moved.low, moved.high) == pytest.approx(
        (scale * plain.low + shift, scale * plain.high + shift)
    )
    turned = interval(worse, better, -means)
    assert (turned.low, turned.high) == pytest.approx((-plain.high, -plain.low))
    wider = interval(better, worse, means, level=0.99)
    assert wider.low <= plain.low <= plain.high <= wider.high


@pytest.mark.parametrize("level", [0.0, 1.0, 95, np.nan])
def test_a_level_is_a_share(level: float) -> None:
    values, rng = np.zeros((2, 5)), np.random.default_rng(0)
    with pytest.raises(ValueError, match="level"):
        paired_interval(values, values, rng, differences=[0, 0], shared_videos=True, level=level)
    with pytest.raises(ValueError, match="level"):
        t_interval([0.0, 1.0], level)


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    values, rng = np.zeros((2, 5)), np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"\(2, 5\), \(2, 4\)"):
        paired_interval(values, values[:, 1:], rng, differences=[0, 0], shared_videos=True)
    with pytest.raises(ValueError, match=r"differences: expected \(2,\), got \(3,\)"):
        paired_interval(values, values, rng, differences=[0, 0, 0], shared_videos=True)
    with pytest.raises(ValueError, match=r"differences: expected \(S,\)"):
        t_interval([])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=8), st.sampled_from([0.8, 0.95]))
def test_the_t_interval_is_that_of_the_t_test(differences: list[float], level: float) -> None:
    assume(np.std(differences) > 1e-6)
    expected = stats.ttest_1samp(differences, 0).confidence_interval(level)
    found = t_interval(differences, level)
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert (found.mean, found.over) == (
        pytest.approx(np.mean(differences)),
        "seeds",
    )


def test_one_seed_has_no_t_interval() -> None:
    found = t_interval([1.5])
    assert (found.mean, found.seeds) == (1.5, 1)
    assert np.isnan([found.low, found.high, found.sd]).all()


# --- coverage -------------------------------------------------------------------------------------

TRUE_DIFFERENCE = 1.0


def a_study(rng: np.random.Generator, seeds: int, shared: bool) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian differences of 30 videos for each seed: resampled means (S, 150), and means (S,)."""
    own = rng.normal(TRUE_DIFFERENCE, 0.5, size=(seeds, 1))
    videos = rng.normal(0, 2, size=(1 if shared else seeds, 30))
    values = own + videos + rng.normal(0, 1, size=(seeds, 30))
    if shared:
        return values @ draw_videos(range(30), 150, rng).T / 30, values.mean(1)
    return np.stack([of_means(row, 150, rng) for row in values]), values.mean(1)


@pytest.mark.parametrize(
    ("seeds", "shared", "low", "high"),
    [(1, True, 0.6, 0.9), (5, True, 0.88, 0.98), (5, False, 0.88, 0.99)],
)
def test_coverage(seeds: int, shared: bool, low: float, high: float) -> None:
    """One seed leaves the spread of seeds out, so that its interval covers less."""
    rng = np.random.default_rng(6)
    covered = []
    for _ in range(400):
        resampled, differences = a_study(rng, seeds, shared)
        found = paired_interval(
            resampled,
            np.zeros_like(resampled),
            rng,
            differences=differences,
            shared_videos=shared,
            count=400,
        )
        covered.append(found.low <= TRUE_DIFFERENCE <= found.high)
    assert low < np.mean(covered) < high


def test_few_seeds_are_too_narrow_for_percentiles_but_not_for_t() -> None:
    rng = np.random.default_rng(7)
    covered = []
    for _ in range(600):
        differences = rng.normal(TRUE_DIFFERENCE, 1, size=3)
        resampled = np.repeat(differences[:, None], 2, axis=1)  # videos do not matter
        found = (
            paired_interval(
                resampled,
                np.zeros_like(resampled),
                rng,
                differences=differences,
                shared_videos=False,
                count=400,
            ),
            t_interval(differences),
        )
        covered.append([own.low <= TRUE_DIFFERENCE <= own.high for own in found])
    by_percentiles, by_t = np.mean(covered, axis=0)
    assert by_percentiles < 0.85
    assert 0.92 < by_t < 0.98
