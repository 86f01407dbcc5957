"""EMA distillation (FuSTAL, stage 3, phase 2): the average labels the batches trained on.

The average starts at the random initial weights and moves by 1 - decay after every step, so
decay^steps of the random start is still in it: with 25 steps an epoch and decay 0.999, 22 % after
60 epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fustal_core.features import FeatureStore
from fustal_core.student import TriDet
from fustal_core.student_batches import Batch, GridLabels, half_window
from fustal_core.student_inference import (
    Found,
    best_first,
    find_candidates,
    joined,
    rank_in_video,
    suppress,
)

if TYPE_CHECKING:
    from fustal_core.stage_settings import StudentSettings

LABEL_COLUMNS = (
    "epoch",
    "video",
    "label",
    "t_start",
    "t_end",
    "score",
    "crop_start_s",
    "crop_end_s",
)


def make_ema(model: TriDet, decay: float) -> AveragedModel:
    """An exponential moving average of all weights that starts at the model's own."""
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    # The first update copies: without this one the weights after the first step would be the start.
    average.update_parameters(model)
    return average.eval()


def ema_update(average: AveragedModel, model: TriDet, decay: float) -> Callable[[], None]:
    """What moves an average that :func:`make_ema` made by 1 - decay towards the model, at each call.

    As the average's own ``update_parameters``, which copies its counter to the GPU and waits for it,
    and looks for all weights anew at every step.
    """
    of_average, of_model = (
        [*network.parameters(), *network.buffers()] for network in (average.module, model)
    )
    move = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update() -> None:
        move(of_average, of_model, average.n_averaged)
        average.n_averaged += 1

    return update


def initial_share(decay: float, steps: int) -> float:
    """Share of the random initial weights left in the average after so many steps."""
    return decay**steps


@torch.no_grad()
def find_ema_labels(average: AveragedModel, batch: Batch, settings: StudentSettings) -> Found:
    """What the averaged model finds in the very batch it is given: its labels, in crop grid units.

    Full inference with soft-NMS, then scores above ema_label_threshold, or a video's best detection
    where none passes. Soft-NMS only lowers scores and picks them in falling order, so a candidate
    below the threshold can neither pass nor change one that does: they are not even decoded, but in
    videos that have no other.
    """
    network, features, mask = average.module, batch.features, batch.mask
    least = max(settings.ema_label_threshold, settings.score_threshold)
    found = find_candidates(network, features, mask, settings, above=least)
    others = torch.ones(len(features), dtype=torch.bool, device=features.device)
    others[found.video] = False
    (videos,) = others.nonzero(as_tuple=True)
    if len(videos):
        below = find_candidates(network, features[videos], mask[videos], settings)
        below = best_first(below, below.video)
        best = below[rank_in_video(below.video) == 0]
        found = joined([found, replace(best, video=videos[best.video])])
    found = suppress(found, settings)
    best = rank_in_video(found.video) == 0
    return found[best | (found.scores > settings.ema_label_threshold)]


def relabel(batch: Batch, found: Found, half: float) -> Batch:
    """The batch with EMA labels; a video in which nothing was found keeps the labels it came with.

    Args:
        batch: crops with their given labels.
        found: from :func:`find_ema_labels`.
        half: half a snippet's window, grid units; segments are cut to what the crop shows.
    """
    lengths = batch.mask.sum(1).cpu()
    video, segments, labels = found.video.cpu(), found.segments.cpu(), found.label.cpu()
    relabelled = list(batch.given)
    for i in video.unique().tolist():
        mine = video == i
        cut = segments[mine].clamp(-half, float(lengths[i]) - 1 + half)
        relabelled[i] = GridLabels(cut, labels[mine])
    return replace(batch, given=relabelled)


def ema_label_part(batch: Batch, found: Found, store: FeatureStore, epoch: int) -> dict[str, Any]:
    """EMA labels of a batch in seconds of the whole video, for checkpoints and :func:`ema_label_table`.

    Returns:
        ``epoch``; ``videos``, names; ``video`` (N,), index into them; ``label`` (N,), class index;
        ``values`` (N, 5) float64: the last five of ``LABEL_COLUMNS``.
    """
    half, video = half_window(store), found.video.cpu()
    first, lengths = torch.tensor(batch.first), batch.mask.sum(1).cpu()
    crops = torch.stack([first - half, first + lengths - 1 + half], dim=1).double()
    segments = first[video, None] + found.segments.double().cpu()
    times_s = torch.cat([segments, crops[video]], dim=1).numpy()  # on the grid until the next lines
    for i, name in enumerate(batch.videos):
        mine = (video == i).numpy()
        times_s[mine] = store.to_seconds(name, times_s[mine])
    inside = times_s[:, :2].clip(times_s[:, 2:3], times_s[:, 3:])
    scores = found.scores.double().cpu().numpy()[:, None]
    values = torch.from_numpy(np.hstack([inside, scores, times_s[:, 2:]]))
    return {
        "epoch": epoch,
        "videos": batch.videos,
        "video": video,
        "label": found.label.cpu(),
        "values": values,
    }


def ema_label_table(parts: list[dict[str, Any]], classes: tuple[str, ...]) -> pd.DataFrame:
    """All recorded EMA labels; a video whose stage-2 labels were kept has no row in that epoch.

    Args:
        parts: from :func:`ema_label_part`.
        classes: names, in the order of the indices.
    """
    columns = list(LABEL_COLUMNS)
    frames = [pd.DataFrame(columns=columns)] if not parts else []
    for part in parts:
        frame = pd.DataFrame(part["values"].numpy(), columns=columns[3:])
        frame.insert(0, "label", np.array(classes, dtype=object)[part["label"].numpy()])
        frame.insert(0, "video", np.array(part["videos"], dtype=object)[part["video"].numpy()])
        frame.insert(0, "epoch", part["epoch"])
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
