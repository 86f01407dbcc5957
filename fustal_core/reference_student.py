"""The student's network as released: channels before time, a mask after each convolution, and the heads
called once per level; and its trident decoding, one position at a time.

Slow and plain, to test :mod:`fustal_core.student` and to time it against; it takes that network's
weights and none of its code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from fustal_core.student import TriDet
    from fustal_core.student_blocks import ConvStack, SGPBlock


def network_by_levels(model: TriDet, features: Tensor, mask: Tensor) -> list[Tensor]:
    """What the heads say, without drop path, means over time taken over the padded length.

    Args:
        model: whose weights these are, made with ``global_mean="padded"``.
        features: (B, T, D). mask: (B, T) bool.

    Returns:
        Class, start and end logits and offsets, (B, L, C) and (B, L, 2 (bins + 1)), levels end to end.
    """
    x, kept = features.transpose(1, 2), mask[:, None].to(features.dtype)
    x = _stack(model.embedding, x, kept)
    for block in model.stem:
        x, kept = _block(block, x, kept)
    pyramid = [(x, kept)]
    for block in model.branch:
        pyramid.append(_block(block, *pyramid[-1]))
    heads = (model.class_head, model.start_head, model.end_head, model.offset_head)
    # Borders do not shape the features that their heads read.
    reads_fixed = (False, True, True, False)
    levels = []
    for level, (x, kept) in enumerate(pyramid):
        x = _channel_norm(model.level_norms[level], x)
        found = [
            head.last(_stack(head.stack, x.detach() if fixed else x, kept)) * kept
            for head, fixed in zip(heads, reads_fixed, strict=True)
        ]
        found[3] = F.relu(found[3] * model.level_scale[level])
        levels.append(found)
    return [torch.cat(parts, dim=2).transpose(1, 2) for parts in zip(*levels, strict=True)]


def _channel_norm(norm: nn.Module, x: Tensor) -> Tensor:
    return norm(x.transpose(1, 2)).transpose(1, 2)


def _stack(stack: ConvStack, x: Tensor, mask: Tensor) -> Tensor:
    for conv, norm in zip(stack.convs, stack.norms, strict=True):
        x = F.relu(_channel_norm(norm, conv(x) * mask))
    return x


def _block(block: SGPBlock, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """An SGP block: all but the residual path runs over the padding."""
    if block.downsample:
        x = F.max_pool1d(x, 3, stride=2, padding=1)
        mask = mask[:, :, ::2]
    h = _channel_norm(block.norm, x)
    gate = F.relu(block.global_fc(h.mean(-1, keepdim=True)))
    out = block.fc(h) * gate + (block.convw(h) + block.convkw(h)) * block.psi(h) + h
    scales = [path.scale[:, None] for path in block.paths] or [1.0, 1.0]
    x = x * mask + scales[0] * out
    return x + scales[1] * block.mlp_out(F.gelu(block.mlp_in(block.group_norm(x)))), mask


def distances_at(starts: Tensor, ends: Tensor, offsets: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """Expected distances to start and end from position t of a level, in its strides, 0-d.

    Args:
        starts, ends: (T,) logits of one class at this level; beyond its ends they are 0.
        offsets: (2 (bins + 1),) of this position: to the left from the farthest, then to the right from
            the nearest.
        t: the position.
    """
    bins = len(offsets) // 2 - 1
    zero = starts.new_zeros(())
    left = torch.stack([starts[t - d] if t >= d else zero for d in range(bins, -1, -1)])
    right = torch.stack([ends[t + d] if t + d < len(ends) else zero for d in range(bins + 1)])
    distance = torch.arange(bins + 1, device=starts.device, dtype=starts.dtype)
    left, right = (left + offsets[: bins + 1]).softmax(0), (right + offsets[bins + 1 :]).softmax(0)
    return (left * distance.flip(0)).sum(), (right * distance).sum()
