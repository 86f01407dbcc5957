"""Figures of HR-Pro's points: how a labelled moment becomes seeds, proposals and a segment.

The visual language is that of `figures`. Seeds are the snippets that count as action or as background
because of the points and of the background score $b$. All arrays are numpy; times are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fustal_core.figures import (
    COLOURS,
    add_legend_below,
    as_bars,
    as_written,
    colour_of,
    evenly,
    new_figure,
    nothing_to_show,
    styled,
)
from fustal_core.timeline import MAX_SEGMENTS, pack_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 6  # iterations of one figure
SEED_COLOURS = {"action seeds": COLOURS["actionness"], "background seeds": COLOURS["background"]}
_SCORE = "#4D4D4D"  # the curve of the background score; lighter than this it would be missed
_ROW_IN, _THIN_ROW_IN, _GAP_IN = 0.17, 0.055, 0.09  # bars of the lanes, and what parts two lanes


@dataclass(frozen=True)
class PointGrowth:
    """What becomes of the points of one class in one training video.

    Args:
        label: the class.
        times_s: (T,), middles of the snippets.
        background: (T,), background score $b$, 0 to 1.
        cas: (T,), $P = S (1 - b)$ of the class, 0 to 1.
        action_seeds: (T,) bool, of the class.
        background_seeds: (T,) bool.
        seconds_per_snippet: length of a snippet.
        points_s: (P,), the labelled moments of the class.
        proposals, reliable, refined: `t_start`, `t_end` (s), `score` if there is one. `reliable`
            holds the row of `proposals` that each point chose, where it chose one; `refined` what
            they were refined to.
        truth: `t_start`, `t_end` (s).
        action_threshold, background_threshold: of $b$; at most, and at least.
        video: its name, if it is to be told.
        other_points_s: (P',), the labelled moments of the video's other classes.

    Raises:
        ValueError: an array has not as many values as there are snippets (named).
    """

    label: str
    times_s: np.ndarray
    background: np.ndarray
    cas: np.ndarray
    action_seeds: np.ndarray
    background_seeds: np.ndarray
    seconds_per_snippet: float
    points_s: np.ndarray
    proposals: pd.DataFrame
    reliable: pd.DataFrame
    refined: pd.DataFrame
    truth: pd.DataFrame
    action_threshold: float
    background_threshold: float
    video: str = ""
    other_points_s: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        for name in ("background", "cas", "action_seeds", "background_seeds"):
            _check_shape(name, getattr(self, name), (len(self.times_s),))


@dataclass(frozen=True)
class SeedHistory:
    """Background scores of one training video at several moments of the training, and their seeds.

    Args:
        title: the video, the class.
        times_s: (T,), middles of the snippets.
        seconds_per_snippet: length of a snippet.
        iterations: (I,), rising.
        background: (I, T), background score $b$, 0 to 1.
        action_seeds, background_seeds: (I, T) bool.
        points_s: (P,), the labelled moments.
        truth: `t_start`, `t_end` (s).
        action_threshold, background_threshold: of $b$; at most, and at least.

    Raises:
        ValueError: an array is not of shape (I, T) (named).
    """

    title: str
    times_s: np.ndarray
    seconds_per_snippet: float
    iterations: Sequence[int]
    background: np.ndarray
    action_seeds: np.ndarray
    background_seeds: np.ndarray
    points_s: np.ndarray
    truth: pd.DataFrame
    action_threshold: float
    background_threshold: float

    def __post_init__(self) -> None:
        shape = len(self.iterations), len(self.times_s)
        for name in ("background", "action_seeds", "background_seeds"):
            _check_shape(name, getattr(self, name), shape)


def _check_shape(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if np.shape(values) != shape:
        raise ValueError(f"{name} is of shape {np.shape(values)}, expected {shape}")


@styled
def plot_point_to_segment(growth: PointGrowth) -> Figure:
    """From the points of a class to its segments, on one time axis.

    From the top: the background score with its two thresholds, the T-CAS, and lanes: seeds, the
    proposals (the fuller the colour, the higher the score), the reliable proposal of each point, its
    refinement, the truth. Of many proposals the best 60 are drawn, as the lane's name tells, and in
    any case the reliable ones, which are outlined. Thin lines are the points; hollow marks at the
    top those of other classes.
    """
    if not len(growth.times_s):
        return nothing_to_show("a video without snippets")
    lanes = _growth_lanes(growth)
    curves_in, lanes_in = (0.95, 0.75), sum(lane.height_in for lane in lanes)
    with_others = len(growth.other_points_s) > 0
    legend_in = 0.3 if with_others else 0
    figure = new_figure(height_in=sum(curves_in) + lanes_in + legend_in + 0.75)
    figure.get_layout_engine().set(h_pad=0.02, hspace=0)
    above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=[*curves_in, lanes_in])
    _background_score(above, growth.times_s, growth.background, growth)
    _name_thresholds(above, growth)
    above.set_ylabel("background\nscore $b$", **_LEVEL)
    middle.plot(growth.times_s, growth.cas, color=COLOURS["classification"], linewidth=1.4)
    middle.set_ylim(0, max(0.1, 1.1 * np.nanmax(growth.cas, initial=0.0)))
    middle.locator_params(axis="y", nbins=3)
    middle.set_ylabel("T-CAS", **_LEVEL)
    _draw_lanes(below, lanes)
    _point_lines((above, middle, below), growth.points_s)
    other_class = {"label": "point of another class", "markerfacecolor": "white", "ms": 4.5}
    _point_marks(above, growth.other_points_s, **other_class)
    _point_marks(above, growth.points_s, label=f"point of {as_written(growth.label)}", ms=6)
    below.set_xlim(*_ends(growth.times_s, growth.seconds_per_snippet))
    below.set_xlabel("time (s)")
    count = len(growth.points_s)
    title = f"{growth.label}, {count or 'no'} point{'s' * (count != 1)}"
    above.set_title(as_written(f"{growth.video}: {title}" if growth.video else title), pad=13)
    if with_others:  # without them, marks and lines explain each other
        handles = [line for line in above.lines if line.get_marker() == "v"]
        figure.legend(handles=handles[::-1], loc="outside lower center", ncols=2)
    return figure


@styled
def plot_seeds_over_training(curves: SeedHistory) -> Figure:
    """The background score and the seeds that follow from it, as the training goes on.

    At most 6 evenly chosen iterations one below the other, the first and the last among them; the
    truth at the bottom. Marks at the top are the points, each of them an action seed throughout;
    lines through the panels would hide seeds of one snippet.
    """
    if not len(curves.times_s) or not len(curves.iterations):
        return nothing_to_show("no snippet was looked at during the training")
    chosen = evenly(len(curves.iterations), MAX_PANELS)
    truth = _Lane("truth", curves.truth, COLOURS["truth"])
    heights = [0.8] * len(chosen) + [truth.height_in]
    figure = new_figure(height_in=sum(heights) + 1.1)
    figure.get_layout_engine().set(h_pad=0.03, hspace=0)
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    for axes, at in zip(panels, chosen, strict=False):
        for name, seeds in (
            ("action seeds", curves.action_seeds[at]),
            ("background seeds", curves.background_seeds[at]),
        ):
            spans = spans_of(seeds, curves.times_s, curves.seconds_per_snippet)
            # With an edge of its own colour, a snippet of a long video is no thinner than that.
            look = {"color": _lighter(SEED_COLOURS[name]), "linewidth": 0.7, "label": name}
            axes.broken_barh(as_bars(spans), (0, 1), transform=axes.get_xaxis_transform(), **look)
        _background_score(axes, curves.times_s, curves.background[at], curves)
        axes.grid(visible=False)
        axes.set_ylabel(f"iteration\n{curves.iterations[at]:,}", **_LEVEL)
    _name_thresholds(panels[0], curves)
    _draw_lanes(panels[-1], [truth])
    panels[-1].grid(visible=False)
    _point_marks(panels[0], curves.points_s, label="point", ms=6)
    panels[0].set_title(f"{as_written(curves.title)}: background score and seeds", pad=13)
    panels[-1].set_xlim(*_ends(curves.times_s, curves.seconds_per_snippet))
    panels[-1].set_xlabel("time (s)")
    add_legend_below(figure, panels[0], columns=4)
    return figure


def _background_score(
    axes: Axes, times_s: np.ndarray, values: np.ndarray, thresholds: PointGrowth | SeedHistory
) -> None:
    """A curve from 0 to 1 whose ticks are the two thresholds."""
    axes.plot(times_s, values, color=_SCORE, linewidth=1.3, label="background score")
    levels = (thresholds.action_threshold, thresholds.background_threshold)
    for level, colour in zip(levels, (COLOURS["actionness"], _SCORE), strict=True):
        axes.axhline(level, color=colour, linestyle="--", linewidth=0.9)
    axes.set_yticks(levels, [f"{level:g}" for level in levels])
    axes.set_ylim(-0.04, 1.04)
    axes.grid(visible=False, axis="y")


_LEVEL = {"rotation": 0, "ha": "right", "va": "center", "fontsize": 9}  # names beside the panels


def _lighter(colour: str) -> tuple[float, float, float]:
    """A fifth of white in it, for curves to stand out; opaque, as edges lie over their own bars."""
    from matplotlib.colors import to_rgb

    red, green, blue = (0.8 * part + 0.2 for part in to_rgb(colour))
    return red, green, blue


def _name_thresholds(axes: Axes, thresholds: PointGrowth | SeedHistory) -> None:
    """At the right ends of their lines."""
    where = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    for name in ("background", "action"):
        place = getattr(thresholds, f"{name}_threshold")
        axes.annotate(name, (1, place), xytext=(4, 0), va="center", fontsize=8, **where)


def _point_lines(panels: Sequence[Axes], points_s: np.ndarray) -> None:
    """A thin line through each panel at each point."""
    look = {"color": COLOURS["truth"], "linewidth": 0.8, "alpha": 0.55}
    for axes in panels:
        axes.vlines(points_s, 0, 1, transform=axes.get_xaxis_transform(), label="_points", **look)


def _point_marks(axes: Axes, points_s: np.ndarray, **look: Any) -> None:
    """A mark right above the panel at each point."""
    if not len(points_s):  # an empty line beyond its axes would upset the layout
        return
    place = {"transform": axes.get_xaxis_transform(), "clip_on": False}
    axes.plot(points_s, np.full(len(points_s), 1.06), "v", color=COLOURS["truth"], **place, **look)


def _ends(times_s: np.ndarray, step_s: float) -> tuple[float, float]:
    """Of the time axis."""
    return times_s[0] - step_s / 2, times_s[-1] + step_s / 2


def spans_of(mask: np.ndarray, times_s: np.ndarray, step_s: float) -> pd.DataFrame:
    """Runs of marked snippets as `t_start`, `t_end` in seconds, in order of time.

    Args:
        mask: (T,) bool or 0/1.
        times_s: (T,), middles of the snippets.
        step_s: length of a snippet in seconds.
    """
    changes = np.flatnonzero(np.diff(np.pad(np.asarray(mask, dtype=int), 1)))
    first, after = changes[::2], changes[1::2]
    return pd.DataFrame(
        {"t_start": times_s[first] - step_s / 2, "t_end": times_s[after - 1] + step_s / 2}
    )


class _Lane:
    """Segments of one kind, packed into rows; of many that have scores the best, and `outlined`."""

    def __init__(
        self,
        name: str,
        segments: pd.DataFrame,
        colour: str,
        thin: bool = False,
        outlined: pd.DataFrame | None = None,
    ) -> None:
        marked = np.zeros(len(segments), dtype=bool)
        if outlined is not None:
            marked = _rows_among(segments, outlined)
        order = np.arange(len(segments))
        if "score" in segments:
            best_first = np.argsort(-segments["score"].to_numpy(dtype=float), kind="stable")
            order = best_first[(order < MAX_SEGMENTS) | marked[best_first]]
        self.shown = segments.iloc[order].reset_index(drop=True)
        self.marked = marked[order]
        self.rows = pack_rows(self.shown[["t_start", "t_end"]].to_numpy(dtype=float))
        self.colour = colour
        self.row_in = _THIN_ROW_IN if thin else _ROW_IN
        self.name = name
        if len(segments) > len(self.shown):
            self.name += f"\nbest {MAX_SEGMENTS} of {len(segments):,}"
            self.name += "\nand reliable" * (len(self.shown) > MAX_SEGMENTS)

    @property
    def height_in(self) -> float:
        rows = int(self.rows.max(initial=0)) + 1
        return max(rows * self.row_in, (1 + self.name.count("\n")) * _ROW_IN) + _GAP_IN

    @property
    def strength(self) -> np.ndarray:
        """Opacity of each bar, by its score."""
        if "score" not in self.shown:
            return np.ones(len(self.shown))
        highest = max(self.shown["score"].max(), 1e-9)
        shares = (self.shown["score"] / highest).clip(0, 1).fillna(0)
        return 0.25 + 0.75 * shares.to_numpy(dtype=float)


def _rows_among(segments: pd.DataFrame, chosen: pd.DataFrame) -> np.ndarray:
    """(N,) bool: whether a row has the ends, and the score if both have one, of a chosen one."""
    columns = [c for c in ("t_start", "t_end", "score") if c in segments and c in chosen]
    rows, wanted = (pd.MultiIndex.from_frame(table[columns]) for table in (segments, chosen))
    return rows.isin(wanted)


def _growth_lanes(growth: PointGrowth) -> list[_Lane]:
    """Lanes from the top."""
    seeds = {"action seeds": growth.action_seeds, "background seeds": growth.background_seeds}
    plain = ["t_start", "t_end"]  # the score of these is not the story
    return [
        *(
            _Lane(
                name, spans_of(mask, growth.times_s, growth.seconds_per_snippet), SEED_COLOURS[name]
            )
            for name, mask in seeds.items()
        ),
        _Lane(
            "proposals",
            growth.proposals,
            COLOURS["proposals"],
            thin=True,
            outlined=growth.reliable,
        ),
        _Lane("reliable", growth.reliable[plain], COLOURS["selected"]),
        _Lane("refined", growth.refined[plain], colour_of("HR-Pro")),
        _Lane("truth", growth.truth[plain], COLOURS["truth"]),
    ]


def _draw_lanes(axes: Axes, lanes: Sequence[_Lane]) -> None:
    """One below the other; the vertical axis is in inches."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    borders = -np.cumsum([0.0, *(lane.height_in for lane in lanes)])
    for lane, top, bottom in zip(lanes, borders, borders[1:], strict=False):
        if lane.shown.empty:
            at, look = axes.get_yaxis_transform(), {"fontsize": 8, "va": "center"}
            axes.text(0.005, (top + bottom) / 2, "none", transform=at, color=_SCORE, **look)
            continue
        low = top - _GAP_IN / 2 - (lane.rows + 1) * lane.row_in
        ends = lane.shown[["t_start", "t_end"]].to_numpy(dtype=float)
        bars = [
            Rectangle((start, y), end - start, 0.86 * lane.row_in)
            for (start, end), y in zip(ends, low, strict=True)
        ]
        look = {"facecolor": lane.colour, "alpha": lane.strength, "linewidth": 0}
        axes.add_collection(PatchCollection(bars, label=lane.name, **look))
        chosen = [bar for bar, marked in zip(bars, lane.marked, strict=True) if marked]
        if chosen:
            look = {"facecolor": "none", "edgecolor": COLOURS["selected"], "linewidth": 1.2}
            axes.add_collection(PatchCollection(chosen, label="_outlined", **look))
    axes.hlines(borders[1:-1], 0, 1, transform=axes.get_yaxis_transform(), color="#DDDDDD", lw=0.7)
    middles = (borders[:-1] + borders[1:]) / 2
    axes.set_yticks(middles, [lane.name for lane in lanes], fontsize=8.5, linespacing=1.1)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(borders[-1], 0)
    axes.grid(visible=False, axis="y")
