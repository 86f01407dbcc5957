"""Losses of the student (FuSTAL, stage 3): label assignment, focal, DIoU and video-level loss.

All positions of all levels, all videos of the batch and all segments are handled at once;
segments are decoded at positive entries only.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from fustal_core.features import to_device
from fustal_core.student import PyramidGrid, StudentOutput, decode_offsets

CENTRE_RADIUS = 1.5
"""A positive position lies within this many strides of its segment's centre."""
SAME_LENGTH = 1e-3
"""Segments whose lengths differ by at most this, grid units, share a position."""
FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0
OVERLAP_POWER = 0.2
"""Positive focal terms are multiplied by the tIoU of their decoded segment to this power."""
NORMALISER_START = 100.0
NORMALISER_MOMENTUM = 0.9
MIL_DROPOUT = 0.7
MIL_SHARE = 5
"""The video-level loss averages the largest 1/5 of the logits."""


@dataclass(frozen=True)
class Targets:
    """Labels of the L positions of a batch.

    Attributes:
        classes: (B, L, C) of 0 and 1, all 0 for background.
        distances: (B, L, 2) to start and end in strides of the level; meaningless in background.
    """

    classes: Tensor
    distances: Tensor


@dataclass(frozen=True)
class StudentLoss:
    """Loss of a batch, 0-d tensors.

    Attributes:
        total: classification + regression + mil_weight * video.
        classification: focal loss over the normaliser.
        regression: DIoU loss over the normaliser.
        video: L_MIL, before its weight.
        normaliser: the running number of positives, for the next batch.
    """

    total: Tensor
    classification: Tensor
    regression: Tensor
    video: Tensor
    normaliser: Tensor

    def detach(self) -> StudentLoss:
        """The same numbers without their graph."""
        return StudentLoss(*(getattr(self, part.name).detach() for part in fields(self)))


def assign_labels(grid: PyramidGrid, segments: Tensor, labels: Tensor, num_classes: int) -> Targets:
    """Labels of every position.

    A position is positive for a segment when it lies inside it, within 1.5 strides of its centre,
    and the larger of its distances to the ends falls in its level's range. Of several the
    shortest wins; the classes of equally short ones are joined.

    Args:
        grid: of the network's output, L positions.
        segments: (B, N, 2) start and end, grid units.
        labels: (B, N) class indices, -1 for an empty place.
        num_classes: C.
    """
    B, N, _ = segments.shape
    if N == 0:
        shape = (B, len(grid.time))
        return Targets(segments.new_zeros(*shape, num_classes), segments.new_zeros(*shape, 2))
    time = grid.time[:, None]  # (L, 1) against (B, 1, N)
    start, end = segments[:, None, :, 0], segments[:, None, :, 1]
    left, right = time - start, end - time  # (B, L, N)
    to_centre = (time - (start + end) / 2).abs()
    farther = torch.maximum(left, right)
    positive = (
        (torch.minimum(left, right) > 0)
        & (to_centre < CENTRE_RADIUS * grid.stride[:, None])
        & (farther >= grid.low[:, None])
        & (farther <= grid.high[:, None])
        & (grid.level[:, None] >= 0)
        & (labels >= 0)[:, None]
    )
    length = (end - start).expand_as(positive).masked_fill(~positive, torch.inf)
    shortest, winner = length.min(-1, keepdim=True)  # (B, L, 1)
    winners = (positive & (length <= shortest + SAME_LENGTH)).to(segments.dtype)
    # (B, L, N) @ (B, N, C): the classes of all winners, joined.
    one_hot = F.one_hot(labels.clamp(min=0), num_classes).to(segments.dtype)
    classes = (winners @ one_hot).clamp(max=1)
    distances = torch.cat([left.gather(-1, winner), right.gather(-1, winner)], dim=-1)
    return Targets(classes, distances / grid.stride[:, None])


def overlap_of_distances(predicted: Tensor, wanted: Tensor) -> Tensor:
    """tIoU of segments given as distances from a common point, (N, 2), (N, 2) -> (N,)."""
    inter = torch.minimum(predicted, wanted).sum(1)
    union = predicted.sum(1) + wanted.sum(1) - inter
    return inter / union.clamp(min=1e-8)


def diou_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """1 - tIoU + (offset of the centres / enclosing length)^2, (N, 2), (N, 2) -> (N,)."""
    enclosing = torch.maximum(predicted, wanted).sum(1).clamp(min=1e-8)
    # The centre lies (right - left) / 2 from the common point.
    left, right = (predicted - wanted).unbind(1)
    shift = (0.5 * right - 0.5 * left) / enclosing
    return 1 - overlap_of_distances(predicted, wanted) + shift.square()


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Sigmoid focal loss per entry, alpha 0.25, gamma 2; targets 0 or 1, any one shape."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = torch.sigmoid(logits)
    missed = torch.where(targets > 0, 1 - probability, probability)
    alpha = torch.where(targets > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    return alpha * missed**FOCAL_GAMMA * cross_entropy


def video_loss(
    logits: Tensor,
    mask: Tensor,
    video_labels: Tensor,
    *,
    k_from: str = "video",
    dropout: float = MIL_DROPOUT,
    rng: torch.Generator | None = None,
) -> Tensor:
    """L_MIL: BCE between the softmax of a video's class scores and y / sum(y).

    A class's score is the mean of the k largest of its logits at level 0, after dropout. Dropped
    logits are 0, which is more than the logit of anything unlikely. So with 7 of 10 dropped the
    largest fifth is made of zeros and positive logits, and nothing but a positive logit at level 0
    (an action of at most 4 grid units on its longer side) has a gradient: until there is one, the
    loss is that of a uniform guess.

    Args:
        logits: (B, T, C), 0 where masked.
        mask: (B, T) bool.
        video_labels: (B, C) multi-hot.
        k_from: "video": k is a fifth of the video's valid positions, chosen among them; "batch": as
            released, a fifth of the valid positions of the whole batch (at most T), chosen among
            all T positions, padding included.
        dropout: share of logits set to 0 (0: none).
        rng: source of the dropout.
    """
    B, T, _ = logits.shape
    if dropout:
        draw = torch.rand(logits.shape, generator=rng, device=logits.device)
        logits = logits * (draw >= dropout) / (1 - dropout)
    valid = mask.sum(1)
    if k_from == "batch":
        k = (valid.sum() // MIL_SHARE).clamp(1, T).expand(B)
    else:
        k = (valid // MIL_SHARE).clamp(min=1)
        logits = logits.masked_fill(~mask[..., None], -torch.inf)
    # A GPU would have to be waited for to know the largest k: it takes all that k can be.
    most = int(k.max()) if k.device.type == "cpu" else _most(T, k_from)
    largest = logits.topk(most, dim=1).values  # (B, most, C)
    taken = torch.arange(largest.shape[1], device=k.device)[:, None] < k[:, None, None]
    scores = torch.where(taken, largest, 0.0).sum(1) / k[:, None]
    wanted = video_labels / video_labels.sum(1, keepdim=True).clamp(min=1)
    return F.binary_cross_entropy(scores.softmax(-1), wanted)


def _most(length: int, k_from: str) -> int:
    """The largest k of :func:`video_loss` that a batch of T positions can have."""
    return length if k_from == "batch" else max(1, length // MIL_SHARE)


def student_loss(
    output: StudentOutput,
    targets: Targets,
    video_labels: Tensor,
    normaliser: Tensor,
    *,
    mil_weight: float = 1.0,
    mil_k: str = "video",
    mil_dropout: float = MIL_DROPOUT,
    rng: torch.Generator | None = None,
) -> StudentLoss:
    """All losses of a batch.

    Args:
        output: of the network, asked for the positive positions at least.
        targets: from :func:`assign_labels`, on the CPU: how many entries are positive is known there
            without waiting for a GPU.
        video_labels: (B, C) multi-hot, the classes known to occur.
        normaliser: 0-d running number of positives; NORMALISER_START before the first batch.
        mil_weight, mil_k, mil_dropout: weight of L_MIL, and its options in :func:`video_loss`.
        rng: source of L_MIL's dropout.
    """
    device = output.mask.device
    positive = targets.classes.nonzero(as_tuple=True)
    wanted = to_device(targets.distances[positive[:2]], device)
    video, position, label = (to_device(index, device) for index in positive)
    classes = torch.zeros(targets.classes.shape, dtype=targets.classes.dtype, device=device)
    classes[video, position, label] = 1
    num_positives = (classes.any(-1) & output.mask).sum().clamp(min=1)
    normaliser = NORMALISER_MOMENTUM * normaliser + (1 - NORMALISER_MOMENTUM) * num_positives
    predicted = decode_offsets(output, video, position, label)
    # In the padding there may be some: a video goes on for half a window behind its last position.
    exists = output.mask[video, position].to(predicted.dtype)
    regression = (diou_loss(predicted, wanted) * exists).sum() / normaliser

    focal = focal_loss(output.class_logits, classes) * output.mask[..., None]
    overlap = overlap_of_distances(predicted, wanted).detach()
    weight = torch.ones_like(focal)
    weight[video, position, label] = overlap**OVERLAP_POWER
    classification = (focal * weight).sum() / normaliser

    level_0 = slice(output.grid.lengths[0])
    video_level = video_loss(
        output.class_logits[:, level_0],
        output.mask[:, level_0],
        video_labels,
        k_from=mil_k,
        dropout=mil_dropout,
        rng=rng,
    )
    total = classification + regression + mil_weight * video_level
    return StudentLoss(total, classification, regression, video_level, normaliser)
