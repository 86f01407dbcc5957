"""The figure of how the time of each part grows with its sizes.

The visual language is that of `figures`.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fustal_core.figures import COLOURS, new_figure, nothing_to_show, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 3
_LOOKS = (("o", "student"), ("s", "selected"), ("^", "TP"))
"""Marker, and key of `COLOURS`, of the first, second and third size that a part grows along."""


@styled
def plot_growth(growth: pd.DataFrame) -> Figure:
    """One panel per part: seconds (marks) against how many times its smallest size, and fitted lines.

    Both axes are logarithmic, so that the exponent is a line's slope.

    Args:
        growth: as `bench_growth.growth_row` has its rows, at most three of each part.
    """
    if growth.empty:
        return nothing_to_show("growth was not measured")
    parts = list(growth.groupby("part", sort=False))
    down = -(-len(parts) // ACROSS)
    figure = new_figure(height_in=0.5 + 1.95 * down)
    panels = figure.subplots(down, ACROSS, sharex=True, squeeze=False).ravel()
    for axes, (part, rows) in zip(panels, parts, strict=False):
        _panel(axes, str(part), rows)
    for axes in panels[len(parts) :]:
        axes.set_axis_off()
    for axes in panels[max(0, len(parts) - ACROSS) : len(parts)]:
        axes.tick_params(labelbottom=True)
    figure.supxlabel("size, in times of the smallest one measured", fontsize=10)
    figure.supylabel("seconds (line: fitted power, its exponent in the legend)", fontsize=10)
    return figure


def _panel(axes: Axes, part: str, rows: pd.DataFrame) -> None:
    times = []
    for (marker, colour), row in zip(_LOOKS, rows.to_dict("records"), strict=False):
        sizes, seconds = np.array(row["sizes"], float), np.array(row["seconds"], float)
        fitted = row["factor"] * sizes ** row["exponent"]
        name = row["along"].partition(" (")[0]
        label = f"{name}: {row['exponent']:.2f} ± {row['standard_error']:.2f}"
        look = {"color": COLOURS[colour], "markersize": 4.5}
        axes.plot(sizes / sizes[0], seconds, marker, label=label, **look)
        axes.plot(sizes / sizes[0], fitted, color=COLOURS[colour], linewidth=1.2)
        times += [*seconds, *fitted]
    axes.set(xscale="log", yscale="log")
    axes.set_title(textwrap.fill(part, 26), fontsize=9)
    axes.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"], minor=False)
    axes.xaxis.minorticks_off()
    axes.yaxis.minorticks_off()
    # Room above for the legend: a decade for its first line, less for each further one.
    axes.set_ylim(min(times) / 2, max(times) * 4 * 2.5 ** len(rows))
    close = {"handletextpad": 0.0, "borderpad": 0.0, "borderaxespad": 0.1, "labelspacing": 0.2}
    axes.legend(loc="upper left", fontsize=7.5, **close).set_in_layout(False)
