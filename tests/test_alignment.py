"""FSD and LCS: tables worked by hand, values and gradients against double loops, paths."""

from __future__ import annotations

import math
from collections.abc import Callable
from math import log2

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from fustal_core.alignment import (
    cosine_table,
    fine_grained_sequence_distance,
    fsd_path,
    fsd_table,
    lcs_path,
    lcs_table,
    longest_common_subsequence,
    matched_cells,
)
from fustal_core.reference_alignment import cosine_by_pairs, fsd_by_loops, lcs_by_loops

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))


def random_tables(*shape: int, count: int = 1, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Cosines, uniform in [-1, 1]."""
    rng = torch.Generator().manual_seed(sum(shape))
    return [torch.rand(shape, generator=rng, dtype=dtype) * 2 - 1 for _ in range(count)]


def values_and_gradients(score: Callable, *tables: Tensor) -> list[Tensor]:
    """The values, and the gradients of a weighted sum of them."""
    inputs = [table.clone().requires_grad_() for table in tables]
    values = score(*inputs)
    weights = torch.arange(1, len(values) + 1, dtype=values.dtype)
    total = (values * weights).sum()
    # A double loop in which nothing matches uses none of its inputs.
    gradients = [None] * len(inputs)
    if total.requires_grad:
        gradients = torch.autograd.grad(total, inputs, allow_unused=True)
    filled = [
        torch.zeros_like(x) if g is None else g for x, g in zip(inputs, gradients, strict=True)
    ]
    return [values.detach(), *filled]


def assert_equal_scores(fast: Callable, slow: Callable, *tables: Tensor) -> None:
    ours, expected = values_and_gradients(fast, *tables), values_and_gradients(slow, *tables)
    for mine, other in zip(ours, expected, strict=True):
        assert mine.dtype == tables[0].dtype
        assert torch.allclose(mine, other, rtol=0, atol=TOLERANCE[mine.dtype])


# --- cosine ---------------------------------------------------------------------------------------


def test_cosines_by_hand() -> None:
    a = torch.tensor([[[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]]])
    b = torch.tensor([[[4.0, 3.0], [-1.0, 0.0]]])
    assert cosine_table(a, b)[0].flatten().tolist() == pytest.approx(
        [24 / 25, -3 / 5, 3 / 5, 0, 0, 0]
    )


def test_cosines_equal_one_pair_at_a_time_with_gradients() -> None:
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(3, 4, 6, generator=rng, dtype=torch.float64)
    b = torch.randn(3, 5, 6, generator=rng, dtype=torch.float64)

    def summed(cosine: Callable) -> Callable:
        return lambda a, b: cosine(a, b).square().sum((1, 2))

    assert_equal_scores(summed(cosine_table), summed(cosine_by_pairs), a, b)


# --- FSD ------------------------------------------------------------------------------------------


def test_fsd_by_hand() -> None:
    # gamma = 1 / ln 2 makes the smooth maximum log2 of a sum of powers of 2, in units of gamma.
    gamma = 1 / math.log(2)
    match = torch.tensor([[[0.0, 1.0], [2.0, -1.0]]], dtype=torch.float64)
    gap = torch.tensor([[[0.0, 1.0], [-1.0, 1.0]]], dtype=torch.float64)

    first = log2(3)  # 0 + log2(1 + 1 + 1)
    right = 1 + log2(1 + 2 + 6)  # from the corner, from the border above, from the left: 2 * 3
    below = 2 + log2(1 + 3 / 2 + 1 / 2)  # from the corner, from above: 3 / 2, from the left
    last = -1 + log2(3 + 2 * 18 + 2 * 12)  # diagonal: 3; above: 2^right = 18; left: 2^below = 12
    assert fsd_table(match, gap, gamma)[0].tolist() == [
        pytest.approx([0, 0, 0]),
        pytest.approx([0, first, right]),
        pytest.approx([0, below, last]),
    ]
    assert fine_grained_sequence_distance(match, gap, gamma).item() == pytest.approx(last)
    assert last == pytest.approx(log2(63 / 2))


def test_fsd_of_single_snippets_by_hand() -> None:
    value = fine_grained_sequence_distance(torch.tensor([[[0.5]]]), torch.tensor([[[-0.2]]]))
    assert value.tolist() == pytest.approx([0.5 + 0.1 * math.log(1 + 2 * math.exp(-2))])


@pytest.mark.parametrize("shape", [(16, 5, 5), (2, 1, 6), (2, 6, 1), (3, 1, 1), (2, 9, 4)])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_fsd_equals_double_loop(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tables = random_tables(*shape, count=2, dtype=dtype)
    assert_equal_scores(fine_grained_sequence_distance, fsd_by_loops, *tables)


@settings(max_examples=40)
@given(st.data(), SHAPES, st.sampled_from([0.05, 0.1, 1.0]))
def test_fsd_equals_double_loop_on_any_cosines(
    data: st.DataObject, shape: tuple[int, ...], gamma: float
) -> None:
    drawn = hnp.arrays(float, shape, elements=st.floats(-1, 1))
    match, gap = (torch.from_numpy(data.draw(drawn)) for _ in range(2))
    assert_equal_scores(
        lambda m, g: fine_grained_sequence_distance(m, g, gamma),
        lambda m, g: fsd_by_loops(m, g, gamma),
        match,
        gap,
    )


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 1, 3), (2, 4, 2)])
def test_fsd_gradients_by_differences(shape: tuple[int, ...]) -> None:
    tables = [table.requires_grad_() for table in random_tables(*shape, count=2)]
    assert torch.autograd.gradcheck(fine_grained_sequence_distance, tables)
    assert torch.autograd.gradcheck(fsd_table, tables)


def hard_alignment(match: Tensor, gap: Tensor) -> float:
    """Best sum over all alignments of one pair: every step enumerated, no table."""

    def best(i: int, j: int) -> float:
        if i < 0 or j < 0:
            return 0.0
        gaps = gap[i, j].item() + max(best(i - 1, j), best(i, j - 1))
        return match[i, j].item() + max(best(i - 1, j - 1), gaps)

    return best(match.shape[0] - 1, match.shape[1] - 1)


def test_fsd_becomes_the_best_alignment_as_gamma_falls() -> None:
    match, gap = random_tables(4, 4, 5, count=2)
    hard = torch.tensor([hard_alignment(m, g) for m, g in zip(match, gap, strict=True)])
    errors = [
        fine_grained_sequence_distance(match, gap, gamma) - hard for gamma in (0.1, 0.01, 1e-5)
    ]
    # The smooth maximum of three lies above the maximum by at most gamma * log 3, at 4 + 5 - 1 cells.
    for error, gamma in zip(errors, (0.1, 0.01, 1e-5), strict=True):
        assert (error > -1e-6).all()
        assert (error < 8 * gamma * math.log(3) + 1e-6).all()
    assert (errors[0] > errors[1]).all()


# --- LCS ------------------------------------------------------------------------------------------

# Above the threshold of 0.92 stand 1.0, 0.95, 0.96 and 0.94.
BY_HAND = torch.tensor([[[0.5, 0.95, 0.1], [0.96, 0.2, 0.92], [0.3, 1.0, 0.94]]])


def test_lcs_by_hand() -> None:
    expected = [[0, 0, 0, 0], [0, 0, 0.95, 0.95], [0, 0.96, 0.96, 0.96], [0, 0.96, 1.96, 1.9]]
    table = lcs_table(BY_HAND)
    assert table[0].tolist() == [pytest.approx(row) for row in expected]
    # A match is taken although the sum to the left, 1.96, is larger: the recurrence says so.
    assert longest_common_subsequence(BY_HAND).tolist() == pytest.approx([1.9])
    assert lcs_path(BY_HAND[0]).tolist() == [[1, 0], [2, 2]]


def test_the_threshold_itself_is_no_match() -> None:
    similarity = torch.tensor([[[0.75]]])
    assert longest_common_subsequence(similarity, 0.75).tolist() == [0]
    assert longest_common_subsequence(similarity, 0.5).tolist() == [0.75]


@pytest.mark.parametrize("shape", [(4, 30, 30), (2, 1, 6), (2, 6, 1), (3, 1, 1), (2, 9, 20)])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("threshold", [-0.5, 0.2, 0.92])
def test_lcs_equals_double_loop(
    shape: tuple[int, ...], dtype: torch.dtype, threshold: float
) -> None:
    assert_equal_scores(
        lambda s: longest_common_subsequence(s, threshold),
        lambda s: lcs_by_loops(s, threshold),
        *random_tables(*shape, dtype=dtype),
    )


@settings(max_examples=100)
@given(st.data(), SHAPES, st.sampled_from([-1.0, 0.0, 0.5]))
def test_lcs_equals_double_loop_on_any_untied_cosines(
    data: st.DataObject, shape: tuple[int, ...], threshold: float
) -> None:
    # Where two different sets of matches have the same sum, either gradient would be right.
    size = math.prod(shape)
    order = torch.tensor(data.draw(st.permutations(range(size))), dtype=torch.float64)
    irrational = order.add(2).sqrt()
    similarity = (irrational / irrational.max() * 2 - 1).view(shape)
    assert_equal_scores(
        lambda s: longest_common_subsequence(s, threshold),
        lambda s: lcs_by_loops(s, threshold),
        similarity,
    )


@given(st.data(), SHAPES)
def test_lcs_values_equal_double_loop_with_ties(
    data: st.DataObject, shape: tuple[int, ...]
) -> None:
    elements = st.sampled_from([0.0, 0.5, 0.92, 0.9375, 1.0])  # 0.92 may not match
    similarity = torch.from_numpy(data.draw(hnp.arrays(float, shape, elements=elements)))
    expected = lcs_by_loops(similarity)
    assert torch.equal(longest_common_subsequence(similarity), expected)
    assert torch.equal(lcs_table(similarity)[:, -1, -1], expected)
    assert (expected <= min(shape[1:]) * similarity.amax((1, 2))).all()


@given(SHAPES, st.sampled_from([-0.8, 0.0, 0.3]))
def test_lcs_does_not_care_which_video_is_first(shape: tuple[int, ...], threshold: float) -> None:
    (similarity,) = random_tables(*shape)
    assert torch.allclose(
        longest_common_subsequence(similarity, threshold),
        longest_common_subsequence(similarity.transpose(1, 2), threshold),
    )


def test_lcs_of_all_matches_is_the_last_diagonal() -> None:
    similarity = random_tables(2, 3, 5)[0] * 0.02 + 0.97
    expected = [sum(pair[i, i + 2].item() for i in range(3)) for pair in similarity]
    assert longest_common_subsequence(similarity).tolist() == pytest.approx(expected)


def test_lcs_without_a_match_is_zero_and_has_no_gradient() -> None:
    similarity = torch.full((2, 4, 3), 0.92, requires_grad=True)
    values = longest_common_subsequence(similarity, 0.95)
    values.sum().backward()
    assert values.tolist() == [0, 0]
    assert not similarity.grad.any()
    assert lcs_path(similarity[0], 0.95).shape == (0, 2)


# --- both -----------------------------------------------------------------------------------------


def both_scores(match: Tensor, gap: Tensor) -> Tensor:
    """(2, P), FSD and LCS."""
    lcs = longest_common_subsequence(match, 0.2)
    return torch.stack([fine_grained_sequence_distance(match, gap), lcs])


def test_pairs_do_not_see_each_other() -> None:
    match, gap = random_tables(5, 6, 4, count=2)
    order = torch.tensor([3, 0, 4, 2, 1])
    batch = both_scores(match, gap)
    assert torch.allclose(both_scores(match[order], gap[order]), batch[:, order])
    for p in range(5):
        alone = both_scores(match[p : p + 1], gap[p : p + 1])
        assert torch.allclose(alone[:, 0], batch[:, p])


@pytest.mark.parametrize(
    "shape", [(3, 4, 6), (2, 1, 1), (2, 5, 1), (0, 3, 2), (2, 0, 3), (2, 0, 0)]
)
def test_tables_have_a_border_of_zeros_and_end_in_the_value(shape: tuple[int, ...]) -> None:
    match, gap = random_tables(*shape, count=2)
    pairs, n, m = shape
    for table, values in (
        (fsd_table(match, gap), fine_grained_sequence_distance(match, gap)),
        (lcs_table(match, 0.2), longest_common_subsequence(match, 0.2)),
    ):
        assert table.shape == (pairs, n + 1, m + 1)
        assert values.shape == (pairs,)
        assert not table[:, 0].any()
        assert not table[:, :, 0].any()
        assert torch.allclose(table[:, -1, -1], values)
    assert cosine_table(torch.ones(pairs, n, 2), torch.ones(pairs, m, 2)).shape == shape


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_no_snippets_have_empty_paths_and_score_zero(shape: tuple[int, int]) -> None:
    empty = torch.zeros(shape)
    assert both_scores(empty[None], empty[None]).tolist() == [[0], [0]]
    assert fsd_path(empty, empty).shape == lcs_path(empty).shape == (0, 2)


def test_nothing_waits_for_the_device() -> None:
    # Tensors of the meta device have no values: whoever asks for one fails.
    a, b = (torch.empty(3, n, 8, device="meta", requires_grad=True) for n in (5, 4))
    both_scores(cosine_table(a, b), cosine_table(a, b)).sum().backward()
    assert a.grad.shape == a.shape
    with pytest.raises((RuntimeError, NotImplementedError)):
        a.sum().item()


# --- paths ----------------------------------------------------------------------------------------


@given(st.integers(1, 8), st.integers(1, 8))
def test_the_fsd_path_goes_step_by_step_from_the_border_to_the_end(n: int, m: int) -> None:
    match, gap = (table[0] for table in random_tables(1, n, m, count=2))
    cells = fsd_path(match, gap, 1e-4).numpy()
    assert cells[-1].tolist() == [n - 1, m - 1]
    assert cells[0].min() == 0
    steps = np.diff(cells, axis=0)
    assert np.isin(steps, (0, 1)).all()
    assert (steps.sum(1) > 0).all()
    # With next to no smoothing the path's own sum is the value: a straight step costs the gap of the
    # cell it leads to, and so does a step from the border straight into the first cell.
    rows, columns = torch.from_numpy(cells.T.copy())
    straight = torch.from_numpy(np.r_[False, steps.sum(1) == 1])
    total = match[rows, columns].sum() + gap[rows, columns][straight].sum()
    total += gap[rows[0], columns[0]].clamp(min=0)
    value = fine_grained_sequence_distance(match[None], gap[None], 1e-4)
    assert total.item() == pytest.approx(value.item(), abs=0.01)


def test_the_fsd_path_by_hand() -> None:
    match = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.2, 0.9]])
    assert fsd_path(match, torch.full((2, 3), -2.0)).tolist() == [[0, 1], [1, 2]]
    # Gaps that pay make the path longer.
    assert fsd_path(match, torch.full((2, 3), 0.5)).tolist() == [[0, 0], [0, 1], [1, 1], [1, 2]]


@given(st.integers(1, 9), st.integers(1, 9))
def test_the_lcs_path_rises_and_sums_to_the_value(n: int, m: int) -> None:
    (similarity,) = random_tables(1, n, m)
    cells = lcs_path(similarity[0], 0.1)
    picked = similarity[0][cells[:, 0], cells[:, 1]]
    assert (picked > 0.1).all()
    assert (cells.diff(dim=0) > 0).all()
    assert picked.sum().item() == pytest.approx(lcs_table(similarity, 0.1)[0, -1, -1].item())
    assert torch.equal(matched_cells(similarity, 0.1)[0].nonzero(), cells)


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (cosine_table, [(2, 3, 4), (2, 3, 5)]),
        (cosine_table, [(2, 3, 4), (1, 3, 4)]),
        (cosine_table, [(3, 4), (3, 4)]),
        (fine_grained_sequence_distance, [(2, 3, 4), (2, 4, 3)]),
        (fsd_table, [(3, 4), (3, 4)]),
        (fsd_path, [(3, 4), (3, 5)]),
        (longest_common_subsequence, [(3, 4)]),
        (lcs_table, [(1, 2, 3, 4)]),
        (lcs_path, [(3,)]),
    ],
)
def test_wrong_shapes_are_refused_and_named(function: Callable, shapes: list[tuple]) -> None:
    with pytest.raises(ValueError, match=r"expected .* got") as error:
        function(*map(torch.zeros, shapes))
    inner = [str(shape)[1:-1].rstrip(",") for shape in shapes]
    assert all(text in str(error.value) for text in inner)


@pytest.mark.parametrize("gamma", [0.0, -0.1])
def test_the_smoothness_must_be_positive(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma must be above 0, got"):
        fine_grained_sequence_distance(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), gamma)
