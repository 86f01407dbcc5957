"""In which precision a training computes its products of matrices.

``float32``: single precision. ``tf32``: on an NVIDIA GPU, factors rounded to 10 bits, sums in float32;
elsewhere float32. ``bfloat16``: the forward pass in training of the model that is called, under torch's
autocast; weights, losses and optimiser stay in float32, as do EMA labels and measuring, and what is not
called by way of the model's forward: HR-Pro's second stage, and the FSD embedding of FTCL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from fustal_core.stage_settings import Precision


@contextmanager
def computing_in(precision: Precision, model: nn.Module) -> Iterator[None]:
    """Compute in a precision while the block runs; everything is afterwards as it was.

    Args:
        precision: of products of matrices.
        model: whose forward pass in training mode is under autocast, if it is ``bfloat16``; its
            output, a dataclass, arrives in float32.
    """
    with tf32_allowed(precision == "tf32"):
        if precision != "bfloat16":
            yield
            return
        model.forward = _autocast(model, model.forward)
        try:
            yield
        finally:
            del model.forward  # what was set hides the class's own


@contextmanager
def tf32_allowed(allowed: bool) -> Iterator[None]:
    """Let NVIDIA GPUs round factors to TF32, or not; torch's own default is to do so in convolutions."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = allowed
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


def _autocast(model: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def training_in_bfloat16(features: Tensor, *rest: Any) -> Any:
        if not model.training:
            return forward(features, *rest)
        with torch.autocast(features.device.type, dtype=torch.bfloat16):
            output = forward(features, *rest)
        parts = {part.name: getattr(output, part.name) for part in fields(output)}
        return replace(output, **{name: in_float32(value) for name, value in parts.items()})

    return training_in_bfloat16


def in_float32(value: Any) -> Any:
    """A bfloat16 tensor in float32; anything else as it is."""
    is_narrow = isinstance(value, Tensor) and value.dtype == torch.bfloat16
    return value.float() if is_narrow else value
