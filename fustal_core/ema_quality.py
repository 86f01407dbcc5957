"""How good the EMA's labels are: measured in the crops they are for, beside the selected labels there.

The student sees random crops, and the EMA labels each crop anew (`fustal_core.distillation`). So both
kinds of labels are measured against the truth within the very same crops. Shares are fractions, as in
`quality`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fustal_core.measuring import resampled_labels
from fustal_core.quality import pseudo_label_quality

EMA_LABELS = "EMA labels"
STAGE_TWO_IN_CROPS = "IoU-score filter in the crops"
GAIN = "ema_f1_gain@0.5"
"""F1 at tIoU 0.5 of EMA labels less that of the selected labels in the same crops, last epoch."""


def crops_of(ema: pd.DataFrame) -> pd.DataFrame:
    """Where the crops of one epoch's EMA labels lie: index video, one crop each, seconds."""
    return ema.groupby("video")[["crop_start_s", "crop_end_s"]].first()


def crop_segments(segments: pd.DataFrame, crops: pd.DataFrame) -> pd.DataFrame:
    """Segments inside crops, in seconds from the crop's start.

    A segment stays if at least half of it lies in the crop, cut to it: the rule of training.

    Args:
        segments: columns ``video``, ``label``, ``t_start``, ``t_end`` (s), and any others.
        crops: index video; ``crop_start_s``, ``crop_end_s``. Videos without a crop are left out.
    """
    segments = segments[segments["video"].isin(crops.index)]
    window = crops.loc[segments["video"]]
    first, last = window["crop_start_s"].to_numpy(), window["crop_end_s"].to_numpy()
    start = np.clip(segments["t_start"].to_numpy(), first, last)
    end = np.clip(segments["t_end"].to_numpy(), first, last)
    remains = (end - start) >= 0.5 * (segments["t_end"] - segments["t_start"]).to_numpy()
    inside = segments.assign(t_start=start - first, t_end=end - first)
    return inside[remains & (end > start)]


def labels_in_crops(ema: pd.DataFrame, selected: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Both kinds of labels of one epoch's crops, in seconds from the crop's start.

    Args:
        ema: EMA labels of one epoch: ``video``, ``label``, ``t_start``, ``t_end`` and ``crop_start_s``,
            ``crop_end_s`` (s).
        selected: the labels in whose place they are: ``video``, ``label``, ``t_start``, ``t_end`` (s).

    Returns:
        ``EMA_LABELS`` and ``STAGE_TWO_IN_CROPS``.
    """
    moved = {end: ema[end] - ema["crop_start_s"] for end in ("t_start", "t_end")}
    inside = crop_segments(selected, crops_of(ema))
    return {EMA_LABELS: ema.assign(**moved), STAGE_TWO_IN_CROPS: inside}


def quality_in_crops(
    ema: pd.DataFrame, selected: pd.DataFrame, truth: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """``quality.pseudo_label_quality`` within the crops of one epoch, by kind of labels.

    Args:
        ema, selected: as for :func:`labels_in_crops`.
        truth: ``video``, ``label``, ``t_start``, ``t_end`` (s) of the training videos.
    """
    crops = crops_of(ema)
    truth, durations_s = crop_segments(truth, crops), crops["crop_end_s"] - crops["crop_start_s"]
    return {
        step: pseudo_label_quality(own, truth, durations_s)
        for step, own in labels_in_crops(ema, selected).items()
    }


def f1_gain(ema: pd.DataFrame, selected: pd.DataFrame, truth: pd.DataFrame) -> float:
    """``GAIN`` of one epoch's labels, a fraction; arguments as for :func:`quality_in_crops`."""
    ours, theirs = (
        float(quality["f1@0.5"].iloc[0])
        for quality in quality_in_crops(ema, selected, truth).values()
    )
    return ours - theirs


def resampled_gain(
    ema: pd.DataFrame,
    selected: pd.DataFrame,
    truth: pd.DataFrame,
    videos: Sequence[str],
    count: int,
) -> np.ndarray:
    """``GAIN`` in resamples of the training videos.

    Args:
        ema, selected, truth: as for :func:`quality_in_crops`.
        videos: all training videos. count: of resamples, R.

    Returns:
        (R,).
    """
    inside = crop_segments(truth, crops_of(ema))
    ours, theirs = (
        resampled_labels(own, inside, videos, count)["f1@0.5"]
        for own in labels_in_crops(ema, selected).values()
    )
    return ours - theirs


def last_epoch(ema: pd.DataFrame) -> pd.DataFrame:
    """The EMA labels of the last epoch that has any."""
    return ema[ema["epoch"] == ema["epoch"].max()]


def labels_per_crop(ema: pd.DataFrame, selected: pd.DataFrame) -> pd.DataFrame:
    """How many labels a crop of the last epoch has: from the EMA, and of the selected ones.

    Crops are those to which the EMA gave a label, one a video; the two steps are the rows, with
    ``crops``, ``labels per crop`` and ``crops with a single label (%)``.

    Args:
        ema, selected: as for :func:`labels_in_crops`, the first with ``epoch``.
    """
    last = last_epoch(ema)
    crops = crops_of(last)
    rows = {}
    for step, labels in labels_in_crops(last, selected).items():
        counts = labels.groupby("video").size().reindex(crops.index, fill_value=0)
        rows[step] = {
            "crops": len(crops),
            "labels per crop": float(counts.mean()),
            "crops with a single label (%)": 100 * float((counts == 1).mean()),
        }
    return pd.DataFrame.from_dict(rows, orient="index").astype({"crops": int})


def f1_in_crops(quality: pd.DataFrame) -> pd.DataFrame:
    """F1 of the last epoch's labels within the same crops, in percent, and what the EMA gains.

    Args:
        quality: as from ``reporting.quality_along_pipeline``; without EMA labels the result is empty.

    Returns:
        Rows EMA labels, selected labels, gain (points); a column for each tIoU threshold.
    """
    columns = [column for column in quality if column.startswith("f1@")]
    steps = [EMA_LABELS, STAGE_TWO_IN_CROPS]
    lasts = quality[quality["step"].isin(steps)].groupby("step", sort=False)[columns].tail(1)
    table = (100 * lasts.astype(float)).set_axis(quality.loc[lasts.index, "step"])
    if set(steps) <= set(table.index):
        table.loc["gain (points)"] = table.loc[steps[0]] - table.loc[steps[1]]
    return table.rename_axis(None)
