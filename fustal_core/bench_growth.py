"""How the time of each part grows with its sizes: times at a few sizes, and the exponent that fits."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fustal_core.bench_case import Case, time_case
from fustal_core.bench_data import Inputs, Sizes
from fustal_core.bench_generators import (
    alignment_case,
    expansion_case,
    generator_step_case,
    loss_case,
    mining_case,
    pooling_case,
)
from fustal_core.bench_parts import (
    all_proposals_case,
    evaluator_case,
    iou_score_case,
    loading_case,
    proposals_case,
)
from fustal_core.bench_students import (
    ema_labels_case,
    inference_case,
    soft_nms_case,
    student_step_case,
)

AT_LEAST_S = 0.15
"""Each size is repeated until it took so long, or for ``bench_case.LEAST_REPEATS``."""

SMALL = Sizes(
    batch=8,
    length=400,
    channels=128,
    hidden=256,
    student_videos=4,
    student_length=512,
    student_channels=128,
    student_width=96,
    student_mlp=144,
    student_steps=2,
    dataset_snippets=200,
    detections=12_000,
    videos=200,
    scored_videos=50,
    nms_segments=100,
    feature_channels=256,
)
"""The sizes that do not grow: those of the trainings fit a laptop."""


@dataclass(frozen=True)
class Growth:
    """A part, and one of its sizes that grows.

    Attributes:
        make_case: of the part.
        field: of ``Sizes``.
        values: that it takes, rising.
        along: the size in words.
        base: all other sizes.
    """

    make_case: Callable[[Inputs], Case]
    field: str
    values: tuple[int, ...]
    along: str
    base: Sizes = SMALL


@dataclass(frozen=True)
class Fit:
    """``seconds = factor * size ** exponent``, with the standard error of the exponent."""

    exponent: float
    standard_error: float
    factor: float


def doublings(first: int, count: int = 5) -> tuple[int, ...]:
    """``count`` sizes, each twice the one before."""
    return tuple(first * 2**i for i in range(count))


GROWTHS = (
    Growth(generator_step_case, "length", doublings(100), "length (snippets)"),
    Growth(generator_step_case, "batch", doublings(2), "videos"),
    Growth(loss_case, "length", doublings(200), "length (snippets)"),
    Growth(loss_case, "batch", doublings(4), "videos"),
    Growth(mining_case, "length", doublings(200), "length (snippets)"),
    Growth(mining_case, "batch", doublings(4), "videos"),
    Growth(proposals_case, "snippets", doublings(200), "length (snippets)"),
    Growth(proposals_case, "shown", (1, 2, 4, 8, 16), "classes"),
    Growth(all_proposals_case, "dataset_videos", doublings(10), "videos"),
    Growth(iou_score_case, "proposals", doublings(50), "proposals"),
    Growth(student_step_case, "student_length", doublings(256, 4), "length (snippets)"),
    Growth(student_step_case, "student_videos", doublings(1, 4), "videos"),
    Growth(ema_labels_case, "student_videos", doublings(1, 4), "videos"),
    Growth(inference_case, "student_length", doublings(256, 4), "length (snippets)"),
    Growth(inference_case, "student_videos", doublings(1, 4), "videos"),
    Growth(soft_nms_case, "nms_segments", doublings(50), "proposals"),
    Growth(soft_nms_case, "nms_groups", doublings(20), "groups"),
    Growth(evaluator_case, "detections", doublings(6000), "detections"),
    Growth(evaluator_case, "classes", doublings(10), "classes"),
    Growth(evaluator_case, "videos", doublings(50), "videos"),
    Growth(alignment_case, "lcs_length", doublings(10), "candidates"),
    Growth(alignment_case, "pairs", doublings(8), "pairs"),
    Growth(expansion_case, "whole_snippets", doublings(1000), "length (snippets)"),
    Growth(pooling_case, "rois", doublings(250), "proposals"),
    Growth(loading_case, "feature_videos", doublings(20), "videos"),
)


def fit_exponent(sizes: Sequence[float], seconds: Sequence[float]) -> Fit:
    """Least squares of log seconds on log size.

    Args:
        sizes, seconds: of at least three measurements, all > 0.

    Raises:
        ValueError: fewer than three: the standard error has no meaning.
    """
    if len(sizes) < 3:
        raise ValueError(f"expected at least three sizes, got {len(sizes)}")
    (slope, intercept), covariance = np.polyfit(np.log(sizes), np.log(seconds), 1, cov=True)
    return Fit(float(slope), float(np.sqrt(covariance[0, 0])), float(np.exp(intercept)))


def growth_row(growth: Growth, device: str = "cpu") -> dict[str, Any]:
    """Time a part at each size.

    Returns:
        ``part``, ``along``, ``device``, ``sizes`` and ``seconds`` (lists), ``exponent``,
        ``standard_error``, ``factor`` (:class:`Fit`).
    """
    seconds = []
    for value in (growth.values[0], *growth.values):  # once to warm up
        sizes = replace(growth.base, **{growth.field: value})
        with tempfile.TemporaryDirectory() as folder:
            case = growth.make_case(Inputs(sizes, np.random.default_rng(0), device, Path(folder)))
            seconds.append(time_case(case, at_least_s=AT_LEAST_S).seconds)
    seconds = seconds[1:]
    return {
        "part": case.part,
        "along": growth.along,
        "device": case.device,
        "sizes": list(growth.values),
        "seconds": seconds,
        **vars(fit_exponent(growth.values, seconds)),
    }
