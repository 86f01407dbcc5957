"""``fustal check``: everything that is wrong with a data folder, and what is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fustal_core.annotations import Report
from fustal_core.description import STREAMS
from fustal_core.feature_files import SourceFiles
from fustal_core.points import warn_of_shared_snippets
from fustal_core.progress import Progress
from fustal_core.reading import Read, fingerprint_of, look_at, stored_type
from fustal_core.splits import SUBSETS
from fustal_core.stage_settings import FeatureSettings
from fustal_core.survey import Survey, survey_folder


@dataclass(frozen=True)
class Check:
    """What a check found.

    folder: of the data.
    report: problems, warnings, and what was recognised.
    videos: per subset: ``videos``, ``classes``, ``hours``, ``instances``, ``points``; may be empty.
    features: per source and stream: ``videos``, ``snippets``, ``channels``, ``type``, ``GB``, ``mean``,
        ``std``, ``zeros`` (share of exact zeros).
    fingerprint: that of the loaded data set; empty if there is a problem.
    truth: the test videos' segments; may be empty.
    """

    folder: Path
    report: Report
    videos: pd.DataFrame
    features: pd.DataFrame
    fingerprint: str
    truth: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def is_sound(self) -> bool:
        """Whether there is no problem; warnings may be there."""
        return not self.report.problems


def check_folder(
    folder: Path,
    settings: FeatureSettings | None = None,
    *,
    trust_pickle: bool = False,
    progress: Progress | None = None,
) -> Check:
    """Check a data folder; every value is read once and none is kept.

    Args:
        folder: of the data.
        settings: in which precision features would be kept; None: the defaults.
        trust_pickle: load W-TALC's object arrays, which can run code.
        progress: called as progress(done, total, note).
    """
    settings, report, reads = settings or FeatureSettings(), Report(), []
    survey = survey_folder(folder, report, trust_pickle=trust_pickle)
    if survey is None:
        return Check(folder, report, pd.DataFrame(), pd.DataFrame(), "")
    if len(survey.points):
        files = survey.sources[0]
        step_s = {video: files.source.stride_frames / fps for video, fps in files.fps.items()}
        path = folder / survey.description.points
        warn_of_shared_snippets(path, survey.points, step_s, report)
    rows: list[dict[str, Any]] = []
    for files in survey.sources:
        if files.arrays:
            dtype = stored_type(files, settings.dtype)
            reads.append(look_at(files, dtype, report, progress))
            rows += _feature_rows(files, reads[-1], dtype.itemsize, dtype.name)
    fingerprint = "" if report.problems else fingerprint_of(survey, reads)
    test = survey.segments["video"].map(survey.videos["subset"]) == "test"
    truth = survey.segments[test]
    return Check(folder, report, _video_table(survey), pd.DataFrame(rows), fingerprint, truth)


def _feature_rows(
    files: SourceFiles, read: Read, itemsize: int, dtype: str
) -> Iterator[dict[str, Any]]:
    streams = next(iter(files.arrays.values()))
    for stream, values in enumerate(read.statistics):
        name = f"{files.key} ({STREAMS[stream]})" if len(streams) > 1 else files.key
        yield {
            "source": name,
            "videos": len(files.arrays),
            "snippets": files.num_snippets,
            "channels": streams[stream].shape[1],
            "type": dtype,
            "GB": values.count * itemsize / 1e9,
            "mean": values.mean,
            "std": values.std,
            "zeros": values.zero_share,
        }


def _video_table(survey: Survey) -> pd.DataFrame:
    subset = survey.segments["video"].map(survey.videos["subset"])
    rows = []
    for name in SUBSETS:
        videos = survey.videos[survey.videos["subset"] == name]
        segments = survey.segments[subset == name]
        rows.append(
            {
                "subset": name,
                "videos": len(videos),
                "classes": segments["label"].nunique(),
                "hours": videos["duration_s"].sum() / 3600,
                "instances": len(segments),
                "points": int(survey.points["video"].isin(videos.index).sum()),
            }
        )
    return pd.DataFrame(rows)


def to_text(check: Check) -> str:
    """The report for people: problems by kind with counts, warnings, what is there."""
    lines = [f"{check.folder}", *(f"  {line}" for line in check.report.found)]
    problems = check.report.problems
    for kind, count in Counter(problem.kind for problem in problems).items():
        lines += ["", f"{kind} ({count})"]
        lines += [f"  {problem.text}" for problem in problems if problem.kind == kind]
    if check.report.warnings:
        lines += ["", f"warnings ({len(check.report.warnings)})"]
        lines += [f"  {text}" for text in check.report.warnings]
    for table in (check.videos, check.features):
        if len(table):
            lines += ["", table.to_string(index=False, float_format="{:.3g}".format)]
    count = len(problems)
    verdict = "no problem" if not count else f"{count} problem{'s' if count > 1 else ''}"
    return "\n".join([*lines, "", f"{verdict}, {len(check.report.warnings)} warnings"])


def to_dict(check: Check) -> dict[str, Any]:
    """The report for machines, JSON-like."""
    return {
        "folder": str(check.folder),
        "sound": check.is_sound,
        "found": check.report.found,
        "problems": [{"kind": p.kind, "text": p.text} for p in check.report.problems],
        "warnings": check.report.warnings,
        "videos": check.videos.to_dict("records"),
        "features": check.features.to_dict("records"),
        "fingerprint": check.fingerprint,
    }
