"""ActivityNet-style annotation files: reading, and saying everything that is wrong with them.

``{"database": {VIDEO: {"subset": str, "duration": seconds, "fps": optional,
"annotations": [{"segment": [start, end] in seconds, "label": str}]}}}``
Some releases add ``frames``, the length of the source video.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from reprlib import Repr

import numpy as np
import pandas as pd

from fustal_core.metrics import TRUTH_COLUMNS

# ActivityNet has both training and validation, so "train" never stands for "validation", although
# THUMOS'14 trains on its validation videos.
_SPELLINGS = {"train": "training", "val": "validation", "valid": "validation", "test": "testing"}


class DataError(Exception):
    """Bad data on disk. ``problems`` holds every problem found, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def some(names: Sequence[str] | pd.Index) -> str:
    """The first three names of a list, and whether it has more."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def some_quoted(names: Iterable[object]) -> str:
    """The first three names of a list in quotes, and whether it has more."""
    return some([repr(str(name)) for name in names])


def in_short(value: object) -> str:
    """What was found, in a line that stays short however large or deep it is."""
    short = Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 200, 200
    return short.repr(value)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: its kind, for grouping, and a line with file, video, found, expected."""

    kind: str
    text: str


@dataclass
class Report:
    """What is wrong (``problems``), what is merely odd (``warnings``), and what was recognised
    (``found``), collected on the way."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    def problem(self, kind: str, text: str) -> None:
        """Note something wrong."""
        self.problems.append(Problem(kind, text))

    def raise_problems(self) -> None:
        """Raise one :class:`DataError` with all problems, if there are any."""
        if self.problems:
            raise DataError([problem.text for problem in self.problems])


@dataclass(frozen=True)
class Annotations:
    """One annotation file.

    videos: index ``video``; columns ``subset`` (as spelt in the file), ``duration_s``, ``fps`` and
    ``frames`` of the source video (NaN where the file does not say).
    segments: columns ``video``, ``label``, ``t_start``, ``t_end`` (seconds), in file order.
    """

    videos: pd.DataFrame
    segments: pd.DataFrame


def segments_frame(rows: list[tuple[str, str, float, float]]) -> pd.DataFrame:
    """Rows (video, label, t_start, t_end) as a frame with the right types, also when empty."""
    frame = pd.DataFrame(rows, columns=list(TRUTH_COLUMNS))
    return frame.astype({"video": str, "label": str, "t_start": float, "t_end": float})


def in_segments(times_s: np.ndarray, segments: pd.DataFrame, margin_s: float = 0.0) -> np.ndarray:
    """Which times (T,) lie in a segment (``t_start``, ``t_end``), or within the margin of one; (T,)."""
    start, end = segments["t_start"].to_numpy() - margin_s, segments["t_end"].to_numpy() + margin_s
    return ((times_s[:, None] >= start) & (times_s[:, None] <= end)).any(1)


SMALLEST, LARGEST = 1e-9, 1e9
"""Of durations, rates and frames: with numbers between these, no time overflows."""

MEASURE = f"a positive number up to {LARGEST:g}"


def is_measure(value: object) -> bool:
    """Whether something is a number above 0, and none so small or large that times overflow."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and SMALLEST <= value <= LARGEST


def _number(value: object) -> float:
    """A JSON number, or a number written as text as some releases do; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _listed_twice(pairs: list[tuple[str, object]]) -> list[str]:
    """A line for each key that occurs more than once, with the subsets if they are videos."""
    lines = []
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            values = [value for name, value in pairs if name == key]
            subsets = [str(value.get("subset")) for value in values if isinstance(value, dict)]
            where = f" (subsets {', '.join(subsets)})" if subsets else ""
            lines.append(f"{key!r} is listed {count} times{where}, expected once")
    return lines


def read_json(path: Path, report: Report) -> object:
    """The file's content; ``None`` with a problem reported when there is none to read.

    A key written twice is kept silently by ``json``: in a database it is a video listed twice, in
    both splits for instance, so it is a problem.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(pairs)) < len(pairs):
            for text in _listed_twice(pairs):
                report.problem("listed twice", f"{path}: {text}")
        return dict(pairs)

    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
    except FileNotFoundError:
        report.problem("missing file", f"{path}: no such file")
    except OSError as error:
        report.problem("unreadable file", f"{path}: cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:
        report.problem("unreadable file", f"{path}: not valid JSON: {error}")
    else:
        if content is None:
            report.problem("unreadable file", f"{path}: found null, expected an object")
        return content
    return None


def _read_segment(entry: object, where: str, report: Report) -> tuple[str, float, float] | None:
    """(label, start, end) of one annotation, or ``None`` with the problem reported."""
    if not isinstance(entry, Mapping):
        report.problem(
            "annotation", f"{where}: found {in_short(entry)}, expected segment and label"
        )
        return None
    label, segment = entry.get("label"), entry.get("segment")
    if not isinstance(label, str) or not label.strip() or not label.isprintable():
        report.problem("annotation", f"{where}: label {in_short(label)}, expected a class name")
        return None
    label = label.strip()
    times = [_number(value) for value in segment] if isinstance(segment, list) else []
    if len(times) != 2 or not all(map(math.isfinite, times)):
        report.problem(
            "annotation", f"{where}: segment {in_short(segment)}, expected [start, end] in seconds"
        )
        return None
    start, end = times
    if end <= start:
        report.problem(
            "reversed segment",
            f"{where}: segment [{start:g}, {end:g}] s of {label}, expected its end after its start",
        )
        return None
    return label, start, end


def _is_file_name(video: str) -> bool:
    """Whether a video's name can be that of its file."""
    is_name = video.isprintable() and video not in {"", ".", ".."}
    return is_name and "/" not in video and "\\" not in video


def _read_video(
    video: str, entry: object, where: str, needed: Sequence[str], report: Report
) -> tuple[tuple[str, float, float, float], list] | None:
    """(subset, duration, fps, frames) of one database entry and its annotations."""
    if not _is_file_name(video):
        report.problem(
            "annotation",
            f"{where!a}: its name is also a file name, expected no slash or control character",
        )
        return None
    if not isinstance(entry, Mapping):
        report.problem("annotation", f"{where}: found {in_short(entry)}, expected an object")
        return None
    subset = entry.get("subset")
    if not isinstance(subset, str) or not subset.isprintable():
        report.problem(
            "annotation", f"{where}: subset {in_short(subset)}, expected a name such as 'train'"
        )
        subset = ""
    values = {}
    for key in ("duration", "fps", "frames"):
        value = entry.get(key)
        values[key] = _number(value)
        if value is None and key not in needed:
            continue
        if value is None and key not in entry:
            report.problem("annotation", f"{where}: no {key}, expected a positive number")
        elif not is_measure(values[key]):
            report.problem("annotation", f"{where}: {key} {in_short(value)}, expected {MEASURE}")
            values[key] = math.nan
    annotations = entry.get("annotations")
    if not isinstance(annotations, list):
        report.problem(
            "annotation", f"{where}: annotations {in_short(annotations)}, expected a list"
        )
        annotations = []
    return (subset, *values.values()), annotations


def read_annotations(path: Path, report: Report, needed: Sequence[str] = ()) -> Annotations | None:
    """Read an ActivityNet-style file; problems go to ``report``, sound entries are returned.

    needed: which of "duration", "fps" and "frames" every video must state.

    Returns ``None`` when the file has no database at all.
    """
    content = read_json(path, report)
    if content is None:
        return None
    database = content.get("database") if isinstance(content, Mapping) else None
    if not isinstance(database, Mapping) or not database:
        report.problem(
            "annotation", f"{path}: expected an object with a non-empty 'database' of videos"
        )
        return None
    return parse_database(path, database, report, needed)


def parse_database(
    path: Path, database: Mapping[str, object], report: Report, needed: Sequence[str] = ()
) -> Annotations:
    """The sound entries of a database (video -> entry); problems go to ``report``."""
    videos, rows = {}, []
    for video, entry in database.items():
        where = f"{path}: video {video}"
        read = _read_video(video, entry, where, needed, report)
        if read is None:
            continue
        videos[video], annotations = read
        for position, annotation in enumerate(annotations):
            segment = _read_segment(annotation, f"{where}: annotation {position}", report)
            if segment is not None:
                rows.append((video, *segment))
    columns = ["subset", "duration_s", "fps", "frames"]
    frame = pd.DataFrame.from_dict(videos, orient="index", columns=columns)
    return Annotations(frame.rename_axis("video"), segments_frame(rows))


def subset_key(name: str) -> str:
    """One spelling for a subset however it is written: "Validation" and "val" are "validation"."""
    lower = name.strip().casefold()
    return _SPELLINGS.get(lower, lower)


def subset_roles(subsets: Iterable[str]) -> dict[str, str]:
    """Which spelling stands for "train" and which for "test", as the public releases mean them.

    With a training subset, the test videos are those of "validation" (GTEA, BEOID, ActivityNet,
    whose own test subset has no public annotations), else "testing". Without one, "validation" is
    trained on (THUMOS'14). Spellings of neither role are left out.
    """
    by_key: dict[str, list[str]] = {}
    for subset in subsets:
        by_key.setdefault(subset_key(subset), []).append(subset)
    train = "training" if "training" in by_key else "validation"
    test = "validation" if train == "training" and "validation" in by_key else "testing"
    return {
        spelling: role
        for key, role in ((train, "train"), (test, "test"))
        for spelling in by_key.get(key, [])
    }
