"""Figures of the data and of the first two stages; the visual language is that of `figures`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fustal_core.annotations import in_segments
from fustal_core.figures import (
    COLOURS,
    add_legend_below,
    as_bars,
    as_written,
    colour_of,
    new_figure,
    styled,
    use_log_seconds,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 18  # of durations
MAX_CHANNELS = 128  # rows of the heat map


@styled
def plot_dataset(segments: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """Instances per class, and how long they last, beside the published statistics.

    Args:
        segments: truth of a subset: `label`, `t_start`, `t_end` (s).
        published: index class; `instances`, `duration_s_median`, `duration_s_p10`,
            `duration_s_p90` for the same subset; None for data without published statistics.
    """
    seconds = (segments["t_end"] - segments["t_start"]).groupby(segments["label"])
    table = seconds.describe(percentiles=[0.1, 0.5, 0.9])
    table = table.sort_values("count", kind="stable")
    places = np.arange(len(table))
    figure = new_figure(height_in=1.3 + 0.2 * len(table))
    left, right = figure.subplots(1, 2, sharey=True)
    left.barh(places, table["count"], color=COLOURS["student"], height=0.62, label="this data")
    median = {"color": "white", "markeredgecolor": COLOURS["student"], "linestyle": "none"}
    right.hlines(places, table["10%"], table["90%"], color=COLOURS["student"], linewidth=4)
    right.plot(table["50%"], places, marker="o", **median)
    if published is not None:
        known = published.reindex(table.index)
        marks = {"color": COLOURS["FP"], "linestyle": "none"}
        left.plot(known["instances"], places, marker="|", ms=11, mew=2, label="published", **marks)
        for name in ("duration_s_p10", "duration_s_p90"):
            right.plot(known[name], places + 0.32, marker="|", ms=6, mew=1.4, **marks)
        right.plot(known["duration_s_median"], places + 0.32, marker="^", ms=5, **marks)
        left.plot([], [], marker="^", ms=5, label="published median duration", **marks)
    left.plot([], [], marker="o", label="this data's median duration", **median)
    left.set_yticks(places, table.index.map(as_written))
    left.set_ylim(-0.6, len(table) - 0.4)
    left.set(xlabel="instances", title="instances per class")
    use_log_seconds(right)
    right.set_title("10 %, median, 90 % of durations")
    add_legend_below(figure, left, columns=2)
    return figure


@styled
def plot_durations(segments: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """Histogram of all durations, over what the published statistics of its classes lead to expect.

    Args:
        segments: `label`, `t_start`, `t_end` (s).
        published: index class; `log_duration_mean`, `log_duration_sd` of the natural logarithm of
            seconds. The curve is the sum of the classes' log-normals, with this data's counts.
    """
    from scipy.special import ndtr

    seconds = (segments["t_end"] - segments["t_start"]).to_numpy()
    edges = _duration_edges(seconds)
    figure = new_figure(height_in=2.4)
    axes = figure.subplots()
    axes.hist(seconds, bins=edges, color=COLOURS["student"], alpha=0.8, label="this data")
    if published is not None:
        rows = published.loc[segments["label"]]
        mean, sd = rows["log_duration_mean"].to_numpy(), rows["log_duration_sd"].to_numpy()
        below = ndtr((np.log(edges)[:, None] - mean) / sd).sum(1)
        centres = np.sqrt(edges[1:] * edges[:-1])
        label = "from the published statistics"
        axes.plot(centres, np.diff(below), "--", color=COLOURS["FP"], label=label)
    use_log_seconds(axes)
    axes.set_ylabel("instances")
    axes.legend()
    return figure


def _duration_edges(seconds: np.ndarray) -> np.ndarray:
    """Some `BINS` logarithmic bins, their edges halfway between tenths of a second.

    Annotations are rounded to 0.1 s: edges anywhere else give neighbouring short bins different
    numbers of possible durations, and the histogram a comb that is not in the data.
    """
    first = max(np.floor(10 * seconds.min()) / 10 - 0.05, 0.05)
    last = np.ceil(10 * seconds.max()) / 10 + 0.05
    inner = np.round(10 * np.geomspace(first, last, BINS + 1) - 0.5) / 10 + 0.05
    return np.unique(np.concatenate([[min(first, seconds.min())], inner[1:-1], [last]]))


@styled
def plot_features(features: np.ndarray, seconds_per_snippet: float, truth: pd.DataFrame) -> Figure:
    """One video's features as a heat map, its true segments below.

    Channels are sorted by how much stronger they are inside the segments than outside (strongest at
    the top), and scaled each from its minimum to its 98th percentile; of more than `MAX_CHANNELS`,
    evenly spaced ones of that order are shown. Classes are in the order of the Timeline.

    Args:
        features: (T, D).
        seconds_per_snippet: stride in seconds.
        truth: `label`, `t_start`, `t_end` (s) of this video.
    """
    end_s = len(features) * seconds_per_snippet
    centres = (np.arange(len(features)) + 0.5) * seconds_per_snippet
    inside = in_segments(centres, truth)
    low, high = features.min(0), np.percentile(features, 98, axis=0)
    scaled = (features - low) / np.where(high > low, high - low, 1)
    if inside.any() and not inside.all():
        contrast = scaled[inside].mean(0) - scaled[~inside].mean(0)
        scaled = scaled[:, np.argsort(-contrast, kind="stable")]
    count = min(MAX_CHANNELS, scaled.shape[1])
    scaled = scaled[:, np.linspace(0, scaled.shape[1] - 1, count).astype(int)]
    lane_in = 0.2 + 0.17 * truth["label"].nunique()
    figure = new_figure(height_in=2.7 + lane_in)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.0, lane_in])
    image = above.imshow(
        np.clip(scaled, 0, 1).T,
        aspect="auto",
        extent=(0, end_s, count, 0),
        cmap="cividis",
        interpolation="nearest",
    )
    above.grid(visible=False)
    above.set_ylabel("channels, sorted")
    above.yaxis.get_major_locator().set_params(integer=True)
    bar = figure.colorbar(image, ax=[above, below], aspect=30, pad=0.01)
    bar.set_ticks([0, 1], labels=["minimum", "98th\npercentile"])
    bar.set_label("channel by itself", labelpad=-24)
    _truth_lane(below, truth)
    below.set(xlabel="time (s)", xlim=(0, end_s))
    return figure


def _truth_lane(axes: Axes, truth: pd.DataFrame) -> None:
    """One row per class of true segments."""
    labels = sorted(truth["label"].unique())
    for row, label in enumerate(labels):
        own = truth[truth["label"] == label]
        place = (row - 0.4, 0.8)
        axes.broken_barh(as_bars(own), place, facecolors=COLOURS["truth"], linewidth=0)
    axes.set_yticks(range(len(labels)), [as_written(x) for x in labels], fontsize=8)
    axes.set_ylim(max(len(labels), 1) - 0.4, -0.6)  # the first on top, as in the Timeline
    axes.grid(visible=False, axis="y")


@styled
def plot_mining(
    actionness: np.ndarray,
    inner: np.ndarray,
    outer: np.ndarray,
    mined: Mapping[str, np.ndarray],
    seconds_per_snippet: float,
    truth: pd.DataFrame | None = None,
) -> Figure:
    """Snippet mining on one video: median, inner and outer rims, and the snippets mined.

    Args:
        actionness: (T,).
        inner, outer: booleans (T,), rims of the active runs, inside and outside.
        mined: name (`easy action`, `hard action`, `easy background`, `hard background`) ->
            snippet numbers.
        seconds_per_snippet: stride in seconds.
        truth: `label`, `t_start`, `t_end` (s), drawn as a band to compare; never used in mining.
    """
    times = (np.arange(len(actionness)) + 0.5) * seconds_per_snippet
    median = float(np.median(actionness))
    figure = new_figure(height_in=3.9)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1])
    above.plot(times, actionness, color=COLOURS["actionness"], label="actionness $a_t$")
    above.axhline(median, color=COLOURS["other"], linestyle="--", linewidth=1, label="median")
    for mask, colour, name in ((inner, "selected", "inner rim"), (outer, "student", "outer rim")):
        _shade(above, times, mask, seconds_per_snippet, COLOURS[colour], name)
    above.set(ylabel="actionness", xlim=(0, times[-1] + seconds_per_snippet / 2))
    colours = {
        "easy action": COLOURS["TP"],
        "hard action": COLOURS["selected"],
        "easy background": COLOURS["other"],
        "hard background": COLOURS["student"],
    }
    names = list(mined)
    for row, name in enumerate(names):
        own = times[np.asarray(mined[name], dtype=int)]
        below.plot(own, np.full(len(own), row), "|", color=colours[name], ms=9, mew=1.3)
    if truth is not None:
        place = (len(names) - 0.3, 0.6)
        below.broken_barh(as_bars(truth), place, facecolors=COLOURS["truth"], linewidth=0)
        names = [*names, "truth"]
    below.set_yticks(range(len(names)), names)
    below.set_ylim(len(names) - 0.4, -0.6)
    below.grid(visible=False, axis="y")
    below.set_xlabel("time (s)")
    add_legend_below(figure, above, columns=4)
    return figure


def _shade(
    axes: Axes, times: np.ndarray, mask: np.ndarray, width_s: float, colour: str, name: str
) -> None:
    """Vertical bands over the marked snippets."""
    spans = [(time - width_s / 2, width_s) for time in times[np.asarray(mask, dtype=bool)]]
    axes.broken_barh(
        spans,
        (0, 1),
        transform=axes.get_xaxis_transform(),
        facecolors=colour,
        alpha=0.35,
        linewidth=0,
        label=name,
    )


@styled
def plot_selection_plane(proposals: pd.DataFrame, gamma: float, eta: float) -> Figure:
    """Every proposal in the plane of confidence and IoU score, with the two thresholds.

    Args:
        proposals: `score` (confidence), `iou_score`, `true_positive` (bool).
        gamma, eta: thresholds on IoU score and confidence; what lies above and right is selected.
    """
    figure = new_figure(height_in=3.4)
    grid = figure.subplots(1, 2, sharex=True, sharey=True)
    highest = proposals["iou_score"].quantile([0.98, 1.0]).fillna(0.0)
    top = float(np.ceil(max(1.0, 1.5 * gamma, highest[0.98])))
    for axes, kind, wanted in zip(grid, ("FP", "TP"), (False, True), strict=True):
        own = proposals[proposals["true_positive"] == wanted]
        kept = (own["score"] > eta) & (own["iou_score"] >= gamma)
        size = float(np.clip(4000 / max(len(proposals), 1), 2, 14))
        axes.scatter(
            own["score"],
            own["iou_score"].clip(upper=top),
            s=size,
            color=COLOURS[kind],
            alpha=0.45,
            linewidths=0,
            rasterized=True,
        )
        axes.axhline(gamma, color="black", linewidth=1, linestyle="--")
        axes.axvline(eta, color="black", linewidth=1, linestyle=":")
        word = {"FP": "false", "TP": "true"}[kind]
        axes.set_title(f"{len(own):,} {word}; {int(kept.sum()):,} selected")
        axes.set_xlabel("confidence")
    cut = f" (cut at {top:g})" if highest[1.0] > top else ""
    grid[0].set_ylabel(f"IoU score $s_i${cut}")
    grid[0].set_ylim(-0.03 * top, 1.15 * top)  # room for the name of eta above all dots
    grid[0].annotate(f"$\\gamma$ = {gamma:g}", (1, gamma), **_edge("y"))
    grid[0].annotate(f"$\\eta$ = {eta:g}", (eta, 1), **_edge("x"))
    return figure


def _edge(axis: str) -> dict[str, object]:
    """Placement of a threshold's name at the end of its line."""
    if axis == "y":
        look = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
        return {**look, "xytext": (-2, 1), "textcoords": "offset points"}
    look = {"xycoords": ("data", "axes fraction"), "ha": "left", "va": "top"}
    return {**look, "xytext": (3, -1), "textcoords": "offset points"}


@styled
def plot_generator_history(history: pd.DataFrame) -> Figure:
    """Losses of one or several generators over the iterations.

    Args:
        history: columns `method`, `iteration`, `classification`, `in_video`, `cross_video` (the
            contrasts before their weights); faint lines are the values of single iterations, full
            ones their running mean over a twentieth of the training.
    """
    figure = new_figure(height_in=2.5)
    panels = figure.subplots(1, 3)
    columns = ("classification", "in_video", "cross_video")
    titles = ("$L_{cls}$", "in-video contrast", "cross-video contrast")
    for axes, column, title in zip(panels, columns, titles, strict=True):
        for method, own in history.groupby("method", sort=False):
            colour = colour_of(str(method))
            smooth = own[column].rolling(max(1, len(own) // 20), min_periods=1).mean()
            axes.plot(own["iteration"], own[column], color=colour, alpha=0.2, linewidth=0.8)
            axes.plot(own["iteration"], smooth, color=colour, label=str(method))
        axes.set(xlabel="iteration", title=title)
    add_legend_below(figure, panels[0], columns=3)
    return figure
