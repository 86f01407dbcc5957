"""The names that other programs call, as they call them: README, "Names for other programs"."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch

from fustal_core.alignment import fine_grained_sequence_distance, longest_common_subsequence
from fustal_core.generator import CrossVideoGenerator, generator_loss, mine_snippets
from fustal_core.hrpro import expand_points
from fustal_core.metrics import detection_map, temporal_iou
from fustal_core.proposals import generate_proposals, soft_nms
from fustal_core.rundir import project_root
from fustal_core.selection import iou_score

KINDS = pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["numpy", "torch"])
NAMES = (
    temporal_iou,
    detection_map,
    iou_score,
    CrossVideoGenerator,
    mine_snippets,
    generator_loss,
    generate_proposals,
    fine_grained_sequence_distance,
    longest_common_subsequence,
    expand_points,
    soft_nms,
)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.__name__)
def test_the_readme_names_it_with_its_parameters(name: Callable[..., object]) -> None:
    text = (project_root() / "README.md").read_text(encoding="utf-8")
    _, called = text.split(f".{name.__name__}(", 1)
    wanted = [part.split("=")[0].strip() for part in called.split(")", 1)[0].split(",")]
    parameters = inspect.signature(name).parameters
    assert list(parameters)[: len(wanted)] == wanted
    rest = list(parameters.values())[len(wanted) :]
    assert all(one.default is not inspect.Parameter.empty for one in rest)
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert all(parameters[one].kind == positional for one in wanted)


@KINDS
def test_temporal_iou_gives_back_the_kind(make: Callable) -> None:
    table = temporal_iou(make([[0.0, 2.0]]), make([[1.0, 3.0], [5.0, 6.0]]))
    assert type(table) is type(make([0.0]))
    assert table.tolist() == [[pytest.approx(1 / 3), 0]]


def test_detection_map_has_a_row_per_class_and_a_column_per_threshold() -> None:
    truth = pd.DataFrame(
        {"video": ["v", "v"], "label": ["a", "b"], "t_start": [0.0, 4.0], "t_end": [2.0, 8.0]}
    )
    found = truth.assign(score=0.5, t_end=[2.0, 6.0])
    table = detection_map(found, truth, [0.5, 0.6])
    assert table.index.tolist() == ["a", "b"]
    assert table.to_numpy().tolist() == [[1, 1], [1, 0]]


@KINDS
def test_iou_score_sums_over_the_others(make: Callable) -> None:
    found = iou_score(make([[0.0, 2.0], [0.0, 2.0], [1.0, 3.0]]))
    assert found.tolist() == pytest.approx([4 / 3, 4 / 3, 2 / 3])


def test_the_generator_its_mining_and_its_loss() -> None:
    model = CrossVideoGenerator(5, 3, hidden_channels=8).eval()
    embedding, bias, classifier = (p.shape for p in model.parameters())
    assert (*embedding, *bias, *classifier[:2]) == (8, 5, 3, 8, 3, 8)
    output = model(torch.rand(2, 40, 5, generator=torch.Generator().manual_seed(0)))
    shapes = [output.embeddings, output.cas, output.actionness, output.video_scores]
    assert [tuple(x.shape) for x in shapes] == [(2, 40, 8), (2, 40, 3), (2, 40), (2, 3)]
    mined = mine_snippets(output.actionness, output.embeddings)
    assert mined.easy_action.shape == mined.easy_background.shape == (2, 8, 8)
    assert mined.hard_action.shape == mined.hard_background.shape == (2, 2, 8)
    loss = generator_loss(output, torch.tensor([[1.0, 0, 0], [1, 0, 0]]))
    torch.testing.assert_close(loss.total, loss.classification + 0.01 * loss.contrast)
    torch.testing.assert_close(loss.contrast, loss.in_video + 0.2 * loss.cross_video)
    assert loss.cross_video > 0


@KINDS
def test_generate_proposals_gives_a_frame(make: Callable) -> None:
    curve = np.r_[np.zeros(10), np.ones(10), np.zeros(10)]
    curves = make(np.stack([curve, 1 - curve], axis=1)), make(curve), make([0.9, 0.1])
    kept = generate_proposals(*curves, 30, 0.5)
    before = generate_proposals(*curves, 30, 0.5, nms=False)
    assert list(kept.columns) == ["label", "score", "t_start", "t_end"]
    assert set(before["label"]) == {0}
    assert 0 < len(kept) < len(before)


def test_two_alignments_of_a_pair() -> None:
    match, gap = torch.ones(1, 2, 2), torch.zeros(1, 2, 2)
    corner = 1 + 0.1 * math.log(3)
    beside = 1 + 0.1 * math.log(2 + math.exp(corner / 0.1))
    last = 1 + 0.1 * math.log(math.exp(corner / 0.1) + 2 * math.exp(beside / 0.1))
    assert fine_grained_sequence_distance(match, gap).tolist() == pytest.approx([last])
    similarity = torch.tensor([[[0.95, 0.9], [0.1, 0.99]]])
    assert longest_common_subsequence(similarity).tolist() == pytest.approx([0.95 + 0.99])


@KINDS
def test_points_expand_with_the_published_thresholds(make: Callable) -> None:
    action, background = expand_points(make([0.96, 0.05, 0.5, 0.1]), make([[0.0], [0], [0], [1]]))
    assert (action.tolist(), background.tolist()) == ([[0], [0], [0], [1]], [1, 0, 0, 0])


@KINDS
def test_soft_nms_gives_back_the_kind_best_first(make: Callable) -> None:
    segments, scores = soft_nms(
        make([[0.0, 4.0], [0.0, 2.0], [4.0, 8.0]]), make([0.9, 0.8, 0.7]), 0.5, 0.75, False
    )
    assert type(segments) is type(scores) is type(make([0.0]))
    assert segments.tolist() == [[0, 4]]
    assert soft_nms(make([[0.0, 4.0]]), make([0.9]), 0.5, 0.0, True)[1].tolist() == pytest.approx(
        [0.9]
    )
