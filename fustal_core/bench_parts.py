"""The parts of the benchmark around the networks: proposals, scores, measures, data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fustal_core.bench_case import Case
from fustal_core.bench_data import (
    FPS,
    WINDOW_FRAMES,
    Inputs,
    curves_dataset,
    random_detections,
    smooth_curves,
)
from fustal_core.data import Dataset, load_dataset
from fustal_core.features import uniform_indices
from fustal_core.files import write_json
from fustal_core.generation import propose
from fustal_core.generator import GeneratorOutput, video_scores
from fustal_core.metrics import THUMOS_TIOU, detection_map
from fustal_core.proposals import generate_proposals
from fustal_core.reference import detection_map_by_rows, iou_score_by_pairs
from fustal_core.reference_proposals import proposals_by_loops
from fustal_core.selection import iou_score
from fustal_core.simulator import simulate
from fustal_core.stage_settings import GenerationSettings

FILE_SNIPPETS = 320
_COLUMNS = ["t_start", "t_end", "score"]


def simulator_case(inputs: Inputs) -> Case:
    """The simulated data, for which there is no reference."""
    settings = inputs.sizes.simulation
    return Case(
        part="simulated data",
        size=f"{settings.train_videos} + {settings.test_videos} videos, D = {settings.feature_dim}",
        ours=lambda: simulate(settings, seed=0),
        target="< 15 s",
    )


def loading_case(inputs: Inputs) -> Case:
    """A data folder, checked and loaded, beside reading the same files' arrays and no more."""
    sizes, folder = inputs.sizes, inputs.folder
    source = {"folder": "features", "stride_frames": 16, "window_frames": 16, "fps": FPS}
    duration_s = FILE_SNIPPETS * WINDOW_FRAMES / FPS
    entry = {"duration": duration_s, "annotations": [{"segment": [1, 2], "label": "a"}]}
    (folder / "features").mkdir()
    names = [f"v{i:03d}" for i in range(sizes.feature_videos)]
    for name in names:
        values = inputs.rng.random((FILE_SNIPPETS, sizes.feature_channels), dtype=np.float32)
        np.save(folder / "features" / f"{name}.npy", values)
    subsets = ("training", "testing")
    database = {name: {"subset": subsets[i % 2], **entry} for i, name in enumerate(names)}
    write_json(folder / "gt.json", {"database": database})
    write_json(folder / "dataset.yaml", {"annotations": "gt.json", "features": source})
    paths = sorted((folder / "features").iterdir())
    return Case(
        part="feature loading",
        size=f"{len(paths)} videos, {sizes.feature_channels} channels, beside np.load alone",
        ours=lambda: load_dataset(folder).generator_features.array.split(FILE_SNIPPETS),
        reference=lambda: [np.load(path) for path in paths],
        limited_by="memory",
        copied_bytes=2.0 * values.nbytes * len(paths),
        target="0.5 x",
    )


def proposals_case(inputs: Inputs) -> Case:
    """Proposals of a video that shows a few classes: 24x upsampling, 43 thresholds, NMS."""
    sizes = inputs.sizes
    cas = smooth_curves(sizes.snippets, sizes.classes, inputs.rng)
    cas[:, : sizes.shown] *= 4
    scores = np.full(sizes.classes, 0.02)
    scores[: sizes.shown] = np.linspace(0.4, 0.24, sizes.shown)
    video = (cas, cas.sum(1), scores, sizes.snippets, WINDOW_FRAMES / FPS)
    return Case(
        part="proposals of a video",
        size=f"{sizes.snippets} snippets, {sizes.shown} of {sizes.classes} classes",
        ours=lambda: generate_proposals(*video)[_COLUMNS],
        reference=lambda: proposals_by_loops(*video)[_COLUMNS],
        limited_by="memory",
        reads=(cas,),
        target="10 x",
    )


class CurvesAreFeatures(nn.Module):
    """In a generator's place: the T-CAS is what it is given, so that only proposals take time."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> GeneratorOutput:
        """Features (B, T, C), >= 0."""
        return GeneratorOutput(features, features, features.sum(2), video_scores(features))


def all_proposals_case(inputs: Inputs) -> Case:
    """Proposals of a data set whose videos show up to two classes."""
    sizes, settings = inputs.sizes, GenerationSettings()
    dataset = curves_dataset(
        sizes.dataset_videos, sizes.dataset_snippets, sizes.classes, inputs.rng
    )
    model = CurvesAreFeatures()
    return Case(
        part="proposals of a data set",
        size=f"{sizes.dataset_videos} videos, {len(dataset.generator_features.array)} snippets",
        ours=lambda: propose(model, dataset, "test", settings)[_COLUMNS],
        reference=lambda: _all_proposals_by_loops(dataset, settings.length)[_COLUMNS],
        limited_by="memory",
        reads=(dataset.generator_features.array,),
        target="10 x",
    )


def _all_proposals_by_loops(dataset: Dataset, length: int) -> pd.DataFrame:
    store, frames = dataset.generator_features, []
    for video in dataset.video_names("test"):
        curves = store[video]
        cas = curves[uniform_indices(len(curves), length)]
        scores = video_scores(cas[None])[0].numpy()
        step_s = store.seconds_per_snippet(video)
        frames.append(
            proposals_by_loops(cas.numpy(), cas.sum(1).numpy(), scores, len(curves), step_s)
        )
    return pd.concat(frames)


def iou_score_case(inputs: Inputs) -> Case:
    """IoU scores of the training videos' proposals."""
    sizes, rng = inputs.sizes, inputs.rng
    start = rng.uniform(0, 150, size=(sizes.scored_videos, sizes.proposals, 1))
    videos = np.concatenate([start, start + rng.lognormal(1, 0.6, size=start.shape)], axis=2)
    return Case(
        part="IoU score",
        size=f"{sizes.scored_videos} videos, {sizes.proposals} proposals each",
        ours=lambda: [iou_score(segments) for segments in videos],
        reference=lambda: [iou_score_by_pairs(segments) for segments in videos],
        limited_by="memory",
        reads=(videos,),
    )


def evaluator_case(inputs: Inputs) -> Case:
    """Detection mAP at 7 thresholds."""
    sizes = inputs.sizes
    truth, detections = random_detections(sizes, inputs.rng)
    return Case(
        part="detection mAP",
        size=f"{len(detections)} detections, {sizes.videos} videos, {sizes.classes} classes",
        ours=lambda: detection_map(detections, truth, THUMOS_TIOU),
        reference=lambda: detection_map_by_rows(detections, truth, THUMOS_TIOU),
        limited_by="memory",
        reads=(detections[_COLUMNS], truth[_COLUMNS[:2]]),
        target="100 x",
    )
