"""What the notebooks let a reader turn, as drawings for `interactive.explore`.

The thresholds of the selection, the EMA's labels over the epochs, the strengths of the simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fustal_core.data import Dataset
from fustal_core.ema_quality import EMA_LABELS
from fustal_core.figures import COLOURS, add_legend_below, as_bars, colour_of, new_figure, styled
from fustal_core.generation import generator_task, propose
from fustal_core.generator_training import train
from fustal_core.matching import Pairs, greedy_match, overlaps
from fustal_core.metrics import THUMOS_TIOU, map_summary
from fustal_core.progress import Progress
from fustal_core.quality import MATCH_TIOU
from fustal_core.reporting import MAP_COLUMNS, quality_in_percent
from fustal_core.selection import select
from fustal_core.simulator import simulate
from fustal_core.simulator_settings import SimulatorSettings
from fustal_core.stage_settings import GenerationSettings, Method, SelectionSettings
from fustal_core.stages import one_thread
from fustal_core.timeline import Timeline
from fustal_core.views import Curves, example_video, generator_curves, readable, truth_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# --- the thresholds of the selection --------------------------------------------------------------


@dataclass(frozen=True)
class LabelMatches:
    """Which proposals could take which true segment, so that any part of them is measured at once.

    Matching is that of ``quality.pseudo_label_quality`` at tIoU 0.5, and exact: a part of the
    proposals keeps their order by score, and what overlaps what does not depend on the rest.

    Attributes:
        pairs: of the same video and class with tIoU >= 0.5, by falling score.
        order: (N,) rows of the proposals by falling score.
        instances: the number of true segments.
    """

    pairs: Pairs
    order: np.ndarray
    instances: int

    @classmethod
    def of(cls, proposals: pd.DataFrame, truth: pd.DataFrame) -> LabelMatches:
        """From columns ``video``, ``label``, ``t_start``, ``t_end`` (s), and ``score``."""
        keys = ["video", "label"]
        both = pd.concat([proposals[keys], truth[keys]], ignore_index=True)
        groups = np.split(both.groupby(keys, sort=False).ngroup().to_numpy(), [len(proposals)])
        score = proposals["score"].to_numpy(float)
        # Of equal scores the later row comes first, as in `fustal_core.metrics`.
        order = len(score) - 1 - np.argsort(-score[::-1], kind="stable")
        segments, true = (f[["t_start", "t_end"]].to_numpy(float) for f in (proposals, truth))
        pairs = overlaps(segments[order], groups[0][order], true, groups[1], MATCH_TIOU)
        return cls(pairs, order, len(truth))

    def quality(self, kept: np.ndarray) -> dict[str, float]:
        """Of the proposals kept, booleans (N,): their number, precision, recall and F1 in [0, 1]."""
        pairs = self.pairs.select(kept[self.order][self.pairs.detection])
        taken = greedy_match(pairs, len(kept), self.instances, np.array([MATCH_TIOU]))
        hits, labels = int((taken >= 0).sum()), int(kept.sum())
        return {
            "proposals": labels,
            "precision@0.5": hits / max(labels, 1),
            "recall@0.5": hits / max(self.instances, 1),
            "f1@0.5": 2 * hits / max(labels + self.instances, 1),
        }


def threshold_view(
    scored: pd.DataFrame, settings: SelectionSettings, dataset: Dataset, video_classes: pd.DataFrame
) -> Callable[[float, float, str], tuple[pd.DataFrame, Timeline]]:
    """A drawing for `explore`: what thresholds gamma and eta leave of a training video's proposals.

    Args:
        scored: proposals of the training videos with their ``iou_score``.
        settings: of the selection; its own thresholds are the second row of the table.
        dataset: whose truth measures the labels.
        video_classes: the weak labels, as in ``selection.select``.

    Returns:
        A function of gamma, eta and a video's name. It gives the quality of the labels of *all*
        training videos (percent), and the video's proposals, kept and removed, as a `Timeline`.
    """
    scored = scored.reset_index(drop=True)
    matches = LabelMatches.of(scored, dataset.truth("train"))

    def keep(gamma: float, eta: float) -> np.ndarray:
        changes = {"iou_threshold": gamma, "confidence_threshold": eta}
        kept = select(scored, settings.model_copy(update=changes), video_classes)
        return np.isin(np.arange(len(scored)), kept.index)

    own = matches.quality(keep(settings.iou_threshold, settings.confidence_threshold))

    def draw(gamma: float, eta: float, video: str) -> tuple[pd.DataFrame, Timeline]:
        kept, here = keep(gamma, eta), (scored["video"] == video).to_numpy()
        rows = {"these thresholds": matches.quality(kept), "the settings of this run": own}
        table = pd.DataFrame.from_dict(rows, orient="index").astype({"proposals": int})
        table = table.rename_axis("all training videos (%)")
        percent = {name: 100 * table[name] for name in table.columns[1:]}
        layers = {
            "truth": truth_of(dataset, video),
            "selected": scored[here & kept],
            "proposals removed": scored[here & ~kept],
        }
        duration_s = float(dataset.videos.loc[video, "duration_s"])
        title = f"{video}: {int((here & kept).sum())} of {int(here.sum())} proposals are kept"
        return readable(table.assign(**percent)), Timeline(
            layers, video=video, duration_s=duration_s, title=title
        )

    return draw


# --- the EMA's labels over the epochs -------------------------------------------------------------


def ema_view(
    ema_labels: pd.DataFrame, selected: pd.DataFrame, dataset: Dataset, quality: pd.DataFrame
) -> Callable[[int, str], tuple[pd.DataFrame, Figure]]:
    """A drawing for `explore`: what the EMA labelled in a crop, beside the selected labels and truth.

    Args:
        ema_labels: as in ``student_training.StudentResult``.
        selected: the labels of the first phase.
        dataset: of the videos.
        quality: as from ``reporting.quality_along_pipeline``.

    Returns:
        A function of an epoch and a training video's name. It gives the quality of *all* labels of
        that epoch (percent) and the video, pale where the student did not see it.
    """
    columns = ["proposals", "precision@0.5", "recall@0.5", "f1@0.5", "mean_tiou"]

    def draw(epoch: int, video: str) -> tuple[pd.DataFrame, Figure]:
        own = ema_labels[(ema_labels["epoch"] == epoch) & (ema_labels["video"] == video)]
        layers = {
            "truth": truth_of(dataset, video),
            "selected": selected[selected["video"] == video],
            EMA_LABELS: own,
        }
        end_s = float(dataset.videos.loc[video, "duration_s"])
        title = f"{video}, epoch {epoch}: no EMA label; the selected ones stay"
        if len(own):
            first, last = own[["crop_start_s", "crop_end_s"]].iloc[0]
            title = f"{video}, epoch {epoch}: the student saw {first:.1f} to {last:.1f} s"
        figure = Timeline(layers, video=video, duration_s=end_s, title=title).figure()
        if len(own):
            _veil(figure.axes[-1], [(0.0, first), (last, end_s)])
        rows = quality[quality["epoch"] == epoch]
        return readable(quality_in_percent(rows, columns)), figure

    return draw


def _veil(axes: Axes, spans_s: list[tuple[float, float]]) -> None:
    """Make stretches of the time axis pale."""
    for start, end in spans_s:
        if end > start:
            axes.axvspan(start, end, facecolor="#F0F0F0", alpha=0.8, linewidth=0, zorder=3)


# --- the strengths of the simulator ---------------------------------------------------------------

SMALL_METHODS: dict[str, Method] = {"CoLA": "cola", "FuSTAL generator": "cross-video"}
SMALL_DATA = {
    "num_classes": 4,
    "train_videos": 40,
    "test_videos": 40,
    "feature_dim": 64,
    "max_video_s": 120.0,
}
SMALL_GENERATOR = {
    "hidden_channels": 64,
    "length": 128,
    "iterations": 60,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "evaluate_every": 0,
}
"""Data and a generator of seconds: enough to see what a strength does, too little to rank methods."""


def simulate_and_train(
    simulation: SimulatorSettings,
    generation: GenerationSettings,
    *,
    seed: int = 0,
    progress: Progress,
    **strengths: float,
) -> tuple[pd.DataFrame, Figure]:
    """Train both generators on a little simulated data, in seconds, and look at one test video.

    Args:
        simulation, generation: settings, but for the size, which is `SMALL_DATA` and
            `SMALL_GENERATOR`.
        seed: of data and training.
        progress: called as (iterations done, in all, method).
        strengths: of the simulator, by name.

    Returns:
        Test mAP of CoLA and of FuSTAL's generator (percent), and a figure of it.
    """
    size = {**SMALL_DATA, **strengths}
    data = simulate(SimulatorSettings(**{**simulation.model_dump(), **size}), seed)
    scores, curves, video = {}, {}, example_video(data, "test")
    truth = truth_of(data, video)
    for number, (name, method) in enumerate(SMALL_METHODS.items()):
        settings = generation.model_copy(update={**SMALL_GENERATOR, "method": method})

        def count(done: int, total: int, _: str, before: int = number, name: str = name) -> None:
            progress(before * total + done, len(SMALL_METHODS) * total, name)

        with one_thread():  # the same result on any number of cores
            task = generator_task(settings, data, seed)
            model = train(task, settings, seed, progress=count).model
            found = propose(model, data, "test", settings)
        scores[name] = map_summary(found, data.truth("test"))
        curves[name] = generator_curves(model, data, video, settings.length)
    table = pd.DataFrame(scores).T
    return readable(table.rename_axis("test mAP (%)")), _plot_small(table, curves, truth, video)


@styled
def _plot_small(
    scores: pd.DataFrame, curves: dict[str, Curves], truth: pd.DataFrame, video: str
) -> Figure:
    """mAP over the tIoU thresholds, and the T-CAS of the first of a video's classes over its truth."""
    label = str(truth["label"].iloc[0])
    own = truth[truth["label"] == label]
    figure = new_figure(height_in=2.6)
    left, right = figure.subplots(1, 2, width_ratios=[1, 2])
    for name, curve in curves.items():
        # The first is drawn wider, so that it is seen under the second where both are alike.
        look = {"color": colour_of(name), "label": name, "linewidth": 1.4 if left.lines else 4}
        left.plot(THUMOS_TIOU, scores.loc[name, MAP_COLUMNS].astype(float), marker="o", **look)
        right.plot(*curve[f"T-CAS {label}"], **look)
    right.broken_barh(as_bars(own), (1.04, 0.08), facecolors=COLOURS["truth"], linewidth=0)
    left.set(xlabel="tIoU", ylabel="test mAP (%)", ylim=(0, None))
    right.set(xlabel="time (s)", ylabel="T-CAS", title=f"{label}; black: truth ({video})")
    add_legend_below(figure, left, columns=2)
    return figure
