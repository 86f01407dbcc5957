"""What each notebook trains, as jobs.

Notebooks make them, and ``fustal run`` sends those of all its notebooks to the workers at once, so that
nobody waits for a notebook that draws. What depends on the results of a training is not planned: which
rungs of the oracle ladder change labels.
"""

from __future__ import annotations

from collections.abc import Callable

from fustal_core import ablation, comparison, difficulty, ftcl_terms, jobs, label_cost, views_hrpro
from fustal_core.jobs import Job
from fustal_core.naming import GENERATORS
from fustal_core.stages import Study


def generators(study: Study) -> list[Job]:
    """CoLA, which calibrates the data, and FuSTAL's generator."""
    return [jobs.generation(study, method) for method in ("cola", "cross-video")]


def students(study: Study) -> list[Job]:
    """On selected labels with and without EMA distillation, and floor and ceiling without.

    CoLA's labels stand beside theirs.
    """
    return [
        jobs.generation(study, "cola"),
        *(jobs.student(study, "selected", distill=distill) for distill in (True, False)),
        *(jobs.student(study, labels, distill=False) for labels in ("raw", "truth")),
    ]


def methods(study: Study) -> list[Job]:
    """Every generator of the study."""
    return [jobs.generation(study, method) for method in GENERATORS]


def analysis(study: Study) -> list[Job]:
    """All methods, and small ones on easier and harder data."""
    depth = study.settings.analysis
    knobs = difficulty.chosen_knobs(study.settings)
    tried = difficulty.studies(study, depth.difficulty_seeds, knobs)
    harder = difficulty.jobs_of(tried, depth.difficulty_students)
    return [*methods(study), *students(study), *harder]


def alignment(study: Study) -> list[Job]:
    """ACM-Net and FTCL with and without its terms, over seeds of the training; FuSTAL's beside them."""
    return [*generators(study), *ftcl_terms.term_jobs(study, ftcl_terms.training_seeds(study))]


def points(study: Study) -> list[Job]:
    """HR-Pro, its first stage with points in other places, and students on its selected labels.

    Then one on all segments of so many videos as could be labelled so in the time that points take,
    and beside it what FuSTAL makes of video labels, and the student on all segments.
    """
    part = label_cost.on_share(study, label_cost.affordable_share("point"))
    placed = views_hrpro.placed_elsewhere(study).values()
    as_generator = comparison.generator_study(study, "hr-pro")
    return [
        jobs.generation(study, "hr-pro"),
        *(jobs.generation(one, "hr-pro-snippet") for one in placed),
        *(jobs.student(as_generator, distill=distill) for distill in (False, True)),
        jobs.student(part, "truth", distill=False),
        jobs.generation(study, "cross-video"),
        *(jobs.student(study, distill=distill) for distill in (False, True)),
        jobs.student(study, "truth", distill=False),
    ]


_NOTEBOOKS: dict[str, Callable[[Study], list[Job]]] = {
    "00_data": lambda study: [jobs.generation(study, "cola")],
    "01_generation": generators,
    "02_selection": lambda study: [jobs.generation(study)],
    "03_training": students,
    "04_ablation": ablation.jobs_of,
    "05_analysis": analysis,
    "06_ftcl": alignment,
    "07_hrpro": points,
}


def jobs_of(notebook: str, study: Study) -> list[Job]:
    """What a notebook trains, ``"03_training"``, say; nothing of one that somebody added."""
    return _NOTEBOOKS.get(notebook, lambda _: [])(study)
