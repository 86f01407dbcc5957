"""A part of the training videos: what somebody can label whose time does not suffice for all."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import numpy as np

from fustal_core.data import Dataset

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
