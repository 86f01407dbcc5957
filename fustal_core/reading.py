"""Reading feature files once: into memory, into a file that is mapped, or just to look at them.

A video's array is read, checked for NaN and Inf and summed up in one visit, while it is in the
processor's cache, by a few threads at a time.
"""

from __future__ import annotations

import errno
import json
import math
import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
from filelock import FileLock

from fustal_core.annotations import Report
from fustal_core.feature_files import FeatureFile, SourceFiles
from fustal_core.files import atomic_path, write_json
from fustal_core.mapped_file import MappedFile
from fustal_core.progress import Progress
from fustal_core.survey import Survey

THREADS = min(4, os.cpu_count() or 1)

Offsets = dict[str, tuple[int, int]]
"""Video -> first row and number of rows."""


@dataclass(frozen=True)
class Statistics:
    """Sums over the values of a source or one of its streams."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    zeros: int = 0

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            self.zeros + other.zeros,
        )

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return self.total / max(self.count, 1)

    @property
    def std(self) -> float:
        """Standard deviation of the values."""
        return max(self.squares / max(self.count, 1) - self.mean**2, 0.0) ** 0.5

    @property
    def zero_share(self) -> float:
        """Share of the values that are exactly 0."""
        return self.zeros / max(self.count, 1)


def statistics_of(values: np.ndarray) -> Statistics:
    """Statistics of an array of any shape."""
    values = values.astype(np.float32, copy=False)
    total, squares = values.sum(dtype=np.float64), np.square(values, dtype=np.float64).sum()
    zeros = values.size - int(np.count_nonzero(values))
    return Statistics(values.size, float(total), float(squares), zeros)


@dataclass(frozen=True)
class _Visit:
    """What one visit to a video's features told: checksum, unsound snippets, statistics per stream."""

    checksum: int
    bad_snip: int
    statistics: tuple[Statistics, ...]


def checksum(values: np.ndarray) -> int:
    """A number that changes with any value, any two rows or any two columns of (T, D).

    Exclusive or over rows and over columns: it finds accidents, not forgeries, and takes half the
    time of a CRC of all values and a sixth of a cryptographic hash.
    """
    width = math.gcd(values.shape[1] * values.itemsize, 8)
    words = values.view(f"u{width}")
    rows, columns = (np.bitwise_xor.reduce(words, axis=axis) for axis in (1, 0))
    return zlib.crc32(columns.tobytes(), zlib.crc32(rows.tobytes()))


def _copy(arrays: tuple[FeatureFile | np.ndarray, ...], out: np.ndarray) -> None:
    """Copy the streams side by side into ``out`` (T, D)."""
    column = 0
    for array in arrays:
        part = out[:, column : column + array.shape[1]]
        column += array.shape[1]
        if isinstance(array, np.ndarray):
            part[:] = array
        elif part.flags.c_contiguous and array.dtype == out.dtype and not array.fortran_order:
            _read_into(array, part)
        else:
            with np.errstate(over="ignore"):
                part[:] = np.load(array.path, allow_pickle=False)


def _read_into(array: FeatureFile, out: np.ndarray) -> None:
    """Read values where they are wanted, without a copy."""
    with array.path.open("rb", buffering=0) as file:
        file.seek(array.offset)
        view = out.data.cast("B")
        while len(view):
            count = file.readinto(view)
            if not count:
                raise OSError(errno.EIO, "became shorter while it was read", str(array.path))
            view = view[count:]


def _visit(
    arrays: tuple[FeatureFile | np.ndarray, ...], out: np.ndarray, with_statistics: bool
) -> _Visit:
    _copy(arrays, out)
    bad_snip = 0
    with np.errstate(invalid="ignore", over="ignore"):
        # A sum is Inf or NaN if one of its values is, and needs no memory of its own.
        suspicious = out.dtype != np.float32 or not np.isfinite(out.sum())
    if suspicious:
        bad_snip = int(np.count_nonzero(~np.isfinite(out).all(axis=1)))
    statistics = []
    if with_statistics:
        edges = np.cumsum([0, *(array.shape[1] for array in arrays)])
        for left, right in pairwise(edges):
            statistics.append(statistics_of(out[:, left:right]))
    return _Visit(checksum(out), bad_snip, tuple(statistics))


@dataclass(frozen=True)
class Read:
    """A source that was read.

    fingerprint: of videos, shapes, type and values.
    statistics: one per stream, empty if they were not asked for.
    values: (sum of T, D), the videos one below the other; ``None`` if they were only looked at.
    mapping: the file behind the values, if they are mapped.
    """

    fingerprint: str
    statistics: tuple[Statistics, ...] = ()
    values: np.ndarray | None = None
    mapping: MappedFile | None = None


def stored_type(files: SourceFiles, dtype: str) -> np.dtype:
    """Type in which a source is kept: for "auto" half precision if all files are, else single."""
    if dtype == "auto":
        half = all(a.dtype == np.float16 for arrays in files.arrays.values() for a in arrays)
        dtype = "float16" if half else "float32"
    return np.dtype(dtype)


def num_bytes(files: SourceFiles, dtype: np.dtype) -> int:
    """What a source needs in memory."""
    return files.num_snippets * files.dim * dtype.itemsize


def offsets_of(files: SourceFiles) -> Offsets:
    """Where each video's rows are when all stand one below the other."""
    lengths = [len(arrays[0]) for arrays in files.arrays.values()]
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    return dict(zip(files.arrays, zip(starts, lengths, strict=True), strict=True))


def look_at(files: SourceFiles, dtype: np.dtype, report: Report, progress: Progress | None) -> Read:
    """Read a source without keeping it, with statistics; unsound values are reported."""

    def visit(video: str, first: int, count: int) -> _Visit:
        return _visit(files.arrays[video], np.empty((count, files.dim), dtype), True)

    visits = _visit_all(files, visit, report, progress)
    for video, seen in visits.items():
        if any(part.zeros == part.count for part in seen.statistics):
            where = f"{files.names[video][0]}: video {video}"
            report.warnings.append(f"{where}: all values of a stream are 0, expected features")
    sound = [v.statistics for v in visits.values() if not v.bad_snip]
    streams = zip(*sound, strict=True)
    statistics = tuple(sum(parts, Statistics()) for parts in streams)
    return Read(_fingerprint(files, dtype, _checksums(visits)), statistics)


def _look_at_unused(files: SourceFiles, report: Report) -> None:
    """Report unsound values of arrays that cannot be used for another reason."""
    for video, name, array in files.unused:
        values = array if isinstance(array, np.ndarray) else np.load(array.path, allow_pickle=False)
        bad = int(np.count_nonzero(~np.isfinite(values).all(axis=1)))
        if bad:
            _report_unsound(name, video, bad, len(values), report)


def _report_unsound(name: str, video: str, bad: int, count: int, report: Report) -> None:
    found = f"NaN or Inf in {bad} of {count} snippets, expected finite values"
    report.problem("NaN or Inf", f"{name}: video {video}: {found}")


def read_to_memory(
    files: SourceFiles, dtype: np.dtype, report: Report, progress: Progress | None
) -> Read:
    """Read a source into one array; unsound values are reported."""
    values = np.empty((files.num_snippets, files.dim), dtype)

    def visit(video: str, first: int, count: int) -> _Visit:
        return _visit(files.arrays[video], values[first : first + count], False)

    visits = _visit_all(files, visit, report, progress)
    return Read(_fingerprint(files, dtype, _checksums(visits)), values=values)


def read_to_cache(
    files: SourceFiles, dtype: np.dtype, cache: Path, report: Report, progress: Progress | None
) -> Read:
    """Read a source into a file of the folder ``cache`` and map it; a file that is there is taken.

    The file's name holds what its sources are (paths, sizes, times of change), so changed features
    are read again; the file of the earlier ones is removed.
    """
    path = cache / f"{files.key}-{_stamp(files, dtype)}.bin"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f".{files.key}.lock"):  # whoever comes second finds it written
        checksums = _fill_cache(path, files, dtype, report, progress)
        if checksums is None:
            return Read("")
        mapping = MappedFile.of_file(path)  # before somebody with other features removes it
    shape = (files.num_snippets, files.dim)
    values = np.frombuffer(mapping.buffer, dtype).reshape(shape)
    return Read(_fingerprint(files, dtype, checksums), values=values, mapping=mapping)


def _fill_cache(
    path: Path, files: SourceFiles, dtype: np.dtype, report: Report, progress: Progress | None
) -> dict[str, int] | None:
    """Checksums by video of the cache, written if it is not there; ``None`` with a problem."""
    sums = path.with_suffix(".json")
    checksums = _cached_checksums(path, sums, files, num_bytes(files, dtype))
    if checksums is not None:
        return checksums
    for earlier in (f"{files.key}-*", f".{files.key}-*.partial-*"):
        for old in path.parent.glob(earlier):
            old.unlink(missing_ok=True)
    checksums = _write_cache(path, files, dtype, report, progress)
    if report.problems:
        path.unlink()
        return None
    write_json(sums, checksums)
    return checksums


def _cached_checksums(
    path: Path, sums: Path, files: SourceFiles, size: int
) -> dict[str, int] | None:
    """Checksums by video of a cache that is there, of its size and of these videos."""
    try:
        checksums = dict(json.loads(sums.read_text(encoding="utf-8")))
        is_whole = path.stat().st_size == size and list(checksums) == list(files.arrays)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return checksums if is_whole else None


def _write_cache(
    path: Path, files: SourceFiles, dtype: np.dtype, report: Report, progress: Progress | None
) -> dict[str, int]:
    row_bytes = files.dim * dtype.itemsize
    with atomic_path(path) as temporary, temporary.open("r+b") as file:
        file.truncate(files.num_snippets * row_bytes)

        def visit(video: str, first: int, count: int) -> _Visit:
            out = np.empty((count, files.dim), dtype)
            result = _visit(files.arrays[video], out, False)
            view, place = out.data.cast("B"), first * row_bytes
            while len(view):
                written = os.pwrite(file.fileno(), view, place)
                view, place = view[written:], place + written
            return result

        return _checksums(_visit_all(files, visit, report, progress))


def _visit_all(
    files: SourceFiles,
    visit: Callable[[str, int, int], _Visit],
    report: Report,
    progress: Progress | None,
) -> dict[str, _Visit]:
    """Visit every video with a few threads: copying, checksums and sums leave Python alone."""
    visits = {}
    with ThreadPoolExecutor(THREADS) as pool:
        offsets = offsets_of(files).items()
        jobs = pool.map(lambda item: visit(item[0], *item[1]), offsets)
        for video, result in zip(files.arrays, jobs, strict=True):
            visits[video] = result
            if result.bad_snip:
                name = " and ".join(files.names[video])
                count = len(files.arrays[video][0])
                _report_unsound(name, video, result.bad_snip, count, report)
            if progress:
                progress(len(visits), len(files.arrays), video)
    _look_at_unused(files, report)
    return visits


def _checksums(visits: dict[str, _Visit]) -> dict[str, int]:
    return {video: visit.checksum for video, visit in visits.items()}


def fingerprint_of(survey: Survey, reads: Sequence[Read]) -> str:
    """sha256, hexadecimal, of description, annotations and features."""
    parts = [survey.digest, *(read.fingerprint for read in reads)]
    return sha256("\n".join(parts).encode()).hexdigest()


def _fingerprint(files: SourceFiles, dtype: np.dtype, checksums: dict[str, int]) -> str:
    """sha256, hexadecimal, of videos, clock, shape, type and the checksums of the values."""
    source = files.source
    clock = (source.stride_frames, source.window_frames, files.dim, dtype.name)
    lines = [f"{video} {sum_} {files.fps[video]!r}" for video, sum_ in checksums.items()]
    return sha256("\n".join([repr(clock), *lines]).encode()).hexdigest()


def _stamp(files: SourceFiles, dtype: np.dtype) -> str:
    """What the files are, without reading them."""
    digest = sha256(dtype.name.encode())
    for video, arrays in files.arrays.items():
        digest.update(video.encode())
        for array in arrays:
            if isinstance(array, FeatureFile):
                status = array.path.stat()
                what = (array.path.resolve(), array.shape, status.st_size, status.st_mtime_ns)
                digest.update(repr(what).encode())
            else:
                digest.update(checksum(np.ascontiguousarray(array)).to_bytes(4))
    return digest.hexdigest()[:16]
