"""A data folder: its ``dataset.yaml``, and feature files read and checked (data.md, layout 6)."""

from __future__ import annotations

import math
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fustal_core.annotations import Report
from fustal_core.features import FeatureStore

FEW_SNIPPETS = 5
"""Feature length and duration, or a segment and its video's end, may disagree by this many."""

LONG_VIDEO_SLACK = 0.002
"""And by this share of a long video: 30 frames a second stated for 29.97 is 0.1 %."""


class FeatureSource(BaseModel):
    """Where features lie and how they were cut; ``fps`` left out comes from the annotations."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    folder: str
    stride_frames: int = Field(gt=0)
    window_frames: int = Field(gt=0)
    fps: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class DatasetYaml(BaseModel):
    """The content of ``dataset.yaml``; paths are relative to its folder.

    ``outside_segments: keep`` accepts annotated segments beyond their video's stated duration, which
    public annotations (THUMOS'14) have; they stay in what is measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    annotations: str
    train_subset: str
    test_subset: str
    features: FeatureSource
    student_features: FeatureSource | None = None
    points: str | None = None
    outside_segments: Literal["error", "keep"] = "error"


def read_dataset_yaml(path: Path, report: Report) -> DatasetYaml | None:
    """Read and check ``dataset.yaml``; ``None`` with every problem reported if it is not sound."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        report.problems.append(f"{path}: no such file; it describes a data folder")
        return None
    except (OSError, ValueError, yaml.YAMLError) as error:
        report.problems.append(f"{path}: not readable YAML: {' '.join(str(error).split())}")
        return None
    if not isinstance(content, dict):
        found = type(content).__name__
        keys = ", ".join(DatasetYaml.model_fields)
        report.problems.append(f"{path}: found {found}, expected keys {keys}")
        return None
    try:
        return DatasetYaml.model_validate(content)
    except ValidationError as error:
        report.problems.extend(f"{path}: {_explain(problem)}" for problem in error.errors())
        return None


def _explain(problem: dict) -> str:
    """One pydantic error in the words of the file: which key, what was found, what is expected."""
    key = ".".join(map(str, problem["loc"]))
    model = FeatureSource if len(problem["loc"]) > 1 else DatasetYaml
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}, expected one of {', '.join(model.model_fields)}"
    if problem["type"] == "missing":
        return f"missing key {key!r}"
    return f"key {key!r}: {problem['msg']}, found {problem['input']!r}"


def expected_snippets(duration_s: float, fps: float, source: FeatureSource) -> tuple[float, float]:
    """Snippets that fit a video, and how many more or fewer a feature file may hold.

    ``(duration * fps - window) / stride + 1``, give or take a few and the windows that overhang the
    end.
    """
    stride, window = source.stride_frames, source.window_frames
    expected = (duration_s * fps - window) / stride + 1
    return expected, max(FEW_SNIPPETS + window / stride, LONG_VIDEO_SLACK * expected)


def _open_array(path: Path, report: Report) -> np.ndarray | None:
    """The file as a memory map, or ``None`` with the problem reported."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        report.problems.append(f"{path}: no feature file for video {path.stem}")
        return None
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        reason = " ".join(str(error).split()) or "empty file"
        report.problems.append(f"{path}: not a readable .npy, truncated or pickled? {reason}")
        return None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        found = getattr(array, "dtype", "an .npz archive")
        report.problems.append(f"{path}: found {found}, expected an array of numbers")
        return None
    if array.ndim != 2:
        report.problems.append(f"{path}: found shape {array.shape}, expected (T, D)")
        return None
    return array


def _channels(arrays: dict[str, np.ndarray], expected: dict[str, tuple[float, float]]) -> int:
    """The data set's D: the commonest number of columns, or of rows if most files are transposed.

    expected: video -> (snippets, tolerance); files whose columns fit it better count as transposed.
    """

    def fitting(axis: int) -> int:
        return sum(abs(a.shape[axis] - expected[v][0]) <= expected[v][1] for v, a in arrays.items())

    axis = 0 if fitting(1) > fitting(0) else 1
    return Counter(array.shape[axis] for array in arrays.values()).most_common(1)[0][0]


def _shape_problem(array: np.ndarray, dim: int, expected: float, tolerance: float) -> str | None:
    """What is wrong with one array's shape, in words, or ``None``."""
    length, columns = array.shape
    looks_transposed = abs(length - expected) > tolerance and abs(columns - expected) <= tolerance
    if (length == dim and columns != dim) or (columns != dim and looks_transposed):
        return f"found shape {array.shape}, transposed? expected (T, {dim})"
    if columns != dim or dim == 0:
        return f"found {columns} channels, expected {dim} as in most files"
    if length < 2:
        return f"found {length} snippets, expected at least 2"
    if abs(length - expected) > tolerance:
        return (
            f"found {length} snippets, expected about {max(expected, 0):.0f} from the annotated "
            "duration, stride, window and fps"
        )
    return None


def _fill(
    paths: dict[str, Path], arrays: dict[str, np.ndarray], dim: int, digest: sha256, report: Report
) -> tuple[torch.Tensor, dict[str, tuple[int, int]]]:
    """Copy arrays below one another, check for NaN and Inf, and add their bytes to ``digest``."""
    half = all(array.dtype == np.float16 for array in arrays.values())
    total = sum(len(array) for array in arrays.values())
    out = np.empty((total, dim), dtype=np.float16 if half else np.float32)
    offsets, row = {}, 0
    for video, array in arrays.items():
        block = out[row : row + len(array)]
        with np.errstate(over="ignore"):
            block[:] = array
        bad = int(np.count_nonzero(~np.isfinite(block).all(axis=1)))
        if bad:
            report.problems.append(f"{paths[video]}: NaN or Inf in {bad} of {len(block)} snippets")
        digest.update(video.encode())
        digest.update(block.data)
        offsets[video] = (row, len(array))
        row += len(array)
    return torch.from_numpy(out), offsets


def _clock(
    source: FeatureSource, key: str, videos: pd.DataFrame, report: Report
) -> dict[str, float]:
    """Frames a second of each video: the YAML's, else the annotations'."""
    fps = {video: source.fps or float(rate) for video, rate in videos["fps"].items()}
    report.problems.extend(
        f"video {video}: no fps, neither as {key}.fps in dataset.yaml nor in the annotations"
        for video, rate in fps.items()
        if not math.isfinite(rate)
    )
    return fps


def read_features(
    folder: Path,
    source: FeatureSource,
    key: str,
    videos: pd.DataFrame,
    digest: sha256,
    report: Report,
) -> FeatureStore | None:
    """Read and check ``VIDEO.npy`` (T, D) of every video; all problems go to ``report``.

    videos: index ``video``, columns ``duration_s`` and ``fps``. ``key`` names the entry in
    dataset.yaml. Files are mapped first and copied once, so the peak is one copy of the data.
    Returns ``None`` when no file is sound.
    """
    base = folder / source.folder
    if not base.is_dir():
        report.problems.append(f"{base}: no such folder ({key}.folder in dataset.yaml)")
        return None
    fps = _clock(source, key, videos, report)
    paths = {video: base / f"{video}.npy" for video in videos.index}
    arrays = {video: _open_array(path, report) for video, path in paths.items()}
    arrays = {video: array for video, array in arrays.items() if array is not None}
    if not arrays:
        return None
    expected = {
        video: expected_snippets(videos.loc[video, "duration_s"], fps[video], source)
        for video in arrays
    }
    dim, sound = _channels(arrays, expected), {}
    for video, array in arrays.items():
        problem = _shape_problem(array, dim, *expected[video])
        if problem is None:
            sound[video] = array
        else:
            report.problems.append(f"{paths[video]}: {problem}")
    if not sound:
        return None
    array, offsets = _fill(paths, sound, dim, digest, report)
    return FeatureStore(array, offsets, source.stride_frames, source.window_frames, fps)
