"""The parts of HR-Pro's snippet network: a fixed projection of its features, and its attention blocks.

Symbols: B videos, T snippets, L tokens, D model channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fustal_core.dropout import Dropout
from fustal_core.linear import Linear

MOST_HEADS = 8
FEED_FORWARD_CHANNELS = 128
BLOCK_DROPOUT = 0.3


class InputProjection(nn.Module):
    """Features standardised, projected at random and rectified: relu(((x - mean) / deviation) W).

    None of it is learnt; the weight is drawn from N(0, 1 / in_channels).

    Attributes:
        mean, deviation: (in_channels,), of the features; 0 and 1 until they are set.
        weight: W, (in_channels, channels).
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(in_channels))
        self.register_buffer("deviation", torch.ones(in_channels))
        self.register_buffer("weight", torch.randn(in_channels, channels) / in_channels**0.5)

    def set_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Take the training features' mean and deviation, (in_channels,) each.

        A channel that never changes has nothing to divide by: its deviation counts as 1.
        """
        self.mean = mean.to(self.mean)
        deviation = deviation.to(self.deviation)
        self.deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, in_channels) -> (B, T, channels), >= 0."""
        return F.relu(((features - self.mean) / self.deviation) @ self.weight)


class ReliabilityAwareBlock(nn.Module):
    """Attention of several heads in which every token keeps its channels, then a feed-forward layer.

    y = LayerNorm(x + dropout(attention(q(x), k(x), x))) and LayerNorm(y + W_2 dropout(relu(W_1 y))):
    the values are the tokens themselves, the heads' results lie side by side.

    Args:
        channels: D. There are 8 heads, or as many as divide D into equal parts.
        attention_dropout: of the attention's weights.
    """

    def __init__(self, channels: int, attention_dropout: float = 0.1) -> None:
        super().__init__()
        self.attention_dropout = attention_dropout
        self.heads = next(heads for heads in range(MOST_HEADS, 0, -1) if channels % heads == 0)
        self.query = Linear(channels, channels)
        self.key = Linear(channels, channels)
        self.attention_norm = nn.LayerNorm(channels)
        self.feed_forward = nn.Sequential(
            Linear(channels, FEED_FORWARD_CHANNELS),
            nn.ReLU(),
            Dropout(BLOCK_DROPOUT),
            Linear(FEED_FORWARD_CHANNELS, channels),
        )
        self.feed_forward_norm = nn.LayerNorm(channels)
        self.dropout = Dropout(BLOCK_DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        y = self.attention_norm(x + self.dropout(self._attend(x)))
        return self.feed_forward_norm(y + self.feed_forward(y))

    def _attend(self, x: Tensor) -> Tensor:
        B, L, D = x.shape
        query, key, value = (
            tokens.view(B, L, self.heads, -1).transpose(1, 2)  # (B, heads, L, D / heads)
            for tokens in (self.query(x), self.key(x), x)
        )
        dropped = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropped)
        return mixed.transpose(1, 2).reshape(B, L, D)
