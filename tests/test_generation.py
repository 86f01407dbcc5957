"""Training of the generator: the same bits again, after a kill too, from video labels alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from fustal_core.config import GenerationSettings
from fustal_core.data import Dataset, FeatureStore
from fustal_core.generation import HISTORY_COLUMNS, propose, run_generator, train_generator
from fustal_core.generator import CrossVideoGenerator

BATCH = 3


def generation(**changes: Any) -> GenerationSettings:
    values = {
        "hidden_channels": 8,
        "length": 32,
        "iterations": 10,
        "batch_size": BATCH,
        "learning_rate": 1e-3,
        "checkpoint_every": 4,
    }
    return GenerationSettings(**(values | changes))


def assert_same_weights(a: CrossVideoGenerator, b: CrossVideoGenerator) -> None:
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name]), name


class Killed(Exception):
    pass


def kill_at(iteration: int) -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, note: str) -> None:
        if done == iteration:
            raise Killed

    return progress


def scores_in_turn(*values: float) -> Callable[[CrossVideoGenerator], dict[str, float]]:
    """An evaluation that returns one value after the other and keeps the weights it saw."""
    left = list(values)

    def evaluate(model: CrossVideoGenerator) -> dict[str, float]:
        evaluate.seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return {"avg 0.1:0.7": left.pop(0)}

    evaluate.seen = []
    return evaluate


def test_same_seed_same_bits_other_seed_other_bits(tiny_dataset: Dataset) -> None:
    model, losses, evaluations = train_generator(generation(), tiny_dataset, seed=1)
    again, same_losses, _ = train_generator(generation(), tiny_dataset, seed=1)
    other, _, _ = train_generator(generation(), tiny_dataset, seed=2)
    assert_same_weights(model, again)
    pd.testing.assert_frame_equal(losses, same_losses, check_exact=True)
    assert not torch.equal(model.embedding.weight, other.embedding.weight)
    assert not model.training
    assert losses.columns.tolist() == HISTORY_COLUMNS
    assert losses["iteration"].tolist() == list(range(1, 11))
    assert evaluations.empty


def test_training_leaves_the_global_generator_alone(tiny_dataset: Dataset) -> None:
    before = torch.get_rng_state()
    train_generator(generation(iterations=2), tiny_dataset, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_lowers_the_loss(tiny_dataset: Dataset) -> None:
    settings = generation(iterations=80, learning_rate=5e-3)
    _, losses, _ = train_generator(settings, tiny_dataset, seed=0)
    first, last = losses.head(10).mean(), losses.tail(10).mean()
    assert last["classification"] < 0.7 * first["classification"]
    assert last["in_video"] < first["in_video"]


@pytest.mark.parametrize("method", ["cola", "cross-video"])
def test_the_total_is_the_weighted_sum_of_its_parts(tiny_dataset: Dataset, method: str) -> None:
    _, losses, _ = train_generator(generation(method=method), tiny_dataset, seed=1)
    weight = 0.2 if method == "cross-video" else 0.0
    contrast = losses["in_video"] + weight * losses["cross_video"]
    assert losses["total"].to_numpy() == pytest.approx(
        (losses["classification"] + 0.01 * contrast).to_numpy(), rel=1e-5
    )
    assert losses["cross_video"].max() > 0


@pytest.mark.parametrize("killed", [3, 4, 6, 9])
def test_a_killed_training_goes_on_to_the_same_bits(
    tiny_dataset: Dataset, tmp_path: Path, killed: int
) -> None:
    settings = generation(evaluate_every=2, select="best-on-test")
    scores = (3.0, 9.0, 5.0, 7.0, 1.0)
    undisturbed = train_generator(settings, tiny_dataset, seed=1, evaluate=scores_in_turn(*scores))
    path = tmp_path / "checkpoint.pt"
    job = {"dataset": tiny_dataset, "seed": 1, "checkpoint": path, "key": "job"}
    with pytest.raises(Killed):
        train_generator(settings, **job, evaluate=scores_in_turn(*scores), progress=kill_at(killed))
    saved = killed // 4 * 4
    assert path.exists() == (saved > 0)
    calls = []
    resumed = train_generator(
        settings,
        **job,
        evaluate=scores_in_turn(*scores[saved // 2 :]),
        progress=lambda done, total, note: calls.append((done, total)),
    )
    assert calls == [(done, 10) for done in range(saved + 1, 11)]
    assert_same_weights(undisturbed[0], resumed[0])
    for expected, found in zip(undisturbed[1:], resumed[1:], strict=True):
        pd.testing.assert_frame_equal(expected, found, check_exact=True)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_of_another_job_is_ignored(tiny_dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        train_generator(
            generation(), tiny_dataset, 1, checkpoint=path, key="one", progress=kill_at(6)
        )
    calls = []
    model, _, _ = train_generator(
        generation(),
        tiny_dataset,
        seed=2,
        checkpoint=path,
        key="two",
        progress=lambda done, total, note: calls.append(done),
    )
    assert calls == list(range(1, 11))
    assert_same_weights(model, train_generator(generation(), tiny_dataset, seed=2)[0])


def test_training_and_proposals_do_not_see_when_actions_happen(tiny_dataset: Dataset) -> None:
    segments = tiny_dataset.segments
    moved = replace(tiny_dataset, segments=segments.assign(t_start=0.0, t_end=0.5))
    assert torch.equal(moved.video_labels("train"), tiny_dataset.video_labels("train"))
    settings = generation(train_classes="video labels")
    model, losses, _ = train_generator(settings, tiny_dataset, seed=1)
    blind, blind_losses, _ = train_generator(settings, moved, seed=1)
    assert_same_weights(model, blind)
    pd.testing.assert_frame_equal(losses, blind_losses, check_exact=True)
    pd.testing.assert_frame_equal(
        propose(model, tiny_dataset, "train", settings),
        propose(blind, moved, "train", settings),
        check_exact=True,
    )


def test_test_labels_play_no_part(tiny_dataset: Dataset) -> None:
    truth = tiny_dataset.segments
    is_test = truth["video"].isin(tiny_dataset.video_names("test"))
    relabelled = truth.assign(label=truth["label"].where(~is_test, tiny_dataset.classes[0]))
    model, _, _ = train_generator(generation(), tiny_dataset, seed=1)
    other, _, _ = train_generator(generation(), replace(tiny_dataset, segments=relabelled), seed=1)
    assert_same_weights(model, other)


def test_every_pass_gives_each_video_once(
    tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []
    sample = FeatureStore.sample_random

    def record(
        store: FeatureStore, videos: Sequence[str], length: int, rng: torch.Generator
    ) -> Tensor:
        batches.append(list(videos))
        assert length == 32
        return sample(store, videos, length, rng)

    monkeypatch.setattr(FeatureStore, "sample_random", record)
    train_generator(generation(iterations=6), tiny_dataset, seed=0)
    assert [len(batch) for batch in batches] == [3, 3, 2, 3, 3, 2]
    first, second = (list(chain(*batches[i : i + 3])) for i in (0, 3))
    assert sorted(first) == sorted(second) == sorted(tiny_dataset.video_names("train"))
    assert first != second


def test_best_on_test_keeps_the_best_weights_and_last_the_last(tiny_dataset: Dataset) -> None:
    best = scores_in_turn(3.0, 9.0, 5.0)
    settings = generation(iterations=6, evaluate_every=2, select="best-on-test")
    model, _, evaluations = train_generator(settings, tiny_dataset, seed=1, evaluate=best)
    for name, value in model.state_dict().items():
        assert torch.equal(value, best.seen[1][name])
    assert evaluations.to_dict("list") == {"iteration": [2, 4, 6], "avg 0.1:0.7": [3.0, 9.0, 5.0]}
    last = scores_in_turn(3.0, 9.0, 5.0)
    settings = generation(iterations=6, evaluate_every=2)
    model, _, _ = train_generator(settings, tiny_dataset, seed=1, evaluate=last)
    for name, value in model.state_dict().items():
        assert torch.equal(value, last.seen[2][name])
    assert not torch.equal(last.seen[1]["embedding.weight"], last.seen[2]["embedding.weight"])


def test_evaluating_does_not_change_the_training(tiny_dataset: Dataset) -> None:
    def evaluate(model: CrossVideoGenerator) -> dict[str, float]:
        proposals = propose(model, tiny_dataset, "test", generation())
        return {"avg 0.1:0.7": float(len(proposals))}

    watched, _, evaluations = train_generator(
        generation(evaluate_every=3), tiny_dataset, seed=1, evaluate=evaluate
    )
    assert len(evaluations) == 3
    assert_same_weights(watched, train_generator(generation(), tiny_dataset, seed=1)[0])


# --- proposals of a subset ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tiny_dataset: Dataset) -> CrossVideoGenerator:
    return train_generator(generation(iterations=30), tiny_dataset, seed=1)[0]


@pytest.mark.parametrize("subset", ["train", "test"])
def test_proposals_of_all_videos(
    trained: CrossVideoGenerator, tiny_dataset: Dataset, subset: str
) -> None:
    calls = []
    proposals = propose(
        trained, tiny_dataset, subset, generation(), lambda *call: calls.append(call)
    )
    videos = tiny_dataset.video_names(subset)
    assert proposals.columns.tolist() == ["video", "label", "score", "t_start", "t_end"]
    assert list(proposals["video"].unique()) == videos
    assert set(proposals["label"]) <= set(tiny_dataset.classes)
    assert proposals.index.equals(pd.RangeIndex(len(proposals)))
    store = tiny_dataset.generator_features
    ends = [store.num_snippets(v) * store.seconds_per_snippet(v) for v in proposals["video"]]
    assert (proposals["t_start"] >= 0).all()
    assert (proposals["t_start"] < proposals["t_end"]).all()
    assert (proposals["t_end"] <= np.array(ends) + 1e-9).all()
    assert calls == [(i, 8, video) for i, video in enumerate(videos, start=1)]


def test_training_videos_can_be_proposed_their_known_classes(
    trained: CrossVideoGenerator, tiny_dataset: Dataset
) -> None:
    settings = generation(train_classes="video labels")
    known = tiny_dataset.truth("train").groupby("video")["label"].agg(set)
    proposed = propose(trained, tiny_dataset, "train", settings).groupby("video")["label"].agg(set)
    predicted = propose(trained, tiny_dataset, "train", generation())
    assert all(proposed[video] <= known[video] for video in proposed.index)
    assert (predicted.groupby("video")["label"].agg(set) != known).any()
    pd.testing.assert_frame_equal(
        propose(trained, tiny_dataset, "test", settings),
        propose(trained, tiny_dataset, "test", generation()),
    )


def test_a_long_video_is_thinned_and_still_covered(
    trained: CrossVideoGenerator, tiny_dataset: Dataset
) -> None:
    store = tiny_dataset.generator_features
    video = max(tiny_dataset.video_names("test"), key=store.num_snippets)
    assert store.num_snippets(video) > 32
    output = run_generator(trained, tiny_dataset, video, 32)
    assert output.cas.shape == (1, 32, 3)
    expected = trained(store[video][torch.arange(32) * store.num_snippets(video) // 32][None])
    assert torch.allclose(output.cas, expected.cas, atol=1e-6)
    assert run_generator(trained, tiny_dataset, video, 10_000).cas.shape[1] == store.num_snippets(
        video
    )
