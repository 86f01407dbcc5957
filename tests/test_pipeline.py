"""Which notebooks of a run are executed: on notebooks of two cells, by papermill."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from fustal_core import pipeline
from fustal_core.config import make_settings
from fustal_core.execution import execute
from fustal_core.files import partial_folders, write_text
from fustal_core.jobs import Job
from fustal_core.pipeline import run_notebooks
from fustal_core.rundir import CACHE, PACKAGE, Product, claim_run_dir

CLAIM = """
from pathlib import Path
Path(run_dir, "{name}", "claims.csv").write_text("claim,holds\\n{claim},yes\\n")
"""


def write_notebook(path: Path, code: str) -> None:
    parameters = "\n".join(
        f"{name} = None" for name in ("data", "profile", "seed", "run_dir", "overrides")
    )
    cells = [
        new_code_cell(parameters, id="a", metadata={"tags": ["parameters"]}),
        new_code_cell(code, id="b"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), path)


def test_a_table_of_claims_follows_the_notebooks_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run alone it shows what there is; when that changes it is shown anew, and nothing else is."""
    folder, run_dir = tmp_path / "notebooks", tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(pipeline, "notebooks_dir", lambda: folder)
    monkeypatch.setattr(pipeline, "jobs_of", lambda name, study: [])
    stages = ["00_first", "01_second", "05_table"]

    def claim(name: str, what: str) -> None:
        write_notebook(folder / f"{name}.ipynb", CLAIM.format(name=name, claim=what))

    claim("00_first", "this")
    claim("01_second", "that")
    write_notebook(folder / "05_table.ipynb", "# claims.collect(run_dir)")
    settings = make_settings()
    claim_run_dir(run_dir, settings)

    def executed(*names: str) -> list[str]:
        said: list[str] = []
        found = run_notebooks(names, settings, {}, run_dir, "data", nullcontext(), say=said.append)
        skipped = [line.partition(":")[0] for line in said if line.endswith("skipped")]
        assert sorted(found + skipped) == sorted(names)
        return found

    assert executed("05_table") == ["05_table"]
    assert executed(*stages) == stages
    assert executed(*stages) == []
    claim("01_second", "another")
    assert executed(*stages) == ["01_second", "05_table"]
    write_notebook(folder / "00_first.ipynb", CLAIM.format(name="00_first", claim="this") + "\n#")
    assert executed(*stages) == ["00_first"]


def test_a_notebook_whose_training_was_damaged_is_executed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that somebody deleted come back; the notebook that trains other ones is skipped."""
    folder, run_dir = tmp_path / "notebooks", tmp_path / "run"
    folder.mkdir()
    stages = ["01_first", "02_second"]
    trained = {name: Product(run_dir / name / "cola", "key") for name in stages}
    monkeypatch.setattr(pipeline, "notebooks_dir", lambda: folder)
    monkeypatch.setattr(
        pipeline, "jobs_of", lambda name, study: [Job(study, name, trained[name], lambda: None)]
    )
    for name in stages:
        write_notebook(folder / f"{name}.ipynb", "1 + 1")
        write_text(trained[name].folder / "weights", "...")
        trained[name].finish()
    settings = make_settings()
    claim_run_dir(run_dir, settings)

    def executed() -> list[str]:
        return run_notebooks(stages, settings, {}, run_dir, "data", nullcontext(), say=str)

    assert executed() == stages
    assert executed() == []
    (trained["02_second"].folder / "weights").unlink()
    assert executed() == ["02_second"]
    write_text(trained["02_second"].folder / "weights", "...")
    assert executed() == []
    trained["02_second"].begin()  # and whoever was making it was killed
    assert executed() == ["02_second"]
    shutil.rmtree(trained["01_first"].folder)
    trained["02_second"].finish()
    assert executed() == ["01_first"]
    write_text(trained["01_first"].folder / "weights", "...")
    trained["01_first"].finish()
    (run_dir / "02_second" / "02_second.ipynb").write_text("[" * 100_000)
    assert executed() == ["02_second"]


def test_a_lost_provenance_is_written_again(tmp_path: Path) -> None:
    run_notebooks([], make_settings(), {}, tmp_path, "data", nullcontext())
    path = tmp_path / "provenance.json"
    assert json.loads(path.read_text())["data_fingerprint"] == "data"
    path.write_text("kept")
    run_notebooks([], make_settings(), {}, tmp_path, "data", nullcontext())
    assert path.read_text() == "kept"


def test_what_a_kill_left_is_removed_but_from_data_that_somebody_may_be_drawing(
    tmp_path: Path,
) -> None:
    """Whoever draws holds a lock of its own, and removes what the one before left."""
    left, being_drawn = tmp_path / "01_a" / "cola", tmp_path / CACHE / "simulated"
    for folder in (left, being_drawn):
        folder.mkdir(parents=True)
        (folder / ".features.partial-abc").write_text("half of them", encoding="utf-8")
    run_notebooks([], make_settings(), {}, tmp_path, "data", nullcontext())
    assert partial_folders(tmp_path) == [being_drawn]


def test_a_notebook_runs_in_this_python_whatever_kernels_others_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "jupyter" / "kernels" / "python3"
    other.mkdir(parents=True)
    spec = {"argv": ["/no/such/python"], "display_name": "Python 3", "language": "python"}
    write_text(other / "kernel.json", json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    write_notebook(tmp_path / "one.ipynb", "import sys; print(sys.executable)")
    execute(tmp_path / "one.ipynb", tmp_path / "executed.ipynb", {"seed": 0})
    outputs = nbformat.read(tmp_path / "executed.ipynb", as_version=4).cells[-1].outputs
    assert [output.text for output in outputs] == [f"{sys.executable}\n"]


@pytest.mark.parametrize(("asked", "seen"), [(None, "passive"), ("active", "active")])
def test_idle_threads_of_a_kernel_rest_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None, seen: str
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if asked:
        monkeypatch.setenv("OMP_WAIT_POLICY", asked)
    code = f"import os\nassert os.environ['OMP_WAIT_POLICY'] == {seen!r}"
    write_notebook(tmp_path / "one.ipynb", code)
    execute(tmp_path / "one.ipynb", tmp_path / "executed.ipynb", {"seed": 0})
    assert os.environ.get("OMP_WAIT_POLICY") == asked


def test_a_notebook_runs_where_names_of_temporary_files_are_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("a_job_of_a_batch_system_" * 4)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    write_notebook(tmp_path / "one.ipynb", "print(40 + 2)")
    execute(tmp_path / "one.ipynb", tmp_path / "executed.ipynb", {"seed": 0})
    assert '"42\\n"' in (tmp_path / "executed.ipynb").read_text(encoding="utf-8")


def test_what_editors_and_systems_leave_in_the_package_is_no_part_of_it(tmp_path: Path) -> None:
    package = tmp_path / "fustal_core"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / ".#stages.py").symlink_to("somebody@somewhere.1")  # Emacs
    (package / "._stages.py").write_bytes(b"\xff")  # macOS, on a foreign disk
    (package / "tables" / ".DS_Store").write_bytes(b"\xff")
    (package / "tables" / ".ipynb_checkpoints").mkdir()
    script = (
        "from fustal_core import pipeline, rundir; print(rundir.PACKAGE, pipeline._code_shown())"
    )
    command = [sys.executable, "-c", script]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said == f"{package} {pipeline._code_shown()}\n"
