"""Figures of the results: the main table, pseudo-label quality, the IoU-score histogram, classes.

The visual language is that of `figures`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fustal_core.ema_quality import EMA_LABELS
from fustal_core.figures import (
    COLOURS,
    add_legend_below,
    as_written,
    colour_of,
    new_figure,
    styled,
)
from fustal_core.metrics import AVERAGE, THUMOS_TIOU

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


HOLLOW_MARKERS = "s^Dvp<h>Xd"  # a published row's own; measured rows have filled circles


def _markers(rows: pd.DataFrame) -> list[str]:
    """The mark of each row, the same in every panel: published rows differ by it alone."""
    published = rows["origin"] != "measured"
    number = published.cumsum() - 1
    return [
        HOLLOW_MARKERS[n % len(HOLLOW_MARKERS)] if hollow else "o"
        for n, hollow in zip(number, published, strict=True)
    ]


def _tiou_curve(axes: Axes, row: pd.Series, marker: str) -> None:
    """One line of mAP over tIoU; thresholds without a figure are left out, never interpolated."""
    measured = row["origin"] == "measured"
    values = row[[f"mAP@{t:g}" for t in THUMOS_TIOU]].to_numpy(dtype=float)
    known = np.isfinite(values)
    axes.plot(
        np.asarray(THUMOS_TIOU)[known],
        values[known],
        color=colour_of(row["method"]) if measured else COLOURS["published"],
        linestyle="-" if measured else (0, (4, 2)),
        marker=marker,
        markerfacecolor=None if measured else "white",
        linewidth=1.9 if measured else 1.0,
        label=f"{row['method']} ({row['origin']})",
    )


def _average_panel(axes: Axes, rows: pd.DataFrame, markers: Sequence[str]) -> None:
    """The averages as one mark a row, the value beside it.

    The ceiling would squash all others: where it is the highest, its value is written at the end of
    the axis, after an arrow.
    """
    ceiling = rows["method"].str.contains("ceiling").to_numpy()
    others = rows.loc[~ceiling, AVERAGE]
    beyond = ceiling & (rows[AVERAGE].to_numpy() > others.max())  # False if there are no others
    for place, (_, row) in enumerate(rows.iterrows()):
        if beyond[place]:
            _off_the_axis(axes, place, row[AVERAGE])
            continue
        measured = row["origin"] == "measured"
        colour = colour_of(row["method"]) if measured else COLOURS["published"]
        face = colour if measured else "white"
        axes.plot(row[AVERAGE], place, markers[place], color=colour, markerfacecolor=face)
        axes.annotate(
            f"{row[AVERAGE]:.1f}",
            (row[AVERAGE], place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    # Two lines fit: a name too long for 20 characters a line gets longer ones.
    widths = (0.58 * rows["method"].str.len()).astype(int).clip(lower=20)
    names = [textwrap.fill(name, width) for name, width in zip(rows["method"], widths, strict=True)]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    on_axis = rows.loc[~beyond, AVERAGE]
    low, high = on_axis.min(), on_axis.max()
    axes.set_xlim(max(0.0, low - 5), high + max(6.0, 0.25 * (high - low)))


def _off_the_axis(axes: Axes, place: int, value: float) -> None:
    axes.annotate(
        f"{value:.1f} $\\rightarrow$",
        (1, place),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="center",
        fontsize=8.5,
        fontweight="bold",
    )


@styled
def plot_main_results(main: pd.DataFrame) -> Figure:
    """The main table as a picture: mAP over tIoU, and the average over 0.1:0.7 of every row.

    Args:
        main: columns of `main_results.csv` (`method`, `data`, `origin` measured|published,
            `mAP@t` and averages in percent). A published row without thresholds appears on the
            right only, one without the average nowhere; a ceiling above all others is a number at the
            end of the right axis.
    """
    main = main[main[AVERAGE].notna()]
    order = main.sort_values("origin", kind="stable").reset_index(drop=True)  # measured first
    figure = new_figure(height_in=max(3.0, 1.2 + 0.33 * order[AVERAGE].notna().sum()))
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1.0])
    _results_panels(left, right, order)
    left.set_title("mAP over tIoU")
    right.set_title("average")
    _mark_origins(left, order)
    return figure


def _results_panels(left: Axes, right: Axes, order: pd.DataFrame) -> None:
    """Rows of a results table: mAP over tIoU on the left, averages on the right, the same marks."""
    markers = _markers(order)
    for (_, row), marker in zip(order.iterrows(), markers, strict=True):
        _tiou_curve(left, row, marker)
    left.set(xlabel="tIoU threshold", ylabel="mAP (%)")
    left.set_ylim(bottom=0)
    left.set_xticks(THUMOS_TIOU)
    known = order[AVERAGE].notna()
    _average_panel(right, order[known], [markers[i] for i in order.index[known]])
    right.set_xlabel(f"mAP, {AVERAGE} (%)")


def _mark_origins(axes: Axes, rows: pd.DataFrame) -> None:
    """A legend of two entries that names the data behind filled and behind hollow marks."""
    from matplotlib.lines import Line2D

    looks = {
        "measured": {"color": "#333333", "marker": "o"},
        "published": {
            "color": COLOURS["published"],
            "marker": "s",
            "markerfacecolor": "white",
            "linestyle": (0, (4, 2)),
            "linewidth": 1.0,
        },
    }
    handles = []
    for origin, rest in rows.groupby("origin", sort=True):
        data = as_written(", ".join(sorted(set(rest["data"].astype(str)))))
        handles.append(Line2D([], [], label=f"{origin}: {data}", **looks[str(origin)]))
    axes.figure.legend(handles=handles, loc="outside lower center", ncols=2)


@styled
def plot_calibration(table: pd.DataFrame) -> Figure:
    """The calibration of the simulated data: the measured baseline over CoLA's published row.

    `table` has the columns of `main_results.csv`; the band is 40 +- 3 in the average.
    """
    figure = new_figure(height_in=2.9)
    left, right = figure.subplots(1, 2, width_ratios=[1.2, 1.0])
    order = table.sort_values("origin", kind="stable").reset_index(drop=True)
    right.axvspan(37, 43, color=COLOURS["background"], alpha=0.35, linewidth=0)
    _results_panels(left, right, order)
    low, high = right.get_xlim()
    right.set_xlim(min(low, 33), max(high, 47))
    left.set_title("fall over tIoU")
    right.set_title("average; band: 40 ± 3")
    _mark_origins(left, order)
    return figure


QUALITY_METRICS: dict[str, str] = {
    "precision@0.5": "precision at tIoU 0.5",
    "recall@0.5": "recall at tIoU 0.5",
    "f1@0.5": "F1 at tIoU 0.5",
    "mean_tiou": "mean tIoU of matched pairs",
}


@styled
def plot_quality_along_pipeline(quality: pd.DataFrame) -> Figure:
    """The study's main picture: how good the pseudo labels are after each step of the pipeline.

    Args:
        quality: one row per step and epoch, in pipeline order: `step` (name), `epoch` (NA where a
            step has none), `precision@0.5`, `recall@0.5`, `f1@0.5`, `mean_tiou` (fractions). Steps
            with epochs are lines: EMA labels thick, what they are compared with thin.
    """
    figure = new_figure(height_in=4.6)
    panels = figure.subplots(2, 2, sharex=True).ravel()
    fixed = quality[quality["epoch"].isna()]
    lines = quality[quality["epoch"].notna()].astype({"epoch": float}).sort_values("epoch")
    epochs = np.unique(lines["epoch"])
    places = _epoch_places(len(fixed), epochs)
    for axes, (name, title) in zip(panels, QUALITY_METRICS.items(), strict=True):
        _fixed_steps(axes, fixed["step"], 100 * fixed[name])
        highest = 100 * lines.groupby("step")[name].last().max()
        for step, own in lines.groupby("step"):
            values = 100 * own[name].to_numpy(dtype=float)
            at = places[np.searchsorted(epochs, own["epoch"])]
            _epoch_line(axes, at, values, str(step), highest)
        if len(epochs):
            axes.axvline(places[0] - 0.5, color=COLOURS["other"], linewidth=0.8, linestyle=":")
        axes.set_title(f"{title} (%)")
        axes.set_ylim(0, min(105.0, max(10.0, 1.25 * 100 * quality[name].max())))
    shown = np.unique(np.linspace(0, len(places) - 1, min(3, len(places))).astype(int))
    for axes in panels[2:]:
        axes.set_xticks(places[shown], [f"{epochs[i]:.0f}" for i in shown])
        axes.set_xlabel("epoch of EMA labels" if len(epochs) else "", loc="right")
    handles, labels = panels[0].get_legend_handles_labels()
    order = np.argsort([label in set(lines["step"]) for label in labels], kind="stable")
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside lower center",
        ncols=3,
    )
    return figure


def _fixed_steps(axes: Axes, steps: pd.Series, values: pd.Series) -> None:
    for place, (step, value) in enumerate(zip(steps, values, strict=True)):
        axes.bar(place, value, width=0.7, color=colour_of(step), label=step)
        axes.annotate(f"{value:.0f}", (place, value), xytext=(0, 2), ha="center", **_SMALL)


EPOCH_SPAN = 3.0  # width of the epochs' part of the axis, in steps
_SMALL = {"textcoords": "offset points", "fontsize": 8.5}


def _epoch_places(start: int, epochs: np.ndarray) -> np.ndarray:
    if not len(epochs):
        return np.zeros(0)
    first, last = epochs.min(), epochs.max()
    return start + EPOCH_SPAN * (epochs - first) / max(last - first, 1)


def _epoch_line(
    axes: Axes, places: np.ndarray, values: np.ndarray, step: str, highest: float
) -> None:
    """A step over the epochs; the EMA's last value is named on the side where no line ends.

    highest: last value of any step.
    """
    ema = step == EMA_LABELS
    look = {"marker": "o", "markersize": 4, "zorder": 3} if ema else {"linewidth": 1.0}
    axes.plot(places, values, color=colour_of(step), label=step, **look)
    last = (places[-1], values[-1])
    if ema and np.isfinite(values[-1]):
        aside = (0, 5) if values[-1] >= highest else (0, -13)
        axes.annotate(f"{values[-1]:.0f}", last, xytext=aside, ha="center", **_SMALL)


@styled
def plot_iou_score_histogram(
    measured: pd.DataFrame, paper: pd.DataFrame, data: str = "this run"
) -> Figure:
    """True and false positives over the IoU score, this run beside the paper's counts.

    Args:
        measured, paper: columns `bin_low`, `bin_high` (edges of the IoU score), `true_positives`,
            `false_positives` (counts). A last bin that is open (`bin_high` infinite) is set apart.
        data: what was measured on, for the title.
    """
    figure = new_figure(height_in=4.6)
    grid = figure.subplots(2, 2, sharex=True, height_ratios=[1.5, 1.0])
    sides = ((measured, f"measured\n{data}"), (paper, "paper\nTHUMOS'14 (real)"))
    for column, (table, title) in enumerate(sides):
        above, below = grid[:, column]
        centre, is_open = _bin_centres(table)
        for shift, kind in ((-0.021, "FP"), (0.021, "TP")):
            name = {"FP": "false", "TP": "true"}[kind]
            counts = table[f"{name}_positives"]
            above.bar(centre + shift, counts, width=0.04, color=COLOURS[kind], label=name)
        true, false = table["true_positives"], table["false_positives"]
        share = (100 * true / (true + false).where(true + false > 0)).to_numpy(dtype=float)
        below.plot(centre[~is_open], share[~is_open], "o-", color=COLOURS["TP"])
        below.plot(centre[is_open], share[is_open], "o", color=COLOURS["TP"])
        above.set_title(as_written(title))
        below.set(xlabel="IoU score $s_i$", ylim=(0, 100))
        below.set_xticks(
            [0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.15], ["0", ".2", ".4", ".6", ".8", "1", ">1"]
        )
    grid[0, 0].set(ylabel="proposals", xlim=(0, 1.22))
    grid[1, 0].set_ylabel("share of true (%)")
    add_legend_below(figure, grid[0, 0], columns=2)
    return figure


def _bin_centres(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Places of the bars, and which bins are open."""
    is_open = ~np.isfinite(table["bin_high"].to_numpy(dtype=float))
    centre = (table["bin_low"] + table["bin_high"]).to_numpy(dtype=float) / 2
    return np.where(is_open, 1.15, centre), is_open


@styled
def plot_class_ap(per_class: pd.DataFrame) -> Figure:
    """One row per class, one mark per method.

    Args:
        per_class: index or column `label`, every other column a method, values AP in percent.
            Rows are sorted by the last method's AP.
    """
    table = per_class.set_index("label") if "label" in per_class else per_class
    table = table.sort_values(by=table.columns[-1], kind="stable")
    figure = new_figure(height_in=1.2 + 0.21 * len(table))
    axes = figure.subplots()
    places = np.arange(len(table))
    axes.hlines(places, table.min(axis=1), table.max(axis=1), color="#CCCCCC", linewidth=1.5)
    markers = "osD^v"
    for number, method in enumerate(table.columns):
        marker = markers[number % len(markers)]
        axes.plot(table[method], places, marker, color=colour_of(str(method)), label=str(method))
    axes.set_yticks(places, table.index.map(as_written))
    axes.set_ylim(-0.7, len(table) - 0.3)
    axes.set(xlabel="AP (%)", title="AP per class, mean over tIoU 0.1:0.7")
    add_legend_below(figure, axes, columns=min(4, len(table.columns)))
    return figure
