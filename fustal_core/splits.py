"""Which videos are trained on and which tested: split files, or the annotations' subsets."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fustal_core.annotations import Annotations, Report, subset_key, subset_roles
from fustal_core.description import FILE, Description

SUBSETS = ("train", "test")


def select_videos(
    folder: Path, annotations: Annotations, description: Description, report: Report
) -> Annotations:
    """Keep the videos of the two subsets, their ``subset`` renamed "train" and "test".

    In the order of the split files if there are any, else of the annotations.
    """
    if description.splits is not None:
        subset = _from_files(folder, description.splits, annotations.videos, report)
    else:
        subset = _from_spellings(folder, annotations.videos, description, report)
    left_out = annotations.videos["subset"].drop(subset.index)
    if len(left_out):
        spellings = ", ".join(map(repr, sorted(left_out.unique())))
        report.warnings.append(
            f"{len(left_out)} annotated videos are in neither subset: left out (annotated "
            f"{spellings}, for example {left_out.index[0]})"
        )
    videos = annotations.videos.loc[subset.index].assign(subset=subset)
    inside = annotations.segments["video"].isin(videos.index)
    return Annotations(videos, annotations.segments[inside].reset_index(drop=True))


def _from_spellings(
    folder: Path, videos: pd.DataFrame, description: Description, report: Report
) -> pd.Series:
    """Roles by the annotations' subset: (video) -> "train" or "test"."""
    stated = {"train": description.train_subset, "test": description.test_subset}
    spellings = sorted(videos["subset"].unique())
    usual = subset_roles(spellings)
    keys = {role: subset_key(name) for role, name in stated.items() if name is not None}
    if len(set(keys.values())) < len(keys):
        report.problem(
            "split",
            f"{folder / FILE}: train_subset and test_subset are both {stated['train']!r}: every "
            "video would be in both splits",
        )
        return pd.Series(dtype=str)
    roles = {}
    for role in SUBSETS:
        of_role = [
            name
            for name in spellings
            if (subset_key(name) == keys[role] if role in keys else usual.get(name) == role)
        ]
        if not of_role:
            wanted = repr(stated[role]) if stated[role] else f"subset of {role} videos"
            found = ", ".join(map(repr, spellings))
            where = folder / description.annotations
            what = f"no video has the {role}_subset {wanted}, found {found}"
            report.problem("split", f"{where}: {what}")
        roles |= dict.fromkeys(of_role, role)
    return videos["subset"].map(roles).dropna()


def _from_files(folder: Path, splits: str, videos: pd.DataFrame, report: Report) -> pd.Series:
    """Roles by the split files; a video in both, or not annotated, is a problem."""
    paths = {role: folder / splits.replace("{subset}", role) for role in SUBSETS}
    listed = {role: _read_list(path, report) for role, path in paths.items()}
    both = set(listed["train"]) & set(listed["test"])
    for video in sorted(both):
        where = f"{paths['train']} and {paths['test']}"
        report.problem("in both splits", f"{where}: video {video}: in both, expected in one")
    roles = {video: role for role in SUBSETS for video in listed[role]}
    for role in SUBSETS:
        for video in listed[role]:
            if video not in videos.index:
                expected = "expected a video of the annotations"
                report.problem("not annotated", f"{paths[role]}: video {video}: {expected}")
    roles = {video: role for video, role in roles.items() if video in videos.index}
    usual = subset_roles(videos["subset"].unique())
    # Where its features lie does not follow from a list that contradicts the other.
    roles |= {v: usual.get(videos.loc[v, "subset"], roles[v]) for v in both & set(roles)}
    odd = [v for v, role in roles.items() if usual.get(videos.loc[v, "subset"], role) != role]
    if odd:
        report.warnings.append(
            f"{len(odd)} videos are in another split than their annotated subset suggests, "
            f"for example {odd[0]} ({roles[odd[0]]}, annotated {videos.loc[odd[0], 'subset']!r})"
        )
    return pd.Series(roles, dtype=str)


def _read_list(path: Path, report: Report) -> list[str]:
    """Names in a split file, a line each."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        report.problem("missing file", f"{path}: no such file, expected a video a line")
        return []
    except (OSError, ValueError) as error:
        report.problem("unreadable file", f"{path}: {error}, expected a video a line")
        return []
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        report.problem("split", f"{path}: found no video, expected one a line")
    if len(set(names)) < len(names):
        report.warnings.append(f"{path}: {len(names) - len(set(names))} videos are listed twice")
    return list(dict.fromkeys(names))
