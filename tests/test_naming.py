"""Rows of the tables are called what they are."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from fustal_core import naming
from fustal_core.config import make_settings
from fustal_core.stage_settings import Method
from fustal_core.stages import Study

GENERATORS = list(naming.GENERATORS.values())
STUDENTS = [naming.FLOOR, naming.STUDENT, naming.FUSTAL]
ALL = [*GENERATORS, *STUDENTS, naming.CEILING]
NOTE = " (best-on-test)"


def study_with(overrides: dict[str, object]) -> Study:
    return Study(make_settings(profile="smoke", overrides=overrides), Path("unused"))


def names(study: Study) -> list[str]:
    return [naming.display_name(study, name) for name in ALL]


def test_by_default_names_stand_as_they_are() -> None:
    assert names(study_with({})) == ALL


@pytest.mark.parametrize("method", ["cola", "acm-net", "ftcl", "hr-pro-snippet", "hr-pro"])
def test_students_of_other_generators_say_so_and_are_not_called_fustal(method: str) -> None:
    study = study_with({"generation.method": method})
    *generators, floor, student, ema, ceiling = names(study)
    assert generators == GENERATORS
    assert floor == f"student on all proposals [generator: {method}]"
    assert student == f"student on selected proposals [generator: {method}]"
    assert ema == f"student + EMA distillation [generator: {method}]"
    assert ceiling == naming.CEILING  # learned from no generator
    assert naming.own_generator(study) == naming.GENERATORS[method]


@pytest.mark.parametrize(
    ("chosen", "method", "marked"),
    [
        ("generation", "cross-video", {naming.COLA, naming.CROSS_VIDEO, *STUDENTS}),
        ("generation", "acm-net", {naming.COLA, naming.CROSS_VIDEO}),
        ("acm_net", "cross-video", {naming.ACM_NET, naming.FTCL}),
        ("acm_net", "ftcl", {naming.ACM_NET, naming.FTCL, *STUDENTS}),
        ("ftcl", "cross-video", {naming.FTCL}),
        ("hr_pro", "cross-video", {naming.HR_PRO_SNIPPET, naming.HR_PRO}),
        ("hr_pro", "hr-pro", {naming.HR_PRO_SNIPPET, naming.HR_PRO, *STUDENTS}),
        ("hr_pro_instance", "hr-pro", {naming.HR_PRO, *STUDENTS}),
        ("hr_pro_instance", "hr-pro-snippet", {naming.HR_PRO}),
        ("student", "cross-video", {*STUDENTS, naming.CEILING}),
    ],
)
def test_best_on_test_marks_every_row_that_owes_something_to_it(
    chosen: str, method: str, marked: set[str]
) -> None:
    plain = names(study_with({"generation.method": method}))
    study = study_with(
        {
            "generation.method": method,
            f"{chosen}.select": "best-on-test",
            f"{chosen}.evaluate_every": 1,
        }
    )
    expected = [
        f"{shown}{NOTE}" if name in marked else shown
        for name, shown in zip(ALL, plain, strict=True)
    ]
    assert names(study) == expected


def test_choices_on_test_are_those_of_the_runs_own_generator_and_student() -> None:
    assert naming.choices_on_test(study_with({})) == []
    other = {"acm_net.select": "best-on-test", "acm_net.evaluate_every": 1}
    assert naming.choices_on_test(study_with(other)) == []
    assert naming.choices_on_test(study_with(other | {"generation.method": "ftcl"})) == [
        "generator"
    ]
    points = {"hr_pro.select": "best-on-test", "hr_pro.evaluate_every": 1}
    assert naming.choices_on_test(study_with(points)) == []
    assert naming.choices_on_test(study_with(points), "hr-pro") == ["generator"]
    student = {"student.select": "best-on-test", "student.evaluate_every": 1}
    assert naming.choices_on_test(study_with(student)) == ["students"]


def test_what_each_generator_is_told() -> None:
    told = {method: naming.supervision_name(method) for method in naming.GENERATORS}
    assert told == {
        "cola": "video",
        "cross-video": "video",
        "acm-net": "video",
        "ftcl": "video",
        "hr-pro-snippet": "point",
        "hr-pro": "point",
    }
    assert set(naming.GENERATORS) == set(get_args(Method))


def test_proposals_name_their_generator_unless_it_is_the_runs_own() -> None:
    own = study_with({})
    assert naming.all_proposals(own, "cross-video") == "all proposals"
    assert naming.all_proposals(own, "cola") == "all proposals (CoLA)"
    of_ftcl = study_with({"generation.method": "ftcl"})
    assert naming.all_proposals(of_ftcl, "ftcl") == "all proposals"
    assert naming.all_proposals(of_ftcl, "cross-video") == "all proposals (FuSTAL generator)"
