"""Training of the student (FuSTAL, stage 3): pseudo labels, then EMA labels; checkpoints.

Everything random in an epoch is drawn from generators made from (seed, epoch). So a run that was
killed goes on to the same bits from its last epoch, and two continuations of one first phase
(with and without distillation) see the same crops in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from fustal_core.distillation import (
    ema_label_part,
    ema_label_table,
    ema_update,
    find_ema_labels,
    initial_share,
    make_ema,
    relabel,
)
from fustal_core.divergence import refuse_divergence, told_of_divergence
from fustal_core.files import load_checkpoint, save_checkpoint
from fustal_core.metrics import AVERAGE
from fustal_core.precision import Precision, computing_in
from fustal_core.progress import Progress
from fustal_core.seeding import seeded
from fustal_core.student import TriDet, make_grid
from fustal_core.student_batches import (
    Batch,
    TrainingSet,
    grid_labels,
    half_window,
    stack_labels,
    training_batches,
)
from fustal_core.student_loss import NORMALISER_START, StudentLoss, assign_labels, student_loss

if TYPE_CHECKING:
    from fustal_core.data import Dataset
    from fustal_core.stage_settings import StudentSettings

Evaluate = Callable[[TriDet], Mapping[str, float]]


@dataclass(frozen=True)
class StudentResult:
    """A trained student.

    Attributes:
        model: with the EMA weights, in eval mode.
        history: one row per epoch: ``epoch``, ``phase``, the mean losses ``loss``,
            ``classification``, ``regression``, ``video``, the ``learning_rate`` at its end,
            ``initial_share`` of the random weights in the EMA, and what ``evaluate`` returned.
        ema_labels: labels the EMA gave: ``epoch``, ``video``, ``label``, ``t_start``, ``t_end``,
            ``score``, ``crop_start_s``, ``crop_end_s`` (s of the whole video).
        epoch: after which epoch (from 0) the weights were taken.
    """

    model: TriDet
    history: pd.DataFrame
    ema_labels: pd.DataFrame
    epoch: int


@dataclass
class _State:
    """All that a run needs to go on after an epoch.

    weights: of the model; looking for them takes time, so it is done once.
    update_average: of :func:`ema_update`.
    """

    model: TriDet
    weights: list[nn.Parameter]
    average: AveragedModel
    update_average: Callable[[], None]
    optimiser: torch.optim.Optimizer
    schedule: LambdaLR
    normaliser: Tensor
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    ema_labels: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)


def train_student(
    settings: StudentSettings,
    dataset: Dataset,
    labels: pd.DataFrame,
    seed: int,
    *,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    key: str = "",
    initial: Path | None = None,
    distill: bool = True,
    evaluate: Evaluate | None = None,
    progress: Progress | None = None,
    precision: Precision = "float32",
) -> StudentResult:
    """Train a student on the training videos' given labels and known classes.

    Args:
        settings: of the student. To try two continuations of one first phase, train with ``epochs``
            set to ``switch_epoch`` and hand that run's checkpoint to both as ``initial``.
        dataset: only features, names and video labels of its "train" videos are used.
        labels: pseudo labels: ``video``, ``label``, ``t_start``, ``t_end`` (s).
        seed: of initial weights, crops, noise and dropout, >= 0.
        device: where to train.
        checkpoint: file written after every epoch; if it exists with the same ``key``, training
            goes on from it.
        key: fingerprint of all that the result depends on.
        initial: checkpoint of another run to start from when there is none of this run.
        distill: EMA labels from ``switch_epoch`` on; False: the given labels to the end.
        evaluate: measures a model on the test videos every ``evaluate_every`` epochs, for showing;
            weights are chosen on its "avg 0.1:0.7" only when ``select`` is "best-on-test".
        progress: called as (steps done, steps in all, note).
        precision: of the products of matrices.
    """
    device = torch.device(device)
    data = _training_set(dataset, labels)
    steps = -(-len(data.names) // settings.batch_size)
    state = _start(settings, data.store.dim, len(dataset.classes), steps, seed, device)
    if not (checkpoint and _load(state, checkpoint, key)) and initial:
        _load(state, initial, None)
    for epoch in range(state.epoch, settings.epochs):
        phase = "EMA labels" if distill and epoch >= settings.switch_epoch else None
        generators = _epoch_generators(seed, epoch, device)
        losses = []
        for step, batch in enumerate(training_batches(data, settings, *generators, device)):
            if phase:
                batch = _label_anew(state, batch, data, settings, epoch)
            seen = epoch * steps + step
            with computing_in(precision, state.model), told_of_divergence(state.model, seen):
                losses.append(
                    _train_step(state, batch, len(dataset.classes), settings, generators[1])
                )
            if progress:
                done = epoch * steps + step + 1
                progress(done, settings.epochs * steps, f"epoch {epoch + 1}/{settings.epochs}")
        row = _epoch_row(losses, state, settings, (epoch + 1) * steps)
        row = {"epoch": epoch, "phase": phase or "pseudo labels"} | row
        _finish_epoch(state, row, settings, evaluate)
        if checkpoint:
            _save(state, checkpoint, key)
    refuse_divergence(state.model, state.epoch * steps)
    return _result(state, settings, dataset.classes)


def _training_set(dataset: Dataset, labels: pd.DataFrame) -> TrainingSet:
    names = dataset.video_names("train")
    store = dataset.student_features
    return TrainingSet(
        names,
        store,
        dataset.video_labels("train"),
        grid_labels(labels, store, names, dataset.classes),
    )


def _start(
    settings: StudentSettings,
    in_channels: int,
    num_classes: int,
    steps: int,
    seed: int,
    device: torch.device,
) -> _State:
    rng = torch.Generator().manual_seed(seed)
    with seeded(seed):  # layers draw weights of their own first
        model = TriDet(in_channels, num_classes, settings, rng).to(device)
    optimiser = torch.optim.AdamW(
        weight_groups(model, settings.weight_decay), lr=settings.learning_rate, fused=True
    )
    warmup = max(1.0, settings.warmup_epochs * steps)
    schedule = LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / warmup))
    normaliser = torch.tensor(NORMALISER_START, device=device)
    average = make_ema(model, settings.ema_decay)
    update = ema_update(average, model, settings.ema_decay)
    weights = list(model.parameters())
    return _State(model, weights, average, update, optimiser, schedule, normaliser)


def weight_groups(model: TriDet, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of AdamW: decay on the weights of convolutions (3-d) and on nothing else."""
    decayed = [p for p in model.parameters() if p.ndim == 3]
    others = [p for p in model.parameters() if p.ndim < 3]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _epoch_generators(
    seed: int, epoch: int, device: torch.device
) -> tuple[np.random.Generator, torch.Generator]:
    crops, noise = np.random.SeedSequence([seed, epoch]).spawn(2)
    on_device = torch.Generator(device).manual_seed(int(noise.generate_state(1)[0]))
    return np.random.default_rng(crops), on_device


def _label_anew(
    state: _State,
    batch: Batch,
    data: TrainingSet,
    settings: StudentSettings,
    epoch: int,
) -> Batch:
    found = find_ema_labels(state.average, batch, settings)
    state.ema_labels.append(ema_label_part(batch, found, data.store, epoch))
    return relabel(batch, found, half_window(data.store))


def _train_step(
    state: _State,
    batch: Batch,
    num_classes: int,
    settings: StudentSettings,
    rng: torch.Generator,
) -> StudentLoss:
    # Labels are given on the CPU and assigned there: a GPU is not waited for.
    grid = make_grid(batch.mask.shape[1], settings.levels, torch.device("cpu"))
    targets = assign_labels(grid, *stack_labels(batch.given), num_classes)
    loss = student_loss(
        state.model(batch.features, batch.mask, rng, targets.classes.any(2)),
        targets,
        batch.video_labels,
        state.normaliser,
        mil_weight=settings.mil_weight,
        mil_k=settings.mil_k,
        mil_dropout=settings.mil_dropout,
        rng=rng,
    )
    state.optimiser.zero_grad()
    loss.total.backward()
    torch.nn.utils.clip_grad_norm_(state.weights, settings.clip_norm)
    state.optimiser.step()
    state.schedule.step()
    state.update_average()
    state.normaliser = loss.normaliser
    return loss.detach()


def _epoch_row(
    losses: list[StudentLoss], state: _State, settings: StudentSettings, steps: int
) -> dict[str, float]:
    parts = {"loss": "total"} | {n: n for n in ("classification", "regression", "video")}
    means = {
        name: float(torch.stack([getattr(loss, part) for loss in losses]).mean())
        for name, part in parts.items()
    }
    return means | {
        "learning_rate": state.schedule.get_last_lr()[0],
        "initial_share": initial_share(settings.ema_decay, steps),
    }


def _finish_epoch(
    state: _State, row: dict[str, Any], settings: StudentSettings, evaluate: Evaluate | None
) -> None:
    state.epoch = row["epoch"] + 1
    due = settings.evaluate_every and (
        state.epoch % settings.evaluate_every == 0 or state.epoch == settings.epochs
    )
    if evaluate and due:
        row |= {name: float(value) for name, value in evaluate(state.average.module).items()}
        if settings.select == "best-on-test" and row[AVERAGE] > state.best.get("score", -1):
            weights = {k: v.clone() for k, v in state.average.module.state_dict().items()}
            state.best = {"score": row[AVERAGE], "epoch": row["epoch"], "weights": weights}
    state.history.append(row)


def _result(state: _State, settings: StudentSettings, classes: tuple[str, ...]) -> StudentResult:
    model, epoch = state.average.module, state.epoch - 1
    if settings.select == "best-on-test" and state.best:
        model.load_state_dict(state.best["weights"])
        epoch = state.best["epoch"]
    history = pd.DataFrame(state.history)
    ema_labels = ema_label_table(state.ema_labels, classes)
    return StudentResult(model.eval(), history, ema_labels, epoch)


def _save(state: _State, path: Path, key: str) -> None:
    content = {
        "model": state.model.state_dict(),
        "average": state.average.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "schedule": state.schedule.state_dict(),
        "normaliser": state.normaliser,
        "epoch": state.epoch,
        "history": state.history,
        "ema_labels": state.ema_labels,
        "best": state.best,
    }
    save_checkpoint(path, key, content)


def _load(state: _State, path: Path, key: str | None) -> bool:
    """Take over a checkpoint with this key (None: any); False if there is none."""
    content = load_checkpoint(path, key)
    if content is None:
        return False
    for part in ("model", "average", "optimiser", "schedule"):
        getattr(state, part).load_state_dict(content[part])
    state.normaliser = content["normaliser"].to(state.normaliser.device)
    for part in ("epoch", "history", "ema_labels", "best"):
        setattr(state, part, content[part])
    return True
