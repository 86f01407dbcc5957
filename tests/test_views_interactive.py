"""What can be turned in the notebooks: exact numbers at once, and pictures of what they say."""

from __future__ import annotations

from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fustal_core import views_interactive as views
from fustal_core.config import make_settings
from fustal_core.data import Dataset
from fustal_core.interactive import explore
from fustal_core.quality import pseudo_label_quality
from fustal_core.selection import score_proposals, select
from fustal_core.simulator import simulate

SMOKE = make_settings(profile="smoke")
MEASURES = ["precision@0.5", "recall@0.5", "f1@0.5"]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return simulate(SMOKE.simulation, seed=1)


@pytest.fixture(scope="module")
def scored(dataset: Dataset) -> pd.DataFrame:
    """Shifted copies of the truth, some of them of a wrong class; scores with ties."""
    rng = np.random.default_rng(0)
    truth = dataset.truth("train")
    copies = pd.concat([truth] * 6, ignore_index=True)
    length = copies["t_end"] - copies["t_start"]
    start = (copies["t_start"] + 0.4 * length * rng.normal(size=len(copies))).clip(lower=0)
    wrong = rng.random(len(copies)) < 0.2
    label = np.where(wrong, rng.choice(dataset.classes, len(copies)), copies["label"])
    copies = copies.assign(t_start=start, t_end=start + length, label=label)
    copies["score"] = rng.integers(0, 20, len(copies)) / 20
    # A table that was filtered before has gaps in its index.
    return score_proposals(copies, SMOKE.selection).iloc[::-1]


@pytest.fixture(scope="module")
def known(dataset: Dataset) -> pd.DataFrame:
    return dataset.truth("train")[["video", "label"]].drop_duplicates()


def expected(labels: pd.DataFrame, dataset: Dataset) -> dict[str, float]:
    durations_s = dataset.videos["duration_s"]
    row = pseudo_label_quality(labels, dataset.truth("train"), durations_s).iloc[0]
    return {"proposals": len(labels)} | {name: row[name] for name in MEASURES}


@settings(max_examples=25, deadline=None)
@given(share=st.sampled_from([0.0, 0.05, 0.5, 1.0]), seed=st.integers(0, 99))
def test_a_part_is_measured_exactly(
    dataset: Dataset, scored: pd.DataFrame, share: float, seed: int
) -> None:
    kept = np.random.default_rng(seed).random(len(scored)) < share
    matches = views.LabelMatches.of(scored, dataset.truth("train"))
    assert matches.quality(kept) == pytest.approx(expected(scored[kept], dataset))


def test_a_part_is_not_measured_by_the_matches_of_the_whole() -> None:
    """Without the better proposal, the other one takes the segment."""
    truth = pd.DataFrame({"video": ["v"], "label": ["x"], "t_start": [0.0], "t_end": [10.0]})
    both = pd.concat([truth, truth.assign(t_end=8.0)]).assign(score=[0.9, 0.8])
    matches = views.LabelMatches.of(both, truth)
    assert matches.quality(np.array([True, True]))["precision@0.5"] == 0.5
    assert matches.quality(np.array([False, True]))["precision@0.5"] == 1.0
    nothing = matches.quality(np.array([False, False]))
    assert nothing == {"proposals": 0, "precision@0.5": 0, "recall@0.5": 0, "f1@0.5": 0}


@pytest.mark.parametrize("thresholds", [(0.0, -1.0), (0.5, 0.4), (1.5, 0.2), (99.0, 0.0)])
def test_thresholds_are_those_of_the_selection(
    dataset: Dataset,
    scored: pd.DataFrame,
    known: pd.DataFrame,
    thresholds: tuple[float, float],
) -> None:
    names = ("iou_threshold", "confidence_threshold")
    chosen = SMOKE.selection.model_copy(update=dict(zip(names, thresholds, strict=True)))
    labels = select(scored, chosen, known)
    draw = views.threshold_view(scored, SMOKE.selection, dataset, known)
    video = scored["video"].iloc[0]
    table, timeline = draw(*thresholds, video)
    assert table["proposals"].iloc[0] == len(labels)
    found = table[MEASURES].iloc[0].astype(float).to_numpy()
    exact = [100 * expected(labels, dataset)[name] for name in MEASURES]
    np.testing.assert_allclose(found, exact, atol=0.051)
    own = select(scored, SMOKE.selection, known)
    assert table["proposals"].iloc[1] == len(own)
    here = labels[labels["video"] == video]
    assert len(timeline.layers["selected"]) == len(here)
    everything = (scored["video"] == video).sum()
    assert len(timeline.layers["proposals removed"]) == everything - len(here)
    assert f"{len(here)} of {everything} proposals" in timeline.title


def test_a_video_without_truth_or_proposals_is_drawn(
    dataset: Dataset, scored: pd.DataFrame, known: pd.DataFrame
) -> None:
    video = dataset.video_names("test")[0]
    draw = views.threshold_view(scored, SMOKE.selection, dataset, known)
    _, timeline = draw(0.2, 0.4, video)
    assert timeline._repr_png_()


def test_dragging_a_threshold_updates_table_and_timeline(
    dataset: Dataset, scored: pd.DataFrame, known: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "02_selection.ipynb")
    monkeypatch.delenv("FUSTAL_PROGRESS", raising=False)
    draw = views.threshold_view(scored, SMOKE.selection, dataset, known)
    menu = (scored["video"].iloc[0], sorted(scored["video"].unique()))
    box = explore(draw, gamma=(0.2, 0.0, 2.0), eta=(0.4, -0.5, 1.5), video=menu)
    gamma, eta, video = box.children[:3]
    words, picture = box.children[-2:]
    before = words.value, picture.value
    gamma.value, eta.value = 0.0, -0.5
    assert words.value != before[0]
    assert f"{len(scored)}" in words.value
    assert picture.value != before[1]
    video.value = next(name for name in video.options if name != video.value)
    assert picture.value != before[1]
    assert isinstance(gamma, ipywidgets.FloatSlider)


# --- the EMA's labels -----------------------------------------------------------------------------


@pytest.fixture
def ema(dataset: Dataset) -> pd.DataFrame:
    """The EMA labels of one video at two epochs, in crops of half of it."""
    video = dataset.video_names("train")[0]
    half = float(dataset.videos.loc[video, "duration_s"]) / 2
    rows = [(2, video, 1.0, 4.0, 0.0, half), (3, video, half, half + 2, half, 2 * half)]
    columns = ["epoch", "video", "t_start", "t_end", "crop_start_s", "crop_end_s"]
    return pd.DataFrame(rows, columns=columns).assign(label=dataset.classes[0], score=0.5)


@pytest.fixture
def quality() -> pd.DataFrame:
    rows = [(step, epoch, 10 * epoch) for epoch in (pd.NA, 2, 3) for step in ("EMA", "selected")]
    table = pd.DataFrame(rows, columns=["step", "epoch", "proposals"])
    return table.assign(**dict.fromkeys([*MEASURES, "mean_tiou"], 0.25))


def spans(figure: Any) -> list[tuple[float, float]]:
    """Where a figure is pale, in seconds."""
    patches = [p for p in figure.axes[-1].patches if p.get_zorder() == 3]
    return [(p.get_x(), p.get_x() + p.get_width()) for p in patches]


def test_what_the_student_did_not_see_is_pale(
    dataset: Dataset, ema: pd.DataFrame, quality: pd.DataFrame
) -> None:
    video = ema["video"].iloc[0]
    end_s = float(dataset.videos.loc[video, "duration_s"])
    draw = views.ema_view(ema, dataset.truth("train").assign(score=1.0), dataset, quality)
    table, figure = draw(2, video)
    assert spans(figure) == [pytest.approx((end_s / 2, end_s))]
    assert table.index.tolist() == [("EMA", "2"), ("selected", "2")]
    assert table["proposals"].tolist() == [20, 20]
    assert (table["f1@0.5 (%)"] == "25.0").all()
    assert spans(draw(3, video)[1]) == [pytest.approx((0.0, end_s / 2))]


def test_a_video_without_a_label_of_the_ema_says_so(
    dataset: Dataset, ema: pd.DataFrame, quality: pd.DataFrame
) -> None:
    other = dataset.video_names("train")[1]
    draw = views.ema_view(ema, dataset.truth("train").assign(score=1.0), dataset, quality)
    _, figure = draw(2, other)
    assert spans(figure) == []
    assert "no EMA label" in figure.axes[0].get_title(loc="left")


# --- the strengths of the simulator ---------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"num_classes": 2, "train_videos": 6, "test_videos": 4, "max_video_s": 45.0}
    monkeypatch.setattr(views, "SMALL_DATA", {**data, "feature_dim": 16})
    monkeypatch.setattr(views, "SMALL_GENERATOR", {**views.SMALL_GENERATOR, "iterations": 5})


def trained(**changes: float) -> tuple[pd.DataFrame, list[tuple[int, int, str]]]:
    told: list[tuple[int, int, str]] = []
    table, figure = views.simulate_and_train(
        SMOKE.simulation, SMOKE.generation, progress=lambda *step: told.append(step), **changes
    )
    assert len(figure.axes) == 2
    return table, told


def test_both_generators_are_trained_with_progress(tiny: None) -> None:
    table, told = trained()
    assert table.index.tolist() == ["CoLA", "FuSTAL generator"]
    assert [done for done, _, _ in told] == list(range(1, 11))
    assert {total for _, total, _ in told} == {10}
    assert [name for _, _, name in told] == ["CoLA"] * 5 + ["FuSTAL generator"] * 5


def test_the_same_strengths_and_seed_give_the_same(tiny: None) -> None:
    first, _ = trained(noise=0.3, seed=2)
    again, _ = trained(noise=0.3, seed=2)
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(trained(noise=0.0, seed=2)[0])
    assert not first.equals(trained(noise=0.3, seed=3)[0])


def test_a_strength_that_cannot_be_is_a_sentence(
    tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "05_analysis.ipynb")
    monkeypatch.delenv("FUSTAL_PROGRESS", raising=False)

    def draw(noise: float, progress: Any) -> Any:
        return views.simulate_and_train(
            SMOKE.simulation, SMOKE.generation, progress=progress, noise=noise
        )

    box = explore(draw, button="simulate and train", noise=(0.1, -1.0, 1.0))
    slider, row, words, picture = box.children
    shown = picture.value
    assert bytes(shown).startswith(b"\x89PNG")
    slider.value = 0.5
    assert picture.value == shown
    row.children[0].click()
    assert picture.value != shown
    slider.value = -1.0
    row.children[0].click()
    assert "noise" in words.value
    assert "<table" not in words.value
