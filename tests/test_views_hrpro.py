"""What notebook 7 looks at, on a small study; and shares of the training videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from training_helpers import TINY

from fustal_core import views_hrpro
from fustal_core.hrpro_training import LOOKS, example_video
from fustal_core.quality import assign
from fustal_core.stages import Study, open_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder: Path = tmp_path_factory.mktemp("study")
    return open_study(profile="smoke", run_dir=folder, overrides=TINY)


def test_growth_goes_from_points_to_segments(study: Study) -> None:
    video = example_video(study.points)
    growth = views_hrpro.growth_of(study, video)
    snippets = study.points.features.num_snippets(video)
    assert len(growth.times_s) == len(growth.background) == snippets
    assert not (growth.action_seeds & growth.background_seeds).any()
    own = study.points.points.query("video == @video and label == @growth.label")
    assert sorted(growth.points_s) == sorted(own["t"])
    # Every point lies on a seed of its class, and in the proposal it chose.
    rows = (growth.points_s / growth.seconds_per_snippet).round(6).astype(int)
    assert growth.action_seeds[np.minimum(rows, snippets - 1)].all()
    inside = growth.reliable["t_start"] <= growth.reliable["point_s"]
    assert (inside & (growth.reliable["point_s"] <= growth.reliable["t_end"])).all()
    assert len(growth.refined) == len(growth.reliable) > 0
    assert set(growth.truth["label"]) == {growth.label}


def test_seeds_are_shown_at_every_look(study: Study) -> None:
    history = views_hrpro.seed_history(study)
    settings, iterations = study.settings.hr_pro, study.settings.hr_pro.iterations
    assert history.iterations[0] == 0
    assert history.iterations[-1] == iterations
    assert len(history.iterations) == min(LOOKS, iterations) + 1
    assert history.background.shape == history.action_seeds.shape == history.background_seeds.shape
    assert not (history.action_seeds & history.background_seeds).any()
    assert history.action_threshold == settings.action_threshold
    assert history.background_threshold == settings.background_threshold


def test_prototypes_are_projected_to_common_axes(study: Study) -> None:
    frames = views_hrpro.prototype_frames(study)
    looks = study.generation("hr-pro-snippet").looks
    assert [frame.iteration for frame in frames] == looks["iterations"].tolist()
    everything = np.concatenate([np.concatenate([f.snippets, f.prototypes]) for f in frames])
    # Principal components: centred, uncorrelated, the first one with the larger spread.
    assert everything.mean(0) == pytest.approx([0, 0], abs=1e-6)
    covariance = np.cov(everything.T)
    assert covariance[0, 1] == pytest.approx(0, abs=1e-6 * covariance[0, 0])
    assert covariance[0, 0] > covariance[1, 1]
    table = views_hrpro.prototype_table(study)
    assert table.index.tolist() == looks["iterations"].tolist()
    assert table["nearest is own"].between(0, 1).all()
    right = table["own prototype"] > table["nearest other"]
    assert (right | (table["nearest is own"] < 1)).all()


def test_the_same_proposals_are_scored_twice(study: Study) -> None:
    before, after = views_hrpro.scored_twice(study)
    pd.testing.assert_frame_equal(before.drop(columns="score"), after.drop(columns="score"))
    gained = after["score"] - before["score"]
    assert gained.between(0, 1).all()
    assert gained.std() > 0
    truth = study.dataset.truth("test")
    np.testing.assert_array_equal(before["tiou"], assign(before, truth)["tiou"])
    # They are among what the detector proposes, with these scores.
    assert len(study.generation("hr-pro").detections) >= len(before)


def test_reliable_labels_hold_a_point_each(study: Study) -> None:
    labels = views_hrpro.reliable_labels(study)
    points = study.points.points
    assert 0 < len(labels) <= len(points)
    assert not labels.duplicated().any()
    pairs = labels.merge(points, on=["video", "label"])
    held = pairs[(pairs["t_start"] <= pairs["t"]) & (pairs["t"] <= pairs["t_end"])]
    assert len(held.drop_duplicates(["video", "label", "t_start", "t_end"])) == len(labels)


def test_placements_are_trainings_of_their_own(study: Study) -> None:
    rows = views_hrpro.placement_rows(study, ("start", "uniform"))
    own = views_hrpro.own_placement(study)
    assert rows["placement"].tolist() == ["start", "uniform"]
    assert own["placement"].tolist() == ["given with the data"]
    assert list(own.columns) == list(rows.columns)
    variant = study.variant("points-start", overrides={"hr_pro.points": "start"})
    truth = study.dataset.truth("train")
    inside = np.maximum(truth["t_start"], 0)
    np.testing.assert_allclose(variant.points.points["t"], inside)
    weights = [
        one.generation("hr-pro-snippet").model.classifier[1].weight for one in (study, variant)
    ]
    assert not np.array_equal(*(weight.detach().numpy() for weight in weights))


def test_stages_are_measured(study: Study) -> None:
    stages = views_hrpro.mark_stages(study)
    assert stages.index.tolist() == ["HR-Pro (snippets)", "HR-Pro"]
    found = study.measure(study.generation("hr-pro").detections)
    assert stages.loc["HR-Pro"].to_dict() == found
