"""The benchmark on tiny sizes: its parts run, and what is timed side by side is the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fustal_core import bench, cli
from fustal_core.alignment import cosine_table
from fustal_core.bench import COLUMNS, Sizes, run_benchmark
from fustal_core.bench_data import alike_snippets, random_detections, smooth_curves
from fustal_core.simulator import SimulatorSettings

TINY = Sizes(
    snippets=30,
    detections=300,
    videos=9,
    classes=4,
    batch=3,
    length=60,
    channels=4,
    scored_videos=3,
    proposals=12,
    pairs=2,
    lcs_length=6,
    lcs_channels=8,
    fsd_length=3,
    fsd_channels=8,
    whole_snippets=80,
    points=5,
    rois=20,
    roi_channels=3,
    feature_videos=4,
    feature_channels=3,
    simulation=SimulatorSettings(
        num_classes=2, train_videos=2, test_videos=2, feature_dim=4, max_video_s=20
    ),
)


def test_parts_run_and_agree_with_their_references() -> None:
    calls = []
    table = run_benchmark(lambda done, total, part: calls.append((done, total, part)), TINY)
    assert table.columns.tolist() == COLUMNS
    referenced = table[table["reference_s"].notna()].set_index("part")
    assert set(referenced.index) == {
        "proposals of a video",
        "snippet mining",
        "IoU score",
        "FSD and LCS, forward and backward",
        "seeds from points",
        "RoI pooling",
        "detection mAP",
        "loading features, reading alone",
    }
    in_single_precision = referenced.index == "FSD and LCS, forward and backward"
    assert (referenced["agree"] < np.where(in_single_precision, 1e-5, 1e-9)).all()
    ratio = referenced["reference_s"] / referenced["ours_s"]
    assert referenced["ratio"].to_numpy() == pytest.approx(ratio.to_numpy())
    assert calls == [(i, 9, part) for i, part in enumerate(table["part"][:9], start=1)]
    simulated, memory = table.set_index("part").loc[["simulated data", "peak memory so far"]].iloc
    assert simulated["ours_s"] > 0
    assert memory["size"].endswith(" GB")


def test_default_sizes_are_the_studys() -> None:
    sizes = Sizes()
    assert (sizes.snippets, sizes.detections, sizes.videos) == (400, 47_124, 212)
    assert (sizes.batch, sizes.length, sizes.channels) == (16, 400, 256)
    assert (sizes.pairs, sizes.lcs_length, sizes.lcs_channels) == (16, 30, 2048)
    assert (sizes.fsd_length, sizes.fsd_channels) == (5, 1024)
    assert sizes.simulation == SimulatorSettings()


def test_json_has_null_where_there_is_no_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    table = run_benchmark(sizes=TINY)
    monkeypatch.setattr(bench, "run_benchmark", lambda progress: table)
    cli.bench(json_=True)
    rows = {row["part"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["simulated data"]["ratio"] is None
    assert rows["IoU score"]["ratio"] > 0
    cli.bench(json_=False)
    assert "detection mAP" in capsys.readouterr().out


def test_made_up_inputs_are_usable() -> None:
    truth, detections = random_detections(TINY, np.random.default_rng(0))
    assert len(detections) == 300
    assert set(detections["label"]) <= set(truth["label"])
    assert (truth["t_start"] < truth["t_end"]).all()
    curves = smooth_curves(50, 3, np.random.default_rng(0))
    assert curves.shape == (50, 3)
    assert curves.min() == 0
    first, second = map(torch.from_numpy, alike_snippets(2, 30, 2048, np.random.default_rng(0)))
    assert first.shape == second.shape == (2, 30, 2048)
    assert min(first.min(), second.min()) == 0
    assert 0.2 < (cosine_table(first, second) > 0.92).float().mean() < 0.5


def test_peak_memory_is_plausible() -> None:
    assert 0.1 < bench.peak_memory_gb() < 100


def test_different_results_do_not_agree() -> None:
    assert bench._difference(np.array([1.0, 2.0]), np.array([1.0, 2.5])) == 0.5
    assert bench._difference(np.zeros(2), np.zeros(3)) == float("inf")
    assert bench._difference(np.zeros(0), np.zeros(0)) == 0.0
