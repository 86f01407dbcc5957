"""How the products of a study are made: trained, measured on the way, and written into their folder.

:class:`fustal_core.stages.Study` decides what is made, when, and from what; nothing else calls this.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from safetensors.torch import save

from fustal_core.acmnet import ACMNet
from fustal_core.config import (
    ACMNetSettings,
    FTCLSettings,
    GeneratorSettings,
    Method,
    StudentSettings,
    TrainingSettings,
)
from fustal_core.files import write_bytes, write_parquet
from fustal_core.ftcl_training import acm_net_task, ftcl_task
from fustal_core.generation import generator_task, propose
from fustal_core.generator_training import Task, train
from fustal_core.progress import Progress, show_progress
from fustal_core.results import write_detections
from fustal_core.rundir import Product
from fustal_core.student import TriDet
from fustal_core.student_inference import detect
from fustal_core.student_training import StudentResult, train_student
from fustal_core.weights import GeneratorModel, save_model

if TYPE_CHECKING:
    from fustal_core.stages import Study


def make_generation(study: Study, method: Method, product: Product, start: ACMNet | None) -> None:
    """Train a generator, propose for all videos, and write both.

    Args:
        study: its settings and data.
        method: of the generator.
        product: where to.
        start: the trained ACM-Net that FTCL starts from; None for the others.
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
            evaluate=evaluate,
            checkpoint=product.checkpoint,
            key=product.key,
            progress=progress,
        )
    ftcl = training if isinstance(training, FTCLSettings) else None
    _save_weights(study, product, trained.model, settings, ftcl)
    write_parquet(product.folder / "losses.parquet", trained.losses)
    write_parquet(product.folder / "evaluations.parquet", trained.evaluations)
    write_bytes(product.folder / "looks.safetensors", save(trained.looks))
    for subset in ("train", "test"):
        with show_progress(f"proposals of {subset} videos ({method})") as progress:
            proposals = propose(trained.model, study.dataset, subset, settings, progress)
        _save_segments(study, product, f"proposals_{subset}", proposals, subset)


def _generation_task(
    study: Study, method: Method, start: ACMNet | None
) -> tuple[Task, TrainingSettings]:
    """What is trained, and the settings of the training."""
    settings, place = study.generator_settings(method), (study.settings.seed, study.device)
    if start is not None:
        ftcl = study.settings.ftcl
        return ftcl_task(ftcl, study.settings.acm_net, start, study.dataset, *place), ftcl
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
    result = run_student_training(study, settings, segments, product, initial, distill)
    _save_weights(study, product, result.model, settings)
    write_parquet(product.folder / "history.parquet", result.history)
    write_parquet(product.folder / "ema_labels.parquet", result.ema_labels)
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
) -> StudentResult:
    """Train a student, with the product's checkpoint; arguments as in :func:`make_student`.

    initial: None for the first phase.
    """
    with show_progress(f"training the student ({product.folder.name})") as progress:
        return train_student(
            settings,
            study.dataset,
            segments,
            study.settings.seed,
            device=study.device,
            checkpoint=product.checkpoint,
            key=product.key,
            initial=initial,
            distill=distill,
            evaluate=lambda model: study.measure(_detect(study, model, settings)),
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
    ftcl: FTCLSettings | None = None,
) -> None:
    path = product.folder / "weights.safetensors"
    save_model(path, model, settings, study.dataset, study.settings.seed, ftcl)


def _save_segments(
    study: Study, product: Product, name: str, segments: pd.DataFrame, subset: str
) -> None:
    write_parquet(product.folder / f"{name}.parquet", segments)
    videos = study.dataset.video_names(subset)
    write_detections(product.folder / f"{name}.json", segments, study.data_name, videos)
