"""The ablation: every cell of the grid, with every seed, measured once and kept.

A seed draws its own training and, of simulated data, its own videos. What a cell shares with others (a
generator, the first phase of a student) is made once. Test labels are used to measure, and to choose in
the cells that say "best-on-test".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from fustal_core import ema_quality, jobs
from fustal_core.comparison import without_looks
from fustal_core.files import write_parquet
from fustal_core.grid import Cell, Measured, cells
from fustal_core.made_from import LabelSource
from fustal_core.measuring import resampled_average, resampled_labels
from fustal_core.metrics import AVERAGE, map_summary
from fustal_core.naming import BEST_ON_TEST, choices_on_test
from fustal_core.resampling import Interval, paired_interval
from fustal_core.rounding import mean_and_spread
from fustal_core.rundir import Product
from fustal_core.stages import Study

LABEL_COLUMNS = ["proposals", "precision@0.5", "recall@0.5", "f1@0.5"]
_CODE = ("ema_quality", "measuring", "metrics", "quality", "selection", "left_out")
_DRAWS = 7  # what the random numbers of intervals are drawn from


@dataclass(frozen=True)
class Measurement:
    """A cell with one seed.

    Attributes:
        row: test mAP in percent by threshold and range; number and quality of the labels on the
            training videos (fractions).
        samples: (R,) each: ``"avg 0.1:0.7"``, percent, in resamples of the test videos;
            ``"precision@0.5"`` and ``"f1@0.5"`` of the labels, fractions, in resamples of the training
            videos; of a student that had EMA labels ``ema_quality.GAIN`` as well, in row and samples.
    """

    row: dict[str, float]
    samples: dict[str, np.ndarray]


@dataclass(frozen=True)
class Results:
    """The measured grid.

    Attributes:
        rows: a row per cell and seed: ``group``, ``cell``, ``measured``, ``changes`` (text, empty for
            the run's own method), ``value``, ``seed``, ``data``, ``origin``, mAP@0.1 .. and averages
            (percent), proposals, precision, recall and F1 of the labels at tIoU 0.5 (fractions),
            ``ema_quality.GAIN`` (a fraction; NaN without EMA labels), ``weights`` ("last" or
            "best-on-test"), ``source``.
        samples: (group, cell) -> measure -> (S, R), in the order of the seeds.
        shared_videos: whether all seeds have the same videos.
    """

    rows: pd.DataFrame
    samples: dict[tuple[str, str], dict[str, np.ndarray]]
    shared_videos: bool

    def difference(
        self,
        better: tuple[str, str],
        worse: tuple[str, str] | None = None,
        measure: str = AVERAGE,
    ) -> Interval:
        """What one cell gains over another with the same seed and videos, with a 95 % interval.

        Args:
            better, worse: group and name of the cells; without the second the measure of the first,
                which is a gain itself.
            measure: "avg 0.1:0.7" (points), "precision@0.5", "f1@0.5" or ``ema_quality.GAIN``
                (fractions).
        """
        resampled = self.samples[better][measure]
        return paired_interval(
            resampled,
            self.samples[worse][measure] if worse else np.zeros_like(resampled),
            np.random.default_rng(_DRAWS),
            differences=self.differences(better, worse, measure),
            shared_videos=self.shared_videos,
        )

    def differences(
        self,
        better: tuple[str, str],
        worse: tuple[str, str] | None = None,
        measure: str = AVERAGE,
    ) -> np.ndarray:
        """The differences of :meth:`difference` seed by seed, (S,), on all videos."""
        gains = self._by_seed(better, measure)
        return gains - self._by_seed(worse, measure) if worse else gains

    def _by_seed(self, cell: tuple[str, str], measure: str) -> np.ndarray:
        """(S,) a measure of a cell, in the order of the samples."""
        is_own = (self.rows["group"] == cell[0]) & (self.rows["cell"] == cell[1])
        return self.rows.loc[is_own, measure].to_numpy()


def run_grid(study: Study) -> Results:
    """Make and measure what the study's ``ablation.*`` settings ask for; what is there is read.

    Raises:
        SettingsError: unknown groups, or a setting that does not fit a cell.
    """
    settings = study.settings.ablation
    grid = cells(study.settings, settings.groups)
    studies = {seed: of_seed(study, seed) for seed in settings.seeds}
    jobs.make(jobs_of(study))
    rows, samples = [], {}
    for cell in grid:
        own = {seed: of_cell(of_its_seed, cell) for seed, of_its_seed in studies.items()}
        found = {seed: measurement(one, cell.measured, cell.labels) for seed, one in own.items()}
        rows += [_row(cell, own[seed], study.data_name, one) for seed, one in found.items()]
        samples[cell.group, cell.name] = _stacked([one.samples for one in found.values()])
    return Results(pd.DataFrame(rows), samples, study.settings.data != "simulated")


def _stacked(samples: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The measures that all seeds have, (S, R) each: without EMA labels one of them may lack theirs."""
    first, *others = samples
    return {
        measure: np.stack([own[measure] for own in samples])
        for measure in first
        if all(measure in own for own in others)
    }


def jobs_of(study: Study) -> list[jobs.Job]:
    """The measurements of all cells with all seeds, after the trainings that they need.

    Raises:
        SettingsError: as :func:`run_grid`.
    """
    settings = study.settings.ablation
    grid = cells(study.settings, settings.groups)
    return [
        measurement_job(of_cell(of_its_seed, cell), cell.measured, cell.labels)
        for of_its_seed in (of_seed(study, seed) for seed in settings.seeds)
        for cell in grid
    ]


def of_seed(study: Study, seed: int) -> Study:
    """The study with another seed, of simulated data as well; itself for its own."""
    if seed == study.settings.seed:
        return study
    return study.other(f"data-seed{seed}", seed=seed, overrides=without_looks(study))


def of_cell(study: Study, cell: Cell) -> Study:
    """The study with the cell's settings; itself for its own.

    All cells are variants of one study, which has what they share: one first phase, say, serves
    all thresholds of EMA labels.
    """
    if not cell.changes:
        return study
    name = "_".join(f"{setting}-{value}" for setting, value in cell.changes.items())
    unseen = without_looks(study)
    shared = study.variant("unseen", overrides=unseen) if unseen else study
    return shared.variant(name, overrides=dict(cell.changes))


def _row(cell: Cell, study: Study, data_name: str, found: Measurement) -> dict[str, Any]:
    has_student = "student" in cell.measured
    chosen = [who for who in choices_on_test(study) if has_student or who == "generator"]
    return {
        "group": cell.group,
        "cell": cell.name,
        "measured": cell.measured,
        "changes": ", ".join(f"{name} = {value}" for name, value in cell.changes.items()),
        "value": cell.value,
        "seed": study.settings.seed,
        "data": data_name,
        "origin": "measured",
        **found.row,
        "weights": BEST_ON_TEST if chosen else "last",
        "source": f"profile {study.settings.profile}",
    }


def measurement_job(study: Study, measured: Measured, labels: LabelSource) -> jobs.Job:
    """The job of :func:`measurement`, after those of what it measures."""
    return jobs.Job(
        study,
        jobs.name_of(study, f"measuring the {measured} ({labels} labels)"),
        _product(study, measured, labels),
        partial(measurement, study, measured, labels),
        (_measured_job(study, measured, labels), jobs.generation(study)),  # the second for labels
        jobs.MEASURING_WORK,
    )


def _measured_job(study: Study, measured: Measured, labels: LabelSource) -> jobs.Job:
    if measured in ("generator", "selected proposals"):
        return jobs.generation(study)
    return jobs.student(study, labels, distill=measured == "student + EMA")


def _product(study: Study, measured: Measured, labels: LabelSource) -> Product:
    settings = study.settings
    inputs = [
        measured,
        _measured_job(study, measured, labels).product.key,
        settings.selection.model_dump(),
        study.not_measured,
        settings.ablation.resamples,
    ]
    name = f"{measured} on {labels}".replace(" ", "-")
    return study.product(f"04_ablation/{name}", _CODE, inputs, measuring=("ablation",))


def measurement(study: Study, measured: Measured, labels: LabelSource = "selected") -> Measurement:
    """Measure a study's detections and labels, or read what was measured.

    Args:
        study: with the settings of a cell.
        measured: whose detections.
        labels: what the student learns from; of a generator, "raw".
    """
    product = _product(study, measured, labels)
    if not product.is_made:
        study.ensure(product, partial(_measure, study, measured, labels, product))
    row = pd.read_parquet(product.folder / "row.parquet").iloc[0].to_dict()
    resamples = pd.read_parquet(product.folder / "resamples.parquet")
    return Measurement(row, {measure: resamples[measure].to_numpy() for measure in resamples})


def _measure(study: Study, measured: Measured, labels: LabelSource, product: Product) -> None:
    detections = _detections(study, measured, labels)
    found, truth = study.measured(detections)
    own = study.generation().train if labels == "raw" else study.selection().selected
    quality = study.measure_labels(own)[LABEL_COLUMNS]
    row = {**map_summary(found, truth), **quality.iloc[0].to_dict(), ema_quality.GAIN: np.nan}
    tested, count = study.measured_videos, study.settings.ablation.resamples
    trained, segments = study.dataset.video_names("train"), study.dataset.truth("train")
    resamples = {
        AVERAGE: resampled_average(found, truth, tested, count),
        **resampled_labels(own, segments, trained, count),
    }
    ema = _last_ema_labels(study, measured, labels)
    if len(ema):
        row[ema_quality.GAIN] = ema_quality.f1_gain(ema, own, segments)
        gains = ema_quality.resampled_gain(ema, own, segments, trained, count)
        resamples[ema_quality.GAIN] = gains
    write_parquet(product.folder / "row.parquet", pd.DataFrame([row]))
    write_parquet(product.folder / "resamples.parquet", pd.DataFrame(resamples))


def _last_ema_labels(study: Study, measured: Measured, labels: LabelSource) -> pd.DataFrame:
    """Empty for what is measured without EMA labels."""
    if measured != "student + EMA":
        return pd.DataFrame()
    return ema_quality.last_epoch(study.student(labels, distill=True).ema_labels)


def _detections(study: Study, measured: Measured, labels: LabelSource) -> pd.DataFrame:
    if measured == "generator":
        return study.generation().detections
    if measured == "selected proposals":
        return study.selected_in_test()
    return study.student(labels, distill=measured == "student + EMA").detections


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds, a row per cell, as text.

    Args:
        rows: of :class:`Results`.
    """
    groups = rows.groupby(["group", "cell", "measured", "changes"], sort=False)
    text = groups[[AVERAGE, "mAP@0.3", "mAP@0.5", "mAP@0.7"]].agg(mean_and_spread)
    f1 = groups["f1@0.5"].agg(lambda values: mean_and_spread(100 * values))
    weights = groups["weights"].first()
    table = text.assign(**{"F1@0.5 of the labels": f1, "weights": weights, "seeds": groups.size()})
    return table.reset_index()


def over_default(results: Results) -> pd.DataFrame:
    """What every cell of a sweep or a switch gains over the run's own value of that setting.

    Returns:
        ``group``, ``cell``, ``measured``, ``gain`` (points of average mAP 0.1:0.7), ``low``, ``high``
        (95 %, :meth:`Results.difference`; with one seed, over its videos alone), ``sd`` (over seeds),
        ``seeds``.
    """
    rows = []
    swept = results.rows[results.rows["group"] != "stages"]
    for (group, measured), own in swept.groupby(["group", "measured"], sort=False):
        defaults = own.loc[own["changes"] == "", "cell"].unique()
        others = own.loc[own["changes"] != "", "cell"].unique()
        for cell in others if len(defaults) else ():
            found = results.difference((group, cell), (group, defaults[0]))
            numbers = [found.mean, found.low, found.high, found.sd, found.seeds]
            rows.append([group, cell, measured, *numbers])
    columns = ["group", "cell", "measured", "gain", "low", "high", "sd", "seeds"]
    return pd.DataFrame(rows, columns=columns)
