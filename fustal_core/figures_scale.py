"""The figure of how time and memory grow with the number of videos.

The visual language is that of `figures`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from fustal_core.figures import COLOURS, add_legend_below, new_figure, styled
from fustal_core.scale_parts import AT_REST

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME_POINTS = 8.5
_LOOKS: dict[str, tuple[str, str]] = {  # of a part: what has its colour elsewhere, and its mark
    "simulate": ("other", "o"),
    "load": ("other", "s"),
    "train the generator": ("cross-video", "o"),
    "propose": ("cross-video", "s"),
    "score overlaps": ("selected", "o"),
    "select": ("selected", "s"),
    "judge the labels": ("selected", "^"),
    "train the student": ("student", "o"),
    "distil the student": ("EMA", "o"),
    "detect": ("student", "s"),
    "evaluate": ("truth", "o"),
    "write the results": ("truth", "s"),
}


@styled
def plot_scale(table: pd.DataFrame, fits: pd.DataFrame) -> Figure:
    """CPU seconds of every part over the number of videos, with fitted powers, and peaks of memory.

    Args:
        table: from ``scale.measure_scale``.
        fits: from ``scale.fit_growth`` of it; each part's exponent stands behind its name.
    """
    figure = new_figure(height_in=7.0)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1.25, 1])
    rest = table[table["part"] == AT_REST].set_index("size")["peak_gb"]
    times, peaks = [], []
    for fit in fits.to_dict("records"):
        own = table[table["part"] == fit["part"]].sort_values("videos")
        colour, mark = _look(fit["part"])
        videos = own["videos"].to_numpy(float)
        line = fit["factor"] * videos ** fit["exponent"]
        over = own["peak_gb"].to_numpy() - rest.loc[own["size"]].to_numpy()
        above.plot(videos, own["cpu_seconds"], mark, color=colour)
        above.plot(videos, line, color=colour, linewidth=1.0)
        below.plot(videos, over, mark + "-", color=colour, linewidth=1.0)
        times.append((line[-1], f"{fit['part']}, {fit['exponent']:.2f}", colour))
        peaks.append((over[-1], fit["part"], colour))
    above.set(xscale="log", yscale="log", ylabel="CPU seconds")
    above.set_title("time, and the exponent of its growth")
    below.set(xlabel="videos", ylabel="GB above a process at rest", title="peak of memory")
    _draw_limits(below, table)
    _tick_sizes(below, table)
    figure.draw_without_rendering()  # names are placed by the height that the layout gives the axes
    _name_ends(above, table["videos"].max(), times)
    _name_ends(below, table["videos"].max(), peaks)
    return figure


def _look(part: str) -> tuple[str, str]:
    name, mark = _LOOKS.get(part, ("other", "^"))
    return COLOURS[name], mark


def _draw_limits(axes: Axes, table: pd.DataFrame) -> None:
    """The features' size and the budget, beside the peaks of the parts."""
    sizes = table.drop_duplicates("size").sort_values("videos")
    budget = sizes["budget_gb"].iloc[0]
    look = {"color": COLOURS["published"], "linewidth": 1.4}
    axes.plot(sizes["videos"], sizes["features_gb"], "--", label="size of the features", **look)
    budget_text = f"budget for features, {budget:g} GB: beyond it they are mapped"
    axes.axhline(budget, color=COLOURS["FP"], linewidth=1.4, label=budget_text)
    axes.set_ylim(bottom=0)
    add_legend_below(axes.figure, axes, columns=2)


def _tick_sizes(axes: Axes, table: pd.DataFrame) -> None:
    """Ticks at the sizes that were measured, and nowhere else."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.xaxis.set_major_locator(FixedLocator(sorted(table["videos"].unique())))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_locator(NullLocator())


def _name_ends(axes: Axes, at: float, ends: list[tuple[float, str, str]]) -> None:
    """The name of each line behind its end, moved apart where lines end close to each other."""
    ends = sorted(ends)
    shown = axes.transData.transform([(at, value) for value, *_ in ends])
    wanted = axes.transAxes.inverted().transform(shown)[:, 1].tolist()
    places = spread_out(wanted, 1.3 * NAME_POINTS / (72 * axes.bbox.height / axes.figure.dpi))
    for place, (value, text, colour) in zip(places, ends, strict=True):
        axes.annotate(
            text,
            (at, value),
            xytext=(1.05, place),
            textcoords="axes fraction",
            va="center",
            color=colour,
            fontsize=NAME_POINTS,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "relpos": (0, 0.5)},
        )


def spread_out(wanted: list[float], apart: float) -> list[float]:
    """Rising places at least ``apart`` from each other, near the wanted rising ones, from [0, 1].

    Those that would leave the top move down together.
    """
    places: list[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + apart) if places else place)
    limit = 1.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], limit)
        limit = places[i] - apart
    return places
