"""Repairing one kind of label error with the truth: by hand, against slow reading, by properties."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fustal_core import oracle_ladder
from fustal_core.config import make_settings
from fustal_core.metrics import DETECTION_COLUMNS, TRUTH_COLUMNS
from fustal_core.oracle import RUNGS, changed, repair, targets
from fustal_core.quality import pseudo_label_quality
from fustal_core.reference import iou_of_two

KEYS = [*TRUTH_COLUMNS]
EVERY_ERROR = [rung for rung in RUNGS if rung != "true scores"]
TRUTH = pd.DataFrame(
    [
        ("v", "run", 0, 10),
        ("v", "run", 12, 20),
        ("v", "jump", 40, 50),
        ("w", "run", 2, 6),
        ("w", "run", 15, 18),  # nobody points at it
    ],
    columns=KEYS,
).astype({"t_start": float, "t_end": float})
LABELS = pd.DataFrame(
    [
        ("v", "run", 0, 8, 0.9),  # the first segment, tIoU 0.8
        ("v", "run", 0, 18, 0.6),  # the first, 10 / 18, and the second, 6 / 20
        ("v", "run", 41, 49, 0.5),  # of the wrong class
        ("v", "run", 60, 70, 0.4),  # false
        ("w", "run", 3, 7, 0.7),  # tIoU 0.6
        ("w", "jump", 1, 2.1, 0.3),  # tIoU 0.1 / 5 with a "run": false
    ],
    columns=[*DETECTION_COLUMNS],
)
SPARE = pd.DataFrame(
    [
        ("v", "run", 12, 19, 0.1),  # tIoU 7 / 8
        ("v", "jump", 40, 46, 0.2),  # tIoU 0.6
        ("v", "jump", 0, 10, 0.8),  # the borders of a "run"
        ("w", "run", 2, 5, 0.2),  # tIoU 0.75
    ],
    columns=[*DETECTION_COLUMNS],
)
PROPOSALS = pd.concat([LABELS, SPARE], ignore_index=True)


def rows(frame: pd.DataFrame) -> list[tuple]:
    return list(frame[KEYS].itertuples(index=False, name=None))


def hand(*rungs: str) -> list[tuple]:
    return rows(repair(LABELS, PROPOSALS, TRUTH, *rungs))


def test_what_labels_point_at() -> None:
    found = targets(LABELS, TRUTH)
    assert found.row.tolist() == [0, 0, 2, -1, 3, -1]
    assert found.own.tolist() == [True, True, False, False, True, False]
    assert found.tiou.tolist() == pytest.approx([0.8, 10 / 18, 0, 0, 0.6, 0])


def test_without_a_rung_labels_stay() -> None:
    assert hand() == rows(LABELS)


def test_true_classes_by_hand() -> None:
    expected = rows(LABELS)
    expected[2] = ("v", "jump", 41, 49)
    assert hand("true classes") == expected


def test_no_false_labels_by_hand() -> None:
    assert hand("no false labels") == rows(LABELS.iloc[[0, 1, 2, 4]])


def test_no_duplicates_by_hand() -> None:
    assert hand("no duplicates") == rows(LABELS.drop(index=1))
    tied = LABELS.iloc[[0, 0]].assign(t_start=[0, 2], t_end=[8, 10], score=[0.2, 0.3])
    assert rows(repair(tied, tied, TRUTH, "no duplicates")) == [("v", "run", 2, 10)]


def test_no_missed_actions_by_hand() -> None:
    # The segment under the label of two actions is missed, that under the wrong class is not.
    repaired = repair(LABELS, PROPOSALS, TRUTH, "no missed actions")
    assert rows(repaired) == rows(LABELS) + rows(TRUTH.iloc[[1, 4]])
    assert repaired["score"].tolist()[-2:] == [1, 1]


def test_true_borders_by_hand() -> None:
    repaired = repair(LABELS, PROPOSALS, TRUTH, "true borders")
    expected = [("v", "run", 0, 10), *rows(LABELS)[2:4], ("w", "run", 2, 6), rows(LABELS)[5]]
    assert rows(repaired) == expected
    assert repaired["score"].tolist() == [0.9, 0.5, 0.4, 0.7, 0.3]  # two became one: the higher


def test_of_equal_labels_the_best_scored_stays() -> None:
    twice = LABELS.iloc[[0, 4, 0]].assign(score=[0.2, 0.5, 0.3])
    assert repair(twice, twice, TRUTH)["score"].tolist() == [0.5, 0.3]
    assert changed(twice, twice.iloc[:2]) == (0, 0)
    assert changed(twice, twice.iloc[1:2]) == (1, 0)
    assert changed(twice.iloc[1:2], twice) == (0, 1)


def test_true_scores_by_hand() -> None:
    # v keeps four of seven, w two of three. Ranks in v: 7 / 8, 0.8, 0.6, 10 / 18, then zeros.
    repaired = repair(LABELS, PROPOSALS, TRUTH, "true scores")
    assert rows(repaired) == rows(PROPOSALS.iloc[[0, 1, 4, 6, 7, 9]])
    assert repaired["score"].tolist() == pytest.approx([0.8, 10 / 18, 0.6, 7 / 8, 0.6, 0.75])


def test_of_worthless_proposals_the_confident_stay() -> None:
    chosen = PROPOSALS.iloc[[2, 3]]
    false = PROPOSALS.iloc[[2, 3, 8]]  # confidences 0.5, 0.4, 0.8
    assert rows(repair(chosen, false, TRUTH, "true scores")) == rows(PROPOSALS.iloc[[2, 8]])


def test_all_errors_repaired_by_hand() -> None:
    assert sorted(hand(*EVERY_ERROR)) == sorted(rows(TRUTH))


def test_how_much_a_rung_changes_by_hand() -> None:
    expected = {
        "true scores": (3, 3),
        "true classes": (1, 1),
        "no false labels": (2, 0),
        "no duplicates": (1, 0),
        "no missed actions": (0, 2),
        "true borders": (3, 2),
    }
    for rung, counts in expected.items():
        repaired = repair(LABELS, PROPOSALS, TRUTH, rung)
        assert changed(LABELS, repaired) == counts, rung
    assert changed(LABELS, LABELS.sample(frac=1, random_state=0).assign(score=0.5)) == (0, 0)


@pytest.mark.parametrize("rung", RUNGS)
def test_the_truth_needs_no_repair(rung: str) -> None:
    perfect = TRUTH.assign(score=0.5)
    assert changed(perfect, repair(perfect, perfect, TRUTH, rung)) == (0, 0)


def test_no_labels_and_no_truth() -> None:
    none = LABELS[:0]
    assert rows(repair(none, none, TRUTH, *EVERY_ERROR)) == rows(TRUTH)
    assert rows(repair(none, PROPOSALS, TRUTH, "true scores")) == []
    for rung in RUNGS:
        left = repair(LABELS, LABELS, TRUTH[:0], rung)
        assert rows(left) == ([] if rung == "no false labels" else rows(LABELS))
        assert repair(none, none, TRUTH[:0], rung).empty


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="got true borders, nothing"):
        repair(LABELS, PROPOSALS, TRUTH, "true borders, nothing")
    with pytest.raises(ValueError, match=r"reversed.*'v'"):
        repair(LABELS.assign(t_end=-1.0), PROPOSALS, TRUTH, "true borders")
    with pytest.raises(ValueError, match="missing score"):
        repair(LABELS, PROPOSALS.drop(columns="score"), TRUTH, "true scores")


Case = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


def random_segments(rng: np.random.Generator, count: int) -> pd.DataFrame:
    """Integer times in [0, 20]: ties, twins, and segments of no length are common."""
    times = np.sort(rng.integers(0, 21, (count, 2)), axis=1).astype(float)
    table = {"video": rng.choice(["v", "w"], count), "label": rng.choice(["x", "y"], count)}
    return pd.DataFrame(table | {"t_start": times[:, 0], "t_end": times[:, 1]})


def random_case(seed: int, n: int, m: int) -> Case:
    """Labels, the proposals they were selected from, and any truth."""
    rng = np.random.default_rng(seed)
    proposals = random_segments(rng, n).assign(score=rng.permutation(n) / max(n, 1))
    return proposals[rng.random(n) < 0.5], proposals, random_segments(rng, m)


def disjoint_case(seed: int, n: int, m: int) -> Case:
    """As `random_case`, with labels near the truth, whose segments do not overlap."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.choice(np.arange(200), (2, 2 * m), replace=False) / 5.0).reshape(-1, 2)
    table = {"video": np.repeat(["v", "w"], m), "label": rng.choice(["x", "y"], 2 * m)}
    truth = pd.DataFrame(table | {"t_start": times[:, 0], "t_end": times[:, 1]})
    near = truth.iloc[rng.integers(0, 2 * m, n)].reset_index(drop=True)
    borders = np.sort(near[["t_start", "t_end"]] + rng.normal(0, 1.0, (n, 2)), axis=1)
    proposals = near.assign(t_start=borders[:, 0], t_end=borders[:, 1], score=rng.random(n))
    proposals["label"] = np.where(rng.random(n) < 0.2, "x", proposals["label"])
    return proposals[rng.random(n) < 0.5], proposals, truth


seeds = st.integers(0, 2**32 - 1)
cases = st.builds(random_case, seeds, st.integers(0, 30), st.integers(0, 12))
disjoint_cases = st.builds(disjoint_case, seeds, st.integers(0, 40), st.integers(1, 8))
some_rungs = st.sets(st.sampled_from(RUNGS))


@settings(max_examples=25, deadline=None)
@given(cases, st.booleans())
def test_all_errors_repaired_are_the_truth(case: Case, with_scores: bool) -> None:
    rungs = RUNGS if with_scores else EVERY_ERROR
    assert set(rows(repair(*case, *rungs))) == set(rows(case[2]))


@settings(max_examples=25, deadline=None)
@given(cases, some_rungs)
def test_no_two_labels_are_equal_and_the_order_of_rungs_is_free(
    case: Case, rungs: set[str]
) -> None:
    repaired = repair(*case, *sorted(rungs))
    assert not repaired.duplicated(KEYS).any()
    assert repaired.columns.tolist() == [*DETECTION_COLUMNS]
    pd.testing.assert_frame_equal(repaired, repair(*case, *sorted(rungs, reverse=True)))


@settings(max_examples=25, deadline=None)
@given(cases, st.sampled_from(RUNGS))
def test_a_repair_is_needed_once(case: Case, rung: str) -> None:
    labels, proposals, truth = case
    once = repair(labels, proposals, truth, rung)
    twice = repair(once, proposals, truth, rung)
    assert changed(once, twice) == (0, 0)


def slow_target(label: pd.Series, truth: pd.DataFrame) -> tuple[int, bool]:
    """Row of the truth and whether it has the label's class, read off the definition."""
    found = []
    for row, segment in enumerate(truth.itertuples()):
        if segment.video != label["video"]:
            continue
        one = (label["t_start"], label["t_end"])
        iou = iou_of_two(one, (segment.t_start, segment.t_end))
        if iou >= 0.1:
            found.append((segment.label == label["label"], iou, row))
    own, _, row = max(found, default=(False, 0.0, -1))
    return row, own


def slow_repair(case: Case, rung: str) -> set[tuple]:
    """Labels after one of the last five rungs, one label at a time."""
    labels, _, truth = case
    points_at = [slow_target(label, truth) for _, label in labels.iterrows()]
    repaired = set()
    for (_, label), (row, own) in zip(labels.iterrows(), points_at, strict=True):
        target = truth.iloc[row] if row >= 0 else None
        label = label.copy()
        if rung == "no false labels" and target is None:
            continue
        if rung == "true classes" and target is not None:
            label["label"] = target["label"]
        if rung == "true borders" and own:
            label[["t_start", "t_end"]] = target[["t_start", "t_end"]]
        repaired.add(tuple(label[KEYS]))
    if rung == "no missed actions":
        pointed_at = {row for row, _ in points_at}
        missed = [row for row in range(len(truth)) if row not in pointed_at]
        repaired |= set(rows(truth.iloc[missed]))
    return repaired


@settings(max_examples=25, deadline=None)
@given(cases, st.sampled_from([rung for rung in EVERY_ERROR if rung != "no duplicates"]))
def test_repairs_equal_slow_reading_of_their_definition(case: Case, rung: str) -> None:
    assert set(rows(repair(*case, rung))) == slow_repair(case, rung)


@settings(max_examples=25, deadline=None)
@given(cases)
def test_duplicates_equal_slow_reading_of_their_definition(case: Case) -> None:
    labels, _, truth = case
    rivals: dict[int, list[tuple[float, float]]] = {}
    for _, label in labels.iterrows():
        row, own = slow_target(label, truth)
        if own:
            segment = tuple(truth.iloc[row][["t_start", "t_end"]])
            iou = iou_of_two((label["t_start"], label["t_end"]), segment)
            rivals.setdefault(row, []).append((iou, label["score"]))
    others = [not slow_target(label, truth)[1] for _, label in labels.iterrows()]
    best = {score for group in rivals.values() for _, score in [max(group)]}
    expected = labels[np.array(others, dtype=bool) | labels["score"].isin(best)]
    assert set(rows(repair(*case, "no duplicates"))) == set(rows(expected))


@settings(max_examples=25, deadline=None)
@given(cases)
def test_true_scores_keep_numbers_and_choose_the_best(case: Case) -> None:
    labels, proposals, truth = case
    repaired = repair(labels, proposals, truth, "true scores")
    assert set(rows(repaired)) <= set(rows(proposals))
    counts = labels.drop_duplicates(KEYS)["video"].value_counts()
    for video, count in counts.items():
        own = proposals[proposals["video"] == video].drop_duplicates(KEYS)
        best = np.sort(targets(own, truth).tiou)[::-1][:count]
        chosen = repaired[repaired["video"] == video]
        assert np.sort(targets(chosen, truth).tiou)[::-1].tolist() == best.tolist()
    assert len(repaired) == counts.sum()


@settings(max_examples=25, deadline=None)
@given(disjoint_cases, st.sampled_from(EVERY_ERROR))
def test_no_repair_makes_labels_worse(case: Case, rung: str) -> None:
    """Of segments that do not overlap, a label above tIoU 0.5 can only have taken its target."""
    truth = case[2]
    lengths = {"v": 40.0, "w": 40.0}
    before, after = (
        pseudo_label_quality(repair(*case, *rungs), truth, lengths, tiou=(0.6, 0.7)).iloc[0]
        for rungs in ((), (rung,))
    )
    for name in ("precision@0.6", "recall@0.6", "precision@0.7", "recall@0.7"):
        assert after[name] >= before[name] - 1e-12, name
    gone = {"no false labels": "background", "true classes": "wrong_class"}
    gone["no duplicates"] = "duplicate"
    if rung in gone:
        assert after[gone[rung]] == 0
    if rung == "true borders" and after["true"]:
        assert after["mean_tiou"] == pytest.approx(1)


class FakeStudy(SimpleNamespace):
    """A study whose students reach what a table says; it notes what it was asked to train."""

    def __init__(self, reached: dict[str, float]) -> None:
        super().__init__(settings=make_settings(), data_name="made up", trained=[], reached=reached)
        self.dataset = SimpleNamespace(truth=lambda subset: TRUTH)

    def selection(self) -> SimpleNamespace:
        return SimpleNamespace(selected=LABELS, scored=PROPOSALS)

    def student(self, labels: str, *, distill: bool) -> SimpleNamespace:
        assert not distill
        self.trained.append(labels)
        return SimpleNamespace(detections=labels)

    def measure(self, detections: str) -> dict[str, float]:
        return {"avg 0.1:0.7": self.reached[detections]}

    def measure_labels(self, labels: pd.DataFrame) -> pd.DataFrame:
        return pseudo_label_quality(labels, TRUTH, {"v": 80.0, "w": 20.0})


def test_the_ladder_by_hand() -> None:
    study = FakeStudy({"selected": 40.0, "true borders": 52.5, "truth": 90.0})
    table = oracle_ladder.ladder(study, ["true borders"]).set_index("labels are")
    assert table.index.tolist() == ["selected labels", *RUNGS, "true segments"]
    assert study.trained == ["selected", "true borders", "truth"]
    gains = table["gain"].dropna()
    assert gains.to_dict() == {"selected labels": 0.0, "true borders": 12.5, "true segments": 50.0}
    assert (table.loc[[*RUNGS], "supervision"] == oracle_ladder.ORACLE).all()
    assert table["supervision"].iloc[[0, -1]].tolist() == ["video", "full"]
    borders = table.loc["true borders"]
    assert (borders["labels"], borders["taken away"], borders["new"]) == (5, 3, 2)
    assert borders["recall@0.5"] == pytest.approx(2 / 5)
    assert table.loc["true segments", oracle_ladder.QUALITY].tolist() == [1, 1, 1, 1]


def test_rungs_worth_a_training_by_hand() -> None:
    study = FakeStudy({})
    assert oracle_ladder.worth_training(study) == [*RUNGS]
    # Of six labels: three, one, two, one, two new, three.
    assert oracle_ladder.worth_training(study, 0.5) == ["true scores", "true borders"]
    study.selection = lambda: SimpleNamespace(
        selected=TRUTH.assign(score=1.0), scored=TRUTH.assign(score=1.0)
    )
    assert oracle_ladder.worth_training(study) == []


def test_the_climb_ends_at_the_truth() -> None:
    climb = oracle_ladder.climb(FakeStudy({}))
    assert climb["labels are"].tolist() == ["selected labels", *(f"+ {rung}" for rung in RUNGS)]
    assert climb.loc[len(RUNGS), "f1@0.7"] == 1
    assert climb["f1@0.7"].iloc[0] < 1
    assert climb["labels"].iloc[-1] == len(TRUTH)
