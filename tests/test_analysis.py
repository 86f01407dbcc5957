"""What the analysis measures: by hand, against slow counting, and on a study of seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_helpers import TINY

from fustal_core import analysis, ema_quality, reporting
from fustal_core.metrics import AVERAGE, DETECTION_COLUMNS, TRUTH_COLUMNS, map_summary
from fustal_core.naming import ACM_NET, COLA, GENERATORS
from fustal_core.quality import KINDS
from fustal_core.reference import iou_of_two
from fustal_core.resampling import draw_videos
from fustal_core.stages import Study, open_study

# --- the best detections of a video ---------------------------------------------------------------

TRUTH = pd.DataFrame(
    [("v", "run", 0, 10), ("v", "run", 20, 30), ("w", "jump", 5, 9)], columns=[*TRUTH_COLUMNS]
)


def detections(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame([*rows], columns=[*DETECTION_COLUMNS])


def test_as_many_detections_as_actions_are_looked_at() -> None:
    found = detections(
        ("v", "run", 20, 30, 0.1),  # perfect, but the third best of two
        ("v", "run", 0, 8, 0.8),  # tIoU 0.8
        ("w", "run", 5, 9, 0.9),  # wrong class
        ("v", "run", 1, 10, 0.7),  # the first action again
        ("w", "jump", 5, 9, 0.2),
        ("x", "jump", 5, 9, 1.0),  # no action there
    )
    best = analysis.best_detections(found, TRUTH)
    assert best.index.tolist() == [2, 1, 3]
    assert best["true"].tolist() == [False, True, False]


def test_of_equal_scores_the_later_row_is_the_better_one() -> None:
    found = detections(("v", "run", 1, 9, 0.5), ("v", "run", 0, 9, 0.5), ("v", "run", 0, 10, 0.5))
    best = analysis.best_detections(found, TRUTH)
    assert best.index.tolist() == [2, 1]
    assert best["true"].tolist() == [True, False]


def slowly(found: pd.DataFrame, truth: pd.DataFrame) -> dict[int, bool]:
    """Row -> true or not, of the best rows of each video, one after the other."""
    rows, actions, result = found.to_dict("index"), truth.to_dict("index"), {}
    for video in sorted({own["video"] for own in actions.values()}):
        free = {key: own for key, own in actions.items() if own["video"] == video}
        ranked = [key for key in rows if rows[key]["video"] == video]
        ranked.sort(key=lambda key: (-rows[key]["score"], -key))
        for key in ranked[: len(free)]:
            row = rows[key]
            overlap = {
                action: iou_of_two((row["t_start"], row["t_end"]), (own["t_start"], own["t_end"]))
                for action, own in free.items()
                if own["label"] == row["label"] and action not in result.values()
            }
            best = max(overlap, key=lambda action: (overlap[action], action), default=None)
            result[key] = best if best is not None and overlap[best] >= 0.5 else None
    return {key: action is not None for key, action in result.items()}


SEGMENTS = st.tuples(
    st.sampled_from("vw"), st.sampled_from(["run", "jump"]), st.integers(0, 6), st.integers(1, 4)
)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(SEGMENTS, st.sampled_from([-0.5, 0.2, 0.7])), max_size=9),
    st.lists(SEGMENTS, min_size=1, max_size=5),
)
def test_best_detections_are_those_of_a_slow_count(found: list, true: list) -> None:
    frame = detections(*[(v, c, a, a + length, score) for (v, c, a, length), score in found])
    truth = pd.DataFrame([(v, c, a, a + d) for v, c, a, d in true], columns=[*TRUTH_COLUMNS])
    best = analysis.best_detections(frame, truth)
    assert best["true"].to_dict() == slowly(frame, truth)


# --- videos to show -------------------------------------------------------------------------------


def hits(**videos: list[bool]) -> pd.DataFrame:
    rows = [(video, true) for video, own in videos.items() for true in own]
    return pd.DataFrame(rows, columns=["video", "true"]).astype({"true": bool})


def test_videos_by_what_one_method_finds_more() -> None:
    truth = pd.DataFrame({"video": [*"aaaa", *"bbbb", "c", *"dddd"]})
    ours = hits(a=[True, False, False, False], b=[True] * 3, d=[True] * 4)
    baseline = hits(a=[True, True, False], b=[True, False], c=[True], d=[True] * 4)
    seconds = pd.Series({"d": 90.0, "c": 10.0, "b": 60.0, "a": 50.0, "unknown": 1.0})
    table = analysis.compare_videos(ours, baseline, truth, seconds)
    assert table.index.tolist() == ["c", "a", "d", "b"]
    assert table["ours"].tolist() == [0, 25, 100, 75]
    assert table["baseline"].tolist() == [100, 50, 100, 25]
    assert table["difference"].tolist() == [-100, -25, 0, 50]
    # The median length is 55 s; c has a single action.
    assert table.index[table["candidate"]].tolist() == ["a"]


def ordered(differences: list[float], candidate: list[bool] | None = None) -> pd.DataFrame:
    names = pd.Index([f"v{i:02}" for i in range(len(differences))], name="video")
    return pd.DataFrame({"difference": differences, "candidate": candidate or True}, index=names)


def test_videos_at_the_percentiles() -> None:
    table = ordered([*range(11)])
    chosen = analysis.choose_videos(table, (90, 10, 50))
    assert chosen["percentile"].tolist() == [10, 50, 90]
    assert chosen["video"].tolist() == ["v01", "v05", "v09"]
    assert chosen["difference"].tolist() == [1, 5, 9]
    eight = analysis.choose_videos(ordered([*range(8)]))  # places 0.7, 3.5 and 6.3
    assert eight["video"].tolist() == ["v01", "v04", "v06"]
    # Of four, the middle is between the second and the third: the third.
    assert analysis.choose_videos(ordered([0, 0, 1, 2]))["video"].tolist() == ["v00", "v02", "v03"]


def test_only_candidates_are_chosen_and_each_once() -> None:
    table = ordered([0, 1, 2, 3, 4], [False, True, False, True, False])
    chosen = analysis.choose_videos(table)
    assert chosen["video"].tolist() == ["v01", "v03"]
    assert chosen["percentile"].tolist() == [10, 50]
    none = analysis.choose_videos(ordered([0, 1], [False, False]))
    assert none.empty
    assert {"percentile", "video", "difference"} <= set(none)


# --- a study --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder: Path = tmp_path_factory.mktemp("study")
    return open_study(profile="smoke", run_dir=folder, overrides=TINY)


def test_label_quality_of_every_generator(study: Study) -> None:
    table = analysis.generator_label_quality(study)
    assert list(dict.fromkeys(table["generator"])) == list(GENERATORS.values())
    assert table["supervision"].tolist() == ["video"] * 8 + ["point"] * 4
    for method, name in GENERATORS.items():
        own = table[table["generator"] == name]
        # The study whose generator this is selects the same labels.
        other = study.variant(method, overrides={"generation.method": method})
        for row, labels in zip(
            own.to_dict("records"),
            (other.generation().train, other.selection().selected),
            strict=True,
        ):
            expected = other.measure_labels(labels).iloc[0].to_dict()
            assert {key: row[key] for key in expected} == pytest.approx(expected, nan_ok=True)
            assert row["proposals"] == len(labels)
            shares = [row[kind.replace(" ", "_")] for kind in KINDS]
            assert sum(shares) == pytest.approx(1 if len(labels) else 0)


def test_labels_beside_their_students(study: Study) -> None:
    table = analysis.labels_and_students(study).set_index("labels")
    assert table.loc["truth", [*analysis.LABEL_MEASURES, "mean_tiou"]].tolist() == [1, 1, 1, 1]
    assert table["proposals"].tolist() == [
        len(study.generation().train),
        len(study.selection().selected),
        len(study.dataset.truth("train")),
    ]
    main = reporting.main_results(study).set_index("method")[AVERAGE]
    assert table[AVERAGE].tolist() == pytest.approx([main[name] for name in table["method"]])


def test_epochs_have_their_labels_and_their_score(study: Study) -> None:
    looked_at = study.variant(
        "looked-at", overrides={"student.evaluate_every": 2, "student.epochs": 4}
    )
    quality = reporting.quality_along_pipeline(looked_at)
    table = analysis.labels_over_epochs(looked_at, quality)
    assert table["method"].unique().tolist() == ["student + EMA", "student"]
    for (method, own), distill in zip(
        table.groupby("method", sort=False), (True, False), strict=True
    ):
        history = looked_at.student("selected", distill=distill).history.set_index("epoch")
        expected = history[AVERAGE].reindex(own["epoch"]).to_numpy()
        np.testing.assert_array_equal(own[AVERAGE].to_numpy(float), expected)
        step = "EMA labels" if method == "student + EMA" else ema_quality.STAGE_TWO_IN_CROPS
        labels = quality[quality["step"] == step].set_index("epoch")["f1@0.5"]
        labels = labels.reindex(own["epoch"]).to_numpy(float)
        np.testing.assert_array_equal(own["f1@0.5"].to_numpy(float), labels)


@pytest.fixture
def histories(monkeypatch: pytest.MonkeyPatch) -> type:
    """Students of a given history."""

    class Known:
        def __init__(self, switch: int, scores: list[float] | None) -> None:
            student = type("Settings", (), {"switch_epoch": switch})
            self.settings = type("Settings", (), {"student": student})
            history = pd.DataFrame({"epoch": range(6)})
            self.history = history if scores is None else history.assign(**{AVERAGE: scores})

        def student(self, labels: str, *, distill: bool) -> Known:
            return self

    monkeypatch.setattr(analysis, "display_name", lambda study, name: name)
    return Known


def no_labels() -> pd.DataFrame:
    return pd.DataFrame(columns=["step", "epoch", *analysis.LABEL_MEASURES])


@pytest.mark.parametrize(
    ("scores", "first"),
    [
        # The last before the switch that was evaluated on, not the first after it.
        ([1.0, np.nan, 2.0, np.nan, 4.0, 3.0], 2),
        ([np.nan] * 5 + [3.0], 4),
        (None, 4),
    ],
)
def test_epochs_begin_before_the_switch(
    histories: type, scores: list[float] | None, first: int
) -> None:
    table = analysis.labels_over_epochs(histories(4, scores), no_labels())
    assert table["epoch"].tolist() == [*range(first, 6)] * 2
    assert table[[*analysis.LABEL_MEASURES]].isna().all(axis=None)


# --- intervals ------------------------------------------------------------------------------------


def once_each(videos: list[str], count: int, rng: np.random.Generator) -> np.ndarray:
    return np.ones((count, len(videos)), dtype=np.int32)


def test_rows_are_those_of_the_main_table(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "draw_videos", once_each)
    table = analysis.with_intervals(study, 3)
    main = reporting.main_results(study).query("origin == 'measured'")
    alone = table[table["minus"] == ""].set_index("method")
    assert alone.index.tolist() == main["method"].tolist()
    assert alone[AVERAGE].tolist() == pytest.approx(main[AVERAGE].tolist())
    pairs = table[table["minus"] != ""]
    better, worse = (alone.loc[pairs[side], AVERAGE].to_numpy() for side in ("method", "minus"))
    assert pairs[AVERAGE].tolist() == pytest.approx(better - worse)
    # Nothing was left out of any resample.
    np.testing.assert_allclose(table[["low", "high"]], table[[AVERAGE, AVERAGE]], atol=1e-9)


def copied(frame: pd.DataFrame, videos: list[str], draw: np.ndarray) -> pd.DataFrame:
    """The rows of each video as often as it was drawn, copies with names of their own."""
    parts = [
        frame[frame["video"] == video].assign(video=f"{video}-{copy}")
        for video, times in zip(videos, draw, strict=True)
        for copy in range(times)
    ]
    return pd.concat(parts, ignore_index=True)


def test_intervals_are_percentiles_over_the_same_resamples(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def remembered(videos: list[str], count: int, rng: np.random.Generator) -> np.ndarray:
        drawn.append(draw_videos(videos, count, rng))
        return drawn[-1]

    truth, videos = study.dataset.truth("test"), study.dataset.video_names("test")
    monkeypatch.setattr(analysis, "draw_videos", remembered)
    made = {
        name: study.generation(key).detections
        for name, key in ((COLA, "cola"), (ACM_NET, "acm-net"))
    }
    monkeypatch.setattr(analysis, "measured_detections", lambda study: made)
    monkeypatch.setattr(analysis, "compared_pairs", lambda study: [(ACM_NET, COLA)])
    table = analysis.with_intervals(study, 5)
    assert len(drawn) == 1
    values = {}
    for name, found in made.items():
        averages = []
        for draw in drawn[0]:
            true = copied(truth, videos, draw)
            known = found[found["label"].isin(true["label"])]
            averages.append(map_summary(copied(known, videos, draw), true)[AVERAGE])
        values[name] = np.array(averages)
    expected = [*values.values(), values[ACM_NET] - values[COLA]]
    for (_, row), own in zip(table.iterrows(), expected, strict=True):
        assert row[["low", "high"]].tolist() == pytest.approx(np.quantile(own, [0.025, 0.975]))
        assert row[AVERAGE] + row["shift"] == pytest.approx(own.mean())


def test_videos_that_are_not_measured_are_not_drawn(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def remembered(videos: list[str], count: int, rng: np.random.Generator) -> np.ndarray:
        asked.extend(videos)
        return once_each(videos, count, rng)

    monkeypatch.setattr(analysis, "draw_videos", remembered)
    names = study.dataset.video_names("test")
    part = study.variant("part", overrides={"evaluation.exclude": names[:1]})
    table = analysis.with_intervals(part, 2)
    assert asked == names[1:]
    np.testing.assert_allclose(table["low"], table[AVERAGE], atol=1e-9)
