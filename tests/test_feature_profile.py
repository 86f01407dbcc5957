"""The numbers that describe features, on features whose numbers are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from fustal_core.annotations import segments_frame
from fustal_core.data import Dataset
from fustal_core.feature_profile import list_sources, profile_features
from fustal_core.features import FeatureStore


def dataset_of(arrays: dict[str, np.ndarray]) -> Dataset:
    """Training videos of one snippet a second; action from 2 to 4 seconds in each."""
    lengths = [len(array) for array in arrays.values()]
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    offsets = dict(zip(arrays, zip(starts, lengths, strict=True), strict=True))
    values = torch.from_numpy(np.concatenate(list(arrays.values())).astype(np.float32))
    store = FeatureStore(values, offsets, 10, 10, dict.fromkeys(arrays, 10.0))
    videos = pd.DataFrame(
        {"subset": "train", "duration_s": map(float, lengths)}, index=list(arrays)
    )
    segments = segments_frame([(video, "jump", 2.0, 4.0) for video in arrays])
    return Dataset("toy", "real", ("jump",), videos, segments, store, store, "")


def test_sources() -> None:
    data = dataset_of({"a": np.array([[0.0, 2.0]] * 6), "b": np.array([[0.0, 4.0]] * 6)})
    table = list_sources(data).set_index("source")
    assert table.index.tolist() == ["generator", "student"]
    row = table.loc["generator"]
    assert row["step (s)"] == 1.0
    assert (row["channels"], row["snippets"]) == (2, 12)
    assert row["zeros (%)"] == 50.0
    assert row["mean"] == pytest.approx(1.5)
    assert row["kept in"] == "cpu (float32)"


def test_videos_that_never_change_differ_only_between_them() -> None:
    numbers = profile_features(dataset_of({"a": np.ones((6, 1)), "b": np.full((6, 1), 3.0)}))
    assert numbers["between videos (%)"] == pytest.approx(100)
    assert np.isnan(numbers["alike a second apart"])


def test_features_that_are_the_action() -> None:
    inside = np.array([0, 0, 1, 1, 0, 0], dtype=float)[:, None]  # centres 2.5 s and 3.5 s
    numbers = profile_features(dataset_of({"a": inside, "b": inside}))
    deviation = np.sqrt(1 / 3 * 2 / 3)
    assert numbers["action contrast"] == pytest.approx(1 / deviation)
    assert numbers["between videos (%)"] == pytest.approx(0)
    centred = inside - inside.mean()
    early, late = centred[:-1, 0], centred[1:, 0]
    alike = (early @ late) / np.sqrt((early @ early) * (late @ late))
    assert numbers["alike a second apart"] == pytest.approx(alike)
    assert numbers["zeros (%)"] == pytest.approx(100 * 4 / 6)


def test_channels_in_use_count_what_varies() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(4000, 1))
    data = dataset_of(
        {"a": np.hstack([one, 2 * one, 0 * one]), "b": np.hstack([one, 2 * one, 0 * one])}
    )
    assert profile_features(data)["channels in use"] == pytest.approx(1, abs=1e-6)
    even = dataset_of({"a": rng.normal(size=(4000, 3)), "b": rng.normal(size=(4000, 3))})
    assert profile_features(even)["channels in use"] == pytest.approx(3, abs=0.05)


def test_a_video_without_background_has_no_contrast() -> None:
    data = dataset_of({"a": np.random.default_rng(0).random((6, 2))})
    everywhere = segments_frame([("a", "jump", 0.0, 6.0)])
    assert np.isnan(profile_features(replace(data, segments=everywhere))["action contrast"])
