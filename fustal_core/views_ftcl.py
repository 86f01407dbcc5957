"""What notebook 6 looks at: attention over time, and the alignments of pairs of videos."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fustal_core.alignment import (
    fine_grained_sequence_distance,
    fsd_path,
    fsd_table,
    lcs_path,
    lcs_table,
    longest_common_subsequence,
)
from fustal_core.annotations import in_segments
from fustal_core.config import make_settings
from fustal_core.data import Dataset
from fustal_core.ftcl import FTCL, PairSampler, example_pairs
from fustal_core.ftcl_training import look_at_pair
from fustal_core.generation import localization_of, run_generator
from fustal_core.proposals import proposed_classes
from fustal_core.stage_settings import ACMNetSettings, Constants, FTCLSettings
from fustal_core.views import Curves, snippet_times, truth_of

BRANCHES = ("instance", "context", "background")


def attention_curves(model: nn.Module, dataset: Dataset, video: str, length: int) -> Curves:
    """Attention of the three branches over time, each in [0, 1]: name -> (seconds, values)."""
    output = run_generator(model, dataset.generator_features, video, length)
    attention = output.attention[0].cpu().numpy()  # (T, 3)
    times = snippet_times(dataset, video, len(attention))
    return {f"{name} attention": (times, attention[:, i]) for i, name in enumerate(BRANCHES)}


def attention_inside(model: nn.Module, dataset: Dataset, subset: str, length: int) -> pd.DataFrame:
    """Mean attention of each branch inside the true actions, near them, and elsewhere.

    Near is within 4 s of a segment's ends.

    Returns:
        Index ``where``, one column per branch; the last, ``share of time``, in [0, 1].
    """
    sums, counts = np.zeros((3, 3)), np.zeros(3)
    for video in dataset.video_names(subset):
        output = run_generator(model, dataset.generator_features, video, length)
        attention = output.attention[0].cpu().numpy()
        times = snippet_times(dataset, video, len(attention))
        truth = truth_of(dataset, video)
        inside = in_segments(times, truth)
        near = in_segments(times, truth, margin_s=4) & ~inside
        for place, mask in enumerate((inside, near, ~(inside | near))):
            sums[place] += attention[mask].sum(0)
            counts[place] += mask.sum()
    index = pd.Index(["in an action", "within 4 s of one", "elsewhere"], name="where")
    table = pd.DataFrame(sums / np.maximum(counts, 1)[:, None], index, list(BRANCHES))
    return table.assign(**{"share of time": counts / counts.sum()})


def scores_by_class_count(
    model: nn.Module, dataset: Dataset, subset: str, settings: ACMNetSettings
) -> pd.DataFrame:
    """How video scores shrink with the number of classes that a video has.

    Returns:
        Index ``classes in the video``; ``videos``, mean ``score of its classes`` and of the ``largest
        other class``, and the share of its classes that are ``proposed``.
    """
    labels = dataset.video_labels(subset).numpy() > 0
    rows = []
    for own, video in zip(labels, dataset.video_names(subset), strict=True):
        scores, proposed = _scores_and_classes(model, dataset, video, settings)
        found = own[proposed].sum() / own.sum()
        rows.append((own.sum(), scores[own].mean(), scores[~own].max(initial=0), found))
    columns = ["classes in the video", "score of its classes", "largest other class", "proposed"]
    groups = pd.DataFrame(rows, columns=columns).groupby(columns[0])
    return pd.concat([groups.size().rename("videos"), groups.mean()], axis=1)


def whole_videos(
    model: nn.Module, dataset: Dataset, subset: str, settings: ACMNetSettings
) -> pd.DataFrame:
    """The plainest localisation: each predicted class from a video's first second to its last.

    What proposals reach must be seen against it. The score is the class's video score.

    Returns:
        Columns ``video``, ``label``, ``t_start``, ``t_end`` (s), ``score``.
    """
    rows = []
    for video in dataset.video_names(subset):
        scores, proposed = _scores_and_classes(model, dataset, video, settings)
        duration_s = float(dataset.videos.loc[video, "duration_s"])
        for label in proposed:
            rows.append((video, dataset.classes[label], 0.0, duration_s, float(scores[label])))
    return pd.DataFrame(rows, columns=["video", "label", "t_start", "t_end", "score"])


def _scores_and_classes(
    model: nn.Module, dataset: Dataset, video: str, settings: ACMNetSettings
) -> tuple[np.ndarray, np.ndarray]:
    """A video's scores, (C,), and the indices of the classes that they propose."""
    output = run_generator(model, dataset.generator_features, video, settings.length)
    scores = output.video_scores[0].cpu().numpy()
    return scores, proposed_classes(scores, settings.class_threshold, localization_of(settings))


def thresholds() -> pd.DataFrame:
    """What ACM-Net and FTCL localise with on each data set that has constants, one row each."""
    names = ("class_threshold", "cas_thresholds", "attention_thresholds", "nms_tiou")
    rows = {}
    for data in get_args(Constants):
        values = make_settings(profile="paper", overrides={"constants": data}).acm_net.model_dump()
        rows[data] = {f"acm_net.{name}": _brief(values[name]) for name in names}
    return pd.DataFrame(rows).T.rename_axis("constants")


def _brief(value: float | tuple[float, ...]) -> str:
    """A number, or numbers: all of up to three, the ends of more."""
    numbers = [f"{x:g}" for x in (value if isinstance(value, tuple) else (value,))]
    return (
        ", ".join(numbers) if len(numbers) < 4 else f"{numbers[0]}, {numbers[1]} .. {numbers[-1]}"
    )


def pairs_of(dataset: Dataset) -> dict[str, tuple[str, str]]:
    """The example pairs of training videos that FTCL's training looks at, by kind."""
    videos = dataset.video_names("train")
    pairs = example_pairs(dataset.video_labels("train"))
    return {kind: (videos[i], videos[j]) for kind, (i, j) in pairs.items()}


def look_of(looks: dict[str, Tensor], kind: str, epoch: int | None = None) -> dict[str, Tensor]:
    """One pair's tables after an epoch (0: before the first; -1: after the last; None: all of them)."""
    prefix = f"{kind}."
    which = slice(None) if epoch is None else epoch
    return {
        name.removeprefix(prefix): value[which]
        for name, value in looks.items()
        if name.startswith(prefix)
    }


def fsd_picture(
    look: dict[str, Tensor],
    dataset: Dataset,
    videos: tuple[str, str],
    length: int,
    settings: FTCLSettings,
) -> dict[str, Any]:
    """One pair as ``figures_ftcl.plot_fsd`` takes it; labels are the snippets' seconds.

    length: snippets fed to the model, at most.
    """
    match, gap = look["match"], look["gap"]
    table = fsd_table(match[None], gap[None], settings.fsd_gamma)[0]
    times = _candidate_times(look, "fsd", dataset, videos, length)
    return {
        "match": match.numpy(),
        "gap": gap.numpy(),
        "table": table.numpy(),
        "path": fsd_path(match, gap, settings.fsd_gamma).numpy(),
        "row_labels": [f"{t:.0f} s" for t in times[0]],
        "column_labels": [f"{t:.0f} s" for t in times[1]],
        "value": float(table[-1, -1]),
    }


def lcs_picture(
    look: dict[str, Tensor],
    dataset: Dataset,
    videos: tuple[str, str],
    length: int,
    settings: FTCLSettings,
) -> dict[str, Any]:
    """One pair as ``figures_ftcl.plot_lcs`` takes it; length: snippets fed to the model, at most."""
    similarity = look["similarity"]
    table = lcs_table(similarity[None], settings.lcs_threshold)[0]
    times = _candidate_times(look, "lcs", dataset, videos, length)
    return {
        "similarity": similarity.numpy(),
        "table": table.numpy(),
        "path": lcs_path(similarity, settings.lcs_threshold).numpy(),
        "row_inside": in_segments(times[0], truth_of(dataset, videos[0])),
        "column_inside": in_segments(times[1], truth_of(dataset, videos[1])),
        "value": float(table[-1, -1]),
    }


def paths_over_training(
    looks: dict[str, Tensor], dataset: Dataset, settings: FTCLSettings
) -> dict[str, dict[str, Any]]:
    """Both example pairs as ``figures_ftcl.plot_paths_over_training`` takes them."""
    kinds = {}
    for kind in pairs_of(dataset):
        look = look_of(looks, kind)
        similarity, match, gap = look["similarity"], look["match"], look["gap"]
        kinds[kind] = {
            "epochs": list(range(len(similarity))),
            "similarity": similarity.numpy(),
            "paths": [lcs_path(own, settings.lcs_threshold).numpy() for own in similarity],
            "match": match.numpy(),
            "gap": gap.numpy(),
            "fsd_paths": [
                fsd_path(*own, settings.fsd_gamma).numpy() for own in zip(match, gap, strict=True)
            ],
        }
    return kinds


def values_over_training(
    looks: dict[str, Tensor], dataset: Dataset, settings: FTCLSettings
) -> pd.DataFrame:
    """FSD and LCS of both example pairs as ``figures_ftcl.plot_alignment_values`` takes them."""
    frames = []
    for kind in pairs_of(dataset):
        look = look_of(looks, kind)
        similarity, match, gap = look["similarity"], look["match"], look["gap"]
        values = {
            "FSD": fine_grained_sequence_distance(match, gap, settings.fsd_gamma),
            "LCS": longest_common_subsequence(similarity, settings.lcs_threshold),
        }
        for measure, own in values.items():
            frame = pd.DataFrame({"epoch": range(len(own)), "value": own.numpy()})
            frames.append(frame.assign(kind=kind, measure=measure))
    columns = ["epoch", "kind", "measure", "value"]
    return pd.concat(frames)[columns] if frames else pd.DataFrame(columns=columns)


@torch.inference_mode()
def pair_values(
    model: FTCL,
    dataset: Dataset,
    subset: str,
    length: int,
    settings: FTCLSettings,
    *,
    pairs: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """FSD and LCS of random pairs of a subset, without dropout.

    Both kinds of pair align action candidates with action candidates here, so that the values can be
    compared: a negative pair is one without a common class, and no more.

    Args:
        model: in eval mode.
        dataset: whose labels say which pairs are positive.
        subset: "train" or "test".
        length: at most so many snippets are fed, evenly spread.
        settings: of FTCL.
        pairs: of each kind, at most.
        seed: of the choice.

    Returns:
        ``kind`` ("positive", "negative"), ``FSD``, ``LCS``.
    """
    videos, labels = dataset.video_names(subset), dataset.video_labels(subset)
    drawn = PairSampler(labels, pairs).epoch(torch.Generator().manual_seed(seed))
    rows = []
    for i, j in drawn:
        look = look_at_pair(model, dataset, [videos[i], videos[j]], True, length, settings)
        match, gap, similarity = (look[name][None] for name in ("match", "gap", "similarity"))
        fsd = fine_grained_sequence_distance(match, gap, settings.fsd_gamma)
        lcs = longest_common_subsequence(similarity, settings.lcs_threshold)
        kind = "positive" if torch.equal(labels[i], labels[j]) else "negative"
        rows.append((kind, float(fsd), float(lcs)))
    return pd.DataFrame(rows, columns=["kind", "FSD", "LCS"])


def _candidate_times(
    look: dict[str, Tensor], kind: str, dataset: Dataset, videos: tuple[str, str], length: int
) -> list[np.ndarray]:
    """Seconds at the middle of the "fsd" or "lcs" candidates of both videos."""
    times = []
    for video, side in zip(videos, ("rows", "columns"), strict=True):
        fed = min(dataset.generator_features.num_snippets(video), length)
        times.append(snippet_times(dataset, video, fed)[look[f"{kind}_{side}"].numpy()])
    return times
