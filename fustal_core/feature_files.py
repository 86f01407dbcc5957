"""Feature files of a data folder: finding them, opening them, and what can be wrong with them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from fustal_core.annotations import Report, some
from fustal_core.description import FILE, STREAMS, FeatureSource

FEW_SNIPPETS = 5
"""Feature length and duration may disagree by this many."""

LONG_VIDEO_SLACK = 0.002
"""And by this share of a long video: 30 frames a second stated for 29.97 is 0.1 %."""

FRAME_RATES = (23.976, 24.0, 25.0, 29.97, 30.0)
"""At which videos of the public data sets run."""

MOST_BYTES = 2**36
"""Of a file of features: eight times those of a million snippets with 2048 channels in float32."""

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True)
class FeatureFile:
    """A ``.npy`` file whose header was read: no file stays open, however many there are."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    offset: int

    def __len__(self) -> int:
        return self.shape[0]


Arrays = dict[str, tuple[FeatureFile | np.ndarray | None, ...]]
"""Video -> its array (T, D), or those of its streams."""


@dataclass(frozen=True)
class SourceFiles:
    """One source of features, opened but not yet read.

    key: "features" or "student_features", as in dataset.yaml.
    arrays: of the videos whose files are sound so far.
    unused: (video, its path, array) of sound files whose video has another problem: their values
        are still looked at, so that all is said at once.
    names: video -> what problems call its arrays (their paths).
    fps: video -> frames a second of the frames that stride and window count.
    """

    key: str
    source: FeatureSource
    arrays: Arrays
    names: dict[str, tuple[str, ...]]
    fps: dict[str, float]
    unused: tuple[tuple[str, str, FeatureFile | np.ndarray], ...] = ()

    @property
    def dim(self) -> int:
        """Channels D of the joined streams."""
        return sum(array.shape[1] for array in next(iter(self.arrays.values())))

    @property
    def num_snippets(self) -> int:
        """Snippets of all videos."""
        return sum(len(arrays[0]) for arrays in self.arrays.values())


def open_source(
    folder: Path, key: str, source: FeatureSource, videos: pd.DataFrame, report: Report
) -> SourceFiles:
    """Open ``VIDEO.npy`` of every video and check what can be seen without reading it.

    Args:
        folder: of the data.
        key: of the source in dataset.yaml.
        source: where the files lie and how they were cut.
        videos: index ``video``, columns ``subset`` ("train" or "test"), ``duration_s``, ``fps``.
        report: gets every problem, but those that :func:`check_shapes` and :func:`check_lengths` find.

    Returns:
        With ``None`` in the place of a stream that cannot be read, until :func:`check_shapes`.
    """
    paths = {v: _paths(folder, source, v, subset) for v, subset in videos["subset"].items()}
    missing = sorted({p.parent for files in paths.values() for p in files if not p.parent.is_dir()})
    for parent in missing:
        report.problem("missing file", f"{parent}: no such folder ({key}.folder of the data)")
    arrays: Arrays = {}
    for video, files in paths.items():
        opened = [
            None if path.parent in missing else _open_array(path, video, report) for path in files
        ]
        if any(array is not None for array in opened):
            arrays[video] = tuple(opened)
    names = {video: tuple(map(str, files)) for video, files in paths.items()}
    return SourceFiles(key, source, arrays, names, _clock(source, key, videos, report))


def open_arrays(
    path: str,
    key: str,
    source: FeatureSource,
    arrays: Arrays,
    videos: pd.DataFrame,
    report: Report,
) -> SourceFiles:
    """The same for arrays that are in memory already, all from one file."""
    arrays = {video: arrays[video] for video in videos.index if video in arrays}
    for video, (array,) in list(arrays.items()):
        if array.dtype.kind not in "fiu":
            what = f"found {array.dtype}, expected an array of numbers"
            report.problem("unreadable file", f"{path}: video {video}: {what}")
            del arrays[video]
        elif array.ndim != 2:
            what = f"found shape {array.shape}, expected (T, D)"
            report.problem("shape", f"{path}: video {video}: {what}")
            del arrays[video]
    names = dict.fromkeys(videos.index, (path,))
    return SourceFiles(key, source, arrays, names, _clock(source, key, videos, report))


def _paths(folder: Path, source: FeatureSource, video: str, subset: str) -> list[Path]:
    streams = STREAMS if "{stream}" in source.folder else ("",)
    # Not str.format: a folder's name may hold other braces.
    inside = source.folder.replace("{subset}", subset)
    return [folder / inside.replace("{stream}", stream) / f"{video}.npy" for stream in streams]


def _open_array(path: Path, video: str, report: Report) -> FeatureFile | None:
    """The file's header, or ``None`` with the problem reported."""
    try:
        found = read_header(path)
    except FileNotFoundError:
        report.problem("missing file", f"{path}: no feature file for video {video}")
        return None
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split()) or "empty file"
        report.problem("unreadable file", f"{path}: video {video}: not a readable .npy: {reason}")
        return None
    if len(found.shape) != 2:
        shape = f"found shape {found.shape}, expected (T, D)"
        report.problem("shape", f"{path}: video {video}: {shape}")
        return None
    return found


def read_header(path: Path) -> FeatureFile:
    """Open a ``.npy`` file as far as its header.

    Raises:
        OSError, EOFError: as reading does.
        ValueError: not a ``.npy`` file, truncated, pickled objects, no numbers, or more of them than
            features of a video can have.
    """
    if path.exists() and not path.is_file():  # a pipe would wait for whoever writes it
        raise ValueError("found no regular file")
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"found format {version}, expected 1.0 or 2.0")
        try:
            shape, fortran_order, dtype = _HEADERS[version](file)
        except Exception as error:  # a damaged header makes the reader fail in a dozen ways
            raise ValueError(f"its header cannot be read: {error}") from None
        offset = file.tell()
    if dtype.hasobject:
        raise ValueError("found pickled objects, expected an array of numbers")
    if dtype.kind not in "fiu":
        raise ValueError(f"found {dtype}, expected an array of numbers")
    if not all(type(size) is int and 0 <= size < 2**40 for size in shape):
        raise ValueError(f"found shape {shape}, expected sizes that an array can have")
    found, expected = path.stat().st_size - offset, math.prod(shape) * dtype.itemsize
    if found < expected:
        raise ValueError(f"truncated, found {found} bytes of values, expected {expected}")
    if expected > MOST_BYTES:
        raise ValueError(f"found {expected} bytes of values, expected at most {MOST_BYTES}")
    return FeatureFile(path, shape, dtype, fortran_order, offset)


def _clock(
    source: FeatureSource, key: str, videos: pd.DataFrame, report: Report
) -> dict[str, float]:
    """Frames a second of each video: the source's, else the annotations'."""
    fps = {video: source.fps or float(rate) for video, rate in videos["fps"].items()}
    without = [video for video, rate in fps.items() if not math.isfinite(rate)]
    if without:
        report.problem(
            "no fps",
            f"{key}: found no fps for {len(without)} videos ({some(without)}), expected it as "
            f"{key}.fps in {FILE} or per video in the annotations",
        )
    return fps


def expected_snippets(duration_s: float, fps: float, source: FeatureSource) -> tuple[float, float]:
    """Snippets that fit a video, and how many more or fewer a feature file may hold.

    ``(duration * fps - window) / stride + 1``, give or take a few and the windows that overhang the
    end.
    """
    stride, window = source.stride_frames, source.window_frames
    expected = (duration_s * fps - window) / stride + 1
    return expected, max(FEW_SNIPPETS + window / stride, LONG_VIDEO_SLACK * expected)


def check_shapes(found: SourceFiles, videos: pd.DataFrame, report: Report) -> SourceFiles:
    """Report arrays of a wrong shape, and leave their videos out.

    videos: index ``video``, column ``duration_s``: which of the two axes is time.
    """
    if not found.arrays:
        return found
    duration_s = videos["duration_s"].to_dict()
    lengths = {
        video: expected_snippets(duration_s[video], found.fps[video], found.source)
        for video in found.arrays
    }
    bad = {v for v, parts in found.arrays.items() if any(part is None for part in parts)}
    for stream in range(len(next(iter(found.arrays.values())))):
        arrays = {
            v: parts[stream] for v, parts in found.arrays.items() if parts[stream] is not None
        }
        dim = _channels(arrays, lengths) if arrays else 0
        for video, array in arrays.items():
            problem = _shape_problem(array, dim, *lengths[video])
            if problem is not None:
                report.problem(
                    problem[0], f"{found.names[video][stream]}: video {video}: {problem[1]}"
                )
                bad.add(video)
    for video, streams in found.arrays.items():
        if video not in bad and len({len(array) for array in streams}) > 1:
            counts = " and ".join(
                f"{len(array)} {name}" for array, name in zip(streams, STREAMS, strict=True)
            )
            report.problem(
                "RGB and flow differ",
                f"{' and '.join(found.names[video])}: video {video}: found {counts} snippets, "
                "expected as many",
            )
            bad.add(video)
    sound = {video: streams for video, streams in found.arrays.items() if video not in bad}
    unused = [
        (video, name, array)
        for video in found.arrays
        if video in bad
        for name, array in zip(found.names[video], found.arrays[video], strict=True)
        if array is not None
    ]
    return replace(found, arrays=sound, unused=tuple(unused))


def _channels(arrays: dict[str, FeatureFile], expected: dict[str, tuple[float, float]]) -> int:
    """The data set's D: the commonest number of columns, or of rows if most files are transposed.

    expected: video -> (snippets, tolerance); files whose columns fit it better count as transposed.
    """

    def fitting(axis: int) -> int:
        return sum(abs(a.shape[axis] - expected[v][0]) <= expected[v][1] for v, a in arrays.items())

    axis = 0 if fitting(1) > fitting(0) else 1
    return Counter(array.shape[axis] for array in arrays.values()).most_common(1)[0][0]


def _shape_problem(
    array: FeatureFile, dim: int, expected: float, tolerance: float
) -> tuple[str, str] | None:
    """Kind and description of what is wrong with one array's shape, or ``None``."""
    length, columns = array.shape
    looks_transposed = abs(length - expected) > tolerance and abs(columns - expected) <= tolerance
    if (length == dim and columns != dim) or (columns != dim and looks_transposed):
        return "transposed", f"found shape {array.shape}, transposed? expected (T, {dim})"
    if columns != dim or dim == 0:
        return "channels", f"found {columns} channels, expected {dim} as in most files"
    if length < 2:
        return "too short", f"found {length} snippets, expected at least 2"
    return None


def true_duration_s(
    duration_s: float, frames: float, snippets: int, source: FeatureSource
) -> float | None:
    """A better duration where the stated one took a video of another rate for 30 frames a second.

    THUMOS'14's ``gt.json`` states frames / 30 for all videos; 13 run at 24 or 25. ``None`` unless the
    stated duration is just that, the features do not fit it, and they fit another rate.
    """
    if source.fps is None or not abs(duration_s * 30 - frames) < 1:
        return None

    def misfit(seconds: float) -> float:
        expected, tolerance = expected_snippets(seconds, source.fps, source)
        return abs(snippets - expected) / tolerance

    best = min(FRAME_RATES, key=lambda rate: misfit(frames / rate))
    fits = misfit(frames / best) <= 1 < misfit(duration_s)
    return frames / best if fits else None


def check_lengths(found: SourceFiles, duration_s: pd.Series, report: Report) -> None:
    """Report arrays that are more than a few snippets longer or shorter than their videos.

    duration_s: index ``video``, seconds.
    """
    wrong, ratios, known_s = [], [], duration_s.to_dict()
    for video, arrays in found.arrays.items():
        length = len(arrays[0])
        expected, tolerance = expected_snippets(known_s[video], found.fps[video], found.source)
        if abs(length - expected) <= tolerance or not math.isfinite(expected):
            continue
        ratios.append(length / max(expected, 1))
        wrong.append(
            f"{' and '.join(found.names[video])}: video {video}: found {length} snippets, expected "
            f"about {max(expected, 0):.6g} from the annotated duration, stride, window and fps"
        )
    if len(wrong) > len(found.arrays) / 2:
        report.problem(
            "length",
            f"{found.key}: found most files about {np.median(ratios):.3g} times as long as expected: "
            f"are stride_frames and fps of the features right ({FILE})?",
        )
    for text in wrong:
        report.problem("length", text)
