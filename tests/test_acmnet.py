"""ACM-Net: the network and its losses against plain loops and by hand, its training, its proposals."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from training_helpers import Killed, assert_same_trainings, kill_at

from fustal_core.acmnet import (
    ACMNet,
    ACMNetOutput,
    acm_net_loss,
    branch_targets,
    classification_loss,
    guide_loss,
    norm_loss,
    sparsity_loss,
)
from fustal_core.config import make_settings
from fustal_core.data import Dataset
from fustal_core.ftcl_training import ACM_NET_PARTS, acm_net_task
from fustal_core.generation import localization_of, propose, propose_video, run_generator
from fustal_core.generator_training import Trained, train
from fustal_core.proposals import FUSTAL, generate_proposals
from fustal_core.reference_proposals import Way, proposals_by_loops, suppressed
from fustal_core.stage_settings import ACMNetSettings, GenerationSettings

COLUMNS = ["label", "score", "t_start", "t_end"]
ACTIVITYNET = make_settings(overrides={"constants": "activitynet13"}).acm_net
ACM_NET_WAY = Way(
    [0.15, 0.2],
    [step / 20 for step in range(3, 20)],
    factor=20,
    margin=0.2,
    class_share=0.0,
    class_threshold=0.25,
    tiou=0.55,
    scaled=False,
)


def acm_net(**changes: Any) -> ACMNetSettings:
    values = {
        "hidden_channels": 8,
        "length": 32,
        "iterations": 10,
        "batch_size": 3,
        "learning_rate": 1e-3,
        "checkpoint_every": 4,
    }
    return ACMNetSettings(**(values | changes))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(
    channels: int = 5, classes: int = 3, hidden: int = 8, like: ACMNetSettings | None = None
) -> ACMNet:
    """Random weights and biases in double precision."""
    sizes = (like or ACMNetSettings()).model_copy(update={"hidden_channels": hidden})
    model = ACMNet(channels, classes, sizes).double()
    rng = seeded(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=rng))
    return model


def random_features(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def random_output(
    num_videos: int = 3, length: int = 40, classes: int = 3, seed: int = 0
) -> ACMNetOutput:
    """Of no network: every field drawn on its own, with gradients."""
    rng = seeded(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    output = ACMNetOutput(
        embeddings=drawn(num_videos, length, 8).relu(),
        attention=drawn(num_videos, length, 3).softmax(2),
        branch_cas=drawn(num_videos, 3, length, classes + 1),
        branch_scores=drawn(num_videos, 3, classes + 1).softmax(2),
        branch_features=40 * drawn(num_videos, 3, 8),
    )
    for value in vars(output).values():
        value.requires_grad_()
    return output


LABELS = torch.tensor([[1, 0, 0], [0, 1, 1], [1, 1, 1]], dtype=torch.float64)


# --- the network ----------------------------------------------------------------------------------


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def output_by_loops(
    model: ACMNet, features: np.ndarray, shares: tuple[int, int, int]
) -> dict[str, np.ndarray]:
    """The network's formulas for one video (T, D), snippet by snippet and class by class."""
    names = ("embedding", "attention", "classifier")
    (taps, tap_bias), (gates, gate_bias), (classes, class_bias) = (
        [p.detach().numpy() for p in getattr(model, name).parameters()] for name in names
    )
    length = len(features)
    padded = np.pad(features, ((1, 1), (0, 0)))
    embeddings = np.stack(
        [
            np.maximum(sum(taps[:, :, k] @ padded[t + k] for k in range(3)) + tap_bias, 0)
            for t in range(length)
        ]
    )
    attention = np.stack([softmax(gates[:, :, 0] @ e + gate_bias) for e in embeddings])
    logits = np.stack([classes @ e + class_bias for e in embeddings])
    branch_cas, scores, means = [], [], []
    for branch, share in enumerate(shares):
        k = max(1, length // share)
        cas = np.stack([attention[t, branch] * logits[t] for t in range(length)])
        top = [np.mean(sorted(curve)[-k:]) for curve in cas.T]
        ranked = sorted(range(length), key=lambda t: -attention[t, branch])
        branch_cas.append(cas)
        scores.append(softmax(np.array(top)))
        means.append(np.mean([embeddings[t] for t in ranked[:k]], axis=0))
    return {
        "embeddings": embeddings,
        "attention": attention,
        "branch_cas": np.stack(branch_cas),
        "branch_scores": np.stack(scores),
        "branch_features": np.stack(means),
        "cas": np.stack([softmax(row)[:-1] for row in branch_cas[0]]),
        "actionness": attention[:, 0],
        "video_scores": scores[0][:-1],
    }


@pytest.mark.parametrize("length", [1, 2, 7, 16, 25, 75])
@pytest.mark.parametrize(
    ("like", "shares"), [(None, (8, 3, 3)), (ACTIVITYNET, (2, 10, 10))], ids=["thumos", "anet"]
)
def test_forward_equals_the_formulas(
    like: ACMNetSettings | None, shares: tuple[int, int, int], length: int
) -> None:
    model = network(like=like).eval()
    features = random_features(2, length, 5)
    output = model(features)
    assert output.branch_cas.shape == (2, 3, length, 4)
    for b in range(2):
        for name, expected in output_by_loops(model, features[b].numpy(), shares).items():
            found = getattr(output, name)[b].detach().numpy()
            assert found.shape == expected.shape, name
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, err_msg=name)


def test_attention_and_scores_are_distributions() -> None:
    output = network()(random_features(3, 20, 5), seeded(0))
    for value in (output.attention, output.branch_scores, output.class_probabilities):
        assert (value >= 0).all()
        assert torch.allclose(value.sum(-1), torch.ones_like(value[..., 0]))
    assert torch.equal(output.class_probabilities[..., :3], output.cas)


def test_sizes_of_the_paper() -> None:
    with torch.device("meta"):
        model = ACMNet(2048, 20, ACMNetSettings())
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes == {
        "embedding.weight": (2048, 2048, 3),
        "embedding.bias": (2048,),
        "attention.weight": (3, 2048, 1),
        "attention.bias": (3,),
        "classifier.weight": (21, 2048),
        "classifier.bias": (21,),
    }


@pytest.mark.parametrize("shape", [(7, 5), (2, 7, 4), (1, 2, 7, 5)])
def test_wrong_features_are_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected features \(B, T, 5\), got \(") as error:
        network()(torch.zeros(shape, dtype=torch.float64))
    assert str(shape) in str(error.value)


def test_eval_is_deterministic_and_training_follows_its_generator() -> None:
    model, features = network(), random_features(2, 30, 5)
    before = torch.get_rng_state()
    first, again, other = (model(features, seeded(s)).branch_cas for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    model.eval()
    assert torch.equal(model(features, seeded(3)).branch_cas, model(features).branch_cas)


def test_dropout_acts_on_the_classifier_alone() -> None:
    model, features = network(), random_features(2, 30, 5)
    trained = model(features, seeded(3))
    evaluated = model.eval()(features)
    for name in ("embeddings", "attention", "branch_features"):
        assert torch.equal(getattr(trained, name), getattr(evaluated, name))
    assert not torch.allclose(trained.branch_cas, evaluated.branch_cas)


def test_whole_snippets_are_dropped_and_then_channels() -> None:
    """A classifier that copies the embeddings shows what reached it."""
    model = network(channels=4, classes=39, hidden=40)
    with torch.no_grad():
        model.embedding.weight.zero_()
        model.embedding.bias.fill_(2.0)
        model.classifier.weight.copy_(torch.eye(40))
        model.classifier.bias.zero_()
    output = model(random_features(8, 250, 4), seeded(0))
    reached = output.branch_cas.sum(1) / 2  # the branches' attentions sum to 1
    kept = reached.abs() > 1e-9
    assert torch.allclose(reached[kept], torch.tensor(1 / 0.3 / 0.3, dtype=torch.float64))
    snippets = kept.any(2)
    assert snippets.double().mean().item() == pytest.approx(0.3, abs=0.04)
    assert kept[snippets].double().mean().item() == pytest.approx(0.3, abs=0.02)


# --- losses ---------------------------------------------------------------------------------------


def test_targets_as_fractions() -> None:
    expected = [
        [[1, 0, 0, 0], [Fraction(1, 2), 0, 0, Fraction(1, 2)], [0, 0, 0, 1]],
        [[0, Fraction(1, 2), Fraction(1, 2), 0], [0, *[Fraction(1, 3)] * 3], [0, 0, 0, 1]],
        [[*[Fraction(1, 3)] * 3, 0], [Fraction(1, 4)] * 4, [0, 0, 0, 1]],
    ]
    found = branch_targets(LABELS)
    assert found.shape == (3, 3, 4)
    assert found.flatten().tolist() == pytest.approx(
        [float(x) for video in expected for branch in video for x in branch]
    )


def output_of(**fields: list) -> ACMNetOutput:
    """Some fields given, none of the others may be looked at."""
    empty = dict.fromkeys(ACMNetOutput.__dataclass_fields__)
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in fields.items()}
    return ACMNetOutput(**(empty | tensors))


def test_classification_by_hand() -> None:
    """Scores that are powers of 2 give whole multiples of log 2."""
    halves = [
        [[1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 4, 1 / 2], [1 / 2, 3 / 8, 1 / 8]],
        [[1 / 8, 1 / 8, 3 / 4], [1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 4, 1 / 2]],
    ]
    output = output_of(branch_scores=halves)
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    # Video 1: 1; (2 + 1) / 2; 3. Video 2: (3 + 3) / 2; (1 + 2 + 2) / 3; 1.
    first, second = (1, Fraction(3, 2) + 3), (3, Fraction(5, 3) + 1)
    for weight in (1, 5):
        expected = (weight * first[0] + first[1] + weight * second[0] + second[1]) / 2
        found = classification_loss(output, labels, float(weight))
        assert found.item() == pytest.approx(float(expected) * math.log(2))
    assert classification_loss(output, labels) == classification_loss(output, labels, 1.0)


def test_a_score_of_zero_costs_what_the_floor_says() -> None:
    sure = [[[0.0, 1.0], [0.5, 0.5], [0.0, 1.0]]]
    found = classification_loss(output_of(branch_scores=sure), torch.ones(1, 1).double())
    assert found.item() == pytest.approx(10 * math.log(10) + math.log(2))


def test_guide_by_hand() -> None:
    """One class: logits 0 and 0 are background 1/2, log 3 and 0 are 1/4."""
    even, likely = [0.0, 0.0], [math.log(3), 0.0]
    other = [[9.0, -9.0], [9.0, -9.0]]  # of the other branches
    cas = [[[even, likely], other, other], [[likely, likely], other, other]]
    attention = [
        [[1 / 4, 3 / 4, 0], [1, 0, 0]],  # |1/2 - 1/4| + |3/4 - 1|
        [[1 / 2, 0, 1 / 2], [3 / 4, 1 / 4, 0]],  # |3/4 - 1/2| + 0
    ]
    found = guide_loss(output_of(branch_cas=cas, attention=attention))
    assert found.item() == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_guide_pulls_the_cas_and_not_the_attention() -> None:
    output = random_output()
    guide_loss(output).backward()
    assert output.attention.grad is None
    assert output.branch_cas.grad[:, 0].abs().min() > 0
    assert not output.branch_cas.grad[:, 1:].any()


def test_norms_by_hand() -> None:
    features = [
        [[36, 48, 0], [0, 12, 16], [3, 0, 4]],  # 60, 20, 5
        [[0, 120, 0], [60, 0, 0], [0, 0, 0]],  # 120, 60, 0: margins kept, nothing to pay
        [[0, 0, 0], [0, 0, 0], [0, 0, 2]],  # 0, 0, 2
    ]
    found = torch.tensor(features, dtype=torch.float64)
    first = (10 + 35 + 5) ** 2  # 50 - 60 + 20, 50 - 20 + 5
    third = (50 + 52 + 2) ** 2
    assert norm_loss(found).item() == pytest.approx((first + 0 + third) / 3)
    # Margin 10: nothing, nothing, background 5; 0; 10 + 12 + 2.
    assert norm_loss(found, 10.0).item() == pytest.approx((5**2 + 0 + 24**2) / 3)


def test_sparsity_by_hand() -> None:
    attention = [
        [[1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 4, 1 / 2]],  # instance 3/4, context 1/2
        [[0, 0, 1], [0, 1, 0]],  # 0 and 1
    ]
    found = sparsity_loss(torch.tensor(attention, dtype=torch.float64))
    assert found.item() == (3 / 4 + 1 / 2 + 0 + 1) / 4


def loss_by_loops(output: ACMNetOutput, labels: Tensor, how: ACMNetSettings) -> dict[str, float]:
    """Video by video, branch by branch, snippet by snippet."""
    fields = {name: value.detach().numpy() for name, value in vars(output).items()}
    parts: dict[str, list[float]] = {name: [] for name in ACM_NET_PARTS[1:]}
    for b, y in enumerate(labels.tolist()):
        targets = [[*y, 0], [*y, 1], [0] * len(y) + [1]]
        weights = (how.instance_weight, 1, 1)
        entropy = 0.0
        for target, weight, score in zip(targets, weights, fields["branch_scores"][b], strict=True):
            for share, p in zip(target, score, strict=True):
                entropy -= weight * share / sum(target) * math.log(p + 1e-10)
        parts["classification"].append(entropy)
        attention, cas = fields["attention"][b], fields["branch_cas"][b, 0]
        guide = [
            abs(1 - softmax(row)[-1] - own[0]) for row, own in zip(cas, attention, strict=True)
        ]
        parts["guide"].append(sum(guide))
        ins, con, bak = (math.sqrt(sum(x * x for x in f)) for f in fields["branch_features"][b])
        m = how.norm_margin
        parts["norms"].append((max(0, m - ins + con) + max(0, m - con + bak) + bak) ** 2)
        parts["sparsity"].append(sum(own[0] + own[1] for own in attention) / 2)
    means = {name: sum(values) / len(labels) for name, values in parts.items()}
    total = (
        means["classification"]
        + how.guide_weight * means["guide"]
        + how.norm_weight * means["norms"]
        + how.sparsity_weight * means["sparsity"]
    )
    return {"total": total, **means}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("how", [ACMNetSettings(), ACTIVITYNET], ids=["thumos", "anet"])
def test_loss_equals_loops(how: ACMNetSettings, seed: int) -> None:
    output = random_output(seed=seed)
    loss = acm_net_loss(output, LABELS, how)
    assert tuple(vars(loss)) == ACM_NET_PARTS
    for name, expected in loss_by_loops(output, LABELS, how).items():
        assert getattr(loss, name).item() == pytest.approx(expected, rel=1e-9), name


def test_videos_do_not_see_each_other() -> None:
    """The loss of a batch is the mean of its videos' losses."""
    model, features = network().eval(), random_features(3, 20, 5)
    whole = acm_net_loss(model(features), LABELS, ACMNetSettings())
    alone = [
        acm_net_loss(model(features[i : i + 1]), LABELS[i : i + 1], ACMNetSettings())
        for i in range(3)
    ]
    for name in ACM_NET_PARTS:
        mean = sum(getattr(loss, name).item() for loss in alone) / 3
        assert getattr(whole, name).item() == pytest.approx(mean, rel=1e-9), name


def test_every_parameter_learns() -> None:
    model = network()
    loss = acm_net_loss(model(random_features(3, 40, 5), seeded(0)), LABELS, ACMNetSettings())
    loss.total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_gradients_by_differences() -> None:
    model, features = network(hidden=4).eval(), random_features(2, 6, 5).requires_grad_()
    how = ACMNetSettings(guide_weight=0.3, norm_weight=0.01, sparsity_weight=0.2)

    def parts_without_guide(x: Tensor) -> tuple[Tensor, ...]:
        # The guide holds the attention fast, so differences would see more than its gradient.
        loss = acm_net_loss(model(x), LABELS[:2], how)
        return loss.classification, loss.norms, loss.sparsity

    assert torch.autograd.gradcheck(parts_without_guide, [features])


def test_nothing_waits_for_the_device() -> None:
    # Tensors of the meta device have no values: whoever asks for one fails.
    with torch.device("meta"):
        model = ACMNet(5, 3, acm_net()).eval()
        loss = acm_net_loss(model(torch.empty(3, 20, 5)), torch.empty(3, 3), acm_net())
    loss.total.backward()
    assert model.embedding.weight.grad.shape == (8, 5, 3)


# --- training -------------------------------------------------------------------------------------


def trained_acm_net(dataset: Dataset, seed: int, how: ACMNetSettings, **options: Any) -> Trained:
    return train(acm_net_task(how, dataset, seed), how, seed, **options)


def test_same_seed_same_bits_other_seed_other_bits(tiny_dataset: Dataset) -> None:
    before = torch.get_rng_state()
    one, again, other = (trained_acm_net(tiny_dataset, seed, acm_net()) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_trainings(one, again)
    assert not torch.equal(one.model.embedding.weight, other.model.embedding.weight)
    assert not one.model.training
    assert one.losses.columns.tolist() == ["iteration", *ACM_NET_PARTS]
    assert one.losses["iteration"].tolist() == list(range(1, 11))
    assert one.evaluations.empty
    assert one.looks == {}


@pytest.mark.parametrize("killed", [3, 6, 9])
def test_a_killed_training_goes_on_to_the_same_bits(
    tiny_dataset: Dataset, tmp_path: Path, killed: int
) -> None:
    job = {"dataset": tiny_dataset, "seed": 1, "how": acm_net()}
    kept = {"checkpoint": tmp_path / "checkpoint.pt", "key": "job"}
    with pytest.raises(Killed):
        trained_acm_net(**job, **kept, progress=kill_at(killed))
    assert_same_trainings(trained_acm_net(**job), trained_acm_net(**job, **kept))


def test_training_lowers_the_loss(tiny_dataset: Dataset) -> None:
    how = acm_net(iterations=120, hidden_channels=16, learning_rate=5e-3)
    losses = trained_acm_net(tiny_dataset, 0, how).losses
    first, last = losses.head(10).mean(), losses.tail(10).mean()
    assert last["classification"] < 0.8 * first["classification"]
    assert last["total"] < first["total"]


def test_the_total_is_the_weighted_sum_of_its_parts(tiny_dataset: Dataset) -> None:
    losses = trained_acm_net(tiny_dataset, 1, acm_net()).losses
    expected = (
        losses["classification"]
        + 2e-3 * losses["guide"]
        + 5e-5 * losses["norms"]
        + 2e-4 * losses["sparsity"]
    )
    assert losses["total"].to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-5)


def test_training_and_proposals_see_the_training_videos_labels_alone(tiny_dataset: Dataset) -> None:
    """Neither when actions happen nor what the test videos show."""
    truth = tiny_dataset.segments
    is_test = truth["video"].isin(tiny_dataset.video_names("test"))
    changed = truth.assign(
        t_start=0.0, t_end=0.5, label=truth["label"].where(~is_test, tiny_dataset.classes[0])
    )
    blind = replace(tiny_dataset, segments=changed)
    how = acm_net(train_classes="video labels")
    one, other = (trained_acm_net(data, 1, how) for data in (tiny_dataset, blind))
    assert_same_trainings(one, other)
    for subset in ("train", "test"):
        pd.testing.assert_frame_equal(
            propose(one.model, tiny_dataset, subset, how),
            propose(other.model, blind, subset, how),
            check_exact=True,
        )


# --- proposals ------------------------------------------------------------------------------------

HOW = localization_of(ACMNetSettings())


def random_video(length: int, classes: int, seed: int) -> tuple[np.ndarray, ...]:
    """Softmaxed T-CAS (T, C), attention and video scores, all in [0, 1]."""
    rng = np.random.default_rng(seed)
    cas = np.exp(rng.normal(0, 2, size=(length, classes + 1)))
    return (cas / cas.sum(1, keepdims=True))[:, :-1], rng.random(length), rng.random(classes)


def in_time(frame: pd.DataFrame) -> np.ndarray:
    return frame.sort_values(["label", "t_start", "t_end", "score"]).to_numpy(float)


def test_how_acm_net_localises() -> None:
    assert HOW.cas_thresholds == (0.15, 0.2)
    assert HOW.actionness_thresholds == tuple(i / 20 for i in range(3, 20))
    assert (HOW.upsampling, HOW.margin, HOW.class_score_weight) == (20, 0.2, 0)
    assert not HOW.min_max
    assert not HOW.at_class_threshold
    other = localization_of(acm_net(cas_thresholds="0.1,0.3", attention_thresholds="0.2:0.2:0.8"))
    assert other.cas_thresholds == (0.1, 0.3)
    assert other.actionness_thresholds == (0.2, 0.4, 0.6, 0.8)
    assert localization_of(GenerationSettings(method="cola")) == FUSTAL


@settings(max_examples=40)
@given(st.integers(2, 30), st.integers(1, 5), st.integers(0, 10_000))
def test_candidates_equal_loops(length: int, classes: int, seed: int) -> None:
    video = (*random_video(length, classes, seed), 3 * length, 0.64)
    ours = generate_proposals(*video, how=HOW, class_threshold=0.25, nms=False)
    expected = proposals_by_loops(*video, way=ACM_NET_WAY, nms=False)
    assert in_time(ours) == pytest.approx(in_time(expected), abs=1e-9)


def test_a_ramp_by_hand() -> None:
    """Two snippets 0 and 1 are upsampled to 0, 1/20 .. 39/20: every run ends at the end.

    Position 3 is 0.15 and position 4 is 0.2, so each threshold's own position begins its run.
    """
    ramp = np.array([0.0, 1.0])
    video = (ramp[:, None], ramp, np.array([0.3]), 10, 0.64)
    found = generate_proposals(*video, how=HOW, class_threshold=0.25, nms=False)
    expected = []
    for number, first in enumerate([3, 4, *range(3, 20)]):
        length = 40 - first
        inside = Fraction(sum(range(first, 40)), 20 * length)
        outside = range(max(0, int(first - Fraction(length, 5))), first)
        around = Fraction(0)
        if number >= 2 and len(outside):  # the T-CAS thresholds zero what is outside
            around = Fraction(sum(outside), 20 * len(outside))
        expected.append((0, float(inside - around), first * 6.4 / 40, 6.4))
    assert len(found) == 19
    frame = pd.DataFrame(expected, columns=COLUMNS)
    assert in_time(found) == pytest.approx(in_time(frame), abs=1e-12)


def test_curves_are_cut_as_they_are() -> None:
    """A curve that stays between two thresholds is one run, and one below all of them is none."""
    flat = np.full(6, 0.17)
    video = (np.full((6, 1), 0.1), flat, np.array([0.9]), 6, 1.0)
    found = generate_proposals(*video, how=HOW, nms=False)
    assert found[["t_start", "t_end"]].to_numpy().tolist() == [[0, 6]]  # attention above 0.15
    assert found["score"].tolist() == pytest.approx([0.1])
    assert generate_proposals(*video, nms=False).empty  # scaled, a flat curve is 0
    low = (np.full((6, 1), 0.1), np.full(6, 0.149), *video[2:])
    assert generate_proposals(*low, how=HOW, nms=False).empty
    scaled = localization_of(acm_net(min_max=True))
    assert scaled == replace(HOW, min_max=True)
    assert generate_proposals(*video, how=scaled, nms=False).empty


def test_classes_are_above_the_threshold_or_the_best() -> None:
    cas, attention, _ = random_video(20, 3, seed=0)

    def labels(scores: list[float], **options: object) -> list[int]:
        found = generate_proposals(
            cas, attention, np.array(scores), 20, 0.64, how=HOW, class_threshold=0.25, **options
        )
        return found["label"].unique().tolist()

    assert labels([0.25, 0.3, 0.26]) == [1, 2]
    assert labels([0.25, 0.2, 0.1]) == [0]
    assert labels([0.1, 0.2, 0.1]) == [1]
    assert labels([0.9, 0.2, 0.1], classes=np.array([2])) == [2]


def test_the_class_score_plays_no_part() -> None:
    cas, attention, _ = random_video(20, 1, seed=0)
    low, high = (
        generate_proposals(cas, attention, np.array([score]), 20, 0.64, how=HOW)
        for score in (0.3, 0.9)
    )
    pd.testing.assert_frame_equal(low, high)


def test_proposals_of_a_trained_network_equal_loops(tiny_dataset: Dataset) -> None:
    how = acm_net(iterations=100, hidden_channels=32, learning_rate=1e-2, batch_size=8)
    model = trained_acm_net(tiny_dataset, 0, how).model
    store = tiny_dataset.generator_features
    found = propose(model, tiny_dataset, "test", how)
    assert len(found) > 20
    for video in tiny_dataset.video_names("test"):
        output = run_generator(model, store, video, 32)
        curves = [x[0].numpy() for x in (output.cas, output.actionness, output.video_scores)]
        clock = store.num_snippets(video), store.seconds_per_snippet(video)
        candidates = generate_proposals(*curves, *clock, how=HOW, class_threshold=0.25, nms=False)
        by_loops = proposals_by_loops(*curves, *clock, way=ACM_NET_WAY, nms=False)
        assert in_time(candidates) == pytest.approx(in_time(by_loops), abs=1e-6)
        expected = []
        for label, rows in candidates.groupby("label"):
            kept = suppressed(list(rows[COLUMNS[1:]].itertuples(index=False, name=None)), 0.55, 1.0)
            expected += [(video, tiny_dataset.classes[label], *row) for row in kept]
        mine = found[found["video"] == video]
        assert list(mine.itertuples(index=False, name=None)) == expected
        alone = propose_video(model, store, video, tiny_dataset.classes, how)
        pd.testing.assert_frame_equal(alone, mine.reset_index(drop=True), check_exact=True)
