"""The hot parts of the study, each timed in one run next to a plain reference implementation, and next
to what the machine could do at best, measured in the same run.

``ratio`` is the reference's time over ours; where ``agree`` is given, it is the largest difference of
the two results. ``limit_s`` is the time that the part's matrix products alone would take at the rate of
the machine's fastest one, or else reading its inputs and writing its results once at the machine's copy
rate; ``times_limit`` is ours over that. What searches, sorts, compares all pairs or multiplies matrices
on its way lies far above the second. Times are wall clock, the best of a few repeats.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fustal_core.bench_case import Case, difference, least_traffic, time_calls, time_case
from fustal_core.bench_data import Inputs, Sizes
from fustal_core.bench_generators import (
    alignment_case,
    expansion_case,
    generator_step_case,
    loss_case,
    mining_case,
    pooling_case,
)
from fustal_core.bench_growth import Growth, growth_row
from fustal_core.bench_machine import Machine, check_device, measure_machine, peak_memory_gb
from fustal_core.bench_parts import (
    all_proposals_case,
    evaluator_case,
    iou_score_case,
    loading_case,
    proposals_case,
    simulator_case,
)
from fustal_core.bench_students import (
    ema_labels_case,
    inference_case,
    soft_nms_case,
    student_loss_case,
    student_network_case,
    student_step_case,
)
from fustal_core.precision import tf32_allowed
from fustal_core.progress import Progress

MakeCase = Callable[[Inputs], Case]

COLUMNS = [
    "part",
    "size",
    "device",
    "ours_s",
    "reference_s",
    "ratio",
    "agree",
    "limited_by",
    "limit_s",
    "times_limit",
    "target",
]
PARTS: tuple[MakeCase, ...] = (
    generator_step_case,
    loss_case,
    mining_case,
    proposals_case,
    all_proposals_case,
    iou_score_case,
    student_step_case,
    student_loss_case,
    student_network_case,
    ema_labels_case,
    inference_case,
    soft_nms_case,
    evaluator_case,
    alignment_case,
    expansion_case,
    pooling_case,
    loading_case,
    simulator_case,
)


@dataclass(frozen=True)
class Benchmark:
    """What was measured in one run.

    Attributes:
        machines: the CPU, and the GPU if it was asked for.
        parts: one row per part, ``COLUMNS``: seconds of ours and of the reference, their ratio, the
            largest difference of their results, what limits the part, seconds at that limit, ours over
            it, and the target that the study set itself. NaN where there is nothing to tell.
        growth: one row per part and size that it grows along (``growth_row``); empty if not measured.
        peak_memory_gb: by device, of this process so far, 10^9 bytes.
    """

    machines: dict[str, Machine]
    parts: pd.DataFrame
    growth: pd.DataFrame
    peak_memory_gb: dict[str, float]


def run_benchmark(
    progress: Progress | None = None,
    sizes: Sizes | None = None,
    *,
    device: str = "cpu",
    parts: tuple[MakeCase, ...] = PARTS,
    growths: tuple[Growth, ...] = (),
    machine: Callable[[str], Machine] = measure_machine,
) -> Benchmark:
    """Time every part, and how parts grow.

    Args:
        progress: called as ``progress(done, total, what comes next)``.
        sizes: the study's own if None, with more steps of a training on a GPU, where they are short.
        device: "cpu", or "cuda" for what torch does; the rest is measured on the CPU all the same.
        parts: what is timed.
        growths: what is timed at several sizes, usually ``bench_growth.GROWTHS``.
        machine: measures a device.

    Raises:
        SettingsError: no such device here.
    """
    check_device(device)
    sizes = sizes or (Sizes(steps=20, student_steps=20) if device == "cuda" else Sizes())
    say = progress or (lambda done, total, note: None)
    total = 1 + len(parts) + len(growths)
    say(0, total, "what the machine can do")
    machines = {name: machine(name) for name in dict.fromkeys(["cpu", device])}
    rows, grown = [], []
    with tf32_allowed(False):
        for done, make_case in enumerate(parts, start=1):
            say(done, total, _name(make_case))
            rows.append(_part_row(make_case, sizes, device, machines))
        for done, growth in enumerate(growths, start=1 + len(parts)):
            say(done, total, f"growth of {_name(growth.make_case)} along {growth.along}")
            grown.append(growth_row(growth, device))
    say(total, total, "")
    return Benchmark(
        machines,
        pd.DataFrame(rows, columns=COLUMNS),
        pd.DataFrame(grown),
        {name: peak_memory_gb(name) for name in machines},
    )


def _name(make_case: MakeCase) -> str:
    return make_case.__name__.removesuffix("_case").replace("_", " ")


def _part_row(
    make_case: MakeCase, sizes: Sizes, device: str, machines: dict[str, Machine]
) -> dict[str, Any]:
    """One row of the table: a part and its reference, timed; what was made for them is let go."""
    with tempfile.TemporaryDirectory() as folder:
        case = make_case(Inputs(sizes, np.random.default_rng(0), device, Path(folder)))
        timing = time_case(case)
        reference_s, agree = np.nan, np.nan
        if case.reference is not None:
            reference_s, expected = time_calls(case.reference, case.device)
            if timing.result is not None:
                agree = difference(timing.result, expected)
    traffic = least_traffic(case, timing.result)
    limit_s = machines[case.device].limit_s(case.limited_by, timing.flops, traffic)
    values = (
        case.part,
        case.size,
        case.device,
        timing.seconds,
        reference_s,
        reference_s / timing.seconds,
        agree,
        case.limited_by,
        limit_s,
        timing.seconds / limit_s,
        case.target,
    )
    return dict(zip(COLUMNS, values, strict=True))
