"""Figures that compare generators, and what FTCL's terms are worth, over seeds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fustal_core.figures import (
    COLOURS,
    PUBLISHED,
    add_legend_below,
    colour_of,
    new_figure,
    nothing_to_show,
    styled,
)
from fustal_core.metrics import AVERAGE
from fustal_core.naming import STEPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

F1 = "f1@0.5"
GENERATOR_MARKERS = {
    "CoLA": "s",
    "FuSTAL generator": "o",
    "ACM-Net": "^",
    "FTCL": "D",
    "HR-Pro (snippets)": "p",
    "HR-Pro": "P",
}
_OTHER_MARKERS = "vXh*"
_DASHES = ("--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)))  # of published values


@styled
def plot_terms(rows: pd.DataFrame, published: Mapping[str, float] | None = None) -> Figure:
    """What each of FTCL's terms is worth: test mAP of the variants, a dot per seed.

    A diamond is the mean; whiskers reach one standard deviation (n - 1 in the denominator) to each
    side, where there are two seeds or more. Both are written at the right.

    Args:
        rows: `variant`, `seed`, `avg 0.1:0.7` (percent; NaN: not measured). Variants from the top, in
            order of their first rows.
        published: name -> average mAP in percent: a hollow mark on the line of the variant of that
            name; a dashed vertical line where there is none.
    """
    if rows[AVERAGE].isna().all():
        return nothing_to_show("no variant was measured")
    published = published or {}
    variants = list(dict.fromkeys(rows["variant"]))
    names = [textwrap.fill(str(variant), 26) for variant in variants]
    lines = 1 + max((name.count("\n") for name in names), default=0)
    figure = new_figure(height_in=1.5 + (0.24 + 0.13 * lines) * len(variants))
    axes = figure.subplots()
    for place, variant in enumerate(variants):
        values = rows.loc[rows["variant"] == variant, AVERAGE].dropna().to_numpy(dtype=float)
        draw_strip(axes, place, values, colour_of(str(variant)))
    many = rows.dropna(subset=[AVERAGE])["variant"].duplicated().any()
    name_strip_marks(axes, many)
    hollow = {"color": COLOURS["published"], "markerfacecolor": "white", "linestyle": "none"}
    label = PUBLISHED
    for name in [name for name in variants if name in published]:
        place = variants.index(name)
        axes.plot(published[name], place, "s", ms=6, zorder=4, label=label, **hollow)
        label = None  # once in the legend
    others = [name for name in published if name not in variants]
    for number, name in enumerate(others):
        dashes = {"linestyle": _DASHES[number % len(_DASHES)], "linewidth": 1.2}
        colour = COLOURS["published"]
        axes.axvline(published[name], color=colour, label=f"{name}, {PUBLISHED}", **dashes)
    axes.set_yticks(range(len(variants)), names)
    axes.set_ylim(max(len(variants), 1) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.08)
    axes.set_xlabel(f"test mAP, {AVERAGE} (%)")
    axes.annotate(
        "mean ± sd" if many else "mean", (1, 1), xytext=(8, 3), fontweight="bold", **AT_THE_RIGHT
    )
    add_legend_below(figure, axes, columns=4)
    return figure


@styled
def plot_generators(rows: pd.DataFrame) -> Figure:
    """How good the generators are, and the labels and students that they lead to.

    Left: test mAP after each step. Right: F1 of the training labels before and after selection. Faint
    dots are seeds, lines join the means; a step that a generator lacks leaves a gap.

    Args:
        rows: `generator`, `step` (those of `STEPS`, in this order; others come after), `seed`,
            `avg 0.1:0.7` (percent) and `f1@0.5` (fraction); NaN: not measured.
    """
    if rows[[AVERAGE, F1]].isna().all(axis=None):
        return nothing_to_show("no generator was measured")
    figure = new_figure(height_in=3.4)
    left, right = figure.subplots(1, 2, width_ratios=[1.6, 1.0])
    generators = list(dict.fromkeys(rows["generator"]))
    spare = iter(_OTHER_MARKERS * len(generators))
    markers = [_marker_of(str(name)) or next(spare) for name in generators]
    percent = rows.assign(**{F1: 100 * rows[F1]})
    for axes, measure in ((left, AVERAGE), (right, F1)):
        known = percent.dropna(subset=[measure])
        there = set(known["step"])
        steps = list(dict.fromkeys(step for step in (*STEPS, *known["step"]) if step in there))
        for number, (name, marker) in enumerate(zip(generators, markers, strict=True)):
            own = known[known["generator"] == name]
            # Side by side, so that equal values do not hide each other.
            places = np.arange(len(steps)) + 0.07 * (number - (len(generators) - 1) / 2)
            seeds = places[[steps.index(step) for step in own["step"]]]
            mean = own.groupby("step")[measure].mean().reindex(steps)
            look = {"color": colour_of(str(name)), "marker": marker}
            axes.plot(seeds, own[measure], linestyle="none", alpha=0.35, ms=3.5, mew=0, **look)
            axes.plot(places, mean, ms=6.5, label=str(name), **look)
        axes.set_xticks(range(len(steps)), [textwrap.fill(str(step), 10) for step in steps])
        axes.set_xlim(-0.4, max(len(steps), 1) - 0.6)
        if known.empty:
            axes.set_yticks(())
            axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
        axes.grid(visible=False, axis="x")
    left.set(title="found in test videos", ylabel=f"mAP, {AVERAGE} (%)")
    right.set(title="labels of training videos", ylabel="F1 at tIoU 0.5 (%)")
    add_legend_below(figure, left, columns=4)
    return figure


@styled
def plot_pair_values(values: pd.DataFrame) -> Figure:
    """FSD and LCS of random positive and negative pairs of videos, one row of panels a model.

    Args:
        values: `model`, `kind` ("positive" or "negative"), `FSD`, `LCS`.
    """
    if values.empty:
        return nothing_to_show("no pair of videos to align")
    models = list(dict.fromkeys(values["model"]))
    figure = new_figure(height_in=0.9 + 1.6 * len(models))
    grid = figure.subplots(len(models), 2, squeeze=False, sharex="col")
    for row, model in zip(grid, models, strict=True):
        own = values[values["model"] == model]
        for axes, measure in zip(row, ("FSD", "LCS"), strict=True):
            low, high = values[measure].min(), values[measure].max()
            bins = np.linspace(low, high if high > low else low + 1, 26)
            for kind, colour in (("positive", COLOURS["TP"]), ("negative", COLOURS["FP"])):
                chosen = own.loc[own["kind"] == kind, measure]
                look = {"color": colour, "alpha": 0.55, "label": f"{kind} pairs"}
                axes.hist(chosen, bins=bins, **look)
            area = separation(own, measure)
            axes.set_title(f"{model}: {measure}, {area:.2f}")
        row[0].set_ylabel("pairs")
    for axes, measure in zip(grid[-1], ("FSD", "LCS"), strict=True):
        axes.set_xlabel(f"{measure} of a pair")
    add_legend_below(figure, grid[0, 0], columns=2)
    return figure


def separation(values: pd.DataFrame, measure: str) -> float:
    """How often a positive pair's value is above a negative one's, ties by half: the ROC's area.

    values: `kind` and the measure. NaN if a kind is missing.
    """
    above, below = (
        values.loc[values["kind"] == kind, measure].to_numpy() for kind in ("positive", "negative")
    )
    if not len(above) or not len(below):
        return float("nan")
    difference = above[:, None] - below
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


AT_THE_RIGHT = {
    "xycoords": "axes fraction",
    "textcoords": "offset points",
    "fontsize": 9,
    "annotation_clip": False,
}


def _marker_of(generator: str) -> str | None:
    """By its name, which something in brackets may follow."""
    own = [name for name in GENERATOR_MARKERS if f"{generator} (".startswith(f"{name} (")]
    return GENERATOR_MARKERS[max(own, key=len)] if own else None


def draw_strip(axes: Axes, place: int, values: np.ndarray, colour: str) -> None:
    """One variant: its seeds (percent) a little below the line, mean and deviation above."""
    text = "not measured"
    if len(values):
        mean, text = values.mean(), f"{values.mean():.1f}"
        seeds = np.full(len(values), place + 0.18)
        axes.plot(values, seeds, "o", color=colour, ms=4.5, alpha=0.6, mew=0)
        axes.plot(mean, place - 0.08, "D", color=colour, ms=6, zorder=3)
    if len(values) > 1:
        deviation = values.std(ddof=1)
        text += f" ± {deviation:.1f}"
        reach = [mean - deviation, mean + deviation]
        axes.plot(reach, [place - 0.08] * 2, "|-", color=colour, ms=8, mew=1.5)
    look = {**AT_THE_RIGHT, "xycoords": ("axes fraction", "data")}
    axes.annotate(text, (1, place), xytext=(8, 0), va="center", **look)


def name_strip_marks(axes: Axes, deviations: bool) -> None:
    """Entries of the legend for what `draw_strip` draws, in no variant's colour."""
    marks = {"a seed": ("o", 4.5), "mean": ("D", 6)}
    if deviations:
        marks["standard deviation"] = ("|-", 8)
    for name, (form, size) in marks.items():
        axes.plot([], [], form, color="#333333", ms=size, label=name)
