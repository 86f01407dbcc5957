"""What the analysis notebook measures beside the main table: labels, epochs, videos, intervals.

Everything is made of products that the run has anyway. Shares are fractions as in `quality`; mAP is in
percent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fustal_core.ema_quality import EMA_LABELS, STAGE_TWO_IN_CROPS
from fustal_core.metrics import AVERAGE, THUMOS_TIOU
from fustal_core.naming import (
    BASELINES,
    CEILING,
    COLA,
    FLOOR,
    FUSTAL,
    GENERATORS,
    RAW,
    SELECTED,
    STUDENT,
    display_name,
    own_generator,
    supervision_name,
)
from fustal_core.progress import show_progress
from fustal_core.quality import assign
from fustal_core.resampling import draw_videos, resampled_map
from fustal_core.selection import score_proposals, select
from fustal_core.stages import Study

LABEL_MEASURES = ("precision@0.5", "recall@0.5", "f1@0.5")
PERCENTILES = (10, 50, 90)
"""Of the differences between two methods: the test videos that are shown."""
MIN_ACTIONS = 3  # of a video that is shown: with fewer, one detection more or less is all there is
LEVEL = 0.95
_RESAMPLES = 11  # what the random numbers of the resampled videos are drawn from


def generator_label_quality(study: Study) -> pd.DataFrame:
    """How good the labels of every generator are on the training videos, before and after selection.

    Selection is that of the run's settings with the known classes of the videos; it needs no training.

    Returns:
        Two rows per generator: ``generator``, ``supervision``, ``step`` (the first two of
        ``naming.STEPS``), ``data``, ``origin``, then the columns of
        ``quality.pseudo_label_quality``.
    """
    settings, classes = study.settings.selection, study.video_classes
    rows = []
    for method, name in GENERATORS.items():
        proposals = study.generation(method).train
        selected = select(score_proposals(proposals, settings), settings, classes)
        about = {
            "generator": display_name(study, name),
            "supervision": supervision_name(method),
        }
        for step, labels in ((RAW, proposals), (SELECTED, selected)):
            rows.append(study.measure_labels(labels).assign(**about, step=step))
    table = pd.concat(rows, ignore_index=True).assign(data=study.data_name, origin="measured")
    first = ["generator", "supervision", "step", "data", "origin"]
    return table[[*first, *table.columns.drop(first)]]


def labels_and_students(study: Study) -> pd.DataFrame:
    """Labels beside the student that learned from them: all proposals, the selected ones, the truth.

    Returns:
        ``labels``, ``method`` (as in the main table), ``proposals`` (their number), ``LABEL_MEASURES``
        and ``mean_tiou`` (fractions, of the training videos' labels), ``avg 0.1:0.7`` (percent, of the
        student without distillation on the test videos), ``data``, ``seed``.
    """
    made = {
        "all proposals": (FLOOR, "raw", study.generation().train),
        "selected": (STUDENT, "selected", study.selection().selected),
        "truth": (CEILING, "truth", study.dataset.truth("train").assign(score=1.0)),
    }
    rows = []
    for name, (method, source, labels) in made.items():
        quality = study.measure_labels(labels)[["proposals", *LABEL_MEASURES, "mean_tiou"]]
        found = study.student(source, distill=False).detections
        average = study.measure(found)[AVERAGE]
        rows.append(
            {
                "labels": name,
                "method": display_name(study, method),
                **quality.iloc[0].to_dict(),
                AVERAGE: average,
                "data": study.data_name,
                "seed": study.settings.seed,
            }
        )
    return pd.DataFrame(rows).astype({"proposals": int})


def labels_over_epochs(study: Study, quality: pd.DataFrame) -> pd.DataFrame:
    """What the student learns from in each epoch, and what it scores on the test videos after it.

    The student of EMA labels beside the one that keeps the selected labels, both measured within the
    crops that the two of them saw. mAP is looked at; nothing is chosen by it.

    Args:
        quality: as from ``reporting.quality_along_pipeline``.

    Returns:
        ``method``, ``epoch``, ``LABEL_MEASURES`` (fractions; NaN before there are EMA labels),
        ``avg 0.1:0.7`` (percent; NaN where the epoch was not evaluated); from the last epoch before
        the switch that was evaluated on. Epochs count from 0.
    """
    steps = {True: EMA_LABELS, False: STAGE_TWO_IN_CROPS}
    names = {True: "student + EMA", False: "student"}
    parts = []
    for distill, step in steps.items():
        history = study.student("selected", distill=distill).history
        history = history.reindex(columns=["epoch", AVERAGE])
        own = quality.loc[quality["step"] == step, ["epoch", *LABEL_MEASURES]]
        merged = history.merge(own.astype({"epoch": int}), on="epoch", how="left")
        method = display_name(study, names[distill])
        parts.append(merged.assign(method=method)[["method", "epoch", *LABEL_MEASURES, AVERAGE]])
    table = pd.concat(parts, ignore_index=True)
    switch = study.settings.student.switch_epoch
    before = table.loc[table[AVERAGE].notna() & (table["epoch"] < switch), "epoch"]
    first = before.max() if len(before) else switch
    return table[table["epoch"] >= first].reset_index(drop=True)


def best_detections(detections: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Of each video with N true actions the N best-scored detections, and which of them are true.

    As many as there are actions, so that the scales of two methods' scores need not be compared.

    Args:
        detections: ``video``, ``label``, ``t_start``, ``t_end`` (s), ``score``; of equal scores the
            later row counts as the better one, as in `metrics`.
        truth: ``video``, ``label``, ``t_start``, ``t_end`` (s).

    Returns:
        Rows of `detections` by falling score, with ``true``: whether it takes an action of its class at
        tIoU 0.5 (see `quality`).
    """
    ranked = detections[::-1].sort_values("score", ascending=False, kind="stable")
    actions = truth["video"].value_counts()
    allowed = ranked["video"].map(actions).fillna(0)
    best = ranked[ranked.groupby("video").cumcount() < allowed]
    # Turned round once more, so that the later of two equals is still served first.
    kinds = assign(best[::-1], truth)["kind"]
    return best.assign(true=kinds[::-1].to_numpy() == "true")


def compare_videos(
    ours: pd.DataFrame, baseline: pd.DataFrame, truth: pd.DataFrame, durations_s: pd.Series
) -> pd.DataFrame:
    """How many of the actions of each video two methods find in as many detections.

    Args:
        ours, baseline: as from :func:`best_detections`.
        truth: ``video``, a row per action.
        durations_s: index video, seconds.

    Returns:
        Index video, those with an action, by ``difference`` and then by name: ``actions``, ``baseline``
        and ``ours`` (true detections over actions, percent: precision and recall in one),
        ``difference`` (points), ``duration_s`` and ``candidate``: whether it is no longer than the
        median of these videos and has `MIN_ACTIONS` or more, so that a picture of it can be read.
    """
    actions = truth["video"].value_counts().sort_index().rename("actions")
    table = actions.to_frame()
    for name, best in {"baseline": baseline, "ours": ours}.items():
        hits = best.groupby("video")["true"].sum().reindex(actions.index, fill_value=0)
        table[name] = 100 * hits / actions
    table["difference"] = table["ours"] - table["baseline"]
    table["duration_s"] = durations_s.reindex(table.index)
    short = table["duration_s"] <= table["duration_s"].median()
    table["candidate"] = short & (table["actions"] >= MIN_ACTIONS)
    return table.sort_values("difference", kind="stable")


def choose_videos(table: pd.DataFrame, percentiles: Sequence[int] = PERCENTILES) -> pd.DataFrame:
    """The candidates that lie at some percentiles of the difference, lowest first.

    Args:
        table: as from :func:`compare_videos`.
        percentiles: in [0, 100]; of n candidates, p is the one in place p / 100 (n - 1), rounded.

    Returns:
        ``percentile``, ``video`` and the columns of `table`; a video that stands for several
        percentiles is there once. Empty without a candidate.
    """
    candidates = table[table["candidate"]]
    wanted = np.sort(percentiles) if len(candidates) else np.zeros(0, dtype=int)
    places = np.floor(wanted / 100 * (len(candidates) - 1) + 0.5).astype(int)
    chosen = candidates.iloc[places].reset_index()
    chosen.insert(0, "percentile", wanted)
    return chosen.drop_duplicates("video", ignore_index=True)


def measured_detections(study: Study) -> dict[str, pd.DataFrame]:
    """Detections on the test videos of every measured row of the main table, in its order, by name."""
    made = {name: study.generation(method).detections for method, name in GENERATORS.items()}
    students = {FLOOR: ("raw", False), STUDENT: ("selected", False), FUSTAL: ("selected", True)}
    for name, (labels, distill) in (students | {CEILING: ("truth", False)}).items():
        made[name] = study.student(labels, distill=distill).detections
    return made


def compared_pairs(study: Study) -> list[tuple[str, str]]:
    """What is compared with what: names of `naming`, the one that should be better first."""
    return [
        *BASELINES.items(),
        (STUDENT, FLOOR),
        (STUDENT, own_generator(study)),
        (FUSTAL, STUDENT),
        (FUSTAL, COLA),
    ]


def with_intervals(study: Study, resamples: int) -> pd.DataFrame:
    """The measured averages of the main table, and differences, with intervals over the test videos.

    Percentiles of the averages on resampled test videos, the same resamples for all methods. The
    trainings are those of one seed: what another seed would change is not in the intervals.

    Args:
        resamples: draws of as many test videos as there are.

    Returns:
        ``method``, ``minus`` (empty: the method itself; else the method that it is compared with),
        ``avg 0.1:0.7``, ``low``, ``high`` (percent; points where it is a difference; the ends of the
        interval with level `LEVEL`), ``shift`` (points: mean of the resamples less the average itself,
        for mAP is no mean over videos), ``over``, ``seeds``, ``data``.
    """
    videos = study.measured_videos
    rng = np.random.default_rng([study.settings.seed, _RESAMPLES])
    draws = draw_videos(videos, resamples, rng)
    whole, drawn = {}, {}
    measured = measured_detections(study)
    with show_progress("resampling the test videos") as progress:
        for done, (name, detections) in enumerate(measured.items()):
            progress(done, len(measured), name)
            found, truth = study.measured(detections)
            whole[name] = study.measure(detections)[AVERAGE]
            drawn[name] = 100 * resampled_map(found, truth, THUMOS_TIOU, videos, draws).mean(axis=1)
    rows = [_interval(study, name, "", whole[name], drawn[name]) for name in whole]
    for better, worse in compared_pairs(study):
        difference = whole[better] - whole[worse]
        rows.append(_interval(study, better, worse, difference, drawn[better] - drawn[worse]))
    return pd.DataFrame(rows)


def _interval(
    study: Study, method: str, minus: str, value: float, drawn: np.ndarray
) -> dict[str, object]:
    """One row; resamples without any ground truth (NaN) are left out."""
    known = drawn[~np.isnan(drawn)]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(known, [tail, 1 - tail]) if len(known) else (np.nan, np.nan)
    return {
        "method": display_name(study, method),
        "minus": display_name(study, minus) if minus else "",
        AVERAGE: value,
        "low": float(low),
        "high": float(high),
        "shift": float(known.mean()) - value if len(known) else np.nan,
        "over": "test videos",
        "seeds": 1,
        "data": study.data_name,
    }
