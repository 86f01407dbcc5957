"""`fustal evaluate` and `fustal audit` by their real entry point, on numbers worked by hand."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path

import pandas as pd
import pytest
from cli_helpers import assert_refused, fustal

from fustal_core.cli_results import choose_averages, parse_tiou, refuse_figure
from fustal_core.config import SettingsError
from fustal_core.quality import pseudo_label_quality

Entry = tuple[str, float, float, float]  # label, start, end, score

TRUTH = {
    "v1": ("test", [("run", 0, 10), ("run", 20, 30), ("jump", 40, 50)]),
    "v2": ("test", [("run", 0, 4)]),
    "t1": ("validation", [("run", 0, 10), ("swim", 20, 30)]),
}
# run: true, false, true of three segments, 1/3 * 1 + 1/3 * 2/3 = 5/9; jump: tIoU 0.6.
FOUND = {
    "v1": [("run", 0, 10, 0.9), ("run", 50, 60, 0.8), ("run", 20, 30, 0.7), ("jump", 40, 46, 0.6)]
}
RUN = Fraction(5, 9)


def write_results(path: Path, found: dict[str, list[Entry]]) -> Path:
    results = {
        video: [{"label": label, "score": score, "segment": [s, e]} for label, s, e, score in rows]
        for video, rows in found.items()
    }
    path.write_text(
        json.dumps({"version": "x", "results": results, "external_data": {}}), encoding="utf-8"
    )
    return path


def write_truth(path: Path, **extra: tuple[str, list]) -> Path:
    database = {
        video: {
            "subset": subset,
            "duration": 100.0,
            "annotations": [{"label": label, "segment": [s, e]} for label, s, e in rows],
        }
        for video, (subset, rows) in {**TRUTH, **extra}.items()
    }
    path.write_text(json.dumps({"database": database}), encoding="utf-8")
    return path


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return write_truth(tmp_path / "gt.json")


@pytest.fixture
def found(tmp_path: Path) -> Path:
    return write_results(tmp_path / "found.json", FOUND)


def measure(*arguments: str | Path, command: str = "evaluate") -> dict:
    """What the command says for machines of the test subset."""
    answer = fustal(command, *arguments, "--subset", "test", "--json")
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout) | {"stderr": answer.stderr}


def test_map_by_hand(found: Path, truth: Path) -> None:
    content = measure(found, truth)
    both, run_only = (RUN + 1) / 2, RUN / 2
    steps = [both] * 6 + [run_only]
    assert list(content["mAP"]) == [f"0.{i}" for i in range(1, 8)]
    assert list(content["mAP"].values()) == pytest.approx([float(step) for step in steps])
    assert content["average"] == pytest.approx(
        {
            "0.1:0.5": float(both),
            "0.3:0.7": float((4 * both + run_only) / 5),
            "0.1:0.7": float((6 * both + run_only) / 7),
        }
    )
    assert content["per_class"]["run"]["0.7"] == pytest.approx(float(RUN))
    assert content["per_class"]["jump"] == {**dict.fromkeys(list(content["mAP"])[:6], 1), "0.7": 0}
    assert content["options"] == {"subset": "test"}
    assert content["stderr"] == ""


def test_the_table_is_in_percent_and_says_what_was_measured(found: Path, truth: Path) -> None:
    arguments = ["--subset", "test", "--tiou", "0.6,0.7", "--exclude", "v2", "--plus-one"]
    answer = fustal("evaluate", found, truth, *arguments)
    assert answer.returncode == 0, answer.stderr
    lines = {line.split("  ")[0]: line.split()[-2:] for line in answer.stdout.splitlines()}
    assert lines["run"] == ["83.3", "83.3"]  # 1/2 * 1 + 1/2 * 2/3
    assert lines["jump"] == ["100.0", "0.0"]
    assert lines["mAP"] == ["91.7", "41.7"]
    assert lines["avg 0.6:0.7"][-1] == "66.7"
    ending = answer.stdout.split("\n\n")[-1].splitlines()
    assert ending == [
        "4 detections against 3 segments of 2 classes in 1 video",
        "subset: test",
        "tiou: 0.6,0.7",
        "exclude: v2",
        "plus-one: yes",
    ]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, 0),
        ({"v1": [], "v2": []}, 0),
        ({v: [(*row, 0.5) for row in TRUTH[v][1]] for v in ("v1", "v2")}, 1),  # perfect
        # The second detection of a segment is false: as if it lay anywhere else.
        (FOUND | {"v1": [FOUND["v1"][0], ("run", 0, 9, 0.8), *FOUND["v1"][2:]]}, (RUN + 1) / 2),
        # Equal scores: the later row is served first, true, then false, true.
        (
            {"v1": [(*row[:3], 0.5) for row in (FOUND["v1"][i] for i in (0, 1, 2, 3))]},
            (RUN + 1) / 2,
        ),
        # ... and false, true, true: both at precision 2/3.
        (
            {"v1": [(*row[:3], 0.5) for row in (FOUND["v1"][i] for i in (0, 2, 1, 3))]},
            (Fraction(4, 9) + 1) / 2,
        ),
    ],
)
def test_map_of_small_files(
    tmp_path: Path, truth: Path, found: dict[str, list[Entry]], expected: Fraction
) -> None:
    content = measure(write_results(tmp_path / "found.json", found), truth)
    assert content["mAP"]["0.5"] == pytest.approx(float(expected))


def test_excluded_videos_are_out_of_truth_and_detections(found: Path, truth: Path) -> None:
    content = measure(found, truth, "--exclude", "v2,t1")
    assert content["mAP"]["0.5"] == pytest.approx(float(Fraction(5, 6) + 1) / 2)
    assert content["options"] == {"subset": "test", "exclude": ["v2", "t1"]}
    content = measure(found, truth, "--exclude", "v1", "--exclude", "t1")
    assert content["mAP"]["0.5"] == 0
    assert list(content["per_class"]) == ["run"]
    assert "4 detections of 1 video left out: excluded" in content["stderr"]


def test_detections_on_ambiguous_intervals_are_dropped(
    found: Path, truth: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "ambiguous.txt"
    listed.write_text("v1  59.5 70\n\nv2 0 100\nv1 30 40\nelsewhere 0 100\n")
    content = measure(found, truth, "--ambiguous", listed)
    # The false one goes; the two that touch [30, 40] in a point only stay.
    assert content["mAP"]["0.5"] == pytest.approx(float(Fraction(2, 3) + 1) / 2)
    assert content["options"]["ambiguous"] == "ambiguous.txt"
    assert "1 detection of 1 video left out: on an ambiguous interval" in content["stderr"]
    listed.write_text("v1 9.5 11\n")  # on a true one, which goes all the same
    content = measure(found, truth, "--ambiguous", listed)
    assert content["mAP"]["0.5"] == pytest.approx(float(Fraction(1, 6) + 1) / 2)
    listed.write_text("v1 0 100\n")
    content = measure(found, truth, "--ambiguous", listed, "--exclude", "v1")
    assert content["stderr"] == "note: 4 detections of 1 video left out: excluded\n"  # said once
    listed.write_text("v_1 0 100\n")
    content = measure(found, truth, "--ambiguous", listed)
    assert "--ambiguous: none of its videos is among those measured ('v_1')" in content["stderr"]


def test_excluded_videos_that_no_file_has(found: Path, truth: Path) -> None:
    """The usual list for THUMOS'14 names a video that its public annotations do not have."""
    content = measure(found, truth, "--exclude", "v1,elsewhere")
    assert "note: --exclude: 'elsewhere' found in neither file" in content["stderr"]
    assert content["mAP"]["0.5"] == measure(found, truth, "--exclude", "v1")["mAP"]["0.5"]
    result = fustal("evaluate", found, truth, "--exclude", "V1")
    assert_refused(result, 1, "--exclude", "'V1'", "neither file")


def test_plus_one_makes_lengths_longer_by_a_second(found: Path, truth: Path) -> None:
    plain = measure(found, truth, "--tiou", "0.62")
    assert plain["mAP"]["0.62"] == pytest.approx(float(RUN / 2))
    longer = measure(found, truth, "--tiou", "0.62", "--plus-one")  # jump: 7/11 > 0.62
    assert longer["mAP"]["0.62"] == pytest.approx(float((RUN + 1) / 2))
    assert longer["options"] == {"subset": "test", "tiou": "0.62", "plus_one": True}


def test_further_averages_and_all_classes(found: Path, truth: Path) -> None:
    asked = ["--average", "0.5:0.7", "--average", "0.1:0.2"]
    content = measure(found, truth, *asked)
    assert list(content["average"])[-2:] == ["0.5:0.7", "0.1:0.2"]
    assert content["average"]["0.5:0.7"] == pytest.approx(11 / 18)  # (7/9 + 7/9 + 5/18) / 3
    assert content["average"]["0.1:0.2"] == pytest.approx(7 / 9)
    content = measure(found, truth, "--all-classes")
    assert content["mAP"]["0.5"] == pytest.approx(float(RUN + 1) / 3)
    assert content["per_class"]["swim"]["0.5"] == 0


def test_videos_and_classes_outside_the_subset(truth: Path, tmp_path: Path) -> None:
    more = {
        "t1": [("run", 0, 10, 1.0), ("swim", 20, 30, 1.0)],  # of the other subset
        "v2": [("swim", 0, 4, 1.0)],  # no segment of its class is measured: left out
        "x": [("run", 0, 10, 0.95)],  # of an unknown video: false
    }
    path = write_results(tmp_path / "found.json", FOUND | more)
    content = measure(path, truth)
    # run: false, false, true, false, true of three segments, at precision 1/3 (2/5) and 2/5.
    assert content["mAP"]["0.5"] == pytest.approx(float(Fraction(4, 15) + 1) / 2)
    assert "3 detections of 2 videos counted as false: not among those" in content["stderr"]
    content = measure(path, truth, "--own-subset")
    # run: false, true, false, true of three segments, each at precision 1/2.
    assert content["mAP"]["0.5"] == pytest.approx(float(Fraction(1, 3) + 1) / 2)
    assert content["stderr"].splitlines() == [
        "note: 2 detections of 1 video left out: of another subset",
        "note: 1 detection of 1 video counted as false: not among those measured ('x')",
        "note: 1 detection of 1 video left out: "
        "their class has no segment in what is measured ('swim')",
    ]
    unknown = write_results(tmp_path / "found.json", FOUND | {"v2": [("swm", 0, 4, 1.0)]})
    assert_refused(fustal("evaluate", unknown, truth, "--subset", "test"), 1, "found.json", "'swm'")


def test_a_file_of_unknown_videos_only_is_refused(truth: Path, tmp_path: Path) -> None:
    rows = FOUND["v1"]
    prefixed = write_results(tmp_path / "v.json", {f"v_{v}": rows for v in [*TRUTH, "v4"]})
    names = ["'v_v1', 'v_v2', 'v_t1', ...", "'v1', 'v2', 't1'", "prefix 'v_'"]
    assert_refused(fustal("evaluate", prefixed, truth), 1, "v.json", "gt.json", *names)
    other = write_results(tmp_path / "other.json", {"a": rows})
    result = fustal("audit", other, truth)
    assert_refused(result, 1, "other.json", "'a'", "'v1', 'v2', 't1'")
    assert "prefix" not in result.stderr


def test_mistakes_on_the_command_line_come_before_the_files_are_read(tmp_path: Path) -> None:
    files = [tmp_path / "none.json", tmp_path / "nowhere.json"]
    result = fustal("evaluate", *files, "--average", "0.2:0.9")
    assert_refused(result, 2, "--average", "'0.2:0.9'", "0.1, 0.2")
    for command in ("evaluate", "audit"):
        result = fustal(command, *files, "--figure", tmp_path / "x.jpg")
        assert_refused(result, 2, "--figure", ".png, .pdf, .svg", "x.jpg")
        result = fustal(command, *files, "--figure", "/dev/null/x.png")
        assert_refused(result, 2, "--figure", "/dev/null is no folder that can be written")
    assert list(tmp_path.iterdir()) == []


def test_problems_of_all_files_are_said_at_once(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("found.json", "truth.json", "list.txt")]
    for path in files[:2]:
        path.write_text("[]")
    for command in ("evaluate", "audit"):
        result = fustal(command, *files[:2], "--ambiguous", files[2])
        assert_refused(result, 1, *(f"{path}: " for path in files))


@pytest.mark.parametrize("text", ["0.7:0.3", "0.5", "0.15:0.5", "0.5:0.5", "a:b", "0.1:0.2:0.3"])
def test_averages_that_the_thresholds_do_not_hold(text: str) -> None:
    with pytest.raises(SettingsError, match=f"--average: expected.*'{text}'"):
        choose_averages(parse_tiou("0.1:0.7"), [text])


def test_averages_are_over_the_thresholds_given() -> None:
    chosen = choose_averages(parse_tiou("0.1:0.05:0.7"), ["0.55:0.65", "0.3:0.7"])
    assert chosen["0.55:0.05:0.65"] == [0.55, 0.6, 0.65]
    assert chosen["0.3:0.7"] == [0.3, 0.4, 0.5, 0.6, 0.7]  # a name in use keeps its meaning


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5", [0.5]),
        ("0.3,0.5,0.3", [0.3, 0.5]),
        ("0.1:0.7", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        ("0.1:0.4:0.7", [0.1, 0.5]),
        ("0.123456789012,0.5", [0.123456789, 0.5]),
    ],
)
def test_thresholds(text: str, expected: list[float]) -> None:
    assert parse_tiou(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "high",
        "0:0.5",
        "0.5:0.45",
        "0.1:inf",
        "0.1:nan:0.5",
        "0.1:0.7:0.3",  # the step comes second
        "0.5:1.5",
        "0.1:1e-9:0.9",
        "0.1:1e-12:0.9",
    ],
)
def test_bad_thresholds(text: str) -> None:
    with pytest.raises(SettingsError, match="--tiou: expected"):
        parse_tiou(text)


def test_names_and_lists_that_do_not_fit_are_refused(
    found: Path, truth: Path, tmp_path: Path
) -> None:
    both = [found, truth]
    result = fustal("evaluate", *both, "--exclude", "v3", "--exclude", "v4")
    assert_refused(result, 1, "--exclude: 'v3', 'v4': found in neither file")
    listed = tmp_path / "ambiguous.txt"
    listed.write_text(
        "v1 1 2\nv1 1\nv1 3 2\nv1 2 3\nv1 one two\nv1,1,2\nv1 nan 3\nv1 1 inf\nv1 4 4\n"
    )
    result = fustal("audit", *both, "--ambiguous", listed)
    lines = [f"ambiguous.txt: line {number}: " for number in (2, 3, 5, 6, 7, 8, 9)]
    assert_refused(result, 1, *lines, "'v1 one two'", "VIDEO START END")
    assert result.stderr.count("expected") == 7


def test_nothing_to_measure_against_is_an_error(found: Path, tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "gt.json", w=("testing only", []))
    result = fustal("evaluate", found, truth, "--subset", "testing only")
    assert_refused(result, 1, "gt.json", "no segment", "testing only")
    assert_refused(fustal("audit", found, truth, "--exclude", "v1,v2,t1"), 1, "no segment")


def test_audit_by_hand(found: Path, truth: Path, tmp_path: Path) -> None:
    content = measure(found, truth, command="audit")
    assert content.pop("stderr") == ""
    columns = pseudo_label_quality(pd.DataFrame(), pd.DataFrame(), {}).columns
    assert list(content) == [*columns, "per_class", "options"]
    assert content["per_class"]["jump"]["proposals"] == 1
    hits = [own["recall@0.5"] * own["instances"] for own in content["per_class"].values()]
    assert sum(hits) == pytest.approx(3)  # printed with ten digits
    assert content["precision@0.5"] == content["recall@0.5"] == 3 / 4
    assert content["background"] == 1 / 4
    assert content["mean_tiou"] == pytest.approx((1 + 1 + 0.6) / 3)
    # Of 200 s: [50, 60] is spurious; 4 s of jump and the 4 s of v2 are missed.
    assert content["spurious_time"] == pytest.approx(10 / 200)
    assert content["missed_time"] == pytest.approx(8 / 200)


def test_audit_has_the_options_too(found: Path, truth: Path, tmp_path: Path) -> None:
    content = measure(found, truth, "--exclude", "v2", "--plus-one", command="audit")
    assert content["recall@0.5"] == 1
    assert content["mean_tiou"] == pytest.approx((1 + 1 + 7 / 11) / 3)
    assert content["end_error_s"] == pytest.approx(4 / 3)
    assert content["missed_time"] == pytest.approx(4 / 100)

    listed = tmp_path / "ambiguous.txt"
    listed.write_text("v1 55 56\n")
    content = measure(found, truth, "--ambiguous", listed, command="audit")
    assert content["precision@0.5"] == 1
    assert content["proposals"] == 3


def test_audit_counts_videos_without_a_duration(truth: Path, tmp_path: Path) -> None:
    content = json.loads(truth.read_text(encoding="utf-8"))
    del content["database"]["v2"]["duration"]
    truth.write_text(json.dumps(content), encoding="utf-8")
    more = {"x": [("run", 0, 50, 0.1)], "v2": [("run", 0, 4, 0.9)], "t1": [("run", 0, 5, 0.9)]}
    found = write_results(tmp_path / "found.json", FOUND | more)
    content = measure(found, truth, "--own-subset", command="audit")
    assert content["proposals"] == 6
    assert content["background"] == pytest.approx(2 / 6)
    assert content["recall@0.5"] == 1
    assert content["spurious_time"] == pytest.approx(10 / 100)  # of v1 alone
    assert content["missed_time"] == pytest.approx(4 / 100)
    assert "2 videos without a duration" in content["stderr"]


def test_the_audit_is_grouped_and_has_units(found: Path, truth: Path, tmp_path: Path) -> None:
    answer = fustal("audit", found, truth, "--subset", "test")
    assert answer.returncode == 0, answer.stderr
    lines = [" ".join(line.split()) for line in answer.stdout.splitlines()]
    for line in (
        "proposals 4",
        "true segments 4",
        "Agreement (%) at tIoU 0.3 0.5 0.7",
        "precision 75.0 75.0 50.0",
        "end 1.33 s 13.3 % of the true length",
        "4 detections against 4 segments of 2 classes in 2 videos",
        "Classes, agreement (%) at 0.5 prop. true prec. recall F1",
        "run 3 3 66.7 66.7 66.7",
    ):
        assert line in lines
    assert any(line.startswith("background 25.0") for line in lines)
    empty = write_results(tmp_path / "empty.json", {})
    answer = fustal("audit", empty, truth)
    assert answer.returncode == 0, answer.stderr
    assert "nan" not in answer.stdout.lower()


def test_a_figure_replaces_files_alone(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe.svg")
    with pytest.raises(SettingsError, match=r"--figure: .* expected a file to write"):
        refuse_figure(pipe)


@pytest.mark.parametrize(("command", "ending"), [("evaluate", "svg"), ("audit", "PNG")])
def test_figures_are_written_and_equal_runs_give_equal_files(
    command: str, ending: str, found: Path, truth: Path, tmp_path: Path
) -> None:
    names = [tmp_path / "drawn" / f"{number}.{ending}" for number in (1, 2)]
    for name in names:
        result = fustal(command, found, truth, "--subset", "test", "--figure", name)
        assert result.returncode == 0, result.stderr
        assert "true" in result.stdout or "mAP" in result.stdout
    assert names[0].read_bytes() == names[1].read_bytes()
    assert names[0].stat().st_size > 5000
    assert sorted((tmp_path / "drawn").iterdir()) == names
