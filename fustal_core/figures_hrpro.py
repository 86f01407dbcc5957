"""Figures of HR-Pro's points: how a labelled moment becomes seeds, proposals and a segment.

The visual language is that of `figures`. Seeds are the snippets that count as action or as background
because of the points and of the background score $b$. All arrays are numpy; times are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
            holds the chosen proposal of each point that has one, `refined` what they were refined to.
        truth: `t_start`, `t_end` (s).
        action_threshold, background_threshold: of $b$; at most, and at least.

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
    action_threshold: float = 0.1
    background_threshold: float = 0.95

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
    action_threshold: float = 0.1
    background_threshold: float = 0.95

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
    proposals (the fuller the colour, the higher the score; at most the best 60, told in the lane's
    name), the reliable proposal of each point, its refinement, the truth. Thin lines are the points.
    """
    if not len(growth.times_s):
        return nothing_to_show("a video without snippets")
    lanes = _growth_lanes(growth)
    curves_in, lanes_in = (0.95, 0.75), sum(lane.height_in for lane in lanes)
    figure = new_figure(height_in=sum(curves_in) + lanes_in + 0.75)
    figure.get_layout_engine().set(h_pad=0.02, hspace=0)
    above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=[*curves_in, lanes_in])
    _background_score(above, growth.times_s, growth.background, growth)
    for name, place in (
        ("background", growth.background_threshold),
        ("action", growth.action_threshold),
    ):
        where = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        above.annotate(name, (1, place), xytext=(4, 0), va="center", fontsize=8, **where)
    above.set_ylabel("background\nscore $b$", **_LEVEL)
    middle.plot(growth.times_s, growth.cas, color=COLOURS["classification"], linewidth=1.4)
    middle.set_ylim(0, max(0.1, 1.1 * np.nanmax(growth.cas, initial=0.0)))
    middle.locator_params(axis="y", nbins=3)
    middle.set_ylabel("T-CAS", **_LEVEL)
    _draw_lanes(below, lanes)
    _points(figure, growth.points_s)
    below.set_xlim(*_ends(growth.times_s, growth.seconds_per_snippet))
    below.set_xlabel("time (s)")
    count = len(growth.points_s)
    above.set_title(f"{growth.label}: {count or 'no'} point{'s' * (count != 1)}", pad=13)
    return figure


@styled
def plot_seeds_over_training(curves: SeedHistory) -> Figure:
    """The background score and the seeds that follow from it, as the training goes on.

    At most 6 evenly chosen iterations one below the other, the first and the last among them; the
    truth at the bottom. Thin lines are the points.
    """
    if not len(curves.times_s) or not len(curves.iterations):
        return nothing_to_show("no snippet was looked at during the training")
    chosen = evenly(len(curves.iterations))
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
            look = {"color": SEED_COLOURS[name], "alpha": 0.5, "linewidth": 0, "label": name}
            widths = (spans["t_end"] - spans["t_start"]).to_numpy()
            axes.broken_barh(
                list(zip(spans["t_start"], widths, strict=True)),
                (0, 1),
                transform=axes.get_xaxis_transform(),
                **look,
            )
        _background_score(axes, curves.times_s, curves.background[at], curves)
        axes.set_ylabel(f"iteration\n{curves.iterations[at]:,}", **_LEVEL)
    _draw_lanes(panels[-1], [truth])
    _points(figure, curves.points_s)
    panels[0].set_title(f"{curves.title}: background score and seeds", pad=13)
    panels[-1].set_xlim(*_ends(curves.times_s, curves.seconds_per_snippet))
    panels[-1].set_xlabel("time (s)")
    panels[0].plot([], [], "v", color=COLOURS["truth"], label="point")
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


def _points(figure: Figure, points_s: np.ndarray) -> None:
    """A thin line through all panels at each point, and a mark at its top."""
    if not len(points_s):
        return
    look = {"color": COLOURS["truth"], "linewidth": 0.8, "alpha": 0.55}
    for axes in figure.axes:
        axes.vlines(points_s, 0, 1, transform=axes.get_xaxis_transform(), label="_points", **look)
    top = figure.axes[0]
    place = {"transform": top.get_xaxis_transform(), "clip_on": False}
    top.plot(points_s, np.full(len(points_s), 1.06), "v", color=COLOURS["truth"], ms=6, **place)


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
    """Segments of one kind, packed into rows; of many that have scores the best."""

    def __init__(self, name: str, segments: pd.DataFrame, colour: str, thin: bool = False) -> None:
        shown = segments
        if "score" in segments:
            best_first = segments.sort_values("score", ascending=False, kind="stable")
            shown = best_first.head(MAX_SEGMENTS)
        self.shown = shown.reset_index(drop=True)
        self.rows = pack_rows(self.shown[["t_start", "t_end"]].to_numpy(dtype=float))
        self.colour = colour
        self.row_in = _THIN_ROW_IN if thin else _ROW_IN
        hidden = len(segments) > len(self.shown)
        self.name = f"{name}\nbest {MAX_SEGMENTS} of {len(segments):,}" if hidden else name

    @property
    def height_in(self) -> float:
        rows = int(self.rows.max(initial=0)) + 1
        return max(rows * self.row_in, 2 * _ROW_IN if "\n" in self.name else _ROW_IN) + _GAP_IN

    @property
    def strength(self) -> np.ndarray:
        """Opacity of each bar, by its score."""
        if "score" not in self.shown:
            return np.ones(len(self.shown))
        highest = max(self.shown["score"].max(), 1e-9)
        shares = (self.shown["score"] / highest).clip(0, 1).fillna(0)
        return 0.25 + 0.75 * shares.to_numpy(dtype=float)


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
        _Lane("proposals", growth.proposals, COLOURS["proposals"], thin=True),
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
    axes.hlines(borders[1:-1], 0, 1, transform=axes.get_yaxis_transform(), color="#DDDDDD", lw=0.7)
    middles = (borders[:-1] + borders[1:]) / 2
    axes.set_yticks(middles, [lane.name for lane in lanes], fontsize=8.5, linespacing=1.0)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(borders[-1], 0)
    axes.grid(visible=False, axis="y")


def evenly(count: int) -> list[int]:
    """At most `MAX_PANELS` of 0 .. count - 1, evenly, with both ends."""
    places = np.linspace(0, count - 1, min(count, MAX_PANELS))
    return np.unique(places.round().astype(int)).tolist()
