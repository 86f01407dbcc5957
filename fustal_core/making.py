"""How the products of a study are made: trained, measured on the way, and written into their folder.

:class:`fustal_core.stages.Study` decides what is made, when, and from what; nothing else calls this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from safetensors.torch import save

from fustal_core.acmnet import ACMNet
from fustal_core.files import write_bytes, write_parquet
from fustal_core.ftcl_training import acm_net_task, ftcl_task
from fustal_core.generation import Purpose, generator_task, propose, suppress
from fustal_core.generator_training import Task, train
from fustal_core.hrpro import HRPro
from fustal_core.hrpro_training import instance_task, snippet_task
from fustal_core.progress import Progress, show_progress
from fustal_core.results import write_detections
from fustal_core.rundir import Product
from fustal_core.stage_settings import (
    ACMNetSettings,
    FTCLSettings,
    GeneratorSettings,
    HRProInstanceSettings,
    HRProSettings,
    Method,
    StudentSettings,
    TrainingSettings,
)
from fustal_core.student import TriDet
from fustal_core.student_inference import detect
from fustal_core.student_training import StudentResult, train_student
from fustal_core.weights import GeneratorModel, save_model

if TYPE_CHECKING:
    from fustal_core.stages import Study


def make_generation(
    study: Study, method: Method, product: Product, start: ACMNet | HRPro | None
) -> None:
    """Train a generator, propose for all videos, and write both.

    Args:
        study: its settings and data.
        method: of the generator.
        product: where to.
        start: the trained ACM-Net that FTCL starts from, or the stage 1 of HR-Pro; None for the others.
    """
    settings = study.generator_settings(method)

    def evaluate(model: GeneratorModel) -> dict[str, float]:
        return study.measure(propose(model, study.dataset, "test", settings))

    task, training = _generation_task(study, method, start)
    with show_progress(f"training the generator ({method})") as progress:
        trained = train(
            task,
            training,
            study.settings.seed,
            device=study.device,
            precision=study.settings.precision,
            evaluate=evaluate,
            checkpoint=product.checkpoint,
            key=product.key,
            progress=progress,
        )
    _save_weights(study, product, trained.model, settings, training)
    write_parquet(product.folder / "losses.parquet", trained.losses)
    write_parquet(product.folder / "evaluations.parquet", trained.evaluations)
    write_bytes(product.folder / "looks.safetensors", save(trained.looks))
    found = {
        subset: _propose_all(study, method, trained.model, subset) for subset in ("train", "test")
    }
    files: dict[str, tuple[str, Purpose]] = {
        "proposals_train": ("train", "labels"),
        "proposals_test": ("test", "labels"),
        "detections": ("test", "detections"),
    }
    for name, (subset, purpose) in files.items():
        segments = suppress(found[subset], settings, purpose)
        _save_segments(study, product, name, segments, subset)


def _propose_all(study: Study, method: Method, model: GeneratorModel, subset: str) -> pd.DataFrame:
    """Proposals of a subset; with points, the known classes of a training video are theirs."""
    settings = study.generator_settings(method)
    known = study.points.labels() if isinstance(settings, HRProSettings) else None
    with show_progress(f"proposals of {subset} videos ({method})") as progress:
        return propose(model, study.dataset, subset, settings, progress, purpose="all", known=known)


def _generation_task(
    study: Study, method: Method, start: ACMNet | HRPro | None
) -> tuple[Task, TrainingSettings]:
    """What is trained, and the settings of the training."""
    settings, place = study.generator_settings(method), (study.settings.seed, study.device)
    if method == "ftcl":
        ftcl = study.settings.ftcl
        return ftcl_task(ftcl, study.settings.acm_net, start, study.dataset, *place), ftcl
    if isinstance(settings, HRProSettings):
        if method == "hr-pro-snippet":
            return snippet_task(settings, study.points, *place), settings
        found = _propose_all(study, "hr-pro-snippet", start, "train")
        own = study.settings.hr_pro_instance
        return instance_task(own, settings, start, found, study.points, *place), own
    make = acm_net_task if isinstance(settings, ACMNetSettings) else generator_task
    return make(settings, study.dataset, *place), settings


def make_student(
    study: Study,
    settings: StudentSettings,
    segments: pd.DataFrame,
    product: Product,
    initial: Path,
    distill: bool,
) -> None:
    """Train a student to its end, detect in the test videos, and write both.

    Args:
        study: its data.
        settings: of the student.
        segments: labels of the training videos.
        product: where to.
        initial: checkpoint after the first phase.
        distill: whether EMA labels take over.
    """
    measured: deque[pd.DataFrame] = deque(maxlen=1)
    result = run_student_training(
        study, settings, segments, product, initial, distill, detected=measured.append
    )
    _save_weights(study, product, result.model, settings)
    write_parquet(product.folder / "history.parquet", result.history)
    write_parquet(product.folder / "ema_labels.parquet", result.ema_labels)
    if measured and result.epoch == settings.epochs - 1:
        detections = measured[-1]  # the weights of the last epoch were measured at its end
    else:
        with show_progress(f"detections ({product.folder.name})") as progress:
            detections = _detect(study, result.model, settings, progress)
    _save_segments(study, product, "detections", detections, "test")


def run_student_training(
    study: Study,
    settings: StudentSettings,
    segments: pd.DataFrame,
    product: Product,
    initial: Path | None,
    distill: bool,
    detected: Callable[[pd.DataFrame], object] | None = None,
) -> StudentResult:
    """Train a student, with the product's checkpoint; arguments as in :func:`make_student`.

    initial: None for the first phase.
    detected: gets the detections of every measurement on the way, that of the last epoch last.
    """

    def evaluate(model: TriDet) -> dict[str, float]:
        detections = _detect(study, model, settings)
        if detected:
            detected(detections)
        return study.measure(detections)

    with show_progress(f"training the student ({product.folder.name})") as progress:
        return train_student(
            settings,
            study.dataset,
            segments,
            study.settings.seed,
            device=study.device,
            precision=study.settings.precision,
            checkpoint=product.checkpoint,
            key=product.key,
            initial=initial,
            distill=distill,
            evaluate=evaluate,
            progress=progress,
        )


def _detect(
    study: Study, model: TriDet, settings: StudentSettings, progress: Progress | None = None
) -> pd.DataFrame:
    return detect(model, study.dataset, "test", settings, device=study.device, progress=progress)


def _save_weights(
    study: Study,
    product: Product,
    model: GeneratorModel | TriDet,
    settings: GeneratorSettings | StudentSettings,
    training: TrainingSettings | None = None,
) -> None:
    path = product.folder / "weights.safetensors"
    later = training if isinstance(training, FTCLSettings | HRProInstanceSettings) else None
    save_model(path, model, settings, study.dataset, study.settings.seed, later)


def _save_segments(
    study: Study, product: Product, name: str, segments: pd.DataFrame, subset: str
) -> None:
    write_parquet(product.folder / f"{name}.parquet", segments)
    videos = study.dataset.video_names(subset)
    write_detections(product.folder / f"{name}.json", segments, study.data_name, videos)
