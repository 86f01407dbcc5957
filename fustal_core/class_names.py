"""Whether the classes of a data set can be trained and measured, and none is a slip of the pen."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import pandas as pd

from fustal_core.annotations import Annotations, Report
from fustal_core.description import FILE

_TABLES = Path(__file__).parent / "tables"
_ALIKE = 0.85
"""Names more alike than this (difflib's ratio), one of them used once, are taken for one."""


def check_classes(
    path: Path, annotations: Annotations, listed: list[str] | None, report: Report
) -> set[str]:
    """Every class must be known, and every class measured needs a training video that shows it.

    Args:
        path: of the annotations, for the report.
        annotations: with subsets "train" and "test".
        listed: the classes there may be; ``None``: those of THUMOS'14 if most are, else all that
            occur, but for what looks like a misspelling of another.
        report: receives problems and warnings.

    Returns:
        The classes there may be.
    """
    segments = annotations.segments
    subset = segments["video"].map(annotations.videos["subset"])
    train = set(segments["label"][subset == "train"])
    test = set(segments["label"][subset == "test"])
    known = set(listed) if listed is not None else _public_classes(train | test)
    for name in sorted((train | test) - known):
        expected = f"expected one of {', '.join(sorted(known))}"
        report.problem("unknown class", f"{_where(path, segments, name)}: {expected}")
    if not set(annotations.videos["subset"]) >= {"train", "test"}:
        return known  # said already, and what follows would be said of every class
    if not train:
        what = "no training video has a label, expected at least one segment"
        report.problem("class", f"{path}: {what}")
        return known
    for name in sorted((test - train) & known):
        what = "only in test videos, no training video shows it"
        report.problem("class", f"{_where(path, segments, name)}: {what}")
    for name in sorted((train - test) & known):
        other = _misspelling_of(name, segments["label"]) if listed is None else None
        where = _where(path, segments, name)
        if other is not None:
            accept = f"if it is meant, list all names as 'classes' in {FILE}"
            report.problem("unknown class", f"{where}: misspelt? expected {other!r}; {accept}")
        else:
            report.warnings.append(f"{where}: in no test video, it is not measured")
    if listed is not None:
        for name in sorted(known - train - test):
            report.warnings.append(f"class {name!r}: listed, but no video shows it")
    return known


def _where(path: Path, segments: pd.DataFrame, name: str) -> str:
    """The first video that shows a class, and how many more do."""
    videos = segments["video"][segments["label"] == name].unique()
    more = f" and {len(videos) - 1} more" if len(videos) > 1 else ""
    return f"{path}: video {videos[0]}{more}: class {name!r}"


def _public_classes(found: set[str]) -> set[str]:
    """The classes of THUMOS'14 where most of those found are among them, else those found."""
    public = set(pd.read_csv(_TABLES / "thumos14_classes.csv")["class"])
    return public if len(found & public) > len(found) / 2 else found


def _misspelling_of(name: str, labels: pd.Series) -> str | None:
    """Another class that this one, all but in spelling, is."""
    counts = labels.value_counts()
    others = [other for other in counts.index if other != name]
    for other in others:
        if _letters(other) == _letters(name):
            return other
    alike = difflib.get_close_matches(name, others, 1, _ALIKE) if counts[name] == 1 else []
    return alike[0] if alike else None


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())
