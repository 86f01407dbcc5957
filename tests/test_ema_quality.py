"""EMA labels beside the selected ones, in the same crops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fustal_core import ema_quality
from fustal_core.resampling import draw_videos

SEGMENT = ["video", "label", "t_start", "t_end"]


def test_crops_keep_what_lies_in_them_by_half() -> None:
    rows = [("v", 0, 4), ("v", 8, 12), ("v", 18, 23), ("v", 30, 31), ("w", 5, 6)]
    segments = pd.DataFrame(rows, columns=["video", "t_start", "t_end"]).assign(score=0.5)
    crops = pd.DataFrame({"crop_start_s": [10.0], "crop_end_s": [20.0]}, index=["v"])
    kept = ema_quality.crop_segments(segments, crops)
    # 8-12 lies in it by exactly half, 18-23 by two fifths.
    assert kept[["t_start", "t_end", "score"]].to_numpy().tolist() == [[0, 2, 0.5]]


@pytest.fixture
def labels() -> dict[str, pd.DataFrame]:
    """Crops of two videos, from 10 to 20 s and from 5 to 9 s, and what is labelled in them and around.

    Of v's two actions the EMA finds one and the selection none; of w's only one it is the other way
    round, and the EMA's label has the wrong class.
    """
    truth = [("v", "a", 11, 13), ("v", "a", 15, 18), ("v", "a", 30, 40), ("w", "b", 6, 8)]
    selected = [("v", "a", 13, 15), ("v", "a", 30, 40), ("w", "b", 6, 8)]
    ema = [("v", "a", 15, 18, 10, 20), ("w", "a", 6, 8, 5, 9)]
    crop = ["crop_start_s", "crop_end_s"]
    return {
        "ema": pd.DataFrame(ema, columns=[*SEGMENT, *crop]).assign(epoch=3, score=0.5),
        "selected": pd.DataFrame(selected, columns=SEGMENT).assign(score=0.5),
        "truth": pd.DataFrame(truth, columns=SEGMENT),
    }


def test_labels_are_measured_in_the_crops_alone(labels: dict[str, pd.DataFrame]) -> None:
    found = ema_quality.quality_in_crops(**labels)
    assert list(found) == [ema_quality.EMA_LABELS, ema_quality.STAGE_TWO_IN_CROPS]
    of_ema, of_selected = (quality.iloc[0] for quality in found.values())
    # Three actions lie in the crops, and two labels of either kind.
    assert (of_ema["instances"], of_ema["proposals"], of_selected["proposals"]) == (3, 2, 2)
    assert (of_ema["precision@0.5"], of_selected["precision@0.5"]) == (0.5, 0.5)
    assert of_ema["recall@0.5"] == pytest.approx(1 / 3)
    assert ema_quality.f1_gain(**labels) == pytest.approx(0)
    better = labels | {"ema": labels["ema"].replace({"label": {"a": "b"}})[1:]}  # w alone, right
    assert ema_quality.f1_gain(**better) == pytest.approx(0)  # both are right there
    none_selected = labels | {"selected": labels["selected"][:0]}
    assert ema_quality.f1_gain(**none_selected) == pytest.approx(2 / 5)


def test_a_resampled_gain_is_that_of_the_copied_videos(labels: dict[str, pd.DataFrame]) -> None:
    videos = ["v", "w", "without a crop"]
    gains = ema_quality.resampled_gain(**labels, videos=videos, count=15)
    draws = draw_videos(videos, 15, np.random.default_rng(7))
    expected = []
    for draw in draws:
        copies = {
            name: copied(frame, dict(zip(videos, draw, strict=True)))
            for name, frame in labels.items()
        }
        expected.append(ema_quality.f1_gain(**copies) if len(copies["ema"]) else 0.0)
    assert gains.tolist() == pytest.approx(expected)
    assert gains.min() < 0 < gains.max()


def copied(frame: pd.DataFrame, times: dict[str, int]) -> pd.DataFrame:
    """A frame with its videos as often as they were drawn, each copy under a name of its own."""
    copies = [
        frame[frame["video"] == video].assign(video=f"{video} {number}")
        for video, count in times.items()
        for number in range(count)
    ]
    return pd.concat([frame[:0], *copies], ignore_index=True)


def test_labels_are_counted_in_the_crops_of_the_last_epoch(labels: dict[str, pd.DataFrame]) -> None:
    ema = pd.concat(
        [labels["ema"], labels["ema"][:1].assign(epoch=4), labels["ema"].assign(epoch=2)]
    )
    table = ema_quality.labels_per_crop(ema, labels["selected"])
    assert table["crops"].tolist() == [1, 1]
    assert table["labels per crop"].tolist() == [1, 1]
    both = ema_quality.labels_per_crop(labels["ema"], labels["selected"][:2])
    assert both["crops"].tolist() == [2, 2]
    assert both["labels per crop"].tolist() == [1, 0.5]
    assert both["crops with a single label (%)"].tolist() == [100, 50]


@pytest.fixture
def quality() -> pd.DataFrame:
    steps = ["all proposals", *[ema_quality.EMA_LABELS, ema_quality.STAGE_TWO_IN_CROPS] * 2]
    f1 = {"f1@0.3": [0.1, 0.9, 0.9, 0.3, 0.4], "f1@0.7": [0.1, 0.9, 0.9, 0.2, 0.1]}
    return pd.DataFrame({"step": steps, "epoch": [pd.NA, 12, 12, 13, 13]} | f1)


def test_f1_in_crops_is_that_of_the_last_epoch(quality: pd.DataFrame) -> None:
    table = ema_quality.f1_in_crops(quality)
    assert table["f1@0.3"].tolist() == pytest.approx([30, 40, -10])
    assert table["f1@0.7"].tolist() == pytest.approx([20, 10, 10])
    assert len(ema_quality.f1_in_crops(quality[:1])) == 0
