"""Segments one can look at: evaluating a `Timeline` in a notebook cell draws it.

One video, one time axis in seconds. Below: a lane per layer (truth, proposals, selected pseudo
labels, student ...) and class. Above, when given: curves such as the T-CAS of a class or the
actionness.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fustal_core.figures import COLOURS, as_written, colour_of, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_SEGMENTS = 60  # per lane: a student has up to 2000 detections a video, a picture has not
CURVE_COLOURS = ("#0072B2", "#E69F00", "#CC79A7", "#56B4E9", "#D55E00", "#8A8A2E", "#999999")


@dataclass(frozen=True)
class Lane:
    """Segments of one layer and one class (or of `other` classes), best first.

    `rows` gives each segment's row, chosen so that no two of a row overlap; `hidden` counts the
    weaker segments left out.
    """

    layer: str
    label: str
    segments: pd.DataFrame
    rows: np.ndarray
    hidden: int


def pack_rows(segments: np.ndarray) -> np.ndarray:
    """(N,2) start, end in seconds -> (N,) row numbers: first come, lowest free row."""
    rows = np.zeros(len(segments), dtype=int)
    for i in range(1, len(segments)):
        earlier = segments[:i]
        overlaps = (earlier[:, 0] < segments[i, 1]) & (segments[i, 0] < earlier[:, 1])
        taken = set(rows[:i][overlaps])
        rows[i] = next(row for row in range(i + 1) if row not in taken)
    return rows


@dataclass(frozen=True)
class Timeline:
    """Layers of segments of one video, with a picture as its rich display.

    Args:
        layers: layer name -> frame with `t_start`, `t_end` (s), `label`, optionally `score` and
            `video`. Classes of the first layer get a lane of their own in every layer, all others
            share one named `other classes`.
        video: which video; where frames name several and this is left empty, the first by name.
        curves: name -> (times in s (T,), values (T,)), drawn above the lanes.
        duration_s: right end of the time axis; by default the last end.
        title: by default the name of the video.

    Raises:
        ValueError: a layer lacks a needed column (named), or the video is in no layer.
    """

    layers: Mapping[str, pd.DataFrame]
    video: str = ""
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    duration_s: float | None = None
    title: str = ""

    def __post_init__(self) -> None:
        tables = self.layers
        for name, table in tables.items():
            missing = {"t_start", "t_end", "label"} - set(table.columns)
            if missing:
                raise ValueError(f"layer {name!r} lacks the column(s) {sorted(missing)}")
        videos = sorted({v for t in tables.values() if "video" in t for v in t["video"].unique()})
        video = self.video or (videos[0] if videos else "")
        if self.video and videos and self.video not in videos:
            raise ValueError(f"no segment of video {self.video!r}; there are {', '.join(videos)}")
        tables = {
            name: (t[t["video"] == video] if "video" in t else t).reset_index(drop=True)
            for name, t in tables.items()
        }
        object.__setattr__(self, "video", video)
        object.__setattr__(self, "layers", tables)

    def lanes(self) -> list[Lane]:
        """The lanes from top to bottom, layers in the order given."""
        first = next(iter(self.layers.values()), pd.DataFrame({"label": []}))
        own = tuple(sorted(first["label"].unique()))
        return [lane for name, t in self.layers.items() for lane in _layer_lanes(name, t, own)]

    @property
    def end_s(self) -> float:
        """Right end of the time axis in seconds."""
        if self.duration_s is not None:
            return float(self.duration_s)
        ends = [t["t_end"].max() for t in self.layers.values() if len(t)]
        ends += [times[-1] for times, _ in self.curves.values()]
        return float(max(ends, default=1.0))

    @styled
    def figure(self) -> Figure:
        """The picture: curves above, lanes below, one axis in seconds."""
        lanes = self.lanes()
        heights = [0.75 + 0.12 * int(lane.rows.max(initial=0)) for lane in lanes]
        lanes_in = 0.45 + 0.42 * sum(heights)
        curves_in = 1.15 if self.curves else 0.0
        figure = new_figure(height_in=0.5 + lanes_in + curves_in)
        if self.curves:
            above, below = figure.subplots(2, 1, sharex=True, height_ratios=[curves_in, lanes_in])
            self._draw_curves(above)
        else:
            above = below = figure.subplots()
        _draw_lanes(below, lanes, heights)
        below.set_xlim(0, self.end_s)
        below.set_xlabel("time (s)")
        above.set_title(as_written(self.title or self.video))
        return figure

    def _draw_curves(self, axes: Axes) -> None:
        others = iter(CURVE_COLOURS * len(self.curves))
        for name, (times, values) in self.curves.items():
            colour = COLOURS["actionness"] if "actionness" in name else next(others)
            axes.plot(times, values, color=colour, linewidth=1.2, label=name)
        axes.set_ylim(bottom=0)
        axes.figure.legend(loc="outside upper right", ncols=3, fontsize=8)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.figure().savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        return buffer.getvalue()

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(table)} {name}" for name, table in self.layers.items())
        return f"Timeline({self.video}: {counts})"


def _layer_lanes(layer: str, table: pd.DataFrame, own: tuple[str, ...]) -> list[Lane]:
    """Lanes of one layer: its own classes first, then one for all others."""
    parts = [(label, table[table["label"] == label]) for label in own]
    parts.append(("other classes", table[~table["label"].isin(own)]))
    lanes = []
    for label, part in parts:
        if part.empty:
            continue
        if "score" in part:
            part = part.sort_values("score", ascending=False, kind="stable")
        else:
            part = part.sort_values("t_start", kind="stable")
        shown = part.head(MAX_SEGMENTS).reset_index(drop=True)
        rows = pack_rows(shown[["t_start", "t_end"]].to_numpy(dtype=float))
        lanes.append(Lane(layer, str(label), shown, rows, len(part) - len(shown)))
    return lanes or [Lane(layer, "none", table.head(0), np.zeros(0, dtype=int), 0)]


def _draw_lanes(axes: Axes, lanes: list[Lane], heights: list[float]) -> None:
    bottom = -np.cumsum(heights)
    names = []
    for lane, low, height in zip(lanes, bottom, heights, strict=True):
        _draw_lane(axes, lane, low + 0.06, height - 0.12)
        count = f", best {len(lane.segments)}" if lane.hidden else ""
        names.append(f"{lane.layer}\n{as_written(lane.label)}{count}")
    axes.set_yticks(bottom + np.asarray(heights) / 2, names, fontsize=7.5, linespacing=1.0)
    axes.set_ylim(bottom[-1] if len(bottom) else -1, 0)
    axes.grid(visible=False, axis="y")
    axes.hlines(bottom[:-1], 0, 1, transform=axes.get_yaxis_transform(), color="#DDDDDD", lw=0.7)
    axes.tick_params(axis="y", length=0)


def _draw_lane(axes: Axes, lane: Lane, low: float, height: float) -> None:
    """Bars of one lane; the stronger the score, the fuller the colour."""
    if lane.segments.empty:
        return
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    step = height / (lane.rows.max() + 1)
    segments = lane.segments
    bars = [
        Rectangle((start, low + row * step), end - start, 0.86 * step)
        for start, end, row in zip(segments["t_start"], segments["t_end"], lane.rows, strict=True)
    ]
    alpha = np.ones(len(segments))
    if "score" in segments:
        alpha = 0.25 + 0.75 * (segments["score"] / max(segments["score"].max(), 1e-9)).clip(0, 1)
    bars_drawn = PatchCollection(bars, facecolor=colour_of(lane.layer), linewidth=0)
    bars_drawn.set_alpha(np.asarray(alpha))
    axes.add_collection(bars_drawn)
