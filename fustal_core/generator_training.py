"""The training loop that all generators share: steps, checkpoints, evaluations, resuming.

A method brings a :class:`Task`: its model, what a pass over the training data consists of, and the
losses of a batch. The loop does the rest, from seeded sources of randomness alone, so that a killed
training goes on to the same bits on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fustal_core.data import Dataset
from fustal_core.divergence import refuse_divergence, told_of_divergence
from fustal_core.features import to_device
from fustal_core.files import load_checkpoint, save_checkpoint
from fustal_core.memory import all_freed_memory_kept
from fustal_core.metrics import AVERAGE
from fustal_core.precision import Precision, computing_in
from fustal_core.progress import Progress
from fustal_core.stage_settings import SampledGeneratorSettings, TrainingSettings

Model = TypeVar("Model", bound=nn.Module)
Evaluate = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True)
class Task(Generic[Model]):
    """What a method brings to the loop.

    Attributes:
        model: with its initial weights, on its device.
        parts: names of the losses, "total" first.
        iterations: optimiser steps.
        epoch: the items (videos or pairs, as plain numbers) of one pass, shuffled by the generator.
        losses: of a batch of items, (len(parts),) with gradients; draws snippets from the first
            generator (CPU) and dropout from the second (the model's device).
        evaluate_every: iterations between evaluations; 0: none.
        one_by_one: each item of a batch has a backward pass of its own, and their gradients are added:
            for whole videos, whose graphs would not fit into memory side by side.
        look: what to keep of the model before the first and after every ``look_every`` iterations, for
            pictures; None: nothing.
    """

    model: Model
    parts: tuple[str, ...]
    iterations: int
    epoch: Callable[[torch.Generator], list]
    losses: Callable[[list, torch.Generator, torch.Generator], Tensor]
    evaluate_every: int = 0
    one_by_one: bool = False
    look: Callable[[], dict[str, Tensor]] | None = None
    look_every: int = 1


@dataclass(frozen=True)
class Trained(Generic[Model]):
    """A trained model.

    Attributes:
        model: in eval mode.
        losses: column ``iteration``, and one for each part.
        evaluations: ``iteration`` and the keys of the evaluation; empty without one.
        looks: what the task kept, stacked over time, with ``iterations``; empty without any.
    """

    model: Model
    losses: pd.DataFrame
    evaluations: pd.DataFrame
    looks: dict[str, Tensor]


@dataclass
class _State:
    """Everything a checkpoint holds."""

    task: Task
    optimiser: torch.optim.Optimizer
    rng: torch.Generator
    device_rng: torch.Generator
    history: Tensor
    waiting: list = field(default_factory=list)
    done: int = 0
    scores: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    looks: list[dict[str, Tensor]] = field(default_factory=list)

    _PLAIN = ("waiting", "done", "scores", "best", "looks")

    def save(self) -> dict[str, Any]:
        return {
            "model": self.task.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rng": self.rng.get_state(),
            "device_rng": self.device_rng.get_state(),
            "history": self.history,
            **{name: getattr(self, name) for name in self._PLAIN},
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.task.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.rng.set_state(state["rng"])
        self.device_rng.set_state(state["device_rng"])
        self.history.copy_(state["history"])
        for name in self._PLAIN:
            setattr(self, name, state[name])

    def next_batch(self, size: int) -> list:
        """The next items of a shuffled pass; the last batch of a pass may be smaller."""
        if not self.waiting:
            self.waiting = self.task.epoch(self.rng)
        batch, self.waiting = self.waiting[:size], self.waiting[size:]
        return batch

    def step(self, batch_size: int) -> None:
        """One optimiser step."""
        self.task.model.train()
        batch = self.next_batch(batch_size)
        parts = [[item] for item in batch] if self.task.one_by_one else [batch]
        self.optimiser.zero_grad(set_to_none=True)
        for part in parts:
            losses = self.task.losses(part, self.rng, self.device_rng)
            losses[0].backward()
            self.history[self.done] += losses.detach() / len(parts)
        self.optimiser.step()
        self.done += 1

    def evaluate(self, evaluate: Evaluate, *, keep_best: bool) -> None:
        """Record a score; keep the weights if it is the best and best-on-test was asked for."""
        score = evaluate(self.task.model)
        self.scores.append({"iteration": self.done, **score})
        best = max(s[AVERAGE] for s in self.scores)
        if keep_best and score[AVERAGE] == best:
            self.best = {k: v.detach().clone() for k, v in self.task.model.state_dict().items()}

    def look(self) -> None:
        """Keep what the task wants to see of the model as it is now."""
        if self.task.look is not None:
            with torch.inference_mode():
                self.task.model.eval()
                seen = {name: value.cpu() for name, value in self.task.look().items()}
            self.looks.append({"iterations": torch.tensor(self.done), **seen})


def video_task(
    model: Model,
    parts: tuple[str, ...],
    settings: SampledGeneratorSettings,
    dataset: Dataset,
    loss: Callable[[Any, Tensor, torch.Generator], Any],
) -> Task[Model]:
    """The task of training a model on single videos and their class labels.

    Args:
        model: on its device.
        parts: of the loss, "total" first.
        settings: of the method.
        dataset: whose ``video_labels("train")`` are all the supervision there is.
        loss: of an output for B videos and their labels (B, C), with an attribute for each part; may
            draw from the generator of the model's device.
    """
    store, videos = dataset.generator_features, dataset.video_names("train")
    device = next(model.parameters()).device
    labels = dataset.video_labels("train").to(device)

    def losses(batch: list[int], rng: torch.Generator, device_rng: torch.Generator) -> Tensor:
        features = store.sample_random([videos[i] for i in batch], settings.length, rng)
        own = labels[to_device(torch.tensor(batch), device)]
        found = loss(model(to_device(features, device), device_rng), own, device_rng)
        return torch.stack([getattr(found, part) for part in parts])

    return Task(
        model,
        parts,
        settings.iterations,
        epoch=lambda rng: torch.randperm(len(videos), generator=rng).tolist(),
        losses=losses,
        evaluate_every=settings.evaluate_every,
    )


@all_freed_memory_kept()
def train(
    task: Task[Model],
    settings: TrainingSettings,
    seed: int,
    *,
    device: str = "cpu",
    evaluate: Evaluate | None = None,
    checkpoint: Path | None = None,
    key: str = "",
    progress: Progress | None = None,
    precision: Precision = "float32",
) -> Trained[Model]:
    """Train a task's model with Adam.

    Args:
        task: of the method.
        settings: batch size, learning rate, weight decay, which weights are kept, and how often a
            checkpoint is written.
        seed: of batches, snippet sampling and dropout.
        device: "cpu" or "cuda", where the model is.
        evaluate: measures the model every ``task.evaluate_every`` iterations.
        checkpoint: file that a killed training resumes from.
        key: names the job; a checkpoint with another key is ignored.
        progress: called as ``progress(done, total, note)``.
        precision: of the products of matrices.
    """
    state = _State(
        task,
        torch.optim.Adam(
            task.model.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        ),
        torch.Generator().manual_seed(seed),
        torch.Generator(device).manual_seed(seed),
        # Losses stay on the device until the end: reading them would make every step wait.
        torch.zeros(task.iterations, len(task.parts), device=device),
    )
    saved = load_checkpoint(checkpoint, key)
    if saved is not None:
        state.restore(saved)
    else:
        state.look()
    while state.done < task.iterations:
        with computing_in(precision, task.model), told_of_divergence(task.model, state.done):
            state.step(settings.batch_size)
        if state.done % task.look_every == 0:
            state.look()
        if evaluate and task.evaluate_every and state.done % task.evaluate_every == 0:
            state.evaluate(evaluate, keep_best=settings.select == "best-on-test")
        if checkpoint and state.done % settings.checkpoint_every == 0:
            save_checkpoint(checkpoint, key, state.save())
        if progress:
            progress(state.done, task.iterations, "")
    refuse_divergence(task.model, state.done)
    if state.best is not None:
        task.model.load_state_dict(state.best)
    losses = pd.DataFrame(state.history.cpu().numpy(), columns=list(task.parts))
    losses.insert(0, "iteration", np.arange(1, len(losses) + 1))
    names = state.looks[0] if state.looks else {}
    looks = {name: torch.stack([look[name] for look in state.looks]) for name in names}
    return Trained(task.model.eval(), losses, pd.DataFrame(state.scores), looks)
