"""Snippet mining: the erosions and dilations of scipy, rims by hand, choices as by loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from fustal_core.dropout import dropout
from fustal_core.mining import dilate, erode, hard_regions, mine_snippets, snippet_mask
from fustal_core.reference import mine_snippets_by_loops

FIELDS = ("easy_action", "hard_action", "easy_background", "hard_background")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(hnp.arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 40))), st.integers(1, 8))
def test_erosion_and_dilation_equal_scipy(active: np.ndarray, window: int) -> None:
    flat = np.ones((1, window))
    rows = torch.from_numpy(active)
    assert np.array_equal(erode(rows, window).numpy(), ndimage.binary_erosion(active, flat))
    assert np.array_equal(dilate(rows, window).numpy(), ndimage.binary_dilation(active, flat))


def test_an_even_window_is_off_centre_as_scipys() -> None:
    active = torch.zeros(1, 20, dtype=torch.bool)
    active[0, 6:15] = True
    assert erode(active, 6)[0].nonzero().flatten().tolist() == [9, 10, 11, 12]
    assert dilate(active, 6)[0].nonzero().flatten().tolist() == list(range(3, 17))
    assert erode(active, 3)[0].nonzero().flatten().tolist() == list(range(7, 14))
    assert dilate(active, 3)[0].nonzero().flatten().tolist() == list(range(5, 16))


def test_rims_by_hand() -> None:
    actionness = torch.zeros(1, 20)
    actionness[0, 6:15] = torch.arange(9) + 1.0  # nine of twenty: the median is 0
    inner, outer = hard_regions(actionness)
    assert inner[0].nonzero().flatten().tolist() == [7, 8, 13]
    assert outer[0].nonzero().flatten().tolist() == [3, 4, 16]


def position_embeddings(actionness: np.ndarray) -> np.ndarray:
    """Embeddings that tell which video and snippet they are of, (B, T, 2)."""
    return np.stack(np.indices(actionness.shape), axis=-1).astype(float)


# Few distinct values make ties; zeros make active regions smaller than k_hard.
TIED = hnp.arrays(
    float,
    st.tuples(st.integers(1, 3), st.integers(1, 70)),
    elements=st.sampled_from([0, 0, 1, 2, 5]),
)


@settings(max_examples=150)
@given(TIED, st.none() | st.integers(0, 99))
def test_mining_equals_loops(actionness: np.ndarray, mask_seed: int | None) -> None:
    embeddings = position_embeddings(actionness)
    tensor = torch.from_numpy(actionness)
    mask = None if mask_seed is None else snippet_mask(tensor, seeded(mask_seed))
    mined = mine_snippets(tensor, torch.from_numpy(embeddings), mask)
    expected = mine_snippets_by_loops(
        actionness, embeddings, None if mask is None else mask.numpy()
    )
    for name in FIELDS:
        assert np.array_equal(getattr(mined, name).numpy(), expected[name]), name


@pytest.mark.parametrize("length", [400, 751])
def test_mining_of_untied_curves_equals_loops(length: int) -> None:
    actionness = torch.rand(4, length, generator=seeded(0))
    embeddings = torch.randn(4, length, 6, generator=seeded(1))
    mined = mine_snippets(actionness, embeddings)
    expected = mine_snippets_by_loops(actionness.numpy(), embeddings.numpy())
    assert mined.easy_action.shape == (4, length // 5, 6)
    assert mined.hard_background.shape == (4, length // 20, 6)
    for name in FIELDS:
        assert np.array_equal(getattr(mined, name).numpy(), expected[name]), name


@pytest.mark.parametrize("shapes", [((3,), (3, 2)), ((2, 3), (2, 4, 5)), ((2, 3, 1), (2, 3, 5))])
def test_mining_refuses_shapes_that_do_not_fit(shapes: tuple) -> None:
    with pytest.raises(ValueError, match="expected actionness"):
        mine_snippets(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


def test_dropout_is_inverted_and_drops_its_share() -> None:
    dropped = dropout(torch.ones(10_000), 0.7, seeded(0))
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.3])
    assert (dropped == 0).float().mean().item() == pytest.approx(0.7, abs=0.02)
    mask = snippet_mask(torch.rand(100, 100), seeded(0))
    assert mask.unique().tolist() == pytest.approx([0, 2.5])
    assert (mask == 0).float().mean().item() == pytest.approx(0.6, abs=0.02)
