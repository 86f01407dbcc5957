"""The parts of the benchmark around the student: its training step, EMA labels, inference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fustal_core.bench_case import Case
from fustal_core.bench_data import Inputs, Sizes, random_dataset
from fustal_core.data import Dataset
from fustal_core.distillation import find_ema_labels, make_ema
from fustal_core.progress import Progress
from fustal_core.reference_detection import (
    Detection,
    detections_by_loops,
    ema_labels_by_loops,
)
from fustal_core.reference_proposals import soft_nms_by_loops
from fustal_core.reference_student import network_by_levels
from fustal_core.reference_student_loss import Given, PlainStudent, student_loss_by_positions
from fustal_core.stage_settings import StudentSettings
from fustal_core.student import StudentOutput, TriDet, make_grid
from fustal_core.student_batches import (
    Batch,
    TrainingSet,
    grid_labels,
    make_batch,
    stack_labels,
)
from fustal_core.student_inference import detect_batch
from fustal_core.student_loss import NORMALISER_START, assign_labels, student_loss
from fustal_core.student_training import train_student
from fustal_core.suppression import batched_soft_nms

STRIDE_FRAMES = 4


def student_settings(sizes: Sizes) -> StudentSettings:
    """The published settings at the given sizes, for one epoch of whole videos."""
    return StudentSettings(
        width=sizes.student_width,
        mlp_width=sizes.student_mlp,
        max_length=sizes.student_length,
        batch_size=sizes.student_videos,
        crop_min=1.0,
        epochs=1,
        switch_epoch=1,
    )


def _dataset(inputs: Inputs, batches: int = 1) -> Dataset:
    sizes = inputs.sizes
    return random_dataset(
        sizes.student_videos,
        batches,
        sizes.student_length,
        sizes.student_channels,
        sizes.classes,
        STRIDE_FRAMES,
        inputs.rng,
        inputs.device,
    )


def _size(sizes: Sizes) -> str:
    shape = f"{sizes.student_videos} x {sizes.student_length} x {sizes.student_channels}"
    return f"{shape}, width {sizes.student_width}"


def _batch(inputs: Inputs, dataset: Dataset) -> Batch:
    """The first videos of a data set, so many as a step has, with their true segments."""
    names, store = dataset.video_names("train"), dataset.student_features
    given = grid_labels(dataset.truth("train"), store, names, dataset.classes)
    return make_batch(
        TrainingSet(names, store, dataset.video_labels("train"), given),
        np.arange(inputs.sizes.student_videos),
        student_settings(inputs.sizes),
        inputs.rng,
        torch.Generator(inputs.device).manual_seed(0),
        torch.device(inputs.device),
    )


def _plain_labels(batch: Batch) -> Given:
    return [(list(map(tuple, own.segments.tolist())), own.labels.tolist()) for own in batch.given]


def student_step_case(inputs: Inputs) -> Case:
    """A step of the student on given labels: crops, forward, losses, backward, AdamW, EMA.

    The plain one is given a batch that is ready.
    """
    settings = student_settings(inputs.sizes)
    dataset = _dataset(inputs, inputs.sizes.student_steps + 1)
    labels = dataset.truth("train")
    batch = _batch(inputs, dataset)
    plain = PlainStudent(batch.features.shape[2], inputs.sizes.classes, settings, inputs.device)
    ready = batch.features, batch.mask, _plain_labels(batch), batch.video_labels

    def steps(progress: Progress) -> None:
        train_student(
            settings, dataset, labels, 0, device=inputs.device, distill=False, progress=progress
        )

    return Case(
        part="student's training step",
        size=_size(inputs.sizes),
        steps=steps,
        reference=lambda: plain.step(*ready),
        limited_by="matrix products",
        device=inputs.device,
    )


def student_loss_case(inputs: Inputs) -> Case:
    """Labels of all positions and the losses, forward and backward, for heads that are given."""
    settings, sizes = student_settings(inputs.sizes), inputs.sizes
    dataset = _dataset(inputs)
    batch = _batch(inputs, dataset)
    model = confident_student(inputs, settings)
    with torch.no_grad():
        output = model(batch.features, batch.mask)
    grid = make_grid(sizes.student_length, settings.levels, torch.device("cpu"))
    names = ("class_logits", "start_logits", "end_logits", "offsets")
    heads = {name: getattr(output, name).detach().requires_grad_() for name in names}
    found = replace(output, **heads)
    start = torch.tensor(NORMALISER_START, device=inputs.device)

    def with_gradients(loss: Tensor) -> list[Tensor]:
        gradients = torch.autograd.grad(loss, list(heads.values()))
        return [loss.detach(), *gradients]

    def ours() -> list[Tensor]:
        targets = assign_labels(grid, *stack_labels(batch.given), sizes.classes)
        loss = student_loss(found, targets, batch.video_labels, start, mil_dropout=0.0)
        return with_gradients(loss.total)

    def reference() -> list[Tensor]:
        given, known = _plain_labels(batch), batch.video_labels
        loss, _ = student_loss_by_positions(
            _without_gaps(found), batch.mask, given, known, NORMALISER_START, settings.levels
        )
        return with_gradients(loss)

    return Case(
        part="student's labels and losses, forward and backward",
        size=f"{sizes.student_videos} videos, {sizes.student_length} snippets",
        ours=ours,
        reference=reference,
        limited_by="memory",
        reads=tuple(heads.values()),
        device=inputs.device,
    )


def _without_gaps(output: StudentOutput) -> list[Tensor]:
    """What the heads say as the released network gives it: levels end to end, offsets flat."""
    heads = (output.class_logits, output.start_logits, output.end_logits, output.offsets.flatten(2))
    levels = output.grid.slices()
    return [torch.cat([x[:, own] for own in levels], dim=1) for x in heads]


def student_network_case(inputs: Inputs) -> Case:
    """The student's network, forward and backward, beside the released form of it."""
    sizes = replace(inputs.sizes, student_videos=max(1, inputs.sizes.student_videos // 4))
    dataset = _dataset(replace(inputs, sizes=sizes))
    model = confident_student(inputs, student_settings(sizes))
    shape = (sizes.student_videos, sizes.student_length, sizes.student_channels)
    features = dataset.student_features.array.view(shape)
    mask = torch.ones(shape[:2], dtype=torch.bool, device=inputs.device)

    def after_backward(found: list[Tensor]) -> list[Tensor]:
        sum(x.mean() for x in found).backward()
        model.zero_grad()
        return [x.detach() for x in found]

    def ours() -> list[Tensor]:
        return after_backward(_without_gaps(model(features, mask)))

    return Case(
        part="student's network, forward and backward",
        size=_size(sizes),
        ours=ours,
        reference=lambda: after_backward(network_by_levels(model, features, mask)),
        limited_by="matrix products",
        device=inputs.device,
    )


def confident_student(inputs: Inputs, settings: StudentSettings) -> TriDet:
    """A random student whose scores reach from 0 to 1, a few in a hundred above the EMA labels' 0.4."""
    sizes, rng = inputs.sizes, torch.Generator().manual_seed(0)
    model = TriDet(sizes.student_channels, sizes.classes, settings, rng)
    with torch.no_grad():
        model.class_head.last.weight.mul_(5)
    return model.to(inputs.device).eval()


def ema_labels_case(inputs: Inputs) -> Case:
    """Labels that the average gives to a training batch."""
    settings, dataset = student_settings(inputs.sizes), _dataset(inputs)
    model = confident_student(inputs, settings)
    average = make_ema(model, settings.ema_decay)
    batch = _batch(inputs, dataset)

    def ours() -> list[Tensor]:
        found = find_ema_labels(average, batch, settings)
        return [found.video, found.scores]

    def reference() -> list[Tensor]:
        videos = ema_labels_by_loops(model, batch.features, batch.mask, settings)
        counts = torch.tensor([len(found) for found in videos])
        return [torch.arange(len(videos)).repeat_interleave(counts), _scores(videos)]

    return Case(
        part="EMA labels of a batch",
        size=_size(inputs.sizes),
        ours=ours,
        reference=reference,
        limited_by="matrix products",
        device=inputs.device,
    )


def inference_case(inputs: Inputs) -> Case:
    """Detections in a batch of videos: forward, candidates, soft-NMS; ours also converts to seconds.

    What is compared is their scores: one that differs by a rounding may change places with the next.
    """
    settings, dataset = student_settings(inputs.sizes), _dataset(inputs)
    model = confident_student(inputs, settings)
    names, store = dataset.video_names("train"), dataset.student_features
    features = store.array.view(len(names), -1, store.dim)
    mask = torch.ones(features.shape[:2], dtype=torch.bool, device=inputs.device)
    durations_s = dataset.videos["duration_s"]

    def ours() -> np.ndarray:
        found = detect_batch(
            model, store, names, dataset.classes, durations_s, settings, device=inputs.device
        )
        return found["score"].to_numpy()

    return Case(
        part="student's inference",
        size=_size(inputs.sizes),
        ours=ours,
        reference=lambda: _scores(detections_by_loops(model, features, mask, settings)),
        limited_by="matrix products",
        device=inputs.device,
    )


def _scores(videos: list[list[Detection]]) -> Tensor:
    return torch.tensor([one[0] for found in videos for one in found])


def soft_nms_case(inputs: Inputs) -> Case:
    """Gaussian soft-NMS of many groups of overlapping segments, in double precision."""
    sizes, rng = inputs.sizes, inputs.rng
    sigma = StudentSettings().nms_sigma
    shape = (sizes.nms_groups, sizes.nms_segments)
    start = rng.uniform(0, 2000, size=shape)
    segments = np.stack([start, start + rng.lognormal(4, 1, size=shape)], axis=2)
    scores = rng.random(shape)
    tensors = [torch.from_numpy(x).to(inputs.device) for x in (segments, scores)]

    def reference() -> list[Tensor]:
        pairs = zip(segments, scores, strict=True)
        found = [soft_nms_by_loops(*pair, sigma) for pair in pairs]
        return [torch.from_numpy(np.stack(part)) for part in zip(*found, strict=True)]

    return Case(
        part="batched soft-NMS",
        size=f"{sizes.nms_groups} groups, {sizes.nms_segments} segments each",
        ours=lambda: batched_soft_nms(*tensors, sigma, min_score=0.0, max_picks=sizes.nms_segments),
        reference=reference,
        limited_by="memory",
        reads=tuple(tensors),
        device=inputs.device,
    )
