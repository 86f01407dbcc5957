"""Slow, plain versions of what the package computes fast, to test and to time against.

Each follows the published description step by step, one row at a time, and shares no code with the
fast version.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.ndimage import binary_dilation, binary_erosion


def iou_of_two(a: Sequence[float], b: Sequence[float], extra: float = 0.0) -> float:
    """tIoU of two segments (start, end) whose lengths are end - start + extra."""
    inter = max(0.0, min(a[1], b[1]) - max(a[0], b[0]) + extra)
    union = (b[1] - b[0] + extra) + (a[1] - a[0] + extra) - inter
    return inter / union if union > 0 else 0.0


def average_precision_by_rows(
    detections: pd.DataFrame,
    ground_truth: pd.DataFrame,
    tiou: Sequence[float],
    plus_one: bool = False,
) -> np.ndarray:
    """AP of one class by the ActivityNet protocol, walking the detections row by row.

    Args:
        detections: columns ``video``, ``t_start``, ``t_end``, ``score``, all of one class.
        ground_truth: columns ``video``, ``t_start``, ``t_end`` of that class, at least one row.
        tiou: (K,) thresholds.
        plus_one: lengths as end - start + 1.

    Returns:
        (K,) fractions.
    """
    by_score = detections["score"].to_numpy().argsort(kind="stable")[::-1]
    by_video = dict(list(ground_truth.groupby("video")))
    taken = {threshold: set() for threshold in tiou}
    hits = {threshold: [] for threshold in tiou}
    for _, detection in detections.iloc[by_score].iterrows():
        candidates = []
        if detection["video"] in by_video:
            for row, segment in by_video[detection["video"]].iterrows():
                overlap = iou_of_two(
                    (detection["t_start"], detection["t_end"]),
                    (segment["t_start"], segment["t_end"]),
                    float(plus_one),
                )
                candidates.append((overlap, row))
        candidates.sort(reverse=True)
        for threshold in tiou:
            hit = False
            for overlap, row in candidates:
                if overlap < threshold:
                    break
                if row not in taken[threshold]:
                    taken[threshold].add(row)
                    hit = True
                    break
            hits[threshold].append(hit)
    return np.array([area_under_steps(hits[threshold], len(ground_truth)) for threshold in tiou])


def area_under_steps(hits: Sequence[bool], positives: int) -> float:
    """Area under the monotone precision curve of detections in falling score, all recall steps."""
    recall, precision = [0.0], [0.0]
    true = 0
    for rank, hit in enumerate(hits, start=1):
        true += hit
        recall.append(true / positives)
        precision.append(true / rank)
    recall.append(1.0)
    precision.append(0.0)
    for i in reversed(range(len(precision) - 1)):
        precision[i] = max(precision[i], precision[i + 1])
    return sum(
        (recall[i] - recall[i - 1]) * precision[i]
        for i in range(1, len(recall))
        if recall[i] != recall[i - 1]
    )


def detection_map_by_rows(
    detections: pd.DataFrame,
    ground_truth: pd.DataFrame,
    tiou: Sequence[float],
    plus_one: bool = False,
) -> pd.DataFrame:
    """`fustal_core.metrics.detection_map`, row by row: minutes where that takes a blink."""
    truth = ground_truth.reset_index(drop=True)
    labels = sorted(set(truth["label"]))
    rows = [
        average_precision_by_rows(
            detections[detections["label"] == label],
            truth[truth["label"] == label],
            tiou,
            plus_one,
        )
        for label in labels
    ]
    return pd.DataFrame(rows, index=pd.Index(labels, name="label"), columns=list(tiou))


def iou_score_by_pairs(segments: np.ndarray) -> np.ndarray:
    """`fustal_core.selection.iou_score` by two loops over the proposals of a video; (N, 2) -> (N,)."""
    return np.array(
        [
            sum(iou_of_two(a, b) for j, b in enumerate(segments) if j != i)
            for i, a in enumerate(segments)
        ]
    )


def mine_snippets_by_loops(
    actionness: np.ndarray, embeddings: np.ndarray, mask: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """`fustal_core.mining.mine_snippets` video by video, with scipy's morphology.

    Args:
        actionness: (B, T). embeddings: (B, T, H). mask: (B, T), ones if None.

    Returns:
        The four fields of `MinedSnippets`, each (B, k, H).
    """
    num_snippets = actionness.shape[1]
    mined: dict[str, list[np.ndarray]] = {}
    for video, values in enumerate(actionness):
        weights = np.ones(num_snippets) if mask is None else mask[video]
        active = values > np.median(values)
        small, large = np.ones(3), np.ones(6)
        inner = binary_erosion(active, small) & ~binary_erosion(active, large)
        outer = binary_dilation(active, large) & ~binary_dilation(active, small)
        for name, ranked, share in (
            ("easy_action", values * weights, 5),
            ("easy_background", (values.max() - values) * weights, 5),
            ("hard_action", values * inner, 20),
            ("hard_background", values * outer, 20),
        ):
            earliest_first = sorted(range(num_snippets), key=lambda t: -ranked[t])
            top = earliest_first[: max(1, num_snippets // share)]
            mined.setdefault(name, []).append(embeddings[video, top])
    return {name: np.stack(parts) for name, parts in mined.items()}
