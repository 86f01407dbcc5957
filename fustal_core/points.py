"""Point labels: one moment of each action of the training videos, as point supervision uses them.

Two spellings: ``video_id, class, time_s`` in seconds, and HR-Pro's
``video_id, class, start_frame, stop_frame, point`` in frames of the source video, of which the
segment's ends are not read: who trains with points sees points.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fustal_core.annotations import Annotations, Report, some

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
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes the first column for an index
        expected = f"expected {len(table.columns)} in a line, as many as the first line names"
        report.problem("points", f"{path}: found more values, or a comma at the end; {expected}")
        return points_frame()
    time = next((name for name in ("time_s", "point") if name in table.columns), None)
    if time is None or not {"video_id", "class"} <= set(table.columns):
        report.problem(
            "points",
            f"{path}: found columns {', '.join(map(str, table.columns))}, expected video_id, class "
            "and time_s (seconds) or point (frames)",
        )
        return points_frame()
    for video in table.loc[~table["video_id"].isin(annotated), "video_id"].unique():
        report.problem("points", f"{path}: video {video}: not annotated, expected a known video")
    trained = videos.index[videos["subset"] == "train"]
    unused = int((table["video_id"].isin(annotated) & ~table["video_id"].isin(trained)).sum())
    table = table[table["video_id"].isin(videos.index)]
    seconds = pd.to_numeric(table[time], errors="coerce").to_numpy(float)
    for video, text in table.loc[~np.isfinite(seconds), ["video_id", time]].to_numpy():
        report.problem("points", f"{path}: video {video}: point {text!r}, expected a number")
    if time == "point":
        seconds = seconds / _source_fps(path, table["video_id"], videos, report)
    points = pd.DataFrame({"video": table["video_id"], "label": table["class"], "t": seconds})
    points = points[np.isfinite(seconds)]
    sound = _check(path, points, annotations, classes, report)
    points = points[sound & points["video"].isin(trained).to_numpy()]
    taught = trained[trained.isin(annotations.segments["video"])]
    _warn(path, points, taught[~taught.isin(points["video"])], unused, report)
    return points_frame(list(points.itertuples(index=False, name=None)))


def _warn(path: Path, points: pd.DataFrame, without: pd.Index, unused: int, report: Report) -> None:
    """Say what is odd about sound points: training videos ``without`` one, points of no use."""
    if len(without):
        report.warnings.append(
            f"{path}: {len(without)} training videos have no point: {some(without)}"
        )
    if unused:
        report.warnings.append(
            f"{path}: {unused} points of videos that are not trained on: not used"
        )
    twice = int(points.duplicated().sum())
    if twice:
        report.warnings.append(f"{path}: {twice} points are given twice")


def snippets_of(t_s: np.ndarray, seconds_per_snippet: np.ndarray) -> np.ndarray:
    """Index of the snippet in whose step each time lies, ``floor(t / seconds_per_snippet)``.

    Seconds, both (P,). Returns (P,) float, NaN where one of them is.
    """
    # Rounded, because a frame's time in seconds is not quite a whole number of frames.
    return np.floor(np.round(t_s / seconds_per_snippet, 6))


def warn_of_shared_snippets(
    path: Path, points: pd.DataFrame, seconds_per_snippet: dict[str, float], report: Report
) -> None:
    """Say where points of several classes lie on one snippet, which is then taught all of them.

    Args:
        path: of the points, for the report.
        points: columns ``video``, ``label``, ``t`` (s).
        seconds_per_snippet: of each of their videos; NaN where it is not known.
        report: receives the warning.
    """
    seconds = points["video"].map(seconds_per_snippet).to_numpy(float)
    snippets = points[["video", "label"]].assign(snippet=snippets_of(points["t"], seconds))
    kinds = snippets.dropna().groupby(["video", "snippet"], sort=False)["label"].unique()
    shared = kinds[kinds.map(len) > 1]
    if len(shared):
        (video, snippet), labels = shared.index[0], shared.iloc[0]
        example = f"video {video}, snippet {snippet:.0f}: {', '.join(labels)}"
        report.warnings.append(
            f"{path}: {len(shared)} snippets hold points of several classes, for example {example}"
        )


def _source_fps(path: Path, names: pd.Series, videos: pd.DataFrame, report: Report) -> np.ndarray:
    """Frames a second of the source videos, (N,): stated, or from their length in frames."""
    fps = videos["fps"].fillna(videos["frames"] / videos["duration_s"])
    without = fps.index[fps.isna() & fps.index.isin(names)]
    if len(without):
        what = "no fps in the annotations, expected one to turn frames into seconds"
        report.problem("points", f"{path}: {len(without)} videos ({some(without)}): {what}")
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
    unlabelled = ~points["video"].isin(annotations.segments["video"])
    for video, count in points["video"][unlabelled].value_counts(sort=False).items():
        found = f"found points ({count}) in a video without a segment, expected its segments"
        report.problem("points", f"{path}: video {video}: {found}")
    shown = pd.MultiIndex.from_frame(annotations.segments[["video", "label"]])
    own = pd.MultiIndex.from_frame(points[["video", "label"]]).isin(shown)
    for video, label, t in points[known & ~own & ~unlabelled].itertuples(index=False, name=None):
        expected = "expected a class that its video is annotated with"
        report.problem("points", f"{path}: video {video}: class {label!r} at {t:g} s, {expected}")
    return (inside & known & own).to_numpy()
