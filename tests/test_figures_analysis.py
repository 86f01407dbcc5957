"""Figures of the analysis: what they draw is what they were given."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from fustal_core.figures import COLOURS, colour_of
from fustal_core.figures_analysis import (
    MEASURES,
    plot_chosen_videos,
    plot_generator_labels,
    plot_intervals,
    plot_labels_and_students,
    plot_labels_over_epochs,
    plot_video_differences,
)
from fustal_core.figures_evaluation import KIND_COLOURS
from fustal_core.metrics import AVERAGE
from fustal_core.naming import STEPS
from fustal_core.quality import KINDS

pytestmark = pytest.mark.filterwarnings("error")  # of matplotlib: a layout that does not fit


def drawn(figure: Figure) -> Figure:
    figure.draw_without_rendering()
    return figure


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for own in figure.legends for text in own.get_texts()]


def legend_fits(figure: Figure) -> bool:
    box = figure.legends[0].get_window_extent()
    return box.x0 >= 0 and box.x1 <= figure.bbox.width


# --- labels of the generators ---------------------------------------------------------------------


def generator_rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for generator in ("CoLA", "HR-Pro (snippets)", "FTCL"):
        for step in STEPS[:2]:
            shares = dict(zip(KINDS, rng.dirichlet(np.ones(5)), strict=True))
            measures = dict(zip(MEASURES, rng.random(3), strict=True))
            row = {"generator": generator, "step": step, "proposals": int(rng.integers(5000))}
            rows.append(row | {k.replace(" ", "_"): v for k, v in shares.items()} | measures)
    return pd.DataFrame(rows)


def test_kinds_are_stacked_to_the_whole() -> None:
    rows = generator_rows()
    figure = drawn(plot_generator_labels(rows))
    left, right = figure.axes
    bars = left.patches
    assert len(bars) == len(rows) * len(KINDS)
    for i, row in rows.iterrows():
        place = bars[i].get_y()
        own = [bar for bar in bars if bar.get_y() == place]
        widths = {to_hex(bar.get_facecolor()).upper(): bar.get_width() for bar in own}
        for kind in KINDS:
            share = row[kind.replace(" ", "_")]
            assert widths[KIND_COLOURS[kind].upper()] == pytest.approx(100 * share)
        assert max(bar.get_x() + bar.get_width() for bar in own) == pytest.approx(100)
    assert [text.strip() for text in texts(left)[: len(rows)]] == [
        f"{count:,}" for count in rows["proposals"]
    ]
    assert {*MEASURES.values(), *KINDS} == set(legend(figure))
    # A mark each for precision, recall and F1, in the generator's colour.
    marks = [line for line in right.lines if line.get_marker() != "None"]
    values = [line.get_xdata()[0] for line in marks]
    assert values == pytest.approx(
        100 * rows[["precision@0.5", "recall@0.5", "f1@0.5"]].to_numpy().ravel()
    )
    assert [line.get_color() for line in marks] == [
        colour_of(name) for name in rows["generator"] for _ in range(3)
    ]


def test_equal_measures_of_labels_do_not_hide_each_other() -> None:
    rows = generator_rows()
    rows[[*MEASURES]] = 0.4
    figure = drawn(plot_generator_labels(rows))
    right = figure.axes[1]
    lines = [line for line in right.lines if line.get_marker() != "None"]
    heights = [right.transData.transform(line.get_xydata()[0])[1] for line in lines]
    sizes = [line.get_markersize() * figure.dpi / 72 for line in lines]
    order = sorted(range(len(lines)), key=heights.__getitem__)
    for low, high in pairwise(order):
        assert heights[high] - heights[low] > (sizes[low] + sizes[high]) / 2


def test_long_names_of_generators_fit() -> None:
    rows = generator_rows()
    rows["generator"] += " (best-on-test)"
    figure = drawn(plot_generator_labels(rows))
    left = figure.axes[0]
    names = [text for text in left.texts if "best-on" in text.get_text()]
    assert len(names) == 3
    assert all(text.get_window_extent().x0 >= 0 for text in names)
    ticks = [label.get_window_extent().x0 for label in left.get_yticklabels()]
    assert max(text.get_window_extent().x1 for text in names) <= min(ticks)


# --- labels and students --------------------------------------------------------------------------


def test_students_lie_over_their_labels() -> None:
    rows = pd.DataFrame(
        {
            "labels": ["all proposals", "selected", "truth"],
            "method": ["student on all proposals", "student on selected proposals", "ceiling"],
            "precision@0.5": [0.1, 0.4, 1.0],
            "recall@0.5": [0.7, 0.4, 1.0],
            "f1@0.5": [0.2, 0.4, 1.0],
            AVERAGE: [40.0, 50.0, 90.0],
        }
    )
    figure = drawn(plot_labels_and_students(rows))
    for axes, measure in zip(figure.axes, MEASURES, strict=True):
        assert axes.get_xlabel().startswith(MEASURES[measure])
        spots = [line.get_xydata()[0].tolist() for line in axes.lines]
        assert spots == [
            pytest.approx([100 * x, y]) for x, y in zip(rows[measure], rows[AVERAGE], strict=True)
        ]
        assert len({line.get_marker() for line in axes.lines}) == len(rows)
        assert axes.get_ylim()[0] >= 0
    assert legend(figure) == [f"labels: {name}" for name in rows["labels"]]
    assert legend_fits(figure)


def epochs(**changes: object) -> pd.DataFrame:
    rows = []
    for method, score in (("student + EMA", 50.0), ("student", 40.0)):
        for epoch in range(3, 7):
            known = dict.fromkeys(MEASURES, np.nan if epoch < 4 else 0.1 * epoch)
            test = score + epoch if epoch % 2 else np.nan
            rows.append({"method": method, "epoch": epoch, **known, AVERAGE: test})
    return pd.DataFrame(rows).assign(**changes)


def test_labels_and_scores_share_the_epochs() -> None:
    figure = drawn(plot_labels_over_epochs(epochs(), 4))
    above, below = figure.axes
    curves = [line for line in above.lines if len(line.get_xdata()) == 4]
    assert len(curves) == 6
    assert {line.get_color() for line in curves} == {COLOURS["student + EMA"], COLOURS["student"]}
    assert curves[0].get_ydata()[1:] == pytest.approx([40, 50, 60])
    scores = {line.get_label(): line for line in below.lines}
    assert scores["student + EMA"].get_xydata().tolist() == [[3, 53], [5, 55]]
    assert scores["student"].get_xydata().tolist() == [[3, 43], [5, 45]]
    for axes in (above, below):
        assert any(set(line.get_xdata()) == {3.5} for line in axes.lines)
    assert "not evaluated" not in texts(below)


def test_without_evaluations_the_figure_says_so() -> None:
    figure = drawn(plot_labels_over_epochs(epochs(**{AVERAGE: np.nan}), 4))
    assert "not evaluated" in texts(figure.axes[1])
    nothing = drawn(plot_labels_over_epochs(epochs(**dict.fromkeys(MEASURES, np.nan)), 4))
    assert len(nothing.axes) == 2


def test_long_names_of_students_fit() -> None:
    table = epochs()
    table["method"] += " [generator: hr-pro-snippet] (best-on-test)"
    assert legend_fits(drawn(plot_labels_over_epochs(table, 4)))


# --- intervals ------------------------------------------------------------------------------------


def test_intervals_of_methods_and_of_differences() -> None:
    rows = [
        ("CoLA", "", 40.0, 38.0, 43.0),
        ("student on selected proposals", "", 50.0, 48.0, 52.0),
        ("student on selected proposals", "CoLA", 10.0, 7.0, 12.0),
    ]
    table = pd.DataFrame(rows, columns=["method", "minus", AVERAGE, "low", "high"])
    left, right = drawn(plot_intervals(table)).axes
    for axes, own in ((left, table[:2]), (right, table[2:])):
        spans = [line for line in axes.lines if line.get_marker() == "|"]
        marks = [line for line in axes.lines if line.get_marker() == "o"]
        assert [list(line.get_xdata()) for line in spans] == own[
            ["low", "high"]
        ].to_numpy().tolist()
        assert [line.get_xdata()[0] for line in marks] == own[AVERAGE].tolist()
        assert [line.get_color() for line in marks] == [colour_of(name) for name in own["method"]]
    assert [text.get_text() for text in right.get_yticklabels()] == [
        "student on selected proposals\n\N{MINUS SIGN} CoLA"
    ]
    assert any(set(line.get_xdata()) == {0} for line in right.lines)


# --- videos ---------------------------------------------------------------------------------------


def video_table() -> tuple[pd.DataFrame, pd.DataFrame]:
    table = pd.DataFrame(
        {
            "difference": [-50.0, -20.0, 0.0, 0.0, 30.0],
            "candidate": [False, True, True, False, True],
            "duration_s": [90.0, 20.0, 30.0, 80.0, 10.0],
        },
        index=pd.Index([*"abcde"], name="video"),
    )
    chosen = table[table["candidate"]].reset_index()
    chosen.insert(0, "percentile", [10, 50, 90])
    return table, chosen


def test_differences_of_videos_and_the_chosen_ones() -> None:
    table, chosen = video_table()
    figure = drawn(plot_video_differences(table, chosen, "student + EMA", "CoLA"))
    (axes,) = figure.axes
    bars = {round(bar.get_x() + bar.get_width() / 2): bar for bar in axes.patches}
    assert {place: bar.get_height() for place, bar in bars.items()} == {0: -50, 1: -20, 4: 30}
    assert to_hex(bars[1].get_facecolor()).upper() == COLOURS["CoLA"]
    assert to_hex(bars[4].get_facecolor()).upper() == COLOURS["student + EMA"]
    assert bars[0].get_alpha() < bars[1].get_alpha() == 1
    # Each chosen bar's end has a triangle that points at it and its percentile behind, over no bar.
    assert [mark.xy for mark in axes.texts] == [(1, -20), (2, 0), (4, 30)]
    assert texts(axes) == ["▲\n10th", "50th\n▼", "90th\n▼"]
    boxes = [mark.get_window_extent() for mark in axes.texts]
    assert not any(box.overlaps(bar.get_window_extent()) for box in boxes for bar in axes.patches)
    assert all(figure.bbox.containsy(y) for box in boxes for y in (box.y0, box.y1))
    assert "(2 without one)" in axes.get_xlabel()
    assert legend_fits(figure)


def test_only_the_kinds_of_bars_that_there_are_are_in_the_legend() -> None:
    """And videos without a difference have their place on the axis."""
    table, chosen = video_table()
    table["difference"] = [-50.0, -20.0, -10.0, 0.0, 0.0]
    figure = drawn(plot_video_differences(table, chosen, "student + EMA", "CoLA"))
    assert legend(figure) == ["CoLA finds more", "CoLA finds more (long, or few actions)"]
    low, high = figure.axes[0].get_xlim()
    assert low < 0 < 4 < high
    top = figure.axes[0].texts[-1].get_window_extent().y1
    assert top <= figure.axes[0].get_window_extent().y1


def layers() -> dict[str, pd.DataFrame]:
    columns = ["video", "label", "t_start", "t_end"]
    truth = pd.DataFrame([(v, "run", 2.0, 8.0) for v in "bce"], columns=columns)
    found = pd.DataFrame(
        [
            ("b", "run", 2.0, 7.0, 0.8, True),
            ("b", "run", 3.0, 9.0, 0.2, False),
            ("b", "jump", 0.0, 1.0, -0.1, False),
            ("c", "run", 2.0, 8.0, 0.5, True),
        ],
        columns=[*columns, "score", "true"],
    )
    return {"truth": truth, "CoLA": found, "student + EMA": found[found["true"]]}


def test_bars_are_solid_where_a_detection_is_true() -> None:
    _, chosen = video_table()
    figure = drawn(plot_chosen_videos(layers(), chosen))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "10th percentile: b",
        "50th percentile: c",
        "90th percentile: e",
    ]
    assert [axes.get_xlim() for axes in figure.axes] == [(0, 20), (0, 30), (0, 10)]
    first, _, last = figure.axes
    names = [text.get_text() for text in first.get_yticklabels()]
    assert names == [
        "truth\nrun",
        "CoLA\nrun: 1 of 2",
        "CoLA\nother classes: 0 of 1",
        "student + EMA\nrun: 1 of 1",
    ]
    bars = first.collections[:-1]  # the last are the lines between the lanes
    assert [bar.get_hatch() is not None for bar in bars] == [False, False, True, True, False]
    spans = [bar.get_paths()[0].get_extents().intervalx.tolist() for bar in bars]
    assert spans == [[2, 8], [2, 7], [3, 9], [0, 1], [2, 7]]
    strengths = [bar.get_alpha() for bar in bars]
    assert strengths[1] > strengths[2] >= 0.3
    # Nothing was found in the last one.
    assert [text.get_text() for text in last.get_yticklabels()][1:] == [
        "CoLA\nnone: 0 of 0",
        "student + EMA\nnone: 0 of 0",
    ]
    assert legend(figure) == ["true at tIoU 0.5", "false"]


def test_without_a_video_the_figure_says_so() -> None:
    _, chosen = video_table()
    figure = plot_chosen_videos(layers(), chosen[:0])
    assert texts(figure.axes[0]) == ["no video with an action"]
