"""The solutions of the notebooks' exercises run, on a small study, with what each has defined."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from training_helpers import TINY

from fustal_core.pipeline import notebooks_dir, stage_names

SOLUTION = re.compile(r"<details><summary>Solution</summary>\n(.*?)</details>", re.S)
SMALL = {**TINY, "ablation.seeds": [0], "ablation.resamples": 2}
CODE = re.compile(r"^```python\n(.*?)^```$", re.S | re.M)


def cells_of(stage: str, kind: str) -> list[Any]:
    notebook = nbformat.read(notebooks_dir() / f"{stage}.ipynb", as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def solutions(stage: str) -> list[str]:
    found = [SOLUTION.findall(cell.source) for cell in cells_of(stage, "markdown")]
    return [text for texts in found for text in texts]


def program(stage: str, run_dir: Path) -> list[str]:
    """The code cells, without magics, for a small study."""
    lines = {"profile": repr("smoke"), "run_dir": repr(str(run_dir)), "overrides": repr(SMALL)}
    sources = []
    for cell in cells_of(stage, "code"):
        source = re.sub(r"^%.*$", "", cell.source, flags=re.M)
        if "parameters" in cell.metadata.get("tags", []):
            for name, value in lines.items():
                source, count = re.subn(rf"^{name} = .*$", f"{name} = {value}", source, flags=re.M)
                assert count == 1
        sources.append(source)
    return sources


def bound(tree: ast.AST) -> set[str]:
    """Names that code makes or changes."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            found |= {part.id for part in ast.walk(node.value) if isinstance(part, ast.Name)}
    return found


def read(source: str) -> set[str]:
    """Names that code expects to be there: read before it makes them itself."""
    found, made = set(), set()
    for statement in ast.parse(source).body:
        nodes = list(ast.walk(statement))
        own = {node.arg for node in nodes if isinstance(node, ast.arg)}
        for node in nodes:
            if isinstance(node, ast.For | ast.comprehension):
                own |= bound(node.target)
        loaded = {
            node.id
            for node in nodes
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        }
        changed = [bound(node.target) for node in nodes if isinstance(node, ast.AugAssign)]
        found |= loaded.union(*changed) - own - made
        made |= bound(statement)
    return found


def needed(sources: list[str], wanted: set[str]) -> list[str]:
    """Of the cells those that make what is wanted, and what these rest on, in their order."""
    chosen: list[str] = []
    for source in reversed(sources):
        if bound(ast.parse(source)) & wanted:
            chosen.insert(0, source)
            wanted = wanted | read(source)
    return chosen


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


def test_cells_are_chosen_by_what_they_make() -> None:
    cells = ["import numpy as np", "a = 1", "b = np.zeros(3)", "b[0] = a", "c = 2", "c += d"]
    assert needed(cells, {"b"}) == cells[:4]
    assert needed(cells, {"c"}) == cells[4:]
    assert needed(cells, {"unknown"}) == []


def test_what_code_makes_itself_is_not_asked_for() -> None:
    assert read("a = b\nprint(a, [i for i in c])\nfor d in e:\n    d") == {"b", "c", "e", "print"}
    assert read("a += 1") == {"a"}
    assert read("def f(x):\n    return x + y") == {"y"}


@pytest.mark.parametrize("stage", stage_names())
def test_the_exercises_stand_before_the_summary_and_can_be_solved(
    stage: str, run_dir: Path
) -> None:
    text = "\n\n".join(cell.source for cell in cells_of(stage, "markdown"))
    exercises = text.partition("\n## Exercises\n")[2].partition("\n## Summary\n")[0]
    questions = re.findall(r"^\*\*(\d)\. ", exercises, re.M)
    assert questions == [str(i + 1) for i in range(len(questions))]
    assert 2 <= len(questions) <= 4
    found = solutions(stage)
    assert len(found) == len(questions)
    snippets = [code for solution in found for code in CODE.findall(solution)]
    assert sum(solution.count("```python") for solution in found) == len(snippets) > 0

    wanted = set().union(*map(read, snippets))
    space: dict[str, Any] = {}
    for source in needed(program(stage, run_dir), wanted):
        exec(compile(source, stage, "exec"), space)
    for snippet in snippets:
        exec(compile(snippet, f"{stage}, a solution", "exec"), dict(space))
