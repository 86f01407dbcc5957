"""The grid of the ablation: which settings are tried, group by group.

A cell is a few settings that differ from the run's own, and what of it is measured. The same cell of
every seed has the same settings; a cell without changes is the run's own method.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fustal_core.config import Settings, override
from fustal_core.stage_settings import GROUPS, refuse_unknown
from fustal_core.stages import LabelSource

Measured = Literal["generator", "selected proposals", "student", "student + EMA"]


@dataclass(frozen=True)
class Cell:
    """One entry of the grid.

    Attributes:
        group, name: of the cell; a name is unique within its group.
        measured: whose detections.
        changes: settings by dotted name that differ from the run's.
        labels: what the student learns from; of a generator, those whose quality is measured.
        value: position on the axis of a sweep (infinity: all there are), NaN if the group is no sweep.
    """

    group: str
    name: str
    measured: Measured
    changes: Mapping[str, Any] = field(default_factory=dict)
    labels: LabelSource = "selected"
    value: float = math.nan


STAGE_LETTERS = {
    "G": "cross-video contrast in the generator (without: CoLA)",
    "C": "selection of proposals by their confidence alone",
    "S": "selection of proposals by confidence and IoU score (without C and S: all of them)",
    "T": "student trained on the labels",
    "D": "EMA distillation of the student",
}
_STAGES: dict[str, tuple[Measured, LabelSource]] = {
    "": ("generator", "raw"),
    "C": ("selected proposals", "selected"),
    "S": ("selected proposals", "selected"),
    "T": ("student", "raw"),
    "S+T": ("student", "selected"),
    "S+T+D": ("student + EMA", "selected"),
}

_SWEEPS: dict[str, tuple[str, tuple[float, ...], Measured]] = {
    "gamma": ("selection.iou_threshold", (0.0, 0.1, 0.2, 0.4, 0.8), "student"),
    "eta": ("selection.confidence_threshold", (0.2, 0.3, 0.4, 0.5, 0.6), "student"),
    "contrast weight": ("generation.cross_video_weight", (0.0, 0.1, 0.2, 0.5, 1.0), "generator"),
    "pairs": ("generation.cross_video_pairs", (1, 2, 4, 0), "generator"),
    "EMA decay": ("student.ema_decay", (0.9, 0.97, 0.99, 0.997, 0.999), "student + EMA"),
    "EMA threshold": ("student.ema_label_threshold", (0.1, 0.2, 0.3, 0.4, 0.5), "student + EMA"),
}
_SWITCHES: dict[str, tuple[str, tuple[Any, ...], tuple[Measured, ...]]] = {
    "legacy + 1": ("generation.legacy_plus_one", (True, False), ("generator", "student")),
    "IoU-score overlap": ("selection.overlap", ("all", "class"), ("student",)),
    "IoU-score reduction": ("selection.reduce", ("sum", "top3"), ("student",)),
    "fallback": ("selection.fallback", ("best", "none"), ("student",)),
    "k of the video loss": ("student.mil_k", ("video", "batch"), ("student",)),
}
_SWITCH_SHARES = (0.2, 0.4, 0.6, 0.8)  # of all epochs
_LOOKS = 6  # how often best-on-test looks at the test in a training


def cells(settings: Settings, groups: Sequence[str]) -> list[Cell]:
    """The cells of some groups, in the grid's order.

    Args:
        settings: of the run; a sweep has its value too, if that is none of the sweep's own.
        groups: of ``GROUPS``; "all" for all.

    Raises:
        ValueError: unknown groups, with the known ones.
    """
    refuse_unknown(groups, GROUPS)
    wanted = [group for group in GROUPS if group in groups or "all" in groups]
    return [cell for group in wanted for cell in _cells_of(settings, group)]


def _cells_of(settings: Settings, group: str) -> list[Cell]:
    if group == "stages":
        return _stage_cells(settings)
    if group in _SWEEPS:
        name, values, measured = _SWEEPS[group]
        return _sweep(settings, group, name, values, measured)
    if group == "switch epoch":
        epochs = settings.student.epochs
        values = tuple(max(1, round(share * epochs)) for share in _SWITCH_SHARES)
        return _sweep(settings, group, "student.switch_epoch", values, "student + EMA")
    if group == "checkpoint":
        return _checkpoint_cells(settings)
    name, choices, kinds = _SWITCHES[group]
    if name.startswith("generation.") and not _has_own_settings(settings):
        return []
    return [
        _cell(group, f"{choice} ({measured})", measured, _change(settings, name, choice))
        for measured in kinds
        for choice in choices
    ]


def _stage_cells(settings: Settings) -> list[Cell]:
    found = []
    for contrast in (False, True):
        method = "cross-video" if contrast else "cola"
        changes = _change(settings, "generation.method", method)
        for rest, (measured, labels) in _STAGES.items():
            name = "+".join(filter(None, ("G" * contrast, rest))) or "none"
            alone = _change(settings, "selection.iou_threshold", 0.0) if rest == "C" else {}
            found.append(Cell("stages", name, measured, changes | alone, labels))
    return found


def _sweep(
    settings: Settings, group: str, name: str, values: Sequence[float], measured: Measured
) -> list[Cell]:
    if name.startswith("generation.") and settings.generation.method != "cross-video":
        return []  # the run's own generator has no such setting
    own = value_of(settings, name)
    zero_is_all = name == "generation.cross_video_pairs"
    places = {value: math.inf if zero_is_all and not value else value for value in (*values, own)}
    return [
        _cell(group, f"{value:g}", measured, _change(settings, name, value), float(place))
        for value, place in sorted(places.items(), key=lambda item: item[1])
    ]


def _checkpoint_cells(settings: Settings) -> list[Cell]:
    looks = {
        "generation": max(1, settings.generation.iterations // _LOOKS),
        "student": max(1, settings.student.epochs // _LOOKS),
    }
    kinds: list[tuple[str, Measured]] = [
        ("generation", "generator"),
        ("student", "student"),
        ("student", "student + EMA"),
    ]
    found = []
    for section, measured in kinds:
        if section == "generation" and not _has_own_settings(settings):
            continue
        best = {f"{section}.evaluate_every": looks[section], f"{section}.select": "best-on-test"}
        last = _change(settings, f"{section}.select", "last")
        found.append(_cell("checkpoint", f"last ({measured})", measured, last))
        found.append(_cell("checkpoint", f"best-on-test ({measured})", measured, best))
    return found


def _has_own_settings(settings: Settings) -> bool:
    """Whether ``generation.*`` is about the run's own generator; the others have other sections."""
    return settings.generation.method in ("cross-video", "cola")


def _cell(
    group: str, name: str, measured: Measured, changes: Mapping[str, Any], value: float = math.nan
) -> Cell:
    return Cell(
        group, name, measured, changes, "raw" if measured == "generator" else "selected", value
    )


def _change(settings: Settings, name: str, value: Any) -> dict[str, Any]:
    """What to override for a setting to have a value; nothing if it has."""
    changed = override(settings, {name: value})
    return {} if changed == settings else {name: value}


def value_of(settings: Settings, name: str) -> Any:
    """A setting by its dotted name."""
    section, _, field_name = name.partition(".")
    return getattr(getattr(settings, section), field_name)
