"""Snippet mining (FuSTAL, stage 1): easy and hard snippets of actions and of background.

Easy ones are the most and the least active of a video; hard ones lie along the rims of its active runs.

Symbols: B videos, T snippets, H embedding channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fustal_core.dropout import dropout

EASY_SHARE = 5
"""k_easy = floor(T / 5)."""
HARD_SHARE = 20
"""k_hard = floor(T / 20)."""
SMALL_WINDOW, LARGE_WINDOW = 3, 6
"""m and M of the erosions and dilations that find the hard snippets."""


@dataclass(frozen=True)
class MinedSnippets:
    """Embeddings of the mined snippets, (B, k_easy, H) for easy and (B, k_hard, H) for hard ones."""

    easy_action: Tensor
    hard_action: Tensor
    easy_background: Tensor
    hard_background: Tensor


def snippet_mask(actionness: Tensor, rng: torch.Generator | None) -> Tensor:
    """The mask m of snippet mining: Dropout(0.6) of ones, (B, T), drawn anew at each training step."""
    return dropout(torch.ones_like(actionness), 0.6, rng)


def mine_snippets(
    actionness: Tensor, embeddings: Tensor, mask: Tensor | None = None
) -> MinedSnippets:
    """Easy and hard snippets of each video (FuSTAL, stage 1, "snippet mining").

    The choice carries no gradient, the embeddings do. Everything stays on the inputs' device:
    erosion and dilation are poolings.

    Args:
        actionness: (B, T), >= 0.
        embeddings: (B, T, H).
        mask: (B, T), weights of the easy snippets in training, see :func:`snippet_mask`.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    if actionness.ndim != 2 or embeddings.shape[:2] != actionness.shape:
        raise ValueError(
            "expected actionness (B, T) and embeddings (B, T, H), "
            f"got {tuple(actionness.shape)} and {tuple(embeddings.shape)}"
        )
    actionness = actionness.detach()
    weights = 1 if mask is None else mask
    num_snippets = actionness.shape[1]
    k_easy = max(1, num_snippets // EASY_SHARE)
    k_hard = max(1, num_snippets // HARD_SHARE)
    inner, outer = hard_regions(actionness)
    inactivity = actionness.amax(1, keepdim=True) - actionness
    wanted = (
        (actionness * weights, k_easy),
        (actionness * inner, k_hard),
        (inactivity * weights, k_easy),
        (actionness * outer, k_hard),
    )
    rows = torch.cat([_top_rows(values, k) for values, k in wanted], dim=1)
    chosen = take_rows(embeddings, rows)  # at once: so the gradient is one table, not four
    return MinedSnippets(*chosen.split([k for _, k in wanted], dim=1))


def hard_regions(actionness: Tensor) -> tuple[Tensor, Tensor]:
    """Inner and outer rim of each active run, booleans (B, T).

    Active means strictly above the median over time. Inner rim: eroded by m = 3 and not by M = 6;
    outer rim: dilated by M and not by m.
    """
    # The median of an even number of values may lie between the two middle ones; strictly above it
    # or strictly above the lower middle one (torch's median) is the same set.
    active = actionness > actionness.median(1, keepdim=True).values
    inner = erode(active, SMALL_WINDOW) & ~erode(active, LARGE_WINDOW)
    outer = dilate(active, LARGE_WINDOW) & ~dilate(active, SMALL_WINDOW)
    return inner, outer


def dilate(active: Tensor, window: int) -> Tensor:
    """Binary dilation of each row, (B, T) -> (B, T), equal to scipy.ndimage's with a flat window."""
    return _window_max(active.float(), window, right_heavy=False).bool()


def erode(active: Tensor, window: int) -> Tensor:
    """Binary erosion of each row with border value 0, (B, T) -> (B, T), as scipy.ndimage's."""
    return ~_window_max((~active).float(), window, right_heavy=True, border=1.0).bool()


def _window_max(x: Tensor, window: int, right_heavy: bool, border: float = 0.0) -> Tensor:
    # An even window is off-centre by one: scipy's erosion looks one further to the left, its
    # dilation, with the mirrored window, one further to the right.
    long, short = window // 2, (window - 1) // 2
    left, right = (long, short) if right_heavy else (short, long)
    padded = F.pad(x, (left, right), value=border)
    return F.max_pool1d(padded[:, None], window, stride=1)[:, 0]


def _top_rows(values: Tensor, k: int) -> Tensor:
    # A stable sort makes ties (snippets with value 0 when a region is small) go to the earliest.
    return values.sort(dim=1, descending=True, stable=True).indices[:, :k]


def take_rows(embeddings: Tensor, rows: Tensor) -> Tensor:
    """(B, T, H) at rows (B, n) -> (B, n, H)."""
    B, T, H = embeddings.shape
    first = T * torch.arange(B, device=rows.device)[:, None]
    return embeddings.reshape(B * T, H).index_select(0, (first + rows).flatten()).view(B, -1, H)
