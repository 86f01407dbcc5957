"""Simulated data: the same from the same seed, true to the statistics, and every knob connected."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from simulate_helpers import NO_DIFFICULTIES
from threadpoolctl import ThreadpoolController, threadpool_limits

from fustal_core.data import Dataset
from fustal_core.simulated_annotations import (
    class_records,
    class_statistics,
    draw_video,
    plan_videos,
)
from fustal_core.simulated_features import (
    LATENT_DIM,
    World,
    core_share,
    correlated_noise,
    draw_path,
    draw_world,
    inside_share,
    map_windows,
)
from fustal_core.simulated_windows import path_steps, path_windows
from fustal_core.simulator import SimulatorSettings, simulate

TINY = SimulatorSettings(
    num_classes=4, train_videos=8, test_videos=7, feature_dim=16, max_video_s=40
)
EASY = SimulatorSettings(feature_dim=32, **NO_DIFFICULTIES)
CLASS = "Billiards"
CLASS_INDEX = 2


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    return simulate(TINY, seed=0)


# The data set


def test_same_seed_same_bits(tiny: Dataset) -> None:
    again, other = simulate(TINY, seed=0), simulate(TINY, seed=1)
    assert again.fingerprint == tiny.fingerprint
    assert torch.equal(again.student_features.array, tiny.student_features.array)
    assert again.segments.equals(tiny.segments)
    assert other.fingerprint != tiny.fingerprint


def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = TINY.model_copy(update={"feature_dim": 128, "max_video_s": 120})
    threads = []

    def observed(windows: np.ndarray, world: World) -> np.ndarray:
        threads.append(_blas_threads())
        return map_windows(windows, world)

    monkeypatch.setattr("fustal_core.simulator.map_windows", observed)
    with threadpool_limits(1, "blas"):
        alone = simulate(wide, seed=0)
    with threadpool_limits(2, "blas"):
        together = simulate(wide, seed=0)
        assert _blas_threads() == {2}  # what was set before holds again
    assert together.fingerprint == alone.fingerprint
    assert set.union(*threads) == {1}


def _blas_threads() -> set[int]:
    pools = ThreadpoolController().select(user_api="blas").info()
    return {pool["num_threads"] for pool in pools}


def test_a_video_does_not_depend_on_the_other_subset(tiny: Dataset) -> None:
    other = simulate(TINY.model_copy(update={"test_videos": 4}), seed=0)
    assert other.video_names("train") == tiny.video_names("train")
    assert other.truth("train").equals(tiny.truth("train"))
    for video in other.video_names("train"):
        assert torch.equal(other.student_features[video], tiny.student_features[video])


def test_size_and_classes(tiny: Dataset) -> None:
    assert tiny.origin == "simulated"
    assert len(tiny.video_names("train")) == 8
    assert len(tiny.video_names("test")) == 7
    assert tiny.classes == ("BaseballPitch", "BasketballDunk", "Billiards", "CleanAndJerk")
    for subset in ("train", "test"):
        labels = tiny.video_labels(subset)
        assert labels.sum(0).min() >= 1
        assert labels.sum(1).min() >= 1


def test_features_are_finite_non_negative_and_contiguous(tiny: Dataset) -> None:
    for store in (tiny.generator_features, tiny.student_features):
        assert store.array.dtype == torch.float32
        assert store.array.is_contiguous()
        assert store.dim == 16
        assert store.array.isfinite().all()
        assert store.array.min() == 0


def test_generator_rows_are_every_fourth_student_row(tiny: Dataset) -> None:
    assert tiny.generator_features.stride_frames == 4 * tiny.student_features.stride_frames
    for video in tiny.videos.index:
        assert torch.equal(
            tiny.generator_features[video], tiny.student_features[video][::4].contiguous()
        )


def test_feature_length_fits_the_duration(tiny: Dataset) -> None:
    for video, duration_s in tiny.videos["duration_s"].items():
        for store in (tiny.generator_features, tiny.student_features):
            fits = (duration_s * 25 - store.window_frames) / store.stride_frames + 1
            assert fits - 1 < store.num_snippets(video) <= fits


def test_segments_lie_in_their_video_in_whole_tenths(tiny: Dataset) -> None:
    segments = tiny.segments
    duration_s = tiny.videos["duration_s"][segments["video"]].to_numpy()
    assert (segments["t_start"] >= 0).all()
    assert (segments["t_end"] <= duration_s).all()
    assert (segments["t_end"] - segments["t_start"] >= 0.1 - 1e-9).all()
    tenths = segments[["t_start", "t_end"]].to_numpy() * 10
    np.testing.assert_allclose(tenths, tenths.round(), atol=1e-6)
    for _, own in segments.groupby(["video", "label"]):
        assert (own["t_start"].to_numpy()[1:] >= own["t_end"].to_numpy()[:-1]).all()


def test_progress_is_reported_per_video() -> None:
    calls: list[tuple[int, int]] = []
    simulate(TINY, seed=0, progress=lambda done, total, note: calls.append((done, total)))
    assert calls == [(i, 15) for i in range(1, 16)]


def test_related_classes() -> None:
    data = simulate(SimulatorSettings(num_classes=8, train_videos=40, test_videos=40), seed=0)
    segments = data.segments
    keys = ["video", "t_start", "t_end"]
    cliff, diving = (segments[segments["label"] == n] for n in ("CliffDiving", "Diving"))
    assert len(cliff) > 20
    assert len(cliff.merge(diving, on=keys)) == len(cliff)
    assert len(diving) > len(cliff)
    bowling, shot = (segments[segments["label"] == n] for n in ("CricketBowling", "CricketShot"))
    both = bowling.merge(shot, on="video", suffixes=("", "_shot"))
    gap_s = both["t_start_shot"] - both["t_end"]
    assert (gap_s.abs() <= 0.21).sum() > 20  # a shot begins just before its bowling ends


# Annotations


@given(st.integers(1, 20), st.integers(0, 40), st.sampled_from(["train", "test"]))
def test_plans_show_every_class_and_hold_the_number_asked(
    num_classes: int, extra: int, subset: str
) -> None:
    plans = plan_videos(num_classes, subset, num_classes + extra)
    assert len(plans) == num_classes + extra
    shown = {name for plan in plans for name in plan.classes}
    assert shown == set(class_statistics().index[:num_classes])


@pytest.mark.parametrize(("subset", "total"), [("train", 200), ("test", 210)])
def test_default_plan_has_the_real_number_of_videos_per_class(subset: str, total: int) -> None:
    plans = plan_videos(20, subset, total)
    for name, expected in class_statistics()[f"{subset}_videos"].items():
        assert abs(sum(name in plan.classes for plan in plans) - expected) <= 1


def test_drawn_instances_follow_the_table() -> None:
    statistics = class_statistics()
    rng = np.random.default_rng(0)
    lengths_s: dict[str, list[float]] = {name: [] for name in statistics.index}
    counts = dict.fromkeys(statistics.index, 0)
    videos_s = []
    for plan in plan_videos(20, "train", 200):
        duration_s, events = draw_video(plan, class_records(statistics), 1680.0, rng)
        videos_s.append(duration_s)
        for name, start_s, end_s in events:
            counts[name] += 1
            lengths_s[name].append(end_s - start_s)
    total = sum(counts.values())
    instances = statistics["train_instances"].sum()
    assert 0.75 < total / (instances - statistics.loc["CliffDiving", "train_instances"]) < 1.25
    for name in ("BasketballDunk", "CliffDiving", "HighJump", "JavelinThrow", "VolleyballSpiking"):
        assert np.median(lengths_s[name]) == pytest.approx(
            statistics.loc[name, "duration_s_median"], rel=0.25
        )
        assert counts[name] == pytest.approx(statistics.loc[name, "train_instances"], rel=0.3)
    assert 100 < np.median(videos_s) < 220
    assert max(videos_s) <= 1680


def test_videos_of_several_classes_come_as_often_as_asked() -> None:
    def of_several(strength: float) -> list[tuple[str, ...]]:
        plans = plan_videos(20, "train", 200, strength)
        assert len(plans) == 200
        assert ("CliffDiving",) not in {plan.classes for plan in plans}  # it is Diving as well
        return [plan.classes for plan in plans if len(plan.classes) > 1]

    assert set(of_several(0)) == {("CliffDiving", "Diving")}
    assert len(of_several(0)) < len(of_several(1)) < len(of_several(3))
    assert ("CricketBowling", "CricketShot") in of_several(1)


@given(st.integers(0, 10_000), st.floats(20, 100))
def test_short_videos_keep_all_their_classes(seed: int, max_video_s: float) -> None:
    plans = plan_videos(20, "test", 200)
    plan = plans[seed % len(plans)]
    rng = np.random.default_rng(seed)
    duration_s, events = draw_video(plan, class_records(class_statistics()), max_video_s, rng)
    assert duration_s <= round(max_video_s, 2)
    assert {name for name, _, _ in events} >= set(plan.classes) - {"Diving"}
    assert all(0 <= start_s < end_s <= duration_s for _, start_s, end_s in events)


# Features


def features(settings: SimulatorSettings, start_s: float = 8.0, end_s: float = 16.0) -> np.ndarray:
    """A 24 s video with one action; at 25 frames a second a fine step is 0.16 s."""
    world = easy_world(settings)
    rng = np.random.default_rng(0)
    steps = path_steps(24.0, settings.fps, settings)
    z = draw_path(steps, (CLASS,), [(CLASS, start_s, end_s)], world, settings, rng)
    return map_windows(path_windows(z), world)


def easy_world(settings: SimulatorSettings) -> World:
    return draw_world(settings, np.random.default_rng(1))


def test_related_classes_are_as_alike_as_asked() -> None:
    def likeness(strength: float) -> list[float]:
        world = easy_world(EASY.model_copy(update={"class_relation": strength}))
        cliff, wide = (world.names.index(name) for name in ("CliffDiving", "Diving"))
        bowling, shot = (world.names.index(f"Cricket{name}") for name in ("Bowling", "Shot"))
        pairs = (world.core[[cliff, wide]], world.scene[[bowling, shot]])
        return [float(first @ second) for first, second in pairs]

    core, scene = np.transpose([likeness(strength) for strength in (0.0, 0.5, 1.0)])
    for found in (core, scene):
        assert abs(found[0]) < 0.4 < found[2]
        assert found[0] < found[1] < found[2]


def mapped(latent: np.ndarray, world: World) -> np.ndarray:
    return np.maximum(latent @ world.weight + world.bias, 0)


def test_easy_action_by_hand() -> None:
    world = easy_world(EASY)
    core = world.core[CLASS_INDEX]
    rows = features(EASY)
    assert rows.shape == (147, 32)  # 150 fine steps, windows of 4
    # Steps 50 to 99 are the action: windows 50 to 96 lie in it, 47 to 49 overlap its start.
    for row, share in [(0, 0), (46, 0), (47, 0.25), (48, 0.5), (49, 0.75), (50, 1), (96, 1)]:
        np.testing.assert_allclose(rows[row], mapped(share * core, world), atol=1e-5)
    for row, share in [(97, 0.75), (99, 0.25), (100, 0), (146, 0)]:
        np.testing.assert_allclose(rows[row], mapped(share * core, world), atol=1e-5)


def test_ambiguous_border_looks_like_the_beginning() -> None:
    changes = {"end_strength": 0.5, "border_ambiguity": 1.0}
    settings = EASY.model_copy(update=changes)
    world = easy_world(settings)
    before = features(settings)[46]  # the last window that ends before the action
    np.testing.assert_allclose(before, mapped(0.5 * world.begin[CLASS_INDEX], world), atol=1e-5)


def test_incomplete_action_has_its_class_in_the_middle_only() -> None:
    settings = EASY.model_copy(update={"incompleteness": 0.5, "end_strength": 0.5})
    world = easy_world(settings)
    rows = features(settings)
    np.testing.assert_allclose(rows[73], mapped(world.core[CLASS_INDEX], world), atol=1e-3)
    np.testing.assert_allclose(rows[50], mapped(0.5 * world.begin[CLASS_INDEX], world), atol=0.05)
    np.testing.assert_allclose(rows[96], mapped(0.5 * world.end[CLASS_INDEX], world), atol=0.05)


@pytest.mark.parametrize(
    "change",
    [
        {"incompleteness": 0.5},
        {"end_strength": 0.5},
        {"scene_strength": 0.5},
        {"context_strength": 0.5},
        {"motion_strength": 0.5},
        {"distractor_rate": 20},
        {"video_shift": 0.5},
        {"instance_spread": 0.5},
        {"noise": 0.1},
    ],
)
def test_every_strength_changes_the_features(change: dict[str, float]) -> None:
    assert not np.allclose(features(EASY.model_copy(update=change)), features(EASY), atol=1e-3)


@pytest.mark.parametrize(
    ("needs", "name"),
    [
        ({"end_strength": 0.5, "incompleteness": 0.5}, "end_sharing"),
        ({"end_strength": 0.5}, "border_ambiguity"),
        ({"distractor_rate": 20}, "distractor_strength"),
        ({"distractor_rate": 20}, "lookalike_share"),
        ({}, "class_similarity"),
        ({"noise": 0.1}, "noise_correlation_s"),
    ],
)
def test_every_modifier_changes_the_features(needs: dict[str, float], name: str) -> None:
    low, high = (EASY.model_copy(update={**needs, name: value}) for value in (0.0, 1.0))
    assert not np.allclose(features(low), features(high), atol=1e-3)


def test_inside_share_by_hand() -> None:
    times_s = np.array([0.5, 1.5, 2.5, 3.5])
    shares = inside_share(times_s, np.array([0.75, 2.0]), np.array([3.0, 2.25]))
    np.testing.assert_allclose(shares, [[0.25, 1, 1, 0], [0, 0, 0.25, 0]])


def test_core_covers_what_incompleteness_leaves() -> None:
    progress = np.tile((np.arange(200) + 0.5) / 200, (500, 1))
    whole, _ = core_share(progress, EASY, np.random.default_rng(0))
    assert (whole == 1).all()
    settings = EASY.model_copy(update={"incompleteness": 0.5})
    half, early = core_share(progress, settings, np.random.default_rng(0))
    assert (half == 1).mean() == pytest.approx(0.5, abs=0.03)
    assert early[:, 0].all()
    assert not early[:, -1].any()


@pytest.mark.parametrize("constant_s", [0.0, 0.5])
def test_noise_has_unit_variance_and_the_stated_correlation(constant_s: float) -> None:
    noise = correlated_noise((4000, LATENT_DIM), constant_s, 0.16, np.random.default_rng(0))
    assert noise.dtype == np.float32
    assert noise.std() == pytest.approx(1, abs=0.02)
    expected = np.exp(-0.16 / constant_s) if constant_s else 0.0
    assert (noise[1:] * noise[:-1]).mean() == pytest.approx(expected, abs=0.02)


# Settings


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"train_videos": 19}, "at least num_classes = 20, got 19"),
        ({"num_classes": 21}, "num_classes"),
        ({"noise": -0.1}, "noise"),
        ({"noise": float("inf")}, "noise"),
        ({"incompleteness": 1.1}, "incompleteness"),
        ({"nosie": 0.1}, "nosie"),
    ],
)
def test_bad_settings_are_refused(values: dict[str, float], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        SimulatorSettings(**values)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in SimulatorSettings.model_fields.values())


# What others have computed with


def test_the_simulation_stays_what_it_was(tiny: Dataset) -> None:
    """Published figures rest on it. Sums, because processors differ in the last bit of a product."""
    truth = tiny.videos.to_csv() + tiny.segments.to_csv()
    assert sha256(truth.encode()).hexdigest()[:16] == "9e6e20d2ced0aa60"
    assert tiny.student_features.array.shape == (3615, 16)
    for store, expected in [
        (tiny.student_features, 63123.22351621915),
        (tiny.generator_features, 15844.326468926576),
    ]:
        values = store.array.double().flatten()
        ramp = torch.linspace(1, 2, len(values), dtype=torch.float64)
        assert float(values @ ramp) == pytest.approx(expected, rel=1e-6)
