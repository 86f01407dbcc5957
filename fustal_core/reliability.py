"""HR-Pro: which proposals of the training videos its second stage is taught by.

*Reliable* proposals are those that a point label vouches for; *negative* ones are drawn where the first
stage is sure of the background. Everything between the stages that looks at points is here.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

RELIABLE_COLUMNS = ("video", "label", "score", "t_start", "t_end", "point_s")


def reliable_proposals(proposals: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """The proposal that each point vouches for (RP).

    It is the best-scored one of the point's class and video that contains the point and neither of
    its neighbours, which are the points just before and after it in the video, of any class. Where
    each one that contains the point contains a neighbour too, it is the best-scored of those. Both
    ends belong to a proposal, so of two points at one moment none has a proposal of its own. Of
    equal scores the first row wins.

    Args:
        proposals: columns ``video``, ``label``, ``score``, ``t_start``, ``t_end`` (s).
        points: columns ``video``, ``label``, ``t`` (s), in any order.

    Returns:
        Columns ``video``, ``label``, ``score``, ``t_start``, ``t_end`` (s), ``point_s``: one row for
        each point that a proposal of its class contains, in the order of ``points``. A proposal may
        come more than once.
    """
    chosen = np.full(len(points), -1)  # row in proposals of each point
    labels = pd.Index(points["label"].unique())
    of_point, of_proposal = (labels.get_indexer(frame["label"]) for frame in (points, proposals))
    times = points["t"].to_numpy(float)
    segments = proposals[["t_start", "t_end"]].to_numpy(float)
    scores = proposals["score"].to_numpy(float)
    rows_of = proposals.groupby("video").indices
    for video, own in points.groupby("video").indices.items():
        rows = rows_of.get(video, np.empty(0, dtype=int))
        if len(rows) == 0:
            continue
        own = own[np.argsort(times[own], kind="stable")]
        same = of_point[own][:, None] == of_proposal[rows]  # (P, N)
        best = _best_of_each_point(times[own], same, segments[rows], scores[rows])
        chosen[own] = np.where(best >= 0, rows[best], -1)
    found = chosen >= 0
    picked = proposals.iloc[chosen[found]].reset_index(drop=True)
    return picked.assign(point_s=times[found])[list(RELIABLE_COLUMNS)]


def _best_of_each_point(
    times: np.ndarray, same: np.ndarray, segments: np.ndarray, scores: np.ndarray
) -> np.ndarray:
    """Proposal (row) of each point of one video, -1 for none.

    times: (P,) rising. same: (P, N) bool, proposals of the point's class. segments: (N, 2). scores:
    (N,).
    """
    held = (segments[:, 0] <= times[:, None]) & (times[:, None] <= segments[:, 1])  # (P, N)
    nobody = np.zeros_like(held[:1])
    with_neighbour = np.concatenate([nobody, held[:-1]]) | np.concatenate([held[1:], nobody])
    own = held & same
    alone = own & ~with_neighbour
    allowed = np.where(alone.any(1, keepdims=True), alone, own)
    best = np.where(allowed, scores, -np.inf).argmax(1)
    return np.where(own.any(1), best, -1)


def negative_proposals(
    background_seeds: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Random spans that lie within runs of background seeds (NP).

    The run of each span is drawn uniformly; of the run, all spans of at least 2 snippets are equally
    likely. A run of 1 or 2 snippets is itself the span.

    Args:
        background_seeds: (T,) bool, or 0 and 1.
        count: of spans, >= 0.
        rng: source of the draws.

    Returns:
        (count, 2) start and end in snippets, snippet t being [t, t + 1]; (0, 2) without any seed.
    """
    seeds = np.asarray(background_seeds).astype(np.int8)
    starts, ends = np.diff(seeds, prepend=0, append=0).nonzero()[0].reshape(-1, 2).T
    if len(starts) == 0:
        return np.empty((0, 2))
    run = rng.integers(len(starts), size=count)
    length = ends[run] - starts[run]
    # Two different snippets of the run, its first and its last: no draw is ever rejected.
    first = rng.integers(length)
    second = rng.integers(np.maximum(length - 1, 1))
    second += second >= first
    low, high = np.minimum(first, second), np.maximum(first, second)
    high = np.minimum(high + 1, length)  # a run of 1 has no second snippet
    return (starts[run][:, None] + np.stack([low, high], axis=1)).astype(float)
