"""Feature stores: the two ways of sampling snippets, and their clock."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fustal_core.data import FeatureStore
from fustal_core.features import perturbed_indices, uniform_indices


def store(lengths: list[int]) -> FeatureStore:
    """Videos v0, v1, .. whose only channel is the row number."""
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    offsets = {f"v{i}": (s, n) for i, (s, n) in enumerate(zip(starts, lengths, strict=True))}
    array = torch.arange(sum(lengths), dtype=torch.float32)[:, None]
    return FeatureStore(array, offsets, 4, 16, dict.fromkeys(offsets, 30.0))


# Sampling


def loop_choices(length: int, count: int) -> list[set[int]]:
    """What each index may be, written as CoLA's loop over snippets."""
    if length == count:
        return [{i} for i in range(count)]
    floors = [int(i * length / count) for i in range(count)]
    ends = [*floors[1:], length - 1]
    return [set(range(a, max(a, b) + 1)) for a, b in zip(floors, ends, strict=True)]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**31))
def test_perturbed_indices_stay_in_their_slots_and_never_fall(
    length: int, count: int, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    (drawn,) = perturbed_indices(torch.tensor([length]), count, rng).tolist()
    assert all(i in slot for i, slot in zip(drawn, loop_choices(length, count), strict=True))
    assert drawn == sorted(drawn)


@pytest.mark.parametrize(
    ("length", "count"), [(10, 4), (4, 10), (7, 7), (1, 5), (8, 7), (5, 1), (2, 1)]
)
def test_perturbed_indices_take_every_place_of_the_loop_equally_often(
    length: int, count: int
) -> None:
    draws = 6000
    lengths = torch.full((draws,), length)
    drawn = perturbed_indices(lengths, count, torch.Generator().manual_seed(0))
    for place, slot in zip(drawn.T, loop_choices(length, count), strict=True):
        frequency = torch.bincount(place, minlength=length) / draws
        expected = torch.zeros(length)
        expected[sorted(slot)] = 1 / len(slot)
        torch.testing.assert_close(frequency, expected, atol=0.03, rtol=0)


def test_uniform_indices_by_hand() -> None:
    assert uniform_indices(10, 4).tolist() == [0, 2, 5, 7]
    assert uniform_indices(3, 4).tolist() == [0, 1, 2]
    assert uniform_indices(4, 4).tolist() == [0, 1, 2, 3]


def test_random_samples_come_from_their_own_video_and_repeat_with_the_seed() -> None:
    features = store([5, 1, 40])
    batch = features.sample_random(["v2", "v0", "v1"], 8, torch.Generator().manual_seed(3))
    again = features.sample_random(["v2", "v0", "v1"], 8, torch.Generator().manual_seed(3))
    assert batch.shape == (3, 8, 1)
    assert torch.equal(batch, again)
    low, high = batch.amin((1, 2)).tolist(), batch.amax((1, 2)).tolist()
    assert low[0] >= 6
    assert high[0] <= 45
    assert low[1] >= 0
    assert high[1] <= 4
    assert (low[2], high[2]) == (5, 5)


def test_uniform_sample_of_a_long_and_a_short_video() -> None:
    features = store([3, 10])
    assert features.sample_uniform("v1", 4)[:, 0].tolist() == [3, 5, 8, 10]
    assert features.sample_uniform("v0", 4)[:, 0].tolist() == [0, 1, 2]


def test_half_precision_is_handed_out_as_single() -> None:
    features = FeatureStore(torch.ones(3, 2, dtype=torch.float16), {"v": (0, 3)}, 1, 1, {"v": 5.0})
    rng = torch.Generator().manual_seed(0)
    assert features["v"].dtype == torch.float32
    assert features.sample_random(["v"], 2, rng).dtype == torch.float32
    assert features.sample_uniform("v", 2).dtype == torch.float32


# Clocks


def test_grid_and_seconds_by_hand() -> None:
    features = store([10])
    assert features.seconds_per_snippet("v0") == 4 / 30
    np.testing.assert_allclose(features.to_seconds("v0", np.array([0, 10])), [8 / 30, 48 / 30])
    np.testing.assert_allclose(features.to_grid("v0", np.array([0.0, 1.0])), [-2.0, 5.5])


@given(st.lists(st.floats(-1e4, 1e4), max_size=5))
def test_to_grid_undoes_to_seconds(grid: list[float]) -> None:
    features = store([10])
    back = features.to_grid("v0", features.to_seconds("v0", np.array(grid)))
    np.testing.assert_allclose(back, grid, atol=1e-6)
