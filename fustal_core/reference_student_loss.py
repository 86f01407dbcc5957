"""The student's label assignment, losses and training step as their text reads: position by position.

Slow and plain, to test :mod:`fustal_core.student_loss`, with which it shares no code, and to time a step
of the training against.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fustal_core.reference_student import distances_at, network_by_levels
from fustal_core.stage_settings import StudentSettings
from fustal_core.student import TriDet
from fustal_core.student_training import weight_groups

Given = Sequence[tuple[Sequence[tuple[float, float]], Sequence[int]]]
"""Of each video: segments (start and end, grid units) and their classes."""


class Position(NamedTuple):
    """A place of the pyramid: where it stands and what distances it regresses, in grid units."""

    level: int
    index: int
    time: float
    stride: float
    low: float
    high: float


def positions(length: int, levels: int) -> Iterator[Position]:
    """All places of a pyramid over so many positions, levels end to end."""
    for level in range(levels):
        stride = 2.0**level
        low = 0.0 if level == 0 else 2 * stride
        high = float("inf") if level == levels - 1 else 4 * stride
        for index in range(length >> level):
            yield Position(level, index, index * stride, stride, low, high)


def assigned(
    place: Position, segments: Sequence[tuple[float, float]], labels: Sequence[int]
) -> tuple[set[int], tuple[float, float]]:
    """Classes that a place learns, none for background, and its distances to the ends, in strides.

    Args:
        place: of the pyramid.
        segments: start and end, grid units. labels: class indices, -1 for an empty place.
    """
    fitting = []
    for (start, end), label in zip(segments, labels, strict=True):
        left, right = place.time - start, end - place.time
        inside = left > 0 and right > 0
        central = abs(place.time - (start + end) / 2) < 1.5 * place.stride
        fits = place.low <= max(left, right) <= place.high
        if label >= 0 and inside and central and fits:
            fitting.append((end - start, label, left / place.stride, right / place.stride))
    if not fitting:
        return set(), (0.0, 0.0)
    shortest = min(fitting, key=lambda entry: entry[0])
    winners = {entry[1] for entry in fitting if entry[0] <= shortest[0] + 1e-3}
    return winners, shortest[2:]


def student_loss_by_positions(
    heads: Sequence[Tensor],
    mask: Tensor,
    given: Given,
    video_labels: Tensor,
    normaliser: float,
    levels: int,
) -> tuple[Tensor, float]:
    """``total`` of :func:`fustal_core.student_loss.student_loss` as it is by default, but without
    L_MIL's dropout; and the normaliser for the next batch.

    Args:
        heads: class, start and end logits (B, L, C) and offsets (B, L, 2 (bins + 1)), without gaps.
        mask: (B, T) bool.
        given: labels of each video.
        video_labels: (B, C) multi-hot.
        normaliser: running number of positives.
        levels: of the pyramid.
    """
    places = list(positions(mask.shape[1], levels))
    focal, regression, video_level, num_positives = 0.0, 0.0, 0.0, 0
    for b, (segments, labels) in enumerate(given):
        logits, starts, ends, offsets = (x[b] for x in heads)
        valid = torch.cat([mask[b, :: 2**level] for level in range(levels)])
        targets, weights = torch.zeros_like(logits), torch.ones_like(logits)
        for row, place in enumerate(places):
            classes, wanted = assigned(place, segments, labels)
            if not classes or not valid[row]:
                continue
            num_positives += 1
            begin = row - place.index
            own = slice(begin, begin + (mask.shape[1] >> place.level))
            for c in classes:
                borders = starts[own, c], ends[own, c]
                tiou, diou = _overlap(distances_at(*borders, offsets[row], place.index), wanted)
                regression = regression + diou
                targets[row, c], weights[row, c] = 1, tiou.detach() ** 0.2
        focal = focal + (weights * _focal(logits, targets))[valid].sum()
        level_0 = logits[: mask.shape[1]][mask[b]]
        video_level = video_level + _video_loss(level_0, video_labels[b])
    normaliser = 0.9 * normaliser + 0.1 * max(1, num_positives)
    return (focal + regression) / normaliser + video_level / len(given), normaliser


def _focal(logits: Tensor, targets: Tensor) -> Tensor:
    """-alpha (1 - p)^2 log p where the target is 1, -(1 - alpha) p^2 log(1 - p) where it is 0."""
    p = logits.sigmoid()
    hit = -0.25 * (1 - p) ** 2 * F.logsigmoid(logits)
    miss = -0.75 * p**2 * F.logsigmoid(-logits)
    return torch.where(targets > 0, hit, miss)


def _overlap(
    predicted: tuple[Tensor, Tensor], wanted: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """tIoU and DIoU loss of two segments around one point."""
    (left, right), (wanted_left, wanted_right) = predicted, wanted
    inter = left.clamp(max=wanted_left) + right.clamp(max=wanted_right)
    tiou = inter / (left + right + wanted_left + wanted_right - inter)
    enclosing = left.clamp(min=wanted_left) + right.clamp(min=wanted_right)
    shift = ((right - left) - (wanted_right - wanted_left)) / 2
    return tiou, 1 - tiou + (shift / enclosing) ** 2


def _video_loss(logits: Tensor, shown: Tensor) -> Tensor:
    """L_MIL of one video: logits (T, C) of its valid positions, shown (C,)."""
    k = max(1, len(logits) // 5)
    scores = torch.stack([curve.sort(descending=True).values[:k].mean() for curve in logits.T])
    return F.binary_cross_entropy(scores.softmax(0), shown / shown.sum().clamp(min=1))


class PlainStudent:
    """A student that trains with plain parts: released network, loops, one weight at a time.

    Its settings must have ``global_mean="padded"``; of L_MIL's options it has none.
    """

    def __init__(
        self, in_channels: int, num_classes: int, settings: StudentSettings, device: str = "cpu"
    ) -> None:
        rng = torch.Generator().manual_seed(0)
        self.model = TriDet(in_channels, num_classes, settings, rng).to(device)
        self.average = deepcopy(self.model)
        self.settings = settings
        self.normaliser = 100.0
        groups = weight_groups(self.model, settings.weight_decay)
        self.optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate, foreach=False)

    def step(
        self,
        features: Tensor,
        mask: Tensor,
        given: Given,
        video_labels: Tensor,
    ) -> None:
        """Forward, losses, backward, AdamW, EMA; without noise, drop path, dropout and warm-up."""
        heads = network_by_levels(self.model, features, mask)
        loss, self.normaliser = student_loss_by_positions(
            heads, mask, given, video_labels, self.normaliser, self.settings.levels
        )
        self.optimiser.zero_grad()
        loss.backward()
        weights = list(self.model.parameters())
        torch.nn.utils.clip_grad_norm_(weights, self.settings.clip_norm, foreach=False)
        self.optimiser.step()
        decay = self.settings.ema_decay
        with torch.no_grad():
            for moved, weight in zip(self.average.parameters(), weights, strict=True):
                moved.copy_(decay * moved + (1 - decay) * weight)
