"""Training of both stages of HR-Pro: the same bits again, after a kill too, from points alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from training_helpers import (
    Killed,
    assert_same_trainings,
    assert_same_weights,
    kill_at,
    scores_in_turn,
)

from fustal_core.data import Dataset
from fustal_core.features import FeatureStore
from fustal_core.generation import propose
from fustal_core.generator_training import Trained, train
from fustal_core.hrpro import HRPro
from fustal_core.hrpro_inference import HRProDetector, localization_of_points, point_proposals
from fustal_core.hrpro_training import (
    INSTANCE_PARTS,
    LOOKS,
    SNIPPET_PARTS,
    channel_statistics,
    example_video,
    instance_examples,
    instance_task,
    snippet_task,
)
from fustal_core.point_supervision import PointSupervision, supervision_of
from fustal_core.points import points_frame
from fustal_core.proposals import generate_proposals
from fustal_core.stage_settings import HRProInstanceSettings, HRProSettings

NO_PROPOSALS = pd.DataFrame(columns=["video", "label", "score", "t_start", "t_end"])


def snippet_settings(**changes: Any) -> HRProSettings:
    values = {
        "iterations": 10,
        "batch_size": 3,
        "learning_rate": 1e-3,
        "train_classes": "video labels",
        "checkpoint_every": 4,
    }
    return HRProSettings(**(values | changes))


def instance_settings(**changes: Any) -> HRProInstanceSettings:
    values = {"epochs": 3, "batch_size": 3, "learning_rate": 1e-3, "checkpoint_every": 4}
    return HRProInstanceSettings(**(values | changes))


@pytest.fixture(scope="module")
def points(tiny_dataset: Dataset) -> PointSupervision:
    """Points in 8 training videos, 3 classes, 16 channels."""
    return supervision_of(tiny_dataset, "uniform", 0)


Training = Callable[..., Trained]


def train_snippets(
    points: PointSupervision, seed: int, chosen: HRProSettings | None = None, **options: Any
) -> Trained[HRPro]:
    chosen = chosen or snippet_settings()
    return train(snippet_task(chosen, points, seed), chosen, seed, **options)


@pytest.fixture(scope="module")
def snippets(points: PointSupervision) -> HRPro:
    return train_snippets(points, 1, snippet_settings(iterations=30)).model


@pytest.fixture(scope="module")
def candidates(snippets: HRPro, tiny_dataset: Dataset) -> pd.DataFrame:
    """What the second stage learns from."""
    return propose(snippets, tiny_dataset, "train", snippet_settings(), purpose="all")


@pytest.fixture(scope="module")
def train_instances(
    snippets: HRPro, candidates: pd.DataFrame
) -> Callable[..., Trained[HRProDetector]]:
    def trained(
        points: PointSupervision,
        seed: int,
        chosen: HRProInstanceSettings | None = None,
        **options: Any,
    ) -> Trained[HRProDetector]:
        chosen = chosen or instance_settings()
        task = instance_task(chosen, snippet_settings(), snippets, candidates, points, seed)
        return train(task, chosen, seed, **options)

    return trained


@pytest.fixture(params=["snippets", "instances"])
def stage(request: pytest.FixtureRequest) -> tuple[Training, Callable[..., Any]]:
    """The training of a stage, of 10 or 9 steps, and its settings."""
    if request.param == "snippets":
        return train_snippets, snippet_settings
    return request.getfixturevalue("train_instances"), instance_settings


# --- the same bits --------------------------------------------------------------------------------


def test_same_seed_same_bits_other_seed_other_bits(
    points: PointSupervision, stage: tuple[Training, Callable]
) -> None:
    run, _ = stage
    one, again, other = (run(points, seed) for seed in (1, 1, 2))
    assert_same_trainings(one, again)
    assert not one.model.training
    same = [
        torch.equal(value, other.model.get_parameter(name))
        for name, value in one.model.named_parameters()
        if value.requires_grad and value.dim() > 1
    ]
    assert same
    assert not any(same)


def test_training_leaves_the_global_generator_alone(
    points: PointSupervision, stage: tuple[Training, Callable]
) -> None:
    run, _ = stage
    before = torch.get_rng_state()
    run(points, 1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("killed", [2, 4, 6, 9])
def test_a_killed_training_goes_on_to_the_same_bits(
    points: PointSupervision, stage: tuple[Training, Callable], tmp_path: Path, killed: int
) -> None:
    """Weights, memory, losses, looks and evaluations; the best weights may be from before the kill."""
    run, chosen = stage
    chosen = chosen(evaluate_every=2 if run is train_snippets else 1, select="best-on-test")
    every = 2 if run is train_snippets else 3
    scores = (3.0, 9.0, 5.0, 7.0, 1.0)
    undisturbed = run(points, 1, chosen, evaluate=scores_in_turn(*scores))
    job = {"checkpoint": tmp_path / "checkpoint.pt", "key": "job"}
    with pytest.raises(Killed):
        run(points, 1, chosen, **job, evaluate=scores_in_turn(*scores), progress=kill_at(killed))
    saved = killed // 4 * 4
    assert job["checkpoint"].exists() == (saved > 0)
    calls = []
    resumed = run(
        points,
        1,
        chosen,
        **job,
        evaluate=scores_in_turn(*scores[saved // every :]),
        progress=lambda done, total, note: calls.append(done),
    )
    assert calls == list(range(saved + 1, len(undisturbed.losses) + 1))
    assert_same_trainings(undisturbed, resumed)


def test_evaluating_does_not_change_the_training(
    points: PointSupervision, stage: tuple[Training, Callable], tiny_dataset: Dataset
) -> None:
    run, chosen = stage

    def evaluate(model: HRPro | HRProDetector) -> dict[str, float]:
        found = propose(model, tiny_dataset, "test", snippet_settings())
        return {"avg 0.1:0.7": float(len(found))}

    watched = run(points, 1, chosen(evaluate_every=1), evaluate=evaluate)
    assert len(watched.evaluations) >= 3
    assert_same_weights(watched.model, run(points, 1).model)


def test_losses_and_looks(
    points: PointSupervision, stage: tuple[Training, Callable], tiny_dataset: Dataset
) -> None:
    run, _ = stage
    found = run(points, 1)
    parts = SNIPPET_PARTS if run is train_snippets else INSTANCE_PARTS
    assert found.losses.columns.tolist() == ["iteration", *parts]
    assert found.losses["iteration"].tolist() == list(range(1, len(found.losses) + 1))
    assert np.isfinite(found.losses.to_numpy()).all()
    assert (found.losses["total"] > 0).all()
    if run is not train_snippets:
        assert found.looks == {}
        return
    assert found.looks["iterations"].tolist() == [0, 2, 4, 6, 8, 10]
    assert len(found.looks["iterations"]) == LOOKS + 1
    assert torch.equal(found.looks["prototypes"][-1], found.model.prototypes)
    video = example_video(points)
    output = found.model(points.features[video][None])
    assert torch.equal(found.looks["background"][-1], output.background[0])
    assert torch.equal(found.looks["cas"][-1], output.cas[0])
    classes = found.looks["classes"]
    assert (classes == classes[0]).all()  # the same snippets at each look
    assert set(classes[0].tolist()) == {-1, 0, 1, 2}
    assert found.looks["embeddings"].shape[1] == classes.shape[1]


def test_training_lowers_the_losses(points: PointSupervision, train_instances: Training) -> None:
    chosen = snippet_settings(iterations=80, learning_rate=3e-3)
    first = train_snippets(points, 0, chosen).losses
    for part in ("frame", "background", "contrast"):
        assert first[part].tail(10).mean() < 0.9 * first[part].head(5).mean(), part
    second = train_instances(points, 0, instance_settings(epochs=20)).losses
    assert second["total"].tail(9).mean() < 0.8 * second["total"].head(9).mean()


# --- supervision ----------------------------------------------------------------------------------


def test_training_sees_points_and_no_segments(
    tiny_dataset: Dataset, points: PointSupervision, train_instances: Training
) -> None:
    """Once the points are there, the truth may be anything, of training and of test videos."""
    assert {part.name for part in fields(points)} == {"videos", "classes", "features", "points"}
    drawn = replace(tiny_dataset, points=points.points)
    false = drawn.segments.assign(t_start=0.0, t_end=0.5, label=tiny_dataset.classes[0])
    blind = supervision_of(replace(drawn, segments=false), "given", 0)
    for run in (train_snippets, train_instances):
        assert_same_trainings(run(points, 1), run(blind, 1))


def test_proposals_for_training_do_not_see_when_actions_happen(
    snippets: HRPro, tiny_dataset: Dataset, candidates: pd.DataFrame
) -> None:
    moved = replace(tiny_dataset, segments=tiny_dataset.segments.assign(t_start=0.0, t_end=0.5))
    found = propose(snippets, moved, "train", snippet_settings(), purpose="all")
    pd.testing.assert_frame_equal(found, candidates, check_exact=True)


# --- one step -------------------------------------------------------------------------------------


def test_the_gradient_of_a_batch_is_the_sum_of_its_videos(
    points: PointSupervision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not their mean; the losses that are written down are the mean."""
    chosen = snippet_settings(iterations=1, batch_size=3)
    task = snippet_task(chosen, points, 1)
    kept = []

    def record(_: torch.optim.Adam) -> None:
        kept.append({name: value.grad.clone() for name, value in task.model.named_parameters()})

    monkeypatch.setattr(torch.optim.Adam, "step", record)
    found = train(task, chosen, 1)
    again = snippet_task(chosen, points, 1)
    rng = torch.Generator().manual_seed(1)
    batch = again.epoch(rng)[:3]
    again.model.train()
    singles, losses = [], []
    for item in batch:
        again.model.zero_grad()
        own = again.losses([item], rng, rng)
        own[0].backward()
        losses.append(own.detach())
        singles.append({name: value.grad for name, value in again.model.named_parameters()})
    for name, value in kept[0].items():
        expected = sum(own[name] for own in singles)
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)
        assert value.any()
    mean = torch.stack(losses).mean(0).numpy()
    assert found.losses[list(SNIPPET_PARTS)].to_numpy()[0] == pytest.approx(mean, rel=1e-6)


def test_every_video_of_a_batch_moves_the_memory(points: PointSupervision) -> None:
    """By the momentum, towards the mean embedding of its seeds; after its loss, not before."""
    chosen = snippet_settings(memory_momentum=0.25, attention_dropout=0.0)
    task = snippet_task(chosen, points, 1)
    before = task.model.prototypes.clone()
    labels = points.labels()
    task.model.train()
    for done, item in enumerate((0, 1)):
        rng = torch.Generator().manual_seed(done)
        task.losses([item], rng, rng)
        after = task.model.prototypes
        moved = (after != before).any(1)
        assert torch.equal(moved, labels[item] > 0)
        assert not after.requires_grad
        before = after.clone()


def test_the_memory_begins_at_the_mean_labelled_snippet(points: PointSupervision) -> None:
    task = snippet_task(snippet_settings(), points, 1)
    found = task.model.prototypes.clone()
    task.model.prototypes = torch.zeros_like(found)
    embeddings: list[list[Tensor]] = [[], [], []]
    with torch.no_grad():
        for video in points.videos:
            output = task.model.eval()(points.features[video][None])
            for row, label in zip(*points.rows_of(video), strict=True):
                embeddings[label].append(output.embeddings[0, row])
    expected = torch.stack([torch.stack(own).mean(0) for own in embeddings])
    torch.testing.assert_close(found, expected)
    assert (found > 0).any(1).all()


def test_a_snippet_counts_once_however_many_points_lie_on_it(points: PointSupervision) -> None:
    first = points.points.iloc[:1]
    twice = replace(points, points=pd.concat([points.points, first.assign(t=first["t"] + 1e-6)]))
    video = first["video"].item()
    assert len(twice.rows_of(video)[0]) == len(points.rows_of(video)[0]) + 1
    tasks = [snippet_task(snippet_settings(), one, 1) for one in (points, twice)]
    assert torch.equal(*(task.model.prototypes for task in tasks))


def test_features_are_standardised_with_the_training_videos(points: PointSupervision) -> None:
    store = points.features
    rows = torch.cat([store[video] for video in points.videos])
    mean, deviation = channel_statistics(points)
    torch.testing.assert_close(mean, rows.mean(0))
    torch.testing.assert_close(deviation, rows.std(0, correction=0))
    model = snippet_task(snippet_settings(projected_channels=8), points, 1).model
    assert model.prototypes.shape == (3, 8)
    projected = (rows - rows.mean(0)) / rows.std(0, correction=0) @ model.projection.weight
    torch.testing.assert_close(
        model.model_features(rows[None])[0], projected.relu(), rtol=1e-4, atol=1e-4
    )


def test_the_example_is_the_fullest_of_the_shorter_videos_of_one_class(
    points: PointSupervision,
) -> None:
    store = points.features
    lengths = {video: store.num_snippets(video) for video in points.videos}
    counts = {video: len(points.rows_of(video)[0]) for video in points.videos}
    plain = [
        video
        for video, classes in zip(points.videos, points.labels().sum(1), strict=True)
        if classes == 1 and lengths[video] <= np.median(list(lengths.values()))
    ]
    found = example_video(points)
    assert found in plain
    assert counts[found] == max(counts[video] for video in plain)


# --- what the second stage learns from ------------------------------------------------------------


def test_examples_by_hand(points: PointSupervision, snippets: HRPro) -> None:
    """In snippets, ``t / step``; half as many negatives as proposals, in background seeds."""
    video = points.videos[0]
    step_s = points.features.seconds_per_snippet(video)
    label = points.points.query("video == @video")["label"].iloc[0]
    t = points.points.query("video == @video and label == @label")["t"].iloc[0]
    rows = [(video, label, 0.5, t - 0.3, t + 0.2)] * 2 + [(video, label, 0.1, 0.0, 1.0)] * 3
    proposals = pd.DataFrame(rows, columns=NO_PROPOSALS.columns)
    first, *others = instance_examples(snippets, snippet_settings(), proposals, points, 0)
    assert len(first.proposals) == 5 + 2
    expected = torch.tensor([[t - 0.3, t + 0.2]] * 2 + [[0.0, 1.0]] * 3) / step_s
    torch.testing.assert_close(first.proposals[:5], expected.float())
    assert (first.reliable == first.proposals[0]).all(1).any()
    negatives = first.proposals[5:]
    assert (negatives == negatives.round()).all()
    assert (negatives[:, 0] < negatives[:, 1]).all()
    labelled = torch.as_tensor(points.rows_of(video)[0])
    inside = (negatives[:, :1] <= labelled) & (labelled < negatives[:, 1:])
    assert not inside.any()
    assert all(len(own.proposals) == len(own.reliable) == 0 for own in others)
    again = instance_examples(snippets, snippet_settings(), proposals, points, 0)
    assert torch.equal(again[0].proposals, first.proposals)
    other = instance_examples(snippets, snippet_settings(), proposals, points, 1)
    assert torch.equal(other[0].proposals[:5], first.proposals[:5])


def test_no_more_proposals_of_a_video_than_allowed(
    points: PointSupervision,
    snippets: HRPro,
    candidates: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = instance_settings(max_proposals=7)
    task = instance_task(chosen, snippet_settings(), snippets, candidates, points, 1)
    seen = []
    forward = task.model.instance.forward

    def record(pooled: Tensor, segments: Tensor) -> Any:
        seen.append(segments)
        return forward(pooled, segments)

    monkeypatch.setattr(task.model.instance, "forward", record)
    rngs = [torch.Generator().manual_seed(i) for i in range(2)]
    for rng in rngs:
        task.losses([0, 1], rng, rng)
    assert [len(segments) for segments in seen] == [14, 14]
    assert not torch.equal(*seen)  # another choice at every step
    every = instance_examples(snippets, snippet_settings(), candidates, points, 1)
    for video in (0, 1):
        own = seen[0][7 * video : 7 * video + 7]
        assert (own[:, None] == every[video].proposals).all(2).any(1).all()


def test_stage_two_leaves_stage_one_as_it_is(
    points: PointSupervision, snippets: HRPro, train_instances: Training
) -> None:
    model = train_instances(points, 1).model
    assert_same_weights(model.snippet, snippets)
    features = points.features[points.videos[0]][None]
    assert torch.equal(model(features).cas, snippets(features).cas)


# --- odd data -------------------------------------------------------------------------------------


def odd_points(lengths: list[int], rows: list[tuple[str, str, float]]) -> PointSupervision:
    """Videos v0, v1, .. of snippets of 1 s, 8 channels; classes a, b, c."""
    rng = torch.Generator().manual_seed(0)
    offsets, total = {}, 0
    for i, length in enumerate(lengths):
        offsets[f"v{i}"], total = (total, length), total + length
    features = torch.rand(total, 8, generator=rng)
    store = FeatureStore(features, offsets, 10, 10, dict.fromkeys(offsets, 10.0))
    return PointSupervision(tuple(offsets), ("a", "b", "c"), store, points_frame(rows))


def proposals_of(model: HRPro, points: PointSupervision, chosen: HRProSettings) -> pd.DataFrame:
    frames = []
    for video in points.videos:
        step_s = points.features.seconds_per_snippet(video)
        found = point_proposals(model, points.features[video], step_s, chosen)
        found["label"] = np.array(points.classes, dtype=object)[found["label"]]
        frames.append(found.assign(video=video))
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize(
    ("lengths", "rows"),
    [
        pytest.param([20, 9], [("v0", "a", 3.0), ("v1", "b", 4.0)], id="class without points"),
        pytest.param([20, 9, 12], [("v0", "a", 3.0), ("v0", "c", 9.0)], id="video without points"),
        pytest.param(
            [4, 20],
            [*[("v0", "a", t + 0.5) for t in range(4)], ("v1", "b", 4.0)],
            id="video without background",
        ),
        pytest.param([1, 20], [("v0", "a", 0.5), ("v1", "b", 2.0)], id="one snippet"),
        pytest.param([1], [("v0", "a", 0.5)], id="one snippet alone"),
        pytest.param([3, 20], [("v0", "a", 1.5), ("v1", "b", 2.0)], id="three snippets"),
        pytest.param([1, 2, 3], [("v1", "a", 9.0)], id="short, and a point beyond the end"),
        pytest.param(
            [20], [("v0", "a", 3.0), ("v0", "b", 3.0), ("v0", "c", 3.2)], id="points at one moment"
        ),
    ],
)
@pytest.mark.parametrize("projected", [0, 4])
def test_odd_videos_are_trained_on(lengths: list[int], rows: list, projected: int) -> None:
    points = odd_points(lengths, rows)
    chosen = snippet_settings(iterations=4, projected_channels=projected)
    first = train_snippets(points, 0, chosen)
    later = instance_settings(epochs=2)
    proposals = proposals_of(first.model, points, chosen)
    task = instance_task(later, chosen, first.model, proposals, points, 0)
    second = train(task, later, 0)
    for found in (first, second):
        assert np.isfinite(found.losses.to_numpy()).all()
        assert all(torch.isfinite(value).all() for value in found.model.state_dict().values())
    shown = points.labels().any(0)
    first_look = first.looks["prototypes"][0]
    assert (first_look[~shown] == 0).all()
    assert (first.model.prototypes[~shown] == 0).all()
    detections = proposals_of(second.model, points, chosen)
    assert set(detections["video"]) == set(points.videos)
    assert np.isfinite(detections[["score", "t_start", "t_end"]].to_numpy()).all()


def test_without_any_reliable_proposal_nothing_is_learnt(
    points: PointSupervision, snippets: HRPro, candidates: pd.DataFrame
) -> None:
    """Proposals beside all points: both losses are 0, and so is every gradient."""
    ends = points.points.groupby("video")["t"].max()
    beside = candidates.assign(t_start=1e4, t_end=1e4 + candidates.index)
    assert (ends < 1e4).all()
    task = instance_task(instance_settings(), snippet_settings(), snippets, beside, points, 1)
    examples = instance_examples(snippets, snippet_settings(), beside, points, 1)
    assert all(len(own.reliable) == 0 for own in examples)
    rng = torch.Generator().manual_seed(0)
    losses = task.losses(list(range(len(points.videos))), rng, rng)
    assert losses.tolist() == [0, 0, 0]
    losses[0].backward()
    assert all((p.grad == 0).all() for p in task.model.instance.parameters())


def test_without_any_proposal_nothing_is_learnt(points: PointSupervision, snippets: HRPro) -> None:
    task = instance_task(
        instance_settings(epochs=1), snippet_settings(), snippets, NO_PROPOSALS, points, 1
    )
    losses = train(task, instance_settings(epochs=1), 1).losses
    assert (losses[list(INSTANCE_PARTS)] == 0).all(axis=None)


# --- proposals ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector(points: PointSupervision, train_instances: Training) -> HRProDetector:
    return train_instances(points, 1).model


def test_proposals_are_the_original_and_the_refined_ones(
    points: PointSupervision, snippets: HRPro, detector: HRProDetector
) -> None:
    """With the completeness of each added to the score that the first stage gave the original."""
    chosen = snippet_settings()
    for video in points.videos[:4]:
        features, step_s = points.features[video], points.features.seconds_per_snippet(video)
        before = point_proposals(snippets, features, step_s, chosen)
        after = point_proposals(detector, features, step_s, chosen)
        count = len(before)
        original, refined = after.iloc[:count], after.iloc[count:]
        columns = ["label", "t_start", "t_end"]
        pd.testing.assert_frame_equal(original[columns], before[columns], check_exact=True)
        segments = torch.as_tensor(before[["t_start", "t_end"]].to_numpy() / step_s).float()
        with torch.inference_mode():
            completeness, moved = detector.rate(features, segments)
            moved = moved.clamp(0, len(features))
            of_moved, _ = detector.rate(features, moved)
        assert ((completeness > 0) & (completeness < 1)).all()
        np.testing.assert_allclose(
            original["score"], before["score"] + completeness.double().numpy(), rtol=1e-12
        )
        stays = (moved[:, 1] > moved[:, 0]).numpy()
        assert len(refined) == stays.sum()
        np.testing.assert_allclose(
            refined[["t_start", "t_end"]], moved[stays].double().numpy() * step_s, rtol=1e-12
        )
        np.testing.assert_allclose(
            refined["score"],
            before["score"][stays] + of_moved.double().numpy()[stays],
            rtol=1e-12,
        )
        assert refined["label"].tolist() == before["label"][stays].tolist()
        assert after.index.equals(pd.RangeIndex(len(after)))


@settings(max_examples=25)
@given(st.integers(1, 30), st.integers(0, 10_000), st.floats(0.1, 3), st.floats(0.01, 40))
def test_segments_lie_in_the_video_the_right_way_round(
    length: int, seed: int, step_s: float, scale: float
) -> None:
    """Whatever the offsets say, however large."""
    torch.manual_seed(seed)
    chosen = HRProSettings()
    model = HRProDetector(HRPro(8, 2, chosen)).eval()
    for head in (model.instance.start_offset, model.instance.end_offset):
        head[-1].weight.data *= scale
        head[-1].bias.data.normal_(0, scale)
    found = point_proposals(model, torch.randn(length, 8), step_s, chosen)
    assert len(found) > 0
    assert (found["t_start"] >= 0).all()
    assert (found["t_end"] <= length * step_s * (1 + 1e-6)).all()
    assert (found["t_start"] < found["t_end"]).all()
    assert np.isfinite(found["score"]).all()


def test_curves_are_cut_as_hr_pro_does(snippets: HRPro, points: PointSupervision) -> None:
    how = localization_of_points(HRProSettings())
    assert how.cas_thresholds == pytest.approx([0.025 * i for i in range(10)])
    assert how.actionness_thresholds == pytest.approx([0.5 + 0.025 * i for i in range(9)])
    assert (how.upsampling, how.margin, how.shortest) == (2, 0.25, 1)
    assert (how.class_score_weight, how.min_max) == (0, False)
    features = points.features[points.videos[0]]
    with torch.inference_mode():
        output = snippets(features[None])
    expected = generate_proposals(
        output.class_scores[0] * (1 - output.background[0])[:, None],
        1 - output.background[0],
        output.class_scores[0].topk(max(1, len(features) // 8), dim=0)[0].mean(0),
        len(features),
        0.64,
        how=how,
        nms=False,
        class_threshold=0.5,
    )
    found = point_proposals(snippets, features, 0.64, HRProSettings())
    pd.testing.assert_frame_equal(found, expected)


def test_chosen_classes_are_proposed(snippets: HRPro, points: PointSupervision) -> None:
    find = partial(point_proposals, snippets, points.features[points.videos[0]], 0.64)
    for shown in ([0], [1, 2], [0, 1, 2]):
        found = find(snippet_settings(), np.array(shown))
        assert set(found["label"]) == set(shown)
    # None passes: the arg-max alone.
    assert len(set(find(snippet_settings(class_threshold=1.0))["label"])) == 1
