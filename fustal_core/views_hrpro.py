"""What notebook 7 looks at: how points grow, what the memory learns, what labels cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fustal_core import jobs
from fustal_core.figures_hrpro import PointGrowth, SeedHistory
from fustal_core.figures_points import PrototypeFrame
from fustal_core.hrpro import Seeds, expand_points
from fustal_core.hrpro_inference import HRProDetector, point_proposals
from fustal_core.hrpro_training import example_video
from fustal_core.naming import HR_PRO, HR_PRO_SNIPPET
from fustal_core.quality import assign
from fustal_core.reliability import reliable_proposals
from fustal_core.stage_settings import PointSource
from fustal_core.stages import Study
from fustal_core.views import snippet_times, truth_of

PLACEMENTS: tuple[PointSource, ...] = ("start", "uniform")
"""Where else in their segments points are tried."""


def proposals_of_points(study: Study, model: HRProDetector, video: str) -> pd.DataFrame:
    """All proposals of stage 1 of a training video's classes; ``video``, ``label``, ``score``, s."""
    shown = np.unique(study.points.rows_of(video)[1])
    store, classes = study.points.features, np.array(study.points.classes, dtype=object)
    features = store[video].to(study.device)
    found = point_proposals(
        model.snippet, features, store.seconds_per_snippet(video), study.settings.hr_pro, shown
    )
    return found.assign(video=video, label=classes[found["label"]])


def growth_of(study: Study, video: str) -> PointGrowth:
    """From the points of a training video's most frequent class to its segments."""
    return _growth(study, study.generation("hr-pro").model, video)


@torch.inference_mode()
def _growth(study: Study, model: HRProDetector, video: str) -> PointGrowth:
    supervision = study.points
    store, (_, classes) = supervision.features, supervision.rows_of(video)
    index = int(np.bincount(classes).argmax())
    label, step_s = supervision.classes[index], store.seconds_per_snippet(video)
    output = model(store[video][None].to(study.device))
    seeds = _seeds(study, video, output.background[0])
    points = supervision.points.query("video == @video")
    proposals = proposals_of_points(study, model, video)
    reliable = reliable_proposals(proposals, points).query("label == @label")
    segments = torch.as_tensor(reliable[["t_start", "t_end"]].to_numpy() / step_s).float()
    _, refined = model.rate(store[video].to(study.device), segments.to(study.device))
    ends = refined.clamp(0, store.num_snippets(video)).double().cpu().numpy() * step_s
    truth = truth_of(study.dataset, video)
    return PointGrowth(
        label=label,
        times_s=snippet_times(study.dataset, video, store.num_snippets(video)),
        background=output.background[0].cpu().numpy(),
        cas=output.cas[0, :, index].cpu().numpy(),
        action_seeds=seeds.action[:, index].cpu().numpy() > 0,
        background_seeds=seeds.background.cpu().numpy() > 0,
        seconds_per_snippet=step_s,
        points_s=points.loc[points["label"] == label, "t"].to_numpy(),
        video=video,
        other_points_s=points.loc[points["label"] != label, "t"].to_numpy(),
        proposals=proposals[proposals["label"] == label],
        reliable=reliable,
        refined=reliable.assign(t_start=ends.min(1), t_end=ends.max(1)),
        truth=truth[truth["label"] == label],
        action_threshold=study.settings.hr_pro.action_threshold,
        background_threshold=study.settings.hr_pro.background_threshold,
    )


def _seeds(study: Study, video: str, background: Tensor) -> Seeds:
    settings = study.settings.hr_pro
    points = study.points.multi_hot(video).to(background.device)
    thresholds = settings.action_threshold, settings.background_threshold
    return expand_points(background, points, *thresholds)


def seed_history(study: Study) -> SeedHistory:
    """The example video's background score, and the seeds that follow from it, along the training."""
    looks, video = study.generation("hr-pro-snippet").looks, example_video(study.points)
    seeds = [_seeds(study, video, background) for background in looks["background"]]
    store, truth = study.points.features, truth_of(study.dataset, video)
    return SeedHistory(
        title=f"{video}, {', '.join(truth['label'].unique())}",
        times_s=snippet_times(study.dataset, video, store.num_snippets(video)),
        seconds_per_snippet=store.seconds_per_snippet(video),
        iterations=tuple(looks["iterations"].tolist()),
        background=looks["background"].numpy(),
        action_seeds=np.stack([own.action.any(1).numpy() for own in seeds]),
        background_seeds=np.stack([own.background.numpy() > 0 for own in seeds]),
        points_s=study.points.points.query("video == @video")["t"].to_numpy(),
        truth=truth,
        action_threshold=study.settings.hr_pro.action_threshold,
        background_threshold=study.settings.hr_pro.background_threshold,
    )


def prototype_frames(study: Study) -> list[PrototypeFrame]:
    """Labelled snippets, background and prototypes along the training, on two common axes.

    All are set to length 1 first, as the contrast compares angles; the axes are the two principal
    components of what is there at all moments together.
    """
    looks = study.generation("hr-pro-snippet").looks
    embeddings, prototypes = (normalize(looks[k], dim=2) for k in ("embeddings", "prototypes"))
    both = torch.cat([embeddings, prototypes], dim=1).flatten(0, 1).double()
    mean = both.mean(0)
    axes = torch.linalg.eigh((both - mean).T @ (both - mean)).eigenvectors[:, [-1, -2]]
    axes = axes * axes.sum(0).sign()  # else their direction is up to chance
    snippets, stars = (((x.double() - mean) @ axes).numpy() for x in (embeddings, prototypes))
    stars[(looks["prototypes"] == 0).all(2).numpy()] = np.nan  # of classes without a point
    iterations, classes = looks["iterations"].tolist(), looks["classes"].numpy()
    moments = zip(iterations, snippets, classes, stars, strict=True)
    return [PrototypeFrame(*moment) for moment in moments]


def prototype_table(study: Study) -> pd.DataFrame:
    """How well prototypes tell labelled snippets apart, along the training.

    Returns:
        Index ``iteration``; mean cosine of labelled snippets with their ``own prototype`` and with the
        ``nearest other`` one, of background snippets with the one nearest to them (``background``);
        and the share of labelled snippets whose ``nearest is own``, in [0, 1].
    """
    looks = study.generation("hr-pro-snippet").looks
    rows = []
    moments = (looks[name] for name in ("embeddings", "prototypes", "classes"))
    for embeddings, prototypes, classes in zip(*moments, strict=True):
        cosines = normalize(embeddings, dim=1) @ normalize(prototypes, dim=1).T
        labelled = classes >= 0
        own = cosines[labelled].gather(1, classes[labelled, None])
        others = cosines[labelled].scatter(1, classes[labelled, None], -torch.inf).amax(1)
        nearest = cosines[labelled].argmax(1) == classes[labelled]
        background = cosines[~labelled].amax(1)
        rows.append([float(x.float().mean()) for x in (own, others, background, nearest)])
    columns = ["own prototype", "nearest other", "background", "nearest is own"]
    iterations = pd.Index(looks["iterations"].tolist(), name="iteration")
    return pd.DataFrame(rows, iterations, columns)


def scored_twice(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same proposals of the test videos as stage 1 scores them, and as stage 2 does.

    They are stage 1's, before NMS and refinement, so that nothing but the score changes.

    Returns:
        Two frames with ``score`` and ``tiou``, the best with a true segment of the class.
    """
    return _scored_twice(study, study.generation("hr-pro").model)


@torch.inference_mode()
def _scored_twice(study: Study, model: HRProDetector) -> tuple[pd.DataFrame, pd.DataFrame]:
    store, classes = study.dataset.generator_features, np.array(study.dataset.classes, dtype=object)
    frames = []
    for video in study.dataset.video_names("test"):
        features, step_s = store[video].to(study.device), store.seconds_per_snippet(video)
        found = point_proposals(model.snippet, features, step_s, study.settings.hr_pro)
        segments = torch.as_tensor(found[["t_start", "t_end"]].to_numpy() / step_s).float()
        completeness, _ = model.rate(features, segments.to(study.device))
        frames.append(
            found.assign(
                video=video,
                label=classes[found["label"]],
                later=found["score"] + completeness.double().cpu().numpy(),
            )
        )
    both, truth = study.measured(pd.concat(frames, ignore_index=True))
    both["tiou"] = assign(both, truth)["tiou"]
    after = both.assign(score=both["later"])
    return both.drop(columns="later"), after.drop(columns="later")


def mark_stages(study: Study) -> pd.DataFrame:
    """Test mAP of both stages, one row each: ``method`` and the thresholds and averages (percent)."""
    methods = {HR_PRO_SNIPPET: "hr-pro-snippet", HR_PRO: "hr-pro"}
    rows = {
        name: study.measure(study.generation(method).detections) for name, method in methods.items()
    }
    return pd.DataFrame(rows).T.rename_axis("method")


def reliable_labels(study: Study) -> pd.DataFrame:
    """The proposal of stage 1 that each point chose: ``video``, ``label``, ``score``, s; no repeats."""
    model: HRProDetector = study.generation("hr-pro").model
    found = [proposals_of_points(study, model, video) for video in study.points.videos]
    reliable = reliable_proposals(pd.concat(found, ignore_index=True), study.points.points)
    return reliable.drop(columns="point_s").drop_duplicates(ignore_index=True)


def own_placement(study: Study) -> pd.DataFrame:
    """The row of :func:`placement_rows` of the run's own points."""
    how = study.settings.hr_pro.points
    if how == "auto":
        how = "gaussian" if study.dataset.points.empty else "given"
    name = "given with the data" if how == "given" else how
    found = study.measure(study.generation("hr-pro-snippet").detections)
    row = {"placement": name, "seed": study.settings.seed, "data": study.data_name}
    return pd.DataFrame([row | found])


def placed_elsewhere(study: Study, placements: Sequence[str] = PLACEMENTS) -> dict[str, Study]:
    """The study with points in other places of the same segments, by the places' names."""
    return {
        how: study.variant(f"points-{how}", overrides={"hr_pro.points": how}) for how in placements
    }


def placement_rows(study: Study, placements: Sequence[str] = PLACEMENTS) -> pd.DataFrame:
    """Stage 1 trained with points in other places of the same segments; one row each.

    Returns:
        ``placement``, ``seed``, ``data``, test mAP (percent).
    """
    studies = placed_elsewhere(study, placements)
    jobs.make([jobs.generation(one, "hr-pro-snippet") for one in studies.values()])
    rows = []
    for how, with_points in studies.items():
        found = with_points.measure(with_points.generation("hr-pro-snippet").detections)
        names = {"placement": how, "seed": study.settings.seed, "data": study.data_name}
        rows.append(names | found)
    return pd.DataFrame(rows)
