"""Tables of a run as its report shows them: readable numbers, measured and published rows apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from fustal_core.report_section import Table
from fustal_core.rounding import decimals

MAX_ROWS = 300
"""Of a longer table so many rows are shown, and the page says where the others are."""

_FOLDED_ROWS = 14  # a table longer than this is folded
_WIDE, _WIDEST = 14, 24  # columns from which a printed table needs room
_LONG = 30  # characters from which a column of text is given room
_BLANK = ("", "-", "—", "–", "nan", "NaN", "None")
_ORIGINS = {"measured": "Measured in this run", "published": "Published by others"}


@dataclass(frozen=True)
class Cell:
    """Shown text; ``value``: the number it sorts by; ``kind``: "n" for a number, "long" or ""."""

    text: str
    value: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Group:
    """Rows that stay together however the table is sorted. ``kind``: measured, published or empty."""

    title: str
    kind: str
    rows: list[list[Cell]]


@dataclass(frozen=True)
class TableView:
    """A table for the page. ``columns``: name and whether it is one of numbers."""

    columns: list[tuple[str, bool]]
    groups: list[Group]
    file: str
    folded: bool
    shown: int
    total: int

    @property
    def width(self) -> str:
        """What paper has no room for: "wide" with headings that lie, "wide widest" on a page upright."""
        count = len(self.columns)
        return "wide widest" if count > _WIDEST else "wide" if count > _WIDE else ""


def view_table(table: Table) -> TableView:
    """A table with readable numbers; measured and published rows in groups that never mix."""
    frame = table.frame.iloc[:MAX_ROWS]
    origins = list(dict.fromkeys(frame["origin"])) if "origin" in frame else [None]
    parts = [frame if origin is None else frame[frame["origin"] == origin] for origin in origins]
    grouped = {"origin"} & set(frame)
    if grouped and "data" in frame and all(len(set(part["data"])) == 1 for part in parts):
        grouped.add("data")
    if grouped == set(frame):  # no other column is left to show
        grouped = set()
    cells = {name: _column(frame[name].tolist()) for name in frame if name not in grouped}
    rows = dict(zip(frame.index, zip(*cells.values(), strict=True), strict=True))
    groups = [
        Group(
            _group_title(origin, part, grouped), origin or "", [list(rows[i]) for i in part.index]
        )
        for origin, part in zip(origins, parts, strict=True)
    ]
    columns = [(name, any(cell.kind == "n" for cell in column)) for name, column in cells.items()]
    total = len(table.frame)
    return TableView(columns, groups, table.file, total > _FOLDED_ROWS, len(frame), total)


def _group_title(origin: str | None, rows: pd.DataFrame, grouped: set[str]) -> str:
    if origin is None:
        return ""
    title = _ORIGINS.get(origin, origin)
    return f"{title}: {rows['data'].iloc[0]}" if "data" in grouped else title


def _column(texts: list[str]) -> list[Cell]:
    """Cells of a column, which is one of numbers if nothing else stands in it."""
    numbers = [_number(text) for text in texts]
    known = [number for number in numbers if number is not None]
    if not known or any(n is None and t not in _BLANK for n, t in zip(numbers, texts, strict=True)):
        long = max(map(len, texts), default=0) > _LONG
        return [Cell(text, kind="long" if long else "") for text in texts]
    digits = decimals(known)
    return [
        Cell("", kind="n") if number is None else Cell(_shown(number, digits), f"{number!r}", "n")
        for number in numbers
    ]


def _number(text: str) -> float | None:
    """The number that a text is; None for another text, or where nothing is known."""
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _shown(number: float, digits: int) -> str:
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    return f"{number:.{digits}f}".replace("-", "−")
