"""FTCL: fine-grained temporal contrast between the snippet sequences of two videos.

What two videos of the same classes have in common shows when their snippet sequences are aligned.
FTCL trains an ACM-Net further on pairs of videos, with two contrasts by dynamic programming: the
*fine-grained sequence distance* (FSD) tells action from background, the *longest common subsequence*
(LCS) finds what is coherent in both. Values of positive pairs, which share a class, are to rise, those
of negative pairs to fall.

Symbols: P pairs, B videos, T snippets, H embedding channels, C classes; E embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fustal_core.acmnet import EPSILON, ACMNet, ACMNetOutput
from fustal_core.alignment import (
    cosine_table,
    fine_grained_sequence_distance,
    longest_common_subsequence,
)
from fustal_core.linear import Linear
from fustal_core.mining import take_rows
from fustal_core.stage_settings import ACMNetSettings, FTCLSettings


class FTCL(nn.Module):
    """An ACM-Net, and the layer that makes candidates of the FSD; localises as the ACM-Net does.

    Args:
        network: usually trained already.
        hidden_channels: H of the network.
        fsd_channels: of the candidates, half for the match and half for the gap.
    """

    def __init__(self, network: ACMNet, hidden_channels: int, fsd_channels: int) -> None:
        super().__init__()
        self.network = network
        self.fsd_embedding = Linear(hidden_channels, fsd_channels)

    def forward(self, features: Tensor, rng: torch.Generator | None = None) -> ACMNetOutput:
        """The network's output for (B, T, D) features."""
        return self.network(features, rng)


def build_ftcl(
    in_channels: int, num_classes: int, network: ACMNetSettings, settings: FTCLSettings
) -> FTCL:
    """An FTCL model with new weights, of the sizes that the settings say."""
    backbone = ACMNet(in_channels, num_classes, network)
    return FTCL(backbone, network.hidden_channels, settings.fsd_channels)


@dataclass(frozen=True)
class Candidates:
    """The snippets of each video that are aligned, in temporal order.

    Attributes:
        lcs: (B, n, H), E at the n snippets of largest instance attention.
        fsd_action: (B, m, channels), those of the m snippets of largest instance attention.
        fsd_background: (B, m, channels), those of the next m by attention.
        lcs_rows, action_rows, background_rows: (B, n) and (B, m), which snippets these are.
    """

    lcs: Tensor
    fsd_action: Tensor
    fsd_background: Tensor
    lcs_rows: Tensor
    action_rows: Tensor
    background_rows: Tensor

    def split(self) -> tuple[Candidates, Candidates]:
        """Those of the first half of the videos, and those of the second."""
        halves = zip(*(value.chunk(2) for value in vars(self).values()), strict=True)
        first, second = (Candidates(*half) for half in halves)
        return first, second


@dataclass(frozen=True)
class AlignmentTables:
    """What the two alignments of P pairs look at.

    match, gap: of the FSD, (P, m, m). similarity: of the LCS, (P, n, n). All are cosines.
    """

    match: Tensor
    gap: Tensor
    similarity: Tensor


@dataclass(frozen=True)
class AlignmentLoss:
    """L_FSD and L_LCS, scalars: mean value of negative pairs minus that of positive ones."""

    fsd: Tensor
    lcs: Tensor


def find_candidates(model: FTCL, output: ACMNetOutput, settings: FTCLSettings) -> Candidates:
    """Candidates of each video; the choice carries no gradient, the embeddings do.

    Of fewer snippets than the settings ask for, all are candidates of the LCS, and each half by
    attention one kind of the FSD's.

    Args:
        model: whose ``fsd_embedding`` is applied.
        output: of the model for B videos.
        settings: numbers of candidates.
    """
    embeddings, attention = output.embeddings, output.actionness.detach()
    length = attention.shape[1]
    lcs, fsd = min(settings.lcs_snippets, length), min(settings.fsd_snippets, length // 2)
    ranked = attention.argsort(dim=1, descending=True, stable=True)  # ties: the earliest first
    rows = [
        ranked[:, part].sort(1).values for part in (slice(lcs), slice(fsd), slice(fsd, 2 * fsd))
    ]
    chosen = take_rows(embeddings, torch.cat(rows, dim=1)).split([lcs, 2 * fsd], dim=1)
    action, background = model.fsd_embedding(chosen[1]).chunk(2, dim=1)
    return Candidates(chosen[0], action, background, *rows)


def alignment_tables(first: Candidates, second: Candidates, positive: Tensor) -> AlignmentTables:
    """Cosine tables of P pairs.

    A positive pair aligns action with action; a negative one the action of its first video with the
    background of its second. The LCS takes the same candidates for both.

    Args:
        first, second: candidates of each pair's videos.
        positive: (P,) booleans.
    """
    partner = torch.where(positive[:, None, None], second.fsd_action, second.fsd_background)
    half = partner.shape[2] // 2
    return AlignmentTables(
        match=cosine_table(first.fsd_action[..., :half], partner[..., :half]),
        gap=cosine_table(first.fsd_action[..., half:], partner[..., half:]),
        similarity=cosine_table(first.lcs, second.lcs),
    )


def alignment_loss(
    tables: AlignmentTables, positive: Tensor, settings: FTCLSettings
) -> AlignmentLoss:
    """L_FSD and L_LCS of P pairs; a kind of pair that the batch lacks counts as 0.

    Args:
        tables: of the pairs.
        positive: (P,) booleans.
        settings: smoothness of the FSD, threshold of the LCS. A term of weight 0 is not computed.
    """
    zero = tables.match.new_zeros(len(positive))
    fsd = lcs = zero
    if settings.fsd_weight:
        fsd = fine_grained_sequence_distance(tables.match, tables.gap, settings.fsd_gamma)
    if settings.lcs_weight:
        lcs = longest_common_subsequence(tables.similarity, settings.lcs_threshold)
    return AlignmentLoss(
        _negative_minus_positive(fsd, positive), _negative_minus_positive(lcs, positive)
    )


def _negative_minus_positive(values: Tensor, positive: Tensor) -> Tensor:
    weight = positive.to(values.dtype)
    above = (values * weight).sum() / (weight.sum() + EPSILON)
    below = (values * (1 - weight)).sum() / ((1 - weight).sum() + EPSILON)
    return below - above


def share_a_class(first: Tensor, second: Tensor) -> Tensor:
    """Which pairs count as positive in the loss: multi-hot (P, C), (P, C) -> booleans (P,)."""
    return (first * second).sum(1) > 0


class PairSampler:
    """Pairs of training videos: positive ones with identical labels, as many negative with disjoint.

    Attributes:
        positives, negatives: pairs of a pass; as many, unless no two videos have disjoint labels.

    Args:
        labels: (N, C) multi-hot, at least one class per video.
        positives_per_epoch: how many positive pairs a pass draws, with replacement; 0, or as many as
            there are: each of them once, which grows with the square of the videos of a class.
    """

    def __init__(self, labels: Tensor, positives_per_epoch: int = 0) -> None:
        kinds, group, self.counts = labels.unique(dim=0, return_inverse=True, return_counts=True)
        self.videos = group.argsort(stable=True)  # (N,) those of a kind side by side
        self.begin = self.counts.cumsum(0) - self.counts  # (U,) where a kind's videos begin
        # How many ordered pairs there are, up to each kind, and up to each pair of disjoint kinds.
        self.same = (self.counts * (self.counts - 1)).cumsum(0)  # (U,)
        disjoint = kinds @ kinds.T == 0  # (U, U)
        self.other = (self.counts[:, None] * self.counts * disjoint).flatten().cumsum(0)
        available = int(self.same[-1]) // 2
        self.draws = 0 < positives_per_epoch < available
        self.positives = positives_per_epoch if self.draws else available
        self.negatives = self.positives if self.other[-1] else 0

    def epoch(self, rng: torch.Generator) -> list[list[int]]:
        """The pairs [i, j] of one pass, shuffled; i != j."""
        positive = self._some_positive(rng) if self.draws else self._all_positive()
        pairs = torch.cat([positive, self._negative(rng)])
        return pairs[torch.randperm(len(pairs), generator=rng)].tolist()

    def _all_positive(self) -> Tensor:
        """Each positive pair once, (positives, 2)."""
        groups = self.videos.split(self.counts.tolist())
        return torch.cat([torch.combinations(own) for own in groups])

    def _some_positive(self, rng: torch.Generator) -> Tensor:
        """Random positive pairs, with replacement, (positives, 2)."""
        drawn = _below(self.same[-1].expand(self.positives), rng)
        kind = torch.searchsorted(self.same, drawn, right=True)
        count, begin = self.counts[kind], self.begin[kind]
        first = _below(count, rng)
        second = (first + 1 + _below(count - 1, rng)) % count
        return self.videos[torch.stack([begin + first, begin + second], dim=1)]

    def _negative(self, rng: torch.Generator) -> Tensor:
        """Random pairs without a common class, in either order, with replacement, (negatives, 2)."""
        drawn = _below(self.other[-1].expand(self.negatives), rng)
        cell = torch.searchsorted(self.other, drawn, right=True)
        kinds = torch.stack([cell // len(self.counts), cell % len(self.counts)], dim=1)
        return self.videos[self.begin[kinds] + _below(self.counts[kinds], rng)]


def _below(bounds: Tensor, rng: torch.Generator) -> Tensor:
    """A random whole number from 0 to below each bound, of the bounds' shape."""
    uniform = torch.rand(bounds.shape, generator=rng, dtype=torch.float64)
    return (uniform * bounds).long()


def example_pairs(labels: Tensor) -> dict[str, tuple[int, int]]:
    """A "positive" and a "negative" pair to look at, by a fixed rule; labels (N, C) multi-hot.

    The first video with both a partner of identical labels and one of disjoint labels begins both
    pairs, each with its first such partner; without such a video, each kind has its first pair. A
    kind that has no pair is missing.
    """
    first_of_kind: dict[str, tuple[int, int]] = {}
    for video, own in enumerate(labels):
        same = (labels == own).all(1)
        same[video] = False
        partners = {"positive": same, "negative": labels @ own == 0}
        found = {
            kind: (video, int(who.int().argmax())) for kind, who in partners.items() if who.any()
        }
        if len(found) == len(partners):
            return found
        first_of_kind = found | first_of_kind
    return first_of_kind
