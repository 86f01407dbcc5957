"""Reliable and negative proposals: by hand, against plain loops, and what must always hold."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fustal_core.points import points_frame
from fustal_core.reliability import RELIABLE_COLUMNS, negative_proposals, reliable_proposals

PROPOSAL_COLUMNS = ["video", "label", "score", "t_start", "t_end"]


def proposals_frame(rows: list[tuple]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=PROPOSAL_COLUMNS)
    return frame.astype({"video": str, "label": str} | dict.fromkeys(PROPOSAL_COLUMNS[2:], float))


# --- reliable proposals ---------------------------------------------------------------------------


def spans(frame: pd.DataFrame) -> list[tuple[float, float]]:
    return list(frame[["t_start", "t_end"]].itertuples(index=False, name=None))


POINTS = points_frame([("v", "run", 5), ("v", "jump", 20), ("v", "run", 40), ("w", "run", 5)])


def test_the_best_one_without_a_neighbour_wins() -> None:
    proposals = proposals_frame(
        [
            ("v", "run", 0.9, 0, 25),  # the best with the point at 5, but holds the one at 20 too
            ("v", "run", 0.5, 2, 8),
            ("v", "run", 0.7, 3, 19),  # so this one
            ("v", "jump", 0.2, 18, 22),
            ("v", "run", 0.8, 10, 19),  # holds no point
            ("w", "jump", 1.0, 0, 9),  # of another class than the point of w
        ]
    )
    found = reliable_proposals(proposals, POINTS)
    assert tuple(found.columns) == RELIABLE_COLUMNS
    assert spans(found) == [(3, 19), (18, 22)]
    assert found["point_s"].tolist() == [5, 20]
    assert found["label"].tolist() == ["run", "jump"]
    assert found["score"].tolist() == [0.7, 0.2]
    assert found.index.tolist() == [0, 1]


def test_where_all_hold_a_neighbour_the_best_of_them_wins() -> None:
    proposals = proposals_frame(
        [("v", "run", 0.4, 0, 21), ("v", "run", 0.6, 1, 45), ("v", "run", 0.5, 15, 41)]
    )
    found = reliable_proposals(proposals, POINTS)
    # The point at 20 is of a class without proposals; one proposal serves two points.
    assert spans(found) == [(1, 45), (1, 45)]
    assert found["point_s"].tolist() == [5, 40]


def test_only_the_points_next_to_it_are_neighbours() -> None:
    """Any that holds a farther point holds a neighbour as well; those of other videos do not count."""
    proposals = proposals_frame([("v", "run", 0.9, 30, 50), ("w", "run", 0.9, 0, 50)])
    found = reliable_proposals(proposals, POINTS)
    assert found["video"].tolist() == ["v", "w"]
    assert spans(found) == [(30, 50), (0, 50)]


def test_both_ends_belong_to_a_proposal() -> None:
    points = points_frame([("v", "run", 5), ("v", "run", 9)])
    proposals = proposals_frame(
        [("v", "run", 0.9, 5, 9), ("v", "run", 0.1, 2, 5), ("v", "run", 0.2, 9, 11)]
    )
    assert spans(reliable_proposals(proposals, points)) == [(2, 5), (9, 11)]


def test_points_in_any_order_and_at_one_moment() -> None:
    points = points_frame([("v", "run", 9), ("v", "jump", 5), ("v", "run", 5)])
    proposals = proposals_frame(
        [("v", "run", 0.5, 0, 6), ("v", "run", 0.9, 0, 20), ("v", "run", 0.1, 7, 20)]
    )
    found = reliable_proposals(proposals, points)
    # The two at 5 s are neighbours of each other: all that is left is the best-scored.
    assert spans(found) == [(7, 20), (0, 20)]
    assert found["point_s"].tolist() == [9, 5]


def test_of_equal_scores_the_first_row_wins() -> None:
    proposals = proposals_frame([("w", "run", 0.5, 4, 6), ("w", "run", 0.5, 0, 9)])
    assert spans(reliable_proposals(proposals, POINTS)) == [(4, 6)]
    assert spans(reliable_proposals(proposals[::-1], POINTS)) == [(0, 9)]


@pytest.mark.parametrize(("num_proposals", "num_points"), [(0, 4), (1, 0), (0, 0)])
def test_nothing_in_nothing_out(num_proposals: int, num_points: int) -> None:
    proposals = proposals_frame([("v", "run", 0.5, 0, 6)][:num_proposals])
    found = reliable_proposals(proposals, POINTS[:num_points])
    assert tuple(found.columns) == RELIABLE_COLUMNS
    assert found.empty


def test_classes_may_be_indices() -> None:
    """As well as names; what else a proposal says is not kept."""
    proposals = proposals_frame([("w", "run", 0.5, 4, 6)]).assign(label=3, extra=1)
    found = reliable_proposals(proposals, POINTS.assign(label=3))
    assert found["label"].tolist() == [3]
    assert tuple(found.columns) == RELIABLE_COLUMNS


def reliable_by_loops(proposals: list[tuple], points: list[tuple]) -> list[tuple]:
    """(video, label, score, start, end, point) of each point that has one, point by point."""
    found = []
    for i, (video, label, t) in enumerate(points):
        ranked = sorted((p[2], j) for j, p in enumerate(points) if p[0] == video)
        place = ranked.index((t, i))
        beside = ranked[max(place - 1, 0) : place] + ranked[place + 1 : place + 2]
        own = [p for p in proposals if p[0] == video and p[1] == label and p[3] <= t <= p[4]]
        alone = [p for p in own if not any(p[3] <= s <= p[4] for s, _ in beside)]
        best = None
        for proposal in alone or own:
            if best is None or proposal[2] > best[2]:
                best = proposal
        if best is not None:
            found.append((*best, t))
    return found


names = st.tuples(st.sampled_from("vw"), st.sampled_from("ab"))
quarters = st.integers(0, 40).map(lambda x: x / 4)


@given(
    st.lists(
        st.tuples(names, st.integers(0, 4), quarters, quarters).map(
            lambda x: (*x[0], x[1] / 4, x[2], x[2] + x[3])
        ),
        max_size=15,
    ),
    st.lists(st.tuples(names, quarters).map(lambda x: (*x[0], x[1])), max_size=8),
)
def test_reliable_equals_loops(proposals: list[tuple], points: list[tuple]) -> None:
    found = reliable_proposals(proposals_frame(proposals), points_frame(points))
    rows = list(found.itertuples(index=False, name=None))
    assert rows == reliable_by_loops(proposals, points)


# --- negative proposals ---------------------------------------------------------------------------


def runs_of(seeds: list[int]) -> list[tuple[int, int]]:
    """First snippet of each run of ones, and the one after its last."""
    runs, at = [], 0
    for value, group in itertools.groupby(seeds):
        length = len(list(group))
        if value:
            runs.append((at, at + length))
        at += length
    return runs


def drawn(seeds: list[int], count: int, seed: int = 0) -> list[tuple[float, float]]:
    found = negative_proposals(np.array(seeds), count, np.random.default_rng(seed))
    assert found.shape[1:] == (2,)
    assert found.dtype == float
    return [tuple(span) for span in found.tolist()]


def test_runs_of_one_and_two_are_their_own_spans() -> None:
    found = drawn([0, 1, 0, 0, 1, 1, 0], 200)
    assert set(found) == {(1, 2), (4, 6)}
    assert found.count((1, 2)) in range(70, 131)  # each run is as likely as the other


def test_runs_at_both_ends_of_the_video() -> None:
    assert set(drawn([1, 0, 1], 50)) == {(0, 1), (2, 3)}
    assert set(drawn([1], 5)) == {(0, 1)}
    assert set(drawn([1, 1], 5)) == {(0, 2)}


def test_all_spans_of_a_run_are_equally_likely() -> None:
    found = drawn([0, 1, 1, 1, 1], 1200)
    spans, counts = np.unique(found, axis=0, return_counts=True)
    assert spans.tolist() == [[1, 3], [1, 4], [1, 5], [2, 4], [2, 5], [3, 5]]
    # 1200 / 6 = 200 each, with a standard deviation of 13.
    assert counts.min() > 145
    assert counts.max() < 255


@given(
    st.lists(st.integers(0, 1), min_size=1, max_size=40),
    st.integers(0, 30),
    st.integers(0, 10**6),
)
def test_spans_stay_inside_runs(seeds: list[int], count: int, seed: int) -> None:
    found = drawn(seeds, count, seed)
    runs = runs_of(seeds)
    assert len(found) == (count if runs else 0)
    for start, end in found:
        first, behind = next(run for run in runs if run[0] <= start < run[1])
        assert end <= behind
        assert end - start >= min(2, behind - first)
        assert start == int(start)
        assert end == int(end)


def test_draws_follow_their_generator_and_bools_are_as_good_as_ones() -> None:
    seeds = [1] * 30
    assert drawn(seeds, 10, 1) == drawn([True] * 30, 10, 1)
    assert drawn(seeds, 10, 1) != drawn(seeds, 10, 2)
