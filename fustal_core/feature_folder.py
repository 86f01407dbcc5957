"""Features of new videos, without annotations: a folder of ``VIDEO.npy``, read video by video.

:func:`check_features` reads everything once and says all that is wrong before a model runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from fustal_core.annotations import DataError, Report
from fustal_core.description import STREAMS
from fustal_core.feature_files import read_header

_VIDEOS = "[!.]*.npy"
"""Not the ._VIDEO.npy that macOS leaves on foreign disks."""


class FeatureFolder(Mapping[str, np.ndarray]):
    """Video -> (T, D) features, read from their files each time they are asked for.

    Args:
        folder: holds ``VIDEO.npy``, or sub-folders ``rgb`` and ``flow`` of such files, whose channels
            are joined. Videos are in the order of their names.

    Raises:
        DataError: no such folder, nothing in it, or names that cannot be printed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._folders = _stream_folders(self.folder)
        found = {path.stem for stream in self._folders for path in stream.glob(_VIDEOS)}
        self._videos = dict.fromkeys(sorted(found))
        if not found:
            raise DataError([f"{self.folder}: no VIDEO.npy in it{_below(self.folder)}"])
        odd = [f"{name}.npy" for name in self._videos if not name.isprintable()]
        if odd:
            expected = "expected a name that can be printed"
            raise DataError([f"{self.folder}: found {name!r}, {expected}" for name in odd])

    def parts(self, video: str) -> dict[str, np.ndarray]:
        """File -> array as it is in the file: one, or rgb and flow.

        Raises:
            DataError: files that cannot be read, or that only one of the two streams has.
        """
        report = Report()
        paths = [folder / f"{video}.npy" for folder in self._folders]
        arrays = {str(path): _read_array(path, report) for path in paths}
        report.raise_problems()
        return arrays

    def __getitem__(self, video: str) -> np.ndarray:
        if video not in self._videos:
            raise KeyError(video)
        return np.concatenate(list(self.parts(video).values()), axis=1)

    def __contains__(self, video: object) -> bool:
        return video in self._videos

    def __iter__(self) -> Iterator[str]:
        return iter(self._videos)

    def __len__(self) -> int:
        return len(self._videos)


def _stream_folders(folder: Path) -> list[Path]:
    """The folder itself, or its two streams if it has any."""
    if not folder.is_dir():
        raise DataError([f"{folder}: no such folder, expected one of VIDEO.npy files"])
    streams = [folder / name for name in STREAMS]
    there = [stream for stream in streams if stream.is_dir()]
    if not there:
        return [folder]
    problems = [
        f"{path}: no such folder, but {there[0]} is" for path in streams if path not in there
    ]
    if any(folder.glob(_VIDEOS)):
        problems.append(
            f"{folder}: VIDEO.npy files beside {there[0].name}/, expected one or the other"
        )
    if problems:
        raise DataError(problems)
    return streams


def _below(folder: Path) -> str:
    """Where the files may be instead, in words."""
    below = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return f"; name one of its folders: {', '.join(below)}?" if below else ""


def _read_array(path: Path, report: Report) -> np.ndarray | None:
    try:
        read_header(path)
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        report.problem("missing file", f"{path}: no such file, but the other stream has this video")
        return None
    except (OSError, ValueError, EOFError, MemoryError) as error:
        reason = " ".join(str(error).split()) or "empty file"
        report.problem("unreadable file", f"{path}: not a readable .npy: {reason}")
        return None


def check_features(
    features: Mapping[str, np.ndarray], channels: int, dtype: np.dtype, report: Report
) -> dict[str, int]:
    """Read every video once, one at a time, and report all that is wrong.

    Args:
        features: video -> (T, D).
        channels: D that the model takes.
        dtype: in which it takes them; a number too large for it counts as Inf.
        report: receives the problems.

    Returns:
        Snippets T of each sound video.
    """
    lengths = {}
    for video in features:
        try:
            parts = _parts(features, video)
        except DataError as error:
            for text in error.problems:
                report.problem("unreadable file", text)
            continue
        problems = _type_problems(parts) or _shape_problems(parts, channels)
        problems = problems or _bad_values(parts, dtype)
        for text in problems:
            report.problem("features", text)
        if not problems:
            lengths[video] = len(next(iter(parts.values())))
    return lengths


def _parts(features: Mapping[str, np.ndarray], video: str) -> dict[str, np.ndarray]:
    if isinstance(features, FeatureFolder):
        return features.parts(video)
    return {f"video {video}": np.asarray(features[video])}


def _type_problems(parts: dict[str, np.ndarray]) -> list[str]:
    lines = []
    for where, array in parts.items():
        if array.dtype.kind not in "fiu":
            lines.append(f"{where}: found {array.dtype}, expected an array of numbers")
        elif array.ndim != 2:
            lines.append(f"{where}: found shape {array.shape}, expected (T, D)")
    return lines


def _shape_problems(parts: dict[str, np.ndarray], channels: int) -> list[str]:
    """Problems of the joined array: transposed, wrong channels, unequal or too short streams."""
    where = " and ".join(parts)
    arrays = list(parts.values())
    found = sum(array.shape[1] for array in arrays)
    if found != channels and sum(len(array) for array in arrays) == channels:
        shapes = " and ".join(str(array.shape) for array in arrays)
        return [f"{where}: found shape {shapes}, transposed? expected (T, {channels})"]
    lines = []
    if found != channels:
        hint = {channels: ": RGB or flow alone?", 4 * channels: ": RGB and flow joined?"}
        lines.append(
            f"{where}: found {found} channels, expected {channels} as in training"
            + hint.get(2 * found, "")
        )
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        counts = " and ".join(map(str, lengths))
        lines.append(f"{where}: found {counts} snippets, expected as many in both streams")
    elif lengths[0] < 2:
        lines.append(f"{where}: found {lengths[0]} snippets, expected at least 2")
    return lines


def _bad_values(parts: dict[str, np.ndarray], dtype: np.dtype) -> list[str]:
    lines = []
    for where, array in parts.items():
        with np.errstate(over="ignore"):
            values = array.astype(dtype, copy=False)
        bad = int(np.count_nonzero(~np.isfinite(values).all(axis=1)))
        if bad:
            lines.append(f"{where}: NaN or Inf in {bad} of {len(array)} snippets")
    return lines
