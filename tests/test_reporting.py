"""Rows of the tables are what their names say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fustal_core import reporting
from fustal_core.config import make_settings
from fustal_core.stages import Study

GENERATORS = [reporting.COLA, reporting.CROSS_VIDEO]
STUDENTS = [reporting.FLOOR, reporting.STUDENT, reporting.FUSTAL]
ALL = [*GENERATORS, *STUDENTS, reporting.CEILING]


def study_with(overrides: dict[str, object]) -> Study:
    return Study(make_settings(profile="smoke", overrides=overrides), Path("unused"))


def names(study: Study) -> list[str]:
    return [reporting.display_name(study, method) for method in ALL]


def test_by_default_names_stand_as_they_are() -> None:
    assert names(study_with({})) == ALL


def test_students_of_cola_say_so_and_are_not_called_fustal() -> None:
    study = study_with({"generation.method": "cola"})
    *generators, floor, student, ema, ceiling = names(study)
    assert generators == GENERATORS
    assert floor == "student on all proposals [generator: cola]"
    assert student == "student on selected proposals [generator: cola]"
    assert ema == "student + EMA distillation [generator: cola]"
    assert ceiling == reporting.CEILING  # learned from no generator
    assert reporting.own_generator(study) == reporting.COLA


@pytest.mark.parametrize(("stage", "marked"), [("generation", 2), ("student", 4)])
def test_best_on_test_marks_the_rows_it_chose(stage: str, marked: int) -> None:
    study = study_with({f"{stage}.select": "best-on-test", f"{stage}.evaluate_every": 1})
    note = " (best-on-test)"
    own = ALL[:2] if stage == "generation" else ALL[2:]
    assert len(own) == marked
    assert names(study) == [f"{name}{note}" if name in own else name for name in ALL]


def test_notes_on_the_curve_follow_the_settings() -> None:
    history = pd.DataFrame({"method": ["a", "a", "b"], "avg 0.1:0.7": [np.nan, 30.0, np.nan]})
    first, second = reporting.about_test_map(study_with({}), history).splitlines()
    assert first.startswith("Nothing was chosen")
    assert second.endswith("without a curve: b.")
    chosen = study_with({"student.select": "best-on-test"})
    assert "best-on-test" in reporting.about_test_map(chosen, history[:2])
    never = reporting.about_test_map(study_with({}), history[["method"]])
    assert never.endswith("without a curve: a, b.")


def test_crops_keep_what_lies_in_them_by_half() -> None:
    rows = [("v", 0, 4), ("v", 8, 12), ("v", 18, 23), ("v", 30, 31), ("w", 5, 6)]
    segments = pd.DataFrame(rows, columns=["video", "t_start", "t_end"]).assign(score=0.5)
    crops = pd.DataFrame({"crop_start_s": [10.0], "crop_end_s": [20.0]}, index=["v"])
    kept = reporting.crop_segments(segments, crops)
    # 8-12 lies in it by exactly half, 18-23 by two fifths.
    assert kept[["t_start", "t_end", "score"]].to_numpy().tolist() == [[0, 2, 0.5]]
