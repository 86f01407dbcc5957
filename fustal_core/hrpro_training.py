"""Training of HR-Pro: its snippet network from points, and its instance network from proposals.

Both see a :class:`fustal_core.point_supervision.PointSupervision` and nothing else of the data: features
and points of the training videos.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fustal_core.features import to_device
from fustal_core.generator_training import Task
from fustal_core.hrpro import HRPro, expand_points
from fustal_core.hrpro_inference import HRProDetector
from fustal_core.hrpro_instance import extend, instance_loss, roi_pool
from fustal_core.hrpro_loss import snippet_loss
from fustal_core.point_supervision import PointSupervision
from fustal_core.reliability import negative_proposals, reliable_proposals
from fustal_core.seeding import seeded
from fustal_core.stage_settings import HRProInstanceSettings, HRProSettings

SNIPPET_PARTS = ("total", "video", "frame", "background", "contrast")
INSTANCE_PARTS = ("total", "regression", "completeness")
LOOKS = 5
"""How often the snippet network is looked at while it trains, beside its beginning."""
_VIDEOS_PER_CLASS = 3
_NEGATIVES = 5  # what the random numbers of negative proposals are drawn from, beside the seed


def snippet_task(
    settings: HRProSettings, points: PointSupervision, seed: int, device: str = "cpu"
) -> Task[HRPro]:
    """Train stage 1, snippet-level discrimination, on whole videos.

    The gradient of a step is the sum of its videos'; the prototype memory moves after each of them.

    Args:
        settings: of the stage.
        points: all the supervision there is.
        seed: of the initial weights.
        device: "cpu" or "cuda".
    """
    store = points.features
    with seeded(seed):
        model = HRPro(store.dim, len(points.classes), settings)
    if settings.projected_channels:
        model.projection.set_statistics(*channel_statistics(points))
    model = model.to(device)
    initialise_prototypes(model, points)

    def losses(batch: list[int], rng: torch.Generator, _: torch.Generator) -> Tensor:
        (item,) = batch
        video = points.videos[item]
        labels = to_device(points.multi_hot(video), device)
        with seeded(_draw_seed(rng), device):
            output = model(to_device(store[video][None], device))
        seeds = expand_points(
            output.background[0],
            labels,
            settings.action_threshold,
            settings.background_threshold,
        )
        found = snippet_loss(output, labels, seeds, model.prototypes, settings)
        model.update_prototypes(output.embeddings[0], seeds.action)
        return torch.stack([getattr(found, part) for part in SNIPPET_PARTS])

    return Task(
        model,
        SNIPPET_PARTS,
        settings.iterations,
        epoch=_shuffled(points),
        losses=losses,
        evaluate_every=settings.evaluate_every,
        one_by_one=True,
        look=_look_at_examples(model, points),
        look_every=-(-settings.iterations // LOOKS),
    )


def _shuffled(points: PointSupervision) -> Callable[[torch.Generator], list[int]]:
    return lambda rng: torch.randperm(len(points.videos), generator=rng).tolist()


def _draw_seed(rng: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=rng))


def channel_statistics(points: PointSupervision) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature channel over the training videos; (D,), (D,)."""
    sums = torch.zeros(2, points.features.dim, dtype=torch.float64)
    count = 0
    for video in points.videos:
        values = points.features[video].cpu().double()
        sums += torch.stack([values.sum(0), values.square().sum(0)])
        count += len(values)
    mean, square = sums / count
    deviation = (square - mean.square()).clamp(min=0).sqrt()
    return mean.float(), deviation.float()


@torch.no_grad()
def initialise_prototypes(model: HRPro, points: PointSupervision) -> None:
    """Fill the memory with the mean embedding of each class's labelled snippets, without dropout.

    A snippet counts once, however many points of the class lie on it.
    """
    device = model.prototypes.device
    sums = torch.zeros_like(model.prototypes)
    counts = torch.zeros(len(points.classes), 1, device=device)
    for video in points.videos:
        rows, labels = points.multi_hot(video).to(device).nonzero(as_tuple=True)
        if not len(rows):
            continue
        found = model.eval()(points.features[video][None].to(device)).embeddings[0]
        sums.index_add_(0, labels, found[rows])
        counts.index_add_(0, labels, torch.ones(len(labels), 1, device=device))
    model.prototypes = sums / counts.clamp(min=1)


def example_video(points: PointSupervision) -> str:
    """The training video to look at, by a fixed rule.

    Of those with points of one class, not longer than the median video, the one with most points; if
    there is none, the one with most points of all.
    """
    lengths = np.array([points.features.num_snippets(video) for video in points.videos])
    counts = np.array([len(points.rows_of(video)[0]) for video in points.videos])
    plain = (points.labels().sum(1).numpy() == 1) & (lengths <= np.median(lengths))
    return points.videos[int((np.where(plain, counts + counts.max(), counts)).argmax())]


def _look_at_examples(model: HRPro, points: PointSupervision) -> Callable[[], dict[str, Tensor]]:
    """Prototypes and labelled snippets of a few videos of each class, and one video's background."""
    labels = points.labels()
    firsts = [
        labels[:, i].nonzero()[:_VIDEOS_PER_CLASS, 0].tolist() for i in range(labels.shape[1])
    ]
    some = [points.videos[i] for i in sorted({i for first in firsts for i in first})]
    example = example_video(points)

    def look() -> dict[str, Tensor]:
        device = model.prototypes.device
        embeddings, classes = [], []
        for video in some:
            output = model(points.features[video][None].to(device))
            rows, own = points.rows_of(video)
            # The snippet that is background before all others stands for the background.
            rows = [*rows, int(output.background[0].argmax())]
            embeddings.append(output.embeddings[0, rows])
            classes += [*own, -1]
        output = model(points.features[example][None].to(device))
        return {
            "prototypes": model.prototypes,
            "embeddings": torch.cat(embeddings),
            "classes": torch.tensor(np.array(classes, dtype=np.int64)),
            "background": output.background[0],
            "cas": output.cas[0],
        }

    return look


@dataclass(frozen=True)
class InstanceExamples:
    """What stage 2 learns from in one video, each (n, 2) in snippet units, on the CPU.

    Attributes:
        proposals: PP, all proposals, and NP, spans of background.
        reliable: RP, the best proposal of each point.
    """

    proposals: Tensor
    reliable: Tensor


@torch.inference_mode()
def instance_examples(
    snippet: HRPro,
    settings: HRProSettings,
    proposals: pd.DataFrame,
    points: PointSupervision,
    seed: int,
) -> list[InstanceExamples]:
    """Reliability-aware proposals of every training video (PP, RP and NP).

    Args:
        snippet: trained stage 1, whose background scores say where no action is.
        settings: of stage 1.
        proposals: of the training videos, before NMS.
        points: the supervision.
        seed: of the negative spans.
    """
    rng = np.random.default_rng([seed, _NEGATIVES])
    device = snippet.prototypes.device
    reliable = dict(list(reliable_proposals(proposals, points.points).groupby("video")))
    by_video = dict(list(proposals.groupby("video")))
    examples = []
    for video in points.videos:
        background = snippet.eval()(points.features[video][None].to(device)).background[0]
        seeds = expand_points(
            background,
            points.multi_hot(video).to(device),
            settings.action_threshold,
            settings.background_threshold,
        )
        step_s = points.features.seconds_per_snippet(video)
        own, best = (_snippet_units(rows.get(video), step_s) for rows in (by_video, reliable))
        spans = negative_proposals(seeds.background.cpu().numpy() > 0, len(own) // 2, rng)
        both = torch.cat([own, torch.as_tensor(spans, dtype=torch.float32)])
        examples.append(InstanceExamples(both, best))
    return examples


def _snippet_units(segments: pd.DataFrame | None, step_s: float) -> Tensor:
    """Seconds to snippets as HR-Pro counts them, ``t / step``; (n, 2) float32."""
    if segments is None:
        return torch.zeros(0, 2)
    return torch.as_tensor(segments[["t_start", "t_end"]].to_numpy() / step_s).float()


def instance_task(
    settings: HRProInstanceSettings,
    snippet_settings: HRProSettings,
    snippet: HRPro,
    proposals: pd.DataFrame,
    points: PointSupervision,
    seed: int,
    device: str = "cpu",
) -> Task[HRProDetector]:
    """Train stage 2, instance-level completeness, on the proposals of a trained stage 1.

    Args:
        settings: of the stage.
        snippet_settings: of stage 1.
        snippet: the trained stage 1; it is not trained on.
        proposals: of the training videos, before NMS.
        points: all the supervision there is.
        seed: of the initial weights and of negative spans.
        device: "cpu" or "cuda".
    """
    store = points.features
    with seeded(seed):
        model = HRProDetector(snippet, settings.extension)
    model = model.to(device)
    examples = instance_examples(snippet, snippet_settings, proposals, points, seed)
    steps = -(-len(points.videos) // settings.batch_size)

    def losses(batch: list[int], rng: torch.Generator, _: torch.Generator) -> Tensor:
        # Segments stay on the CPU: they decide how much is pooled, for which a GPU would be waited for.
        features = [to_device(store[points.videos[i]], device) for i in batch]
        lengths = torch.tensor([len(own) for own in features])
        first = lengths.cumsum(0) - lengths
        own = [_at_most(examples[i].proposals, settings.max_proposals, rng) for i in batch]
        segments, video = _joined(own)
        reliable, reliable_video = _joined([examples[i].reliable for i in batch])
        whole = model.snippet.model_features(torch.cat(features)[None])[0]
        rois = extend(segments, settings.extension)
        pooled = roi_pool(whole, first[video], lengths[video], rois)
        known = (segments, video, reliable, reliable_video)
        segments, video, reliable, reliable_video = (to_device(x, device) for x in known)
        with seeded(_draw_seed(rng), device):
            output = model.instance(pooled, segments)
        found = instance_loss(output, segments, video, reliable, reliable_video, settings, rng)
        return torch.stack([getattr(found, part) for part in INSTANCE_PARTS])

    return Task(
        model,
        INSTANCE_PARTS,
        settings.epochs * steps,
        epoch=_shuffled(points),
        losses=losses,
        evaluate_every=settings.evaluate_every * steps,
    )


def _at_most(segments: Tensor, limit: int, rng: torch.Generator) -> Tensor:
    """A random choice of ``limit`` of them, if there are more."""
    if len(segments) <= limit:
        return segments
    chosen = torch.randperm(len(segments), generator=rng)[:limit]
    return segments[chosen]


def _joined(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """All rows (M, 2) of some videos, and of which video each is, (M,)."""
    counts = torch.tensor([len(part) for part in parts])
    video = torch.arange(len(parts)).repeat_interleave(counts)
    return torch.cat(parts), video
