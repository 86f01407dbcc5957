"""Products with a layer's weights, by the faster of torch's two libraries for them on this processor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _is_amd_with_avx512() -> bool:
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.11 cannot tell
    return "AMD" in capabilities.get("cpu_name", "") and capabilities.get("avx512_f", False)


BY_ONEDNN = (
    torch.backends.mkldnn.is_available()
    and torch.backends.mkl.is_available()
    and _is_amd_with_avx512()
)
"""Whether large products on the CPU are oneDNN's. MKL, which torch takes for all, uses only half the
width of the registers of AMD's processors; oneDNN needs half of its time there."""
LARGE, NARROW = 10**9, 64
"""From how many operations handing a product over is worth while, and up to how many channels not.
oneDNN prepares itself for every new shape, which takes longer than a smaller product does."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As ``F.linear``, but for rounding: x W' + b, (..., C) and (C', C) -> (..., C').

    By oneDNN it has no second derivatives, and keeps copies of x and of the result until backward.
    """
    is_large = 2 * x.numel() * len(weight) >= LARGE and min(weight.shape) > NARROW
    if BY_ONEDNN and is_large and _is_plain(x):
        return F.linear(x.to_mkldnn(), weight, bias).to_dense()
    return F.linear(x, weight, bias)


def _is_plain(x: Tensor) -> bool:
    return (
        x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    )


class Linear(nn.Linear):
    """As torch's, but for rounding."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C')."""
        return linear(x, self.weight, self.bias)
