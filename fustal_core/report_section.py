"""What one notebook left in its folder of a run directory, for the run's report.

What is missing or damaged becomes a note of the section.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from fustal_core.report_notebook import Kept, read_notebook


@dataclass(frozen=True)
class Picture:
    """A PNG file of the run. ``file`` is relative to the run directory; size in pixels."""

    file: str
    png: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Figure:
    """Pictures that one caption describes. ``title`` and ``caption`` are Markdown, perhaps empty."""

    title: str
    pictures: tuple[Picture, ...]
    caption: str


@dataclass(frozen=True)
class Table:
    """A CSV file of the run, every cell as the text that stands in the file."""

    title: str
    file: str
    frame: pd.DataFrame


@dataclass
class Section:
    """What one notebook left: ``items`` in the notebook's order, then files that it does not name.

    ``title`` and ``lead``, its first paragraph, are Markdown; ``notes`` say what is missing or broken.
    """

    name: str
    title: str
    lead: str = ""
    items: list[Figure | Table] = field(default_factory=list)
    claims: pd.DataFrame | None = None
    main_results: Table | None = None
    data_name: str = ""
    notes: list[str] = field(default_factory=list)


def read_section(folder: Path) -> Section:
    """Read a notebook's folder, which need not be there."""
    section = Section(folder.name, folder.name)
    kept = _notebook(folder, section)
    figures = {path.stem: path for path in sorted(folder.glob("*.png"))}
    tables = {path.stem: path for path in sorted(folder.glob("*.csv"))}
    named = {(one.kind, one.name) for one in kept}
    kept += [Kept("figure", name) for name in figures if ("figure", name) not in named]
    kept += [Kept("table", name) for name in tables if ("table", name) not in named]
    for one in kept:
        path = folder / f"{one.name}.{'png' if one.kind == 'figure' else 'csv'}"
        if not path.exists() and (one.kind, one.name) in named:
            section.notes.append(f"{path.name}: not made in this run")
            continue
        try:
            _add(section, one, path, f"{folder.name}/{path.name}")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            section.notes.append(f"{path.name}: {reason_of(error)}")
    section.data_name = _data_name(folder)
    if kept and not tables.get("claims"):
        section.notes.append("no claims.csv, so the claims of this notebook are not listed")
    return section


def _notebook(folder: Path, section: Section) -> list[Kept]:
    """Title and lead into the section; what the notebook keeps. A note if it was not run."""
    path = folder / f"{folder.name}.ipynb"
    if path.with_suffix(".failed.ipynb").exists():
        section.notes.append(f"its last execution failed: {folder.name}.failed.ipynb shows where")
    try:
        notebook = read_notebook(path)
    except FileNotFoundError:
        section.notes.append("this notebook was not executed in this run")
        return []
    except (OSError, ValueError, RecursionError) as error:
        section.notes.append(f"{path.name}: cannot be read: {reason_of(error)}")
        return []
    section.title, section.lead = notebook.title, notebook.lead
    return notebook.kept


def _add(section: Section, kept: Kept, path: Path, file: str) -> None:
    """Read one file into its place in a section.

    Raises:
        OSError, ValueError: it is missing or broken.
    """
    if kept.kind == "figure":
        _add_picture(section, kept, _read_picture(path, file))
        return
    frame = read_table(path)
    if kept.name == "claims":
        if "notebook" in frame:
            raise ValueError("a column 'notebook', expected the claims of this notebook alone")
        section.claims = frame
    elif kept.name == "main_results":
        section.main_results = Table("", file, frame)
    else:
        section.items.append(Table(kept.title, file, frame))


def _add_picture(section: Section, kept: Kept, picture: Picture) -> None:
    """A figure of its own, unless the one before has the very same title and caption."""
    before = section.items[-1] if section.items else None
    same = isinstance(before, Figure) and (before.title, before.caption) == (
        kept.title,
        kept.caption,
    )
    if kept.caption and same and isinstance(before, Figure):
        section.items[-1] = Figure(kept.title, (*before.pictures, picture), kept.caption)
    else:
        section.items.append(Figure(kept.title, (picture,), kept.caption))


def _read_picture(path: Path, file: str) -> Picture:
    png = path.read_bytes()
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        image.load()  # a cut file fails here
        return Picture(file, png, *image.size)


def read_table(path: Path) -> pd.DataFrame:
    """A CSV file with every cell as its text; an empty cell is the empty text.

    Raises:
        ValueError: it is empty, not a table, or not UTF-8.
        OSError: it cannot be read.
    """
    with path.open(encoding="utf-8", newline="") as file:
        try:
            rows = [row for row in csv.reader(file, strict=True) if row]
        except csv.Error as error:
            raise ValueError(str(error)) from None
    if not rows:
        raise ValueError("empty")
    columns, *body = rows
    if len(set(columns)) < len(columns):
        raise ValueError("two columns of the same name")
    for number, row in enumerate(body, start=1):
        if len(row) != len(columns):
            raise ValueError(f"row {number} has {len(row)} cells, expected {len(columns)}")
    return pd.DataFrame(body, columns=columns, dtype=str)


def _data_name(folder: Path) -> str:
    """What the notebook's own numbers call the data; empty if it wrote none."""
    try:
        return str(read_object(folder / "metrics.json").get("data", ""))
    except (OSError, ValueError, RecursionError):
        return ""


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ValueError: it does not.
        OSError: it cannot be read.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("expected a JSON object")
    return content


def reason_of(error: Exception) -> str:
    """One line without the file's name, which the note says already."""
    strerror = getattr(error, "strerror", None)
    return strerror or str(error).partition("\n")[0] or type(error).__name__
