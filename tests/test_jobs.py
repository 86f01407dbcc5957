"""Jobs: real workers make the same bits as one process, and a grid outlives their death."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cli_helpers import wait_for, wait_until
from distributed import Client
from training_helpers import TINY

from fustal_core import jobs, memory, rundir, scheduling, stages, workers
from fustal_core.ablation import measurement_job
from fustal_core.annotations import DataError
from fustal_core.config import Settings, SettingsError, make_settings
from fustal_core.data import Dataset
from fustal_core.features import FeatureStore
from fustal_core.files import load_checkpoint
from fustal_core.jobs import Job
from fustal_core.locks import making_lock
from fustal_core.naming import GENERATORS
from fustal_core.progress import VARIABLE, say_note, show_progress
from fustal_core.rundir import Product, RunDirectoryError
from fustal_core.stage_settings import Method
from fustal_core.stages import Study, load_data, open_study
from fustal_core.workers import JobError

LONG = TINY | {"generation.iterations": 300, "generation.checkpoint_every": 10}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two worker processes for all tests but those that change them for good."""
    with jobs.local_cluster(2) as address:
        yield address


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """All wanted, made one after the other in this process."""
    study = a_study(tmp_path_factory.mktemp("reference"))
    jobs.make(wanted(study), workers=1)
    return study


@pytest.fixture(autouse=True)
def no_workers_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (scheduling.SCHEDULER, jobs.WORKERS):
        monkeypatch.delenv(name, raising=False)


def a_study(run_dir: Path, **overrides: Any) -> Study:
    return open_study(profile="smoke", run_dir=run_dir, overrides=TINY | overrides)


def wanted(study: Study) -> list[Job]:
    """Two generators, both students of one of them, and a generator of other data."""
    other = study.other("data-seed1", seed=1)
    cola = study.variant("cola", overrides={"generation.method": "cola"})
    return [
        jobs.student(study, distill=False),
        jobs.student(study, distill=True),
        jobs.generation(cola),
        jobs.generation(other),
    ]


def made(run_dir: Path) -> dict[str, dict]:
    """Of every product its key and the digests of its files: weights, detections, histories."""
    return {
        str(path.parent.relative_to(run_dir)): json.loads(path.read_text())
        for path in run_dir.rglob("made.json")
    }


def writings(run_dir: Path) -> dict[Path, int]:
    """Every file of every product, and which writing of it."""
    return {
        path: path.stat().st_ino
        for folder in {made.parent for made in run_dir.rglob("made.json")}
        for path in folder.glob("[!.]*")
    }


def names(found: Sequence[Job]) -> list[str]:
    return [job.name for job in found]


def a_job(folder: Path, make: Callable[[], object], name: str = "mine", **about: Any) -> Job:
    """A job whose product is never there."""
    return Job(a_study(folder), name, Product(folder / name, "key"), make, **about)


# --- what workers do; they import it from here ----------------------------------------------------


def count_data_sets() -> int:
    gc.collect()
    return sum(type(one) is Dataset for one in gc.get_objects())


def count_feature_stores() -> int:
    gc.collect()
    return sum(type(one) is FeatureStore for one in gc.get_objects())


def fail(error: Exception) -> None:
    raise error


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def talk(seconds: float) -> None:
    with show_progress("counting") as progress:
        progress(3, 10, "sheep")
        say_note("one was black")
        time.sleep(seconds)


def talk_on(seconds: float) -> None:
    with show_progress("counting") as progress:
        for i in range(round(10 * seconds)):
            progress(i + 1, i + 1, "")
            time.sleep(0.1)


def write_line(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    time.sleep(0.3)


def wait_for_lines(path: Path, count: int) -> None:
    while not path.exists() or len(path.read_text(encoding="utf-8").split()) < count:
        time.sleep(0.1)


def count_new_pages(path: Path) -> None:
    """That the system gives for 12 arrays of 3 MB, taken together when those before them were freed."""

    def take() -> int:
        sum(len(array) for array in [np.ones(3 * 2**20, np.uint8) for _ in range(12)])
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    first, *_, last = [take() for _ in range(6)]
    path.write_text(str(last - first), encoding="utf-8")


def is_at_work(dask_worker: Any) -> bool:
    return workers._ALONE.locked() or bool(dask_worker.state.tasks)


def touch(path: Path) -> None:
    path.touch()


def has_data(study: Study) -> None:
    assert study.data is not None


def data_at_hand(dask_worker: Any) -> list[str]:
    return list(getattr(dask_worker, "fustal_data", {}))


def listens_at(dask_worker: Any) -> list[str]:
    return [listener.listen_address for listener in dask_worker.listeners]


# --- the same bits --------------------------------------------------------------------------------


def test_jobs_make_what_the_study_reads(reference: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("make_generation", "make_student", "run_student_training"):
        monkeypatch.setattr(stages, name, None)
    cola = reference.variant("cola", overrides={"generation.method": "cola"})
    for distill in (False, True):
        assert not reference.student(distill=distill).detections.empty
    assert not cola.generation().train.empty
    assert not reference.other("data-seed1", seed=1).generation().train.empty
    assert set(made(reference.run_dir)) == {
        "cache/simulated",
        "01_generation/cross-video",
        "01_generation/cola",
        "03_training/selected_phase_one",
        "03_training/selected",
        "03_training/selected+ema",
        "variants/data-seed1/01_generation/cross-video",
    }


@pytest.mark.parametrize("how", ["argument", "variable", "own cluster"])
def test_results_do_not_depend_on_who_makes_them(
    reference: Study, cluster: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = a_study(tmp_path)
    if how == "argument":
        jobs.make(wanted(study), scheduler=cluster)
    elif how == "variable":
        monkeypatch.setenv(scheduling.SCHEDULER, cluster)
        jobs.make(wanted(study))
    else:
        monkeypatch.setattr(jobs, "local_cluster", lambda workers: nullcontext(cluster))
        jobs.make(wanted(study), workers=2)
    assert made(tmp_path) == made(reference.run_dir)
    assert {path.read_text() for path in tmp_path.rglob(".making.lock")} == {""}
    with Client(cluster) as client:  # its workers keep the data of their last job, and no more
        kept = client.run(data_at_hand).values()
    both = {study.fingerprint, study.other("data-seed1", seed=1).fingerprint}
    assert all(len(of_one) == 1 and both.issuperset(of_one) for of_one in kept)


def test_what_is_made_is_not_made_again(
    reference: Study, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some jobs first, then all: the first ones' files stay; then nothing is left for anybody."""
    study = a_study(tmp_path)
    jobs.make(wanted(study)[:1], scheduler=cluster)
    before = writings(tmp_path)
    assert len(before) > 5
    jobs.make(wanted(study), scheduler=cluster)
    after = writings(tmp_path)
    assert {path: after[path] for path in before} == before
    assert made(tmp_path) == made(reference.run_dir)
    monkeypatch.setattr(jobs, "make_at", None)
    monkeypatch.setattr(jobs, "local_cluster", None)
    for options in ({"scheduler": cluster}, {"workers": 2}, {"workers": 1}):
        jobs.make(wanted(study), **options)
    assert writings(tmp_path) == after


def test_one_job_needs_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "local_cluster", None)
    study = a_study(tmp_path)
    jobs.make([jobs.generation(study, "cola")] * 2, workers=4)
    assert study.generation_product("cola").is_made


# --- which jobs, in what order --------------------------------------------------------------------


def test_what_several_need_is_one_job_before_them(tmp_path: Path) -> None:
    study = a_study(tmp_path)
    found = scheduling.missing_of(wanted(study))
    assert names(found) == [
        "seed 0: cross-video",
        "seed 0: student on selected, first phase",
        "seed 0: student on selected to its end",
        "seed 0: student on selected with EMA labels",
        "seed 0 cola: cola",
        "seed 1 data-seed1: cross-video",
    ]
    assert names(scheduling.missing_of([*wanted(study), *wanted(study)])) == names(found)
    assert scheduling.missing_of([]) == []


def test_every_job_comes_after_those_it_needs(tmp_path: Path) -> None:
    study = a_study(tmp_path)
    every = [jobs.generation(study, method) for method in ("ftcl", "hr-pro", "cola", "acm-net")]
    every += [jobs.student(study, labels) for labels in ("truth", "raw", "selected")]
    every += [jobs.student(study.variant("s1", seed=1), "raw", distill=False)]
    found = scheduling.missing_of(every[::-1])
    folders = [job.product.folder for job in found]
    assert len(folders) == len(set(folders))
    for place, job in enumerate(found):
        assert {before.product.folder for before in job.after} <= set(folders[:place])
    assert {"seed 0: acm-net", "seed 0: hr-pro-snippet"} <= set(names(found))


def test_who_opened_the_run_directory_says_in_it_with_what(
    reference: Study, cluster: str, tmp_path: Path
) -> None:
    """Workers do not, whose machines may be other ones; but of data that only they have made."""
    study = a_study(tmp_path)
    jobs.make(wanted(study)[:1], workers=1)
    path = tmp_path / "provenance.json"
    path.write_text("as it was opened")
    jobs.make(wanted(study), scheduler=cluster)
    assert path.read_text() == "as it was opened"
    other = tmp_path / "variants/data-seed1/provenance.json"
    assert json.loads(other.read_text())["seed"] == 1


def test_jobs_name_the_products_of_the_study(reference: Study) -> None:
    """The job is done when what the study looks for is there; the truth needs no generator."""
    for labels in ("selected", "truth", "raw"):
        for distill in (False, True):
            job = jobs.student(reference, labels, distill=distill)
            phase = "ema" if distill else "plain"
            assert job.product == reference.student_product(labels, phase)
            needed = {before.product for before in job.after}
            assert reference.student_product(labels, "phase_one") in needed
            generation = reference.generation_product("cross-video")
            assert (generation in needed) == (labels != "truth")
    assert jobs.generation(reference, "ftcl").after[0].product == (
        reference.generation_product("acm-net")
    )


def test_a_generator_that_is_gone_is_made_before_the_students_that_ask_for_it(
    tmp_path: Path,
) -> None:
    """Though their first phase, which it was made for, is there: two students would both make it."""
    study = a_study(tmp_path)
    study.phase_one("selected")
    (study.generation_product("cross-video").folder / "weights.safetensors").unlink()
    found = scheduling.missing_of(
        [jobs.student(study, distill=distill) for distill in (False, True)]
    )
    assert names(found)[0] == "seed 0: cross-video"
    assert len(found) == 3


def test_the_longest_chain_that_waits_for_a_job(tmp_path: Path) -> None:
    """Worked by hand: of a diamond, a chain of two and a job alone."""
    root = a_job(tmp_path, die, "root", work=1.0)
    left = a_job(tmp_path, die, "left", after=(root,), work=5.0)
    right = a_job(tmp_path, die, "right", after=(root,), work=2.0)
    end = a_job(tmp_path, die, "end", after=(left, right, root), work=0.5)
    first = a_job(tmp_path, die, "first", work=0.0)
    then = a_job(tmp_path, die, "then", after=(first,), work=9.0)
    alone = a_job(tmp_path, die, "alone", work=3.0)
    missing = [root, alone, left, right, end, first, then]
    assert scheduling.chain_works(missing) == [6.5, 3.0, 5.5, 2.5, 0.5, 9.0, 9.0]
    assert scheduling.chain_works([]) == []


def test_what_takes_how_long(tmp_path: Path) -> None:
    """HR-Pro's attention the most, then a student, the other generators, a measurement; none none."""
    study = a_study(tmp_path, **{"student.epochs": 4, "student.switch_epoch": 3})
    works = {method: jobs.generation(study, method).work for method in GENERATORS}
    attention, generators = works.pop("hr-pro-snippet"), works.values()
    plain, ema = [jobs.student(study, distill=distill) for distill in (False, True)]
    assert plain.work == ema.work == plain.after[0].work / 3
    assert attention > plain.work + plain.after[0].work > max(generators)
    measuring = measurement_job(study, "student", "selected")
    assert 0 < measuring.work < min(*generators, plain.work)


def test_the_longest_chain_is_begun_first(tmp_path: Path) -> None:
    """By one worker, whatever the order of the list; jobs of the same length in its order."""
    log = tmp_path / "log"
    a, b, c, d, long = (
        a_job(tmp_path, partial(write_line, log, name), name, work=work)
        for name, work in {"a": 1.0, "b": 1.0, "c": 2.0, "d": 0.1, "long": 1.0}.items()
    )
    blocking = a_job(tmp_path, partial(time.sleep, 1), "blocking", work=99.0)
    last = a_job(tmp_path, partial(write_line, log, "last"), "last", after=(long,), work=5.0)
    with jobs.local_cluster(1) as address:
        jobs.make([blocking, a, b, c, d, last], scheduler=address)
    assert log.read_text().split() == ["long", "last", "c", "a", "b", "d"]


def test_no_job_waits_behind_another_s_training(tmp_path: Path) -> None:
    """Of two workers one is busy until all else is done: by the other, the most urgent job first."""
    log = tmp_path / "log"
    names = [f"job{i}" for i in range(8)]
    others = [
        a_job(tmp_path, partial(write_line, log, name), name, work=8.0 - i)
        for i, name in enumerate(names)
    ]
    last = a_job(tmp_path, partial(write_line, log, "last"), "last", after=(others[5],), work=0.1)
    busy = a_job(tmp_path, partial(wait_for_lines, log, 9), "busy", work=99.0)
    blocking = a_job(tmp_path, partial(time.sleep, 1), "blocking", work=99.0)  # while all are sent
    with jobs.local_cluster(2) as address:
        jobs.make([busy, blocking, *others[::-1], last], scheduler=address)
    assert log.read_text().split() == [*names, "last"]


class FakeClient:
    """Remembers what it is asked to submit."""

    def __init__(self) -> None:
        self.submitted: list[SimpleNamespace] = []

    def submit(
        self, function: Callable, job: Job, before: list, code: str, topic: str, **options: Any
    ) -> object:
        sent = SimpleNamespace(job=job, before=before, topic=topic, future=object(), **options)
        self.submitted.append(sent)
        return sent.future


def submit(client: Any, missing: Sequence[Job]) -> list[Any]:
    return scheduling._submitted(client, missing, range(len(missing)))


def test_of_the_same_data_the_longest_chain_is_first_and_other_data_is_later(
    tmp_path: Path,
) -> None:
    study = a_study(tmp_path)
    ranks = scheduling.priorities(scheduling.missing_of(wanted(study)))
    # One minute of the generator and three of each student, of which half is the first phase.
    assert ranks[:5] == pytest.approx([4.0, 3.0, 1.5, 1.5, 1.0], abs=1e-4)
    assert sorted(ranks, reverse=True) == ranks
    assert len(set(ranks)) == 6
    assert ranks[5] < -900  # the generator of the other data
    other, own = scheduling.missing_of(wanted(study)[-1:]), scheduling.missing_of(wanted(study)[:1])
    assert (
        max(scheduling.priorities([*other, *own])[1:])
        < 0
        < scheduling.priorities([*other, *own])[0]
    )


def test_what_is_submitted(tmp_path: Path) -> None:
    """Each waits for the futures of those before it, and takes a GPU where the study has one."""
    study = a_study(tmp_path / "a")
    client = FakeClient()
    waiting = submit(client, scheduling.missing_of(wanted(study)))
    generation, first, plain, ema, cola, other = client.submitted
    assert waiting == [sent.future for sent in client.submitted]
    assert generation.before == cola.before == other.before == []
    assert first.before == [generation.future]
    assert plain.before == ema.before == [first.future, generation.future]
    assert all(sent.resources is None for sent in client.submitted)
    assert [sent.priority for sent in client.submitted] == list(range(6))
    assert {sent.topic for sent in client.submitted} == {f"fustal-progress-{tmp_path / 'a'}"}
    # What is sent is the job alone, and no other run directory's job is taken for it.
    assert all(sent.job.after == () for sent in client.submitted)
    submit(client, scheduling.missing_of(wanted(a_study(tmp_path / "b"))))
    assert len({sent.key for sent in client.submitted}) == 12

    study.device = "cuda"
    gpu = FakeClient()
    submit(gpu, scheduling.missing_of([jobs.student(study)]))
    assert [sent.resources for sent in gpu.submitted] == [{"GPU": 1}] * 3


# --- workers that die -----------------------------------------------------------------------------


def test_a_killed_worker_s_training_goes_on_on_another(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its last checkpoint, to the same bits; what was done before is not done again."""
    study = a_study(tmp_path / "killed", **LONG)
    grid = [jobs.generation(study, "acm-net"), jobs.generation(study, "cola")]
    jobs.make(grid[:1], scheduler=cluster)
    before = writings(study.run_dir)
    product = grid[1].product
    steps: list[int] = []  # of every checkpoint seen
    killed: list[int] = []  # the process, and at how many of these

    def watch() -> None:
        while not product.is_made:
            state = load_checkpoint(product.checkpoint, None)
            if state and [state["done"]] != steps[-1:]:
                steps.append(state["done"])
            if not killed and steps and steps[-1] >= 50:
                holder = int((product.folder / ".making.lock").read_text())
                os.kill(holder, signal.SIGKILL)
                killed.extend((holder, len(steps)))
            time.sleep(0.005)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    jobs.make(grid, scheduler=cluster)
    watcher.join(timeout=10)
    assert killed
    assert killed[0] != os.getpid()
    assert min(steps[killed[1] :]) > 50
    assert {path: writings(study.run_dir)[path] for path in before} == before
    alone = a_study(tmp_path / "alone", **LONG)
    jobs.make([jobs.generation(alone, method) for method in ("acm-net", "cola")], workers=1)
    assert made(study.run_dir) == made(alone.run_dir)


PARENT = """
import sys
from fustal_core import jobs
from fustal_core.stages import open_study

study = open_study(profile="smoke", run_dir=sys.argv[1], overrides=SETTINGS)
jobs.make([jobs.generation(study, method) for method in ("cola", "cross-video")], workers=2)
"""
CROWD = """
import resource
import sys
from fustal_core.config import SettingsError
from fustal_core.workers import connect, local_cluster

resource.setrlimit(resource.RLIMIT_NOFILE, (40, int(sys.argv[1])))
if __name__ == "__main__":
    try:
        with local_cluster(4) as address, connect(address) as client:
            print(len(client.scheduler_info(n_workers=-1)["workers"]))
    except SettingsError as error:
        print(error)
"""
ENDLESS = LONG | {"generation.iterations": 100_000}


@pytest.mark.parametrize(("most", "said"), [(4096, "4"), (40, "--workers: 4 could not be started")])
def test_workers_take_more_open_files_than_usual(most: int, said: str) -> None:
    command = [sys.executable, "-c", CROWD, str(most)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(said), done.stderr
    assert done.returncode == 0


def test_workers_end_with_who_started_them(tmp_path: Path) -> None:
    """Killed, so that nobody tells them; then they leave the products to others."""
    command = [sys.executable, "-c", PARENT.replace("SETTINGS", repr(ENDLESS)), str(tmp_path)]
    folders = [tmp_path / "01_generation" / method for method in ("cola", "cross-video")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as parent:
        for folder in folders:
            wait_for(folder / "checkpoint.pt")
        holders = {int((folder / ".making.lock").read_text()) for folder in folders}
        parent.kill()
    assert len(holders | {parent.pid}) == 3
    for folder in folders:
        with making_lock(folder, patience_s=30):
            pass


FORKING = """
import json
import os
import sys
from pathlib import Path

from distributed import Client
from fustal_core.workers import begin_slow_imports, local_cluster


def how_it_began():
    named = Path("/proc/self/environ").read_text(encoding="utf-8").split("\\0")
    return os.getppid(), list(sys.modules), [line.split("=")[0] for line in named]


def children():
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


begin_slow_imports()
early = children()
with local_cluster(2) as address, Client(address) as client:
    before_any_job = list(client.run(how_it_began).values())
print(json.dumps([early, before_any_job]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are not forked")
def test_workers_fork_from_one_process_that_has_the_slow_imports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which is begun before them, and has the variables that they shall begin with."""
    for name in ("OMP_NUM_THREADS", "PYTHONHASHSEED"):
        monkeypatch.delenv(name, raising=False)
    told = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, check=True)
    early, workers_found = json.loads(told.stdout)
    assert len(workers_found) == 2
    for parent, modules, named in workers_found:
        assert str(parent) in early
        assert set(modules) >= {"torch._dynamo", "scipy.signal", "fustal_core.making"}
        assert set(named) >= {"OMP_NUM_THREADS", "PYTHONHASHSEED", "THP_MEM_ALLOC_ENABLE"}


def test_what_workers_are_told_does_no_harm_to_the_kernels_that_start_beside_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dask sets it in this process; of its own, one makes a kernel hand back all that it frees."""
    for name in ("MALLOC_TRIM_THRESHOLD_", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    with jobs.local_cluster(1) as address, Client(address) as client:
        client.wait_for_workers(1)
        program = "import os; print(*os.environ)"
        told = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
    assert "OMP_NUM_THREADS" in told.stdout.split()
    assert "MALLOC_TRIM_THRESHOLD_" not in told.stdout.split()


@pytest.mark.skipif(not memory._glibc(), reason="only glibc lets one ask for it")
def test_a_worker_keeps_the_memory_that_its_job_frees(cluster: str, tmp_path: Path) -> None:
    """As it is, malloc hands back what is freed beyond twice the largest array."""
    jobs.make([a_job(tmp_path, partial(count_new_pages, tmp_path / "pages"))], scheduler=cluster)
    all_arrays = 12 * 3 * 2**20 // os.sysconf("SC_PAGE_SIZE")
    assert int((tmp_path / "pages").read_text(encoding="utf-8")) < all_arrays / 4


@pytest.mark.filterwarnings("ignore")  # of distributed, that its worker died
def test_a_job_that_ends_every_worker_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine with GPUs, as far as one can pretend: every worker there has one of them."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")  # not all that the machine has
    study = a_study(tmp_path)
    monkeypatch.setattr(workers, "_DEATHS", 0)
    with jobs.local_cluster(1) as address:
        with Client(address) as client:
            (visible,) = client.run(os.getenv, "CUDA_VISIBLE_DEVICES").values()
            (worker,) = client.scheduler_info()["workers"].values()
        assert visible == "5"
        assert worker["resources"] == {"GPU": 1}
        assert worker["nthreads"] == 1
        jobs.make([jobs.generation(study, "cola")], scheduler=address)
        jobs.make(
            [Job(study, "looks", Product(tmp_path, ""), partial(has_data, study))],
            scheduler=address,
        )
        job = a_job(tmp_path, die, "the deadly one")
        after = a_job(tmp_path, partial(touch, tmp_path / "touched"), "later", after=(job,))
        with pytest.raises(JobError, match=r"^the deadly one: its worker died 1 time, .*tcp://"):
            jobs.make([after], scheduler=address)
    assert not (tmp_path / "touched").exists()


def test_a_job_that_waits_is_not_taken_for_the_deadly_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask gives up all that were with the worker, whether they had begun or not."""
    monkeypatch.setattr(workers, "_DEATHS", 1)
    others = [a_job(tmp_path, partial(touch, tmp_path / f"{n}"), f"other {n}") for n in range(8)]
    deadly = a_job(tmp_path, die, "the deadly one", work=9.0)
    blocking = a_job(tmp_path, partial(time.sleep, 1), "blocking", work=99.0)
    with (
        jobs.local_cluster(1) as address,
        pytest.raises(JobError, match=r"^the deadly one: its worker died 2 times"),
    ):
        jobs.make([blocking, *others[:4], deadly, *others[4:]], scheduler=address)


# --- what goes wrong, and what is said ------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "error",
    [
        SettingsError("no such setting"),
        RunDirectoryError("made with other settings"),
        FileNotFoundError(2, "No such file or directory", "list.txt"),
        DataError(["first problem", "second problem"]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_reaches_who_asked(
    cluster: str, error: Exception, workers: int, tmp_path: Path
) -> None:
    """As it was raised; what was made before stays, what waits for it is dropped."""
    study = a_study(tmp_path)
    first = jobs.generation(study, "cola")
    failing = a_job(tmp_path, partial(fail, error), "failing", after=(first,))
    later = a_job(tmp_path, partial(touch, tmp_path / "touched"), "later", after=(failing,))
    options = {"scheduler": cluster} if workers > 1 else {"workers": 1}
    with pytest.raises(type(error)) as raised:
        jobs.make([later, failing], **options)
    assert type(raised.value) is type(error)
    assert str(raised.value) == str(error)
    assert first.product.is_made
    assert not (tmp_path / "touched").exists()
    jobs.make([a_job(tmp_path, partial(touch, tmp_path / "touched"), "later")], **options)
    assert (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:9", "127.0.0.1:9", "node", "zcp://node:1", ""]
)
def test_a_wrong_address_is_refused(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the patience; no address at all is none."""
    monkeypatch.setattr(workers, "_PATIENCE_S", 1)
    job = a_job(tmp_path, partial(touch, tmp_path / "touched"))
    if not address:
        jobs.make([job], scheduler=address)
        assert (tmp_path / "touched").exists()
        return
    start = time.monotonic()
    with pytest.raises(SettingsError, match=f"no dask scheduler at {address}"):
        jobs.make([job], scheduler=address)
    with pytest.raises(SettingsError, match="no dask scheduler"), jobs.offered(address, 2):
        raise AssertionError
    assert time.monotonic() - start < 10
    assert not (tmp_path / "touched").exists()
    assert scheduling.SCHEDULER not in os.environ


def test_a_scheduler_without_workers_is_said_to_have_none_until_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, not again and again in the night that a queue takes."""
    log = tmp_path / "progress"
    monkeypatch.setenv(VARIABLE, str(log))
    monkeypatch.setattr(scheduling, "_LOOK_AGAIN_S", 0.1)
    said: list[str] = []

    def ask() -> None:
        with pytest.raises(JobError) as raised:
            jobs.make([a_job(tmp_path, partial(touch, tmp_path / "t"))], scheduler=address)
        said.append(str(raised.value))

    with jobs.local_cluster(0) as address:
        asking = threading.Thread(target=ask)
        asking.start()
        wait_until(log.exists)
        time.sleep(1)
    asking.join(timeout=60)
    assert said == [f"the scheduler at {address} has gone"]
    assert log.read_text().count("note: the scheduler has no workers; waiting for one") == 1


@pytest.mark.parametrize(
    ("device", "workers", "said"),
    [
        ("cpu", [], "the scheduler has no workers; waiting for one"),
        ("cpu", [{}], ""),
        ("cuda", [], "the scheduler has no workers; waiting for one"),
        ("cuda", [{}, {}], "the scheduler has no workers that offer a GPU; waiting for one"),
        ("cuda", [{}, {"GPU": 1}], ""),
    ],
)
def test_who_is_missing_is_said_when_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, workers: list, said: str
) -> None:
    """Workers come and go; of those that are left none may take a job on a GPU."""
    job = a_job(tmp_path, partial(touch, tmp_path / "t"))
    job.study.device = device
    there = {str(i): {"resources": resources} for i, resources in enumerate(workers)}
    client = SimpleNamespace(scheduler_info=lambda n_workers: {"workers": there}, status="running")
    notes: list[str] = []
    monkeypatch.setattr(scheduling, "say_note", notes.append)
    nobody = scheduling._has_nobody_for(client, [job], False)
    assert nobody == bool(said)
    assert scheduling._has_nobody_for(client, [job], nobody) == nobody
    assert notes == ([said] if said else [])


@pytest.mark.parametrize("before", [False, True])
def test_a_scheduler_that_goes_while_it_is_asked_is_not_said_to_have_no_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """The client gives up looking for it, and forgets what it knew of it."""
    job = a_job(tmp_path, partial(touch, tmp_path / "t"))
    client = SimpleNamespace(scheduler_info=lambda n_workers: {}, status="closed")
    notes: list[str] = []
    monkeypatch.setattr(scheduling, "say_note", notes.append)
    assert scheduling._has_nobody_for(client, [job], before) == before
    assert notes == []


def test_what_jobs_do_is_reported_with_their_names(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "progress"
    monkeypatch.setenv(VARIABLE, str(log))
    talking = [a_job(tmp_path, partial(talk, 3), name) for name in ("first", "second")]
    jobs.make(talking, scheduler=cluster)
    lines = log.read_text().splitlines()
    assert lines[-1] == "2 jobs: 2/2"
    doing = [line for line in lines if line.startswith("2 jobs: 0/2")]
    assert any("first: counting: 3/10 sheep" in line for line in doing)
    assert any("second: counting: 3/10 sheep" in line for line in doing)
    for name in ("first", "second"):
        assert lines.count(f"note: {name}: one was black") == 1


def test_two_runs_at_one_scheduler_do_not_hear_each_other(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is told of its own jobs; one job is called so."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine"))
    with Client(cluster) as other:
        theirs = a_job(tmp_path / "other", partial(talk, 3), "theirs")
        waiting = submit(other, [theirs])
        jobs.make([a_job(tmp_path, partial(talk, 1), "mine")], scheduler=cluster)
        for future in waiting:
            future.result()
        topic = f"fustal-progress-{tmp_path / 'other'}"
        heard = [line for _, (_, _, line) in other.get_events(topic)]
    assert "note: one was black" in heard
    lines = (tmp_path / "mine").read_text().splitlines()
    assert lines[-1] == "1 job: 1/1"
    assert "note: mine: one was black" in lines
    assert not [line for line in lines if "theirs" in line]


def test_workers_listen_to_this_machine_alone(cluster: str) -> None:
    """They run whatever they are sent."""
    assert cluster.startswith("tcp://127.0.0.1:")
    with Client(cluster) as client:
        for addresses in client.run(listens_at).values():
            assert addresses
            assert all(address.startswith("tcp://127.0.0.1:") for address in addresses)


# --- workers offered to notebooks -----------------------------------------------------------------


@contextmanager
def a_fake_cluster(workers: int) -> Iterator[str]:
    yield f"tcp://of-{workers}"


@pytest.mark.parametrize("before", [None, "tcp://old:1"])
def test_offered_workers_are_told_by_variables_and_taken_back(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before:
        monkeypatch.setenv(scheduling.SCHEDULER, before)
        monkeypatch.setenv(jobs.WORKERS, "7")
    monkeypatch.setattr(jobs, "local_cluster", a_fake_cluster)
    told = [os.environ.get(name) for name in (scheduling.SCHEDULER, jobs.WORKERS)]
    with jobs.offered(None, 3):
        assert os.environ[scheduling.SCHEDULER] == "tcp://of-3"
        assert os.environ[jobs.WORKERS] == "3"
    with jobs.offered(None, 1):
        assert scheduling.SCHEDULER not in os.environ
        assert os.environ[jobs.WORKERS] == "1"
    with pytest.raises(ZeroDivisionError), jobs.offered(None, 2):
        _ = 1 / 0
    assert [os.environ.get(name) for name in (scheduling.SCHEDULER, jobs.WORKERS)] == told


def test_a_scheduler_that_is_there_is_offered_as_it_is(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "local_cluster", None)
    with jobs.offered(cluster, 5):
        assert os.environ[scheduling.SCHEDULER] == cluster
    assert scheduling.SCHEDULER not in os.environ


def test_what_will_be_asked_for_is_begun_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """List by list, after what is being asked for; who asks for a planned job does not do it twice."""
    log = tmp_path / "log"

    def job(name: str, **about: Any) -> Job:
        return a_job(tmp_path, partial(write_line, log, name), name, **about)

    blocking = a_job(tmp_path, partial(time.sleep, 1), "blocking", work=99.0)
    first, second, third = job("first"), job("second", work=5.0), job("third", work=9.0)
    with jobs.offered(None, 1):
        pass
    with jobs.local_cluster(1) as address:
        monkeypatch.setenv(scheduling.SCHEDULER, address)
        with scheduling.begun_ahead([[blocking, first], [first, second], [third]]):
            jobs.make([job("asked"), second])
            asked = log.read_text().split()
            wait_until(lambda: len(log.read_text().split()) == 4)
    # A worker has its next job at hand before it is asked for another.
    assert set(asked) >= {"asked", "second"}
    order = log.read_text().split()
    assert sorted(order) == ["asked", "first", "second", "third"]
    assert order.index("asked") < 2
    assert order.index("first") < order.index("second") < order.index("third")


def test_what_failed_ahead_fails_for_who_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = a_job(tmp_path, partial(fail, DataError(["no such class"])), "wrong")
    with jobs.local_cluster(1) as address:
        monkeypatch.setenv(scheduling.SCHEDULER, address)
        with scheduling.begun_ahead([[wrong]]):
            time.sleep(2)
            with pytest.raises(DataError, match="no such class"):
                jobs.make([wrong])


def test_what_is_planned_and_not_asked_for_is_dropped_with_the_plan(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(scheduling.SCHEDULER, cluster)
    talking = [a_job(tmp_path, partial(talk_on, 60), str(n)) for n in range(4)]
    late = a_job(tmp_path, partial(touch, tmp_path / "late"), "late", after=tuple(talking))
    with scheduling.begun_ahead([[late]]):
        time.sleep(1)
    monkeypatch.delenv(scheduling.SCHEDULER)
    with Client(cluster) as client:
        wait_until(lambda: not any(client.run(is_at_work).values()))
    assert not (tmp_path / "late").exists()


def test_a_worker_holds_the_data_of_one_job_however_many_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of jobs that somebody still waits for, and when data takes turns."""
    study = a_study(tmp_path)
    variants = [study.other(f"data-seed{seed}", seed=seed).variant("same") for seed in (1, 2, 1, 2)]
    methods = ("cola", "cola", "cross-video", "cross-video")
    turns = [jobs.generation(*pair) for pair in zip(variants, methods, strict=True)]
    with jobs.local_cluster(1) as address, Client(address) as client:
        monkeypatch.setenv(scheduling.SCHEDULER, address)
        with scheduling.begun_ahead([[job] for job in turns]):
            jobs.make(turns[-1:])
            wait_until(lambda: all(job.product.is_made for job in turns))
            assert list(client.run(count_data_sets).values()) == [1]


def test_waiting_leaves_nothing_behind(tmp_path: Path, cluster: str) -> None:
    """However long it takes: a night of hundreds of jobs once cost gigabytes."""
    slow = [a_job(tmp_path, partial(time.sleep, 6), f"slow {n}") for n in range(2)]
    late = [a_job(tmp_path, partial(touch, tmp_path / "late"), f"late {n}") for n in range(10)]
    late = [replace(job, after=tuple(slow)) for job in late]
    waiting = threading.Thread(target=partial(jobs.make, late, scheduler=cluster))
    waiting.start()
    with Client(cluster) as client:
        wait_until(lambda: any(client.run(is_at_work).values()))
        counts = []
        for _ in range(2):
            time.sleep(2)
            gc.collect()
            counts.append(sum(type(one) is asyncio.Future for one in gc.get_objects()))
    waiting.join()
    assert counts[1] < counts[0] + len(late)


def test_in_one_process_data_is_read_once_and_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By all of its variants, some of which have points of it."""
    read: list[int] = []

    def load(settings: Settings, cache: Path | None = None) -> Dataset:
        assert count_data_sets() == before
        read.append(settings.seed)
        return load_data(settings, cache)

    study = a_study(tmp_path)
    assert study.dataset.origin == "simulated"
    before, stores = count_data_sets(), count_feature_stores()
    monkeypatch.setattr(stages, "load_data", load)
    others = [study.other(f"data-seed{seed}", seed=seed) for seed in (1, 2)]
    methods: list[Method] = ["cola", "hr-pro-snippet", "cross-video"]
    wanted = [jobs.generation(one.variant("same"), method) for one in others for method in methods]
    jobs.make(wanted, workers=1)
    assert read == [1, 2]
    assert (count_data_sets(), count_feature_stores()) == (before, stores)


def test_a_job_is_the_same_whatever_it_or_its_directory_is_called(
    tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs ahead under one name and is asked for under another is made once."""
    monkeypatch.setenv(scheduling.SCHEDULER, cluster)
    monkeypatch.chdir(tmp_path)
    job = a_job(tmp_path, partial(write_line, tmp_path / "lines", "done"))
    same = replace(job, name="of a variant", product=Product(Path("mine"), "key"))
    with scheduling.begun_ahead([[job]]):
        jobs.make([same])
    assert (tmp_path / "lines").read_text() == "done\n"


def test_what_is_made_is_not_made_again_for_a_worker_that_died(
    tmp_path: Path, cluster: str
) -> None:
    """Dask does its jobs again: their results were with it; products are not."""
    job = a_job(tmp_path, partial(write_line, tmp_path / "lines", "done"))
    with Client(cluster) as client:
        arguments = ([], rundir.all_code(), "topic")
        for _ in range(2):
            client.submit(workers.run_job, job, *arguments, pure=False).result()
            job.product.folder.mkdir(exist_ok=True)
            job.product.finish()
    assert (tmp_path / "lines").read_text() == "done\n"


def test_without_workers_nothing_is_planned(tmp_path: Path) -> None:
    def plan() -> Iterator[list[Job]]:
        pytest.fail("asked")
        yield []

    with scheduling.begun_ahead(plan()):
        pass


def test_how_many_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As many as are asked for, by the variable or else the machine, and no more than jobs."""
    started: list[int] = []

    @contextmanager
    def cluster(workers: int) -> Iterator[str]:
        started.append(workers)
        yield ""

    monkeypatch.setattr(jobs, "local_cluster", cluster)
    monkeypatch.setattr(jobs, "make_at", lambda address, missing: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    three = [a_job(tmp_path, partial(touch, tmp_path / "t"), str(n)) for n in range(3)]
    jobs.make(three, workers=2)
    jobs.make(three, workers=100)
    monkeypatch.setenv(jobs.WORKERS, "2")
    jobs.make(three)
    jobs.make(three, workers=3)
    jobs.make(three[:1])
    assert started == [2, 3, 2, 3]
    quick = make_settings()
    monkeypatch.setattr(jobs, "torch_device", lambda settings: "cuda")
    assert jobs.worker_count(quick) == jobs.worker_count(make_settings(profile="paper")) == 3
    assert jobs.worker_count(make_settings(profile="smoke")) == 1
    monkeypatch.setattr(jobs, "torch_device", lambda settings: "cpu")
    assert 1 <= jobs.worker_count(quick) <= os.cpu_count()  # whatever GPUs there are


def test_a_worker_with_other_code_or_other_data_makes_nothing(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = a_study(tmp_path)
    missing = [jobs.generation(study, "cola")]
    monkeypatch.setattr(scheduling, "all_code", lambda: "another")
    with pytest.raises(JobError, match="cola: the worker has another version"):
        scheduling.make_at(cluster, missing)
    monkeypatch.undo()
    study.fingerprint = "of other data"
    with pytest.raises(JobError, match=r"not that of the run: .* on another kind of processor"):
        scheduling.make_at(cluster, missing)
    assert not list(tmp_path.rglob("weights.safetensors"))


def test_no_worker_there_has_a_gpu(cluster: str, tmp_path: Path) -> None:
    study = a_study(tmp_path)
    missing = [jobs.generation(study, "cola")]
    study.device = "cuda"
    with pytest.raises(SettingsError, match="--resources GPU=1"):
        scheduling.make_at(cluster, missing)
