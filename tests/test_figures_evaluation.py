"""The figures of `fustal evaluate` and `fustal audit` carry the numbers they are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fustal_core.figures import COLOURS, FORMATS, write_figure
from fustal_core.figures_evaluation import (
    KIND_COLOURS,
    MAX_BARS,
    MAX_NAMED,
    plot_audit,
    plot_evaluation,
)
from fustal_core.metrics import DETECTION_COLUMNS, TRUTH_COLUMNS, detection_map
from fustal_core.quality import KINDS

TRUTH = pd.DataFrame(
    [("v", "run", 0, 10), ("v", "run", 20, 30), ("w", "jump", 0, 10)], columns=[*TRUTH_COLUMNS]
)
DETECTIONS = pd.DataFrame(
    [
        ("v", "run", 0, 10, 0.9),  # true
        ("v", "run", 50, 60, 0.8),  # background
        ("v", "run", 20, 28, 0.7),  # true, its end 20 % early
        ("w", "run", 0, 10, 0.6),  # wrong class
    ],
    columns=[*DETECTION_COLUMNS],
)


def many(classes: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One segment and one detection each of many classes, every second one right."""
    names = [f"class {i:02d}" for i in range(classes)]
    start = np.arange(classes) * 10.0
    truth = pd.DataFrame({"video": "v", "label": names, "t_start": start, "t_end": start + 5})
    shift = np.where(np.arange(classes) % 2, 1000, 0)
    found = truth.assign(t_start=start + shift, t_end=start + 5 + shift, score=0.5)
    return found, truth


def panel(figure: Figure, title: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_title(loc="left").startswith(title))


def test_curves_and_their_areas() -> None:
    table = detection_map(DETECTIONS, TRUTH, [0.5, 0.9])
    figure = plot_evaluation(DETECTIONS, TRUTH, table, 0.5)
    run = panel(figure, "run")
    recall, precision = (np.asarray(values, float) for values in run.lines[0].get_data())
    assert [text.get_text() for text in run.texts] == ["83.3"]  # 1/2 * 1 + 1/2 * 2/3
    assert recall.tolist() == [0, 1 / 2, 1]
    assert precision.tolist() == pytest.approx([1, 1, 2 / 3])
    assert np.sum(np.diff(recall) * precision[1:]) == pytest.approx(table.loc["run", 0.5])
    assert not panel(figure, "jump").lines
    assert "mAP 41.7 %" in figure.subfigs[0].get_suptitle()
    cells = figure.subfigs[1].axes[0]
    np.testing.assert_allclose(cells.collections[0].get_array(), [[250 / 3, 50], [0, 0]])
    assert [text.get_text() for text in cells.get_yticklabels()] == ["run", "jump"]
    assert [text.get_text() for text in cells.texts] == ["83", "50", "0", "0"]


def test_curves_of_plus_one() -> None:
    table = detection_map(DETECTIONS, TRUTH, [0.81], plus_one=True)  # 9/11 and not 8/10
    figure = plot_evaluation(DETECTIONS, TRUTH, table, 0.81, plus_one=True)
    assert panel(figure, "run").lines[0].get_xdata()[-1] == 1


def test_the_mean_of_many_curves_has_the_map_under_it() -> None:
    found, truth = many(MAX_NAMED + 1)
    table = detection_map(found, truth, [0.5])
    figure = plot_evaluation(found, truth, table, 0.5)
    axes, names = figure.subfigs[0].axes[0], figure.subfigs[1].axes[0].get_yticklabels()
    recall, precision = axes.lines[-1].get_data()
    assert np.trapezoid(precision, recall) == pytest.approx(table[0.5].mean(), abs=2e-3)
    assert not names  # too many to read


def test_kinds_by_rank_and_by_class() -> None:
    figure = plot_audit(DETECTIONS.iloc[[3, 1, 0, 2]], TRUTH)
    ranks, classes, borders = figure.axes
    heights = {}
    for bars in ranks.containers:
        heights[bars.get_label()] = [bar.get_height() for bar in bars]
    assert list(heights) == list(KINDS)
    assert heights["true"] == [100, 0, 100, 0]
    assert heights["background"] == [0, 100, 0, 0]
    assert heights["wrong class"] == [0, 0, 0, 100]
    widths = [bars[0].get_width() for bars in classes.containers]
    assert widths == pytest.approx([50, 0, 0, 25, 25])
    assert [text.get_text() for text in classes.texts] == ["4"]
    counts = [patch for patch in borders.patches if patch.get_fill() is False]
    assert len(counts) == 2
    legend = [text.get_text() for text in borders.get_legend().get_texts()]
    assert legend == ["start, median 0 % off", "end, median 10 % off"]


def test_only_the_classes_with_most_proposals_have_bars() -> None:
    found, truth = many(MAX_BARS + 3)
    often = pd.concat([found, found.iloc[3:]], ignore_index=True)
    classes = plot_audit(often, truth).axes[1]
    shown = {text.get_text() for text in classes.get_yticklabels()}
    assert shown == set(found["label"].iloc[3:])


def test_a_class_with_dollar_signs_is_no_formula(tmp_path: Path) -> None:
    names = {"run": r"a $\frac$", "jump": "$x$"}
    found, truth = (table.replace({"label": names}) for table in (DETECTIONS, TRUTH))
    table = detection_map(found, truth, [0.5])
    for figure in (plot_evaluation(found, truth, table, 0.5), plot_audit(found, truth)):
        write_figure(figure, tmp_path / "figure.svg")


def test_colours_are_those_of_the_study() -> None:
    assert KIND_COLOURS["true"] == COLOURS["TP"]
    assert KIND_COLOURS["background"] == COLOURS["background"]
    assert list(KIND_COLOURS) == list(KINDS)
    assert len(set(KIND_COLOURS.values())) == len(KINDS)


@pytest.mark.parametrize("ending", FORMATS)
def test_files_depend_on_the_numbers_alone(ending: str, tmp_path: Path) -> None:
    nothing = DETECTIONS[:0]
    table = detection_map(nothing, TRUTH, [0.5])
    for name, draw in (
        ("evaluate", lambda: plot_evaluation(DETECTIONS, TRUTH, table, 0.5)),
        ("evaluate nothing", lambda: plot_evaluation(nothing, TRUTH, table, 0.5)),
        ("audit", lambda: plot_audit(DETECTIONS, TRUTH)),
        ("audit nothing", lambda: plot_audit(nothing, TRUTH)),
    ):
        paths = [tmp_path / f"{name} {number}.{ending}" for number in (1, 2)]
        for path in paths:
            write_figure(draw(), path)
        assert paths[0].read_bytes() == paths[1].read_bytes()
        assert b"Matplotlib v" not in paths[0].read_bytes()
    assert len(list(tmp_path.iterdir())) == 8
