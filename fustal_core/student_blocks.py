"""Building blocks of the student network: masked convolutions, the SGP block, affine drop path.

Note on the initial values of the SGP block. The depth-wise weights start at zero
(``depthwise_std=0``), and in its formula they only meet as products, fc * ReLU(global_fc) and
(convw + convkw) * psi: all their gradients are zero there, so they stay at zero and the block
remains h = LayerNorm(x) followed by its MLP. That is what the published settings train;
``depthwise_std > 0`` brings the convolutions to life.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fustal_core.convolution import convolve

if TYPE_CHECKING:
    from fustal_core.stage_settings import StudentSettings

GROUPS = 16
"""Groups of the SGP block's GroupNorm."""


class ConvStack(nn.Module):
    """Two times [masked convolution of size 3 without bias, LayerNorm over channels, ReLU]."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        sizes = (in_channels, width)
        self.convs = nn.ModuleList(nn.Conv1d(n, width, 3, padding=1, bias=False) for n in sizes)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in sizes)

    def forward(self, x: Tensor, mask: Tensor, visible: Tensor) -> Tensor:
        """(B, T, C) with mask and visible broadcastable to (B, T, 1); -> (B, T, width).

        ``visible`` is 0 where the next convolution must see a zero: gaps and, unless padding counts
        as in the release, masked positions, which LayerNorm's bias would fill again.
        """
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = convolve(conv, x)
            # LayerNorm works position by position: zeros matter only where its result is seen.
            x = x if visible is mask else x * mask
            x = MaskedReLU.apply(norm(x), visible)
        return x


class MaskedReLU(torch.autograd.Function):
    """relu(x) * visible in x's own memory, for what needs x no more: a LayerNorm that made it.

    ``visible`` is 0 or 1, so that one comparison of the result is the gradient of both.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, visible: Tensor) -> Tensor:
        """x: (B, T, C); visible: broadcastable to it."""
        ctx.mark_dirty(x)
        x.relu_().mul_(visible)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Where the result is above 0, the gradient goes on."""
        (result,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, result, 0), None


class AffineDropPath(nn.Module):
    """Stochastic depth with a learnt factor per channel: drops the whole path of a video."""

    def __init__(self, channels: int, drop: float, scale: float) -> None:
        super().__init__()
        self.drop = drop
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor, rng: torch.Generator | None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        if not self.training or self.drop == 0:
            return x * self.scale
        draw = torch.rand(len(x), 1, 1, generator=rng, device=x.device)
        return x * (self.scale * (draw >= self.drop) / (1 - self.drop))


class SGPBlock(nn.Module):
    """Scalable-granularity perception block.

    With h = LayerNorm(x), after an optional max-pooling that halves the length:
    out = fc(h) * ReLU(global_fc(mean_t h)) + (convw(h) + convkw(h)) * psi(h) + h, all depth-wise,
    then x' = x * mask + path(out) and y = x' + path(MLP(GroupNorm(x'))); path is an affine drop
    path in the branch and the identity in the stem.
    """

    def __init__(self, settings: StudentSettings, *, downsample: bool) -> None:
        super().__init__()
        width, hidden = settings.width, settings.mlp_width
        self.downsample = downsample
        self.ignore_padding = settings.global_mean == "masked"
        self.norm = nn.LayerNorm(width)
        self.fc = _depthwise(width, 1)
        self.global_fc = _depthwise(width, 1)
        self.psi = _depthwise(width, 1)
        self.convw = _depthwise(width, 1)
        self.convkw = _depthwise(width, large_window(1, settings.window_factor))
        self.group_norm = nn.GroupNorm(GROUPS, width)
        self.mlp_in = nn.Conv1d(width, hidden, 1)
        self.mlp_out = nn.Conv1d(hidden, width, 1)
        paths = [AffineDropPath(width, settings.drop_path, settings.init_scale) for _ in range(2)]
        self.paths = nn.ModuleList(paths if downsample else [])

    def forward(
        self, x: Tensor, mask: Tensor, rng: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, T, C), (B, T, 1) of 0 and 1 -> the same, with T halved when downsampling."""
        if self.downsample:
            x = F.max_pool1d(x.transpose(1, 2), 3, stride=2, padding=1).transpose(1, 2)
            mask = mask[:, ::2]
        x = x * mask + self._path(0, self.mix(x, mask), rng)
        normed = self._group_norm(x, mask)
        hidden = convolve(self.mlp_out, F.gelu(convolve(self.mlp_in, normed)))
        x = x + self._path(1, hidden, rng)
        return (x * mask if self.ignore_padding else x), mask

    def mix(self, x: Tensor, mask: Tensor) -> Tensor:
        """The gated depth-wise convolutions ``out``, (B, T, C) -> (B, T, C)."""
        h = self.norm(x)
        if self.ignore_padding:
            h = h * mask
        if h.device.type == "cpu" and not self._has_depthwise():
            return h
        if self.ignore_padding:
            mean = h.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
        else:
            mean = h.mean(1, keepdim=True)
        instant = convolve(self.fc, h) * F.relu(convolve(self.global_fc, mean))
        window = (convolve(self.convw, h) + convolve(self.convkw, h)) * convolve(self.psi, h)
        return instant + window + h

    def _has_depthwise(self) -> bool:
        """Whether any of the depth-wise weights is not 0; else all products are, and all gradients.

        Asked on a CPU, where these convolutions are a third of the block's time; on a GPU the answer
        would have to be waited for.
        """
        layers = (self.fc, self.global_fc, self.psi, self.convw, self.convkw)
        return any(bool(part.any()) for layer in layers for part in (layer.weight, layer.bias))

    def _path(self, index: int, x: Tensor, rng: torch.Generator | None) -> Tensor:
        return self.paths[index](x, rng) if self.downsample else x

    def _group_norm(self, x: Tensor, mask: Tensor) -> Tensor:
        if not self.ignore_padding:
            return self.group_norm(x.transpose(1, 2)).transpose(1, 2)
        return masked_group_norm(x, mask, self.group_norm)


def large_window(window: int, factor: float) -> int:
    """Size of convkw: (w + 1) * k rounded, made odd by adding 1 when even."""
    size = round((window + 1) * factor)
    return size + 1 if size % 2 == 0 else size


def _depthwise(channels: int, size: int) -> nn.Conv1d:
    return nn.Conv1d(channels, channels, size, padding=size // 2, groups=channels)


def masked_group_norm(x: Tensor, mask: Tensor, norm: nn.GroupNorm) -> Tensor:
    """GroupNorm of (B, T, C) with its statistics over the positions where mask (B, T, 1) is 1."""
    size = x.shape[2] // norm.num_groups
    count = mask.sum(1).clamp(min=1) * size  # (B, 1)

    def mean_of_groups(sums: Tensor) -> Tensor:
        """Of sums over time (B, C), for each channel that of its group: (B, 1, C)."""
        means = sums.unflatten(1, (-1, size)).sum(2) / count  # (B, G)
        return means.repeat_interleave(size, dim=1)[:, None]

    # Over time first: a sum along the few channels of a group is slow on a CPU.
    centred = (x - mean_of_groups((x * mask).sum(1))) * mask
    variance = mean_of_groups(centred.square().sum(1))
    return torch.addcmul(norm.bias, centred, torch.rsqrt(variance + norm.eps) * norm.weight)
