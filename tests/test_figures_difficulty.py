"""The figure of easier and harder data shows what was measured, the default ringed."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fustal_core.difficulty import DEFAULT, KNOBS, gains, settings_grid
from fustal_core.figures import COLOURS, save_figure
from fustal_core.figures_difficulty import plot_difficulty, plot_turned
from fustal_core.metrics import AVERAGE
from fustal_core.simulator_settings import SimulatorSettings

pytestmark = pytest.mark.filterwarnings("error")  # of matplotlib: a layout that does not fit

METHODS = ("CoLA", "FuSTAL generator", "student", "student + EMA")
LABELS = ("all proposals", "selected proposals")


def some_rows(knobs: tuple[str, ...], seeds: int = 2, methods: int = 2) -> pd.DataFrame:
    rng, rows, usual = np.random.default_rng(0), [], SimulatorSettings()
    for seed in range(seeds):
        for knob, value, _ in settings_grid(usual, knobs):
            default = np.nan if knob == DEFAULT else getattr(usual, knob)
            about = {"knob": knob, "value": value, "default": default, "seed": seed}
            for name in METHODS[:methods]:
                rows.append(about | {"measured": name, AVERAGE: rng.uniform(20, 40)})
            for name in LABELS:
                rows.append(about | {"measured": name, "f1@0.5": rng.uniform(0, 0.3)})
    return pd.DataFrame(
        rows, columns=["knob", "value", "default", "seed", "measured", AVERAGE, "f1@0.5"]
    )


def panels(figure: Figure) -> dict[str, tuple[Axes, Axes]]:
    """Knob -> its panel of methods and that of gains below."""
    axes = figure.axes
    above = [one for one in axes if one.get_title(loc="left")]
    below = {}
    for one in above:
        place = one.get_subplotspec()
        below[one] = next(
            other
            for other in axes
            if other.get_subplotspec().rowspan.start == place.rowspan.start + 1
            and other.get_subplotspec().colspan == place.colspan
        )
    return {one.get_title(loc="left"): (one, below[one]) for one in above}


def line(axes: Axes, label: str) -> Line2D:
    (found,) = [one for one in axes.lines if one.get_label() == label]
    return found


def rings(axes: Axes) -> list[tuple[float, float]]:
    found = [x for x in axes.lines if x.get_markerfacecolor() == "none" and len(x.get_xdata())]
    return sorted((float(x.get_xdata()[0]), float(x.get_ydata()[0])) for x in found)


def test_lines_are_the_means_and_the_default_is_ringed() -> None:
    rows = some_rows(("video_shift", "noise"))
    drawn = panels(plot_difficulty(rows))
    assert list(drawn) == ["video shift", "noise"]
    gained = gains(rows)
    for title, (above, below) in drawn.items():
        knob = title.replace(" ", "_")
        own = rows[(rows["measured"] == "CoLA") & rows["knob"].isin([knob, DEFAULT])]
        usual = getattr(SimulatorSettings(), knob)
        mean = own.fillna({"value": usual}).groupby("value")[AVERAGE].mean()
        cola = line(above, "CoLA")
        np.testing.assert_allclose(cola.get_ydata(), mean)
        np.testing.assert_allclose(cola.get_xdata(), mean.index, atol=0.05 * np.ptp(mean.index))
        assert to_hex(cola.get_color()).upper() == COLOURS["CoLA"]
        at = list(mean.index).index(usual)
        assert (cola.get_xdata()[at], pytest.approx(mean[usual])) in rings(above)
        assert len(rings(above)) == len(rings(below)) >= 2
        selection = gained.query("mechanism == 'selection' and knob == @knob")
        expected = selection.groupby("value")["gain"].mean()
        found = line(below, "selection: gain in F1 of labels")
        np.testing.assert_allclose(found.get_ydata(), expected)
        assert to_hex(found.get_color()).upper() == COLOURS["selected"]
        assert [x.get_text() for x in below.get_xticklabels()] == [f"{x:g}" for x in mean.index]


def test_seeds_and_their_reach_are_drawn() -> None:
    rows = some_rows(("video_shift",), seeds=3)
    ((above, _),) = panels(plot_difficulty(rows)).values()
    own = rows[rows["measured"] == "CoLA"]
    shown = np.concatenate([x.get_ydata() for x in above.lines if x.get_alpha() == 0.35])
    assert set(own[AVERAGE]) <= set(shown.tolist())
    reach = own.fillna({"value": 1.0}).groupby("value")[AVERAGE].agg(["min", "max"])
    bars = np.array([x[:, 1] for x in above.collections[0].get_segments()])
    np.testing.assert_allclose(bars, reach)


def test_zero_is_in_every_panel_of_gains_and_scales_are_shared() -> None:
    drawn = panels(plot_difficulty(some_rows(tuple(KNOBS), methods=4)))
    *names, last = KNOBS
    assert last == "noise_correlation_s"
    assert list(drawn) == [*(name.replace("_", " ") for name in names), "noise correlation (s)"]
    for kind in (0, 1):
        limits = {pair[kind].get_ylim() for pair in drawn.values()}
        assert len(limits) == 1
    low, high = limits.pop()
    assert low < 0 < high


@pytest.mark.parametrize("methods", [2, 4])
def test_everything_has_a_name(methods: int) -> None:
    figure = plot_difficulty(some_rows(tuple(KNOBS), methods=methods))
    (legend,) = figure.legends
    names = {text.get_text() for text in legend.get_texts()}
    assert {*METHODS[:methods], "default"} <= names
    assert len(names) == methods + (2 if methods == 2 else 4) + 1
    figure.draw_without_rendering()
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


@pytest.mark.parametrize(("count", "seeds"), [(1, 1), (2, 2), (4, 1)])
def test_any_number_of_knobs_can_be_written(count: int, seeds: int, tmp_path: Path) -> None:
    rows = some_rows(tuple(KNOBS)[:count], seeds)
    figure = plot_difficulty(rows)
    assert len(panels(figure)) == count
    assert len(figure.axes) == 2 * count
    written = save_figure(figure, tmp_path / "figure")
    again = save_figure(plot_difficulty(rows), tmp_path / "again")
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in again]


def test_all_knobs_at_a_glance() -> None:
    """A row for each knob: its lowest value, the default and its highest, with the seeds' reach."""
    rows = some_rows(("video_shift", "noise", "noise_correlation_s"), seeds=3, methods=4)
    gained = gains(rows)
    contrast, selection, *_ = plot_turned(gained).axes
    assert contrast.get_title(loc="left") == "cross-video\ncontrast"
    rows_of = [text.get_text() for text in contrast.get_yticklabels()]
    assert rows_of == ["video shift", "noise", "noise correlation (s)"]
    (legend,) = contrast.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "turned down",
        "default",
        "turned up",
    ]
    for axes, mechanism, unit, colour in (
        (contrast, "cross-video contrast", "test mAP, avg 0.1:0.7", "cross-video"),
        (selection, "selection", "F1 of labels at tIoU 0.5", "selected"),
    ):
        assert axes.get_xlabel().replace("\n", " ") == f"gain in {unit}, points"
        own = gained[gained["mechanism"] == mechanism]
        by_value = own.groupby(["knob", "value"], sort=False)["gain"].agg(["mean", "min", "max"])
        marks = {x.get_marker(): x for x in axes.lines if len(x.get_xdata()) == 3}
        # From each row's highest value, drawn above, to its lowest.
        for marker, place in ((">", 2), ("o", 1), ("<", 0)):
            assert to_hex(marks[marker].get_color()).upper() == COLOURS[colour]
            np.testing.assert_allclose(marks[marker].get_xdata(), by_value["mean"].iloc[place::3])
        bars = np.concatenate([np.array(bars.get_segments()) for bars in axes.collections])
        bars = bars[np.lexsort((-bars[:, 0, 1], bars[:, 0, 1].round()))]
        np.testing.assert_allclose(bars[:, :, 0], by_value[["min", "max"]])
        assert [x.get_xdata() for x in axes.lines if x.get_marker() == "None"] == [[0, 0]]


@pytest.mark.parametrize("methods", [2, 4])
def test_what_is_gained_fits_under_its_panel(methods: int) -> None:
    figure = plot_turned(gains(some_rows(tuple(KNOBS)[:6], methods=methods)))
    figure.draw_without_rendering()
    boxes = [axes.xaxis.label.get_window_extent() for axes in figure.axes]
    assert len(boxes) == methods
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    assert boxes[-1].x1 <= figure.bbox.x1


def test_a_default_that_is_an_end_is_the_default() -> None:
    """Shares are cut at 1, and a single factor turns a knob one way."""
    rows = some_rows(("video_shift",))
    gained = gains(rows[rows["value"] != 2.0])
    axes = plot_turned(gained).axes[0]
    marks = {x.get_marker(): len(x.get_xdata()) for x in axes.lines if len(x.get_xdata()) == 1}
    assert gained["value"].max() == 1.0
    assert marks == {"<": 1, "o": 1}


@pytest.mark.parametrize("count", [1, 6, 15])
def test_all_knobs_at_a_glance_can_be_written(count: int, tmp_path: Path) -> None:
    gained = gains(some_rows(tuple(KNOBS)[:count], methods=4))
    written = save_figure(plot_turned(gained), tmp_path / "figure")
    again = save_figure(plot_turned(gained), tmp_path / "again")
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in again]


def test_no_gain_says_so() -> None:
    (axes,) = plot_turned(gains(some_rows(()))).axes
    assert axes.texts[0].get_text() == "no strength was turned"


@pytest.mark.parametrize("knobs", [(), None])
def test_nothing_turned_says_so(knobs: tuple[str, ...] | None) -> None:
    rows = some_rows(()) if knobs == () else some_rows(()).iloc[:0]
    (axes,) = plot_difficulty(rows).axes
    assert [text.get_text() for text in axes.texts] == ["no strength was turned"]
