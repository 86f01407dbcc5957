"""Which kind of label error costs how much: pseudo labels with one kind of error taken out.

**Oracle labels: an analysis, never a method.** Every repair looks up the true segments of the
*training* videos, which no method of this study may see. A student trained on repaired labels tells
what a kind of error costs; it belongs in no table of results but beside its ceiling.

Each pseudo label points at one segment at most, its *target*: the segment of its own class and video
with the highest tIoU, if that is >= 0.1; else the segment of any class with the highest tIoU, if that
is >= 0.1; else there is none. (Of equal tIoUs, the last row of the truth, as in `matching`.) From this
every error has one kind, in the manner of TIDE (Bolya et al., ECCV 2020):

- ``true scores``: the choice among proposals was wrong. As many proposals of each video as before,
  but those with the highest tIoU with a segment of their own class (of equal ones, the more
  confident), whatever their confidence and IoU score. That tIoU becomes their score.
- ``true classes``: a label whose target has another class gets the class of its target.
- ``no false labels``: a label without a target is removed. A video may then be left without labels.
- ``no duplicates``: of the labels with the same target of their own class, the one with the highest
  tIoU stays (of equal ones, the better-scored).
- ``no missed actions``: segments that are no label's target are added, with score 1. A segment under
  a label that spans two actions is missed if the label overlaps the other one better; one under a
  label of another class is not missed, its class is wrong.
- ``true borders``: a label whose target has its own class gets the borders of its target.

The last five name every error there is: repaired together they give the true segments, whatever the
labels were. They are repaired in this order. Labels that a repair makes equal in video, class and
borders are one label, with the highest of their scores: true borders make duplicates equal, so that
rung takes those away as well. (Equal labels teach the student nothing else than one of them does.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from fustal_core.matching import overlaps
from fustal_core.metrics import DETECTION_COLUMNS, TRUTH_COLUMNS, validate
from fustal_core.quality import BACKGROUND_TIOU, codes

Rung = Literal[
    "true scores",
    "true classes",
    "no false labels",
    "no duplicates",
    "no missed actions",
    "true borders",
]
RUNGS: tuple[Rung, ...] = get_args(Rung)
_KEYS = [*TRUTH_COLUMNS]


@dataclass(frozen=True)
class Targets:
    """What N labels point at.

    Attributes:
        row: (N,) the target's row of the truth, -1 without one.
        own: (N,) whether the target has the label's own class.
        tiou: (N,) the highest with a segment of the own class, also below 0.1; 0 without one.
    """

    row: np.ndarray
    own: np.ndarray
    tiou: np.ndarray


def targets(labels: pd.DataFrame, truth: pd.DataFrame) -> Targets:
    """The target of each label, as the module defines it.

    Args:
        labels, truth: columns ``video``, ``label``, ``t_start``, ``t_end`` (s).
    """
    N = len(labels)
    video, true_video = codes(labels, truth, ["video"])
    label, true_label = codes(labels, truth, ["label"])
    segments = [frame[["t_start", "t_end"]].to_numpy(float) for frame in (labels, truth)]
    pairs = overlaps(segments[0], video, segments[1], true_video)
    best_any, row_any = pairs.best(N)
    same = label[pairs.detection] == true_label[pairs.truth]
    best_own, row_own = pairs.select(same).best(N)
    own = best_own >= BACKGROUND_TIOU
    row_any[best_any < BACKGROUND_TIOU] = -1
    return Targets(np.where(own, row_own, row_any), own, best_own)


def repair(
    selected: pd.DataFrame, scored: pd.DataFrame, truth: pd.DataFrame, *rungs: str
) -> pd.DataFrame:
    """Pseudo labels with some kinds of error taken out. For analysis alone: it uses the truth.

    Args:
        selected: the pseudo labels, columns ``video``, ``label``, ``t_start``, ``t_end`` (s),
            ``score``; may have no row.
        scored: all proposals they were selected from, the same columns.
        truth: the true segments of the same videos, the same columns but ``score``.
        rungs: of `RUNGS`, in any order; none: the labels as they are.

    Returns:
        The same five columns, no two rows equal but for the score, index 0 .. N - 1. Rows that stay
        keep their order, added ones follow by row of the truth.

    Raises:
        ValueError: a rung that is none (named); missing columns, NaN or reversed segments (naming
            the video).
    """
    unknown = [rung for rung in rungs if rung not in RUNGS]
    if unknown:
        raise ValueError(f"rungs: expected some of {', '.join(RUNGS)}; got {', '.join(unknown)}")
    validate(selected, truth, known_only=False)
    validate(scored, truth, known_only=False)
    labels = _distinct(selected)
    if "true scores" in rungs:
        labels = _true_scores(labels, _distinct(scored), truth)
    repairs = {
        "true classes": _true_classes,
        "no false labels": _no_false_labels,
        "no duplicates": _no_duplicates,
        "no missed actions": _no_missed_actions,
        "true borders": _true_borders,
    }
    for rung, mend in repairs.items():
        if rung in rungs:
            labels = _distinct(mend(labels, truth, targets(labels, truth)))
    return labels


def _distinct(labels: pd.DataFrame) -> pd.DataFrame:
    """One row of those that are equal but for the score, at the place of the best-scored."""
    rows = labels[[*DETECTION_COLUMNS]].reset_index(drop=True)
    best = rows.sort_values("score", ascending=False, kind="stable").drop_duplicates(_KEYS)
    return best.sort_index().reset_index(drop=True)


def _true_scores(labels: pd.DataFrame, scored: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    places = labels["video"].value_counts().reindex(scored["video"], fill_value=0).to_numpy()
    ranked = scored.assign(score=targets(scored, truth).tiou, confidence=scored["score"])
    ranked = ranked.sort_values(["score", "confidence"], ascending=False, kind="stable")
    chosen = ranked.groupby("video").cumcount().sort_index() < places
    return ranked.drop(columns="confidence").sort_index()[chosen].reset_index(drop=True)


def _true_classes(labels: pd.DataFrame, truth: pd.DataFrame, points_at: Targets) -> pd.DataFrame:
    return _from_truth(labels, truth, points_at, points_at.row >= 0, ["label"])


def _true_borders(labels: pd.DataFrame, truth: pd.DataFrame, points_at: Targets) -> pd.DataFrame:
    return _from_truth(labels, truth, points_at, points_at.own, ["t_start", "t_end"])


def _from_truth(
    labels: pd.DataFrame,
    truth: pd.DataFrame,
    points_at: Targets,
    where: np.ndarray,
    columns: list[str],
) -> pd.DataFrame:
    """Columns of the labels marked in `where` (N,), as their targets have them."""
    target = truth.reset_index(drop=True).reindex(points_at.row).set_axis(labels.index)
    return labels.assign(**{name: labels[name].mask(where, target[name]) for name in columns})


def _no_false_labels(labels: pd.DataFrame, truth: pd.DataFrame, points_at: Targets) -> pd.DataFrame:
    return labels[points_at.row >= 0]


def _no_duplicates(labels: pd.DataFrame, truth: pd.DataFrame, points_at: Targets) -> pd.DataFrame:
    ranked = labels.assign(row=points_at.row, tiou=points_at.tiou)[points_at.own]
    ranked = ranked.sort_values(["tiou", "score"], ascending=False, kind="stable")
    return labels.drop(index=ranked.index[ranked.duplicated("row")])


def _no_missed_actions(
    labels: pd.DataFrame, truth: pd.DataFrame, points_at: Targets
) -> pd.DataFrame:
    missed = ~np.isin(np.arange(len(truth)), points_at.row)
    added = truth.loc[missed, _KEYS].assign(score=1.0)
    return pd.concat([frame for frame in (labels, added) if len(frame)] or [labels])


def changed(selected: pd.DataFrame, repaired: pd.DataFrame) -> tuple[int, int]:
    """How many labels a repair took away, and how many there are now that were not there.

    A label that was moved or renamed counts once in each. Scores do not count: a student does not
    see them.
    """
    before, after = (_distinct(frame)[_KEYS] for frame in (selected, repaired))
    either = before.merge(after, how="outer", indicator=True)
    counts = either["_merge"].value_counts()
    return int(counts["left_only"]), int(counts["right_only"])
