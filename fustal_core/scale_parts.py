"""The parts of the pipeline at one size of the data, each with its time and its peak of memory.

Data are simulated in the shape of ActivityNet, written as a data folder and read as one, so that
features beyond the budget (``features.memory_gb``) are mapped from a file, as those of real data are.
Models are small: what is measured here is how cost grows with the number of videos.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch

from fustal_core.bench_machine import peak_memory_gb
from fustal_core.config import Settings, make_settings
from fustal_core.data import Dataset, load_dataset
from fustal_core.generation import generator_task, propose
from fustal_core.generator_training import train
from fustal_core.metrics import ACTIVITYNET_TIOU, map_summary
from fustal_core.quality import pseudo_label_quality
from fustal_core.results import write_detections
from fustal_core.selection import score_proposals, select
from fustal_core.simulated_folder import write_simulation
from fustal_core.simulator import plan_simulation
from fustal_core.stages import one_thread
from fustal_core.student import TriDet
from fustal_core.student_inference import detect
from fustal_core.student_training import train_student

Result = TypeVar("Result")

TRAIN_VIDEOS, TEST_VIDEOS = 200, 213
"""Of THUMOS'14: size 1."""
REDUCED: dict[str, Any] = {
    "constants": "activitynet13",
    "simulation.feature_dim": 16,
    "features.memory_gb": 0.05,
    "generation.hidden_channels": 32,
    "student.width": 16,
    "student.mlp_width": 24,
    "student.batch_size": 32,
    "student.pre_nms_top_k": 50,
    "student.max_detections": 100,
    "student.epochs": 2,
    "student.switch_epoch": 1,
    "student.evaluate_every": 0,
}
"""Few channels, large batches, and one epoch of each phase of the student, so that 50 times THUMOS'14
takes minutes; the rest is that of profile ``quick``."""

COLUMNS = [
    "size",
    "videos",
    "snippets",
    "part",
    "seconds",
    "cpu_seconds",
    "seconds per 1000 videos",
    "peak_gb",
    "features_gb",
    "budget_gb",
]
AT_REST = "imports"
"""The row of a process that has done nothing of interest yet."""


def settings_of_size(size: float, overrides: dict[str, Any] | None = None) -> Settings:
    """Settings of a measurement with ``size`` times as many videos as THUMOS'14 has.

    The generator takes one step per batch of training videos, so its cost can grow no faster than
    they do.

    Args:
        size: above 0.
        overrides: settings by dotted name, besides ``REDUCED``.

    Raises:
        SettingsError: unknown setting or bad value; fewer videos than classes.
    """
    videos = {
        "simulation.train_videos": round(TRAIN_VIDEOS * size),
        "simulation.test_videos": round(TEST_VIDEOS * size),
    }
    settings = make_settings(overrides=REDUCED | (overrides or {}) | videos)
    steps = math.ceil(videos["simulation.train_videos"] / settings.generation.batch_size)
    generation = settings.generation.model_copy(update={"iterations": steps})
    return settings.model_copy(update={"generation": generation})


class Meter:
    """Times parts one after the other, with the most memory that each one held."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def __call__(self, part: str, work: Callable[[], Result]) -> Result:
        """Do a part and note what it took."""
        forget_peak()
        start, start_cpu = time.perf_counter(), time.process_time()
        result = work()
        times = {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - start_cpu,
        }
        self.rows.append({"part": part, **times, "peak_gb": peak_since_gb()})
        return result


def forget_peak() -> None:
    """Let the peak of this process's memory begin anew; only Linux can."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return


def peak_since_gb() -> float:
    """The most memory held since :func:`forget_peak`, GB (10^9 bytes); elsewhere than on Linux ever.

    Pages of mapped files that were touched count, until they are given back.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return peak_memory_gb()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e9


def measure_size(size: float, folder: Path, overrides: dict[str, Any] | None = None) -> list[dict]:
    """Run all parts at one size, on one thread, in this process.

    Peaks are this process's: one that has done nothing else yet tells the most.

    Args:
        size: in THUMOS'14's numbers of videos, above 0.
        folder: empty, for the data; stays.
        overrides: settings by dotted name.

    Returns:
        A row for each part, in their order, with ``COLUMNS``.
    """
    settings, meter = settings_of_size(size, overrides), Meter()
    with one_thread():
        meter(AT_REST, _warm_up)
        dataset = _measure_data(meter, settings, folder)
        labels = _measure_labels(meter, settings, dataset)
        _measure_student(meter, settings, dataset, labels, folder)
    store, videos = dataset.generator_features, len(dataset.videos)
    common = {
        "size": size,
        "videos": videos,
        "snippets": len(store.array),
        "features_gb": store.nbytes / 1e9,
        "budget_gb": settings.features.memory_gb,
    }
    for row in meter.rows:
        row |= common | {"seconds per 1000 videos": 1000 * row["seconds"] / videos}
    return [{column: row[column] for column in COLUMNS} for row in meter.rows]


def _warm_up() -> None:
    """What torch imports when it is first needed."""
    weight = torch.zeros(1, requires_grad=True)
    for make in (torch.optim.Adam, torch.optim.AdamW):
        weight.sum().backward()
        make([weight]).step()


def _measure_data(meter: Meter, settings: Settings, folder: Path) -> Dataset:
    data = folder / "data"

    def simulate() -> None:
        write_simulation(data, plan_simulation(settings.simulation, settings.seed), "own")

    meter("simulate", simulate)
    return meter("load", lambda: load_dataset(data, settings.features, cache=folder / "cache"))


def _measure_labels(meter: Meter, settings: Settings, dataset: Dataset) -> pd.DataFrame:
    """Generation and selection; the selected labels."""
    own, names = settings.generation, dataset.video_names("train")
    trained = meter(
        "train the generator",
        lambda: train(generator_task(own, dataset, settings.seed), own, settings.seed),
    )
    found = meter("propose", lambda: propose(trained.model, dataset, "train", own))
    scored = meter("score overlaps", lambda: score_proposals(found, settings.selection))
    selected = meter("select", lambda: select(scored, settings.selection))
    durations_s = dataset.videos["duration_s"].loc[names]
    truth = dataset.truth("train")
    meter("judge the labels", lambda: pseudo_label_quality(selected, truth, durations_s))
    return selected


def _measure_student(
    meter: Meter, settings: Settings, dataset: Dataset, labels: pd.DataFrame, folder: Path
) -> None:
    """An epoch on the labels, an epoch on EMA labels, detection, evaluation, and the result file."""
    student, checkpoint = settings.student, folder / "student.pt"
    first = student.model_copy(update={"epochs": student.switch_epoch})

    def learn() -> None:
        train_student(first, dataset, labels, settings.seed, checkpoint=checkpoint)

    def distil() -> TriDet:
        return train_student(student, dataset, labels, settings.seed, initial=checkpoint).model

    meter("train the student", learn)
    model = meter("distil the student", distil)
    found = meter("detect", lambda: detect(model, dataset, "test", student))
    tiou = settings.evaluation.further_tiou or ACTIVITYNET_TIOU
    truth = dataset.truth("test")
    meter("evaluate", lambda: map_summary(found, truth, tiou))
    names = dataset.video_names("test")
    path = folder / "detections.json"
    meter("write the results", lambda: write_detections(path, found, "scale", names))
