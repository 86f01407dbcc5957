"""Detections of a student (FuSTAL, stage 3, "Inference"): candidates, soft-NMS, seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fustal_core.features import FeatureStore
from fustal_core.progress import Progress
from fustal_core.student import Classified, TriDet, decode_offsets
from fustal_core.student_batches import pad_features
from fustal_core.suppression import soft_nms_of_groups
from fustal_core.trident_reach import boundary_rows

if TYPE_CHECKING:
    from fustal_core.data import Dataset
    from fustal_core.stage_settings import StudentSettings

POSITIONS_PER_BATCH = 2**18
"""Of videos whose candidates are suppressed together: the more, the fewer steps in all."""
POSITIONS_PER_PASS = {"cpu": 4096, "cuda": 32_768}
"""That go through the network at once; on a CPU so few that what it computes stays in the cache."""


@dataclass(frozen=True)
class Found:
    """N segments found in a batch.

    Attributes:
        video: (N,) index into the batch.
        label: (N,) class index.
        segments: (N, 2) grid units.
        scores: (N,) in [0, 1].
    """

    video: Tensor
    label: Tensor
    segments: Tensor
    scores: Tensor

    def __getitem__(self, chosen: Tensor) -> Found:
        return Found(
            self.video[chosen], self.label[chosen], self.segments[chosen], self.scores[chosen]
        )

    def __len__(self) -> int:
        return len(self.scores)


class Entries(NamedTuple):
    """N (position, class) pairs of a batch.

    Attributes:
        video, position, label: (N,) index into B, L and C.
        scores: (N,) in [0, 1].
    """

    video: Tensor
    position: Tensor
    label: Tensor
    scores: Tensor


def find_candidates(
    model: TriDet,
    features: Tensor,
    mask: Tensor,
    settings: StudentSettings,
    above: float | None = None,
) -> Found:
    """The segments of :func:`best_entries`, if longer than min_length_grid.

    Args:
        model: in eval mode.
        features, mask: (B, T, D) and (B, T) of a batch, as the model takes them.
        settings: of the student.
        above: what scores must exceed; None: score_threshold.
    """
    above = settings.score_threshold if above is None else above
    said = model.classify(features, mask)
    best = best_entries(said, settings.pre_nms_top_k, above)
    decoded = torch.zeros_like(said.mask)
    decoded[best.video, best.position] = True
    output = model.locate(said, boundary_rows(decoded, model.bins))
    distances = decode_offsets(output, best.video, best.position, best.label)
    stride = said.grid.stride[best.position]
    signed = distances * distances.new_tensor([-1.0, 1.0]) * stride[:, None]
    segments = said.grid.time[best.position, None] + signed
    found = Found(best.video, best.label, segments, best.scores)
    return found[distances.sum(1) * stride > settings.min_length_grid]


def best_entries(said: Classified, most: int, above: float) -> Entries:
    """The best pairs of each level and video, ``most`` of them, of scores above ``above``."""
    scores = torch.sigmoid(said.class_logits) * said.mask[..., None]
    C = scores.shape[2]
    parts = []
    for level in said.grid.slices():
        flat = scores[:, level].flatten(1)  # (B, T_l * C)
        best, index = flat.topk(min(most, flat.shape[1]), dim=1)
        video, column = (best > above).nonzero(as_tuple=True)
        index = index[video, column]
        parts.append((video, level.start + index // C, index % C, best[video, column]))
    return Entries(*(torch.cat(part) for part in zip(*parts, strict=True)))


def suppress(found: Found, settings: StudentSettings) -> Found:
    """Gaussian soft-NMS per video and class; at most max_detections a video.

    Returns:
        By video, then by falling score.
    """
    if not len(found):
        return found
    num_classes = int(found.label.max()) + 1
    found = best_first(found, found.video * num_classes + found.label)
    group = found.video * num_classes + found.label
    sizes = torch.unique_consecutive(group, return_counts=True)[1]
    picked_of, segments, scores = soft_nms_of_groups(
        found.segments,
        found.scores,
        sizes,
        settings.nms_sigma,
        min_score=settings.score_threshold,
        max_picks=settings.max_detections,
    )
    member = (sizes.cumsum(0) - sizes)[picked_of]
    picked = Found(found.video[member], found.label[member], segments, scores)
    return _best_per_video(picked, settings.max_detections)


def _best_per_video(found: Found, most: int) -> Found:
    found = best_first(found, found.video)
    return found[rank_in_video(found.video) < most]


def best_first(found: Found, group: Tensor) -> Found:
    """Members of a group, (N,), side by side in the order of groups, best score first in each."""
    order = torch.argsort(found.scores, descending=True, stable=True)
    return found[order[torch.argsort(group[order], stable=True)]]


def rank_in_video(video: Tensor) -> Tensor:
    """Place of each entry within the run of its video, (N,) sorted -> (N,)."""
    _, run, sizes = torch.unique_consecutive(video, return_inverse=True, return_counts=True)
    return torch.arange(len(video), device=video.device) - (sizes.cumsum(0) - sizes)[run]


def detect(
    model: TriDet,
    dataset: Dataset,
    subset: str,
    settings: StudentSettings,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Detections in all videos of a subset.

    Args:
        model: the student, usually with its EMA weights; put into eval mode.
        dataset: its features, durations and class names are used.
        subset: "train" or "test".
        settings: of the student.
        device: where the model is.
        progress: called as (videos done, videos in all, note).

    Returns:
        Columns ``video``, ``label``, ``t_start``, ``t_end`` (s, within [0, duration]), ``score``;
        by video in the data set's order, then by falling score.
    """
    device, store = torch.device(device), dataset.student_features
    videos = dataset.video_names(subset)
    durations_s = dataset.videos["duration_s"]
    done, frames = 0, []
    for names in length_batches({v: store.num_snippets(v) for v in videos}, settings):
        frames.append(
            detect_batch(model, store, names, dataset.classes, durations_s, settings, device=device)
        )
        done += len(names)
        if progress:
            progress(done, len(videos), "detecting")
    return in_order(frames, videos)


@torch.no_grad()
def detect_batch(
    model: TriDet,
    store: FeatureStore,
    names: list[str],
    classes: tuple[str, ...],
    durations_s: Mapping[str, float] | pd.Series,
    settings: StudentSettings,
    *,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """Detections in some videos of a store, suppressed together, in the columns of :func:`detect`.

    Args:
        model: put into eval mode.
        store: holds the videos' features and clock.
        names: videos, usually one batch of :func:`length_batches`.
        classes: names, in the order of the model's outputs.
        durations_s: by video; detections are cut to them.
        settings: of the student.
        device: where the model is.
    """
    device, model = torch.device(device), model.eval()
    lengths = {name: store.num_snippets(name) for name in names}
    done: list[str] = []
    parts = []
    for own in length_batches(lengths, settings, POSITIONS_PER_PASS.get(device.type, 32_768)):
        batch = pad_features([store[name] for name in own], settings, device)
        found = find_candidates(model, *batch, settings)
        parts.append(replace(found, video=found.video + len(done)))
        done += own
    return _to_frame(suppress(joined(parts), settings), done, store, classes, durations_s)


def joined(parts: list[Found]) -> Found:
    """All that was found, one part behind the other."""
    return Found(*(torch.cat([getattr(p, field.name) for p in parts]) for field in fields(Found)))


def in_order(frames: list[pd.DataFrame], videos: list[str]) -> pd.DataFrame:
    """The batches' detections in one frame, in the order of ``videos``."""
    table = pd.concat(frames)
    place = pd.Index(videos).get_indexer(table["video"])
    return table.iloc[np.argsort(place, kind="stable")].reset_index(drop=True)


def length_batches(
    lengths: Mapping[str, int], settings: StudentSettings, positions: int | None = None
) -> Iterator[list[str]]:
    """Videos of similar length together, longest first, so that little padding is computed.

    Args:
        lengths: snippets of each video; the order of the videos does not matter.
        settings: of the student.
        positions: of a batch at most, unless one video has more; None: ``POSITIONS_PER_BATCH``.
    """
    positions = positions or POSITIONS_PER_BATCH
    names = sorted(lengths, key=lambda name: (-lengths[name], name))
    start = 0
    while start < len(names):
        longest = lengths[names[start]]
        if settings.global_mean == "padded":
            longest = max(longest, settings.max_length)
        count = max(1, positions // longest)
        if settings.global_mean == "padded" and longest > settings.max_length:
            count = 1  # every video beyond max_length is padded to its own multiple, as released
        yield names[start : start + count]
        start += count


def _to_frame(
    found: Found,
    names: list[str],
    store: FeatureStore,
    classes: tuple[str, ...],
    durations_s: Mapping[str, float] | pd.Series,
) -> pd.DataFrame:
    video = found.video.cpu().numpy()
    grid = found.segments.double().cpu().numpy()
    times_s = np.zeros_like(grid)
    bounds = np.searchsorted(video, np.arange(len(names) + 1))  # videos come one after the other
    for name, first, end in zip(names, bounds, bounds[1:], strict=False):
        rows = slice(first, end)
        times_s[rows] = np.clip(store.to_seconds(name, grid[rows]), 0, durations_s[name])
    return pd.DataFrame(
        {
            "video": np.array(names, dtype=object)[video],
            "label": np.array(classes, dtype=object)[found.label.cpu().numpy()],
            "t_start": times_s[:, 0],
            "t_end": times_s[:, 1],
            "score": found.scores.double().cpu().numpy(),
        }
    )
