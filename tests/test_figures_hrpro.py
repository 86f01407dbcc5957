"""Figures of HR-Pro: what they draw is what they were given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy.stats import spearmanr

from fustal_core.figures import COLOURS, colour_of, evenly
from fustal_core.figures_cost import plot_label_cost
from fustal_core.figures_hrpro import (
    MAX_PANELS,
    PointGrowth,
    SeedHistory,
    plot_point_to_segment,
    plot_seeds_over_training,
    spans_of,
)
from fustal_core.figures_points import (
    BACKGROUND_CROSSES,
    CLASS_COLOURS,
    OTHER_CLASSES,
    PrototypeFrame,
    plot_confidence,
    plot_placement,
    plot_prototypes,
    spearman,
)
from fustal_core.metrics import AVERAGE
from fustal_core.timeline import MAX_SEGMENTS

pytestmark = pytest.mark.filterwarnings("error")  # of matplotlib: a layout that does not fit


def segments(*rows: tuple[float, ...]) -> pd.DataFrame:
    columns = ["t_start", "t_end", "score"][: len(rows[0])] if rows else ["t_start", "t_end"]
    return pd.DataFrame(list(rows), columns=columns, dtype=float)


def growth(**changes: object) -> PointGrowth:
    """Eight snippets of two seconds; points at 5 s and 13 s."""
    given = PointGrowth(
        label="Diving",
        times_s=np.arange(8) * 2.0 + 1,
        background=np.array([0.99, 0.5, 0.05, 0.3, 0.97, 0.4, 0.05, 0.08]),
        cas=np.array([0, 0.2, 0.8, 0.4, 0, 0.3, 0.7, 0.6]),
        action_seeds=np.array([0, 0, 1, 0, 0, 0, 1, 1], dtype=bool),
        background_seeds=np.array([1, 0, 0, 0, 1, 0, 0, 0], dtype=bool),
        seconds_per_snippet=2.0,
        points_s=np.array([5.0, 13.0]),
        proposals=segments((3, 7, 0.8), (2, 8, 0.4), (11, 16, 0.2), (0, 1, -0.5)),
        reliable=segments((3, 7, 0.8), (11, 16, 0.2)),
        refined=segments((3.5, 7.5, 1.0), (12, 15, 1.0)),
        truth=segments((4, 7), (12, 16)),
        action_threshold=0.1,
        background_threshold=0.95,
    )
    return replace(given, **changes)


def history(count: int = 3, **changes: object) -> SeedHistory:
    """Six snippets of one second; action seeds grow by one snippet an iteration."""
    shape = count, 6
    given = SeedHistory(
        title="a video",
        times_s=np.arange(6) + 0.5,
        seconds_per_snippet=1.0,
        iterations=[100 * i for i in range(count)],
        background=np.linspace(0, 1, count * 6).reshape(shape),
        action_seeds=np.arange(6) <= np.arange(count)[:, None],
        background_seeds=np.tile(np.array([0, 0, 0, 0, 1, 0], dtype=bool), (count, 1)),
        points_s=np.array([0.5]),
        truth=segments((0, 3)),
        action_threshold=0.1,
        background_threshold=0.95,
    )
    return replace(given, **changes)


def embeddings(classes: int, iterations: int = 2) -> tuple[list[PrototypeFrame], list[str]]:
    """Class c has 2 (c + 1) snippets; three are background."""
    rng = np.random.default_rng(0)
    own = np.repeat(np.arange(classes), 2 * (np.arange(classes) + 1))
    labels = np.concatenate([own, [-1, -1, -1]])
    frames = [
        PrototypeFrame(
            200 * i, rng.normal(size=(len(labels), 2)), labels, rng.normal(size=(classes, 2))
        )
        for i in range(iterations)
    ]
    return frames, [f"class {c}" for c in range(classes)]


def scored(count: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"score": rng.uniform(-1, 2, count), "tiou": rng.uniform(0, 1, count)})


def placements(seeds: int = 2) -> pd.DataFrame:
    rows = [
        (name, seed, mean + seed)
        for name, mean in (("gaussian", 50.0), ("start", 40.0))
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows, columns=["placement", "seed", AVERAGE])


COST = ["method", "supervision", "cost_h", AVERAGE, "note"]


def costs() -> pd.DataFrame:
    rows = [
        ("FTCL", "video", 1.5, 41.2, ""),
        ("HR-Pro", "point", 2.6, 55.0, None),
        ("student, truth of a share", "full", 34.0, 66.0, "all videos"),
        ("student, truth of a share", "full", 3.4, 38.0, "10 %"),
        ("student, truth of a share", "full", 17.0, 58.0, "50 %"),
    ]
    return pd.DataFrame(rows, columns=COST)


NO_SEGMENT = segments()
FIGURES: dict[str, Callable[[], Figure]] = {
    "growth": lambda: plot_point_to_segment(growth()),
    "growth, others": lambda: plot_point_to_segment(
        growth(video="video_validation_0000051", other_points_s=np.array([1.0, 15.0]))
    ),
    "growth, nothing found": lambda: plot_point_to_segment(
        growth(
            points_s=np.zeros(0),
            proposals=NO_SEGMENT,
            reliable=NO_SEGMENT,
            refined=NO_SEGMENT,
            truth=NO_SEGMENT,
            action_seeds=np.zeros(8, dtype=bool),
        )
    ),
    "seeds": lambda: plot_seeds_over_training(history()),
    "seeds, one": lambda: plot_seeds_over_training(history(1, points_s=np.zeros(0))),
    "prototypes, many": lambda: plot_prototypes(*embeddings(20, 6)),
    "prototypes, few": lambda: plot_prototypes(*embeddings(2, 1)),
    "confidence": lambda: plot_confidence(scored(500), scored(900, 1)),
    "confidence, half": lambda: plot_confidence(scored(500), scored(0)),
    "placement": lambda: plot_placement(placements()),
    "placement, one seed": lambda: plot_placement(placements(1)),
    "cost": lambda: plot_label_cost(costs()),
}


def not_drawn(figure: Figure) -> set[Text]:
    """Labels of ticks beyond the ends of their axes."""
    beyond = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = (*axis.get_major_ticks(), *axis.get_minor_ticks())
        beyond |= {tick.label1 for tick in ticks if not low <= tick.get_loc() <= high}
        beyond |= {tick.label2 for tick in ticks if not low <= tick.get_loc() <= high}
    return beyond


@pytest.mark.parametrize("name", FIGURES)
def test_everything_said_lies_within_the_figure(name: str) -> None:
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    frame = figure.bbox.padded(1)
    for text in set(figure.findobj(Text)) - not_drawn(figure):
        if text.get_text() and text.get_visible():
            box = text.get_window_extent()
            assert frame.x0 <= box.x0 <= box.x1 <= frame.x1, text.get_text()
            assert frame.y0 <= box.y0 <= box.y1 <= frame.y1, text.get_text()


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        (
            lambda: plot_point_to_segment(
                growth(
                    times_s=np.zeros(0),
                    background=np.zeros(0),
                    cas=np.zeros(0),
                    action_seeds=np.zeros(0, dtype=bool),
                    background_seeds=np.zeros(0, dtype=bool),
                )
            ),
            "a video without snippets",
        ),
        (
            lambda: plot_seeds_over_training(history(0)),
            "no snippet was looked at during the training",
        ),
        (lambda: plot_prototypes([], ["a"]), "no embedding was looked at during the training"),
        (
            lambda: plot_confidence(scored(0), scored(0)),
            "no proposal to compare with the truth",
        ),
        (lambda: plot_placement(placements(0)), "no placement of points was measured"),
        (lambda: plot_label_cost(costs()[:0]), "no method with a cost and a measure"),
    ],
)
def test_without_anything_to_show_it_says_so(figure: Callable[[], Figure], said: str) -> None:
    assert [text.get_text() for text in figure().axes[0].texts] == [said]


# --- from points to segments ----------------------------------------------------------------------


def bars_of(axes: Axes, lane: str) -> list[tuple[float, float]]:
    """Starts and ends in seconds, as drawn."""
    [bars] = [own for own in axes.collections if own.get_label() == lane]
    xs = [path.vertices[:, 0] for path in bars.get_paths()]
    return [(float(x.min()), float(x.max())) for x in xs]


def test_runs_of_snippets_by_hand() -> None:
    times = np.array([0.5, 1.5, 2.5, 3.5, 4.5])
    spans = spans_of(np.array([1, 0, 1, 1, 1]), times, 1.0)
    assert spans.to_numpy().tolist() == [[0, 1], [2, 5]]
    assert spans_of(np.zeros(5), times, 1.0).empty
    assert spans_of(np.zeros(0), times[:0], 1.0).empty


@given(st.lists(st.booleans(), max_size=30))
def test_spans_hold_the_marked_snippets_alone_and_do_not_touch(mask: list[bool]) -> None:
    times = 3.0 + 0.5 * np.arange(len(mask))
    start, end = spans_of(np.array(mask, dtype=bool), times, 0.5).to_numpy().T
    inside = ((times[:, None] > start) & (times[:, None] < end)).any(axis=1)
    assert inside.tolist() == mask
    assert (start[1:] > end[:-1]).all()


def test_growth_has_a_lane_for_each_step() -> None:
    above, middle, below = plot_point_to_segment(growth()).axes
    names = ["action seeds", "background seeds", "proposals", "reliable", "refined", "truth"]
    assert [label.get_text() for label in below.get_yticklabels()] == names
    assert (np.diff(below.get_yticks()) < 0).all()  # from the top
    expected = [
        [(4, 6), (12, 16)],
        [(0, 2), (8, 10)],
        [(3, 7), (2, 8), (11, 16), (0, 1)],  # best first
        [(3, 7), (11, 16)],
        [(3.5, 7.5), (12, 15)],
        [(4, 7), (12, 16)],
    ]
    assert [bars_of(below, name) for name in names] == expected
    assert below.get_xlim() == above.get_xlim() == (0, 16)
    assert above.get_title(loc="left") == "Diving, 2 points"
    [curve] = middle.lines
    np.testing.assert_array_equal(curve.get_ydata(), growth().cas)


def test_growth_marks_thresholds_and_points() -> None:
    figure = plot_point_to_segment(growth(action_threshold=0.2, background_threshold=0.9))
    above = figure.axes[0]
    curve = above.lines[0]
    np.testing.assert_array_equal(curve.get_ydata(), growth().background)
    assert above.get_yticks().tolist() == [0.2, 0.9]
    assert [line.get_ydata()[0] for line in above.lines if line.get_linestyle() == "--"] == [
        0.2,
        0.9,
    ]
    for axes in figure.axes:
        [ticks] = [own for own in axes.collections if own.get_label() == "_points"]
        assert [path.vertices[0, 0] for path in ticks.get_paths()] == [5, 13]
    [marks] = [line for line in above.lines if line.get_marker() == "v"]
    assert marks.get_xdata().tolist() == [5, 13]
    assert {text.get_text(): text.xy[1] for text in above.texts} == {
        "action": 0.2,
        "background": 0.9,
    }


def test_points_of_other_classes_are_hollow_and_have_no_line() -> None:
    figure = plot_point_to_segment(growth(video="a video", other_points_s=np.array([1.0])))
    above = figure.axes[0]
    assert above.get_title(loc="left") == "a video: Diving, 2 points"
    marks = [line for line in above.lines if line.get_marker() == "v"]
    faces = {tuple(line.get_xdata().tolist()): line.get_markerfacecolor() for line in marks}
    assert faces == {(1,): "white", (5, 13): COLOURS["truth"]}
    assert marks[0].get_markersize() < marks[1].get_markersize()
    for axes in figure.axes:
        [lines] = [own for own in axes.collections if own.get_label() == "_points"]
        assert [path.vertices[0, 0] for path in lines.get_paths()] == [5, 13]
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["point of Diving", "point of another class"]
    assert not plot_point_to_segment(growth()).legends


def test_proposals_are_the_fuller_the_better() -> None:
    below = plot_point_to_segment(growth()).axes[2]
    [bars] = [own for own in below.collections if own.get_label() == "proposals"]
    # 1/4 + 3/4 of score / 0.8; below 0 counts as 0.
    np.testing.assert_allclose(bars.get_alpha(), [1.0, 0.625, 0.4375, 0.25])
    boxes = [path.get_extents() for path in bars.get_paths()]
    assert boxes[0].y0 > boxes[1].y1  # they overlap in time
    assert boxes[2].y0 == boxes[3].y0 == boxes[0].y0  # these do not


def test_of_many_proposals_the_best_are_drawn_and_the_name_says_so() -> None:
    many = segments(*((i, i + 0.5, i / 100) for i in range(100)))
    below = plot_point_to_segment(growth(proposals=many)).axes[2]
    name = f"proposals\nbest {MAX_SEGMENTS} of 100"
    assert name in [label.get_text() for label in below.get_yticklabels()]
    starts = [start for start, _ in bars_of(below, name)]
    assert starts == list(range(99, 99 - MAX_SEGMENTS, -1))
    assert "_outlined" not in [own.get_label() for own in below.collections]


def test_reliable_proposals_are_drawn_however_weak_and_outlined() -> None:
    many = segments(*((i, i + 0.5, i / 100) for i in range(100)))
    same_ends = segments((7, 7.5, 0.9))  # another score: not the one that was chosen
    reliable = many.iloc[[98, 7, 98]]
    below = plot_point_to_segment(
        growth(proposals=pd.concat([many, same_ends]), reliable=reliable)
    ).axes[2]
    name = f"proposals\nbest {MAX_SEGMENTS} of 101\nand reliable"
    assert name in [label.get_text() for label in below.get_yticklabels()]
    starts = [start for start, _ in bars_of(below, name)]
    assert len(starts) == MAX_SEGMENTS + 1
    assert starts[-1] == 7
    assert bars_of(below, "_outlined") == [(98, 98.5), (7, 7.5)]
    [outlines] = [own for own in below.collections if own.get_label() == "_outlined"]
    [lane] = [own for own in below.collections if own.get_label() == "reliable"]
    np.testing.assert_array_equal(outlines.get_edgecolors()[0], lane.get_facecolors()[0])
    assert not len(outlines.get_facecolors())


def test_seeds_are_drawn_however_many_there_are() -> None:
    count = 4 * MAX_SEGMENTS
    mask = np.arange(count) % 2 == 0
    flat = np.full(count, 0.5)
    below = plot_point_to_segment(
        growth(
            times_s=np.arange(count) + 0.5,
            seconds_per_snippet=1.0,
            background=flat,
            cas=flat,
            action_seeds=mask,
            background_seeds=~mask,
        )
    ).axes[2]
    assert len(bars_of(below, "action seeds")) == 2 * MAX_SEGMENTS


def test_lanes_without_segments_say_none() -> None:
    below = FIGURES["growth, nothing found"]().axes[2]
    assert [text.get_text() for text in below.texts] == ["none"] * 5  # background has seeds
    assert plot_point_to_segment(growth(points_s=np.zeros(0))).axes[0].get_title(loc="left") == (
        "Diving, no points"
    )


@pytest.mark.parametrize("name", ["background", "cas", "action_seeds", "background_seeds"])
def test_arrays_of_another_length_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is of shape"):
        growth(**{name: np.zeros(7)})


# --- seeds over the training ----------------------------------------------------------------------


def test_seeds_of_each_iteration_stand_behind_its_background_score() -> None:
    figure = plot_seeds_over_training(history())
    *panels, lane = figure.axes
    assert [axes.get_ylabel() for axes in panels] == [
        "iteration\n0",
        "iteration\n100",
        "iteration\n200",
    ]
    for at, axes in enumerate(panels):
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), history().background[at])
        assert bars_of(axes, "action seeds") == [(0, at + 1)]
        assert bars_of(axes, "background seeds") == [(4, 5)]
    assert bars_of(lane, "truth") == [(0, 3)]
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(said) == ["action seeds", "background score", "background seeds", "point"]


def test_nothing_but_the_score_is_drawn_over_the_seeds() -> None:
    panels = plot_seeds_over_training(history()).axes[:-1]
    for axes in panels:
        assert {own.get_label() for own in axes.collections} == {"action seeds", "background seeds"}
        assert not any(line.get_visible() for line in axes.get_xgridlines())
    [marks] = [line for axes in panels for line in axes.lines if line.get_marker() == "v"]
    assert marks.axes is panels[0]
    assert marks.get_xdata().tolist() == [0.5]
    assert min(marks.get_ydata()) > 1
    said = [[text.get_text() for text in axes.texts] for axes in panels]
    assert said == [["background", "action"], [], []]


def test_of_many_iterations_some_are_shown_with_both_ends() -> None:
    panels = plot_seeds_over_training(history(11)).axes[:-1]
    numbers = [int(axes.get_ylabel().split("\n")[1].replace(",", "")) for axes in panels]
    assert numbers == [0, 200, 400, 600, 800, 1000]


@given(st.integers(1, 200))
def test_chosen_moments_are_different_rising_and_hold_both_ends(count: int) -> None:
    chosen = evenly(count, MAX_PANELS)
    assert len(chosen) == min(count, MAX_PANELS)
    assert chosen == sorted(set(chosen))
    assert (chosen[0], chosen[-1]) == (0, count - 1)


@pytest.mark.parametrize("name", ["background", "action_seeds", "background_seeds"])
def test_a_history_of_another_shape_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} is of shape \(3, 5\), expected \(3, 6\)"):
        history(**{name: np.zeros((3, 5))})


# --- prototypes -----------------------------------------------------------------------------------


def colours_of(axes: Axes, marker: int) -> list[str]:
    """0: crosses; 1: dots; 2: stars of classes without a name; 3: of named ones."""
    return [to_hex(colour).upper() for colour in axes.collections[marker].get_facecolors()]


def test_the_classes_with_most_snippets_have_colours() -> None:
    frames, names = embeddings(20)
    figure = plot_prototypes(frames, names)
    axes = figure.axes[0]
    dots = colours_of(axes, 1)
    for number, colour in enumerate(CLASS_COLOURS):
        assert dots.count(colour) == 2 * (12 + number + 1)  # classes 12 to 19
    assert len(axes.collections[0].get_offsets()) == 3
    assert to_hex(axes.collections[0].get_edgecolors()[0]).upper() == BACKGROUND_CROSSES
    assert dots.count(OTHER_CLASSES) == sum(2 * (c + 1) for c in range(12))
    assert colours_of(axes, 3) == list(CLASS_COLOURS)
    assert set(colours_of(axes, 2)) == {OTHER_CLASSES}
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == [*names[12:], "12 other classes", "background", "prototype"]


def test_dots_and_stars_lie_where_they_were_given() -> None:
    frames, names = embeddings(2)
    panels = plot_prototypes(frames, names).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["iteration 0", "iteration 200"]
    for axes, frame in zip(panels, frames, strict=True):
        crosses, dots, _, stars = (own.get_offsets() for own in axes.collections)
        np.testing.assert_array_equal(crosses, frame.snippets[frame.classes < 0])
        colours = np.array(colours_of(axes, 1))
        for index, colour in enumerate(CLASS_COLOURS[:2]):
            np.testing.assert_array_equal(
                dots[colours == colour], frame.snippets[frame.classes == index]
            )
        np.testing.assert_array_equal(stars, frame.prototypes)
    assert panels[0].get_xlim() == panels[1].get_xlim()


def test_the_components_are_named_once_at_the_outer_corner() -> None:
    panels = plot_prototypes(*embeddings(3, 5)).axes
    named = [(axes.get_xlabel(), axes.get_ylabel()) for axes in panels]
    corner = ("first principal component", "second principal component")
    assert named == [("", "")] * 3 + [corner] + [("", "")] * 2  # two rows of three


def test_a_class_without_a_prototype_has_no_star() -> None:
    frames, names = embeddings(2, 1)
    frames[0].prototypes[1] = np.nan
    stars = plot_prototypes(frames, names).axes[0].collections[3].get_offsets()
    assert np.ma.getmaskarray(stars).any(axis=1).tolist() == [False, True]


def test_a_class_without_a_snippet_has_no_colour() -> None:
    frames, names = embeddings(2, 1)
    wider = frames[0]._replace(prototypes=np.zeros((3, 2)))
    figure = plot_prototypes([wider], [*names, "absent"])
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == [*names, "1 other class", "background", "prototype"]
    said = [text.get_text() for text in plot_prototypes(frames, names).legends[0].get_texts()]
    assert said == [*names, "background", "prototype"]


# --- confidence -----------------------------------------------------------------------------------

SOME = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=15)


@given(SOME)
def test_spearman_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    table = pd.DataFrame(pairs, columns=["score", "tiou"], dtype=float)
    assume((table.max() > table.min()).all())
    expected = spearmanr(table["score"], table["tiou"]).statistic
    assert spearman(table) == pytest.approx(expected)


def test_spearman_by_hand() -> None:
    table = pd.DataFrame({"score": [1.0, 2.0, 3.0], "tiou": [0.1, 0.3, 0.2]})
    assert spearman(table) == pytest.approx(1 - 6 * 2 / (3 * 8))
    assert np.isnan(spearman(table.assign(tiou=0.5)))


def test_all_proposals_are_counted() -> None:
    before, after = scored(500), scored(900, 1)
    before.loc[:9, "tiou"] = np.nan  # of no known tIoU
    left, right, *_ = plot_confidence(before, after, ("stage 1", "stage 2")).axes
    for axes, count in ((left, 490), (right, 900)):
        assert axes.collections[0].get_array().sum() == count
    value = spearman(before.dropna())
    assert left.get_title(loc="left") == f"stage 1: Spearman {value:.2f}\n490 proposals"
    assert left.collections[0].norm.vmax == right.collections[0].norm.vmax


def test_the_line_is_the_mean_of_each_tenth() -> None:
    score = np.arange(20.0)
    table = pd.DataFrame({"score": score, "tiou": score / 20}).sample(frac=1, random_state=0)
    line = plot_confidence(table, table).axes[0].lines[0]
    np.testing.assert_allclose(line.get_xdata(), np.arange(10) * 2 + 0.5)
    np.testing.assert_allclose(line.get_ydata(), (np.arange(10) * 2 + 0.5) / 20)


def test_equal_scores_stay_together() -> None:
    table = pd.DataFrame({"score": [0.0] * 19 + [1.0], "tiou": [0.2] * 19 + [0.8]})
    line = plot_confidence(table, table.assign(score=3.0)).axes[0].lines[0]
    np.testing.assert_allclose(line.get_xydata(), [[0, 0.2], [1, 0.8]])
    constant = plot_confidence(table, table.assign(score=3.0)).axes[1]
    np.testing.assert_allclose(constant.lines[0].get_xydata(), [[3, 0.23]])
    assert "Spearman nan" in constant.get_title(loc="left")


# --- placement of points --------------------------------------------------------------------------


def test_placement_has_seeds_mean_and_deviation() -> None:
    rows = placements(3)
    rows.loc[len(rows)] = ["uniform", 0, np.nan]
    axes = plot_placement(rows).axes[0]
    drawn = {m: [line for line in axes.lines if line.get_marker() == m] for m in ("o", "D")}
    values = {m: [o.get_xdata().tolist() for o in own] for m, own in drawn.items()}
    assert values["o"][:2] == [[50, 51, 52], [40, 41, 42]]
    assert values["D"][:2] == [[51], [41]]
    assert drawn["D"][0].get_color() == colour_of("HR-Pro")
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["gaussian", "start", "uniform"]
    said = [text.get_text() for text in axes.texts]
    assert said == ["51.0 ± 1.0", "41.0 ± 1.0", "not measured", "mean ± sd"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first on top
    assert axes.get_xlabel() == f"test mAP of stage 1, {AVERAGE} (%)"


def test_a_placement_with_one_seed_has_no_mean() -> None:
    rows = placements(1)
    rows.loc[len(rows)] = ["uniform", 0, np.nan]
    figure = plot_placement(rows)
    axes = figure.axes[0]
    drawn = [(line.get_marker(), line.get_xydata().tolist()) for line in axes.lines]
    assert drawn == [("o", [[50, 0]]), ("o", [[40, 1]]), ("o", [])]
    assert [text.get_text() for text in axes.texts] == ["50.0", "40.0", "not measured", "mAP"]
    assert not figure.legends


# --- what labels cost -----------------------------------------------------------------------------


def marks_of(axes: Axes, marker: str) -> dict[tuple[float, float], str]:
    """(hours, mAP) -> colour of the mark's face."""
    return {
        tuple(map(float, line.get_xydata()[0])): line.get_markerfacecolor()
        for line in axes.lines
        if line.get_marker() == marker and len(line.get_xdata())
    }


def test_each_row_has_a_mark_of_its_supervision() -> None:
    axes = plot_label_cost(costs()).axes[0]
    assert marks_of(axes, "s") == {(1.5, 41.2): colour_of("FTCL")}
    assert marks_of(axes, "o") == {(2.6, 55.0): colour_of("HR-Pro")}
    assert set(marks_of(axes, "^")) == {(3.4, 38.0), (17.0, 58.0), (34.0, 66.0)}
    assert axes.get_xscale() == "log"
    legend = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert legend == ["video labels", "point labels", "full labels"]


def test_rows_of_a_method_are_joined_from_the_cheapest_on() -> None:
    axes = plot_label_cost(costs()).axes[0]
    joined = [line.get_xydata().tolist() for line in axes.lines if len(line.get_xdata()) > 1]
    assert joined == [[[3.4, 38], [17, 58], [34, 66]]]


def test_the_cheapest_row_has_the_name_and_all_have_their_notes() -> None:
    said = {text.get_text(): text.xy for text in plot_label_cost(costs()).axes[0].texts}
    assert said == {
        "FTCL": (1.5, 41.2),
        "HR-Pro": (2.6, 55.0),
        "student, truth of a share\n10 %": (3.4, 38.0),
        "50 %": (17.0, 58.0),
        "all videos": (34.0, 66.0),
    }


def test_names_of_near_marks_do_not_cover_each_other() -> None:
    near = pd.DataFrame(
        [(f"a method {i}", "point", 2.6, 50 + 1.2 * i, "") for i in range(4)]
        + [("far", "full", 100.0, 70.0, ""), ("low", "video", 1.0, 20.0, "")],
        columns=COST,
    )
    figure = plot_label_cost(near)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 6
    for number, box in enumerate(boxes):
        assert box.count_overlaps(boxes[number + 1 :]) == 0


def test_rows_without_cost_or_measure_are_named() -> None:
    free = pd.DataFrame([("guessing", "video", 0.0, 5.0, "")], columns=COST)
    axes = plot_label_cost(pd.concat([costs(), free])).axes[0]
    assert axes.get_xlabel().splitlines()[1] == "no cost or no measure: guessing"
    assert "\n" not in plot_label_cost(costs()).axes[0].get_xlabel()


def test_an_unknown_supervision_is_refused() -> None:
    with pytest.raises(ValueError, match="'frames' is none of video, point, full"):
        plot_label_cost(costs().assign(supervision="frames"))


def test_background_seeds_have_the_colour_of_background() -> None:
    below = plot_point_to_segment(growth()).axes[2]
    for lane, colour in (("background seeds", "background"), ("action seeds", "actionness")):
        [bars] = [own for own in below.collections if own.get_label() == lane]
        assert to_hex(bars.get_facecolors()[0]).upper() == COLOURS[colour]


def test_a_name_covers_a_line_rather_than_another_name() -> None:
    """Two marks at one cost, a line from the upper one: as in the default run."""
    rows = pd.DataFrame(
        {
            "method": ["HR-Pro", "student on segments", "student on segments"],
            "supervision": ["point", "full", "full"],
            "cost_h": [12.2, 12.2, 73.2],
            "avg 0.1:0.7": [63.4, 66.1, 89.1],
            "note": ["", "36 videos", "200 videos"],
        }
    )
    figure = plot_label_cost(rows)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 3
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
