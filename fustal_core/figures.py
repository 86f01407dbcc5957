"""The study's figures: one visual language, which the modules `figures_*` draw in.

The same colour means the same thing in every figure (``COLOURS``, built on the colour-blind safe
palette of Okabe and Ito). What was measured is a solid line with filled marks; what the literature
reports is dashed with hollow marks. Every function takes frames and gives back a free-standing
``matplotlib.figure.Figure``: no pyplot state is touched, nothing is shown or saved on the way.

matplotlib is imported inside the functions: importing this module costs nothing on a bare node.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

from fustal_core.files import atomic_path

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

# Names may be in any script, and a notebook would show the warning with the path of this file.
warnings.filterwarnings("ignore", "Glyph .* missing from font")

COLOURS: dict[str, str] = {
    "truth": "#000000",
    "ceiling": "#000000",  # the student trained on the truth
    "proposals": "#56B4E9",
    "cross-video": "#56B4E9",  # the generator whose proposals these are
    "floor": "#8A8A2E",  # the student trained on unselected proposals
    "confidence": "#8A8A2E",
    "selected": "#E69F00",
    "student": "#0072B2",
    "student + EMA": "#CC79A7",
    "EMA": "#CC79A7",
    "CoLA": "#8C8C8C",
    "ACM-Net": "#44AA99",
    "FTCL": "#882255",
    "HR-Pro (snippets)": "#7F6FD6",
    "HR-Pro": "#332288",
    "published": "#4D4D4D",
    "TP": "#009E73",
    "FP": "#D55E00",
    "actionness": "#009E73",
    "background": "#BBBBBB",
    "classification": "#0072B2",
    "regression": "#E69F00",
    "contrast": "#E69F00",
    "MIL": "#009E73",
    "total": "#000000",
    "other": "#999999",
}

FORMATS: dict[str, tuple[str, ...]] = {
    "png": ("Software",),
    "pdf": ("CreationDate", "Creator"),
    "svg": ("Date", "Creator"),
}
"""Endings of figure files -> what such a file would say of its making; it is left out."""

WIDTH_IN = 6.8
PUBLISHED = "published, THUMOS'14 (real)"
_CHARACTERS_IN_WIDTH = 110  # of a legend, its handles included

STYLE: dict[str, object] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "figure.dpi": 120,
}

# Words of a row's name -> key of COLOURS, the most telling first.
_NAMES: tuple[tuple[str, str], ...] = (
    ("ceiling", "ceiling"),
    ("true segments", "ceiling"),
    ("truth", "truth"),
    ("student on all", "floor"),
    ("ema", "student + EMA"),
    ("student", "student"),
    ("cross-video", "cross-video"),
    ("generator", "cross-video"),
    ("cola", "CoLA"),
    ("acm-net", "ACM-Net"),
    ("ftcl", "FTCL"),
    ("hr-pro (snippets)", "HR-Pro (snippets)"),
    ("hr-pro", "HR-Pro"),
    ("confidence", "confidence"),
    ("iou", "selected"),
    ("selected", "selected"),
    ("proposals", "proposals"),
)


def colour_of(name: str) -> str:
    """The study's colour for a method, layer or step: its own entry, else by the words in it."""
    if name in COLOURS:
        return COLOURS[name]
    lower = name.lower()
    return next((COLOURS[key] for word, key in _NAMES if word in lower), COLOURS["other"])


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function in the study's style, leaving the reader's own settings out and alone."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        from matplotlib import style

        with style.context(["default", STYLE]):
            return function(*args, **kwargs)

    return wrapper


def new_figure(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """An empty figure of the study's width (inches), not known to pyplot, laid out by itself."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained")


def nothing_to_show(text: str) -> Figure:
    """A figure that says why it is empty."""
    figure = new_figure(height_in=1.0)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
    return figure


def save_figure(figure: Figure, path: Path | str) -> list[Path]:
    """Write `path`.png and `path`.pdf (suffixes are added), each as `write_figure` does.

    The figure stays laid out as the first is. Returns the two paths.
    """
    stem = Path(path)
    png, pdf = (stem.parent / f"{stem.name}.{kind}" for kind in ("png", "pdf"))
    write_figure(figure, png)
    figure.set_layout_engine("none")
    write_figure(figure, pdf)
    return [png, pdf]


def write_figure(figure: Figure, path: Path) -> None:
    """Write one file, whole or not at all, in the format of its ending (one of `FORMATS`).

    The bytes depend on the figure alone: no date, no program version.
    """
    from matplotlib import style

    kind = path.suffix[1:].lower()
    look = {"pdf.fonttype": 42, "svg.hashsalt": "fustal"}  # the salt makes the svg's ids repeat
    with atomic_path(path) as partial, style.context(["default", look]):
        figure.savefig(partial, format=kind, dpi=150, metadata=dict.fromkeys(FORMATS[kind]))


def add_legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """The legend of `axes` under the whole figure, where it hides no data; long names, fewer columns."""
    handles, labels = axes.get_legend_handles_labels()
    fitting = _CHARACTERS_IN_WIDTH // max(map(len, labels), default=1)
    columns = max(1, min(columns, fitting))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def as_written(name: object) -> str:
    """A class's, a video's or a data set's name for a figure: its dollar signs begin no formula."""
    return str(name).replace("$", r"\$")


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of 0 .. count - 1, evenly, with both ends."""
    places = np.linspace(0, count - 1, min(count, most))
    return np.unique(places.round().astype(int)).tolist()


def as_bars(segments: pd.DataFrame) -> list[tuple[float, float]]:
    """Start and length (s) of segments with `t_start` and `t_end`, as `Axes.broken_barh` takes them."""
    lengths = segments["t_end"] - segments["t_start"]
    return list(zip(segments["t_start"], lengths, strict=True))


def use_log_seconds(axes: Axes) -> None:
    """A logarithmic time axis with ticks at 1, 2 and 5 of each decade, written out."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("duration (s)")
