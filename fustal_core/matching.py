"""Greedy matching of scored segments to ground truth, for many groups and thresholds at once.

The protocol is serial: detections are served by falling score, and each takes its best segment that
is still free. Serving them one by one is what makes evaluators slow. The same assignment comes out
of deferred acceptance: everybody asks for the best candidate, a segment keeps the highest-scored of
those who ask, the others go on to their next candidate. Since all segments prefer the higher score,
the stable assignment is unique and is the serial one; it takes as many array rounds as the longest
chain of refusals, usually fewer than ten.
"""

from dataclasses import dataclass

import numpy as np

PAIRS_AT_ONCE = 2_000_000  # bounds the memory of `overlaps`: about 100 MB of temporaries


@dataclass(frozen=True)
class Pairs:
    """Overlapping pairs, sorted by detection, then falling tIoU, then falling truth row.

    Attributes:
        detection: (P,) row of the detection.
        truth: (P,) row of the ground-truth segment.
        tiou: (P,) their temporal intersection over union, in (0, 1].
    """

    detection: np.ndarray
    truth: np.ndarray
    tiou: np.ndarray

    def select(self, keep: np.ndarray) -> "Pairs":
        """The pairs where `keep` (P,) is true."""
        return Pairs(self.detection[keep], self.truth[keep], self.tiou[keep])

    def best(self, num_detections: int) -> tuple[np.ndarray, np.ndarray]:
        """Per detection its highest tIoU (0 without a pair) and that truth row (-1): (N,), (N,)."""
        rows, first = np.unique(self.detection, return_index=True)
        tiou, truth = np.zeros(num_detections), np.full(num_detections, -1)
        tiou[rows], truth[rows] = self.tiou[first], self.truth[first]
        return tiou, truth


def paired_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """tIoU of row i of `a` (P, 2) with row i of `b` (P, 2): (P,); 0 where both have no length."""
    inter = np.clip(np.minimum(a[:, 1], b[:, 1]) - np.maximum(a[:, 0], b[:, 0]), 0, None)
    union = (b[:, 1] - b[:, 0]) + (a[:, 1] - a[:, 0]) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def overlaps(
    segments: np.ndarray,
    groups: np.ndarray,
    truth_segments: np.ndarray,
    truth_groups: np.ndarray,
    min_tiou: float = 0.0,
) -> Pairs:
    """All pairs of the same group with tIoU > 0 and tIoU >= `min_tiou`.

    Args:
        segments: (N, 2) seconds. groups: (N,) integers, -1 for a group without ground truth.
        truth_segments: (M, 2) seconds. truth_groups: (M,) integers >= 0.
        min_tiou: the lowest tIoU kept, in [0, 1].
    """
    by_group = np.argsort(truth_groups, kind="stable")
    sorted_groups = truth_groups[by_group]
    first = np.searchsorted(sorted_groups, groups, side="left")
    counts = np.searchsorted(sorted_groups, groups, side="right") - first
    chunk = np.cumsum(counts) // PAIRS_AT_ONCE
    parts = []
    for rows in np.split(np.arange(len(groups)), np.flatnonzero(np.diff(chunk)) + 1):
        det = np.repeat(rows, counts[rows])
        within = np.arange(len(det)) - np.repeat(
            np.cumsum(counts[rows]) - counts[rows], counts[rows]
        )
        gt = by_group[np.repeat(first[rows], counts[rows]) + within]
        tiou = paired_iou(segments[det], truth_segments[gt])
        parts.append(Pairs(det, gt, tiou).select((tiou > 0) & (tiou >= min_tiou)))
    det, gt, tiou = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("detection", "truth", "tiou")
    )
    order = np.lexsort((-gt, -tiou, det))
    return Pairs(det[order], gt[order], tiou[order])


def greedy_match(pairs: Pairs, num_detections: int, num_truth: int, tiou: np.ndarray) -> np.ndarray:
    """The serial assignment at every threshold.

    Args:
        pairs: candidates; detection rows count by falling score (row 0 is served first).
        num_detections, num_truth: N and M.
        tiou: (K,) thresholds in (0, 1]; a pair qualifies with tIoU >= threshold.

    Returns:
        (K, N) the truth row each detection took, -1 for a false detection.
    """
    K, N = len(tiou), num_detections
    at, pair = np.nonzero(pairs.tiou >= tiou[:, None])
    # A candidate list is the slice [start, start + count) of `pairs`: falling tIoU makes the lists
    # of all thresholds prefixes of one another.
    count = np.bincount(at * N + pairs.detection[pair], minlength=K * N)  # (K * N,)
    start = np.tile(np.searchsorted(pairs.detection, np.arange(N)), K)
    position, end = start.copy(), start + count
    holder = np.full(K * num_truth, K * N)  # node (threshold, detection) that holds (threshold, gt)
    asking = np.flatnonzero(count)
    while len(asking):
        wanted = asking // N * num_truth + pairs.truth[position[asking]]
        before = holder[wanted]
        np.minimum.at(holder, wanted, asking)  # a lower node is a higher score
        won = holder[wanted] == asking
        displaced = before[won]
        refused = np.concatenate([asking[~won], displaced[displaced < K * N]])
        position[refused] += 1
        asking = refused[position[refused] < end[refused]]
    matched = np.full(K * N, -1)
    held = np.flatnonzero(holder < K * N)
    matched[holder[held]] = held % max(num_truth, 1)
    return matched.reshape(K, N)
