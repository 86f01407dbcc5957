"""ActivityNet-style result files, any method's: write, read, and say everything wrong with them.

``{"version": str, "results": {VIDEO: [{"label": str, "score": number, "segment": [start, end] in
seconds}]}, "external_data": {}}``
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fustal_core.annotations import (
    Annotations,
    DataError,
    Report,
    in_short,
    read_annotations,
    read_json,
    subset_key,
)
from fustal_core.files import write_text
from fustal_core.metrics import DETECTION_COLUMNS, TRUTH_COLUMNS

if TYPE_CHECKING:
    from fustal_core.data import Dataset


def write_detections(
    path: Path, detections: pd.DataFrame, version: str, videos: Iterable[str] = ()
) -> None:
    """Write detections atomically; best score first in each video.

    Args:
        path: file to write; its folder is made if needed.
        detections: columns ``video``, ``label``, ``t_start``, ``t_end`` (s), ``score``.
        version: what made them; goes into the file.
        videos: all that were searched, in the order of the file; one in which nothing was found
            gets an empty list. Others follow in order of appearance.

    Raises:
        ValueError: a NaN or infinite number, which JSON cannot hold.
    """
    results: dict[str, list[dict]] = {str(video): [] for video in videos}
    if len(detections):
        ranked = detections.sort_values("score", ascending=False, kind="stable")
        for video in detections["video"].unique():
            results.setdefault(str(video), [])
        columns = (ranked[name].tolist() for name in DETECTION_COLUMNS)
        for video, label, start, end, score in zip(*columns, strict=True):
            entry = {"label": str(label), "score": score, "segment": [start, end]}
            results[str(video)].append(entry)
    content = {"version": version, "results": results, "external_data": {}}
    write_text(Path(path), json.dumps(content, allow_nan=False) + "\n")


def write_pseudo_labels(path: Path, selected: pd.DataFrame, dataset: Dataset, version: str) -> None:
    """Write selected pseudo labels as the annotation file that the original student's program reads.

    ``{"version": str, "database": {VIDEO: {"subset", "duration": s, "fps": f, "annotations":
    [{"label", "label_id", "segment": [s, s], "segment(frames)": [f, f]}, ...]}}}``. The training
    videos are its subset "Validation", as in THUMOS'14; theirs are the selected segments, each with
    its "score". The test videos are its subset "Test" and carry their *true* segments, because that
    program (TriDet's, ActionFormer's) measures on them: nothing may train on that subset.

    Args:
        path: file to write; its folder is made if needed.
        selected: columns ``video``, ``label``, ``t_start``, ``t_end`` (s), ``score``; of training
            videos. A training video without any has an empty list.
        dataset: whose videos, classes and test segments are written; frames are those that the
            student's features count.
        version: what made them; goes into the file.

    Raises:
        ValueError: a NaN or infinite number, which JSON cannot hold.
    """
    database: dict[str, dict] = {}
    for subset, spelling, segments in (
        ("train", "Validation", selected),
        ("test", "Test", dataset.truth("test")),
    ):
        by_video = dict(list(segments.groupby("video")))
        for video in dataset.video_names(subset):
            fps = dataset.student_features.fps[video]
            rows = by_video.get(video, segments[:0])
            database[video] = {
                "subset": spelling,
                "duration": float(dataset.videos.loc[video, "duration_s"]),
                "fps": float(fps),
                "annotations": _annotations(rows, fps, dataset.classes),
            }
    content = {"version": version, "database": database}
    write_text(Path(path), json.dumps(content, allow_nan=False) + "\n")


def _annotations(segments: pd.DataFrame, fps: float, classes: tuple[str, ...]) -> list[dict]:
    entries = [
        {
            "label": str(label),
            "label_id": classes.index(label),
            "segment": [float(start), float(end)],
            "segment(frames)": [float(start) * fps, float(end) * fps],
        }
        for label, start, end in zip(*(segments[c] for c in TRUTH_COLUMNS[1:]), strict=True)
    ]
    if "score" in segments:
        for entry, score in zip(entries, segments["score"].tolist(), strict=True):
            entry["score"] = score
    return entries


def read_detections(path: Path) -> pd.DataFrame:
    """Detections or proposals of a result file.

    Returns:
        Columns ``video``, ``label``, ``t_start``, ``t_end`` (s), ``score``, in file order.

    Raises:
        DataError: listing every problem: the file, the video, what was found, what was expected.
    """
    path, report = Path(path), Report()
    content = read_json(path, report)
    report.raise_problems()
    results = content.get("results") if isinstance(content, Mapping) else None
    if not isinstance(results, Mapping):
        found = (
            f"keys {', '.join(content)}" if isinstance(content, Mapping) else type(content).__name__
        )
        raise DataError([f"{path}: found {found}, expected an object with 'results' of videos"])
    frame = _all_at_once(results)
    if frame is None:
        _report_entries(path, results, report)
        report.raise_problems()
    return frame


def _all_at_once(results: Mapping[str, object]) -> pd.DataFrame | None:
    """The detections of all videos, by column and without a loop; ``None`` if any of them is bad."""
    if not all(isinstance(entries, list) for entries in results.values()):
        return None
    entries = list(chain.from_iterable(results.values()))
    try:
        labels = list(map(itemgetter("label"), entries))
        numbers = list(map(itemgetter("score"), entries))
        segments = list(map(itemgetter("segment"), entries))
        if set(map(type, segments)) - {list} or set(map(len, segments)) - {2}:
            return None
        numbers += chain.from_iterable(segments)
        values = np.array(numbers, dtype=float)
    except (TypeError, KeyError, ValueError, OverflowError):  # a missing key, no number, too large
        return None
    start, end = values[len(entries) :].reshape(-1, 2).T
    sound = set(map(type, numbers)) <= {int, float} and set(map(type, labels)) <= {str}
    sound = sound and all(_is_name(name) for name in {*labels, *results})
    if not (sound and np.isfinite(values).all() and (start <= end).all()):
        return None
    videos = np.repeat(np.array(list(results), dtype=object), list(map(len, results.values())))
    labels = list(map(str.strip, labels))  # as the annotations' are
    columns = (videos, labels, start, end, values[: len(entries)])
    frame = pd.DataFrame(dict(zip(DETECTION_COLUMNS, columns, strict=True)))
    return frame.astype({"video": str, "label": str})


def _report_entries(path: Path, results: Mapping[str, object], report: Report) -> None:
    """Report every bad detection, one by one."""
    for video, entries in results.items():
        where = f"{path}: video {video}"
        if not isinstance(entries, list):
            found = f"found {in_short(entries)}, expected a list of detections"
            report.problem("result file", f"{where}: {found}")
            continue
        if not _is_name(video):
            report.problem("result file", f"{where!a}: expected a name that can be printed")
        for position, entry in enumerate(entries):
            if problem := _problem(entry):
                report.problem("result file", f"{where}: detection {position}: {problem}")


def _problem(entry: object) -> str:
    """What is wrong with one detection, what was found and what expected; empty when nothing is."""
    if not isinstance(entry, Mapping):
        return f"found {in_short(entry)}, expected an object with label, score and segment"
    label, score, segment = (entry.get(key) for key in ("label", "score", "segment"))
    if not isinstance(label, str) or not _is_name(label):
        return f"label {in_short(label)}, expected a class name"
    if not _is_number(score):
        return f"score {in_short(score)}, expected a finite number"
    if not isinstance(segment, list) or len(segment) != 2 or not all(map(_is_number, segment)):
        return f"segment {in_short(segment)}, expected [start, end] in seconds"
    if segment[0] > segment[1]:
        return f"segment {in_short(segment)} is reversed, expected start <= end"
    return ""


def _is_name(text: str) -> bool:
    """Whether a label or video can be printed, and written anywhere, and is not empty."""
    return bool(text.strip()) and text.strip().isprintable()


def _is_number(value: object) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # an integer beyond what a float holds
        return False


def read_ground_truth(path: Path) -> Annotations:
    """Ground truth of an ActivityNet-style annotation file.

    Returns:
        ``.segments``: columns ``video``, ``label``, ``t_start``, ``t_end`` (s);
        ``.videos``: index ``video``, columns ``subset``, ``duration_s``, ``fps``.

    Raises:
        DataError: listing every problem.
    """
    report = Report()
    truth = read_annotations(Path(path), report)
    report.raise_problems()
    return truth


def keep_subset(truth: Annotations, subset: str, path: Path) -> Annotations:
    """The part of `truth`, read from `path`, that is of one subset.

    Case and "test" or "testing", "train" or "training", "val" or "validation" do not matter.

    Raises:
        DataError: there is no such subset; lists those there are.
    """
    keep = truth.videos["subset"].map(subset_key) == subset_key(subset)
    if not keep.any():
        known = ", ".join(sorted(truth.videos["subset"].unique()))
        raise DataError([f"{path}: no video in subset {subset!r}, expected one of: {known}"])
    return keep_videos(truth, keep)


def keep_videos(truth: Annotations, keep: pd.Series) -> Annotations:
    """The part of `truth` where `keep` (index video, bool) is true."""
    videos = truth.videos[keep]
    segments = truth.segments[truth.segments["video"].isin(videos.index)]
    return Annotations(videos, segments.reset_index(drop=True))


def read_ambiguous(path: Path) -> pd.DataFrame:
    """A list of ambiguous intervals, ``VIDEO START END`` a line, seconds, as THUMOS'14 has it.

    Returns:
        Columns ``video``, ``t_start``, ``t_end`` (s), in file order; empty lines are skipped.

    Raises:
        DataError: listing every bad line by its number; no intervals at all.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError([f"{path}: cannot be read: {error}"]) from None
    rows, problems = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        interval = _interval(line)
        if interval is None:
            expected = "expected 'VIDEO START END' in seconds, 0 <= START < END"
            problems.append(f"{path}: line {number}: found {line.strip()!r}, {expected}")
        else:
            rows.append(interval)
    if not rows and not problems:
        problems = [f"{path}: no intervals, expected 'VIDEO START END' a line"]
    if problems:
        raise DataError(problems)
    return pd.DataFrame(rows, columns=["video", "t_start", "t_end"])


def _interval(line: str) -> tuple[str, float, float] | None:
    """Video, start and end of a line; ``None`` if it does not say that."""
    try:
        video, start, end = line.split()
        interval = video, float(start), float(end)
    except ValueError:
        return None
    return interval if 0 <= interval[1] < interval[2] < math.inf else None
