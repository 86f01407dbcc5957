"""A run's report: what is collected, what is said to be missing, and that no stranger's text is code."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pandas as pd
import pytest
from cli_helpers import assert_refused, fustal
from hypothesis import given
from hypothesis import strategies as st
from report_helpers import (
    FIRST,
    MAIN_RESULTS,
    SECOND,
    STRANGER,
    add_notebook,
    make_run,
    write_config,
    write_picture,
)

from fustal_core import cli_report, rundir
from fustal_core.annotations import DataError
from fustal_core.claims import COLUMNS
from fustal_core.config import SettingsError, make_settings
from fustal_core.files import write_json
from fustal_core.report import all_claims, collect_run
from fustal_core.report_notebook import read_notebook
from fustal_core.report_page import fit_pictures, render_page
from fustal_core.report_section import Figure, Picture, Section, Table, read_table
from fustal_core.report_tables import MAX_ROWS, Cell, view_table
from fustal_core.report_text import ReportMarkdown, stand_alone
from fustal_core.rundir import CACHE


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "tiny")


def test_figures_have_heading_and_caption_of_the_next_prose(run: Path) -> None:
    section = collect_run(run).sections[0]
    curves, bars, unnamed = section.items
    assert isinstance(curves, Figure)
    assert [picture.file for picture in curves.pictures] == [
        f"{FIRST}/curves.png",
        f"{FIRST}/curves_two.png",
    ]
    assert curves.pictures[1].width == curves.pictures[1].height == 41
    assert curves.title == "The curves"
    assert curves.caption.startswith("*What to see*: lines")
    assert curves.caption.endswith("(javascript:alert(1)).")
    assert isinstance(bars, Figure)
    assert (bars.title, bars.caption) == ("Bars", "")
    assert isinstance(unnamed, Figure)
    assert (unnamed.title, unnamed.caption) == ("", "")
    assert section.title.startswith("1 · First")
    assert section.lead == f"A *lead* on {STRANGER}."
    assert section.notes == []


@pytest.mark.parametrize(
    ("paragraph", "left"),
    [
        ("*What to see*: a line. The next cell puts numbers on it.", "*What to see*: a line."),
        ("Is it up? In JupyterLab, change it and run the cell again. So!", "Is it up? So!"),
        ("Look left (the printed line has the gain), and right.", "Look left, and right."),
        ("Do they win (the table below)? How far (the table again)?", "Do they win? How far?"),
        ("Coloured cells lie above 0.5 (as printed): see the last cell.", None),
        ("Those of the next panel (2 of 3), e.g. this one.", None),
        ("The next cell counts them.", ""),
    ],
)
def test_text_of_a_page_sends_nobody_to_cells(paragraph: str, left: str | None) -> None:
    """What is about cells goes, what else has these words stays."""
    expected = paragraph.replace(" (as printed)", "") if left is None else left
    assert stand_alone(paragraph) == expected


def test_captions_of_the_study_send_nobody_to_cells(tmp_path: Path) -> None:
    """And they are the notebooks' own but for that."""
    found = {}
    for path in (rundir.project_root() / "notebooks").glob("*.ipynb"):
        notebook = read_notebook(path)
        found[path.stem] = [notebook.lead, *(one.caption for one in notebook.kept)]
    assert len(found) == 8
    captions = [text for texts in found.values() for text in texts if text]
    assert len(captions) > 40
    words = ("next cell", "cell again", "JupyterLab", "printed")
    assert not [text for text in captions if any(word in text for word in words)]
    for text in captions:
        # No sentence was cut in two.
        assert text.count("(") == text.count(")")
        assert text.count("$") % 2 == 0
        assert text[-1] in ".?!)"


def test_tables_are_in_the_notebooks_order_and_two_stand_apart(run: Path) -> None:
    report = collect_run(run)
    assert [item.file for item in report.sections[1].items] == [
        f"{SECOND}/steps.csv",
        f"{SECOND}/wide.csv",
    ]
    assert report.main_results is not None
    assert report.main_results.file == f"{FIRST}/main_results.csv"
    assert report.data_name == "tiny (simulated)"


def test_claims_of_all_notebooks_are_one_table(run: Path) -> None:
    table = all_claims(collect_run(run).sections)
    assert list(table) == [
        "claim / expected",
        "measured here",
        "interval",
        "holds",
        "notebook",
    ]
    assert table["notebook"].tolist() == [FIRST] * 4 + [SECOND]
    assert table["interval"].tolist() == [""] * 4 + ["[0.5, 1.5]"]
    assert all_claims([Section("a", "a")]).empty


def test_headings_of_the_claims_say_what_stands_below_them(run: Path) -> None:
    """On wide pages, beside each cell on narrow ones, and in a notebook's own table."""
    text = f"{','.join(COLUMNS)}\nit helps,stage 1,+1.0,none,yes,ours,1\n"
    for notebook in (FIRST, SECOND):
        (run / notebook / "claims.csv").write_text(text, encoding="utf-8")
    page = render_page(collect_run(run))
    expected = ["claim", "said in", "measured here", "interval", "holds here", "data", "seeds"]
    claims, first = page.split("<table")[1], page.partition(f'id="{FIRST}"')[2]
    for table in (claims, first.split("<table")[1]):
        found = re.findall(r"<th [^>]*>([^<]+)</th>", table.partition("</thead>")[0])
        assert found[:7] == expected
    beside = re.findall(r'data-label="([^"]+)"', claims)
    assert beside[:7] == expected


def test_the_runs_own_table_of_claims_is_shown_while_it_is_of_these_notebooks(run: Path) -> None:
    text = (run / FIRST / "claims.csv").read_text(encoding="utf-8").replace("claim", "expected")
    (run / FIRST / "claims.csv").write_text(text, encoding="utf-8")
    own = f"notebook,expected,holds\n{FIRST},it harms,no\n{SECOND},an end,yes\n"
    (run / "claims.csv").write_text(own, encoding="utf-8")
    report = collect_run(run)
    assert report.claims.to_numpy().tolist() == [
        ["it harms", "no", FIRST],
        ["an end", "yes", SECOND],
    ]
    assert list(report.claims) == ["expected", "holds", "notebook"]
    assert report.notes == []
    for other, note in (
        (own.replace("harms,no", "harms,yes"), "not what the notebooks say"),
        ("", "empty"),
    ):
        (run / "claims.csv").write_text(other, encoding="utf-8")
        report = collect_run(run)
        assert len(report.claims) == 5
        assert note in report.notes[0]


def test_settings_are_set_beside_the_profiles_defaults(run: Path) -> None:
    rows = collect_run(run).settings.set_index("name")
    assert list(rows.index[rows["changed"]]) == ["generation.iterations"]
    plain = make_settings(profile="smoke").generation.iterations
    assert rows.loc["generation.iterations", ["value", "default"]].tolist() == [7, plain]
    assert rows.loc["generation.iterations", "meaning"]


def test_settings_of_another_version_are_shown_all_the_same(run: Path) -> None:
    write_config(run, {"data": "simulated", "profile": "smoke", "seed": 0, "gone": {"old": 1}})
    rows = collect_run(run).settings.set_index("name")
    assert rows.loc["gone.old", ["value", "default", "changed"]].tolist() == [1, "unknown", True]
    write_config(run, {"profile": "bygone", "seed": 0})
    report = collect_run(run)
    assert "bygone" in report.notes[0]
    assert "bygone" in render_page(report)
    write_config(run, {"profile": "smoke", "seed": [], "constants": []})
    assert "'constants'" in collect_run(run).notes[0]


@pytest.mark.parametrize(
    ("file", "content", "note"),
    [
        ("curves.png", b"\x89PNG no more", "curves.png: cannot identify"),
        ("curves.png", None, "curves.png: not made in this run"),
        ("main_results.csv", b"", "main_results.csv: empty"),
        ("main_results.csv", b"a,b\n1,2\n1,2,3\n", "row 2 has 3 cells, expected 2"),
        ("main_results.csv", b'a,b\n1,"2\n', "main_results.csv: unexpected end"),
        ("main_results.csv", b"a,a\n1,2\n", "two columns of the same name"),
        ("claims.csv", b"a,b\n\xff\xfe,\n", "claims.csv: 'utf-8' codec"),
        ("claims.csv", None, "claims.csv: not made in this run"),
        ("claims.csv", b"notebook,claim\na,b\n", "claims.csv: a column 'notebook'"),
        (f"{FIRST}.ipynb", b"{", "cannot be read"),
        (f"{FIRST}.ipynb", b"[]", "not a notebook"),
        pytest.param(f"{FIRST}.ipynb", b"[" * 100_000, "maximum recursion", id="deep"),
        (f"{FIRST}.ipynb", None, "was not executed"),
    ],
)
def test_what_is_broken_or_missing_is_said(
    run: Path, file: str, content: bytes | None, note: str
) -> None:
    path = run / FIRST / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    report = collect_run(run)
    assert any(note in line for line in report.sections[0].notes)
    page = render_page(report)
    assert note.replace("'", "&#39;") in page
    assert "39.7 ± 7.5" in page or file == "claims.csv"  # the rest is there


def test_a_cut_picture_is_said(run: Path) -> None:
    path = run / FIRST / "curves.png"
    path.write_bytes(path.read_bytes()[:-2000])
    assert any("curves.png" in note for note in collect_run(run).sections[0].notes)


def test_notebooks_that_never_ran_or_failed_are_said(run: Path) -> None:
    (run / SECOND / f"{SECOND}.failed.ipynb").write_text("{}", encoding="utf-8")
    report = collect_run(run, [FIRST, SECOND, "03_third"])
    assert [section.name for section in report.sections] == [FIRST, SECOND, "03_third"]
    assert "failed" in report.sections[1].notes[0]
    assert report.sections[2].notes == ["this notebook was not executed in this run"]
    assert 'id="03_third"' in render_page(report)


def test_what_made_the_products_is_said(run: Path) -> None:
    """Each revision and device, with the number of products: a run may have gone on with another."""
    made = ["one", "one", "two"]
    for i, revision in enumerate(made):
        write_json(run / f"{FIRST}/product{i}/made.json", {"made_with": {"git_revision": revision}})
    drawn = {"git_revision": "of simulated features"}
    write_json(run / CACHE / "simulated/made.json", {"made_with": drawn})
    write_json(run / f"{FIRST}/older/made.json", {"key": "made by an earlier version"})
    (run / f"{FIRST}/damaged").mkdir()
    (run / f"{FIRST}/damaged/made.json").write_text("[]")
    (run / f"{SECOND}/made.json").write_text("[" * 100_000)
    (run / f"{SECOND}/metrics.json").write_text("[" * 100_000)
    report = collect_run(run)
    assert report.provenance["products.git_revision"] == "one (2), two (1)"
    assert "one (2), two (1)" in render_page(report)


def test_an_empty_run_has_a_page(tmp_path: Path) -> None:
    write_config(tmp_path, make_settings().model_dump(mode="json"))
    report = collect_run(tmp_path)
    page = render_page(report)
    assert report.notes == ["provenance.json: No such file or directory"]
    assert "No notebook of this run has written a table of claims" in page
    assert "No notebook of this run has written the main table" in page


def test_what_is_no_run_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no run directory"):
        collect_run(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"config\.json"):
        collect_run(tmp_path)
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match="expected a JSON object"):
        collect_run(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(DataError, match="maximum recursion depth"):
        collect_run(tmp_path)


def test_cells_may_be_lists_of_lines(tmp_path: Path) -> None:
    cells = [("markdown", ["# T\n", "\n", "Lead."]), ("code", ['keep_figure(s, N, "a", ', "f)"])]
    add_notebook(tmp_path / "00_a", cells, {})  # type: ignore[arg-type]
    notebook = read_notebook(tmp_path / "00_a" / "00_a.ipynb")
    assert (notebook.title, notebook.lead) == ("T", "Lead.")
    assert [(one.kind, one.name, one.title) for one in notebook.kept] == [("figure", "a", "T")]


def table_of(tmp_path: Path, text: str) -> Table:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    return Table("", "t.csv", read_table(path))


def test_measured_and_published_rows_stay_in_groups(tmp_path: Path) -> None:
    view = view_table(table_of(tmp_path, MAIN_RESULTS))
    assert [group.title for group in view.groups] == [
        "Measured in this run: simulated",
        "Published by others: real",
    ]
    assert [name for name, _ in view.columns] == [
        "method",
        "mAP@0.1",
        "mAP@0.2",
        "avg 0.1:0.7",
        "source",
    ]
    assert [row[0].text for row in view.groups[1].rows] == ["theirs", "older"]


def test_data_stays_a_column_where_a_group_has_several(tmp_path: Path) -> None:
    view = view_table(table_of(tmp_path, "origin,data,x\nmeasured,a,1\nmeasured,b,2\n"))
    assert [name for name, _ in view.columns] == ["data", "x"]
    bare = view_table(table_of(tmp_path, "origin,data\nmeasured,a\npublished,b\n"))
    assert [name for name, _ in bare.columns] == ["origin", "data"]
    assert [group.title for group in view.groups] == ["Measured in this run"]


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (["1.0", "", "3"], ["1", "", "3"]),
        (["63.57329", "-4", "0.04"], ["63.6", "−4.0", "0.0"]),
        (["0.12345", "1.5", "nan"], ["0.123", "1.500", ""]),
        (["0.1", "0.25"], ["0.10", "0.25"]),
        (["0.35", "1.5", "10", "inf"], ["0.35", "1.50", "10.00", "∞"]),
        (["0.99", "0.997"], ["0.990", "0.997"]),
        (["0.5", "inf"], ["0.5", "∞"]),
        (["39.7 ± 7.5", "2"], ["39.7 ± 7.5", "2"]),
        (["", ""], ["", ""]),
    ],
)
def test_numbers_have_equal_decimals(tmp_path: Path, texts: list[str], shown: list[str]) -> None:
    frame = pd.DataFrame({"x": texts, "y": "text"})
    view = view_table(Table("", "t.csv", frame))
    assert [row[0].text for row in view.groups[0].rows] == shown


def test_a_number_keeps_its_full_value_for_sorting(tmp_path: Path) -> None:
    view = view_table(table_of(tmp_path, "x,y\n63.573290586681495,12\n"))
    assert view.groups[0].rows[0] == [
        Cell("63.6", "63.573290586681495", "n"),
        Cell("12", "12.0", "n"),
    ]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8))
def test_no_shown_number_is_far_from_its_value(numbers: list[float]) -> None:
    frame = pd.DataFrame({"x": [repr(number) for number in numbers]})
    rows = view_table(Table("", "t.csv", frame)).groups[0].rows
    unit = 0.1 if max(map(abs, numbers)) >= 2 else 0.001
    for number, (cell,) in zip(numbers, rows, strict=True):
        assert abs(float(cell.text.replace("−", "-")) - number) <= unit / 2 + 1e-9
        assert float(cell.value) == number


@given(st.lists(st.sampled_from(["measured", "published", "estimated"]), min_size=1, max_size=9))
def test_every_row_is_in_the_group_of_its_origin_once(origins: list[str]) -> None:
    names = [f"{origin} {i}" for i, origin in enumerate(origins)]
    view = view_table(Table("", "t.csv", pd.DataFrame({"name": names, "origin": origins})))
    shown = {group.kind: [row[0].text for row in group.rows] for group in view.groups}
    assert shown == {o: [n for n in names if n.startswith(o)] for o in dict.fromkeys(origins)}


def test_of_a_long_table_the_page_says_what_is_missing(run: Path) -> None:
    rows = "".join(f"row {i},{i}\n" for i in range(MAX_ROWS + 5))
    (run / SECOND / "steps.csv").write_text(f"name,x\n{rows}", encoding="utf-8")
    page = render_page(collect_run(run))
    assert f"The first {MAX_ROWS} of {MAX_ROWS + 5} rows; all are in {SECOND}/steps.csv" in page
    assert f"row {MAX_ROWS - 1}<" in page
    assert f"row {MAX_ROWS}<" not in page


def pictures_of(folder: Path, sizes: list[int]) -> list[Picture]:
    pictures = []
    for size in sizes:
        write_picture(folder / f"{size}.png", size)
        pictures.append(Picture(f"{size}.png", (folder / f"{size}.png").read_bytes(), size, size))
    return pictures


def encoded(size: int) -> int:
    return 4 * -(-size // 3)


def test_pictures_that_fit_stay_as_they_are(tmp_path: Path) -> None:
    pictures = pictures_of(tmp_path, [30, 60])
    room = sum(encoded(len(picture.png)) + 30 for picture in pictures)
    fitted = fit_pictures(pictures, room)
    assert (fitted.reduced, fitted.left_out) == (0, ())
    for picture in pictures:
        sent = fitted.uris[picture.file].removeprefix("data:image/png;base64,")
        assert base64.b64decode(sent) == picture.png


def test_the_largest_picture_loses_colours_first_and_goes_first(tmp_path: Path) -> None:
    small, large = pictures = pictures_of(tmp_path, [30, 90])
    room = sum(encoded(len(picture.png)) + 30 for picture in pictures)
    reduced = fit_pictures(pictures, room - 1)
    assert (reduced.reduced, reduced.left_out) == (1, ())
    sent = {file: uri.removeprefix("data:image/png;base64,") for file, uri in reduced.uris.items()}
    assert base64.b64decode(sent[small.file]) == small.png
    assert len(sent[large.file]) < encoded(len(large.png)) / 2
    least = fit_pictures(pictures, encoded(len(small.png)) + 30)
    assert least.left_out == ("90.png",)
    assert list(least.uris) == ["30.png"]
    assert fit_pictures(pictures, -1).left_out == ("30.png", "90.png")


def test_a_page_stays_below_its_size_and_says_what_is_left_out(run: Path) -> None:
    write_picture(run / FIRST / "bars.png", 400)
    report = collect_run(run)
    whole = render_page(report)
    assert "Left out" not in whole
    page = render_page(report, max_bytes=100_000)
    assert len(page.encode()) < 100_000 < len(whole.encode())
    assert f"Left out, because the page would have become too large: {FIRST}/bars.png." in page
    assert f"It is {FIRST}/bars.png in the run directory" in page
    assert page.count("<img ") == whole.count("<img ") - 1 == 3


def test_what_strangers_wrote_is_no_code(run: Path) -> None:
    page = render_page(collect_run(run))
    assert page.count("<script>") == 1
    assert STRANGER not in page
    assert page.count("&lt;script&gt;alert(") >= 4  # title, lead, caption, main table
    assert "javascript:" not in page
    assert '<a href="#02_second">2 · Second</a>' in page


def test_the_policy_allows_this_pages_own_style_and_script_only(run: Path) -> None:
    page = render_page(collect_run(run))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy[1].replace("&#39;", "'").split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag in ("style", "script"):
        body = page.split(f"<{tag}>")[1].split(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"


def test_equal_runs_give_equal_bytes_and_no_place(run: Path, tmp_path: Path) -> None:
    page = render_page(collect_run(run))
    again = render_page(collect_run(make_run(tmp_path / "elsewhere" / "tiny")))
    assert page == again
    assert str(tmp_path) not in page


def test_pictures_are_described(run: Path) -> None:
    page = render_page(collect_run(run))
    alts = re.findall(r'alt="([^"]*)"', page)
    assert alts[0].startswith("The curves: lines, code and γ &gt; b;")
    assert alts[2] == "Bars"


def test_halves_of_characters_do_not_stop_the_page(run: Path) -> None:
    text = '{"device": "\\ud800", "seed": 1}'
    (run / "provenance.json").write_text(text, encoding="utf-8")
    assert render_page(collect_run(run)).encode()


@pytest.mark.parametrize(
    ("source", "html"),
    [
        ("$b$", '<p><span class="math"><i>b</i></span></p>'),
        (r"$\ln 2 \approx 0.69$", '<p><span class="math">ln 2 ≈ 0.69</span></p>'),
        (r"$\eta = 0.4$", '<p><span class="math"><i>η</i> = 0.4</span></p>'),
        (r"$x_{t<1}$", "<p><code>x_{t&lt;1}</code></p>"),
        (r"$\frac{1}{2}$", r"<p><code>\frac{1}{2}</code></p>"),
        ("![a](https://a.example/a.png)", "<p>a</p>"),
        ("[a](file:///etc)", "<p>a</p>"),
        (
            '[a](https://a.example/"x)',
            '<p><a href="https://a.example/%22x" rel="noreferrer">a</a></p>',
        ),
        ("<b onclick=x>*a*</b>", "<p>&lt;b onclick=x&gt;<em>a</em>&lt;/b&gt;</p>"),
    ],
)
def test_markdown(source: str, html: str) -> None:
    assert ReportMarkdown([]).html(source).strip() == html


def test_command_writes_one_page(run: Path, tmp_path: Path) -> None:
    result = fustal("report", run)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(run / "report.html")
    assert "note: 00_data: this notebook was not executed in this run" in result.stderr
    page = (run / "report.html").read_bytes()
    other = tmp_path / "new" / "page.html"
    cli_report.report(run, other)
    assert other.read_bytes() == page


def test_command_refuses_and_writes_nothing(run: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_refused(fustal("report", empty), 2, "no run directory", str(empty))
    assert list(empty.iterdir()) == []
    with pytest.raises(SettingsError, match="is a folder"):
        cli_report.report(run, empty)
    with pytest.raises(SettingsError, match="is itself read here"):
        cli_report.report(run, run / "config.json")
    (run / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"config\.json"):
        cli_report.report(run)
    assert not (run / "report.html").exists()


def test_command_takes_the_default_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "default_run_dir", lambda settings: run)
    cli_report.report()
    assert (run / "report.html").is_file()
