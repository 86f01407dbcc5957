"""Figures of the analysis notebook: labels of every generator, labels and students, chosen videos.

The visual language is that of `figures`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fustal_core.figures import (
    COLOURS,
    add_legend_below,
    as_written,
    colour_of,
    new_figure,
    nothing_to_show,
    styled,
)
from fustal_core.figures_evaluation import KIND_COLOURS
from fustal_core.metrics import AVERAGE
from fustal_core.naming import RAW, SELECTED
from fustal_core.quality import KINDS
from fustal_core.timeline import Lane, Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASURES = {"precision@0.5": "precision", "recall@0.5": "recall", "f1@0.5": "F1"}
_MEASURE_MARKERS = {"precision@0.5": "v", "recall@0.5": "^", "f1@0.5": "D"}
_ABOVE = {"precision@0.5": -0.25, "recall@0.5": 0.25, "f1@0.5": 0.0}
"""Where a marker is beside its line, in rows; rows count downwards."""
_DASHES = {"precision@0.5": ":", "recall@0.5": "--", "f1@0.5": "-"}
_STEP_NAMES = {RAW: "all", SELECTED: "selected"}
_SMALL = {"textcoords": "offset points", "fontsize": 8.5}


@styled
def plot_generator_labels(quality: pd.DataFrame) -> Figure:
    """What the labels of each generator are, before and after selection.

    Left: shares of the kinds of `quality`. Right: F1 at tIoU 0.5 on a thin line that joins precision,
    which stands above it, and recall, which hangs below, so that equal ones do not hide each other.

    Args:
        quality: as from `analysis.generator_label_quality`; generators and steps from the top, in
            order of their first rows.
    """
    rows = quality.reset_index(drop=True)
    # A gap after each generator.
    places = np.arange(len(rows)) + 0.5 * rows.groupby("generator", sort=False).ngroup()
    figure = new_figure(height_in=1.3 + 0.27 * (places.max() + 1))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.25, 1.0])
    _kind_bars(left, rows, places.to_numpy())
    for place, row in zip(places, rows.to_dict("records"), strict=True):
        _measure_marks(right, place, row)
    for name, marker in _MEASURE_MARKERS.items():
        left.plot([], [], marker, color="#333333", linestyle="none", label=MEASURES[name])
    names = [_STEP_NAMES.get(step, step) for step in rows["step"]]
    left.set_yticks(places, names, fontsize=8.5)
    left.set_ylim(places.max() + 0.6, -0.6)
    for name, own in places.groupby(rows["generator"], sort=False):
        look = {"ha": "right", "va": "center", "fontsize": 9, "fontweight": "bold"}
        at = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        text = textwrap.fill(str(name), 14, break_on_hyphens=False)
        left.annotate(text, (0, own.mean()), (-48, 0), color=colour_of(str(name)), **look, **at)
    left.set(title="kinds of labels", xlabel="labels (%)", xlim=(0, 100))
    right.set(title="at tIoU 0.5", xlabel="precision, recall, F1 (%)", xlim=(-3, 103))
    for axes in (left, right):
        axes.grid(visible=False, axis="y")
    add_legend_below(figure, left, columns=4)
    return figure


def _kind_bars(axes: Axes, rows: pd.DataFrame, places: np.ndarray) -> None:
    left = np.zeros(len(rows))
    for kind in KINDS:
        width = 100 * rows[kind.replace(" ", "_")].to_numpy(dtype=float)
        look = {"height": 0.8, "color": KIND_COLOURS[kind], "linewidth": 0, "label": kind}
        axes.barh(places, width, left=left, **look)
        left += width
    look = {"ha": "right", "va": "center", "fontsize": 8}
    for place, number in zip(places, rows["proposals"], strict=True):
        axes.annotate(f"{number:,} ", (100, place), **look)


def _measure_marks(axes: Axes, place: float, row: Mapping[str, float]) -> None:
    values = {name: 100 * row[name] for name in _MEASURE_MARKERS}
    colour = colour_of(str(row["generator"]))
    reach = [min(values.values()), max(values.values())]
    axes.plot(reach, [place, place], color=colour, linewidth=1.0, alpha=0.6)
    for name, marker in _MEASURE_MARKERS.items():
        axes.plot(values[name], place + _ABOVE[name], marker, color=colour, ms=4)


@styled
def plot_labels_and_students(rows: pd.DataFrame) -> Figure:
    """Do better labels give better students? Test mAP over precision, recall and F1 of the labels.

    Args:
        rows: as from `analysis.labels_and_students`: `labels`, `method`, the measures of `MEASURES`
            (fractions), `avg 0.1:0.7` (percent).
    """
    figure = new_figure(height_in=2.9)
    panels = figure.subplots(1, 3, sharey=True)
    for axes, (measure, name) in zip(panels, MEASURES.items(), strict=True):
        for row, marker in zip(rows.to_dict("records"), cycle("soD"), strict=False):
            look = {"color": colour_of(row["method"]), "ms": 7, "label": f"labels: {row['labels']}"}
            axes.plot(100 * row[measure], row[AVERAGE], marker, linestyle="none", **look)
        axes.set(xlabel=f"{name} of the labels (%)", xlim=(-4, 104))
    low, high = rows[AVERAGE].min(), rows[AVERAGE].max()
    room = max(2.0, 0.12 * (high - low))
    panels[0].set_ylabel(f"student's test mAP,\n{AVERAGE} (%)")
    panels[0].set_ylim(max(0.0, low - room), high + room)
    add_legend_below(figure, panels[0], columns=3)
    return figure


@styled
def plot_labels_over_epochs(table: pd.DataFrame, switch_epoch: int) -> Figure:
    """Labels of each epoch above, test mAP after it below, on one axis of epochs.

    Args:
        table: as from `analysis.labels_over_epochs`.
        switch_epoch: the first epoch on EMA labels, marked.
    """
    figure = new_figure(height_in=4.6)
    above, below = figure.subplots(2, 1, sharex=True)
    methods = list(table.groupby("method", sort=False))
    for method, own in methods:
        colour = colour_of(str(method))
        for measure, dashes in _DASHES.items():
            values = 100 * own[measure].astype(float)
            above.plot(own["epoch"], values, linestyle=dashes, color=colour, marker=".")
        known = own.dropna(subset=[AVERAGE])
        below.plot(known["epoch"], known[AVERAGE], "o-", color=colour, label=str(method))
    for measure, dashes in _DASHES.items():
        below.plot([], [], linestyle=dashes, color="#333333", label=MEASURES[measure])
    for axes in (above, below):
        axes.axvline(switch_epoch - 0.5, color="#333333", linestyle=":", linewidth=1.1)
        axes.margins(y=0.12)
    above.set(title="labels, within the crops, at tIoU 0.5 (%)", ylim=(0, None))
    above.annotate(
        "EMA labels",
        (switch_epoch - 0.5, 1),
        (3, -2),
        xycoords=("data", "axes fraction"),
        va="top",
        **_SMALL,
    )
    below.set(title=f"test mAP, {AVERAGE} (%)", xlabel="epoch")
    below.xaxis.get_major_locator().set_params(integer=True)
    if not table[AVERAGE].notna().any():
        below.text(0.5, 0.5, "not evaluated", ha="center", transform=below.transAxes)
    add_legend_below(figure, below, columns=5)
    return figure


@styled
def plot_intervals(table: pd.DataFrame) -> Figure:
    """Averages with their intervals on the left, differences of pairs with theirs on the right.

    Args:
        table: as from `analysis.with_intervals`; a difference has the colour of the first method.
    """
    sides = [table[table["minus"] == ""], table[table["minus"] != ""]]
    figure = new_figure(height_in=1.0 + 0.36 * max(map(len, sides)))
    for axes, own in zip(figure.subplots(1, 2), sides, strict=True):
        names = []
        for place, row in enumerate(own.to_dict("records")):
            colour = colour_of(row["method"])
            axes.plot([row["low"], row["high"]], [place] * 2, "|-", color=colour, ms=8, mew=1.5)
            axes.plot(row[AVERAGE], place, "o", color=colour)
            parts = [row["method"], *([f"\N{MINUS SIGN} {row['minus']}"] if row["minus"] else [])]
            names.append("\n".join(textwrap.fill(part, 30) for part in parts))
        axes.set_yticks(range(len(own)), names, fontsize=7.5)
        axes.set_ylim(max(len(own), 1) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
    left, right = figure.axes
    right.axvline(0, color=COLOURS["truth"], linewidth=0.8)
    left.set(title="methods", xlabel=f"test mAP, {AVERAGE} (%)")
    right.set(title="differences", xlabel="points")
    return figure


@styled
def plot_video_differences(
    table: pd.DataFrame, chosen: pd.DataFrame, ours: str, baseline: str
) -> Figure:
    """What one method finds more of than another, video by video, and which videos are shown.

    Args:
        table: as from `analysis.compare_videos`, in its order.
        chosen: as from `analysis.choose_videos`.
        ours, baseline: names of the methods.
    """
    figure = new_figure(height_in=2.9)
    axes = figure.subplots()
    values = table["difference"].to_numpy(dtype=float)
    places = np.arange(len(values))
    for better, name in ((values < 0, baseline), (values > 0, ours)):
        for candidate, strength in ((True, 1.0), (False, 0.4)):
            drawn = better & (table["candidate"].to_numpy() == candidate)
            if not drawn.any():
                continue  # a legend would show it in any colour
            look = {"width": 1.0, "color": colour_of(name), "alpha": strength, "linewidth": 0}
            label = f"{name} finds more" + ("" if candidate else " (long, or few actions)")
            axes.bar(places[drawn], values[drawn], label=label, **look)
    axes.axhline(0, color=COLOURS["truth"], linewidth=0.8)
    for percentile, video in zip(chosen["percentile"], chosen["video"], strict=True):
        place = table.index.get_loc(video)
        _point_at(axes, (place, values[place]), f"{percentile}th")
    axes.set_xlabel(f"test videos, by difference ({(values == 0).sum()} without one)")
    axes.set_ylabel("difference (points)")
    axes.set_xticks(())
    axes.use_sticky_edges = False  # triangles need room beyond 0 as well
    axes.margins(y=0.25)
    axes.set_xlim(-1, len(values))
    add_legend_below(figure, axes, columns=2)
    return figure


def _point_at(axes: Axes, end: tuple[float, float], name: str) -> None:
    """A triangle beyond the end of a bar, with its name; neither covers the bar."""
    away = -1 if end[1] < 0 else 1
    look = {"xytext": (0, 5 * away), "textcoords": "offset points", "ha": "center"}
    side = {"va": "bottom" if away > 0 else "top", "linespacing": 1.3}
    lines = [name, "\N{BLACK DOWN-POINTING TRIANGLE}"]
    if away < 0:
        lines = ["\N{BLACK UP-POINTING TRIANGLE}", name]
    axes.annotate("\n".join(lines), end, fontsize=8.5, zorder=4, **look, **side)


@styled
def plot_chosen_videos(layers: Mapping[str, pd.DataFrame], chosen: pd.DataFrame) -> Figure:
    """Truth and the best detections of two methods, a panel per video, on its own axis of seconds.

    The stronger the score, the fuller the colour; a hatched bar is false. Classes that the video does
    not have share a lane.

    Args:
        layers: "truth" first, then methods: `video`, `label`, `t_start`, `t_end` (s), and for methods
            `score` and `true`, as from `analysis.best_detections`.
        chosen: `video`, `percentile`, `duration_s`, the panels from the top.
    """
    if chosen.empty:
        return nothing_to_show("no video with an action")
    panels = [
        Timeline(layers, video=row["video"], duration_s=row["duration_s"]).lanes()
        for row in chosen.to_dict("records")
    ]
    heights = [[1.0 + 0.2 * int(lane.rows.max(initial=0)) for lane in lanes] for lanes in panels]
    sizes = [sum(own) + 2.2 for own in heights]  # with room for the title and the axis
    figure = new_figure(height_in=0.5 + 0.28 * sum(sizes))
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=sizes)[:, 0]
    rows = chosen.to_dict("records")
    for axes, lanes, own, row in zip(grid, panels, heights, rows, strict=True):
        _draw_panel(axes, lanes, own)
        axes.set_xlim(0, row["duration_s"])
        video = as_written(row["video"])
        axes.set_title(f"{row['percentile']}th percentile: {video}", fontsize=9.5)
    grid[-1].set_xlabel("time (s)")
    _name_bars(figure)
    return figure


def _draw_panel(axes: Axes, lanes: list[Lane], heights: list[float]) -> None:
    bottom = -np.cumsum(heights)
    names = []
    for lane, low, height in zip(lanes, bottom, heights, strict=True):
        hits = ""
        if "true" in lane.segments:
            hits = f": {lane.segments['true'].sum()} of {len(lane.segments)}"
        names.append(f"{lane.layer}\n{as_written(lane.label)}{hits}")
        _draw_bars(axes, lane, low + 0.08, height - 0.16)
    axes.set_yticks(bottom + np.asarray(heights) / 2, names, fontsize=7.5, linespacing=1.15)
    axes.set_ylim(bottom[-1], 0)
    axes.grid(visible=False, axis="y")
    axes.hlines(bottom[:-1], 0, 1, transform=axes.get_yaxis_transform(), color="#DDDDDD", lw=0.7)
    axes.tick_params(axis="y", length=0)


def _draw_bars(axes: Axes, lane: Lane, low: float, height: float) -> None:
    """A bar per segment; those that are false are hatched."""
    step = height / (lane.rows.max(initial=0) + 1)
    best = lane.segments["score"].max() if "score" in lane.segments else 1.0
    colour = colour_of(lane.layer)
    for row, segment in zip(lane.rows, lane.segments.to_dict("records"), strict=True):
        strength = 0.3 + 0.7 * float(np.clip(segment.get("score", 1.0) / max(best, 1e-9), 0, 1))
        span = [(segment["t_start"], segment["t_end"] - segment["t_start"])]
        place = (low + row * step, 0.88 * step)
        if segment.get("true", True):
            axes.broken_barh(span, place, facecolor=colour, alpha=strength, linewidth=0)
        else:
            look = {"facecolor": "white", "edgecolor": colour, "hatch": "//////"}
            axes.broken_barh(span, place, alpha=strength, linewidth=0.8, **look)


def _name_bars(figure: Figure) -> None:
    from matplotlib.patches import Patch

    grey = COLOURS["other"]
    bars = [
        Patch(facecolor=grey, label="true at tIoU 0.5"),
        Patch(facecolor="white", edgecolor=grey, hatch="//////", label="false"),
    ]
    figure.legend(handles=bars, loc="outside lower center", ncols=2)
