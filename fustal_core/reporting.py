"""What a run writes down: the main tables, claims, and the files of each notebook.

Files go to the notebook's folder of the run directory. Those of the default run (simulated data, quick
profile, seed 0) are also copied to the checkout's ``figures``, which is committed; the main tables under
their own names, everything else with the notebook's number before it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fustal_core.config import make_settings
from fustal_core.figures import save_figure
from fustal_core.files import atomic_path, write_json, write_text
from fustal_core.published import thumos14
from fustal_core.quality import assign, pseudo_label_quality
from fustal_core.rundir import default_run_dir, project_root
from fustal_core.selection import select
from fustal_core.stages import Study

MAIN_TABLES = ("main_results", "pseudo_label_quality")
MAP_COLUMNS = [f"mAP@0.{i}" for i in range(1, 8)]
AVERAGE_COLUMNS = ["avg 0.1:0.5", "avg 0.3:0.7", "avg 0.1:0.7"]
MAIN_COLUMNS = [
    "method",
    "supervision",
    "data",
    "origin",
    *MAP_COLUMNS,
    *AVERAGE_COLUMNS,
    "seeds",
    "source",
]


def measured_row(study: Study, method: str, supervision: str, detections: pd.DataFrame) -> dict:
    """One row of the main table: a method's detections on the test videos of this run."""
    choices = {study.settings.generation.select, study.settings.student.select}
    note = "; best-on-test" if "best-on-test" in choices else ""
    return {
        "method": method,
        "supervision": supervision,
        "data": study.data_name,
        "origin": "measured",
        **study.measure(detections),
        "seeds": 1,
        "source": f"this run, profile {study.settings.profile}, seed {study.settings.seed}{note}",
    }


def main_results(study: Study) -> pd.DataFrame:
    """Measured rows of every step of FuSTAL, then the published rows for THUMOS'14; percent.

    Columns: ``MAIN_COLUMNS``. Published cells that are not known are NaN.
    """
    full = study.student("truth", distill=False).detections
    rows = [
        measured_row(study, "CoLA", "video", study.generation("cola").test),
        measured_row(study, "FuSTAL generator", "video", study.generation("cross-video").test),
        measured_row(
            study,
            "student on all proposals",
            "video",
            study.student("raw", distill=False).detections,
        ),
        measured_row(
            study,
            "student on selected proposals",
            "video",
            study.student("selected", distill=False).detections,
        ),
        measured_row(
            study,
            "FuSTAL (student + EMA distillation)",
            "video",
            study.student("selected", distill=True).detections,
        ),
        measured_row(study, "student on true segments (ceiling)", "full", full),
    ]
    published = thumos14().assign(data="THUMOS'14 (real)", origin="published", seeds=pd.NA)
    published["method"] = published["method"] + " [" + published["year"].astype(str) + "]"
    return pd.concat(
        [pd.DataFrame(rows)[MAIN_COLUMNS], published.reindex(columns=MAIN_COLUMNS)],
        ignore_index=True,
    )


def quality_along_pipeline(study: Study) -> pd.DataFrame:
    """Pseudo-label quality on the training videos, one row per pipeline step and epoch.

    Columns: ``step``, ``epoch`` (NA before training), then those of ``pseudo_label_quality``. EMA
    labels are those of the student's random crops, and measured within them.
    """
    truth = study.dataset.truth("train")
    durations = study.dataset.videos["duration_s"].loc[study.dataset.video_names("train")]
    selection = study.selection()
    confident = study.settings.selection.model_copy(update={"iou_threshold": 0.0})
    steps = {
        "all proposals (CoLA)": study.generation("cola").train,
        "all proposals": selection.scored,
        "confidence filter": select(selection.scored, confident),
        "IoU-score filter": selection.selected,
    }
    rows = [
        pseudo_label_quality(labels, truth, durations).assign(step=step, epoch=pd.NA)
        for step, labels in steps.items()
    ]
    ema = study.student("selected", distill=True).ema_labels
    for epoch, labels in ema.groupby("epoch"):
        rows.append(_quality_in_crops(labels, truth).assign(step="EMA labels", epoch=epoch))
    table = pd.concat(rows, ignore_index=True)
    first = ["step", "epoch"]
    return table[first + [column for column in table.columns if column not in first]]


def _quality_in_crops(labels: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Quality of one epoch's EMA labels within the crops the student saw."""
    crops = labels.groupby("video")[["crop_start_s", "crop_end_s"]].first()
    truth = crop_segments(truth, crops)
    labels = labels.assign(
        t_start=labels["t_start"] - labels["crop_start_s"],
        t_end=labels["t_end"] - labels["crop_start_s"],
    )
    return pseudo_label_quality(labels, truth, crops["crop_end_s"] - crops["crop_start_s"])


def crop_segments(truth: pd.DataFrame, crops: pd.DataFrame) -> pd.DataFrame:
    """True segments inside crops, in seconds from the crop's start.

    A segment stays if at least half of it lies in the crop, cut to it: the rule of training.

    Args:
        truth: columns ``video``, ``label``, ``t_start``, ``t_end`` (s).
        crops: index video; ``crop_start_s``, ``crop_end_s``. Videos without a crop are left out.
    """
    truth = truth[truth["video"].isin(crops.index)]
    window = crops.loc[truth["video"]]
    first, last = window["crop_start_s"].to_numpy(), window["crop_end_s"].to_numpy()
    start = np.clip(truth["t_start"].to_numpy(), first, last)
    end = np.clip(truth["t_end"].to_numpy(), first, last)
    remains = (end - start) >= 0.5 * (truth["t_end"] - truth["t_start"]).to_numpy()
    inside = truth.assign(t_start=start - first, t_end=end - first)
    return inside[remains & (end > start)]


def iou_score_histogram(study: Study) -> pd.DataFrame:
    """True and false proposals per IoU-score bin, in the form of the paper's histogram.

    A proposal of a training video is true if it has tIoU >= 0.5 with a segment of its class. Bins are
    0.1 wide up to 1 as in the paper; a last one, open upwards, holds the scores from 1 on.

    Returns:
        ``bin_low``, ``bin_high``, ``false_positives``, ``true_positives``.
    """
    scored = study.selection().scored
    hit = assign(scored, study.dataset.truth("train"))["tiou"].to_numpy() >= 0.5
    edges = np.append(np.arange(11) / 10, np.inf)
    bins = np.digitize(scored["iou_score"].to_numpy(), edges) - 1
    return pd.DataFrame(
        {
            "bin_low": edges[:-1],
            "bin_high": edges[1:],
            "false_positives": np.bincount(bins[~hit], minlength=11),
            "true_positives": np.bincount(bins[hit], minlength=11),
        }
    )


def claim(study: Study, says: str, source: str, measured: str, holds: bool) -> dict[str, Any]:
    """One row of a claims table: what the paper says and what this run measured."""
    return {
        "the paper says": says,
        "where": source,
        "measured here": measured,
        "holds": "yes" if holds else "no",
        "data": study.data_name,
        "seeds": "1 (no interval)",
    }


def figures_dir(study: Study) -> Path | None:
    """The checkout's ``figures`` for the default run in its default place, else None."""
    settings = make_settings()
    is_default = study.settings == settings and (
        study.run_dir.resolve() == default_run_dir(settings).resolve()
    )
    return project_root() / "figures" if is_default else None


def keep_figure(study: Study, notebook: str, name: str, figure: Any) -> Any:
    """Write a figure as PNG and PDF into a notebook's folder; returns it, for the cell to show."""
    folder = study.folder(notebook)
    save_figure(figure, folder / name)
    _copy(study, notebook, [folder / f"{name}.png", folder / f"{name}.pdf"])
    return figure


def keep_table(study: Study, notebook: str, name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Write a table as CSV, Markdown and LaTeX into a notebook's folder; returns it."""
    path = study.folder(notebook) / name
    shown = table.apply(_shown)
    write_text(path.with_suffix(".csv"), table.to_csv(index=False))
    write_text(path.with_suffix(".md"), shown.to_markdown(index=False) + "\n")
    write_text(path.with_suffix(".tex"), shown.to_latex(index=False, escape=True))
    _copy(study, notebook, [path.with_suffix(suffix) for suffix in (".csv", ".md")])
    return table


def keep_metrics(study: Study, notebook: str, metrics: dict[str, Any]) -> None:
    """Write a notebook's ``metrics.json``, with the data and seed they belong to."""
    content = {"data": study.data_name, "seed": study.settings.seed, **metrics}
    write_json(study.folder(notebook) / "metrics.json", content)


def _shown(column: pd.Series) -> pd.Series:
    """A column for people: one decimal, three for what is a fraction, nothing where nothing is known."""
    numbers = pd.to_numeric(column, errors="coerce").abs()
    digits = 3 if numbers.max() < 2 else 1

    def cell(value: Any) -> Any:
        if pd.isna(value):
            return ""
        return f"{value:.{digits}f}" if isinstance(value, float) else value

    return column.map(cell)


def _copy(study: Study, notebook: str, paths: list[Path]) -> None:
    target = figures_dir(study)
    for path in paths if target else []:
        number = "" if path.stem in MAIN_TABLES else f"{notebook[:2]}_"
        with atomic_path(target / f"{number}{path.name}") as temporary:
            shutil.copyfile(path, temporary)
