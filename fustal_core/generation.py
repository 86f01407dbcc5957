"""FuSTAL stage 1: the task of training its generator, and the proposals of any trained generator."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fustal_core.acmnet import ACMNetOutput
from fustal_core.config import GenerationSettings, GeneratorSettings
from fustal_core.data import Dataset
from fustal_core.features import FeatureStore
from fustal_core.generator import (
    CrossVideoGenerator,
    GeneratorOutput,
    generator_loss,
    snippet_mask,
)
from fustal_core.generator_training import Task, initial_weights
from fustal_core.progress import Progress
from fustal_core.proposals import FUSTAL, Localization, generate_proposals

PARTS = ("total", "classification", "in_video", "cross_video")


class Generator(Protocol):
    """Any model that localises: its output has ``cas``, ``actionness`` and ``video_scores``."""

    def __call__(self, features: Tensor) -> GeneratorOutput | ACMNetOutput:
        """Features (B, T, D)."""


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
    store, videos = dataset.generator_features, dataset.video_names("train")
    labels = dataset.video_labels("train").to(device)
    with initial_weights(seed):
        model = CrossVideoGenerator(store.dim, len(dataset.classes), settings.hidden_channels)
    model = model.to(device)
    is_fustal = settings.method == "cross-video"

    def losses(batch: list[int], rng: torch.Generator, device_rng: torch.Generator) -> Tensor:
        features = store.sample_random([videos[i] for i in batch], settings.length, rng)
        output = model(features.to(device), device_rng)
        loss = generator_loss(
            output,
            labels[batch],
            snippet_mask(output.actionness, device_rng),
            contrast_weight=settings.contrast_weight,
            cross_video_weight=settings.cross_video_weight * is_fustal,
        )
        return torch.stack([getattr(loss, part) for part in PARTS])

    return Task(
        model,
        PARTS,
        settings.iterations,
        epoch=lambda rng: torch.randperm(len(videos), generator=rng).tolist(),
        losses=losses,
        evaluate_every=settings.evaluate_every,
    )


def localization_of(settings: GeneratorSettings) -> Localization:
    """How a method cuts proposals: FuSTAL's and CoLA's way, or that of ACM-Net and FTCL."""
    if isinstance(settings, GenerationSettings):
        return FUSTAL
    return Localization(
        cas_thresholds=settings.cas_thresholds,
        actionness_thresholds=settings.attention_thresholds,
        upsampling=20,
        margin=0.2,
        class_score_weight=0.0,
        min_max=False,
        at_class_threshold=False,
    )


@torch.inference_mode()
def run_generator(
    model: Generator, dataset: Dataset, video: str, length: int
) -> GeneratorOutput | ACMNetOutput:
    """The generator's output for one video, uniformly sampled to at most ``length`` snippets (B = 1)."""
    return _run(model, dataset.generator_features, video, length)


def _run(
    model: Generator, store: FeatureStore, video: str, length: int
) -> GeneratorOutput | ACMNetOutput:
    device = next(model.parameters()).device
    return model.eval()(store.sample_uniform(video, length)[None].to(device))


def propose(
    model: Generator,
    dataset: Dataset,
    subset: str,
    settings: GeneratorSettings,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Proposals of all videos of a subset (FuSTAL, stage 1, "Proposals").

    Those of the test videos are the generator's detections; those of the training videos become
    pseudo labels.

    Returns:
        Columns ``video``, ``label`` (class name), ``score``, ``t_start``, ``t_end`` (s).
    """
    frames = []
    store = dataset.generator_features
    videos = dataset.video_names(subset)
    use_labels = subset == "train" and settings.train_classes == "video labels"
    known = dataset.video_labels("train").numpy() if use_labels else None
    for done, video in enumerate(videos, start=1):
        shown = np.flatnonzero(known[done - 1]) if known is not None else None
        frames.append(propose_video(model, store, video, dataset.classes, settings, shown))
        if progress:
            progress(done, len(videos), video)
    return pd.concat(frames, ignore_index=True)


@torch.inference_mode()
def propose_video(
    model: Generator,
    store: FeatureStore,
    video: str,
    classes: tuple[str, ...],
    settings: GeneratorSettings,
    shown: np.ndarray | None = None,
) -> pd.DataFrame:
    """Proposals of one video of a store, in the columns of :func:`propose`.

    Args:
        model: put into eval mode.
        store: holds the video's features and clock.
        video: its name.
        classes: names, in the order of the model's outputs.
        settings: of the stage.
        shown: indices of the classes to propose; None: those that the model predicts.
    """
    output = _run(model, store, video, settings.length)
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
    frame["label"] = np.array(classes, dtype=object)[frame["label"].to_numpy()]
    frame.insert(0, "video", video)
    return frame
