"""The page, the figure and the command about growing data say what they were given."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli_helpers import assert_refused, fustal
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fustal_core import scale, scale_passes
from fustal_core.annotations import DataError
from fustal_core.bench_machine import Machine
from fustal_core.cli import app
from fustal_core.cli_scale import read_measured, read_sizes
from fustal_core.config import SettingsError, make_settings
from fustal_core.figures import save_figure
from fustal_core.figures_scale import plot_scale, spread_out
from fustal_core.scale import fit_growth
from fustal_core.scale_estimate import ACTIVITYNET, Measured, Rates, estimate, storage
from fustal_core.scale_page import render_page
from fustal_core.scale_parts import AT_REST, COLUMNS, settings_of_size
from fustal_core.scale_passes import KINDS, Pass, count_pass

pytestmark = pytest.mark.filterwarnings("error::UserWarning")  # of matplotlib: a layout that fails

PARTS = ("load", "train the generator", "propose", "score overlaps", "select")
PARTS += ("train the student", "distil the student", "detect", "evaluate", "write the results")
RATES = Rates("A machine.", gflops=100.0, copy_gb_s=10.0)
PASSES = dict.fromkeys(KINDS, Pass(50.0, 1.0, seconds=0.5))


def table(exponent: float = 1.0) -> pd.DataFrame:
    """Every part takes 0.002 seconds a video; "select" grows with a power."""
    rows = []
    for size, videos in ((1.0, 413), (10.0, 4130), (50.0, 20_650)):
        common = {"size": size, "videos": videos, "snippets": 187 * videos}
        common |= {"features_gb": 187 * videos * 64 / 1e9, "budget_gb": 0.05}
        rest = {"part": AT_REST, "seconds": 1.0, "cpu_seconds": 1.0, "peak_gb": 0.4}
        rows.append(common | rest)
        for place, part in enumerate(PARTS):
            seconds = 0.002 * videos ** (exponent if part == "select" else 1) * 1.4**place
            times = {"seconds": 2 * seconds, "cpu_seconds": seconds}
            rows.append(common | times | {"part": part, "peak_gb": 0.5 + 1e-6 * videos})
    found = pd.DataFrame(rows)
    return found.assign(**{"seconds per 1000 videos": 1000 * found["seconds"] / found["videos"]})[
        COLUMNS
    ]


def page(exponent: float = 1.0) -> str:
    given_table = table(exponent)
    fits = fit_growth(given_table)
    growth = fits.set_index("part")["gb_per_1000_videos"].to_dict()
    own = given_table[given_table["size"] == 50].set_index("part")
    measured = Measured(
        own["cpu_seconds"].to_dict(), growth, 10_000, 10_650, settings_of_size(50), PASSES, RATES
    )
    settings = make_settings(profile="paper", overrides={"constants": "activitynet13"})
    stages, needed = estimate(measured, settings, PASSES), storage(measured, settings)
    return render_page(given_table, fits, measured, stages, needed, ACTIVITYNET)


def row_of(text: str, name: str) -> list[str]:
    """The cells of the first row of a table that begins with a name."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_has_the_numbers() -> None:
    text = page()
    seconds = ["0.83", "8.26", "41.30", "1.00 ± 0.00", "1.00", "82.60", "1.00"]
    assert row_of(text, "load") == ["load", *seconds]
    assert "No exponent is above 1.1: the cost is linear." in text
    assert "Features of the largest size take 0.25 GB" in text
    assert "they are mapped from a file" in text
    assert "14,950 videos x 188 snippets x 2048 channels x 4 bytes" in text
    assert text.count("Machine: A machine.") == 1
    stages = text[text.index("## Worked out") :]
    cells = row_of(stages, "train the generator")
    assert cells[:6] == ["train the generator", "6,000", "step", "50.0", "0.500", "0.500"]


def test_what_grows_faster_is_named() -> None:
    assert "Above 1.1, so more than linear within what was measured: select." in page(1.3)


def test_the_figure_names_every_part_with_its_exponent(tmp_path: Path) -> None:
    given_table = table()
    figure = plot_scale(given_table, fit_growth(given_table))
    above, below = figure.axes
    assert {text.get_text() for text in above.texts} == {f"{part}, 1.00" for part in PARTS}
    assert {text.get_text() for text in below.texts} == set(PARTS)
    marked = [line for line in above.lines if line.get_linestyle() == "None"]
    first = given_table[given_table["part"] == "load"]
    np.testing.assert_allclose(marked[0].get_ydata(), first["cpu_seconds"])
    peaks = below.lines[0].get_ydata()
    np.testing.assert_allclose(peaks, first["peak_gb"] - 0.4)
    written = [path.name for path in save_figure(figure, tmp_path / "scale")]
    assert written == ["scale.png", "scale.pdf"]


@given(
    st.lists(st.floats(-0.2, 1.2), min_size=1, max_size=12).map(sorted),
    st.floats(0.01, 0.05),
)
def test_names_keep_apart_and_below_the_top(wanted: list[float], apart: float) -> None:
    places = spread_out(wanted, apart)
    assert (np.diff(places) >= apart - 1e-9).all()
    assert max(places) <= 1
    if len(wanted) == 1:
        assert places == [min(wanted[0], 1.0)]


@pytest.mark.parametrize("text", ["1,10", "1,1,1", "0,1,2", "1,2,x", "", "1,2,inf", "nan,1,2"])
def test_sizes_are_three_numbers(text: str) -> None:
    with pytest.raises(
        SettingsError, match="--sizes: expected three numbers or more as in 1,10,50"
    ):
        read_sizes(text)


def test_sizes_are_sorted() -> None:
    assert read_sizes("50, 1,10") == [1.0, 10.0, 50.0]


def test_the_command_writes_page_tables_and_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale_passes, "time_pass", lambda *_: 0.5)
    machine = Machine("cpu", "a machine", 1, 64, {"float32": 100.0}, 10.0)
    monkeypatch.setattr(scale, "measure_machine", lambda _: machine)
    table().to_csv(tmp_path / "earlier.csv", index=False)
    arguments = ["scale", "--measured", str(tmp_path / "earlier.csv"), "--out", str(tmp_path / "o")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    names = ["scale.csv", "scale.md", "scale.pdf", "scale.png", "scale_estimate.csv"]
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == names
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "o/scale.csv"), table())
    stages = pd.read_csv(tmp_path / "o/scale_estimate.csv").set_index("stage")
    steps = 61 * math.ceil(10_024 / 8)
    assert stages.loc["train the student", "units"] == steps
    paper = make_settings(profile="paper", overrides={"constants": "activitynet13"})
    step = count_pass("student step", paper, ACTIVITYNET.shape)
    assert stages.loc["train the student", "gflop"] == pytest.approx(step.gflop)


def test_a_place_that_cannot_be_written_is_refused_by_its_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["scale", "--out", str(tmp_path / "file")])
    assert str(result.exception) == f"--out: {tmp_path / 'file'} is no folder that can be written"


@pytest.mark.parametrize("name", ["file", "missing"])
def test_data_are_measured_in_a_folder_that_is_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    arguments = ["scale", "--out", str(tmp_path / "out"), "--work", str(tmp_path / name)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "--work" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a scale.csv: No columns"),
        ('{"part": 1}', "with 'part' and numbers in size, videos"),
        ("part,size\nx,1\n", "with 'part' and numbers in size, videos"),
        (table().assign(seconds="soon").to_csv(), "with 'part' and numbers in size, videos"),
        (table().query("size == 1").to_csv(), "expected three sizes or more, got 1"),
    ],
)
def test_what_is_no_earlier_measurement_is_refused(tmp_path: Path, text: str, said: str) -> None:
    earlier = tmp_path / "earlier.csv"
    earlier.write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        read_measured(earlier)
    assert str(earlier) in str(caught.value)


def test_a_refused_measurement_leaves_the_one_before(tmp_path: Path) -> None:
    out, earlier = tmp_path / "out", tmp_path / "earlier.csv"
    out.mkdir()
    (out / "scale.csv").write_text("before")
    earlier.write_text("part,size\nx,1\n")
    result = fustal("scale", "--measured", earlier, "--out", out)
    assert_refused(result, 1, str(earlier), "expected a scale.csv")
    assert [path.read_text() for path in out.iterdir()] == ["before"]
