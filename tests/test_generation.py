"""Training of the generator: the same bits again, after a kill too, from video labels alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from training_helpers import (
    Killed,
    assert_same_trainings,
    assert_same_weights,
    kill_at,
    scores_in_turn,
)

from fustal_core.data import Dataset, FeatureStore
from fustal_core.ftcl_training import acm_net_task
from fustal_core.generation import (
    PARTS,
    generator_task,
    localization_of,
    propose,
    propose_video,
    run_generator,
)
from fustal_core.generator import CrossVideoGenerator
from fustal_core.generator_training import Trained, train
from fustal_core.hrpro import HRPro
from fustal_core.hrpro_inference import HRProDetector
from fustal_core.proposals import FUSTAL
from fustal_core.stage_settings import ACMNetSettings, GenerationSettings, HRProSettings
from fustal_core.suppression import suppress_softly, thin

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


def trained_generator(
    settings: GenerationSettings, dataset: Dataset, seed: int, **options: Any
) -> Trained[CrossVideoGenerator]:
    return train(generator_task(settings, dataset, seed), settings, seed, **options)


def test_same_seed_same_bits_other_seed_other_bits(tiny_dataset: Dataset) -> None:
    one, again, other = (trained_generator(generation(), tiny_dataset, seed) for seed in (1, 1, 2))
    assert_same_weights(one.model, again.model)
    pd.testing.assert_frame_equal(one.losses, again.losses, check_exact=True)
    assert not torch.equal(one.model.embedding.weight, other.model.embedding.weight)
    assert not one.model.training
    assert one.losses.columns.tolist() == ["iteration", *PARTS]
    assert one.losses["iteration"].tolist() == list(range(1, 11))
    assert one.evaluations.empty
    assert one.looks == {}


def test_a_training_that_diverged_says_so(tiny_dataset: Dataset) -> None:
    """One fails in its losses, the other goes on to the end with NaN."""
    few = {"hidden_channels": 8, "length": 32, "batch_size": BATCH, "iterations": 5}
    settings = GenerationSettings(learning_rate=1e18, **few)
    other = ACMNetSettings(learning_rate=1e18, **few)
    tasks = [
        (generator_task(settings, tiny_dataset, 0), settings),
        (acm_net_task(other, tiny_dataset, 0, "cpu"), other),
    ]
    for task, own in tasks:
        with pytest.raises(FloatingPointError, match=r"diverged: .* after \d steps; is the learn"):
            train(task, own, 0)


def test_seeds_of_weights_and_of_the_training_are_apart(tiny_dataset: Dataset) -> None:
    settings = generation(iterations=3)
    usual, weights, training = (
        train(generator_task(settings, tiny_dataset, first), settings, second).model
        for first, second in [(1, 1), (2, 1), (1, 2)]
    )
    initial = generator_task(settings, tiny_dataset, 1).model.embedding.weight
    moved = [(model.embedding.weight - initial).abs().max() for model in (usual, training, weights)]
    assert 0 < moved[0] < 0.01  # three steps of 0.001
    assert 0 < moved[1] < 0.01
    assert moved[2] > 0.05
    assert not torch.equal(usual.embedding.weight, training.embedding.weight)


def test_training_leaves_the_global_generator_alone(tiny_dataset: Dataset) -> None:
    before = torch.get_rng_state()
    trained_generator(generation(iterations=2), tiny_dataset, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_lowers_the_loss(tiny_dataset: Dataset) -> None:
    settings = generation(iterations=80, learning_rate=5e-3)
    losses = trained_generator(settings, tiny_dataset, seed=0).losses
    first, last = losses.head(10).mean(), losses.tail(10).mean()
    assert last["classification"] < 0.7 * first["classification"]
    assert last["in_video"] < first["in_video"]


@pytest.mark.parametrize("method", ["cola", "cross-video"])
def test_the_total_is_the_weighted_sum_of_its_parts(tiny_dataset: Dataset, method: str) -> None:
    losses = trained_generator(generation(method=method), tiny_dataset, seed=1).losses
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
    undisturbed = trained_generator(settings, tiny_dataset, 1, evaluate=scores_in_turn(*scores))
    path = tmp_path / "checkpoint.pt"
    job = {"dataset": tiny_dataset, "seed": 1, "checkpoint": path, "key": "job"}
    with pytest.raises(Killed):
        trained_generator(
            settings, **job, evaluate=scores_in_turn(*scores), progress=kill_at(killed)
        )
    saved = killed // 4 * 4
    assert path.exists() == (saved > 0)
    calls = []
    resumed = trained_generator(
        settings,
        **job,
        evaluate=scores_in_turn(*scores[saved // 2 :]),
        progress=lambda done, total, note: calls.append((done, total)),
    )
    assert calls == [(done, 10) for done in range(saved + 1, 11)]
    assert_same_trainings(undisturbed, resumed)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_of_another_job_is_ignored(tiny_dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        trained_generator(
            generation(), tiny_dataset, 1, checkpoint=path, key="one", progress=kill_at(6)
        )
    calls = []
    found = trained_generator(
        generation(),
        tiny_dataset,
        seed=2,
        checkpoint=path,
        key="two",
        progress=lambda done, total, note: calls.append(done),
    )
    assert calls == list(range(1, 11))
    assert_same_weights(found.model, trained_generator(generation(), tiny_dataset, seed=2).model)


def test_training_and_proposals_do_not_see_when_actions_happen(tiny_dataset: Dataset) -> None:
    segments = tiny_dataset.segments
    moved = replace(tiny_dataset, segments=segments.assign(t_start=0.0, t_end=0.5))
    assert torch.equal(moved.video_labels("train"), tiny_dataset.video_labels("train"))
    settings = generation(train_classes="video labels")
    seeing, blind = (trained_generator(settings, data, seed=1) for data in (tiny_dataset, moved))
    assert_same_weights(seeing.model, blind.model)
    pd.testing.assert_frame_equal(seeing.losses, blind.losses, check_exact=True)
    pd.testing.assert_frame_equal(
        propose(seeing.model, tiny_dataset, "train", settings),
        propose(blind.model, moved, "train", settings),
        check_exact=True,
    )


def test_test_labels_play_no_part(tiny_dataset: Dataset) -> None:
    truth = tiny_dataset.segments
    is_test = truth["video"].isin(tiny_dataset.video_names("test"))
    relabelled = truth.assign(label=truth["label"].where(~is_test, tiny_dataset.classes[0]))
    model, other = (
        trained_generator(generation(), data, seed=1).model
        for data in (tiny_dataset, replace(tiny_dataset, segments=relabelled))
    )
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
    trained_generator(generation(iterations=6), tiny_dataset, seed=0)
    assert [len(batch) for batch in batches] == [3, 3, 2, 3, 3, 2]
    first, second = (list(chain(*batches[i : i + 3])) for i in (0, 3))
    assert sorted(first) == sorted(second) == sorted(tiny_dataset.video_names("train"))
    assert first != second


def test_best_on_test_keeps_the_best_weights_and_last_the_last(tiny_dataset: Dataset) -> None:
    best = scores_in_turn(3.0, 9.0, 5.0)
    settings = generation(iterations=6, evaluate_every=2, select="best-on-test")
    found = trained_generator(settings, tiny_dataset, seed=1, evaluate=best)
    for name, value in found.model.state_dict().items():
        assert torch.equal(value, best.seen[1][name])
    assert found.evaluations.to_dict("list") == {
        "iteration": [2, 4, 6],
        "avg 0.1:0.7": [3.0, 9.0, 5.0],
    }
    last = scores_in_turn(3.0, 9.0, 5.0)
    settings = generation(iterations=6, evaluate_every=2)
    model = trained_generator(settings, tiny_dataset, seed=1, evaluate=last).model
    for name, value in model.state_dict().items():
        assert torch.equal(value, last.seen[2][name])
    assert not torch.equal(last.seen[1]["embedding.weight"], last.seen[2]["embedding.weight"])


def test_evaluating_does_not_change_the_training(tiny_dataset: Dataset) -> None:
    def evaluate(model: CrossVideoGenerator) -> dict[str, float]:
        proposals = propose(model, tiny_dataset, "test", generation())
        return {"avg 0.1:0.7": float(len(proposals))}

    watched = trained_generator(
        generation(evaluate_every=3), tiny_dataset, seed=1, evaluate=evaluate
    )
    assert len(watched.evaluations) == 3
    assert_same_weights(watched.model, trained_generator(generation(), tiny_dataset, seed=1).model)


# --- proposals of a subset ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tiny_dataset: Dataset) -> CrossVideoGenerator:
    return trained_generator(generation(iterations=30), tiny_dataset, seed=1).model


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
    output = run_generator(trained, store, video, 32)
    assert output.cas.shape == (1, 32, 3)
    expected = trained(store[video][torch.arange(32) * store.num_snippets(video) // 32][None])
    assert torch.allclose(output.cas, expected.cas, atol=1e-6)
    assert run_generator(trained, store, video, 10_000).cas.shape[1] == store.num_snippets(video)


# --- what proposals are for -----------------------------------------------------------------------

HR_PRO = HRProSettings(class_threshold=0.4, train_classes="video labels")


@pytest.fixture(scope="module", params=["hr-pro-snippet", "hr-pro"])
def whole_videos(request: pytest.FixtureRequest, tiny_dataset: Dataset) -> HRPro | HRProDetector:
    """A network of either stage that has learnt nothing yet."""
    torch.manual_seed(0)
    snippet = HRPro(tiny_dataset.generator_features.dim, 3, HR_PRO)
    return snippet if request.param == "hr-pro-snippet" else HRProDetector(snippet)


def test_hr_pro_is_measured_after_its_own_nms_and_labels_after_a_hard_one(
    whole_videos: HRPro | HRProDetector, tiny_dataset: Dataset
) -> None:
    find = partial(propose, whole_videos, tiny_dataset, "test", HR_PRO)
    everything, labels = find(purpose="all"), find(purpose="labels")
    assert list(everything["video"].unique()) == tiny_dataset.video_names("test")
    assert len(labels) < len(everything)
    pd.testing.assert_frame_equal(labels, thin(everything, 0.5, legacy_plus_one=True))
    expected = suppress_softly(everything, 0.3, legacy_plus_one=True)
    assert len(expected) == len(everything)
    pd.testing.assert_frame_equal(find(purpose="detections"), expected)
    pd.testing.assert_frame_equal(find(), expected)
    plain = HR_PRO.model_copy(update={"legacy_plus_one": False, "nms_tiou": 0.2, "nms_sigma": 0.9})
    find = partial(propose, whole_videos, tiny_dataset, "test", plain)
    pd.testing.assert_frame_equal(find(purpose="labels"), thin(everything, 0.2))
    pd.testing.assert_frame_equal(find(), suppress_softly(everything, 0.9))


def test_for_other_generators_all_purposes_are_one(
    trained: CrossVideoGenerator, tiny_dataset: Dataset
) -> None:
    expected = propose(trained, tiny_dataset, "test", generation())
    for purpose in ("detections", "labels", "all"):
        found = propose(trained, tiny_dataset, "test", generation(), purpose=purpose)
        pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_a_video_alone_is_what_it_is_among_others(
    whole_videos: HRPro | HRProDetector, tiny_dataset: Dataset
) -> None:
    """To the bit, although soft-NMS takes all videos at once."""
    together = propose(whole_videos, tiny_dataset, "test", HR_PRO)
    for video, own in together.groupby("video", sort=False):
        store, classes = tiny_dataset.generator_features, tiny_dataset.classes
        alone = propose_video(whole_videos, store, video, classes, HR_PRO)
        pd.testing.assert_frame_equal(alone, own.reset_index(drop=True), check_exact=True)


def test_training_videos_are_proposed_their_known_classes_by_hr_pro(
    whole_videos: HRPro | HRProDetector, tiny_dataset: Dataset
) -> None:
    known = tiny_dataset.truth("train").groupby("video")["label"].agg(set)
    found = propose(whole_videos, tiny_dataset, "train", HR_PRO, purpose="all")
    assert found.groupby("video")["label"].agg(set).equals(known)
    predicted = HR_PRO.model_copy(update={"train_classes": "predicted", "class_threshold": 1.0})
    found = propose(whole_videos, tiny_dataset, "train", predicted, purpose="all")
    assert (found.groupby("video")["label"].agg(lambda own: len(set(own))) == 1).all()


def test_how_each_method_localises() -> None:
    assert localization_of(generation()) is FUSTAL
    acm_net, hr_pro = localization_of(ACMNetSettings()), localization_of(HR_PRO)
    assert (acm_net.upsampling, acm_net.shortest, acm_net.at_class_threshold) == (20, 2, False)
    assert (hr_pro.upsampling, hr_pro.shortest, hr_pro.at_class_threshold) == (2, 1, True)
