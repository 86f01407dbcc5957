"""FTCL: how well two sequences of snippets align, as two differentiable scores.

FSD, the fine-grained sequence distance, is a Needleman-Wunsch alignment with a smooth maximum; LCS,
the longest common subsequence, sums the similarities of snippets that are matched in order. Both fill
a table from cells above and to the left, so all cells of an anti-diagonal are filled at once, for all
pairs at once, on any device and without waiting for it.

Symbols: P pairs, n and m snippets of the first and the second video, H channels. A table of sums C is
(P, n + 1, m + 1): row 0 and column 0 are the border of zeros, and C_ij stands for the first i and the
first j snippets. Scores are in units of cosine similarity and grow with the length of the alignment.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GAMMA = 0.1
"""Smoothness of the maximum in FSD."""
MATCH_THRESHOLD = 0.92
"""LCS matches snippets whose similarity is above this."""


def cosine_table(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of every snippet of one video with every snippet of the other, in [-1, 1].

    Args:
        a: (P, n, H).
        b: (P, m, H).

    Returns:
        (P, n, m); 0 where a snippet is all zeros.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    if a.ndim != 3 or b.ndim != 3 or a.shape[::2] != b.shape[::2]:
        raise ValueError(f"expected (P, n, H) and (P, m, H), got {_shapes(a, b)}")
    # Dividing the products is cheaper than dividing the snippets, forward and backward.
    lengths = [torch.linalg.vector_norm(x, dim=2).clamp(min=1e-12) for x in (a, b)]
    return a @ b.transpose(1, 2) / (lengths[0][:, :, None] * lengths[1][:, None, :])


def fine_grained_sequence_distance(match: Tensor, gap: Tensor, gamma: float = GAMMA) -> Tensor:
    """FSD: C_nm of :func:`fsd_table`, differentiable in both tables. High means well aligned.

    Args:
        match: m_ij, (P, n, m).
        gap: g_ij, (P, n, m).
        gamma: > 0; towards 0 the smooth maximum becomes the maximum.

    Returns:
        (P,), of the inputs' type; 0 where n or m is 0.

    Raises:
        ValueError: shapes that do not fit each other, or gamma <= 0.
    """
    return _fsd_diagonals(match, gap, gamma)[-1][:, -1]


def fsd_table(match: Tensor, gap: Tensor, gamma: float = GAMMA) -> Tensor:
    """The table of FSD, (P, n + 1, m + 1), differentiable; arguments as above.

    C_ij = m_ij + smax(C_{i-1,j-1}, g_ij + C_{i-1,j}, g_ij + C_{i,j-1}), with
    smax(x) = gamma * logsumexp(x / gamma), and 0 on the border (FTCL, fine-grained sequence distance).
    """
    return _unskewed(torch.stack(_fsd_diagonals(match, gap, gamma)))


def _fsd_diagonals(match: Tensor, gap: Tensor, gamma: float) -> list[Tensor]:
    if match.ndim != 3 or match.shape != gap.shape:
        raise ValueError(f"expected match and gap, both (P, n, m), got {_shapes(match, gap)}")
    if gamma <= 0:
        raise ValueError(f"gamma must be above 0, got {gamma}")
    inner = _skewed(torch.ones_like(match, dtype=torch.bool)).unbind()
    border = match.new_zeros(match.shape[0], match.shape[1] + 1)
    diagonals = [border, border][: len(inner)]
    steps = list(zip(_skewed(match).unbind(), _skewed(gap).unbind(), inner, strict=True))
    for cell_match, cell_gap, is_inner in steps[2:]:
        before, last = diagonals[-2:]
        both = cell_gap[:, 1:]
        ways = torch.stack([before[:, :-1], both + last[:, :-1], both + last[:, 1:]])
        sums = cell_match[:, 1:] + gamma * (ways / gamma).logsumexp(0)
        diagonals.append(F.pad(sums * is_inner[:, 1:], (1, 0)))
    return diagonals


def longest_common_subsequence(similarity: Tensor, threshold: float = MATCH_THRESHOLD) -> Tensor:
    """LCS: C_nm of :func:`lcs_table`, differentiable in the similarities.

    Its gradient is 1 at the matched cells and 0 elsewhere; which cells are matched is no matter of
    degree.

    Args:
        similarity: s_ij, (P, n, m).
        threshold: snippets whose similarity is above it match.

    Returns:
        (P,), of the input's type; 0 where nothing matches, and where n or m is 0.

    Raises:
        ValueError: similarity of another shape.
    """
    return torch.where(matched_cells(similarity, threshold), similarity, 0).sum((1, 2))


@torch.no_grad()
def lcs_table(similarity: Tensor, threshold: float = MATCH_THRESHOLD) -> Tensor:
    """The table of LCS, (P, n + 1, m + 1), without gradients; arguments as above.

    C_ij = C_{i-1,j-1} + s_ij if s_ij > threshold, else max(C_{i-1,j}, C_{i,j-1}), and 0 on the border
    (FTCL, longest common subsequence).
    """
    if similarity.ndim != 3:
        raise ValueError(f"expected similarity (P, n, m), got {_shapes(similarity)}")
    values, matches = _skewed(similarity), _skewed(similarity > threshold)
    # Cells off the table never match, so before the border they stay 0; behind the last column they
    # may not, and nothing reads them.
    table = torch.zeros_like(values)
    for d in range(2, len(table)):
        diagonal = table[d - 2, :, :-1] + values[d, :, 1:]
        neighbours = torch.maximum(table[d - 1, :, :-1], table[d - 1, :, 1:])
        torch.where(matches[d, :, 1:], diagonal, neighbours, out=table[d, :, 1:])
    return _unskewed(table)


@torch.no_grad()
def matched_cells(similarity: Tensor, threshold: float = MATCH_THRESHOLD) -> Tensor:
    """The cells whose similarities LCS sums, booleans (P, n, m); arguments as above.

    Of equally good predecessors the one above is followed.
    """
    table = lcs_table(similarity, threshold)
    rows, columns = table.shape[1:]
    matches = F.pad(similarity > threshold, (1, 0, 1, 0))
    # Where each cell's sum came from, as flat positions; the border leads to the corner and stays.
    upwards = torch.where(table[:, :-1, 1:] >= table[:, 1:, :-1], columns, 1)
    back = torch.where(matches[:, 1:, 1:], columns + 1, upwards)
    position = torch.arange(rows * columns, device=table.device).view(rows, columns)
    came_from = F.pad(position[1:, 1:] - back, (1, 0, 1, 0)).flatten(1)
    path = [position[-1:, -1:].expand(len(table), 1)]
    for _ in range(rows + columns - 2):
        path.append(came_from.gather(1, path[-1]))
    on_path = torch.zeros_like(matches).flatten(1).scatter_(1, torch.cat(path, 1), True)
    return (on_path.view_as(matches) & matches)[:, 1:, 1:]


def fsd_path(match: Tensor, gap: Tensor, gamma: float = GAMMA) -> Tensor:
    """The best alignment of one pair: from the last cell back to the border, always to the neighbour
    that gave the largest term of the smooth maximum (the diagonal one if equal).

    Args:
        match: (n, m).
        gap: (n, m).
        gamma: > 0.

    Returns:
        (K, 2), the cells (row, column) from 0, first to last; neighbouring cells of the table.

    Raises:
        ValueError: as :func:`fsd_table`.
    """
    table = fsd_table(match[None], gap[None], gamma)[0].tolist()
    gaps = gap.tolist()
    i, j = len(table) - 1, len(table[0]) - 1
    cells = []
    while i and j:
        cells.append((i - 1, j - 1))
        penalty = gaps[i - 1][j - 1]
        ways = {
            (i - 1, j - 1): table[i - 1][j - 1],
            (i - 1, j): penalty + table[i - 1][j],
            (i, j - 1): penalty + table[i][j - 1],
        }
        i, j = max(ways, key=ways.get)
    return torch.tensor(cells[::-1], dtype=torch.long).view(-1, 2)


def lcs_path(similarity: Tensor, threshold: float = MATCH_THRESHOLD) -> Tensor:
    """The matched cells of one pair, (K, 2), (row, column) from 0, both strictly rising.

    Args:
        similarity: (n, m).
        threshold: of :func:`longest_common_subsequence`.

    Raises:
        ValueError: as :func:`lcs_table`.
    """
    return matched_cells(similarity[None], threshold)[0].nonzero()


def _skewed(cells: Tensor) -> Tensor:
    """(P, n, m) -> (n + m + 1, P, n + 1): entry [d, :, i] is cell (i, d - i) of the bordered table.

    Zero (False) on the border and off the table.
    """
    pairs, rows, columns = cells.shape[0], cells.shape[1] + 1, cells.shape[2] + 1
    wide = F.pad(cells, (1, rows, 1, 0)).flatten(1)
    # Rows read one short of their length: each starts one column further to the right.
    return wide[:, :-rows].view(pairs, rows, rows + columns - 1).permute(2, 0, 1).contiguous()


def _unskewed(diagonals: Tensor) -> Tensor:
    """The bordered table (P, n + 1, m + 1) whose anti-diagonals are (n + m + 1, P, n + 1)."""
    count, pairs, rows = diagonals.shape
    wide = F.pad(diagonals.permute(1, 2, 0).flatten(1), (0, rows))
    return wide.view(pairs, rows, count + 1)[:, :, : count + 1 - rows]


def _shapes(*tensors: Tensor) -> str:
    return " and ".join(str(tuple(tensor.shape)) for tensor in tensors)
