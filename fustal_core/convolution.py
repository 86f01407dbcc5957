"""Convolutions over time, in whichever form is the fastest of those that give the same."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fustal_core.linear import linear

WIDE = 512
"""Channels from which the gradients of conv2d take longer on a CPU than those of the product (four
times, 2048 to 512 channels); at half of it they are level."""


def convolve(layer: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution over time, (B, T, C) -> (B, T, C'), zero-padded to the same length.

    Of the layer's size (an odd one), groups, weights and bias: stride and dilation are 1, whatever it
    says. A depth-wise one of size 1 must have a bias.

    Size 1 is a matrix product, or one factor and summand per channel when depth-wise; size 3 between
    many channels is one on a CPU. Else time and channels are handed to conv2d as a channels-last image
    of height one, which saves the transpositions conv1d needs (on a CPU forward and backward take a
    third of the time).
    """
    if layer.kernel_size == (1,):
        if layer.groups > 1:
            return torch.addcmul(layer.bias, x, layer.weight[:, 0, 0])
        return linear(x, layer.weight[..., 0], layer.bias)
    is_wide = layer.groups == 1 and min(layer.in_channels, layer.out_channels) >= WIDE
    if layer.kernel_size == (3,) and is_wide and x.device.type == "cpu":
        return convolve_neighbours(layer, x)
    image = x.transpose(1, 2).unsqueeze(2)  # (B, C, 1, T)
    padding = (0, layer.kernel_size[0] // 2)
    weight = layer.weight.unsqueeze(2)
    image = F.conv2d(image, weight, layer.bias, padding=padding, groups=layer.groups)
    return image.squeeze(2).transpose(1, 2)


def convolve_neighbours(layer: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution over each snippet and its two neighbours, (B, T, C) -> (B, T, C').

    For a layer of size 3 with one group, as in :func:`convolve`. As one product of matrices, (B T, 3 C)
    and (3 C, C'): it needs no transposition, before or after.
    """
    neighbours = F.pad(x, (0, 0, 1, 1)).unfold(1, 3, 1)  # (B, T, C, 3)
    weight = layer.weight.transpose(1, 2).flatten(1)  # (C', 3 C)
    return linear(neighbours.transpose(2, 3).flatten(2), weight, layer.bias)
