"""What the products of a study are made from: the settings that their making reads, and the code.

:class:`fustal_core.stages.Study` makes their keys of it: what is not named here may change without a
product being made again.
"""

from __future__ import annotations

from typing import Any, Literal

from fustal_core.oracle import RUNGS
from fustal_core.stage_settings import Method, StudentSettings

LabelSource = str
"""What labels a student learns from: "selected", "raw", "truth", or a rung of the oracle ladder."""
_LABELS = ("selected", "raw", "truth")
Phase = Literal["phase_one", "plain", "ema"]
_PHASES: dict[Phase, str] = {"phase_one": "_phase_one", "plain": "", "ema": "+ema"}
"""What of a student's training a product is -> the end of its folder's name."""
STARTS_FROM: dict[Method, Method] = {"ftcl": "acm-net", "hr-pro": "hr-pro-snippet"}
"""Generators that are trained on top of another."""

# The modules a product is made with; it is made again when they, or what they import, change.
_GENERATION_CODE = ("data", "simulator", "generation", "metrics")
_STUDENT_CODE = (
    "data",
    "simulator",
    "metrics",
    "selection",
    "student_training",
    "student_inference",
)
MAKES_ALL = ("made_from", "making", "stages", "stage_products", "weights", "results", "left_out")
"""The modules that every product passes through: by their text alone, for they import nearly all."""
_OF_DISTILLATION = ("ema_label_threshold",)
_OF_DETECTION = (
    "score_threshold",
    "pre_nms_top_k",
    "max_detections",
    "min_length_grid",
    "nms_sigma",
)
"""Settings that a student's first phase does not read: the latter if it is not measured on its way."""


def generation_code(method: Method) -> tuple[str, ...]:
    """The modules that make a generator and its proposals."""
    if method in ("acm-net", "ftcl"):
        return (*_GENERATION_CODE, "ftcl_training")
    if method in ("hr-pro-snippet", "hr-pro"):
        return (*_GENERATION_CODE, "hrpro_training")
    return _GENERATION_CODE


def student_code(labels: LabelSource) -> tuple[str, ...]:
    """The modules that make a student of some labels."""
    return _STUDENT_CODE if labels in _LABELS else (*_STUDENT_CODE, "oracle")


def student_folder(labels: LabelSource, phase: Phase) -> str:
    """Name of a student's folder.

    Raises:
        ValueError: no such labels.
    """
    if labels not in (*_LABELS, *RUNGS):
        raise ValueError(f"labels {labels!r}; known: {', '.join((*_LABELS, *RUNGS))}")
    return f"{labels.replace(' ', '-')}{_PHASES[phase]}"


def student_settings(
    settings: StudentSettings, labels: LabelSource, phase: Phase
) -> StudentSettings:
    """What a student of some labels is trained with, or its first phase.

    Floor and ceiling are measured at their end alone, which saves time. The first phase has the
    defaults of what it does not read, so that it is the same one, and made once, whatever these are.
    """
    changes: dict[str, Any] = {}
    if labels != "selected" and settings.select != "best-on-test":
        changes["evaluate_every"] = 0
    if phase == "phase_one":
        changes["epochs"] = settings.switch_epoch
        blind = not changes.get("evaluate_every", settings.evaluate_every)
        unread = (*_OF_DISTILLATION, *(_OF_DETECTION if blind else ()))
        changes |= {name: StudentSettings.model_fields[name].default for name in unread}
    return settings.model_copy(update=changes)
