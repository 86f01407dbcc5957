"""Figures of FTCL: two videos aligned, and how their alignment changes over the training.

The visual language is that of `figures`. In pictures of tables snippets count from 1, since row 0 and
column 0 are the border of zeros; an alignment is a black line with a white edge.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from fustal_core.alignment import GAMMA, MATCH_THRESHOLD, fine_grained_sequence_distance
from fustal_core.figures import (
    COLOURS,
    add_legend_below,
    as_written,
    evenly,
    new_figure,
    nothing_to_show,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.patheffects import AbstractPathEffect
    from numpy.typing import ArrayLike

    Look = tuple[Colormap, Normalize]

MAX_COLUMNS = 5  # epochs side by side
MAX_NUMBERED = 6  # snippets a side; the numbers of larger tables would not fit
LONGEST_NAME = 16  # characters of the name of a snippet
_PATH = "path"  # label of its line
_GREYS = {"positive": "#333333", "negative": "#8A8A8A"}  # colours are those of the methods
_LONG_NAMES = {"FSD": "fine-grained sequence distance", "LCS": "longest common subsequence"}


@styled
def plot_fsd(pairs: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Fine-grained sequence distance of pairs of videos: match, gap, and the table they fill.

    One row of panels a pair; its best path lies over match and table. Cells are numbered in tables of
    at most 6 snippets a side. All pairs share the colours: those of match and gap reach from 0 to 1,
    or from -1 to 1 if a cosine is negative.

    Args:
        pairs: title -> `match`, `gap` (n, m), cosines; `table` (n + 1, m + 1), with the border of
            zeros; `path` (K, 2), cells (row, column) from 0; `row_labels` (n,) and `column_labels`
            (m,), names of the snippets of the first and of the second video; `value`, the FSD.
            Titles without entries are left out.
    """
    pairs = {title: pair for title, pair in pairs.items() if pair}
    if not pairs:
        return nothing_to_show("no pair of videos to align")
    rows, columns = np.array([np.shape(pair["match"]) for pair in pairs.values()]).T
    names = [_cut(pair["column_labels"]) for pair in pairs.values()]
    longest = [max(map(len, own), default=0) for own in names]
    widest = max(columns.max(), 1)
    upright = max(longest) * widest > 25  # names that long would run into each other
    names_in = [0.07 * length if upright else 0.15 for length in longest]
    cells = np.clip(rows + 1, 3, 10)  # heights of the panels
    figure = new_figure(height_in=1.1 + sum(names_in) + 0.65 * len(pairs) + 0.28 * cells.sum())
    grid = figure.subplots(
        len(pairs),
        3,
        sharey="row",
        squeeze=False,
        width_ratios=[widest, widest, widest + 1],
        height_ratios=cells,
    )
    cosines = _cosine_look(pair[name] for pair in pairs.values() for name in ("match", "gap"))
    sums = _sum_look(pair["table"] for pair in pairs.values())
    for panels, (title, pair) in zip(grid, pairs.items(), strict=True):
        _fsd_row(panels, title, pair, cosines, sums, upright)
    for axes in grid[-1]:
        axes.set_xlabel("snippets of video B")
    _bar_below(figure, cosines, grid[:, :2], "cosine similarity")
    _bar_below(figure, sums, grid[:, 2:], "sum so far")
    _path_legend(figure, grid[:, 0], "best alignment")
    return figure


def _fsd_row(
    panels: Iterable[Axes],
    title: str,
    pair: Mapping[str, Any],
    cosines: Look,
    sums: Look,
    upright: bool,
) -> None:
    """Match, gap and table of one pair.

    Args:
        panels: three.
        title, pair: as in `plot_fsd`.
        cosines, sums: colours.
        upright: whether the names of the snippets of the second video are.
    """
    match, gap, table = panels
    _cells(match, pair["match"], cosines, pair["path"], numbered=True)
    _cells(gap, pair["gap"], cosines, numbered=True)
    _cells(table, pair["table"], sums, pair["path"], first=0, numbered=True)
    names = _cut(pair["column_labels"])
    for axes in (match, gap, table):
        axes.set_xticks(np.arange(len(names)) + 1, names, rotation=90 * upright, fontsize=8)
        axes.tick_params(length=0)
    names = _cut(pair["row_labels"])
    match.set_yticks(np.arange(len(names)) + 1, names, fontsize=8)
    match.set_ylim(len(names) + 0.5, -0.5)
    match.set_ylabel("snippets of video A" if len(names) > 4 else "snippets of\nvideo A")
    width = 46 - max(map(len, names), default=0) // 2
    for axes, name in ((match, "match $m$"), (gap, "gap $g$")):
        name += "" if np.size(pair["match"]) else ": no snippets"
        # Beside the border of the table, where these have no cells.
        axes.text(0, 0, name, va="center", transform=axes.get_yaxis_transform())
        axes.spines[:].set_visible(False)
    gap.tick_params(labelleft=False)
    _titles(match, table, title, f"table $C$, FSD = {pair['value']:.2f}", width)


@styled
def plot_lcs(pairs: Mapping[str, Mapping[str, Any]], threshold: float = MATCH_THRESHOLD) -> Figure:
    """Longest common subsequence of pairs of videos: similarities, and the table they fill.

    One row of panels a pair. Similarities above the threshold are coloured, the others grey; lanes
    along the axes say which candidates are true action.

    Args:
        pairs: title -> `similarity` (n, m), cosines; `table` (n + 1, m + 1), with the border of
            zeros; `path` (K, 2), the matched cells (row, column) from 0; `row_inside` (n,) and
            `column_inside` (m,), booleans, whether the candidate lies in a true action; `value`, the
            LCS. Titles without entries are left out.
        threshold: similarities above it match.
    """
    from matplotlib.patches import Patch

    pairs = {title: pair for title, pair in pairs.items() if pair}
    if not pairs:
        return nothing_to_show("no pair of videos to align")
    figure = new_figure(height_in=1.3 + 2.4 * len(pairs))
    grid = figure.subplots(len(pairs), 2, squeeze=False)
    similarities = _threshold_look((pair["similarity"] for pair in pairs.values()), threshold)
    sums = _sum_look(pair["table"] for pair in pairs.values())
    for (left, right), (title, pair) in zip(grid, pairs.items(), strict=True):
        _cells(left, pair["similarity"], similarities, pair["path"])
        _cells(right, pair["table"], sums, pair["path"], first=0)
        for first, axes in ((1, left), (0, right)):
            _truth_lanes(axes, first, pair["row_inside"], pair["column_inside"])
        left.set_ylabel("snippets of video A")
        value = f"LCS = {pair['value']:.2f}, {len(pair['path'])} matched"
        _titles(left, right, title, f"table $C$, {value}", width=34)
    for axes in grid[-1]:
        axes.set_xlabel("snippets of video B, in order of time")
    bar = _bar_below(figure, similarities, grid[:, :1], "cosine similarity")
    _name_threshold(bar, threshold)
    _bar_below(figure, sums, grid[:, 1:], "sum so far")
    lanes = [
        Patch(color=COLOURS["truth"], label="in a true action"),
        Patch(color=COLOURS["background"], label="outside"),
    ]
    _path_legend(figure, grid[:, 0], "matched, in order", lanes)
    return figure


@styled
def plot_paths_over_training(
    kinds: Mapping[str, Mapping[str, Any]],
    threshold: float = MATCH_THRESHOLD,
    gamma: float = GAMMA,
) -> Figure:
    """How the alignments of one pair of each kind change while FTCL trains.

    At most 5 evenly chosen epochs side by side, the first and the last among them; two rows a kind:
    LCS similarities with the matched cells, and FSD matches with the best path. Each epoch chooses its
    candidates anew: a row of cells is not the same snippet throughout.

    Args:
        kinds: "positive" or "negative" -> `epochs`, S numbers, the first before FTCL's training,
            where the network is the trained ACM-Net; `similarity` (S, n, m) with `paths`, S arrays
            (K, 2) of matched cells (row, column) from 0; `match` and `gap` (S, n', m') with
            `fsd_paths`. Kinds without entries or without epochs are left out.
        threshold: of the LCS.
        gamma: smoothness of the FSD, whose value is written below its match.
    """
    kinds = {kind: own for kind, own in kinds.items() if own and len(own["epochs"])}
    if not kinds:
        return nothing_to_show("no pair of videos was looked at during the training")
    chosen = {kind: evenly(len(own["epochs"]), MAX_COLUMNS) for kind, own in kinds.items()}
    columns = max(2, *map(len, chosen.values()))  # one would be stretched
    figure = new_figure(height_in=1.0 + 2.9 * len(kinds))
    grid = figure.subplots(2 * len(kinds), columns, squeeze=False)
    similarities = _threshold_look((own["similarity"] for own in kinds.values()), threshold)
    cosines = _cosine_look(own["match"] for own in kinds.values())
    for number, (kind, own) in enumerate(kinds.items()):
        lcs_row, fsd_row = grid[2 * number : 2 * number + 2]
        _lcs_path_row(lcs_row, own, chosen[kind], similarities)
        _fsd_path_row(fsd_row, own, chosen[kind], cosines, gamma)
        for axes in (*lcs_row, *fsd_row):
            axes.set(xticks=(), yticks=())
        for axes in (*lcs_row[len(chosen[kind]) :], *fsd_row[len(chosen[kind]) :]):
            axes.set_visible(False)
        lcs_row[0].set_ylabel(f"{kind} pair\nLCS similarity")
        fsd_row[0].set_ylabel(f"{kind} pair\nFSD match")
    middle = (columns + 1) // 2
    bar = _bar_below(figure, similarities, grid[:, :middle], "LCS similarity (cosine)")
    _name_threshold(bar, threshold)
    _bar_below(figure, cosines, grid[:, middle:], "FSD match (cosine)")
    _path_legend(figure, grid.ravel(), "LCS: matched, in order; FSD: best alignment")
    return figure


def _lcs_path_row(
    panels: Sequence[Axes], own: Mapping[str, Any], chosen: Sequence[int], look: Look
) -> None:
    """Similarities with the matched cells at the chosen ones of the epochs."""
    for axes, at in zip(panels, chosen, strict=False):
        _cells(axes, own["similarity"][at], look, own["paths"][at])
        axes.set_title("ACM-Net" if at == 0 else f"epoch {own['epochs'][at]:g}")
        axes.set_xlabel(f"LCS {_matched_sum(own['similarity'][at], own['paths'][at]):.2f}")


def _fsd_path_row(
    panels: Sequence[Axes], own: Mapping[str, Any], chosen: Sequence[int], look: Look, gamma: float
) -> None:
    """Matches with the best path at the chosen ones of the epochs."""
    values = _fsd_values(own["match"], own["gap"], gamma)
    for axes, at in zip(panels, chosen, strict=False):
        _cells(axes, own["match"][at], look, own["fsd_paths"][at])
        axes.set_xlabel(f"FSD {values[at]:.2f}")


@styled
def plot_alignment_values(values: pd.DataFrame) -> Figure:
    """FSD and LCS of positive and negative pairs over the epochs of FTCL's training.

    Args:
        values: `epoch` (0: the trained ACM-Net), `kind` ("positive" or "negative"), `measure` ("FSD"
            or "LCS"), `value`. Of several values of an epoch the mean is drawn.
    """
    known = values.dropna(subset=["value"])
    if known.empty:
        return nothing_to_show("no alignment was looked at during the training")
    figure = new_figure(height_in=2.8)
    panels = figure.subplots(1, 2)
    for axes, (measure, name) in zip(panels, _LONG_NAMES.items(), strict=True):
        for kind, grey in _GREYS.items():
            own = known[(known["measure"] == measure) & (known["kind"] == kind)]
            mean = own.groupby("epoch")["value"].mean()
            style = {"linestyle": "-" if kind == "positive" else "--", "color": grey}
            axes.plot(mean.index, mean, marker="o", ms=4, label=f"{kind} pair", **style)
        axes.set(xlabel="epoch (0: ACM-Net)", title=f"{name}\n(higher: better aligned)")
        axes.set_ylabel(measure)
        axes.xaxis.get_major_locator().set_params(integer=True)
    add_legend_below(figure, panels[0], columns=2)
    return figure


def _cut(names: Iterable[object]) -> list[str]:
    """Texts of at most `LONGEST_NAME` characters; long ones lose the end of their first word."""
    short = []
    for text in map(str, names):
        word, space, rest = text.partition(" ")
        left = max(LONGEST_NAME - 1 - len(space + rest), 1)  # for the word
        is_long = len(text) > LONGEST_NAME
        short.append(f"{word[:left]}…{space}{rest}"[:LONGEST_NAME] if is_long else text)
    return short


def _cells(
    axes: Axes,
    values: ArrayLike,
    look: Look,
    path: ArrayLike = (),
    first: int = 1,
    numbered: bool = False,
) -> None:
    """A table as an image: cell (i, j) stands at i + first, j + first, and a path over it.

    Args:
        axes: to draw in.
        values: (n, m).
        look: colours.
        path: (K, 2), cells from 0, counted without the border of zeros.
        first: 0 for a table with the border, 1 for one without.
        numbered: write the values into the cells, if they fit.
    """
    values = np.asarray(values, dtype=float)
    axes.grid(visible=False)
    if not values.size:
        return
    rows, columns = values.shape
    start = first - 0.5
    axes.imshow(
        values,
        aspect="auto",
        cmap=look[0],
        norm=look[1],
        extent=(start, start + columns, start + rows, start),
        interpolation="nearest",
    )
    numbered = numbered and max(rows, columns) <= MAX_NUMBERED + 1 - first
    path = np.asarray(path, dtype=int).reshape(-1, 2) + 1
    size = 0 if numbered else float(np.clip(60 / max(rows, columns), 2, 4))
    _path(axes, path, size)
    if numbered:
        _numbers(axes, values, look, first, set(map(tuple, path.tolist())))


def _path(axes: Axes, path: np.ndarray, size: float) -> None:
    """A line through the cells (K, 2), with dots of `size` points, or none."""
    if not len(path):
        return
    dots = {"marker": "o", "markersize": size} if size else {}
    look = {"color": "black", "linewidth": 1.2, "path_effects": _white_edge(), "clip_on": False}
    axes.plot(path[:, 1], path[:, 0], label=_PATH, **look, **dots)


def _white_edge() -> list[AbstractPathEffect]:
    """Black lines are seen on every colour."""
    from matplotlib.patheffects import Normal, withStroke

    return [withStroke(linewidth=2.6, foreground="white"), Normal()]


def _path_legend(
    figure: Figure, panels: Iterable[Axes], meaning: str, more: Iterable[Artist] = ()
) -> None:
    """What the path of the first panel that has one means, and `more`, below the figure."""
    paths = [line for axes in panels for line in axes.lines if line.get_label() == _PATH]
    handles, labels = [*paths[:1], *more], [meaning] * bool(paths)
    labels += [str(artist.get_label()) for artist in more]
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))


def _titles(left: Axes, right: Axes, name: str, title: str, width: int) -> None:
    """The name of a pair, lines of `width` characters that may reach beyond `left`, and a title."""
    lines = [as_written(line) for line in textwrap.wrap(name, width)]
    place = {"xycoords": "axes fraction", "xytext": (0, 6), "textcoords": "offset points"}
    text = left.annotate("\n".join(lines), (0, 1), **place, fontsize=10.5, fontweight="bold")
    text.set_in_layout(False)  # a title this wide would push the panels apart
    right.set_title("\n" * (len(lines) - 1) + title)


def _numbers(
    axes: Axes, values: np.ndarray, look: Look, first: int, on_path: set[tuple[int, int]]
) -> None:
    """The values, two decimals, in the cells; those of the path in a frame that its line joins."""
    colours, norm = look
    for (row, column), value in np.ndenumerate(values):
        if not np.isfinite(value):
            continue
        place = (row + first, column + first)
        fill = colours(norm(value))
        ink = "white" if np.dot(fill[:3], (0.299, 0.587, 0.114)) < 0.5 else "black"
        text = axes.text(
            *place[::-1],
            f"{value:z.2f}",  # z: no minus before zero
            ha="center",
            va="center",
            fontsize=7.5,
            color=ink,
        )
        if place in on_path:
            text.set_bbox({"boxstyle": "round,pad=0.2", "facecolor": fill, "edgecolor": "black"})
            text.get_bbox_patch().set_path_effects(_white_edge())


def _truth_lanes(axes: Axes, first: int, row_inside: ArrayLike, column_inside: ArrayLike) -> None:
    """Thin lanes left of the rows and above the columns, black where a candidate is true action.

    Args:
        axes: has the cells of n rows and m columns.
        first: as for `_cells`.
        row_inside, column_inside: booleans (n,) and (m,).
    """
    rows, columns = (np.asarray(inside, dtype=bool) for inside in (row_inside, column_inside))
    start = first - 0.5
    width, height = 0.035 * (len(columns) + 1), 0.035 * (len(rows) + 1)  # of the lanes
    for inside, colour in ((False, "background"), (True, "truth")):
        look = {"color": COLOURS[colour], "linewidth": 0}
        own = np.flatnonzero(rows == inside) + 1
        axes.barh(own, width, left=start - 1.8 * width, height=1, **look)
        own = np.flatnonzero(columns == inside) + 1
        axes.bar(own, height, bottom=start - 1.8 * height, width=1, **look)
    axes.set_xlim(start - 2 * width, len(columns) + 0.5)
    axes.set_ylim(len(rows) + 0.5, start - 2 * height)
    axes.set_xticks(_counts(len(columns)))
    axes.set_yticks(_counts(len(rows)))
    axes.spines[:].set_visible(False)


def _counts(last: int) -> list[int]:
    """Ticks for snippets 1 .. last: the first, and three or four round ones."""
    step = 1 if last <= 5 else 5 * -(-last // 20)
    return sorted({*([1] if last else []), *range(step, last + 1, step)})


def _stacked(tables: Iterable[ArrayLike]) -> np.ndarray:
    """All finite values, flat."""
    flat = np.concatenate([np.zeros(0), *(np.ravel(table) for table in tables)]).astype(float)
    return flat[np.isfinite(flat)]


def _cosine_look(tables: Iterable[ArrayLike]) -> Look:
    """Colours for cosines: 0 to 1, or about 0 if one of them would be written with a minus."""
    import matplotlib
    from matplotlib.colors import Normalize

    if _stacked(tables).min(initial=0) <= -0.005:
        return matplotlib.colormaps["RdBu_r"], Normalize(-1, 1)
    return matplotlib.colormaps["cividis"], Normalize(0, 1)


def _sum_look(tables: Iterable[ArrayLike]) -> Look:
    """Colours for tables of sums, 0 within their range."""
    import matplotlib
    from matplotlib.colors import Normalize

    values = _stacked(tables)
    low, high = values.min(initial=0), values.max(initial=0)
    return matplotlib.colormaps["cividis"], Normalize(low, high if high > low else low + 1)


def _threshold_look(tables: Iterable[ArrayLike], threshold: float) -> Look:
    """Greys up to the threshold, colours above it, each for half of the colour bar."""
    import matplotlib
    from matplotlib.colors import ListedColormap, TwoSlopeNorm

    values = _stacked(tables)
    low = np.floor(10 * min(values.min(initial=1), threshold - 0.1)) / 10
    high = max(1.0, values.max(initial=0), threshold + 0.01)
    greys = matplotlib.colormaps["Greys"](np.linspace(0, 0.55, 128))
    above = matplotlib.colormaps["YlOrBr"](np.linspace(0.35, 0.85, 128))
    return ListedColormap(np.vstack([greys, above])), TwoSlopeNorm(threshold, low, high)


def _bar_below(figure: Figure, look: Look, panels: np.ndarray, label: str) -> Colorbar:
    """A colour bar under these panels."""
    from matplotlib.cm import ScalarMappable

    mappable = ScalarMappable(cmap=look[0], norm=look[1])
    shape = {"location": "bottom", "aspect": 30, "shrink": 0.9, "pad": 0.02}
    bar = figure.colorbar(mappable, ax=list(panels.ravel()), **shape)
    bar.set_label(label)
    bar.ax.grid(visible=False)
    return bar


def _name_threshold(bar: Colorbar, threshold: float) -> None:
    """Ticks at the ends of the bar of `_threshold_look`, and at the threshold with what it means."""
    low, high = bar.norm.vmin, bar.norm.vmax
    names = [f"{low:g}", f"matches above {threshold:g}", f"{high:g}"]
    bar.set_ticks([low, threshold, high], labels=names)
    bar.minorticks_off()


def _matched_sum(similarity: ArrayLike, path: ArrayLike) -> float:
    """LCS: the sum of the similarities (n, m) at the matched cells (K, 2)."""
    cells = np.asarray(path, dtype=int).reshape(-1, 2)
    return float(np.asarray(similarity, dtype=float)[cells[:, 0], cells[:, 1]].sum())


def _fsd_values(match: ArrayLike, gap: ArrayLike, gamma: float) -> list[float]:
    """FSD of S tables (S, n, m)."""
    both = (torch.as_tensor(np.asarray(table, dtype=float)) for table in (match, gap))
    return fine_grained_sequence_distance(*both, gamma).tolist()
