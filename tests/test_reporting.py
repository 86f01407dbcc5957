"""Rows of the tables are what their names say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fustal_core import reporting
from fustal_core.config import make_settings
from fustal_core.figures import nothing_to_show
from fustal_core.stages import Study


def study_with(overrides: dict[str, object]) -> Study:
    return Study(make_settings(profile="smoke", overrides=overrides), Path("unused"))


def test_notes_on_the_curve_follow_the_settings() -> None:
    history = pd.DataFrame({"method": ["a", "a", "b"], "avg 0.1:0.7": [np.nan, 30.0, np.nan]})
    every = study_with({"student.evaluate_every": 4})
    first, spacing, last = reporting.about_test_map(every, history).splitlines()
    assert first.startswith("Nothing was chosen")
    assert spacing.startswith("Evaluated every 4 epochs")
    assert last.endswith("without a curve: b.")
    chosen = study_with({"student.select": "best-on-test"})
    assert "best-on-test" in reporting.about_test_map(chosen, history[:2])
    never = reporting.about_test_map(study_with({}), history[["method"]])
    assert never.endswith("without a curve: a, b.")


def test_gains_in_points_and_relative() -> None:
    zero = dict.fromkeys(reporting.MAP_COLUMNS, 0.0)
    base = {"method": "base"} | zero | {"mAP@0.1": 50.0, "mAP@0.7": 10.0}
    better = {"method": "better"} | zero | {"mAP@0.1": 55.0, "mAP@0.7": 15.0}
    gains = reporting.gains_over(pd.DataFrame([base, better]), "base", ["better"])
    points, relative = gains.loc["better: points"], gains.loc["better: relative (%)"]
    assert points[["mAP@0.1", "mAP@0.7"]].tolist() == [5, 5]
    assert relative[["mAP@0.1", "mAP@0.7"]].tolist() == pytest.approx([10, 50])
    assert np.isnan(relative["mAP@0.4"])  # of nothing


@pytest.fixture
def quality() -> pd.DataFrame:
    columns = {"epoch": [pd.NA, 12, 13], "proposals": 7, "start_error_s": 0.5}
    steps = ["all proposals", "EMA labels", "EMA labels"]
    return pd.DataFrame({"step": steps} | columns | {"f1@0.3": [0.1, 0.9, 0.3]})


def test_settings_are_written_whole_and_measurements_rounded() -> None:
    table = pd.DataFrame(
        {
            "knob": ["decay", "rate"],
            "value": [0.997, 20.0],
            "gain": [-0.04, 32 / 3],
            "f1": [0.25, np.nan],
            "precision": [1 / 3, 1.0],
            "count": [7, 12],
        }
    )
    assert reporting.to_markdown(table).splitlines() == [
        "| knob   |   value |   gain |   f1 |   precision |   count |",
        "|:-------|--------:|-------:|-----:|------------:|--------:|",
        "| decay  |   0.997 |    0.0 | 0.25 |       0.333 |       7 |",
        "| rate   |  20.000 |   10.7 |      |       1.000 |      12 |",
    ]


def test_a_kept_figure_is_shown_from_its_file(tmp_path: Path) -> None:
    study = Study(make_settings(profile="smoke"), tmp_path)
    figure = nothing_to_show("for want of numbers")
    shown = reporting.keep_figure(study, "05_analysis", "empty", figure)
    written = {path.name: path.read_bytes() for path in (tmp_path / "05_analysis").iterdir()}
    assert sorted(written) == ["empty.pdf", "empty.png"]
    assert shown.data == written["empty.png"]
    assert shown.width == figure.get_figwidth() * figure.dpi


def test_a_table_for_people_says_which_run_it_is_from(tmp_path: Path) -> None:
    study = Study(make_settings(profile="smoke", seed=3), tmp_path)
    table = pd.DataFrame({"method": ["ours_2"], "mAP@0.5": [100 / 3]})
    assert reporting.keep_table(study, "09_some", "results", table) is table
    folder, about = tmp_path / "09_some", reporting.about_run(study)
    assert study.data_name in about
    assert "profile smoke, seed 3" in about
    assert (folder / "results.csv").read_text() == f"method,mAP@0.5\nours_2,{100 / 3}\n"
    assert (folder / "results.md").read_text().splitlines()[-3:] == [
        "| ours_2   |      33.3 |",
        "",
        about,
    ]
    latex = (folder / "results.tex").read_text().splitlines()
    assert latex[0] == f"% {about}"
    assert "ours\\_2 & 33.3" in "\n".join(latex)


@pytest.mark.parametrize("section", ["generation", "acm_net", "ftcl", "hr_pro", "student"])
def test_every_table_says_what_test_labels_chose(
    tmp_path: Path, section: str, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = {f"{section}.select": "best-on-test", f"{section}.evaluate_every": 1}
    study = Study(make_settings(profile="smoke", overrides=looks), tmp_path)
    table = reporting.keep_table(study, "09_some", "results", pd.DataFrame({"f1": [0.5, 0.25]}))
    assert table["best-on-test"].tolist() == [f"{section}.select"] * 2
    for name in ("results.csv", "results.md", "results.tex"):
        text = (tmp_path / "09_some" / name).read_text().replace("\\_", "_")
        assert text.count(f"{section}.select") == 2
        assert text.count("best-on-test") == 1
    said = capsys.readouterr().out
    assert said.startswith(f"results: weights of this run are best-on-test by {section}.select")


def test_only_fractions_are_shown_in_percent(quality: pd.DataFrame) -> None:
    table = reporting.quality_in_percent(quality, ["proposals", "f1@0.3", "start_error_s"])
    assert list(table) == ["proposals", "f1@0.3 (%)", "start_error_s"]
    assert table.iloc[1].tolist() == pytest.approx([7, 90, 0.5])
    assert list(table.index[:2]) == [("all proposals", ""), ("EMA labels", "12")]


def test_activitynets_columns_stand_behind_the_averages() -> None:
    assert reporting.main_columns(study_with({})) == reporting.MAIN_COLUMNS
    columns = reporting.main_columns(study_with({"constants": "activitynet13"}))
    behind = columns[columns.index("avg 0.1:0.7") + 1 :]
    assert behind == ["mAP@0.75", "mAP@0.95", "avg 0.5:0.95", "seeds", "source"]
    some = reporting.main_columns(study_with({"evaluation.further_tiou": "0.5,0.75"}))
    assert set(some) - set(reporting.MAIN_COLUMNS) == {"mAP@0.75"}


def test_further_thresholds_are_measured_besides(tmp_path: Path) -> None:
    settings = make_settings(profile="smoke", overrides={"constants": "activitynet13"})
    study = Study(settings, tmp_path)
    truth = study.dataset.truth("test")
    lengths_s = truth["t_end"] - truth["t_start"]
    shorter = truth.assign(t_end=truth["t_start"] + 0.82 * lengths_s, score=1.0)
    row = study.measure(shorter)
    assert row["avg 0.1:0.7"] == pytest.approx(100)
    assert (row["mAP@0.8"], row["mAP@0.85"]) == pytest.approx((100, 0))
    assert row["avg 0.5:0.95"] == pytest.approx(70)  # 0.5, 0.55 .. 0.8 of ten thresholds
