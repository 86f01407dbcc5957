"""Losses and label assignment of the student, against hand-worked values and plain loops."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from student_helpers import random_input, random_network, random_output, small_settings
from torch import Tensor

from fustal_core.reference_student import network_by_levels
from fustal_core.reference_student_loss import assigned, positions, student_loss_by_positions
from fustal_core.student import StudentOutput, decode_offsets, make_grid
from fustal_core.student_batches import GridLabels, stack_labels
from fustal_core.student_loss import (
    Targets,
    assign_labels,
    diou_loss,
    focal_loss,
    overlap_of_distances,
    student_loss,
    video_loss,
)

CPU = torch.device("cpu")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-8, 250), st.integers(1, 160), st.integers(-1, 2)),
        min_size=0,
        max_size=8,
    )
)
def test_assignment_equals_a_loop_over_positions(entries: list[tuple[int, int, int]]) -> None:
    # Quarters are exact in float32, so the comparisons at the borders are too.
    segments = [(start / 4, (start + length) / 4) for start, length, _ in entries]
    labels = [label for *_, label in entries]
    grid = make_grid(64, 4, CPU)
    targets = assign_labels(
        grid,
        torch.tensor(segments).reshape(1, -1, 2),
        torch.tensor(labels, dtype=torch.long)[None],
        3,
    )
    is_gap = grid.level < 0
    assert not targets.classes[0, is_gap].any()
    found, distances = targets.classes[0, ~is_gap], targets.distances[0, ~is_gap]
    for place, row, pair in zip(positions(64, 4), found, distances, strict=True):
        classes, wanted = assigned(place, segments, labels)
        assert set(row.nonzero().flatten().tolist()) == classes
        if classes:
            assert pair.tolist() == pytest.approx(wanted)


def test_assignment_by_hand() -> None:
    grid = make_grid(32, 4, CPU)
    segments = torch.tensor([[[10.0, 14.0], [9.0, 15.0], [10.0, 14.0005]]])
    targets = assign_labels(grid, segments, torch.tensor([[0, 1, 2]]), 3)
    level_0, level_1 = grid.slices()[:2]
    positive = targets.classes[0, level_0].nonzero()
    # The two shortest, 5e-4 apart, share 11, 12, 13; the longer one never gets them.
    assert positive.tolist() == [[11, 0], [11, 2], [12, 0], [12, 2], [13, 0], [13, 2]]
    assert targets.distances[0, 11].tolist() == [1, 3]
    # At level 1 (distances 4 to 8, points 2 apart) points 10 and 14 of [9, 15] have an end 5 away
    # and lie within 3 of its centre, point 12 has none; but 14 also lies in [10, 14.0005], shorter.
    positive = targets.classes[0, level_1].nonzero()
    assert positive.tolist() == [[5, 1], [7, 2]]
    assert targets.distances[0, level_1][5].tolist() == [0.5, 2.5]


def test_videos_of_a_batch_are_assigned_apart() -> None:
    grid = make_grid(32, 4, CPU)
    segments = torch.tensor([[[3.0, 9.0]], [[20.0, 23.0]]])
    labels = torch.tensor([[1], [0]])
    both = assign_labels(grid, segments, labels, 2)
    for i in range(2):
        single = assign_labels(grid, segments[i : i + 1], labels[i : i + 1], 2)
        assert torch.equal(both.classes[i], single.classes[0])
    assert both.classes.any((1, 2)).all()
    nothing = assign_labels(grid, torch.zeros(2, 0, 2), torch.zeros(2, 0, dtype=torch.long), 2)
    assert nothing.classes.shape == both.classes.shape
    assert not nothing.classes.any()


@pytest.mark.parametrize(
    ("predicted", "wanted", "overlap", "loss"),
    [
        ((1, 1), (1, 1), 1, 0),
        ((1, 1), (2, 2), 1 / 2, 1 / 2),
        # [0, 2] and [-2, 0]: no overlap, centres 2 apart, enclosed by 4.
        ((0, 2), (2, 0), 0, 1 + (2 / 4) ** 2),
        # [-1, 3] and [-3, 1]: overlap 2 of 6, centres 2 apart, enclosed by 6.
        ((1, 3), (3, 1), 1 / 3, 2 / 3 + (2 / 6) ** 2),
        ((0, 0), (1, 1), 0, 1),
    ],
)
def test_diou(
    predicted: tuple[float, float], wanted: tuple[float, float], overlap: float, loss: float
) -> None:
    pair = torch.tensor([predicted], dtype=torch.float), torch.tensor([wanted], dtype=torch.float)
    assert overlap_of_distances(*pair).item() == pytest.approx(overlap)
    assert diou_loss(*pair).item() == pytest.approx(loss)


@pytest.mark.parametrize(
    ("probability", "target", "loss"),
    [
        (0.5, 1, 0.25 * 0.5**2 * math.log(2)),
        (0.5, 0, 0.75 * 0.5**2 * math.log(2)),
        (0.9, 1, 0.25 * 0.1**2 * -math.log(0.9)),
        (0.9, 0, 0.75 * 0.9**2 * -math.log(0.1)),
    ],
)
def test_focal(probability: float, target: int, loss: float) -> None:
    logit = torch.tensor(math.log(probability / (1 - probability)))
    assert focal_loss(logit, torch.tensor(float(target))).item() == pytest.approx(loss, rel=1e-5)


def test_video_loss_per_video_ignores_padding() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 30, 3, generator=rng)
    lengths = [23, 4]
    mask = torch.arange(30) < torch.tensor(lengths)[:, None]
    labels = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    expected = 0.0
    for video, length in enumerate(lengths):
        k = max(length // 5, 1)
        scores = logits[video, :length].sort(0, descending=True).values[:k].mean(0)
        y = labels[video] / labels[video].sum()
        p = scores.softmax(0)
        expected += -(y * p.log() + (1 - y) * (1 - p).log()).mean().item() / 2
    assert video_loss(logits, mask, labels, dropout=0).item() == pytest.approx(expected, rel=1e-5)
    junk = torch.where(mask[..., None], logits, 50.0)
    assert video_loss(junk, mask, labels, dropout=0).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("lengths", "k"), [([23, 4], 5), ([30, 30, 30, 30, 30, 30], 30)])
def test_video_loss_per_batch_counts_padding(lengths: list[int], k: int) -> None:
    B = len(lengths)
    logits = torch.randn(B, 30, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(30) < torch.tensor(lengths)[:, None]
    labels = torch.ones(B, 3)
    p = logits.topk(k, dim=1).values.mean(1).softmax(-1)
    expected = F.binary_cross_entropy(p, labels / 3).item()
    got = video_loss(logits, mask, labels, k_from="batch", dropout=0)
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_video_loss_with_dropout_sees_positive_logits_only() -> None:
    logits = torch.full((1, 100, 2), -4.0, requires_grad=True)
    mask, labels = torch.ones(1, 100, dtype=torch.bool), torch.tensor([[1.0, 0.0]])
    loss = video_loss(logits, mask, labels, rng=torch.Generator().manual_seed(0))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)
    assert not logits.grad.any()
    positive = torch.full((1, 100, 2), 4.0, requires_grad=True)
    video_loss(positive, mask, labels, rng=torch.Generator().manual_seed(0)).backward()
    assert positive.grad[0, :, 0].sum() < 0 < positive.grad[0, :, 1].sum()


def random_targets(output: StudentOutput, segments: Tensor) -> Targets:
    labels = torch.tensor([[0, 1, 2], [2, 1, -1]])
    return assign_labels(output.grid, segments, labels, 3)


SEGMENTS = torch.tensor(
    [[[2.0, 7.0], [5.0, 25.0], [26.0, 28.5]], [[1.0, 9.5], [12.0, 40.0], [0, 0]]]
)


def test_whole_loss_equals_a_loop_over_entries() -> None:
    _, output = random_output()
    targets = random_targets(output, SEGMENTS)
    labels = torch.tensor([[1.0, 1, 1], [0, 1, 1]])
    got = student_loss(output, targets, labels, torch.tensor(100.0), mil_weight=0.5, mil_dropout=0)
    focal, diou, positives = 0.0, 0.0, set()
    for b, t, c in torch.cartesian_prod(
        *(torch.arange(n) for n in output.class_logits.shape)
    ).tolist():
        if not output.mask[b, t]:
            continue
        p = torch.sigmoid(output.class_logits[b, t, c]).item()
        if not targets.classes[b, t, c]:
            focal -= 0.75 * p**2 * math.log(1 - p)
            continue
        positives.add((b, t))
        entry = (torch.tensor([i]) for i in (b, t, c))
        left, right = decode_offsets(output, *entry)[0].tolist()
        wanted_left, wanted_right = targets.distances[b, t].tolist()
        inter = min(left, wanted_left) + min(right, wanted_right)
        tiou = inter / (left + right + wanted_left + wanted_right - inter)
        enclosing = max(left, wanted_left) + max(right, wanted_right)
        shift = ((right - left) - (wanted_right - wanted_left)) / 2
        diou += 1 - tiou + (shift / enclosing) ** 2
        focal -= tiou**0.2 * 0.25 * (1 - p) ** 2 * math.log(p)
    normaliser = 0.9 * 100 + 0.1 * len(positives)
    assert len(positives) > 5
    assert got.normaliser.item() == pytest.approx(normaliser)
    assert got.classification.item() == pytest.approx(focal / normaliser, rel=1e-4)
    assert got.regression.item() == pytest.approx(diou / normaliser, rel=1e-4)
    level_0 = slice(0, 32)
    video = video_loss(output.class_logits[:, level_0], output.mask[:, level_0], labels, dropout=0)
    assert got.video.item() == pytest.approx(video.item())
    total = got.classification + got.regression + 0.5 * video
    assert got.total.item() == pytest.approx(total.item())


def test_loss_and_all_gradients_equal_the_released_network_and_loops_over_positions() -> None:
    """Padded videos, one of which has no labels, and two classes for the very same time."""
    options = small_settings(global_mean="padded", drop_path=0)
    model = random_network(options)
    features, mask = random_input([64, 40, 51], 64)
    given = [
        ([(3.0, 11.0), (3.0, 11.0), (20.0, 55.0)], [0, 2, 1]),
        ([(1.5, 4.0), (6.0, 38.5)], [1, 1]),
        ([], []),
    ]
    shown = torch.tensor([[1.0, 1, 1], [0, 1, 0], [1, 0, 0]])
    stacked = stack_labels(
        [GridLabels(torch.tensor(a).reshape(-1, 2), torch.tensor(b).long()) for a, b in given]
    )
    output = model(features, mask)
    targets = assign_labels(output.grid, *stacked, 3)
    ours = student_loss(output, targets, shown, torch.tensor(100.0), mil_dropout=0)
    plain, normaliser = student_loss_by_positions(
        network_by_levels(model, features, mask), mask, given, shown, 100.0, options.levels
    )
    assert (targets.classes.sum(-1) == 2).any()
    assert normaliser > 90.5
    assert ours.normaliser.item() == pytest.approx(normaliser)
    assert ours.total.item() == pytest.approx(plain.item(), rel=1e-5)
    weights = list(model.parameters())
    gradients = (torch.autograd.grad(x, weights, allow_unused=True) for x in (ours.total, plain))
    for mine, wanted in zip(*gradients, strict=True):
        assert (mine is None) == (wanted is None)
        if mine is not None:
            scale = wanted.abs().max().item()
            torch.testing.assert_close(mine, wanted, rtol=1e-3, atol=1e-4 * scale + 1e-7)


def test_padding_is_never_positive() -> None:
    _, output = random_output()
    # The second video has 19 positions: only the segment at [12, 40] reaches beyond.
    targets = random_targets(output, SEGMENTS)
    everywhere = Targets(torch.ones_like(targets.classes), targets.distances.abs() + 1)
    got = student_loss(output, everywhere, torch.ones(2, 3), torch.tensor(0.0))
    assert got.normaliser.item() == pytest.approx(0.1 * output.mask.sum().item())


def test_batch_without_positives_has_a_loss() -> None:
    _, output = random_output()
    targets = random_targets(output, SEGMENTS)
    targets = replace(targets, classes=torch.zeros_like(targets.classes))
    got = student_loss(output, targets, torch.ones(2, 3), torch.tensor(100.0))
    assert got.regression.item() == 0
    assert got.normaliser.item() == pytest.approx(90.1)
    assert math.isfinite(got.total.item())


def test_overlap_weight_carries_no_gradient_to_the_borders() -> None:
    _, output = random_output()
    start = output.start_logits.clone().requires_grad_()
    logits = output.class_logits.clone().requires_grad_()
    traced = replace(output, start_logits=start, class_logits=logits)
    loss = student_loss(
        traced, random_targets(output, SEGMENTS), torch.ones(2, 3), torch.tensor(1.0)
    )
    by_classification = torch.autograd.grad(
        loss.classification, (logits, start), retain_graph=True, allow_unused=True
    )
    assert by_classification[0].any()
    assert by_classification[1] is None
    assert torch.autograd.grad(loss.regression, start)[0].any()
