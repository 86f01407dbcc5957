"""The three stages as a notebook sees them: each is made once per run directory and read ever after.

``open_study`` gives a :class:`Study`; its methods make what is missing, with progress, and return what
the stage produced. Labels of test videos are used by :meth:`Study.measure` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fustal_core.config import Settings, make_settings, override
from fustal_core.data import Dataset, load_dataset
from fustal_core.features import FeatureStore
from fustal_core.kept_simulation import kept_simulation
from fustal_core.left_out import check_excluded, leave_out
from fustal_core.locks import making_lock, run_lock
from fustal_core.made_from import (
    MAKES_ALL,
    STARTS_FROM,
    LabelSource,
    Phase,
    generation_code,
    student_code,
    student_folder,
    student_settings,
)
from fustal_core.making import make_generation, make_student, run_student_training
from fustal_core.metrics import map_summary
from fustal_core.oracle import repair
from fustal_core.point_supervision import PointSupervision, supervision_of
from fustal_core.progress import show_progress
from fustal_core.quality import pseudo_label_quality
from fustal_core.results import read_ambiguous
from fustal_core.rundir import (
    CACHE,
    Product,
    claim_run_dir,
    code_hash,
    default_run_dir,
    hash_of,
    own_code_hash,
    project_root,
    resolve_data,
    resolve_file,
    resolve_overrides,
    torch_device,
    with_recorded_extent,
    write_provenance,
)
from fustal_core.selection import score_proposals, select
from fustal_core.simulated_annotations import statistics_digest
from fustal_core.simulator import simulate
from fustal_core.stage_products import Generation, Selection, Student
from fustal_core.stage_settings import (
    GeneratorSettings,
    Method,
    StudentSettings,
    TrainingSettings,
)


def open_study(
    data: str = "simulated",
    profile: str = "quick",
    seed: int = 0,
    run_dir: str | Path = "",
    overrides: Mapping[str, Any] | None = None,
    *,
    force: bool = False,
) -> Study:
    """Open a run directory, new or not, for these settings.

    Args:
        data: "simulated" or a data folder.
        profile: "smoke", "quick" or "paper".
        seed: of everything random.
        run_dir: empty for ``runs/DATA-PROFILE-seedN`` in the checkout; relative to the checkout.
        overrides: settings by dotted name, ``{"generation.iterations": 100}``; a file among them is
            found from here or from the checkout. How much the ablation
            and the analysis try is what the directory says, where nothing else is asked for here.
        force: take over a run directory made with other settings.

    Raises:
        SettingsError: bad settings, or a run directory made with others.
        DataError: a list of ``evaluation.*`` that cannot be read; the directory is left as it was.
        RunDirectoryBusyError: ``force`` while ``fustal run`` is at work there.
        OSError: the run directory cannot be written.
    """
    overrides = resolve_overrides(overrides or {})
    settings = make_settings(resolve_data(data), profile, seed, overrides)
    folder = project_root() / run_dir if run_dir else default_run_dir(settings)
    if not force:
        settings = with_recorded_extent(folder, settings, overrides)
    study = Study(settings, folder)
    _ = study.not_measured
    with run_lock(folder) if force else nullcontext():
        claim_run_dir(folder, settings, force=force)
    return study


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one CPU thread: on more, results depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load_data(settings: Settings, cache: Path | None = None) -> Dataset:
    """The data of a run: simulated from its seed, or read and checked from its folder.

    cache: folder for simulated features, and for those of a data folder that exceed
        ``features.memory_gb``; None: all in memory.

    Raises:
        DataError: every problem of the folder.
    """
    if settings.data == "simulated":
        with show_progress("simulating the data") as progress:
            what = settings.simulation, settings.seed
            if cache is None:
                return simulate(*what, progress)
            return kept_simulation(*what, cache / "simulated", progress)
    with show_progress("reading the features") as progress:
        return load_dataset(
            Path(settings.data),
            settings.features,
            cache=cache,
            trust_pickle=settings.trust_pickle,
            progress=progress,
        )


class Study:
    """One run: settings, data, and the products of its stages.

    Attributes:
        settings, run_dir, device: of this study.
        base: the study that it is a variant of.
        own_data: whether it has data of its own, not its base's.
        narrow: what leaves out a part of the base's data; None: all of it.
        data: once it was asked for, if it is no more of its base's than all; see :attr:`dataset`.
        is_sent: whether another process opened the run directory, and says in it with what.
    """

    is_sent = False

    def __init__(
        self,
        settings: Settings,
        run_dir: Path,
        base: Study | None = None,
        *,
        own_data: bool = True,
    ) -> None:
        self.settings = settings
        self.run_dir = run_dir
        self.base = base
        self.own_data = own_data
        self.narrow: Callable[[Dataset], Dataset] | None = None
        self.data: Dataset | None = None
        self.device = torch_device(settings)

    def __getstate__(self) -> dict[str, Any]:
        """What another process is sent: no data, which it makes or reads itself."""
        made = ("points", "_ambiguous")
        kept = {name: value for name, value in self.__dict__.items() if name not in made}
        return kept | {"data": None, "is_sent": True}

    def variant(
        self, name: str, *, seed: int | None = None, overrides: Mapping[str, Any] | None = None
    ) -> Study:
        """The same data with another seed of the training, or other settings.

        What the change does not touch is shared with this study; the rest lies in
        ``variants/NAME`` of its run directory.

        Args:
            name: of the folder.
            seed: of the training, and of points that are drawn; None: this study's.
            overrides: settings by dotted name; a file among them is found as by :func:`open_study`.

        Raises:
            SettingsError: unknown setting or bad value, or a setting that makes the data.
            DataError: ``evaluation.exclude`` leaves out no test video, or all.
        """
        settings = override(self.settings, resolve_overrides(overrides or {}), seed)
        study = Study(settings, self.run_dir / "variants" / name, base=self, own_data=False)
        if settings.evaluation != self.settings.evaluation:
            check_excluded(settings.evaluation.exclude, self.dataset.truth("test"))
        return study

    def other(
        self, name: str, *, seed: int | None = None, overrides: Mapping[str, Any] | None = None
    ) -> Study:
        """A study like this one with another seed or other settings, also of simulated data.

        It lies in ``variants/NAME`` as well, and has data of its own if that is simulated; a data
        folder's is this study's.

        Args:
            name: of the folder.
            seed: of simulated data and of the training; None: this study's.
            overrides: as of :meth:`variant`, and those of the simulator.

        Raises:
            SettingsError: unknown setting or bad value.
        """
        if self.settings.data != "simulated":
            return self.variant(name, seed=seed, overrides=overrides)
        overrides = resolve_overrides(overrides or {})
        settings = override(self.settings, overrides, seed, other_data=True)
        same = (settings.simulation, settings.seed) == (
            self.settings.simulation,
            self.settings.seed,
        )
        study = Study(settings, self.run_dir / "variants" / name, base=self, own_data=not same)
        if not same:
            # Whoever plans many such studies need not simulate them: code is part of every key.
            study.fingerprint = hash_of(
                settings.simulation.model_dump(), settings.seed, statistics_digest()
            )
        return study

    @property
    def data_owner(self) -> Study:
        """This study, or the one whose data it shares."""
        return self.base.data_owner if self.base and not self.own_data else self

    @cached_property
    def fingerprint(self) -> str:
        """Of the data; a process that is sent the study knows it without reading the data."""
        if self.base and not self.own_data and not self.narrow:
            return self.base.fingerprint
        return self.dataset.fingerprint

    @property
    def dataset(self) -> Dataset:
        """The data; its features lie on the study's device if there is room.

        Kept by the study that reads it, or leaves out a part of it; its variants have it from there.

        Raises:
            DataError: every problem of a data folder; a list of what not to measure that cannot be read,
                or leaves out all or nothing.
        """
        if self.data is None:
            if self.base and not self.own_data and not self.narrow:
                return self.base.dataset
            self.data = self.narrow(self.base.dataset) if self.narrow else self._read_data()
        return self.data

    def _read_data(self) -> Dataset:
        _ = self._ambiguous  # a bad list is refused before the data is read
        # What is measured on other simulated data alone is not worth its room on the disk.
        dataset = load_data(self.settings, None if self.base else self.run_dir / CACHE)
        check_excluded(self.settings.evaluation.exclude, dataset.truth("test"))
        generator = self._on_device(dataset.generator_features)
        shared = dataset.student_features is dataset.generator_features
        student = generator if shared else self._on_device(dataset.student_features)
        dataset = replace(dataset, generator_features=generator, student_features=student)
        if self.base or not self.is_sent:
            write_provenance(self.run_dir, self.settings, dataset.fingerprint, self.device)
        return dataset

    def forget_data(self) -> None:
        """Let go of the data, and of the points: they are read again if they are asked for."""
        self.data = None
        self.forget_points()
        if self.base and not self.own_data:
            self.base.forget_data()

    def forget_points(self) -> None:
        """Let go of the points, which hold features; they are drawn again if they are asked for."""
        self.__dict__.pop("points", None)

    def _on_device(self, store: FeatureStore) -> FeatureStore:
        """The store on the GPU, if half of what is free there holds it; models need the rest."""
        if self.device == "cuda" and store.nbytes > torch.cuda.mem_get_info()[0] / 2:
            return store
        return store.to(self.device)

    @cached_property
    def points(self) -> PointSupervision:
        """Point labels of the training videos, as ``hr_pro.points`` says; no segments."""
        return supervision_of(self.dataset, self.settings.hr_pro.points, self.settings.seed)

    @property
    def data_name(self) -> str:
        """What tables call the data: its name and whether it is simulated or real."""
        return f"{self.dataset.name} ({self.dataset.origin})"

    def folder(self, notebook: str) -> Path:
        """Folder of a notebook in the run directory, e.g. ``"01_generation"``."""
        return self.run_dir / notebook

    def measure(self, detections: pd.DataFrame) -> dict[str, float]:
        """mAP at tIoU 0.1..0.7 and the three named averages on the test videos, in percent.

        Then at the thresholds of ``evaluation.further_tiou`` with their average. Without the test
        videos and the detections that ``evaluation.*`` leaves out.
        """
        found, truth = self.measured(detections)
        further = self.settings.evaluation.further_tiou
        return map_summary(found, truth) | (map_summary(found, truth, further) if further else {})

    def measured(self, detections: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Detections and truth of the test videos without what ``evaluation.*`` leaves out.

        Nor is a class measured of which no test segment is left.
        """
        exclude = self.settings.evaluation.exclude
        found, truth = leave_out(detections, self.dataset.truth("test"), exclude, self._ambiguous)
        measurable = found["label"].isin(truth["label"])
        return found[measurable].reset_index(drop=True), truth

    @property
    def measured_videos(self) -> list[str]:
        """The test videos that are measured: all but those of ``evaluation.exclude``."""
        excluded = set(self.settings.evaluation.exclude)
        return [name for name in self.dataset.video_names("test") if name not in excluded]

    @cached_property
    def _ambiguous(self) -> pd.DataFrame | None:
        path = self.settings.evaluation.ambiguous
        return read_ambiguous(resolve_file(path)) if path else None

    @property
    def not_measured(self) -> dict[str, Any]:
        """What of the test is left out, for keys: the ambiguous intervals themselves, not their file.

        Raises:
            DataError: a list of intervals that cannot be read.
        """
        intervals = None if self._ambiguous is None else self._ambiguous.to_dict("split")
        return {"exclude": self.settings.evaluation.exclude, "ambiguous": intervals}

    def measure_labels(self, labels: pd.DataFrame) -> pd.DataFrame:
        """Quality of labels of the training videos, one row (see ``quality.pseudo_label_quality``)."""
        dataset = self.dataset
        durations_s = dataset.videos["duration_s"].loc[dataset.video_names("train")]
        return pseudo_label_quality(labels, dataset.truth("train"), durations_s)

    def generation(self, method: Method | None = None) -> Generation:
        """Stage 1 by a method (None: the one of the settings), made if it is not there."""
        method = method or self.settings.generation.method
        product = self.generation_product(method)
        if not product.is_made:
            before = STARTS_FROM.get(method)
            start = self.generation(before).model if before else None
            self.ensure(product, lambda: make_generation(self, method, product, start))
        return Generation(product.folder, self.device)

    def generator_settings(self, method: Method) -> GeneratorSettings:
        """What a method localises with; FTCL's are ACM-Net's, those of HR-Pro its first stage's."""
        if method in ("acm-net", "ftcl"):
            return self.settings.acm_net
        if method in ("hr-pro-snippet", "hr-pro"):
            return self.settings.hr_pro
        return self.settings.generation.model_copy(update={"method": method})

    def generation_product(self, method: Method) -> Product:
        """Where a generator and its proposals lie, made or not."""
        settings = self.generator_settings(method)
        inputs: list[Any] = [method, settings.model_dump()]
        if before := STARTS_FROM.get(method):
            later = self.settings.ftcl if method == "ftcl" else self.settings.hr_pro_instance
            inputs += [self.generation_product(before).key, later.model_dump()]
            inputs += self._measure_along(later)
        inputs += self._measure_along(settings)
        product = self.product(f"01_generation/{method}", generation_code(method), inputs)
        return self._shared(product, lambda base: base.generation_product(method))

    def selection(self) -> Selection:
        """Stage 2 on the proposals of the settings' generator."""
        scored = score_proposals(self.generation().train, self.settings.selection)
        return Selection(scored, select(scored, self.settings.selection, self.video_classes))

    def selected_in_test(self) -> pd.DataFrame:
        """The generator's proposals in test videos that would pass stage 2.

        No class is known there: those that are proposed stand for the known ones.
        """
        settings = self.settings.selection
        return select(score_proposals(self.generation().test, settings), settings)

    @property
    def video_classes(self) -> pd.DataFrame:
        """The weak labels of the training videos: ``video``, ``label``, a row for each class shown."""
        dataset = self.dataset
        row, column = dataset.video_labels("train").nonzero(as_tuple=True)
        videos = pd.Series(dataset.video_names("train"))[row.tolist()]
        labels = pd.Series(dataset.classes)[column.tolist()]
        return pd.DataFrame({"video": videos.to_numpy(), "label": labels.to_numpy()})

    def student(self, labels: LabelSource = "selected", *, distill: bool = True) -> Student:
        """Stage 3 on some labels, made if it is not there.

        Args:
            labels: "selected" pseudo labels; "raw", all proposals (the floor); "truth", the true
                segments of the training videos (the fully supervised ceiling); or a rung of the
                oracle ladder, selected labels of which one kind of error was repaired.
            distill: switch to EMA labels at ``switch_epoch``. Both choices share the epochs before.
        """
        product = self.student_product(labels, "ema" if distill else "plain")
        if not product.is_made:
            segments = self._labels(labels)
            initial = self.phase_one(labels)
            settings = student_settings(self.settings.student, labels, "plain")
            self.ensure(
                product,
                lambda: make_student(self, settings, segments, product, initial, distill),
            )
        return Student(product.folder, self.device)

    def student_product(self, labels: LabelSource, phase: Phase) -> Product:
        """Where a student lies, or the state after its first phase, made or not."""
        name = student_folder(labels, phase)
        settings = student_settings(self.settings.student, labels, phase)
        inputs: list[Any] = [settings.model_dump(), name, *self._measure_along(settings)]
        if labels != "truth":
            generation = self.generation_product(self.settings.generation.method)
            inputs += [generation.key, self.settings.selection.model_dump()]
        product = self.product(f"03_training/{name}", student_code(labels), inputs)
        return self._shared(product, lambda base: base.student_product(labels, phase))

    def _measure_along(self, settings: TrainingSettings | StudentSettings) -> list[Any]:
        """What is measured of the test, if the training is measured on its way."""
        further = self.settings.evaluation.further_tiou
        return [self.not_measured, further] if settings.evaluate_every else []

    def phase_one(self, labels: LabelSource) -> Path:
        """The state after the epochs on the given labels, from which both continuations start."""
        product = self.student_product(labels, "phase_one")
        if not product.is_made:
            segments = self._labels(labels)
            settings = student_settings(self.settings.student, labels, "phase_one")
            train = partial(run_student_training, self, settings, segments, product, None, False)
            self.ensure(product, train, keep_checkpoint=True)
        return product.checkpoint

    def _labels(self, source: LabelSource) -> pd.DataFrame:
        if source == "truth":
            return self.dataset.truth("train")
        if source == "raw":
            return self.generation().train
        selection = self.selection()
        if source == "selected":
            return selection.selected
        return repair(selection.selected, selection.scored, self.dataset.truth("train"), source)

    def ensure(
        self, product: Product, make: Callable[[], object], *, keep_checkpoint: bool = False
    ) -> None:
        """Make a product that is not there; nobody else makes it meanwhile."""
        with making_lock(product.folder), one_thread():
            if not product.is_made:  # another process may have made it while this one waited
                product.begin()
                make()
                product.finish(device=self.device, keep_checkpoint=keep_checkpoint)

    def _shared(self, product: Product, of: Callable[[Study], Product]) -> Product:
        """The base study's product, if it is made from the very same; else this one."""
        own = of(self.base) if self.base else product
        return own if own.key == product.key else product

    def product(
        self, name: str, modules: tuple[str, ...], inputs: Any, measuring: tuple[str, ...] = ()
    ) -> Product:
        """A folder of this study, and the key of what lies there.

        Args:
            name: of the folder, from the run directory.
            modules: whose code makes it, and all that they import.
            inputs: JSON-like: whatever it depends on, besides seed, data, device, precision and code.
            measuring: more modules whose code makes it, without what they import.
        """
        key = hash_of(
            inputs,
            self.settings.seed,
            self.fingerprint,
            self.device,
            self.settings.precision,
            code_hash(modules),
            own_code_hash((*MAKES_ALL, *measuring)),
        )
        return Product(self.run_dir / name, key)
