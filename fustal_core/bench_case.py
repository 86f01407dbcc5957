"""One part of the benchmark at one size: what is timed, beside what, and how its time is taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, is_dataclass
from math import prod
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fustal_core.progress import Progress

AT_LEAST_S = 0.5
"""A part is repeated until it took so long, from ``LEAST_REPEATS`` to ``MOST_REPEATS`` times."""
LEAST_REPEATS, MOST_REPEATS = 3, 20
LONG_S = 5.0
"""What took so long is not repeated for the sake of ``LEAST_REPEATS``."""


@dataclass(frozen=True)
class Case:
    """A part of the benchmark, ready to run.

    Attributes:
        part, size: what is timed, and how much of it, in words.
        ours: the work; what it gives back is compared with the reference's.
        steps: in place of ``ours``, a training that calls its progress after every step; the first
            step is not timed. Only steps are timed, not what comes before and after them.
        reference: the same work in plain form.
        limited_by: what the part cannot be faster than; "" where that cannot be told.
        reads: arrays, tensors and frames that the part must read, where memory is the limit; what it
            must write besides is its result.
        copied_bytes: in place of ``reads``: bytes that the part must read and write at least.
        device: "cpu" or "cuda", where the work is done.
        target: what the study wants of it.
    """

    part: str
    size: str
    ours: Callable[[], Any] | None = None
    steps: Callable[[Progress], Any] | None = None
    reference: Callable[[], Any] | None = None
    limited_by: Literal["", "matrix products", "memory"] = ""
    reads: tuple[Any, ...] = ()
    copied_bytes: float = np.nan
    device: str = "cpu"
    target: str = ""


@dataclass(frozen=True)
class Timing:
    """How long a case takes.

    Attributes:
        seconds: of the fastest repeat or step.
        result: of the last repeat; None for a training.
        flops: floating point operations of the matrix products and convolutions of one repeat or
            step, two for a multiplication with its addition; NaN if they were not counted.
    """

    seconds: float
    result: Any = None
    flops: float = np.nan


def time_case(case: Case, *, at_least_s: float = AT_LEAST_S) -> Timing:
    """Time what is ours of a case; operations are counted where matrix products limit it."""
    counter = _operations() if case.limited_by == "matrix products" else None
    if case.steps is not None:
        return _time_steps(case, counter)
    flops = np.nan
    if counter is not None:
        with counter:  # counting takes time: this repeat is one to warm up
            case.ours()
        flops = float(counter.get_total_flops())
    seconds, result = time_calls(case.ours, case.device, at_least_s=at_least_s)
    return Timing(seconds, result, flops)


def _operations() -> FlopCounterMode:
    """Counts those of all products; torch's own does not know how many oneDNN's have."""

    def forward(x: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
        return 2 * prod(x) * weight[0]

    def backward(
        x: Sequence[int], _: Any, weight: Sequence[int], asked: Sequence[bool], **__: Any
    ) -> int:
        return sum(asked[:2]) * forward(x, weight)  # of x and of the weight, not of the bias

    of_product, of_gradients = torch.ops.aten.mkldnn_linear, torch.ops.aten.mkldnn_linear_backward
    own = {of_product: forward, of_gradients: backward}
    return FlopCounterMode(display=False, custom_mapping=own)


def time_calls(
    work: Callable[[], Any], device: str = "cpu", *, at_least_s: float = AT_LEAST_S
) -> tuple[float, Any]:
    """Seconds of the fastest of a few calls, and the result of the last."""
    taken: list[float] = []
    while len(taken) < MOST_REPEATS and (
        sum(taken) < at_least_s or (len(taken) < LEAST_REPEATS and sum(taken) < LONG_S)
    ):
        wait_for(device)
        start = time.perf_counter()
        result = work()
        wait_for(device)
        taken.append(time.perf_counter() - start)
    return min(taken), result


def _time_steps(case: Case, counter: FlopCounterMode | None) -> Timing:
    """Seconds of the fastest step of a training; the first one is counted instead of timed."""
    ends: list[tuple[int, float]] = []
    with ExitStack() as first_step:
        if counter is not None:
            first_step.enter_context(counter)

        def note_end(done: int, total: int, note: str) -> None:
            first_step.close()
            wait_for(case.device)
            ends.append((done, time.perf_counter()))

        case.steps(note_end)
    done, at = np.array(ends).T
    seconds = float((np.diff(at) / np.diff(done)).min())
    return Timing(seconds, flops=float(counter.get_total_flops()) if counter else np.nan)


def least_traffic(case: Case, result: Any) -> float:
    """Bytes that a part must read and write at least: its inputs once and its result once."""
    if not case.reads:
        return case.copied_bytes
    return float(sum(part.nbytes for part in _arrays([case.reads, result])))


def wait_for(device: str) -> None:
    """Wait until a GPU has done what it was told to do: work is only queued there."""
    if device == "cuda":
        torch.cuda.synchronize()


def difference(ours: Any, reference: Any) -> float:
    """Largest absolute difference of two results; infinite if their parts have other shapes
    or hold what is no number.

    Results are arrays, tensors, frames of numbers, or sequences, mappings and dataclasses of them;
    parts with names are matched by these.
    """
    pairs = [list(_arrays(result)) for result in (ours, reference)]
    if [x.shape for x in pairs[0]] != [x.shape for x in pairs[1]]:
        return float("inf")
    worst = np.max([np.abs(a - b).max(initial=0.0) for a, b in zip(*pairs, strict=True)])
    return float("inf") if np.isnan(worst) else float(worst)


def _arrays(result: Any) -> Iterator[np.ndarray]:
    if isinstance(result, Tensor):
        yield result.detach().cpu().numpy()
    elif isinstance(result, (np.ndarray, pd.DataFrame)):
        yield np.asarray(result)
    else:
        for part in _parts_of(result):
            yield from _arrays(part)


def _parts_of(result: Any) -> list[Any]:
    named = vars(result) if is_dataclass(result) else result
    return [named[key] for key in sorted(named)] if isinstance(named, Mapping) else list(named)
