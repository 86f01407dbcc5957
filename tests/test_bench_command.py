"""The command ``fustal bench``, and the figure it writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bench_helpers import TINY, tiny_machine
from cli_helpers import assert_refused, fustal

from fustal_core import bench, cli_bench
from fustal_core.bench import PARTS, Benchmark, run_benchmark
from fustal_core.bench_figure import plot_growth
from fustal_core.figures import save_figure

pytestmark = pytest.mark.filterwarnings("error:.*[Ll]ayout")  # of matplotlib: what does not fit


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What the command asks for; it gets the IoU score of a few proposals."""
    seen = {}

    def few(progress: object, **options: object) -> Benchmark:
        seen.update(options)
        few_parts = tuple(part for part in PARTS if part.__name__ == "iou_score_case")
        return run_benchmark(None, TINY, parts=few_parts, machine=tiny_machine)

    monkeypatch.setattr(bench, "run_benchmark", few)
    return seen


def test_json_is_all_that_stdout_gets(
    asked: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cli_bench.bench(json_=True, output=tmp_path)
    captured = capsys.readouterr()
    content = json.loads(captured.out)
    assert content["parts"][0]["part"] == "IoU score"
    assert str(tmp_path / "bench.csv") in captured.err
    assert json.loads((tmp_path / "bench.json").read_text()) == content
    assert asked == {"device": "cpu", "growths": ()}


def test_the_table_is_printed(asked: dict, capsys: pytest.CaptureFixture) -> None:
    cli_bench.bench(growth=True)
    assert "| IoU score " in capsys.readouterr().out
    assert len(asked["growths"]) > 20


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_cuda_is_refused(tmp_path: Path) -> None:
    arguments = ["bench", "--device", "cuda", "--out", tmp_path / "out"]
    assert_refused(fustal(*arguments), 2, "--device cuda", "no GPU")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_refused(fustal("bench", "--out", tmp_path / "file"), 2, "--output", "no folder")


def growth(parts: int = 4) -> pd.DataFrame:
    """Of each part two rows: seconds that rise with the size and with its square."""
    rows = [
        {
            "part": f"part {i} of all that is timed here",
            "along": along,
            "sizes": [10, 20, 40],
            "seconds": [0.1 * 2 ** (exponent * step) for step in range(3)],
            "exponent": float(exponent),
            "standard_error": 0.125,
            "factor": 0.1 / 10**exponent,
        }
        for i in range(parts)
        for exponent, along in ((1, "videos"), (2, "length (snippets)"))
    ]
    return pd.DataFrame(rows)


def test_panels_have_marks_lines_and_exponents() -> None:
    figure = plot_growth(growth())
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) == 4
    for axes in panels:
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        texts = [text.get_text() for text in axes.get_legend().get_texts()]
        assert texts == ["videos: 1.00 ± 0.12", "length: 2.00 ± 0.12"]
        marks, fits = axes.lines[::2], axes.lines[1::2]
        assert [line.get_marker() for line in marks] == ["o", "s"]
        for mark, fit in zip(marks, fits, strict=True):
            assert list(mark.get_xdata()) == [1, 2, 4]
            np.testing.assert_allclose(fit.get_ydata(), mark.get_ydata())
            assert fit.get_color() == mark.get_color()
        low, high = axes.get_ylim()
        assert low < 0.1
        assert high > 1.6


def test_the_figure_depends_on_the_numbers_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_figure(plot_growth(growth()), tmp_path / name)
    for kind in ("png", "pdf"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_nothing_measured_is_said() -> None:
    (axes,) = plot_growth(pd.DataFrame()).axes
    assert "not measured" in axes.texts[0].get_text()
