"""NMS and soft-NMS against loops and by hand, alone and of many groups at once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fustal_core.proposals import soft_nms
from fustal_core.reference_proposals import soft_nms_by_loops, suppressed
from fustal_core.suppression import (
    LOOK_EVERY,
    NMS_CHUNK,
    batched_soft_nms,
    nms,
    soft_nms_of_groups,
    suppress_softly,
    thin,
)


def random_segments(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 12, count)
    return np.stack([start, start + rng.lognormal(0.5, 1, count)], axis=1), rng.random(count)


# --- of segments ----------------------------------------------------------------------------------


@given(st.integers(0, 30), st.integers(0, 999), st.floats(0.05, 1), st.booleans())
def test_nms_equals_loops(count: int, seed: int, tiou: float, legacy: bool) -> None:
    segments, scores = random_segments(count, seed)
    kept = nms(segments, scores, tiou, legacy_plus_one=legacy)
    rows = [(s, *segment) for s, segment in zip(scores, segments, strict=True)]
    expected = suppressed(rows, tiou, extra=float(legacy))
    assert [(scores[i], *segments[i]) for i in kept] == expected


def test_nms_keeps_what_is_below_the_threshold() -> None:
    segments = np.array([[0.0, 4.0], [0.0, 2.0], [4.0, 8.0]])  # tIoU 1/2 and 0
    scores = np.array([0.9, 0.8, 0.95])
    assert nms(segments, scores, 0.5).tolist() == [2, 0]
    assert nms(segments, scores, 0.51).tolist() == [2, 0, 1]


def test_legacy_plus_one_by_hand() -> None:
    segments = np.array([[0.0, 1.0], [1.25, 2.25]])  # apart, but 3/13 by the legacy lengths
    scores = np.array([0.9, 0.8])
    assert nms(segments, scores, 3 / 13 - 0.01).tolist() == [0, 1]
    assert nms(segments, scores, 3 / 13 - 0.01, legacy_plus_one=True).tolist() == [0]
    assert nms(segments, scores, 3 / 13 + 0.01, legacy_plus_one=True).tolist() == [0, 1]


def test_nms_of_equal_scores_keeps_the_first() -> None:
    segments = np.array([[0.0, 2.0], [0.0, 2.0], [5.0, 6.0]])
    assert nms(segments, np.full(3, 0.5), 0.5).tolist() == [0, 2]


def test_soft_nms_by_hand() -> None:
    segments = torch.tensor([[0.0, 4.0], [0.0, 2.0], [4.0, 8.0]])
    picked, scores = soft_nms(segments, torch.tensor([0.9, 0.8, 0.7]), sigma=0.5)
    assert picked.tolist() == [[0, 4], [4, 8], [0, 2]]
    assert scores.tolist() == pytest.approx([0.9, 0.7, 0.8 * np.exp(-(0.5**2) / 0.5)])


@given(
    st.integers(0, 25),
    st.integers(0, 999),
    st.sampled_from([0.1, 0.5, 2.0]),
    st.sampled_from([0.0, 0.001, 0.2]),
    st.booleans(),
)
def test_soft_nms_equals_loops(
    count: int, seed: int, sigma: float, min_score: float, legacy: bool
) -> None:
    segments, scores = random_segments(count, seed)
    expected = soft_nms_by_loops(segments, scores, sigma, min_score, extra=float(legacy))
    tensors = map(torch.from_numpy, (segments, scores))
    found = soft_nms(*tensors, sigma, min_score, legacy_plus_one=legacy)
    for ours, reference in zip(found, expected, strict=True):
        assert ours.shape == reference.shape
        assert ours.numpy() == pytest.approx(reference, abs=1e-12)
    assert (found[1].diff() <= 0).all()


def test_soft_nms_of_whole_numbers() -> None:
    segments, scores = np.array([[0, 4], [0, 2]]), np.array([9, 8])
    picked, decayed = soft_nms(segments, scores, 0.5)
    assert picked.tolist() == [[0, 4], [0, 2]]
    np.testing.assert_allclose(decayed, [9, 8 * np.exp(-(0.5**2) / 0.5)])


def test_soft_nms_leaves_its_input_alone_and_keeps_the_dtype() -> None:
    segments, scores = (torch.from_numpy(x).float() for x in random_segments(9, 0))
    before = segments.clone(), scores.clone()
    picked, decayed = soft_nms(segments, scores, 0.5)
    assert torch.equal(segments, before[0])
    assert torch.equal(scores, before[1])
    assert picked.dtype == decayed.dtype == torch.float32


def test_batched_soft_nms_equals_its_groups() -> None:
    groups = [random_segments(12, seed) for seed in range(4)]
    segments, scores = (torch.from_numpy(np.stack(parts)) for parts in zip(*groups, strict=True))
    scores[1, 5:] = -torch.inf  # empty places
    scores[2] = -torch.inf
    picked, decayed = batched_soft_nms(segments, scores, 0.5, min_score=0.1, max_picks=8)
    assert picked.shape[:2] == decayed.shape
    for group in range(4):
        there = torch.isfinite(scores[group])
        expected = soft_nms(segments[group][there], scores[group][there], 0.5, min_score=0.1)
        filled = torch.isfinite(decayed[group])
        count = min(8, len(expected[1]))
        assert filled.tolist() == [True] * count + [False] * (len(filled) - count)
        assert torch.equal(picked[group][filled], expected[0][:count])
        assert torch.allclose(decayed[group][filled], expected[1][:count])
    assert decayed.shape[1] == 8


@pytest.mark.parametrize("picks", [2, 5, 16])
def test_to_look_rarely_whether_any_group_goes_on_changes_no_pick(
    picks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: nobody is picked after the last group has ended."""
    groups = [random_segments(40, seed) for seed in range(4)]
    segments, scores = (torch.from_numpy(np.stack(parts)) for parts in zip(*groups, strict=True))

    def suppress() -> tuple[torch.Tensor, torch.Tensor]:
        return batched_soft_nms(segments, scores, 0.5, min_score=0.4, max_picks=39)

    each_time = suppress()
    monkeypatch.setitem(LOOK_EVERY, "cpu", picks)
    picked, decayed = suppress()
    count = each_time[1].shape[1]
    assert 2 < count < 30
    assert decayed.shape[1] == -(-count // picks) * picks
    assert torch.equal(picked[:, :count], each_time[0])
    assert torch.equal(decayed[:, :count], each_time[1])
    assert torch.isneginf(decayed[:, count:]).all()


@pytest.mark.parametrize("places", [1, 8, 50, 300, 2**16])
@pytest.mark.parametrize("sizes", [[], [1], [3, 20, 1, 9, 9, 2, 20], [1] * 40 + [30]])
def test_soft_nms_of_groups_equals_each_alone(
    sizes: list[int], places: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, however many of them are done at once."""
    monkeypatch.setitem(NMS_CHUNK, "cpu", places)
    segments, scores = map(torch.from_numpy, random_segments(sum(sizes), 0))
    group, *found = soft_nms_of_groups(
        segments, scores, torch.tensor(sizes, dtype=torch.long), 0.5, min_score=0.1, max_picks=8
    )
    parts = segments.split(sizes), scores.split(sizes)
    for number, own in enumerate(zip(*parts, strict=True)):
        for ours, alone in zip(found, soft_nms(*own, 0.5, 0.1), strict=True):
            assert torch.equal(ours[group == number], alone[:8])


def test_batched_soft_nms_of_nothing() -> None:
    for shape in [(0, 5), (2, 0)]:
        picked, scores = batched_soft_nms(
            torch.zeros(*shape, 2), torch.zeros(shape), 0.5, min_score=0.0, max_picks=3
        )
        assert picked.shape == (shape[0], 0, 2)
        assert scores.shape == (shape[0], 0)


# --- of a table -----------------------------------------------------------------------------------


FRAME = ["video", "label", "score", "t_start", "t_end"]
group_sizes = st.lists(
    st.tuples(st.sampled_from("vwx"), st.sampled_from(["run", "jump"]), st.integers(1, 9)),
    max_size=6,
)


def random_proposals(groups: list[tuple[str, str, int]], seed: int) -> pd.DataFrame:
    """Proposals of videos and classes in any order; scores below 0 as well."""
    rng, frames = np.random.default_rng(seed), []
    for video, label, count in groups:
        segments, scores = random_segments(count, int(rng.integers(1000)))
        columns = (scores - 0.3, segments[:, 0], segments[:, 1])
        own = pd.DataFrame(dict(zip(FRAME[2:], columns, strict=True)))
        frames.append(own.assign(video=video, label=label)[FRAME])
    if not frames:
        return pd.DataFrame(columns=FRAME).astype(dict.fromkeys(FRAME[2:], float))
    return pd.concat(frames).sample(frac=1, random_state=seed).reset_index(drop=True)


def groups_of(frame: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    return dict(list(frame.groupby(["video", "label"], sort=False)))


@given(group_sizes, st.integers(0, 999), st.sampled_from([0.1, 0.3, 2.0]), st.booleans())
def test_suppress_softly_equals_soft_nms_of_each_video_and_class(
    groups: list[tuple[str, str, int]], seed: int, sigma: float, legacy: bool
) -> None:
    """To the bit, and with every row; whatever else is suppressed with it."""
    proposals = random_proposals(groups, seed)
    found = suppress_softly(proposals, sigma, legacy_plus_one=legacy)
    assert sorted(found.columns) == sorted(FRAME)
    assert found.index.equals(pd.RangeIndex(len(proposals)))
    before, after = groups_of(proposals), groups_of(found)
    assert list(after) == list(before)  # in the order that they come
    for key, own in before.items():
        times, scores = own[["t_start", "t_end"]].to_numpy().copy(), own["score"].to_numpy().copy()
        tensors = map(torch.from_numpy, (times, scores))
        found_alone = soft_nms(*tensors, sigma, -np.inf, legacy_plus_one=legacy)
        segments, decayed = (x.numpy() for x in found_alone)
        assert np.array_equal(after[key][["t_start", "t_end"]], segments)
        assert np.array_equal(after[key]["score"], decayed)
        loops = soft_nms_by_loops(times, scores, sigma, -np.inf, extra=float(legacy))
        np.testing.assert_allclose(decayed, loops[1], atol=1e-12)
        assert sorted(map(tuple, segments)) == sorted(map(tuple, times))
        if (scores >= 0).all():
            assert (np.diff(decayed) <= 0).all()


def test_suppress_softly_by_hand() -> None:
    """Two classes and two videos at one place leave each other alone."""
    rows = [
        ("v", "run", 0.9, 0.0, 4.0),
        ("w", "run", 0.5, 0.0, 4.0),
        ("v", "jump", 0.6, 0.0, 4.0),
        ("v", "run", 0.8, 0.0, 2.0),  # tIoU 1/2, with lengths + 1 3/5
    ]
    proposals = pd.DataFrame(rows, columns=FRAME)
    for legacy, tiou in ((False, 1 / 2), (True, 3 / 5)):
        found = suppress_softly(proposals, 0.3, legacy_plus_one=legacy)
        expected = [rows[0], (*rows[3][:2], 0.8 * np.exp(-(tiou**2) / 0.3), 0.0, 2.0)]
        expected += [rows[1], rows[2]]
        assert found[FRAME[:2]].to_numpy().tolist() == [list(row[:2]) for row in expected]
        assert found["score"].tolist() == pytest.approx([row[2] for row in expected])


@given(group_sizes, st.integers(0, 999), st.floats(0.05, 1), st.booleans())
def test_thin_equals_nms_of_each_video_and_class(
    groups: list[tuple[str, str, int]], seed: int, tiou: float, legacy: bool
) -> None:
    proposals = random_proposals(groups, seed)
    found = thin(proposals, tiou, legacy_plus_one=legacy)
    expected = [proposals[:0]]
    for own in groups_of(proposals).values():
        segments, scores = own[["t_start", "t_end"]].to_numpy(), own["score"].to_numpy()
        expected.append(own.iloc[nms(segments, scores, tiou, legacy_plus_one=legacy)])
    pd.testing.assert_frame_equal(found, pd.concat(expected, ignore_index=True), check_exact=True)


def test_suppression_leaves_its_input_alone() -> None:
    proposals = random_proposals([("v", "run", 7), ("w", "jump", 3)], 0)
    before = proposals.copy()
    suppress_softly(proposals, 0.3)
    thin(proposals, 0.5)
    pd.testing.assert_frame_equal(proposals, before, check_exact=True)
