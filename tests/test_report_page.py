"""The report in a real browser: quiet, within the screen, sortable by keyboard, printed whole.

Needs Chromium or a relative of it on the PATH, or named by FUSTAL_BROWSER. Without one these tests are
skipped; where CI is set they fail instead, so that a green CI has seen the page.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from report_helpers import make_run

from fustal_core.report import collect_run
from fustal_core.report_page import render_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
DESKTOP, PHONE = (1280, 800), (390, 844)
PAPER, PAPER_ON_ITS_SIDE = (703, 1000), 1032  # A4 less its margins, in CSS pixels


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = os.environ.get("FUSTAL_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        missing = (
            "no Chromium here (PATH, FUSTAL_BROWSER): the report is not looked at in a browser"
        )
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("run") / "tiny")
    path = run / "report.html"
    path.write_text(render_page(collect_run(run, ["03_third"])), encoding="utf-8")
    return path


def open_page(browser: Browser, file: Path, size: tuple[int, int], **options: Any) -> Page:
    """The page, with what the console said and what was fetched from outside in ``page.heard``."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, **options)
    page.heard = []
    page.on("console", lambda message: page.heard.append(message.text))
    page.on("pageerror", lambda error: page.heard.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("data:", file.as_uri()))
            else page.heard.append(request.url)
        ),
    )
    page.goto(file.as_uri())
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_page_is_quiet_and_within_the_screen(
    browser: Browser, report_file: Path, size: tuple[int, int], scheme: str
) -> None:
    page = open_page(browser, report_file, size, color_scheme=scheme)
    assert page.heard == []
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    loaded = page.evaluate("[...document.images].map(i => i.naturalWidth > 0 && i.alt)")
    assert len(loaded) == 4
    assert all(loaded[:3])
    # The style was let in by its hash; figures stay on white.
    assert page.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    ink, paper = page.evaluate(
        "(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))"
    )
    assert (brightness(ink) > brightness(paper)) == (scheme == "dark")
    page.close()


def brightness(colour: str) -> int:
    """Of ``rgb(r, g, b)``, summed."""
    return sum(map(int, colour.strip("rgb()").split(",")))


def test_the_network_is_out_of_reach(browser: Browser, report_file: Path) -> None:
    page = open_page(browser, report_file, DESKTOP)
    blocked = page.evaluate(
        """() => new Promise(done => {
            document.addEventListener('securitypolicyviolation', e => done(e.violatedDirective));
            new Image().src = 'http://127.0.0.1:9/picture.png';
        })"""
    )
    assert blocked == "img-src"
    assert not page.evaluate("Boolean(window.alerted)")
    page.close()


def column(page: Page, table: str, number: int) -> list[list[str]]:
    """Texts of a column, one list for each group of rows."""
    return page.evaluate(
        """([table, number]) => [...document.querySelector(table).tBodies].map(body =>
            [...body.rows].filter(row => row.cells.length > 1)
                .map(row => row.cells[number].textContent.trim()))""",
        [table, number],
    )


def test_sorting_by_keyboard_keeps_measured_and_published_apart(
    browser: Browser, report_file: Path
) -> None:
    page = open_page(browser, report_file, DESKTOP)
    table = "#results table"
    original = column(page, table, 3)
    assert original == [["10.0", "100.2", "−3.5"], ["20.0", "8.5"]]
    header = page.locator(f"{table} thead th").nth(3)
    header.locator("button").focus()
    for state, expected in (
        ("ascending", [["−3.5", "10.0", "100.2"], ["8.5", "20.0"]]),
        ("descending", [["100.2", "10.0", "−3.5"], ["20.0", "8.5"]]),
        ("none", original),
    ):
        page.keyboard.press("Enter")
        assert header.get_attribute("aria-sort") == state
        assert column(page, table, 3) == expected
    titles = page.locator(f"{table} tbody tr:first-child").all_inner_texts()
    assert titles == ["Measured in this run: simulated", "Published by others: real"]
    page.close()


def test_only_one_column_says_it_is_sorted(browser: Browser, report_file: Path) -> None:
    page = open_page(browser, report_file, DESKTOP)
    for number in (0, 3):
        page.locator("#results thead button").nth(number).click()
    states = page.evaluate(
        "[...document.querySelectorAll('#results thead th')].map(h => h.ariaSort)"
    )
    assert states == ["none", "none", "none", "ascending", "none"]
    page.close()


def test_numbers_within_texts_are_compared_and_blanks_are_last(
    browser: Browser, report_file: Path
) -> None:
    page = open_page(browser, report_file, DESKTOP)
    button = page.locator("#claims thead button").nth(1)
    button.click()
    rising = ["-5.0 points", "1", "9.9 points, of 3 seeds", "39.7 ± 7.5 points", "—"]
    assert column(page, "#claims table", 1) == [rising]
    button.click()
    assert column(page, "#claims table", 1) == [[*rising[3::-1], "—"]]
    page.locator("#claims thead button").nth(3).click()  # words
    assert column(page, "#claims table", 3) == [["no", "no", "undecided", "yes", "yes"]]
    page.close()


def test_a_verdict_is_a_word_and_a_colour(browser: Browser, report_file: Path) -> None:
    page = open_page(browser, report_file, DESKTOP)
    colours = page.evaluate(
        """Object.fromEntries([...document.querySelectorAll('#claims td .verdict')]
            .map(v => [v.textContent, getComputedStyle(v).backgroundColor]))"""
    )
    assert set(colours) == {"yes", "no", "undecided"}
    assert len(set(colours.values())) == 3
    assert page.locator("header .tally").inner_text().split() == [
        *("Do", "the", "claims", "hold", "here?"),
        *("2", "yes", "2", "no", "1", "undecided"),
    ]
    page.close()


def test_on_a_phone_tables_scroll_in_their_own_box(browser: Browser, report_file: Path) -> None:
    page = open_page(browser, report_file, PHONE)
    inner, outer = page.evaluate(
        "(b => [b.scrollWidth, b.clientWidth])(document.querySelector('table.wide').parentElement)"
    )
    assert inner > 2 * outer
    claims = page.evaluate("document.querySelector('.claims').scrollWidth")
    assert claims <= PHONE[0]
    small = page.evaluate(
        """[...document.querySelectorAll('p, td, figcaption, li')]
            .filter(e => parseFloat(getComputedStyle(e).fontSize) < 12).length"""
    )
    assert small == 0
    page.close()


def test_on_a_phone_a_figure_can_be_enlarged(browser: Browser, report_file: Path) -> None:
    page = open_page(browser, report_file, PHONE)
    button = page.locator(".enlarge").first
    picture = page.locator(".card img").first
    before = picture.bounding_box()["width"]
    assert before < PHONE[0]
    button.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert picture.bounding_box()["width"] > 2 * before
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    button.press("Enter")
    assert picture.bounding_box()["width"] == before
    page.close()


def test_headings_names_and_links_are_in_order(browser: Browser, report_file: Path) -> None:
    page = open_page(browser, report_file, DESKTOP)
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    names = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(set(names)) == len(names)
    targets = page.evaluate("[...document.links].map(a => a.getAttribute('href'))")
    assert {target[1:] for target in targets if target.startswith("#")} <= set(names)
    sections = page.evaluate("[...document.querySelectorAll('main section')].map(s => s.id)")
    assert sections == [
        *("claims", "results", "01_first", "02_second", "03_third", "settings", "provenance")
    ]
    listed = page.evaluate("[...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
    assert listed == sections
    page.close()


def test_print_is_whole(browser: Browser, report_file: Path, tmp_path: Path) -> None:
    page = open_page(browser, report_file, PAPER)
    page.evaluate(
        """() => window.addEventListener('beforeprint', () => {
            window.folded = document.querySelectorAll('details:not([open])').length;
        })"""
    )
    folded = page.evaluate("document.querySelectorAll('details:not([open])').length")
    assert folded == 4  # claims of two notebooks, the table of 40 rows, all settings
    printed = page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    assert printed.startswith(b"%PDF")
    assert page.evaluate("window.folded") == 0
    assert page.evaluate("document.querySelectorAll('details:not([open])').length") == folded
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    right = page.evaluate(
        """[...document.querySelectorAll('table:not(.widest), img')]
            .map(t => t.getBoundingClientRect().right)"""
    )
    assert max(right) <= PAPER[0] + 1
    page.set_viewport_size({"width": PAPER_ON_ITS_SIDE, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") == PAPER_ON_ITS_SIDE
    boxes = "[...document.querySelectorAll('.scroll')].map(b => getComputedStyle(b).overflowX)"
    assert set(page.evaluate(boxes)) == {"visible"}  # paper does not scroll
    positions = page.evaluate(
        "[...document.querySelectorAll('body *')].map(e => getComputedStyle(e).position)"
    )
    assert "sticky" not in positions
    assert not page.locator(".enlarge").first.is_visible()
    page.close()


def test_page_is_readable_without_script(browser: Browser, report_file: Path) -> None:
    page = open_page(browser, report_file, PHONE, java_script_enabled=False)
    assert page.heard == []
    assert page.locator("button").count() == 0
    assert page.locator("#claims tbody tr").count() == 5
    page.locator("#settings summary").click()
    assert page.locator("#settings details td").first.is_visible()
    page.close()
