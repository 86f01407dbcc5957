"""What the networks of a run have to compute at a given size: counted without computing it, and timed.

Operations and bytes are counted on torch's device without memory ("meta"), so that the size does not
matter. Two operations are a multiplication and its addition; bytes are those that every operation but
the views reads and writes, as if no two of them were fused.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from fustal_core.config import Settings
from fustal_core.generator import CrossVideoGenerator
from fustal_core.stage_settings import StudentSettings
from fustal_core.student import TriDet, make_grid
from fustal_core.student_inference import find_candidates, suppress
from fustal_core.trident_reach import BoundaryRows, boundary_rows

OPTIMISER_PASSES = 7
"""Over the weights, by Adam: weight, gradient and two moments read, weight and moments written."""
EMA_PASSES = 3
KINDS = ("generator step", "generator video", "student step", "student batch", "student video")
"""A step is a forward and a backward pass of a batch; the others go forward only. A student's video is
searched, too. The boundary heads run around labels in a step, else they are counted everywhere."""
LABELS, POSITIONS = 4, 3
"""In each video of a student's step, as in the default run's crops; and positions that learn each."""


@dataclass(frozen=True)
class Shape:
    """Size of the data that networks see.

    Attributes:
        channels, classes: D and C.
        snippets: of a video, for a student that does not pad to its ``max_length``.
    """

    channels: int
    classes: int
    snippets: int


@dataclass(frozen=True)
class Work:
    """What a training step, or one video through a trained network, computes.

    Attributes:
        gflop: 10^9 operations of matrix products and convolutions.
        gb: 10^9 bytes read and written.
        optimiser_gb: the same by the optimiser and the average of the weights.
    """

    gflop: float
    gb: float
    optimiser_gb: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Pass(Work):
    """The same, with the time it took.

    Attributes:
        seconds: without the optimiser.
    """

    seconds: float

    def cost_s(self, copy_gb_s: float) -> float:
        """Seconds that it took, and those of the optimiser at a machine's rate."""
        return self.seconds + self.optimiser_gb / copy_gb_s


def count_pass(kind: str, settings: Settings, shape: Shape) -> Work:
    """Operations and bytes of one of ``KINDS``, without those of a search."""
    work, weights_gb = _make(kind, settings, shape, "meta")
    traffic, counter = _Traffic(), FlopCounterMode(display=False)
    with traffic, counter:
        work()
    return Work(counter.get_total_flops() / 1e9, traffic.num_bytes / 1e9, weights_gb)


def all_passes(settings: Settings, shape: Shape) -> dict[str, Pass]:
    """Every one of ``KINDS``, counted, and timed on this machine's CPU."""
    found = {kind: count_pass(kind, settings, shape) for kind in KINDS}
    return {
        kind: Pass(**vars(counted), seconds=time_pass(kind, settings, shape))
        for kind, counted in found.items()
    }


def time_pass(kind: str, settings: Settings, shape: Shape) -> float:
    """Seconds of the CPU for one of ``KINDS``, from random features: the faster of two.

    A video's candidates, all alike in an untrained network, are suppressed as in a real inference:
    more than a trained network has. A step is without its optimiser.
    """
    work, _ = _make(kind, settings, shape, "cpu")
    seconds = []
    for _ in range(2):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def _make(
    kind: str, settings: Settings, shape: Shape, device: str
) -> tuple[Callable[[], Any], float]:
    """The work of a kind, and GB that the optimiser and the average of a step move."""
    if kind not in KINDS:
        raise ValueError(f"expected one of {', '.join(KINDS)}, got {kind!r}")
    network, unit = kind.split()
    make = _generator if network == "generator" else _student
    model, work = make(settings, shape, unit, device)
    passes = OPTIMISER_PASSES + (EMA_PASSES if network == "student" else 0)
    weights_gb = sum(p.nbytes for p in model.parameters()) / 1e9
    return work, weights_gb * passes if unit == "step" else 0.0


def _generator(
    settings: Settings, shape: Shape, unit: str, device: str
) -> tuple[nn.Module, Callable[[], Any]]:
    own = settings.generation
    with torch.device(device):
        model = CrossVideoGenerator(shape.channels, shape.classes, own.hidden_channels).eval()
        features = torch.rand(1 if unit == "video" else own.batch_size, own.length, shape.channels)

    def step() -> None:
        output = model(features)
        (output.embeddings.sum() + output.cas.sum()).backward()

    return model, step if unit == "step" else torch.no_grad()(lambda: model(features))


def _student(
    settings: Settings, shape: Shape, unit: str, device: str
) -> tuple[nn.Module, Callable[[], Any]]:
    own = settings.student
    multiple = 2 ** (own.levels - 1)
    length = own.max_length if own.global_mean == "padded" else shape.snippets
    length = -(-length // multiple) * multiple
    with torch.device(device):
        model = TriDet(shape.channels, shape.classes, own).eval()
        features = torch.rand(1 if unit == "video" else own.batch_size, length, shape.channels)
        mask = torch.ones(features.shape[:2], dtype=torch.bool)
    rows = _rows_of_labels(own, len(features), length, device) if unit == "step" else None

    def step() -> None:
        output = model.locate(model.classify(features, mask), rows)
        parts = (output.class_logits, output.start_logits, output.end_logits, output.offsets)
        sum(part.sum() for part in parts).backward()

    @torch.no_grad()
    def search() -> None:
        if unit == "video" and device != "meta":  # how many candidates there are depends on values
            suppress(find_candidates(model, features, mask, own), own)
        else:
            model(features, mask)

    return model, step if unit == "step" else search


def _rows_of_labels(
    settings: StudentSettings, videos: int, length: int, device: str
) -> BoundaryRows:
    """Where the boundary heads run for labels evenly spread over the first level."""
    grid = make_grid(length, settings.levels, torch.device("cpu"))
    decoded = torch.zeros(videos, len(grid.level), dtype=torch.bool)
    every = -(-length // LABELS)
    for offset in range(POSITIONS):
        decoded[:, offset:length:every] = True
    return boundary_rows(decoded, settings.bins, device)


class _Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        returned = [value.alias_info for value in func._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in returned)
        if not is_view:
            leaves = tree_leaves((args, kwargs, result))
            self.num_bytes += sum(x.nbytes for x in leaves if isinstance(x, Tensor))
        return result
