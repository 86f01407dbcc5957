"""What labels cost, and what the same labelling time would buy otherwise."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd

from fustal_core.rundir import code_hash, hash_of
from fustal_core.stages import Study
from fustal_core.training_share import training_share

COST_S_PER_MINUTE = {"video": 45, "point": 50, "full": 300}
"""Seconds it took people to label a minute of video, by kind of label (published: SF-Net, ECCV 2020)."""


def affordable_share(supervision: str) -> float:
    """The share of the training minutes that could be labelled with all segments in the same time."""
    return COST_S_PER_MINUTE[supervision] / COST_S_PER_MINUTE["full"]


def on_share(study: Study, share: float) -> Study:
    """The study with a share of its training minutes, and a student trained for about as many steps."""
    student = study.settings.student
    epochs = round(student.epochs / share)
    part = study.variant(
        f"train-{share:.3g}",
        overrides={"student.epochs": epochs, "student.switch_epoch": student.switch_epoch},
    )
    part.narrow = partial(training_share, share=share, seed=study.settings.seed)
    # Known without the data: who only plans such a study need not read it.
    part.fingerprint = hash_of(
        study.fingerprint, share, study.settings.seed, code_hash(["training_share"])
    )
    return part


def cost_row(
    study: Study, method: str, supervision: str, detections: pd.DataFrame
) -> dict[str, Any]:
    """What labelling the study's training videos costs by the published rates, and what it gains.

    Args:
        study: of these training videos.
        method: a name.
        supervision: "video", "point" or "full".
        detections: of the method, on the test videos.

    Returns:
        ``method``, ``supervision``, ``training videos``, ``cost_h`` (hours), test mAP (percent),
        ``data``.
    """
    names = study.dataset.video_names("train")
    minutes = study.dataset.videos.loc[names, "duration_s"].sum() / 60
    return {
        "method": method,
        "supervision": supervision,
        "training videos": len(names),
        "cost_h": minutes * COST_S_PER_MINUTE[supervision] / 3600,
        **study.measure(detections),
        "data": study.data_name,
    }
