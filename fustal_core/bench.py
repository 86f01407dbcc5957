"""The hot parts of the study, each timed in one run next to a plain reference implementation.

``ratio`` is the reference's time over ours; where ``agree`` is given, it is the largest difference of
the two results. Times are wall clock, the best of a few repeats for what takes milliseconds.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fustal_core.alignment import (
    cosine_table,
    fine_grained_sequence_distance,
    longest_common_subsequence,
)
from fustal_core.bench_data import alike_snippets, random_detections, smooth_curves
from fustal_core.data import load_dataset
from fustal_core.files import write_json
from fustal_core.generator import mine_snippets
from fustal_core.hrpro import expand_points
from fustal_core.hrpro_instance import BINS, roi_pool
from fustal_core.metrics import THUMOS_TIOU, detection_map
from fustal_core.progress import Progress
from fustal_core.proposals import generate_proposals
from fustal_core.reference import (
    detection_map_by_rows,
    iou_score_by_pairs,
    mine_snippets_by_loops,
)
from fustal_core.reference_alignment import cosine_by_pairs, fsd_by_loops, lcs_by_loops
from fustal_core.reference_hrpro import expand_points_by_loops
from fustal_core.reference_proposals import proposals_by_loops
from fustal_core.reference_roi import roi_pool_by_loops
from fustal_core.selection import iou_score
from fustal_core.simulator import SimulatorSettings, simulate

COLUMNS = ["part", "size", "ours_s", "reference_s", "ratio", "agree", "target"]


@dataclass(frozen=True)
class Sizes:
    """How much each part is given; the defaults are the study's own sizes.

    Attributes:
        snippets: of the video whose proposals are made.
        detections, videos, classes: of the evaluation.
        batch, length, channels: (B, T, H) of snippet mining.
        scored_videos, proposals: videos of the IoU score and proposals of each.
        pairs: of videos that are aligned.
        lcs_length, lcs_channels: candidates of each video and their channels, for LCS.
        fsd_length, fsd_channels: the same for FSD, which halves the channels.
        whole_snippets, points: of the long video whose points spread.
        rois, roi_channels: proposals of that video, and channels of the features they pool.
        feature_videos, feature_channels: of the feature files that are read, 320 snippets each.
        simulation: settings of the simulated data.
    """

    snippets: int = 400
    detections: int = 47_124
    videos: int = 212
    classes: int = 20
    batch: int = 16
    length: int = 400
    channels: int = 256
    scored_videos: int = 200
    proposals: int = 105
    pairs: int = 16
    lcs_length: int = 30
    lcs_channels: int = 2048
    fsd_length: int = 5
    fsd_channels: int = 1024
    whole_snippets: int = 2600
    points: int = 40
    rois: int = 1000
    roi_channels: int = 128
    feature_videos: int = 100
    feature_channels: int = 2048
    simulation: SimulatorSettings = field(default_factory=SimulatorSettings)


def run_benchmark(progress: Progress | None = None, sizes: Sizes | None = None) -> pd.DataFrame:
    """Time every part.

    Args:
        progress: called as ``progress(done, total, part)``.
        sizes: the study's own if None.

    Returns:
        One row per part, ``COLUMNS``: seconds of ours and of the reference, their ratio, the largest
        difference of their results (NaN without a reference), and the target the study set itself.
        The last row is the peak memory of this process so far, in GB.
    """
    sizes = sizes or Sizes()
    parts = (
        bench_simulator,
        bench_proposals,
        bench_mining,
        bench_iou_score,
        bench_alignment,
        bench_expansion,
        bench_pooling,
        bench_evaluator,
        bench_loading,
    )
    rows = []
    for done, part in enumerate(parts, start=1):
        rows.append(part(sizes, np.random.default_rng(0)))
        if progress:
            progress(done, len(parts), rows[-1]["part"])
    rows.append(_row("peak memory so far", f"{peak_memory_gb():.2f} GB", target="< 4 GB"))
    return pd.DataFrame(rows, columns=COLUMNS)


def bench_proposals(sizes: Sizes, rng: np.random.Generator) -> dict[str, Any]:
    """Proposals of a video in which 2 classes are found: 24x upsampling, 43 thresholds, NMS."""
    cas = smooth_curves(sizes.snippets, sizes.classes, rng)
    cas[:, :2] *= 4
    scores = np.full(sizes.classes, 0.02)
    scores[:2] = 0.4, 0.24
    video = (cas, cas.sum(1), scores, sizes.snippets, 0.64)
    ours_s, ours = _time(lambda: generate_proposals(*video), repeats=20)
    reference_s, reference = _time(lambda: proposals_by_loops(*video), repeats=3)
    size = f"{sizes.snippets} snippets, 2 of {sizes.classes} classes, {len(ours)} proposals"
    agree = _difference(ours.to_numpy(), reference.to_numpy())
    return _row("proposals of a video", size, ours_s, reference_s, agree, "10 x")


def bench_evaluator(sizes: Sizes, rng: np.random.Generator) -> dict[str, Any]:
    """Detection mAP at 7 thresholds."""
    truth, detections = random_detections(sizes, rng)
    ours_s, ours = _time(lambda: detection_map(detections, truth, THUMOS_TIOU), repeats=3)
    reference_s, reference = _time(lambda: detection_map_by_rows(detections, truth, THUMOS_TIOU))
    size = f"{len(detections)} detections, {sizes.videos} videos, {sizes.classes} classes"
    agree = _difference(ours.to_numpy(), reference.to_numpy())
    return _row("detection mAP", size, ours_s, reference_s, agree, "100 x")


def bench_loading(sizes: Sizes, rng: np.random.Generator) -> dict[str, Any]:
    """A data folder, checked and loaded, beside reading the same files' arrays and no more."""
    snippets, source = (
        320,
        {"folder": "features", "stride_frames": 16, "window_frames": 16, "fps": 25},
    )
    entry = {"duration": snippets * 16 / 25, "annotations": [{"segment": [1, 2], "label": "a"}]}
    with tempfile.TemporaryDirectory() as name:
        folder, database = Path(name), {}
        (folder / "features").mkdir()
        for i in range(sizes.feature_videos):
            values = rng.random((snippets, sizes.feature_channels), dtype=np.float32)
            np.save(folder / "features" / f"v{i:03d}.npy", values)
            database[f"v{i:03d}"] = {"subset": ("training", "testing")[i % 2], **entry}
        write_json(folder / "gt.json", {"database": database})
        write_json(folder / "dataset.yaml", {"annotations": "gt.json", "features": source})
        paths = sorted((folder / "features").iterdir())
        reference_s, reference = _time(lambda: [np.load(path) for path in paths], repeats=3)
        ours_s, ours = _time(lambda: load_dataset(folder), repeats=3)
        agree = _difference(ours.generator_features.array.numpy(), np.concatenate(reference))
    size = f"{len(paths)} videos, {sizes.feature_channels} channels"
    return _row("loading features, reading alone", size, ours_s, reference_s, agree, "0.5 x")


def bench_mining(sizes: Sizes, rng: np.random.Generator) -> dict[str, Any]:
    """Easy and hard snippets of a batch."""
    shape = (sizes.batch, sizes.length)
    actionness = smooth_curves(sizes.length, sizes.batch, rng).T.copy()
    embeddings = rng.random((*shape, sizes.channels), dtype=np.float32)
    tensors = torch.from_numpy(actionness), torch.from_numpy(embeddings)
    ours_s, ours = _time(lambda: mine_snippets(*tensors), repeats=20)
    reference_s, reference = _time(
        lambda: mine_snippets_by_loops(actionness, embeddings), repeats=5
    )
    agree = max(_difference(vars(ours)[name].numpy(), reference[name]) for name in reference)
    size = f"{sizes.batch} videos, {sizes.length} snippets, {sizes.channels} channels"
    return _row("snippet mining", size, ours_s, reference_s, agree)


def bench_iou_score(sizes: Sizes, rng: np.random.Generator) -> dict[str, Any]:
    """IoU scores of the training videos' proposals."""
    start = rng.uniform(0, 150, size=(sizes.scored_videos, sizes.proposals, 1))
    videos = np.concatenate([start, start + rng.lognormal(1, 0.6, size=start.shape)], axis=2)
    ours_s, ours = _time(lambda: [iou_score(segments) for segments in videos], repeats=5)
    reference_s, reference = _time(lambda: [iou_score_by_pairs(segments) for segments in videos])
    agree = _difference(np.array(ours), np.array(reference))
    size = f"{sizes.scored_videos} videos, {sizes.proposals} proposals each"
    return _row("IoU score", size, ours_s, reference_s, agree)


def bench_alignment(sizes: Sizes, rng: np.random.Generator) -> dict[str, Any]:
    """FTCL's two alignment scores of a batch of pairs, and their gradients at the candidates.

    The target is a 200th of the 2.5 s that the original program takes on two cores. The reference
    here is faster than that program, so the ratio is smaller than the gain over it.
    """
    lcs_inputs = alike_snippets(sizes.pairs, sizes.lcs_length, sizes.lcs_channels, rng)
    fsd_inputs = alike_snippets(sizes.pairs, sizes.fsd_length, sizes.fsd_channels, rng)
    candidates = [torch.from_numpy(x).requires_grad_() for x in (*lcs_inputs, *fsd_inputs)]

    def forward_and_backward(cosine: Callable, lcs: Callable, fsd: Callable) -> list[Tensor]:
        a, b, c, d = candidates
        matches, gaps = zip(c.chunk(2, dim=2), d.chunk(2, dim=2), strict=True)
        values = torch.cat([lcs(cosine(a, b)), fsd(cosine(*matches), cosine(*gaps))])
        return [values.detach(), *torch.autograd.grad(values.sum(), candidates)]

    fast = cosine_table, longest_common_subsequence, fine_grained_sequence_distance
    slow = cosine_by_pairs, lcs_by_loops, fsd_by_loops
    ours_s, ours = _time(lambda: forward_and_backward(*fast), repeats=20)
    reference_s, reference = _time(lambda: forward_and_backward(*slow))
    agree = max(_difference(x.numpy(), y.numpy()) for x, y in zip(ours, reference, strict=True))
    size = f"{sizes.pairs} pairs, {sizes.lcs_length} and {sizes.fsd_length} candidates"
    part = "FSD and LCS, forward and backward"
    return _row(part, size, ours_s, reference_s, agree, "< 0.0125 s")


def bench_expansion(sizes: Sizes, rng: np.random.Generator) -> dict[str, Any]:
    """Seeds that the points of a long video spread to, HR-Pro's stage 1."""
    count = sizes.whole_snippets
    background = 1 / (1 + np.exp(-8 * np.sin(np.arange(count) / 9) - rng.normal(size=count)))
    points = np.zeros((count, sizes.classes))
    rows = rng.choice(count, sizes.points, replace=False)
    points[rows, rng.integers(sizes.classes, size=sizes.points)] = 1
    inputs = torch.from_numpy(background), torch.from_numpy(points)
    ours_s, ours = _time(lambda: expand_points(*inputs), repeats=20)
    reference_s, reference = _time(lambda: expand_points_by_loops(background, points), repeats=5)
    agree = max(_difference(x.numpy(), y) for x, y in zip(ours, reference, strict=True))
    size = f"{count} snippets, {sizes.points} points"
    return _row("seeds from points", size, ours_s, reference_s, agree)


def bench_pooling(sizes: Sizes, rng: np.random.Generator) -> dict[str, Any]:
    """RoI pooling of all proposals of a long video, HR-Pro's stage 2."""
    count = sizes.whole_snippets
    features = rng.random((count, sizes.roi_channels))
    start = rng.uniform(-2, count, size=sizes.rois)
    rois = np.stack([start, start + rng.lognormal(2.5, 0.8, sizes.rois)], axis=1)
    lengths = torch.full((sizes.rois,), count)
    inputs = torch.from_numpy(features), torch.zeros_like(lengths), lengths, torch.from_numpy(rois)
    ours_s, ours = _time(lambda: roi_pool(*inputs), repeats=5)
    reference_s, reference = _time(lambda: roi_pool_by_loops(features, rois))
    size = f"{sizes.rois} proposals, {BINS} bins, {sizes.roi_channels} channels"
    agree = _difference(ours.numpy(), reference)
    return _row("RoI pooling", size, ours_s, reference_s, agree)


def bench_simulator(sizes: Sizes, rng: np.random.Generator) -> dict[str, Any]:
    """The simulated data, for which there is no reference."""
    settings = sizes.simulation
    ours_s, _ = _time(lambda: simulate(settings, seed=int(rng.integers(100))))
    size = f"{settings.train_videos} + {settings.test_videos} videos, D = {settings.feature_dim}"
    return _row("simulated data", size, ours_s, target="< 15 s")


def peak_memory_gb() -> float:
    """The most memory this process has held so far, in GB (10^9 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024  # the unit of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _time(work: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Seconds of the fastest repeat, and the result of the last."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def _difference(ours: np.ndarray, reference: np.ndarray) -> float:
    """Largest absolute difference; infinite if there is not the same number of results."""
    if ours.shape != reference.shape:
        return float("inf")
    return float(np.abs(ours - reference).max(initial=0.0))


def _row(
    part: str,
    size: str,
    ours_s: float = np.nan,
    reference_s: float = np.nan,
    agree: float = np.nan,
    target: str = "",
) -> dict[str, Any]:
    values = (part, size, ours_s, reference_s, reference_s / ours_s, agree, target)
    return dict(zip(COLUMNS, values, strict=True))
