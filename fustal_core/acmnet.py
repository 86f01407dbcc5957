"""ACM-Net: action context modelling with three branches of attention, the backbone of FTCL.

Each snippet belongs to an action *instance*, to the *context* that comes with it, or to the
*background*; an attention over these three branches says to which. A branch weighs the class
activation sequence (CAS) by its attention, and is told what its video score must be: the instance
branch shows the video's classes and no background, the context branch both, the background branch the
background alone.

Symbols: B videos, T snippets, D feature channels, H embedding channels, C classes. Class C, the last
of the C + 1, is the background.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fustal_core.convolution import convolve_neighbours
from fustal_core.dropout import dropout, dropout_of_channels
from fustal_core.generator import check_channels, top_mean
from fustal_core.linear import Linear
from fustal_core.precision import in_float32
from fustal_core.stage_settings import ACMNetSettings

INSTANCE, CONTEXT, BACKGROUND = range(3)
"""The branches, in the order of the attention's channels."""
DROPOUT = 0.7
"""Of whole snippets, and of the channels before the classifier."""
EPSILON = 1e-10


@dataclass(frozen=True)
class ACMNetOutput:
    """What ACM-Net says about a batch.

    Attributes:
        embeddings: E, (B, T, H), >= 0.
        attention: (B, T, 3) over instance, context and background; sums to 1.
        branch_cas: (B, 3, T, C + 1), the CAS weighed by each branch's attention; logits.
        branch_scores: (B, 3, C + 1), video scores of the branches; each sums to 1.
        branch_features: (B, 3, H), mean embedding of the snippets each branch attends to most.
    """

    embeddings: Tensor
    attention: Tensor
    branch_cas: Tensor
    branch_scores: Tensor
    branch_features: Tensor

    @property
    def class_probabilities(self) -> Tensor:
        """The instance CAS, softmaxed over classes and background; (B, T, C + 1), in [0, 1]."""
        return self.branch_cas[:, INSTANCE].softmax(2)

    @property
    def cas(self) -> Tensor:
        """T-CAS for localisation, (B, T, C): the softmaxed instance CAS without the background."""
        return self.class_probabilities[..., :-1]

    @property
    def actionness(self) -> Tensor:
        """The instance attention, (B, T), in [0, 1]."""
        return self.attention[..., INSTANCE]

    @property
    def video_scores(self) -> Tensor:
        """Scores of the instance branch without the background, (B, C)."""
        return self.branch_scores[:, INSTANCE, :-1]


@dataclass(frozen=True)
class ACMNetLoss:
    """Scalars; ``total`` is the weighted sum of the other four."""

    total: Tensor
    classification: Tensor
    guide: Tensor
    norms: Tensor
    sparsity: Tensor


class ACMNet(nn.Module):
    """Embedding, attention over three branches, classifier.

    Args:
        in_channels: D, feature channels.
        num_classes: C.
        settings: ``hidden_channels`` H, and the share of snippets that each branch's score takes.
    """

    def __init__(self, in_channels: int, num_classes: int, settings: ACMNetSettings) -> None:
        super().__init__()
        hidden = settings.hidden_channels
        self.shares = (settings.instance_share, settings.context_share, settings.background_share)
        self.embedding = nn.Conv1d(in_channels, hidden, kernel_size=3, padding=1)
        self.attention = nn.Conv1d(hidden, 3, kernel_size=1)
        self.classifier = Linear(hidden, num_classes + 1)

    def forward(self, features: Tensor, rng: torch.Generator | None = None) -> ACMNetOutput:
        """Score a batch.

        Args:
            features: (B, T, D).
            rng: source of the dropout masks in training mode; torch's default if None.

        Raises:
            ValueError: features of another shape or channel number.
        """
        check_channels(features, self.embedding.in_channels)
        embeddings = convolve_neighbours(self.embedding, features).relu_()  # (B, T, H)
        layer = self.attention
        attended = F.linear(embeddings, layer.weight[..., 0], layer.bias)
        attention = in_float32(attended).softmax(2)  # (B, T, 3)
        cas = in_float32(self.classifier(self._drop(embeddings, rng)))  # (B, T, C + 1)
        branch_cas = cas[:, None] * attention.transpose(1, 2)[..., None]  # (B, 3, T, C + 1)
        counts = [max(1, features.shape[1] // share) for share in self.shares]
        scores = [top_mean(branch_cas[:, i], k).softmax(1) for i, k in enumerate(counts)]
        means = _means_at_top(embeddings, attention, counts)
        return ACMNetOutput(embeddings, attention, branch_cas, torch.stack(scores, 1), means)

    def _drop(self, embeddings: Tensor, rng: torch.Generator | None) -> Tensor:
        """In training, whole snippets are dropped, and then single channels."""
        if not self.training:
            return embeddings
        snippets = dropout(torch.ones_like(embeddings[..., :1]), DROPOUT, rng)  # (B, T, 1)
        return embeddings * dropout_of_channels(snippets.expand_as(embeddings), DROPOUT, rng)


def _means_at_top(embeddings: Tensor, attention: Tensor, counts: list[int]) -> Tensor:
    """Mean embedding of each branch's snippets of largest attention.

    Args:
        embeddings: (B, T, H). attention: (B, T, branches). counts: of snippets, for each branch.

    Returns:
        (B, branches, H).
    """
    # As a product with rows of weights, 0 for what is not chosen: gathering snippets is slower.
    weights = torch.zeros_like(attention.transpose(1, 2))  # (B, branches, T)
    for i, k in enumerate(counts):
        rows = attention[..., i].detach().topk(k, dim=1, sorted=False).indices
        weights[:, i].scatter_(1, rows, 1 / k)
    return weights @ embeddings


def branch_targets(labels: Tensor) -> Tensor:
    """What the video scores of the branches must be; (B, C) multi-hot -> (B, 3, C + 1), rows sum to 1.

    Instance (y, 0), context (y, 1), background (0, 1), each divided by its sum.
    """
    background = torch.ones_like(labels[:, :1])
    branches = (
        torch.cat([labels, 0 * background], 1),
        torch.cat([labels, background], 1),
        torch.cat([0 * labels, background], 1),
    )
    targets = torch.stack(branches, dim=1)
    return targets / targets.sum(2, keepdim=True)


def acm_net_loss(output: ACMNetOutput, labels: Tensor, settings: ACMNetSettings) -> ACMNetLoss:
    """L_ACM, every term a mean over the videos.

    Args:
        output: of the network for B videos.
        labels: (B, C) multi-hot, at least one class per video.
        settings: weights of the terms, and the margin of the norms.
    """
    classification = classification_loss(output, labels, settings.instance_weight)
    guide = guide_loss(output)
    norms = norm_loss(output.branch_features, settings.norm_margin)
    sparsity = sparsity_loss(output.attention)
    total = (
        classification
        + settings.guide_weight * guide
        + settings.norm_weight * norms
        + settings.sparsity_weight * sparsity
    )
    return ACMNetLoss(total, classification, guide, norms, sparsity)


def classification_loss(
    output: ACMNetOutput, labels: Tensor, instance_weight: float = 1.0
) -> Tensor:
    """L_cls: cross entropy of each branch's video score and its target, summed over the branches."""
    entropy = -(branch_targets(labels) * (output.branch_scores + EPSILON).log()).sum(2)  # (B, 3)
    rest = entropy[:, CONTEXT] + entropy[:, BACKGROUND]
    return (instance_weight * entropy[:, INSTANCE] + rest).mean()


def guide_loss(output: ACMNetOutput) -> Tensor:
    """Sum over t of |1 - p_background(t) - a_instance(t)|: the CAS follows the (detached) attention."""
    action = 1 - output.class_probabilities[..., -1]  # (B, T)
    return (action - output.actionness.detach()).abs().sum(1).mean()


def norm_loss(branch_features: Tensor, margin: float = 50.0) -> Tensor:
    """Norms fall from instance to context to background, by a margin each; (B, 3, H) -> scalar.

    ( relu(m - |f_ins| + |f_con|) + relu(m - |f_con| + |f_bak|) + |f_bak| )^2
    """
    instance, context, background = branch_features.norm(dim=2).unbind(1)
    steps = F.relu(margin - instance + context) + F.relu(margin - context + background)
    return (steps + background).square().mean()


def sparsity_loss(attention: Tensor) -> Tensor:
    """Sum over t of the instance and of the context attention, mean over the (B, 2) sums."""
    return attention[..., :BACKGROUND].sum(1).mean()
