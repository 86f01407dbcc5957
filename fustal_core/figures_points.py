"""Figures of what HR-Pro learns, of how sure it is, and of where its points lie.

The visual language is that of `figures`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from fustal_core.figures import (
    COLOURS,
    add_legend_below,
    as_written,
    colour_of,
    evenly,
    new_figure,
    nothing_to_show,
    styled,
)
from fustal_core.figures_generators import AT_THE_RIGHT, draw_strip, name_strip_marks
from fustal_core.figures_hrpro import MAX_PANELS
from fustal_core.metrics import AVERAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NAMED = 8  # classes with a colour and a name
CLASS_COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#882255",
    "#8A8A2E",
)
OTHER_CLASSES = "#8C8C8C"
BACKGROUND_CROSSES = "#A6A6A6"
_BINS = 25  # of score and of tIoU
_DECILES = np.arange(1, 10) / 10


class PrototypeFrame(NamedTuple):
    """Embeddings at one iteration, on the two principal components that all iterations share.

    `snippets` (N, 2); `classes` (N,) int, -1 for background; `prototypes` (C, 2), rows of NaN for
    classes without one.
    """

    iteration: int
    snippets: np.ndarray
    classes: np.ndarray
    prototypes: np.ndarray


@styled
def plot_prototypes(frames: Sequence[PrototypeFrame], class_names: Sequence[str]) -> Figure:
    """Snippets and prototypes in the plane, as the training goes on.

    At most 6 evenly chosen iterations, all in the same axes. The 8 classes with most snippets (of all
    iterations) have a colour and a name; the others are grey, background snippets are crosses.

    Args:
        frames: `PrototypeFrame` or plain tuples in its order.
        class_names: (C,).
    """
    frames = [PrototypeFrame(*frame) for frame in frames]
    if not frames or not sum(len(frame.snippets) for frame in frames):
        return nothing_to_show("no embedding was looked at during the training")
    shown = [frames[i] for i in evenly(len(frames), MAX_PANELS)]
    columns = 2 if len(shown) == 4 else min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(height_in=1.1 + 2.3 * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    named = _most_frequent(np.concatenate([frame.classes for frame in frames]))
    for axes, frame in zip(grid.flat, shown, strict=False):
        _embeddings(axes, frame, named, class_names)
        axes.set(xticks=(), yticks=(), title=f"iteration {frame.iteration:,}")
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    grid[-1, 0].set(xlabel="first principal component", ylabel="second principal component")
    _class_legend(figure, named, class_names, frames)
    return figure


@styled
def plot_confidence(
    before: pd.DataFrame,
    after: pd.DataFrame,
    names: tuple[str, str] = ("before", "after"),
) -> Figure:
    """Whether scores tell good proposals from bad ones: score against true tIoU, as counts.

    The line is the mean tIoU of each tenth of the proposals by score. Titles hold Spearman's rank
    correlation and the number of proposals. Both panels share the colours of the counts.

    Args:
        before, after: `score`, `tiou` (best tIoU with the truth of its class, 0 to 1).
        names: what the two are.
    """
    tables = [table.dropna(subset=["score", "tiou"]) for table in (before, after)]
    if all(table.empty for table in tables):
        return nothing_to_show("no proposal to compare with the truth")
    from matplotlib.colors import LogNorm

    figure = new_figure(height_in=3.5)
    panels = figure.subplots(1, 2, sharey=True)
    counts = [_counts(table) for table in tables]
    look = {"norm": LogNorm(1, max(2, *(grid.max() for grid, _ in counts))), "cmap": "Blues"}
    for axes, table, (grid, edges), name in zip(panels, tables, counts, names, strict=True):
        axes.set(xlabel="score", title=name)
        if table.empty:
            axes.set_xticks(())
            axes.text(0.5, 0.5, "no proposal", ha="center", transform=axes.transAxes)
            continue
        tiou_edges = np.linspace(0, 1, _BINS + 1)
        image = axes.pcolormesh(
            edges, tiou_edges, np.ma.masked_equal(grid.T, 0), rasterized=True, **look
        )
        tenths = _score_tenths(table)
        line = {"color": COLOURS["regression"], "markeredgecolor": "black", "markeredgewidth": 0.7}
        label = "mean tIoU of a tenth of the proposals, by score"
        axes.plot(tenths["score"], tenths["tiou"], "o-", label=label, **line)
        axes.set_title(f"{name}: Spearman {spearman(table):.2f}\n{len(table):,} proposals")
        drawn = axes
    panels[0].set(ylim=(0, 1), ylabel="tIoU with the truth")
    figure.colorbar(image, ax=panels, label="proposals", pad=0.02, aspect=25, format="%d")
    add_legend_below(figure, drawn, columns=1)
    return figure


def spearman(table: pd.DataFrame) -> float:
    """Rank correlation of `score` and `tiou`, ties by their mean rank; NaN if either is constant."""
    return float(table[["score", "tiou"]].corr("spearman").loc["score", "tiou"])


@styled
def plot_placement(rows: pd.DataFrame) -> Figure:
    """Where the annotators' points lie in their actions, and what that does to stage 1's test mAP.

    A dot per seed. If some placement has two seeds or more, a diamond is the mean, and whiskers
    reach one standard deviation (n - 1 in the denominator) to each side where there are two or more.

    Args:
        rows: `placement`, `seed`, `avg 0.1:0.7` (percent; NaN: not measured). Placements from the
            top, in order of their first rows.
    """
    if rows[AVERAGE].isna().all():
        return nothing_to_show("no placement of points was measured")
    placements = list(dict.fromkeys(rows["placement"]))
    figure = new_figure(height_in=1.4 + 0.38 * len(placements))
    axes = figure.subplots()
    many = rows.dropna(subset=[AVERAGE])["placement"].duplicated().any()
    for place, placement in enumerate(placements):
        values = rows.loc[rows["placement"] == placement, AVERAGE].dropna().to_numpy(dtype=float)
        (draw_strip if many else _draw_seed)(axes, place, values, colour_of("HR-Pro"))
    axes.set_yticks(range(len(placements)), [textwrap.fill(str(name), 26) for name in placements])
    axes.set_ylim(len(placements) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.08)
    axes.set(xlabel=f"test mAP of stage 1, {AVERAGE} (%)", ylabel="point within its action")
    heading = "mean ± sd" if many else "mAP"
    axes.annotate(heading, (1, 1), xytext=(8, 3), fontweight="bold", **AT_THE_RIGHT)
    if many:
        name_strip_marks(axes, deviations=True)
        add_legend_below(figure, axes, columns=4)
    return figure


def _draw_seed(axes: Axes, place: int, values: np.ndarray, colour: str) -> None:
    """A placement with one seed, or none (percent): there is no mean to be told from it."""
    axes.plot(values, np.full(len(values), place), "o", color=colour, ms=6)
    text = f"{values[0]:.1f}" if len(values) else "not measured"
    look = {**AT_THE_RIGHT, "xycoords": ("axes fraction", "data")}
    axes.annotate(text, (1, place), xytext=(8, 0), va="center", **look)


def _counts(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of proposals by score and tIoU (bins, bins), and the edges of the scores."""
    low, high = (table["score"].min(), table["score"].max()) if len(table) else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    tiou_edges = np.linspace(0, 1, _BINS + 1)
    grid, *_ = np.histogram2d(table["score"], table["tiou"], bins=(edges, tiou_edges))
    return grid, edges


def _score_tenths(table: pd.DataFrame) -> pd.DataFrame:
    """Mean `score` and `tiou` of each tenth by score; equal scores stay together."""
    score = table["score"].to_numpy(dtype=float)
    tenth = np.searchsorted(np.unique(np.quantile(score, _DECILES)), score, side="left")
    return table[["score", "tiou"]].groupby(tenth).mean()


def _most_frequent(classes: np.ndarray) -> dict[int, str]:
    """Colours of the classes with most of the snippets, in the order of the classes."""
    counts = np.bincount(classes[classes >= 0])
    most = np.argsort(-counts, kind="stable")[:MAX_NAMED]
    return dict(zip(sorted(most[counts[most] > 0].tolist()), CLASS_COLOURS, strict=False))


def _embeddings(
    axes: Axes, frame: PrototypeFrame, named: dict[int, str], names: Sequence[str]
) -> None:
    """Crosses of background, dots of snippets, the named classes on top, stars of prototypes."""
    colours = np.array([named.get(index, OTHER_CLASSES) for index in range(len(names))])
    places = np.asarray(frame.snippets, dtype=float).reshape(-1, 2)
    background = frame.classes < 0
    cross = {"marker": "x", "s": 9, "linewidths": 0.6, "color": BACKGROUND_CROSSES}
    axes.scatter(*places[background].T, rasterized=True, **cross)
    order = np.argsort(np.isin(frame.classes, list(named)), kind="stable")
    order = order[~background[order]]
    dot = {"s": 7, "c": colours[frame.classes[order]], "alpha": 0.7, "linewidths": 0}
    axes.scatter(*places[order].T, rasterized=True, **dot)
    for classes, size in ((sorted(set(range(len(names))) - set(named)), 22), (list(named), 55)):
        x, y = frame.prototypes[classes].T
        look = {"edgecolors": "black", "linewidths": 0.7, "zorder": 3}
        axes.scatter(x, y, s=size, c=colours[classes], marker="*", **look)


def _class_legend(
    figure: Figure, named: dict[int, str], names: Sequence[str], frames: Sequence[PrototypeFrame]
) -> None:
    from matplotlib.lines import Line2D

    entries = {names[index]: colour for index, colour in named.items()}
    others = len(names) - len(named)
    if others:
        entries[f"{others} other class{'es' * (others > 1)}"] = OTHER_CLASSES
    dot = {"marker": "o", "linestyle": "none", "markersize": 5}
    handles = [
        Line2D([], [], color=colour, label=as_written(name), **dot)
        for name, colour in entries.items()
    ]
    if any((frame.classes < 0).any() for frame in frames):
        cross = {**dot, "marker": "x", "color": BACKGROUND_CROSSES}
        handles.append(Line2D([], [], label="background", **cross))
    star = {**dot, "marker": "*", "markersize": 8, "markerfacecolor": "white"}
    handles.append(Line2D([], [], color="black", label="prototype", **star))
    longest = max(len(handle.get_label()) for handle in handles)
    look = {"ncols": max(1, min(4, 90 // (longest + 4))), "handlelength": 1, "columnspacing": 1.5}
    figure.legend(handles=handles, loc="outside lower center", **look)
