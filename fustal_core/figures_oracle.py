"""The figure of the oracle ladder: what each kind of label error costs.

The visual language is that of `figures`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fustal_core.figures import COLOURS, new_figure, styled
from fustal_core.metrics import AVERAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The two marks of a row can coincide: the small one is drawn over the large one.
_MARKS = {
    "f1@0.5": ({"marker": "o", "ms": 8}, "F1 of the labels at tIoU 0.5"),
    "f1@0.7": ({"marker": "D", "ms": 6, "markeredgecolor": "white"}, "at tIoU 0.7"),
}
_BESIDE = {"textcoords": "offset points", "va": "center", "fontsize": 8.5}


@styled
def plot_ladder(ladder: pd.DataFrame, noise_points: float = 0.0) -> Figure:
    """One row per rung: from the student on selected labels to that on labels with one error less.

    The right panel has the quality of the labels themselves and, at its edge, their number.

    Args:
        ladder: as from `oracle_ladder.ladder`: the selected labels first, the true segments last.
            A rung without a student says so.
        noise_points: gains up to this many points are no evidence: a grey band.
    """
    figure = new_figure(height_in=1.8 + 0.34 * len(ladder))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.25, 1.0])
    _student_panel(left, ladder, noise_points)
    _label_panel(right, ladder)
    left.set_ylabel("what was repaired")
    left.set_yticks(range(len(ladder)), ladder["labels are"])
    left.set_ylim(len(ladder) - 0.4, -0.6)
    right.tick_params(axis="y", length=0)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _student_panel(axes: Axes, ladder: pd.DataFrame, noise_points: float) -> None:
    averages = ladder[AVERAGE].to_numpy(float)
    base, ceiling = averages[0], averages[-1]
    axes.axvline(base, color=COLOURS["student"], linewidth=1.0, label="student on selected labels")
    axes.axvline(ceiling, color=COLOURS["ceiling"], linewidth=1.0, label="ceiling, true segments")
    if noise_points:
        band = {"color": COLOURS["background"], "alpha": 0.35, "linewidth": 0}
        axes.axvspan(base - noise_points, base + noise_points, **band)
    low, high = np.nanmin(averages), np.nanmax(averages)
    for place, average in enumerate(averages):
        if np.isfinite(average):
            _student(axes, place, base, average, last=place == len(averages) - 1)
        else:
            side = _side(left=base > (low + high) / 2)
            axes.annotate("no student trained", (base, place), **side, **_BESIDE)
    room = max(0.25 * (high - low), 4.0)  # for the numbers beside the marks
    axes.set_xlim(low - room, high + room)
    axes.set(title="students on oracle labels", xlabel=f"test mAP, {AVERAGE} (%), one seed")


def _student(axes: Axes, place: int, base: float, average: float, *, last: bool) -> None:
    """A line from the base to the student's mAP, its mark, and the gain in points."""
    colour = COLOURS["ceiling" if last else "student"]
    axes.plot([base, average], [place, place], color=colour, linewidth=1.5)
    axes.plot(average, place, "o", color=colour, ms=6)
    gain = average - base
    text = f"{average:.1f}" if place == 0 else f"{gain:+z.1f}"
    axes.annotate(text, (average, place), **_side(left=gain < 0), **_BESIDE)


def _side(*, left: bool) -> dict[str, Any]:
    """Where a text stands beside its mark."""
    return {"xytext": (-7, 0), "ha": "right"} if left else {"xytext": (7, 0), "ha": "left"}


def _label_panel(axes: Axes, ladder: pd.DataFrame) -> None:
    places = np.arange(len(ladder))
    values = 100 * ladder[list(_MARKS)].to_numpy(float)
    axes.hlines(places, values.min(1), values.max(1), color="#CCCCCC", linewidth=1.5)
    for column, (look, name) in zip(values.T, _MARKS.values(), strict=True):
        look = {"color": COLOURS["selected"], "linestyle": "none", **look}
        axes.plot(column, places, label=name, **look)
    edge = {"xycoords": ("axes fraction", "data"), "xytext": (6, 0), **_BESIDE}
    for place, count in enumerate(ladder["labels"]):
        axes.annotate(f"{count:,}", (1, place), **edge)
    axes.annotate("number", (1, -0.75), **{**edge, "va": "bottom"})
    axes.set_xlim(0, 105)
    axes.set(title="the labels themselves", xlabel="F1 against the truth (%)")
