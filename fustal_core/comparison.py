"""FuSTAL's later stages on the proposals of every generator of the study, over several seeds.

A generator's proposals go through the same selection, student and distillation, with the same settings,
whichever generator they are from. Each seed draws its own data (of simulated data) and its own
training, in the run directory that ``fustal run --seed`` uses, so that what is there is not made twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fustal_core import jobs
from fustal_core.config import make_settings
from fustal_core.locks import refuse_second_run, run_lock
from fustal_core.metrics import AVERAGE
from fustal_core.naming import (
    BEST_ON_TEST,
    DISTILLED,
    GENERATORS,
    RAW,
    SELECTED,
    TRAINED,
    choices_on_test,
    supervision_name,
)
from fustal_core.reporting import AVERAGE_COLUMNS, MAP_COLUMNS
from fustal_core.rundir import changed_results, default_run_dir, resolve_data, resolve_overrides
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
    "weights",
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
        are labels, their number and quality on the training videos (fractions; NaN for students);
        ``weights``: "last", or whose weights test labels chose, the generator's or the students'.

    Raises:
        SettingsError: bad settings, or a run directory made with others.
        RunDirectoryBusyError: a run is at work in one of them.
        DataError: every problem of the data folder.
    """
    overrides = resolve_overrides(overrides or {})
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
    changes = changed_results(
        make_settings(study.settings.data, study.settings.profile), study.settings
    )
    source = [f"profile {study.settings.profile}", f"seed {study.settings.seed}"]
    named = ("seed:", "generation.method:")  # in columns of their own
    source += [line for line in changes if not line.startswith(named)]
    study = generator_study(study, method)
    found = {RAW: study.generation().detections, SELECTED: study.selected_in_test()}
    if students:
        found[TRAINED] = study.student("selected", distill=False).detections
        found[DISTILLED] = study.student("selected", distill=True).detections
    selection = study.selection()
    quality = {
        step: study.measure_labels(own)[LABEL_COLUMNS].iloc[0].to_dict()
        for step, own in ((RAW, selection.scored), (SELECTED, selection.selected))
    }
    chosen = choices_on_test(study)
    for step, detections in found.items():
        its_own = [who for who in chosen if step not in quality or who == "generator"]
        yield {
            "generator": GENERATORS[method],
            "supervision": supervision_name(method),
            "step": step,
            "data": study.data_name,
            "origin": "measured",
            "seed": study.settings.seed,
            **study.measure(detections),
            **quality.get(step, {}),
            "weights": f"{' and '.join(its_own)} {BEST_ON_TEST}" if its_own else "last",
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


def comparison_dir(data: str, profile: str, overrides: dict[str, Any]) -> Path:
    """Where a comparison's table goes: a run directory's name with "generators" for the seed."""
    plain = default_run_dir(make_settings(data, profile, 0, overrides))
    before, _, after = plain.name.rpartition("-seed0")
    return plain.with_name(f"{before}-generators{after}")
