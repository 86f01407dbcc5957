"""What labels cost, and shares of the training videos that cost as much."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from training_helpers import TINY

from fustal_core import label_cost
from fustal_core.data import Dataset
from fustal_core.stages import Study, open_study
from fustal_core.training_share import training_share


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder: Path = tmp_path_factory.mktemp("study")
    return open_study(profile="smoke", run_dir=folder, overrides=TINY)


def test_costs_are_rates_times_minutes(study: Study) -> None:
    detections = study.generation("hr-pro").detections
    names = study.dataset.video_names("train")
    minutes = study.dataset.videos.loc[names, "duration_s"].sum() / 60
    for supervision, rate in {"video": 45, "point": 50, "full": 300}.items():
        row = label_cost.cost_row(study, "m", supervision, detections)
        assert row["cost_h"] == pytest.approx(minutes * rate / 3600)
        assert row["training videos"] == len(names)


def test_a_study_on_a_share_has_its_own_products(study: Study) -> None:
    part = label_cost.on_share(study, 0.5)
    assert len(part.dataset.video_names("train")) < len(study.dataset.video_names("train"))
    assert part.dataset.video_names("test") == study.dataset.video_names("test")
    assert part.settings.student.epochs == 2 * study.settings.student.epochs
    assert part.student_product("truth", "plain").key != (
        study.student_product("truth", "plain").key
    )


def test_products_on_a_share_are_known_without_the_data(tmp_path: Path) -> None:
    study = open_study(profile="smoke", run_dir=tmp_path, overrides=TINY)
    study.fingerprint = "of data that nobody has read"

    def key(share: float) -> str:
        return label_cost.on_share(study, share).student_product("truth", "plain").key

    assert key(0.5) == key(0.5) != key(0.25)
    before = key(0.5)
    study.fingerprint = "of other data"
    assert key(0.5) != before
    assert study.data is None


@pytest.mark.parametrize(("supervision", "share"), [("point", 1 / 6), ("video", 0.15), ("full", 1)])
def test_the_share_that_the_same_time_would_label_in_full(supervision: str, share: float) -> None:
    assert label_cost.affordable_share(supervision) == pytest.approx(share)


def seconds(dataset: Dataset) -> pd.Series:
    return dataset.videos.loc[dataset.video_names("train"), "duration_s"]


@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
def test_a_share_is_one_of_minutes(tiny_dataset: Dataset, share: float) -> None:
    part = training_share(tiny_dataset, share, seed=0)
    whole, kept = seconds(tiny_dataset), seconds(part)
    assert kept.sum() <= share * whole.sum() + 1e-6
    # Nothing that was left out would still have fitted.
    missing = whole.drop(kept.index)
    assert (missing > share * whole.sum() - kept.sum()).all()
    assert set(kept.index) <= set(whole.index)
    assert part.video_names("test") == tiny_dataset.video_names("test")
    assert part.fingerprint != tiny_dataset.fingerprint
    again = training_share(tiny_dataset, share, seed=0)
    assert again.video_names("train") == part.video_names("train")
    if share == 1:
        assert part.video_names("train") == tiny_dataset.video_names("train")


def test_every_class_gets_its_turn(tiny_dataset: Dataset) -> None:
    part = training_share(tiny_dataset, 0.6, seed=0)
    assert part.video_labels("train").any(0).all()


def test_one_video_is_always_kept(tiny_dataset: Dataset) -> None:
    assert len(training_share(tiny_dataset, 1e-6, seed=0).video_names("train")) == 1


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01])
def test_other_shares_are_refused(tiny_dataset: Dataset, share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        training_share(tiny_dataset, share, seed=0)
