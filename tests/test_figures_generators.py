"""Figures of pairs' values, and how far apart two kinds of pairs lie."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy.stats import mannwhitneyu

from fustal_core.figures import COLOURS
from fustal_core.figures_generators import plot_pair_values, separation

pytestmark = pytest.mark.filterwarnings("error")  # of matplotlib: a layout that does not fit


def of_kinds(positive: list[float], negative: list[float], measure: str = "FSD") -> pd.DataFrame:
    kinds = ["positive"] * len(positive) + ["negative"] * len(negative)
    return pd.DataFrame({"kind": kinds, measure: [*positive, *negative]})


# --- separation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [
        ([1.0, 1.0], [1.0, 1.0, 1.0], 0.5),
        ([2.0, 3.0], [0.0, 1.0], 1.0),
        ([0.0, 1.0], [2.0, 3.0], 0.0),
        ([1.0, 3.0], [2.0], 0.5),
        ([2.0, 3.0], [2.0], 0.75),  # a tie, and one above
        ([1.0, 2.0, 3.0], [2.0, 0.0], 4.5 / 6),
        ([-1.0], [-2.0], 1.0),
    ],
)
def test_separation_by_hand(positive: list[float], negative: list[float], expected: float) -> None:
    assert separation(of_kinds(positive, negative), "FSD") == pytest.approx(expected)
    swapped = separation(of_kinds(negative, positive), "FSD")
    assert swapped == pytest.approx(1 - expected)


@pytest.mark.parametrize(("positive", "negative"), [([], [1.0]), ([1.0], []), ([], [])])
def test_without_a_kind_there_is_no_separation(positive: list, negative: list) -> None:
    assert np.isnan(separation(of_kinds(positive, negative), "FSD"))


# Few different values, so that ties are common.
SOME = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=12)


@given(SOME, SOME)
def test_separation_is_the_rank_test_of_mann_and_whitney(
    positive: list[float], negative: list[float]
) -> None:
    statistic = mannwhitneyu(positive, negative, method="asymptotic").statistic
    expected = statistic / (len(positive) * len(negative))
    assert separation(of_kinds(positive, negative), "FSD") == pytest.approx(expected)


@given(SOME, SOME)
def test_separation_asks_for_the_order_alone(positive: list[float], negative: list[float]) -> None:
    values = of_kinds(positive, negative)
    stretched = values.assign(FSD=np.exp(values["FSD"]))
    shuffled = stretched.sample(frac=1, random_state=0)
    assert separation(shuffled, "FSD") == separation(values, "FSD")


# --- the figure -----------------------------------------------------------------------------------


def some_values(models: tuple[str, ...], count: int = 40) -> pd.DataFrame:
    """FSD parts the kinds of the last model alone; LCS never does."""
    rng = np.random.default_rng(0)
    frames = []
    for number, model in enumerate(models):
        for kind, shift in (("positive", 100.0 * (number == len(models) - 1)), ("negative", 0.0)):
            values = {"FSD": rng.normal(shift, 1, count), "LCS": rng.uniform(0, 5, count)}
            frames.append(pd.DataFrame(values).assign(kind=kind, model=model))
    return pd.concat(frames, ignore_index=True)


def panels(figure: Figure) -> list[Axes]:
    figure.draw_without_rendering()
    return figure.axes


def heights(axes: Axes, kind: str) -> np.ndarray:
    colour = COLOURS["TP" if kind == "positive" else "FP"]
    bars = [bar for bar in axes.patches if to_hex(bar.get_facecolor()) == to_hex(colour)]
    return np.array([bar.get_height() for bar in bars])


def test_each_model_has_a_row_and_each_pair_a_place_in_it() -> None:
    values = some_values(("control", "FTCL"))
    axes = panels(plot_pair_values(values))
    assert len(axes) == 4
    for own, (model, measure) in zip(
        axes, [(m, x) for m in ("control", "FTCL") for x in ("FSD", "LCS")], strict=True
    ):
        of_model = values[values["model"] == model]
        assert (
            own.get_title(loc="left") == f"{model}: {measure}, {separation(of_model, measure):.2f}"
        )
        for kind in ("positive", "negative"):
            assert heights(own, kind).sum() == (of_model["kind"] == kind).sum() == 40
    assert axes[2].get_title(loc="left") == "FTCL: FSD, 1.00"
    assert [own.get_xlabel() for own in axes[2:]] == ["FSD of a pair", "LCS of a pair"]
    assert axes[0].get_ylabel() == axes[2].get_ylabel() == "pairs"


def test_models_share_their_bins() -> None:
    axes = panels(plot_pair_values(some_values(("control", "FTCL"))))
    for above, below in ((axes[0], axes[2]), (axes[1], axes[3])):
        edges = [sorted({bar.get_x() for bar in own.patches}) for own in (above, below)]
        np.testing.assert_allclose(*edges)
        assert above.get_xlim() == below.get_xlim()


def test_a_histogram_by_hand() -> None:
    """Bins from 0 to 25, each 1 wide; the last one holds its right end as well."""
    values = of_kinds([0.5, 0.6, 24.5, 25.0], [0.0, 12.5], "FSD").assign(model="m", LCS=0.0)
    axes = panels(plot_pair_values(values))
    expected = np.zeros(25)
    expected[[0, 24]] = 2
    np.testing.assert_array_equal(heights(axes[0], "positive"), expected)
    assert heights(axes[0], "negative")[[0, 12]].tolist() == [1, 1]
    # All LCS are 0: a bin, and no separation.
    assert axes[1].get_title(loc="left") == "m: LCS, 0.50"
    assert heights(axes[1], "positive")[0] == 4


def test_a_kind_without_pairs_leaves_the_other_alone() -> None:
    values = some_values(("m",))
    axes = panels(plot_pair_values(values[values["kind"] == "negative"]))
    assert axes[0].get_title(loc="left") == "m: FSD, nan"
    assert heights(axes[0], "negative").sum() == 40
    assert heights(axes[0], "positive").sum() == 0


def test_without_any_pair_it_says_so() -> None:
    empty = pd.DataFrame(columns=["model", "kind", "FSD", "LCS"])
    figure = plot_pair_values(empty)
    said = [text.get_text() for own in figure.axes for text in own.texts]
    said += [text.get_text() for text in figure.texts]
    assert "no pair of videos to align" in said


def test_the_legend_names_both_kinds_once() -> None:
    figure = plot_pair_values(some_values(("control", "FTCL")))
    legends = [*figure.legends, *(own.get_legend() for own in figure.axes if own.get_legend())]
    assert len(legends) == 1
    said = [text.get_text() for text in legends[0].get_texts()]
    assert said == ["positive pairs", "negative pairs"]
