"""ActivityNet-style result files, any method's: write, read, and say everything wrong with them.

``{"version": str, "results": {VIDEO: [{"label": str, "score": number, "segment": [start, end] in
seconds}]}, "external_data": {}}``
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from fustal_core.annotations import Annotations, DataError, Report, read_annotations, read_json
from fustal_core.files import write_text
from fustal_core.metrics import DETECTION_COLUMNS

# Spellings in use for the same subset. ActivityNet has both training and validation, so "train"
# never stands for "validation", although THUMOS'14 trains on its validation videos.
_SUBSET_SPELLINGS = {
    "train": "training",
    "val": "validation",
    "valid": "validation",
    "test": "testing",
}


def write_detections(path: Path, detections: pd.DataFrame, version: str) -> None:
    """Write detections atomically; videos in order of appearance, best score first in each.

    Args:
        path: file to write; its folder is made if needed.
        detections: columns ``video``, ``label``, ``t_start``, ``t_end`` (s), ``score``.
        version: what made them; goes into the file.

    Raises:
        ValueError: a NaN or infinite number, which JSON cannot hold.
    """
    results: dict[str, list[dict]] = {}
    if len(detections):
        ranked = detections.sort_values("score", ascending=False, kind="stable")
        for video in detections["video"].unique():
            results[str(video)] = []
        columns = (ranked[name].tolist() for name in DETECTION_COLUMNS)
        for video, label, start, end, score in zip(*columns, strict=True):
            entry = {"label": str(label), "score": score, "segment": [start, end]}
            results[str(video)].append(entry)
    content = {"version": version, "results": results, "external_data": {}}
    write_text(Path(path), json.dumps(content, allow_nan=False) + "\n")


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
    rows = []
    for video, entries in results.items():
        where = f"{path}: video {video}"
        if not isinstance(entries, list):
            report.problems.append(f"{where}: found {entries!r}, expected a list of detections")
            continue
        for position, entry in enumerate(entries):
            problem = _problem(entry)
            if problem:
                report.problems.append(f"{where}: detection {position}: {problem}")
            else:
                rows.append((video, entry["label"], *map(float, entry["segment"]), entry["score"]))
    report.raise_problems()
    frame = pd.DataFrame(rows, columns=list(DETECTION_COLUMNS))
    numbers = dict.fromkeys(("t_start", "t_end", "score"), float)
    return frame.astype({"video": str, "label": str, **numbers})


def _problem(entry: object) -> str:
    """What is wrong with one detection, what was found and what expected; empty when nothing is."""
    if not isinstance(entry, Mapping):
        return f"found {entry!r}, expected an object with label, score and segment"
    label, score, segment = (entry.get(key) for key in ("label", "score", "segment"))
    if not isinstance(label, str) or not label.strip():
        return f"label {label!r}, expected a class name"
    if not _is_number(score):
        return f"score {score!r}, expected a finite number"
    if not isinstance(segment, list) or len(segment) != 2 or not all(map(_is_number, segment)):
        return f"segment {segment!r}, expected [start, end] in seconds"
    if segment[0] > segment[1]:
        return f"segment {segment!r} is reversed, expected start <= end"
    return ""


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def read_ground_truth(path: Path, subset: str | None = None) -> Annotations:
    """Ground truth of an ActivityNet-style annotation file.

    Args:
        path: the file.
        subset: keep this subset only; case and "test" or "testing", "train" or "training", "val" or
            "validation" do not matter. None keeps all videos.

    Returns:
        ``.segments``: columns ``video``, ``label``, ``t_start``, ``t_end`` (s);
        ``.videos``: index ``video``, columns ``subset``, ``duration_s``, ``fps``.

    Raises:
        DataError: listing every problem, or the subsets there are if `subset` is not one of them.
    """
    report = Report()
    truth = read_annotations(Path(path), report)
    report.raise_problems()
    if subset is None:
        return truth
    keep = truth.videos["subset"].map(_subset_key) == _subset_key(subset)
    if not keep.any():
        known = ", ".join(sorted(truth.videos["subset"].unique()))
        raise DataError([f"{path}: no video in subset {subset!r}, expected one of: {known}"])
    videos = truth.videos[keep]
    segments = truth.segments[truth.segments["video"].isin(videos.index)]
    return Annotations(videos, segments.reset_index(drop=True))


def _subset_key(name: str) -> str:
    lower = name.strip().lower()
    return _SUBSET_SPELLINGS.get(lower, lower)
