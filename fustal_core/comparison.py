"""FuSTAL's later stages on the proposals of every generator of the study, over several seeds.

A generator's proposals go through the same selection, student and distillation, with the same settings,
whichever generator they are from. Each seed draws its own data (of simulated data) and its own
training, in the run directory that ``fustal run --seed`` uses, so that what is there is not made twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from fustal_core import jobs
from fustal_core.config import changed_settings, make_settings
from fustal_core.figures import save_figure
from fustal_core.figures_generators import STEPS, plot_generators
from fustal_core.files import remove_partial_files, write_text
from fustal_core.locks import refuse_second_run, run_lock
from fustal_core.metrics import AVERAGE
from fustal_core.naming import (
    ACM_NET,
    BEST_ON_TEST,
    FTCL,
    GENERATORS,
    choices_on_test,
    supervision_name,
)
from fustal_core.reporting import AVERAGE_COLUMNS, MAP_COLUMNS
from fustal_core.resampling import t_interval
from fustal_core.rundir import default_run_dir, resolve_data
from fustal_core.selection import score_proposals, select
from fustal_core.stage_settings import Method
from fustal_core.stages import Study, open_study

LABEL_COLUMNS = ["proposals", "precision@0.5", "recall@0.5", "f1@0.5", "mean_tiou"]
COLUMNS = [
    "generator",
    "supervision",
    "step",
    "data",
    "origin",
    "seed",
    *MAP_COLUMNS,
    *AVERAGE_COLUMNS,
    *LABEL_COLUMNS,
    "source",
]


def compare_generators(
    seeds: Sequence[int],
    methods: Sequence[Method],
    data: str = "simulated",
    profile: str = "quick",
    overrides: dict[str, Any] | None = None,
    *,
    force: bool = False,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Measure every step of every generator with every seed; what was made before is only read.

    All run directories are claimed before the first training, and each is locked while it is used.

    Args:
        seeds: of data and training.
        methods: generators.
        data, profile, overrides: as for ``stages.open_study``.
        force: take over run directories made with other settings.
        say: receives a line for each generator of each seed.

    Returns:
        ``COLUMNS``, one row per generator, step and seed: test mAP in percent; of the proposals that
        are labels, their number and quality on the training videos (fractions; NaN for students).

    Raises:
        SettingsError: bad settings, or a run directory made with others.
        RunDirectoryBusyError: a run is at work in one of them.
        DataError: every problem of the data folder.
    """
    for seed in seeds:
        refuse_second_run(
            default_run_dir(make_settings(resolve_data(data), profile, seed, overrides))
        )
    studies = [open_study(data, profile, seed, overrides=overrides, force=force) for seed in seeds]
    rows = []
    while studies:
        study = studies.pop(0)  # and its features with it
        with run_lock(study.run_dir):
            own = [generator_study(study, method) for method in methods]
            jobs.make(
                [jobs.student(one, distill=distill) for one in own for distill in (False, True)]
            )
            for method in methods:
                found = list(generator_rows(study, method))
                rows += found
                averages = ", ".join(f"{row['step']} {row[AVERAGE]:.1f}" for row in found)
                say(f"seed {study.settings.seed}: {GENERATORS[method]}, {AVERAGE}: {averages}")
    return pd.DataFrame(rows, columns=COLUMNS)


def generator_rows(
    study: Study, method: Method, *, students: bool = True
) -> Iterator[dict[str, Any]]:
    """The rows of one generator in one study, with ``COLUMNS``; without students, the first two."""
    changes = changed_settings(
        make_settings(study.settings.data, study.settings.profile), study.settings
    )
    source = [f"profile {study.settings.profile}", f"seed {study.settings.seed}"]
    named = ("seed:", "generation.method:")  # in columns of their own
    source += [line for line in changes if not line.startswith(named)]
    study = generator_study(study, method)
    generation, selection = study.generation(), study.selection()
    # In test videos no class is known: those that are proposed stand for them.
    settings = study.settings.selection
    selected = select(score_proposals(generation.test, settings), settings)
    found = [generation.detections, selected]
    for distill in (False, True) if students else ():
        found.append(study.student("selected", distill=distill).detections)
    labels = (selection.scored, selection.selected)
    quality = {
        step: study.measure_labels(own)[LABEL_COLUMNS].iloc[0].to_dict()
        for step, own in zip(STEPS, labels, strict=False)
    }
    chosen = [who for who in choices_on_test(study) if students or who == "generator"]
    note = f" ({' and '.join(chosen)} {BEST_ON_TEST})" if chosen else ""
    for step, detections in zip(STEPS, found, strict=False):
        yield {
            "generator": f"{GENERATORS[method]}{note}",
            "supervision": supervision_name(method),
            "step": step,
            "data": study.data_name,
            "origin": "measured",
            "seed": study.settings.seed,
            **study.measure(detections),
            **quality.get(step, {}),
            "source": ", ".join(source),
        }


def generator_study(study: Study, method: Method) -> Study:
    """The study with the proposals of a generator; itself for its own.

    The students of another one are not measured along their training.
    """
    if study.settings.generation.method == method:
        return study
    overrides = {"generation.method": method} | without_looks(study)
    return study.variant(f"generator-{method}", overrides=overrides)


def without_looks(study: Study) -> dict[str, Any]:
    """What keeps students from being measured along their training, unless that chooses their weights.

    It costs time, and changes nothing else.
    """
    settings = study.settings.student
    is_needed = settings.select == BEST_ON_TEST or not settings.evaluate_every
    return {} if is_needed else {"student.evaluate_every": 0}


def summarise(rows: pd.DataFrame, measure: str = AVERAGE, scale: float = 1.0) -> pd.DataFrame:
    """Mean and standard deviation over seeds: a row per generator, a column per step, as text.

    Args:
        rows: as from :func:`compare_generators`.
        measure: one of its numbers; steps for which it is unknown are left out.
        scale: 100 for fractions.
    """
    known = rows.dropna(subset=[measure])
    text = known.pivot_table(
        index="generator",
        columns="step",
        values=measure,
        aggfunc=lambda values: mean_and_spread(scale * values),
    )
    order = [step for step in STEPS if step in text.columns]
    return text.reindex(index=rows["generator"].unique(), columns=order)


def step_gains(rows: pd.DataFrame) -> pd.DataFrame:
    """What steps gain, in points of average mAP (0.1:0.7) with the same seed: a row per generator, text.

    The last column compares students: with that of the first generator.

    Args:
        rows: as from :func:`compare_generators`.
    """
    raw, _, student, distilled = STEPS
    score = rows.pivot_table(index="seed", columns=["generator", "step"], values=AVERAGE)
    first, *others = rows["generator"].unique()
    found: dict[str, dict[str, str]] = {}
    for name in (first, *others):
        own = score[name]
        found[name] = {
            f"{student} over {raw}": gain_and_interval(own[student] - own[raw]),
            f"{distilled} over {student}": gain_and_interval(own[distilled] - own[student]),
        }
        if name != first:
            gain = own[student] - score[first, student]
            found[name][f"{student} over that of {first}"] = gain_and_interval(gain)
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("generator").fillna("")


def gain_and_interval(gains: pd.Series) -> str:
    """``+9.9 ± 1.1 (+7.2 to +12.6)``: mean, standard deviation, Student's 95 % interval over seeds."""
    mean = mean_and_spread(gains, "+")
    if len(gains) == 1:
        return mean
    found = t_interval(gains.to_numpy())
    return f"{mean} ({found.low:+z.1f} to {found.high:+z.1f})"


TRAINED_ON = "trained on, no contrast"
TERMS: dict[str, dict[str, Any] | None] = {
    ACM_NET: None,
    TRAINED_ON: {"ftcl.fsd_weight": 0.0, "ftcl.lcs_weight": 0.0},
    "without FSD": {"ftcl.fsd_weight": 0.0},
    "without LCS": {"ftcl.lcs_weight": 0.0},
    FTCL: {},
}
"""FTCL with and without its terms -> settings; None: before its training. The second sees the same pairs
as often, so that what more training does is not taken for what a contrast does."""

_METHODS: dict[str, Method] = {
    name: "acm-net" if changes is None else "ftcl" for name, changes in TERMS.items()
}


def training_seeds(study: Study) -> list[int]:
    """The run's own seed and those after it."""
    return [study.settings.seed + more for more in range(study.settings.analysis.term_seeds)]


def term_jobs(study: Study, seeds: Sequence[int]) -> list[jobs.Job]:
    """The trainings of :func:`terms_over_seeds`."""
    return [
        jobs.generation(term(study, seed, name), method)
        for seed in seeds
        for name, method in _METHODS.items()
    ]


def terms_over_seeds(study: Study, seeds: Sequence[int]) -> pd.DataFrame:
    """FTCL with and without its terms on the study's data, over seeds of the training alone.

    Returns:
        ``variant`` (of ``TERMS``), ``seed``, ``data``, ``weights`` ("last" or "best-on-test"), test
        mAP in percent. All variants of a seed start from the same ACM-Net.
    """
    jobs.make(term_jobs(study, seeds))
    rows = []
    for seed in seeds:
        for name, method in _METHODS.items():
            found = term(study, seed, name).generation(method).detections
            chosen = BEST_ON_TEST if "generator" in choices_on_test(study, method) else "last"
            row = {"variant": name, "seed": seed, "data": study.data_name, "weights": chosen}
            rows.append(row | study.measure(found))
    return pd.DataFrame(rows)


def term(study: Study, seed: int, name: str) -> Study:
    """The study with another seed of the training, and with some of FTCL's terms (of ``TERMS``)."""
    of_seed = study.variant(f"seed{seed}", seed=seed)
    overrides = TERMS[name]
    if not overrides:
        return of_seed
    return of_seed.variant(name.replace(",", "").replace(" ", "-"), overrides=overrides)


def paired_difference(
    rows: pd.DataFrame, better: str, worse: str, measure: str = AVERAGE
) -> pd.Series:
    """What one variant gains over another with the same seed, in points; index seed.

    Args:
        rows: as from :func:`terms_over_seeds`.
        better, worse: variants.
        measure: a column of it.
    """
    table = rows.pivot_table(index="seed", columns="variant", values=measure)
    return table[better] - table[worse]


def mean_and_spread(values: pd.Series, sign: Literal["", "+"] = "") -> str:
    """``41.4 ± 1.8``: mean and standard deviation (n - 1); of a single value, it alone.

    sign: "+" writes that of differences, ``+1.2 ± 0.3``.
    """
    mean = f"{values.mean():{sign}z.1f}"  # z: 0.0, not -0.0
    return f"{mean} ± {values.std():.1f}" if len(values) > 1 else mean


def write_comparison(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Write ``generators.csv`` (every seed), ``generators.md`` (mean and spread) and the figure."""
    seeds = ", ".join(map(str, rows["seed"].unique()))
    others = rows["source"].str.replace(r", seed \d+", "", regex=True).unique()
    about = f"{', '.join(rows['data'].unique())}; {'; '.join(others)}; seeds {seeds}"
    remove_partial_files(folder)
    parts = {
        "average mAP (0.1:0.7) on the test videos, percent": summarise(rows),
        "F1 of the training videos' labels at tIoU 0.5, percent": summarise(rows, "f1@0.5", 100),
    }
    spread = "mean ± standard deviation over seeds"
    parts["gains, points with the same seed (in brackets 95 % by Student's t)"] = step_gains(rows)
    text = "\n".join(
        f"{title}; {spread}; measured on {about}\n\n{table.fillna('').to_markdown()}\n"
        for title, table in parts.items()
    )
    write_text(folder / "generators.csv", rows.to_csv(index=False))
    write_text(folder / "generators.md", text)
    figures = save_figure(plot_generators(rows), folder / "generators")
    return [folder / "generators.csv", folder / "generators.md", *figures]


def comparison_dir(data: str, profile: str, overrides: dict[str, Any]) -> Path:
    """Where a comparison's table goes: a run directory's name with "generators" for the seed."""
    plain = default_run_dir(make_settings(data, profile, 0, overrides))
    before, _, after = plain.name.rpartition("-seed0")
    return plain.with_name(f"{before}-generators{after}")
