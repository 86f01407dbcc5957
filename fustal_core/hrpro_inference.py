"""HR-Pro's proposals: cut from the curves of its snippet network, rated and refined by its second."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fustal_core.hrpro import HRPro, SnippetOutput
from fustal_core.hrpro_instance import HRProInstance, InstanceOutput, extend, roi_pool
from fustal_core.proposals import Localization, generate_proposals
from fustal_core.stage_settings import HRProSettings

RATED_AT_ONCE = 1024
"""Proposals that are pooled side by side: 100 MB of 2048 channels."""


class HRProDetector(nn.Module):
    """Both stages of HR-Pro: it localises like the first, and rates and refines what that finds.

    Args:
        snippet: stage 1; it is frozen, and not trained any further.
        extension: share of a proposal's length that is pooled with it on both sides.
    """

    def __init__(self, snippet: HRPro, extension: float = 0.25) -> None:
        super().__init__()
        self.snippet = snippet.requires_grad_(requires_grad=False)
        self.instance = HRProInstance(snippet.prototypes.shape[1])
        self.extension = extension

    def forward(self, features: Tensor) -> SnippetOutput:
        """What stage 1 says about features (B, T, D)."""
        return self.snippet(features)

    def rate(self, features: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
        """Completeness, in [0, 1], and refined ends of segments of one video.

        Args:
            features: (T, D).
            segments: (M, 2), snippet units.

        Returns:
            (M,), (M, 2).
        """
        whole = self.snippet.model_features(features[None])[0]
        found = [self._rate(whole, some) for some in segments.split(RATED_AT_ONCE)]
        return torch.cat([x.completeness for x in found]), torch.cat([x.refined for x in found])

    def _rate(self, whole: Tensor, segments: Tensor) -> InstanceOutput:
        first = torch.zeros(len(segments), dtype=torch.long, device=segments.device)
        lengths = torch.full_like(first, len(whole))
        pooled = roi_pool(whole, first, lengths, extend(segments, self.extension))
        return self.instance(pooled, segments)


def localization_of_points(settings: HRProSettings) -> Localization:
    """How HR-Pro cuts its curves: as they are, twice upsampled, runs of one position included."""
    return Localization(
        cas_thresholds=settings.cas_thresholds,
        actionness_thresholds=settings.action_thresholds,
        upsampling=2,
        margin=0.25,
        class_score_weight=0.0,
        min_max=False,
        at_class_threshold=True,
        shortest=1,
    )


@torch.inference_mode()
def point_proposals(
    model: HRPro | HRProDetector,
    features: Tensor,
    seconds_per_snippet: float,
    settings: HRProSettings,
    shown: np.ndarray | None = None,
) -> pd.DataFrame:
    """All proposals of one whole video, before any NMS.

    Args:
        model: in eval mode. A detector's are the original and the refined ones together, each with
            its completeness added to the score of stage 1.
        features: (T, D), on the model's device.
        seconds_per_snippet: stride of the features.
        settings: of stage 1.
        shown: class indices to propose; None: those that the model predicts.

    Returns:
        Columns ``label`` (class index), ``score``, ``t_start``, ``t_end`` (s).
    """
    output = model(features[None])
    found = generate_proposals(
        output.cas[0],
        output.actionness[0],
        output.video_scores[0],
        len(features),
        seconds_per_snippet,
        how=localization_of_points(settings),
        nms=False,
        class_threshold=settings.class_threshold,
        classes=shown,
    )
    if isinstance(model, HRPro):
        return found
    original = found[["t_start", "t_end"]].to_numpy() / seconds_per_snippet
    segments = torch.as_tensor(original, dtype=torch.float32, device=features.device)
    completeness, refined = model.rate(features, segments)
    refined = refined.clamp(0, len(features))
    completeness_refined, _ = model.rate(features, refined)
    ends = refined.double().cpu().numpy() * seconds_per_snippet
    better = found.assign(
        t_start=ends[:, 0],
        t_end=ends[:, 1],
        score=found["score"] + completeness_refined.double().cpu().numpy(),
    )
    found = found.assign(score=found["score"] + completeness.double().cpu().numpy())
    return pd.concat([found, better[better["t_end"] > better["t_start"]]], ignore_index=True)
