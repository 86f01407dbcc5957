"""The benchmark on tiny sizes: its parts run, and what is timed side by side is the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bench_helpers import TINY, tiny_machine

from fustal_core import bench_growth
from fustal_core.alignment import cosine_table
from fustal_core.bench import COLUMNS, PARTS, Benchmark, run_benchmark
from fustal_core.bench_data import (
    Sizes,
    alike_snippets,
    curves_dataset,
    random_dataset,
    random_detections,
    smooth_curves,
)
from fustal_core.bench_output import bench_json, bench_text, write_benchmark
from fustal_core.bench_parts import CurvesAreFeatures
from fustal_core.generation import propose
from fustal_core.simulator import SimulatorSettings
from fustal_core.stage_settings import GenerationSettings

IN_SINGLE_PRECISION = {
    "FSD and LCS, forward and backward": 1e-5,
    "generator's losses, forward and backward": 1e-6,
    "proposals of a data set": 1e-6,
    "student's labels and losses, forward and backward": 1e-6,
    "student's network, forward and backward": 1e-4,
    "EMA labels of a batch": 1e-5,
    "student's inference": 1e-5,
}
WITHOUT_RESULT = ("generator's training step", "student's training step")
"""Both sides are timed, but not with the same random numbers."""


@pytest.fixture(scope="module")
def measured() -> Benchmark:
    growths = tuple(
        replace(growth, values=(2, 4, 8), base=TINY)
        for growth in bench_growth.GROWTHS
        if growth.field in ("proposals", "batch")
    )
    return run_benchmark(sizes=TINY, growths=growths, machine=tiny_machine)


def test_parts_run_and_agree_with_their_references(measured: Benchmark) -> None:
    table = measured.parts
    assert table.columns.tolist() == COLUMNS
    assert len(table) == len(PARTS) == table["part"].nunique()
    assert (table["ours_s"] > 0).all()
    referenced = table[table["reference_s"].notna()].set_index("part")
    assert set(referenced.index) == {
        *IN_SINGLE_PRECISION,
        *WITHOUT_RESULT,
        "batched soft-NMS",
        "proposals of a video",
        "snippet mining",
        "IoU score",
        "seeds from points",
        "RoI pooling",
        "detection mAP",
        "feature loading",
    }
    agree = referenced["agree"].drop(list(WITHOUT_RESULT))
    allowed = pd.Series(1e-9, index=agree.index)
    allowed.update(pd.Series(IN_SINGLE_PRECISION))
    assert (agree < allowed).all()
    assert referenced.loc[list(WITHOUT_RESULT), "agree"].isna().all()
    ratio = referenced["reference_s"] / referenced["ours_s"]
    assert referenced["ratio"].to_numpy() == pytest.approx(ratio.to_numpy())


def test_limits_stand_beside_the_parts_that_have_them(measured: Benchmark) -> None:
    table = measured.parts.set_index("part")
    limited = table[table["limited_by"] != ""]
    products = limited.index[limited["limited_by"] == "matrix products"]
    assert products.tolist() == [
        "generator's training step",
        "student's training step",
        "student's network, forward and backward",
        "EMA labels of a batch",
        "student's inference",
    ]
    assert table.index.difference(limited.index).tolist() == ["simulated data"]
    assert (limited["limit_s"] > 0).all()
    times = (limited["ours_s"] / limited["limit_s"]).to_numpy()
    assert limited["times_limit"].to_numpy() == pytest.approx(times)
    assert table.loc[table["limited_by"] == "", ["limit_s", "times_limit"]].isna().all(axis=None)
    # 4 files of 320 snippets and 3 channels, read and written, at the machine's rate.
    expected = 2 * 4 * 320 * 3 * 4 / (1e9 * measured.machines["cpu"].copy_gb_s)
    assert table.loc["feature loading", "limit_s"] == pytest.approx(expected)


def test_growth_has_a_row_for_each_part_and_size(measured: Benchmark) -> None:
    grown = measured.growth
    assert grown["along"].tolist() == ["videos"] * 3 + ["proposals"]
    assert grown["sizes"].tolist() == [[2, 4, 8]] * 4
    assert grown["seconds"].map(lambda seconds: len(seconds) == 3 and min(seconds) > 0).all()
    for row in grown.to_dict("records"):
        fit = bench_growth.fit_exponent(row["sizes"], row["seconds"])
        assert (row["exponent"], row["standard_error"]) == (fit.exponent, fit.standard_error)


def test_progress_names_what_comes_next() -> None:
    calls = []
    growth = replace(bench_growth.GROWTHS[9], values=(2, 3, 4), base=TINY)
    parts = tuple(part for part in PARTS if part.__name__ in ("iou_score_case", "mining_case"))
    run_benchmark(
        lambda *call: calls.append(call), TINY, parts=parts, growths=(growth,), machine=tiny_machine
    )
    assert calls == [
        (0, 4, "what the machine can do"),
        (1, 4, "mining"),
        (2, 4, "iou score"),
        (3, 4, "growth of iou score along proposals"),
        (4, 4, ""),
    ]


def test_default_sizes_are_the_published_ones() -> None:
    sizes = Sizes()
    assert (sizes.batch, sizes.length, sizes.channels, sizes.hidden) == (16, 750, 2048, 2048)
    student = (sizes.student_videos, sizes.student_length, sizes.student_channels)
    assert student == (8, 2304, 2048)
    assert (sizes.student_width, sizes.student_mlp) == (512, 768)
    assert (sizes.snippets, sizes.detections, sizes.videos) == (400, 47_124, 212)
    assert (sizes.pairs, sizes.lcs_length, sizes.lcs_channels) == (16, 30, 2048)
    assert (sizes.fsd_length, sizes.fsd_channels) == (5, 1024)
    assert sizes.simulation == SimulatorSettings()


def test_json_is_valid_and_has_null_where_there_is_no_number(measured: Benchmark) -> None:
    content = json.loads(bench_json(measured), parse_constant=pytest.fail)
    assert content.keys() == {"machines", "parts", "growth", "peak_memory_gb"}
    rows = {row["part"]: row for row in content["parts"]}
    assert rows["simulated data"]["ratio"] is None
    assert rows["IoU score"]["ratio"] > 0
    assert content["machines"][0]["device"] == "cpu"
    assert content["machines"][0]["threads"] == torch.get_num_threads()
    assert content["machines"][0]["matrix_gflops"]["float32"] > 0
    assert content["growth"][0]["sizes"] == [2, 4, 8]
    assert content["peak_memory_gb"]["cpu"] > 0.1


def test_text_has_both_tables_and_what_was_measured_on(measured: Benchmark) -> None:
    text = bench_text(measured)
    assert measured.machines["cpu"].name in text
    assert f"{torch.get_num_threads()} CPU threads" in text
    assert "| detection mAP " in text
    assert "| 2, 4, 8 " in text
    assert "nan" not in text
    without = replace(measured, growth=pd.DataFrame())
    assert "exponent" not in bench_text(without)


def test_files_hold_the_numbers(measured: Benchmark, tmp_path: Path) -> None:
    written = write_benchmark(measured, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    tables = {"bench.csv", "bench.md", "bench.json"}
    assert names == {path.name for path in written}
    assert names == tables | {"growth.csv", "growth.png", "growth.pdf"}
    table = pd.read_csv(tmp_path / "out/bench.csv", keep_default_na=True)
    assert table["part"].tolist() == measured.parts["part"].tolist()
    np.testing.assert_allclose(table["ours_s"], measured.parts["ours_s"], rtol=1e-12)
    grown = pd.read_csv(tmp_path / "out/growth.csv")
    assert grown["sizes"].tolist() == ["2 4 8"] * 4
    seconds = [float(text) for text in grown["seconds"][3].split()]
    assert seconds == measured.growth["seconds"][3]
    few = write_benchmark(replace(measured, growth=pd.DataFrame()), tmp_path / "few")
    assert {path.name for path in few} == tables


def test_made_up_inputs_are_usable() -> None:
    rng = np.random.default_rng(0)
    truth, detections = random_detections(TINY, rng)
    assert len(detections) == 300
    assert set(detections["label"]) <= set(truth["label"])
    assert (truth["t_start"] < truth["t_end"]).all()
    curves = smooth_curves(50, 3, rng)
    assert curves.shape == (50, 3)
    assert curves.min() == 0
    first, second = map(torch.from_numpy, alike_snippets(2, 30, 2048, rng))
    assert first.shape == second.shape == (2, 30, 2048)
    assert min(first.min(), second.min()) == 0
    assert 0.2 < (cosine_table(first, second) > 0.92).float().mean() < 0.5


def test_made_up_data_sets_are_usable() -> None:
    rng = np.random.default_rng(0)
    dataset = random_dataset(3, 2, 40, 5, 4, 16, rng)
    store = dataset.generator_features
    assert dataset.video_names("train") == [f"v{i:04d}" for i in range(6)]
    assert store.array.shape == (120, 5)
    assert torch.equal(store["v0001"], store["v0004"])
    assert not torch.equal(store["v0001"], store["v0002"])
    truth = dataset.truth("train")
    assert truth.groupby("video").size().tolist() == [3] * 6
    assert (truth["t_start"] < truth["t_end"]).all()
    assert (truth["t_end"] <= 40 * 16 / 25).all()
    assert (dataset.video_labels("train").sum(1) == 1).all()
    curves = curves_dataset(6, 100, 20, rng)
    found = propose(CurvesAreFeatures(), curves, "test", GenerationSettings())
    assert set(found["video"]) == set(curves.video_names("test"))
    durations_s = curves.videos["duration_s"].loc[found["video"]].to_numpy()
    assert (found["t_end"] <= durations_s + 1e-6).all()
