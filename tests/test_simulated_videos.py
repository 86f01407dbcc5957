"""Simulations of given annotations, frame rates of a video's own, and point labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from simulate_helpers import NO_DIFFICULTIES, annotations_of

from fustal_core.annotations import Annotations, DataError, segments_frame
from fustal_core.simulated_features import LATENT_DIM, draw_world
from fustal_core.simulated_videos import SimulatedVideo, draw_points
from fustal_core.simulated_windows import num_windows, path_steps, path_windows, path_windows_at
from fustal_core.simulator import (
    SimulatorSettings,
    plan_simulation,
    simulate,
    simulated_features,
)

SETTINGS = SimulatorSettings(feature_dim=8)
PLAIN = SimulatorSettings(feature_dim=8, **NO_DIFFICULTIES)


@pytest.fixture
def kitchen() -> Annotations:
    """Two classes that THUMOS'14 has not; subsets in turn, all kinds of frame rates."""
    return annotations_of(
        [
            ("b_test", "validation", 21.0, 30.0, [("stir", 2.0, 5.0)]),
            ("z_train", "training", 30.0, 15.0, [("pour", 4.0, 6.0), ("stir", 10.0, 12.5)]),
            ("silent", "validation", 12.0, 25.0, []),
            ("a_train", "training", 16.0, math.nan, [("stir", 1.0, 3.0), ("stir", 14.0, 19.0)]),
            ("unlabelled", "training", 16.0, 30.0, []),
            ("other", "extra", 16.0, 30.0, [("fry", 1.0, 3.0)]),
        ]
    )


# Given annotations


def test_videos_segments_and_roles_are_the_given_ones(kitchen: Annotations) -> None:
    data = simulate(SETTINGS, 0, annotations=kitchen)
    assert data.classes == ("pour", "stir")
    assert data.videos.index.tolist() == ["b_test", "z_train", "silent", "a_train"]
    assert data.video_names("train") == ["z_train", "a_train"]
    assert data.videos["duration_s"].tolist() == [21.0, 30.0, 12.0, 16.0]
    kept = kitchen.segments[kitchen.segments["video"] != "other"].reset_index(drop=True)
    order = kept["video"].map(data.videos.index.get_loc)
    assert data.segments.equals(kept.iloc[order.argsort(kind="stable")].reset_index(drop=True))
    assert data.video_labels("test").tolist() == [[0, 1], [0, 0]]
    assert data.origin == "simulated"


def test_features_run_at_the_stated_rate_and_end_with_the_video(kitchen: Annotations) -> None:
    data = simulate(SETTINGS, 0, annotations=kitchen)
    rates = {"b_test": 30.0, "z_train": 15.0, "silent": 25.0, "a_train": 25.0}
    assert data.student_features.fps == rates
    assert set(data.generator_features.fps.values()) == {25.0}
    for store in (data.generator_features, data.student_features):
        for video, duration_s in data.videos["duration_s"].items():
            fits = (duration_s * store.fps[video] - 16) / store.stride_frames + 1
            assert fits - 2 < store.num_snippets(video) <= fits
        assert store.array.isfinite().all()


def test_given_annotations_give_the_same_bits_again(kitchen: Annotations) -> None:
    first, again = (simulate(SETTINGS, 3, annotations=kitchen) for _ in range(2))
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != simulate(SETTINGS, 4, annotations=kitchen).fingerprint


def test_features_of_a_plan_can_be_drawn_twice() -> None:
    plan = plan_simulation(
        SETTINGS.model_copy(update={"num_classes": 1, "train_videos": 1, "test_videos": 1}), 0
    )
    once, twice = (list(simulated_features(plan)) for _ in range(2))
    for (_, *first), (_, *second) in zip(once, twice, strict=True):
        for left, right in zip(first, second, strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("fps", [25.0, 29.97, 30.0, 15.0])
def test_both_features_show_one_action_in_seconds(fps: float) -> None:
    """An action from 4 s to 8 s, nothing else: each feature is the class by its window's share."""
    segments = [("stir", 4.0, 8.0)]
    given = annotations_of(
        [("a", "train", 20.0, fps, segments), ("b", "test", 20.0, fps, segments)]
    )
    data = simulate(PLAIN, 1, annotations=given)
    world = draw_world(PLAIN, np.random.default_rng([1, 0]), ["stir"])
    for store in (data.generator_features, data.student_features):
        start_s = np.arange(store.num_snippets("a")) * store.seconds_per_snippet("a")
        width_s = store.window_frames / store.fps["a"]
        inside_s = np.minimum(start_s + width_s, 8) - np.maximum(start_s, 4)
        share = np.clip(inside_s / width_s, 0, 1)[:, None]
        expected = np.maximum(share * world.core[0] @ world.weight + world.bias, 0)
        np.testing.assert_allclose(store["a"], expected, atol=1e-5)


def test_an_instance_under_a_wider_name_as_well_is_seen_once() -> None:
    def features(labels: list[str]) -> torch.Tensor:
        segments = [(label, 4.0, 8.0) for label in labels]
        both = [("CliffDiving", 1.0, 2.0), ("Diving", 1.0, 2.0)]
        given = annotations_of(
            [("a", "train", 20.0, 25.0, segments + both), ("b", "test", 20.0, 25.0, both)]
        )
        return simulate(PLAIN, 0, annotations=given).student_features["a"]

    once, twice = features(["CliffDiving"]), features(["CliffDiving", "Diving"])
    np.testing.assert_array_equal(once, twice)
    assert not np.allclose(features(["CliffDiving"]), features(["Diving"]))


def test_related_classes_are_so_where_both_are_there() -> None:
    def likeness(names: list[str], part: str) -> float:
        vectors = getattr(draw_world(SETTINGS, np.random.default_rng(0), names), part)
        return float(vectors[0] @ vectors[1])

    assert likeness(["CliffDiving", "Diving"], "core") > likeness(["Stirring", "Diving"], "core")
    assert likeness(["CliffDiving", "Diving"], "scene") > 0.7
    assert abs(likeness(["CricketBowling", "Diving"], "scene")) < 0.5
    assert len(draw_world(SETTINGS, np.random.default_rng(0)).names) == 20


def test_every_problem_of_annotations_is_said_at_once() -> None:
    given = annotations_of(
        [
            ("a", "train", math.nan, 25.0, []),
            ("b", "test", math.nan, 25.0, [("stir", 1.0, 2.0)]),
        ]
    )
    with pytest.raises(DataError) as caught:
        simulate(SETTINGS, 0, annotations=given)
    assert len(caught.value.problems) == 4
    for fragment in ("video a: no duration", "video b", "'stir' is in no training", "no training"):
        assert fragment in str(caught.value)
    without_test = Annotations(given.videos.iloc[:1], segments_frame([]))
    with pytest.raises(DataError, match="no subset of test videos, found 'train'"):
        simulate(SETTINGS, 0, annotations=without_test)


# Windows at another rate


@given(st.floats(1, 120), st.integers(8, 60), st.integers(0, 100))
def test_windows_at_another_rate_are_means_of_the_path(fps: float, steps: int, seed: int) -> None:
    steps = max(steps, path_steps(0, fps, SETTINGS))
    z = np.random.default_rng(seed).normal(size=(steps, LATENT_DIM)).astype(np.float32)
    found = path_windows_at(z, fps, SETTINGS)
    assert len(found) == num_windows(steps, fps, SETTINGS) >= 2
    for i in {0, len(found) // 2, len(found) - 1}:
        edges = np.array([4 * i, 4 * i + 16]) / fps * 25 / 4  # in steps
        own = np.arange(steps)
        share = np.clip(np.minimum(own + 1, edges[1]) - np.maximum(own, edges[0]), 0, 1)
        assert share.sum() == pytest.approx(edges[1] - edges[0])
        np.testing.assert_allclose(found[i], share @ z / share.sum(), atol=1e-4)


def test_windows_at_the_settings_rate_are_those_of_whole_steps() -> None:
    z = np.random.default_rng(0).normal(size=(50, LATENT_DIM)).astype(np.float32)
    np.testing.assert_allclose(path_windows_at(z, 25.0, SETTINGS), path_windows(z), atol=1e-5)


# Point labels


def video(segments: list[tuple[str, float, float]], fps: float = 25.0) -> SimulatedVideo:
    rng = np.random.default_rng(0)
    events = tuple(segments)
    return SimulatedVideo("v", "train", 100.0, fps, 0, ("stir",), events, events, rng)


@given(st.floats(0.1, 90), st.floats(0.2, 30), st.sampled_from([15, 24, 25, 29.97, 30]))
def test_a_point_is_a_whole_frame_in_segment_and_video(
    start_s: float, length_s: float, fps: float
) -> None:
    points = draw_points([video([("stir", start_s, start_s + length_s)], fps)], seed=0)
    assert points.columns.tolist() == ["video", "label", "t_start", "t_end", "t"]
    t = points["t"].item()
    assert start_s - 1e-6 <= t <= min(start_s + length_s, 100) + 1e-6
    assert t * fps == pytest.approx(round(t * fps), abs=1e-6)


def test_points_lie_around_the_middle() -> None:
    points = draw_points([video([("stir", 10.0, 20.0)] * 2000)], seed=0)
    frames = (points["t"] - 15.0) * 25
    assert frames.mean() == pytest.approx(0, abs=0.1)
    assert frames.std() == pytest.approx(math.sqrt(1 + 1 / 12), abs=0.1)


def test_a_segment_outside_its_video_has_no_point() -> None:
    points = draw_points([video([("stir", 100.5, 103.0), ("stir", 99.0, 120.0)])], seed=0)
    assert points["t"].tolist() == [100.0]


def test_only_training_segments_have_points() -> None:
    size = {"num_classes": 3, "train_videos": 4, "test_videos": 3, "max_video_s": 30}
    data = simulate(SETTINGS.model_copy(update=size), 0)
    truth = data.truth("train")
    assert data.points[["video", "label"]].equals(truth[["video", "label"]])
    assert (data.points["t"] >= truth["t_start"] - 1e-6).all()
    assert (data.points["t"] <= truth["t_end"] + 1e-6).all()
