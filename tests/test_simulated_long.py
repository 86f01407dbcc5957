"""Simulated videos with few and long actions: true to their settings, and features for both models."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fustal_core.config import make_settings
from fustal_core.data import load_dataset
from fustal_core.simulated_folder import write_simulation
from fustal_core.simulated_long import (
    SHARES,
    draw_long_video,
    long_class_names,
    plan_long_videos,
)
from fustal_core.simulated_videos import drawn_videos
from fustal_core.simulator import SimulatorSettings, plan_simulation, simulate

LONG = {"action_share": 0.5, "actions_per_video": 1.5, "video_s": 120.0}
TINY = SimulatorSettings(
    num_classes=3,
    train_videos=5,
    test_videos=4,
    feature_dim=6,
    max_video_s=40,
    shared_features=True,
    **LONG,
)


def test_many_videos_have_the_stated_shape() -> None:
    settings = SimulatorSettings(num_classes=200, train_videos=4000, test_videos=200, **LONG)
    videos = [v for v in drawn_videos(settings, 0) if v.subset == "train"]
    durations_s = np.array([video.duration_s for video in videos])
    counts = np.array([len(video.segments) for video in videos])
    busy_s = np.array([sum(end - start for _, start, end in video.segments) for video in videos])
    assert durations_s.mean() == pytest.approx(120, rel=0.03)
    assert counts.mean() == pytest.approx(1.5, rel=0.03)
    # A little less than stated: times are rounded, and shares are cut at both ends alike.
    assert (busy_s / durations_s).mean() == pytest.approx(0.5, abs=0.02)
    assert {video.classes for video in videos} == {(name,) for name in long_class_names(200)}


@given(
    st.floats(0.01, 0.99),
    st.floats(1, 6),
    st.floats(20, 500),
    st.floats(20, 500),
    st.integers(0, 2**31),
)
def test_actions_lie_in_their_video_one_after_the_other(
    share: float, count: float, video_s: float, longest_s: float, seed: int
) -> None:
    settings = SimulatorSettings(
        action_share=share, actions_per_video=count, video_s=video_s, max_video_s=longest_s
    )
    plan = plan_long_videos(3, "train", 1)[0]
    duration_s, events = draw_long_video(plan, settings, np.random.default_rng(seed))
    assert 12 <= duration_s <= round(longest_s, 2)
    times = [time for _, start_s, end_s in events for time in (start_s, end_s)]
    # Starts are rounded and ends are cut to tenths, so a start can lie 0.05 s before an end.
    assert all(later >= earlier - 0.1 for earlier, later in pairwise(times))
    assert not times or (times[0] >= 0 and times[-1] <= duration_s + 1e-9)
    assert sum(end - start for _, start, end in events) <= SHARES[1] * duration_s + 0.1 * len(times)
    assert {label for label, *_ in events} <= {"action 000"}


def test_classes_take_turns() -> None:
    plans = plan_long_videos(3, "test", 7)
    assert [plan.classes[0] for plan in plans] == [f"action 00{i}" for i in (0, 1, 2, 0, 1, 2, 0)]
    assert {plan.subset for plan in plans} == {"test"}


def test_same_seed_same_bits_and_other_data_than_thumos14s() -> None:
    data, again = simulate(TINY, 0), simulate(TINY, 0)
    assert data.fingerprint == again.fingerprint != simulate(TINY, 1).fingerprint
    assert data.name == "ActivityNet-like"
    assert data.classes == tuple(long_class_names(3))


def test_both_models_share_one_store_if_asked_to() -> None:
    data = simulate(TINY, 0)
    assert data.student_features is data.generator_features
    assert data.student_features.stride_frames == 16
    two = simulate(TINY.model_copy(update={"shared_features": False}), 0)
    assert two.student_features.stride_frames == 4
    assert torch.equal(two.generator_features.array, data.generator_features.array)


@pytest.mark.parametrize("layout", ["own", "acmnet"])
def test_a_folder_gives_back_the_shared_features(tmp_path: Path, layout: str) -> None:
    data = simulate(TINY, 2)
    write_simulation(tmp_path / "data", plan_simulation(TINY, 2), layout)
    read = load_dataset(tmp_path / "data")
    assert (read.name, read.classes) == (data.name, data.classes)
    assert read.student_features is read.generator_features
    for video in data.videos.index:
        assert torch.equal(read.generator_features[video], data.generator_features[video])
    assert read.truth("train").equals(data.truth("train"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"action_share": 0.5},
            "actions_per_video of at least 1 and video_s of at least 20, got 0",
        ),
        (LONG | {"actions_per_video": 0.5}, "got 0.5 and 120"),
        (LONG | {"video_s": 5}, "got 1.5 and 5"),
        (LONG | {"action_share": 1.0}, "action_share"),
        (
            {"num_classes": 21, "train_videos": 30, "test_videos": 30},
            "num_classes: THUMOS'14 has statistics of 20; more need action_share, got 21",
        ),
        (LONG | {"num_classes": 201}, "num_classes"),
    ],
)
def test_bad_shapes_are_refused(values: dict[str, float], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        SimulatorSettings(**values)


def test_activitynets_constants_give_that_shape() -> None:
    settings = make_settings(overrides={"constants": "activitynet13"}).simulation
    assert {name: getattr(settings, name) for name in LONG} == LONG
    assert settings.shared_features
    assert not make_settings().simulation.action_share
