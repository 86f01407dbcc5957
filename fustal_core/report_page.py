"""A run's report as one HTML page that needs nothing else: no network, no other file.

Whatever comes from files is escaped; the page's content security policy allows its own style and script
by their hashes, pictures within the page, and nothing else. Equal runs give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fustal_core.pictures import with_fewer_colours
from fustal_core.report import RunReport
from fustal_core.report_section import Figure, Picture, Section, Table
from fustal_core.report_tables import view_table
from fustal_core.report_text import ReportMarkdown

MAX_BYTES = 5_000_000
"""A page stays below this size."""
_SLACK_BYTES = 20_000  # for what the page says about pictures that did not fit
_ALT_CHARACTERS = 200
CLAIM_HEADINGS = {"where": "said in", "holds": "holds here"}
"""What columns of the claims are called on the page, where they need more words."""


def render_page(report: RunReport, max_bytes: int = MAX_BYTES) -> str:
    """The whole page.

    Pictures that would make it too large are reduced to 256 colours, the largest first; if that is
    not enough, the largest are left out, and the page says which and where they lie.

    Args:
        max_bytes: the page in UTF-8 stays below it, as long as its text alone does.
    """
    pictures = [
        picture
        for section in report.sections
        for item in section.items
        if isinstance(item, Figure)
        for picture in item.pictures
    ]
    text = _render(report, Fitted({}, 0, ()))
    room = max_bytes - len(text.encode()) - _SLACK_BYTES
    return _render(report, fit_pictures(pictures, room))


@dataclass(frozen=True)
class Fitted:
    """Pictures for a page: file -> data URI, how many have fewer colours, files left out."""

    uris: dict[str, str]
    reduced: int
    left_out: tuple[str, ...]


def fit_pictures(pictures: Sequence[Picture], room: int) -> Fitted:
    """Pictures in so many bytes of base64: as they are, else with fewer colours, else fewer."""
    pngs = {picture.file: picture.png for picture in pictures}
    by_size = sorted(pngs, key=lambda file: (-len(pngs[file]), file))
    reduced = 0
    for file in by_size:
        if _encoded_size(pngs) <= room:
            break
        smaller = with_fewer_colours(pngs[file])
        if len(smaller) < len(pngs[file]):
            pngs[file] = smaller
            reduced += 1
    left_out = []
    for file in sorted(pngs, key=lambda file: (-len(pngs[file]), file)):
        if _encoded_size(pngs) <= room:
            break
        left_out.append(file)
        del pngs[file]
    uris = {
        file: f"data:image/png;base64,{base64.b64encode(png).decode()}"
        for file, png in pngs.items()
    }
    return Fitted(uris, reduced, tuple(sorted(left_out)))


def _encoded_size(pngs: dict[str, bytes]) -> int:
    return sum(4 * math.ceil(len(png) / 3) + 30 for png in pngs.values())


def _render(report: RunReport, fitted: Fitted) -> str:
    environment = Environment(
        loader=PackageLoader("fustal_core", "tables"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["figure"] = lambda item: isinstance(item, Figure)
    style, script = _source("report.css"), _source("report.js")
    markdown = ReportMarkdown([section.name for section in report.sections])
    page = environment.get_template("report.html").render(
        report=report,
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        markdown=markdown,
        claims=report.claims,
        verdicts=verdicts(report.claims),
        view=view_table,
        titles={section.name: markdown.plain(section.title) for section in report.sections},
        counts=_counts(report),
        fitted=fitted,
        alt=lambda figure: _alt(figure, markdown),
        section_verdicts=lambda section: verdicts(section.claims),
        claim_headings=CLAIM_HEADINGS,
        own_claims=_own_claims,
        headings=_headings,
        shown=shown_value,
    )
    return page.encode("utf-8", "replace").decode()  # JSON may hold halves of characters


def _source(name: str) -> str:
    loader = PackageLoader("fustal_core", "tables")
    return loader.get_source(Environment(autoescape=True), name)[0]


def _policy(style: str, script: str) -> str:
    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest(style)}'; "
        f"script-src 'sha256-{digest(script)}'; base-uri 'none'; form-action 'none'"
    )


def verdicts(claims: pd.DataFrame | None) -> dict[str, int]:
    """How many claims hold, do not, and so on: word -> count, in the order yes, no, others."""
    if claims is None or "holds" not in claims:
        return {}
    counts = claims["holds"].value_counts().to_dict()
    order = sorted(counts, key=lambda word: ({"yes": 0, "no": 1}.get(word, 2), word))
    return {word: counts[word] for word in order}


def _own_claims(section: Section) -> Table:
    """A notebook's claims under the page's headings."""
    frame = section.claims if section.claims is not None else pd.DataFrame()
    return Table("", f"{section.name}/claims.csv", frame.rename(columns=CLAIM_HEADINGS))


def _counts(report: RunReport) -> dict[str, int]:
    items = [item for section in report.sections for item in section.items]
    figures = [item for item in items if isinstance(item, Figure)]
    return {
        "figures": sum(len(figure.pictures) for figure in figures),
        "tables": len(items) - len(figures) + (report.main_results is not None),
        "notebooks": sum(1 for section in report.sections if section.items),
    }


def _alt(figure: Figure, markdown: ReportMarkdown) -> str:
    """Title and the beginning of the caption, as plain text."""
    caption = markdown.plain(figure.caption).removeprefix("What to see:").strip()
    text = ": ".join(filter(None, [markdown.plain(figure.title), caption]))
    if len(text) <= _ALT_CHARACTERS:
        return text
    return text[:_ALT_CHARACTERS].rpartition(" ")[0] + " …"


def _headings(section: Section) -> list[tuple[str, list[Figure | Table]]]:
    """A section's items under their titles; what the notebook does not name is last, titled ''."""
    grouped: list[tuple[str, list[Figure | Table]]] = []
    for item in section.items:
        if not grouped or grouped[-1][0] != item.title:
            grouped.append((item.title, []))
        grouped[-1][1].append(item)
    return grouped


def shown_value(value: Any) -> str:
    """A setting or a fact as text: yes and no, lists with commas, nothing for what is not known."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(shown_value, value)) or "none"
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
