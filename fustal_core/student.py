"""The student of FuSTAL, stage 3: the TriDet network (embedding, SGP blocks, trident heads).

Everything runs in (B, T, C) layout. The six pyramid levels go through the heads as one sequence:
levels are laid end to end with a gap of one zero between them, which is all a convolution of size
3 can see, so one call per layer gives what six calls on the single levels give. The boundary heads may
be asked for some positions only (:mod:`fustal_core.trident_reach`).

Padding. ``global_mean="padded"`` is the released network to the letter: a masked convolution
multiplies its output by the mask, inside an SGP block only the residual path is masked, and mean
and GroupNorm run over the padded length, so that results depend on how far a video is padded.
With ``"masked"`` the padding is as if it did not exist: a video gives the same result alone and
in any batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fustal_core.convolution import convolve
from fustal_core.student_blocks import ConvStack, SGPBlock
from fustal_core.trident_reach import BoundaryRows, Rows, boundary_rows, run_head_at

if TYPE_CHECKING:
    from fustal_core.stage_settings import StudentSettings

PRIOR = 0.01
"""Probability that the classifiers start from."""
NO_LIMIT = 10_000.0
"""Upper end of the last level's regression range, grid units."""


@dataclass(frozen=True)
class PyramidGrid:
    """Where the L positions of all levels stand, levels end to end with a gap of one between them.

    Attributes:
        lengths: positions of each level.
        level: (L,) level of each position, -1 in a gap.
        time: (L,) position i of level l stands at i * 2^l on the grid of the features.
        stride: (L,) 2^l.
        low, high: (L,) the distances, grid units, that positions of this level regress.
    """

    lengths: tuple[int, ...]
    level: Tensor
    time: Tensor
    stride: Tensor
    low: Tensor
    high: Tensor

    def slices(self) -> list[slice]:
        """The positions of each level."""
        starts = [sum(self.lengths[:i]) + i for i in range(len(self.lengths))]
        return [slice(s, s + n) for s, n in zip(starts, self.lengths, strict=True)]


@lru_cache(maxsize=64)
def make_grid(length: int, levels: int, device: torch.device) -> PyramidGrid:
    """The grid of a pyramid over ``length`` positions, a multiple of 2^(levels - 1)."""
    if length % 2 ** (levels - 1):
        raise ValueError(f"expected a multiple of {2 ** (levels - 1)} positions, got {length}")
    lengths = tuple(length >> level for level in range(levels))
    level, time = [], []
    for index, count in enumerate(lengths):
        gap = [-1] if index else []
        level += gap + [index] * count
        time += gap + [i << index for i in range(count)]
    # The grid is kept, so it must serve training even when first asked for in inference mode.
    with torch.inference_mode(False):
        levels_of = torch.tensor(level, device=device)
        stride = 2.0 ** levels_of.clamp(min=0)
        return PyramidGrid(
            lengths,
            levels_of,
            torch.tensor(time, dtype=torch.float32, device=device),
            stride,
            torch.where(levels_of == 0, 0.0, 2 * stride),
            torch.where(levels_of == levels - 1, NO_LIMIT, 4 * stride),
        )


@dataclass(frozen=True)
class Classified:
    """What the classification head says at the L positions of all levels (see :class:`PyramidGrid`).

    Attributes:
        class_logits: (B, L, C), 0 where masked.
        valid: (B, L, 1) of 0 and 1: 0 in padding and in gaps.
        visible: broadcastable to (B, L, 1), of 0 and 1: what the heads' convolutions see.
        features: (B, L, width), what the boundary heads read, 0 where not visible.
        grid: where the positions stand.
    """

    class_logits: Tensor
    valid: Tensor
    visible: Tensor
    features: Tensor
    grid: PyramidGrid

    @property
    def mask(self) -> Tensor:
        """(B, L) bool, False in padding and in gaps."""
        return self.valid[..., 0] > 0


@dataclass(frozen=True)
class StudentOutput:
    """What the heads say at the L positions of all levels (see :class:`PyramidGrid`).

    Attributes:
        class_logits: (B, L, C), 0 where masked.
        start_logits, end_logits: (B, L, C), 0 where masked; meaningless where they were not asked for.
        offsets: (B, L, 2, bins + 1), left and right, >= 0; likewise.
        mask: (B, L) bool, False in padding and in gaps.
        grid: where the positions stand.
    """

    class_logits: Tensor
    start_logits: Tensor
    end_logits: Tensor
    offsets: Tensor
    mask: Tensor
    grid: PyramidGrid


class Head(nn.Module):
    """A head shared by all levels: a :class:`ConvStack` and a last masked convolution."""

    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        self.stack = ConvStack(width, width)
        self.last = nn.Conv1d(width, out_channels, 3, padding=1)

    def forward(self, x: Tensor, mask: Tensor, visible: Tensor) -> Tensor:
        """(B, L, width) -> (B, L, out_channels), 0 where masked."""
        return convolve(self.last, self.stack(x, mask, visible)) * mask


class TriDet(nn.Module):
    """The student network: embedding, SGP pyramid, one classification and three trident heads.

    Args:
        in_channels: D of the features.
        num_classes: C.
        settings: widths, levels, bins, drop path, meaning of the global mean.
        rng: source of the initial weights; None: torch's default generator.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        settings: StudentSettings,
        rng: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        width, self.levels, self.bins = settings.width, settings.levels, settings.bins
        self.ignore_padding = settings.global_mean == "masked"
        self.embedding = ConvStack(in_channels, width)
        self.stem = nn.ModuleList(
            SGPBlock(settings, downsample=False) for _ in range(settings.stem_blocks)
        )
        self.branch = nn.ModuleList(
            SGPBlock(settings, downsample=True) for _ in range(settings.levels - 1)
        )
        self.level_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(settings.levels))
        self.class_head = Head(width, num_classes)
        self.start_head = Head(width, num_classes)
        self.end_head = Head(width, num_classes)
        self.offset_head = Head(width, 2 * (settings.bins + 1))
        self.level_scale = nn.Parameter(torch.ones(settings.levels))
        self._initialise(settings.depthwise_std, rng)

    @torch.no_grad()
    def _initialise(self, depthwise_std: float, rng: torch.Generator | None) -> None:
        if self.level_scale.is_meta:  # nothing to draw there, and trying takes torch a second
            return
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                if module.groups > 1:
                    module.weight.normal_(0, depthwise_std, generator=rng)
                else:
                    nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=rng)
                if module.bias is not None:
                    module.bias.zero_()
        for head in (self.class_head, self.start_head, self.end_head):
            head.last.bias.fill_(-math.log((1 - PRIOR) / PRIOR))

    def forward(
        self,
        features: Tensor,
        mask: Tensor,
        rng: torch.Generator | None = None,
        decoded: Tensor | None = None,
    ) -> StudentOutput:
        """All that the heads say, or what decoding some positions needs of it.

        Args:
            features: (B, T, D), T a multiple of 2^(levels - 1).
            mask: (B, T) bool.
            rng: draws the dropped paths in training, on the features' device.
            decoded: (B, L) bool, the positions that will be decoded; None: any. If they lie on a GPU, it
                is waited for.
        """
        rows = None if decoded is None else boundary_rows(decoded, self.bins, features.device)
        return self.locate(self.classify(features, mask, rng), rows)

    def classify(
        self, features: Tensor, mask: Tensor, rng: torch.Generator | None = None
    ) -> Classified:
        """Everything but the boundary heads; arguments of :meth:`forward`."""
        B, T, _ = features.shape
        if mask.shape != (B, T):
            raise ValueError(f"expected a mask of shape {(B, T)}, got {tuple(mask.shape)}")
        grid = make_grid(T, self.levels, features.device)
        pyramid, level_masks = self.backbone(features, mask[..., None].to(features.dtype), rng)
        x, valid = _end_to_end(pyramid), _end_to_end(level_masks)
        visible = valid if self.ignore_padding else (grid.level >= 0)[:, None].to(x.dtype)
        x = x * visible
        return Classified(self.class_head(x, valid, visible), valid, visible, x, grid)

    def locate(self, said: Classified, rows: BoundaryRows | None = None) -> StudentOutput:
        """What the boundary heads say, everywhere or where ``rows`` has them run."""

        def run(head: Head, x: Tensor, where: Rows | None) -> Tensor:
            if where is None:
                return head(x, said.valid, said.visible)
            return run_head_at(where, head, x, said.valid, said.visible)

        at_offset, at_start, at_end = rows or (None, None, None)
        # The boundary heads must not shape the features they read.
        fixed = said.features.detach()
        offsets = run(self.offset_head, said.features, at_offset)
        offsets = F.relu(offsets * self.level_scale[said.grid.level.clamp(min=0), None])
        return StudentOutput(
            said.class_logits,
            run(self.start_head, fixed, at_start),
            run(self.end_head, fixed, at_end),
            offsets.view(*offsets.shape[:2], 2, self.bins + 1),
            said.mask,
            said.grid,
        )

    def backbone(
        self, x: Tensor, mask: Tensor, rng: torch.Generator | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """(B, T, D), (B, T, 1) -> per level the normed features (B, T_l, width) and masks."""
        visible = mask if self.ignore_padding else torch.ones_like(mask)
        x = self.embedding(x * visible, mask, visible)
        for block in self.stem:
            x, mask = block(x, mask, rng)
        features, masks = [x], [mask]
        for block in self.branch:
            x, mask = block(x, mask, rng)
            features.append(x)
            masks.append(mask)
        normed = [norm(x) for norm, x in zip(self.level_norms, features, strict=True)]
        return normed, masks


def _end_to_end(levels: list[Tensor]) -> Tensor:
    gap = levels[0].new_zeros(len(levels[0]), 1, levels[0].shape[2])
    pieces = [levels[0]]
    for level in levels[1:]:
        pieces += [gap, level]
    return torch.cat(pieces, dim=1)


def trident_distributions(
    output: StudentOutput, video: Tensor, position: Tensor, label: Tensor
) -> Tensor:
    """The trident distributions of N chosen entries over the distances to start and end.

    For class c at position t the left one is softmax(start logits of c at t-16..t + left offsets)
    over the distances 16..0, the right one softmax(end logits of c at t..t+16 + right offsets) over
    0..16; logits beyond the level's ends are 0.

    Args:
        output: of the network.
        video, position, label: (N,) index into B, L and C.

    Returns:
        (N, 2, bins + 1) probabilities.
    """
    distances = torch.arange(output.offsets.shape[-1], device=position.device)
    sides = []
    for side, logits in enumerate((output.start_logits, output.end_logits)):
        steps = distances - distances[-1] if side == 0 else distances
        nearby = _neighbours(logits, output.grid, video, position, label, steps)
        sides.append(F.softmax(nearby + output.offsets[video, position, side], dim=-1))
    return torch.stack(sides, dim=1)


def decode_offsets(output: StudentOutput, video: Tensor, position: Tensor, label: Tensor) -> Tensor:
    """Trident decoding of N chosen entries: distances to start and end, in strides of their level.

    They are the expectations of :func:`trident_distributions`.

    Args:
        output: of the network.
        video, position, label: (N,) index into B, L and C.

    Returns:
        (N, 2), each in [0, bins].
    """
    probability = trident_distributions(output, video, position, label)
    to_end = torch.arange(probability.shape[-1], device=probability.device, dtype=probability.dtype)
    return (probability * torch.stack([to_end.flip(0), to_end])).sum(-1)


def _neighbours(
    logits: Tensor,
    grid: PyramidGrid,
    video: Tensor,
    position: Tensor,
    label: Tensor,
    steps: Tensor,
) -> Tensor:
    """(N, len(steps)) logits of one class around each position, 0 outside its level."""
    wanted = position[:, None] + steps
    reachable = wanted.clamp(0, logits.shape[1] - 1)
    inside = (wanted == reachable) & (grid.level[reachable] == grid.level[position, None])
    return torch.where(inside, logits[video[:, None], reachable, label[:, None]], 0.0)
