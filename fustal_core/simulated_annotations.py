"""Annotations of simulated videos, drawn from the class statistics of THUMOS'14.

``tables/thumos14_classes.csv`` holds, per class, how many videos and instances there are, the
log-normal of action and video durations and the median gap between actions;
``tables/thumos14_class_pairs.json`` how many videos show which classes together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import ndtri

_CLASSES, _PAIRS = (
    Path(__file__).parent / "tables" / name
    for name in ("thumos14_classes.csv", "thumos14_class_pairs.json")
)
NESTED = {"CliffDiving": "Diving"}
"""Every instance of the key is annotated as one of the value too."""
SEQUENCE = ("CricketBowling", "CricketShot")
"""In a video of both, a shot follows its bowling at once."""
SEQUENCE_PROBABILITY = 0.9
SEQUENCE_GAP_S = -0.1
GAP_LOG_SD = 0.8
SHORTEST_ACTION_S = 0.4
SHORTEST_VIDEO_S = 12.0
LONGEST_ACTION_SHARE = 0.25
LONGEST_GAP_SHARE = 0.08
LONGEST_BUSY_SHARE = 0.85
COUNT_LENGTH_CORRELATION = 0.6
BREAK_CONCENTRATION = 0.1
"""Dirichlet concentration of the time left between actions: small, so that a few breaks take it."""

Event = tuple[str, float, float]
"""Class name, start and end in seconds."""


@dataclass(frozen=True)
class VideoPlan:
    """What a video will show: its classes, and its rank among its like in number of instances."""

    subset: str
    classes: tuple[str, ...]
    rank: float


def class_statistics() -> pd.DataFrame:
    """The table of THUMOS'14 statistics, one row per class name, in alphabetical order."""
    return pd.read_csv(_CLASSES, index_col="class").sort_index()


@cache
def statistics_digest() -> str:
    """Of the files that the simulated annotations follow: sha256, hexadecimal."""
    return sha256(_CLASSES.read_bytes() + _PAIRS.read_bytes()).hexdigest()


def _class_groups() -> dict[tuple[str, ...], int]:
    """Classes shown together -> number of videos, train and test together."""
    pairs = json.loads(_PAIRS.read_text(encoding="utf-8"))
    return {tuple(names.split("+")): count for names, count in pairs.items()}


def _kind_weights(
    statistics: pd.DataFrame, subset: str, several_classes: float
) -> dict[tuple[str, ...], float]:
    """How many videos of the real subset show exactly each class or group of classes, roughly.

    The pairs file does not say which subset a pair is in: it is shared out as its rarest class is.
    """
    videos = statistics[f"{subset}_videos"].astype(float)
    both = statistics["train_videos"] + statistics["test_videos"]
    weights: dict[tuple[str, ...], float] = {}
    for names, count in _class_groups().items():
        if set(names) <= set(statistics.index):
            rarest = both[list(names)].idxmin()
            weights[names] = count * videos[rarest] / both[rarest]
            if names not in NESTED.items():  # those have to be shown together
                weights[names] *= several_classes
    for name in statistics.index:
        together = sum(weight for names, weight in weights.items() if name in names)
        weights[(name,)] = max(videos[name] - together, 0.0)
    return weights


def _apportion(weights: dict[tuple[str, ...], float], total: int) -> dict[tuple[str, ...], int]:
    """Whole numbers of videos near proportional to the weights, every class at least once.

    Each class's commonest group gets one video if the class is not yet shown, the rest goes by
    largest remainders.
    """
    groups = sorted(weights, key=weights.__getitem__, reverse=True)
    share = np.array([weights[group] for group in groups])
    counts = np.zeros(len(groups), dtype=int)
    shown: set[str] = set()
    for position, group in enumerate(groups):
        if not shown.issuperset(group):
            counts[position] = 1
            shown.update(group)
    wanted = np.maximum(share * total / share.sum() - counts, 0)
    left = total - counts.sum()
    wanted *= left / max(wanted.sum(), 1e-9)
    counts += wanted.astype(int)
    order = np.argsort(wanted.astype(int) - wanted, kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return {group: int(count) for group, count in zip(groups, counts, strict=True) if count}


def plan_videos(
    num_classes: int, subset: str, total: int, several_classes: float = 1.0
) -> list[VideoPlan]:
    """Which classes each of ``total`` videos of a subset shows, and its rank in instance count.

    Ranks of a group's n videos are (k + 0.5) / n: counts follow their distribution without luck.
    ``total`` must be at least ``num_classes``, so that every class is shown. ``several_classes``: how
    many videos show several of them, for one of THUMOS'14.
    """
    statistics = class_statistics().iloc[:num_classes]
    weights = _kind_weights(statistics, subset, several_classes)
    plans = []
    for group, count in _apportion(weights, total).items():
        plans += [VideoPlan(subset, group, (k + 0.5) / count) for k in range(count)]
    return plans


def class_records(statistics: pd.DataFrame) -> dict[str, np.void]:
    """The rows of :func:`class_statistics` by class: what is looked up for every video."""
    records = statistics.to_records(index=False)
    return dict(zip(statistics.index, records, strict=True))


def _event_count(plan: VideoPlan, rows: np.ndarray) -> int:
    """Number of actions: that of the plan's rank in a log-normal with the class's median and mean.

    Ranks leave out the ends of the distribution, so a class of few videos, some of them with very many
    actions, stays below its mean.
    """
    mean = rows[f"{plan.subset}_instances"] / rows[f"{plan.subset}_videos"]
    median = rows[f"{plan.subset}_instances_per_video_median"]
    spread = np.sqrt(2 * np.log(np.maximum(mean / median, 1.05)))
    counts = np.exp(np.log(median) + spread * ndtri(plan.rank))
    return max(1, round(float(counts.mean())))


def _draw_names(
    plan: VideoPlan, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Class of each action (n,), and whether it follows the one before at once (n,)."""
    names = plan.classes
    if names == SEQUENCE:
        present = rng.random((count, 2)) < SEQUENCE_PROBABILITY
        present[0] = True
        follows = present.all(axis=1, keepdims=True) & [False, True]
        return np.tile(np.array(names), count)[present.ravel()], follows[present]
    names = tuple(name for name in names if name not in {NESTED.get(other) for other in names})
    drawn = rng.integers(len(names), size=max(count, len(names)))
    drawn[: len(names)] = rng.permutation(len(names))
    return np.array(names)[drawn], np.zeros(len(drawn), dtype=bool)


def _draw_lengths(
    rows: np.ndarray, follows: np.ndarray, max_video_s: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Durations of the actions and the gap before each, in seconds, (n,) each."""
    durations_s = np.exp(rng.normal(rows["log_duration_mean"], rows["log_duration_sd"]))
    durations_s = np.clip(durations_s, SHORTEST_ACTION_S, LONGEST_ACTION_SHARE * max_video_s)
    gaps_s = rows["gap_s_median"] * np.exp(rng.normal(0, GAP_LOG_SD, len(rows)))
    gaps_s = np.clip(gaps_s, 0.1, LONGEST_GAP_SHARE * max_video_s)
    gaps_s[follows] = SEQUENCE_GAP_S
    gaps_s[0] = 0.0
    return durations_s, gaps_s


def _draw_video_length(
    plan: VideoPlan, rows: np.ndarray, busy_s: float, max_video_s: float, rng: np.random.Generator
) -> float:
    """Length of the video in seconds: log-normal, longer with more actions, and they must fit."""
    luck = COUNT_LENGTH_CORRELATION * ndtri(plan.rank)
    luck += np.sqrt(1 - COUNT_LENGTH_CORRELATION**2) * rng.normal()
    drawn_s = np.exp(rows["video_log_mean"].mean() + luck * rows["video_log_sd"].mean())
    return float(min(max(drawn_s, SHORTEST_VIDEO_S, busy_s / LONGEST_BUSY_SHARE), max_video_s))


def _place(
    video_s: float,
    durations_s: np.ndarray,
    gaps_s: np.ndarray,
    follows: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends in seconds: what time is left goes to head, tail and a few long breaks."""
    concentration = np.where(np.append(follows, False), 1e-6, BREAK_CONCENTRATION)
    concentration[[0, -1]] = 1.0
    rest_s = max(video_s - durations_s.sum() - gaps_s.sum(), 0.0)
    breaks_s = rest_s * rng.dirichlet(concentration)
    lengths_s = durations_s + gaps_s + breaks_s[:-1]
    ends_s = np.minimum(np.cumsum(lengths_s), video_s)
    return np.round(np.maximum(ends_s - durations_s, 0), 1), np.floor(ends_s * 10) / 10


def draw_video(
    plan: VideoPlan, statistics: dict[str, np.void], max_video_s: float, rng: np.random.Generator
) -> tuple[float, list[Event]]:
    """Duration in seconds and the actions of one video, in order of time.

    Times are whole tenths of a second, as annotated in THUMOS'14. Actions do not overlap, but for
    a shot that begins a little before its bowling ends. An instance of a nested class
    (:data:`NESTED`) is listed once, under the narrower name.
    """
    rows = np.array([statistics[name] for name in plan.classes])
    names, follows = _draw_names(plan, _event_count(plan, rows), rng)
    shown = np.array([statistics[name] for name in names])
    durations_s, gaps_s = _draw_lengths(shown, follows, max_video_s, rng)
    busy_s = np.cumsum(durations_s + gaps_s)
    # The first action of each class comes first, so cutting what does not fit loses no class.
    keep = max(int((busy_s <= LONGEST_BUSY_SHARE * max_video_s).sum()), len(plan.classes))
    names, follows = names[:keep], follows[:keep]
    video_s = _draw_video_length(plan, rows, busy_s[:keep][-1], max_video_s, rng)
    starts_s, ends_s = _place(video_s, durations_s[:keep], gaps_s[:keep], follows, rng)
    events = zip(names.tolist(), starts_s.tolist(), ends_s.tolist(), strict=True)
    return round(video_s, 2), [event for event in events if event[2] > event[1]]
