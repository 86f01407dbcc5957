"""The grid of the ablation: every cell can be tried, and differs from the run in what it says alone."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest

from fustal_core.config import Settings, changed_settings, make_settings, override
from fustal_core.grid import GROUPS, STAGE_LETTERS, Cell, Measured, cells, value_of

SWEEPS = {
    "gamma": "selection.iou_threshold",
    "eta": "selection.confidence_threshold",
    "contrast weight": "generation.cross_video_weight",
    "pairs": "generation.cross_video_pairs",
    "EMA decay": "student.ema_decay",
    "switch epoch": "student.switch_epoch",
    "EMA threshold": "student.ema_label_threshold",
}
SWITCHES = {
    "legacy + 1": "generation.legacy_plus_one",
    "IoU-score overlap": "selection.overlap",
    "IoU-score reduction": "selection.reduce",
    "fallback": "selection.fallback",
    "k of the video loss": "student.mil_k",
}
PROFILES = ("smoke", "quick", "paper")


def of_group(settings: Settings, group: str) -> list[Cell]:
    return cells(settings, [group])


# --- every group ----------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_every_cell_fits_every_profile(profile: str) -> None:
    """A bad name or value would be refused; a cell that changes nothing would be the run's own."""
    settings = make_settings(profile=profile)
    for cell in cells(settings, ["all"]):
        changed = override(settings, cell.changes)
        assert (changed == settings) == (not cell.changes), cell
        assert len(changed_settings(settings, changed)) <= len(cell.changes), cell
        assert cell.measured in get_args(Measured)
        assert cell.labels in ("raw", "selected")


@pytest.mark.parametrize("profile", PROFILES)
def test_every_group_has_different_cells_and_the_run_among_them(profile: str) -> None:
    settings = make_settings(profile=profile)
    for group in GROUPS:
        found = of_group(settings, group)
        names = [cell.name for cell in found]
        assert len(names) == len(set(names)) > 1, group
        assert {cell.group for cell in found} == {group}
        assert any(not cell.changes for cell in found), group
        # Two cells of a group differ in what they try or in what of it is measured.
        assert len({(str(cell.changes), cell.measured, cell.labels) for cell in found}) == len(
            found
        )


def test_all_are_those_of_every_group_in_the_grid_s_order() -> None:
    settings = make_settings()
    whole = cells(settings, ["all"])
    assert whole == [cell for group in GROUPS for cell in of_group(settings, group)]
    assert cells(settings, ["gamma", "all"]) == whole
    assert cells(settings, ["eta", "stages"]) == cells(settings, ["stages", "eta", "stages"])
    assert list(dict.fromkeys(cell.group for cell in whole)) == list(GROUPS)


@pytest.mark.parametrize("groups", [["gama"], ["stages", "gama"], ["all", "gama"], [""]])
def test_an_unknown_group_is_refused_with_the_known_ones(groups: list[str]) -> None:
    with pytest.raises(ValueError, match="unknown") as error:
        cells(make_settings(), groups)
    said = str(error.value)
    assert said.startswith(f"unknown {groups[-1]!r}; known: all, stages, ")
    assert all(name in said for name in GROUPS)


# --- stages ---------------------------------------------------------------------------------------


def test_stage_cells_are_what_their_letters_say() -> None:
    """Generator by G, labels (or what is proposed, without a student) by S, student by T and D."""
    found = {cell.name: cell for cell in of_group(make_settings(), "stages")}
    assert list(found) == [
        *("none", "C", "S", "T", "S+T", "S+T+D"),
        *("G", "G+C", "G+S", "G+T", "G+S+T", "G+S+T+D"),
    ]
    for name, cell in found.items():
        letters = set(name.split("+")) - {"none"}
        assert letters <= set(STAGE_LETTERS)
        generator = {} if "G" in letters else {"generation.method": "cola"}
        selection = {"selection.iou_threshold": 0.0} if "C" in letters else {}
        assert cell.changes == generator | selection
        assert cell.labels == ("selected" if letters & {"C", "S"} else "raw")
        if "T" in letters:
            assert cell.measured == ("student + EMA" if "D" in letters else "student")
        else:
            selects = letters & {"C", "S"}
            assert cell.measured == ("selected proposals" if selects else "generator")
        assert math.isnan(cell.value)


@pytest.mark.parametrize("method", ["cola", "cross-video", "ftcl", "hr-pro"])
def test_stage_cells_name_their_generators_whatever_the_run_s_is(method: str) -> None:
    settings = make_settings(overrides={"generation.method": method})
    for cell in of_group(settings, "stages"):
        changed = override(settings, cell.changes)
        expected = "cross-video" if cell.name.startswith("G") else "cola"
        assert changed.generation.method == expected, cell.name
        assert (not cell.changes) == (method == expected and "C" not in cell.name)


# --- sweeps and switches --------------------------------------------------------------------------


def place_of(group: str, value: float) -> float:
    """Where a value stands in its sweep: 0 pairs are all there are."""
    return float(value) or (math.inf if group == "pairs" else 0.0)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("group", "name"), SWEEPS.items())
def test_a_sweep_has_its_values_and_the_run_s_in_order(group: str, name: str, profile: str) -> None:
    settings = make_settings(profile=profile)
    found = of_group(settings, group)
    for cell in found:
        value = value_of(override(settings, cell.changes), name)
        assert cell.value == pytest.approx(place_of(group, value))
        assert float(cell.name) == pytest.approx(value)
        assert set(cell.changes) <= {name}
    values = [cell.value for cell in found]
    own = place_of(group, value_of(settings, name))
    assert [cell.value for cell in found if not cell.changes] == [own]
    assert values == sorted(set(values))


@pytest.mark.parametrize(
    ("group", "own", "expected"),
    [
        ("gamma", 0.15, [0, 0.1, 0.15, 0.2, 0.4, 0.8]),
        ("pairs", 3, [1, 2, 3, 4, math.inf]),
        ("EMA threshold", 0.05, [0.05, 0.1, 0.2, 0.3, 0.4, 0.5]),
        ("eta", 0.4, [0.2, 0.3, 0.4, 0.5, 0.6]),
    ],
)
def test_a_run_s_own_value_joins_a_sweep(group: str, own: float, expected: list[float]) -> None:
    settings = make_settings(overrides={SWEEPS[group]: own})
    found = {cell.value: cell for cell in of_group(settings, group)}
    assert list(found) == expected
    assert [value for value, cell in found.items() if not cell.changes] == [own]


def test_epochs_of_the_switch_are_shares_of_all() -> None:
    """20 epochs: 4, 8, 12, 16; of one epoch none can come before its end, but the first."""
    overrides = {"student.epochs": 20, "student.switch_epoch": 5}
    found = of_group(make_settings(overrides=overrides), "switch epoch")
    assert [cell.value for cell in found] == [4, 5, 8, 12, 16]
    one = {"student.epochs": 1, "student.switch_epoch": 1}
    assert [cell.value for cell in of_group(make_settings(overrides=one), "switch epoch")] == [1]


@pytest.mark.parametrize(("group", "name"), SWITCHES.items())
def test_a_switch_has_both_positions(group: str, name: str) -> None:
    settings = make_settings()
    tried: dict[str, list[Any]] = {}
    for cell in of_group(settings, group):
        value = value_of(override(settings, cell.changes), name)
        assert cell.name == f"{value} ({cell.measured})"
        tried.setdefault(cell.measured, []).append(value)
    for values in tried.values():
        assert len(set(values)) == 2


def test_a_setting_given_as_text_is_the_run_s_own_all_the_same() -> None:
    settings = make_settings(overrides={"selection.iou_threshold": "0.4"})
    own = [cell.name for cell in of_group(settings, "gamma") if not cell.changes]
    assert own == ["0.4"]


# --- what looks at test labels --------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_only_the_checkpoint_group_chooses_by_test_labels(profile: str) -> None:
    settings = make_settings(profile=profile)
    for cell in cells(settings, ["all"]):
        changed = override(settings, cell.changes)
        chosen = {s for s in ("generation", "student") if getattr(changed, s).select != "last"}
        assert chosen == {
            name.partition(".")[0] for name in cell.changes if name.endswith(".select")
        }
        assert bool(chosen) == cell.name.startswith("best-on-test")
        for section in chosen:
            own = getattr(changed, section)
            length = own.iterations if section == "generation" else own.epochs
            assert 0 < own.evaluate_every <= length


def test_of_a_run_that_chooses_by_test_labels_the_last_weights_are_a_change() -> None:
    chosen = {"student.select": "best-on-test", "student.evaluate_every": 1}
    settings = make_settings(overrides=chosen)
    found = {cell.name: cell for cell in of_group(settings, "checkpoint")}
    assert found["last (student)"].changes == {"student.select": "last"}
    assert found["last (generator)"].changes == {}
