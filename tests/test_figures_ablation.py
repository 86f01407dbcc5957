"""Figures of the ablation: what they draw is what they were given."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import same_color, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fustal_core.figures import COLOURS
from fustal_core.figures_ablation import (
    OFF,
    PARTS,
    VERDICTS,
    parts_of,
    plot_gains,
    plot_stage_ablation,
    plot_sweeps,
    spaced,
    verdict,
)
from fustal_core.metrics import AVERAGE

pytestmark = pytest.mark.filterwarnings("error")  # of matplotlib: a layout that does not fit


def row(group: str, cell: str, seed: int, average: float, **more: object) -> dict:
    given = {"measured": "student", "changes": "x = 1", "value": np.nan}
    return {"group": group, "cell": cell, "seed": seed, AVERAGE: average, **given, **more}


def lines_with(axes: Axes, marker: str, size: float | None = None) -> list[Line2D]:
    """Drawn lines, not those of the legend."""
    return [
        line
        for line in axes.lines
        if line.get_marker() == marker
        and len(line.get_xdata())
        and (size is None or line.get_markersize() == size)
    ]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def legend(figure: Figure) -> list[str]:
    assert len(figure.legends) == 1
    return [text.get_text() for text in figure.legends[0].get_texts()]


def drawn(figure: Figure) -> list[Axes]:
    figure.draw_without_rendering()
    return [axes for axes in figure.axes if axes.get_visible()]


def assert_inside(figure: Figure) -> None:
    """No text is cut off at the edge of the figure."""
    figure.draw_without_rendering()
    seen = [axes for axes in figure.axes if axes.get_visible()]
    for axes in seen:
        named = [*axes.texts, axes.xaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
        for text in [text for text in named if text.get_text() and text.get_visible()]:
            box = text.get_window_extent()
            assert box.x0 >= -2, text.get_text()
            assert box.x1 <= figure.bbox.width + 2, text.get_text()


# --- stages ---------------------------------------------------------------------------------------

STAGES = ["none", "G", "C", "S", "T", "G+C", "G+S", "G+T", "S+T", "G+S+T", "S+T+D", "G+S+T+D"]


def kind(cell: str) -> str:
    kinds = {"D": "student + EMA", "T": "student"} | dict.fromkeys("CS", "selected proposals")
    return next((name for part, name in kinds.items() if part in cell.split("+")), "generator")


def stage_rows(seeds: int = 3, cells: list[str] = STAGES) -> pd.DataFrame:
    return pd.DataFrame(
        [
            row("stages", cell, seed, 40 + 2 * place + seed, measured=kind(cell))
            for place, cell in enumerate(cells)
            for seed in range(seeds)
        ]
    )


def test_parts_of_a_cell() -> None:
    assert parts_of("none") == ()
    assert parts_of("D+S+T") == ("S", "T", "D")
    with pytest.raises(ValueError, match="'X' is none of G, C, S, T, D"):
        parts_of("G+X")


def on_in_row(matrix: Axes, place: int) -> list[str]:
    rows = [line for line in matrix.lines if set(line.get_ydata()) == {place}]
    (on,) = [line for line in rows if not same_color(line.get_color(), OFF)] or [None]
    off = [line for line in rows if same_color(line.get_color(), OFF)]
    filled = [] if on is None else list(on.get_xdata())
    assert sorted(chain(filled, *(line.get_xdata() for line in off))) == [*range(len(PARTS))]
    return [list(PARTS)[int(column)] for column in filled]


def test_cells_stand_in_the_order_of_what_is_on() -> None:
    shuffled = stage_rows().sample(frac=1, random_state=0)
    matrix, axes = drawn(plot_stage_ablation(shuffled))
    assert ["+".join(on_in_row(matrix, place)) or "none" for place in range(len(STAGES))] == STAGES
    names = [label.get_text() for label in matrix.get_xticklabels()]
    assert [name[0] for name in names] == list(PARTS)
    # The first cell is at the top of both.
    assert matrix.get_ylim() == axes.get_ylim()
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_seeds_means_and_deviations_are_where_they_belong() -> None:
    _, axes = drawn(plot_stage_ablation(stage_rows()))
    seeds, means, bars = (lines_with(axes, marker) for marker in ("o", "D", "|"))
    assert [len(found) for found in (seeds, means, bars)] == [len(STAGES)] * 3
    for place in range(len(STAGES)):
        middle = 41 + 2 * place
        assert sorted(seeds[place].get_xdata()) == [middle - 1, middle, middle + 1]
        assert means[place].get_xdata() == pytest.approx([middle])
        assert bars[place].get_xdata() == pytest.approx([middle - 1, middle + 1])
        for line in (seeds[place], means[place], bars[place]):
            assert np.abs(np.array(line.get_ydata()) - place).max() < 0.3
    said = texts(axes)
    assert said.count("mean ± sd") == 1
    assert [text for text in said if text != "mean ± sd"] == [
        f"{41 + 2 * place}.0 ± 1.0" for place in range(len(STAGES))
    ]


def test_colours_say_what_was_measured() -> None:
    _, axes = drawn(plot_stage_ablation(stage_rows()))
    found = [to_hex(line.get_color()).upper() for line in lines_with(axes, "D")]
    keys = ["CoLA", "cross-video", "selected", "selected", "student", "selected", "selected"]
    keys += ["student", "student", "student", "student + EMA", "student + EMA"]
    assert found == [COLOURS[key].upper() for key in keys]


def test_one_seed_has_no_deviation() -> None:
    figure = plot_stage_ablation(stage_rows(seeds=1))
    _, axes = drawn(figure)
    assert lines_with(axes, "|") == []
    assert legend(figure) == ["a seed", "mean"]
    assert "mean" in texts(axes)
    assert "40.0" in texts(axes)


def test_other_groups_are_not_drawn_and_unmeasured_cells_say_so() -> None:
    rows = stage_rows(cells=["none", "G+S+T"])
    rows.loc[rows["cell"] == "none", AVERAGE] = np.nan
    more = pd.DataFrame([row("gamma", "0.1", 0, 99.0, value=0.1)])
    _, axes = drawn(plot_stage_ablation(pd.concat([rows, more])))
    assert "not measured" in texts(axes)
    assert len(lines_with(axes, "D")) == 1
    empty = plot_stage_ablation(more)
    assert texts(empty.axes[0]) == ["no stage was measured"]


@pytest.mark.parametrize("cells", [STAGES, ["G+S+T+D"]])
def test_stages_fit(cells: list[str]) -> None:
    assert_inside(plot_stage_ablation(stage_rows(cells=cells)))


# --- places on an axis ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.2, 0.3, 0.4], [0.2, 0.3, 0.4]),
        ([1, 2, 4], [0, np.log10(2), np.log10(4)]),
        ([0, 1, 10, 100], [-1, 0, 1, 2]),  # 0 one step before the first
        ([0.9, 0.99, 0.999], [1, 2, 3]),
        ([1, 2, 4, np.inf], [0, np.log10(2), np.log10(4), np.log10(8)]),
        ([5, 10, 15, np.inf], [5, 10, 15, 20]),
        ([1, 1000], [1, 1000]),  # two are even anyhow
        ([7], [7]),
        ([7, np.inf], [7, 8]),
        ([np.inf], [0]),
        ([0], [0]),
        ([0, 1], [0, 1]),
        ([-10, 0, 1], [-10, 0, 1]),  # no logarithm
    ],
)
def test_places_by_hand(values: list[float], expected: list[float]) -> None:
    assert spaced(np.array(values, dtype=float)) == pytest.approx(expected)


@given(st.lists(st.integers(0, 999).map(lambda n: n / 1000), min_size=1, max_size=8, unique=True))
def test_places_rise_with_their_values(values: list[float]) -> None:
    places = spaced(np.sort(values))
    assert len(places) == len(values)
    assert (np.diff(places) > 0).all()


# --- sweeps ---------------------------------------------------------------------------------------


def sweep(
    group: str, values: list[float], default: float, measured: str = "student", slope: float = 1.0
) -> list[dict]:
    return [
        row(
            group,
            f"{value:g}",
            seed,
            50 + slope * place + 2 * seed,
            value=value,
            measured=measured,
            changes="" if value == default else "x = 1",
        )
        for place, value in enumerate(values)
        for seed in range(3)
    ]


def switch(group: str, measured: str) -> list[dict]:
    return [
        row(
            group,
            f"{name} ({measured})",
            seed,
            50 + place + 2 * seed,
            measured=measured,
            changes=f"x = {name}" if place else "",
        )
        for place, name in enumerate(("all", "class"))
        for seed in range(3)
    ]


def ring_of(axes: Axes) -> list[tuple[float, float]]:
    rings = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    points = [point for line in rings for point in zip(*line.get_data(), strict=True)]
    return [tuple(map(float, point)) for point in points]


def tick_texts(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_xticklabels()]


def test_a_sweep_draws_seeds_means_deviations_and_the_default() -> None:
    rows = pd.DataFrame(sweep("gamma", [0.1, 0.2, 0.4], default=0.2)).sample(frac=1, random_state=1)
    figure = plot_sweeps(rows, {"gamma": "γ"})
    (axes,) = drawn(figure)
    places = np.log10([0.1, 0.2, 0.4])
    thin = lines_with(axes, "o", 2.2)
    assert len(thin) == 3
    for seed, line in enumerate(thin):
        assert line.get_xdata() == pytest.approx(places)
        assert line.get_ydata() == pytest.approx(50 + 2 * seed + np.arange(3))
    (means,) = lines_with(axes, "o", 5)
    assert means.get_xdata() == pytest.approx(places)
    assert means.get_ydata() == pytest.approx([52, 53, 54])
    assert means.get_linestyle() == "-"
    (bars,) = axes.collections
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    assert ends == pytest.approx(np.array([[50, 54], [51, 55], [52, 56]]))
    assert ring_of(axes) == [pytest.approx((places[1], 53))]
    assert tick_texts(axes) == ["0.1", "0.2", "0.4"]
    assert axes.get_xlabel() == "γ"
    assert legend(figure) == ["student", "a seed", "standard deviation", "default"]


def test_infinity_is_all_and_stands_last() -> None:
    (axes,) = drawn(plot_sweeps(pd.DataFrame(sweep("pairs", [1, 2, 4, np.inf], np.inf)), {}))
    assert tick_texts(axes) == ["1", "2", "4", "all"]
    assert axes.get_xlabel() == "pairs"
    assert ring_of(axes) == [pytest.approx((np.log10(8), 55))]


def test_a_group_without_values_has_its_cells_side_by_side() -> None:
    rows = [*switch("overlap", "student"), *switch("plus one", "generator")]
    rows += switch("plus one", "student")
    panels = drawn(plot_sweeps(pd.DataFrame(rows), {}))
    assert [axes.get_xlabel() for axes in panels] == ["overlap", "plus one", "plus one"]
    colours = [lines_with(axes, "o", 5)[0].get_color() for axes in panels]
    assert colours == [COLOURS[key] for key in ("student", "cross-video", "student")]
    for axes in panels:
        assert tick_texts(axes) == ["all", "class"]
        (means,) = lines_with(axes, "o", 5)
        assert list(means.get_xdata()) == [0, 1]
        assert means.get_linestyle() == "None"
        assert ring_of(axes) == [(0, 52)]


def test_panels_are_equally_high_but_for_one_that_would_flatten_them() -> None:
    rows = sweep("a", [1, 2, 3], 1) + sweep("b", [1, 2, 3], 1, slope=1.5)
    rows += sweep("steep", [1, 2, 3], 1, slope=-12) + sweep("c", [1, 2, 3], 1, slope=0)
    panels = drawn(plot_sweeps(pd.DataFrame(rows), {}))
    heights = [float(np.ptp(axes.get_ylim())) for axes in panels]
    assert heights[0] == pytest.approx(heights[1])
    assert heights[0] == pytest.approx(heights[3])
    assert heights[2] > 24
    assert [axes.get_title(loc="right") for axes in panels] == ["", "", "another scale", ""]
    for axes in panels:
        low, high = axes.get_ylim()
        for line in [*lines_with(axes, "o", 2.2), *lines_with(axes, "o", 5)]:
            assert low < line.get_ydata().min() <= line.get_ydata().max() < high


def test_stages_and_what_was_not_measured_are_left_out() -> None:
    rows = pd.DataFrame(sweep("eta", [0.2, 0.3, 0.4], 0.2))
    rows.loc[rows["value"] == 0.2, AVERAGE] = np.nan
    figure = plot_sweeps(pd.concat([stage_rows(), rows]), {})
    (axes,) = drawn(figure)
    assert tick_texts(axes) == ["0.3", "0.4"]
    assert ring_of(axes) == []
    assert "default" not in legend(figure)
    empty = plot_sweeps(stage_rows(), {})
    assert texts(empty.axes[0]) == ["no setting was swept"]


def test_one_seed_draws_no_deviation_and_names_none() -> None:
    rows = pd.DataFrame(sweep("eta", [0.2, 0.3, 0.4], 0.3))
    figure = plot_sweeps(rows[rows["seed"] == 0], {})
    (axes,) = drawn(figure)
    (bars,) = axes.collections
    assert [segment for segment in bars.get_segments() if len(segment)] == []
    assert legend(figure) == ["student", "default"]


def test_crowded_ticks_are_thinned_but_for_the_default() -> None:
    values = [float(value) for value in range(20)]
    (axes,) = drawn(plot_sweeps(pd.DataFrame(sweep("g", values, 7.0)), {}))
    assert len(tick_texts(axes)) == 20
    named = [float(text) for text in tick_texts(axes) if text]
    assert 7 in named
    assert np.diff(named).min() >= 0.16 * 19
    assert len(named) > 3


def test_sweeps_fit_with_long_names() -> None:
    rows = sweep("a", [0.9, 0.99, 0.999], 0.99) + switch("b", "student")
    rows += sweep("c", [1, 2, 3], 1) + sweep("d", [1, 2, 3], 1)
    name = "threshold of the confidence, selection.confidence_threshold_of_it"
    figure = plot_sweeps(pd.DataFrame(rows), dict.fromkeys("abcd", name))
    assert_inside(figure)
    assert len(drawn(figure)) == 4
    label = drawn(figure)[0].get_xlabel()
    assert label.replace("_\n", "_").replace("\n", " ") == name


# --- gains ----------------------------------------------------------------------------------------


def gains(*rows: tuple, measure: str = "avg 0.1:0.7") -> pd.DataFrame:
    """Rows (claim, mean, low, high, differences)."""
    table = pd.DataFrame(rows, columns=["claim", "mean", "low", "high", "differences"])
    return table.assign(measure=measure)


THREE = (
    ("more is better", 2.0, 1.0, 3.0, [1.5, 2.0, 2.5]),
    ("less is more", -2.0, -3.0, -0.5, [-1.0, -3.0]),
    ("nothing happens", 0.5, -1.0, 2.0, [0.0, 1.0, 0.5]),
    ("a single seed", 4.0, np.nan, np.nan, [4.0]),
)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 2, "above 0"),
        (-2, -0.1, "below 0"),
        (-1, 1, "undecided"),
        (0, 1, "undecided"),
        (-1, 0, "undecided"),
        (np.nan, np.nan, "undecided"),
    ],
)
def test_verdicts(low: float, high: float, said: str) -> None:
    assert verdict(low, high) == said


def test_a_claim_has_its_row_with_interval_mean_and_seeds() -> None:
    figure = plot_gains(gains(*THREE))
    (axes,) = drawn(figure)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [claim for claim, *_ in THREE]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    verdicts = ["above 0", "below 0", "undecided", "undecided"]
    for place, ((_, mean, low, high, differences), said) in enumerate(
        zip(THREE, verdicts, strict=True)
    ):
        key, marker = VERDICTS[said]
        near = [
            line
            for line in axes.lines
            if len(line.get_ydata()) and np.abs(np.array(line.get_ydata()) - place).max() < 0.3
        ]
        interval, *_ = [line for line in near if line.get_marker() == "None"]
        np.testing.assert_array_equal(interval.get_xdata(), [low, high])
        (dot,) = [line for line in near if line.get_marker() == marker]
        assert list(dot.get_xdata()) == [mean]
        (seeds,) = [line for line in near if line.get_marker() == "o"]
        assert list(seeds.get_xdata()) == differences
        assert {line.get_color() for line in (interval, dot, seeds)} == {COLOURS[key]}
    assert texts(axes) == [
        "+2.0  [+1.0, +3.0]",
        "−2.0  [−3.0, −0.5]",
        "+0.5  [−1.0, +2.0]",
        "+4.0",
    ]
    assert axes.get_xlabel() == "difference, avg 0.1:0.7 (points)"
    assert legend(figure) == ["above 0", "below 0", "undecided", "a seed"]


def test_zero_is_drawn_and_seen() -> None:
    (axes,) = drawn(plot_gains(gains(THREE[0])))
    assert list(axes.lines[0].get_xdata()) == [0, 0]
    low, high = axes.get_xlim()
    assert low < 0 < 3 < high


def test_verdicts_differ_in_shape_and_colour() -> None:
    assert len({COLOURS[key] for key, _ in VERDICTS.values()}) == len(VERDICTS)
    assert len({marker for _, marker in VERDICTS.values()}) == len(VERDICTS)


def test_several_measures_are_named_with_their_claims() -> None:
    both = pd.concat([gains(THREE[0]), gains(THREE[1], measure="F1 of labels")])
    figure = plot_gains(both)
    (axes,) = drawn(figure)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["more is better\n(avg 0.1:0.7)", "less is more\n(F1 of labels)"]
    assert axes.get_xlabel() == "difference (points)"
    assert legend(figure) == ["above 0", "below 0", "a seed"]


def test_long_claims_do_not_run_into_each_other() -> None:
    long = "with selection the student learns from better labels, and detects more for it, always"
    figure = plot_gains(gains(*((f"{long} {number}", *THREE[0][1:]) for number in range(6))))
    assert_inside(figure)
    (axes,) = drawn(figure)
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_without_a_difference_it_says_so() -> None:
    assert texts(plot_gains(gains()).axes[0]) == ["no difference was measured"]
