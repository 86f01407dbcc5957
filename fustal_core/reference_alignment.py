"""FTCL's two alignment scores cell by cell, as their recurrences read: scalar tensors, and autograd
through every one of them.

Slow and plain, to test :mod:`fustal_core.alignment` and to time it against; shares no code with it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cosine_by_pairs(a: Tensor, b: Tensor) -> Tensor:
    """:func:`fustal_core.alignment.cosine_table`, one pair of videos at a time."""
    tables = []
    for first, second in zip(a, b, strict=True):
        lengths = first.norm(dim=1)[:, None] * second.norm(dim=1)[None]
        tables.append(first @ second.T / lengths)
    return torch.stack(tables)


def fsd_by_loops(match: Tensor, gap: Tensor, gamma: float = 0.1) -> Tensor:
    """:func:`fustal_core.alignment.fine_grained_sequence_distance`; (P, n, m) twice -> (P,)."""
    values = []
    for m, g in zip(match, gap, strict=True):
        rows, columns = m.shape
        table = [[m.new_zeros(()) for _ in range(columns + 1)] for _ in range(rows + 1)]
        for i in range(1, rows + 1):
            for j in range(1, columns + 1):
                ways = [
                    table[i - 1][j - 1],
                    g[i - 1, j - 1] + table[i - 1][j],
                    g[i - 1, j - 1] + table[i][j - 1],
                ]
                smooth_max = gamma * torch.logsumexp(torch.stack(ways) / gamma, dim=0)
                table[i][j] = m[i - 1, j - 1] + smooth_max
        values.append(table[rows][columns])
    return torch.stack(values)


def lcs_by_loops(similarity: Tensor, threshold: float = 0.92) -> Tensor:
    """:func:`fustal_core.alignment.longest_common_subsequence`; (P, n, m) -> (P,)."""
    values = []
    for s in similarity:
        rows, columns = s.shape
        table = [[s.new_zeros(()) for _ in range(columns + 1)] for _ in range(rows + 1)]
        for i in range(1, rows + 1):
            for j in range(1, columns + 1):
                if s[i - 1, j - 1] > threshold:
                    table[i][j] = table[i - 1][j - 1] + s[i - 1, j - 1]
                else:
                    table[i][j] = torch.max(table[i - 1][j], table[i][j - 1])
        values.append(table[rows][columns])
    return torch.stack(values)
