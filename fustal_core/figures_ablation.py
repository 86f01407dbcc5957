"""Figures of the ablation: what each stage, each setting and each claim of the paper is worth.

The visual language is that of `figures`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fustal_core.figures import (
    COLOURS,
    add_legend_below,
    colour_of,
    new_figure,
    nothing_to_show,
    styled,
)
from fustal_core.figures_generators import AT_THE_RIGHT, draw_strip, name_strip_marks
from fustal_core.metrics import AVERAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = {
    "G": "cross-video term",
    "C": "confidence filter",
    "S": "selection",
    "T": "student",
    "D": "distillation",
}
"""What a cell of the stage ablation may have, by its letter, in the order of the pipeline."""
OFF = "#DADADA"
VERDICTS = {"above 0": ("TP", ">"), "below 0": ("FP", "<"), "undecided": ("other", "D")}
"""What an interval says -> key of `COLOURS`, marker."""
_COLUMNS = 3  # of panels
_HIGH = 3.0  # times the middle height of the panels' data: such a panel has a scale of its own
_RING = {
    "marker": "o",
    "linestyle": "none",
    "markersize": 12,
    "markerfacecolor": "none",
    "markeredgecolor": "#333333",
    "markeredgewidth": 1.3,
}


def parts_of(cell: str) -> tuple[str, ...]:
    """The parts that a stage cell has on, in the order of the pipeline.

    Raises:
        ValueError: a part that is none of `PARTS` (named).

    Example:
        >>> parts_of("S+T+D"), parts_of("none")
        (('S', 'T', 'D'), ())
    """
    named = [] if cell == "none" else cell.split("+")
    for part in named:
        if part not in PARTS:
            raise ValueError(f"cell {cell!r}: {part!r} is none of {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in named)


@styled
def plot_stage_ablation(rows: pd.DataFrame) -> Figure:
    """What the stages are worth together: test mAP of each cell, a dot per seed.

    Cells have fewer parts on the further up; which, dots at the left say: filled is on. A diamond is the
    mean, whiskers reach one standard deviation (n - 1 in the denominator), both are written at the
    right. The colour is that of what was measured, the generator of a cell without G being CoLA.

    Args:
        rows: `group` (only "stages" is drawn), `cell`, `seed`, `measured`, `avg 0.1:0.7` (percent;
            NaN: not measured).

    Raises:
        ValueError: a cell names another part than those of `PARTS`.
    """
    rows = rows[rows["group"] == "stages"]
    if rows[AVERAGE].isna().all():
        return nothing_to_show("no stage was measured")
    places = list(PARTS)
    cells = sorted(
        rows["cell"].unique(),
        key=lambda cell: (len(on := parts_of(cell)), [places.index(part) for part in on]),
    )
    figure = new_figure(height_in=1.9 + 0.36 * len(cells))
    matrix, axes = figure.subplots(1, 2, sharey=True, width_ratios=[1.25, 3.4])
    for place, cell in enumerate(cells):
        own = rows[rows["cell"] == cell]
        colour = _colour_of_cell(cell, str(own["measured"].iloc[0]))
        _draw_parts(matrix, place, parts_of(cell), colour)
        draw_strip(axes, place, own[AVERAGE].dropna().to_numpy(dtype=float), colour)
    _name_parts(matrix)
    matrix.set_yticks(range(len(cells)), cells)
    many = bool(rows.dropna(subset=[AVERAGE])["cell"].duplicated().any())
    name_strip_marks(axes, many)
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.set_ylim(len(cells) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.08)
    axes.set_xlabel(f"test mAP, {AVERAGE} (%)")
    heading = "mean ± sd" if many else "mean"
    axes.annotate(heading, (1, 1), xytext=(8, 3), fontweight="bold", **AT_THE_RIGHT)
    add_legend_below(figure, axes, columns=4)
    return figure


def _colour_of_cell(cell: str, measured: str) -> str:
    return COLOURS["CoLA"] if cell == "none" else colour_of(measured)


def _draw_parts(matrix: Axes, place: int, on: Sequence[str], colour: str) -> None:
    """A row of dots, those that are on filled and joined."""
    columns = [list(PARTS).index(part) for part in on]
    off = [column for column in range(len(PARTS)) if column not in columns]
    matrix.plot(columns, [place] * len(columns), "o-", color=colour, ms=8, linewidth=2.2)
    matrix.plot(off, [place] * len(off), "o", color=OFF, ms=6, zorder=3)  # over a line past it


def _name_parts(matrix: Axes) -> None:
    names = [f"{letter}  {name}" for letter, name in PARTS.items()]
    look = {"rotation": 50, "ha": "left", "rotation_mode": "anchor"}
    matrix.set_xticks(range(len(PARTS)), names, **look)
    matrix.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    matrix.set_xlim(-0.6, len(PARTS) - 0.4)
    matrix.grid(visible=False)
    matrix.spines[:].set_visible(False)


@styled
def plot_sweeps(rows: pd.DataFrame, labels: Mapping[str, str]) -> Figure:
    """How test mAP answers to one setting at a time, one panel a setting and what was measured.

    Thin lines are seeds, thick ones means with one standard deviation (n - 1 in the denominator); the
    mean of the default has a ring. Values stand as they are, by their logarithm (0 one step before
    the lowest), or by that of 1 - value, whichever spaces them most evenly; infinity is "all", one
    step after the highest. A group without values has its cells side by side. All panels are equally
    many points high, so that steepness can be compared, but for those whose data is more than three
    times as high as the middle one's: these say so.

    Args:
        rows: `group` (in order of first rows; "stages" is left out), `cell`, `seed`, `measured`,
            `changes` ("" for the default), `value` (place on the axis, NaN: none), `avg 0.1:0.7`
            (percent; NaN: not measured).
        labels: group -> name of its axis; the group's own name where there is none.
    """
    rows = rows[(rows["group"] != "stages") & rows[AVERAGE].notna()]
    if rows.empty:
        return nothing_to_show("no setting was swept")
    parts = dict(list(rows.groupby(["group", "measured"], sort=False)))
    columns = min(_COLUMNS, len(parts))
    lines = -(-len(parts) // columns)
    figure = new_figure(height_in=0.7 + 2.0 * lines)
    grid = figure.subplots(lines, columns, squeeze=False)
    panels = list(grid.flat[: len(parts)])
    for axes, ((group, measured), own) in zip(panels, parts.items(), strict=True):
        _draw_sweep(axes, own, colour_of(str(measured)))
        axes.set_xlabel(_wrapped(labels.get(group, str(group)), 27), fontsize=9)
    for axes in grid.flat[len(parts) :]:
        axes.set_visible(False)
    _share_heights(panels)
    figure.supylabel(f"test mAP, {AVERAGE} (%)", fontsize=10)
    _name_sweep_marks(panels[0], rows)
    add_legend_below(figure, panels[0], columns=4)
    return figure


def _wrapped(text: str, width: int) -> str:
    """In lines, long names broken after an underscore."""
    return textwrap.fill(text.replace("_", "_ "), width).replace("_ ", "_")


def _draw_sweep(axes: Axes, own: pd.DataFrame, colour: str) -> None:
    """One panel: thin lines of seeds, means with deviations, the ring and the ticks."""
    is_sweep = bool(own["value"].notna().all())
    keys = own["value"].sort_values() if is_sweep else own["cell"]
    keys = list(dict.fromkeys(keys))
    places = spaced(np.array(keys)) if is_sweep else np.arange(len(keys), dtype=float)
    at = own["value" if is_sweep else "cell"].map(dict(zip(keys, places, strict=True)))
    seeds = own.assign(at=at).pivot_table(index="at", columns="seed", values=AVERAGE)
    mean, deviation = seeds.mean(axis=1), seeds.std(axis=1)
    axes.plot(seeds, "o-", color=colour, alpha=0.4, linewidth=0.8, ms=2.2, mew=0)
    look = {"linestyle": "-" if is_sweep else "none", "ms": 5, "capsize": 3, "elinewidth": 1.3}
    axes.errorbar(mean.index, mean, yerr=deviation, fmt="o", color=colour, **look)
    default = at[own["changes"] == ""].unique()
    axes.plot(default, mean[default], **_RING)
    kept = _readable(places, default) if is_sweep else places >= 0
    names = [_number(key) if is_sweep else _short(key, own) for key in keys]
    texts = [name if keep else "" for name, keep in zip(names, kept, strict=True)]
    axes.set_xticks(places, texts, fontsize=8.5)
    axes.margins(x=0.1 if is_sweep else 0.4)
    axes.grid(visible=False, axis="x")


def _short(cell: str, own: pd.DataFrame) -> str:
    """A cell's name without what was measured, which the colour says."""
    return textwrap.fill(cell.removesuffix(f" ({own['measured'].iloc[0]})"), 16)


def _number(value: float) -> str:
    return "all" if np.isinf(value) else f"{value:g}"


def spaced(values: np.ndarray) -> np.ndarray:
    """Places of rising values (N,) on an axis that spaces them evenly (see `plot_sweeps`).

    The values themselves, unless another scale is more than 1.5 times as even: the least gap over the
    largest.

    Example:
        >>> spaced(np.array([0.0, 0.1, 0.2, 0.4])).round(2)
        array([-1.3, -1. , -0.7, -0.4])
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.zeros(len(values))
    places = finite
    for scale in (_logarithms, _logarithms_below_one):
        other = scale(finite)
        if other is not None and _evenness(other) > 1.5 * _evenness(places):
            places = other
    beyond = places[-1:] + _step(places)
    return np.concatenate([places, beyond[: len(values) - len(finite)]])


def _logarithms(values: np.ndarray) -> np.ndarray | None:
    if values[0] < 0:
        return None
    places = np.log10(values[values > 0])
    return np.concatenate([places[:1] - _step(places), places])[-len(values) :]


def _logarithms_below_one(values: np.ndarray) -> np.ndarray | None:
    return -np.log10(1 - values) if values[-1] < 1 else None


def _step(places: np.ndarray) -> float:
    return float(np.median(np.diff(places))) if len(places) > 1 else 1.0


def _evenness(places: np.ndarray) -> float:
    gaps = np.diff(places)
    return float(gaps.min() / gaps.max()) if len(gaps) else 1.0


def _readable(places: np.ndarray, always: np.ndarray) -> np.ndarray:
    """(N,) which ticks are named: those in `always`, and from the left those that leave room."""
    room = 0.16 * np.ptp(places)
    named = list(always)
    for place in places:
        if all(abs(place - other) >= room for other in named):
            named.append(place)
    return np.isin(places, named)


def _share_heights(panels: Sequence[Axes]) -> None:
    heights = np.array([axes.dataLim.height for axes in panels])
    is_high = heights > _HIGH * np.median(heights)
    common = max(heights[~is_high].max(), 1.0)
    for axes, height, alone in zip(panels, heights, is_high, strict=True):
        middle = (axes.dataLim.y0 + axes.dataLim.y1) / 2
        reach = 0.57 * (height if alone else common)
        axes.set_ylim(middle - reach, middle + reach)
        axes.locator_params(axis="y", nbins=5)
        if alone:
            axes.set_title("another scale", loc="right", fontsize=8, style="italic")


def _name_sweep_marks(axes: Axes, rows: pd.DataFrame) -> None:
    """Entries of the legend, each once, whatever the panel shows."""
    for measured in dict.fromkeys(rows["measured"]):
        axes.plot([], [], "o-", color=colour_of(str(measured)), label=str(measured))
    if rows.duplicated(["group", "cell", "measured"]).any():
        axes.plot([], [], "-", color="#333333", alpha=0.4, linewidth=0.8, label="a seed")
        axes.plot([], [], "|-", color="#333333", ms=8, label="standard deviation")
    if (rows["changes"] == "").any():
        axes.plot([], [], label="default", **_RING)


@styled
def plot_gains(intervals: pd.DataFrame) -> Figure:
    """What each claimed gain is, with its interval: a row per claim.

    Colour and mark say where the whole interval lies: above 0, below 0, or neither (also where there is
    no interval). Small dots are the differences of single seeds.

    Args:
        intervals: `claim` (text), `measure` (what is compared), `mean`, `low`, `high` (points; NaN: no
            interval), `differences` (a list, points: one per seed).
    """
    if intervals.empty:
        return nothing_to_show("no difference was measured")
    measures = list(dict.fromkeys(intervals["measure"]))
    several = len(measures) > 1
    names = [
        textwrap.fill(str(row.claim), 36) + (f"\n({row.measure})" if several else "")
        for row in intervals.itertuples()
    ]
    lines = sum(1 + name.count("\n") for name in names)
    figure = new_figure(height_in=1.3 + 0.22 * len(names) + 0.155 * lines)
    axes = figure.subplots()
    axes.axvline(0, color="#000000", linewidth=1.2)
    verdicts = [verdict(row.low, row.high) for row in intervals.itertuples()]
    for place, (row, said) in enumerate(zip(intervals.itertuples(), verdicts, strict=True)):
        _draw_gain(axes, place, row, said)
    axes.set_yticks(range(len(names)), names, fontsize=8.5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.08)
    axes.set_xlabel("difference (points)" if several else f"difference, {measures[0]} (points)")
    for said in [said for said in VERDICTS if said in verdicts]:
        key, marker = VERDICTS[said]
        axes.plot([], [], marker, linestyle="-", color=COLOURS[key], ms=7.5, label=said)
    axes.plot([], [], "o", color="#333333", ms=4.5, alpha=0.6, mew=0, label="a seed")
    add_legend_below(figure, axes, columns=4)
    return figure


def verdict(low: float, high: float) -> str:
    """What an interval says of a difference: one of `VERDICTS`."""
    return "above 0" if low > 0 else "below 0" if high < 0 else "undecided"


def _draw_gain(axes: Axes, place: int, row: Any, said: str) -> None:
    key, marker = VERDICTS[said]
    colour = COLOURS[key]
    seeds = np.asarray(row.differences, dtype=float)
    look = {"color": colour, "alpha": 0.6, "mew": 0}
    axes.plot(seeds, np.full(len(seeds), place + 0.22), "o", ms=4.5, **look)
    axes.plot([row.low, row.high], [place - 0.06] * 2, color=colour, linewidth=2.6)
    axes.plot(row.mean, place - 0.06, marker, color=colour, ms=8, zorder=3)
    text = f"{row.mean:+z.1f}"  # z: +0.0, not -0.0; the sign of a bound tells its side of 0
    if not np.isnan(row.low):
        text += f"  [{row.low:+.1f}, {row.high:+.1f}]"
    text = text.replace("-", "\N{MINUS SIGN}")
    look = {**AT_THE_RIGHT, "xycoords": ("axes fraction", "data")}
    axes.annotate(text, (1, place), xytext=(8, 0), va="center", **look)
