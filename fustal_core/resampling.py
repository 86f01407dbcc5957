"""Paired bootstrap intervals over seeds and videos.

Protocol. Two methods are measured on the same test videos with the same seeds. A resample draws as
many videos as there are, with replacement; a video drawn w times counts w times, with its segments
and its detections, as if it were w videos. Both methods are measured on the very same resamples, so
that what a hard video does to both cancels in their difference. An interval draws seeds with
replacement, for each drawn seed a resample of the videos, averages the differences over the drawn
seeds, and gives the percentiles of many such averages. A seed's resampled differences are moved to
have their mean where the seed's own difference is (5). `scipy.stats.bootstrap` draws one level and
calls the measure anew for every resample; where there is one level, the tests find its interval here.

What it is and is not:

1. Training is not repeated on resamples: the videos resampled are those of the test, and what
   another draw of training videos would change shows only where seeds draw their own data.
2. Few seeds make the percentile interval too narrow: n of them, drawn again, spread by the factor
   sqrt((n - 1) / n) less than they should, and percentiles know nothing of Student's t, which asks for
   4.3 standard errors at three seeds, where the percentiles of a normal give 2. What the videos add
   makes up for a part. `t_interval` is exact for normal differences, over the seeds alone.
3. With one seed only videos are resampled: the interval then says nothing of seeds, and says so
   (`Interval.over`).
4. If each seed has test videos of its own, the differences between seeds already hold what the draw
   of videos does, which is then resampled a second time: a little wider than needed.
5. mAP is not a mean over videos: with fewer different videos its resamples lie beside the value on
   the whole test, the more so the rougher the precision curve, and in a difference of unlike methods
   that does not cancel (a third of a standard deviation between a generator and a student). Moved to
   the whole test's difference, the interval is one for what tests of this size have on average.

Metrics are fractions here, as in `fustal_core.metrics`; an interval has the unit of what it is of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from fustal_core.metrics import ranked_matches, thresholds_of, validate
from fustal_core.quality import assign

_VALUES_AT_ONCE = 2_000_000  # of one temporary array, 16 MB; a handful live at a time


def draw_videos(videos: Sequence[str], count: int, rng: np.random.Generator) -> np.ndarray:
    """How often each video is drawn, V draws with replacement, in each of `count` resamples.

    Args:
        videos: V names.
        count: of resamples, R.
        rng: of the draws.

    Returns:
        (R, V) int32, each row sums to V.

    Raises:
        ValueError: no video, or one named twice.
    """
    V = len(_index(videos))
    return rng.multinomial(V, np.full(V, 1 / V), size=count).astype(np.int32)


def _index(videos: Sequence[str]) -> pd.Index:
    names = pd.Index(videos)
    if names.empty or names.has_duplicates:
        twice = ", ".join(map(repr, names[names.duplicated()].unique()[:5]))
        raise ValueError(f"videos: expected one or more different names, got {twice or 'none'}")
    return names


def _places(frame: pd.DataFrame, names: pd.Index, what: str) -> np.ndarray:
    """(N,) the place of each row's video among the names; an unknown one is an error."""
    if frame.empty:
        return np.zeros(0, dtype=int)
    places = names.get_indexer(frame["video"])
    if (places < 0).any():
        unknown = ", ".join(map(repr, frame["video"][places < 0].unique()[:5]))
        raise ValueError(f"{what}: video {unknown} is not among those resampled")
    return places


def _weights(draws: np.ndarray, names: pd.Index) -> np.ndarray:
    """Draws as (V, R) floats, in which whole numbers up to 2**53 are exact."""
    if draws.ndim != 2 or draws.shape[1] != len(names):
        raise ValueError(f"draws: expected (R, {len(names)}), got {draws.shape}")
    return np.ascontiguousarray(draws.T, dtype=float)


def resampled_map(
    detections: pd.DataFrame,
    truth: pd.DataFrame,
    tiou: Sequence[float] | np.ndarray,
    videos: Sequence[str],
    draws: np.ndarray,
) -> np.ndarray:
    """Detection mAP of every resample of the videos, the protocol of `metrics.detection_map`.

    Matching is within a video, so it is done once, and a resample only reweights: with w copies of
    its video a true detection raises recall by w steps, and the precision over them, made monotone,
    is that after the last one. Detections of equal score keep their order, copies side by side.

    Args:
        detections: columns ``video``, ``label``, ``t_start``, ``t_end`` (s), ``score``.
        truth: columns ``video``, ``label``, ``t_start``, ``t_end`` (s) of the whole subset.
        tiou: (K,) thresholds in (0, 1].
        videos: V names, those of both frames among them.
        draws: (R, V) how often each video is drawn, from `draw_videos`.

    Returns:
        (R, K) fractions: the mean over the classes with ground truth in the resample; NaN where none
        has any.

    Raises:
        ValueError: as `metrics.detection_map`; a video of either frame that is not among `videos`
            (naming it); draws of another shape.
    """
    thresholds, names = thresholds_of(tiou), _index(videos)
    validate(detections, truth)
    weights = _weights(draws, names)
    places = _places(detections, names, "detections")
    true_places = _places(truth, names, "ground truth")
    R, K = len(draws), len(thresholds)
    if truth.empty:
        return np.full((R, K), np.nan)
    classes = pd.Index(sorted(truth["label"].unique()))
    instances = np.zeros((len(classes), len(names)))
    np.add.at(instances, (classes.get_indexer(truth["label"]), true_places), 1)
    positives = instances @ weights  # (C, R)
    total = np.zeros((K, R))
    if not detections.empty:
        order, label, hits = ranked_matches(detections, truth, classes, thresholds, False)
        bounds = np.searchsorted(label, np.arange(len(classes) + 1))
        for c in range(len(classes)):
            of_class = slice(bounds[c], bounds[c + 1])
            area = _areas(hits[:, of_class], places[order[of_class]], weights)
            total += area / np.maximum(positives[c], 1)  # an area of 0 where there is no positive
    measured = (positives > 0).sum(0)
    return np.where(measured, total / np.maximum(measured, 1), np.nan).T


def _areas(hits: np.ndarray, video: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under a class's precision at recall steps of length 1, in every resample.

    Args:
        hits: (K, n) true or not, by falling score. video: (n,) places. weights: (V, R) draws.

    Returns:
        (K, R): to be divided by the number of positives.
    """
    # Precision only matters at true detections; the false ones between them only count.
    (at,) = np.nonzero(hits.any(axis=0))  # (H,)
    K, H, V = len(hits), len(at), len(weights)
    before = np.searchsorted(at, np.arange(at[-1] + 1 if H else 0))  # (the true one at or after)
    found = np.bincount(before * V + video[: len(before)], minlength=H * V).reshape(H, V)
    found = np.cumsum(found, axis=0, dtype=float)  # (H, V) detections so far in each video
    hits = hits[:, at, None].astype(float)  # (K, H, 1)
    areas = np.zeros((K, weights.shape[1]))
    step = max(1, _VALUES_AT_ONCE // max(K * H, 1))
    for first in range(0, weights.shape[1], step):
        own = weights[:, first : first + step]  # (V, r)
        gain = hits * own[video[at]]  # (K, H, r)
        precision = np.cumsum(gain, axis=1)
        precision /= np.maximum(found @ own, 1)  # 0 / 0 where no video so far was drawn
        falling = precision[:, ::-1]
        np.maximum.accumulate(falling, axis=1, out=falling)
        areas[:, first : first + step] = np.einsum("khr,khr->kr", gain, precision)
    return areas


def resampled_label_quality(
    labels: pd.DataFrame,
    truth: pd.DataFrame,
    tiou: float,
    videos: Sequence[str],
    draws: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Precision and F1 of labels in resamples of the videos, as `quality.pseudo_label_quality` has them.

    Args:
        labels: columns ``video``, ``label``, ``t_start``, ``t_end`` (s), ``score``; may be empty.
        truth: columns ``video``, ``label``, ``t_start``, ``t_end`` (s) of the same videos.
        tiou: threshold of a true label, in (0.1, 1].
        videos: V names, those of both frames among them.
        draws: (R, V) how often each video is drawn, from `draw_videos`.

    Returns:
        Two (R,) fractions: precision, 0 where there is no label; F1, 0 where there is no truth either.

    Raises:
        ValueError: as `quality.assign`; videos and draws as in `resampled_map`.
    """
    names = _index(videos)
    weights = _weights(draws, names)
    places = _places(labels, names, "labels")
    true_places = _places(truth, names, "ground truth")
    right = assign(labels, truth, tiou)["kind"].to_numpy() == "true"
    V = len(names)
    hits = np.bincount(places[right], minlength=V) @ weights
    found = np.bincount(places, minlength=V) @ weights
    wanted = np.bincount(true_places, minlength=V) @ weights
    return hits / np.maximum(found, 1), 2 * hits / np.maximum(found + wanted, 1)


@dataclass(frozen=True)
class Interval:
    """A mean difference over seeds and where it lies, in the unit of the differences.

    Attributes:
        mean: of the differences.
        low, high: ends of the interval; NaN where there is none.
        seeds: how many there are.
        sd: standard deviation of the differences over seeds (n - 1 in the denominator; NaN for one).
        over: what was drawn again: "videos", "seeds and videos", or "seeds".
    """

    mean: float
    low: float
    high: float
    seeds: int
    sd: float
    over: Literal["videos", "seeds and videos", "seeds"]


def paired_interval(
    better: np.ndarray,
    worse: np.ndarray,
    rng: np.random.Generator,
    *,
    differences: Sequence[float] | np.ndarray,
    shared_videos: bool,
    level: float = 0.95,
    count: int = 10_000,
) -> Interval:
    """Two-level bootstrap of the mean of better - worse over seeds (module docstring).

    Args:
        better, worse: (S, R) a measure of either method, a row per seed, a column per resample; in a
            row both are of the same resamples. A resample in which one is NaN is left out.
        rng: of the draws.
        differences: (S,) better - worse of the seeds on all videos, once each.
        shared_videos: the seeds have the same videos and the same resamples: a draw then takes one
            resample for all its seeds. Otherwise each drawn seed takes one of its own.
        level: of the interval, in (0, 1).
        count: of draws.

    Raises:
        ValueError: other shapes; a seed whose resamples are all NaN; a level outside (0, 1).
    """
    if better.ndim != 2 or better.shape != worse.shape or not better.size:
        raise ValueError(f"expected two (S, R) of one shape, got {better.shape}, {worse.shape}")
    S, R = better.shape
    if np.shape(differences) != (S,):
        raise ValueError(f"differences: expected ({S},), got {np.shape(differences)}")
    _check_level(level)
    resampled = better - worse
    if np.isnan(resampled).all(axis=1).any():
        raise ValueError("expected a value of both methods in one resample of each seed at least")
    moved = np.asarray(differences, dtype=float) - np.nanmean(resampled, axis=1)
    seeds = rng.integers(S, size=(count, S))
    drawn = rng.integers(R, size=(count, 1 if shared_videos else S))
    means = (resampled + moved[:, None])[seeds, drawn].mean(axis=1)
    tail = (1 - level) / 2
    low, high = np.nanquantile(means, [tail, 1 - tail])
    over = "videos" if S == 1 else "seeds and videos"
    return _interval(differences, float(low), float(high), over)


def t_interval(differences: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Student's interval of a mean difference over seeds: exact if differences are normal.

    mean -+ t_{n-1} sd / sqrt(n). It asks nothing of the videos; with one seed there is none (NaN).

    Args:
        differences: (S,) of the seeds, one or more. level: in (0, 1).

    Raises:
        ValueError: no difference; a level outside (0, 1).
    """
    from scipy import stats  # takes half a second, for which the command line would wait

    values = np.asarray(differences, dtype=float)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"differences: expected (S,), one or more, got {values.shape}")
    _check_level(level)
    reach = np.nan
    if len(values) > 1:
        reach = stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values)
    mean = values.mean()
    return _interval(values, float(mean - reach), float(mean + reach), "seeds")


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")


def _interval(
    differences: Sequence[float] | np.ndarray,
    low: float,
    high: float,
    over: Literal["videos", "seeds and videos", "seeds"],
) -> Interval:
    values = np.asarray(differences, dtype=float)
    sd = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return Interval(float(values.mean()), low, high, len(values), sd, over)
