"""Simulated data written as a data folder, in the layouts of the public releases.

What lies where is taken from :mod:`fustal_core.layouts`, from which folders are read as well.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from fustal_core.annotations import DataError
from fustal_core.config import SettingsError
from fustal_core.description import FILE, STREAMS
from fustal_core.files import write_json, write_text
from fustal_core.layouts import LAYOUTS
from fustal_core.progress import Progress
from fustal_core.simulated_videos import SimulatedVideo, draw_points
from fustal_core.simulator import (
    GENERATOR_STRIDE_FRAMES,
    STUDENT_STRIDE_FRAMES,
    Simulation,
    SimulatorSettings,
    simulated_features,
)
from fustal_core.splits import SUBSETS
from fustal_core.survey import is_known_outside

_OWN = {
    "annotations": "gt.json",
    "train_subset": "train",
    "test_subset": "test",
    "features": {"folder": "features", "stride_frames": 16, "window_frames": 16},
    "student_features": {"folder": "features_dense", "stride_frames": 4, "window_frames": 16},
    "points": "point_labels.csv",
}
WRITABLE = tuple(name for name in LAYOUTS if name != "wtalc")
"""Layouts that can be written; W-TALC's are pickles."""

_GT, _FULL = (("validation", "test"), "frames"), (("Validation", "Test"), "fps")
_WORDING = {
    "cola": _GT,
    "acmnet": _GT,
    "hrpro": _FULL,
    "actionformer": _FULL,
    "fustal": _FULL,
    "own": (SUBSETS, "fps"),
}
"""How annotations spell train and test, and whether they state a video's frames or its fps."""
_WITH_LABEL_ID = ("actionformer", "fustal")


def refuse_layout(layout: str, settings: SimulatorSettings) -> None:
    """Raise :class:`SettingsError` if a layout is unknown or cannot hold so many channels."""
    if layout not in WRITABLE:
        raise SettingsError(f"unknown layout {layout!r}; allowed: {', '.join(WRITABLE)}")
    streams = "{stream}" in _contents(layout, settings)["features"]["folder"]
    if streams and settings.feature_dim % 2:
        raise SettingsError(
            f"layout {layout} has two streams of as many channels, so simulation.feature_dim must "
            f"be even, got {settings.feature_dim}"
        )


def refuse_occupied(folder: Path) -> None:
    """Raise :class:`SettingsError` unless a folder is new or empty."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise SettingsError(f"{folder} is a file, expected a new or empty folder")
    names = sorted(path.name for path in folder.iterdir())
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise SettingsError(
            f"{folder} holds {', '.join(names[:3])}{more}, expected a new or empty folder"
        )


def write_simulation(
    folder: Path, simulation: Simulation, layout: str, progress: Progress | None = None
) -> int:
    """Write simulated data as a folder that is either whole or not there.

    One video's features are in memory at a time.

    Args:
        folder: new or empty.
        simulation: drawn but for its features.
        layout: one of :data:`WRITABLE`.
        progress: called as progress(done, total, note).

    Returns:
        The size of the features in bytes.

    Raises:
        SettingsError: an unknown layout, or a folder that holds something.
        DataError: another process writes this folder.
        OSError: no room, or no permission, with the folder's name.
    """
    folder = Path(os.path.realpath(folder))
    refuse_layout(layout, simulation.settings)
    refuse_occupied(folder)
    contents = _contents(layout, simulation.settings)
    with _whole_folder(folder) as partial:
        size = _feature_bytes(simulation, contents)
        if shutil.disk_usage(partial).free < size:
            raise OSError(errno.ENOSPC, f"no room for {size / 1e9:.2f} GB of features")
        write_json(partial / contents["annotations"], _annotations(simulation, layout))
        _write_splits(partial, simulation, contents)
        if "points" in contents:
            path = partial / contents["points"]
            write_text(path, _points(simulation, layout).to_csv(index=False))
        _write_features(partial, simulation, contents, progress)
        write_text(partial / FILE, _dataset_yaml(simulation, layout))
    return size


def _contents(layout: str, settings: SimulatorSettings) -> dict[str, Any]:
    """What lies where; one's own layout has one source of features where both models share it."""
    if layout != "own":
        return LAYOUTS[layout]
    left_out = {"student_features"} if settings.shared_features else set()
    return {key: value for key, value in _OWN.items() if key not in left_out}


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` that takes its place when the block ends without an error.

    What a killed process left there is removed. A lock, which dies with its process, tells that from
    what another one is writing.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = FileLock(partial / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise DataError([f"{folder}: another process is writing it"]) from None
    except OSError as error:
        raise _named(error, folder) from error
    try:
        for left in partial.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            elif left.name != ".lock":
                left.unlink()
        yield partial
        os.replace(partial, folder)  # with the lock: others find none until then
        (folder / ".lock").unlink(missing_ok=True)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise _named(error, folder) from error
        raise
    finally:
        with suppress(OSError):
            lock.release()


def _named(error: OSError, folder: Path) -> OSError:
    return OSError(error.errno, error.strerror or str(error), str(folder))


def _sources(contents: dict[str, Any]) -> list[tuple[dict[str, Any], int]]:
    """Each source of features, and which of the two arrays it holds: 0 generator's, 1 student's."""
    sources = [contents[key] for key in ("features", "student_features") if key in contents]
    strides = (GENERATOR_STRIDE_FRAMES, STUDENT_STRIDE_FRAMES)
    return [(source, strides.index(source["stride_frames"])) for source in sources]


def _feature_bytes(simulation: Simulation, contents: dict[str, Any]) -> int:
    counts = [simulation.snippet_counts(video) for video in simulation.videos]
    which = [array for _, array in _sources(contents)]
    snippets = sum(count[array] for count in counts for array in which)
    return snippets * simulation.settings.feature_dim * np.dtype(np.float32).itemsize


def _write_features(
    folder: Path, simulation: Simulation, contents: dict[str, Any], progress: Progress | None
) -> None:
    sources = _sources(contents)
    for done, (video, *arrays) in enumerate(simulated_features(simulation), start=1):
        for source, which in sources:
            base = source["folder"].replace("{subset}", video.subset)
            streams = STREAMS if "{stream}" in base else ("",)
            parts = np.split(arrays[which], len(streams), axis=1)
            for stream, part in zip(streams, parts, strict=True):
                _save(folder / base.replace("{stream}", stream) / f"{video.name}.npy", part)
        if progress is not None:
            progress(done, len(simulation.videos), video.name)


def _save(path: Path, array: np.ndarray) -> None:
    """``numpy.save``, but with the system's own error when the disk is full."""
    array = np.ascontiguousarray(array)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(array.data)


def _annotations(simulation: Simulation, layout: str) -> dict[str, Any]:
    """The content of the annotation file, in the words of the release."""
    spellings, length = _WORDING[layout]
    spelling = dict(zip(SUBSETS, spellings, strict=True))
    label_ids = {name: index for index, name in enumerate(simulation.classes)}
    database = {}
    for video in simulation.videos:
        segments: list[dict[str, Any]] = []
        for label, start_s, end_s in video.segments:
            segments.append({"label": label, "segment": [start_s, end_s]})
            if layout in _WITH_LABEL_ID:
                segments[-1]["label_id"] = label_ids[label]
        database[video.name] = {
            "subset": spelling[video.subset],
            "duration": video.duration_s,
            length: video.frames if length == "frames" else video.fps,
            "annotations": segments,
        }
    return {"version": "simulated", "database": database}


def _write_splits(folder: Path, simulation: Simulation, contents: dict[str, Any]) -> None:
    if "splits" in contents:
        for subset in SUBSETS:
            names = [video.name for video in simulation.videos if video.subset == subset]
            path = folder / contents["splits"].replace("{subset}", subset)
            write_text(path, "".join(f"{name}\n" for name in names))


def _points(simulation: Simulation, layout: str) -> pd.DataFrame:
    """Point labels in seconds, or as HR-Pro has them in whole frames of the source video."""
    points = draw_points(simulation.videos, simulation.seed)
    if layout != "hrpro":
        names = {"video": "video_id", "label": "class", "t": "time_s"}
        return points[list(names)].rename(columns=names)
    fps = points["video"].map({video.name: video.fps for video in simulation.videos})
    return pd.DataFrame(
        {
            "class": points["label"],
            "class_index": points["label"].map(simulation.classes.index),
            "start_frame": points["t_start"] * fps,
            "stop_frame": points["t_end"] * fps,
            "video_id": points["video"],
            "point": (points["t"] * fps).round().astype(int),
        }
    )


def _dataset_yaml(simulation: Simulation, layout: str) -> str:
    """The description: all of it for one's own layout, else what recognition cannot know."""
    import yaml

    settings, contents = simulation.settings, _contents(layout, simulation.settings)
    values: dict[str, Any] = {"name": simulation.name, "origin": "simulated"}
    if layout == "own":
        values |= {**contents, "features": {**contents["features"], "fps": settings.fps}}
    elif contents["features"].get("fps", settings.fps) != settings.fps:
        values["features"] = {"fps": settings.fps}
    if simulation.shown("train") != simulation.shown("test"):
        values["classes"] = list(simulation.classes)
    if any(_is_outside(video) for video in simulation.videos):
        values["outside_segments"] = "keep"
    changed = settings.model_dump(exclude_defaults=True)
    how = [f"seed {simulation.seed}", *(f"simulation.{k}={v}" for k, v in changed.items())]
    return f"# fustal simulate: {', '.join(how)}\n{yaml.safe_dump(values, sort_keys=False)}"


def _is_outside(video: SimulatedVideo) -> bool:
    """Whether a segment lies outside that is not known to, so that a check would report it."""
    return any(
        (start < 0 or end > video.duration_s) and not is_known_outside(video.name, name, start, end)
        for name, start, end in video.segments
    )
