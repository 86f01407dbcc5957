"""Jobs done in parallel by dask's ``distributed``: what begins when, and what is said of it.

A job on a CPU computes on one thread, so results do not depend on how many jobs run at once, on which
worker, or in which order. If a worker dies, its job starts again on another, from its last checkpoint.
Jobs with the same data follow each other, so that a worker has it at hand; of these comes first what the
longest chain of jobs waits for, so that no such chain is left to one worker at the end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fustal_core.config import SettingsError
from fustal_core.progress import NOTE, say_note, show_progress
from fustal_core.rundir import all_code
from fustal_core.stages import Study
from fustal_core.workers import JobError, connect, run_job

if TYPE_CHECKING:
    from distributed import Client, Future, KilledWorker

    from fustal_core.jobs import Job

SCHEDULER = "FUSTAL_SCHEDULER"
"""Variable with the address of a scheduler that notebooks send their jobs to."""
_MOMENT_S, _LOOK_AGAIN_S = 0.2, 10.0
_OTHER_DATA, _LATER = 1e3, 1e7
"""What a job of the next data comes later, and one of the next list: more than any chain's work."""


def missing_of(wanted: Sequence[Job], seen: set[Path] | None = None) -> list[Job]:
    """The jobs whose products are not made, each once and after those it needs.

    Args:
        wanted: jobs of any studies.
        seen: folders of products that were asked for before, which are passed over; grows.
    """
    seen = set() if seen is None else seen
    found: list[Job] = []

    def visit(job: Job) -> None:
        if job.product.folder in seen:
            return
        seen.add(job.product.folder)
        if not job.product.is_made:
            for before in job.after:
                visit(before)
            found.append(job)

    for job in wanted:
        visit(job)
    return found


def chain_works(missing: Sequence[Job]) -> list[float]:
    """The work of each job and of the longest chain of jobs that wait for it.

    Args:
        missing: each after those it needs.
    """
    later: dict[Path, float] = {}  # of the jobs that wait for a product
    found = []
    for job in reversed(missing):
        chain = job.work + later.get(job.product.folder, 0.0)
        for before in job.after:
            folder = before.product.folder
            later[folder] = max(chain, later.get(folder, 0.0))
        found.append(chain)
    return found[::-1]


def make_at(address: str, missing: Sequence[Job]) -> None:
    """Make products by the workers of a scheduler.

    Arguments and errors as in :func:`fustal_core.jobs.make`.
    """
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError

    count = f"{len(missing)} job{'s' * (len(missing) != 1)}"
    with connect(address) as client, show_progress(count) as progress:
        _check_workers(client, missing)
        doing: dict[str, str] = {}
        for topic in {_topic(job.study) for job in missing}:
            client.subscribe_topic(topic, partial(_hear, doing))
        waiting = _submitted(client, missing, priorities(missing))
        look, nobody = time.monotonic(), False
        try:
            while waiting:
                if time.monotonic() >= look:
                    look = time.monotonic() + _LOOK_AGAIN_S
                    nobody = _has_nobody_for(client, missing, nobody)
                for future in _finished(waiting):
                    future.result()
                    waiting.remove(future)
                keys = {future.key for future in waiting}
                lines = [line for key, line in list(doing.items()) if key in keys]
                progress(len(missing) - len(waiting), len(missing), "; ".join(lines))
        except KilledWorker as error:
            begun = {future.key for future in waiting if future.status == "error"} & set(doing)
            raise JobError(_told(missing, begun or {error.task}, error)) from None
        except FutureCancelledError:
            raise JobError(f"the scheduler at {address} has gone") from None
        finally:
            with suppress(Exception):  # it may have gone; what ended the waiting is the error
                client.cancel(waiting)


@contextmanager
def begun_ahead(planned: Iterable[Sequence[Job]]) -> Iterator[None]:
    """Let the offered workers make, while the block runs, what will be asked for; nobody waits for it.

    Who asks finds it made, or under way, or failed. Without workers nothing is begun.

    Args:
        planned: jobs, list by list in the order in which they will be asked for. All of a list come
            before all of the next, and after whatever is being asked for.
    """
    address = os.environ.get(SCHEDULER)
    seen: set[Path] = set()
    lists = [missing_of(wanted, seen) for wanted in planned] if address else []
    missing = [job for wanted in lists for job in wanted]
    if not missing:
        yield
        return
    number = [n for n, wanted in enumerate(lists, start=1) for _ in wanted]
    later = [priority - _LATER * n for n, priority in zip(number, priorities(missing), strict=True)]
    with connect(address) as client:
        futures = _submitted(client, missing, later)
        try:
            yield
        finally:
            with suppress(Exception):  # the scheduler may have gone
                client.cancel(futures)


def key_of(job: Job) -> str:
    """What dask knows a job by: its product, which several names may stand for.

    By what stands before the comma dask groups jobs, and of a group it does not keep to priorities.
    """
    return f"({job.product.folder.resolve()}, {job.product.key})"


def priorities(missing: Sequence[Job]) -> list[float]:
    """Of the jobs that can start the one with the highest does; see the head of this module.

    Args:
        missing: each after those it needs; data that comes first in it goes first.
    """
    data: dict[Path, int] = {}
    return [
        chain
        - 1e-6 * order
        - _OTHER_DATA * data.setdefault(job.study.data_owner.run_dir, len(data))
        for order, (job, chain) in enumerate(zip(missing, chain_works(missing), strict=True))
    ]


def _topic(study: Study) -> str:
    """Where the jobs of a run say what they do; other runs may send jobs to the same scheduler."""
    while study.base:
        study = study.base
    return f"fustal-progress-{study.run_dir.resolve()}"


def _told(missing: Sequence[Job], ended: set[str], error: KilledWorker) -> str:
    """Which job ended its workers, and what may be done about it.

    ended: keys of the jobs that were given up after they had begun; others only waited there.
    """
    names = {key_of(job): job.name for job in missing}
    name = " or ".join(sorted(names.get(key, key) for key in ended))
    times = error.allowed_failures + 1
    return (
        f"{name}: its worker died {times} time{'s' * (times != 1)}, the last one at "
        f"{error.last_worker.address}; was it killed for lack of memory, or because its time was "
        "up? What is made is kept: the same command goes on from the last checkpoint"
    )


def _check_workers(client: Client, missing: Sequence[Job]) -> None:
    """Refuse what no worker there takes; where there is none yet, one may come."""
    found, able = _workers_for(client, missing)
    if found and not able:
        raise SettingsError(
            "--scheduler: no worker there offers a GPU: start them with --resources GPU=1, or "
            "--set device=cpu"
        )


def _has_nobody_for(client: Client, missing: Sequence[Job], before: bool) -> bool:
    """Whether nobody is there who takes the jobs, which is said when it begins."""
    found, able = _workers_for(client, missing)
    if client.status != "running":  # it looks for its scheduler; jobs tell when that has gone
        return before
    if not able and not before:
        which = "workers that offer a GPU" if found else "workers"
        say_note(f"the scheduler has no {which}; waiting for one")
    return not able


def _workers_for(client: Client, missing: Sequence[Job]) -> tuple[int, int]:
    """How many workers there are, and how many of them take the jobs; none, where nobody answers."""
    found = client.scheduler_info(n_workers=-1).get("workers", {}).values()
    on_gpu = any(job.study.device == "cuda" for job in missing)
    able = [worker for worker in found if not on_gpu or "GPU" in worker["resources"]]
    return len(found), len(able)


def _hear(doing: dict[str, str], event: tuple[float, tuple[str, str, str]]) -> None:
    """Keep what a job is doing, and say what it has to say."""
    key, job, line = event[1]
    if line.startswith(NOTE):
        say_note(f"{job}: {line.removeprefix(NOTE)}")
    else:
        doing[key] = f"{job}: {line}" if line else job


def _submitted(client: Client, missing: Sequence[Job], ranks: Sequence[float]) -> list[Future]:
    """The jobs' futures; a job starts when those before it are done.

    A job that the scheduler has from another client is the same one, and done once.

    ranks: priority of each.
    """
    futures: dict[Path, Future] = {}
    for job, rank in zip(missing, ranks, strict=True):
        before = [futures[x.product.folder] for x in job.after if x.product.folder in futures]
        futures[job.product.folder] = client.submit(
            run_job,
            replace(job, after=()),
            before,
            all_code(),
            _topic(job.study),
            key=key_of(job),
            pure=False,
            priority=rank,
            resources={"GPU": 1} if job.study.device == "cuda" else None,
        )
    return list(futures.values())


def _finished(waiting: Iterable[Future]) -> set[Future]:
    """Those that have ended; if none has, after a moment.

    They are looked at one by one, since each call of distributed's own ``wait`` that times out leaves
    something behind with every future: gigabytes in a night of hundreds of jobs.
    """
    found = {future for future in waiting if future.done()}
    if not found:
        time.sleep(_MOMENT_S)
    return found
