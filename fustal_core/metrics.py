"""Detection mAP as the field reports it: the ActivityNet protocol.

Protocol. Per class, the detections of all videos are walked by falling score. At a tIoU threshold a
detection is true if, trying the ground-truth segments of its class and video by falling tIoU, one
with tIoU >= threshold has not been taken *at that threshold*; it takes it. Otherwise it is false.
Precision is made monotone from the right and its area summed at the recall steps (all points, as in
VOC 2011). mAP is the mean over the classes with ground truth. Values here are fractions except in
`map_summary`, which is in percent. Times are seconds.

Differences from evaluators in circulation, and which way each moves the score *here*. Where
`fustal evaluate` has an option that measures the other way, it is named:

1. ActivityNet's own (row by row; CoLA, ACM-Net, FTCL and HR-Pro ship copies): none, to rounding,
   but for two corner cases. (a) Equal scores: numpy's unstable sort decides there; here the later
   row of the frame comes first, and among equal tIoUs the later segment is tried first, which is
   what that code does where its sort happens to be stable (either way). (b) Two segments without
   length: 0/0 is NaN there and counts as true; here tIoU 0, so the detection is false (lower).
2. VOC's looks only at the best segment: a detection whose best segment is taken is false. Here it
   goes on to the next one (higher or equal).
3. THUMOS'14's MATLAB toolkit and W-TALC's `getLocMAP` sum raw precision at the true positives; here
   precision is made monotone first (higher or equal). The toolkit also ignores detections on
   segments marked ambiguous; here what is not in the ground truth is false (lower or equal; 8).
4. VOC 2007 and COCO sample precision at 11 and 101 recalls; here at all steps (either way). COCO
   also keeps only the 100 best detections of an image; here every row counts (higher or equal).
5. ActionFormer's drops duplicated ground truth; here duplicates stay (lower or equal). It passes
   over detections of unknown classes in silence; here they are an error, since they usually mean a
   misspelling (the score of what is measured stays the same).
6. Averages over all classes of a data set count one without ground truth in the subset as 0; here
   it is left out (higher or equal; ``--all-classes`` counts it). Its detections count nowhere.
7. The point-supervised methods (HR-Pro) leave out three THUMOS'14 test videos, 0000270, 0001292 and
   0001496; here every video of the annotation file counts (either way; ``--exclude``, in a run
   ``evaluation.exclude``).
8. They also drop, before matching, the predictions that overlap THUMOS'14's list of ambiguous
   instances; here every prediction counts (usually lower, since most of those are false; higher
   where one is true). ``--ambiguous`` drops a prediction of any class that shares any time, more
   than a point, with an interval listed for its video; the truth stays as it is. In a run this is
   ``evaluation.ambiguous``.
9. Evaluators that come from boxes of pixels take a length as end - start + 1, here in seconds, in
   intersection and union alike: no tIoU is lower by that, and segments less than 1 s apart overlap.
   Here a length is end - start (lower or equal, most for short actions, but for the rare case that
   another order of the tIoUs changes who takes which segment; ``--plus-one``).
10. Averages in circulation differ in their range of thresholds and often do not say it; here each
   has its range in its name (none; ``--average`` adds ranges).
11. Detections of a video without ground truth are false in ActivityNet's own and here, also where
   the annotation file has the video in another subset than the one measured. ``--own-subset``
   leaves the latter out (higher or equal): having been run on them is no mistake of a method. A
   result file of which the annotation file has no video at all is refused.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd

from fustal_core.matching import greedy_match, overlaps

if TYPE_CHECKING:  # a result file is measured without waiting for torch
    import torch

Array = TypeVar("Array", np.ndarray, "torch.Tensor")

THUMOS_TIOU: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
ACTIVITYNET_TIOU: tuple[float, ...] = (
    0.5,
    0.55,
    0.6,
    0.65,
    0.7,
    0.75,
    0.8,
    0.85,
    0.9,
    0.95,
)
THUMOS_AVERAGES: tuple[tuple[float, float], ...] = ((0.1, 0.5), (0.3, 0.7), (0.1, 0.7))
AVERAGE = "avg 0.1:0.7"
"""What :func:`map_summary` calls the average that methods are compared by."""

TRUTH_COLUMNS = ("video", "label", "t_start", "t_end")
DETECTION_COLUMNS = (*TRUTH_COLUMNS, "score")


def temporal_iou(a: Array, b: Array) -> Array:
    """Temporal intersection over union of every pair, |a ∩ b| / |a ∪ b|.

    Args:
        a: (N, 2) starts and ends, numpy or torch. b: (M, 2), the same kind.

    Returns:
        (N, M) in [0, 1], the same kind and device; 0 where both segments have no length.

    Example:
        >>> temporal_iou(np.array([[0.0, 2.0]]), np.array([[1.0, 3.0], [5.0, 6.0]])).round(3)
        array([[0.333, 0.   ]])
    """
    if isinstance(a, np.ndarray):
        xp = np
    else:
        import torch as xp
    inter = xp.minimum(a[:, None, 1], b[:, 1]) - xp.maximum(a[:, None, 0], b[:, 0])  # (N, M)
    inter = inter.clip(0)
    union = (b[:, 1] - b[:, 0]) + (a[:, None, 1] - a[:, None, 0]) - inter
    return inter / xp.where(union > 0, union, xp.ones_like(union))


def validate(detections: pd.DataFrame, ground_truth: pd.DataFrame, known_only: bool = True) -> None:
    """Refuse frames that cannot be measured.

    Raises:
        ValueError: missing columns; NaN, infinite or reversed segments and NaN scores (naming the
            video); with `known_only`, a class that the ground truth does not know (naming it).
    """
    _validate_segments(ground_truth, TRUTH_COLUMNS, "ground truth")
    _validate_segments(detections, DETECTION_COLUMNS, "detections")
    if detections.empty:
        return
    scoreless = detections.loc[detections["score"].isna(), "video"].unique()
    if len(scoreless):
        raise ValueError(f"detections: score is NaN in video {_listed(scoreless)}")
    known = set() if ground_truth.empty else set(ground_truth["label"])
    unknown = [label for label in detections["label"].unique() if label not in known]
    if unknown and known_only:
        raise ValueError(
            f"detections: class {_listed(unknown)} unknown to the ground truth, "
            f"which has {_listed(sorted(known), 30) or 'no class'}"
        )


def _validate_segments(frame: pd.DataFrame, columns: tuple[str, ...], what: str) -> None:
    if frame.empty:
        return
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(
            f"{what}: expected columns {', '.join(columns)}; missing {', '.join(missing)}, "
            f"got {', '.join(map(str, frame.columns))}"
        )
    segments = _segments(frame)
    for bad, problem in (
        (~np.isfinite(segments).all(1), "NaN or infinite"),
        (segments[:, 0] > segments[:, 1], "reversed (start after end)"),
    ):
        if bad.any():
            start, end = segments[bad][0]
            raise ValueError(
                f"{what}: {problem} segment in video {_listed(frame['video'][bad].unique())}, "
                f"for example [{start:g}, {end:g}] s"
            )


def _listed(names: Sequence | np.ndarray, limit: int = 5) -> str:
    shown = ", ".join(repr(str(name)) for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _segments(frame: pd.DataFrame) -> np.ndarray:
    return frame[["t_start", "t_end"]].to_numpy(float)  # (N, 2)


def longer_by_one(segments: np.ndarray, plus_one: bool) -> np.ndarray:
    """Segments (N, 2) with ends 1 s later, if `plus_one`.

    The tIoU of what comes out is the tIoU with lengths end - start + 1 of what went in.
    """
    return segments + np.array([0.0, 1.0]) if plus_one else segments


def ranked_matches(
    detections: pd.DataFrame,
    truth: pd.DataFrame,
    classes: pd.Index,
    tiou: np.ndarray,
    plus_one: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order the detections and match them: (N,) row order, (N,) class index, (K, N) hit or not.

    Order is by class, then falling score, then falling row number.
    """
    N = len(detections)
    label, score = (
        classes.get_indexer(detections["label"]),
        detections["score"].to_numpy(float),
    )
    order = N - 1 - np.lexsort((-score[::-1], label[::-1]))
    videos = pd.Index(truth["video"].unique())
    video = videos.get_indexer(detections["video"])
    group = np.where(video < 0, -1, video * len(classes) + label)
    truth_group = videos.get_indexer(truth["video"]) * len(classes) + classes.get_indexer(
        truth["label"]
    )
    pairs = overlaps(
        longer_by_one(_segments(detections)[order], plus_one),
        group[order],
        longer_by_one(_segments(truth), plus_one),
        truth_group,
        tiou.min(),
    )
    matched = greedy_match(pairs, N, len(truth), tiou)
    return order, label[order], matched >= 0


def thresholds_of(tiou: float | Sequence[float] | np.ndarray) -> np.ndarray:
    """One or more tIoU thresholds as (K,) float64.

    Raises:
        ValueError: none, or one that is not in (0, 1].
    """
    values = np.atleast_1d(np.asarray(tiou, dtype=float))
    if values.ndim != 1 or not len(values) or not ((values > 0) & (values <= 1)).all():
        raise ValueError(f"tIoU thresholds: expected one or more in (0, 1], got {tiou}")
    return values


def _curve(hits: np.ndarray, positives: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall and raw precision after each detection of a class; hits (K, n) -> (K, n), (K, n)."""
    true = np.cumsum(hits, axis=1)
    return true / positives, true / np.arange(1, hits.shape[1] + 1)


def _monotone(precision: np.ndarray) -> np.ndarray:
    """The highest precision at this recall or beyond; (K, n) -> (K, n)."""
    return np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]


def detection_map(
    detections: pd.DataFrame,
    ground_truth: pd.DataFrame,
    tiou: Sequence[float] | np.ndarray = THUMOS_TIOU,
    *,
    plus_one: bool = False,
) -> pd.DataFrame:
    """Average precision per class and tIoU threshold, ActivityNet protocol (module docstring).

    Args:
        detections: columns ``video``, ``label``, ``t_start``, ``t_end`` (s), ``score``. Those of a
            video without ground truth are false.
        ground_truth: columns ``video``, ``label``, ``t_start``, ``t_end`` (s) of the whole subset.
        tiou: (K,) thresholds in (0, 1].
        plus_one: lengths as end - start + 1 s in the tIoU (difference 9).

    Returns:
        One row per class of the ground truth (sorted, index ``label``), one column per threshold
        (the numbers as given), fractions. ``.mean()`` is the mAP per threshold.

    Raises:
        ValueError: see `validate`; a threshold outside (0, 1].
    """
    thresholds = thresholds_of(tiou)
    validate(detections, ground_truth)
    columns = pd.Index(thresholds, name="tiou")
    if ground_truth.empty:
        return pd.DataFrame(np.zeros((0, len(columns))), index=_classes([]), columns=columns)
    classes = _classes(ground_truth["label"].unique())
    positives = ground_truth["label"].value_counts().reindex(classes).to_numpy()
    ap = np.zeros((len(classes), len(thresholds)))
    if not detections.empty:
        _, label, hits = ranked_matches(detections, ground_truth, classes, thresholds, plus_one)
        bounds = np.searchsorted(label, np.arange(len(classes) + 1))
        for c in range(len(classes)):
            of_class = hits[:, bounds[c] : bounds[c + 1]]
            _, precision = _curve(of_class, positives[c])
            # Recall rises by 1 / positives at each true detection and nowhere else. The running sum
            # rounds the same whatever false detections lie between.
            area = np.cumsum(_monotone(precision) * of_class, axis=1)[:, -1:]
            ap[c] = area.sum(1) / positives[c]
    return pd.DataFrame(ap, index=classes, columns=columns)


def _classes(labels: Sequence | np.ndarray) -> pd.Index:
    return pd.Index(sorted(labels), name="label", dtype=None if len(labels) else object)


def precision_recall(
    detections: pd.DataFrame,
    ground_truth: pd.DataFrame,
    tiou: float = 0.5,
    *,
    plus_one: bool = False,
) -> pd.DataFrame:
    """The curve behind each class's AP at one threshold, for figures.

    Args: as in `detection_map`, with a single threshold.

    Returns:
        One row per detection by class and falling score: ``label``, ``score``, ``recall``,
        ``precision`` and ``monotone`` (the precision that the area is taken of), fractions.
    """
    thresholds = thresholds_of(tiou)
    validate(detections, ground_truth)
    names = ["label", "score", "recall", "precision", "monotone"]
    if detections.empty:
        return pd.DataFrame({name: pd.Series(dtype=float) for name in names})
    classes = _classes(ground_truth["label"].unique())
    order, _, hits = ranked_matches(detections, ground_truth, classes, thresholds, plus_one)
    curve = detections.iloc[order][["label", "score"]].reset_index(drop=True)
    positives = ground_truth["label"].value_counts()
    for label, rows in curve.groupby("label", sort=False).indices.items():
        recall, precision = _curve(hits[:, rows], positives[label])
        curve.loc[rows, names[2:]] = np.vstack([recall, precision, _monotone(precision)]).T
    return curve


def map_summary(
    detections: pd.DataFrame,
    truth: pd.DataFrame,
    tiou: Sequence[float] | np.ndarray = THUMOS_TIOU,
) -> dict[str, float]:
    """The line of a results table, in percent: mAP per threshold, then averages named by range.

    Args: as in `detection_map`.

    Returns:
        ``mAP@0.1`` ... ``mAP@0.7``, then ``avg 0.1:0.5``, ``avg 0.3:0.7``, ``avg 0.1:0.7``: with
        other thresholds those of the three whose 0.1 steps are all there, and the average of all
        of them (`average_name`). NaN without ground truth.
    """
    table = detection_map(detections, truth, tiou)
    means = {round(threshold, 10): 100 * value for threshold, value in table.mean().items()}
    summary = {f"mAP@{threshold:g}": value for threshold, value in means.items()}
    for name, members in average_ranges(tuple(means)).items():
        summary[f"avg {name}"] = float(np.mean([means[t] for t in members]))
    return summary


def average_ranges(tiou: Sequence[float]) -> dict[str, list[float]]:
    """The averages that thresholds `tiou` allow: name -> the thresholds averaged.

    Example:
        >>> average_ranges((0.5, 0.75, 0.95))
        {'0.5,0.75,0.95': [0.5, 0.75, 0.95]}
    """
    given = sorted(round(float(t), 10) for t in tiou)
    standard = [[t for t in THUMOS_TIOU if low <= t <= high] for low, high in THUMOS_AVERAGES]
    found = [steps for steps in standard if set(steps) <= set(given)]
    return {average_name(steps): steps for steps in [*found, given] if len(steps) > 1}


def average_name(steps: Sequence[float]) -> str:
    """What an average over these rising thresholds is called, so that no two share a name.

    ``"0.1:0.7"`` is in steps of 0.1, and ``"0.5:0.95"`` ActivityNet's; others name their step,
    ``"0.1:0.05:0.7"``, or all of their thresholds, ``"0.5,0.75,0.95"``.
    """
    low, high = steps[0], steps[-1]
    widths = {round(after - before, 10) for before, after in pairwise(steps)}
    if widths == {0.1} or tuple(steps) == ACTIVITYNET_TIOU:
        return f"{low:g}:{high:g}"
    if len(widths) == 1 and len(steps) > 2:
        return f"{low:g}:{widths.pop():g}:{high:g}"
    return ",".join(f"{threshold:g}" for threshold in steps)
