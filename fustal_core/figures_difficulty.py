"""The figures of easier and harder data: a pair of panels for each knob, and all knobs at a glance.

The visual language is that of `figures`.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fustal_core.difficulty import DEFAULT, EMA, MECHANISMS, STUDENT, along_knobs, gains, unit
from fustal_core.figures import (
    COLOURS,
    colour_of,
    new_figure,
    nothing_to_show,
    styled,
)
from fustal_core.metrics import AVERAGE
from fustal_core.naming import COLA, CROSS_VIDEO

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_COLUMNS = 3
_METHODS = {COLA: "s", CROSS_VIDEO: "o", STUDENT: "^", EMA: "D"}
_GAINS = {
    "cross-video contrast": ("o", COLOURS["cross-video"]),
    "selection": ("v", COLOURS["selected"]),
    "student": ("^", COLOURS["student"]),
    "EMA distillation": ("D", COLOURS["EMA"]),
}
_ENDS = ("turned down", "turned up")
_PLACES: dict[str, tuple[float, dict[str, Any]]] = {
    _ENDS[0]: (0.22, {"marker": "<", "ms": 5, "ls": "none"}),
    DEFAULT: (0.0, {"marker": "o", "ms": 5, "ls": "none", "mfc": "none"}),
    _ENDS[1]: (-0.22, {"marker": ">", "ms": 5, "ls": "none"}),
}
"""How far below the middle of a knob's row each of its values stands, and how it looks."""
_SHORT = {AVERAGE: "mAP", "f1@0.5": "F1 of labels"}
_SCALES = (f"test mAP,\n{AVERAGE} (%)", "gain (points)")
_BESIDE = 0.03  # of the width, from one line to the next: equal values do not hide each other


@styled
def plot_difficulty(rows: pd.DataFrame) -> Figure:
    """Test mAP, and what each mechanism gains, over the strength of each difficulty.

    Above, the methods; below, the gains, with a line at zero: of contrast, student and EMA in points of
    test mAP, of selection in points of the F1 of the training labels. Lines join the means over seeds,
    faint marks are seeds and bars reach from the lowest to the highest. The default is ringed. All
    panels of a kind have one scale.

    Args:
        rows: as from `difficulty.measure`.
    """
    table = along_knobs(rows)
    if table.empty:
        return nothing_to_show("no strength was turned")
    gained = gains(rows)
    knobs = list(dict.fromkeys(table["knob"]))
    columns = min(len(knobs), _MOST_COLUMNS)
    blocks = -(-len(knobs) // columns)
    figure = new_figure(height_in=1.1 + 3.2 * blocks)
    grid = figure.subplots(2 * blocks, columns, squeeze=False, height_ratios=[1.15, 1] * blocks)
    limits = _limits(table[AVERAGE]), _limits(pd.concat([gained["gain"], pd.Series([0.0])]))
    for number in range(blocks * columns):
        block, column = divmod(number, columns)
        pair = grid[2 * block : 2 * block + 2, column]
        if number >= len(knobs):
            for axes in pair:
                axes.remove()
            continue
        _draw_methods(pair[0], table[table["knob"] == knobs[number]])
        _draw_gains(pair[1], gained[gained["knob"] == knobs[number]])
        pair[0].set_title(_title(knobs[number]))
        for axes, limit, name in zip(pair, limits, _SCALES, strict=True):
            axes.set_ylim(*limit)
            if column == 0:
                axes.set_ylabel(name)
            else:
                axes.set_yticklabels([])
        pair[0].set_xticklabels([])
    _legends(figure, grid[0, 0], grid[1, 0])
    return figure


@styled
def plot_turned(gained: pd.DataFrame) -> Figure:
    """What each mechanism gains with each knob at its lowest, at its default and at its highest.

    A panel for each mechanism, a row for each knob; marks are means over seeds, bars reach from the
    lowest to the highest seed, and a line stands at no gain. A knob whose default is the
    lowest or the highest value that was tried has two marks.

    Args:
        gained: as from `difficulty.gains`.
    """
    if gained.empty:
        return nothing_to_show("no strength was turned")
    mechanisms, knobs = (list(dict.fromkeys(gained[name])) for name in ("mechanism", "knob"))
    figure = new_figure(height_in=1.3 + 0.36 * len(knobs))
    panels = figure.subplots(1, len(mechanisms), sharey=True, squeeze=False)[0]
    characters = min(22, 64 // len(mechanisms))  # under a panel
    for axes, mechanism in zip(panels, mechanisms, strict=True):
        own = gained[gained["mechanism"] == mechanism]
        _draw_turned(axes, own.assign(row=own["knob"].map(knobs.index)), _GAINS[mechanism][1])
        axes.set_title(mechanism.replace(" ", "\n"))
        axes.set_xlabel(textwrap.fill(f"gain in {unit(mechanism)}, points", characters))
    panels[0].set_yticks(range(len(knobs)), [_title(knob) for knob in knobs])
    panels[0].set_ylim(len(knobs) - 0.5, -0.5)
    handles = [panels[0].plot([], [], color="#333333", **look)[0] for _, look in _PLACES.values()]
    figure.legend(handles, _PLACES, loc="outside lower center", ncols=len(handles))
    return figure


def _draw_turned(axes: Axes, own: pd.DataFrame, colour: str) -> None:
    axes.axvline(0, color="#333333", linewidth=0.9, zorder=1)
    for name, (beside, look) in _PLACES.items():
        seeds = own[_place_of(own) == name].groupby("row")["gain"].agg(["mean", "min", "max"])
        places = seeds.index + beside
        axes.hlines(places, seeds["min"], seeds["max"], color=colour, linewidth=1.2, alpha=0.6)
        axes.plot(seeds["mean"], places, color=colour, **look)
    axes.grid(visible=False, axis="y")


def _place_of(gained: pd.DataFrame) -> pd.Series:
    """Which of `_PLACES` each row is; empty for values between."""
    by_knob = gained.groupby("knob")["value"]
    value, usual = gained["value"], gained["default"]
    lowest, highest = value == by_knob.transform("min"), value == by_knob.transform("max")
    names = np.select([value == usual, lowest, highest], [DEFAULT, *_ENDS], "")
    return pd.Series(names, index=gained.index)


def _title(knob: str) -> str:
    return re.sub("_s$", " (s)", knob).replace("_", " ")


def _limits(values: pd.Series) -> tuple[float, float]:
    low, high = values.min(), values.max()
    room = max(0.08 * (high - low), 0.5)
    return low - room, high + room


def _draw_methods(axes: Axes, own: pd.DataFrame) -> None:
    there = [name for name in _METHODS if (own["measured"] == name).any()]
    for number, name in enumerate(there):
        chosen = own[own["measured"] == name]
        look = {"marker": _METHODS[name], "color": colour_of(name), "label": name}
        _draw_line(axes, chosen, AVERAGE, number - (len(there) - 1) / 2, look)
    _mark_values(axes, own)


def _draw_gains(axes: Axes, own: pd.DataFrame) -> None:
    axes.axhline(0, color="#333333", linewidth=0.9, zorder=1)
    there = list(dict.fromkeys(own["mechanism"]))
    for number, name in enumerate(there):
        marker, colour = _GAINS[name]
        look = {
            "marker": marker,
            "color": colour,
            "label": f"{name}: gain in {_SHORT[MECHANISMS[name][2]]}",
        }
        chosen = own[own["mechanism"] == name]
        _draw_line(axes, chosen, "gain", number - (len(there) - 1) / 2, look)
    _mark_values(axes, own)


def _draw_line(
    axes: Axes, own: pd.DataFrame, measure: str, place: float, look: dict[str, Any]
) -> None:
    """Means over the values, seeds and their reach; `place` lines to the right of the value."""
    beside = place * _BESIDE * np.ptp(own["value"].to_numpy())
    by_value = own.groupby("value")[measure]
    mean, low, high = by_value.mean(), by_value.min(), by_value.max()
    values, colour = mean.index.to_numpy() + beside, look["color"]
    axes.vlines(values, low, high, color=colour, linewidth=1.2, alpha=0.6)
    faint = {"marker": look["marker"], "color": colour, "linestyle": "none", "alpha": 0.35}
    axes.plot(own["value"] + beside, own[measure], ms=3, mew=0, **faint)
    axes.plot(values, mean, ms=5, **look)
    usual = own["default"].iloc[0]
    ring = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": "#333333", "mew": 1.0}
    axes.plot(usual + beside, mean[usual], linestyle="none", ms=9, **ring)


def _mark_values(axes: Axes, own: pd.DataFrame) -> None:
    values = np.unique(own["value"])
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.margins(x=0.12)
    axes.grid(visible=False, axis="x")


def _legends(figure: Figure, methods: Axes, gained: Axes) -> None:
    """What the lines of both kinds of panels are, under the whole figure."""
    entries: dict[str, Any] = {}
    for axes in (methods, gained):
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    ring = {"markerfacecolor": "none", "markeredgecolor": "#333333", "linestyle": "none"}
    (entries["default"],) = gained.plot([], [], marker="o", ms=9, **ring)
    columns = 3 if len(entries) < 6 else 2
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=columns)
