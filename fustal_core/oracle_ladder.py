"""The oracle ladder as tables: what each kind of label error costs a student.

Oracle labels: an analysis, never a method; see `oracle`. The two ends, selected labels and true
segments, are students that every run has anyway.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import pandas as pd

from fustal_core.metrics import AVERAGE
from fustal_core.naming import CEILING, STUDENT, display_name, supervision_name
from fustal_core.oracle import RUNGS, changed, repair

if TYPE_CHECKING:
    from fustal_core.stages import Study

SELECTED, TRUTH = "selected labels", "true segments"
"""The ends of the ladder."""
ORACLE = "oracle (analysis only)"
"""The supervision of a student on repaired labels: no method has it."""
QUALITY = ["precision@0.5", "recall@0.5", "f1@0.5", "f1@0.7"]


def repaired_labels(study: Study, *, add_up: bool = False) -> dict[str, pd.DataFrame]:
    """The selected labels after each rung, rung -> labels; nothing is trained for it.

    add_up: each rung together with all before it, so that the last one gives the true segments.
    """
    selection, truth = study.selection(), study.dataset.truth("train")
    together = [RUNGS[: number + 1] if add_up else (rung,) for number, rung in enumerate(RUNGS)]
    return {
        rung: repair(selection.selected, selection.scored, truth, *rungs)
        for rung, rungs in zip(RUNGS, together, strict=True)
    }


def worth_training(study: Study, smallest: float = 0.0) -> list[str]:
    """The rungs that change labels, so that a student on them can differ from that on selected ones.

    Args:
        study: whose labels.
        smallest: leave out rungs that take away, and add, less than this share of the selected labels.
    """
    selected = study.selection().selected
    counts = {
        rung: max(changed(selected, labels)) for rung, labels in repaired_labels(study).items()
    }
    return [rung for rung, count in counts.items() if count and count >= smallest * len(selected)]


def ladder(study: Study, trained: Collection[str]) -> pd.DataFrame:
    """What each kind of label error costs, one kind repaired at a time; single seed.

    Args:
        study: its selected labels are repaired.
        trained: the rungs to train a student on, made if it is not there; the others are not measured.

    Returns:
        One row for `SELECTED`, each rung, and `TRUTH`: ``labels are`` (which of these), ``method``,
        ``supervision``, ``labels``, ``taken away``, ``new`` (counts, see `oracle.changed`),
        `QUALITY` (fractions), test mAP as of ``Study.measure`` (percent) of a student without
        distillation, ``gain`` (points of average mAP 0.1:0.7 over the first row; NaN if not trained),
        ``data``, ``origin``, ``seeds``.
    """
    rows = [_selected_row(study)]
    for rung, labels in repaired_labels(study).items():
        source = rung if rung in trained else None
        rows.append(_row(study, rung, f"student, {rung}", ORACLE, labels, source))
    rows.append(_row(study, TRUTH, CEILING, "full", _scored_truth(study), "truth"))
    table = pd.DataFrame(rows)
    gain = table[AVERAGE] - table.loc[0, AVERAGE]
    about = {"data": study.data_name, "origin": "measured", "seeds": 1}
    return table.assign(gain=gain, **about)


def climb(study: Study) -> pd.DataFrame:
    """Quality of the labels while one rung after the other is added, up to the true segments.

    Returns:
        ``labels are`` and the counts and fractions of `ladder`; nothing is trained for it.
    """
    steps = {SELECTED: study.selection().selected}
    steps |= {f"+ {rung}": labels for rung, labels in repaired_labels(study, add_up=True).items()}
    rows = [{"labels are": name, **_about_labels(study, own)} for name, own in steps.items()]
    return pd.DataFrame(rows)


def _selected_row(study: Study) -> dict[str, Any]:
    told = supervision_name(study.settings.generation.method)
    return _row(study, SELECTED, STUDENT, told, study.selection().selected, "selected")


def _scored_truth(study: Study) -> pd.DataFrame:
    return study.dataset.truth("train").assign(score=1.0)


def _row(
    study: Study,
    name: str,
    method: str,
    supervision: str,
    labels: pd.DataFrame,
    source: str | None,
) -> dict[str, Any]:
    """source: what the student is trained on; None: on nothing."""
    row = {
        "labels are": name,
        "method": display_name(study, method),
        "supervision": supervision,
        **_about_labels(study, labels),
    }
    if source is not None:
        row |= study.measure(study.student(source, distill=False).detections)
    return row


def _about_labels(study: Study, labels: pd.DataFrame) -> dict[str, Any]:
    taken_away, new = changed(study.selection().selected, labels)
    quality = study.measure_labels(labels).iloc[0]
    counts = {"labels": len(labels), "taken away": taken_away, "new": new}
    return counts | {name: float(quality[name]) for name in QUALITY}
