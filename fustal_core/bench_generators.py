"""The parts of the benchmark that train generators: FuSTAL's step, FTCL's alignments, HR-Pro's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fustal_core.alignment import (
    cosine_table,
    fine_grained_sequence_distance,
    longest_common_subsequence,
)
from fustal_core.bench_case import Case
from fustal_core.bench_data import (
    WINDOW_FRAMES,
    Inputs,
    alike_snippets,
    random_dataset,
    smooth_curves,
)
from fustal_core.generation import generator_task
from fustal_core.generator import GeneratorOutput, generator_loss, video_scores
from fustal_core.generator_training import train
from fustal_core.hrpro import expand_points
from fustal_core.hrpro_instance import BINS, roi_pool
from fustal_core.mining import mine_snippets
from fustal_core.progress import Progress
from fustal_core.reference import mine_snippets_by_loops
from fustal_core.reference_alignment import cosine_by_pairs, fsd_by_loops, lcs_by_loops
from fustal_core.reference_hrpro import expand_points_by_loops
from fustal_core.reference_losses import PlainGenerator, generator_loss_by_loops
from fustal_core.reference_roi import roi_pool_by_loops
from fustal_core.stage_settings import GenerationSettings


def generator_step_case(inputs: Inputs) -> Case:
    """A step of FuSTAL's generator: sampling, forward, mining, losses, backward, Adam."""
    sizes, device = inputs.sizes, inputs.device
    B, T, D, H, C = sizes.batch, sizes.length, sizes.channels, sizes.hidden, sizes.classes
    dataset = random_dataset(B, 1, T, D, C, WINDOW_FRAMES, inputs.rng, device)
    settings = GenerationSettings(
        batch_size=B, length=T, hidden_channels=H, iterations=sizes.steps + 1
    )
    features = dataset.generator_features.array.view(B, T, D)
    labels = dataset.video_labels("train").to(device)

    def steps(progress: Progress) -> None:
        task = generator_task(settings, dataset, 0, device)
        train(task, settings, 0, device=device, progress=progress)

    plain = PlainGenerator(D, H, C, device)
    return Case(
        part="generator's training step",
        size=f"{B} x {T} x {D}, H = {H}",
        steps=steps,
        reference=lambda: plain.step(features, labels),
        limited_by="matrix products",
        device=device,
        target="1.3 x its limit",
    )


def mining_case(inputs: Inputs) -> Case:
    """Easy and hard snippets of a batch, of which the embeddings are copied."""
    sizes = inputs.sizes
    shape = (sizes.batch, sizes.length)
    actionness = smooth_curves(sizes.length, sizes.batch, inputs.rng).T.copy()
    embeddings = inputs.rng.random((*shape, sizes.hidden), dtype=np.float32)
    tensors = [torch.from_numpy(x).to(inputs.device) for x in (actionness, embeddings)]
    mined = 2 * (max(1, sizes.length // 5) + max(1, sizes.length // 20))
    return Case(
        part="snippet mining",
        size=f"{sizes.batch} videos, {sizes.length} snippets, {sizes.hidden} channels",
        ours=lambda: mine_snippets(*tensors),
        reference=lambda: mine_snippets_by_loops(actionness, embeddings),
        limited_by="memory",
        copied_bytes=2.0 * sizes.batch * mined * sizes.hidden * embeddings.itemsize,
        device=inputs.device,
    )


def loss_case(inputs: Inputs) -> Case:
    """The generator's losses, mining included, forward and backward to embeddings and T-CAS."""
    sizes, rng = inputs.sizes, inputs.rng
    cas = smooth_curves(sizes.length, sizes.batch * sizes.classes, rng).T
    cas = cas + 0.01 * rng.random(cas.shape)  # no ties: of those, the references may choose others
    cas = cas.reshape(sizes.batch, sizes.classes, -1).swapaxes(1, 2).astype(np.float32)
    shape = (sizes.batch, sizes.length, sizes.hidden)
    leaves = [
        torch.from_numpy(x).to(inputs.device).requires_grad_()
        for x in (rng.random(shape, dtype=np.float32), np.ascontiguousarray(cas))
    ]
    labels = torch.eye(sizes.classes)[rng.integers(sizes.classes, size=sizes.batch)]
    labels = labels.to(inputs.device)

    def ours(embeddings: Tensor, cas: Tensor) -> Tensor:
        output = GeneratorOutput(embeddings, cas, cas.sum(2), video_scores(cas))
        return generator_loss(output, labels).total

    return Case(
        part="generator's losses, forward and backward",
        size=f"{sizes.batch} videos, {sizes.length} snippets, {sizes.hidden} channels",
        ours=lambda: _with_gradients(ours, leaves),
        reference=lambda: _with_gradients(
            lambda *leaves: generator_loss_by_loops(*leaves, labels), leaves
        ),
        limited_by="memory",
        reads=tuple(leaves),
        device=inputs.device,
    )


def _with_gradients(work: Callable[..., Tensor], leaves: list[Tensor]) -> list[Tensor]:
    """What the work gives, summed over, and its gradients at the leaves."""
    values = work(*leaves)
    return [values.detach(), *torch.autograd.grad(values.sum(), leaves)]


def alignment_case(inputs: Inputs) -> Case:
    """FTCL's two alignment scores of a batch of pairs, and their gradients at the candidates.

    The target is a 200th of the 2.5 s that the original program takes on two cores. The reference
    here is faster than that program, so the ratio is smaller than the gain over it.
    """
    sizes, rng = inputs.sizes, inputs.rng
    lcs_inputs = alike_snippets(sizes.pairs, sizes.lcs_length, sizes.lcs_channels, rng)
    fsd_inputs = alike_snippets(sizes.pairs, sizes.fsd_length, sizes.fsd_channels, rng)
    candidates = [
        torch.from_numpy(x).to(inputs.device).requires_grad_() for x in (*lcs_inputs, *fsd_inputs)
    ]

    def aligned(cosine: Callable, lcs: Callable, fsd: Callable) -> list[Tensor]:
        def scores(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
            matches, gaps = zip(c.chunk(2, dim=2), d.chunk(2, dim=2), strict=True)
            return torch.cat([lcs(cosine(a, b)), fsd(cosine(*matches), cosine(*gaps))])

        return _with_gradients(scores, candidates)

    return Case(
        part="FSD and LCS, forward and backward",
        size=f"{sizes.pairs} pairs, {sizes.lcs_length} and {sizes.fsd_length} candidates",
        ours=lambda: aligned(
            cosine_table, longest_common_subsequence, fine_grained_sequence_distance
        ),
        reference=lambda: aligned(cosine_by_pairs, lcs_by_loops, fsd_by_loops),
        limited_by="memory",
        reads=tuple(candidates),
        device=inputs.device,
        target="< 0.0125 s",
    )


def expansion_case(inputs: Inputs) -> Case:
    """Seeds that the points of a long video spread to, HR-Pro's stage 1."""
    sizes, rng = inputs.sizes, inputs.rng
    count = sizes.whole_snippets
    background = 1 / (1 + np.exp(-8 * np.sin(np.arange(count) / 9) - rng.normal(size=count)))
    points = np.zeros((count, sizes.classes))
    rows = rng.choice(count, sizes.points, replace=False)
    points[rows, rng.integers(sizes.classes, size=sizes.points)] = 1
    tensors = [torch.from_numpy(x).to(inputs.device) for x in (background, points)]
    return Case(
        part="seeds from points",
        size=f"{count} snippets, {sizes.points} points",
        ours=lambda: expand_points(*tensors),
        reference=lambda: expand_points_by_loops(background, points),
        limited_by="memory",
        reads=(background, points),
        device=inputs.device,
    )


def pooling_case(inputs: Inputs) -> Case:
    """RoI pooling of all proposals of a long video, HR-Pro's stage 2."""
    sizes, rng = inputs.sizes, inputs.rng
    count = sizes.whole_snippets
    features = rng.random((count, sizes.roi_channels))
    start = rng.uniform(-2, count, size=sizes.rois)
    rois = np.stack([start, start + rng.lognormal(2.5, 0.8, sizes.rois)], axis=1)
    lengths = torch.full((sizes.rois,), count)
    tensors = [
        x.to(inputs.device)
        for x in (
            torch.from_numpy(features),
            torch.zeros_like(lengths),
            lengths,
            torch.from_numpy(rois),
        )
    ]
    return Case(
        part="RoI pooling",
        size=f"{sizes.rois} proposals, {BINS} bins, {sizes.roi_channels} channels",
        ours=lambda: roi_pool(*tensors),
        reference=lambda: [roi_pool_by_loops(features, rois)],
        limited_by="memory",
        reads=(features, rois),
        device=inputs.device,
    )
