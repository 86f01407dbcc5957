"""Boundary heads at chosen positions against the same heads everywhere."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from student_helpers import random_input, random_network, small_settings
from student_helpers import tiny_dataset as student_dataset
from torch import Tensor

from fustal_core.student import StudentOutput, TriDet, decode_offsets
from fustal_core.student_batches import TrainingSet, grid_labels, make_batch
from fustal_core.student_training import _epoch_generators, _start, _train_step
from fustal_core.trident_reach import FILLED_TO, HEAD_REACH, boundary_rows

CPU = torch.device("cpu")


def chosen_positions(output: StudentOutput, share: float, seed: int) -> Tensor:
    """(B, L) bool, a random share of the positions that are no padding and no gap."""
    rng = torch.Generator().manual_seed(seed)
    return (torch.rand(output.mask.shape, generator=rng) < share) & output.mask


def decoded_everywhere(output: StudentOutput, decoded: Tensor) -> Tensor:
    """Distances of every class at the chosen positions, (N, 2)."""
    wanted = decoded[..., None].expand_as(output.class_logits)
    return decode_offsets(output, *wanted.nonzero(as_tuple=True))


def gradients(model: TriDet, distances: Tensor) -> dict[str, Tensor | None]:
    weight = torch.linspace(-1, 1, distances.numel()).view_as(distances)
    found = torch.autograd.grad(
        (distances * weight).sum(), list(model.parameters()), allow_unused=True
    )
    return dict(zip((name for name, _ in model.named_parameters()), found, strict=True))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["masked", "padded"]),
    st.sampled_from([1, 4, 40]),
    st.sampled_from([1, 3]),
    st.lists(st.integers(1, 32), min_size=1, max_size=3),
    st.sampled_from([0.02, 0.2, 1.0]),
    st.integers(0, 1000),
)
def test_what_is_decoded_and_its_gradients_are_those_of_heads_everywhere(
    global_mean: str, bins: int, levels: int, lengths: list[int], share: float, seed: int
) -> None:
    # Four channels a group: with one, a level of one position has variance 0 up to rounding.
    options = small_settings(width=64, global_mean=global_mean, bins=bins, levels=levels)
    model = random_network(options, seed=seed).double()
    features, mask = random_input(lengths, 32, seed=seed)
    features = features.double()
    everywhere = model(features, mask)
    decoded = chosen_positions(everywhere, share, seed)
    here = model(features, mask, None, decoded)
    got, wanted = (decoded_everywhere(output, decoded) for output in (here, everywhere))
    torch.testing.assert_close(got, wanted)
    assert torch.equal(here.class_logits, everywhere.class_logits)
    assert torch.equal(here.mask, everywhere.mask)
    ours, theirs = gradients(model, got), gradients(model, wanted)
    for name, gradient in theirs.items():
        assert (ours[name] is None) == (gradient is None), name
        if gradient is not None:
            scale = gradient.abs().max().item()
            torch.testing.assert_close(ours[name], gradient, rtol=1e-6, atol=1e-9 * scale + 1e-12)


def test_rows_by_hand() -> None:
    decoded = torch.zeros(2, 30, dtype=torch.bool)
    decoded[0, 10] = decoded[1, 28] = True
    offset, start, end = boundary_rows(decoded, bins=4)
    wanted = {  # positions of the first video and of the second
        "offset": ([*range(7, 14)], [*range(25, 30)]),
        "start": ([*range(3, 14)], [*range(21, 30)]),
        "end": ([*range(7, 18)], [*range(25, 30)]),
    }
    assert HEAD_REACH == 3
    for name, rows in zip(wanted, (offset, start, end), strict=True):
        first, second = wanted[name]
        exists = rows.exists[:, 0]
        assert rows.index[exists].tolist() == first + [30 + i for i in second]
        # A gap behind each video, then what fills up.
        count = len(first) + len(second) + 2
        gaps = torch.tensor([len(first), count - 1])
        assert not exists[gaps].any()
        assert exists.sum() == count - 2
        assert len(exists) == FILLED_TO


def test_a_video_of_which_nothing_is_decoded_has_no_boundaries() -> None:
    model = random_network(small_settings())
    features, mask = random_input([32, 19], 32)
    decoded = torch.zeros(2, 58, dtype=torch.bool)
    decoded[0, 5] = True
    output = model(features, mask, None, decoded)
    assert output.start_logits[0].any()
    for part in (output.start_logits, output.end_logits, output.offsets):
        assert not part[1].any()
    none = model(features, mask, None, torch.zeros_like(decoded))
    assert not none.offsets.any()
    none.offsets.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("count", [1, 40, 200])
def test_rows_are_filled_up_to_few_lengths(count: int) -> None:
    decoded = torch.zeros(1, 400, dtype=torch.bool)
    decoded[0, :count] = True
    rows = boundary_rows(decoded, bins=16).offset
    assert len(rows.index) % FILLED_TO == 0
    assert len(rows.index) - int(rows.exists.sum()) <= FILLED_TO


def test_a_training_step_is_that_of_heads_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def step() -> tuple[float, list[Tensor]]:
        options, data = small_settings(), student_dataset()
        names, store = data.video_names("train"), data.student_features
        given = grid_labels(data.truth("train"), store, names, data.classes)
        training = TrainingSet(names, store, data.video_labels("train"), given)
        state = _start(options, store.dim, len(data.classes), 3, 0, CPU)
        rngs = _epoch_generators(0, 0, CPU)
        batch = make_batch(training, np.array([0, 1, 2]), options, *rngs, CPU)
        loss = _train_step(state, batch, len(data.classes), options, rngs[1])
        return loss.total.item(), [p.grad for p in state.weights if p.grad is not None]

    loss, ours = step()
    forward = TriDet.forward
    monkeypatch.setattr(TriDet, "forward", lambda model, *given: forward(model, *given[:3]))
    expected, wanted = step()
    assert loss == pytest.approx(expected, rel=1e-5)
    assert len(ours) == len(wanted)
    for mine, theirs in zip(ours, wanted, strict=True):
        scale = theirs.abs().max().item()
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4 * scale + 1e-7)
