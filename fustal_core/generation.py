"""Training of the stage-1 generator, and its proposals for all videos of a subset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fustal_core.config import GenerationSettings
from fustal_core.data import Dataset
from fustal_core.features import FeatureStore
from fustal_core.files import load_checkpoint, save_checkpoint
from fustal_core.generator import (
    CrossVideoGenerator,
    GeneratorOutput,
    generator_loss,
    snippet_mask,
)
from fustal_core.progress import Progress
from fustal_core.proposals import generate_proposals

Evaluate = Callable[[CrossVideoGenerator], dict[str, float]]

HISTORY_COLUMNS = ["iteration", "total", "classification", "in_video", "cross_video"]


class _Training:
    """State of one training: everything a checkpoint holds."""

    def __init__(
        self, settings: GenerationSettings, dataset: Dataset, seed: int, device: str
    ) -> None:
        self.settings = settings
        self.rng = torch.Generator().manual_seed(seed)
        self.device_rng = torch.Generator(device).manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = CrossVideoGenerator(
                dataset.generator_features.dim, len(dataset.classes), settings.hidden_channels
            ).to(device)
        self.optimiser = torch.optim.Adam(
            self.model.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        self.waiting: list[int] = []
        self.done = 0
        # Losses stay on the device until the end: reading them would make every step wait.
        self.history = torch.zeros(settings.iterations, len(HISTORY_COLUMNS) - 1, device=device)
        self.scores: list[dict[str, float]] = []
        self.best: dict[str, Tensor] | None = None

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rng": self.rng.get_state(),
            "device_rng": self.device_rng.get_state(),
            "waiting": self.waiting,
            "done": self.done,
            "history": self.history,
            "scores": self.scores,
            "best": self.best,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.rng.set_state(state["rng"])
        self.device_rng.set_state(state["device_rng"])
        self.waiting, self.done = state["waiting"], state["done"]
        self.history.copy_(state["history"])
        self.scores, self.best = state["scores"], state["best"]

    def next_batch(self, num_videos: int) -> list[int]:
        """The next batch of a shuffled pass over the videos; the last of a pass may be smaller."""
        if not self.waiting:
            self.waiting = torch.randperm(num_videos, generator=self.rng).tolist()
        size = self.settings.batch_size
        batch, self.waiting = self.waiting[:size], self.waiting[size:]
        return batch

    def step(self, features: Tensor, labels: Tensor) -> None:
        """One optimiser step on (B, T', D) features and (B, C) labels."""
        self.model.train()
        output = self.model(features, self.device_rng)
        settings = self.settings
        loss = generator_loss(
            output,
            labels,
            snippet_mask(output.actionness, self.device_rng),
            contrast_weight=settings.contrast_weight,
            cross_video_weight=settings.cross_video_weight * (settings.method == "cross-video"),
        )
        self.optimiser.zero_grad(set_to_none=True)
        loss.total.backward()
        self.optimiser.step()
        parts = (loss.total, loss.classification, loss.in_video, loss.cross_video)
        self.history[self.done] = torch.stack(parts).detach()
        self.done += 1

    def evaluate(self, evaluate: Evaluate) -> None:
        """Record a score; keep the weights if it is the best and best-on-test was asked for."""
        score = evaluate(self.model)
        self.scores.append({"iteration": self.done, **score})
        best = max(s["avg 0.1:0.7"] for s in self.scores)
        if self.settings.select == "best-on-test" and score["avg 0.1:0.7"] == best:
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}


def train_generator(
    settings: GenerationSettings,
    dataset: Dataset,
    seed: int,
    *,
    device: str = "cpu",
    checkpoint: Path | None = None,
    key: str = "",
    evaluate: Evaluate | None = None,
    progress: Progress | None = None,
) -> tuple[CrossVideoGenerator, pd.DataFrame, pd.DataFrame]:
    """Train the generator on the training videos' class labels (FuSTAL, stage 1, "Training").

    Args:
        settings: of the stage; ``method`` "cola" leaves out the cross-video term.
        dataset: whose ``video_labels("train")`` are all the supervision there is.
        seed: of weights, batches, snippet sampling and dropout.
        device: "cpu" or "cuda".
        checkpoint: file that a killed training resumes from, to the same bits on CPU.
        key: names the job; a checkpoint with another key is ignored.
        evaluate: measures the model every ``settings.evaluate_every`` iterations.
        progress: called as ``progress(done, total, note)``.

    Returns:
        The model in eval mode, the losses per iteration (``HISTORY_COLUMNS``), and the evaluations
        (``iteration`` and the keys of ``evaluate``; empty without one).
    """
    training = _Training(settings, dataset, seed, device)
    state = load_checkpoint(checkpoint, key)
    if state is not None:
        training.restore(state)
    videos = dataset.video_names("train")
    labels = dataset.video_labels("train").to(device)
    features = dataset.generator_features
    while training.done < settings.iterations:
        batch = training.next_batch(len(videos))
        sampled = features.sample_random(
            [videos[i] for i in batch], settings.length, training.rng
        ).to(device)
        training.step(sampled, labels[batch])
        done = training.done
        if evaluate and settings.evaluate_every and done % settings.evaluate_every == 0:
            training.evaluate(evaluate)
        if checkpoint and done % settings.checkpoint_every == 0:
            save_checkpoint(checkpoint, key, training.state())
        if progress:
            progress(done, settings.iterations, "")
    if training.best is not None:
        training.model.load_state_dict(training.best)
    losses = pd.DataFrame(training.history.cpu().numpy(), columns=HISTORY_COLUMNS[1:])
    losses.insert(0, "iteration", np.arange(1, len(losses) + 1))
    return training.model.eval(), losses, pd.DataFrame(training.scores)


@torch.inference_mode()
def run_generator(
    model: CrossVideoGenerator, dataset: Dataset, video: str, length: int
) -> GeneratorOutput:
    """The generator's output for one video, uniformly sampled to at most ``length`` snippets (B = 1)."""
    return _run(model, dataset.generator_features, video, length)


def _run(
    model: CrossVideoGenerator, store: FeatureStore, video: str, length: int
) -> GeneratorOutput:
    device = next(model.parameters()).device
    return model.eval()(store.sample_uniform(video, length)[None].to(device))


def propose(
    model: CrossVideoGenerator,
    dataset: Dataset,
    subset: str,
    settings: GenerationSettings,
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
    model: CrossVideoGenerator,
    store: FeatureStore,
    video: str,
    classes: tuple[str, ...],
    settings: GenerationSettings,
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
        nms_tiou=settings.nms_tiou,
        class_threshold=settings.class_threshold,
        legacy_plus_one=settings.legacy_plus_one,
        classes=shown,
    )
    frame["label"] = np.array(classes, dtype=object)[frame["label"].to_numpy()]
    frame.insert(0, "video", video)
    return frame
