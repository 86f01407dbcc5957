"""W-TALC's object arrays (data.md, layout 5), which only somebody who trusts them may load.

``*-I3D-JOINTFeatures.npy`` holds one (T, D) array per video, a folder beside it arrays
``videoname``, ``subset``, ``labels``, ``segments``, ``duration`` and ``classlist`` in the same
order. They are pickles: loading one runs whatever code is in the file.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd

from fustal_core.annotations import Annotations, Report, segments_frame

_NAMES = ("videoname", "subset", "labels", "segments", "duration", "classlist")


def refuse_pickles(path: Path, report: Report) -> None:
    """Report why the arrays are not loaded, and how to have them loaded."""
    report.problem(
        "pickle",
        f"{path}: holds pickled objects, and loading a pickle runs whatever code is in it; if you "
        "trust where it comes from, say --trust-pickle (in a notebook: overrides = "
        '{"trust_pickle": True}), expected otherwise plain arrays, one file a video',
    )


def load_pickled_annotations(folder: Path, report: Report) -> tuple[Annotations, list[str]] | None:
    """Annotations and class names of a folder of annotation arrays; runs code that they hold."""
    loaded = {name: _load(folder / f"{name}.npy", report) for name in _NAMES}
    if any(value is None for value in loaded.values()):
        return None
    columns = {name: loaded[name] for name in _NAMES if name != "classlist"}
    counts = {name: len(value) for name, value in columns.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count} of {name}" for name, count in counts.items())
        report.problem("annotation", f"{folder}: found {found}, expected as many of each")
        return None
    videos, rows = {}, []
    for name, subset, labels, segments, duration in zip(*columns.values(), strict=True):
        video = _text(name)
        videos[video] = (_text(subset), float(np.ravel(duration)[0]), np.nan, np.nan)
        rows += _segments(f"{folder}: video {video}", video, labels, segments, report)
    frame = pd.DataFrame.from_dict(
        videos, orient="index", columns=["subset", "duration_s", "fps", "frames"]
    )
    classes = [_text(name) for name in loaded["classlist"]]
    return Annotations(frame.rename_axis("video"), segments_frame(rows)), classes


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
    except (OSError, ValueError, EOFError, ImportError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split()) or "empty file"
        report.problem("unreadable file", f"{path}: not a readable array: {reason}")
        return None
    return np.atleast_1d(array)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _segments(
    where: str, video: str, labels: object, segments: object, report: Report
) -> list[tuple[str, str, float, float]]:
    """Rows (video, label, start, end) of one video; what is wrong with it is reported."""
    rows = []
    names, times = list(np.atleast_1d(labels)), list(segments)
    if len(names) != len(times):
        found = f"found {len(names)} labels and {len(times)} segments, expected as many"
        report.problem("annotation", f"{where}: {found}")
        return []
    for label, segment in zip(names, times, strict=True):
        start, end = (float(time) for time in segment)
        if end > start:
            rows.append((video, _text(label), start, end))
        else:
            report.problem(
                "reversed segment",
                f"{where}: segment [{start:g}, {end:g}] s of {_text(label)}, expected its end after "
                "its start",
            )
    return rows
