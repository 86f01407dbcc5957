"""Worker processes that make the jobs they are sent, by dask's ``distributed``: started here, or found.

Workers read and write the run directory: on a cluster it lies on a file system that all of them see.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch

from fustal_core.config import SettingsError
from fustal_core.data import Dataset
from fustal_core.environment import environment
from fustal_core.memory import keep_freed_memory
from fustal_core.progress import reported_to
from fustal_core.rundir import all_code
from fustal_core.stages import Study

if TYPE_CHECKING:
    from distributed import Client, Scheduler

    from fustal_core.jobs import Job

_PATIENCE_S = 10
_OPEN_FILES = 10_240
"""More than enough for a thousand workers, and the most that macOS accepts."""
_DEATHS = 6
"""Of its workers that a job outlives. Dask counts those of a worker with which it merely waits."""
_ALONE = Lock()
"""Held by a worker's job: torch's random numbers and threads are those of the whole process."""
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_BEGIN_WITH = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_BEGIN_WITH |= {"PYTHONHASHSEED": "6640"}  # dask's own, for the process they fork from as well
"""What workers begin with. Dask sets it in this process, so the kernels of notebooks have it, too.
Its own setting has them hand back all that is freed: they took twice as long to simulate the data."""
_SLOW_IMPORTS = ["distributed", "fustal_core.workers", "scipy.signal", "torch._dynamo"]
"""What takes a worker some eight seconds of its processor: training imports the last, simulating the
one before."""


_OTHER_PROCESSOR = (
    "where it is drawn anew on another kind of processor, its last bits may differ; 'fustal simulate' "
    "writes it once, and --data reads it from there"
)


class JobError(Exception):
    """A job that cannot be done; the message says which, and what to look for."""


@contextmanager
def local_cluster(workers: int) -> Iterator[str]:
    """Worker processes on this machine, one thread each, or a GPU each; yields the address.

    Raises:
        SettingsError: so many could not be started.
    """
    import dask
    from distributed import Nanny, SpecCluster

    here = {"host": "127.0.0.1"}  # workers run whatever they are sent: nobody else may send
    common = here | {"nthreads": 1, "memory_limit": 0, "silence_logs": logging.ERROR}
    gpus = _gpus()
    places: list[dict[str, Any]] = [{} for _ in range(workers)]
    for i, place in enumerate(places if gpus else []):
        place["resources"] = {"GPU": 1}
        place["env"] = {_VISIBLE: gpus[i % len(gpus)]}
    local = here | {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    own_way = {
        "distributed.worker.profile.enabled": False,  # it looks 100 times a second what is done
        "distributed.scheduler.allowed-failures": _DEATHS,
        "distributed.scheduler.worker-saturation": 1.0,  # no job is at hand of a worker that has one
        "distributed.admin.tick.interval": "1s",  # each process looks at its clock 50 times a second
        "distributed.nanny.pre-spawn-environ": _BEGIN_WITH,
        "distributed.worker.multiprocessing-method": ("forkserver" if _workers_fork() else "spawn"),
    }
    _allow_many_open_files()
    begin_slow_imports()
    with dask.config.set(own_way):
        try:
            cluster = SpecCluster(
                workers={i: {"cls": Nanny, "options": common | x} for i, x in enumerate(places)},
                scheduler={"cls": _one_queue(), "options": local},
                silence_logs=logging.ERROR,
            )
        except (OSError, RuntimeError) as error:
            raise SettingsError(f"--workers: {workers} could not be started: {error}") from None
        with cluster:
            yield cluster.scheduler_address


def _workers_fork() -> bool:
    """Whether workers fork from one process that imported what they need; CUDA does not outlive that."""
    return sys.platform == "linux" and not torch.cuda.device_count()


def begin_slow_imports() -> None:
    """Start the process that workers fork from, if they do: it imports while this one goes on."""
    if _workers_fork():
        multiprocessing.set_forkserver_preload(_SLOW_IMPORTS)
        with environment(**_BEGIN_WITH):
            forkserver.ensure_running()


def _one_queue() -> type[Scheduler]:
    """A scheduler of which a worker that has nothing to do gets the most urgent job that can start.

    Dask keeps only some jobs back until a worker is free. Others it hands out as soon as they can start,
    by how long it guesses that those before them take: a worker stood idle for more than a minute while
    the most urgent job waited behind another one's training. And what a job made possible comes right
    after it, so that of two workers one had nothing left to do for the last chain of jobs.
    """
    from distributed import Scheduler
    from distributed.scheduler import WorkerState

    class OneQueue(Scheduler):
        is_serving = False

        def is_rootish(self, ts: Any) -> bool:
            return True  # of what dask calls so the rest stays in its queue

        def stimulus_queue_slots_maybe_opened(self, *, stimulus_id: str) -> None:
            self.is_serving = True
            super().stimulus_queue_slots_maybe_opened(stimulus_id=stimulus_id)
            self.is_serving = False

        def decide_worker_rootish_queuing_enabled(self) -> WorkerState | None:
            if self.queued and not self.is_serving:
                return None  # others wait: a worker that is free takes the most urgent of all next
            return super().decide_worker_rootish_queuing_enabled()

    return OneQueue


def _allow_many_open_files() -> None:
    """As many as the system lets this process have: each worker takes some nine of them here."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if most == resource.RLIM_INFINITY else min(most, _OPEN_FILES)
    if allowed != resource.RLIM_INFINITY and allowed < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _gpus() -> list[str]:
    """What the GPUs that this process may use are called where CUDA looks for such names."""
    count = torch.cuda.device_count()
    named = os.environ.get(_VISIBLE)
    return (named.split(",") if named else [str(i) for i in range(count)])[:count]


def connect(address: str) -> Client:
    """A client of the scheduler at an address.

    Raises:
        SettingsError: there is none.
    """
    from distributed import Client
    from distributed.utils import LoopRunner

    try:
        # First, since a client that finds nobody may block whoever collects it as garbage.
        LoopRunner().run_sync(_knock, address)
        return Client(address, timeout=_PATIENCE_S)
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"--scheduler: no dask scheduler at {address}: {error}") from None


async def _knock(address: str) -> None:
    from distributed import Security, comm

    arguments = Security().get_connection_args("client")
    line = await comm.connect(address, timeout=_PATIENCE_S, **arguments)
    await line.close()


def run_job(job: Job, before: Sequence[None], code: str, topic: str) -> None:
    """What a worker does: the job, with data that it may have at hand from the last one."""
    from distributed import get_worker

    if code != all_code():
        raise JobError(f"{job.name}: the worker has another version of fustal_core")
    worker = get_worker()
    key, kept = worker.get_current_task(), worker.__dict__.setdefault("fustal_data", {})

    def report(line: str) -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise JobError(f"{job.name}: nobody waits for it any more")
        worker.log_event(topic, (key, job.name, line))

    with _ALONE, reported_to(report):
        keep_freed_memory()  # which a 'dask worker' started by hand gives back at once
        report("")
        if job.product.is_made:  # by a worker that died since, whose jobs dask does again
            return
        owner = job.study.data_owner
        try:
            _provide_data(owner, kept)
            job.make()
            kept[owner.fingerprint] = owner.dataset
        finally:
            job.study.forget_data()  # dask keeps a job for as long as anybody waits for it


def _provide_data(owner: Study, kept: dict[str, Dataset]) -> None:
    """Give a study the data that is at hand, if it is its own; else make room for its own."""
    if owner.fingerprint in kept:
        owner.data = kept[owner.fingerprint]
        return
    kept.clear()
    # Other studies of a run have data of their settings, which no fingerprint was taken of.
    if not owner.base and owner.dataset.fingerprint != owner.fingerprint:
        why = _OTHER_PROCESSOR if owner.settings.data == "simulated" else "were files changed?"
        raise JobError(f"the data that the worker finds is not that of the run: {why}")
