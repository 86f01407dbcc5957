"""Easier and harder simulated data: what is tried, measured, and read from it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_helpers import TINY

from fustal_core import plan, stages
from fustal_core.config import PROFILES, SettingsError, make_settings, override
from fustal_core.difficulty import (
    DEFAULT,
    KNOBS,
    SMALL,
    about_seeds,
    along_knobs,
    chosen_knobs,
    gains,
    jobs_of,
    measure,
    read_gains,
    settings_grid,
    small_sizes,
    studies,
)
from fustal_core.metrics import AVERAGE
from fustal_core.simulator import simulate
from fustal_core.simulator_settings import SIZES, STRENGTHS, SimulatorSettings
from fustal_core.stages import Study, open_study

# --- what is tried --------------------------------------------------------------------------------


def grid_of(
    *knobs: str, factors: tuple[float, ...] = (0.5, 2.0), **values: float
) -> list[tuple[str, float]]:
    grid = settings_grid(SimulatorSettings(**values), knobs, factors)
    assert grid[0][0] == DEFAULT
    assert np.isnan(grid[0][1])
    assert grid[0][2] == {}
    assert [overrides for *_, overrides in grid[1:]] == [
        {f"simulation.{knob}": value} for knob, value, _ in grid[1:]
    ]
    return [(knob, value) for knob, value, _ in grid[1:]]


def test_grid_by_hand() -> None:
    assert grid_of("video_shift", "distractor_rate") == [
        ("video_shift", 0.5),
        ("video_shift", 2.0),
        ("distractor_rate", 1.5),
        ("distractor_rate", 6.0),
    ]
    assert grid_of("video_shift", factors=(2, 0, 1, 0.5)) == [
        ("video_shift", 0.0),
        ("video_shift", 0.5),
        ("video_shift", 2.0),
    ]
    assert grid_of() == []


def test_shares_are_cut_at_one() -> None:
    assert grid_of("border_ambiguity") == [("border_ambiguity", 0.35), ("border_ambiguity", 1.0)]
    # Two factors that come to the same, and one that is no change any more.
    assert grid_of("border_ambiguity", factors=(2, 3)) == [("border_ambiguity", 1.0)]
    assert grid_of("border_ambiguity", border_ambiguity=1.0) == [("border_ambiguity", 0.5)]


def test_every_strength_has_a_knob() -> None:
    assert sorted(KNOBS) == sorted(STRENGTHS)
    assert set(STRENGTHS) == SimulatorSettings.model_fields.keys() - set(SIZES)


def test_difficulties_are_chosen_by_name() -> None:
    assert chosen_knobs(make_settings()) == list(KNOBS)[:6]
    overrides = {"analysis.difficulties": "noise, video_shift"}
    assert chosen_knobs(make_settings(overrides=overrides)) == ["video_shift", "noise"]
    assert chosen_knobs(make_settings(overrides={"analysis.difficulties": "all"})) == list(KNOBS)
    with pytest.raises(
        SettingsError, match=r"difficulties': .*unknown 'fps', 'nois'; known: all, inc"
    ):
        make_settings(overrides={"analysis.difficulties": "noise, fps, nois"})


def test_what_is_off_stays_off() -> None:
    assert grid_of("video_shift", video_shift=0.0) == []


@pytest.mark.parametrize("knob", ["num_classes", "fps", "video_shifts"])
def test_a_knob_must_be_a_strength(knob: str) -> None:
    with pytest.raises(ValueError, match=f"'{knob}' is no strength.*video_shift"):
        settings_grid(SimulatorSettings(), [knob])


def test_factors_are_not_negative() -> None:
    with pytest.raises(ValueError, match="-1"):
        settings_grid(SimulatorSettings(), ["noise"], [2, -1])


@given(
    st.lists(st.sampled_from(list(KNOBS)), unique=True),
    st.lists(st.floats(0, 4), min_size=1, max_size=4),
    st.floats(0, 1),
)
def test_each_setting_is_allowed_and_turns_one_knob(
    knobs: list[str], factors: list[float], usual: float
) -> None:
    settings = make_settings(overrides={f"simulation.{knob}": usual for knob in knobs})
    for knob, value, overrides in settings_grid(settings.simulation, knobs, factors):
        turned = override(settings, overrides, other_data=True).simulation.model_dump()
        before = settings.simulation.model_dump()
        changed = {name for name in turned if turned[name] != before[name]}
        assert changed == (set() if knob == DEFAULT else {knob})
        assert knob == DEFAULT or turned[knob] == value


@pytest.mark.parametrize("profile", PROFILES)
def test_sizes_are_never_above_the_study_s_own(profile: str) -> None:
    settings = make_settings(profile=profile)
    small = override(settings, small_sizes(settings), other_data=True)
    for name, most in SMALL.items():
        section, _, field = name.partition(".")
        value = getattr(getattr(small, section), field)
        assert value == min(most, getattr(getattr(settings, section), field))
    steps = settings.student.epochs * settings.simulation.train_videos
    own = small.student.epochs * small.simulation.train_videos
    assert own == pytest.approx(steps, rel=0.01)
    assert small.student.switch_epoch / small.student.epochs == pytest.approx(
        settings.student.switch_epoch / settings.student.epochs, abs=0.02
    )


def test_every_knob_leaves_videos_and_actions_as_they_are() -> None:
    size = SimulatorSettings(
        num_classes=7, train_videos=7, test_videos=7, feature_dim=8, max_video_s=30.0
    )  # so many that the two of Cricket, which are related, are among them
    usual = simulate(size, seed=3)
    for knob, value, _ in settings_grid(size, KNOBS)[1:]:
        turned = simulate(size.model_copy(update={knob: value}), seed=3)
        pd.testing.assert_frame_equal(turned.segments, usual.segments)
        pd.testing.assert_frame_equal(turned.videos, usual.videos)
        assert turned.fingerprint != usual.fingerprint


# --- studies --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def sources_are_read_once() -> Iterator[None]:
    """Every key has a hash of the sources."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "code_hash", cache(stages.code_hash))
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    return open_study(profile="smoke", run_dir=folder, overrides=TINY)


def test_studies_of_two_seeds(study: Study) -> None:
    tried = studies(study, [0, 4], ["video_shift"], [2])
    assert [(one.knob, one.study.settings.seed) for one in tried] == [
        (DEFAULT, 0),
        ("video_shift", 0),
        (DEFAULT, 4),
        ("video_shift", 4),
    ]
    assert [one.study.settings.simulation.video_shift for one in tried] == [1, 2, 1, 2]
    assert [one.reference.settings.seed for one in tried] == [0, 0, 4, 4]
    assert all(one.reference.settings.simulation.video_shift == 1 for one in tried)
    products = [job.product for job in jobs_of(tried, students=True)]
    assert len({product.folder for product in products}) == 4 * len(tried)
    assert len({product.key for product in products}) == 4 * len(tried)
    # To know what there is to do, no data is made.
    assert all(one.study.data is None for one in tried)
    again = jobs_of(studies(study, [0, 4], ["video_shift"], [2]), students=True)
    assert [job.product for job in again] == products


def test_a_data_folder_has_no_strengths(study: Study, tmp_path: Path) -> None:
    settings = study.settings.model_copy(update={"data": "somewhere"})
    tried = studies(Study(settings, tmp_path), [0], ["noise"])
    assert tried == []
    assert jobs_of(tried, students=True) == []
    rows = measure(tried)
    assert rows.empty
    assert along_knobs(rows).empty
    assert list(read_gains(rows))[:3] == ["mechanism", "knob", "points of"]
    assert read_gains(rows).empty


def test_knobs_that_are_all_off_need_no_studies(tmp_path: Path) -> None:
    off = TINY | {"simulation.noise": 0.0, "simulation.video_shift": 0.0}
    study = open_study(profile="smoke", run_dir=tmp_path, overrides=off)
    assert studies(study, [0, 1], ["noise", "video_shift"]) == []
    assert len(studies(study, [0], ["noise", "scene_strength"])) == 3


def test_the_chosen_knobs_are_planned(tmp_path: Path) -> None:
    overrides = TINY | {"analysis.difficulties": "noise", "analysis.difficulty_seeds": "3"}
    study = open_study(profile="smoke", run_dir=tmp_path, overrides=overrides)
    names = {job.product.folder.parent.parent.name for job in plan.analysis(study)}
    found = {name for name in names if name.startswith("difficulty")}
    expected = {"-seed3", "-noise-0.065-seed3", "-noise-0.26-seed3"}
    assert found == {f"difficulty{name}" for name in expected}


def test_rows_are_what_each_study_measures_by_itself(study: Study) -> None:
    """By its own data, where the rows are measured by the reference's."""
    turned = studies(study, [1], ["scene_strength"], [2])[1:]
    for job in jobs_of(turned, students=True):
        job.make()
    before = sorted(study.run_dir.rglob("*.parquet"))
    rows = measure(turned, students=True)
    assert sorted(study.run_dir.rglob("*.parquet")) == before  # only read
    assert rows[["value", "default"]].drop_duplicates().to_numpy().tolist() == [[1.2, 0.6]]
    assert set(rows["origin"]) == {"measured"}
    (source,) = rows["source"].unique()
    assert source == (
        "profile smoke, seed 1, small data and trainings (difficulty.SMALL), "
        "simulation.scene_strength: 0.6 -> 1.2, acm_net.iterations: 20 -> 4, ftcl.epochs: 2 -> 1, "
        "hr_pro.iterations: 10 -> 4, hr_pro_instance.epochs: 2 -> 1"
    )
    own = turned[0].study
    value, selection = rows.set_index("measured"), own.selection()
    found = {
        "CoLA": own.generation("cola").detections,
        "FuSTAL generator": own.generation("cross-video").detections,
        "student": own.student(distill=False).detections,
        "student + EMA": own.student(distill=True).detections,
    }
    labels = {"all proposals": selection.scored, "selected proposals": selection.selected}
    assert rows["measured"].tolist() == [*found, *labels]
    for name, detections in found.items():
        assert value.loc[name, AVERAGE] == own.measure(detections)[AVERAGE]
        assert np.isnan(value.loc[name, "f1@0.5"])
    for name, segments in labels.items():
        assert value.loc[name, "f1@0.5"] == own.measure_labels(segments)["f1@0.5"].iloc[0]
        assert np.isnan(value.loc[name, AVERAGE])
    assert measure(turned)["measured"].tolist() == ["CoLA", "FuSTAL generator", *labels]


# --- what is read from it -------------------------------------------------------------------------


def rows_of(*cells: tuple[str, float, float, int, float, float, float, float]) -> pd.DataFrame:
    """Cells: knob, value, default, seed, mAP of CoLA and FuSTAL, F1 of all and selected."""
    rows = []
    for knob, value, default, seed, *numbers in cells:
        about = {"knob": knob, "value": value, "default": default, "seed": seed}
        names = ("CoLA", "FuSTAL generator", "all proposals", "selected proposals")
        for name, number in zip(names, numbers, strict=True):
            measure = AVERAGE if name in names[:2] else "f1@0.5"
            source = f"profile made up, seed {seed}, {knob}"
            about |= {"data": "made up", "source": source}
            rows.append(about | {"measured": name, AVERAGE: np.nan, "f1@0.5": np.nan})
            rows[-1][measure] = number
    return pd.DataFrame(rows)


NAN = float("nan")
ROWS = rows_of(
    (DEFAULT, NAN, NAN, 0, 30.0, 32.0, 0.10, 0.30),
    ("b", 4.0, 2.0, 0, 20.0, 19.5, 0.100, 0.095),
    ("b", 1.0, 2.0, 0, 40.0, 44.0, 0.20, 0.30),
    ("a", 0.5, 1.0, 0, 35.0, 35.0, 0.25, 0.23),
    (DEFAULT, NAN, NAN, 1, 31.0, 35.0, 0.10, 0.10),
    ("b", 4.0, 2.0, 1, 25.0, 23.0, 0.10, 0.05),
    ("b", 1.0, 2.0, 1, 42.0, 44.0, 0.20, 0.40),
    ("a", 0.5, 1.0, 1, 36.0, 38.0, 0.25, 0.22),
)


def test_the_default_stands_in_every_knob_s_line() -> None:
    table = along_knobs(ROWS)
    cola = table[table["measured"] == "CoLA"]
    assert cola[["knob", "value", "seed", AVERAGE]].to_numpy().tolist() == [
        ["b", 1.0, 0, 40.0],
        ["b", 1.0, 1, 42.0],
        ["b", 2.0, 0, 30.0],
        ["b", 2.0, 1, 31.0],
        ["b", 4.0, 0, 20.0],
        ["b", 4.0, 1, 25.0],
        ["a", 0.5, 0, 35.0],
        ["a", 0.5, 1, 36.0],
        ["a", 1.0, 0, 30.0],
        ["a", 1.0, 1, 31.0],
    ]
    assert list(table.columns) == list(ROWS.columns)
    assert len(table) == 4 * len(cola)


def test_gains_by_hand() -> None:
    gained = gains(ROWS)
    found = gained.set_index(["mechanism", "knob", "value", "seed"])["gain"]
    assert len(found) == 20
    contrast = found["cross-video contrast"]
    expected = {("b", 1.0): (4, 2), ("b", 2.0): (2, 4), ("b", 4.0): (-0.5, -2)}
    expected |= {("a", 0.5): (0, 2), ("a", 1.0): (2, 4)}
    for cell, values in expected.items():
        assert [contrast[(*cell, seed)] for seed in (0, 1)] == pytest.approx(list(values))
    selection = found["selection"]
    assert [selection["b", 1.0, seed] for seed in (0, 1)] == pytest.approx([10, 20])
    assert [selection["b", 4.0, seed] for seed in (0, 1)] == pytest.approx([-0.5, -5])
    assert set(gained["mechanism"]) == {"cross-video contrast", "selection"}


def test_reading_by_hand() -> None:
    table = read_gains(ROWS).set_index(["mechanism", "knob"])
    row = table.loc[("cross-video contrast", "b")]
    root = 2**0.5  # standard deviation of two values that lie 2 apart
    assert row["at its lowest"] == f"1: +3.0 ± {root:.1f}"
    assert row["default"] == f"2: +3.0 ± {root:.1f}"
    assert row["at its highest"] == f"4: -1.2 ± {1.5 / root:.1f}"
    assert row["change"] == "-4.2 ± 0.4"  # -4.5 and -4
    assert row["points of"] == "test mAP, avg 0.1:0.7"
    assert set(table.loc["selection", "points of"]) == {"F1 of labels at tIoU 0.5"}
    assert set(table["seeds"]) == {"0, 1"}
    assert set(table["data"]) == {"made up"}
    assert set(table["source"]) == {"profile made up, default"}
    assert (row["helps"], row["hurts"]) == ("1, 2", "")
    row = table.loc[("cross-video contrast", "a")]
    assert row["at its highest"] == ""  # nothing above the default was tried
    assert (row["helps"], row["hurts"]) == ("1", "")
    row = table.loc[("selection", "b")]
    # Half a point lost with one seed is not enough; at the default one seed gains nothing.
    assert (row["helps"], row["hurts"]) == ("1", "")
    row = table.loc[("selection", "a")]
    assert (row["helps"], row["hurts"]) == ("", "0.5")


def test_a_single_seed_has_no_spread() -> None:
    one = ROWS[ROWS["seed"] == 0]
    table = read_gains(one).set_index(["mechanism", "knob"])
    assert table.loc[("selection", "b"), "at its lowest"] == "1: +10.0"
    assert table.loc[("cross-video contrast", "a"), "helps"] == "1"
    assert "single seed" in about_seeds(1)
    assert "1 case of 8" in about_seeds(3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_order_of_the_rows_changes_no_gain(seed: int) -> None:
    keys = ["mechanism", "knob", "value", "seed"]
    shuffled = gains(ROWS.sample(frac=1, random_state=seed)).sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(shuffled, gains(ROWS).sort_values(keys, ignore_index=True))
