"""Point labels: one moment of each action of the training videos, as point supervision uses them.

Two spellings: ``video_id, class, time_s`` in seconds (data.md, layout 6), and HR-Pro's
``video_id, class, start_frame, stop_frame, point`` in frames of the source video, of which the
segment's ends are not read: who trains with points sees points.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fustal_core.annotations import Annotations, Report

POINT_COLUMNS = ("video", "label", "t")


def points_frame(rows: list[tuple[str, str, float]] = ()) -> pd.DataFrame:
    """Rows (video, label, seconds) as a frame with the right types, also when empty."""
    frame = pd.DataFrame(list(rows), columns=list(POINT_COLUMNS))
    return frame.astype({"video": str, "label": str, "t": float})


def read_points(
    path: Path,
    annotations: Annotations,
    annotated: pd.Index,
    classes: set[str],
    report: Report,
) -> pd.DataFrame:
    """Point labels of the training videos; all problems go to ``report``.

    Args:
        path: the CSV file.
        annotations: of the videos, with subsets "train" and "test".
        annotated: all videos of the annotation file, also those in neither subset.
        classes: known class names.

    Returns:
        Columns ``video``, ``label``, ``t`` (seconds), in file order.
    """
    videos = annotations.videos
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        report.problem("missing file", f"{path}: no such file (points of the data)")
        return points_frame()
    except (OSError, ValueError) as error:
        report.problem("unreadable file", f"{path}: not a readable CSV: {error}")
        return points_frame()
    time = next((name for name in ("time_s", "point") if name in table.columns), None)
    if time is None or not {"video_id", "class"} <= set(table.columns):
        report.problem(
            "points",
            f"{path}: found columns {', '.join(map(str, table.columns))}, expected video_id, class "
            "and time_s (seconds) or point (frames)",
        )
        return points_frame()
    known = table["video_id"].isin(videos.index)
    for video in table.loc[~table["video_id"].isin(annotated), "video_id"].unique():
        report.problem("points", f"{path}: video {video}: not annotated, expected a known video")
    table = table[known]
    seconds = pd.to_numeric(table[time], errors="coerce").to_numpy(float)
    for video, text in table.loc[~np.isfinite(seconds), ["video_id", time]].to_numpy():
        report.problem("points", f"{path}: video {video}: point {text!r}, expected a number")
    if time == "point":
        seconds = seconds / _source_fps(path, table["video_id"], videos, report)
    points = pd.DataFrame({"video": table["video_id"], "label": table["class"], "t": seconds})
    points = points[np.isfinite(seconds)]
    sound = _check(path, points, annotations, classes, report)
    train = videos["subset"].loc[points["video"]].to_numpy() == "train"
    points = points[sound & train].reset_index(drop=True)
    without = videos.index[(videos["subset"] == "train") & ~videos.index.isin(points["video"])]
    if len(without):
        some = ", ".join(without[:3])
        report.warnings.append(f"{path}: {len(without)} training videos have no point: {some} ...")
    return points_frame(list(points.itertuples(index=False, name=None)))


def _source_fps(path: Path, names: pd.Series, videos: pd.DataFrame, report: Report) -> np.ndarray:
    """Frames a second of the source videos, (N,): stated, or from their length in frames."""
    fps = videos["fps"].fillna(videos["frames"] / videos["duration_s"])
    without = fps.index[fps.isna() & fps.index.isin(names)]
    if len(without):
        some = ", ".join(without[:3]) + (", ..." if len(without) > 3 else "")
        what = "no fps in the annotations, expected one to turn frames into seconds"
        report.problem("points", f"{path}: {len(without)} videos ({some}): {what}")
    return fps.loc[names].to_numpy()


def _check(
    path: Path, points: pd.DataFrame, annotations: Annotations, classes: set[str], report: Report
) -> np.ndarray:
    """Report points that cannot be; (N,) which are sound."""
    duration_s = annotations.videos["duration_s"].loc[points["video"]].to_numpy()
    inside = (points["t"] >= 0) & ~(points["t"] > duration_s)
    known = points["label"].isin(classes)
    for (video, label, t), end_s in zip(
        points[~inside].itertuples(index=False, name=None), duration_s[~inside], strict=True
    ):
        found = f"point of {label} at {t:g} s, expected within [0, {end_s:g}] s"
        report.problem("points", f"{path}: video {video}: {found}")
    for video, label, t in points[~known].itertuples(index=False, name=None):
        expected = f"expected one of {', '.join(sorted(classes))}"
        report.problem("points", f"{path}: video {video}: class {label!r} at {t:g} s, {expected}")
    shown = pd.MultiIndex.from_frame(annotations.segments[["video", "label"]])
    own = pd.MultiIndex.from_frame(points[["video", "label"]]).isin(shown)
    for video, label, t in points[known & ~own].itertuples(index=False, name=None):
        expected = "expected a class that its video is annotated with"
        report.problem("points", f"{path}: video {video}: class {label!r} at {t:g} s, {expected}")
    return (inside & known & own).to_numpy()
