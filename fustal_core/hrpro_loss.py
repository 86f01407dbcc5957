"""HR-Pro, stage 1: the four losses of a video.

Two focal losses tell the network what a labelled snippet and a background seed look like; a contrast
draws action seeds to their class's prototype, away from the other prototypes, and nearer to it than
background seeds are; and the video score is told the video's classes.

Symbols: T snippets, D model channels, C classes; p = [P, b] the probabilities of classes and background.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fustal_core.alignment import cosine_table
from fustal_core.hrpro import Seeds, SnippetOutput, class_sums, mean_of_top_eighth
from fustal_core.stage_settings import HRProSettings

TEMPERATURE = 0.1
"""tau of the contrast."""
EPSILON = 1e-6
"""Added to the numbers of snippets that the two frame losses are divided by."""


@dataclass(frozen=True)
class SnippetLoss:
    """Scalars; ``total`` is the weighted sum of the other four."""

    total: Tensor
    video: Tensor
    frame: Tensor
    background: Tensor
    contrast: Tensor


def snippet_loss(
    output: SnippetOutput,
    points: Tensor,
    seeds: Seeds,
    prototypes: Tensor,
    settings: HRProSettings,
) -> SnippetLoss:
    """Loss of one video.

    Args:
        output: of the network for the video, B = 1.
        points: (T, C), 1 where a point of the class lies, else 0.
        seeds: of the video.
        prototypes: M, (C, D).
        settings: weights of the terms.

    Raises:
        ValueError: an output of more than one video.
    """
    if len(output.background) != 1:
        raise ValueError(f"expected the output of one video, got {len(output.background)}")
    probabilities = torch.cat([output.cas, output.background[..., None]], dim=2)[0]  # (T, C + 1)
    video = video_loss(output.class_scores[0], points)
    frame = frame_loss(probabilities, points)
    background = background_loss(probabilities, seeds.background)
    contrast = contrast_loss(output.embeddings[0], seeds, prototypes)
    total = (
        settings.video_weight * video
        + settings.frame_weight * frame
        + settings.background_weight * background
        + settings.contrast_weight * contrast
    )
    return SnippetLoss(total, video, frame, background, contrast)


def frame_loss(probabilities: Tensor, points: Tensor) -> Tensor:
    """Focal loss at the labelled snippets, whose background is 0, by their number; 0 without any.

    Args:
        probabilities: p, (T, C + 1), in [0, 1], background last.
        points: (T, C), 0 or 1.
    """
    targets = F.pad(points.to(probabilities.dtype), (0, 1))
    return _focal_mean(probabilities, targets, (points != 0).any(1))


def background_loss(probabilities: Tensor, background: Tensor) -> Tensor:
    """Focal loss at background seeds, which show no class, by their number; 0 without any.

    Args:
        probabilities: p, (T, C + 1), in [0, 1], background last.
        background: (T,), 0 or 1.
    """
    targets = torch.zeros_like(probabilities)
    targets[:, -1] = 1
    return _focal_mean(probabilities, targets, background)


def _focal_mean(p: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
    """Sum over classes of |y - p|^2 BCE(p, y), mean over the rows that count; scalar."""
    entropy = F.binary_cross_entropy(p, targets, reduction="none")
    loss = ((targets - p).square() * entropy).sum(1)  # (T,)
    weight = rows.to(p.dtype)
    return (weight * loss).sum() / (weight.sum() + EPSILON)


def contrast_loss(embeddings: Tensor, seeds: Seeds, prototypes: Tensor) -> Tensor:
    """Action seeds of a class against prototypes, and background seeds against its prototype.

    With A_k the mean of exp(cos(a, M_k) / 0.1) over the action seeds a of class c, and G_k that over the
    background seeds: - 1/2 log(A_c / sum_k A_k) - 1/2 log(A_c / (A_c + G_c)), mean over the classes that
    have seeds; 0 if none has. Without background seeds G_c is 0, and so is the second term.

    Args:
        embeddings: (T, D).
        seeds: of the video.
        prototypes: M, (C, D); gradient passes if it asks for any.
    """
    cosines = cosine_table(embeddings[None], prototypes[None])[0]  # (T, C)
    near = (cosines / TEMPERATURE).exp()  # within exp(-10) and exp(10): no overflow
    has_seeds = seeds.action.any(0)  # (C,)
    if has_seeds.device.type == "cpu":
        own = has_seeds.nonzero().flatten()  # (K,)
    else:  # a GPU would have to be waited for: the classes without seeds come along, and count 0
        own = torch.arange(len(has_seeds), device=has_seeds.device)
    return _contrast_of(own, has_seeds, near, seeds)


def _contrast_of(own: Tensor, has_seeds: Tensor, near: Tensor, seeds: Seeds) -> Tensor:
    """:func:`contrast_loss` of K classes, (K,), at least those that have seeds; near: (T, C)."""
    counted = has_seeds[own]
    sums, counts = class_sums(near, seeds.action[:, own])
    means = sums / counts.clamp(min=1)[:, None]
    action = torch.where(counted[:, None], means, 1.0)  # A, (K, C)
    of_own = action.gather(1, own[:, None])[:, 0]  # A_c, (K,)
    weight = seeds.background.to(near.dtype)
    background = (weight @ near / weight.sum().clamp(min=1))[own]  # G_c, (K,)
    terms = (action.sum(1) / of_own).log() + (background / of_own).log1p()
    return 0.5 * (terms * counted).sum() / has_seeds.sum().clamp(min=1)


def video_loss(class_scores: Tensor, points: Tensor) -> Tensor:
    """BCE of video scores and the classes that have a point, mean over classes.

    The score of such a class is the mean of its floor(T / 8), at least 1, largest snippet scores; that
    of any other the mean of all.

    Args:
        class_scores: S, (T, C), in [0, 1].
        points: (T, C), 0 or 1.
    """
    labels = (points != 0).any(0)
    scores = torch.where(labels, mean_of_top_eighth(class_scores[None])[0], class_scores.mean(0))
    return F.binary_cross_entropy(scores, labels.to(scores.dtype))
