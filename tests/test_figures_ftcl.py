"""Figures of ACM-Net and FTCL: the numbers they carry, and that they can be read."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import TwoSlopeNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from fustal_core.alignment import (
    cosine_table,
    fine_grained_sequence_distance,
    fsd_path,
    fsd_table,
    lcs_path,
    lcs_table,
    longest_common_subsequence,
)
from fustal_core.figures import COLOURS, WIDTH_IN, colour_of
from fustal_core.figures_ftcl import (
    plot_alignment_values,
    plot_fsd,
    plot_lcs,
    plot_paths_over_training,
)
from fustal_core.figures_generators import GENERATOR_MARKERS, plot_generators, plot_terms
from fustal_core.metrics import AVERAGE

pytestmark = pytest.mark.filterwarnings("error")  # of matplotlib: a layout that does not fit


def fsd_pair(n: int, m: int, low: float = 0.0, seed: int = 0, name: str = "") -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    match, gap = torch.from_numpy(rng.uniform(low, 1, (2, n, m)))
    return {
        "match": match.numpy(),
        "gap": gap.numpy(),
        "table": fsd_table(match[None], gap[None])[0].numpy(),
        "path": fsd_path(match, gap).numpy(),
        "row_labels": [f"{name}{12 + 9 * i} s" for i in range(n)],
        "column_labels": [f"{name}{7 + 21 * j} s" for j in range(m)],
        "value": fine_grained_sequence_distance(match[None], gap[None]).item(),
    }


def lcs_pair(n: int, m: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    first, second = (torch.from_numpy(rng.uniform(0.4, 1, (1, k, 4))) for k in (n, m))
    similarity = cosine_table(first, second)
    return {
        "similarity": similarity[0].numpy(),
        "table": lcs_table(similarity)[0].numpy(),
        "path": lcs_path(similarity[0]).numpy(),
        "row_inside": np.arange(n) % 3 == 0,
        "column_inside": np.zeros(m, dtype=bool),
        "value": longest_common_subsequence(similarity).item(),
    }


def over_training(epochs: list[int], n: int, m: int, seed: int = 0) -> dict[str, Any]:
    lcs = [lcs_pair(n, n, seed + epoch) for epoch in epochs]
    fsd = [fsd_pair(m, m, -0.5, seed + epoch) for epoch in epochs]
    return {
        "epochs": epochs,
        "similarity": np.stack([own["similarity"] for own in lcs]),
        "paths": [own["path"] for own in lcs],
        "match": np.stack([own["match"] for own in fsd]),
        "gap": np.stack([own["gap"] for own in fsd]),
        "fsd_paths": [own["path"] for own in fsd],
    }


def alignment_values() -> pd.DataFrame:
    rows = itertools.product(range(11), ("positive", "negative"), ("FSD", "LCS"))
    table = pd.DataFrame(rows, columns=["epoch", "kind", "measure"])
    sign = table["kind"].map({"positive": 1.0, "negative": -1.0})
    return table.assign(value=5 + sign * table["epoch"] + (table["measure"] == "LCS"))


VARIANTS = ["ACM-Net", "trained on without both", "without FSD", "without LCS", "FTCL"]


def terms(seeds: int = 3) -> pd.DataFrame:
    rows = itertools.product(enumerate(VARIANTS), range(seeds))
    table = [(name, seed, 40.0 + place + seed) for (place, name), seed in rows]
    return pd.DataFrame(table, columns=["variant", "seed", AVERAGE])


def generators(seeds: int = 3) -> pd.DataFrame:
    steps = ("raw proposals", "selected proposals", "student", "student + EMA")
    rows = itertools.product(enumerate(GENERATOR_MARKERS), enumerate(steps), range(seeds))
    table = [
        (name, step, seed, 30.0 + 2 * g + 3 * s + seed, 0.2 + 0.1 * (g + s) if s < 2 else np.nan)
        for (g, name), (s, step), seed in rows
    ]
    return pd.DataFrame(table, columns=["generator", "step", "seed", AVERAGE, "f1@0.5"])


LONG = "LongJumpIntoSand with LongJumpIntoSand, video_validation_0000045 and 0000051"
DRAWN: dict[str, Callable[[], Figure]] = {
    "fsd": lambda: plot_fsd(
        {
            "positive pair: action with action": fsd_pair(5, 5),
            "negative pair: action with background": fsd_pair(5, 5, seed=1),
        }
    ),
    "fsd, negative": lambda: plot_fsd({"positive": fsd_pair(5, 5, -1), "negative": {}}),
    "fsd, long": lambda: plot_fsd(
        {f"positive: {LONG}": fsd_pair(5, 5, -1, name="LongJumpIntoSand "), "b": fsd_pair(5, 5)}
    ),
    "fsd, sizes": lambda: plot_fsd(
        {"none": fsd_pair(0, 0), "one": fsd_pair(1, 1), "few": fsd_pair(2, 3), "9": fsd_pair(9, 8)}
    ),
    "fsd, nothing": lambda: plot_fsd({"positive": {}}),
    "lcs": lambda: plot_lcs(
        {"positive": lcs_pair(30, 30), f"negative: {LONG}": lcs_pair(30, 30, 1)}
    ),
    "lcs, sizes": lambda: plot_lcs(
        {"a": lcs_pair(1, 1), "b": lcs_pair(4, 7), "c": lcs_pair(12, 3)}
    ),
    "lcs, nothing": lambda: plot_lcs({}),
    "paths": lambda: plot_paths_over_training(
        {
            "positive": over_training(list(range(26)), 30, 5),
            "negative": over_training(list(range(26)), 30, 5, seed=50),
        }
    ),
    "paths, few": lambda: plot_paths_over_training(
        {"positive": over_training([0], 1, 0), "negative": {}}
    ),
    "paths, nothing": lambda: plot_paths_over_training({"positive": {}}),
    "values": lambda: plot_alignment_values(alignment_values()),
    "values, nothing": lambda: plot_alignment_values(alignment_values()[:0]),
    "terms": lambda: plot_terms(terms(), {"ACM-Net": 42.6, "FTCL": 43.6}),
    "terms, long": lambda: plot_terms(
        terms(1).assign(variant=lambda table: table["variant"] + " with the weights of an ACM-Net"),
        {"CoLA (released code)": 41.7, "FuSTAL": 50.8},
    ),
    "terms, nothing": lambda: plot_terms(terms()[:0]),
    "generators": lambda: plot_generators(generators()),
    "generators, one seed": lambda: plot_generators(generators(1)),
    "generators, one panel": lambda: plot_generators(generators(1).assign(**{"f1@0.5": np.nan})),
    "generators, nothing": lambda: plot_generators(generators()[:0]),
}


def texts_of(figure: Figure) -> list[Text]:
    """What a reader sees written, tick labels beyond the axes left out."""
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in filter(Axes.get_visible, figure.axes):
        texts += axes.texts
        if not axes.axison:
            continue
        texts += [axes.xaxis.label, axes.yaxis.label]
        texts += [axes.title, axes._left_title, axes._right_title]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            texts += [t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
    return [text for text in texts if text.get_visible() and text.get_text()]


@pytest.mark.parametrize("name", DRAWN)
def test_no_text_lies_over_another_or_beyond_the_edge(name: str) -> None:
    figure = DRAWN[name]()
    assert figure.get_figwidth() == WIDTH_IN
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = texts_of(figure)
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    width, height = figure.bbox.size
    for text, box in zip(texts, boxes, strict=True):
        inside = box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1
        assert inside, text.get_text()
    for (a, one), (b, other) in itertools.combinations(zip(texts, boxes, strict=True), 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        down = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(across, down) < 1, (a.get_text(), b.get_text())


@pytest.mark.parametrize("name", DRAWN)
def test_pyplot_and_its_settings_are_left_alone(name: str) -> None:
    before = dict(matplotlib.rcParams)
    DRAWN[name]()
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", [name for name in DRAWN if name.endswith("nothing")])
def test_a_figure_of_nothing_says_so(name: str) -> None:
    [axes] = DRAWN[name]().axes
    assert not axes.axison
    assert words_of(axes)[0].startswith("no ")


def path_of(axes: Axes) -> list[tuple[float, float]]:
    """(row, column) counted from 1."""
    return [
        (float(y), float(x)) for line in axes.lines for x, y in zip(*line.get_data(), strict=True)
    ]


def words_of(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_fsd_draws_tables_paths_and_numbers() -> None:
    pair = {
        "match": np.array([[0.5, 0.25], [0.0, 1.0]]),
        "gap": np.array([[0.1, 0.2], [0.3, 0.4]]),
        "table": np.array([[0, 0, 0], [0, 0.5, 1.25], [0, 0.5, 2.0]]),
        "path": np.array([[0, 0], [1, 1]]),
        "row_labels": ["1 s", "2 s"],
        "column_labels": ["3 s", "4 s"],
        "value": 2.0,
    }
    figure = plot_fsd({"a pair": pair, "nothing": {}})
    match, gap, table, _, _ = figure.axes  # and two colour bars
    np.testing.assert_array_equal(match.images[0].get_array(), pair["match"])
    np.testing.assert_array_equal(gap.images[0].get_array(), pair["gap"])
    np.testing.assert_array_equal(table.images[0].get_array(), pair["table"])
    # Snippets count from 1 in each panel: the table's border is row and column 0.
    assert match.images[0].get_extent() == [0.5, 2.5, 2.5, 0.5]
    assert table.images[0].get_extent() == [-0.5, 2.5, 2.5, -0.5]
    assert match.get_ylim() == table.get_ylim() == (2.5, -0.5)
    assert path_of(match) == path_of(table) == [(1, 1), (2, 2)]
    assert path_of(gap) == []
    assert {"0.50", "0.25", "0.00", "1.00", "match $m$", "a pair"} == set(words_of(match))
    framed = [text.get_text() for text in table.texts if text.get_bbox_patch() is not None]
    assert framed == ["0.50", "2.00"]
    assert table.get_title(loc="left") == "table $C$, FSD = 2.00"
    assert [label.get_text() for label in match.get_yticklabels()] == ["1 s", "2 s"]
    assert [label.get_text() for label in table.get_xticklabels()] == ["3 s", "4 s"]
    assert match.get_ylabel().split() == ["snippets", "of", "video", "A"]
    assert gap.get_xlabel() == "snippets of video B"


@pytest.mark.parametrize(("low", "limits"), [(0.0, (0, 1)), (-0.004, (0, 1)), (-0.2, (-1, 1))])
def test_cosines_share_colours_that_are_about_0_if_one_is_negative(
    low: float, limits: tuple[float, float]
) -> None:
    second = fsd_pair(2, 2, seed=1)
    second["gap"][1, 0] = low
    figure = plot_fsd({"a": fsd_pair(2, 2), "b": second})
    panels = [figure.axes[i] for i in (0, 1, 3, 4)]
    assert {panel.images[0].get_clim() for panel in panels} == {limits}
    sums = [figure.axes[i].images[0].get_clim() for i in (2, 5)]
    assert sums[0] == sums[1] == (0, max(fsd_pair(2, 2)["table"].max(), second["table"].max()))
    assert "-0.00" not in words_of(figure.axes[4])


def test_fsd_of_many_snippets_has_dots_instead_of_numbers() -> None:
    few, many = plot_fsd({"a": fsd_pair(6, 6)}).axes[0], plot_fsd({"a": fsd_pair(7, 7)}).axes[0]
    assert len(few.texts) == 6 * 6 + 2  # name of the pair and of the panel
    assert few.lines[0].get_marker() == "None"
    assert words_of(many) == ["match $m$", "a"]
    assert many.lines[0].get_marker() == "o"


def test_long_names_of_snippets_keep_their_time() -> None:
    axes = plot_fsd({"a": fsd_pair(2, 2, name="TableTennisServing ")}).axes[0]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["TableTennis… 7 s", "TableTenni… 28 s"]  # of 16 characters


def test_lcs_draws_matches_lanes_and_the_threshold() -> None:
    pair = lcs_pair(2, 3) | {
        "path": np.array([[0, 1]]),
        "row_inside": [True, False],
        "column_inside": [False, True, True],
        "value": 0.9375,
    }
    figure = plot_lcs({"a pair": pair, "nothing": {}}, threshold=0.9)
    left, right, similarity_bar, _ = figure.axes
    np.testing.assert_array_equal(left.images[0].get_array(), pair["similarity"])
    np.testing.assert_array_equal(right.images[0].get_array(), pair["table"])
    assert path_of(left) == path_of(right) == [(1, 2)]
    assert right.get_title(loc="left") == "table $C$, LCS = 0.94, 1 matched"
    for axes, edge in ((left, 0.5), (right, -0.5)):
        rows, columns = lanes_of(axes, edge)
        assert rows == {1: "truth", 2: "background"}
        assert columns == {1: "background", 2: "truth", 3: "truth"}
    norm = left.images[0].norm
    assert isinstance(norm, TwoSlopeNorm)
    assert norm.vcenter == 0.9
    ticks = [label.get_text() for label in similarity_bar.get_xticklabels()]
    assert "matches above 0.9" in ticks
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["matched, in order", "in a true action", "outside"]


def lanes_of(axes: Axes, edge: float) -> tuple[dict[float, str], dict[float, str]]:
    """Snippet -> key of its colour, of the bars left of the rows and of those above the columns."""
    names = {to_hex(COLOURS[name]).upper(): name for name in ("truth", "background")}
    rows, columns = {}, {}
    for bar in axes.patches:
        colour = names[to_hex(bar.get_facecolor()).upper()]
        x, y = bar.get_center()
        (rows if x < edge else columns)[y if x < edge else x] = colour
        assert (x < edge) != (y < edge)  # outside the table
    return rows, columns


def test_similarities_above_the_threshold_have_colour_the_others_none() -> None:
    image = plot_lcs({"a": lcs_pair(30, 30)}).axes[0].images[0]
    above = image.cmap(image.norm([0.925, 0.95, 1.0]))[:, :3]
    below = image.cmap(image.norm([0.915, 0.9, image.norm.vmin]))[:, :3]
    assert np.ptp(above, axis=1).min() > 0.4
    assert np.ptp(below, axis=1).max() < 0.02


def test_nothing_matched_has_no_path_in_picture_or_legend() -> None:
    pair = lcs_pair(3, 3) | {"path": np.zeros((0, 2)), "value": 0.0}
    figure = plot_lcs({"a": pair})
    assert path_of(figure.axes[0]) == []
    assert "matched, in order" not in [text.get_text() for text in figure.legends[0].get_texts()]


def test_unknown_similarities_are_left_white() -> None:
    pair = lcs_pair(3, 3)
    pair["similarity"][0, 0] = np.nan
    image = plot_lcs({"a": pair}).axes[0].images[0]
    assert image.get_array().mask.sum() == 1
    assert np.isfinite([image.norm.vmin, image.norm.vmax]).all()


@pytest.mark.parametrize(
    ("epochs", "titles"),
    [
        ([0], ["ACM-Net"]),
        ([0, 3], ["ACM-Net", "epoch 3"]),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8], ["ACM-Net", "epoch 2", "epoch 4", "epoch 6", "epoch 8"]),
    ],
)
def test_paths_over_training_shows_first_last_and_what_lies_between(
    epochs: list[int], titles: list[str]
) -> None:
    kind = over_training(epochs, 4, 2)
    figure = plot_paths_over_training({"negative": kind, "positive": {}})
    panels = [axes for axes in figure.axes if axes.get_visible() and axes.images]
    assert len(panels) == 2 * len(titles)
    lcs, fsd = panels[: len(titles)], panels[len(titles) :]
    assert [axes.get_title(loc="left") for axes in lcs] == titles
    assert lcs[0].get_ylabel() == "negative pair\nLCS similarity"
    shown = [epochs.index(int(title.split()[1])) if " " in title else 0 for title in titles]
    for at, above, below in zip(shown, lcs, fsd, strict=True):
        np.testing.assert_array_equal(above.images[0].get_array(), kind["similarity"][at])
        np.testing.assert_array_equal(below.images[0].get_array(), kind["match"][at])
        assert path_of(above) == [tuple(cell) for cell in kind["paths"][at] + 1]
        assert path_of(below) == [tuple(cell) for cell in kind["fsd_paths"][at] + 1]
        assert above.get_xlabel() == f"LCS {lcs_pair(4, 4, epochs[at])['value']:.2f}"
        assert below.get_xlabel() == f"FSD {fsd_pair(2, 2, -0.5, epochs[at])['value']:.2f}"
    assert {axes.images[0].get_clim() for axes in fsd} == {(-1, 1)}


def test_alignment_values_are_solid_and_dashed_lines_over_epochs() -> None:
    values = alignment_values()
    values.loc[(values["epoch"] == 1) & (values["measure"] == "FSD"), "value"] = np.nan
    fsd, lcs = plot_alignment_values(values).axes
    positive, negative = lcs.lines
    assert (positive.get_linestyle(), negative.get_linestyle()) == ("-", "--")
    assert (positive.get_label(), negative.get_label()) == ("positive pair", "negative pair")
    assert positive.get_ydata().tolist() == [6.0 + epoch for epoch in range(11)]
    assert negative.get_ydata().tolist() == [6.0 - epoch for epoch in range(11)]
    assert fsd.lines[0].get_xdata().tolist() == [0, *range(2, 11)]
    assert [axes.get_ylabel() for axes in (fsd, lcs)] == ["FSD", "LCS"]
    assert all("higher: better aligned" in axes.get_title(loc="left") for axes in (fsd, lcs))


def marks_of(axes: Axes, marker: str) -> list[list[float]]:
    drawn = [line for line in axes.lines if line.get_marker() == marker and len(line.get_xdata())]
    return [[float(x) for x in line.get_xdata()] for line in drawn]


def test_terms_has_seeds_mean_and_deviation_of_each_variant() -> None:
    rows = pd.DataFrame(
        [("FTCL", 0, 40.0), ("FTCL", 1, 42.0), ("FTCL", 2, np.nan), ("ACM-Net", 0, 38.5)],
        columns=["variant", "seed", AVERAGE],
    )
    nowhere = pd.DataFrame({"variant": ["without FSD"], "seed": [0], AVERAGE: [np.nan]})
    axes = plot_terms(pd.concat([rows, nowhere])).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "FTCL",
        "ACM-Net",
        "without FSD",
    ]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first on top
    assert marks_of(axes, "o") == [[40.0, 42.0], [38.5]]
    assert marks_of(axes, "D") == [[41.0], [38.5]]
    root = np.sqrt(2)  # of ((40 - 41)^2 + (42 - 41)^2) / (2 - 1)
    assert marks_of(axes, "|") == [pytest.approx([41 - root, 41 + root])]
    assert words_of(axes)[:3] == ["41.0 ± 1.4", "38.5", "not measured"]


def test_a_single_seed_has_no_deviation() -> None:
    figure = plot_terms(terms(1))
    assert marks_of(figure.axes[0], "|") == []
    assert words_of(figure.axes[0]) == ["40.0", "41.0", "42.0", "43.0", "44.0", "mean"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a seed", "mean"]


def test_published_values_are_hollow_marks_or_dashed_lines_and_named() -> None:
    figure = plot_terms(terms(), {"FTCL": 43.6, "ACM-Net": 42.6, "CoLA": 41.7})
    axes = figure.axes[0]
    hollow = [line for line in axes.lines if line.get_marker() == "s"]
    places = {(float(*line.get_ydata()), float(*line.get_xdata())) for line in hollow}
    assert places == {(0, 42.6), (4, 43.6)}
    assert {line.get_markerfacecolor() for line in hollow} == {"white"}
    [vertical] = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert list(vertical.get_xdata()) == [41.7, 41.7]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [
        "a seed",
        "mean",
        "standard deviation",
        "published, THUMOS'14 (real)",
        "CoLA, published, THUMOS'14 (real)",
    ]


def test_generators_keep_colour_and_marker_over_steps_and_panels() -> None:
    rows = generators(2)
    rows = rows[~((rows["generator"] == "CoLA") & (rows["step"] == "student"))]
    rows = rows.sample(frac=1, random_state=0).sort_values("generator")  # order must not matter
    left, right = plot_generators(rows).axes
    means = {line.get_label(): line for line in left.lines if line.get_linestyle() == "-"}
    assert set(means) == set(GENERATOR_MARKERS)
    for name, line in means.items():
        assert (line.get_marker(), line.get_color()) == (GENERATOR_MARKERS[name], colour_of(name))
    assert means["FTCL"].get_ydata().tolist() == [36.5, 39.5, 42.5, 45.5]
    np.testing.assert_array_equal(means["CoLA"].get_ydata(), [30.5, 33.5, np.nan, 39.5])
    labels = {line.get_label(): line for line in right.lines if line.get_linestyle() == "-"}
    assert labels["ACM-Net"].get_ydata().tolist() == pytest.approx([40, 50])
    assert labels["ACM-Net"].get_marker() == "^"
    faint = [line for line in left.lines if line.get_linestyle() == "None"]
    assert sum(len(line.get_xdata()) for line in faint) == len(rows)
    steps = [label.get_text().replace("\n", " ") for label in left.get_xticklabels()]
    assert steps == ["raw proposals", "selected proposals", "student", "student + EMA"]
    assert [label.get_text() for label in right.get_xticklabels()] == [
        "raw\nproposals",
        "selected\nproposals",
    ]


def test_labels_that_were_not_measured_leave_their_panel_empty() -> None:
    left, right = plot_generators(generators(1).assign(**{"f1@0.5": np.nan})).axes
    assert words_of(right) == ["not measured"]
    assert not right.get_yticks().size
    assert not left.texts


def test_a_generator_of_another_name_has_a_marker_of_its_own() -> None:
    rows = generators(1)
    more = pd.concat(
        [rows, rows[:4].assign(generator="my generator"), rows[:4].assign(generator="x")]
    )
    left = plot_generators(more).axes[0]
    markers = [line.get_marker() for line in left.lines if line.get_linestyle() == "-"]
    assert len(set(markers)) == len(markers) == len(GENERATOR_MARKERS) + 2


def test_what_follows_a_generators_name_in_brackets_leaves_its_marker() -> None:
    rows = generators(1)[:4].assign(generator="FTCL (best-on-test)")
    mean = next(line for line in plot_generators(rows).axes[0].lines if line.get_linestyle() == "-")
    assert (mean.get_marker(), mean.get_label()) == ("D", "FTCL (best-on-test)")
