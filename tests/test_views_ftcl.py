"""What notebook 6 looks at: by hand on a model whose answers are its features, and on real ones."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from fustal_core import views_ftcl
from fustal_core.acmnet import ACMNet, ACMNetOutput
from fustal_core.alignment import (
    fine_grained_sequence_distance,
    fsd_path,
    fsd_table,
    lcs_path,
    lcs_table,
    longest_common_subsequence,
)
from fustal_core.config import make_settings
from fustal_core.data import Dataset
from fustal_core.features import FeatureStore
from fustal_core.ftcl import FTCL, PairSampler, build_ftcl, example_pairs, find_candidates
from fustal_core.ftcl_training import look_at_pair
from fustal_core.generation import run_generator
from fustal_core.stage_settings import ACMNetSettings, Constants, FTCLSettings
from fustal_core.views import snippet_times

LENGTH = 40
ACM_NET = ACMNetSettings(hidden_channels=12)
SETTINGS = FTCLSettings(lcs_snippets=6, fsd_snippets=3, fsd_channels=8, lcs_threshold=0.5)


class Mirror(nn.Module):
    """A model that answers with its features: attention in channels 0 to 2, video scores in 3 on."""

    def __init__(self) -> None:
        super().__init__()
        self.anywhere = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> ACMNetOutput:
        scores = features[:, :1, 3:].expand(-1, 3, -1)  # of the first snippet
        scores = torch.cat([scores, torch.zeros_like(scores[..., :1])], 2)  # no background
        nothing = torch.zeros(())
        return ACMNetOutput(features, features[..., :3], nothing, scores, nothing)


def hand_made(
    features: dict[str, list[list[float]]],
    segments: list[tuple[str, str, float, float]],
    classes: tuple[str, ...] = ("x", "y"),
) -> Dataset:
    """Test videos whose snippets last a second each."""
    arrays = {video: torch.tensor(rows) for video, rows in features.items()}
    offsets, row = {}, 0
    for video, array in arrays.items():
        offsets[video] = (row, len(array))
        row += len(array)
    store = FeatureStore(
        torch.cat(list(arrays.values())), offsets, 25, 25, dict.fromkeys(arrays, 25.0)
    )
    durations = {video: float(len(array)) for video, array in arrays.items()}
    videos = pd.DataFrame({"subset": "test", "duration_s": pd.Series(durations)})
    truth = pd.DataFrame(segments, columns=["video", "label", "t_start", "t_end"])
    return Dataset("by hand", "simulated", classes, videos, truth, store, store, "0")


@pytest.fixture(scope="module")
def model(tiny_dataset: Dataset) -> FTCL:
    torch.manual_seed(0)
    sizes = tiny_dataset.generator_features.dim, len(tiny_dataset.classes)
    return build_ftcl(*sizes, ACM_NET, SETTINGS).eval()


@pytest.fixture(scope="module")
def looks(tiny_dataset: Dataset, model: FTCL) -> dict[str, Tensor]:
    """Tables of both example pairs at three moments: of the model, and of two disturbed ones."""
    names = tiny_dataset.video_names("train")
    pairs = example_pairs(tiny_dataset.video_labels("train"))
    moments = []
    for seed in range(3):
        torch.manual_seed(seed)
        sizes = tiny_dataset.generator_features.dim, len(tiny_dataset.classes)
        other = build_ftcl(*sizes, ACM_NET, SETTINGS).eval()
        found = {}
        for kind, pair in pairs.items():
            videos = [names[i] for i in pair]
            tables = look_at_pair(other, tiny_dataset, videos, kind == "positive", LENGTH, SETTINGS)
            found |= {f"{kind}.{name}": value for name, value in tables.items()}
        moments.append(found)
    stacked = {name: torch.stack([one[name] for one in moments]) for name in moments[0]}
    return {"iterations": torch.tensor([0, 5, 10]), **stacked}


# --- attention ------------------------------------------------------------------------------------


def test_attention_curves_sum_to_one_over_the_whole_video(tiny_dataset: Dataset) -> None:
    torch.manual_seed(1)
    store = tiny_dataset.generator_features
    network = ACMNet(store.dim, len(tiny_dataset.classes), ACM_NET)
    video = max(tiny_dataset.video_names("test"), key=store.num_snippets)
    count = store.num_snippets(video)
    for length in (count // 2, count, 2 * count):
        curves = views_ftcl.attention_curves(network, tiny_dataset, video, length)
        assert list(curves) == ["instance attention", "context attention", "background attention"]
        expected = snippet_times(tiny_dataset, video, min(count, length))
        for times, values in curves.values():
            np.testing.assert_array_equal(times, expected)
            assert ((values >= 0) & (values <= 1)).all()
        np.testing.assert_allclose(sum(values for _, values in curves.values()), 1, rtol=1e-6)
    instance = run_generator(network, store, video, 2 * count).actionness[0]
    np.testing.assert_array_equal(curves["instance attention"][1], instance.numpy())


def test_attention_inside_by_hand() -> None:
    """Snippets at 0.5, 1.5 .. 19.5 s; one action from 6 to 8 s, so 2 to 6 and 8 to 12 s are near it."""
    attention = np.zeros((20, 5))
    attention[:, 2] = 1.0  # background
    attention[[6, 7]] = [[0.5, 0.3, 0.2, 0, 0], [0.7, 0.1, 0.2, 0, 0]]
    attention[[2, 11]] = [[0.0, 1.0, 0.0, 0, 0], [0.4, 0.6, 0.0, 0, 0]]
    dataset = hand_made({"v": attention.tolist()}, [("v", "x", 6.0, 8.0)])
    table = views_ftcl.attention_inside(Mirror(), dataset, "test", 100)
    assert list(table.index) == ["in an action", "within 4 s of one", "elsewhere"]
    assert list(table.columns) == ["instance", "context", "background", "share of time"]
    expected = [
        [1.2 / 2, 0.4 / 2, 0.4 / 2, 2 / 20],
        [0.4 / 8, 1.6 / 8, 6 / 8, 8 / 20],
        [0, 0, 1, 10 / 20],
    ]
    np.testing.assert_allclose(table, expected, atol=1e-7)


def test_attention_inside_pools_snippets_of_all_videos_and_actions() -> None:
    """A place inside one action is not near another one; a video without actions is elsewhere."""
    inside, outside = [1.0, 0, 0, 0, 0], [0.0, 0, 1.0, 0, 0]
    features = {"a": [inside] * 3 + [outside], "b": [outside] * 4}
    truth = [("a", "x", 0.0, 1.0), ("a", "y", 0.0, 3.0)]
    dataset = hand_made(features, truth)
    table = views_ftcl.attention_inside(Mirror(), dataset, "test", 100)
    assert table["share of time"].tolist() == [3 / 8, 1 / 8, 4 / 8]
    assert table["instance"].tolist() == [1, 0, 0]
    assert table["background"].tolist() == [0, 1, 1]


# --- classes and scores ---------------------------------------------------------------------------


def test_scores_by_class_count_by_hand() -> None:
    scores = {
        "one": [0.6, 0.3, 0.1],  # its class x is proposed, y (not its own) as well
        "other": [0.2, 0.15, 0.1],  # nothing above 0.25: the best, x, is proposed, its own is y
        "two": [0.5, 0.3, 0.2],  # shows y and z, of which y is proposed
    }
    features = {video: [[0.0, 0.0, 1.0, *values]] * 4 for video, values in scores.items()}
    truth = [
        ("one", "x", 0.0, 1.0),
        ("one", "x", 2.0, 3.0),
        ("other", "y", 0.0, 1.0),
        ("two", "y", 0.0, 1.0),
        ("two", "z", 1.0, 2.0),
    ]
    dataset = hand_made(features, truth, ("x", "y", "z"))
    table = views_ftcl.scores_by_class_count(Mirror(), dataset, "test", ACM_NET)
    columns = ["videos", "score of its classes", "largest other class", "proposed"]
    assert list(table.columns) == columns
    assert table.index.tolist() == [1, 2]
    np.testing.assert_allclose(table.loc[1], [2, (0.6 + 0.15) / 2, (0.3 + 0.2) / 2, 1 / 2])
    np.testing.assert_allclose(table.loc[2], [1, (0.3 + 0.2) / 2, 0.5, 1 / 2])


def test_a_score_at_the_threshold_proposes_nothing() -> None:
    dataset = hand_made({"v": [[0, 0, 1.0, 0.25, 0.5]] * 2}, [("v", "x", 0.0, 1.0)])
    found = views_ftcl.scores_by_class_count(Mirror(), dataset, "test", ACM_NET)
    assert found["proposed"].tolist() == [0]
    lower = ACM_NET.model_copy(update={"class_threshold": 0.2})
    found = views_ftcl.scores_by_class_count(Mirror(), dataset, "test", lower)
    assert found["proposed"].tolist() == [1]


def test_whole_videos_by_hand() -> None:
    features = {
        "a": [[0, 0, 1.0, 0.5, 0.75]] * 3,
        "b": [[0, 0, 1.0, 0.125, 0.0625]] * 4,
    }
    dataset = hand_made(features, [])
    found = views_ftcl.whole_videos(Mirror(), dataset, "test", ACM_NET)
    assert found.to_numpy().tolist() == [
        ["a", "x", 0.0, 3.0, 0.5],
        ["a", "y", 0.0, 3.0, 0.75],
        ["b", "x", 0.0, 4.0, 0.125],
    ]
    assert list(found.columns) == ["video", "label", "t_start", "t_end", "score"]


def test_the_table_of_thresholds_has_what_each_data_set_takes() -> None:
    table = views_ftcl.thresholds()
    assert tuple(table.index) == Constants.__args__
    assert table.loc["thumos14"].tolist() == ["0.25", "0.15, 0.2", "0.15, 0.2 .. 0.95", "0.55"]
    for data, row in table.iterrows():
        settings = make_settings(overrides={"constants": data}).acm_net
        assert float(row["acm_net.class_threshold"]) == settings.class_threshold
        assert float(row["acm_net.nms_tiou"]) == settings.nms_tiou
        cuts = [float(cut) for cut in row["acm_net.cas_thresholds"].split(", ")]
        assert tuple(cuts) == settings.cas_thresholds
        ends = row["acm_net.attention_thresholds"].split(" .. ")
        assert float(ends[-1]) == settings.attention_thresholds[-1]
        assert float(ends[0].split(", ")[0]) == settings.attention_thresholds[0]


# --- pairs ----------------------------------------------------------------------------------------


def test_the_example_pairs_are_named_by_their_videos(tiny_dataset: Dataset) -> None:
    names, labels = tiny_dataset.video_names("train"), tiny_dataset.video_labels("train")
    pairs = views_ftcl.pairs_of(tiny_dataset)
    assert set(pairs) == {"positive", "negative"}
    first, second = (labels[[names.index(name) for name in pair]] for pair in pairs.values())
    assert torch.equal(first[0], first[1])
    assert (second[0] * second[1]).sum() == 0


def test_a_look_is_one_pair_at_one_moment(looks: dict[str, Tensor]) -> None:
    for epoch in (0, 1, -1):
        look = views_ftcl.look_of(looks, "negative", epoch)
        assert len(look) == 7
        for name, value in look.items():
            assert torch.equal(value, looks[f"negative.{name}"][epoch])
    assert views_ftcl.look_of(looks, "absent", 0) == {}


@pytest.mark.parametrize("kind", ["positive", "negative"])
def test_the_pictures_are_the_alignments(
    tiny_dataset: Dataset, looks: dict[str, Tensor], kind: str
) -> None:
    videos = views_ftcl.pairs_of(tiny_dataset)[kind]
    look = views_ftcl.look_of(looks, kind, -1)
    size = (tiny_dataset, videos, LENGTH, SETTINGS)

    fsd = views_ftcl.fsd_picture(look, *size)
    match, gap = look["match"], look["gap"]
    np.testing.assert_array_equal(fsd["match"], match)
    np.testing.assert_array_equal(fsd["gap"], gap)
    np.testing.assert_array_equal(fsd["table"], fsd_table(match[None], gap[None])[0])
    np.testing.assert_array_equal(fsd["path"], fsd_path(match, gap))
    assert fsd["value"] == fsd["table"][-1, -1]
    value = fine_grained_sequence_distance(match[None], gap[None])
    assert fsd["value"] == pytest.approx(float(value))
    assert len(fsd["row_labels"]) == len(fsd["column_labels"]) == 3

    lcs = views_ftcl.lcs_picture(look, *size)
    similarity, cut = look["similarity"], SETTINGS.lcs_threshold
    np.testing.assert_array_equal(lcs["similarity"], similarity)
    np.testing.assert_array_equal(lcs["table"], lcs_table(similarity[None], cut)[0])
    np.testing.assert_array_equal(lcs["path"], lcs_path(similarity, cut))
    value = float(longest_common_subsequence(similarity[None], cut))
    assert lcs["value"] == pytest.approx(value)
    assert lcs["value"] == pytest.approx(sum(similarity[i, j].item() for i, j in lcs["path"]))
    assert len(lcs["path"]) > 0


def test_the_settings_of_the_pictures_are_those_given(
    tiny_dataset: Dataset, looks: dict[str, Tensor]
) -> None:
    videos = views_ftcl.pairs_of(tiny_dataset)["positive"]
    look = views_ftcl.look_of(looks, "positive", -1)
    strict = SETTINGS.model_copy(update={"lcs_threshold": 1.0, "fsd_gamma": 5.0})
    lcs = views_ftcl.lcs_picture(look, tiny_dataset, videos, LENGTH, strict)
    assert lcs["value"] == 0
    assert len(lcs["path"]) == 0
    fsd = views_ftcl.fsd_picture(look, tiny_dataset, videos, LENGTH, strict)
    usual = views_ftcl.fsd_picture(look, tiny_dataset, videos, LENGTH, SETTINGS)
    assert fsd["value"] > usual["value"]  # a smoother maximum is a larger one


def test_lanes_and_labels_by_hand() -> None:
    """Ten seconds fed as five snippets at 1, 3, 5, 7 and 9 s; the other video is shorter than that."""
    features = {"long": [[0.0]] * 10, "short": [[0.0]] * 4}
    truth = [("long", "x", 4.5, 7.0), ("long", "y", 0.0, 1.0), ("short", "x", 0.6, 1.4)]
    dataset = hand_made(features, truth)
    look = {
        "match": torch.eye(2),
        "gap": -torch.ones(2, 2),
        "similarity": torch.eye(5)[:, :4],
        "fsd_rows": torch.tensor([1, 4]),
        "fsd_columns": torch.tensor([0, 3]),
        "lcs_rows": torch.arange(5),
        "lcs_columns": torch.arange(4),
    }
    size = (dataset, ("long", "short"), 5, SETTINGS)
    fsd = views_ftcl.fsd_picture(look, *size)
    assert fsd["row_labels"] == ["3 s", "9 s"]
    assert fsd["column_labels"] == ["0 s", "4 s"]  # 0.5 and 3.5 s
    assert fsd["path"].tolist() == [[0, 0], [1, 1]]
    # C_11 = 1 + s(0, -1, -1); C_12 = 0 + s(0, -1, C_11 - 1); C_22 = 1 + s(C_11, C_12 - 1, C_12 - 1).
    first = 1 + 0.1 * math.log(1 + 2 * math.exp(-10))
    aside = 0.1 * math.log(1 + math.exp(-10) + math.exp(10 * (first - 1)))
    steps = (first, aside - 1, aside - 1)
    last = 1 + 0.1 * math.log(sum(math.exp(10 * step) for step in steps))
    assert fsd["value"] == pytest.approx(last, abs=1e-6)
    lcs = views_ftcl.lcs_picture(look, *size)
    assert lcs["row_inside"].tolist() == [True, False, True, True, False]
    assert lcs["column_inside"].tolist() == [False, False, False, False]
    wider = dataset.segments.assign(t_start=[4.5, 0.0, 0.5], t_end=[7.0, 1.0, 1.5])
    lcs = views_ftcl.lcs_picture(look, replace(dataset, segments=wider), *size[1:])
    assert lcs["column_inside"].tolist() == [True, True, False, False]
    assert lcs["value"] == 4


def test_the_values_over_the_training_are_those_of_the_pictures(
    tiny_dataset: Dataset, looks: dict[str, Tensor]
) -> None:
    values = views_ftcl.values_over_training(looks, tiny_dataset, SETTINGS)
    assert list(values.columns) == ["epoch", "kind", "measure", "value"]
    assert len(values) == 3 * 2 * 2
    for kind, videos in views_ftcl.pairs_of(tiny_dataset).items():
        for epoch in range(3):
            look = views_ftcl.look_of(looks, kind, epoch)
            own = values[(values["kind"] == kind) & (values["epoch"] == epoch)]
            found = own.set_index("measure")["value"]
            size = (tiny_dataset, videos, LENGTH, SETTINGS)
            fsd, lcs = views_ftcl.fsd_picture(look, *size), views_ftcl.lcs_picture(look, *size)
            assert found["FSD"] == pytest.approx(fsd["value"])
            assert found["LCS"] == pytest.approx(lcs["value"])


def test_the_paths_over_the_training_are_those_of_the_pictures(
    tiny_dataset: Dataset, looks: dict[str, Tensor]
) -> None:
    kinds = views_ftcl.paths_over_training(looks, tiny_dataset, SETTINGS)
    assert set(kinds) == {"positive", "negative"}
    for kind, found in kinds.items():
        assert found["epochs"] == [0, 1, 2]
        for epoch in range(3):
            look = views_ftcl.look_of(looks, kind, epoch)
            for name in ("similarity", "match", "gap"):
                np.testing.assert_array_equal(found[name][epoch], look[name])
            path = lcs_path(look["similarity"], SETTINGS.lcs_threshold)
            np.testing.assert_array_equal(found["paths"][epoch], path)
            np.testing.assert_array_equal(
                found["fsd_paths"][epoch], fsd_path(look["match"], look["gap"])
            )


def test_without_two_alike_there_is_nothing_over_the_training() -> None:
    alone = hand_made({"v": [[0.0]]}, [("v", "x", 0.0, 1.0)])
    alone = replace(alone, videos=alone.videos.assign(subset="train"))
    assert views_ftcl.pairs_of(alone) == {}
    assert views_ftcl.paths_over_training({}, alone, SETTINGS) == {}
    values = views_ftcl.values_over_training({}, alone, SETTINGS)
    assert values.empty
    assert list(values.columns) == ["epoch", "kind", "measure", "value"]


# --- random pairs ---------------------------------------------------------------------------------


def test_random_pairs_are_the_same_each_time(tiny_dataset: Dataset, model: FTCL) -> None:
    first, again, other = (
        views_ftcl.pair_values(model, tiny_dataset, "test", LENGTH, SETTINGS, pairs=3, seed=seed)
        for seed in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert not first.equals(other)
    assert list(first.columns) == ["kind", "FSD", "LCS"]
    assert first["kind"].value_counts().to_dict() == {"positive": 3, "negative": 3}


@torch.inference_mode()
def test_random_pairs_by_a_plain_loop(tiny_dataset: Dataset, model: FTCL) -> None:
    """Both kinds align action candidates with action candidates."""
    found = views_ftcl.pair_values(model, tiny_dataset, "test", LENGTH, SETTINGS, pairs=3, seed=5)
    names, labels = tiny_dataset.video_names("test"), tiny_dataset.video_labels("test")
    store = tiny_dataset.generator_features
    drawn = PairSampler(labels, 3).epoch(torch.Generator().manual_seed(5))
    for (i, j), row in zip(drawn, found.to_dict("records"), strict=True):
        outputs = [run_generator(model, store, names[k], LENGTH) for k in (i, j)]
        first, second = (find_candidates(model, output, SETTINGS) for output in outputs)
        match, gap = (
            torch.cosine_similarity(
                first.fsd_action[0, :, None, half], second.fsd_action[0, None, :, half], dim=2
            )
            for half in (slice(4), slice(4, 8))
        )
        value = fine_grained_sequence_distance(match[None], gap[None])
        assert row["FSD"] == pytest.approx(float(value), abs=1e-5)
        similarity = torch.cosine_similarity(first.lcs[0, :, None], second.lcs[0, None], dim=2)
        value = longest_common_subsequence(similarity[None], SETTINGS.lcs_threshold)
        assert row["LCS"] == pytest.approx(float(value), abs=1e-5)
        shared = float((labels[i] * labels[j]).sum())
        assert (row["kind"] == "positive") == (shared > 0)


def test_asking_for_more_pairs_than_there_are_takes_each_once(
    tiny_dataset: Dataset, model: FTCL
) -> None:
    labels = tiny_dataset.video_labels("test")
    alike = sum(torch.equal(labels[i], labels[j]) for i in range(len(labels)) for j in range(i))
    found = views_ftcl.pair_values(model, tiny_dataset, "test", LENGTH, SETTINGS, pairs=1000)
    assert (found["kind"] == "positive").sum() == alike > 0
