"""Training of ACM-Net, and of FTCL that starts from it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fustal_core.acmnet import ACMNet, ACMNetLoss, ACMNetOutput, acm_net_loss
from fustal_core.data import Dataset
from fustal_core.features import to_device
from fustal_core.ftcl import (
    FTCL,
    PairSampler,
    alignment_loss,
    alignment_tables,
    build_ftcl,
    example_pairs,
    find_candidates,
    share_a_class,
)
from fustal_core.generator_training import Task, video_task
from fustal_core.progress import say_note
from fustal_core.seeding import seeded
from fustal_core.stage_settings import ACMNetSettings, FTCLSettings

ACM_NET_PARTS = ("total", "classification", "guide", "norms", "sparsity")
FTCL_PARTS = ("total", "acm_net", "fsd", "lcs")


def acm_net_task(
    settings: ACMNetSettings, dataset: Dataset, seed: int, device: str = "cpu"
) -> Task[ACMNet]:
    """Train ACM-Net on the training videos' class labels.

    Args:
        settings: of the method.
        dataset: whose ``video_labels("train")`` are all the supervision there is.
        seed: of the initial weights.
        device: "cpu" or "cuda".
    """
    with seeded(seed):
        model = ACMNet(dataset.generator_features.dim, len(dataset.classes), settings)

    def loss(output: ACMNetOutput, labels: Tensor, _: torch.Generator) -> ACMNetLoss:
        return acm_net_loss(output, labels, settings)

    return video_task(model.to(device), ACM_NET_PARTS, settings, dataset, loss)


def ftcl_task(
    settings: FTCLSettings,
    network_settings: ACMNetSettings,
    network: ACMNet,
    dataset: Dataset,
    seed: int,
    device: str = "cpu",
) -> Task[FTCL]:
    """Train FTCL on pairs of training videos, L = L_ACM + 0.1 L_LCS + 0.8 L_FSD.

    Without two training videos of identical labels there is nothing to train: it stays the ACM-Net,
    and that is said.

    Args:
        settings: of the method.
        network_settings: of the ACM-Net it starts from.
        network: that ACM-Net, trained; its weights are copied.
        dataset: whose ``video_labels("train")`` are all the supervision there is.
        seed: of the initial weights of the FSD's layer.
        device: "cpu" or "cuda".
    """
    store, videos = dataset.generator_features, dataset.video_names("train")
    known = dataset.video_labels("train")
    labels = known.to(device)
    with seeded(seed):
        model = build_ftcl(store.dim, len(dataset.classes), network_settings, settings)
    model.network.load_state_dict(network.state_dict())
    model = model.to(device)
    sampler = PairSampler(known, settings.pairs_per_epoch)
    if not sampler.positives:
        say_note("FTCL: no two training videos have identical labels, so it stays the ACM-Net")
    steps = -(-(sampler.positives + sampler.negatives) // settings.batch_size)

    def losses(pairs: list[list[int]], rng: torch.Generator, device_rng: torch.Generator) -> Tensor:
        rows = [i for pair in zip(*pairs, strict=True) for i in pair]  # first ones, then partners
        names = [videos[i] for i in rows]
        features = store.sample_random(names, network_settings.length, rng)
        output = model(to_device(features, device), device_rng)
        own = labels[to_device(torch.tensor(rows), device)]
        acm_net = acm_net_loss(output, own, network_settings).total
        candidates = find_candidates(model, output, settings)
        positive = share_a_class(*own.chunk(2))
        tables = alignment_tables(*candidates.split(), positive)
        contrast = alignment_loss(tables, positive, settings)
        total = acm_net + settings.lcs_weight * contrast.lcs + settings.fsd_weight * contrast.fsd
        return torch.stack([total, acm_net, contrast.fsd, contrast.lcs])

    return Task(
        model,
        FTCL_PARTS,
        settings.epochs * steps,
        epoch=sampler.epoch,
        losses=losses,
        evaluate_every=settings.evaluate_every * steps,
        look=_look_at_examples(model, network_settings.length, settings, dataset),
        look_every=max(steps, 1),
    )


def _look_at_examples(
    model: FTCL, length: int, settings: FTCLSettings, dataset: Dataset
) -> Callable[[], dict[str, Tensor]]:
    """The tables of one positive and one negative pair of training videos, by dotted name."""
    videos = dataset.video_names("train")
    pairs = example_pairs(dataset.video_labels("train"))

    def look() -> dict[str, Tensor]:
        found = {}
        for kind, pair in pairs.items():
            names = [videos[i] for i in pair]
            tables = look_at_pair(model, dataset, names, kind == "positive", length, settings)
            found |= {f"{kind}.{name}": value for name, value in tables.items()}
        return found

    return look


@torch.inference_mode()
def look_at_pair(
    model: FTCL,
    dataset: Dataset,
    videos: list[str],
    positive: bool,
    length: int,
    settings: FTCLSettings,
) -> dict[str, Tensor]:
    """Tables and candidates of one pair of videos, as the model is, without dropout.

    Args:
        model: in eval mode.
        dataset: has the videos' features.
        videos: first and second.
        positive: whether action is aligned with action, or with background.
        length: at most so many snippets are fed, evenly spread.
        settings: numbers of candidates.

    Returns:
        ``match``, ``gap`` (m, m) and ``similarity`` (n, n'), and which snippets their rows and
        columns are: ``fsd_rows``, ``fsd_columns``, ``lcs_rows``, ``lcs_columns``.
    """
    device = model.fsd_embedding.weight.device
    features = [dataset.generator_features.sample_uniform(v, length)[None] for v in videos]
    first, second = (find_candidates(model, model(own.to(device)), settings) for own in features)
    tables = alignment_tables(first, second, torch.tensor([positive], device=device))
    partner = second.action_rows if positive else second.background_rows
    found = {
        "match": tables.match,
        "gap": tables.gap,
        "similarity": tables.similarity,
        "fsd_rows": first.action_rows,
        "fsd_columns": partner,
        "lcs_rows": first.lcs_rows,
        "lcs_columns": second.lcs_rows,
    }
    return {name: value[0] for name, value in found.items()}
