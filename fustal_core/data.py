"""A data set for weakly-supervised temporal action localisation, and loading one from a folder.

During training only :meth:`Dataset.video_labels` of the training videos may be seen; ``segments``
and :meth:`Dataset.truth` are for measuring, and for the fully supervised ceiling.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pandas as pd
import torch

from fustal_core.annotations import Annotations, DataError, Report, read_annotations
from fustal_core.features import FeatureStore
from fustal_core.folder import FEW_SNIPPETS, DatasetYaml, read_dataset_yaml, read_features

__all__ = ["DataError", "Dataset", "FeatureStore", "load_dataset"]

SUBSETS = ("train", "test")


@dataclass(frozen=True)
class Dataset:
    """Videos, their features and what is true of them.

    origin: "simulated" or "real".
    classes: sorted names; a class's index is its place here.
    videos: index ``video``; columns ``subset`` ("train" or "test") and ``duration_s``.
    segments: truth of all videos; columns ``video``, ``label`` (name), ``t_start``, ``t_end`` (s).
    generator_features, student_features: may be one and the same store.
    fingerprint: sha256, hexadecimal, of annotations, description and features.
    warnings: odd but usable things found while loading.
    """

    name: str
    origin: str
    classes: tuple[str, ...]
    videos: pd.DataFrame
    segments: pd.DataFrame
    generator_features: FeatureStore
    student_features: FeatureStore
    fingerprint: str
    warnings: tuple[str, ...] = ()

    def video_names(self, subset: str) -> list[str]:
        """Names of the "train" or "test" videos, in the order of ``videos``."""
        if subset not in SUBSETS:
            raise ValueError(f"subset {subset!r}, expected 'train' or 'test'")
        return self.videos.index[self.videos["subset"] == subset].tolist()

    def truth(self, subset: str) -> pd.DataFrame:
        """Segments of one subset, for measuring only."""
        inside = self.segments["video"].isin(self.video_names(subset))
        return self.segments[inside].reset_index(drop=True)

    def video_labels(self, subset: str) -> torch.Tensor:
        """(N, C) float multi-hot: which classes each video of ``video_names(subset)`` shows."""
        names, truth = self.video_names(subset), self.truth(subset)
        rows = pd.Index(names).get_indexer(truth["video"])
        columns = pd.Index(self.classes).get_indexer(truth["label"])
        labels = torch.zeros(len(names), len(self.classes))
        labels[torch.as_tensor(rows), torch.as_tensor(columns)] = 1.0
        return labels


def load_dataset(folder: Path) -> Dataset:
    """Load a folder described by a ``dataset.yaml`` (data.md, layout 6), checking all of it first.

    Training videos without a label are left out of ``videos``, with a warning.
    Raises :class:`DataError` that lists every problem found: file, video, what was found and what
    was expected.
    """
    folder, report = Path(folder), Report()
    if not folder.is_dir():
        raise DataError([f"{folder}: no such data folder"])
    path = folder / "dataset.yaml"
    description = read_dataset_yaml(path, report)
    report.raise_problems()
    annotations = read_annotations(folder / description.annotations, report)
    if annotations is None:
        report.raise_problems()
    annotations = _select(annotations, description, report)
    _check_segments(annotations, description, report)
    _check_classes(annotations, report)
    digest = sha256(path.read_bytes())
    digest.update((folder / description.annotations).read_bytes())
    stores = _read_stores(folder, description, annotations.videos, digest, report)
    report.raise_problems()
    videos = _drop_unlabelled(annotations, report)
    return Dataset(
        name=description.name,
        origin="real",
        classes=tuple(sorted(annotations.segments["label"].unique())),
        videos=videos[["subset", "duration_s"]],
        segments=annotations.segments,
        generator_features=stores[0],
        student_features=stores[1],
        fingerprint=digest.hexdigest(),
        warnings=tuple(report.warnings),
    )


def _read_stores(
    folder: Path, description: DatasetYaml, videos: pd.DataFrame, digest: sha256, report: Report
) -> tuple[FeatureStore | None, FeatureStore | None]:
    """Generator's and student's features; the same store when only one is given."""
    points = description.points
    if points is not None and not (folder / points).is_file():
        report.problems.append(f"{folder / points}: no such file (points in dataset.yaml)")
    known = videos[videos["duration_s"].notna()]  # the others are reported already
    generator = read_features(folder, description.features, "features", known, digest, report)
    if description.student_features is None:
        return generator, generator
    source = description.student_features
    return generator, read_features(folder, source, "student_features", known, digest, report)


def _select(annotations: Annotations, description: DatasetYaml, report: Report) -> Annotations:
    """Keep the videos of the two subsets, renamed "train" and "test"."""
    videos = annotations.videos
    train, test = description.train_subset.casefold(), description.test_subset.casefold()
    spelling = {train: "train", test: "test"}
    if len(spelling) == 1:
        report.problems.append(
            f"dataset.yaml: train_subset and test_subset are both {description.train_subset!r}: "
            "every video would be in both splits"
        )
    subset = videos["subset"].str.casefold().map(spelling)
    found = ", ".join(map(repr, sorted(videos["subset"].unique())))
    for name in SUBSETS:
        if len(spelling) == 2 and not (subset == name).any():
            wanted = getattr(description, f"{name}_subset")
            report.problems.append(f"no video has the {name}_subset {wanted!r}, found {found}")
    if subset.isna().any():
        report.warnings.append(f"{int(subset.isna().sum())} videos are in neither subset: left out")
    kept = videos.assign(subset=subset)[subset.notna()]
    inside = annotations.segments["video"].isin(kept.index)
    for video in kept.index[kept["duration_s"].isna()]:
        report.problems.append(f"video {video}: no duration in the annotations, expected seconds")
    return Annotations(kept, annotations.segments[inside].reset_index(drop=True))


def _check_segments(annotations: Annotations, description: DatasetYaml, report: Report) -> None:
    """Report segments outside their video, and segments listed twice."""
    segments, source = annotations.segments, description.features
    videos = annotations.videos.loc[segments["video"]]
    fps = videos["fps"].to_numpy() if source.fps is None else source.fps
    slack_s = FEW_SNIPPETS * source.stride_frames / fps
    duration_s = videos["duration_s"].to_numpy()
    outside = (segments["t_start"] < -slack_s) | (segments["t_end"] > duration_s + slack_s)
    found = [
        f"video {row.video}: segment [{row.t_start:g}, {row.t_end:g}] s of {row.label} is outside "
        f"the video, expected within [0, {end_s:g}] s"
        for row, end_s in zip(segments[outside].itertuples(), duration_s[outside], strict=True)
    ]
    if description.outside_segments == "error":
        report.problems.extend(found)
    elif found:
        report.warnings.append(f"{len(found)} segments lie outside their videos: kept")
    twice = int(segments.duplicated().sum())
    if twice:
        report.warnings.append(f"{twice} segments are annotated twice")


def _check_classes(annotations: Annotations, report: Report) -> None:
    """Every class measured must be trainable: it needs a training video that shows it."""
    segments = annotations.segments
    subset = segments["video"].map(annotations.videos["subset"])
    train = set(segments["label"][subset == "train"])
    test = set(segments["label"][subset == "test"])
    report.problems.extend(
        f"class {name!r}: only in test videos, no training video shows it"
        for name in sorted(test - train)
    )
    report.warnings.extend(
        f"class {name!r}: in no test video, it is not measured" for name in sorted(train - test)
    )
    if not train:
        report.problems.append("no training video has a label, expected at least one segment")


def _drop_unlabelled(annotations: Annotations, report: Report) -> pd.DataFrame:
    """Videos without the training videos that show no class: they have nothing to teach."""
    videos = annotations.videos
    unlabelled = (videos["subset"] == "train") & ~videos.index.isin(annotations.segments["video"])
    if unlabelled.any():
        count = int(unlabelled.sum())
        report.warnings.append(f"{count} training videos have no label: left out of training")
    return videos[~unlabelled]
