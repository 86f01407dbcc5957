"""What the notebooks look at: one video, its curves, mined snippets, label assignment, trident bins.

Nothing here is part of a method; it takes the stages' products apart so that they can be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

from fustal_core.data import Dataset
from fustal_core.generation import run_generator
from fustal_core.generator import CrossVideoGenerator
from fustal_core.mining import hard_regions, mine_snippets
from fustal_core.proposals import normalise
from fustal_core.quality import pseudo_label_quality
from fustal_core.selection import score_proposals, select
from fustal_core.simulated_annotations import class_statistics
from fustal_core.simulator_settings import SIZES, SimulatorSettings
from fustal_core.stage_settings import SelectionSettings, StudentSettings
from fustal_core.student import TriDet, make_grid, trident_distributions
from fustal_core.student_batches import pad_features
from fustal_core.student_inference import detect
from fustal_core.student_loss import assign_labels

Curves = dict[str, tuple[np.ndarray, np.ndarray]]
Table = TypeVar("Table", pd.DataFrame, pd.Series)


def example_video(dataset: Dataset, subset: str) -> str:
    """The video that the notebooks show, by a fixed rule.

    Of the subset's videos no longer than the median: the one with the most classes, then the most
    instances; ties go to the first by name. If none of those has known segments, the same among all
    videos; if no video has, the first by name.
    """
    durations = dataset.videos.loc[dataset.video_names(subset), "duration_s"]
    counts = dataset.truth(subset).groupby("video")["label"].agg(["nunique", "size"])
    counts = counts.reindex(durations.index.sort_values(), fill_value=0)
    counts["short"] = (durations <= durations.median()) & (counts["size"] > 0)
    order = counts.sort_values(["short", "nunique", "size"], ascending=False, kind="stable")
    return str(order.index[0])


def truth_of(dataset: Dataset, video: str) -> pd.DataFrame:
    """True segments of one video, by start."""
    own = dataset.segments[dataset.segments["video"] == video]
    return own.sort_values(["t_start", "t_end", "label"]).reset_index(drop=True)


def summary(dataset: Dataset) -> pd.DataFrame:
    """What there is of each subset, one row: counts, lengths in seconds, shares in percent."""
    rows = []
    for subset in ("train", "test"):
        videos, truth = dataset.videos.loc[dataset.video_names(subset)], dataset.truth(subset)
        seconds = truth["t_end"] - truth["t_start"]
        several = truth.groupby("video")["label"].nunique().gt(1)
        rows.append(
            {
                "subset": subset,
                "videos": len(videos),
                "classes": truth["label"].nunique(),
                "instances": len(truth),
                "hours": videos["duration_s"].sum() / 3600,
                "median video (s)": videos["duration_s"].median(),
                "longest video (s)": videos["duration_s"].max(),
                "median instance (s)": seconds.median(),
                "several classes (%)": 100 * several.sum() / len(videos),
                "action time (%)": 100 * seconds.sum() / videos["duration_s"].sum(),
            }
        )
    return pd.DataFrame(rows)


def published_classes(dataset: Dataset, subset: str) -> pd.DataFrame | None:
    """THUMOS'14's statistics of this data's classes, index class; None if it has other classes."""
    statistics = class_statistics()
    if not set(dataset.classes) <= set(statistics.index):
        return None
    known = statistics.loc[list(dataset.classes)]
    return known.assign(instances=known[f"{subset}_instances"])


def difficulties(settings: SimulatorSettings) -> pd.DataFrame:
    """Settings of the simulator: name, value, what it means."""
    fields = SimulatorSettings.model_fields
    rows = [(name, f"{getattr(settings, name):g}", f.description) for name, f in fields.items()]
    return pd.DataFrame(rows, columns=["setting", "value", "meaning"])


def without_difficulties(**changes: Any) -> SimulatorSettings:
    """Minutes of two classes with every difficulty switched off, but for the changes."""
    size = {"num_classes": 2, "train_videos": 2, "test_videos": 2, "max_video_s": 60.0}
    off = {name: 0.0 for name in SimulatorSettings.model_fields if name not in SIZES}
    return SimulatorSettings(**{**off, **size, **changes})


def easiest(settings: SimulatorSettings) -> SimulatorSettings:
    """As many and as long training videos, with every difficulty switched off; few test videos."""
    size = settings.model_dump(include=set(SIZES))
    return without_difficulties(**size | {"test_videos": settings.num_classes})


def readable(table: Table, digits: int = 1) -> Table:
    """A table or column for the eye: floats with so many digits, empty where nothing is known."""

    def text(value: Any) -> Any:
        if pd.isna(value):
            return ""
        return f"{value:z.{digits}f}" if isinstance(value, float) else value

    return table.map(text)


def snippet_times(dataset: Dataset, video: str, count: int) -> np.ndarray:
    """Seconds at the middle of each of the `count` snippets that the generator is fed, (count,)."""
    store = dataset.generator_features
    step_s = store.num_snippets(video) * store.seconds_per_snippet(video) / count
    return (np.arange(count) + 0.5) * step_s


def generator_curves(
    model: CrossVideoGenerator, dataset: Dataset, video: str, length: int
) -> Curves:
    """Normalised T-CAS of the video's true classes, and actionness: name -> (seconds, values)."""
    output = run_generator(model, dataset.generator_features, video, length)
    cas = normalise(output.cas[0].cpu().numpy())
    actionness = normalise(output.actionness[0, :, None].cpu().numpy())[:, 0]
    times = snippet_times(dataset, video, len(cas))
    labels = sorted(truth_of(dataset, video)["label"].unique())
    curves = {f"T-CAS {name}": (times, cas[:, dataset.classes.index(name)]) for name in labels}
    return {**curves, "actionness": (times, actionness)}


def mining_of(
    model: CrossVideoGenerator, dataset: Dataset, video: str, length: int
) -> dict[str, Any]:
    """Snippet mining on one video, as the arguments of `figures_data.plot_mining`."""
    actionness = run_generator(model, dataset.generator_features, video, length).actionness.cpu()
    count = actionness.shape[1]
    inner, outer = hard_regions(actionness)
    # Mining gathers embeddings; with a snippet's number as its embedding, it gathers numbers.
    mined = mine_snippets(actionness, torch.arange(count, dtype=torch.float32)[None, :, None])
    names = ("easy action", "hard action", "easy background", "hard background")
    numbers = {n: getattr(mined, n.replace(" ", "_"))[0, :, 0].numpy().astype(int) for n in names}
    times = snippet_times(dataset, video, count)
    return {
        "actionness": actionness[0].numpy(),
        "inner": inner[0].numpy(),
        "outer": outer[0].numpy(),
        "mined": numbers,
        "seconds_per_snippet": float(2 * times[0]),
        "truth": truth_of(dataset, video),
    }


SELECTION_VARIANTS: dict[str, Mapping[str, Any]] = {
    "IoU-score filter": {},
    "confidence filter": {"iou_threshold": 0.0},
    "IoU score alone": {"confidence_threshold": -1.0},
    "IoU within the class": {"overlap": "class"},
    "mean of the 3 largest IoUs": {"reduce": "top3"},
    "nothing for empty videos": {"fallback": "none"},
}


def selection_variants(
    proposals: pd.DataFrame,
    settings: SelectionSettings,
    dataset: Dataset,
    video_classes: pd.DataFrame,
) -> pd.DataFrame:
    """Pseudo-label quality on the training videos under each variant of the selection, one row each.

    The first row is the selection as the settings have it.

    Args:
        proposals: of the training videos.
        settings: what the variants change a setting of.
        dataset: whose truth measures them.
        video_classes: the weak labels, as in ``selection.select``.

    Returns:
        ``variant``, ``videos`` (with at least one label), ``same_as_settings`` (the labels are those
        of the first row), then the columns of ``quality.pseudo_label_quality``.
    """
    videos = dataset.video_names("train")
    durations = dataset.videos.loc[videos, "duration_s"]
    truth = dataset.truth("train")
    rows, own = [], None
    for name, changes in SELECTION_VARIANTS.items():
        variant = settings.model_copy(update=dict(changes))
        chosen = select(score_proposals(proposals, variant), variant, video_classes)
        labels = chosen[["video", "label", "t_start", "t_end"]].reset_index(drop=True)
        own = labels if own is None else own
        row = pseudo_label_quality(chosen, truth, durations)
        videos = chosen["video"].nunique()
        rows.append(row.assign(variant=name, videos=videos, same_as_settings=labels.equals(own)))
    table = pd.concat(rows, ignore_index=True)
    first = ["variant", "videos", "same_as_settings"]
    return table[[*first, *table.columns.drop(first)]]


def most_filtered_video(
    before: pd.DataFrame, after: pd.DataFrame, durations_s: pd.Series
) -> tuple[str, int]:
    """The video that loses most labels in a step, and how many; ties: the shortest, then by name.

    Args:
        before, after: selected labels, with ``fallback``; labels that are one do not count.
        durations_s: index video, the videos to choose from.
    """
    counts = [
        labels.loc[~labels["fallback"], "video"].value_counts().reindex(durations_s.index).fillna(0)
        for labels in (before, after)
    ]
    table = pd.DataFrame({"lost": counts[0] - counts[1], "duration_s": durations_s}).sort_index()
    order = table.sort_values(["lost", "duration_s"], ascending=[False, True], kind="stable")
    return str(order.index[0]), int(order["lost"].iloc[0])


def _grid_length(positions: int, levels: int) -> int:
    """Positions padded to a multiple of the coarsest stride."""
    coarsest = 2 ** (levels - 1)
    return -(-positions // coarsest) * coarsest


def pyramid_of(
    dataset: Dataset, video: str, labels: pd.DataFrame, settings: StudentSettings
) -> tuple[list[np.ndarray], list[np.ndarray], list[float]]:
    """Which points of the student's pyramid learn a segment of a video.

    Returns:
        Per level: booleans (points,), the points' times (s), (points,), and the level's stride (s).
    """
    store = dataset.student_features
    own = labels[labels["video"] == video]
    length = _grid_length(store.num_snippets(video), settings.levels)
    grid = make_grid(length, settings.levels, torch.device("cpu"))
    segments = store.to_grid(video, own[["t_start", "t_end"]].to_numpy(float))
    classes = torch.tensor([dataset.classes.index(name) for name in own["label"]], dtype=torch.long)
    targets = assign_labels(
        grid,
        torch.as_tensor(segments, dtype=torch.float32)[None],
        classes[None],
        len(dataset.classes),
    )
    positive = targets.classes[0].any(-1).numpy()
    times_s = store.to_seconds(video, grid.time.double().numpy())
    strides_s = [store.seconds_per_snippet(video) * 2**level for level in range(settings.levels)]
    levels = grid.slices()
    return [positive[part] for part in levels], [times_s[part] for part in levels], strides_s


@dataclass(frozen=True)
class TridentView:
    """Trident distributions of the student's surest point in one true segment.

    start, end: (bins + 1,), as `figures_student.plot_trident` takes them.
    stride_s: of the point's level. truth_s: true distances to start and end in seconds.
    level: pyramid level. label: class. time_s: of the point.
    """

    start: np.ndarray
    end: np.ndarray
    stride_s: float
    truth_s: tuple[float, float]
    level: int
    label: str
    time_s: float


@torch.inference_mode()
def trident_of(
    model: TriDet, dataset: Dataset, video: str, settings: StudentSettings
) -> TridentView:
    """The point of one video, inside a true segment, where the student is surest of the class."""
    store = dataset.student_features
    device = next(model.parameters()).device
    output = model.eval()(*pad_features([store[video]], settings, device))
    grid, truth = output.grid, truth_of(dataset, video)
    spans = torch.as_tensor(store.to_grid(video, truth[["t_start", "t_end"]].to_numpy(float)))
    label = torch.tensor([dataset.classes.index(name) for name in truth["label"]])
    spans, label = spans.to(device, torch.float32), label.to(device)
    inside = (grid.time[:, None] > spans[:, 0]) & (grid.time[:, None] < spans[:, 1])
    allowed = inside & output.mask[0, :, None]  # (L, N)
    scores = output.class_logits[0][:, label].masked_fill(~allowed, -torch.inf)
    position, row = divmod(int(scores.argmax()), len(truth))
    index = (torch.tensor([0]), torch.tensor([position]), label[row : row + 1])
    start, end = trident_distributions(output, *(i.to(device) for i in index))[0].cpu()
    time, (first, last) = float(grid.time[position]), spans[row].tolist()
    step_s = store.seconds_per_snippet(video)
    return TridentView(
        start.numpy(),
        end.numpy(),
        step_s * float(grid.stride[position]),
        ((time - first) * step_s, (last - time) * step_s),
        int(grid.level[position]),
        str(truth["label"].iloc[row]),
        float(store.to_seconds(video, np.array([time]))[0]),
    )


def detections_of(
    model: TriDet, dataset: Dataset, video: str, settings: StudentSettings
) -> pd.DataFrame:
    """The student's detections in one video of either subset."""
    alone = replace(dataset, videos=dataset.videos.loc[[video]])
    subset = str(dataset.videos.loc[video, "subset"])
    return detect(model, alone, subset, settings, device=next(model.parameters()).device)
