"""Proposals from a T-CAS and an actionness curve.

FuSTAL, stage 1, "Proposals": both curves are normalised, upsampled, and cut at 43 thresholds; every run
above a threshold is a candidate, scored by its outer-inner contrast and thinned by NMS per class. All
thresholds of all classes of a video are handled at once: runs come from one difference of a (threshold,
position) mask, means inside and outside from cumulative sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fustal_core.suppression import batched_soft_nms, nms_per_class


@dataclass(frozen=True)
class Localization:
    """How the curves of a video become scored candidates; the defaults are CoLA's and FuSTAL's.

    Attributes:
        cas_thresholds: on the T-CAS of a class, each in [0, 1].
        actionness_thresholds: on the actionness, each in [0, 1].
        upsampling: positions per snippet.
        margin: width of the outer margin on each side, as a share of a candidate's length.
        class_score_weight: share of the class's video score in a candidate's.
        min_max: scale both curves to [0, 1] over the video; else they are in [0, 1] already.
        at_class_threshold: a video score equal to the threshold proposes its class.
        shortest: positions of the shortest candidate.
    """

    cas_thresholds: Sequence[float] = tuple(np.arange(0.0, 0.25, 0.025))
    actionness_thresholds: Sequence[float] = tuple(np.arange(0.1, 0.925, 0.025))
    upsampling: int = 24
    margin: float = 0.25
    class_score_weight: float = 0.2
    min_max: bool = True
    at_class_threshold: bool = True
    shortest: int = 2


FUSTAL = Localization()


@dataclass(frozen=True)
class Candidates:
    """Runs above thresholds, before NMS: class index, score, first and last position (inclusive)."""

    label: np.ndarray
    score: np.ndarray
    first: np.ndarray
    last: np.ndarray


def generate_proposals(
    cas: Tensor | np.ndarray,
    actionness: Tensor | np.ndarray,
    video_scores: Tensor | np.ndarray,
    num_snippets: int,
    seconds_per_snippet: float,
    *,
    how: Localization = FUSTAL,
    nms: bool = True,
    nms_tiou: float = 0.5,
    class_threshold: float = 0.2,
    legacy_plus_one: bool = True,
    classes: np.ndarray | None = None,
) -> pd.DataFrame:
    """Proposals of one video.

    Args:
        cas: (T', C) T-CAS, >= 0.
        actionness: (T',), >= 0.
        video_scores: (C,) in [0, 1].
        num_snippets: L, the video's own number of snippets (T' of them were fed to the model).
        seconds_per_snippet: stride of the features in seconds.
        how: thresholds, upsampling and score; the defaults are those of FuSTAL.
        nms: False gives the candidates before NMS.
        nms_tiou: NMS per class keeps a proposal whose tIoU with every better one is below this.
        class_threshold: classes with a video score >= this (above it, if ``how`` says so) are
            proposed, the arg-max if none is.
        legacy_plus_one: lengths as end - start + 1, in seconds, in areas and overlap of the NMS: a
            habit of the pixel era in the released code, which merges short actions.
        classes: class indices to propose instead of those chosen by ``class_threshold``.

    Returns:
        Columns ``label`` (class index), ``score``, ``t_start``, ``t_end`` (s): after NMS by class
        and falling score.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    cas, actionness, video_scores = _arrays(cas, actionness, video_scores)
    if classes is None:
        classes = proposed_classes(video_scores, class_threshold, how)
    scaled = normalise if how.min_max else np.asarray
    found = find_candidates(
        upsample(scaled(cas[:, classes]), how.upsampling),
        upsample(scaled(actionness[:, None]), how.upsampling)[:, 0],
        video_scores[classes],
        how,
    )
    # Upsampled position u lies at u * stride * L / (upsampling * T' * fps) seconds.
    seconds = seconds_per_snippet * num_snippets / (how.upsampling * len(cas))
    segments = np.stack([found.first, found.last + 1], axis=1) * seconds
    kept = np.arange(len(segments))
    if nms:
        kept = nms_per_class(found.label, segments, found.score, nms_tiou, legacy_plus_one)
    return pd.DataFrame(
        {
            "label": classes[found.label[kept]],
            "score": found.score[kept],
            "t_start": segments[kept, 0],
            "t_end": segments[kept, 1],
        }
    )


def proposed_classes(
    video_scores: np.ndarray, class_threshold: float, how: Localization = FUSTAL
) -> np.ndarray:
    """Indices of the classes that scores (C,) propose: those that pass, the arg-max if none does."""
    shown = video_scores > class_threshold
    if how.at_class_threshold:
        shown |= video_scores == class_threshold
    return np.flatnonzero(shown) if shown.any() else np.array([video_scores.argmax()])


def _arrays(*inputs: Tensor | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cas, actionness, scores = (
        x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x) for x in inputs
    )
    if cas.ndim != 2 or actionness.shape != cas.shape[:1] or scores.shape != cas.shape[1:]:
        raise ValueError(
            "expected cas (T, C), actionness (T,), video_scores (C,), "
            f"got {cas.shape}, {actionness.shape}, {scores.shape}"
        )
    return cas, actionness, scores


def normalise(curves: np.ndarray) -> np.ndarray:
    """Min-max over time to [0, 1] per curve, (T, K) -> (T, K).

    Minimum and maximum pass a ReLU first, and a range of 0 counts as 1.
    """
    low = np.maximum(curves.min(0), 0)
    width = np.maximum(curves.max(0), 0) - low
    return np.clip((curves - low) / np.where(width > 0, width, 1), 0, 1)


def upsample(curves: np.ndarray, factor: int = FUSTAL.upsampling) -> np.ndarray:
    """Linear interpolation along time at positions 0, 1/factor, ... < T; (T, K) -> (factor*T, K).

    Beyond the last snippet the last step is extrapolated; a single snippet is repeated.
    """
    if len(curves) == 1:
        return np.repeat(curves, factor, axis=0)
    curves = curves.astype(float)
    step = np.diff(curves, axis=0)
    step = np.concatenate([step, step[-1:]])  # (T, K)
    fraction = np.arange(factor)[None, :, None] / factor
    return (curves[:, None] + fraction * step[:, None]).reshape(
        len(curves) * factor, curves.shape[1]
    )


def find_candidates(
    cas: np.ndarray, actionness: np.ndarray, scores: np.ndarray, how: Localization = FUSTAL
) -> Candidates:
    """Every run at or above any threshold, with its outer-inner score.

    Runs have at least ``how.shortest`` positions. A position with a value of 0 is in no run.

    Args:
        cas: (N, K) normalised upsampled T-CAS of the K proposed classes.
        actionness: (N,) normalised upsampled actionness.
        scores: (K,) video scores of these classes.
        how: thresholds, margin and the weight of the class score.

    Returns:
        Candidates whose ``label`` indexes the K classes.
    """
    curves = np.ascontiguousarray(cas.T)[:, None]  # (K, 1, N)
    num_classes, _, num_positions = curves.shape
    num_cuts = len(how.cas_thresholds)
    # A class has a map for each T-CAS threshold, zeroed below it, and one that is cut nowhere.
    maps = curves * (curves >= np.append(how.cas_thresholds, -np.inf)[:, None])  # (K, 11, N)
    active = actionness >= np.array(how.actionness_thresholds)[:, None]  # (33, N)
    active &= actionness > 0
    cut_maps = (maps[:, :-1] > 0).reshape(-1, num_positions)
    cas_row, cas_first, cas_last = find_runs(cut_maps, how.shortest)
    act_row, act_first, act_last = find_runs(active, how.shortest)
    # Runs of the actionness serve every class.
    label = np.concatenate([cas_row // num_cuts, np.repeat(np.arange(num_classes), len(act_row))])
    cut = np.concatenate([cas_row % num_cuts, np.full(num_classes * len(act_row), num_cuts)])
    first = np.concatenate([cas_first, np.tile(act_first, num_classes)])
    last = np.concatenate([cas_last, np.tile(act_last, num_classes)])
    row = label * (num_cuts + 1) + cut
    maps = maps.reshape(-1, num_positions)
    contrast = outer_inner_contrast(maps, row, first, last, how.margin)
    return Candidates(label, contrast + how.class_score_weight * scores[label], first, last)


def find_runs(mask: np.ndarray, shortest: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maximal runs of True in each row of a boolean (R, N): row, first and last position (inclusive)."""
    num_rows, length = mask.shape
    bordered = np.zeros((num_rows, length + 2), dtype=bool)
    bordered[:, 1:-1] = mask
    flat = bordered.ravel()
    # The border keeps rows apart, so the changes of the flat mask alternate: run begins, run ends.
    begin, end = np.flatnonzero(flat[1:] != flat[:-1]).reshape(-1, 2).T
    long = end - begin >= shortest
    row, first = np.divmod(begin[long], length + 2)
    return row, first, first + (end - begin)[long] - 1


def outer_inner_contrast(
    maps: np.ndarray, row: np.ndarray, first: np.ndarray, last: np.ndarray, margin: float
) -> np.ndarray:
    """Mean of a map inside each run minus its mean in the outer margin (0 if there is no margin).

    Args:
        maps: (R, N).
        row, first, last: (M,) the map of each run and its positions, inclusive.
        margin: share of the length on each side; positions are truncated to whole ones and cut at
            the map's ends.
    """
    length = last - first + 1
    outer_first = np.maximum(0, (first - margin * length).astype(int))
    outer_last = np.minimum(maps.shape[1] - 1, (last + margin * length).astype(int))
    sums = np.zeros((maps.shape[0], maps.shape[1] + 1))
    np.cumsum(maps, axis=1, out=sums[:, 1:])
    inside = sums[row, last + 1] - sums[row, first]
    around = sums[row, outer_last + 1] - sums[row, outer_first] - inside
    margin_length = (outer_last - outer_first + 1) - length
    return inside / length - around / np.maximum(margin_length, 1)


def soft_nms(
    segments: Tensor | np.ndarray,
    scores: Tensor | np.ndarray,
    sigma: float,
    min_score: float = 0.0,
    legacy_plus_one: bool = False,
) -> tuple[Tensor | np.ndarray, Tensor | np.ndarray]:
    """Gaussian soft-NMS of one group: each pick multiplies the others' scores by exp(-tIoU^2 / sigma).

    Args:
        segments: (N, 2).
        scores: (N,).
        sigma: width of the Gaussian.
        min_score: segments whose score falls below this are dropped.
        legacy_plus_one: lengths as end - start + 1.

    Returns:
        Segments (M, 2) and decayed scores (M,) in falling order; the kind that was given.
    """
    as_numpy = not isinstance(segments, Tensor)
    segments, scores = torch.as_tensor(segments), torch.as_tensor(scores)
    if not scores.is_floating_point():
        scores = scores.double()
    picked, decayed = batched_soft_nms(
        segments[None],
        scores[None],
        sigma,
        min_score=min_score,
        max_picks=len(scores),
        legacy_plus_one=legacy_plus_one,
    )
    alive = torch.isfinite(decayed[0])
    result = picked[0][alive], decayed[0][alive]
    return (result[0].numpy(), result[1].numpy()) if as_numpy else result
