"""What a run writes down: the main tables, and the files of each notebook.

Files go to the notebook's folder of the run directory. Those of the default run (simulated data, quick
profile, seed 0) are also copied to the checkout's ``figures``, which is committed; the main tables under
their own names, everything else with the notebook's number before it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from fustal_core import jobs
from fustal_core.config import make_settings
from fustal_core.ema_quality import quality_in_crops
from fustal_core.figures import save_figure
from fustal_core.files import atomic_path, write_json, write_text
from fustal_core.metrics import AVERAGE, average_ranges
from fustal_core.naming import (
    BEST_ON_TEST,
    CEILING,
    FLOOR,
    FUSTAL,
    GENERATORS,
    STUDENT,
    all_proposals,
    display_name,
    settings_on_test,
    supervision_name,
)
from fustal_core.published import activitynet13, thumos14
from fustal_core.quality import assign
from fustal_core.results import write_pseudo_labels
from fustal_core.rounding import decimals
from fustal_core.rundir import default_run_dir, project_root
from fustal_core.selection import select
from fustal_core.stages import Study
from fustal_core.views import readable

if TYPE_CHECKING:
    from IPython.display import Image
    from matplotlib.figure import Figure

MAIN_TABLES = ("main_results", "pseudo_label_quality", "ablation")
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

FURTHER_COLUMNS = ["mAP@0.75", "mAP@0.95", "avg 0.5:0.95"]
"""What ActivityNet's results are told in besides, where ``evaluation.further_tiou`` measures it."""


def measured_row(study: Study, method: str, supervision: str, detections: pd.DataFrame) -> dict:
    """One row of the main table: a method's detections on the test videos of this run.

    Args:
        method: appears as :func:`display_name` has it.
    """
    return {
        "method": display_name(study, method),
        "supervision": supervision,
        "data": study.data_name,
        "origin": "measured",
        **study.measure(detections),
        "seeds": 1,
        "source": f"this run, profile {study.settings.profile}, seed {study.settings.seed}",
    }


def main_columns(study: Study) -> list[str]:
    """``MAIN_COLUMNS``, with those of ``FURTHER_COLUMNS`` that are measured behind the averages."""
    further = study.settings.evaluation.further_tiou
    averages = [f"avg {name}" for name in average_ranges(further)]
    measured = {*(f"mAP@{threshold:g}" for threshold in further), *averages}
    place = MAIN_COLUMNS.index("seeds")
    added = [column for column in FURTHER_COLUMNS if column in measured]
    return [*MAIN_COLUMNS[:place], *added, *MAIN_COLUMNS[place:]]


def main_results(study: Study) -> pd.DataFrame:
    """Measured rows of all generators and of every step of FuSTAL, then the published rows; percent.

    Columns: those of :func:`main_columns`. Published cells that are not known are NaN.
    """
    jobs.make([jobs.generation(study, method) for method in GENERATORS])
    rows = [
        measured_row(study, name, supervision_name(method), study.generation(method).detections)
        for method, name in GENERATORS.items()
    ]
    students = {
        FLOOR: study.student("raw", distill=False).detections,
        STUDENT: study.student("selected", distill=False).detections,
        FUSTAL: study.student("selected", distill=True).detections,
    }
    told = supervision_name(study.settings.generation.method)
    rows += [measured_row(study, name, told, found) for name, found in students.items()]
    full = study.student("truth", distill=False).detections
    rows.append(measured_row(study, CEILING, "full", full))
    columns = main_columns(study)
    published = thumos14().assign(data="THUMOS'14 (real)")
    if len(columns) > len(MAIN_COLUMNS):
        published = pd.concat([activitynet13().assign(data="ActivityNet 1.3 (real)"), published])
    published = published.assign(origin="published", seeds=pd.NA)
    published["method"] = published["method"] + " [" + published["year"].astype(str) + "]"
    return pd.concat(
        [pd.DataFrame(rows)[columns], published.reindex(columns=columns)], ignore_index=True
    )


def quality_along_pipeline(study: Study) -> pd.DataFrame:
    """Pseudo-label quality on the training videos, one row per pipeline step and epoch.

    Columns: ``step``, ``epoch`` (NA before training), then those of ``pseudo_label_quality``, ``data``,
    ``origin`` and ``seed``. EMA labels are those of the student's random crops, and measured within
    them; for each of their epochs ``ema_quality.STAGE_TWO_IN_CROPS`` is the selected labels within the
    very same crops.
    """
    truth = study.dataset.truth("train")
    selection = study.selection()
    confident = study.settings.selection.model_copy(update={"iou_threshold": 0.0})
    steps = {
        all_proposals(study, "cola"): study.generation("cola").train,
        all_proposals(study, study.settings.generation.method): selection.scored,
        "confidence filter": select(selection.scored, confident, study.video_classes),
        "IoU-score filter": selection.selected,
    }
    rows = [
        study.measure_labels(labels).assign(step=step, epoch=pd.NA)
        for step, labels in steps.items()
    ]
    ema = study.student("selected", distill=True).ema_labels
    for epoch, labels in ema.groupby("epoch"):
        for step, row in quality_in_crops(labels, selection.selected, truth).items():
            rows.append(row.assign(step=step, epoch=epoch))
    table = pd.concat(rows, ignore_index=True)
    first = ["step", "epoch"]
    table = table[first + [column for column in table.columns if column not in first]]
    return table.assign(data=study.data_name, origin="measured", seed=study.settings.seed)


def gains_over(results: pd.DataFrame, base: str, methods: list[str]) -> pd.DataFrame:
    """What methods gain over another one at every tIoU threshold.

    Args:
        results: ``method`` and ``MAP_COLUMNS`` (percent).
        base, methods: rows of it.

    Returns:
        Columns ``MAP_COLUMNS``; two rows a method, in points and in percent of the base's mAP (NaN
        where that is 0).
    """
    table = results.set_index("method")[MAP_COLUMNS].astype(float)
    rows = {}
    for method in methods:
        points = table.loc[method] - table.loc[base]
        rows[f"{method}: points"] = points
        rows[f"{method}: relative (%)"] = 100 * points / table.loc[base].where(table.loc[base] > 0)
    return pd.DataFrame(rows).T.rename_axis(f"gain over {base}")


def ceiling_beside_published(study: Study) -> pd.DataFrame:
    """The student on true segments beside the published student that learned from true segments.

    Columns: ``method``, ``data``, ``origin``, mAP at 0.3 to 0.7 and their average (percent).
    """
    found = study.student("truth", distill=False).detections
    rows = pd.DataFrame([measured_row(study, CEILING, "full", found)])
    published = thumos14().query("method == 'TriDet' and supervision == 'full'")
    published = published.assign(data="THUMOS'14 (real)", origin="published")
    columns = ["method", "data", "origin", *MAP_COLUMNS[2:], "avg 0.3:0.7"]
    return pd.concat([rows[columns], published[columns]]).set_index("method")


def quality_in_percent(quality: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Chosen columns for the eye: index step and epoch, fractions in percent.

    Args:
        quality: as from :func:`quality_along_pipeline`.
        columns: of it; of these, counts, ``*_s`` and ``fragments`` stay as they are.
    """
    keys = quality[["step", "epoch"]].astype(object)
    epochs = ["" if pd.isna(epoch) else f"{epoch}" for epoch in keys["epoch"]]
    index = pd.MultiIndex.from_arrays([keys["step"], epochs], names=["step", "epoch"])
    shown = quality[columns].set_axis(index)
    for column in columns:
        if column not in ("proposals", "instances", "fragments") and not column.endswith("_s"):
            shown[column] = 100 * shown[column].astype(float)
            shown = shown.rename(columns={column: f"{column} (%)"})
    return shown


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


def about_test_map(study: Study, history: pd.DataFrame) -> str:
    """What a picture of test mAP over the epochs cannot say itself: what it decided, who is missing.

    Args:
        history: as for ``figures_student.plot_training``, with the column ``method``.
    """
    lines = ["Nothing was chosen by looking at this curve: each student is its last epoch."]
    if study.settings.student.select == "best-on-test":
        lines = ["Each student is its best epoch on test (best-on-test): its score is too good."]
    if every := study.settings.student.evaluate_every:
        epochs = "epoch" if every == 1 else f"{every} epochs"
        lines.append(
            f"Evaluated every {epochs} (student.evaluate_every) and after the last one of each phase; "
            "epochs count from 0."
        )
    history = history.reindex(columns=["method", AVERAGE])
    counts = history.groupby("method", sort=False)[AVERAGE].count()
    if missing := list(counts.index[counts == 0]):
        lines.append(f"Not evaluated along the training, so without a curve: {', '.join(missing)}.")
    return "\n".join(lines)


def figures_dir(study: Study) -> Path | None:
    """The checkout's ``figures`` for the default run in its default place, else None."""
    settings = make_settings()
    is_default = study.settings == settings and (
        study.run_dir.resolve() == default_run_dir(settings).resolve()
    )
    return project_root() / "figures" if is_default else None


def keep_figure(study: Study, notebook: str, name: str, figure: Figure) -> Image:
    """Write a figure as PNG and PDF into a notebook's folder; returns the PNG, for the cell to show.

    It is shown at the figure's own size, and not drawn again.
    """
    from IPython.display import Image

    written = save_figure(figure, study.folder(notebook) / name)
    _copy(study, notebook, written)
    return Image(written[0].read_bytes(), width=round(figure.bbox.width))


def keep_table(study: Study, notebook: str, name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Write a table as CSV, Markdown and LaTeX into a notebook's folder; returns it.

    The two for people say which run it is from. If any weights of the run are chosen by test labels,
    a column of each table says by which settings, and so does a line in the notebook, which may show
    other columns.
    """
    if chosen := settings_on_test(study):
        table = table.assign(**{BEST_ON_TEST: ", ".join(chosen)})
        print(f"{name}: weights of this run are {BEST_ON_TEST} by {', '.join(chosen)}")
    path = study.folder(notebook) / name
    latex = table.apply(_shown).to_latex(index=False, escape=True)
    write_text(path.with_suffix(".csv"), table.to_csv(index=False))
    write_text(path.with_suffix(".md"), f"{to_markdown(table)}\n{about_run(study)}\n")
    write_text(path.with_suffix(".tex"), f"% {about_run(study)}\n{latex}")
    _copy(study, notebook, [path.with_suffix(suffix) for suffix in (".csv", ".md")])
    return table


def about_run(study: Study) -> str:
    """What the rows of a table are of, unless they say otherwise."""
    settings = study.settings
    return (
        f"From a run on {study.data_name}, profile {settings.profile}, seed {settings.seed}, where a "
        "row or column does not say otherwise; a mean says over how many seeds."
    )


def keep_metrics(study: Study, notebook: str, metrics: dict[str, Any]) -> None:
    """Write a notebook's ``metrics.json``, with the data and seed they belong to."""
    content = {"data": study.data_name, "seed": study.settings.seed, **metrics}
    write_json(study.folder(notebook) / "metrics.json", content)


def keep_pseudo_labels(study: Study, notebook: str, selected: pd.DataFrame) -> None:
    """Write selected labels as ``pseudo_labels.json``, which the original student's program reads."""
    path = study.folder(notebook) / "pseudo_labels.json"
    write_pseudo_labels(path, selected, study.dataset, study.data_name)


def to_markdown(table: pd.DataFrame) -> str:
    """A table for people: numbers with as many decimals as they need, nothing where nothing is known."""
    sides = ["right" if is_numeric_dtype(table[name]) else "left" for name in table]
    shown = table.apply(_shown).map(_in_a_cell)
    return shown.to_markdown(index=False, disable_numparse=True, colalign=sides) + "\n"


def _in_a_cell(value: object) -> object:
    return value.replace("|", r"\|") if isinstance(value, str) else value


def _shown(column: pd.Series) -> pd.Series:
    return readable(column, digits=decimals(pd.to_numeric(column, errors="coerce")))


def _copy(study: Study, notebook: str, paths: list[Path]) -> None:
    target = figures_dir(study)
    for path in paths if target else []:
        number = "" if path.stem in MAIN_TABLES else f"{notebook[:2]}_"
        with atomic_path(target / f"{number}{path.name}") as temporary:
            shutil.copyfile(path, temporary)
