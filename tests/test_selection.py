"""Selection by IoU score: scores worked by hand, invariances, thresholds and fallbacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fustal_core.reference import iou_score_by_pairs
from fustal_core.selection import iou_score, mean_of_largest_ious, score_proposals, select
from fustal_core.stage_settings import SelectionSettings

# tIoU with the first: 1/2, 1/4, 0; of the second and third 0.
FOUR = np.array([[0.0, 4.0], [0.0, 2.0], [3.0, 4.0], [9.0, 10.0]])


@st.composite
def segments(draw: st.DrawFn, least: int = 0) -> np.ndarray:
    """Segments at quarters of a second, some of them equal, some of length 0: (N, 2)."""
    pairs = draw(
        st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), min_size=least, max_size=12)
    )
    table = np.array(pairs, dtype=float).reshape(-1, 2) / 4
    return np.stack([table[:, 0], table.sum(1)], axis=1)


def frame(*rows: tuple) -> pd.DataFrame:
    """Rows (video, label, start, end, score)."""
    return pd.DataFrame(rows, columns=["video", "label", "t_start", "t_end", "score"])


def scored(*rows: tuple) -> pd.DataFrame:
    """Rows (video, label, score, IoU score)."""
    return pd.DataFrame(rows, columns=["video", "label", "score", "iou_score"])


def chosen(proposals: pd.DataFrame, **changes: Any) -> list[int]:
    """Row numbers that are selected, by the defaults gamma = 0.2 and eta = 0.4."""
    numbered = proposals.assign(row=range(len(proposals)))
    return select(numbered, SelectionSettings(**changes))["row"].tolist()


# --- scores ---------------------------------------------------------------------------------------


def test_iou_score_by_hand() -> None:
    assert iou_score(FOUR).tolist() == [3 / 4, 1 / 2, 1 / 4, 0]
    assert iou_score(np.tile([[0.0, 1.0]], (4, 1))).tolist() == [3, 3, 3, 3]  # it can exceed 1


def test_iou_score_of_few_and_of_other_kinds() -> None:
    assert iou_score(np.zeros((0, 2))).shape == (0,)
    assert iou_score(FOUR[:1]).tolist() == [0]
    assert np.array_equal(iou_score(FOUR.tolist()), iou_score(FOUR))
    assert np.array_equal(iou_score(torch.from_numpy(FOUR)), iou_score(FOUR))


@given(segments())
def test_iou_score_equals_loops(table: np.ndarray) -> None:
    assert iou_score(table) == pytest.approx(iou_score_by_pairs(table), abs=1e-12)


@given(segments(), st.randoms(use_true_random=False))
def test_iou_score_follows_the_order_of_proposals(table: np.ndarray, random: Any) -> None:
    order = random.sample(range(len(table)), len(table))
    assert iou_score(table[order]) == pytest.approx(iou_score(table)[order], abs=1e-12)


@given(segments(), st.floats(-50, 50), st.floats(0.1, 10))
def test_iou_score_knows_no_origin_and_no_unit(
    table: np.ndarray, shift: float, scale: float
) -> None:
    moved = iou_score(table * scale + shift)
    assert moved == pytest.approx(iou_score(table), abs=1e-6)


@given(segments(least=1))
def test_a_proposal_apart_changes_nothing(table: np.ndarray) -> None:
    more = np.concatenate([table, [[1000.0, 1001.0]]])
    assert iou_score(more) == pytest.approx(np.append(iou_score(table), 0.0), abs=1e-12)
    assert iou_score(more)[-1] == 0


def test_mean_of_the_three_largest_by_hand() -> None:
    assert mean_of_largest_ious(FOUR).tolist() == pytest.approx([1 / 4, 1 / 6, 1 / 12, 0])
    # Of five equal ones only three of the other four count.
    assert mean_of_largest_ious(np.tile([[0.0, 1.0]], (5, 1))).tolist() == [1] * 5


@given(segments())
def test_mean_of_the_three_largest_is_a_bounded_iou_score(table: np.ndarray) -> None:
    values = mean_of_largest_ious(table)
    assert ((values >= 0) & (values <= 1 + 1e-12)).all()
    if len(table) <= 4:
        assert values == pytest.approx(iou_score(table) / 3, abs=1e-12)


PROPOSALS = frame(
    ("a", "run", 0, 4, 0.9),
    ("b", "run", 0, 4, 0.8),
    ("a", "jump", 0, 2, 0.7),
    ("a", "run", 3, 4, 0.6),
)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ({}, [3 / 4, 0, 1 / 2, 1 / 4]),
        ({"overlap": "class"}, [1 / 4, 0, 0, 1 / 4]),
        ({"reduce": "top3"}, [1 / 4, 0, 1 / 6, 1 / 12]),
        ({"overlap": "class", "reduce": "top3"}, [1 / 12, 0, 0, 1 / 12]),
    ],
)
def test_scores_are_among_the_proposals_of_a_video(variant: dict, expected: list[float]) -> None:
    result = score_proposals(PROPOSALS, SelectionSettings(**variant))
    assert result["iou_score"].tolist() == pytest.approx(expected)
    pd.testing.assert_frame_equal(result.drop(columns="iou_score"), PROPOSALS)


@pytest.mark.parametrize("index", [[7, 3, 9, 1], [0, 0, 1, 1], list("wxyz")])
def test_any_index_will_do(index: list) -> None:
    expected = score_proposals(PROPOSALS, SelectionSettings())
    indexed = score_proposals(PROPOSALS.set_axis(index), SelectionSettings())
    assert indexed["iou_score"].tolist() == expected["iou_score"].tolist()
    assert indexed.index.tolist() == index
    for gamma in (0.2, 9.0):
        assert chosen(indexed, iou_threshold=gamma) == chosen(expected, iou_threshold=gamma)


def test_no_proposals() -> None:
    empty = score_proposals(PROPOSALS.iloc[:0], SelectionSettings())
    assert empty["iou_score"].dtype == float
    assert select(empty, SelectionSettings()).empty


# --- choice ---------------------------------------------------------------------------------------


def test_gamma_is_reached_and_eta_is_exceeded() -> None:
    proposals = scored(
        ("a", "run", 0.41, 0.2),
        ("a", "run", 0.4, 0.2),
        ("a", "run", 0.41, 0.19),
        ("a", "run", 1.3, 5.0),
    )
    assert chosen(proposals) == [0, 3]


def test_gamma_zero_is_confidence_alone() -> None:
    proposals = scored(("a", "run", 0.5, 0.0), ("a", "run", 0.3, 9.0), ("a", "jump", 0.6, 1.0))
    assert chosen(proposals, iou_threshold=0) == [0, 2]


WITHOUT_SURVIVORS = scored(
    ("a", "run", 0.5, 1.0),
    ("b", "run", 0.3, 1.0),
    ("b", "jump", 0.9, 0.1),
    ("b", "run", 0.35, 0.0),
    ("b", "jump", 0.2, 0.1),
    ("a", "jump", 0.1, 0.1),
)


def test_a_video_without_survivors_keeps_its_best_of_each_class() -> None:
    assert chosen(WITHOUT_SURVIVORS) == [0, 2, 3]
    kept = select(WITHOUT_SURVIVORS, SelectionSettings())
    assert kept["fallback"].tolist() == [False, True, True]


def test_or_nothing() -> None:
    assert chosen(WITHOUT_SURVIVORS, fallback="none") == [0]
    kept = select(WITHOUT_SURVIVORS, SelectionSettings(fallback="none"))
    assert kept["fallback"].tolist() == [False]


def test_selection_leaves_its_input_alone() -> None:
    before = WITHOUT_SURVIVORS.copy()
    select(WITHOUT_SURVIVORS, SelectionSettings())
    pd.testing.assert_frame_equal(WITHOUT_SURVIVORS, before)


def test_the_fallback_keeps_only_classes_that_the_video_is_known_to_show() -> None:
    scored = WITHOUT_SURVIVORS
    labels = scored.loc[scored["video"] != scored["video"].iloc[0], ["video", "label"]]
    known = labels.drop_duplicates().iloc[:1]
    kept = select(scored, SelectionSettings(), known)
    fallback = kept[kept["fallback"]]
    assert fallback[["video", "label"]].to_numpy().tolist() == known.to_numpy().tolist()
