"""What real data would cost: operations counted by hand, and an estimate worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fustal_core.config import Settings, make_settings
from fustal_core.scale_estimate import ACTIVITYNET, Corpus, Measured, Rates, estimate, storage
from fustal_core.scale_parts import settings_of_size
from fustal_core.scale_passes import KINDS, Pass, Shape, all_passes, count_pass, time_pass
from fustal_core.student import TriDet

SHAPE = Shape(channels=8, classes=3, snippets=40)
RATES = Rates("A machine.", gflops=100.0, copy_gb_s=10.0)
CORPUS = Corpus(
    "tiny", train_videos=20, test_videos=10, classes=3, channels=8, video_s=64, step_s=2
)


@pytest.fixture(scope="module")
def settings() -> Settings:
    overrides = {"generation.hidden_channels": 6, "generation.length": 30, "student.batch_size": 4}
    return make_settings(profile="smoke", overrides=overrides)


def test_operations_of_the_generator_by_hand(settings: Settings) -> None:
    T, D, H, C, B = 30, 8, 6, 3, settings.generation.batch_size
    forward = 2 * T * (3 * D * H + H * C)
    assert count_pass("generator video", settings, SHAPE).gflop * 1e9 == pytest.approx(forward)
    # Backwards: gradients of all weights, and of the embeddings that the classifier reads.
    step = B * (2 * forward + 2 * T * H * C)
    counted = count_pass("generator step", settings, SHAPE)
    assert counted.gflop * 1e9 == pytest.approx(step)
    weights = 3 * D * H + H + H * C
    assert counted.optimiser_gb * 1e9 == pytest.approx(7 * 4 * weights)
    assert count_pass("generator video", settings, SHAPE).optimiser_gb == 0


def test_operations_of_the_student_are_those_of_a_real_pass(settings: Settings) -> None:
    model = TriDet(8, 3, settings.student).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.rand(4, 64, 8), torch.ones(4, 64, dtype=torch.bool))  # 40 snippets, padded
    counted = count_pass("student batch", settings, SHAPE)
    # Small convolutions may be computed in another way on another device.
    assert counted.gflop * 1e9 == pytest.approx(counter.get_total_flops(), rel=0.05)
    video = count_pass("student video", settings, SHAPE)
    assert video.gflop == pytest.approx(counted.gflop / 4)
    assert count_pass("student step", settings, SHAPE).gflop > 2 * counted.gflop


def test_in_a_step_boundary_heads_run_around_labels_only(settings: Settings) -> None:
    longer = Shape(channels=8, classes=3, snippets=4096)
    step, batch = (
        count_pass(f"student {unit}", settings, longer).gflop for unit in ("step", "batch")
    )
    # Forward and, for two gradients, backward: three times, less three quarters of the heads' share.
    assert 1 < step / batch < 2


def test_a_student_that_pads_sees_its_full_length(settings: Settings) -> None:
    longer = settings.student.model_copy(update={"global_mean": "padded"})
    padded = settings.model_copy(update={"student": longer})
    full = Shape(channels=8, classes=3, snippets=settings.student.max_length)
    counted = count_pass("student batch", padded, SHAPE).gflop
    assert counted == count_pass("student batch", settings, full).gflop
    assert counted > count_pass("student batch", settings, SHAPE).gflop


def test_bytes_grow_with_the_batch(settings: Settings) -> None:
    video, step = (count_pass(f"student {unit}", settings, SHAPE) for unit in ("video", "step"))
    activations = 4 * 64 * (8 + settings.student.width) / 1e9  # read and written once, at least
    assert video.gb > activations
    assert step.gb > 3 * video.gb


def test_passes_are_timed_and_counted(settings: Settings) -> None:
    found = all_passes(settings, SHAPE)
    assert tuple(found) == KINDS
    assert all(one.seconds > 0 for one in found.values())
    for kind, one in found.items():
        counted = count_pass(kind, settings, SHAPE)
        assert replace(one, seconds=4.0) == Pass(**vars(counted), seconds=4.0)
    with pytest.raises(ValueError, match="'teacher step'"):
        time_pass("teacher step", settings, SHAPE)


def test_the_cost_of_a_pass() -> None:
    assert Pass(200.0, 5.0, 1.0, seconds=4.0).cost_s(10.0) == pytest.approx(4.1)


def measured() -> Measured:
    """Size 1, where every part took 42 s; its networks take 0.01 s a pass."""
    parts = ("load", "train the generator", "propose", "score overlaps", "select")
    parts += ("train the student", "distil the student", "detect", "evaluate", "write the results")
    passes = dict.fromkeys(KINDS, Pass(1.0, 0.0, seconds=0.01))
    growth = {"evaluate": 0.213}
    return Measured(
        dict.fromkeys(parts, 42.0), growth, 200, 213, settings_of_size(1), passes, RATES
    )


def test_an_estimate_by_hand() -> None:
    overrides = {"constants": "activitynet13", "student.max_detections": 1000}
    settings = make_settings(profile="paper", overrides=overrides)
    passes = {kind: Pass(50.0 * i, 0.0, seconds=2.0 * i) for i, kind in enumerate(KINDS, start=1)}
    found = estimate(measured(), settings, passes, CORPUS).set_index("stage")
    assert found["units"].to_dict() == {
        "load": 30,
        "train the generator": 6000,
        "propose": 30,
        "score overlaps": 20,
        "select": 20,
        "train the student": 61 * 3,  # 20 videos in batches of 8
        "distil the student": 40 * 3,
        "detect": 10,
        "evaluate": 10,
        "write the results": 10,
    }
    # 13 steps of the measurement took 42 s, of which its network had 0.01 s each.
    row = found.loc["train the generator"]
    assert row["rest_s"] == pytest.approx(42 / 13 - 0.01)
    assert (row["gflop"], row["products_s"], row["network_s"]) == (50.0, 0.5, 2.0)
    assert row["hours"] == pytest.approx(6000 * (2.0 + 42 / 13 - 0.01) / 3600)
    # A step on EMA labels is a step and a forward pass of its batch: kinds 3 and 4.
    row = found.loc["distil the student"]
    assert row["network_s"] == pytest.approx(6.0 + 8.0)
    assert row["rest_s"] == pytest.approx(42 / 7 - 0.02)  # 200 videos in batches of 32
    assert found.loc["select", "rest_s"] == pytest.approx(42 / 200)
    assert found.loc["load", "rest_s"] == pytest.approx(42 / 413)
    # 1000 detections a video where the measurement had 100.
    assert found.loc["evaluate", "rest_s"] == pytest.approx(10 * 42 / 213)
    assert found.loc["evaluate", "gflop"] == 0


def test_networks_that_took_longer_than_the_part_leave_no_rest() -> None:
    slow = dict.fromkeys(KINDS, Pass(1.0, 0.0, seconds=100.0))
    given = measured()
    given = Measured(given.seconds, given.gb_per_1000_videos, 200, 213, given.settings, slow, RATES)
    settings = make_settings(profile="paper", overrides={"constants": "activitynet13"})
    found = estimate(given, settings, slow, CORPUS).set_index("stage")
    assert found.loc["detect", "rest_s"] == 0
    assert found.loc["select", "rest_s"] == pytest.approx(42 / 200)


def test_disk_and_memory_by_hand() -> None:
    settings = make_settings(profile="paper", overrides={"constants": "activitynet13"})
    found = storage(measured(), settings).set_index("what")["gb"]
    snippets = 120 / 0.64
    features_gb = 14_950 * snippets * 2048 * 4 / 1e9  # 23 GB, more than the budget of 8
    assert pytest.approx(features_gb) == ACTIVITYNET.features_gb == found["features on disk"]
    assert found["their mapped file in the run directory"] == found["features on disk"]
    assert found["features in memory"] == 0
    # 0.213 GB for 1000 videos, 213 of 413 with 100 detections each: 4130 bytes for a detection.
    held = found["detections while they are evaluated, at most"]
    assert held == pytest.approx(4926 * 2000 * 4130 / 1e9)
    small = storage(measured(), settings, CORPUS).set_index("what")["gb"]
    assert small["features in memory"] == pytest.approx(30 * 32 * 8 * 4 / 1e9)
    assert small["their mapped file in the run directory"] == 0


def test_activitynets_numbers() -> None:
    assert ACTIVITYNET.videos == 14_950
    assert Shape(channels=2048, classes=200, snippets=188) == ACTIVITYNET.shape
