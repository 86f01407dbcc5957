"""How good pseudo labels are, measured on videos whose segments are known but never trained on.

Matching is that of `fustal_core.metrics` (own class and video, by falling score, best free segment
first). A proposal that takes no segment at tIoU 0.5 is one of four kinds, tried in this order:

- ``duplicate``: tIoU >= 0.5 with a segment of its class, all of which better-scored ones took;
- ``localisation``: 0.1 <= best tIoU with its class < 0.5;
- ``wrong class``: less with its class, but tIoU >= 0.1 with a segment of another class;
- ``background``: tIoU < 0.1 with every segment of the video.

A class that the ground truth does not have is allowed here: its proposals can only be of the last
two kinds. Times are seconds, everything else is a fraction unless it says otherwise.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fustal_core.matching import Pairs, greedy_match, overlaps
from fustal_core.metrics import longer_by_one, validate

KINDS: tuple[str, ...] = (
    "true",
    "duplicate",
    "localisation",
    "wrong class",
    "background",
)
MATCH_TIOU = 0.5
BACKGROUND_TIOU = 0.1

Count = int | np.ndarray


def assign(
    labels: pd.DataFrame, truth: pd.DataFrame, tiou: float = MATCH_TIOU, *, plus_one: bool = False
) -> pd.DataFrame:
    """What each proposal is.

    Args:
        labels: columns ``video``, ``label``, ``t_start``, ``t_end`` (s), ``score``.
        truth: columns ``video``, ``label``, ``t_start``, ``t_end`` (s).
        tiou: the threshold of a true proposal, in (0.1, 1].
        plus_one: lengths as end - start + 1 s in the tIoU.

    Returns:
        Rows and index of `labels`: ``tiou``, the best with a segment of its own class (0 without
        one), and ``kind``, one of `KINDS`.

    Raises:
        ValueError: missing columns, NaN or reversed segments (naming the video), a bad threshold.
    """
    if not BACKGROUND_TIOU < tiou <= 1:
        raise ValueError(f"tiou: expected a number in ({BACKGROUND_TIOU}, 1], got {tiou}")
    validate(labels, truth, known_only=False)
    own, best_any, order = _pairs(labels, truth, plus_one)
    N = len(labels)
    matched = greedy_match(own, N, len(truth), np.array([tiou]))[0]
    best_own, _ = own.best(N)
    kind = np.select(
        [
            matched >= 0,
            best_own >= tiou,
            best_own >= BACKGROUND_TIOU,
            best_any >= BACKGROUND_TIOU,
        ],
        KINDS[:4],
        default=KINDS[4],
    )
    frame = pd.DataFrame({"tiou": best_own, "kind": kind.astype(object)}, index=labels.index[order])
    back = np.empty(N, dtype=int)
    back[order] = np.arange(N)
    return frame.iloc[back]


def pseudo_label_quality(
    labels: pd.DataFrame,
    truth: pd.DataFrame,
    durations_s: Mapping[str, float] | pd.Series,
    tiou: Sequence[float] = (0.3, 0.5, 0.7),
    *,
    plus_one: bool = False,
) -> pd.DataFrame:
    """The pseudo-label quality report, one row.

    Args:
        labels: columns ``video``, ``label``, ``t_start``, ``t_end`` (s), ``score``; may be empty.
        truth: columns ``video``, ``label``, ``t_start``, ``t_end`` (s) of the same videos.
        durations_s: length of every video measured, video -> seconds.
        tiou: thresholds of precision, recall and F1, in (0, 1].
        plus_one: lengths as end - start + 1 s in the tIoU; other lengths and times stay.

    Returns:
        One row. A ratio without a denominator is 0; a mean over nothing is NaN.

        - ``proposals``, ``instances``: the numbers of rows (counts);
        - ``precision@T``, ``recall@T``, ``f1@T`` for each threshold T;
        - ``mean_tiou``: of the pairs matched at 0.5, and over the same pairs the mean absolute
          boundary errors ``start_error_s``, ``end_error_s`` (s) and ``start_error_relative``,
          ``end_error_relative`` (of the true length);
        - ``proposals_per_instance``: proposals over instances (a ratio, >= 0);
        - ``fragments``: own-class proposals per instance that any of them touches (>= 1), each
          counted for the instance it overlaps best;
        - ``wrong_time``: share of video time where the set of labelled classes is not the true set;
          ``spurious_time`` where it has a class too many, ``missed_time`` where it lacks one;
        - ``true``, ``duplicate``, ``localisation``, ``wrong_class``, ``background``: shares of the
          proposals by kind, which sum to 1.

    Raises:
        ValueError: as `assign`; a video of either frame without a duration (naming it).
    """
    validate(labels, truth, known_only=False)
    _validate_durations(labels, truth, durations_s)
    own, _, order = _pairs(labels, truth, plus_one)
    N, M = len(labels), len(truth)
    ranked = labels.iloc[order]
    matched = greedy_match(own, N, M, np.array([*tiou, MATCH_TIOU]))
    row: dict[str, float] = {"proposals": N, "instances": M}
    for threshold, hits in zip(tiou, (matched[:-1] >= 0).sum(1), strict=True):
        row |= _precision_recall_f1(f"{threshold:g}", int(hits), N, M)
    row |= _boundary_errors(ranked, truth, own, matched[-1])
    touching, instance = own.best(N)
    touched = instance[touching > 0]
    row["proposals_per_instance"] = N / M if M else 0.0
    row["fragments"] = len(touched) / len(np.unique(touched)) if len(touched) else np.nan
    row |= _time_errors(labels, truth, durations_s)
    shares = assign(labels, truth, plus_one=plus_one)["kind"].value_counts() / max(N, 1)
    row |= {kind.replace(" ", "_"): float(shares.get(kind, 0.0)) for kind in KINDS}
    return pd.DataFrame([row])


def quality_by_class(
    labels: pd.DataFrame,
    truth: pd.DataFrame,
    tiou: Sequence[float] = (0.3, 0.5, 0.7),
    *,
    plus_one: bool = False,
) -> pd.DataFrame:
    """Agreement of labels with the truth, class by class.

    Args: as of `pseudo_label_quality`.

    Returns:
        One row per class of either frame (sorted, index ``label``): ``proposals``, ``instances``
        (counts), ``precision@T``, ``recall@T``, ``f1@T`` for each threshold T (fractions, 0 without a
        denominator) and ``mean_tiou`` of the pairs matched at 0.5 (NaN without any).

    Raises:
        ValueError: as `assign`.
    """
    validate(labels, truth, known_only=False)
    own, _, order = _pairs(labels, truth, plus_one)
    names = [frame["label"].to_numpy(object) if len(frame) else [] for frame in (labels, truth)]
    classes = pd.Index(np.unique(np.concatenate(names)), name="label")
    of_label = classes.get_indexer(names[0])[order]  # best score first, as the matches
    matched = greedy_match(own, len(labels), len(truth), np.array([*tiou, MATCH_TIOU]))

    def counts(chosen: np.ndarray) -> np.ndarray:
        return np.bincount(chosen, minlength=len(classes))

    N, M = counts(of_label), counts(classes.get_indexer(names[1]))
    table = pd.DataFrame({"proposals": N, "instances": M}, index=classes)
    for threshold, taken in zip(tiou, matched[:-1] >= 0, strict=True):
        table = table.assign(
            **_precision_recall_f1(f"{threshold:g}", counts(of_label[taken]), N, M)
        )
    pairs = matched[-1][own.detection] == own.truth
    tious = pd.Series(own.tiou[pairs]).groupby(classes[of_label[own.detection[pairs]]]).mean()
    table["mean_tiou"] = tious.reindex(classes).to_numpy(float)
    return table


def _validate_durations(
    labels: pd.DataFrame,
    truth: pd.DataFrame,
    durations_s: Mapping[str, float] | pd.Series,
) -> None:
    videos = set().union(*(set(frame["video"]) for frame in (labels, truth) if len(frame)))
    missing = sorted(video for video in videos if video not in durations_s)
    if missing:
        raise ValueError(f"durations_s: no duration for video {', '.join(map(repr, missing))}")


def codes(first: pd.DataFrame, second: pd.DataFrame, columns: list[str]) -> list[np.ndarray]:
    """Integers >= 0 that are equal where `columns` are, over both frames: (N,), (M,)."""
    keys = [frame[columns] for frame in (first, second) if len(frame)]
    if not keys:
        return [np.zeros(0, dtype=int)] * 2
    numbers = pd.concat(keys, ignore_index=True).groupby(columns, sort=False).ngroup().to_numpy()
    return np.split(numbers, [len(first)])


def _segments(frame: pd.DataFrame) -> np.ndarray:
    return frame[["t_start", "t_end"]].to_numpy(float) if len(frame) else np.zeros((0, 2))


def _pairs(
    labels: pd.DataFrame, truth: pd.DataFrame, plus_one: bool
) -> tuple[Pairs, np.ndarray, np.ndarray]:
    """Overlaps within class; (N,) best tIoU with any class; (N,) row order by falling score.

    Detection rows of both count in that order; truth rows are positions in `truth`.
    """
    N = len(labels)
    score = labels["score"].to_numpy(float) if N else np.zeros(0)
    order = N - 1 - np.argsort(-score[::-1], kind="stable")  # ties as in `fustal_core.metrics`
    video, truth_video = codes(labels, truth, ["video"])
    label, truth_label = codes(labels, truth, ["label"])
    segments = longer_by_one(_segments(labels)[order], plus_one)
    true_segments = longer_by_one(_segments(truth), plus_one)
    pairs = overlaps(segments, video[order], true_segments, truth_video)
    best_any, _ = pairs.best(N)
    same = label[order][pairs.detection] == truth_label[pairs.truth]
    return pairs.select(same), best_any, order


def _precision_recall_f1(
    name: str, hits: Count, proposals: Count, instances: Count
) -> dict[str, Any]:
    """Of everything, or class by class; 0 without a denominator, for then there are no hits."""
    return {
        f"precision@{name}": hits / np.maximum(proposals, 1),
        f"recall@{name}": hits / np.maximum(instances, 1),
        f"f1@{name}": 2 * hits / np.maximum(proposals + instances, 1),
    }


def _boundary_errors(
    ranked: pd.DataFrame, truth: pd.DataFrame, own: Pairs, matched: np.ndarray
) -> dict[str, float]:
    """Means over the matched pairs; matched (N,) holds truth rows or -1."""
    rows, true, error = _signed_errors(ranked, truth, matched)
    error = np.abs(error)
    relative = error / (true[:, 1:] - true[:, :1])
    tiou = own.tiou[matched[own.detection] == own.truth]
    values = np.column_stack([tiou, error, relative])
    names = ("mean_tiou", "start_error_s", "end_error_s")
    names += ("start_error_relative", "end_error_relative")
    means = values.mean(0) if len(rows) else np.full(len(names), np.nan)
    return dict(zip(names, means.tolist(), strict=True))


def _signed_errors(
    ranked: pd.DataFrame, truth: pd.DataFrame, matched: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the P matched pairs: rows of `ranked` (P,), true segments and errors (P, 2), seconds."""
    rows = np.flatnonzero(matched >= 0)
    true = _segments(truth)[matched[rows]]
    return rows, true, _segments(ranked)[rows] - true


def boundary_errors(
    labels: pd.DataFrame, truth: pd.DataFrame, *, plus_one: bool = False
) -> pd.DataFrame:
    """How far the borders of the true proposals lie from those of the segments they took.

    Args: as in `assign`, with a true proposal's threshold of 0.5.

    Returns:
        One row per true proposal by falling score, with its index: ``start`` and ``end``, the
        proposal's border minus the true one, over the length of the true segment (signed; before
        the true border is negative).

    Raises:
        ValueError: as `assign`.
    """
    validate(labels, truth, known_only=False)
    own, _, order = _pairs(labels, truth, plus_one)
    matched = greedy_match(own, len(labels), len(truth), np.array([MATCH_TIOU]))[0]
    ranked = labels.iloc[order]
    rows, true, error = _signed_errors(ranked, truth, matched)
    relative = error / (true[:, 1:] - true[:, :1])
    return pd.DataFrame(relative, columns=["start", "end"], index=ranked.index[rows])


def _time_errors(
    labels: pd.DataFrame,
    truth: pd.DataFrame,
    durations_s: Mapping[str, float] | pd.Series,
) -> dict[str, float]:
    """Shares of the total video time where the labelled classes are not the true ones."""
    durations = pd.Series(durations_s, dtype=float)
    frames = [
        frame[["video", "label", "t_start", "t_end"]] for frame in (labels, truth) if len(frame)
    ]
    names = ("wrong_time", "spurious_time", "missed_time")
    if not frames or not durations.sum() > 0:
        return dict.fromkeys(names, 0.0)
    both = pd.concat(frames, ignore_index=True)
    duration = durations.reindex(both["video"]).to_numpy()
    start, end = (np.clip(both[name].to_numpy(float), 0, duration) for name in ("t_start", "t_end"))
    video = durations.index.get_indexer(both["video"])
    group = both.groupby(["video", "label"], sort=False).ngroup().to_numpy()
    video_of_group = np.zeros(group.max() + 1, dtype=int)
    video_of_group[group] = video
    is_label = np.arange(len(both)) < len(labels)

    def share(states: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
        weights = np.stack([is_label, ~is_label], axis=1)
        g, s, e = _sweep(group, start, end, weights, lambda n: states(n[:, 0] > 0, n[:, 1] > 0))
        ones = np.ones((len(g), 1), dtype=bool)
        _, s, e = _sweep(video_of_group[g], s, e, ones, lambda n: n[:, 0] > 0)
        return float((e - s).sum() / durations.sum())

    spurious = share(lambda labelled, true: labelled & ~true)
    missed = share(lambda labelled, true: ~labelled & true)
    return dict(zip(names, (share(np.not_equal), spurious, missed), strict=True))


def _sweep(
    group: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    weights: np.ndarray,
    keep: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut each group's time at all boundaries and keep the pieces in a wanted state.

    Args:
        group, start, end: (N,) intervals. weights: (N, W) which of W counters an interval raises.
        keep: (P, W) counters on P pieces -> (P,) bool, false where all counters are 0.

    Returns:
        Group, start and end of the pieces kept.
    """
    times = np.concatenate([start, end])
    groups = np.concatenate([group, group])
    steps = np.concatenate([weights.astype(int), -weights.astype(int)])
    order = np.lexsort((times, groups))
    # Counters are back at 0 at the end of every group, so one running sum serves all of them.
    counters = np.cumsum(steps[order], axis=0)[:-1]
    kept = np.flatnonzero(keep(counters))
    return groups[order][kept], times[order][kept], times[order][kept + 1]
