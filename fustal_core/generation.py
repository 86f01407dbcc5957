"""FuSTAL stage 1: the task of training its generator, and the proposals of any trained generator."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fustal_core.acmnet import ACMNetOutput
from fustal_core.data import Dataset
from fustal_core.features import FeatureStore
from fustal_core.generator import (
    CrossVideoGenerator,
    GeneratorLoss,
    GeneratorOutput,
    generator_loss,
)
from fustal_core.generator_training import Task, video_task
from fustal_core.hrpro import SnippetOutput
from fustal_core.hrpro_inference import localization_of_points, point_proposals
from fustal_core.mining import snippet_mask
from fustal_core.progress import Progress
from fustal_core.proposals import FUSTAL, Localization, generate_proposals
from fustal_core.seeding import seeded
from fustal_core.stage_settings import (
    GenerationSettings,
    GeneratorSettings,
    HRProSettings,
    SampledGeneratorSettings,
)
from fustal_core.suppression import suppress_softly, thin

PARTS = ("total", "classification", "in_video", "cross_video")
Purpose = Literal["detections", "labels", "all"]
"""What proposals are for. ``detections``: what a method is measured by, after its own NMS. ``labels``:
what selection is given, thinned by NMS at ``nms_tiou`` whatever the method does itself, because the IoU
score counts overlaps that are left. ``all``: before any NMS. The first two differ for HR-Pro alone,
whose own NMS is soft; only HR-Pro has a use for the last."""


Output = GeneratorOutput | ACMNetOutput | SnippetOutput
"""Of any model that localises: it has ``cas``, ``actionness`` and ``video_scores``."""


def generator_task(
    settings: GenerationSettings, dataset: Dataset, seed: int, device: str = "cpu"
) -> Task[CrossVideoGenerator]:
    """Train the generator on the training videos' class labels (FuSTAL, stage 1, "Training").

    Args:
        settings: of the stage; ``method`` "cola" leaves out the cross-video term.
        dataset: whose ``video_labels("train")`` are all the supervision there is.
        seed: of the initial weights.
        device: "cpu" or "cuda".
    """
    with seeded(seed):
        model = CrossVideoGenerator(
            dataset.generator_features.dim, len(dataset.classes), settings.hidden_channels
        )
    is_fustal = settings.method == "cross-video"

    def loss(output: GeneratorOutput, labels: Tensor, rng: torch.Generator) -> GeneratorLoss:
        return generator_loss(
            output,
            labels,
            snippet_mask(output.actionness, rng),
            contrast_weight=settings.contrast_weight,
            cross_video_weight=settings.cross_video_weight * is_fustal,
            cross_video_pairs=settings.cross_video_pairs,
        )

    return video_task(model.to(device), PARTS, settings, dataset, loss)


def localization_of(settings: GeneratorSettings) -> Localization:
    """How a method cuts proposals: FuSTAL's and CoLA's way, that of ACM-Net and FTCL, or HR-Pro's."""
    if isinstance(settings, GenerationSettings):
        return FUSTAL
    if isinstance(settings, HRProSettings):
        return localization_of_points(settings)
    return Localization(
        cas_thresholds=settings.cas_thresholds,
        actionness_thresholds=settings.attention_thresholds,
        upsampling=20,
        margin=0.2,
        class_score_weight=0.0,
        min_max=settings.min_max,
        at_class_threshold=False,
    )


@torch.inference_mode()
def run_generator(model: nn.Module, store: FeatureStore, video: str, length: int) -> Output:
    """The generator's output for one video, uniformly sampled to at most ``length`` snippets (B = 1)."""
    device = next(model.parameters()).device
    return model.eval()(store.sample_uniform(video, length)[None].to(device))


def propose(
    model: nn.Module,
    dataset: Dataset,
    subset: str,
    settings: GeneratorSettings,
    progress: Progress | None = None,
    *,
    purpose: Purpose = "detections",
    known: Tensor | None = None,
) -> pd.DataFrame:
    """Proposals of all videos of a subset (FuSTAL, stage 1, "Proposals").

    Those of the test videos are the generator's detections; those of the training videos become
    pseudo labels.

    Args:
        model: of any method.
        dataset: its features, and the video labels of the training videos.
        subset: "train" or "test".
        settings: of the method.
        progress: called as ``progress(done, total, video)``.
        purpose: after which NMS.
        known: (N, C) multi-hot, classes of the training videos where they are not the video labels:
            those of the points.

    Returns:
        Columns ``video``, ``label`` (class name), ``score``, ``t_start``, ``t_end`` (s).
    """
    frames = []
    store = dataset.generator_features
    videos = dataset.video_names(subset)
    labels = None
    if subset == "train" and settings.train_classes == "video labels":
        labels = (dataset.video_labels("train") if known is None else known).numpy()
    for done, video in enumerate(videos, start=1):
        shown = np.flatnonzero(labels[done - 1]) if labels is not None else None
        frames.append(_propose(model, store, video, dataset.classes, settings, shown))
        if progress:
            progress(done, len(videos), video)
    return suppress(pd.concat(frames, ignore_index=True), settings, purpose)


def propose_video(
    model: nn.Module,
    store: FeatureStore,
    video: str,
    classes: tuple[str, ...],
    settings: GeneratorSettings,
) -> pd.DataFrame:
    """Detections in one video of a store, of the classes that the model predicts.

    Args:
        model: put into eval mode.
        store: holds the video's features and clock.
        video: its name.
        classes: names, in the order of the model's outputs.
        settings: of the stage.

    Returns:
        The columns of :func:`propose`.
    """
    return suppress(_propose(model, store, video, classes, settings, None), settings, "detections")


@torch.inference_mode()
def _propose(
    model: nn.Module,
    store: FeatureStore,
    video: str,
    classes: tuple[str, ...],
    settings: GeneratorSettings,
    shown: np.ndarray | None,
) -> pd.DataFrame:
    """Proposals of one video, before HR-Pro's NMS and after that of the others.

    shown: indices of the classes to propose; None: those that the model predicts.
    """
    if isinstance(settings, SampledGeneratorSettings):
        output = run_generator(model, store, video, settings.length)
        frame = generate_proposals(
            output.cas[0],
            output.actionness[0],
            output.video_scores[0],
            store.num_snippets(video),
            store.seconds_per_snippet(video),
            how=localization_of(settings),
            nms_tiou=settings.nms_tiou,
            class_threshold=settings.class_threshold,
            legacy_plus_one=settings.legacy_plus_one,
            classes=shown,
        )
    else:
        features = store[video].to(next(model.parameters()).device)
        step_s = store.seconds_per_snippet(video)
        frame = point_proposals(model.eval(), features, step_s, settings, shown)
    frame["label"] = np.array(classes, dtype=object)[frame["label"].to_numpy()]
    frame.insert(0, "video", video)
    return frame


def suppress(
    proposals: pd.DataFrame, settings: GeneratorSettings, purpose: Purpose
) -> pd.DataFrame:
    """What of HR-Pro's proposals, as from :func:`propose` for "all", serves a purpose.

    Those of the other methods, which have passed their NMS already, stay as they are.
    """
    if isinstance(settings, SampledGeneratorSettings) or purpose == "all":
        return proposals
    plus_one = settings.legacy_plus_one
    if purpose == "labels":
        return thin(proposals, settings.nms_tiou, legacy_plus_one=plus_one)
    return suppress_softly(proposals, settings.nms_sigma, legacy_plus_one=plus_one)
