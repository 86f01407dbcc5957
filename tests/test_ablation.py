"""The ablation: each number against a study opened for it alone, resamples against copied videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from training_helpers import TINY

from fustal_core import ablation, grid, making, rundir
from fustal_core.ablation import (
    Results,
    of_cell,
    of_seed,
    over_default,
    run_grid,
    summary,
)
from fustal_core.config import SettingsError, make_settings
from fustal_core.ema_quality import GAIN as EMA_GAIN
from fustal_core.ema_quality import f1_gain, last_epoch, resampled_gain
from fustal_core.grid import Cell
from fustal_core.metrics import AVERAGE, map_summary
from fustal_core.quality import pseudo_label_quality
from fustal_core.resampling import draw_videos, paired_interval
from fustal_core.selection import score_proposals, select
from fustal_core.simulated_folder import write_simulation
from fustal_core.simulator import plan_simulation
from fustal_core.stages import Study, open_study

SETTINGS = TINY | {
    "student.evaluate_every": 1,
    "ablation.groups": "stages, checkpoint",
    "ablation.seeds": "1,0",
    "ablation.resamples": 5,
}
MEASURES = ["mAP@0.1", "mAP@0.5", "mAP@0.7", AVERAGE]
LABELS = ["proposals", "precision@0.5", "recall@0.5", "f1@0.5"]
WHOLE = ("stages", "G+S+T+D")
BEST = "variants/generation.evaluate_every-1_generation.select-best-on-test"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return open_study(profile="smoke", run_dir=tmp_path_factory.mktemp("grid"), overrides=SETTINGS)


@pytest.fixture(scope="module")
def results(study: Study) -> Results:
    return run_grid(study)


def row_of(results: Results, cell: Cell, seed: int) -> pd.Series:
    rows = results.rows.set_index(["group", "cell", "seed"])
    return rows.loc[(cell.group, cell.name, seed)]


def by_name(study: Study) -> dict[tuple[str, str], Cell]:
    found = grid.cells(study.settings, study.settings.ablation.groups)
    return {(cell.group, cell.name): cell for cell in found}


def measured(study: Study, cell: Cell) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Detections and labels of a study with a cell's settings, by the stages alone."""
    generation, settings = study.generation(), study.settings.selection
    labels = generation.train if cell.labels == "raw" else study.selection().selected
    if cell.measured == "generator":
        return generation.detections, labels
    if cell.measured == "selected proposals":
        return select(score_proposals(generation.test, settings), settings), labels
    return study.student(cell.labels, distill="EMA" in cell.measured).detections, labels


def assert_measures(row: pd.Series, study: Study, cell: Cell) -> None:
    detections, labels = measured(study, cell)
    expected = study.measure(detections) | study.measure_labels(labels).iloc[0].to_dict()
    for column in (*MEASURES, *LABELS):
        assert row[column] == expected[column], (cell, column)


def snapshot(run_dir: Path) -> dict[Path, int]:
    """Every file of every product, and which writing of it."""
    return {
        path: path.stat().st_ino
        for folder in {made.parent for made in run_dir.rglob("made.json")}
        for path in folder.glob("[!.]*")
    }


# --- the grid -------------------------------------------------------------------------------------


def test_there_is_a_row_for_every_cell_and_seed(study: Study, results: Results) -> None:
    rows = results.rows
    asked = [(*name, seed) for name in by_name(study) for seed in (1, 0)]
    assert list(zip(rows["group"], rows["cell"], rows["seed"], strict=True)) == asked
    assert set(results.samples) == set(by_name(study))
    assert rows[MEASURES].to_numpy().min() >= 0
    assert rows[MEASURES].to_numpy().max() <= 100
    assert rows[LABELS[1:]].to_numpy().max() <= 1
    assert set(rows["data"]) == {study.data_name}
    assert set(rows["origin"]) == {"measured"}
    assert set(rows["source"]) == {"profile smoke"}
    for column in ("measured", "value"):
        own = [getattr(by_name(study)[group, name], column) for group, name, _ in asked]
        pd.testing.assert_series_equal(rows[column], pd.Series(own, name=column))
    assert not results.shared_videos


def test_changes_are_told(study: Study, results: Results) -> None:
    for name, cell in by_name(study).items():
        for seed in (0, 1):
            told = row_of(results, cell, seed)["changes"]
            assert told == ", ".join(f"{key} = {value}" for key, value in cell.changes.items())
            assert (told == "") == (name[1].startswith(("G", "last")) and name[1] != "G+C")


def test_the_own_seed_s_rows_are_what_the_study_measures(study: Study, results: Results) -> None:
    """Every cell; nothing is trained for it."""
    for cell in by_name(study).values():
        assert_measures(row_of(results, cell, 0), of_cell(study, cell), cell)
    none = row_of(results, by_name(study)["stages", "none"], 0)
    cola = study.measure(study.generation("cola").detections)
    assert {name: none[name] for name in MEASURES} == {name: cola[name] for name in MEASURES}


@pytest.mark.parametrize("name", ["S", "T", "G", "G+S+T+D"])
def test_another_seed_s_rows_are_what_its_own_run_measures(
    study: Study, results: Results, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A study of that seed in a directory of its own, with the cell's settings from the start."""
    cell = by_name(study)["stages", name]
    folder = tmp_path_factory.getbasetemp() / f"alone-{len(cell.changes)}"
    overrides = SETTINGS | cell.changes
    alone = open_study(profile="smoke", seed=1, run_dir=folder, overrides=overrides)
    assert_measures(row_of(results, cell, 1), alone, cell)


def test_the_same_settings_in_two_groups_are_measured_once(study: Study, results: Results) -> None:
    own = {
        "last (generator)": "G",
        "last (student)": "G+S+T",
        "last (student + EMA)": "G+S+T+D",
    }
    for names in [(("checkpoint", last), ("stages", stage)) for last, stage in own.items()]:
        first, second = (by_name(study)[name] for name in names)
        for seed in (0, 1):
            pd.testing.assert_series_equal(
                row_of(results, first, seed)[MEASURES + LABELS],
                row_of(results, second, seed)[MEASURES + LABELS],
                check_names=False,
            )


def test_a_second_time_it_only_reads(
    study: Study, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(study.run_dir)
    monkeypatch.setattr(ablation, "_measure", None)
    monkeypatch.setattr(making, "train", None)
    monkeypatch.setattr(making, "train_student", None)
    again = run_grid(study)
    pd.testing.assert_frame_equal(again.rows, results.rows, check_exact=True)
    for name, own in results.samples.items():
        for measure, values in own.items():
            np.testing.assert_array_equal(again.samples[name][measure], values)
    assert snapshot(study.run_dir) == before


def test_what_measures_a_cell_is_part_of_its_key(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ablation._product(study, "generator", "raw").key
    monkeypatch.setitem(rundir.SOURCES, "ablation", "otherwise")
    assert ablation._product(study, "generator", "raw").key != before


def test_other_groups_and_seeds_go_on_from_what_is_there(
    study: Study, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How much is tried is no part of what a cell is."""
    fewer = SETTINGS | {"ablation.groups": "checkpoint", "ablation.seeds": "1"}
    part = open_study(profile="smoke", run_dir=study.run_dir, overrides=fewer)
    monkeypatch.setattr(ablation, "_measure", None)
    found = run_grid(part).rows
    expected = results.rows.query("group == 'checkpoint' and seed == 1").reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_generators_are_trained_once_for_all_cells_that_need_them(
    study: Study, results: Results
) -> None:
    """What looks at the test along its way is one of them, though the cells share a study."""
    made = {
        str(path.parent.relative_to(study.run_dir))
        for path in study.run_dir.rglob("01_generation/*/made.json")
    }
    own = {"01_generation/cola", "01_generation/cross-video"}
    best = f"{BEST}/01_generation/cross-video"
    other = {f"variants/data-seed1/{name}" for name in (*own, best)}
    assert made == {*own, f"variants/unseen/{best}", *other}


@pytest.mark.parametrize(("seed", "place"), [(0, "unseen"), (1, "data-seed1")])
def test_thresholds_of_ema_labels_share_the_first_phase(
    study: Study, seed: int, place: str
) -> None:
    """Though the run's own student looks at the test along its way, and they do not."""
    cells = [cell for cell in grid.cells(study.settings, ["EMA threshold"]) if cell.changes]
    assert len(cells) == 4
    studies = [of_cell(of_seed(study, seed), cell) for cell in cells]
    first = {one.student_product("selected", "phase_one").folder for one in studies}
    assert first == {study.run_dir / "variants" / place / "03_training/selected_phase_one"}
    assert len({one.student_product("selected", "ema").folder for one in studies}) == 4


def test_settings_of_the_same_name_in_two_sections_have_folders_of_their_own(study: Study) -> None:
    best = {"evaluate_every": 1, "select": "best-on-test"}
    cells = [
        Cell("", "", "student", {f"{section}.{name}": value for name, value in best.items()})
        for section in ("generation", "student")
    ]
    folders = [of_cell(study, cell).run_dir.name for cell in cells]
    assert folders[0] == Path(BEST).name
    assert folders[1] == Path(BEST).name.replace("generation.", "student.")


# --- what looks at the test -----------------------------------------------------------------------


def test_looking_along_the_way_changes_nothing(study: Study, results: Results) -> None:
    """A run's own student looks at the test after every epoch, that of a cell does not."""
    assert study.settings.student.evaluate_every == 1
    assert of_cell(study, Cell("", "", "student", {"student.mil_k": "batch"})).settings.student == (
        study.settings.student.model_copy(update={"mil_k": "batch", "evaluate_every": 0})
    )
    blind = study.variant("blind", overrides={"student.evaluate_every": 0})
    assert blind.student_product("selected", "ema").key != (
        study.student_product("selected", "ema").key
    )
    for distill in (False, True):
        own, other = study.student(distill=distill), blind.student(distill=distill)
        pd.testing.assert_frame_equal(own.detections, other.detections, check_exact=True)
        assert own.history.shape[1] > other.history.shape[1]


def test_what_was_chosen_on_test_is_said(results: Results) -> None:
    chosen = results.rows["weights"] == "best-on-test"
    assert set(results.rows["weights"]) == {"last", "best-on-test"}
    assert set(results.rows[chosen]["cell"]) == {
        "best-on-test (generator)",
        "best-on-test (student)",
        "best-on-test (student + EMA)",
    }


def test_a_run_that_chooses_on_test_says_so_of_what_it_chose(tmp_path: Path) -> None:
    """Its cells choose as well; its generator's weights are the last."""
    overrides = SETTINGS | {"student.select": "best-on-test", "ablation.groups": "legacy + 1"}
    overrides |= {"ablation.seeds": "1"}
    rows = run_grid(open_study(profile="smoke", run_dir=tmp_path, overrides=overrides)).rows
    weights = rows.groupby("measured")["weights"].unique()
    assert weights.map(list).to_dict() == {"generator": ["last"], "student": ["best-on-test"]}


# --- resamples ------------------------------------------------------------------------------------


def copied(frame: pd.DataFrame, videos: list[str], draw: np.ndarray) -> pd.DataFrame:
    """A frame with every video as often as it was drawn, each copy a video of its own."""
    parts = [
        frame[frame["video"] == video].assign(video=f"{video} {copy}")
        for video, count in zip(videos, draw, strict=True)
        for copy in range(count)
    ]
    return pd.concat(parts, ignore_index=True)


def average_of(detections: pd.DataFrame, truth: pd.DataFrame) -> float:
    """Average mAP over the classes that the resample has, percent."""
    known = detections["label"].isin(truth["label"])
    return map_summary(detections[known], truth)[AVERAGE]


@pytest.mark.parametrize("seed", [0, 1])
def test_every_cell_of_a_seed_is_measured_in_the_same_resamples(
    study: Study, results: Results, seed: int
) -> None:
    """As if the videos were copied: in the first draws of the protocol's random numbers."""
    of_its_seed = of_seed(study, seed)
    dataset, place = of_its_seed.dataset, [1, 0].index(seed)
    names = {subset: dataset.video_names(subset) for subset in ("test", "train")}
    draws = {
        subset: draw_videos(own, 5, np.random.default_rng(ablation._DRAWS))
        for subset, own in names.items()
    }
    true = {subset: dataset.truth(subset) for subset in names}
    for name in ("none", "G+S", "G+S+T+D"):
        cell = by_name(study)["stages", name]
        detections, labels = measured(of_cell(of_its_seed, cell), cell)
        samples = results.samples["stages", name]
        for number in range(5):
            videos, draw = names["test"], draws["test"][number]
            truth = copied(true["test"], videos, draw)
            average = average_of(copied(detections, videos, draw), truth)
            assert samples[AVERAGE][place, number] == pytest.approx(average)
            videos, draw = names["train"], draws["train"][number]
            truth = copied(true["train"], videos, draw)
            lengths = pd.Series(1e3, truth["video"].unique())
            quality = pseudo_label_quality(copied(labels, videos, draw), truth, lengths)
            for measure in ("precision@0.5", "f1@0.5"):
                assert samples[measure][place, number] == pytest.approx(quality[measure].iloc[0])


def test_ema_labels_are_measured_in_the_cells_that_have_them(
    study: Study, results: Results
) -> None:
    with_labels = results.rows["measured"] == "student + EMA"
    assert with_labels.any()
    assert (results.rows[EMA_GAIN].notna() == with_labels).all()
    table = results.rows.set_index(["group", "cell", "seed"])[EMA_GAIN].sort_index()
    ema = last_epoch(study.student("selected", distill=True).ema_labels)
    expected = f1_gain(ema, study.selection().selected, study.dataset.truth("train"))
    assert table.loc[(*WHOLE, study.settings.seed)] == expected
    gain = results.difference(WHOLE, measure=EMA_GAIN)
    assert gain.mean == pytest.approx(table.loc[WHOLE].mean())
    assert gain.sd == pytest.approx(table.loc[WHOLE].std())
    names = study.dataset.video_names("train")
    truth = study.dataset.truth("train")
    place = results.rows["seed"].unique().tolist().index(study.settings.seed)
    resampled = resampled_gain(ema, study.selection().selected, truth, names, 5)
    assert results.samples[WHOLE][EMA_GAIN][place].tolist() == resampled.tolist()
    assert EMA_GAIN not in results.samples["stages", "G+S+T"]


def test_a_measure_that_a_seed_lacks_is_no_sample() -> None:
    has, lacks = {AVERAGE: np.zeros(2), EMA_GAIN: np.ones(2)}, {AVERAGE: np.ones(2)}
    for samples in ([has, lacks], [lacks, has]):
        stacked = ablation._stacked(samples)
        assert list(stacked) == [AVERAGE]
        assert stacked[AVERAGE].shape == (2, 2)
    assert list(ablation._stacked([has, has])) == [AVERAGE, EMA_GAIN]


def test_what_is_left_out_of_the_test_is_in_no_resample(study: Study, results: Results) -> None:
    first, *others = study.dataset.video_names("test")
    without = study.variant("without", overrides={"evaluation.exclude": first})
    found = ablation.measurement(without, "generator", "raw")
    detections = study.generation().detections
    assert found.row[AVERAGE] == without.measure(detections)[AVERAGE]
    left, truth = without.measured(detections)
    draws = draw_videos(others, 5, np.random.default_rng(ablation._DRAWS))
    expected = [average_of(copied(left, others, d), copied(truth, others, d)) for d in draws]
    assert found.samples[AVERAGE].tolist() == pytest.approx(expected)


# --- differences and means ------------------------------------------------------------------------


def test_a_difference_is_that_of_the_rows(study: Study, results: Results) -> None:
    table = results.rows.set_index(["group", "cell", "seed"]).sort_index()
    for measure in (AVERAGE, "precision@0.5", "f1@0.5"):
        gain = results.difference(WHOLE, ("stages", "none"), measure)
        by_seed = table.loc[WHOLE][measure] - table.loc[("stages", "none")][measure]
        assert gain.mean == pytest.approx(by_seed.mean())
        assert gain.sd == pytest.approx(by_seed.std())
        assert gain.seeds == 2
        assert gain.over == "seeds and videos"
        expected = paired_interval(
            results.samples[WHOLE][measure],
            results.samples["stages", "none"][measure],
            np.random.default_rng(ablation._DRAWS),
            differences=by_seed[[1, 0]].to_numpy(),
            shared_videos=False,
        )
        assert (gain.low, gain.high) == (expected.low, expected.high)
    nothing = results.difference(WHOLE, WHOLE)
    assert (nothing.mean, nothing.low, nothing.high) == (0, 0, 0)


def hand_made(values: dict[str, dict[int, float]], **samples: list[list[float]]) -> Results:
    rows = [
        {"group": "g", "cell": cell, "seed": seed, AVERAGE: value}
        for cell, own in values.items()
        for seed, value in own.items()
    ]
    own = {("g", cell): {AVERAGE: np.array(samples[cell])} for cell in values}
    return Results(pd.DataFrame(rows), own, shared_videos=False)


def test_a_difference_by_hand() -> None:
    """Of seed 5 always 4; of seed 2 it is 1, and -9 or 11 in resamples: one in 16 draws is -9."""
    results = hand_made(
        {"better": {5: 14.0, 2: 21.0}, "worse": {5: 10.0, 2: 20.0}},
        better=[[14, 14], [11, 31]],
        worse=[[10, 10], [20, 20]],
    )
    gain = results.difference(("g", "better"), ("g", "worse"))
    assert gain.mean == 2.5
    assert gain.sd == pytest.approx(3 / 2**0.5)
    assert (gain.low, gain.high) == (-9, 11)
    loss = results.difference(("g", "worse"), ("g", "better"))
    assert (loss.mean, loss.low, loss.high) == (-2.5, -11, 9)


def test_a_summary_by_hand() -> None:
    """F1 is a fraction in the rows and percent in the summary; a lone seed has no spread."""
    first = {"group": "stages", "measured": "generator", "weights": "last", "changes": ""}
    maps = {"mAP@0.3": 30.0, "mAP@0.5": 20.0, "mAP@0.7": 10.0}
    rows = [
        {**first, "cell": "none", AVERAGE: 10.0, "f1@0.5": 0.25, **maps},
        {**first, "cell": "G", AVERAGE: 33.3, "f1@0.5": 0.5, **maps, "weights": "best-on-test"},
        {**first, "cell": "none", AVERAGE: 14.0, "f1@0.5": 0.35, **maps},
    ]
    found = summary(pd.DataFrame(rows))
    assert found["cell"].tolist() == ["none", "G"]
    assert found[AVERAGE].tolist() == ["12.0 ± 2.8", "33.3"]
    assert found["mAP@0.7"].tolist() == ["10.0 ± 0.0", "10.0"]
    assert found["F1@0.5 of the labels"].tolist() == ["30.0 ± 7.1", "50.0"]
    assert found["weights"].tolist() == ["last", "best-on-test"]
    assert found["seeds"].tolist() == [2, 1]


def test_a_summary_has_a_row_for_every_cell(study: Study, results: Results) -> None:
    found = summary(results.rows)
    assert list(zip(found["group"], found["cell"], strict=True)) == list(by_name(study))
    assert set(found["seeds"]) == {2}


def test_gains_over_the_default_by_hand() -> None:
    """Seeds differ by 10 points, and each value gains the same with both."""
    levels = {("gamma", "0.2", ""): 0.0, ("gamma", "0.4", "x = 0.4"): 2.0, ("stages", "G", ""): 9.0}
    levels[("pairs", "1", "y = 1")] = 1.0  # its default is in no cell
    rows = [
        {"group": group, "cell": cell, "measured": "student", "changes": changes}
        | {"seed": seed, AVERAGE: 30.0 + 10 * seed + level}
        for (group, cell, changes), level in levels.items()
        for seed in (0, 1)
    ]
    samples = {
        (group, cell): {AVERAGE: np.array([[30.0 + level] * 3, [40.0 + level] * 3])}
        for (group, cell, _), level in levels.items()
    }
    (found,) = over_default(Results(pd.DataFrame(rows), samples, False)).to_dict("records")
    assert (found["group"], found["cell"], found["measured"]) == ("gamma", "0.4", "student")
    assert [found[name] for name in ("gain", "low", "high", "sd")] == pytest.approx([2, 2, 2, 0])
    assert found["seeds"] == 2


def test_a_grid_of_stages_has_no_gains_over_a_default(results: Results) -> None:
    only = results.rows[results.rows["group"] == "stages"]
    assert over_default(replace(results, rows=only)).empty


# --- other data, and mistakes ---------------------------------------------------------------------


def test_seeds_share_the_videos_of_a_data_folder(tmp_path: Path) -> None:
    """Each trains anew on them, and all are measured in the same resamples of them."""
    size = make_settings(profile="smoke", overrides=TINY).simulation
    write_simulation(tmp_path / "data", plan_simulation(size, seed=0), "own")
    overrides: dict[str, Any] = {
        name: value for name, value in SETTINGS.items() if not name.startswith("simulation")
    }
    overrides |= {"ablation.groups": "pairs", "ablation.seeds": "0:2"}
    study = open_study(str(tmp_path / "data"), "smoke", 0, tmp_path / "run", overrides)
    results = run_grid(study)
    assert results.shared_videos
    assert of_seed(study, 0) is study
    assert of_seed(study, 1).dataset is study.dataset
    assert set(results.rows["data"]) == {study.data_name}
    assert set(results.rows["seed"]) == {0, 1}
    for cell in by_name(study).values():
        for seed in (0, 1):
            own = of_cell(of_seed(study, seed), cell)
            assert_measures(row_of(results, cell, seed), own, cell)
    labels = [of_seed(study, seed).generation().train["score"] for seed in (0, 1)]
    assert not labels[0].equals(labels[1])


def test_an_unknown_group_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    overrides = TINY | {"ablation.groups": "stages, gama"}
    with pytest.raises(SettingsError, match="unknown 'gama'"):
        open_study(profile="smoke", run_dir=tmp_path, overrides=overrides)
    assert not list(tmp_path.iterdir())
