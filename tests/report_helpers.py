"""A run directory of a few tiny files, for the tests of its report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fustal_core.config import make_settings

STRANGER = "<script>alert('x')</script>"
"""What somebody may have called a class, a method or a video."""
FIRST, SECOND = "01_first", "02_second"

MAIN_RESULTS = f"""\
method,data,origin,mAP@0.1,mAP@0.2,avg 0.1:0.7,source
slow,simulated,measured,9.25,1.0,10.04213,this run
quick,simulated,measured,63.5,,100.21874,this run
{STRANGER},simulated,measured,30.0,2.0,-3.5,this run
theirs,real,published,40.0,7.0,20.0,somebody's page
older,real,published,5.0,,8.5,a list
"""
CLAIMS = """\
claim,measured here,holds
it helps,39.7 ± 7.5 points,yes
it harms,"9.9 points, of 3 seeds",no
it may help,—,undecided
it is best,-5.0 points,no
"""


def make_run(folder: Path) -> Path:
    """Two executed notebooks with figures, tables and claims, settings and provenance."""
    settings = make_settings(profile="smoke", overrides={"generation.iterations": 7})
    write_config(folder, settings.model_dump(mode="json"))
    (folder / "provenance.json").write_text(
        json.dumps({"device": "cpu (2 cores)", "versions": {"torch": "2.0"}}), encoding="utf-8"
    )
    _first_notebook(folder)
    wide = ",".join(f"measure_{i}@0.5" for i in range(30))
    long = "\n".join(f"step {i},{i}.5" for i in range(40))
    add_notebook(
        folder / SECOND,
        [
            ("markdown", "# 2 · Second: the end\n\nIt ends here."),
            ("code", 'keep_table(study, NOTEBOOK, "steps", a)\nkeep_table(study, NAME, "wide", b)'),
            ("code", 'reporting.keep_table(study, NOTEBOOK, "claims", table)'),
        ],
        {
            "steps.csv": f"step,value\n{long}\n",
            "wide.csv": f"name,{wide}\nrow,{','.join(['0.125'] * 30)}\nrow 2,{','.join(['1'] * 30)}\n",
            "claims.csv": 'expected,measured here,interval,holds\nan end,1,"[0.5, 1.5]",yes\n',
        },
    )
    return folder


def _first_notebook(folder: Path) -> None:
    name = folder / FIRST
    add_notebook(
        name,
        [
            ("markdown", f"# 1 · First: {STRANGER}\n\nA *lead* on {STRANGER}.\n\nMore."),
            ("markdown", "```\n# no heading\n```\n\n## The curves\n\nProse."),
            ("code", "%matplotlib inline\nfigure = draw()"),
            ("code", 'reporting.keep_figure(study, NOTEBOOK, "curves", figure)'),
            ("code", 'keep_figure(\n    study, NOTEBOOK, "curves_two", draw()\n)'),
            (
                "markdown",
                f"*What to see*: lines, `code` and $\\gamma > b$; {STRANGER} in "
                "[2 · Second](02_second.ipynb) and [elsewhere](javascript:alert(1)).\n\n"
                "Not a caption.\n\n## Bars",
            ),
            ("code", 'keep_table(study, NOTEBOOK, "main_results", main)'),
            ("code", 'keep_figure(study, NOTEBOOK, "bars", figure)'),
            ("markdown", "## Claims\n\nNo caption of the bars."),
            ("code", 'reporting.keep_table(study, NOTEBOOK, "claims", table)'),
        ],
        {"main_results.csv": MAIN_RESULTS, "claims.csv": CLAIMS},
    )
    (name / "metrics.json").write_text('{"data": "tiny (simulated)"}', encoding="utf-8")
    for number, figure in enumerate(("curves", "curves_two", "bars", "unnamed")):
        write_picture(name / f"{figure}.png", 40 + number)


def write_config(folder: Path, content: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")


def add_notebook(folder: Path, cells: Sequence[tuple[str, str]], files: dict[str, str]) -> None:
    """A notebook's folder with its executed copy and text files."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"cells": [{"cell_type": kind, "source": text} for kind, text in cells]}
    (folder / f"{folder.name}.ipynb").write_text(json.dumps(content), encoding="utf-8")
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def write_picture(path: Path, size: int) -> None:
    """A square of noise, which no compression makes small."""
    noise = np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
