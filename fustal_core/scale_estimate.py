"""What a run on real ActivityNet 1.3 would cost: worked out from what was measured at few channels.

A training step, or a video, costs what its networks cost at the real number of channels, and a rest
that channels do not change: what the same step cost at few channels less its networks' share there.
The student's steps had larger batches there, so their rest is a little too large.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from fustal_core.config import Settings
from fustal_core.scale_passes import Pass, Shape

COLUMNS = [
    "stage",
    "units",
    "unit",
    "gflop",
    "gb",
    "products_s",
    "network_s",
    "rest_s",
    "hours",
    "why",
]
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Corpus:
    """A real data set, as far as cost depends on it.

    Attributes:
        name: of it.
        train_videos, test_videos: with labels.
        classes, channels: C and D.
        video_s: mean duration of a video in seconds, about.
        step_s: between two snippets.
    """

    name: str
    train_videos: int
    test_videos: int
    classes: int
    channels: int
    video_s: float
    step_s: float

    @property
    def videos(self) -> int:
        return self.train_videos + self.test_videos

    @property
    def shape(self) -> Shape:
        """What the networks see of it."""
        return Shape(self.channels, self.classes, round(self.video_s / self.step_s))

    @property
    def features_gb(self) -> float:
        """Features in float32, 10^9 bytes."""
        snippets = self.videos * self.video_s / self.step_s
        return snippets * self.channels * FLOAT32_BYTES / 1e9


ACTIVITYNET = Corpus("ActivityNet 1.3", 10_024, 4_926, 200, 2048, 120.0, 16 / 25)


@dataclass(frozen=True)
class Rates:
    """What a machine can do at best.

    Attributes:
        text: a line about it.
        gflops: of float32 matrix products, 10^9 operations a second.
        copy_gb_s: of copies in memory, 10^9 bytes read or written a second.
    """

    text: str
    gflops: float
    copy_gb_s: float


@dataclass(frozen=True)
class Measured:
    """What the estimate is worked out from.

    Attributes:
        seconds: of the CPU, for each part at the largest size, at few channels.
        gb_per_1000_videos: growth of the peak of memory in each part.
        train_videos, test_videos: at that size.
        settings: of that size.
        passes: through its networks, by kind.
        rates: of the machine where all of it was measured.
    """

    seconds: Mapping[str, float]
    gb_per_1000_videos: Mapping[str, float]
    train_videos: int
    test_videos: int
    settings: Settings
    passes: Mapping[str, Pass]
    rates: Rates


@dataclass(frozen=True)
class Stage:
    """A stage of a run: how many units, what one has to compute, and what to know about it.

    Attributes:
        name: of the part that was measured.
        units, unit: how many there are, and of what.
        why: in words.
        networks: passes of a unit, by kind.
        more: how many times as much of the rest as in the measurement.
    """

    name: str
    units: int
    unit: str
    why: str
    networks: Mapping[str, int] = field(default_factory=dict)
    more: float = 1.0


def estimate(
    measured: Measured,
    settings: Settings,
    passes: Mapping[str, Pass],
    corpus: Corpus = ACTIVITYNET,
) -> pd.DataFrame:
    """Hours of one CPU core for each stage, on the machine where all was measured.

    Args:
        measured: at few channels.
        settings: of the run on the corpus.
        passes: through the networks at its size.
        corpus: whose number of videos counts.

    Returns:
        A row for each stage: ``stage``, ``units`` (how many), ``unit``, ``gflop`` and ``gb``
        (of a unit: 10^9 operations, and bytes that are read and written),
        ``products_s`` (at the machine's rate of matrix products), ``network_s`` and ``rest_s``
        (seconds of a unit), ``hours`` (of all), ``why``.
    """
    more = settings.student.max_detections / measured.settings.student.max_detections
    stages = [*_generator_stages(settings, corpus), *_student_stages(settings, corpus, more)]
    return pd.DataFrame([_row(measured, stage, passes) for stage in stages], columns=COLUMNS)


def _generator_stages(settings: Settings, corpus: Corpus) -> list[Stage]:
    own, train = settings.generation, corpus.train_videos
    rounds = own.iterations * own.batch_size / train
    steps = f"{own.iterations} steps of {own.batch_size} videos: {rounds:.1f} rounds of the data"
    cut = f"T' = {own.length}; candidates are cut from curves, whatever the channels are"
    return [
        Stage("load", corpus.videos, "video", "files opened, checked and copied"),
        Stage("train the generator", own.iterations, "step", steps, {"generator step": 1}),
        Stage("propose", corpus.videos, "video", cut, {"generator video": 1}),
        Stage("score overlaps", train, "video", "channels play no part"),
        Stage("select", train, "video", "channels play no part"),
    ]


def _student_stages(settings: Settings, corpus: Corpus, more: float) -> list[Stage]:
    own, test = settings.student, corpus.test_videos
    epoch = math.ceil(corpus.train_videos / own.batch_size)
    before, after = own.switch_epoch, own.epochs - own.switch_epoch
    first = f"{before} epochs of {epoch} steps of {own.batch_size} videos"
    second = f"{after} epochs; the average labels every batch before it is trained on"
    search = "with soft-NMS of an untrained student's candidates, more than a trained one has"
    grows = f"grows with the detections: {more:g} times as many a video"
    step = {"student step": 1}
    return [
        Stage("train the student", before * epoch, "step", first, step),
        Stage("distil the student", after * epoch, "step", second, step | {"student batch": 1}),
        Stage("detect", test, "video", search, {"student video": 1}, more=more),
        Stage("evaluate", test, "video", grows, more=more),
        Stage("write the results", test, "video", "the same", more=more),
    ]


def _row(measured: Measured, stage: Stage, passes: Mapping[str, Pass]) -> dict[str, Any]:
    copy_gb_s = measured.rates.copy_gb_s
    needed = [(count, passes[kind]) for kind, count in stage.networks.items()]
    spent = sum(n * measured.passes[kind].cost_s(copy_gb_s) for kind, n in stage.networks.items())
    own_s = measured.seconds[stage.name] / _units(measured, stage.name)
    gflop = sum(count * one.gflop for count, one in needed)
    network_s = sum(count * one.cost_s(copy_gb_s) for count, one in needed)
    rest_s = stage.more * max(own_s - spent, 0.0)
    return {
        "stage": stage.name,
        "units": stage.units,
        "unit": stage.unit,
        "gflop": gflop,
        "gb": sum(count * (one.gb + one.optimiser_gb) for count, one in needed),
        "products_s": gflop / measured.rates.gflops,
        "network_s": network_s,
        "rest_s": rest_s,
        "hours": stage.units * (network_s + rest_s) / 3600,
        "why": stage.why,
    }


def _units(measured: Measured, stage: str) -> int:
    """How many units of a stage the measurement had."""
    settings, videos = measured.settings, measured.train_videos
    if stage == "load":
        return videos + measured.test_videos
    if stage == "train the generator":
        return settings.generation.iterations
    if stage.endswith("the student"):
        own = settings.student
        first = own.switch_epoch
        epochs = first if stage.startswith("train") else own.epochs - first
        return max(1, epochs) * math.ceil(videos / own.batch_size)
    return measured.test_videos if stage in ("detect", "evaluate", "write the results") else videos


def storage(measured: Measured, settings: Settings, corpus: Corpus = ACTIVITYNET) -> pd.DataFrame:
    """Disk and memory that a run on the corpus needs: ``what``, ``gb``, ``why``.

    What detections take follows from how the peak of "evaluate" grew with their number.
    """
    features_gb, budget_gb = corpus.features_gb, settings.features.memory_gb
    snippets = corpus.video_s / corpus.step_s
    mapped = features_gb > budget_gb
    count = corpus.test_videos * settings.student.max_detections
    per_video = measured.test_videos / (measured.train_videos + measured.test_videos)
    per_1000 = 1000 * per_video * measured.settings.student.max_detections
    detections_gb = measured.gb_per_1000_videos["evaluate"] * count / per_1000
    rows = [
        (
            "features on disk",
            features_gb,
            f"{corpus.videos:,} videos x {snippets:.0f} snippets x {corpus.channels} channels x "
            f"{FLOAT32_BYTES} bytes; half of it in float16",
        ),
        (
            "their mapped file in the run directory",
            features_gb if mapped else 0.0,
            f"they exceed features.memory_gb = {budget_gb:g}" if mapped else "they fit in memory",
        ),
        (
            "features in memory",
            0.0 if mapped else features_gb,
            "mapped pages are given back" if mapped else "read once",
        ),
        (
            "detections while they are evaluated, at most",
            detections_gb,
            f"{count:,} rows; {measured.gb_per_1000_videos['evaluate'] / per_1000 * 1e9:.0f} bytes "
            "each, tables of all thresholds included",
        ),
    ]
    return pd.DataFrame(rows, columns=["what", "gb", "why"])
