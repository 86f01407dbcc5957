"""Figures of `fustal evaluate` and `fustal audit`; the visual language is that of `figures`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fustal_core.figures import COLOURS, add_legend_below, as_written, new_figure, styled
from fustal_core.metrics import precision_recall
from fustal_core.quality import KINDS, assign, boundary_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

WIDE_IN = 10.5
MAX_NAMED = 40  # classes with a panel and a row of their own; more are laid over each other
MAX_BARS = 30  # classes with a bar in the audit
RANK_BINS = 20

# A kind that is false is a tint of the study's colour of what is false.
KIND_COLOURS: dict[str, str] = {
    "true": COLOURS["TP"],
    "duplicate": "#F9D9BF",
    "localisation": "#EFA36B",
    "wrong class": COLOURS["FP"],
    "background": COLOURS["background"],
}


@styled
def plot_evaluation(
    detections: pd.DataFrame,
    truth: pd.DataFrame,
    table: pd.DataFrame,
    tiou: float,
    *,
    plus_one: bool = False,
) -> Figure:
    """Precision over recall of each class, and AP by class and threshold.

    Args:
        detections, truth: as in `metrics.detection_map`.
        table: what `detection_map` made of them, fractions; classes without truth may be added.
        tiou: the column of `table` whose curves are drawn.
        plus_one: as for `table`.
    """
    curves = _steps(precision_recall(detections, truth, tiou, plus_one=plus_one))
    table = 100 * table.sort_values(by=tiou, ascending=False, kind="stable")
    named = len(table) <= MAX_NAMED
    height = max(3.2, 1.3 + 0.27 * len(table)) if named else 6.0
    figure = new_figure(height_in=height, width_in=WIDE_IN)
    left, right = figure.subfigures(1, 2, width_ratios=[1.35, 1.0])
    title = f"precision over recall at tIoU {tiou:g}; mAP {table[tiou].mean():.1f} %"
    left.suptitle(title, **_TITLE)
    if named:
        _curve_panels(left, curves, table[tiou])
    else:
        _curves_in_one(left.subplots(), curves, table[tiou])
    right.suptitle("AP (%) by class and tIoU threshold", **_TITLE)
    _ap_map(right, table, named)
    return figure


_TITLE = {"fontsize": 10.5, "x": 0.02, "ha": "left"}


def _steps(curve: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Class -> recalls (P + 1,) and the precision up to each (P + 1,), both fractions.

    Only where recall rises is there area, so that is all that is drawn; the first recall is 0.
    """
    steps = {}
    for label, part in curve.groupby("label", sort=False):
        recall, precision = part["recall"].to_numpy(float), part["monotone"].to_numpy(float)
        rises = np.diff(recall, prepend=0) > 0
        if rises.any():
            precision = precision[rises]
            steps[label] = np.append(0, recall[rises]), np.append(precision[0], precision)
    return steps


def _curve_panels(
    figure: SubFigure, curves: dict[str, tuple[np.ndarray, np.ndarray]], ap: pd.Series
) -> None:
    """One small panel a class, the area under its curve filled."""
    columns = min(4, len(ap))
    grid = figure.subplots(-(-len(ap) // columns), columns, sharex=True, sharey=True, squeeze=False)
    panels = grid.ravel()
    for axes, (label, value) in zip(panels, ap.items(), strict=False):
        if label in curves:
            recall, precision = curves[label]
            axes.fill_between(
                recall, precision, step="pre", color=COLOURS["TP"], alpha=0.25, linewidth=0
            )
            axes.step(recall, precision, where="pre", color=COLOURS["TP"], linewidth=1.4)
        axes.set_title(_short(str(label), 19), fontsize=8.5, pad=3)
        place = {"xy": (0.97, 0.93), "xycoords": "axes fraction", "ha": "right", "va": "top"}
        axes.annotate(f"{value:.1f}", **place, fontsize=8.5, fontweight="bold")
    for axes in panels[len(ap) :]:
        axes.set_visible(False)
    panels[0].set(xlim=(0, 1), ylim=(0, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    for number, axes in enumerate(panels):
        axes.tick_params(labelbottom=number + columns >= len(ap))  # nothing shown below it
        axes.set_xticklabels(["0", ".5", "1"], fontsize=8)
        axes.set_yticklabels(["0", ".5", "1"], fontsize=8)
    figure.supxlabel("recall", fontsize=10)
    figure.supylabel("precision", fontsize=10)


def _short(label: str, limit: int) -> str:
    return as_written(label if len(label) <= limit else f"{label[: limit - 1]}…")


def _curves_in_one(
    axes: Axes, curves: dict[str, tuple[np.ndarray, np.ndarray]], ap: pd.Series
) -> None:
    """All curves faint, and their mean, under which the area is the mAP."""
    grid = np.linspace(0, 1, 501)
    total = np.zeros(len(grid))
    faint = min(0.8, 50 / len(ap))
    for recall, precision in curves.values():
        axes.step(
            recall, precision, where="pre", color=COLOURS["other"], alpha=faint, linewidth=0.7
        )
        at = np.searchsorted(recall, grid, side="left")
        total += np.where(at < len(recall), precision[np.minimum(at, len(recall) - 1)], 0)
    mean = total / len(ap)
    axes.plot(grid, mean, color=COLOURS["TP"], linewidth=2.5, label=f"mean of {len(ap)} classes")
    axes.set(xlim=(0, 1), ylim=(0, 1.03), xlabel="recall", ylabel="precision")
    axes.legend(loc="upper right")


def _ap_map(figure: SubFigure, table: pd.DataFrame, named: bool) -> None:
    """Colours for AP in percent, numbers where they fit; the first class of the table on top."""
    import seaborn

    fits = named and table.shape[1] <= 10
    axes = figure.subplots()
    seaborn.heatmap(
        table,
        ax=axes,
        cmap="cividis",
        vmin=0,
        vmax=100,
        annot=fits,
        fmt=".0f",
        annot_kws={"fontsize": 8},
        cbar=not fits,
        cbar_kws={"aspect": 30, "pad": 0.02},
        xticklabels=[f"{t:g}" for t in table.columns],
        yticklabels=[_short(str(label), 24) for label in table.index] if named else False,
    )
    axes.tick_params(length=0, labelrotation=0)
    axes.set_xlabel("tIoU threshold")
    axes.set_ylabel("" if named else f"{len(table)} classes, best first")


@styled
def plot_audit(labels: pd.DataFrame, truth: pd.DataFrame, *, plus_one: bool = False) -> Figure:
    """What the proposals are: kinds by score rank and by class, and how far their borders are off.

    Args: as in `quality.assign`.
    """
    kinds = assign(labels, truth, plus_one=plus_one)["kind"].to_numpy()
    names = labels["label"].to_numpy()
    shares = pd.crosstab(names, kinds).reindex(columns=list(KINDS), fill_value=0)
    most = shares.sum(axis=1).sort_values(ascending=False, kind="stable").index[:MAX_BARS]
    figure = new_figure(height_in=max(5.4, 1.6 + 0.2 * len(most)), width_in=WIDE_IN)
    axes = figure.subplot_mosaic([["rank", "class"], ["borders", "class"]])
    best_first = np.argsort(-labels["score"].to_numpy(float), kind="stable")
    _kinds_by_rank(axes["rank"], kinds[best_first])
    _borders(axes["borders"], boundary_errors(labels, truth, plus_one=plus_one))
    of = "by class" if len(most) == len(shares) else f"of the {len(most)} most proposed classes"
    _kinds_by_class(axes["class"], shares.loc[most])
    axes["class"].set_title(f"kinds, and number, {of}")
    add_legend_below(figure, axes["rank"], columns=len(KINDS))
    return figure


def _kinds_by_rank(axes: Axes, kinds: np.ndarray) -> None:
    """Shares of the kinds in bins of equally many proposals, best score first; kinds (N,)."""
    bins = np.array_split(kinds, min(RANK_BINS, max(len(kinds), 1)))
    edges = 100 * np.cumsum([0, *map(len, bins)]) / max(len(kinds), 1)
    bottom = np.zeros(len(bins))
    for kind in KINDS:
        share = np.array([100 * np.mean(part == kind) if len(part) else 0.0 for part in bins])
        look = {"color": KIND_COLOURS[kind], "label": kind, "align": "edge", "linewidth": 0}
        axes.bar(edges[:-1], share, width=np.diff(edges), bottom=bottom, **look)
        bottom += share
    axes.set(xlim=(0, 100), ylim=(0, 100), ylabel="proposals (%)")
    axes.set_xlabel("rank by score, best first (% of the proposals)")
    axes.set_title(f"kinds by score; {len(kinds):,} proposals")


def _kinds_by_class(axes: Axes, counts: pd.DataFrame) -> None:
    """Shares of the kinds (columns) of each class's proposals, the class with most true on top."""
    number = counts.sum(axis=1)
    shares = 100 * counts.div(number, axis=0)
    shares = shares.sort_values(by=list(KINDS), kind="stable")
    left = np.zeros(len(shares))
    places = np.arange(len(shares))
    for kind in KINDS:
        width = shares[kind].to_numpy()
        axes.barh(places, width, left=left, height=0.75, color=KIND_COLOURS[kind], linewidth=0)
        left += width
    axes.set_yticks(places, [_short(str(label), 24) for label in shares.index])
    for place, label in zip(places, shares.index, strict=True):
        axes.annotate(f"{number[label]:,}", (101, place), va="center", fontsize=8)
    axes.set(xlim=(0, 112), ylim=(-0.6, max(len(shares), 1) - 0.4), xlabel="proposals (%)")
    axes.set_xticks(range(0, 101, 20))
    axes.grid(visible=False, axis="y")


def _borders(axes: Axes, errors: pd.DataFrame) -> None:
    """Where the borders of the true proposals lie; start and end in the colours of the trident."""
    edges = np.linspace(-1, 1, 41)
    for side, colour in (("start", COLOURS["student"]), ("end", COLOURS["selected"])):
        values = 100 * errors[side].clip(-1, 1)
        median = f", median {values.abs().median():.0f} % off" if len(values) else ""
        axes.hist(values, bins=100 * edges, histtype="stepfilled", color=colour, alpha=0.2)
        look = {"histtype": "step", "color": colour, "linewidth": 1.6, "label": f"{side}{median}"}
        axes.hist(values, bins=100 * edges, **look)
    axes.axvline(0, color=COLOURS["truth"], linewidth=1)
    axes.set(
        xlim=(-100, 100), ylim=(0, max(1.0, 1.35 * axes.get_ylim()[1])), ylabel="true proposals"
    )
    axes.set_xlabel("border minus true border (% of the true length)")
    axes.set_title(f"borders of the {len(errors):,} true proposals")
    axes.legend(loc="upper left")
