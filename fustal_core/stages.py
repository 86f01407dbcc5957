"""The three stages as a notebook sees them: each is made once per run directory and read ever after.

``open_study`` gives a :class:`Study`; its methods make what is missing, with progress, and return what
the stage produced. Labels of test videos are used by :meth:`Study.measure` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch

from fustal_core.config import GenerationSettings, Settings, StudentSettings, make_settings
from fustal_core.data import Dataset, load_dataset
from fustal_core.features import FeatureStore
from fustal_core.files import write_parquet
from fustal_core.generation import propose, train_generator
from fustal_core.generator import CrossVideoGenerator
from fustal_core.locks import making_lock, run_lock
from fustal_core.metrics import map_summary
from fustal_core.progress import Progress, show_progress
from fustal_core.results import write_detections
from fustal_core.rundir import (
    Product,
    claim_run_dir,
    code_hash,
    default_run_dir,
    hash_of,
    project_root,
    resolve_data,
    torch_device,
    write_provenance,
)
from fustal_core.selection import score_proposals, select
from fustal_core.simulator import simulate
from fustal_core.student import TriDet
from fustal_core.student_inference import detect
from fustal_core.student_training import StudentResult, train_student
from fustal_core.weights import WEIGHTS_FORMAT, load_model, save_model

Method = Literal["cola", "cross-video"]
LabelSource = Literal["selected", "raw", "truth"]

# The modules a product is made with; it is made again when they, or what they import, change.
_GENERATION_CODE = ("data", "simulator", "generation", "metrics")
_STUDENT_CODE = (*_GENERATION_CODE, "selection", "student_training", "student_inference")


@dataclass(frozen=True)
class Generation:
    """Stage 1: a trained generator and its proposals.

    Attributes:
        model: in eval mode.
        train, test: proposals of the subset's videos; those of test are its detections.
        losses: per iteration. evaluations: test mAP along the training, may be empty.
    """

    model: CrossVideoGenerator
    train: pd.DataFrame
    test: pd.DataFrame
    losses: pd.DataFrame
    evaluations: pd.DataFrame


@dataclass(frozen=True)
class Selection:
    """Stage 2: all training proposals with ``iou_score``, and the selected ones."""

    scored: pd.DataFrame
    selected: pd.DataFrame


@dataclass(frozen=True)
class Student:
    """Stage 3: a trained student (its EMA weights).

    Attributes:
        model: the EMA weights, in eval mode.
        detections: on the test videos.
        history: per epoch, see ``student_training.train_student``.
        ema_labels: the EMA labels of each distillation epoch, in seconds; empty without distillation.
    """

    model: TriDet
    detections: pd.DataFrame
    history: pd.DataFrame
    ema_labels: pd.DataFrame


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
        overrides: settings by dotted name, ``{"generation.iterations": 100}``.
        force: take over a run directory made with other settings.

    Raises:
        SettingsError: bad settings, or a run directory made with others.
        RunDirectoryBusyError: ``force`` while ``fustal run`` is at work there.
        OSError: the run directory cannot be written.
    """
    settings = make_settings(resolve_data(data), profile, seed, overrides)
    folder = project_root() / run_dir if run_dir else default_run_dir(settings)
    with run_lock(folder) if force else nullcontext():
        claim_run_dir(folder, settings, force=force)
    return Study(settings, folder)


def load_data(settings: Settings, cache: Path | None = None) -> Dataset:
    """The data of a run: simulated from its seed, or read and checked from its folder.

    cache: folder for the features that exceed ``features.memory_gb``; None: all in memory.

    Raises:
        DataError: every problem of the folder.
    """
    if settings.data == "simulated":
        with show_progress("simulating the data") as progress:
            return simulate(settings.simulation, settings.seed, progress)
    with show_progress("reading the features") as progress:
        return load_dataset(
            Path(settings.data),
            settings.features,
            cache=cache,
            trust_pickle=settings.trust_pickle,
            progress=progress,
        )


class Study:
    """One run: settings, data, and the products of its stages."""

    def __init__(self, settings: Settings, run_dir: Path) -> None:
        self.settings = settings
        self.run_dir = run_dir
        self.device = torch_device(settings)

    @cached_property
    def dataset(self) -> Dataset:
        """The data; its features lie on the study's device if there is room."""
        dataset = load_data(self.settings, self.run_dir / "cache")
        generator = self._on_device(dataset.generator_features)
        shared = dataset.student_features is dataset.generator_features
        student = generator if shared else self._on_device(dataset.student_features)
        dataset = replace(dataset, generator_features=generator, student_features=student)
        write_provenance(self.run_dir, self.settings, dataset.fingerprint, self.device)
        return dataset

    def _on_device(self, store: FeatureStore) -> FeatureStore:
        """The store on the GPU, if half of what is free there holds it; models need the rest."""
        if self.device == "cuda" and store.nbytes > torch.cuda.mem_get_info()[0] / 2:
            return store
        return store.to(self.device)

    @property
    def data_name(self) -> str:
        """What tables call the data: its name and whether it is simulated or real."""
        return f"{self.dataset.name} ({self.dataset.origin})"

    def folder(self, notebook: str) -> Path:
        """Folder of a notebook in the run directory, e.g. ``"01_generation"``."""
        return self.run_dir / notebook

    def measure(self, detections: pd.DataFrame) -> dict[str, float]:
        """mAP at tIoU 0.1..0.7 and the three named averages on the test videos, in percent."""
        return map_summary(detections, self.dataset.truth("test"))

    def generation(self, method: Method | None = None) -> Generation:
        """Stage 1 by a method (None: the one of the settings), made if it is not there."""
        settings = self.settings.generation
        if method is not None:
            settings = settings.model_copy(update={"method": method})
        product = self._generation_product(settings)
        self._ensure(product, lambda: self._make_generation(settings, product))
        return Generation(
            load_model(product.folder / "weights.safetensors").model.to(self.device),
            pd.read_parquet(product.folder / "proposals_train.parquet"),
            pd.read_parquet(product.folder / "proposals_test.parquet"),
            pd.read_parquet(product.folder / "losses.parquet"),
            pd.read_parquet(product.folder / "evaluations.parquet"),
        )

    def _generation_product(self, settings: GenerationSettings) -> Product:
        return self._product(
            f"01_generation/{settings.method}", _GENERATION_CODE, settings.model_dump()
        )

    def _make_generation(self, settings: GenerationSettings, product: Product) -> None:
        def evaluate(model: CrossVideoGenerator) -> dict[str, float]:
            return self.measure(propose(model, self.dataset, "test", settings))

        with show_progress(f"training the generator ({settings.method})") as progress:
            model, losses, evaluations = train_generator(
                settings,
                self.dataset,
                self.settings.seed,
                device=self.device,
                checkpoint=product.checkpoint,
                key=product.key,
                evaluate=evaluate,
                progress=progress,
            )
        self._save_weights(product, model, settings)
        write_parquet(product.folder / "losses.parquet", losses)
        write_parquet(product.folder / "evaluations.parquet", evaluations)
        for subset in ("train", "test"):
            with show_progress(f"proposals of {subset} videos ({settings.method})") as progress:
                proposals = propose(model, self.dataset, subset, settings, progress)
            self._save_segments(product, f"proposals_{subset}", proposals, subset)

    def selection(self) -> Selection:
        """Stage 2 on the proposals of the settings' generator."""
        scored = score_proposals(self.generation().train, self.settings.selection)
        return Selection(scored, select(scored, self.settings.selection, self.video_classes))

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
                segments of the training videos (the fully supervised ceiling).
            distill: switch to EMA labels at ``switch_epoch``. Both choices share the epochs before.
        """
        settings = self._student_settings(labels)
        name = f"{labels}{'+ema' if distill else ''}"
        product = self._student_product(name, settings, labels)
        if not product.is_made:
            segments = self._labels(labels)
            initial = self._phase_one(labels, segments)
            self._ensure(
                product,
                lambda: self._make_student(settings, segments, product, initial, distill),
            )
        return Student(
            load_model(product.folder / "weights.safetensors").model.to(self.device),
            pd.read_parquet(product.folder / "detections.parquet"),
            pd.read_parquet(product.folder / "history.parquet"),
            pd.read_parquet(product.folder / "ema_labels.parquet"),
        )

    def _student_settings(self, labels: LabelSource) -> StudentSettings:
        """Floor and ceiling are measured at their end alone, which saves time."""
        settings = self.settings.student
        if labels == "selected" or settings.select == "best-on-test":
            return settings
        return settings.model_copy(update={"evaluate_every": 0})

    def _student_product(
        self, name: str, settings: StudentSettings, labels: LabelSource
    ) -> Product:
        inputs: list[Any] = [settings.model_dump(), name]
        if labels != "truth":
            generation = self._generation_product(self.settings.generation)
            inputs += [generation.key, self.settings.selection.model_dump()]
        return self._product(f"03_training/{name}", _STUDENT_CODE, inputs)

    def _phase_one(self, labels: LabelSource, segments: pd.DataFrame) -> Path:
        """The state after the epochs on the given labels, from which both continuations start."""
        settings = self._student_settings(labels)
        settings = settings.model_copy(update={"epochs": settings.switch_epoch})
        product = self._student_product(f"{labels}_phase_one", settings, labels)
        self._ensure(
            product,
            lambda: self._train(settings, segments, product, None, distill=False),
            keep_checkpoint=True,
        )
        return product.checkpoint

    def _make_student(
        self,
        settings: StudentSettings,
        segments: pd.DataFrame,
        product: Product,
        initial: Path,
        distill: bool,
    ) -> None:
        result = self._train(settings, segments, product, initial, distill)
        self._save_weights(product, result.model, settings)
        write_parquet(product.folder / "history.parquet", result.history)
        write_parquet(product.folder / "ema_labels.parquet", result.ema_labels)
        with show_progress(f"detections ({product.folder.name})") as progress:
            detections = self._detect(result.model, settings, progress)
        self._save_segments(product, "detections", detections, "test")

    def _train(
        self,
        settings: StudentSettings,
        segments: pd.DataFrame,
        product: Product,
        initial: Path | None,
        distill: bool,
    ) -> StudentResult:
        with show_progress(f"training the student ({product.folder.name})") as progress:
            return train_student(
                settings,
                self.dataset,
                segments,
                self.settings.seed,
                device=self.device,
                checkpoint=product.checkpoint,
                key=product.key,
                initial=initial,
                distill=distill,
                evaluate=lambda model: self.measure(self._detect(model, settings)),
                progress=progress,
            )

    def _labels(self, source: LabelSource) -> pd.DataFrame:
        if source == "truth":
            return self.dataset.truth("train")
        return self.generation().train if source == "raw" else self.selection().selected

    def _detect(
        self, model: TriDet, settings: StudentSettings, progress: Progress | None = None
    ) -> pd.DataFrame:
        return detect(model, self.dataset, "test", settings, device=self.device, progress=progress)

    def _ensure(
        self, product: Product, make: Callable[[], object], *, keep_checkpoint: bool = False
    ) -> None:
        """Make a product that is not there; nobody else makes one in this run directory meanwhile."""
        if product.is_made:
            return
        with making_lock(self.run_dir):
            if not product.is_made:  # another process may have made it while this one waited
                product.begin()
                make()
                product.finish(keep_checkpoint=keep_checkpoint)

    def _product(self, name: str, modules: tuple[str, ...], inputs: Any) -> Product:
        key = hash_of(
            inputs,
            self.settings.seed,
            self.dataset.fingerprint,
            self.device,
            code_hash(modules),
            WEIGHTS_FORMAT,
        )
        return Product(self.run_dir / name, key)

    def _save_weights(
        self,
        product: Product,
        model: CrossVideoGenerator | TriDet,
        settings: GenerationSettings | StudentSettings,
    ) -> None:
        path = product.folder / "weights.safetensors"
        save_model(path, model, settings, self.dataset, self.settings.seed)

    def _save_segments(
        self, product: Product, name: str, segments: pd.DataFrame, subset: str
    ) -> None:
        write_parquet(product.folder / f"{name}.parquet", segments)
        videos = self.dataset.video_names(subset)
        write_detections(product.folder / f"{name}.json", segments, self.data_name, videos)
