"""Everything about a data folder but the values of its features, with all that is wrong with it.

``fustal check`` and the loading of data both begin here, so that they say the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import pandas as pd

from fustal_core.annotations import Annotations, Report, read_annotations
from fustal_core.class_names import check_classes
from fustal_core.description import Description
from fustal_core.feature_files import (
    SourceFiles,
    check_lengths,
    check_shapes,
    open_arrays,
    open_source,
    true_duration_s,
)
from fustal_core.layouts import describe
from fustal_core.pickled import load_pickled_annotations, load_pickled_features, refuse_pickles
from fustal_core.points import points_frame, read_points
from fustal_core.splits import select_videos

_TABLES = Path(__file__).parent / "tables"


@dataclass(frozen=True)
class Survey:
    """A data folder, seen from outside.

    classes: sorted names.
    videos: index ``video``; columns ``subset`` ("train" or "test"), ``duration_s``, ``fps``, ``frames``.
    segments: truth of these videos.
    points: point labels of training videos, may be empty.
    sources: generator's and student's features; the second is missing where both are one.
    digest: sha256, hexadecimal, of description, annotations and points.
    """

    description: Description
    classes: tuple[str, ...]
    videos: pd.DataFrame
    segments: pd.DataFrame
    points: pd.DataFrame
    sources: tuple[SourceFiles, ...]
    digest: str


def survey_folder(folder: Path, report: Report, *, trust_pickle: bool = False) -> Survey | None:
    """Read a folder's description and annotations and open its features; report every problem.

    Returns ``None`` where too little is sound to go on.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        report.problem("missing file", f"{folder}: no such data folder, found {found} there")
        return None
    description = describe(folder, report)
    if description is None:
        return None
    pickled = description.layout == "wtalc"
    if pickled and not trust_pickle:
        refuse_pickles(folder / description.features.folder, report)
        return None
    path, classes = folder / description.annotations, description.classes
    if pickled:
        loaded = load_pickled_annotations(path, report)
        if loaded is None:
            return None
        annotations, classes = loaded.annotations, classes or loaded.classes
    else:
        annotations = read_annotations(path, report, ["duration"])
        if annotations is None:
            return None
    annotated = annotations.videos.index
    annotations = select_videos(folder, annotations, description, report)
    order = loaded.order if pickled else None
    sources = _open_sources(folder, description, annotations.videos, order, report)
    annotations = _mend_durations(annotations, sources, report)
    for source in sources:
        check_lengths(source, annotations.videos["duration_s"], report)
    _check_segments(path, annotations, description, report)
    known = check_classes(path, annotations, classes, report)
    points = points_frame()
    if description.points is not None:
        points = read_points(folder / description.points, annotations, annotated, known, report)
    annotations = _drop_unlabelled(annotations, report)
    return Survey(
        description=description,
        classes=tuple(sorted(annotations.segments["label"].unique())),
        videos=annotations.videos,
        segments=annotations.segments,
        points=points,
        sources=tuple(_only(source, annotations.videos.index) for source in sources),
        digest=_digest(description, annotations, points),
    )


def _digest(description: Description, annotations: Annotations, points: pd.DataFrame) -> str:
    parts = [description.model_dump_json(exclude={"layout"})]
    frames = (annotations.videos, annotations.segments, points)
    parts += [frame.to_csv(float_format="%r") for frame in frames]
    return sha256("\n".join(parts).encode()).hexdigest()


def _open_sources(
    folder: Path,
    description: Description,
    videos: pd.DataFrame,
    pickled: list[str] | None,
    report: Report,
) -> tuple[SourceFiles, ...]:
    """Generator's and student's features; ``pickled`` names the videos of an object array."""
    sources = []
    for key in ("features", "student_features"):
        source = getattr(description, key)
        if source is None:
            continue
        if pickled is not None and key == "features":
            path = folder / source.folder
            arrays = load_pickled_features(path, pickled, report)
            found = open_arrays(str(path), key, source, arrays, videos, report)
        else:
            found = open_source(folder, key, source, videos, report)
        sources.append(check_shapes(found, videos, report))
    return tuple(sources)


def _mend_durations(
    annotations: Annotations, sources: tuple[SourceFiles, ...], report: Report
) -> Annotations:
    """Correct durations that took a video for 30 frames a second, where the features show it."""
    # Dictionaries: to look a video up in a frame takes as long as to open its file.
    frames, mended_s = (annotations.videos[name].to_dict() for name in ("frames", "duration_s"))
    for source in sources:
        for video, arrays in source.arrays.items():
            length = len(arrays[0])
            better = true_duration_s(mended_s[video], frames[video], length, source.source)
            if better is not None:
                mended_s[video] = better
    duration_s = pd.Series(mended_s, index=annotations.videos.index, dtype=float)
    mended = duration_s.index[duration_s.ne(annotations.videos["duration_s"]) & duration_s.notna()]
    if len(mended):
        video = mended[0]
        stated_s = annotations.videos.loc[video, "duration_s"]
        report.warnings.append(
            f"{len(mended)} videos are longer or shorter than annotated, as if they ran at 30 frames "
            f"a second; their features fit another rate: duration corrected (for example {video}: "
            f"{stated_s:.2f} s annotated, {duration_s[video]:.2f} s)"
        )
    return replace(annotations, videos=annotations.videos.assign(duration_s=duration_s))


@cache
def _annotated_until_s() -> dict[tuple[str, str], float]:
    """Videos of THUMOS'14 that are stated shorter than they are, with their class."""
    table = pd.read_csv(_TABLES / "thumos14_short_durations.csv")
    return table.set_index(["video", "label"])["annotated_until_s"].to_dict()


def is_known_outside(video: str, label: str, start_s: float, end_s: float) -> bool:
    """Whether a segment lies where THUMOS'14's public annotations go on beyond the stated end."""
    return start_s >= 0 and round(end_s, 2) <= _annotated_until_s().get((video, label), 0.0)


def _check_segments(
    path: Path, annotations: Annotations, description: Description, report: Report
) -> None:
    """Report segments that begin outside their video, or end more than a snippet behind it."""
    segments, source = annotations.segments, description.features
    videos = annotations.videos.loc[segments["video"]]
    fps = videos["fps"].fillna(25.0).to_numpy() if source.fps is None else source.fps
    slack_s = source.stride_frames / fps
    duration_s = videos["duration_s"].to_numpy()
    start_s, end_s = segments["t_start"], segments["t_end"]
    outside = (start_s < 0) | (start_s >= duration_s) | (end_s > duration_s + slack_s)
    kept = 0
    for row, last_s in zip(segments[outside].itertuples(), duration_s[outside], strict=True):
        known = is_known_outside(row.video, row.label, row.t_start, row.t_end)
        if description.outside_segments == "keep" or known:
            kept += 1
        else:
            report.problem(
                "segment outside video",
                f"{path}: video {row.video}: segment [{row.t_start:g}, {row.t_end:g}] s of "
                f"{row.label} is outside the video, expected within [0, {last_s:g}] s",
            )
    if kept:
        known = "" if description.outside_segments == "keep" else ", as in the public annotations"
        report.warnings.append(f"{kept} segments lie outside their videos{known}: kept")
    twice = int(segments.duplicated().sum())
    if twice:
        report.warnings.append(f"{twice} segments are annotated twice")


def _drop_unlabelled(annotations: Annotations, report: Report) -> Annotations:
    """Without the training videos that show no class: they have nothing to teach."""
    videos = annotations.videos
    unlabelled = (videos["subset"] == "train") & ~videos.index.isin(annotations.segments["video"])
    if unlabelled.any():
        count = int(unlabelled.sum())
        report.warnings.append(f"{count} training videos have no label: left out of training")
    return replace(annotations, videos=videos[~unlabelled])


def _only(source: SourceFiles, videos: pd.Index) -> SourceFiles:
    """The source without the videos that were left out."""
    arrays = {video: source.arrays[video] for video in videos if video in source.arrays}
    return replace(source, arrays=arrays)
