"""The figure of the oracle ladder: what it draws is what it was given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from fustal_core.figures import COLOURS, save_figure
from fustal_core.figures_oracle import plot_ladder
from fustal_core.metrics import AVERAGE

pytestmark = pytest.mark.filterwarnings("error")  # of matplotlib: a layout that does not fit

NAMES = ["selected labels", "true classes", "no duplicates", "true borders", "true segments"]


def ladder(averages: tuple[float, ...] = (50.0, np.nan, 48.5, 62.25, 90.0)) -> pd.DataFrame:
    table = pd.DataFrame({"labels are": NAMES, AVERAGE: averages})
    table["gain"] = table[AVERAGE] - averages[0]
    return table.assign(
        labels=[1200, 1200, 900, 1100, 1000],
        **{"f1@0.5": [0.4, 0.41, 0.45, 0.7, 1.0], "f1@0.7": [0.2, 0.21, 0.25, 0.7, 1.0]},
    )


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def points(axes: Axes, marker: str) -> list[tuple[float, float]]:
    lines = [line for line in axes.lines if line.get_marker() == marker]
    return [tuple(point) for line in lines for point in line.get_xydata().tolist()]


def test_students_and_their_gains() -> None:
    left, _ = plot_ladder(ladder()).axes
    assert texts(left) == ["50.0", "no student trained", "-1.5", "+12.2", "+40.0"]
    assert [text.get_ha() for text in left.texts] == ["left", "left", "right", "left", "left"]
    assert points(left, "o") == [(50, 0), (48.5, 2), (62.25, 3), (90, 4)]
    colours = [line.get_color() for line in left.lines if line.get_marker() == "o"]
    assert colours == [COLOURS["student"]] * 3 + [COLOURS["ceiling"]]
    assert [label.get_text() for label in left.get_yticklabels()] == NAMES
    assert left.yaxis_inverted()  # the first row on top
    assert "one seed" in left.get_xlabel()
    low, high = left.get_xlim()
    assert low < 48.5
    assert high > 90


def test_labels_beside_them() -> None:
    _, right = plot_ladder(ladder()).axes
    for marker, expected in {"o": [40, 41, 45, 70, 100], "D": [20, 21, 25, 70, 100]}.items():
        x, y = zip(*points(right, marker), strict=True)
        assert x == pytest.approx(expected)
        assert y == (0, 1, 2, 3, 4)
    assert texts(right) == ["1,200", "1,200", "900", "1,100", "1,000", "number"]


@pytest.mark.parametrize("noise_points", [0.0, 1.0])
def test_gains_that_are_no_evidence_lie_in_a_band(noise_points: float) -> None:
    left, _ = plot_ladder(ladder(), noise_points).axes
    spans = [patch.get_extents().transformed(left.transData.inverted()) for patch in left.patches]
    assert [(span.x0, span.x1) for span in spans] == (
        [pytest.approx((49, 51))] if noise_points else []
    )


@pytest.mark.parametrize(
    "averages", [(50.0, 50.0, 50.0, 50.0, 50.0), (30.0, np.nan, 0.0, 9.0, 2.0)]
)
def test_all_numbers_lie_inside(averages: tuple[float, ...]) -> None:
    """Also where nothing differs, and where the truth is the worse teacher."""
    figure = plot_ladder(ladder(averages), 1.0)
    figure.draw_without_rendering()
    left, _ = figure.axes
    frame = left.get_window_extent()
    for text in left.texts:
        box = text.get_window_extent()
        assert frame.x0 - 2 <= box.x0, text
        assert box.x1 <= frame.x1 + 2, text


def test_the_same_bytes_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_figure(plot_ladder(ladder(), 1.0), tmp_path / name)
    for kind in ("png", "pdf"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
