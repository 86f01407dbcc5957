"""Figures of the student and of EMA distillation; the visual language is that of `figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fustal_core.figures import COLOURS, add_legend_below, colour_of, new_figure, styled
from fustal_core.metrics import AVERAGE
from fustal_core.timeline import pack_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOSSES: dict[str, str] = {
    "classification": "classification",
    "regression": "regression",
    "video": "MIL",
    "loss": "total",
}
"""Column of the training history -> the loss it holds."""
# Greys and line styles: colours are those of the methods.
_LOSS_LOOKS: dict[str, dict[str, object]] = {
    "classification": {"color": "#6E6E6E", "linestyle": "--"},
    "regression": {"color": "#6E6E6E", "linestyle": "-."},
    "video": {"color": "#B4B4B4", "linestyle": "-"},
    "loss": {"color": "#333333", "linestyle": "-"},
}


@styled
def plot_training(
    history: pd.DataFrame,
    switch_epoch: int | None = None,
    references: Mapping[str, float] | None = None,
) -> Figure:
    """Losses of the student, and test mAP over epochs with the switch to EMA labels marked.

    Args:
        history: one row per epoch: `epoch`, the columns of `LOSSES` that there are, and
            `avg 0.1:0.7` (percent, NaN where the epoch was not evaluated) of the EMA weights. With
            a column `method` the mAP of several students is drawn, and the losses of the first.
        switch_epoch: first epoch trained on EMA labels.
        references: name -> average mAP, drawn as horizontal lines (generator, ceiling ...).
    """
    figure = new_figure(height_in=3.4)
    left, right = figure.subplots(1, 2)
    if AVERAGE not in history:  # never evaluated
        history = history.assign(**{AVERAGE: np.nan})
    runs = list(history.groupby("method", sort=False)) if "method" in history else []
    runs = runs or [("student + EMA", history)]
    own = runs[0][1]
    for column, name in LOSSES.items():
        if column in own:
            left.plot(own["epoch"], own[column], label=name, **_LOSS_LOOKS[column])
    left.set(xlabel="epoch", title="training losses")
    for method, own in runs:
        known = own.dropna(subset=[AVERAGE])
        if len(known):  # a name in the legend without a line would mislead
            look = {"color": colour_of(str(method)), "label": method}
            right.plot(known["epoch"], known[AVERAGE], "o-", **look)
    for name, value in (references or {}).items():
        right.axhline(value, color=colour_of(name), linewidth=1.1, linestyle="-.", label=name)
    right.set(xlabel="epoch", title=f"test mAP, {AVERAGE} (%)")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(0, 1.12 * axes.get_ylim()[1])  # room for the name of the switch
        _mark_switch(axes, switch_epoch)
    figure.legend(handles=_drawn(left), loc="outside lower left")
    if names := _drawn(right):
        figure.legend(handles=names, loc="outside lower right")
    return figure


def _drawn(axes: Axes) -> list:
    """The lines that have a name."""
    return axes.get_legend_handles_labels()[0]


def _mark_switch(axes: Axes, switch_epoch: int | None) -> None:
    if switch_epoch is None:
        return
    axes.axvline(switch_epoch - 0.5, color="#333333", linestyle=":", linewidth=1.1)
    axes.annotate(
        "EMA labels",
        (switch_epoch - 0.5, 1),
        xycoords=("data", "axes fraction"),
        xytext=(3, -2),
        textcoords="offset points",
        va="top",
        fontsize=8,
    )


PAPER_DECAY, PAPER_STEPS, PAPER_EPOCHS, PAPER_SWITCH = 0.999, 25, 101, 61


@styled
def plot_initial_weight_share(
    history: pd.DataFrame, decay: float, steps_per_epoch: float, switch_epoch: int
) -> Figure:
    """The share of the random initial weights left in the EMA after each epoch.

    After n steps decay^n of the start is left. Left: this run, with a mark at the end of each epoch;
    right: the paper's setting, 0.999 with 25 steps an epoch: 22 % at epoch 60, 10 % at 90.
    Both axes begin before the first epoch, at -1.

    Args:
        history: `epoch`, `initial_share` (fraction at the end of the epoch).
        decay: the run's EMA decay per step.
        steps_per_epoch: steps of one epoch of the run.
        switch_epoch: first epoch with EMA labels.
    """
    figure = new_figure(height_in=2.9)
    left, right = figure.subplots(1, 2, sharey=True)
    epochs = np.linspace(-1, float(history["epoch"].max()), 200)
    curve = 100 * decay ** ((epochs + 1) * steps_per_epoch)
    left.plot(epochs, curve, color=COLOURS["EMA"], label=f"{decay:g}$^n$")
    shares = 100 * history["initial_share"]
    left.plot(history["epoch"], shares, "o", color=COLOURS["EMA"], ms=4, label="end of an epoch")
    left.set(ylabel="initial weights left (%)", title=f"this run, decay {decay:g}")
    epochs = np.arange(-1, PAPER_EPOCHS)
    curve = 100 * PAPER_DECAY ** ((epochs + 1) * PAPER_STEPS)
    right.plot(epochs, curve, color=COLOURS["published"], linestyle="--")
    for epoch in (60, 90):
        share = curve[epoch + 1]
        right.plot(epoch, share, "s", color=COLOURS["published"], markerfacecolor="white")
        right.annotate(f"{share:.0f} %", (epoch, share), xytext=(5, 5), **_OFFSET, fontsize=9)
    right.set(title=f"paper's setting, decay {PAPER_DECAY:g}")
    for axes, switch in ((left, switch_epoch), (right, PAPER_SWITCH)):
        axes.set(xlabel="after epoch (-1: before training)", ylim=(0, 105))
        _mark_switch(axes, switch)
    add_legend_below(figure, left, columns=2)
    return figure


_OFFSET = {"textcoords": "offset points"}


@styled
def plot_trident(
    start: np.ndarray, end: np.ndarray, stride_s: float, truth_s: tuple[float, float] | None = None
) -> Figure:
    """The trident distributions of one point: how far it lies from the start and from the end.

    Args:
        start: (bins + 1,) probabilities of the distances bins..0 to the left, in strides.
        end: (bins + 1,) probabilities of the distances 0..bins to the right.
        stride_s: one stride of the point's pyramid level in seconds.
        truth_s: true distances to start and end in seconds, if the point lies in a segment.

    Bins beyond the last one of more than 1 % and beyond the truth are left out.
    """
    figure = new_figure(height_in=2.5)
    axes = figure.subplots()
    bins = len(start) - 1
    left, right = np.arange(-bins, 1) * stride_s, np.arange(bins + 1) * stride_s
    width = 0.8 * stride_s
    axes.bar(left, start, width=width, color=COLOURS["student"], alpha=0.8, label="start")
    axes.bar(right, end, width=width, color=COLOURS["selected"], alpha=0.8, label="end")
    expected = float(left @ start), float(right @ end)
    for place, colour in zip(expected, ("student", "selected"), strict=True):
        axes.axvline(place, color=COLOURS[colour], linewidth=1.6)
    axes.axvline(0, color=COLOURS["other"], linewidth=1, linestyle=":")
    if truth_s is not None:
        axes.plot([-truth_s[0], truth_s[1]], [0, 0], color="black", linewidth=5, label="truth")
    likely = np.concatenate([-left[start > 0.01], right[end > 0.01], truth_s or [stride_s]])
    axes.set_xlim(-1.1 * likely.max() - stride_s, 1.1 * likely.max() + stride_s)
    axes.set(xlabel="time relative to the point (s)", ylabel="probability")
    axes.set_title("bins, and their expectation (lines)")
    add_legend_below(figure, axes, columns=3)
    return figure


@styled
def plot_pyramid(
    positives: Sequence[np.ndarray],
    times_s: Sequence[np.ndarray],
    strides_s: Sequence[float],
    labels: pd.DataFrame,
    span_s: tuple[float, float],
) -> Figure:
    """Which point of which pyramid level learns which segment.

    Args:
        positives: per level, booleans (number of points,): positive for some segment.
        times_s: per level, where its points stand (s).
        strides_s: per level, from one point to the next (s).
        labels: the segments learned from, `t_start`, `t_end` (s).
        span_s: part of the time axis shown.
    """
    figure = new_figure(height_in=0.9 + 0.34 * (len(positives) + 1))
    axes = figure.subplots()
    for level, (positive, times) in enumerate(zip(positives, times_s, strict=True)):
        shown = (times >= span_s[0]) & (times <= span_s[1])
        positive = np.asarray(positive, dtype=bool)
        rest, chosen = times[shown & ~positive], times[shown & positive]
        axes.plot(rest, np.full(len(rest), level), ".", color="#C8C8C8", ms=3)
        axes.plot(chosen, np.full(len(chosen), level), "o", color=COLOURS["student"], ms=5)
    rows = pack_rows(labels[["t_start", "t_end"]].to_numpy(dtype=float))
    height = 0.8 / (rows.max(initial=0) + 1)
    for row, start, end in zip(rows, labels["t_start"], labels["t_end"], strict=True):
        low = -1.45 + row * height
        bar = {"facecolors": COLOURS["selected"], "edgecolors": "white", "linewidth": 0.6}
        axes.broken_barh([(start, end - start)], (low, 0.9 * height), **bar)
    names = [f"level {i}, {s:.3g} s" for i, s in enumerate(strides_s)]
    axes.set_yticks([-1.05, *range(len(strides_s))], ["labels", *names])
    axes.set(xlabel="time (s)", xlim=span_s, ylim=(len(strides_s) - 0.5, -1.6))
    axes.grid(visible=False, axis="y")
    return figure
