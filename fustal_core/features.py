"""Snippet features of many videos in one array, and the two ways a model samples them.

Time: snippet ``i`` of stride ``s`` and window ``w`` frames at ``f`` frames a second is centred on
``(i * s + w / 2) / f`` seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fustal_core.mapped_file import READ_AROUND, MappedFile


def to_device(x: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on a device. To a GPU it goes by way of pinned memory: nobody waits for its queue."""
    if torch.device(device).type == "cuda" and x.device.type == "cpu":
        return x.contiguous().pin_memory().to(device, non_blocking=True)
    return x.to(device)


def perturbed_indices(lengths: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Random perturbed sampling of ``count`` snippets from each of B videos, as CoLA's.

    Index ``i`` of a video of L snippets is uniform over the whole numbers from
    ``floor(i L / count)`` to ``floor((i + 1) L / count)``, both included; the last one ends at L - 1.
    A video of exactly ``count`` snippets is taken as it is, as in CoLA's release.

    lengths: (B,) int64, snippets of each video, >= 1. Returns (B, count) int64, never falling along
    a row, in [0, L - 1].
    """
    lengths = lengths[:, None]
    edges = torch.arange(count + 1) * lengths // count  # (B, count + 1)
    first = edges[:, :-1]
    last = torch.minimum(edges[:, 1:], lengths - 1)
    spread = torch.where(lengths == count, 0, last - first)
    uniform = torch.rand(first.shape, generator=rng, dtype=torch.float64, device=rng.device).cpu()
    return first + (uniform * (spread + 1)).long()


def uniform_indices(length: int, count: int) -> Tensor:
    """Uniform sampling: ``floor(i L / count)`` when L > count, else all L snippets. (T',) int64."""
    if length <= count:
        return torch.arange(length)
    return torch.arange(count) * length // count


@dataclass(frozen=True)
class FeatureStore:
    """Features of many videos, one below the other, with their clock.

    array: (sum of T, D) float32 or float16.
    offsets: video -> (first row, number of snippets).
    stride_frames, window_frames: step and length of a snippet in frames.
    fps: video -> frames a second of the frames that stride and window count.
    mapping: the file behind the array, if it is larger than the memory that was granted.
    """

    array: Tensor
    offsets: dict[str, tuple[int, int]]
    stride_frames: int
    window_frames: int
    fps: dict[str, float]
    mapping: MappedFile | None = None

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        return self.array.numel() * self.array.element_size()

    @property
    def dim(self) -> int:
        """Number of channels D."""
        return self.array.shape[1]

    def __getitem__(self, video: str) -> Tensor:
        """Features of one video, (T, D) float32."""
        start, length = self.offsets[video]
        values = self.array[start : start + length]
        if self.mapping is not None:
            values = values.clone()
            self.mapping.take(values.numel() * values.element_size())
        return values.float()

    def __contains__(self, video: str) -> bool:
        return video in self.offsets

    def num_snippets(self, video: str) -> int:
        """Number of snippets T of one video."""
        return self.offsets[video][1]

    def seconds_per_snippet(self, video: str) -> float:
        """Step between two snippets in seconds."""
        return self.stride_frames / self.fps[video]

    def to(self, device: torch.device | str) -> FeatureStore:
        """The same store with its array on another device."""
        if self.array.device == torch.device(device):
            return self
        return replace(self, array=self.array.to(device), mapping=None)

    def sample_random(self, videos: Sequence[str], length: int, rng: torch.Generator) -> Tensor:
        """``length`` random perturbed snippets of each video, one gather: (B, length, D) float32."""
        spans = torch.tensor([self.offsets[video] for video in videos])  # (B, 2)
        rows = spans[:, :1] + perturbed_indices(spans[:, 1], length, rng)
        if self.mapping is None:
            return self._gather(rows)
        # A video at a time: one gather of all could touch more of the file than memory is granted.
        return torch.stack([self._gather(of_video) for of_video in rows])

    def sample_uniform(self, video: str, length: int) -> Tensor:
        """At most ``length`` snippets, evenly spread: (min(T, length), D) float32."""
        start, snippets = self.offsets[video]
        return self._gather(start + uniform_indices(snippets, length))

    def _gather(self, rows: Tensor) -> Tensor:
        """Rows of the array, (..., D) float32."""
        values = self.array[to_device(rows, self.array.device)]
        if self.mapping is not None:
            row_bytes = self.dim * values.element_size()
            self.mapping.take(rows.numel() * (row_bytes + READ_AROUND))
        return values.float()

    def to_grid(self, video: str, t_s: np.ndarray) -> np.ndarray:
        """Seconds to snippet units, ``(t * fps - window / 2) / stride``: i is snippet i's centre."""
        frames = np.asarray(t_s, dtype=np.float64) * self.fps[video]
        return (frames - self.window_frames / 2) / self.stride_frames

    def to_seconds(self, video: str, grid: np.ndarray) -> np.ndarray:
        """Snippet units to seconds, the inverse of :meth:`to_grid`."""
        frames = np.asarray(grid, dtype=np.float64) * self.stride_frames + self.window_frames / 2
        return frames / self.fps[video]
