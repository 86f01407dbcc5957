"""What the notebooks look at is what the stages made, taken apart and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from fustal_core import views
from fustal_core.config import make_settings
from fustal_core.data import Dataset
from fustal_core.generator import CrossVideoGenerator
from fustal_core.simulator import simulate
from fustal_core.student import TriDet
from fustal_core.student_inference import detect

SETTINGS = make_settings(profile="smoke")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return simulate(SETTINGS.simulation, seed=1)


@pytest.fixture(scope="module")
def generator(dataset: Dataset) -> CrossVideoGenerator:
    torch.manual_seed(0)
    return CrossVideoGenerator(dataset.generator_features.dim, len(dataset.classes), 16).eval()


@pytest.fixture(scope="module")
def student(dataset: Dataset) -> TriDet:
    rng = torch.Generator().manual_seed(0)
    model = TriDet(dataset.student_features.dim, len(dataset.classes), SETTINGS.student, rng)
    return model.eval()


def with_videos(dataset: Dataset, rows: list[tuple[str, float]], segments: list[tuple]) -> Dataset:
    videos = pd.DataFrame(rows, columns=["video", "duration_s"]).set_index("video")
    columns = ["video", "label", "t_start", "t_end"]
    truth = pd.DataFrame(segments, columns=columns)
    return replace(dataset, videos=videos.assign(subset="test"), segments=truth)


def test_example_video_prefers_classes_then_instances_then_the_name(dataset: Dataset) -> None:
    rows = [("long", 90.0), ("d", 10.0), ("c", 10.0), ("b", 10.0), ("longer", 99.0)]
    two = [("c", "y", 0, 1), ("c", "x", 2, 3), ("b", "y", 0, 1), ("b", "x", 2, 3)]
    three_of_one = [("d", "x", i, i + 0.5) for i in range(3)]
    many_but_long = [("longer", name, 0, 1) for name in "uvwxyz"]
    made = with_videos(dataset, rows, [*two, *three_of_one, *many_but_long])
    assert views.example_video(made, "test") == "b"
    more = with_videos(dataset, rows, [*two, ("c", "x", 5, 6), *three_of_one, *many_but_long])
    assert views.example_video(more, "test") == "c"


def test_example_video_falls_back_where_no_short_video_has_truth(dataset: Dataset) -> None:
    rows = [("b", 10.0), ("a", 10.0), ("x", 20.0), ("long", 90.0), ("longer", 99.0)]
    one = ("long", "x", 0, 1)
    assert views.example_video(with_videos(dataset, rows, [one]), "test") == "long"
    two = [one, ("longer", "x", 0, 1), ("longer", "y", 0, 1)]
    assert views.example_video(with_videos(dataset, rows, two), "test") == "longer"
    assert views.example_video(with_videos(dataset, rows, []), "test") == "a"


def test_summary_counts_by_hand(dataset: Dataset) -> None:
    segments = [("a", "x", 0, 2), ("a", "y", 1, 3), ("b", "x", 0, 4), ("t", "x", 0, 1)]
    made = with_videos(dataset, [("a", 10.0), ("b", 30.0), ("t", 5.0)], segments)
    made = replace(made, videos=made.videos.assign(subset=["test", "test", "train"]))
    test = views.summary(made).set_index("subset").loc["test"]
    assert test["instances"] == 3
    assert test["several classes (%)"] == 50
    assert test["action time (%)"] == pytest.approx(100 * 8 / 40)
    assert test["median instance (s)"] == 2


def test_snippet_times_span_the_video_whatever_the_sampling(dataset: Dataset) -> None:
    video, store = dataset.video_names("test")[0], dataset.generator_features
    length_s = store.num_snippets(video) * store.seconds_per_snippet(video)
    for count in (7, store.num_snippets(video)):
        times = views.snippet_times(dataset, video, count)
        assert times[0] + times[-1] == pytest.approx(length_s)
        assert np.diff(times) == pytest.approx(length_s / count)


def test_mined_numbers_are_the_extremes(dataset: Dataset, generator: CrossVideoGenerator) -> None:
    video = dataset.video_names("test")[0]
    view = views.mining_of(generator, dataset, video, 64)
    actionness, mined = view["actionness"], view["mined"]
    count = len(actionness) // 5
    order = np.argsort(-actionness, kind="stable")
    assert sorted(mined["easy action"]) == sorted(order[:count])
    lowest = np.sort(actionness)[:count]
    assert np.sort(actionness[mined["easy background"]]) == pytest.approx(lowest)
    hard = mined["hard action"]
    assert view["inner"][hard].sum() == min(len(hard), view["inner"].sum())


def test_curves_are_normalised_and_named(dataset: Dataset, generator: CrossVideoGenerator) -> None:
    video = dataset.video_names("test")[0]
    curves = views.generator_curves(generator, dataset, video, 64)
    labels = sorted(views.truth_of(dataset, video)["label"].unique())
    assert list(curves) == [f"T-CAS {label}" for label in labels] + ["actionness"]
    for times, values in curves.values():
        assert len(times) == len(values)
        assert 0 <= values.min() <= values.max() <= 1


def test_pyramid_points_lie_inside_and_near_the_middle(dataset: Dataset) -> None:
    video = views.example_video(dataset, "train")
    positives, points_s, strides_s = views.pyramid_of(
        dataset, video, dataset.truth("train"), SETTINGS.student
    )
    store, truth = dataset.student_features, views.truth_of(dataset, video)
    assert sum(positive.sum() for positive in positives) > 0
    levels = zip(positives, points_s, strides_s, strict=True)
    for level, (positive, all_s, stride_s) in enumerate(levels):
        assert stride_s == pytest.approx(store.seconds_per_snippet(video) * 2**level)
        times_s = store.to_seconds(video, np.flatnonzero(positive) * 2**level)[:, None]
        assert all_s[positive] == pytest.approx(times_s[:, 0])
        start, end = truth["t_start"].to_numpy(), truth["t_end"].to_numpy()
        near = np.abs(times_s - (start + end) / 2) < 1.5 * stride_s + 1e-5
        assert ((times_s > start) & (times_s < end) & near).any(1).all()


def test_trident_shows_distributions_at_a_point_inside_a_segment(
    dataset: Dataset, student: TriDet
) -> None:
    video = views.example_video(dataset, "test")
    view = views.trident_of(student, dataset, video, SETTINGS.student)
    assert view.start.shape == view.end.shape == (SETTINGS.student.bins + 1,)
    assert view.start.sum() == pytest.approx(1, abs=1e-5)
    assert view.end.sum() == pytest.approx(1, abs=1e-5)
    truth = views.truth_of(dataset, video)
    start, end = view.time_s - view.truth_s[0], view.time_s + view.truth_s[1]
    distance = (truth["t_start"] - start).abs() + (truth["t_end"] - end).abs()
    nearest = truth.loc[distance.idxmin()]
    assert distance.min() < 1e-3
    assert nearest["label"] == view.label
    assert nearest["t_start"] < view.time_s < nearest["t_end"]


def test_detections_of_one_video_are_its_share_of_all(dataset: Dataset, student: TriDet) -> None:
    video = dataset.video_names("test")[2]
    alone = views.detections_of(student, dataset, video, SETTINGS.student)
    everything = detect(student, dataset, "test", SETTINGS.student)
    own = everything[everything["video"] == video].reset_index(drop=True)
    assert alone["video"].unique().tolist() == [video]
    np.testing.assert_allclose(alone["score"], own["score"], atol=1e-5)


def test_selection_variants_differ_as_their_names_say(dataset: Dataset) -> None:
    truth = dataset.truth("train")
    rng = np.random.default_rng(0)
    shifted = pd.concat([truth, truth.assign(t_start=truth["t_start"] + 0.1)])
    lonely = truth.assign(t_start=500.0, t_end=501.0).drop_duplicates("video")
    proposals = pd.concat([shifted, lonely], ignore_index=True)
    proposals["t_end"] = np.maximum(proposals["t_end"], proposals["t_start"] + 0.2)
    proposals["score"] = rng.uniform(0.3, 1.0, len(proposals))
    table = views.selection_variants(
        proposals, SETTINGS.selection, dataset, truth[["video", "label"]].drop_duplicates()
    )
    counts = table.set_index("variant")["proposals"]
    assert counts["confidence filter"] == (proposals["score"] > 0.4).sum()
    assert counts["IoU-score filter"] < counts["confidence filter"]
    assert counts["IoU within the class"] <= counts["IoU-score filter"]
    same = table.set_index("variant")["same_as_settings"]
    assert same["IoU-score filter"]
    assert not same["confidence filter"]


def test_most_filtered_video_counts_what_is_lost_and_breaks_ties_by_length() -> None:
    def labels(videos: str) -> pd.DataFrame:
        return pd.DataFrame({"video": list(videos), "fallback": False})

    durations_s = pd.Series({"d": 5.0, "c": 9.0, "b": 5.0, "a": 20.0, "e": 1.0})
    before, after = labels("aaabbbcccddd"), labels("aabcd")
    assert views.most_filtered_video(before, after, durations_s) == ("b", 2)
    more = pd.concat([after, labels("bb").assign(fallback=True)])
    assert views.most_filtered_video(before, more, durations_s) == ("b", 2)
    assert views.most_filtered_video(before, before, durations_s) == ("e", 0)


def test_readable_blanks_what_is_unknown() -> None:
    table = pd.DataFrame({"a": [1.25, np.nan], "b": ["x", None], "n": [3, 4]})
    assert views.readable(table, 2).to_numpy().tolist() == [["1.25", "x", 3], ["", "", 4]]
