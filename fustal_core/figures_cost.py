"""The figure of what labels cost and of what they buy.

The visual language is that of `figures`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fustal_core.figures import (
    add_legend_below,
    colour_of,
    new_figure,
    nothing_to_show,
    styled,
    use_log_seconds,
)
from fustal_core.metrics import AVERAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

SUPERVISION_MARKERS = {"video": "s", "point": "o", "full": "^"}
_LONGEST = 40  # characters of a line beside a mark
_Mark = tuple[float, float, str]  # hours, mAP, text beside it


@styled
def plot_label_cost(rows: pd.DataFrame) -> Figure:
    """What annotating the training set costs, and what detection gains from it.

    The shape of a mark is its supervision. Rows of one method are joined, from the cheapest on. Rows
    without a cost above 0 or without a measure are named below the figure.

    Args:
        rows: `method`, `supervision` (those of `SUPERVISION_MARKERS`), `cost_h` (hours of annotation
            of the training set), `avg 0.1:0.7` (percent), `note` (what tells the rows of a method
            apart; may be empty).

    Raises:
        ValueError: a supervision is none of those (named).
    """
    for name in rows["supervision"]:
        if name not in SUPERVISION_MARKERS:
            raise ValueError(f"supervision {name!r} is none of {', '.join(SUPERVISION_MARKERS)}")
    is_drawn = (rows["cost_h"] > 0) & rows[AVERAGE].notna()
    known = rows[is_drawn]
    if known.empty:
        return nothing_to_show("no method with a cost and a measure")
    figure = new_figure(height_in=4.4)
    axes = figure.subplots()
    marks = []
    for method, own in known.groupby("method", sort=False):
        marks += _cost_line(axes, str(method), own.sort_values("cost_h", kind="stable"))
    _name_supervision(axes, known["supervision"])
    use_log_seconds(axes)
    axes.margins(x=0.16, y=0.14)
    hours = "annotation of the training set (hours)"
    missing = rows.loc[~is_drawn, "method"].unique()
    if len(missing):
        hours += "\n" + textwrap.fill(f"no cost or no measure: {', '.join(missing)}", 90)
    axes.set(xlabel=hours, ylabel=f"test mAP, {AVERAGE} (%)")
    add_legend_below(figure, axes, columns=4)
    figure.draw_without_rendering()  # names are placed where they find room in the layout
    _name_beside(axes, marks)
    return figure


def _cost_line(axes: Axes, method: str, own: pd.DataFrame) -> list[_Mark]:
    """One method: a mark per row, joined; its name goes to the cheapest, notes to all."""
    colour = colour_of(method)
    axes.plot(own["cost_h"], own[AVERAGE], color=colour, linewidth=1.2)
    marks = []
    for number, row in enumerate(own.to_dict("records")):
        marker = SUPERVISION_MARKERS[row["supervision"]]
        axes.plot(row["cost_h"], row[AVERAGE], marker, color=colour, ms=7.5)
        note = "" if pd.isna(row["note"]) else str(row["note"])
        lines = [textwrap.fill(method, _LONGEST)] if number == 0 or not note else []
        text = "\n".join([*lines, *([textwrap.fill(note, _LONGEST)] if note else [])])
        marks.append((row["cost_h"], row[AVERAGE], text))
    return marks


def _name_supervision(axes: Axes, supervision: pd.Series) -> None:
    """Entries of the legend, in no method's colour."""
    for name, marker in SUPERVISION_MARKERS.items():
        if (supervision == name).any():
            look = {"color": "#333333", "linestyle": "none", "label": f"{name} labels"}
            axes.plot([], [], marker=marker, ms=7.5, **look)


_PLACES = (  # of a name: its offset in points from the mark, and how it is aligned
    ((7, 0), "left", "center"),
    ((-7, 0), "right", "center"),
    ((0, 7), "center", "bottom"),
    ((0, -7), "center", "top"),
    ((6, 6), "left", "bottom"),
    ((6, -6), "left", "top"),
    ((-6, 6), "right", "bottom"),
    ((-6, -6), "right", "top"),
)


def _name_beside(axes: Axes, marks: Sequence[_Mark]) -> None:
    """Each name in the first place around its mark where it covers least of what is there."""
    from matplotlib.transforms import Bbox

    reach = axes.figure.dpi / 72 * 5  # half a mark, in pixels
    drawn = [Bbox([spot - reach, spot + reach]) for spot in _drawn_spots(axes)]
    names: list[Bbox] = []
    for hours, value, text in marks:
        look = {"xytext": (0, 0), "textcoords": "offset points", "fontsize": 8.5}
        name = axes.annotate(text, (hours, value), **look)
        name.set_in_layout(False)
        costs = [_covered(_move(name, *place), drawn, names, axes.bbox) for place in _PLACES]
        names.append(_move(name, *_PLACES[int(np.argmin(costs))]))


def _drawn_spots(axes: Axes) -> np.ndarray:
    """Pixels (N, 2) that lie along the lines of the axes, marks included."""
    spots = [np.zeros((0, 2))]
    for line in axes.lines:
        corners = axes.transData.transform(line.get_xydata())
        if len(corners):
            at = np.linspace(0, len(corners) - 1, 40 * (len(corners) - 1) + 1)
            spots.append(
                np.column_stack([np.interp(at, range(len(corners)), own) for own in corners.T])
            )
    return np.concatenate(spots)


def _move(name: Annotation, offset: tuple[int, int], ha: str, va: str) -> Bbox:
    name.set(position=offset, ha=ha, va=va)
    return name.get_window_extent()


def _covered(box: Bbox, drawn: Sequence[Bbox], names: Sequence[Bbox], frame: Bbox) -> float:
    """Pixels of a name that lie over something; ten times those over a name, or beyond the axes.

    A line can be followed under a name; a name under a name, or under numbers, cannot be read.
    """
    from matplotlib.transforms import Bbox

    def area(other: Bbox) -> float:
        common = Bbox.intersection(box, other)
        return common.width * common.height if common else 0.0

    outside = box.width * box.height - area(frame)
    return sum(map(area, drawn)) + 10 * (sum(map(area, names)) + outside)
