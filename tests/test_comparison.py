"""``fustal compare``: its table by hand, and the command in a checkout of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cli_helpers import assert_refused, wait_for, wait_until
from training_helpers import TINY

from fustal_core import comparison, rundir
from fustal_core.cli_compare import read_seeds
from fustal_core.comparison import (
    COLUMNS,
    LABEL_COLUMNS,
    compare_generators,
    generator_rows,
)
from fustal_core.comparison_tables import (
    baseline_gains,
    gain_and_interval,
    marked,
    methods_over_seeds,
    step_gains,
    summarise,
    write_comparison,
)
from fustal_core.config import SettingsError, make_settings
from fustal_core.ftcl_terms import paired_difference
from fustal_core.locks import RunDirectoryBusyError, run_lock
from fustal_core.metrics import detection_map
from fustal_core.naming import FUSTAL, GENERATORS, STEPS, STUDENT
from fustal_core.quality import pseudo_label_quality
from fustal_core.reporting import AVERAGE_COLUMNS, MAP_COLUMNS, main_results
from fustal_core.rounding import mean_and_spread
from fustal_core.rundir import PACKAGE, default_run_dir
from fustal_core.selection import score_proposals, select
from fustal_core.stages import Study, open_study

AVERAGE = "avg 0.1:0.7"
ASSIGNMENTS = [part for name, value in TINY.items() for part in ("--set", f"{name}={value}")]
SMOKE = ["--profile", "smoke", *ASSIGNMENTS]
TWO = ["--seeds", "0:2", "--generators", "cola,ftcl"]


# --- the table, by hand ---------------------------------------------------------------------------


def test_mean_and_spread_by_hand() -> None:
    assert mean_and_spread(pd.Series([40.0, 42.0, 44.0])) == "42.0 ± 2.0"
    assert mean_and_spread(pd.Series([1.0, 2.0])) == "1.5 ± 0.7"  # divided by n - 1
    assert mean_and_spread(pd.Series([3.0, 3.0])) == "3.0 ± 0.0"
    assert mean_and_spread(pd.Series([41.44])) == "41.4"
    assert mean_and_spread(pd.Series([-1.0, 1.0])) == "0.0 ± 1.4"


def seeds_of(values: dict[tuple[str, str], list[float]], measure: str = AVERAGE) -> pd.DataFrame:
    """Rows of generators and steps, a value a seed, by the last weights."""
    return pd.DataFrame(
        [
            {
                "generator": generator,
                "step": step,
                "seed": seed,
                measure: value,
                "weights": "last",
            }
            for (generator, step), own in values.items()
            for seed, value in enumerate(own)
        ]
    )


def test_the_summary_by_hand() -> None:
    """Generators as they come first, steps in the order of the pipeline; what is unknown is left out."""
    rows = seeds_of(
        {
            ("FTCL", "student"): [30.0, 34.0],
            ("FTCL", "raw proposals"): [10.0, 20.0],
            ("CoLA", "raw proposals"): [1.0, 3.0],
            ("CoLA", "selected proposals"): [np.nan, np.nan],
            ("CoLA", "student"): [5.0, np.nan],
        }
    )
    table = summarise(rows)
    assert list(table.index) == ["FTCL", "CoLA"]
    assert list(table.columns) == ["raw proposals", "student"]
    assert table.to_numpy().tolist() == [["15.0 ± 7.1", "32.0 ± 2.8"], ["2.0 ± 1.4", "5.0"]]


def test_the_summary_of_fractions_in_percent() -> None:
    rows = seeds_of({("CoLA", "raw proposals"): [0.25, 0.75]}, "f1@0.5")
    rows.loc[len(rows)] = {"generator": "FTCL", "step": "student", "seed": 0}
    table = summarise(rows, "f1@0.5", 100)
    assert table.loc["CoLA"].tolist() == ["50.0 ± 35.4"]
    assert table.loc["FTCL"].isna().all()


def test_gains_of_steps_by_hand() -> None:
    """Of the same seed; with two seeds t is 12.7, and 12.7 / sqrt(2) of a standard deviation is 9.0."""
    numbers = {
        ("FTCL", "raw proposals"): [40.0, 44.0],
        ("FTCL", "selected proposals"): [0.0, 0.0],
        ("FTCL", "student"): [50.0, 56.0],
        ("FTCL", "student + EMA"): [49.0, 55.0],
        ("CoLA", "raw proposals"): [30.0, 30.0],
        ("CoLA", "selected proposals"): [0.0, 0.0],
        ("CoLA", "student"): [50.0, 54.0],
        ("CoLA", "student + EMA"): [50.0, 54.0],
    }
    table = step_gains(seeds_of(numbers))
    assert list(table.columns) == [
        "student over raw proposals",
        "student + EMA over student",
        "student over that of FTCL",
    ]
    assert table.loc["FTCL"].tolist() == [
        "+11.0 ± 1.4 (-1.7 to +23.7)",
        "-1.0 ± 0.0 (-1.0 to -1.0)",
        "",
    ]
    assert table.loc["CoLA"].tolist()[0] == "+22.0 ± 2.8 (-3.4 to +47.4)"
    assert table.loc["CoLA"].tolist()[2] == "-1.0 ± 1.4 (-13.7 to +11.7)"
    assert gain_and_interval(pd.Series([-0.01])) == "+0.0"


def test_the_methods_over_seeds_by_hand() -> None:
    """Generators, then FuSTAL's own students."""
    numbers = {
        ("FuSTAL generator", "raw proposals"): [40.0, 44.0],
        ("FuSTAL generator", "selected proposals"): [1.0, 1.0],
        ("FuSTAL generator", "student"): [50.0, 50.0],
        ("FuSTAL generator", "student + EMA"): [48.0, 50.0],
        ("HR-Pro", "raw proposals"): [60.0, 61.0],
        ("HR-Pro", "student"): [55.0, 56.0],
    }
    rows = seeds_of(numbers).assign(supervision="video")
    rows[MAP_COLUMNS] = 0.0
    table = methods_over_seeds(rows)
    assert list(table) == ["method", "supervision", *MAP_COLUMNS, AVERAGE]
    assert table[["method", AVERAGE]].to_numpy().tolist() == [
        ["FuSTAL generator", "42.0 ± 2.8"],
        ["HR-Pro", "60.5 ± 0.7"],
        [STUDENT, "50.0 ± 0.0"],
        [FUSTAL, "49.0 ± 1.4"],
    ]


def chosen_rows() -> pd.DataFrame:
    """The students of one generator, and another generator with its students, are chosen on test."""
    students, both = "students best-on-test", "generator and students best-on-test"
    names = ("FuSTAL generator", "HR-Pro")
    rows = seeds_of({(name, step): [1.0] for name in names for step in STEPS})
    weights = ["last"] * 2 + [students] * 2 + ["generator best-on-test"] * 2 + [both] * 2
    return rows.assign(supervision="video", weights=weights, **dict.fromkeys(MAP_COLUMNS, 0.0))


def test_a_method_says_what_test_labels_chose_of_it() -> None:
    """Proposals owe nothing to how students were chosen."""
    assert methods_over_seeds(chosen_rows())["method"].tolist() == [
        "FuSTAL generator",
        "HR-Pro (generator best-on-test)",
        f"{STUDENT} (students best-on-test)",
        f"{FUSTAL} (students best-on-test)",
    ]


def test_a_line_over_all_steps_says_what_test_labels_chose_in_any(tmp_path: Path) -> None:
    names = [
        "FuSTAL generator (students best-on-test)",
        "HR-Pro (generator and students best-on-test)",
    ]
    rows = chosen_rows()
    assert marked(rows)["generator"].unique().tolist() == names
    assert summarise(marked(rows)).index.tolist() == names
    plain = rows.assign(weights="last")
    pd.testing.assert_frame_equal(marked(plain), plain)
    labels = rows["step"].isin(STEPS[:2])
    rows["f1@0.5"] = labels.map({True: 0.5, False: np.nan})
    write_comparison(rows.assign(data="", source=""), tmp_path)
    text = (tmp_path / "generators.md").read_text()
    # In mAP by step, in gains of steps, and where another one's student is set beside them.
    assert [text.count(name) for name in names] == [3, 2]
    assert pd.read_csv(tmp_path / "generators.csv")["weights"].tolist() == rows["weights"].tolist()


def test_gains_over_baselines_by_hand() -> None:
    """Of raw proposals; a generator whose baseline is not there has no row."""
    numbers = {
        ("HR-Pro", "raw proposals"): [60.0, 64.0],
        ("HR-Pro", "student"): [0.0, 0.0],
        ("HR-Pro (snippets)", "raw proposals"): [50.0, 53.0],
        ("FTCL", "raw proposals"): [1.0, 1.0],
        ("FuSTAL generator", "raw proposals"): [9.0, 9.0],
        ("CoLA", "raw proposals"): [7.0, 7.0],
    }
    rows = seeds_of(numbers)
    chosen = {"HR-Pro (snippets)": "generator best-on-test"}
    rows["weights"] = rows["generator"].map(chosen).fillna("last")
    rows["weights"] = rows["weights"].mask(rows["step"] == "student", "students best-on-test")
    table = baseline_gains(rows)
    of_hr_pro = [
        "HR-Pro",
        "HR-Pro (snippets) (generator best-on-test)",
        "+10.5 ± 0.7 (+4.1 to +16.9)",
    ]
    of_fustal = ["FuSTAL generator", "CoLA", "+2.0 ± 0.0 (+2.0 to +2.0)"]
    assert table.to_numpy().tolist() == [of_fustal, of_hr_pro]
    both = seeds_of({("FTCL", "raw proposals"): [3.0], ("ACM-Net", "raw proposals"): [1.0]})
    assert baseline_gains(both).to_numpy().tolist() == [["FTCL", "ACM-Net", "+2.0"]]
    assert baseline_gains(seeds_of({("CoLA", "raw proposals"): [1.0]})).empty


def test_paired_differences_by_hand() -> None:
    """Of the same seed; a seed that one of the two lacks has none."""
    rows = pd.DataFrame(
        [("a", 3, 10.0), ("a", 0, 20.0), ("b", 0, 15.0), ("b", 3, 11.5), ("b", 7, 1.0)],
        columns=["variant", "seed", AVERAGE],
    )
    gain = paired_difference(rows, "a", "b")
    assert gain.index.tolist() == [0, 3, 7]
    np.testing.assert_allclose(gain, [5.0, -1.5, np.nan])
    np.testing.assert_allclose(paired_difference(rows, "b", "a"), -gain)
    other = rows.assign(**{AVERAGE: 0.0, "mAP@0.5": rows[AVERAGE]})
    np.testing.assert_allclose(paired_difference(other, "a", "b", "mAP@0.5"), gain)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0:3", [0, 1, 2]), ("4:5", [4]), ("3,0", [3, 0]), ("7", [7]), (" 1, 2", [1, 2])],
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert read_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "3:0", "1:1", "0,0", "-1", "-1:2", "1:2:3", "a", "1.5", ":2"])
def test_bad_seeds(text: str) -> None:
    with pytest.raises(SettingsError, match="--seeds"):
        read_seeds(text)


def table_of(**changes: Any) -> pd.DataFrame:
    """A comparison of two seeds as the command writes it."""
    rows = [
        {
            "generator": generator,
            "step": step,
            "seed": seed,
            "data": "made up (simulated)",
            "source": f"profile smoke, seed {seed}, student.epochs: 4 -> 2",
            AVERAGE: 10.0 * place + seed,
            "f1@0.5": 0.25 if step in STEPS[:2] else np.nan,
            "weights": "last",
        }
        for generator in ("CoLA", "FTCL")
        for place, step in enumerate(STEPS)
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows, columns=COLUMNS).assign(**changes)


def test_the_files_have_every_seed_and_the_means(tmp_path: Path) -> None:
    rows = table_of()
    written = write_comparison(rows, tmp_path / "new" / "folder")
    assert all(path.stat().st_size for path in written)
    assert {path.name for path in written} == {
        f"generators.{suffix}" for suffix in ("csv", "md", "png", "pdf")
    }
    found = pd.read_csv(tmp_path / "new/folder/generators.csv")
    pd.testing.assert_frame_equal(found, rows, check_dtype=False)
    text = (tmp_path / "new/folder/generators.md").read_text()
    assert "made up (simulated)" in text
    assert "student.epochs: 4 -> 2" in text  # not the profile as it is
    assert "seeds 0, 1" in text
    assert "10.5 ± 0.7" in text
    assert "25.0 ± 0.0" in text
    assert "nan" not in text.lower()


@pytest.mark.parametrize("name", ["generators.csv", "generators.md", "generators.png"])
def test_a_table_is_whole_or_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_comparison(table_of(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    replace = os.replace

    def replace_or_fail(source: Path, target: Path) -> None:
        if Path(target).name == name:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_or_fail)
    with pytest.raises(OSError, match="No space left") as error:
        write_comparison(table_of(generator="FTCL"), tmp_path)
    assert Path(error.value.filename).name == name
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() == before.keys()
    assert after[name] == before[name]


# --- rows of a study ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return open_study(profile="smoke", run_dir=tmp_path_factory.mktemp("study"), overrides=TINY)


@pytest.mark.parametrize("method", ["cross-video", "cola", "hr-pro"])
def test_the_rows_of_a_generator_are_measured_plainly(study: Study, method: str) -> None:
    """With mAP and label quality worked out here, from what the stages made."""
    rows = pd.DataFrame(generator_rows(study, method), columns=COLUMNS)
    name = {"cola": "CoLA", "cross-video": "FuSTAL generator", "hr-pro": "HR-Pro"}[method]
    assert (rows["generator"] == name).all()
    assert rows["step"].tolist() == list(STEPS)
    assert (rows["seed"] == 0).all()
    assert (rows["data"] == study.data_name).all()
    assert (rows["supervision"] == ("point" if method == "hr-pro" else "video")).all()
    assert rows["source"].str.startswith("profile smoke, seed 0, ").all()
    assert rows["source"].str.contains("student.epochs: 4 -> 2").all()

    own = study.variant(f"generator-{method}", overrides={"generation.method": method})
    proposals, settings = study.generation(method), study.settings.selection
    found = [
        proposals.detections,
        select(score_proposals(proposals.test, settings), settings),
        own.student(distill=False).detections,
        own.student(distill=True).detections,
    ]
    tiou = np.arange(1, 8) / 10
    for row, detections in zip(rows.to_dict("records"), found, strict=True):
        ap = detection_map(detections, study.dataset.truth("test"), tiou)
        expected = 100 * ap.to_numpy().mean(0)
        np.testing.assert_allclose([row[column] for column in MAP_COLUMNS], expected)
        averages = [expected[:5].mean(), expected[2:].mean(), expected.mean()]
        np.testing.assert_allclose([row[column] for column in AVERAGE_COLUMNS], averages)

    scored = score_proposals(proposals.train, settings)
    labels = [scored, select(scored, settings, study.video_classes)]
    durations = study.dataset.videos["duration_s"]
    for row, own_labels in zip(rows.to_dict("records"), labels, strict=False):
        quality = pseudo_label_quality(own_labels, study.dataset.truth("train"), durations).iloc[0]
        assert row["proposals"] == len(own_labels)
        for column in LABEL_COLUMNS:
            np.testing.assert_equal(row[column], quality[column])
    assert rows.loc[2:, LABEL_COLUMNS].isna().all(axis=None)


def test_without_students_none_is_trained(study: Study, tmp_path: Path) -> None:
    fresh = Study(study.settings, tmp_path)
    fresh.data = study.dataset
    rows = list(generator_rows(fresh, "acm-net", students=False))
    assert [row["step"] for row in rows] == list(STEPS[:2])
    assert not list(tmp_path.rglob("03_training"))
    assert (tmp_path / "01_generation/acm-net/made.json").exists()


@pytest.mark.parametrize(
    ("changes", "of_cola", "of_ftcl"),
    [
        (
            {"student.select": "best-on-test", "student.evaluate_every": 1},
            ("last", "students best-on-test"),
            ("last", "students best-on-test"),
        ),
        (
            {"acm_net.select": "best-on-test", "acm_net.evaluate_every": 2},
            ("last", "last"),
            ("generator best-on-test", "generator best-on-test"),
        ),
        (
            {
                "generation.select": "best-on-test",
                "generation.evaluate_every": 2,
                "student.select": "best-on-test",
                "student.evaluate_every": 1,
            },
            ("generator best-on-test", "generator and students best-on-test"),
            ("last", "students best-on-test"),
        ),
    ],
)
def test_what_was_chosen_by_test_labels_is_said_in_every_row(
    study: Study,
    tmp_path: Path,
    changes: dict[str, Any],
    of_cola: tuple[str, str],
    of_ftcl: tuple[str, str],
) -> None:
    settings = make_settings(profile="smoke", overrides=TINY | changes)
    chosen = Study(settings, tmp_path)
    chosen.data = study.dataset
    for method, (of_proposals, of_students) in (("cola", of_cola), ("ftcl", of_ftcl)):
        rows = list(generator_rows(chosen, method))
        assert [row["generator"] for row in rows] == [GENERATORS[method]] * 4
        assert [row["weights"] for row in rows] == [of_proposals] * 2 + [of_students] * 2


# --- the command, in a checkout of its own --------------------------------------------------------


def make_checkout(folder: Path) -> Path:
    """A checkout of the same code, so that the runs do not lie among anybody's own."""
    (folder / "notebooks").mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    (folder / "fustal_core").symlink_to(PACKAGE)
    return folder


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """For calls in this process as well."""
    folder = make_checkout(tmp_path / "checkout")
    monkeypatch.setattr(rundir, "project_root", lambda: folder)
    return folder


def start(checkout: Path, *arguments: str | Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "fustal_core", "compare", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=checkout, text=True, **pipes)


def compare(checkout: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    process = start(checkout, *arguments)
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def products(checkout: Path) -> dict[str, tuple[int, bytes]]:
    """Every file that a training leaves, with its inode: one that is written again has another."""
    return {
        str(path.relative_to(checkout)): (path.stat().st_ino, path.read_bytes())
        for path in (checkout / "runs").rglob("*")
        if path.is_file() and {"01_generation", "03_training"} & set(path.parts)
    }


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    """Two seeds of two generators, and what the command said."""
    checkout = make_checkout(tmp_path_factory.mktemp("compared") / "checkout")
    result = compare(checkout, *SMOKE, *TWO)
    assert result.returncode == 0, result.stderr
    return checkout, result


def table_path(checkout: Path) -> Path:
    (path,) = checkout.glob("runs/*-generators-*/generators.csv")
    return path


def test_the_command_compares_generators_over_seeds(
    compared: tuple[Path, subprocess.CompletedProcess],
) -> None:
    checkout, result = compared
    path = table_path(checkout)
    said = [Path(line).name for line in result.stdout.splitlines()]
    assert said == [f"generators.{suffix}" for suffix in ("csv", "md", "png", "pdf")]
    rows = pd.read_csv(path)
    assert list(rows.columns) == COLUMNS
    expected = [(g, s, seed) for seed in (0, 1) for g in ("CoLA", "FTCL") for s in STEPS]
    assert rows[["generator", "step", "seed"]].to_records(index=False).tolist() == expected
    assert rows[AVERAGE].between(0, 100).all()
    assert rows.groupby("step")["f1@0.5"].count().to_dict() == {
        step: 4 * (step in STEPS[:2]) for step in STEPS
    }
    for name in ("CoLA", "FTCL"):
        values = rows[(rows["generator"] == name) & (rows["step"] == "student")][AVERAGE]
        assert mean_and_spread(values) in path.with_suffix(".md").read_text()
    assert "seed 1: FTCL, avg 0.1:0.7: raw proposals" in result.stderr
    folders = {folder.name.split("-")[2] for folder in (checkout / "runs").iterdir()}
    assert folders == {"generators", "seed0", "seed1"}


def test_a_second_call_trains_nothing(
    compared: tuple[Path, subprocess.CompletedProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkout, first = compared
    monkeypatch.setattr(rundir, "project_root", lambda: checkout)
    before, said = products(checkout), []
    rows = compare_generators(
        [0, 1], ["cola", "ftcl"], profile="smoke", overrides=TINY, say=said.append
    )
    assert products(checkout) == before
    assert said == [line for line in first.stderr.splitlines() if line.startswith("seed ")]
    write_comparison(rows, tmp_path)
    for name in ("generators.csv", "generators.md"):
        assert (tmp_path / name).read_bytes() == table_path(checkout).with_name(name).read_bytes()


def test_the_numbers_are_those_of_a_run(
    compared: tuple[Path, subprocess.CompletedProcess], tmp_path: Path, checkout: Path
) -> None:
    """Of the same seed, in a run directory of its own and in the comparison's."""
    rows = pd.read_csv(table_path(compared[0])).set_index(["generator", "step", "seed"])
    run = open_study(profile="smoke", seed=1, run_dir=tmp_path / "run", overrides=TINY)
    expected = main_results(run).set_index("method")
    columns = [*MAP_COLUMNS, *AVERAGE_COLUMNS]
    for name in ("CoLA", "FTCL"):
        row = rows.loc[(name, "raw proposals", 1), columns]
        np.testing.assert_allclose(row.astype(float), expected.loc[name, columns].astype(float))
    # A run of FTCL's own has its students; the generators are the same.
    ftcl = open_study(
        profile="smoke",
        seed=1,
        run_dir=tmp_path / "ftcl",
        overrides=TINY | {"generation.method": "ftcl"},
    )
    for distill, step in ((False, "student"), (True, "student + EMA")):
        found = ftcl.measure(ftcl.student(distill=distill).detections)
        row = rows.loc[("FTCL", step, 1), columns].astype(float)
        np.testing.assert_allclose(row, [found[column] for column in columns])
    # And the comparison goes on from what a run has made.
    overrides = dict(TINY)
    folder = default_run_dir(make_settings("simulated", "smoke", 1, overrides))
    folder.parent.mkdir()
    run.run_dir.rename(folder)
    before = products(checkout)
    own = compare_generators([1], ["cross-video"], profile="smoke", overrides=overrides)
    assert products(checkout) == before
    own = own.set_index("step")
    for step, name in (("student", STUDENT), ("student + EMA", FUSTAL)):
        np.testing.assert_array_equal(own.loc[step, columns], expected.loc[name, columns])


def test_killed_it_goes_on_to_the_same_table(
    compared: tuple[Path, subprocess.CompletedProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed when the first student is there, then ended politely, then left to its end."""
    checkout = make_checkout(tmp_path / "checkout")
    arguments = [*SMOKE, "--seeds", "0", "--generators", "cola,ftcl"]
    run_dir = checkout / "runs" / next((compared[0] / "runs").glob("*-seed0-*")).name
    first = run_dir / "variants/generator-cola/03_training/selected"
    process = start(checkout, *arguments)
    wait_for(first / "made.json")
    # Killed in the moment before, it would leave its number in the lock of what nobody makes again.
    wait_until(lambda: not (first / ".making.lock").read_text())
    process.kill()
    process.communicate()
    weights = str((first / "weights.safetensors").relative_to(checkout))
    made = products(checkout)[weights]
    assert not list(checkout.glob("runs/*-generators-*"))

    process = start(checkout, *arguments)
    wait_for(run_dir / "01_generation/acm-net/made.json")
    process.terminate()  # as a scheduler does
    _, said = process.communicate()
    assert process.returncode == 1
    assert said.endswith("fustal: interrupted; the same command goes on from here\n")
    assert "Traceback" not in said
    locks = [run_dir / ".lock", *run_dir.rglob(".making.lock")]
    assert len(locks) > 1
    assert {path.read_text() for path in locks} == {""}

    monkeypatch.setattr(rundir, "project_root", lambda: checkout)
    found = compare_generators([0], ["cola", "ftcl"], profile="smoke", overrides=TINY)
    assert products(checkout)[weights] == made  # what was there is not made twice
    expected = pd.read_csv(table_path(compared[0])).query("seed == 0").reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected, check_exact=True, check_dtype=False)


def test_a_comparison_of_one_generator(checkout: Path) -> None:
    """One seed: numbers alone, no spread."""
    said: list[str] = []
    rows = compare_generators([3], ["cola"], profile="smoke", overrides=TINY, say=said.append)
    assert rows["step"].tolist() == list(STEPS)
    assert set(rows["generator"]) == {"CoLA"}
    assert len(said) == 1
    assert said[0].startswith("seed 3: CoLA, avg 0.1:0.7: raw proposals ")
    write_comparison(rows, checkout / "table")
    table = (checkout / "table/generators.md").read_text().splitlines()
    own = [line for line in table if line.startswith("| CoLA")]
    assert len(own) == 4  # by threshold, by step, labels, gains
    assert "±" not in "".join(own)
    made = {path.parent.name for path in checkout.glob("runs/*/01_generation/*/made.json")}
    assert made == {"cola"}


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "fragments"),
    [
        (["--seeds", "3:0"], 2, ["--seeds", "'3:0'"]),
        (["--generators", "cola,coal"], 2, ["'coal'", "cross-video, cola, acm-net, ftcl"]),
        (["--set", "ftcl.epoch=3"], 2, ["ftcl.epochs"]),
        (["--data", "nowhere"], 1, ["nowhere", "no such data folder"]),
        (["--output", "pyproject.toml"], 2, ["pyproject.toml"]),
    ],
)
def test_a_wrong_command_is_refused_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], status: int, fragments: list[str]
) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    assert_refused(compare(checkout, "--profile", "smoke", *arguments), status, *fragments)
    assert not (checkout / "runs").exists()


def test_a_run_directory_of_other_settings_is_found_before_the_first_training(
    checkout: Path,
) -> None:
    """Of the last seed; --force takes it over."""
    folder = default_run_dir(make_settings("simulated", "smoke", 1, TINY))
    folder.mkdir(parents=True)
    other = make_settings("simulated", "smoke", 1, TINY | {"student.epochs": 3})
    (folder / "config.json").write_text(other.model_dump_json())
    arguments: dict[str, Any] = {"profile": "smoke", "overrides": TINY, "say": list}
    with pytest.raises(SettingsError, match=r"student.epochs: 3 -> 2(.|\n)*--force"):
        compare_generators([0, 1], ["cola"], **arguments)
    assert products(checkout) == {}
    rows = compare_generators([1], ["cola"], **arguments, force=True)
    assert len(rows) == len(STEPS)


def test_a_busy_run_directory_is_found_before_the_first_training(checkout: Path) -> None:
    folder = default_run_dir(make_settings("simulated", "smoke", 1, TINY))
    with run_lock(folder), pytest.raises(RunDirectoryBusyError, match=f"process {os.getpid()}"):
        compare_generators([0, 1], ["cola"], profile="smoke", overrides=TINY)
    assert products(checkout) == {}


def test_a_comparison_finds_the_runs_own_directory_though_its_list_is_named_from_here(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("sim_test_0000 1 2\n", encoding="utf-8")
    whole = TINY | {"evaluation.ambiguous": str(tmp_path / "list.txt")}
    folder = default_run_dir(make_settings("simulated", "smoke", 1, whole))
    with run_lock(folder), pytest.raises(RunDirectoryBusyError, match=f"process {os.getpid()}"):
        compare_generators(
            [0, 1], ["cola"], profile="smoke", overrides=TINY | {"evaluation.ambiguous": "list.txt"}
        )
    assert products(checkout) == {}


def test_it_holds_the_run_directory_while_it_works_there(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of the same seed is refused meanwhile, one of another seed is not."""
    folders = [default_run_dir(make_settings("simulated", "smoke", s, TINY)) for s in (0, 1)]

    def rows(study: Study, method: str) -> list[dict]:
        mine, other = folders if study.settings.seed == 0 else reversed(folders)
        with pytest.raises(RunDirectoryBusyError), run_lock(mine):
            raise AssertionError
        with run_lock(other):
            pass
        seen.append(study.settings.seed)
        return []

    seen: list[int] = []
    monkeypatch.setattr(comparison, "generator_rows", rows)
    found = compare_generators([0, 1], ["cola"], profile="smoke", overrides=TINY, say=list)
    assert seen == [0, 1]
    assert found.empty
    for folder in folders:
        with run_lock(folder):
            pass
