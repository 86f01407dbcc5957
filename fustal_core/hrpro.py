"""HR-Pro, stage 1: snippets told apart with one labelled moment ("point") per action.

A network with a memory of one prototype per class scores every snippet of a whole video. From the
points and the network's own background score, *seeds* spread: snippets that are taken for action or
for background (:func:`expand_points`), on which :mod:`fustal_core.hrpro_loss` trains it.

Symbols: B videos, T snippets, D model channels, C classes; S class scores, b background score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fustal_core.dropout import Dropout
from fustal_core.generator import check_channels, top_mean
from fustal_core.hrpro_blocks import InputProjection, ReliabilityAwareBlock
from fustal_core.linear import Linear
from fustal_core.precision import in_float32
from fustal_core.stage_settings import HRProSettings

BLOCKS = 2
CLASSIFIER_DROPOUT = 0.7
TOP_SHARE = 8
"""A class's video score is the mean of its floor(T / 8) largest snippet scores."""


class Seeds(NamedTuple):
    """Snippets taken for action, (T, C), and for background, (T,); 0 or 1, no snippet both."""

    action: Tensor
    background: Tensor


@dataclass(frozen=True)
class SnippetOutput:
    """What the network says about a batch.

    Attributes:
        embeddings: (B, T, D), >= 0.
        class_scores: S, (B, T, C), in [0, 1].
        background: b, (B, T), in [0, 1].
    """

    embeddings: Tensor
    class_scores: Tensor
    background: Tensor

    @property
    def cas(self) -> Tensor:
        """P = S (1 - b), the T-CAS for localisation, (B, T, C), in [0, 1]."""
        return self.class_scores * (1 - self.background)[..., None]

    @property
    def actionness(self) -> Tensor:
        """1 - b, (B, T), in [0, 1]."""
        return 1 - self.background

    @property
    def video_scores(self) -> Tensor:
        """Mean of the floor(T / 8), at least 1, largest S of each class, (B, C), in [0, 1]."""
        return mean_of_top_eighth(self.class_scores)


def mean_of_top_eighth(class_scores: Tensor) -> Tensor:
    """Mean of the floor(T / 8), at least 1, largest values over time; (B, T, C) -> (B, C)."""
    return top_mean(class_scores, max(1, class_scores.shape[1] // TOP_SHARE))


class HRPro(nn.Module):
    """Attention over the snippets and a memory of prototypes, then a classifier of snippets.

    The C prototypes go through the blocks as tokens behind the T snippets and are then dropped.

    Args:
        in_channels: feature channels.
        num_classes: C.
        settings: whether features are projected first, and how fast the memory moves.

    Attributes:
        in_channels: as given.
        prototypes: M, (C, D), a buffer; zeros until the training sets it.
    """

    def __init__(self, in_channels: int, num_classes: int, settings: HRProSettings) -> None:
        super().__init__()
        channels = settings.projected_channels or in_channels
        self.in_channels = in_channels
        self.momentum = settings.memory_momentum
        projected = settings.projected_channels
        self.projection = InputProjection(in_channels, projected) if projected else nn.Identity()
        blocks = (
            ReliabilityAwareBlock(channels, settings.attention_dropout) for _ in range(BLOCKS)
        )
        self.blocks = nn.Sequential(*blocks)
        self.embedding = nn.Conv1d(channels, channels, kernel_size=3, padding=1)
        self.classifier = nn.Sequential(
            Dropout(CLASSIFIER_DROPOUT), Linear(channels, num_classes + 1, bias=False)
        )
        self.register_buffer("prototypes", torch.zeros(num_classes, channels))

    def forward(self, features: Tensor) -> SnippetOutput:
        """Score a batch of videos of one length.

        Args:
            features: (B, T, in_channels).

        Raises:
            ValueError: features of another shape or channel number.
        """
        snippets = self.model_features(features)
        B, T, _ = snippets.shape
        memory = self.prototypes.expand(B, -1, -1)  # (B, C, D)
        attended = self.blocks(torch.cat([snippets, memory], dim=1))[:, :T]
        embeddings = F.relu(self.embedding(attended.transpose(1, 2))).transpose(1, 2)  # (B, T, D)
        scores = in_float32(self.classifier(embeddings)).sigmoid()  # (B, T, C + 1)
        return SnippetOutput(embeddings, scores[..., :-1], scores[..., -1])

    def model_features(self, features: Tensor) -> Tensor:
        """What the blocks see: the features, projected if so set; (B, T, in_channels) -> (B, T, D).

        Raises:
            ValueError: features of another shape or channel number.
        """
        check_channels(features, self.in_channels)
        return self.projection(features)

    @torch.no_grad()
    def update_prototypes(self, embeddings: Tensor, action_seeds: Tensor) -> None:
        """M_c <- (1 - m) M_c + m * mean embedding of class c's seeds, m the memory's momentum.

        Classes without a seed stay as they are. The buffer is replaced, not written to: graphs of
        other videos may still need the old one.

        Args:
            embeddings: (T, D) of a video.
            action_seeds: (T, C), 0 or 1.
        """
        sums, counts = class_sums(embeddings, action_seeds)
        means = sums / counts.clamp(min=1)[:, None]
        share = self.momentum * (counts > 0).to(means.dtype)[:, None]
        self.prototypes = (1 - share) * self.prototypes + share * means


def class_sums(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of each class's embeddings, (C, D), and their number, (C,); from (T, D) and (T, C)."""
    labels = labels.to(embeddings.dtype)
    return labels.T @ embeddings, labels.sum(0)


def expand_points(
    background: Tensor | np.ndarray,
    points: Tensor | np.ndarray,
    action_threshold: float = 0.1,
    background_threshold: float = 0.95,
) -> Seeds:
    """Seeds of a video: what its points and the network's background score make of the snippets.

    Background, in each gap that the points leave, with H the snippets where b is high enough: all
    from the video's start to the last of H before the first point; all from the first of H to the end
    after the last point; between two points all from the first to the last of H if it has two. A gap
    whose H has too few takes the (first) snippet of the largest b for H.

    Action: from its snippet a point's row spreads to both sides up to the next point, over snippets
    where b is low enough, up to the first that fails or is background. A snippet that two points reach
    belongs to the later one. A video without points has no seeds.

    Args:
        background: b, (T,), in [0, 1]; no gradient passes.
        points: (T, C), 1 where a point of the class lies, else 0; points may share a snippet.
        action_threshold: the row spreads while b <= this.
        background_threshold: high enough is b >= this.

    Returns:
        Tensors of the points' dtype.

    Raises:
        ValueError: arrays of other shapes.
    """
    b = torch.as_tensor(background).detach()
    points = torch.as_tensor(points, device=b.device)
    if b.ndim != 1 or points.ndim != 2 or len(b) != len(points):
        found = f"{tuple(b.shape)} and {tuple(points.shape)}"
        raise ValueError(f"expected background (T,) and points (T, C), got {found}")
    is_point = (points != 0).any(1)
    is_background = _background_seeds(b, is_point, background_threshold)
    fails = ~is_point & (is_background | ~(b <= action_threshold))
    last_point, last_fail = _latest(is_point), _latest(fails)
    next_point, next_fail = _next(is_point), _next(fails)
    from_later = next_point < next_fail
    reached = from_later | (last_point > last_fail)
    source = torch.where(from_later, next_point, last_point).clamp(min=0)
    action = points[source] * reached[:, None].to(points.dtype)
    return Seeds(action, is_background.to(points.dtype))


def _background_seeds(b: Tensor, is_point: Tensor, threshold: float) -> Tensor:
    """(T,) booleans; every gap's rule at once, gap i being the snippets behind the i-th point."""
    T = len(b)
    position = torch.arange(T, device=b.device)
    free = ~is_point
    gap = is_point.cumsum(0)  # (T,) of 0 .. P; a point's own entry is the gap that follows it

    def earliest(chosen: Tensor) -> Tensor:
        """Of each snippet's gap, the first chosen position, (T,); T if there is none."""
        empty = position.new_full((T + 1,), T)
        return empty.scatter_reduce(0, gap, position.where(chosen, T), "amin")[gap]

    def latest(chosen: Tensor) -> Tensor:
        empty = position.new_full((T + 1,), -1)
        return empty.scatter_reduce(0, gap, position.where(chosen, -1), "amax")[gap]

    high = free & (b >= threshold)
    b_or_less = b.where(free, -torch.inf)
    largest = b.new_full((T + 1,), -torch.inf).scatter_reduce(0, gap, b_or_less, "amax")[gap]
    peak = earliest(free & (b == largest))
    first, last = earliest(high), latest(high)
    # Of a gap between points with one high snippet: that is its largest, and begin and end the same.
    begin = torch.where(first <= last, first, peak).where(gap > 0, 0)
    end = torch.where(first <= last, last, peak).where(gap < is_point.sum(), T)
    return free & is_point.any() & (begin <= position) & (position <= end)


def _latest(chosen: Tensor) -> Tensor:
    """(T,) booleans -> the last chosen position up to each one, itself included; -1 if none."""
    position = torch.arange(len(chosen), device=chosen.device)
    return position.where(chosen, -1).cummax(0).values


def _next(chosen: Tensor) -> Tensor:
    """(T,) booleans -> the first chosen position from each one on; T if none."""
    return len(chosen) - 1 - _latest(chosen.flip(0)).flip(0)
