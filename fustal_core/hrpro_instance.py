"""HR-Pro, stage 2: how complete a proposal is, and where it really starts and ends.

Each proposal is widened, and pooled from the features into 12 bins. What lies inside it, against what
lies at its two ends, tells its completeness; the features of an end tell how far to move that end. Both
are taught by the *reliable* proposals of the video: those that a point label chose
(:func:`fustal_core.reliability.reliable_proposals`).

Symbols: M proposals of any number of videos, R reliable ones, D feature channels, N snippets of all
videos, one video below the other. Times are in snippets: snippet t is [t, t + 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fustal_core.dropout import Dropout
from fustal_core.features import to_device
from fustal_core.linear import Linear
from fustal_core.metrics import temporal_iou
from fustal_core.stage_settings import HRProInstanceSettings

BINS = 12
START, INSIDE, END = slice(0, 2), slice(2, 10), slice(10, 12)
"""The bins of a proposal's start, of what is inside, and of its end."""
DROPOUT = 0.7
SHORTEST = 1e-8
"""Unions count as at least so long, in snippets: a division by them has a gradient."""


@dataclass(frozen=True)
class InstanceOutput:
    """What the network says about M proposals.

    Attributes:
        completeness: (M,) in [0, 1], the expected tIoU with a reliable proposal.
        refined: (M, 2) start and end in snippets; nothing keeps an end behind its start, or either
            within the video.
    """

    completeness: Tensor
    refined: Tensor


@dataclass(frozen=True)
class InstanceLoss:
    """Scalars; ``total`` is the sum of the other two."""

    total: Tensor
    regression: Tensor
    completeness: Tensor


class HRProInstance(nn.Module):
    """Completeness and offsets of pooled proposals.

    Args:
        channels: D, at least 2.

    Raises:
        ValueError: fewer channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 2:
            raise ValueError(f"channels: expected at least 2, got {channels}")
        self.channels = channels
        self.fuse = Linear(3 * channels, channels)
        self.dropout = Dropout(DROPOUT)
        self.completeness = _head(channels)
        self.start_offset = _head(channels)
        self.end_offset = _head(channels)

    def forward(self, pooled: Tensor, segments: Tensor) -> InstanceOutput:
        """Judge and refine proposals.

        Args:
            pooled: (M, 12, D) features of the widened proposals, from :func:`roi_pool`.
            segments: (M, 2) the proposals themselves, not widened, in snippets.

        Raises:
            ValueError: pooled features of another shape.
        """
        if pooled.shape[1:] != (BINS, self.channels):
            expected = f"(M, {BINS}, {self.channels})"
            raise ValueError(f"expected pooled features {expected}, got {tuple(pooled.shape)}")
        start, inside, end = (pooled[:, part].amax(1) for part in (START, INSIDE, END))  # (M, D)
        contrast = torch.cat([inside - start, inside, inside - end], dim=1)  # (M, 3D)
        fused = self.dropout(F.relu(self.fuse(contrast)))
        completeness = self.completeness(fused).sigmoid()[:, 0]
        offsets = torch.cat([self.start_offset(start), self.end_offset(end)], dim=1)  # (M, 2)
        length = segments[:, 1:] - segments[:, :1]
        return InstanceOutput(completeness, segments + offsets * length)


def _head(channels: int) -> nn.Sequential:
    """(M, D) -> (M, 1): convolutions of width 1 over a single position are linear layers."""
    half = channels // 2
    return nn.Sequential(Linear(channels, half), nn.ReLU(), nn.Linear(half, 1))


def extend(segments: Tensor, share: float) -> Tensor:
    """Segments (M, 2) with ``share`` of their length more on both sides, (M, 2); 0 keeps them."""
    margin = share * (segments[:, 1:] - segments[:, :1])
    return torch.cat([segments[:, :1] - margin, segments[:, 1:] + margin], dim=1)


def roi_pool(
    features: Tensor, first_row: Tensor, lengths: Tensor, rois: Tensor, bins: int = BINS
) -> Tensor:
    """1-D RoIAlign, mean of linearly interpolated samples in each of the bins.

    Positions are shifted by -0.5, as a snippet's feature stands for its middle. A length below 1
    counts as 1. Each bin is cut into ceil(length / bins) equal parts with a sample in the middle of
    each. A sample outside [-1, T] of a video of T snippets is zero; one within that, but beyond the
    first or last feature, takes that feature.

    Args:
        features: (N, D), the videos one below the other.
        first_row: (M,) integers, where each roi's video begins in ``features``.
        lengths: (M,) integers >= 1, its number of snippets T.
        rois: (M, 2) start and end in snippets, anywhere. All three on one device: the CPU, or else a GPU
            is waited for.
        bins: K.

    Returns:
        (M, K, D) of the features' dtype; gradients reach the features, not the rois.
    """
    start = rois[:, 0] - 0.5
    size = ((rois[:, 1] - 0.5) - start).clamp(min=1) / bins  # of a bin
    samples = size.ceil().long()  # in each bin of a roi
    # How many samples there are in all is read here.
    roi, within = _ragged_rows(samples * bins)
    step, own = within % samples[roi], samples[roi]
    position = start[roi] + within // own * size[roi] + (step + 0.5) * size[roi] / own
    length = lengths[roi]
    seen = (position >= -1) & (position <= length)
    position = torch.minimum(position.clamp(min=0), length - 1)
    low = position.long()
    rows = torch.stack([low, torch.minimum(low + 1, length - 1)], dim=1) + first_row[roi, None]
    share = position - low
    weights = torch.stack([1 - share, share], dim=1) * (seen.to(share.dtype) / own)[:, None]
    # Every bin is one bag of twice as many rows as it has samples, so that nothing is padded to the
    # longest roi, and no (samples, D) table is ever made.
    sizes = 2 * samples.repeat_interleave(bins, output_size=bins * len(samples))
    places = (rows.flatten(), sizes.cumsum(0) - sizes, weights.flatten().to(features.dtype))
    bags, begin, shares = (to_device(x, features.device) for x in places)
    pooled = F.embedding_bag(bags, features, begin, mode="sum", per_sample_weights=shares)
    return pooled.view(len(rois), bins, features.shape[1])


def _ragged_rows(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Owner and place of each of sum(counts) entries: (2, 1) -> (0, 0, 1), (0, 1, 0)."""
    owner = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    first = counts.cumsum(0) - counts
    return owner, torch.arange(len(owner), device=counts.device) - first[owner]


def overlap_of_pairs(a: Tensor, b: Tensor) -> Tensor:
    """tIoU of row i of ``a`` with row i of ``b``; (M, 2), (M, 2) -> (M,) in [0, 1].

    Differentiable. A reversed segment counts as empty, and an empty one has tIoU 0 with all.
    """
    inter = (torch.minimum(a[:, 1], b[:, 1]) - torch.maximum(a[:, 0], b[:, 0])).clamp(min=0)
    # Reversed, a segment meets nothing: all that its negative length could spoil is the divisor.
    union = (a[:, 1] - a[:, 0]) + (b[:, 1] - b[:, 0]) - inter
    return inter / union.clamp(min=SHORTEST)


def best_reliable(
    segments: Tensor, video: Tensor, reliable: Tensor, reliable_video: Tensor
) -> tuple[Tensor, Tensor]:
    """Highest tIoU of each proposal with a reliable one of its video, and that segment.

    Args:
        segments: (M, 2) snippets. video: (M,) integers >= 0.
        reliable: (R, 2) snippets. reliable_video: (R,) integers >= 0.

    Returns:
        (M,) in [0, 1], 0 without any; (M, 2), which says nothing where the tIoU is 0.
    """
    # An empty segment of no video stands in for those that a video lacks.
    reliable = F.pad(reliable, (0, 0, 0, 1))
    reliable_video = F.pad(reliable_video, (0, 1), value=-1)
    same = video[:, None] == reliable_video
    tiou, row = torch.where(same, temporal_iou(segments, reliable), 0.0).max(1)
    return tiou, reliable[row]


def instance_loss(
    output: InstanceOutput,
    segments: Tensor,
    video: Tensor,
    reliable: Tensor,
    reliable_video: Tensor,
    settings: HRProInstanceSettings,
    rng: torch.Generator | None = None,
) -> InstanceLoss:
    """Both losses of M proposals; a *positive* one overlaps a reliable proposal enough.

    Regression: mean over the positives of smooth-L1(tIoU(refined, best reliable proposal), 1).
    Completeness: mean over the positives, and as many of the rest drawn at random (all of them, if
    they are fewer), of smooth-L1(completeness, best tIoU). Both are 0 without positives.

    Args:
        output: of the network.
        segments: (M, 2) the proposals themselves, in snippets.
        video: (M,) integers >= 0, which video each is of.
        reliable: (R, 2) reliable proposals, in snippets.
        reliable_video: (R,) integers >= 0.
        settings: ``positive_tiou``, the tIoU from which on a proposal is positive.
        rng: CPU generator of the draw; torch's default if None.
    """
    tiou, wanted = best_reliable(segments, video, reliable, reliable_video)
    # Where the threshold is 0, a proposal that overlaps nothing still has nothing to be refined to.
    positive = (tiou >= settings.positive_tiou) & (tiou > 0)
    reached = overlap_of_pairs(output.refined, wanted)
    regression = F.smooth_l1_loss(reached, torch.ones_like(reached), reduction="none")
    completeness = F.smooth_l1_loss(output.completeness, tiou, reduction="none")
    judged = positive | _as_many_others(positive, rng)
    parts = _masked_mean(regression, positive), _masked_mean(completeness, judged)
    return InstanceLoss(parts[0] + parts[1], *parts)


def _as_many_others(chosen: Tensor, rng: torch.Generator | None) -> Tensor:
    """(M,) bool: at random as many of those not chosen as are chosen, or all; never waits for a GPU."""
    draw = to_device(torch.rand(len(chosen), generator=rng), chosen.device)
    order = torch.where(chosen, 2.0, draw).argsort()  # the chosen come last
    first = torch.arange(len(chosen), device=chosen.device) < chosen.sum()
    return torch.zeros_like(chosen).scatter(0, order, first) & ~chosen


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values (M,) where the mask (M,) is set; 0, with a gradient of 0, where nowhere."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
