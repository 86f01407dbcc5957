"""HR-Pro snippet by snippet, as its rules read.

Slow and plain, to test :mod:`fustal_core.hrpro` and to time it against; shares no code with it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def expand_points_by_loops(
    background: np.ndarray,
    points: np.ndarray,
    action_threshold: float = 0.1,
    background_threshold: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`fustal_core.hrpro.expand_points`: (T,), (T, C) -> action (T, C), background (T,)."""
    num_snippets = len(points)
    labelled = [t for t in range(num_snippets) if points[t].any()]
    action, is_background = points.copy(), np.zeros(num_snippets, points.dtype)
    if not labelled:
        return action, is_background
    for start, end in _gaps(labelled, num_snippets):
        inside = range(start, end)
        seeds = [t for t in inside if background[t] >= background_threshold]
        between_points = start > 0 and end < num_snippets
        if len(seeds) < (2 if between_points else 1):
            seeds = [max(inside, key=lambda t: background[t])]
        first = 0 if start == 0 else seeds[0]
        last = num_snippets - 1 if end == num_snippets else seeds[-1]
        is_background[first : last + 1] = 1

    def spread(point: int, walk: Iterable[int]) -> None:
        for t in walk:
            if t in labelled or is_background[t] or background[t] > action_threshold:
                return
            action[t] = points[point]

    for point in labelled:  # in order: a later one overwrites
        spread(point, range(point - 1, -1, -1))
        spread(point, range(point + 1, num_snippets))
    return action, is_background


def _gaps(labelled: list[int], num_snippets: int) -> list[tuple[int, int]]:
    """Runs of snippets between the labelled ones, as (first, behind the last); none is empty."""
    starts = [0, *(t + 1 for t in labelled)]
    ends = [*labelled, num_snippets]
    return [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]
