"""What the features of a data set are like: values, and the difficulties that can be measured.

The same few numbers for any data set, so that simulated and real features can be set side by side.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from fustal_core.annotations import in_segments
from fustal_core.data import Dataset
from fustal_core.features import FeatureStore
from fustal_core.reading import Statistics, statistics_of

LAG_S = 1.0
CHANNELS = 256
"""So many channels, evenly spaced, tell what all do: a covariance of 2048 takes a minute."""


def list_sources(dataset: Dataset) -> pd.DataFrame:
    """Generator's and student's features: clock, size and values; one row each.

    Columns ``source``, ``stride (frames)``, ``window (frames)``, ``fps`` (the commonest),
    ``step (s)``, ``channels``, ``snippets``, ``GB``, ``kept in``, ``mean``, ``std``, ``zeros (%)``.
    """
    stores = {"generator": dataset.generator_features, "student": dataset.student_features}
    return pd.DataFrame([_describe(name, store) for name, store in stores.items()])


def _describe(name: str, store: FeatureStore) -> dict[str, object]:
    values = sum(
        (statistics_of(store[video].cpu().numpy()) for video in store.offsets), Statistics()
    )
    fps = pd.Series(store.fps).mode()[0]
    place = "file, mapped" if store.mapping is not None else str(store.array.device)
    return {
        "source": name,
        "stride (frames)": store.stride_frames,
        "window (frames)": store.window_frames,
        "fps": fps,
        "step (s)": store.stride_frames / fps,
        "channels": store.dim,
        "snippets": sum(count for _, count in store.offsets.values()),
        "GB": store.nbytes / 1e9,
        "kept in": f"{place} ({str(store.array.dtype).removeprefix('torch.')})",
        "mean": values.mean,
        "std": values.std,
        "zeros (%)": 100 * values.zero_share,
    }


def profile_features(dataset: Dataset) -> dict[str, float]:
    """How hard the generator's features of the training videos look, in five numbers.

    - ``zeros (%)``: share of values that are exactly 0;
    - ``channels in use``: effective number of dimensions, (sum of eigenvalues)^2 / sum of squares,
      of the covariance over all snippets;
    - ``alike a second apart``: correlation of a video's features, less their mean over the video,
      with themselves a second later; 1: nothing changes, 0: all is new;
    - ``between videos (%)``: share of the variance that is between videos, not within them;
    - ``action contrast``: distance between the means of snippets inside and outside the true segments
      of a video, over the standard deviation of its snippets; 0: they cannot be told apart.
    """
    store, videos = dataset.generator_features, dataset.video_names("train")
    truth = dataset.truth("train")
    own = truth.groupby("video").indices
    rows = [_profile_video(store, video, truth.iloc[own.get(video, [])]) for video in videos]
    counts = np.array([row["count"] for row in rows])
    means = np.stack([row["mean"] for row in rows])
    within = sum(row["scatter"] for row in rows) / counts.sum()
    centred = means - np.average(means, axis=0, weights=counts)
    between = (centred * counts[:, None]).T @ centred / counts.sum()
    eigenvalues = np.linalg.eigvalsh(within + between)
    return {
        "zeros (%)": float(
            100 * sum(row["zeros"] for row in rows) / (counts.sum() * means.shape[1])
        ),
        "channels in use": float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum()),
        "alike a second apart": float(pd.Series([row["alike"] for row in rows]).mean()),
        "between videos (%)": float(100 * np.trace(between) / eigenvalues.sum()),
        "action contrast": float(pd.Series([row["contrast"] for row in rows]).mean()),
    }


def _profile_video(store: FeatureStore, video: str, truth: pd.DataFrame) -> dict[str, object]:
    step = -(-store.dim // CHANNELS)
    values = store[video][:, ::step].cpu().numpy().astype(np.float64)  # (T, at most CHANNELS)
    mean = values.mean(0)
    centred = values - mean
    inside = in_segments(store.to_seconds(video, np.arange(len(values))), truth)
    deviation = np.sqrt(centred.var(0).sum())
    contrast = np.nan
    if inside.any() and not inside.all() and deviation > 0:
        gap = values[inside].mean(0) - values[~inside].mean(0)
        contrast = float(np.linalg.norm(gap) / deviation)
    lag = max(round(LAG_S / store.seconds_per_snippet(video)), 1)
    early, late = centred[:-lag], centred[lag:]
    power = np.sqrt((early**2).sum() * (late**2).sum())
    return {
        "count": len(values),
        "mean": mean,
        "scatter": centred.T @ centred,
        "zeros": values.size - np.count_nonzero(values),
        "alike": float((early * late).sum() / power) if power > 0 else np.nan,
        "contrast": contrast,
    }
