"""The generator: shapes, the network by its formulas, losses against loops over pairs."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fustal_core.generator import (
    CrossVideoGenerator,
    GeneratorOutput,
    contrast_losses,
    generator_loss,
    video_scores,
)
from fustal_core.mining import MinedSnippets, mine_snippets, snippet_mask

FIELDS = ("easy_action", "hard_action", "easy_background", "hard_background")


def generator(channels: int = 5, classes: int = 3, hidden: int = 8) -> CrossVideoGenerator:
    torch.manual_seed(0)
    return CrossVideoGenerator(channels, classes, hidden)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the network ----------------------------------------------------------------------------------


def test_parameters_come_in_the_order_weight_bias_classifier() -> None:
    shapes = [tuple(p.shape) for p in CrossVideoGenerator(5, 3, hidden_channels=8).parameters()]
    assert shapes == [(8, 5, 3), (8,), (3, 8, 1)]
    assert [p.shape[0] for p in CrossVideoGenerator(4, 2).parameters()] == [2048, 2048, 2]


def test_forward_equals_the_formulas() -> None:
    model = generator().eval()
    features = torch.randn(2, 7, 5, generator=seeded(1))
    output = model(features)
    weight, bias, classifier = (p.detach() for p in model.parameters())
    padded = F.pad(features, (0, 0, 1, 1))
    for b in range(2):
        for t in range(7):
            taps = sum(weight[:, :, k] @ padded[b, t + k] for k in range(3))
            hidden = (taps + bias).clamp(min=0)
            cas = (classifier[:, :, 0] @ hidden).clamp(min=0)
            assert torch.allclose(output.embeddings[b, t], hidden, atol=1e-6)
            assert torch.allclose(output.cas[b, t], cas, atol=1e-6)
            assert torch.allclose(output.actionness[b, t], cas.sum(), atol=1e-6)
    assert output.embeddings.shape == (2, 7, 8)
    assert output.cas.shape == (2, 7, 3)
    assert output.video_scores.shape == (2, 3)


def test_video_scores_by_hand() -> None:
    cas = torch.zeros(1, 10, 2)  # k_easy = 2
    cas[0, [1, 4, 8], 0] = torch.tensor([4.0, 1.0, 2.0])
    cas[0, :, 1] = 0.5
    expected = math.exp(3) / (math.exp(3) + math.exp(0.5))
    assert video_scores(cas)[0].tolist() == pytest.approx([expected, 1 - expected])


def test_fewer_than_five_snippets_use_the_largest() -> None:
    cas = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    assert video_scores(cas)[0, 0].item() == pytest.approx(math.e / (math.e + 1))


@pytest.mark.parametrize("shape", [(7, 5), (2, 7, 4), (1, 2, 7, 5)])
def test_wrong_features_are_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected features \(B, T, 5\), got \(") as error:
        generator()(torch.zeros(shape))
    assert str(shape) in str(error.value)


def test_eval_is_deterministic_and_training_follows_its_generator() -> None:
    model = generator()
    features = torch.randn(2, 30, 5, generator=seeded(1))
    first, again, other = (model(features, seeded(s)).cas for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    model.eval()
    assert torch.equal(model(features, seeded(3)).cas, model(features).cas)


def test_dropout_acts_on_the_classifier_and_not_on_the_embeddings() -> None:
    model = generator()
    features = torch.randn(2, 30, 5, generator=seeded(1))
    trained = model(features, seeded(3))
    evaluated = model.eval()(features)
    assert torch.equal(trained.embeddings, evaluated.embeddings)
    assert not torch.allclose(trained.cas, evaluated.cas)


# --- losses ---------------------------------------------------------------------------------------

LABELS = {
    "one pair": [[1, 0, 0], [0, 1, 0], [1, 0, 0]],
    "all alike": [[0, 1, 1]] * 4,
    "two groups": [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0]],
    "a shared class is no identical label": [[1, 1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]],
    "no pair": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "one video": [[1, 0, 1]],
}


def random_output(num_videos: int, seed: int, length: int = 45) -> GeneratorOutput:
    cas = torch.rand(num_videos, length, 3, generator=seeded(seed))
    embeddings = torch.randn(num_videos, length, 6, generator=seeded(seed + 1)).clamp(min=0)
    return GeneratorOutput(embeddings, cas, cas.sum(2), video_scores(cas))


def nce(query: Tensor, key: Tensor, negatives: Tensor) -> Tensor:
    """One row: query (k, H) and key (k', H) by their means, negatives (n, H)."""
    query, key = F.normalize(query.mean(0), dim=0), F.normalize(key.mean(0), dim=0)
    logits = torch.stack([query @ key, *(query @ F.normalize(n, dim=0) for n in negatives)]) / 0.07
    return F.cross_entropy(logits[None], torch.tensor([0]))


def loss_by_loops(
    output: GeneratorOutput, labels: Tensor, most_pairs: int = 0
) -> dict[str, Tensor]:
    mined: MinedSnippets = mine_snippets(output.actionness, output.embeddings)
    EA, HA, EB, HB = (getattr(mined, name) for name in FIELDS)
    videos = range(len(labels))

    def row(query: int, key: int) -> Tensor:
        return nce(HA[query], EA[key], EB[key]) + nce(HB[query], EB[key], EA[key])

    in_video = sum(row(i, i) for i in videos) / len(videos)
    pairs = [(i, j) for i in videos for j in videos if i < j and torch.equal(labels[i], labels[j])]
    pairs = pairs[: most_pairs or None]
    crossed = sum((row(j, i) + row(i, j)) / 2 for i, j in pairs)
    cross_video = crossed / len(pairs) if pairs else torch.zeros(())
    p, y = output.video_scores, labels / labels.sum(1, keepdim=True)
    classification = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    total = classification + 0.01 * (in_video + 0.2 * cross_video)
    parts = {"in_video": in_video, "cross_video": cross_video}
    return parts | {"classification": classification, "total": total}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize("seed", [0, 10])
@pytest.mark.parametrize("most_pairs", [0, 1, 3, 100])
def test_loss_equals_loops_over_pairs(labels: list[list[int]], seed: int, most_pairs: int) -> None:
    output, target = random_output(len(labels), seed), torch.tensor(labels).float()
    loss = generator_loss(output, target, cross_video_pairs=most_pairs)
    for name, expected in loss_by_loops(output, target, most_pairs).items():
        assert getattr(loss, name).item() == pytest.approx(float(expected), rel=1e-5), name


def test_the_first_pairs_by_hand() -> None:
    """Three alike videos of one snippet each: a row is ln(1 + exp(-cos / 0.07)) of action, and z."""
    e1, e2, e3 = torch.eye(3)
    mined = MinedSnippets(
        easy_action=torch.stack([e1, e2, -e1])[:, None],
        hard_action=e1.repeat(3, 1, 1),
        easy_background=e3.repeat(3, 1, 1),
        hard_background=e3.repeat(3, 1, 1),
    )
    z = math.log1p(math.exp(-1 / 0.07))
    a, b, c = z, math.log(2), math.log1p(math.exp(1 / 0.07))  # keyed by videos 0, 1, 2
    expected = {
        1: (a + b) / 2,  # videos 0 and 1
        2: ((a + b) / 2 + (a + c) / 2) / 2,  # and 0 and 2
        3: (a + b + c) / 3,  # and 1 and 2
        4: (a + b + c) / 3,
        0: (a + b + c) / 3,
    }
    labels = torch.tensor([[1.0, 0.0]] * 3)
    for most_pairs, action in expected.items():
        in_video, cross_video = contrast_losses(mined, labels, most_pairs)
        assert cross_video.item() == pytest.approx(action + z, rel=1e-5), most_pairs
        assert in_video.item() == pytest.approx((a + b + c) / 3 + z, rel=1e-5)


def test_no_pair_no_cross_video_term() -> None:
    labels = torch.eye(3)
    output = random_output(3, 0)
    loss = generator_loss(output, labels)
    assert loss.cross_video == 0
    assert torch.equal(loss.total, loss.classification + 0.01 * loss.in_video)


def test_weight_zero_is_cola() -> None:
    labels = torch.tensor([[1.0, 0, 0]] * 4)
    output = random_output(4, 0)
    cola = generator_loss(output, labels, cross_video_weight=0)
    full = generator_loss(output, labels)
    assert torch.equal(cola.in_video, full.in_video)
    assert cola.total.item() == pytest.approx((full.classification + 0.01 * full.in_video).item())
    assert full.cross_video > 0
    assert full.total > cola.total


def test_order_of_videos_does_not_matter() -> None:
    labels = torch.tensor(LABELS["two groups"]).float()
    output, order = random_output(5, 0), torch.tensor([3, 0, 4, 2, 1])
    shuffled = GeneratorOutput(*(value[order] for value in vars(output).values()))
    assert generator_loss(shuffled, labels[order]).total.item() == pytest.approx(
        generator_loss(output, labels).total.item(), rel=1e-6
    )


def test_the_mask_changes_the_easy_snippets_only() -> None:
    output = random_output(2, 0)
    mask = snippet_mask(output.actionness, seeded(5))
    plain = mine_snippets(output.actionness, output.embeddings)
    masked = mine_snippets(output.actionness, output.embeddings, mask)
    for name in FIELDS:
        same = torch.equal(getattr(plain, name), getattr(masked, name))
        assert same == name.startswith("hard"), name


def test_contrast_has_gradients_through_chosen_embeddings_and_not_through_the_choice() -> None:
    output = random_output(2, 0)
    embeddings = torch.ones(2, 45, 6, requires_grad=True)
    actionness = output.actionness.clone().requires_grad_()
    mined = mine_snippets(actionness, embeddings)
    # One-hot embeddings of the positions tell which snippets were chosen.
    positions = torch.eye(45).expand(2, 45, 45)
    chosen = sum(
        getattr(mine_snippets(output.actionness, positions), name).sum(1) for name in FIELDS
    )
    sum(getattr(mined, name).square().sum() for name in FIELDS).backward()
    assert actionness.grad is None
    touched = embeddings.grad.abs().sum(2) > 0
    assert torch.equal(touched, chosen > 0)
    assert not touched.all()


def test_every_parameter_learns() -> None:
    model = generator().eval()
    features = torch.randn(2, 40, 5, generator=seeded(1))
    generator_loss(model(features), torch.tensor([[1.0, 0, 0]] * 2)).total.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_the_contrast_moves_the_embedding_but_not_the_classifier() -> None:
    model = generator().eval()
    features = torch.randn(2, 40, 5, generator=seeded(1))
    loss = generator_loss(model(features), torch.tensor([[1.0, 0, 0]] * 2))
    (loss.in_video + loss.cross_video).backward()
    assert model.embedding.weight.grad.abs().sum() > 0
    assert model.classifier.weight.grad is None
