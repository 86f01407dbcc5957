"""HR-Pro's second stage: pooling, network and losses against plain loops and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fustal_core.hrpro_instance import (
    HRProInstance,
    InstanceOutput,
    best_reliable,
    extend,
    instance_loss,
    overlap_of_pairs,
    roi_pool,
)
from fustal_core.reference import iou_of_two
from fustal_core.reference_roi import roi_pool_by_loops
from fustal_core.stage_settings import HRProInstanceSettings

HOW = HRProInstanceSettings()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pairs(rows: list) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 2)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


# --- pooling --------------------------------------------------------------------------------------


def pooled_alone(features: Tensor, rois: Tensor, bins: int = 12) -> Tensor:
    """Of a single video (T, D)."""
    first = torch.zeros(len(rois), dtype=torch.long)
    return roi_pool(features, first, torch.full_like(first, len(features)), rois, bins)


def pooled_ramp(length: int, start: float, end: float, bins: int) -> list[float]:
    """From the features 0, 1, 2, .. of a video: each sample shows where it lies."""
    ramp = torch.arange(length, dtype=torch.float64)[:, None]
    return pooled_alone(ramp, pairs([[start, end]]), bins)[0, :, 0].tolist()


def test_pooling_of_a_ramp_by_hand() -> None:
    # Bins of 1 snippet, one sample each, half a snippet into the bin and half a snippet back.
    assert pooled_ramp(20, 4, 16, 12) == list(range(4, 16))
    # Bins of 2 snippets, samples after 1/2 and 3/2 of them: mean 3 + 1, 5 + 1, 7 + 1, less 1/2.
    assert pooled_ramp(20, 3, 9, 3) == [3.5, 5.5, 7.5]
    # A length of 1/2 counts as 1, from the same start: bins of 1/4, centres 1/8, 3/8, 5/8, 7/8.
    assert pooled_ramp(20, 3, 3.5, 4) == [2.625, 2.875, 3.125, 3.375]
    assert pooled_ramp(20, 3, 3.5, 4) == pooled_ramp(20, 3, 4, 4) == pooled_ramp(20, 3, 2, 4)


def test_pooling_at_the_ends_by_hand() -> None:
    """A video of 4 snippets whose features are 1 .. 4, so that a zero shows."""
    features = torch.arange(1, 5, dtype=torch.float64)[:, None]
    # Samples at -3 .. 7: beyond -1 and 4 they are zero, at -1 and 4 the nearest feature.
    found = pooled_alone(features, pairs([[-3, 8]]), 11)[0, :, 0]
    assert found.tolist() == [0, 0, 1, 1, 2, 3, 4, 4, 0, 0, 0]
    # One bin, 2 samples half a bin apart: a zero counts in the mean.
    # Length 2 from 4: at 4 and 5. Length 2 from -2: at -2 and -1.
    assert pooled_alone(features, pairs([[4, 6], [-2, 0]]), 1).flatten().tolist() == [2, 0.5]
    # Interpolation ends at the outermost features.
    found = pooled_alone(features, pairs([[0, 1], [3.25, 4.25]]), 2)
    assert found.flatten().tolist() == [1, 1.25, 4, 4]


eighths = st.integers(-200, 400).map(lambda x: x / 8)
a_length = st.one_of(st.integers(0, 16), st.integers(0, 600)).map(lambda x: x / 8)


@given(
    num_snippets=st.sampled_from([1, 2, 3, 12, 29]),
    spans=st.lists(st.tuples(eighths, a_length), min_size=0, max_size=6),
    bins=st.sampled_from([1, 2, 5, 12]),
)
def test_pooling_equals_loops(
    num_snippets: int, spans: list[tuple[float, float]], bins: int
) -> None:
    """Rois beyond both ends, shorter than a snippet, longer than the video; on exact borders too."""
    features = random(num_snippets, 3)
    rois = pairs([[start, start + length] for start, length in spans])
    found = pooled_alone(features, rois, bins)
    assert found.shape == (len(spans), bins, 3)
    expected = roi_pool_by_loops(features.numpy(), rois.numpy(), bins)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


@given(seed=st.integers(0, 10**6), lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_videos_are_pooled_together_as_apart(seed: int, lengths: list[int]) -> None:
    videos = [random(length, 4, seed=seed + i) for i, length in enumerate(lengths)]
    first_rows = np.cumsum([0, *lengths[:-1]])
    own = torch.randint(len(lengths), (9,), generator=seeded(seed))
    rois = 25 * random(9, 2, seed=seed).sort(1).values
    rows, sizes = torch.tensor(first_rows)[own], torch.tensor(lengths)[own]
    together = roi_pool(torch.cat(videos), rows, sizes, rois)
    for i, video in enumerate(own.tolist()):
        assert torch.equal(together[i], pooled_alone(videos[video], rois[i : i + 1])[0])


def test_a_constant_video_pools_to_itself_inside() -> None:
    rois = pairs([[0, 7], [2.3, 2.4], [-0.5, 7.5], [1, 6]])
    found = pooled_alone(torch.full((7, 2), 3.0, dtype=torch.float64), rois)
    assert torch.allclose(found, torch.tensor(3.0, dtype=torch.float64))


def test_pooling_keeps_single_precision_and_gives_features_a_gradient() -> None:
    features = random(30, 2).float().requires_grad_()
    rois = pairs([[2, 6], [3, 20.5]])
    found = pooled_alone(features, rois)
    assert found.dtype == torch.float32
    found.sum().backward()
    # Each bin spreads a weight of 1 over the features it shows.
    assert features.grad.sum(0).tolist() == pytest.approx([24, 24], rel=1e-5)
    assert not features.grad[22:].any()


def test_extension_by_hand() -> None:
    assert extend(pairs([[4, 8], [1, 1], [-2, 6]]), 0.25).tolist() == [[3, 9], [1, 1], [-4, 8]]
    assert extend(pairs([[4, 8]]), 0.0).tolist() == [[4, 8]]
    assert extend(pairs([]), 0.25).shape == (0, 2)


# --- the network ----------------------------------------------------------------------------------


def network(channels: int = 6) -> HRProInstance:
    """Random weights and biases in double precision."""
    model = HRProInstance(channels).double()
    rng = seeded(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=rng))
    return model


def output_by_loops(
    model: HRProInstance, pooled: np.ndarray, segment: tuple[float, float]
) -> tuple[float, list[float]]:
    """Completeness and refined ends of one proposal (12, D)."""
    weights = {name: p.detach().numpy() for name, p in model.named_parameters()}

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    def head(name: str, x: np.ndarray) -> float:
        return float(linear(f"{name}.2", np.maximum(linear(f"{name}.0", x), 0))[0])

    start = np.maximum(pooled[0], pooled[1])
    end = np.maximum(pooled[10], pooled[11])
    inside = np.array([max(pooled[k, d] for k in range(2, 10)) for d in range(pooled.shape[1])])
    joined = np.concatenate([inside - start, inside, inside - end])
    fused = np.maximum(linear("fuse", joined), 0)
    length = segment[1] - segment[0]
    refined = [
        segment[0] + head("start_offset", start) * length,
        segment[1] + head("end_offset", end) * length,
    ]
    return 1 / (1 + math.exp(-head("completeness", fused))), refined


def test_forward_equals_the_formulas() -> None:
    model, pooled = network(16).eval(), random(20, 12, 16)
    segments = pairs([[0, 4], [3, 3.5], [10, 90], [-2, 2], [1, 1]] * 4)
    output = model(pooled, segments)
    assert len(set(output.completeness.tolist())) >= 15  # no ReLU hides what comes before it
    for i, segment in enumerate(segments.tolist()):
        completeness, refined = output_by_loops(model, pooled[i].numpy(), segment)
        assert output.completeness[i].item() == pytest.approx(completeness, rel=1e-9)
        assert output.refined[i].tolist() == pytest.approx(refined, rel=1e-9)
    assert output.refined[4].tolist() == [1, 1]  # an empty proposal has no length to move by


def test_sizes_of_the_paper() -> None:
    with torch.device("meta"):
        model = HRProInstance(2048)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    head = {"0.weight": (1024, 2048), "0.bias": (1024,), "2.weight": (1, 1024), "2.bias": (1,)}
    expected = {"fuse.weight": (2048, 6144), "fuse.bias": (2048,)}
    for name in ("completeness", "start_offset", "end_offset"):
        expected |= {f"{name}.{part}": shape for part, shape in head.items()}
    assert shapes == expected


def test_dropout_acts_on_completeness_alone() -> None:
    model, pooled = network(), random(40, 12, 6)
    segments = torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand(40, 2)
    trained = model(pooled, segments)
    evaluated = model.eval()(pooled, segments)
    assert torch.equal(trained.refined, evaluated.refined)
    assert not torch.allclose(trained.completeness, evaluated.completeness)
    assert model.dropout.p == 0.7


def test_no_proposals_are_fine() -> None:
    output = network()(torch.zeros(0, 12, 6, dtype=torch.float64), pairs([]))
    assert output.completeness.shape == (0,)
    assert output.refined.shape == (0, 2)


@pytest.mark.parametrize("shape", [(3, 11, 6), (3, 12, 5), (12, 6)])
def test_wrong_pooled_features_are_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected pooled features \(M, 12, 6\), got \(") as error:
        network()(torch.zeros(shape, dtype=torch.float64), pairs([[0, 1]] * shape[0]))
    assert str(shape) in str(error.value)


def test_too_few_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="channels: expected at least 2, got 1"):
        HRProInstance(1)


# --- the losses -----------------------------------------------------------------------------------


def test_overlap_of_pairs_by_hand() -> None:
    fixed = pairs([[2, 6]] * 6)
    other = pairs([[2, 6], [4, 8], [0, 12], [6, 9], [5, 3], [4, 4]])
    expected = [1, 1 / 3, 1 / 3, 0, 0, 0]  # the last two: reversed, empty
    assert overlap_of_pairs(other, fixed).tolist() == pytest.approx(expected)
    assert overlap_of_pairs(fixed, other).tolist() == pytest.approx(expected)


@given(st.lists(st.tuples(*[st.integers(-6, 6)] * 4), min_size=1, max_size=8))
def test_overlap_is_a_share_with_a_finite_gradient(rows: list[tuple[int, ...]]) -> None:
    table = torch.tensor(rows, dtype=torch.float64).requires_grad_()
    found = overlap_of_pairs(table[:, :2], table[:, 2:])
    for (a, b, c, d), value in zip(rows, found.tolist(), strict=True):
        expected = iou_of_two((a, b), (c, d)) if a < b and c < d else 0.0
        assert value == pytest.approx(expected)
    found.sum().backward()
    assert table.grad.isfinite().all()


def test_gradient_moves_both_ends_towards_the_reliable_one() -> None:
    """Inside it, tIoU is length / 5; smooth-L1 weighs its gradient by what is missing, 3 / 5."""
    refined = pairs([[2, 4]]).requires_grad_()
    output = InstanceOutput(torch.tensor([0.6], dtype=torch.float64), refined)
    zero = torch.zeros(1, dtype=torch.long)
    loss = instance_loss(output, pairs([[1, 5]]), zero, pairs([[0, 5]]), zero, HOW, seeded(0))
    assert loss.regression.item() == pytest.approx(0.5 * 0.6**2)
    # Completeness is that of the proposal itself, 4 / 5.
    assert loss.completeness.item() == pytest.approx(0.5 * 0.2**2)
    loss.total.backward()
    assert refined.grad[0].tolist() == pytest.approx([0.6 / 5, -0.6 / 5])


def test_best_reliable_looks_at_its_own_video() -> None:
    segments = pairs([[0, 10], [0, 10], [0, 10], [20, 30]])
    reliable = pairs([[0, 10], [0, 5], [0, 8]])
    tiou, wanted = best_reliable(
        segments, torch.tensor([0, 1, 2, 0]), reliable, torch.tensor([0, 1, 1])
    )
    assert tiou.tolist() == pytest.approx([1, 0.8, 0, 0])
    assert wanted[:2].tolist() == [[0, 10], [0, 8]]
    alone, _ = best_reliable(segments, torch.zeros(4, dtype=torch.long), pairs([]), torch.empty(0))
    assert alone.tolist() == [0, 0, 0, 0]


def random_case(
    seed: int, num: int, num_reliable: int
) -> tuple[InstanceOutput, Tensor, Tensor, Tensor, Tensor]:
    """Proposals of 3 videos; refined ones may be reversed. Video 2 has no reliable proposal."""
    rng = np.random.default_rng(seed)
    segments = np.sort(rng.uniform(0, 12, (num, 2)), 1)
    refined = torch.from_numpy(segments + rng.normal(0, 2, (num, 2))).requires_grad_()
    completeness = torch.from_numpy(rng.uniform(0, 1, num)).requires_grad_()
    return (
        InstanceOutput(completeness, refined),
        torch.from_numpy(segments),
        torch.from_numpy(rng.integers(0, 3, num)),
        torch.from_numpy(np.sort(rng.uniform(0, 12, (num_reliable, 2)), 1)),
        torch.from_numpy(rng.integers(0, 2, num_reliable)),
    )


def smooth_l1(a: float, b: float) -> float:
    return 0.5 * (a - b) ** 2 if abs(a - b) < 1 else abs(a - b) - 0.5


def parts_by_loops(
    output: InstanceOutput,
    segments: Tensor,
    video: Tensor,
    reliable: Tensor,
    reliable_video: Tensor,
) -> tuple[list[float], list[float], list[float]]:
    """Of each positive its regression and its completeness loss; the latter of each of the rest."""
    own = list(zip(reliable_video.tolist(), reliable.tolist(), strict=True))
    rows = (output.completeness, output.refined, segments, video)
    regression, of_positives, of_rest = [], [], []
    for said, refined, segment, v in zip(*(x.tolist() for x in rows), strict=True):
        overlaps = [(iou_of_two(tuple(segment), tuple(r)), r) for w, r in own if w == v]
        best, wanted = max(overlaps, default=(0.0, None))
        if best < 0.3:
            of_rest.append(smooth_l1(said, best))
            continue
        of_positives.append(smooth_l1(said, best))
        right_way = refined[0] < refined[1]
        reached = iou_of_two(tuple(refined), tuple(wanted)) if right_way else 0.0
        regression.append(smooth_l1(reached, 1.0))
    return regression, of_positives, of_rest


@given(
    seed=st.integers(0, 10**6),
    num=st.sampled_from([1, 2, 9, 30]),
    num_reliable=st.sampled_from([0, 1, 12]),
)
def test_loss_equals_loops(seed: int, num: int, num_reliable: int) -> None:
    """The draw is known only where it takes all of the rest; else it takes some number of them."""
    case = random_case(seed, num, num_reliable)
    loss = instance_loss(*case, HOW, seeded(seed))
    regression, of_positives, of_rest = parts_by_loops(*case)
    P, others = len(of_positives), min(len(of_positives), len(of_rest))
    assert loss.regression.item() == pytest.approx(sum(regression) / max(P, 1))
    drawn = loss.completeness.item() * max(P + others, 1) - sum(of_positives)
    ranked = sorted(of_rest)
    assert sum(ranked[:others]) - 1e-9 <= drawn
    assert drawn <= sum(ranked[len(ranked) - others :]) + 1e-9
    assert loss.total.item() == pytest.approx(loss.regression.item() + loss.completeness.item())
    loss.total.backward()
    assert (case[0].completeness.grad != 0).sum() == P + others
    for value in vars(case[0]).values():
        assert value.grad.isfinite().all()


def rest_drawn(seed: int) -> list[int]:
    """Which of the proposals 3 .. 9 are judged beside the positives 0, 1 and 2."""
    segments = pairs([[0, 10]] * 3 + [[20, 30]] * 7)
    completeness = torch.full((10,), 0.5, dtype=torch.float64).requires_grad_()
    video = torch.zeros(10, dtype=torch.long)
    output = InstanceOutput(completeness, segments)
    loss = instance_loss(output, segments, video, pairs([[0, 10]]), video[:1], HOW, seeded(seed))
    loss.total.backward()
    judged = completeness.grad.nonzero().flatten().tolist()
    assert judged[:3] == [0, 1, 2]
    return judged[3:]


def test_the_rest_is_drawn_evenly_and_by_its_generator() -> None:
    draws = [rest_drawn(seed) for seed in range(140)]
    assert all(len(draw) == 3 for draw in draws)
    assert draws[5] == rest_drawn(5)
    counts = np.bincount(np.concatenate(draws), minlength=10)[3:]
    # 140 * 3 / 7 = 60 each, with a standard deviation of 6.
    assert counts.min() > 35
    assert counts.max() < 85


def test_without_positives_the_loss_is_zero_and_has_a_gradient() -> None:
    model, segments = network(), pairs([[0, 4], [5, 6]])
    video = torch.tensor([0, 1])
    output = model(random(2, 12, 6), segments)
    for reliable, of in ((pairs([]), video[:0]), (pairs([[8, 9]]), video[:1])):
        loss = instance_loss(output, segments, video, reliable, of, HOW, seeded(0))
        assert [part.item() for part in vars(loss).values()] == [0, 0, 0]
        gradients = torch.autograd.grad(loss.total, list(model.parameters()), retain_graph=True)
        assert not any(gradient.any() for gradient in gradients)


def test_a_threshold_of_zero_still_asks_for_an_overlap() -> None:
    segments = pairs([[0, 1], [5, 6]])
    output = InstanceOutput(torch.zeros(2, dtype=torch.float64), segments)
    video = torch.zeros(2, dtype=torch.long)
    how = HOW.model_copy(update={"positive_tiou": 0.0})
    loss = instance_loss(output, segments, video, pairs([[0, 10]]), video[:1], how, seeded(0))
    assert loss.regression.item() == pytest.approx(0.5 * 0.9**2)


def test_training_learns_to_tell_and_to_move() -> None:
    """Actions of 12 snippets with features of their own; proposals that miss some of them."""
    rng = np.random.default_rng(0)
    features = 0.1 * rng.normal(size=(200, 4))
    truth = np.array([[start, start + 12] for start in range(10, 190, 30)], dtype=float)
    for start, end in truth.astype(int):
        features[start:end, 0] += 2
    near = truth.repeat(20, axis=0) + rng.uniform(-3, 3, (120, 2))
    far = truth.repeat(5, axis=0) + 15 + rng.uniform(-3, 3, (30, 2))
    segments = torch.from_numpy(np.concatenate([near, far]).astype(np.float32))
    video = torch.zeros(150, dtype=torch.long)
    pooled = roi_pool(
        torch.from_numpy(features.astype(np.float32)), video, video + 200, extend(segments, 0.25)
    )
    reliable = torch.from_numpy(truth.astype(np.float32))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = HRProInstance(4)
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
        for step in range(150):
            output = model(pooled, segments)
            loss = instance_loss(output, segments, video, reliable, video[:6], HOW, seeded(step))
            optimiser.zero_grad()
            loss.total.backward()
            optimiser.step()
    output = model.eval()(pooled, segments)
    before, _ = best_reliable(segments, video, reliable, video[:6])
    after, _ = best_reliable(output.refined.detach(), video, reliable, video[:6])
    assert after[:120].mean() > before[:120].mean() + 0.02
    assert output.completeness[:120].mean() > output.completeness[120:].mean() + 0.2
