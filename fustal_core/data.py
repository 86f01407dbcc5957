"""A data set for weakly-supervised temporal action localisation, and loading one from a folder.

During training only :meth:`Dataset.video_labels` of the training videos may be seen, or, with point
supervision, their points (:mod:`fustal_core.point_supervision`); ``segments`` and :meth:`Dataset.truth`
are for measuring, and for the fully supervised ceiling.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch

from fustal_core.annotations import DataError, Report
from fustal_core.feature_files import SourceFiles
from fustal_core.features import FeatureStore
from fustal_core.points import points_frame
from fustal_core.progress import Progress
from fustal_core.reading import (
    Read,
    fingerprint_of,
    num_bytes,
    offsets_of,
    read_to_cache,
    read_to_memory,
    stored_type,
)
from fustal_core.splits import SUBSETS
from fustal_core.stage_settings import FeatureSettings
from fustal_core.survey import survey_folder

__all__ = ["DataError", "Dataset", "FeatureStore", "load_dataset"]


@dataclass(frozen=True)
class Dataset:
    """Videos, their features and what is true of them.

    origin: "simulated" or "real".
    classes: sorted names; a class's index is its place here.
    videos: index ``video``; columns ``subset`` ("train" or "test") and ``duration_s``.
    segments: truth of all videos; columns ``video``, ``label`` (name), ``t_start``, ``t_end`` (s).
    generator_features, student_features: may be one and the same store.
    fingerprint: sha256, hexadecimal, of annotations, description and features.
    points: point labels of training videos; columns ``video``, ``label``, ``t`` (s); may be empty.
    found: what was recognised in a data folder, and why.
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
    points: pd.DataFrame = field(default_factory=points_frame)
    found: tuple[str, ...] = ()
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


def load_dataset(
    folder: Path,
    settings: FeatureSettings | None = None,
    *,
    cache: Path | None = None,
    trust_pickle: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Load a folder in any layout of :mod:`fustal_core.layouts`, checking all of it first.

    Training videos without a label are left out of ``videos``, with a warning.

    Args:
        folder: of the data.
        settings: in which precision features are kept, and in how much memory; None: the defaults.
        cache: folder of the mapped files for features that exceed the memory; None: all in memory.
        trust_pickle: load W-TALC's object arrays, which can run code.
        progress: called as progress(done, total, note).

    Raises:
        DataError: every problem found: file, video, what was found and what was expected.
    """
    settings = settings or FeatureSettings()
    report, reads = Report(), []
    survey = survey_folder(Path(folder), report, trust_pickle=trust_pickle)
    if survey is None:
        report.raise_problems()
    room = settings.memory_gb * 1e9 if cache is not None else float("inf")
    sources = [files for files in survey.sources if files.arrays]
    for files in sources:
        dtype = stored_type(files, settings.dtype)
        needed = num_bytes(files, dtype)
        if needed <= room:
            room -= needed
            reads.append(read_to_memory(files, dtype, report, progress))
        else:
            reads.append(read_to_cache(files, dtype, cache, report, progress))
    report.raise_problems()
    stores = list(map(_store, sources, reads))
    return Dataset(
        name=survey.description.name,
        origin=survey.description.origin,
        classes=survey.classes,
        videos=survey.videos[["subset", "duration_s"]],
        segments=survey.segments,
        generator_features=stores[0],
        student_features=stores[-1],
        fingerprint=fingerprint_of(survey, reads),
        points=survey.points,
        found=tuple(report.found),
        warnings=tuple(report.warnings),
    )


def _store(files: SourceFiles, read: Read) -> FeatureStore:
    clock = files.source.stride_frames, files.source.window_frames, files.fps
    return FeatureStore(torch.from_numpy(read.values), offsets_of(files), *clock, read.mapping)
