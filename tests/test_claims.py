"""The claims table: its wording against its sources, its verdicts, and the README's copy of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fustal_core import claims, published
from fustal_core.ablation import Results
from fustal_core.claim_list import CLAIMS, EMA_GAIN, F1, MEASURES, PRECISION
from fustal_core.config import SettingsError, make_settings
from fustal_core.grid import cells
from fustal_core.metrics import AVERAGE
from fustal_core.resampling import Interval, t_interval
from fustal_core.rundir import default_run_dir, project_root
from fustal_core.stages import Study

SAYS = {claim.key: claim.says for claim in CLAIMS}
CELLS = [claim for claim in CLAIMS if claim.cells]


FOLDER = TemporaryDirectory()
"""Of studies whose tests have none of their own; removed at the end."""


def study_with(overrides: dict[str, object], run_dir: Path = Path(FOLDER.name)) -> Study:
    return Study(make_settings(profile="smoke", overrides=overrides), run_dir)


STUDY = study_with({})


@pytest.fixture
def study() -> Study:
    return STUDY


def interval(low: float, mean: float, high: float, seeds: int = 3) -> Interval:
    return Interval(mean, low, high, seeds, 0.5, "seeds and videos" if seeds > 1 else "videos")


def test_no_claim_is_listed_twice() -> None:
    assert len(SAYS) == len(set(SAYS.values())) == len(CLAIMS)


@pytest.mark.parametrize(
    ("key", "methods"),
    [
        ("calibration", ["CoLA (released code)"]),
        ("fustal", ["FuSTAL", "CoLA (released code)"]),
        ("alignment", ["FTCL", "ACM-Net"]),
        ("stage-2", ["HR-Pro (released code)"]),
    ],
)
def test_published_numbers_are_those_of_the_published_table(key: str, methods: list[str]) -> None:
    averages = published.thumos14().set_index("method")["avg 0.1:0.7"]
    for method in methods:
        assert f"{averages[method]:.1f}" in SAYS[key]


def test_the_share_of_videos_with_several_classes_is_that_of_the_annotations() -> None:
    real = published.thumos14_summary().set_index("subset")
    share = real.loc["train", "several classes (%)"]
    assert SAYS["several-classes"].startswith(f"{share:.1f} % ")


def test_claims_name_cells_of_the_grid_and_measures_with_resamples() -> None:
    grid = {(cell.group, cell.name) for cell in cells(make_settings(), ("all",))}
    for claim in CELLS:
        assert set(claim.cells) <= grid
        assert len(claim.cells) == (1 if claim.measure == EMA_GAIN else 2)  # that is a gain itself
        assert claim.measure in MEASURES


@pytest.mark.parametrize(
    ("points", "shown", "holds"),
    [
        (1.04, "+1.0", "yes"),
        (1.0, "+1.0", "undecided"),
        (-0.04, "+0.0", "undecided"),
        (-1.0, "-1.0", "undecided"),
        (-1.04, "-1.0", "no"),
        (-5.06, "-5.1", "no"),
        (np.nan, "+nan", "undecided"),
    ],
)
def test_one_run_is_judged_by_points(study: Study, points: float, shown: str, holds: str) -> None:
    row = claims.gain(study, "filter", points, "here")
    assert list(row) == claims.COLUMNS
    assert row["claim"] == SAYS["filter"]
    assert row["measured here"] == f"F1 at tIoU 0.5 {shown} here"
    assert (row["holds"], row["interval"], row["seeds"]) == (holds, "none (one seed)", "1")


@pytest.mark.parametrize(
    ("low", "mean", "high", "holds"),
    [
        (0.1, 0.5, 0.9, "yes"),  # however small: the interval decides, not the points
        (-0.1, 4.0, 9.0, "undecided"),
        (0.0, 2.0, 4.0, "undecided"),
        (-4.0, 0.0, 4.0, "undecided"),
        (-4.0, -1.0, 2.0, "undecided"),
        (-4.0, -3.0, -2.0, "no"),
        (-4.0, 0.1, -0.1, "no"),  # resamples may lie beside the mean of the whole test
        (np.nan, 3.0, np.nan, "undecided"),
    ],
)
def test_several_seeds_are_judged_by_their_interval(
    study: Study, low: float, mean: float, high: float, holds: str
) -> None:
    assert claims.over_seeds(study, "ema", interval(low, mean, high))["holds"] == holds


def test_a_row_over_seeds_says_over_what(study: Study) -> None:
    row = claims.over_seeds(study, "ema", interval(7.93, 9.1, 10.2), "data and training")
    assert row["measured here"] == "average mAP (0.1:0.7) +9.1 ± 0.5"
    assert row["interval"] == "95 %: +7.9 to +10.2, over 3 seeds and videos"
    assert row["seeds"] == "3 of data and training"
    single = claims.over_seeds(study, "ema", interval(0.2, 0.8, 1.4, seeds=1), "training")
    assert single["measured here"] == "average mAP (0.1:0.7) +0.8"
    assert single["interval"] == "95 %: +0.2 to +1.4, one seed: videos alone"
    # Judged by its points, as any single run.
    assert (single["holds"], single["seeds"]) == ("undecided", "1")
    bare = claims.over_seeds(study, "fsd", t_interval([3.0]))
    assert (bare["holds"], bare["interval"]) == ("yes", "none (one seed)")
    three = claims.over_seeds(study, "fsd", t_interval([1.0, 2.0, 3.0]))
    assert three["interval"] == "95 %: -0.5 to +4.5, over 3 seeds (Student's t)"


def test_a_warning_counts_how_often_all_seeds_gain_by_chance() -> None:
    for seeds in (3, 5):
        signs = list(product((-1, 1), repeat=seeds))
        chance = sum(min(one) > 0 for one in signs) / len(signs)
        said = claims.few_seeds(seeds)
        assert f"gains with all {seeds} seeds once in {1 / chance:.0f} times" in said
    assert claims.few_seeds(1) == claims.NOISE


def test_a_bound_keeps_the_sign_that_decided() -> None:
    row = claims.over_seeds(STUDY, "ema", interval(-0.6, -0.04, -0.03))
    assert row["interval"].startswith("95 %: -0.6 to -0.0, ")
    assert row["holds"] == "no"
    assert "(0.1:0.7) +0.0 ± " in row["measured here"]


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=6))
def test_where_a_gain_holds_its_reverse_does_not(differences: list[float]) -> None:
    values = np.array(differences)
    holds, reverse = (
        claims.over_seeds(STUDY, "lcs", t_interval(sign * values))["holds"] for sign in (1, -1)
    )
    assert (holds, reverse) in {("yes", "no"), ("no", "yes"), ("undecided", "undecided")}


def test_rows_say_whose_labels_and_what_was_chosen_on_test() -> None:
    other = study_with({"generation.method": "hr-pro", "student.select": "best-on-test"})
    plain = "THUMOS'14-like (simulated)"
    own = claims.gain(other, "ema", 2.0)["data"]
    assert own == f"{plain}; students best-on-test; labels from HR-Pro"
    assert claims.gain(other, "contrast", 2.0)["data"] == f"{plain}; students best-on-test"
    assert claims.gain(STUDY, "ema", 2.0)["data"] == plain
    chosen = study_with({"acm_net.select": "best-on-test", "acm_net.evaluate_every": 5})
    assert claims.gain(chosen, "fsd", 2.0)["data"] == f"{plain}; generator best-on-test"
    assert claims.gain(chosen, "contrast", 2.0)["data"] == plain


@pytest.fixture
def results() -> Results:
    """Two seeds of the stage cells: each gains (i + seed) points of mAP and 10 of F1 per cell i."""
    names = ["none", "S", "T", "S+T", "S+T+D", "G", "G+S", "G+T", "G+S+T", "G+S+T+D", "G+C"]
    numbers = {F1: 10, PRECISION: 20}
    rows = [
        {"group": "stages", "cell": name, "seed": seed, AVERAGE: i * (1.0 + seed)}
        | {measure: i / whole for measure, whole in numbers.items()}
        for i, name in enumerate(names)
        for seed in (0, 1)
    ]
    samples = {
        ("stages", name): {
            AVERAGE: np.array([[i] * 4, [2 * i] * 4], dtype=float),
            **{measure: np.full((2, 4), i / whole) for measure, whole in numbers.items()},
        }
        for i, name in enumerate(names)
    }
    samples["stages", "G+S+T+D"][EMA_GAIN] = np.full((2, 4), 0.04)
    for row in rows:
        row[EMA_GAIN] = 0.04 + 0.01 * row["seed"] if row["cell"] == "G+S+T+D" else np.nan
    return Results(pd.DataFrame(rows), samples, False)


def test_the_ablation_gives_the_claims_whose_cells_it_has(study: Study, results: Results) -> None:
    table = pd.DataFrame(claims.ablation_rows(study, results)).set_index("claim")
    assert list(table.index) == [claim.says for claim in CELLS]
    assert (table["seeds"] == "2 of data and training").all()
    # G is the fifth cell after "none": 5 and 10 points with the two seeds, 7.5 ± 3.5.
    contrast, labels = table.loc[SAYS["contrast"]], table.loc[SAYS["contrast-labels"]]
    assert contrast["measured here"] == "average mAP (0.1:0.7) +7.5 ± 3.5"
    assert contrast["interval"] == "95 %: +5.0 to +10.0, over 2 seeds and videos"
    ema = table.loc[SAYS["ema-labels"]]
    assert ema["measured here"] == "F1 at tIoU 0.5, last epoch +4.5 ± 0.7"
    assert ema["interval"] == "95 %: +4.0 to +5.0, over 2 seeds and videos"
    assert labels["measured here"] == "F1 at tIoU 0.5 +50.0 ± 0.0"
    assert labels["interval"] == "95 %: +50.0 to +50.0, over 2 seeds and videos"


def test_without_ema_labels_nothing_is_claimed_about_them(study: Study, results: Results) -> None:
    del results.samples["stages", "G+S+T+D"][EMA_GAIN]
    found = [row["claim"] for row in claims.ablation_rows(study, results)]
    assert found == [claim.says for claim in CELLS if claim.key != "ema-labels"]


def test_the_numbers_are_those_of_the_rows(study: Study, results: Results) -> None:
    gains = claims.ablation_gains(study, results)
    rows = pd.DataFrame(claims.ablation_rows(study, results))
    assert gains["claim"].tolist() == rows["claim"].tolist()
    for gain, row in zip(gains.itertuples(), rows.itertuples(index=False), strict=True):
        assert row[2].startswith(f"{gain.measure} {gain.mean:+.1f} ")
        assert row[3].startswith(f"95 %: {gain.low:+.1f} to {gain.high:+.1f},")
        assert np.mean(gain.differences) == pytest.approx(gain.mean)
    assert gains.set_index("claim").loc[SAYS["contrast"], "differences"] == [5.0, 10.0]


def test_without_the_contrast_nothing_is_claimed_about_it(results: Results) -> None:
    rows = claims.ablation_rows(study_with({"generation.method": "hr-pro"}), results)
    found = {row["claim"] for row in rows}
    keys = (
        "filter-purity",
        "filter",
        "selection-labels",
        "selection",
        "student",
        "ema",
        "ema-labels",
    )
    assert found == {SAYS[key] for key in keys}


@pytest.fixture
def keep(tmp_path: Path) -> Callable[..., None]:
    """Writes a notebook's claims.csv as a notebook does."""

    def write(notebook: str, *rows: dict[str, str]) -> None:
        (tmp_path / notebook).mkdir()
        pd.DataFrame(rows).to_csv(tmp_path / notebook / "claims.csv", index=False)

    return write


def test_an_interval_takes_the_place_of_a_single_run(
    study: Study, keep: Callable[..., None], tmp_path: Path
) -> None:
    keep("01_generation", claims.gain(study, "contrast", 1.1))
    keep("03_training", claims.gain(study, "ema", -5.1), claims.gain(study, "student", 9.8))
    keep("04_ablation", claims.over_seeds(study, "ema", interval(-4, -3, -2)))
    old = claims.gain(study, "fustal", 5.8) | {"claim": "worded otherwise"}
    keep("05_analysis", claims.gain(study, "student", 9.7), old)
    table = claims.collect(tmp_path)
    assert list(table) == ["notebook", *claims.COLUMNS]
    assert table["claim"].tolist() == [SAYS[key] for key in ("contrast", "student", "ema")]
    assert table["notebook"].tolist() == ["01_generation", "03_training", "04_ablation"]
    before = claims.collect(tmp_path, until="03_training")
    assert before["notebook"].tolist() == ["01_generation", "03_training", "03_training"]
    assert claims.collect(tmp_path / "nothing").empty


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\x89PNG\xff", b"claim\na,b\nc,d,e\n", b"claim,where\na\n"]
)
def test_a_table_that_cannot_be_read_counts_as_not_there(
    study: Study,
    keep: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
) -> None:
    keep("01_generation", claims.gain(study, "contrast", 1.1))
    keep("04_ablation")
    (tmp_path / "04_ablation" / "claims.csv").write_bytes(content)
    assert claims.collect(tmp_path)["notebook"].tolist() == ["01_generation"]
    readable = content.startswith(b"claim,")
    assert ("04_ablation/claims.csv: not a readable table" in capsys.readouterr().err) != readable


def test_figures_get_the_whole_table_or_none(
    study: Study, keep: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = tmp_path / "figures"
    monkeypatch.setattr(claims, "figures_dir", lambda study: figures)
    run = study_with({}, tmp_path)
    rows = [claims.row(study, claim.key, "04", holds=True) for claim in CLAIMS]
    keep("00_data", *rows[1:])
    assert claims.write_claims(run) == [tmp_path / "claims.csv", tmp_path / "claims.md"]
    assert not figures.exists()
    keep("01_generation", rows[0])
    assert claims.write_claims(run)[2:] == [figures / "claims.csv", figures / "claims.md"]
    assert (figures / "claims.md").read_text() == (tmp_path / "claims.md").read_text()
    # What looks like a number is text: 04 stays 04.
    assert (figures / "claims.md").read_text().count("| 04 ") == len(CLAIMS)
    assert pd.read_csv(figures / "claims.csv")["claim"].tolist() == list(SAYS.values())


def test_the_table_of_a_readme_is_replaced_and_nothing_else() -> None:
    readme = f"above\n{claims.README_BEGIN}\nold\n{claims.README_END}\nbelow\n"
    filled = claims.fill_readme(readme, "| new |\n")
    assert filled == f"above\n{claims.README_BEGIN}\n\n| new |\n\n{claims.README_END}\nbelow\n"
    assert claims.fill_readme(filled, "| new |\n") == filled
    for broken in ("", claims.README_BEGIN, f"{claims.README_END} {claims.README_BEGIN}"):
        with pytest.raises(SettingsError, match="expected the lines"):
            claims.fill_readme(broken, "| new |")


def test_the_readme_is_refreshed_from_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "project_root", lambda: tmp_path)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "claims.md").write_text("| ± |\n", encoding="utf-8")
    readme = tmp_path / "README.md"
    readme.write_text(f"{claims.README_BEGIN}{claims.README_END}", encoding="utf-8")
    assert claims.refresh_readme() == readme
    assert readme.read_text(encoding="utf-8").splitlines()[1:4] == ["", "| ± |", ""]


def test_the_readme_has_the_table_of_figures() -> None:
    table = project_root() / "figures" / "claims.md"
    if not table.exists():
        pytest.skip("figures/claims.md is written by the default run, which was not made yet")
    own = default_run_dir(make_settings()) / "claims.md"
    if own.exists() and own.read_bytes() == table.read_bytes():
        pytest.skip(
            "figures/claims.md is of the run made here, which may differ in the last digits"
        )
    readme = (project_root() / "README.md").read_text(encoding="utf-8")
    assert claims.fill_readme(readme, table.read_text(encoding="utf-8")) == readme
