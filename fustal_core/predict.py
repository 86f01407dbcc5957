"""A trained model on new features: the segments of their videos, without any annotations.

``predict(load_model("weights.safetensors"), "features")`` is all it takes. It runs the very code that
the study runs on its test videos, so that the study's own features give the study's own detections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from fustal_core.annotations import (
    LARGEST,
    MEASURE,
    DataError,
    Report,
    in_short,
    is_measure,
    read_annotations,
    read_json,
)
from fustal_core.config import SettingsError
from fustal_core.feature_files import expected_snippets
from fustal_core.feature_folder import FeatureFolder, check_features
from fustal_core.features import FeatureStore
from fustal_core.generation import propose_video
from fustal_core.metrics import DETECTION_COLUMNS
from fustal_core.progress import Progress
from fustal_core.student_inference import detect_batch, in_order, length_batches
from fustal_core.weights import Clock, LoadedModel

POSITIONS_HELD = 16_384
"""Snippets of videos whose features are in memory at a time, unless one video has more."""


@dataclass(frozen=True)
class _Videos:
    """Checked videos: features read on demand, number of snippets, clock, fps and durations."""

    features: Mapping[str, np.ndarray]
    lengths: dict[str, int]
    clock: Clock
    fps: dict[str, float]
    durations_s: dict[str, float]
    dtype: np.dtype

    def store(self, names: list[str]) -> FeatureStore:
        """The features of some videos, in memory."""
        arrays = [np.asarray(self.features[name]).astype(self.dtype) for name in names]
        offsets, row = {}, 0
        for name, array in zip(names, arrays, strict=True):
            offsets[name] = (row, len(array))
            row += len(array)
        return FeatureStore(
            torch.from_numpy(np.concatenate(arrays)),
            offsets,
            self.clock.stride_frames,
            self.clock.window_frames,
            {name: self.fps[name] for name in names},
        )


def predict(
    model: LoadedModel,
    features: str | Path | Mapping[str, np.ndarray],
    *,
    stride_frames: int | None = None,
    window_frames: int | None = None,
    fps: float | Mapping[str, float] | None = None,
    durations_s: Mapping[str, float] | None = None,
    min_score: float | None = None,
    top: int | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """What a model finds in new videos: a generator's proposals or a student's detections.

    Features are read once to check them and once to use them, a video (a student: a batch of about
    16,000 snippets) at a time, so memory does not grow with the number of videos.

    Args:
        model: from ``weights.load_model``; it runs where it is.
        features: a folder (see ``feature_folder.FeatureFolder``), or video -> (T, D) array.
        stride_frames, window_frames: of these features; None: as in training.
        fps: of the frames that these count, one for all videos or by video; None, and for videos
            that are not named: as in training.
        durations_s: by video; a student's detections are cut to them. None: what the snippets span,
            from the first one's first frame to the last one's last.
        min_score: detections with a lower score are left out.
        top: at most so many detections a video, the best.
        progress: called as ``progress(done, total, note)`` with videos.

    Returns:
        Columns ``video``, ``label``, ``t_start``, ``t_end`` (s), ``score``; by video in the order of
        ``features``.

    Raises:
        DataError: every problem of the features and durations, before anything runs; afterwards,
            videos in which the model finds no finite numbers.
        SettingsError: no fps given, where the model was trained with several.
    """
    if not isinstance(features, Mapping):
        features = FeatureFolder(features)
    changes = {"stride_frames": stride_frames, "window_frames": window_frames}
    changes = {name: value for name, value in changes.items() if value is not None}
    if not all(is_measure(value) for value in changes.values()):
        raise SettingsError(
            f"stride_frames and window_frames: expected 1 to {LARGEST:.0f} frames, got {changes}"
        )
    clock = Clock(**(model.clock.model_dump() | changes))
    videos = _check(model, features, clock, fps, durations_s)
    find = _detect if model.kind == "student" else _propose
    found = find(model, videos, progress)
    finite = np.isfinite(found[["t_start", "t_end", "score"]]).all(axis=1)
    if not finite.all():
        what = "found NaN or Inf as detections: are its features like those of the training?"
        raise DataError([f"video {video}: {what}" for video in found["video"][~finite].unique()])
    return _best(found[list(DETECTION_COLUMNS)], min_score, top)


def _check(
    model: LoadedModel,
    features: Mapping[str, np.ndarray],
    clock: Clock,
    fps: float | Mapping[str, float] | None,
    durations_s: Mapping[str, float] | None,
) -> _Videos:
    if fps is None and clock.fps is None:
        raise SettingsError(
            "the model was trained on videos of different frame rates: say fps (--fps), or give "
            "annotations that have it (--durations)"
        )
    report = Report()
    if not features:
        report.problem("features", "no videos, expected at least one")
    rates = _rates(features, clock, fps, report)
    dtype = np.dtype(model.precision)
    lengths = check_features(features, model.in_channels, dtype, report)
    sound = {video: length for video, length in lengths.items() if video in rates}
    if durations_s is None:
        durations_s = {
            video: ((length - 1) * clock.stride_frames + clock.window_frames) / rates[video]
            for video, length in sound.items()
        }
    else:
        _check_durations(features, sound, durations_s, rates, clock, report)
    report.raise_problems()
    return _Videos(features, lengths, clock, rates, dict(durations_s), dtype)


def _rates(
    videos: Iterable[str],
    clock: Clock,
    fps: float | Mapping[str, float] | None,
    report: Report,
) -> dict[str, float]:
    """Frames a second of each video that has them."""
    by_video = fps if isinstance(fps, Mapping) else {}
    default = clock.fps if fps is None or isinstance(fps, Mapping) else fps
    rates = {}
    for video in videos:
        rate = by_video.get(video, default)
        if rate is None:
            report.problem("fps", f"video {video}: no fps given, and training had several")
        elif not is_measure(rate):
            report.problem("fps", f"video {video}: fps {rate!r}, expected {MEASURE}")
        else:
            rates[video] = float(rate)
    return rates


def _check_durations(
    videos: Iterable[str],
    lengths: Mapping[str, int],
    durations_s: Mapping[str, float],
    rates: Mapping[str, float],
    clock: Clock,
    report: Report,
) -> None:
    """Every video needs a duration, and about as many snippets as fit in it."""
    for video in videos:
        duration_s = durations_s.get(video)
        if not is_measure(duration_s):
            found = "no duration given" if duration_s is None else f"duration {duration_s!r}"
            report.problem("durations", f"video {video}: {found}, expected seconds")
        elif video in lengths:
            expected, tolerance = expected_snippets(duration_s, rates[video], clock)
            if abs(lengths[video] - expected) > tolerance:
                report.problem(
                    "durations",
                    f"video {video}: found {lengths[video]} snippets, expected about "
                    f"{max(expected, 0):.0f} in {duration_s:g} s at {rates[video]:g} fps, stride "
                    f"{clock.stride_frames}, window {clock.window_frames}: do all of these belong "
                    "to the features?",
                )


def _propose(model: LoadedModel, videos: _Videos, progress: Progress | None) -> pd.DataFrame:
    frames = []
    for done, video in enumerate(videos.lengths, start=1):
        store = videos.store([video])
        frames.append(propose_video(model.model, store, video, model.classes, model.settings))
        if progress:
            progress(done, len(videos.lengths), video)
    return pd.concat(frames, ignore_index=True)


def _detect(model: LoadedModel, videos: _Videos, progress: Progress | None) -> pd.DataFrame:
    frames, done = [], 0
    device = next(model.model.parameters()).device
    for names in length_batches(videos.lengths, model.settings, POSITIONS_HELD):
        frames.append(
            detect_batch(
                model.model,
                videos.store(names),
                names,
                model.classes,
                videos.durations_s,
                model.settings,
                device=device,
            )
        )
        done += len(names)
        if progress:
            progress(done, len(videos.lengths), "")
    return in_order(frames, list(videos.lengths))


def _best(found: pd.DataFrame, min_score: float | None, top: int | None) -> pd.DataFrame:
    if min_score is not None:
        found = found[found["score"] >= min_score]
    if top is not None:
        place = found.groupby("video")["score"].rank(method="first", ascending=False)
        found = found[place <= top]
    return found.reset_index(drop=True)


def read_durations(path: str | Path) -> tuple[dict[str, float], dict[str, float]]:
    """Durations (s) and frame rates by video, of those that the file has.

    Args:
        path: an ActivityNet-style annotation file, or ``{VIDEO: seconds}``.

    Raises:
        DataError: every problem of the file.
    """
    path, report = Path(path), Report()
    content = read_json(path, report)
    report.raise_problems()
    if not isinstance(content, Mapping) or "database" in content:
        annotations = read_annotations(path, report)
        report.raise_problems()
        columns = (annotations.videos[name].dropna() for name in ("duration_s", "fps"))
        durations_s, fps = (column.astype(float).to_dict() for column in columns)
        return durations_s, fps
    for video, value in content.items():
        if not is_measure(value):
            report.problem(
                "durations", f"{path}: video {video}: found {in_short(value)}, expected seconds"
            )
    report.raise_problems()
    return {video: float(value) for video, value in content.items()}, {}
