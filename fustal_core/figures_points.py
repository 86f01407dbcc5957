"""Figures of what HR-Pro learns, of how sure it is, and of what its labels cost.

The visual language is that of `figures`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from fustal_core.figures import (
    AVERAGE,
    COLOURS,
    add_legend_below,
    colour_of,
    new_figure,
    nothing_to_show,
    styled,
    use_log_seconds,
)
from fustal_core.figures_generators import AT_THE_RIGHT, draw_strip, name_strip_marks
from fustal_core.figures_hrpro import evenly

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

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
SUPERVISION_MARKERS = {"video": "s", "point": "o", "full": "^"}
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
    shown = [frames[i] for i in evenly(len(frames))]
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
    ranks = table[["score", "tiou"]].rank()
    if (ranks.nunique() < 2).any():
        return float("nan")
    return float(ranks["score"].corr(ranks["tiou"]))


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


@styled
def plot_label_cost(rows: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """What annotating the training set costs, and what detection gains from it.

    The shape of a mark is its supervision. Rows of one method are joined, from the cheapest on.
    Published rows are hollow and dashed. Rows without a cost above 0 or without a measure are named
    below the figure.

    Args:
        rows: `method`, `supervision` (those of `SUPERVISION_MARKERS`), `cost_h` (hours of annotation
            of the training set), `avg 0.1:0.7` (percent), `note` (what tells the rows of a method
            apart; may be empty).
        published: the same of the literature.

    Raises:
        ValueError: a supervision is none of those (named).
    """
    given = [table for table in (rows, published) if table is not None]
    for name in {str(name) for table in given for name in table["supervision"]}:
        if name not in SUPERVISION_MARKERS:
            raise ValueError(f"supervision {name!r} is none of {', '.join(SUPERVISION_MARKERS)}")
    drawn = [(table["cost_h"] > 0) & table[AVERAGE].notna() for table in given]
    known = [table[chosen] for table, chosen in zip(given, drawn, strict=True)]
    if all(table.empty for table in known):
        return nothing_to_show("no method with a cost and a measure")
    figure = new_figure(height_in=4.4)
    axes = figure.subplots()
    marks = []
    for hollow, table in enumerate(known):
        for method, own in table.groupby("method", sort=False):
            own = own.sort_values("cost_h", kind="stable")
            marks += _cost_line(axes, str(method), own, bool(hollow))
    _name_supervision(axes, pd.concat(known)["supervision"], len(known) > 1 and len(known[1]) > 0)
    use_log_seconds(axes)
    axes.margins(x=0.16, y=0.14)
    hours = "annotation of the training set (hours)"
    missing = [
        str(name)
        for table, chosen in zip(given, drawn, strict=True)
        for name in table.loc[~chosen, "method"].unique()
    ]
    if missing:
        hours += "\n" + textwrap.fill(f"no cost or no measure: {', '.join(missing)}", 90)
    axes.set(xlabel=hours, ylabel=f"test mAP, {AVERAGE} (%)")
    add_legend_below(figure, axes, columns=4)
    figure.draw_without_rendering()  # names are placed where they find room in the layout
    _name_beside(axes, marks)
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


_Mark = tuple[float, float, str]  # hours, mAP, text beside it


def _cost_line(axes: Axes, method: str, own: pd.DataFrame, hollow: bool) -> list[_Mark]:
    """One method: a mark per row, joined; its name goes to the cheapest, notes to all."""
    colour = COLOURS["published"] if hollow else colour_of(method)
    dashes = (0, (4, 2)) if hollow else "-"
    axes.plot(own["cost_h"], own[AVERAGE], color=colour, linestyle=dashes, linewidth=1.2)
    marks = []
    for number, row in enumerate(own.to_dict("records")):
        axes.plot(
            row["cost_h"],
            row[AVERAGE],
            SUPERVISION_MARKERS[row["supervision"]],
            color=colour,
            markerfacecolor="white" if hollow else colour,
            ms=7.5,
        )
        note = "" if pd.isna(row["note"]) else str(row["note"])
        lines = [textwrap.fill(method, 26)] if number == 0 or not note else []
        text = "\n".join([*lines, *([textwrap.fill(note, 26)] if note else [])])
        marks.append((row["cost_h"], row[AVERAGE], text))
    return marks


def _name_supervision(axes: Axes, supervision: pd.Series, hollow: bool) -> None:
    """Entries of the legend, in no method's colour."""
    for name, marker in SUPERVISION_MARKERS.items():
        if (supervision == name).any():
            look = {"color": "#333333", "linestyle": "none", "label": f"{name} labels"}
            axes.plot([], [], marker=marker, ms=7.5, **look)
    if hollow:
        look = {"color": COLOURS["published"], "markerfacecolor": "white", "linestyle": (0, (4, 2))}
        axes.plot([], [], marker="o", label="published, THUMOS'14 (real)", **look)


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
    taken = [Bbox([spot - reach, spot + reach]) for spot in _drawn_spots(axes)]
    for hours, value, text in marks:
        look = {"xytext": (0, 0), "textcoords": "offset points", "fontsize": 8.5}
        name = axes.annotate(text, (hours, value), **look)
        name.set_in_layout(False)
        costs = [_covered(_move(name, *place), taken, axes.bbox) for place in _PLACES]
        _move(name, *_PLACES[int(np.argmin(costs))])
        taken.append(name.get_window_extent())


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


def _covered(box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """Pixels of a name that lie over something, or beyond the axes."""
    from matplotlib.transforms import Bbox

    def area(other: Bbox) -> float:
        common = Bbox.intersection(box, other)
        return common.width * common.height if common else 0.0

    return sum(map(area, taken)) + box.width * box.height - area(frame)


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
    handles = [Line2D([], [], color=colour, label=name, **dot) for name, colour in entries.items()]
    if any((frame.classes < 0).any() for frame in frames):
        cross = {**dot, "marker": "x", "color": BACKGROUND_CROSSES}
        handles.append(Line2D([], [], label="background", **cross))
    star = {**dot, "marker": "*", "markersize": 8, "markerfacecolor": "white"}
    handles.append(Line2D([], [], color="black", label="prototype", **star))
    longest = max(len(handle.get_label()) for handle in handles)
    look = {"ncols": max(1, min(4, 90 // (longest + 4))), "handlelength": 1, "columnspacing": 1.5}
    figure.legend(handles=handles, loc="outside lower center", **look)
