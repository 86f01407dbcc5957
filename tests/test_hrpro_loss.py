"""HR-Pro's four snippet losses: by hand, against plain loops, and where a kind of snippet is missing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fustal_core.hrpro import HRPro, Seeds, SnippetOutput, expand_points
from fustal_core.hrpro_loss import (
    SnippetLoss,
    background_loss,
    contrast_loss,
    frame_loss,
    snippet_loss,
    video_loss,
)
from fustal_core.stage_settings import HRProSettings

PARTS = ("video", "frame", "background", "contrast")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double(*rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def random_video(
    length: int = 25, classes: int = 4, channels: int = 6, seed: int = 0, share: float = 0.2
) -> tuple[SnippetOutput, Tensor, Seeds, Tensor]:
    """Output, points, seeds, prototypes of no network, in double precision; the output has leaves."""
    rng = seeded(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(shape, generator=rng, dtype=torch.float64)

    b = torch.where(drawn(length) < 0.5, 0.1 * drawn(length), drawn(length))
    output = SnippetOutput(drawn(1, length, channels), drawn(1, length, classes), b[None])
    for leaf in vars(output).values():
        leaf.requires_grad_()
    points = (drawn(length, classes) < share / classes).double()
    return output, points, expand_points(b, points), drawn(classes, channels) - 0.3


# --- frames ---------------------------------------------------------------------------------------


def test_frame_loss_by_hand() -> None:
    """Two classes; probabilities that are powers of 2 give whole multiples of log 2."""
    p = double([1 / 2, 1 / 4, 1 / 2], [1 / 8, 1 / 8, 1 / 8], [1 / 2, 1 / 2, 3 / 4])
    points = double([1, 0], [0, 0], [1, 1])
    log = math.log
    first = log(2) / 4 - log(3 / 4) / 16 + log(2) / 4
    third = log(2) / 4 + log(2) / 4 - 9 / 16 * log(1 / 4)
    expected = (first + third) / (2 + 1e-6)
    assert frame_loss(p, points).item() == pytest.approx(expected, rel=1e-12)


def test_background_loss_by_hand() -> None:
    p = double([1 / 2, 1 / 4, 1 / 2], [1 / 8, 1 / 8, 1 / 8], [1 / 2, 1 / 2, 3 / 4])
    log = math.log
    first = log(2) / 4 - log(3 / 4) / 16 + log(2) / 4
    third = log(2) / 4 + log(2) / 4 - log(3 / 4) / 16
    expected = (first + third) / (2 + 1e-6)
    found = background_loss(p, torch.tensor([1, 0, 1]))
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_frame_losses_see_their_own_snippets_alone() -> None:
    p = torch.rand(6, 3, generator=seeded(0)).requires_grad_()
    points = torch.zeros(6, 2)
    points[4, 0] = 1
    frame_loss(p, points).backward()
    assert (p.grad != 0).any(1).nonzero().flatten().tolist() == [4]
    p.grad = None
    background_loss(p, torch.tensor([0, 1.0, 1, 0, 0, 0])).backward()
    assert (p.grad != 0).any(1).nonzero().flatten().tolist() == [1, 2]


def test_gradient_passes_through_the_focal_weight() -> None:
    """d/dp of -(1 - p)^2 log p is 2 (1 - p) log p - (1 - p)^2 / p."""
    p = double([0.3, 0.0]).requires_grad_()
    frame_loss(p, double([1])).backward()
    slope = 2 * 0.7 * math.log(0.3) - 0.7**2 / 0.3
    assert p.grad[0, 0].item() == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_certainty_in_error_costs_much_and_breaks_nothing(dtype: torch.dtype) -> None:
    logits = torch.tensor([[-1e4, 1e4, 1e4]], dtype=dtype).requires_grad_()
    for loss in (
        frame_loss(logits.sigmoid(), torch.tensor([[1.0, 0.0]])),
        background_loss(1 - logits.sigmoid(), torch.ones(1)),
    ):
        assert 150 < loss.item() <= 300.1
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.isfinite().all()


def test_without_their_snippets_the_frame_losses_are_zero() -> None:
    p = torch.rand(5, 3, generator=seeded(0)).requires_grad_()
    for loss in (frame_loss(p, torch.zeros(5, 2)), background_loss(p, torch.zeros(5))):
        assert loss.item() == 0
        (gradient,) = torch.autograd.grad(loss, p)
        assert not gradient.any()


# --- contrast -------------------------------------------------------------------------------------


def test_contrast_by_hand() -> None:
    """Prototypes along the axes, class 0 with two seeds, class 1 with none; any length counts as 1."""
    prototypes = double([2, 0, 0], [0, 5, 0], [0, 0, 1])
    embeddings = double([3, 4, 0], [0, 9, 0], [0, 0, 7], [1, 0, 0], [0, 2, 0])
    action = double([1, 0, 0], [0, 0, 0], [1, 0, 1], [0, 0, 0], [0, 0, 0])
    background = double(0, 1, 0, 1, 0)
    # cos of the seeds of class 0: (.6, .8, 0) and (0, 0, 1); of class 2: (0, 0, 1).
    e = math.exp
    first = ((e(6) + 1) / 2, (e(8) + 1) / 2, (1 + e(10)) / 2)
    third = (1, 1, e(10))
    near = (e(10) + 1) / 2, 1  # of the background to prototypes 0 and 2
    expected = 0
    for own, rest, other in ((first[0], first, near[0]), (third[2], third, near[1])):
        expected -= math.log(own / sum(rest)) / 2 + math.log(own / (own + other)) / 2
    found = contrast_loss(embeddings, Seeds(action, background), prototypes)
    assert found.item() == pytest.approx(expected / 2, rel=1e-9)


def test_contrast_without_background_seeds_has_its_first_term_alone() -> None:
    prototypes, embeddings = double([1, 0], [0, 1]), double([0, 3]).requires_grad_()
    found = contrast_loss(embeddings, Seeds(double([0, 1]), double(0)), prototypes)
    assert found.item() == pytest.approx(0.5 * math.log1p(math.exp(-10)))
    (gradient,) = torch.autograd.grad(found, embeddings)
    assert gradient.isfinite().all()


def test_contrast_without_action_seeds_is_zero() -> None:
    embeddings = torch.rand(4, 3, generator=seeded(0)).requires_grad_()
    seeds = Seeds(torch.zeros(4, 2), torch.ones(4))
    loss = contrast_loss(embeddings, seeds, torch.ones(2, 3))
    assert loss.item() == 0
    loss.backward()
    assert not embeddings.grad.any()


def test_contrast_pulls_seeds_to_their_prototype_and_pushes_background_away() -> None:
    embeddings = torch.rand(3, 5, generator=seeded(0), dtype=torch.float64).requires_grad_()
    prototypes = torch.rand(2, 5, generator=seeded(1), dtype=torch.float64)
    seeds = Seeds(double([1, 0], [0, 0], [0, 0]), double(0, 1, 0))

    def cosines() -> Tensor:
        return torch.cosine_similarity(embeddings[:, None], prototypes[None], dim=2)

    before = cosines()
    contrast_loss(embeddings, seeds, prototypes).backward()
    embeddings.data -= 1e-4 * embeddings.grad
    after = cosines()
    assert after[0, 0] - after[0, 1] > before[0, 0] - before[0, 1]
    assert after[1, 0] < before[1, 0]
    assert torch.equal(after[2], before[2])


def test_opposite_embeddings_stay_finite_in_single_precision() -> None:
    prototypes = torch.eye(2)
    seeds = Seeds(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([0.0, 1.0]))
    embeddings = torch.tensor([[-1e10, 0.0], [1e10, 0.0]]).requires_grad_()
    loss = contrast_loss(embeddings, seeds, prototypes)
    assert loss.item() == pytest.approx((math.log1p(math.exp(10)) + 20) / 2, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, embeddings)
    assert gradient.isfinite().all()


def test_an_empty_memory_is_no_error() -> None:
    """Prototypes and embeddings of zero have no direction: their cosines are 0."""
    seeds = Seeds(double([1, 0], [0, 0]), double(0, 1))
    zero = torch.zeros(2, 3, dtype=torch.float64)
    for embeddings, prototypes in ((zero + 1, zero), (zero, zero + 1)):
        found = contrast_loss(embeddings, seeds, prototypes)
        assert found.item() == pytest.approx(math.log(2))


# --- the video ------------------------------------------------------------------------------------


def test_video_loss_by_hand() -> None:
    """16 snippets: the two largest count where a point lies, else all."""
    scores = torch.zeros(16, 3, dtype=torch.float64)
    scores[[2, 7, 9], 0] = double(0.125, 0.625, 0.375)
    scores[:4, 1] = 1.0
    scores[:, 2] = 0.25
    points = torch.zeros(16, 3)
    points[[0, 5], [0, 0]] = 1
    expected = -(math.log(1 / 2) + math.log(3 / 4) + math.log(3 / 4)) / 3
    assert video_loss(scores, points).item() == pytest.approx(expected)
    points[3, 1] = 1
    expected = -(math.log(1 / 2) + 0 + math.log(3 / 4)) / 3
    assert video_loss(scores, points).item() == pytest.approx(expected)


# --- together -------------------------------------------------------------------------------------


def focal(p: float, y: float) -> float:
    return -((1 - p) ** 2) * math.log(p) if y else -(p**2) * math.log(1 - p)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def contrast_by_loops(
    embeddings: np.ndarray, action: np.ndarray, background: np.ndarray, prototypes: np.ndarray
) -> float:
    terms = []
    for c in range(len(prototypes)):
        seeds = [e for e, row in zip(embeddings, action, strict=True) if row[c]]
        others = [e for e, y in zip(embeddings, background, strict=True) if y]
        if not seeds:
            continue
        near = [np.mean([math.exp(cosine(a, m) / 0.1) for a in seeds]) for m in prototypes]
        term = -math.log(near[c] / sum(near))
        if others:
            far = np.mean([math.exp(cosine(g, prototypes[c]) / 0.1) for g in others])
            term -= math.log(near[c] / (near[c] + far))
        terms.append(term / 2)
    return float(np.mean(terms)) if terms else 0.0


def loss_by_loops(
    output: SnippetOutput, points: Tensor, seeds: Seeds, prototypes: Tensor
) -> dict[str, float]:
    """The four terms, snippet by snippet and class by class."""
    embeddings, scores, b = (value[0].detach().numpy() for value in vars(output).values())
    length, classes = scores.shape
    frames, backgrounds = [], []
    for t in range(length):
        p = [*(s * (1 - b[t]) for s in scores[t]), b[t]]
        if points[t].any():
            frames.append(sum(map(focal, p, [*points[t].tolist(), 0])))
        if seeds.background[t]:
            backgrounds.append(sum(map(focal, p, [0] * classes + [1])))
    entropies = []
    for c in range(classes):
        curve = sorted(scores[:, c])
        shown = bool(points[:, c].any())
        score = np.mean(curve[-max(1, length // 8) :]) if shown else np.mean(curve)
        entropies.append(-math.log(score if shown else 1 - score))
    return {
        "video": float(np.mean(entropies)),
        "frame": sum(frames) / (len(frames) + 1e-6),
        "background": sum(backgrounds) / (len(backgrounds) + 1e-6),
        "contrast": contrast_by_loops(
            embeddings, seeds.action.numpy(), seeds.background.numpy(), prototypes.numpy()
        ),
    }


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 99), st.sampled_from([0, 0.1, 0.4, 2]))
def test_losses_equal_loops(length: int, classes: int, seed: int, share: float) -> None:
    video = random_video(length, classes, seed=seed, share=share)
    how = HRProSettings(video_weight=0.3, contrast_weight=0.7)
    loss = snippet_loss(*video, how)
    expected = loss_by_loops(*video)
    for name in PARTS:
        assert getattr(loss, name).item() == pytest.approx(expected[name], rel=1e-9), name
    weighted = sum(w * expected[n] for w, n in zip((0.3, 0.5, 1, 0.7), PARTS, strict=True))
    assert loss.total.item() == pytest.approx(weighted, rel=1e-9)


@pytest.mark.parametrize("part", PARTS)
def test_each_weight_is_of_its_own_term(part: str) -> None:
    weights = {f"{name}_weight": 3.0 if name == part else 0.0 for name in PARTS}
    loss = snippet_loss(*random_video(), HRProSettings(**weights))
    assert loss.total.item() == pytest.approx(3 * getattr(loss, part).item())
    assert getattr(loss, part).item() > 0


def test_default_weights_are_the_published() -> None:
    loss = snippet_loss(*random_video(), HRProSettings())
    expected = 0.5 * loss.frame + loss.background + loss.contrast
    assert loss.total.item() == pytest.approx(expected.item())
    assert tuple(vars(loss)) == ("total", *PARTS)


def test_order_of_the_snippets_does_not_matter() -> None:
    output, points, seeds, prototypes = random_video()
    order = torch.randperm(25, generator=seeded(0))
    shuffled = SnippetOutput(*(value[:, order] for value in vars(output).values()))
    own = Seeds(seeds.action[order], seeds.background[order])
    before = snippet_loss(output, points, seeds, prototypes, HRProSettings())
    after = snippet_loss(shuffled, points[order], own, prototypes, HRProSettings())
    for name in PARTS:
        assert getattr(before, name).item() == pytest.approx(getattr(after, name).item())


def test_more_than_one_video_is_refused() -> None:
    output, *rest = random_video()
    two = SnippetOutput(*(torch.cat([value, value]) for value in vars(output).values()))
    with pytest.raises(ValueError, match="expected the output of one video, got 2"):
        snippet_loss(two, *rest, HRProSettings())


# --- with the network -----------------------------------------------------------------------------


def losses_of_steps(
    model: HRPro, features: Tensor, points: Tensor, steps: int
) -> list[SnippetLoss]:
    """A training in small: seeds, loss, step, memory."""
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(steps):
            output = model(features)
            seeds = expand_points(output.background[0], points)
            loss = snippet_loss(output, points, seeds, model.prototypes, HRProSettings())
            optimiser.zero_grad()
            loss.total.backward()
            optimiser.step()
            model.update_prototypes(output.embeddings[0].detach(), seeds.action)
            losses.append(loss)
    return losses


@pytest.mark.parametrize("length", [1, 2, 3, 40])
@pytest.mark.parametrize("labelled", [True, False])
def test_training_steps_stay_finite(length: int, labelled: bool) -> None:
    model = HRPro(8, 3, HRProSettings())
    points = torch.zeros(length, 3)
    points[length // 2, 1] = float(labelled)
    features = torch.randn(1, length, 8, generator=seeded(0))
    for loss in losses_of_steps(model, features, points, 3):
        assert all(part.isfinite() for part in vars(loss).values())
        assert (loss.total > 0) == labelled
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert model.prototypes.any(1).tolist() == [False, labelled, False]


def test_training_lowers_the_loss_and_finds_the_actions() -> None:
    """Snippets of two classes among background, told by a point each."""
    kind = torch.tensor([0] * 8 + [1] * 6 + [0] * 9 + [2] * 6 + [0] * 8)
    means = 2 * torch.eye(3).repeat(1, 4)
    features = (means[kind] + 0.3 * torch.randn(len(kind), 12, generator=seeded(0)))[None]
    points = torch.zeros(len(kind), 2)
    points[10, 0] = points[26, 1] = 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = HRPro(12, 2, HRProSettings(projected_channels=32))
    losses = losses_of_steps(model, features, points, 200)
    first, last = (np.mean([x.total.item() for x in part]) for part in (losses[:20], losses[-20:]))
    assert last < 0.7 * first
    output = model.eval()(features)
    assert output.cas[0, kind == 1, 0].mean() > output.cas[0, kind != 1, 0].mean() + 0.3
    assert output.cas[0, kind == 2, 1].mean() > output.cas[0, kind != 2, 1].mean() + 0.3
    assert output.background[0, kind == 0].mean() > output.background[0, kind > 0].mean() + 0.3
