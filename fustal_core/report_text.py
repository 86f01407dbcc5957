"""Markdown of notebooks and plain TeX as safe HTML for a run's report."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from html import escape
from html.entities import html5

import mistune
from markupsafe import Markup
from mistune.plugins.math import math as math_plugin

_OF_A_NOTEBOOK = re.compile(r"\b(next|run the|add a) cell\b|\bcell again\b|\bJupyter|\bprinted\b")
_ASIDE = re.compile(r" \((?:[^()]*\bprinted\b[^()]*|the table (?:below|above|again))\)")
_SENTENCE = re.compile(r"(?<=[.?!]) +(?=[^a-z])")


def stand_alone(text: str) -> str:
    """A paragraph of a notebook without what is said of its cells and of what they print.

    A page without cells has neither; sentences that send there go, and asides in parentheses.
    """
    sentences = _SENTENCE.split(_ASIDE.sub("", text))
    return " ".join(one for one in sentences if not _OF_A_NOTEBOOK.search(one))


class _Renderer(mistune.HTMLRenderer):
    """Markdown without pictures, with links to sections of this page or to the web, and plain math."""

    def __init__(self, sections: Sequence[str]) -> None:
        super().__init__(escape=True)
        self._sections = sections

    def link(self, text: str, url: str, title: str | None = None) -> str:
        name = url.partition("#")[0].removesuffix(".ipynb")
        if name in self._sections:
            return f'<a href="#{escape(name)}">{text}</a>'
        web = url.startswith(("https://", "http://"))
        return f'<a href="{escape(url)}" rel="noreferrer">{text}</a>' if web else text

    def image(self, text: str, url: str, title: str | None = None) -> str:
        return text

    def inline_math(self, text: str) -> str:
        return _math(text)

    block_math = inline_math


def _math(tex: str) -> str:
    """Simple TeX in Unicode; what is more than symbols and letters stays TeX."""
    words = {name: _symbol(name) for name in re.findall(r"\\([A-Za-z]+)", tex)}
    plain = re.sub(r"\\([A-Za-z]+)", lambda match: words[match[1]], tex)
    if "" in words.values() or re.search(r"[\\{}^_&]", plain):
        return f"<code>{escape(tex)}</code>"
    letters = re.split(r"(\b[A-Za-z\u0370-\u03ff]\b)", plain)  # single ones are variables
    marked = [f"<i>{escape(t)}</i>" if i % 2 else escape(t) for i, t in enumerate(letters)]
    return f'<span class="math">{"".join(marked)}</span>'


def _symbol(name: str) -> str:
    """Character of a TeX command that HTML knows by the same name; empty if there is none."""
    if name in ("ln", "log", "exp", "min", "max"):
        return name
    found = html5.get(f"{name};", "")
    known = len(found) == 1 and (
        unicodedata.category(found) == "Sm" or "GREEK" in unicodedata.name(found, "")
    )
    return found if known else ""


class ReportMarkdown:
    """Markdown to safe HTML, or to plain text."""

    def __init__(self, sections: Sequence[str]) -> None:
        self._convert = mistune.create_markdown(
            renderer=_Renderer(sections), plugins=[math_plugin, "strikethrough"]
        )

    def html(self, text: str) -> Markup:
        return Markup(self._convert(text))

    def inline(self, text: str) -> Markup:
        """Without the paragraph around it."""
        return Markup(re.sub(r"^<p>|</p>$", "", str(self.html(text)).strip()))

    def plain(self, text: str) -> str:
        return self.html(text).striptags()
