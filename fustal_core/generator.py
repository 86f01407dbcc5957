"""FuSTAL stage 1, Generation: the cross-video contrastive generator.

A classification model over snippets (CoLA's backbone) yields a temporal class activation sequence
(T-CAS) and an actionness curve. With the snippets that :mod:`fustal_core.mining` picks, easy and hard
ones of action and background, two contrastive losses refine their embeddings: the in-video one of CoLA,
and the cross-video one of FuSTAL in which the hard snippets of a video are pulled towards the easy
snippets of *another* video with the same classes.

Symbols: B videos, T snippets, D feature channels, H embedding channels, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fustal_core.convolution import convolve_neighbours
from fustal_core.dropout import dropout_of_channels
from fustal_core.linear import linear
from fustal_core.mining import EASY_SHARE, MinedSnippets, mine_snippets
from fustal_core.precision import in_float32

TEMPERATURE = 0.07
"""tau of the contrast."""


@dataclass(frozen=True)
class GeneratorOutput:
    """What the generator says about a batch.

    Attributes:
        embeddings: (B, T, H), >= 0.
        cas: T-CAS, (B, T, C), >= 0.
        actionness: (B, T), sum of the T-CAS over classes, >= 0.
        video_scores: (B, C), softmax over classes of the mean of the k_easy largest T-CAS values.
    """

    embeddings: Tensor
    cas: Tensor
    actionness: Tensor
    video_scores: Tensor


@dataclass(frozen=True)
class GeneratorLoss:
    """Scalars: ``total = classification + contrast_weight * contrast``.

    ``contrast`` is ``in_video + cross_video_weight * cross_video``.
    """

    total: Tensor
    classification: Tensor
    contrast: Tensor
    in_video: Tensor
    cross_video: Tensor


class CrossVideoGenerator(nn.Module):
    """The actionness model of CoLA, which FuSTAL trains with the cross-video contrast.

    Args:
        in_channels: D, feature channels.
        num_classes: C.
        hidden_channels: H, embedding channels.
    """

    def __init__(self, in_channels: int, num_classes: int, hidden_channels: int = 2048) -> None:
        super().__init__()
        self.embedding = nn.Conv1d(in_channels, hidden_channels, kernel_size=3, padding=1)
        self.classifier = nn.Conv1d(hidden_channels, num_classes, kernel_size=1, bias=False)

    def forward(self, features: Tensor, rng: torch.Generator | None = None) -> GeneratorOutput:
        """Score a batch.

        Args:
            features: (B, T, D).
            rng: source of the dropout mask in training mode; torch's default if None.

        Raises:
            ValueError: features of another shape or channel number.
        """
        check_channels(features, self.embedding.in_channels)
        embeddings = convolve_neighbours(self.embedding, features).relu_()  # (B, T, H)
        kept = dropout_of_channels(embeddings, 0.7, rng) if self.training else embeddings
        cas = in_float32(F.relu(linear(kept, self.classifier.weight[..., 0])))  # (B, T, C)
        return GeneratorOutput(
            embeddings=embeddings,
            cas=cas,
            actionness=cas.sum(2),
            video_scores=video_scores(cas),
        )


def check_channels(features: Tensor, expected: int) -> None:
    """Raise ValueError unless the features are (B, T, D) with D as expected."""
    if features.ndim != 3 or features.shape[2] != expected:
        raise ValueError(f"expected features (B, T, {expected}), got {tuple(features.shape)}")


def video_scores(cas: Tensor) -> Tensor:
    """Softmax over classes of the mean of the floor(T/5) largest T-CAS values; (B,T,C) -> (B,C)."""
    k_easy = max(1, cas.shape[1] // EASY_SHARE)
    return top_mean(cas, k_easy).softmax(1)


def top_mean(values: Tensor, k: int) -> Tensor:
    """Mean of the k largest values over time of each class, (B, T, C) -> (B, C)."""
    in_time = values.transpose(1, 2).contiguous()  # the search is faster over neighbours in memory
    return in_time.topk(k, dim=2, sorted=False).values.mean(2)


def generator_loss(
    output: GeneratorOutput,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    contrast_weight: float = 0.01,
    cross_video_weight: float = 0.2,
    cross_video_pairs: int = 0,
) -> GeneratorLoss:
    """L = L_cls + 0.01 * (L_IV + 0.2 / #pairs * sum of L_CV) (FuSTAL, stage 1).

    Args:
        output: of the generator for B videos.
        labels: (B, C) multi-hot, at least one class per video.
        mask: (B, T) of :func:`snippet_mask` in training, None otherwise.
        contrast_weight: 0.01.
        cross_video_weight: 0.2; 0 leaves CoLA's losses.
        cross_video_pairs: see :func:`contrast_losses`.
    """
    targets = labels / labels.sum(1, keepdim=True)
    classification = F.binary_cross_entropy(output.video_scores, targets)
    mined = mine_snippets(output.actionness, output.embeddings, mask)
    in_video, cross_video = contrast_losses(mined, labels, cross_video_pairs)
    contrast = in_video + cross_video_weight * cross_video
    total = classification + contrast_weight * contrast
    return GeneratorLoss(total, classification, contrast, in_video, cross_video)


def contrast_losses(
    mined: MinedSnippets, labels: Tensor, most_pairs: int = 0
) -> tuple[Tensor, Tensor]:
    """In-video contrast L_IV, and the mean over pairs of the cross-video contrast L_CV.

    A pair is two videos of the batch with identical label vectors; without one the second is 0.
    Every row (query video, key video) of both is one entry of a (B, B) table: the diagonal is the
    in-video contrast, the off-diagonal entries of identical labels the cross-video one.

    Args:
        mined: snippets of B videos.
        labels: (B, C) multi-hot.
        most_pairs: so many pairs at most, those of the batch's first videos (batches are drawn at
            random); 0: all.
    """
    action = nce_table(mined.hard_action, mined.easy_action, mined.easy_background)
    background = nce_table(mined.hard_background, mined.easy_background, mined.easy_action)
    table = action + background
    pairs = (labels[:, None] == labels[None]).all(2).triu(1)
    if most_pairs:
        pairs &= pairs.flatten().cumsum(0).view_as(pairs) <= most_pairs
    same = pairs | pairs.T
    # L_CV averages the two directions of a pair, so its mean over pairs is the mean over rows.
    cross_video = (table * same).sum() / same.sum().clamp(min=1)
    return table.diagonal().mean(), cross_video


def nce_table(queries: Tensor, keys: Tensor, negatives: Tensor) -> Tensor:
    """NCE of every query video against every key video, (B, B): row j, column i is (q_j, k_i, N_i).

    NCE(q, k, N) = -log( exp(q.k/tau) / (exp(q.k/tau) + sum_n exp(q.n/tau)) ), with q and k the means
    of a video's snippets, and q, k and every n normalised over channels.

    Args:
        queries: (B, k_hard, H); keys: (B, k_easy, H); negatives: (B, k_easy, H).
    """
    query = F.normalize(queries.mean(1), dim=1)
    key = F.normalize(keys.mean(1), dim=1)
    positive_logits = query @ key.T / TEMPERATURE  # (B, B)
    # Dividing the products is cheaper than dividing the snippets, forward and backward.
    lengths = torch.linalg.vector_norm(negatives, dim=2).clamp(min=1e-12)  # (B, k_easy)
    products = query @ negatives.flatten(0, 1).T  # (B, B k_easy)
    negative_logits = products.unflatten(1, lengths.shape) / (TEMPERATURE * lengths)
    logits = torch.cat([positive_logits[:, :, None], negative_logits], dim=2)
    return logits.logsumexp(2) - positive_logits
