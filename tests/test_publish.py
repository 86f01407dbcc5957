"""``fustal publish``: a run's outputs in the committed notebooks, from a whole default run alone."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from fustal_core import publishing
from fustal_core.config import SettingsError, make_settings
from fustal_core.publishing import publish_notebooks
from fustal_core.rundir import Product, claim_run_dir

NAMES = ("00_first", "01_second")


@pytest.fixture
def committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout's notebooks, without outputs."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in NAMES:
        cells = [new_code_cell("seed = 0", id="a"), new_code_cell("print(seed)", id="b")]
        nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")
    monkeypatch.setattr(publishing, "notebooks_dir", lambda: folder)
    monkeypatch.setattr(publishing, "stage_names", lambda: list(NAMES))
    monkeypatch.setattr(publishing, "refresh_readme", lambda: tmp_path / "README.md")
    return folder


@pytest.fixture
def run(committed: Path, tmp_path: Path) -> Path:
    """What papermill made of them, with its parameters."""
    folder = tmp_path / "run"
    claim_run_dir(folder, make_settings())
    for name in NAMES:
        executed = nbformat.read(committed / f"{name}.ipynb", as_version=4)
        given = new_code_cell("seed = 0", id="c", metadata={"tags": ["injected-parameters"]})
        executed.cells.insert(1, given)
        executed.cells[2].outputs = [new_output("stream", name="stdout", text="0\n")]
        executed.cells[2].execution_count = 3
        product = Product(folder / name, "key")
        product.folder.mkdir()
        nbformat.write(executed, folder / name / f"{name}.ipynb")
        product.finish()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_outputs_come_without_the_injected_parameters(committed: Path, run: Path) -> None:
    notebooks = [committed / f"{name}.ipynb" for name in NAMES]
    assert publish_notebooks(run) == [*notebooks, committed.parent / "README.md"]
    for name in NAMES:
        cells = nbformat.read(committed / f"{name}.ipynb", as_version=4).cells
        assert [cell.source for cell in cells] == ["seed = 0", "print(seed)"]
        assert [cell.execution_count for cell in cells] == [1, 2]
        assert cells[1].outputs[0].text == "0\n"


def test_what_failed_at_the_end_is_not_published(committed: Path, run: Path) -> None:
    """Its last copy, of other code, is still there."""
    before = contents(committed)
    Product(run / NAMES[1], "key").begin()
    assert (run / NAMES[1] / f"{NAMES[1]}.ipynb").exists()
    with pytest.raises(SettingsError, match=rf"^.*{NAMES[1]}\.ipynb: not executed to its end, .*$"):
        publish_notebooks(run)
    assert contents(committed) == before


def test_damaged_notebooks_are_all_named_and_nothing_is_published(
    committed: Path, run: Path
) -> None:
    """The last of them alone would be found after the others were written."""
    before = contents(committed)
    first, second = (run / name / f"{name}.ipynb" for name in NAMES)
    whole = second.read_text()
    emptied = nbformat.writes(new_notebook())
    no_png = nbformat.reads(whole, as_version=4)
    no_png.cells[2].outputs = [new_output("display_data", {"image/png": "aGFsZg=="})]
    damages = [whole[:90], emptied, nbformat.writes(no_png), "[" * 100_000]
    for damage in damages:
        second.write_text(damage)
        with pytest.raises(SettingsError, match=rf"^{second}: expected an executed notebook: .+$"):
            publish_notebooks(run)
        assert contents(committed) == before
    first.unlink()
    with pytest.raises(SettingsError, match=rf"^{first}: .*\n{second}: .*$"):
        publish_notebooks(run)
    assert contents(committed) == before


def test_a_run_of_other_settings_is_not_published(committed: Path, tmp_path: Path) -> None:
    before = contents(committed)
    claim_run_dir(tmp_path / "other", make_settings(seed=1))
    with pytest.raises(SettingsError, match="not a run of the default settings"):
        publish_notebooks(tmp_path / "other")
    assert contents(committed) == before
