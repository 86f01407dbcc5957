"""Trainings as a table of independent jobs, which :mod:`fustal_core.scheduling` lets workers do.

A job makes one product of a study: a generator with its proposals, the first phase of a student, a
student, a measurement. What several settings share is one job, and what was made before is none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

import torch

from fustal_core.config import Settings, SettingsError
from fustal_core.environment import environment
from fustal_core.made_from import STARTS_FROM, LabelSource
from fustal_core.rundir import Product, torch_device
from fustal_core.scheduling import SCHEDULER, make_at, missing_of
from fustal_core.stage_settings import Method
from fustal_core.stages import Study
from fustal_core.workers import connect, local_cluster

WORKERS = "FUSTAL_WORKERS"
"""Variable with the number of local workers; 1 makes one job after another, without any."""
MEASURING_WORK = 0.02
"""Of a measurement, in minutes, as below."""
_GENERATOR_WORK: dict[Method, float] = {
    "cola": 1.0,
    "cross-video": 1.0,
    "acm-net": 2.0,
    "ftcl": 1.0,
    "hr-pro-snippet": 5.0,
    "hr-pro": 1.5,
}
_STUDENT_WORK = 3.0
"""Minutes on a core, roughly, of a generator and of a student's epochs in ``quick``. They decide which
job begins first, so only their proportions count, and these are much the same in other profiles."""


@dataclass(frozen=True)
class Job:
    """What makes one product.

    Attributes:
        study: whose product it is.
        name: for people.
        product: where it lies.
        make: makes it, unless it is made, and what it needs as well.
        after: jobs whose products it needs.
        work: how long it takes, roughly, in minutes; decides what is begun first, and nothing else.
    """

    study: Study
    name: str
    product: Product
    make: Callable[[], object]
    after: tuple[Job, ...] = ()
    work: float = 0.0


def generation(study: Study, method: Method | None = None) -> Job:
    """The job of ``study.generation(method)``."""
    method = method or study.settings.generation.method
    before = STARTS_FROM.get(method)
    return Job(
        study,
        name_of(study, method),
        study.generation_product(method),
        partial(study.generation, method),
        (generation(study, before),) if before else (),
        _GENERATOR_WORK[method],
    )


def student(study: Study, labels: LabelSource = "selected", *, distill: bool = True) -> Job:
    """The job of ``study.student(labels, distill=distill)``."""
    settings = study.settings.student
    share = settings.switch_epoch / settings.epochs
    first = Job(
        study,
        name_of(study, f"student on {labels}, first phase"),
        study.student_product(labels, "phase_one"),
        partial(study.phase_one, labels),
        () if labels == "truth" else (generation(study),),
        _STUDENT_WORK * share,
    )
    how = "with EMA labels" if distill else "to its end"
    return Job(
        study,
        name_of(study, f"student on {labels} {how}"),
        study.student_product(labels, "ema" if distill else "plain"),
        partial(study.student, labels, distill=distill),
        (first, *first.after),
        _STUDENT_WORK * (1 - share),
    )


def name_of(study: Study, what: str) -> str:
    """What the job of a study is called."""
    variant = f" {study.run_dir.name}" if study.base else ""
    return f"seed {study.settings.seed}{variant}: {what}"


def make(
    wanted: Sequence[Job], *, scheduler: str | None = None, workers: int | None = None
) -> None:
    """Make all products that are missing, with what they need; afterwards they are only read.

    Args:
        wanted: jobs of any studies.
        scheduler: address of a dask scheduler, e.g. "tcp://node7:8786"; None: the one that the
            variable ``FUSTAL_SCHEDULER`` names, else a cluster of this machine's own.
        workers: of the own cluster; None: what ``FUSTAL_WORKERS`` says, else one for each GPU, or for
            each CPU core; 1: one job after another in this process.

    Raises:
        SettingsError: no scheduler at that address; a variable that is no number.
        JobError: a job ended its worker again and again.
        Exception: what the first failing job raised; jobs that wait are dropped.
    """
    missing = missing_of(wanted)
    if not missing:
        return
    scheduler = scheduler or os.environ.get(SCHEDULER)
    workers = workers or _asked_workers() or worker_count(missing[0].study.settings)
    if scheduler:
        make_at(scheduler, missing)
    elif len(missing) > 1 and workers > 1:
        with local_cluster(min(workers, len(missing))) as address:
            make_at(address, missing)
    else:
        for job, later in zip_longest(missing, missing[1:]):
            job.make()
            owner = job.study.data_owner
            job.study.forget_points()
            if owner.base and (later is None or later.study.data_owner is not owner):
                job.study.forget_data()  # one by one, not the data of all of them at once


def worker_count(settings: Settings) -> int:
    """One for each GPU, or each CPU core that this process may use; for smoke's seconds of work, one."""
    if settings.profile == "smoke":
        return 1
    if torch_device(settings) == "cuda":
        return torch.cuda.device_count()
    from dask.system import CPU_COUNT

    return CPU_COUNT


def _asked_workers() -> int:
    """What the variable says; 0 if there is none."""
    text = os.environ.get(WORKERS, "0")
    if not text.isdecimal():
        raise SettingsError(f"{WORKERS}: expected a whole number, got {text!r}")
    return int(text)


@contextmanager
def offered(scheduler: str | None, workers: int) -> Iterator[None]:
    """Let all notebooks that are executed in the block send their jobs to the same workers.

    Args:
        scheduler: address of one that runs already; None: workers of this machine's own.
        workers: how many of these; 1: none, each notebook makes one job after another.

    Raises:
        SettingsError: no scheduler at that address.
    """
    with ExitStack() as stack:
        if scheduler:
            connect(scheduler).close()
        elif workers > 1:
            scheduler = stack.enter_context(local_cluster(workers))
        with environment(**{SCHEDULER: scheduler, WORKERS: str(workers)}):
            yield
