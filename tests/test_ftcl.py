"""FTCL: candidates, losses and pairs against plain loops and by hand; its training."""

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
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor
from training_helpers import (
    Killed,
    assert_same_trainings,
    assert_same_weights,
    kill_at,
    scores_in_turn,
)

from fustal_core import ftcl, ftcl_training
from fustal_core.acmnet import ACMNet, ACMNetOutput, acm_net_loss
from fustal_core.data import Dataset
from fustal_core.features import FeatureStore
from fustal_core.ftcl import (
    FTCL,
    AlignmentTables,
    Candidates,
    PairSampler,
    alignment_loss,
    alignment_tables,
    build_ftcl,
    example_pairs,
    find_candidates,
    share_a_class,
)
from fustal_core.ftcl_training import FTCL_PARTS, ftcl_task, look_at_pair
from fustal_core.generation import propose, run_generator
from fustal_core.generator_training import Task, Trained, train
from fustal_core.reference_alignment import cosine_by_pairs, fsd_by_loops, lcs_by_loops
from fustal_core.stage_settings import ACMNetSettings, FTCLSettings

DIM = 6
NETWORK = ACMNetSettings(hidden_channels=8, length=32, learning_rate=1e-3)
CLASSES = ("dive", "jump", "run")


def method(**changes: Any) -> FTCLSettings:
    values = {
        "epochs": 2,
        "batch_size": 3,
        "fsd_channels": 4,
        "learning_rate": 1e-3,
        "checkpoint_every": 3,
    }
    return FTCLSettings(**(values | changes))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dataset_of(labels: list[set[int]], lengths: list[int] | None = None) -> Dataset:
    """Training videos that show these classes, and two test videos; random features."""
    shown = [*labels, {0}, {1}]
    names = [f"train{i}" for i in range(len(labels))] + ["test0", "test1"]
    lengths = [*(lengths or [40] * len(labels)), 50, 7]
    ends = np.cumsum(lengths)
    offsets = {
        name: (int(end - length), length)
        for name, end, length in zip(names, ends, lengths, strict=True)
    }
    values = torch.randn(sum(lengths), DIM, generator=seeded(5))
    store = FeatureStore(values, offsets, 1, 1, dict.fromkeys(names, 5.0))
    subsets = ["train"] * len(labels) + ["test"] * 2
    videos = pd.DataFrame(
        {"subset": subsets, "duration_s": [length / 5 for length in lengths]},
        index=pd.Index(names, name="video"),
    )
    rows = [
        (name, CLASSES[c], 0.0, 0.6) for name, own in zip(names, shown, strict=True) for c in own
    ]
    segments = pd.DataFrame(rows, columns=["video", "label", "t_start", "t_end"])
    return Dataset("small", "simulated", CLASSES, videos, segments, store, store, "0")


LABELS = [{0}, {1}, {0}, {0, 1}, {2}, {1}, {0}]
"""Positive pairs: 0-2, 0-6, 2-6, 1-5."""


def start_network(seed: int = 9) -> ACMNet:
    torch.manual_seed(seed)
    return ACMNet(DIM, len(CLASSES), NETWORK).eval()


def task_of(dataset: Dataset, settings: FTCLSettings, seed: int = 1) -> Task[FTCL]:
    return ftcl_task(settings, NETWORK, start_network(), dataset, seed)


def trained_ftcl(
    dataset: Dataset, settings: FTCLSettings, seed: int = 1, **options: Any
) -> Trained[FTCL]:
    return train(task_of(dataset, settings, seed), settings, seed, **options)


# --- candidates -----------------------------------------------------------------------------------


def output_of(attention: np.ndarray) -> ACMNetOutput:
    """Embeddings that tell which video and snippet they are of, (B, T, 2), and an attention."""
    embeddings = torch.from_numpy(np.stack(np.indices(attention.shape), axis=-1).astype(float))
    instance = torch.from_numpy(attention)
    branches = torch.stack([instance, 1 - instance, 0 * instance], dim=2)
    return ACMNetOutput(embeddings, branches, *[torch.zeros(0)] * 3)


def model_of(fsd_channels: int = 4) -> FTCL:
    torch.manual_seed(0)
    sizes = ACMNetSettings(hidden_channels=2)
    return build_ftcl(DIM, 3, sizes, method(fsd_channels=fsd_channels)).double()


# Few distinct values make ties.
TIED = hnp.arrays(
    float, st.tuples(st.integers(1, 3), st.integers(1, 45)), elements=st.sampled_from([0, 0.5, 1])
)


@given(TIED, st.sampled_from([(30, 5), (4, 2), (1, 20)]))
def test_candidates_equal_loops(attention: np.ndarray, numbers: tuple[int, int]) -> None:
    lcs, fsd = numbers
    model, output = model_of(), output_of(attention)
    found = find_candidates(model, output, method(lcs_snippets=lcs, fsd_snippets=fsd))
    for b, curve in enumerate(attention):
        ranked = sorted(range(len(curve)), key=lambda t: (-curve[t], t))
        fsd = min(numbers[1], len(curve) // 2)
        expected = {
            "lcs": sorted(ranked[:lcs]),
            "action": sorted(ranked[:fsd]),
            "background": sorted(ranked[fsd : 2 * fsd]),
        }
        for name, rows in expected.items():
            assert getattr(found, f"{name}_rows")[b].tolist() == rows, name
        assert found.lcs[b].tolist() == [[b, t] for t in expected["lcs"]]
        for name in ("action", "background"):
            snippets = torch.tensor([[b, t] for t in expected[name]]).double().view(-1, 2)
            projected = model.fsd_embedding(snippets)
            assert torch.allclose(getattr(found, f"fsd_{name}")[b], projected), name


def test_candidates_by_hand() -> None:
    """Ranks 1 to 5 and 6 to 10 of sixty snippets, in temporal order."""
    attention = np.full((1, 60), 0.1)
    attention[0, [50, 20, 31, 3, 44]] = [0.9, 0.8, 0.7, 0.6, 0.5]
    attention[0, [2, 30, 59, 45]] = 0.4
    found = find_candidates(model_of(), output_of(attention), FTCLSettings())
    assert found.action_rows.tolist() == [[3, 20, 31, 44, 50]]
    assert found.background_rows.tolist() == [[0, 2, 30, 45, 59]]  # 0: the earliest of the rest
    # These ten, and the twenty earliest of the others.
    named = {3, 20, 31, 44, 50, 2, 30, 45, 59}
    others = [t for t in range(60) if t not in named][:21]
    assert found.lcs_rows.tolist() == [sorted([*named, *others])]


def test_the_choice_has_no_gradient_and_the_embeddings_do() -> None:
    model, output = model_of(), output_of(np.random.default_rng(0).random((2, 40)))
    for value in (output.embeddings, output.attention):
        value.requires_grad_()
    found = find_candidates(model, output, method())
    (found.lcs.sum() + found.fsd_action.square().sum()).backward()
    assert output.attention.grad is None
    assert output.embeddings.grad.count_nonzero() == 2 * 30 * 2
    assert model.fsd_embedding.weight.grad.abs().max() > 0


def test_candidates_of_a_batch_split_into_first_and_second_videos() -> None:
    found = find_candidates(
        model_of(), output_of(np.random.default_rng(0).random((4, 40))), method()
    )
    first, second = found.split()
    for name, value in vars(found).items():
        assert torch.equal(getattr(first, name), value[:2])
        assert torch.equal(getattr(second, name), value[2:])


# --- tables and losses ----------------------------------------------------------------------------


def random_candidates(num_pairs: int, seed: int) -> Candidates:
    rng = seeded(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    rows = [torch.zeros(num_pairs, n, dtype=torch.long) for n in (6, 3, 3)]
    return Candidates(drawn(num_pairs, 6, 5), drawn(num_pairs, 3, 8), drawn(num_pairs, 3, 8), *rows)


def test_tables_take_the_halves_and_the_right_partner() -> None:
    first, second = random_candidates(3, 0), random_candidates(3, 1)
    positive = torch.tensor([True, False, True])
    tables = alignment_tables(first, second, positive)
    assert torch.allclose(tables.similarity, cosine_by_pairs(first.lcs, second.lcs))
    for p, is_positive in enumerate(positive.tolist()):
        partner = second.fsd_action if is_positive else second.fsd_background
        match = cosine_by_pairs(first.fsd_action[p : p + 1, :, :4], partner[p : p + 1, :, :4])
        gap = cosine_by_pairs(first.fsd_action[p : p + 1, :, 4:], partner[p : p + 1, :, 4:])
        assert torch.allclose(tables.match[p], match[0])
        assert torch.allclose(tables.gap[p], gap[0])


def test_a_negative_pair_does_not_see_the_second_videos_action() -> None:
    first, second = random_candidates(2, 0), random_candidates(2, 1)
    for own in (first, second):
        for value in (own.fsd_action, own.fsd_background):
            value.requires_grad_()
    tables = alignment_tables(first, second, torch.tensor([True, False]))
    (tables.match + tables.gap).square().sum().backward()
    for value, seen in [
        (first.fsd_action, [True, True]),
        (second.fsd_action, [True, False]),
        (second.fsd_background, [False, True]),
    ]:
        assert value.grad.abs().amax((1, 2)).gt(0).tolist() == seen
    assert first.fsd_background.grad is None


def single_cells(match: list[float], similarity: list[float]) -> AlignmentTables:
    """Pairs of one candidate each, without a gap: FSD is match + 0.1 log 3, LCS the similarity."""

    def cells(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)[:, None, None]

    return AlignmentTables(cells(match), cells([0.0] * len(match)), cells(similarity))


SMOOTH = 0.1 * math.log(3)


def test_losses_by_hand() -> None:
    tables = single_cells([0.5, -0.25, 0.125, 1.0], [0.95, 1.0, 0.5, 0.97])
    loss = alignment_loss(tables, torch.tensor([True, False, False, True]), method())
    # The negative mean minus the positive one; what smooths the maximum cancels out.
    fsd = Fraction(-1, 4) / 2 + Fraction(1, 8) / 2 - (Fraction(1, 2) + 1) / 2
    assert loss.fsd.item() == pytest.approx(float(fsd))
    assert loss.lcs.item() == pytest.approx((1.0 + 0) / 2 - (0.95 + 0.97) / 2)


@pytest.mark.parametrize("kind", [True, False], ids=["positive", "negative"])
def test_a_batch_of_one_kind_of_pair(kind: bool) -> None:
    tables = single_cells([0.5, -0.25], [0.95, 0.1])
    loss = alignment_loss(tables, torch.tensor([kind, kind]), method())
    sign = -1 if kind else 1
    assert loss.fsd.item() == pytest.approx(sign * (0.125 + SMOOTH))
    assert loss.lcs.item() == pytest.approx(sign * 0.95 / 2)


@pytest.mark.parametrize("positive", [[True, False, True, False], [True] * 4, [False] * 4])
def test_losses_equal_loops(positive: list[bool]) -> None:
    rng = seeded(0)
    match, gap = (torch.rand(4, 5, 5, generator=rng).double() * 2 - 1 for _ in range(2))
    similarity = 1 - 0.2 * torch.rand(4, 9, 9, generator=rng).double()
    settings = method(fsd_gamma=0.3, lcs_threshold=0.9)
    loss = alignment_loss(AlignmentTables(match, gap, similarity), torch.tensor(positive), settings)
    for found, values in [
        (loss.fsd, fsd_by_loops(match, gap, 0.3)),
        (loss.lcs, lcs_by_loops(similarity, 0.9)),
    ]:
        kinds = {True: [0.0], False: [0.0]}
        for kind in kinds:
            mine = [v for v, own in zip(values.tolist(), positive, strict=True) if own is kind]
            kinds[kind] = mine or [0.0]
        assert found.item() == pytest.approx(np.mean(kinds[False]) - np.mean(kinds[True]))


def test_a_step_downhill_brings_positive_pairs_together_and_negative_ones_apart() -> None:
    tables = single_cells([0.5, 0.5], [0.95, 0.95])
    for value in vars(tables).values():
        value.requires_grad_()
    loss = alignment_loss(tables, torch.tensor([True, False]), method())
    (loss.fsd + loss.lcs).backward()
    assert tables.match.grad.flatten().tolist() == pytest.approx([-1, 1])
    assert tables.similarity.grad.flatten().tolist() == pytest.approx([-1, 1])


def test_sharing_a_class_is_positive() -> None:
    first = torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 0]])
    second = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 1, 0], [1, 0, 1]])
    assert share_a_class(first, second).tolist() == [True, True, False, False]


def forbid(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError(f"{name} was computed")

    monkeypatch.setattr(ftcl, name, fail)


@pytest.mark.parametrize(
    ("weight", "name", "left"),
    [
        ("fsd_weight", "fine_grained_sequence_distance", "lcs"),
        ("lcs_weight", "longest_common_subsequence", "fsd"),
    ],
)
def test_a_term_of_weight_0_is_not_computed(
    monkeypatch: pytest.MonkeyPatch, weight: str, name: str, left: str
) -> None:
    tables, positive = single_cells([0.5, -0.25], [0.95, 1.0]), torch.tensor([True, False])
    full = alignment_loss(tables, positive, method())
    forbid(monkeypatch, name)
    part = alignment_loss(tables, positive, method(**{weight: 0.0}))
    assert getattr(part, left) == getattr(full, left) != 0
    assert getattr(part, "fsd" if left == "lcs" else "lcs") == 0
    with pytest.raises(AssertionError, match=name):
        alignment_loss(tables, positive, method())


def test_nothing_waits_for_the_device() -> None:
    # Tensors of the meta device have no values: whoever asks for one fails.
    with torch.device("meta"):
        model = build_ftcl(DIM, 3, NETWORK, method())
        output = model.eval()(torch.empty(6, 40, DIM))
        positive = share_a_class(torch.empty(3, 3), torch.empty(3, 3))
        tables = alignment_tables(*find_candidates(model, output, method()).split(), positive)
        loss = alignment_loss(tables, positive, method())
    (loss.fsd + loss.lcs).backward()
    assert model.network.embedding.weight.grad.shape == (8, DIM, 3)
    assert model.fsd_embedding.weight.grad.shape == (4, 8)


# --- pairs ----------------------------------------------------------------------------------------


def is_identical(labels: Tensor, pair: list[int]) -> bool:
    return torch.equal(labels[pair[0]], labels[pair[1]])


def is_disjoint(labels: Tensor, pair: list[int]) -> bool:
    return not (labels[pair[0]] * labels[pair[1]]).any()


def all_pairs(count: int) -> list[list[int]]:
    return [[i, j] for i in range(count) for j in range(i + 1, count)]


# Few classes make identical label vectors; every video shows at least one class.
MULTI_HOT = hnp.arrays(
    bool, st.tuples(st.integers(1, 10), st.integers(1, 3)), elements=st.booleans()
).map(lambda x: torch.from_numpy(x | ~x.any(1, keepdims=True)).float())


@given(MULTI_HOT, st.integers(0, 999))
def test_a_pass_has_every_positive_pair_once_and_as_many_negative(
    labels: Tensor, seed: int
) -> None:
    pairs = PairSampler(labels).epoch(seeded(seed))
    candidates = all_pairs(len(labels))
    positive = [pair for pair in candidates if is_identical(labels, pair)]
    has_negative = any(is_disjoint(labels, pair) for pair in candidates)
    found = [sorted(pair) for pair in pairs if is_identical(labels, pair)]
    others = [pair for pair in pairs if not is_identical(labels, pair)]
    assert sorted(found) == positive
    assert all(is_disjoint(labels, pair) for pair in others)
    assert len(others) == (len(positive) if has_negative else 0)
    assert all(i != j for i, j in pairs)


@given(MULTI_HOT, st.integers(1, 30), st.integers(0, 999))
def test_a_limited_pass_draws_pairs_of_both_kinds(labels: Tensor, limit: int, seed: int) -> None:
    sampler = PairSampler(labels, limit)
    pairs = sampler.epoch(seeded(seed))
    candidates = all_pairs(len(labels))
    available = sum(is_identical(labels, pair) for pair in candidates)
    has_negative = any(is_disjoint(labels, pair) for pair in candidates)
    found = [sorted(pair) for pair in pairs if is_identical(labels, pair)]
    others = [pair for pair in pairs if not is_identical(labels, pair)]
    assert len(found) == sampler.positives == min(limit, available)
    assert len(others) == sampler.negatives == (len(found) if has_negative else 0)
    assert all(is_disjoint(labels, pair) for pair in others)
    assert all(i != j for i, j in pairs)
    if limit >= available:
        assert len({tuple(pair) for pair in found}) == available


@pytest.mark.parametrize("limit", [0, 20])
def test_passes_differ_and_follow_their_generator(limit: int) -> None:
    labels = torch.eye(3).repeat(6, 1)
    sampler, rng = PairSampler(labels, limit), seeded(4)
    first, second = sampler.epoch(rng), sampler.epoch(rng)
    assert first != second
    again = seeded(4)
    other = PairSampler(labels, limit)
    assert [other.epoch(again), other.epoch(again)] == [first, second]
    assert PairSampler(labels, limit).epoch(seeded(5)) != first
    kinds = [is_identical(labels, pair) for pair in first]
    assert kinds != sorted(kinds)
    assert kinds != sorted(kinds, reverse=True)


def test_drawn_pairs_are_equally_likely() -> None:
    """Sizes 4, 2 and 1: 6 + 1 positive pairs, and 14 negative ones in two orders."""
    labels = torch.eye(3)[[0, 0, 1, 0, 2, 1, 0]]
    sampler, rng = PairSampler(labels, 6), seeded(0)
    drawn = [pair for _ in range(1000) for pair in sampler.epoch(rng)]
    positive = [tuple(sorted(pair)) for pair in drawn if is_identical(labels, pair)]
    negative = [tuple(pair) for pair in drawn if not is_identical(labels, pair)]
    for pairs, kinds in ((positive, 7), (negative, 28)):
        counts = pd.Series(pairs).value_counts()
        assert len(counts) == kinds
        expected = 6000 / kinds
        assert (counts - expected).abs().max() < 5 * math.sqrt(expected)


def test_without_two_alike_there_is_no_pair() -> None:
    sampler = PairSampler(torch.eye(4))
    assert (sampler.positives, sampler.negatives) == (0, 0)
    assert sampler.epoch(seeded(0)) == []
    assert PairSampler(torch.eye(1), 5).epoch(seeded(0)) == []
    assert PairSampler(torch.eye(4), 5).epoch(seeded(0)) == []


def test_without_two_apart_there_are_only_positive_pairs() -> None:
    sampler = PairSampler(torch.ones(4, 2))
    assert (sampler.positives, sampler.negatives) == (6, 0)
    assert sorted(map(sorted, sampler.epoch(seeded(0)))) == all_pairs(4)


def test_example_pairs_by_hand() -> None:
    def labels(*rows: str) -> Tensor:
        return torch.tensor([[float(x) for x in row] for row in rows])

    # Video 0 has no twin, video 1 has one (3), and 2 is the first that shares nothing with it.
    assert example_pairs(labels("110", "100", "010", "100")) == {
        "positive": (1, 3),
        "negative": (1, 2),
    }
    # Nobody has both.
    assert example_pairs(labels("111", "100", "010", "111")) == {
        "positive": (0, 3),
        "negative": (1, 2),
    }
    assert example_pairs(labels("10", "10")) == {"positive": (0, 1)}
    assert example_pairs(labels("10", "01")) == {"negative": (0, 1)}
    assert example_pairs(labels("10")) == {}


# --- the task -------------------------------------------------------------------------------------


def test_it_starts_from_the_acm_net_and_leaves_that_alone() -> None:
    network, dataset = start_network(), dataset_of(LABELS)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    settings = method()
    task = ftcl_task(settings, NETWORK, network, dataset, seed=1)
    assert_same_weights(task.model.network, network)
    trained = train(task, settings, seed=1)
    assert not torch.equal(trained.model.network.embedding.weight, network.embedding.weight)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    layers = [task_of(dataset, settings, seed).model.fsd_embedding.weight for seed in (1, 1, 2)]
    assert torch.equal(layers[0], layers[1])
    assert not torch.equal(layers[0], layers[2])


def test_losses_of_a_batch_equal_one_pair_at_a_time() -> None:
    """L = mean of both videos' L_ACM + 0.1 L_LCS + 0.8 L_FSD, kinds of pairs by shared classes."""
    dataset, settings = dataset_of(LABELS), method(lcs_threshold=0.5)
    task = task_of(dataset, settings)
    task.model.eval()
    pairs = [[0, 2], [0, 3], [4, 1], [6, 5]]  # identical; one class shared; none; none
    found = dict(zip(FTCL_PARTS, task.losses(pairs, seeded(3), seeded(0)).tolist(), strict=True))

    names = [f"train{i}" for column in zip(*pairs, strict=True) for i in column]
    features = dataset.generator_features.sample_random(names, 32, seeded(3))
    labels = dataset.video_labels("train")
    acm_net, fsd, lcs = [], {True: [], False: []}, {True: [], False: []}
    for p, pair in enumerate(pairs):
        outputs = [task.model(features[p + 4 * i][None]) for i in (0, 1)]
        acm_net += [
            acm_net_loss(output, labels[video][None], NETWORK).total.item()
            for output, video in zip(outputs, pair, strict=True)
        ]
        one, two = (find_candidates(task.model, output, settings) for output in outputs)
        is_positive = not is_disjoint(labels, pair)
        partner = two.fsd_action if is_positive else two.fsd_background
        match, gap = (
            cosine_by_pairs(one.fsd_action[..., half], partner[..., half])
            for half in (slice(0, 2), slice(2, 4))
        )
        fsd[is_positive].append(fsd_by_loops(match, gap).item())
        lcs[is_positive].append(lcs_by_loops(cosine_by_pairs(one.lcs, two.lcs), 0.5).item())
    expected = {
        "acm_net": np.mean(acm_net),
        "fsd": np.mean(fsd[False]) - np.mean(fsd[True]),
        "lcs": np.mean(lcs[False]) - np.mean(lcs[True]),
    }
    assert len(fsd[True]) == len(fsd[False]) == 2
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name
    total = found["acm_net"] + 0.1 * found["lcs"] + 0.8 * found["fsd"]
    assert found["total"] == pytest.approx(total, rel=1e-5)
    assert found["lcs"] != 0


def test_every_parameter_learns() -> None:
    task = task_of(dataset_of(LABELS), method())
    task.losses([[0, 2], [4, 1]], seeded(0), seeded(1))[0].backward()
    for name, parameter in task.model.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_steps_are_passes_over_the_pairs() -> None:
    """Four positive pairs and four negative ones, three at a time: 3, 3 and 2."""
    task = task_of(dataset_of(LABELS), method(epochs=5, evaluate_every=2))
    assert (task.iterations, task.evaluate_every, task.look_every) == (15, 6, 3)
    assert len(task.epoch(seeded(0))) == 8
    task = task_of(dataset_of(LABELS), method(epochs=5, pairs_per_epoch=3))
    assert task.iterations == 10
    assert len(task.epoch(seeded(0))) == 6
    task = task_of(dataset_of([{0}] * 4), method(epochs=5))  # six pairs, no negative one
    assert task.iterations == 10


def test_same_seed_same_bits_other_seed_other_bits() -> None:
    dataset, before = dataset_of(LABELS), torch.get_rng_state()
    network = start_network()
    torch.set_rng_state(before)
    one, again, other = (
        train(ftcl_task(method(), NETWORK, network, dataset, seed), method(), seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_trainings(one, again)
    assert not torch.equal(one.model.network.embedding.weight, other.model.network.embedding.weight)
    assert not one.model.training
    assert one.losses.columns.tolist() == ["iteration", *FTCL_PARTS]
    assert one.losses["iteration"].tolist() == list(range(1, 7))
    assert one.losses["fsd"].abs().min() > 0


@pytest.mark.parametrize(
    ("killed", "limit"), [(2, 0), (3, 0), (5, 0), (8, 0), (2, 3), (4, 3), (7, 3)]
)
def test_a_killed_training_goes_on_to_the_same_bits(
    tmp_path: Path, killed: int, limit: int
) -> None:
    """Losses, evaluations and looks too; in the middle of a pass and at its end."""
    job = {
        "dataset": dataset_of(LABELS),
        "settings": method(
            epochs=4, evaluate_every=1, pairs_per_epoch=limit, select="best-on-test"
        ),
    }
    scores = (3.0, 9.0, 5.0, 7.0)
    steps = 2 if limit else 3
    undisturbed = trained_ftcl(**job, evaluate=scores_in_turn(*scores))
    kept = {"checkpoint": tmp_path / "checkpoint.pt", "key": "job"}
    with pytest.raises(Killed):
        trained_ftcl(**job, **kept, evaluate=scores_in_turn(*scores), progress=kill_at(killed))
    seen = killed // 3 * 3 // steps
    resumed = trained_ftcl(**job, **kept, evaluate=scores_in_turn(*scores[seen:]))
    assert_same_trainings(undisturbed, resumed)
    assert len(resumed.evaluations) == 4
    assert resumed.looks["iterations"].tolist() == [steps * i for i in range(5)]


def test_training_sees_the_training_videos_labels_alone() -> None:
    """Neither when actions happen nor what the test videos show."""
    dataset = dataset_of(LABELS)
    truth = dataset.segments
    is_test = truth["video"].isin(dataset.video_names("test"))
    changed = truth.assign(t_start=1.0, t_end=3.5, label=truth["label"].where(~is_test, CLASSES[2]))
    blind = replace(dataset, segments=changed)
    one, other = (trained_ftcl(data, method()) for data in (dataset, blind))
    assert_same_trainings(one, other)
    for subset in ("train", "test"):
        pd.testing.assert_frame_equal(
            propose(one.model, dataset, subset, NETWORK),
            propose(other.model, blind, subset, NETWORK),
            check_exact=True,
        )


def test_without_both_terms_it_is_the_acm_net_on_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, plain = dataset_of(LABELS), method(lcs_weight=0.0, fsd_weight=0.0)
    with monkeypatch.context() as patch:
        forbid(patch, "fine_grained_sequence_distance")
        forbid(patch, "longest_common_subsequence")
        without = trained_ftcl(dataset, plain)
    assert not without.losses[["fsd", "lcs"]].to_numpy().any()
    assert without.losses["total"].equals(without.losses["acm_net"])

    def acm_net_alone(
        tables: AlignmentTables, positive: Tensor, settings: FTCLSettings
    ) -> ftcl.AlignmentLoss:
        zero = torch.zeros(())
        return ftcl.AlignmentLoss(zero, zero)

    monkeypatch.setattr(ftcl_training, "alignment_loss", acm_net_alone)
    assert_same_weights(without.model, trained_ftcl(dataset, method()).model)


def test_the_terms_change_the_network() -> None:
    dataset = dataset_of(LABELS)
    models = [
        trained_ftcl(dataset, method(lcs_threshold=0.5, **changes)).model.network
        for changes in ({}, {"lcs_weight": 0.0}, {"fsd_weight": 0.0})
    ]
    for other in models[1:]:
        assert not torch.equal(models[0].embedding.weight, other.embedding.weight)


def test_training_lowers_its_contrasts() -> None:
    settings = method(epochs=40, learning_rate=3e-3)
    losses = trained_ftcl(dataset_of(LABELS), settings).losses
    first, last = losses.head(12).mean(), losses.tail(12).mean()
    assert last["fsd"] < first["fsd"] - 0.5
    assert last["total"] < first["total"]


@pytest.mark.parametrize("labels", [[{0}, {1}, {0, 1}], [{2}]], ids=["all different", "one video"])
def test_without_a_positive_pair_it_stays_the_acm_net(
    labels: list[set[int]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    dataset = dataset_of(labels)
    trained = trained_ftcl(dataset, method(), checkpoint=tmp_path / "checkpoint.pt", key="job")
    assert "no two training videos have identical labels" in capsys.readouterr().err
    network = start_network()
    assert_same_weights(trained.model.network, network)
    assert trained.losses.columns.tolist() == ["iteration", *FTCL_PARTS]
    assert trained.losses.empty
    assert trained.looks["iterations"].tolist() == [0]
    assert not any(name.startswith("positive") for name in trained.looks)
    pd.testing.assert_frame_equal(
        propose(trained.model, dataset, "test", NETWORK),
        propose(network, dataset, "test", NETWORK),
        check_exact=True,
    )


def test_with_a_pair_there_is_no_note(capsys: pytest.CaptureFixture[str]) -> None:
    task_of(dataset_of(LABELS), method())
    assert not capsys.readouterr().err


@pytest.mark.parametrize("lengths", [[25] * 7, [9] * 7, [1, 2, 3, 9, 10, 31, 1]])
def test_short_videos_train_and_are_looked_at(lengths: list[int]) -> None:
    """Sampling repeats their snippets in training; a look takes what is there."""
    settings = method(lcs_snippets=30)
    trained = trained_ftcl(dataset_of(LABELS, lengths), settings)
    assert np.isfinite(trained.losses.to_numpy()).all()
    one, two = lengths[0], lengths[2]  # the positive pair
    looks = trained.looks
    assert looks["positive.similarity"].shape == (3, min(30, one), min(30, two))
    assert looks["positive.match"].shape == (3, min(5, one // 2), min(5, two // 2))
    for value in trained.model.state_dict().values():
        assert value.isfinite().all()


# --- looks ----------------------------------------------------------------------------------------


def test_looks_show_two_pairs_before_and_after_every_pass() -> None:
    dataset, settings = dataset_of(LABELS), method()
    trained = trained_ftcl(dataset, settings)
    looks = trained.looks
    assert looks["iterations"].tolist() == [0, 3, 6]
    sizes = {
        "match": (5, 5),
        "gap": (5, 5),
        "similarity": (30, 30),
        "fsd_rows": (5,),
        "fsd_columns": (5,),
        "lcs_rows": (30,),
        "lcs_columns": (30,),
    }
    assert {name: tuple(value.shape) for name, value in looks.items()} == {
        "iterations": (3,),
        **{f"{kind}.{n}": (3, *s) for kind in ("positive", "negative") for n, s in sizes.items()},
    }
    for kind, pair in (("positive", ["train0", "train2"]), ("negative", ["train0", "train1"])):
        for time, model in ((0, task_of(dataset, settings).model.eval()), (2, trained.model)):
            now = look_at_pair(model, dataset, pair, kind == "positive", 32, settings)
            for name, value in now.items():
                assert torch.equal(looks[f"{kind}.{name}"][time], value), (kind, name)
        for name in ("fsd_rows", "fsd_columns", "lcs_rows", "lcs_columns"):
            assert (looks[f"{kind}.{name}"].diff(dim=1) > 0).all()
    assert not torch.equal(looks["positive.match"][0], looks["positive.match"][2])


def test_a_look_shows_which_snippets_are_compared() -> None:
    dataset, settings = dataset_of(LABELS, [40] * 6 + [20]), method()
    model = task_of(dataset, settings).model.eval()
    for positive, pair in ((True, ["train0", "train6"]), (False, ["train6", "train1"])):
        look = look_at_pair(model, dataset, pair, positive, 32, settings)
        outputs = [run_generator(model, dataset.generator_features, video, 32) for video in pair]
        first, second = (find_candidates(model, output, settings) for output in outputs)
        assert look["fsd_rows"].tolist() == first.action_rows[0].tolist()
        partner = second.action_rows if positive else second.background_rows
        assert look["fsd_columns"].tolist() == partner[0].tolist()
        embedded = [
            output.embeddings[0, look[name]]
            for output, name in zip(outputs, ("fsd_rows", "fsd_columns"), strict=True)
        ]
        a, b = (model.fsd_embedding(own)[None] for own in embedded)
        expected = cosine_by_pairs(a[..., :2], b[..., :2])[0]
        assert torch.allclose(look["match"], expected, atol=1e-6)
        lcs = [
            output.embeddings[0, look[name]][None]
            for output, name in zip(outputs, ("lcs_rows", "lcs_columns"), strict=True)
        ]
        assert torch.allclose(look["similarity"], cosine_by_pairs(*lcs)[0], atol=1e-6)
    assert look["similarity"].shape == (20, 30)
