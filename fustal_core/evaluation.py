"""What of a result file and an annotation file is compared: subset, videos left out, intervals.

The numbered differences in `fustal_core.metrics` say why, and which way each choice moves a score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fustal_core.annotations import Annotations, DataError, some_quoted
from fustal_core.left_out import touching
from fustal_core.result_text import count_of
from fustal_core.results import (
    keep_subset,
    keep_videos,
    read_ambiguous,
    read_detections,
    read_ground_truth,
)


@dataclass(frozen=True)
class Compared:
    """Detections and the truth they are measured against.

    Attributes:
        detections: columns ``video``, ``label``, ``t_start``, ``t_end`` (s), ``score``. Those of a
            video that `truth` does not have are false.
        truth: the annotations that count; at least one segment.
        classes: all classes of the annotation file, sorted.
        notes: a line on each thing that was left out, or is counted as false.
    """

    detections: pd.DataFrame
    truth: Annotations
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def read_compared(
    predictions: Path,
    ground_truth: Path,
    subset: str | None = None,
    exclude: Sequence[str] = (),
    ambiguous: Path | None = None,
    *,
    own_subset: bool = False,
) -> Compared:
    """Read a result file and an annotation file, and choose what is compared.

    Args:
        predictions: ActivityNet-style result file.
        ground_truth: ActivityNet-style annotation file.
        subset: as in `read_ground_truth`.
        exclude: videos left out of truth and detections.
        ambiguous: list of intervals (`read_ambiguous`); a detection that shares any time with one
            of its video is left out.
        own_subset: leave out detections in other subsets' videos, which are false otherwise.

    Raises:
        DataError: every problem of all files; a result file without any video of the annotation file;
            excluded videos of which no file has any; nothing left to measure against.
    """
    whole, detections, intervals = _read_each(
        lambda: read_ground_truth(ground_truth),
        lambda: read_detections(predictions),
        lambda: None if ambiguous is None else read_ambiguous(ambiguous),
    )
    _refuse_foreign(detections, whole, predictions, ground_truth)
    notes = _unknown_excluded(exclude, {*detections["video"], *whole.videos.index})
    truth = whole if subset is None else keep_subset(whole, subset, ground_truth)
    if intervals is not None and not truth.videos.index.isin(intervals["video"]).any():
        names = some_quoted(intervals["video"].unique())
        notes.append(f"--ambiguous: none of its videos is among those measured ({names})")
    truth = keep_videos(truth, ~truth.videos.index.isin(list(exclude)))
    if truth.segments.empty:
        where = "" if subset is None else f" of subset {subset!r}"
        raise DataError([f"{ground_truth}: found no segment{where} to measure against"])
    left_out = _left_out(detections, whole, truth, exclude, intervals)
    if not own_subset:
        del left_out["of another subset"]
    detections, more = _choose(detections, truth, left_out)
    classes = tuple(sorted(whole.segments["label"].unique()))
    return Compared(detections, truth, classes, (*notes, *more))


def _read_each(*readers: Callable[[], Any]) -> list[Any]:
    """What each of them reads.

    Raises:
        DataError: the problems of all.
    """
    found, problems = [], []
    for read in readers:
        try:
            found.append(read())
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return found


def _left_out(
    detections: pd.DataFrame,
    whole: Annotations,
    truth: Annotations,
    exclude: Sequence[str],
    intervals: pd.DataFrame | None,
) -> dict[str, pd.Series]:
    """Which detections may be left out, by reason; ``truth`` is a part of ``whole``."""
    videos = detections["video"]
    excluded = videos.isin(list(exclude))
    known = videos.isin(whole.videos.index)
    other_subset = known & ~videos.isin(truth.videos.index) & ~excluded
    left_out = {"excluded": excluded, "of another subset": other_subset}
    if intervals is not None:
        left_out["on an ambiguous interval"] = touching(detections, intervals) & ~excluded
    return left_out


def _choose(
    detections: pd.DataFrame, truth: Annotations, left_out: dict[str, pd.Series]
) -> tuple[pd.DataFrame, list[str]]:
    """The detections that count against `truth`, and what to say of the others."""
    notes: list[str] = []
    videos = detections["video"]
    kept = pd.Series(True, index=detections.index)
    for reason, rows in left_out.items():
        if (rows & kept).any():
            notes.append(f"{_counted(videos[rows & kept])} left out: {reason}")
        kept &= ~rows
    foreign = videos[kept & ~videos.isin(truth.videos.index)]
    if len(foreign):
        names = some_quoted(foreign.unique())
        notes.append(f"{_counted(foreign)} counted as false: not among those measured ({names})")
    return detections[kept].reset_index(drop=True), notes


def without_unmeasured_classes(compared: Compared) -> Compared:
    """Leave out detections of classes that the file has, but no segment that counts: no AP is theirs."""
    labels = compared.detections["label"]
    gone = labels.isin(compared.classes) & ~labels.isin(compared.truth.segments["label"])
    if not gone.any():
        return compared
    names = some_quoted(sorted(labels[gone].unique()))
    count = _counted(compared.detections["video"][gone])
    note = f"{count} left out: their class has no segment in what is measured ({names})"
    detections = compared.detections[~gone].reset_index(drop=True)
    return Compared(detections, compared.truth, compared.classes, (*compared.notes, note))


def measured_durations(compared: Compared) -> tuple[pd.Series, tuple[str, ...]]:
    """Seconds of every video measured, for shares of video time, and notes on those without.

    A video whose duration the truth does not have counts 0 s: it adds to no share.
    """
    known = compared.truth.videos["duration_s"]
    found = pd.Index(compared.detections["video"].unique())
    durations_s = known.reindex(known.index.union(found, sort=False))
    missing = durations_s.index[durations_s.isna()]
    durations_s = durations_s.fillna(0.0)
    if not len(missing):
        return durations_s, ()
    lacking = f"{count_of(len(missing), 'video')} without a duration ({some_quoted(missing)})"
    note = f"{lacking}: not in the shares of video time"
    return durations_s, (note,)


def _counted(videos: pd.Series) -> str:
    """How many detections of how many videos, given the video of each."""
    return f"{count_of(len(videos), 'detection')} of {count_of(videos.nunique(), 'video')}"


def _refuse_foreign(
    detections: pd.DataFrame, truth: Annotations, predictions: Path, ground_truth: Path
) -> None:
    """Refuse detections none of whose videos the annotation file has: their mAP of 0 would mislead."""
    found, known = detections["video"].unique(), truth.videos.index
    if not len(found) or known.isin(found).any():
        return
    problems = [
        f"{predictions}: found videos {some_quoted(found)}, of which {ground_truth} has none",
        f"{ground_truth}: has videos {some_quoted(known)}, expected names as in the result file",
    ]
    bare = {str(name).removeprefix("v_") for name in found}
    if bare & {str(name).removeprefix("v_") for name in known}:
        problems.append("without the prefix 'v_' some of these names are the same")
    raise DataError(problems)


def _unknown_excluded(exclude: Sequence[str], known: set[str]) -> list[str]:
    """Notes on excluded videos that no file has; some lists in use name more than a file has.

    Raises:
        DataError: no file has any of them.
    """
    unknown = [name for name in exclude if name not in known]
    if unknown and len(unknown) == len(exclude):
        raise DataError(
            [f"--exclude: {some_quoted(unknown)}: found in neither file, expected a video's name"]
        )
    return [f"--exclude: {some_quoted(unknown)} found in neither file"] if unknown else []
