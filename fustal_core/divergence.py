"""Trainings whose weights are no numbers any more are ended, and it is said why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

_LARGEST = 1e9
"""Of a weight. What is computed with larger ones soon overflows."""


def refuse_divergence(model: nn.Module, steps: int) -> None:
    """End a training whose weights hold NaN, or values beyond all reason.

    Args:
        model: that is trained.
        steps: that it was trained for.

    Raises:
        FloatingPointError: it has diverged.
    """
    if not all(bool((weights.abs() < _LARGEST).all()) for weights in model.parameters()):
        raise FloatingPointError(
            f"the training diverged: weights are NaN or huge after {steps} steps; "
            "is the learning rate too high?"
        )


@contextmanager
def told_of_divergence(model: nn.Module, steps: int) -> Iterator[None]:
    """Say so where something fails in the block because the model has diverged before.

    Nothing is looked at while all goes well: a GPU would have to be waited for at every step.

    Args: as for :func:`refuse_divergence`, of before the block.
    """
    try:
        yield
    except (RuntimeError, ValueError):
        refuse_divergence(model, steps)
        raise
