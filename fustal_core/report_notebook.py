"""What an executed notebook says of the files it kept: order, headings, captions.

Paragraphs are taken without what is said of cells (`report_text.stand_alone`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fustal_core.report_text import stand_alone

CAPTION = "*What to see*"
"""How the paragraph begins that says what a figure shows."""

_KEPT = re.compile(r"""keep_(figure|table)\(\s*\w+,\s*\w+,\s*["']([^"'/\\]+)["']""")
_FENCED = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$")


@dataclass(frozen=True)
class Kept:
    """A figure or table that a cell keeps, with the heading above it and a figure's caption.

    ``kind`` is "figure" or "table"; ``title`` and ``caption`` are Markdown, perhaps empty.
    """

    kind: str
    name: str
    title: str = ""
    caption: str = ""


@dataclass(frozen=True)
class NotebookText:
    """Title and first paragraph (Markdown) of a notebook, and what it keeps, in order."""

    title: str
    lead: str
    kept: list[Kept]


def read_notebook(path: Path) -> NotebookText:
    """Read a notebook file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no notebook.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    try:
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in content["cells"]]
    except (KeyError, TypeError):
        raise ValueError("not a notebook") from None
    blocks = [block for kind, text in cells if kind == "markdown" for block in _blocks(text)]
    titles = [match[1] for block in blocks if (match := _HEADING.match(block))]
    lead = next((block for block in blocks if not _HEADING.match(block)), "")
    return NotebookText(titles[0] if titles else path.stem, stand_alone(lead), _kept_in(cells))


def _blocks(markdown: str) -> list[str]:
    """Paragraphs and headings, without fenced code, in which a # is no heading."""
    text = re.sub(r"^(#{1,6} .*)$", r"\n\1\n", _FENCED.sub("", markdown), flags=re.MULTILINE)
    return [block.strip() for block in re.split(r"\n\s*\n", text) if block.strip()]


def _kept_in(cells: Sequence[tuple[str, str]]) -> list[Kept]:
    """What cells keep; a figure's caption is in the first markdown cell after it."""
    done: list[Kept] = []
    waiting: list[Kept] = []
    title = ""
    for kind, text in cells:
        if kind == "code":
            waiting += [Kept(what, name, title) for what, name in _KEPT.findall(text)]
        elif kind == "markdown":
            blocks = _blocks(text)
            caption = next((block for block in blocks if block.startswith(CAPTION)), "")
            done += [replace(one, caption=stand_alone(caption)) for one in waiting]
            waiting = []
            headings = [match[1] for block in blocks if (match := _HEADING.match(block))]
            title = headings[-1] if headings else title
    return done + waiting
