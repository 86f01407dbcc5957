"""W-TALC's object arrays, which only somebody who trusts them may load.

``*-I3D-JOINTFeatures.npy`` holds one (T, D) array per video, a folder beside it arrays
``videoname``, ``subset``, ``labels``, ``segments``, ``duration`` and ``classlist`` in the same
order. They are pickles: loading one runs whatever code is in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from fustal_core.annotations import Annotations, Report, parse_database

_NAMES = ("videoname", "subset", "labels", "segments", "duration", "classlist")


def refuse_pickles(path: Path, report: Report) -> None:
    """Report why the arrays are not loaded, and how to have them loaded."""
    report.problem(
        "pickle",
        f"{path}: holds pickled objects, and loading a pickle runs whatever code is in it; if you "
        "trust where it comes from, say --trust-pickle (in a notebook: overrides = "
        '{"trust_pickle": True}), expected otherwise plain arrays, one file a video',
    )


@dataclass(frozen=True)
class Pickled:
    """Annotations as the arrays have them.

    order: videos in the order of the features, one listed twice included.
    classes: of ``classlist``.
    """

    annotations: Annotations
    order: list[str]
    classes: list[str]


def load_pickled_annotations(folder: Path, report: Report) -> Pickled | None:
    """Annotations of a folder of annotation arrays; runs code that they hold."""
    loaded = {name: _load(folder / f"{name}.npy", report) for name in _NAMES}
    if any(value is None for value in loaded.values()):
        return None
    columns = {name: loaded[name] for name in _NAMES if name != "classlist"}
    counts = {name: len(value) for name, value in columns.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count} of {name}" for name, count in counts.items())
        report.problem("annotation", f"{folder}: found {found}, expected as many of each")
        return None
    order = [_text(name) for name in columns["videoname"]]
    for video in sorted({video for video in order if order.count(video) > 1}):
        times = f"listed {order.count(video)} times, expected once"
        report.problem("listed twice", f"{folder}: video {video}: {times}")
    database = {
        video: {
            "subset": _text(subset),
            "duration": next(iter(np.ravel(duration).tolist()), None),
            "annotations": _entries(labels, segments),
        }
        for video, subset, labels, segments, duration in zip(
            order, *list(columns.values())[1:], strict=True
        )
    }
    annotations = parse_database(folder, database, report, ["duration"])
    return Pickled(annotations, order, [_text(name) for name in loaded["classlist"]])


def load_pickled_features(
    path: Path, videos: list[str], report: Report
) -> dict[str, tuple[np.ndarray]]:
    """The features of all videos, named in the order of the annotations; runs code they hold."""
    arrays = _load(path, report)
    if arrays is None:
        return {}
    if len(arrays) != len(videos):
        expected = f"expected {len(videos)} as annotated"
        report.problem(
            "missing file", f"{path}: found features of {len(arrays)} videos, {expected}"
        )
        return {}
    return {video: (np.asarray(array),) for video, array in zip(videos, arrays, strict=True)}


def _load(path: Path, report: Report) -> np.ndarray | None:
    try:
        array = np.load(path, allow_pickle=True, encoding="bytes")
    except FileNotFoundError:
        report.problem("missing file", f"{path}: no such file")
        return None
    except Exception as error:  # what a pickle runs can fail in any way
        reason = " ".join(str(error).split()) or "empty file"
        report.problem("unreadable file", f"{path}: not a readable array: {reason}")
        return None
    if not isinstance(array, np.ndarray):
        report.problem("unreadable file", f"{path}: found an .npz archive, expected one array")
        return None
    return np.atleast_1d(array)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _entries(labels: object, segments: object) -> list[object]:
    """Annotations as a JSON file would have them; what does not fit together becomes ``None``."""
    names = [_text(label) for label in np.atleast_1d(np.asarray(labels, dtype=object))]
    times = list(segments) if isinstance(segments, list | tuple | np.ndarray) else [segments]
    pairs = zip_longest(names, times)
    return [
        {"label": name, "segment": np.asarray(segment, dtype=object).ravel().tolist()}
        for name, segment in pairs
    ]
