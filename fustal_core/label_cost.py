"""What labels cost, and what the same labelling time would buy otherwise."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd

from fustal_core.data import Dataset
from fustal_core.rundir import code_hash, hash_of
from fustal_core.stages import Study

COST_S_PER_MINUTE = {"video": 45, "point": 50, "full": 300}
"""Seconds it took people to label a minute of video, by kind of label (published: SF-Net, ECCV 2020)."""
_SHARE = 6  # what the random numbers of a share of the training videos are drawn from


def training_share(dataset: Dataset, share: float, seed: int) -> Dataset:
    """The data set with so many of its training videos as make up a share of their minutes.

    What somebody could label who has time for that share only, and sees to it that every class gets
    its turn: classes take turns in naming one of their videos at random, and a video is taken if it
    still fits. The test videos stay.

    Args:
        dataset: of any origin.
        share: above 0, up to 1.
        seed: of the choice.

    Raises:
        ValueError: another share.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share {share}, expected above 0, up to 1")
    names, labels = np.array(dataset.video_names("train")), dataset.video_labels("train").numpy()
    durations_s = dataset.videos.loc[names, "duration_s"].to_numpy()
    left_s = share * durations_s.sum() * (1 + 1e-9)
    chosen = np.zeros(len(names), dtype=bool)
    for video in _in_turns(labels > 0, np.random.default_rng([seed, _SHARE])):
        # One video at least, however little time there is.
        if durations_s[video] <= left_s or not chosen.any():
            chosen[video] = True
            left_s -= durations_s[video]
    left_out = dataset.videos.index.isin(names[~chosen])
    fingerprint = sha256("\n".join([dataset.fingerprint, *names[chosen]]).encode()).hexdigest()
    return replace(dataset, videos=dataset.videos[~left_out], fingerprint=fingerprint)


def _in_turns(shows: np.ndarray, rng: np.random.Generator) -> list[int]:
    """All videos of (N, C) in an order in which classes take turns in naming one of theirs."""
    queues = [rng.permutation(np.flatnonzero(own)).tolist() for own in shows.T]
    order: dict[int, None] = {}
    for turn in range(max(map(len, queues))):
        order |= dict.fromkeys(queue[turn] for queue in queues if turn < len(queue))
    return list(order)


def affordable_share(supervision: str) -> float:
    """The share of the training minutes that could be labelled with all segments in the same time."""
    return COST_S_PER_MINUTE[supervision] / COST_S_PER_MINUTE["full"]


def on_share(study: Study, share: float) -> Study:
    """The study with a share of its training minutes, and a student trained for about as many steps."""
    student = study.settings.student
    epochs = round(student.epochs / share)
    part = study.variant(
        f"train-{share:.3g}",
        overrides={"student.epochs": epochs, "student.switch_epoch": student.switch_epoch},
    )
    part.narrow = partial(training_share, share=share, seed=study.settings.seed)
    # Known without the data: who only plans such a study need not read it.
    part.fingerprint = hash_of(
        study.fingerprint, share, study.settings.seed, code_hash(["label_cost"])
    )
    return part


def cost_row(
    study: Study, method: str, supervision: str, detections: pd.DataFrame
) -> dict[str, Any]:
    """What labelling the study's training videos costs by the published rates, and what it gains.

    Args:
        study: of these training videos.
        method: a name.
        supervision: "video", "point" or "full".
        detections: of the method, on the test videos.

    Returns:
        ``method``, ``supervision``, ``training videos``, ``cost_h`` (hours), test mAP (percent),
        ``data``.
    """
    names = study.dataset.video_names("train")
    minutes = study.dataset.videos.loc[names, "duration_s"].sum() / 60
    return {
        "method": method,
        "supervision": supervision,
        "training videos": len(names),
        "cost_h": minutes * COST_S_PER_MINUTE[supervision] / 3600,
        **study.measure(detections),
        "data": study.data_name,
    }
