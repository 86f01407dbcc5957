"""Simulated data in files: the same as in memory, drawn once, and anew when a file is not as it was."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fustal_core import kept_simulation as module
from fustal_core.config import make_settings
from fustal_core.data import Dataset
from fustal_core.features import FeatureStore
from fustal_core.kept_simulation import kept_simulation
from fustal_core.rundir import CACHE
from fustal_core.simulator import drawn_features, simulate
from fustal_core.simulator_settings import SimulatorSettings
from fustal_core.stages import Study, open_study

SMOKE = make_settings(profile="smoke").simulation


def assert_equal(found: Any, wanted: Any) -> None:
    """Values of data sets and stores, to the bit."""
    if isinstance(wanted, Dataset | FeatureStore):
        for field in fields(wanted):
            assert_equal(getattr(found, field.name), getattr(wanted, field.name))
    elif isinstance(wanted, pd.DataFrame):
        pd.testing.assert_frame_equal(found, wanted, check_exact=True)
    elif hasattr(wanted, "numpy"):
        np.testing.assert_array_equal(found.numpy(), wanted.numpy())
    else:
        assert found == wanted


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A line for each time that features are drawn."""
    lines: list[str] = []

    def draw(*arguments: Any) -> list[FeatureStore]:
        lines.append("drawn")
        return drawn_features(*arguments)

    monkeypatch.setattr(module, "drawn_features", draw)
    return lines


@pytest.mark.parametrize("changes", [{}, {"shared_features": True}, {"fps": 25.0}])
def test_as_in_memory_when_it_is_drawn_and_when_it_is_read(
    changes: dict[str, Any], tmp_path: Path, drawn: list[str]
) -> None:
    settings = SMOKE.model_copy(update=changes)
    wanted = simulate(settings, 3)
    for _ in range(2):
        found = kept_simulation(settings, 3, tmp_path)
        assert_equal(found, wanted)
        shared = found.generator_features is found.student_features
        assert shared == settings.shared_features
    assert drawn == ["drawn"]
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("*.bin")}
    stores = {"generator.bin": wanted.generator_features}
    if not settings.shared_features:
        stores["student.bin"] = wanted.student_features
    assert sizes == {name: store.nbytes for name, store in stores.items()}


def test_who_writes_to_the_features_changes_no_file(tmp_path: Path) -> None:
    data = kept_simulation(SMOKE, 0, tmp_path)
    data.student_features.array.zero_()
    assert_equal(kept_simulation(SMOKE, 0, tmp_path), simulate(SMOKE, 0))


@pytest.mark.parametrize("name", ["generator.bin", "student.bin", "fingerprint.txt", "made.json"])
def test_a_file_that_is_not_as_it_was_written_is_drawn_anew(
    name: str, tmp_path: Path, drawn: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """One bit of it; who has the files mapped goes on with what they held."""
    before = kept_simulation(SMOKE, 0, tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(content)
    assert_equal(kept_simulation(SMOKE, 0, tmp_path), simulate(SMOKE, 0))
    assert_equal(before, simulate(SMOKE, 0))
    assert drawn == ["drawn"] * 2
    assert name == "made.json" or f"made again: {name}" in capsys.readouterr().err


def test_other_settings_another_seed_or_other_code_are_other_data(
    tmp_path: Path, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    noisier = SMOKE.model_copy(update={"noise": 0.5})
    cases: list[tuple[SimulatorSettings, int]] = [(SMOKE, 0), (noisier, 0), (noisier, 1)]
    for settings, seed in cases:
        assert_equal(kept_simulation(settings, seed, tmp_path), simulate(settings, seed))
    monkeypatch.setattr(module, "code_hash", lambda modules: f"other {modules}")
    assert_equal(kept_simulation(*cases[-1], tmp_path), simulate(*cases[-1]))
    assert len(drawn) == 4


def test_a_killed_drawing_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "fingerprint_of", killed)
    with pytest.raises(KeyboardInterrupt):
        kept_simulation(SMOKE, 0, tmp_path)
    monkeypatch.undo()
    assert list(tmp_path.glob("*.bin"))
    assert_equal(kept_simulation(SMOKE, 0, tmp_path), simulate(SMOKE, 0))


def test_of_two_at_once_one_draws_and_the_other_waits(tmp_path: Path, drawn: list[str]) -> None:
    together = threading.Barrier(2)

    def ask(_: int) -> Dataset:
        together.wait()
        return kept_simulation(SMOKE, 0, tmp_path)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ask, range(2))
    assert_equal(first, second)
    assert drawn == ["drawn"]


def test_a_run_directory_keeps_its_own_data_alone(tmp_path: Path, drawn: list[str]) -> None:
    """Other seeds' data is in memory: a run may measure on dozens of such."""
    study = open_study(profile="smoke", run_dir=tmp_path)
    other = study.other("data-seed1", seed=1)
    for one in (study, other, Study(study.settings, tmp_path)):
        wanted = simulate(one.settings.simulation, one.settings.seed)
        assert_equal(one.dataset, wanted)
    assert drawn == ["drawn"]
    assert {path.parent for path in tmp_path.rglob("*.bin")} == {tmp_path / CACHE / "simulated"}
