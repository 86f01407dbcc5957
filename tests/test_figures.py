"""The figures carry the numbers they are given, and their files depend on nothing else."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from fustal_core.figures import COLOURS, colour_of, save_figure, write_figure
from fustal_core.figures_data import (
    plot_dataset,
    plot_durations,
    plot_features,
    plot_generator_history,
    plot_mining,
    plot_selection_plane,
)
from fustal_core.figures_results import (
    plot_calibration,
    plot_class_ap,
    plot_iou_score_histogram,
    plot_main_results,
    plot_quality_along_pipeline,
)
from fustal_core.figures_student import (
    plot_initial_weight_share,
    plot_pyramid,
    plot_training,
    plot_trident,
)
from fustal_core.metrics import THUMOS_TIOU
from fustal_core.timeline import MAX_SEGMENTS, Timeline, pack_rows

MAP_COLUMNS = [f"mAP@{t:g}" for t in THUMOS_TIOU]


@pytest.fixture
def main() -> pd.DataFrame:
    values = {
        "method": ["student + EMA", "CoLA (released code)", "FuSTAL"],
        "data": ["simulated", "THUMOS'14", "THUMOS'14"],
        "origin": ["measured", "published", "published"],
        "avg 0.1:0.7": [40.0, 41.7, 50.8],
    }
    curves = np.full((3, 7), np.nan)
    curves[0] = [70, 60, 50, 40, 30, 20, 10]
    curves[1] = [66.1, 60, 52.1, 43.1, 34.3, 23.5, 13.1]
    return pd.DataFrame(values | dict(zip(MAP_COLUMNS, curves.T, strict=True)))


def lines_of(axes: Axes) -> dict[str, np.ndarray]:
    return {line.get_label(): np.asarray(line.get_ydata(), dtype=float) for line in axes.lines}


def test_main_results_draws_measured_solid_and_published_dashed(main: pd.DataFrame) -> None:
    left, right = plot_main_results(main).axes
    lines = {line.get_label(): line for line in left.lines}
    measured = lines["student + EMA (measured)"]
    published = lines["CoLA (released code) (published)"]
    np.testing.assert_array_equal(measured.get_ydata(), [70, 60, 50, 40, 30, 20, 10])
    assert published.get_ydata()[0] == 66.1
    assert measured.get_linestyle() == "-"
    assert published.get_linestyle() == "--"
    # FuSTAL has no published figure per threshold: no line may be made up for it.
    assert len(lines["FuSTAL (published)"].get_ydata()) == 0
    assert [float(line.get_xdata()[0]) for line in right.lines] == [40.0, 41.7, 50.8]
    assert [text.get_text() for text in right.texts] == ["40.0", "41.7", "50.8"]


def test_published_rows_have_marks_of_their_own_in_both_panels(main: pd.DataFrame) -> None:
    left, right = plot_main_results(main).axes
    marks = [line.get_marker() for line in left.lines]
    assert marks == [line.get_marker() for line in right.lines]
    assert len(set(marks)) == 3


def test_a_ceiling_above_all_is_a_number_at_the_end_of_the_axis(main: pd.DataFrame) -> None:
    ceiling = main.iloc[:1].assign(method="student on true segments (ceiling)")
    both = pd.concat([main, ceiling.assign(**{"avg 0.1:0.7": 89.0})])
    right = plot_main_results(both).axes[1]
    assert [float(line.get_xdata()[0]) for line in right.lines] == [40.0, 41.7, 50.8]
    assert right.get_xlim()[1] < 60
    assert any(text.get_text().startswith("89.0") for text in right.texts)
    low = pd.concat([main, ceiling.assign(**{"avg 0.1:0.7": 45.0})])  # on the axis as all others
    assert 45.0 in [float(line.get_xdata()[0]) for line in plot_main_results(low).axes[1].lines]


def test_calibration_shows_both_rows(main: pd.DataFrame) -> None:
    left, _ = plot_calibration(main.iloc[:2]).axes
    assert {len(values) for values in lines_of(left).values()} == {7}


@pytest.fixture
def quality() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "step": ["all proposals", "confidence filter", "IoU-score filter", *["EMA labels"] * 2],
            "epoch": [pd.NA, pd.NA, pd.NA, 15, 16],
            "precision@0.5": [0.1, 0.2, 0.3, 0.4, 0.5],
            "recall@0.5": [0.9, 0.8, 0.7, 0.6, 0.5],
            "f1@0.5": [0.2, 0.3, 0.4, 0.5, 0.5],
            "mean_tiou": [0.5, 0.6, 0.7, 0.8, 0.9],
        }
    )


def test_quality_along_pipeline_holds_steps_and_epochs_in_percent(quality: pd.DataFrame) -> None:
    precision, recall, _, mean_tiou = plot_quality_along_pipeline(quality).axes
    assert [bar.get_height() for bar in precision.patches] == pytest.approx([10, 20, 30])
    assert lines_of(recall)["EMA labels"].tolist() == pytest.approx([60, 50])
    assert [bar.get_height() for bar in mean_tiou.patches] == pytest.approx([50, 60, 70])
    bars = [bar.get_x() for bar in precision.patches]
    line = next(line for line in precision.lines if line.get_label() == "EMA labels")
    assert max(bars) < line.get_xdata()[0]
    assert [tick.get_text() for tick in mean_tiou.get_xticklabels()] == ["15", "16"]


def test_quality_compares_ema_labels_epoch_by_epoch(quality: pd.DataFrame) -> None:
    crops = quality[quality["step"] == "EMA labels"].assign(step="IoU-score filter in the crops")
    crops = crops.assign(**{"recall@0.5": [0.3, 0.2]})
    recall = plot_quality_along_pipeline(pd.concat([quality, crops])).axes[1]
    lines = {line.get_label(): line for line in recall.lines}
    ema, beside = lines["EMA labels"], lines["IoU-score filter in the crops"]
    assert beside.get_ydata().tolist() == pytest.approx([30, 20])
    assert beside.get_xdata().tolist() == ema.get_xdata().tolist()
    assert (beside.get_color(), ema.get_color()) == (COLOURS["selected"], COLOURS["EMA"])
    assert beside.get_linewidth() < ema.get_linewidth()
    assert [bar.get_height() for bar in recall.patches] == pytest.approx([90, 80, 70])


def test_quality_without_distillation_has_bars_alone(quality: pd.DataFrame) -> None:
    assert len(plot_quality_along_pipeline(quality.iloc[:3]).axes[0].lines) == 0


def test_iou_score_histogram_counts_and_share() -> None:
    edges = {"bin_low": [0.0, 0.1], "bin_high": [0.1, 0.2]}
    open_edges = {"bin_low": [0.0, 1.0], "bin_high": [0.1, np.inf]}
    measured = pd.DataFrame(open_edges | {"true_positives": [1, 3], "false_positives": [3, 1]})
    paper = pd.DataFrame(edges | {"true_positives": [72, 129], "false_positives": [987, 968]})
    counts, paper_counts, share, paper_share = plot_iou_score_histogram(measured, paper).axes
    assert [bar.get_height() for bar in counts.patches] == [3, 1, 1, 3]
    assert [bar.get_height() for bar in paper_counts.patches] == [987, 968, 72, 129]
    closed, opened = share.lines
    assert closed.get_ydata().tolist() == [25]
    assert opened.get_ydata().tolist() == [75]
    assert opened.get_xdata()[0] > 1
    wanted = [100 * 72 / 1059, 100 * 129 / 1097]
    assert paper_share.lines[0].get_ydata().tolist() == pytest.approx(wanted)


def test_class_ap_sorts_by_the_last_method() -> None:
    table = pd.DataFrame({"label": ["a", "b"], "CoLA": [10.0, 20.0], "student": [40.0, 30.0]})
    axes = plot_class_ap(table).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["b", "a"]
    marks = {line.get_label(): line.get_xdata() for line in axes.lines}
    np.testing.assert_array_equal(marks["student"], [30, 40])
    np.testing.assert_array_equal(marks["CoLA"], [20, 10])


def test_dataset_counts_instances_beside_published_ones() -> None:
    segments = pd.DataFrame(
        {"label": ["a", "b", "b"], "t_start": [0.0, 0.0, 5.0], "t_end": [1.0, 2.0, 9.0]}
    )
    published = pd.DataFrame(
        {
            "instances": [7, 5],
            "duration_s_median": [2.0, 1.0],
            "duration_s_p10": [1.0, 0.5],
            "duration_s_p90": [3.0, 2.0],
        },
        index=["b", "a"],
    )
    left, right = plot_dataset(segments, published).axes
    assert [bar.get_width() for bar in left.patches] == [1, 2]
    np.testing.assert_array_equal(left.lines[0].get_xdata(), [5, 7])
    np.testing.assert_array_equal(right.lines[0].get_xdata(), [1.0, 3.0])  # medians


def test_durations_are_expected_where_the_published_moments_say() -> None:
    rng = np.random.default_rng(0)
    seconds = np.exp(rng.normal(1.0, 0.5, 4000))
    segments = pd.DataFrame({"label": "a", "t_start": 0.0, "t_end": seconds})
    published = pd.DataFrame({"log_duration_mean": 1.0, "log_duration_sd": 0.5}, index=["a"])
    axes = plot_durations(segments, published).axes[0]
    counts = np.array([bar.get_height() for bar in axes.patches])
    expected = axes.lines[0].get_ydata()
    assert counts.sum() == 4000
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected.max())


def test_features_put_the_channel_that_knows_the_action_on_top() -> None:
    features = np.ones((10, 3))
    features[4:6, 2] = 9.0
    truth = pd.DataFrame({"label": ["a"], "t_start": [4.0], "t_end": [6.0]})
    image = plot_features(features, 1.0, truth).axes[0].images[0].get_array()
    assert image.shape == (3, 10)
    assert np.all(image[0, 4:6] > image[0, 0])
    assert np.ptp(image[1:]) == 0


def test_mining_marks_snippets_at_their_time() -> None:
    actionness = np.array([0.0, 1.0, 2.0, 1.0])
    rim = np.array([False, True, False, False])
    figure = plot_mining(actionness, rim, ~rim, {"easy action": np.array([2])}, 0.5)
    above, below = figure.axes
    np.testing.assert_allclose(below.lines[0].get_xdata(), [1.25])
    np.testing.assert_array_equal(lines_of(above)["median"], [1.0, 1.0])
    assert len(above.collections[0].get_paths()) == 1
    assert len(above.collections[1].get_paths()) == 3


def test_selection_plane_counts_what_is_selected() -> None:
    proposals = pd.DataFrame(
        {
            "score": [0.5, 0.4, 0.9],
            "iou_score": [0.2, 0.9, 0.1],
            "true_positive": [True, True, False],
        }
    )
    false, true = plot_selection_plane(proposals, gamma=0.2, eta=0.4).axes
    assert false.get_title(loc="left") == "1 false; 0 selected"
    assert true.get_title(loc="left") == "2 true; 1 selected"  # eta is strict, gamma is not


def test_generator_history_smooths_each_method_by_itself() -> None:
    history = pd.DataFrame(
        {
            "method": ["CoLA"] * 40 + ["cross-video"] * 40,
            "iteration": list(range(40)) * 2,
            "classification": [1.0, 3.0] * 20 + [5.0] * 40,
            "in_video": 1.0,
            "cross_video": 2.0,
        }
    )
    lines = lines_of(plot_generator_history(history).axes[0])
    assert lines["CoLA"][1:] == pytest.approx(2.0)
    assert lines["cross-video"] == pytest.approx(5.0)


def test_training_skips_epochs_without_evaluation_and_marks_the_switch() -> None:
    history = pd.DataFrame(
        {"epoch": [0, 1, 2], "loss": [3.0, 2.0, 1.0], "avg 0.1:0.7": [np.nan, 20.0, 30.0]}
    )
    left, right = plot_training(history, 2, {"generator": 25.0}).axes
    np.testing.assert_array_equal(lines_of(left)["total"], [3, 2, 1])
    np.testing.assert_array_equal(lines_of(right)["student + EMA"], [20, 30])
    np.testing.assert_array_equal(lines_of(right)["generator"], [25, 25])
    assert [line.get_xdata()[0] for line in left.lines if line.get_linestyle() == ":"] == [1.5]
    colours = {line.get_color() for line in left.lines}
    assert not colours & {COLOURS[name] for name in ("CoLA", "student", "selected", "truth", "TP")}


def test_training_names_no_student_that_has_no_curve() -> None:
    history = pd.DataFrame(
        {
            "epoch": [0, 0],
            "method": ["student", "floor"],
            "loss": [2.0, 1.0],
            "avg 0.1:0.7": [20.0, np.nan],
        }
    )
    _, right = plot_training(history).axes
    assert list(lines_of(right)) == ["student"]


def test_initial_weight_share_shows_the_papers_22_and_10_percent() -> None:
    history = pd.DataFrame({"epoch": [0, 1], "initial_share": [0.25, 0.0625]})
    left, right = plot_initial_weight_share(history, 0.5, 2, 1).axes
    assert lines_of(left)["end of an epoch"] == pytest.approx([25, 6.25])
    assert left.lines[0].get_ydata()[[0, -1]] == pytest.approx([100, 6.25])
    assert right.lines[0].get_ydata()[0] == 100
    assert left.lines[0].get_xdata()[0] == right.lines[0].get_xdata()[0] == -1
    assert {text.get_text() for text in right.texts} >= {"22 %", "10 %"}


def test_trident_draws_the_expectation() -> None:
    start, end = np.array([0.0, 1.0, 0.0]), np.array([0.5, 0.5, 0.0])
    axes = plot_trident(start, end, stride_s=2.0).axes[0]
    assert [line.get_xdata()[0] for line in axes.lines[:2]] == [-2.0, 1.0]


def test_pyramid_separates_positive_points() -> None:
    labels = pd.DataFrame({"t_start": [0.0], "t_end": [2.0]})
    positives = [np.array([True, False, False]), np.array([False, True])]
    times_s = [np.array([0.5, 1.5, 2.5]), np.array([0.5, 2.5])]
    axes = plot_pyramid(positives, times_s, [1.0, 2.0], labels, (0.0, 3.0)).axes[0]
    assert [list(line.get_xdata()) for line in axes.lines] == [[1.5, 2.5], [0.5], [0.5], [2.5]]


def test_saved_files_are_equal_and_nothing_is_left_over(main: pd.DataFrame, tmp_path: Path) -> None:
    first = save_figure(plot_main_results(main), tmp_path / "a" / "main.v1")
    second = save_figure(plot_main_results(main), tmp_path / "b" / "main.v1")
    assert [path.name for path in first] == ["main.v1.png", "main.v1.pdf"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert b"CreationDate" not in first[1].read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["main.v1.pdf", "main.v1.png"]


def test_a_figure_s_files_are_laid_out_alike(main: pd.DataFrame, tmp_path: Path) -> None:
    """As its PNG, whose dots are finer than the figure's own."""
    figure, alone = plot_main_results(main), plot_main_results(main)
    save_figure(figure, tmp_path / "both")
    write_figure(alone, tmp_path / "alone.png")
    assert (tmp_path / "both.png").read_bytes() == (tmp_path / "alone.png").read_bytes()
    figure.set_dpi(37)
    figure.draw_without_rendering()
    for axes, expected in zip(figure.axes, alone.axes, strict=True):
        np.testing.assert_array_equal(axes.get_position(), expected.get_position())


def test_a_reader_s_settings_do_not_enter_the_files(main: pd.DataFrame, tmp_path: Path) -> None:
    usual = save_figure(plot_main_results(main), tmp_path / "usual")
    papers = {"text.usetex": True, "savefig.transparent": True, "savefig.bbox": "tight"}
    with plt.rc_context(papers | {"axes.titlepad": 40, "pdf.compression": 1}):
        written = save_figure(plot_main_results(main), tmp_path / "written")
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in usual]


def test_figures_leave_pyplot_and_its_settings_alone(main: pd.DataFrame) -> None:
    before = dict(plt.rcParams)
    plot_main_results(main)
    assert plt.get_fignums() == []
    assert dict(plt.rcParams) == before


def test_colours_follow_the_thing() -> None:
    assert colour_of("student + EMA") != colour_of("student")
    assert colour_of("student on true segments (ceiling)") == COLOURS["truth"]
    assert colour_of("IoU-score filter") == COLOURS["selected"]
    assert colour_of("FuSTAL generator") == colour_of("proposals")
    assert colour_of("all proposals (CoLA)") == colour_of("CoLA")
    assert colour_of("student on all proposals") == COLOURS["floor"]


def segments(*rows: tuple[str, str, float, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["video", "label", "t_start", "t_end", "score"])


def test_timeline_lanes_hold_the_segments_of_the_video() -> None:
    truth = segments(("v", "a", 1, 2, 1.0), ("w", "b", 0, 9, 1.0))
    found = segments(("v", "a", 1, 3, 0.2), ("v", "a", 2, 4, 0.9), ("v", "c", 5, 6, 0.1))
    timeline = Timeline({"truth": truth, "proposals": found}, video="v")
    lanes = timeline.lanes()
    names = [(lane.layer, lane.label) for lane in lanes]
    assert names == [("truth", "a"), ("proposals", "a"), ("proposals", "other classes")]
    assert lanes[1].segments[["t_start", "t_end"]].to_numpy().tolist() == [[2, 4], [1, 3]]
    assert lanes[1].rows.tolist() == [0, 1]
    assert timeline.end_s == 6


def test_timeline_draws_every_segment_where_it_lies() -> None:
    timeline = Timeline(
        {"student": segments(("v", "a", 1, 2, 1.0), ("v", "a", 4, 7, 0.5))},
        curves={"actionness": (np.array([0.0, 8.0]), np.array([0.0, 1.0]))},
    )
    above, below = timeline.figure().axes
    boxes = [path.get_extents() for path in below.collections[0].get_paths()]
    assert [(box.x0, box.x1) for box in boxes] == [(1, 2), (4, 7)]
    assert below.get_xlim() == (0, 8)
    np.testing.assert_array_equal(above.lines[0].get_ydata(), [0, 1])


def test_timeline_displays_as_png_and_as_text() -> None:
    truth, found = segments(("v", "a", 1, 2, 1.0)), segments(("v", "a", 1, 3, 0.3))
    timeline = Timeline({"truth": truth, "student": found})
    assert timeline._repr_png_().startswith(b"\x89PNG")
    assert timeline._repr_png_() == timeline._repr_png_()
    assert [lane.layer for lane in timeline.lanes()] == ["truth", "student"]
    assert repr(timeline) == "Timeline(v: 1 truth, 1 student)"


def test_timeline_says_how_many_weak_segments_it_hides() -> None:
    many = segments(*[("v", "a", i, i + 2, i / 100) for i in range(100)])
    (lane,) = Timeline({"student": many}).lanes()
    assert len(lane.segments) == MAX_SEGMENTS
    assert lane.hidden == 100 - MAX_SEGMENTS
    assert lane.segments["score"].min() == 0.4


def test_timeline_without_segments_still_draws() -> None:
    empty = segments()
    assert Timeline({"truth": empty})._repr_png_().startswith(b"\x89PNG")


def test_names_with_dollar_signs_are_no_formulas(tmp_path: Path) -> None:
    name = r"a $\frac$"
    table = segments((name, name, 0, 1, 0.5))
    ap = pd.DataFrame({"label": [name], "CoLA": [1.0]})
    drawn = [Timeline({"truth": table}).figure(), plot_dataset(table), plot_class_ap(ap)]
    drawn.append(plot_features(np.eye(3), 1.0, table))
    for figure in drawn:
        write_figure(figure, tmp_path / "figure.svg")


def test_timeline_names_a_missing_column_and_an_unknown_video() -> None:
    with pytest.raises(ValueError, match=r"'truth' lacks.*t_end"):
        Timeline({"truth": segments().drop(columns="t_end")})
    with pytest.raises(ValueError, match="no segment of video 'x'; there are v"):
        Timeline({"truth": segments(("v", "a", 1, 2, 1.0))}, video="x")


def test_rows_of_a_lane_never_overlap() -> None:
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 50, 60)
    spans = np.stack([start, start + rng.uniform(0.1, 10, 60)], axis=1)
    rows = pack_rows(spans)
    for row in np.unique(rows):
        own = spans[rows == row]
        own = own[np.argsort(own[:, 0])]
        assert np.all(own[1:, 0] >= own[:-1, 1])
