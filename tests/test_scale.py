"""How cost grows with the data: every part runs at tiny sizes, and fits find powers that are known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fustal_core import scale_parts
from fustal_core.config import SettingsError
from fustal_core.scale import fit_growth, measure_scale
from fustal_core.scale_parts import AT_REST, COLUMNS, Meter, measure_size, settings_of_size

TINY = {
    "simulation.num_classes": 2,
    "simulation.max_video_s": 30.0,
    "simulation.video_s": 25.0,
    "generation.batch_size": 4,
    "student.max_length": 64,
}
PARTS = [
    "simulate",
    "load",
    "train the generator",
    "propose",
    "score overlaps",
    "select",
    "judge the labels",
    "train the student",
    "distil the student",
    "detect",
    "evaluate",
    "write the results",
]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[float, pd.DataFrame]:
    found = {}
    for size, gb in ((0.02, 1.0), (0.04, 1e-6)):
        folder = tmp_path_factory.mktemp("size")
        rows = measure_size(size, folder, TINY | {"features.memory_gb": gb})
        found[size] = pd.DataFrame(rows)
        # Beyond the budget the features were mapped from a file.
        assert (folder / "cache").exists() == (gb < 1)
        assert (folder / "detections.json").stat().st_size > 0
    return found


def test_every_part_has_a_row_with_its_cost(tables: dict[float, pd.DataFrame]) -> None:
    for size, table in tables.items():
        assert table.columns.tolist() == COLUMNS
        assert table["part"].tolist() == [AT_REST, *PARTS]
        assert set(table["videos"]) == {round(200 * size) + round(213 * size)}
        assert (table[["seconds", "peak_gb"]] > 0).all(axis=None)
        expected = 1000 * table["seconds"] / table["videos"]
        np.testing.assert_allclose(table["seconds per 1000 videos"], expected)
        np.testing.assert_allclose(table["features_gb"], table["snippets"] * 16 * 4 / 1e9)


def test_a_size_in_a_process_of_its_own(tmp_path: Path) -> None:
    calls = []
    smallest = TINY | {"student.epochs": 1, "simulation.video_s": 20.0}
    table = measure_scale((0.01,), tmp_path, smallest, lambda *call: calls.append(call))
    assert table["part"].tolist() == [AT_REST, *PARTS]
    assert calls == [(1, 1, "0.01 times THUMOS'14")]
    assert not list(tmp_path.iterdir())  # the data are gone


def test_settings_grow_with_the_size() -> None:
    small, large = settings_of_size(1), settings_of_size(50)
    assert (small.simulation.train_videos, small.simulation.test_videos) == (200, 213)
    assert (large.simulation.train_videos, large.simulation.test_videos) == (10_000, 10_650)
    assert (small.generation.iterations, large.generation.iterations) == (13, 625)
    assert small.student == large.student
    with pytest.raises(SettingsError, match="num_classes"):
        settings_of_size(0.09)


def test_the_peak_is_that_of_the_part() -> None:
    meter = Meter()
    meter("large", lambda: np.ones(40_000_000).sum())  # 0.32 GB
    meter("small", lambda: None)
    large, small = (row["peak_gb"] for row in meter.rows)
    if Path("/proc/self/clear_refs").exists():
        assert large - small > 0.25


def test_without_the_system_s_help_the_peak_is_the_process_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(scale_parts, "peak_memory_gb", lambda: 1.25)
    scale_parts.forget_peak()
    assert scale_parts.peak_since_gb() == 1.25


def powers(exponents: dict[str, float], videos: tuple[int, ...] = (10, 100, 1000)) -> pd.DataFrame:
    """A part takes 2 * videos ^ exponent seconds of the CPU, by the clock videos ^ (exponent / 2)."""
    rows = [
        {"size": v / 10, "videos": v, "part": AT_REST, "seconds": math.nan, "peak_gb": 0.5}
        for v in videos
    ]
    rows += [
        {
            "size": v / 10,
            "videos": v,
            "part": part,
            "cpu_seconds": 2.0 * v**exponent,
            "seconds": 1.0 * v ** (exponent / 2),
            "peak_gb": 0.5 + 0.003 * v,
        }
        for part, exponent in exponents.items()
        for v in videos
    ]
    return pd.DataFrame(rows)


def test_powers_are_found_again() -> None:
    fits = fit_growth(powers({"load": 1.0, "detect": 1.5}))
    assert fits["part"].tolist() == ["load", "detect"]
    np.testing.assert_allclose(fits["exponent"], [1.0, 1.5])
    np.testing.assert_allclose(fits["last_exponent"], [1.0, 1.5])
    np.testing.assert_allclose(fits["clock_exponent"], [0.5, 0.75])
    np.testing.assert_allclose(fits["factor"], 2.0)
    np.testing.assert_allclose(fits["standard_error"], 0, atol=1e-7)
    np.testing.assert_allclose(fits["gb_per_1000_videos"], 3.0)


def test_the_last_step_can_differ_from_the_whole() -> None:
    table = powers({"load": 1.0})
    table.loc[(table["part"] == "load") & (table["videos"] == 1000), "cpu_seconds"] *= 10
    fit = fit_growth(table).iloc[0]
    # Seconds 20, 200, 20000: steps of exponents 1 and 2, and a line through all three of 1.5.
    assert fit["last_exponent"] == pytest.approx(2.0)
    assert fit["exponent"] == pytest.approx(1.5)


def test_two_sizes_are_no_growth() -> None:
    with pytest.raises(ValueError, match="three sizes"):
        fit_growth(powers({"load": 1.0}, (10, 100)))
