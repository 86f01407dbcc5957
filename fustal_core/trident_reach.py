"""The boundary heads where they are read: around the positions to be decoded, nowhere else.

In training, segments are decoded at few positions: the positive ones, 2 of 100. A trident head reads
the logits up to 16 positions to one side of such a position, the offsets there alone, and what a head
says at a position depends on three to either side. All else is never read and has no gradient, so the
three heads, which would be more than a third of a step, run on those positions laid end to end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fustal_core.features import to_device

if TYPE_CHECKING:
    from fustal_core.student import Head

HEAD_REACH = 3
"""How far a head sees to either side: three convolutions of size 3."""
FILLED_TO = 128
"""Rows are filled up to a multiple: oneDNN and cuDNN prepare themselves for every new length."""


class Rows(NamedTuple):
    """Positions of a batch, laid end to end with an empty row where a video ends.

    Attributes:
        index: (N,) row of (B L, C).
        exists: (N, 1) bool, False in those empty rows and in what the rows are filled up with.
    """

    index: Tensor
    exists: Tensor


class BoundaryRows(NamedTuple):
    """Where each of the boundary heads runs."""

    offset: Rows
    start: Rows
    end: Rows


def boundary_rows(
    decoded: Tensor, bins: int, device: torch.device | str | None = None
) -> BoundaryRows:
    """Where the boundary heads must run for some positions to be decoded.

    Args:
        decoded: (B, L) bool; if they lie on a GPU, it is waited for.
        bins: how far a trident head reads, in positions.
        device: of the rows; None: that of the positions.
    """
    device = decoded.device if device is None else device
    found = (_rows(decoded, *sides) for sides in ((0, 0), (bins, 0), (0, bins)))
    return BoundaryRows(*(Rows(*(to_device(x, device) for x in rows)) for rows in found))


def _rows(decoded: Tensor, before: int, after: int) -> Rows:
    """All from ``before`` positions ahead of a decoded one to ``after`` behind it, and what they see.

    Levels are not looked at: the gap between two is a position like any other.
    """
    L = decoded.shape[1]
    before, after = before + HEAD_REACH, after + HEAD_REACH
    near = F.pad(decoded.float(), (after, before + 1))[:, None]  # one place more: the empty row
    near = F.max_pool1d(near, before + after + 1, stride=1)[:, 0] > 0  # (B, L + 1)
    near[:, L] = True
    video, position = near.nonzero(as_tuple=True)
    to_fill = (0, -len(video) % FILLED_TO)
    index = video * L + position.clamp(max=L - 1)
    return Rows(F.pad(index, to_fill), F.pad(position < L, to_fill)[:, None])


def run_head_at(rows: Rows, head: Head, x: Tensor, mask: Tensor, visible: Tensor) -> Tensor:
    """What a head says at some positions, right where all that it sees is among them.

    Args:
        rows: the positions.
        head: with C' outputs.
        x: (B, L, C), 0 where not visible.
        mask, visible: of the head, broadcastable to (B, L, 1).

    Returns:
        (B, L, C'), 0 elsewhere.
    """
    B, L, _ = x.shape
    exists = rows.exists.to(x.dtype)

    def chosen(of_all: Tensor) -> Tensor:
        return (of_all.expand(B, L, -1).flatten(0, 1)[rows.index] * exists)[None]

    own_mask = chosen(mask)
    own_visible = own_mask if visible is mask else chosen(visible)
    found = head(chosen(x), own_mask, own_visible)[0]
    # Where a row does not exist, 0 is added to whatever stands there.
    return found.new_zeros(B * L, found.shape[1]).index_add(0, rows.index, found).view(B, L, -1)
