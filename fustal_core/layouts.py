"""The layouts in which features are released, and recognising them by what lies in a folder.

A layout is a set of defaults for ``dataset.yaml`` (:mod:`fustal_core.description`):

- ``cola``: CoLA and FuSTAL's generator, RGB and flow in folders of their own
- ``acmnet``: ACM-Net and FTCL
- ``hrpro``: HR-Pro, with point labels
- ``actionformer``: ActionFormer, TriDet and FuSTAL's student
- ``fustal``: ``cola`` for the generator and ``actionformer`` for the student, in one folder
- ``wtalc``: W-TALC's object arrays (:mod:`fustal_core.pickled`)
- ``own``: ``dataset.yaml`` says all
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fustal_core.annotations import Report, in_short
from fustal_core.description import FILE, Description, validate_description

_RELEASED = {"stride_frames": 16, "window_frames": 16, "fps": 25.0}
_DENSE = {"folder": "i3d_features", "stride_frames": 4, "window_frames": 16}
_SPLITS = "split_{subset}.txt"

LAYOUTS: dict[str, dict[str, Any]] = {
    "cola": {
        "annotations": "gt.json",
        "splits": _SPLITS,
        "features": {"folder": "features/{subset}/{stream}", **_RELEASED},
    },
    "acmnet": {
        "annotations": "gt.json",
        "splits": _SPLITS,
        "features": {"folder": "{subset}", **_RELEASED},
    },
    "hrpro": {
        "annotations": "gt_full.json",
        "splits": _SPLITS,
        "features": {"folder": "features/{subset}", **_RELEASED},
        "points": "point_labels/point_gaussian.csv",
    },
    "actionformer": {"annotations": "annotations/thumos14.json", "features": _DENSE},
    "fustal": {
        "annotations": "annotations/thumos14.json",
        "splits": _SPLITS,
        "features": {"folder": "features/{subset}/{stream}", **_RELEASED},
        "student_features": _DENSE,
    },
    "wtalc": {
        "annotations": "Thumos14reduced-Annotations",
        "features": {"folder": "Thumos14reduced-I3D-JOINTFeatures.npy", **_RELEASED},
    },
    "own": {},
}
"""Name -> defaults of dataset.yaml."""

_SIGNS: dict[str, tuple[str, ...]] = {
    "cola": ("features/train/rgb", "features/test/rgb", "features/train/flow"),
    "acmnet": ("train/*.npy", "test/*.npy"),
    "hrpro": ("features/train/*.npy", "features/test/*.npy"),
    "actionformer": ("i3d_features",),
    "wtalc": ("*-I3D-JOINTFeatures.npy",),
}
"""Name -> patterns, one of which must be there."""


def recognise(folder: Path) -> dict[str, str]:
    """Layouts whose signs lie in a folder, each with the path that gave it away.

    The student's layout beside CoLA's is what FuSTAL needs: the two become ``fustal``.
    """
    found = {}
    for name, signs in _SIGNS.items():
        for sign in signs:
            visible = (path for path in folder.glob(sign) if not path.name.startswith("."))
            first = min(visible, default=None)
            if first is not None:
                found[name] = str(first.relative_to(folder))
                break
    if "cola" in found:
        found.pop("hrpro", None)  # a stray file beside the folders of streams
    if set(found) == {"cola", "actionformer"}:
        return {"fustal": f"{found['cola']} and {found['actionformer']}"}
    return found


def describe(folder: Path, report: Report) -> Description | None:
    """What a folder holds, by its ``dataset.yaml`` and by recognition; the report says why."""
    from fustal_core.description_file import read_yaml  # a trained model needs no YAML

    path = folder / FILE
    before = len(report.problems)
    stated = read_yaml(path, report)
    if len(report.problems) > before:
        return None
    layout = _layout(folder, stated, report)
    if layout is None:
        return None
    if stated:
        report.found.append(f"{FILE} states: {', '.join(stated)}")
    defaults = dict(LAYOUTS[layout])
    if stated.keys() & {"train_subset", "test_subset"}:
        defaults.pop("splits", None)
    elif "splits" in defaults and "splits" not in stated and not _has_splits(folder, defaults):
        del defaults["splits"]
        report.warnings.append("no split files: the annotations' subsets decide")
    if "points" in defaults and not (folder / defaults["points"]).is_file():
        report.warnings.append(f"no {defaults['points']}: no point labels")
        del defaults["points"]
    values = {"name": folder.resolve().name, **defaults, **stated, "layout": layout}
    if layout == "wtalc":
        values |= _wtalc_names(folder, stated)
    for key in ("features", "student_features"):
        if isinstance(stated.get(key), dict):
            values[key] = {**defaults.get(key, {}), **stated[key]}
    return validate_description(values, path, report)


def _layout(folder: Path, stated: dict[str, Any], report: Report) -> str | None:
    """The layout's name; the report says why it is that, or why there is none."""
    if "layout" in stated:
        name = stated["layout"]
        if isinstance(name, str) and name in LAYOUTS:
            report.found.append(f"layout {name}: named in {FILE}")
            return name
        expected = f"expected one of {', '.join(LAYOUTS)}"
        report.problem("dataset.yaml", f"{folder / FILE}: layout {in_short(name)}, {expected}")
        return None
    if {"features", "annotations"} <= set(stated):
        report.found.append(f"layout own: {FILE} states features and annotations")
        _warn_of_unread(folder, stated, report)
        return "own"
    found = recognise(folder)
    if len(found) == 1:
        ((name, sign),) = found.items()
        report.found.append(f"layout {name}: recognised by {sign}")
        return name
    if found:
        signs = "; ".join(f"{name} by {sign}" for name, sign in found.items())
        report.problem(
            "layout",
            f"{folder}: found several layouts ({signs}), expected one: name it in {FILE}, for "
            f"example 'layout: {next(iter(found))}'",
        )
    elif stated:
        validate_description({"name": "", **stated}, folder / FILE, report)
    else:
        signs = "; ".join(f"{name}: {' or '.join(signs)}" for name, signs in _SIGNS.items())
        report.problem(
            "layout",
            f"{folder}: no {FILE} and no layout recognised, expected one of these ({signs})",
        )
    return None


def _warn_of_unread(folder: Path, stated: dict[str, Any], report: Report) -> None:
    """Files of a released layout that a description which states the rest does not name."""
    says_splits = bool(stated.keys() & {"splits", "train_subset", "test_subset"})
    for name in recognise(folder):
        defaults, unread = LAYOUTS[name], []
        if "splits" in defaults and not says_splits and _has_splits(folder, defaults):
            unread.append("splits")
        if "points" in defaults.keys() - stated and (folder / defaults["points"]).is_file():
            unread.append("points")
        report.warnings += [
            f"{defaults[key]}: not read, since {FILE} does not name it: state '{key}', or "
            f"'layout: {name}'"
            for key in unread
        ]


def _has_splits(folder: Path, defaults: dict[str, Any]) -> bool:
    """Whether one of the split files is there: of two, a missing one is then a problem."""
    names = [defaults["splits"].replace("{subset}", role) for role in ("train", "test")]
    return any((folder / name).is_file() for name in names)


def _wtalc_names(folder: Path, stated: dict[str, Any]) -> dict[str, Any]:
    """W-TALC's files are named after the data set: the ones that are there, if none are stated."""
    names: dict[str, Any] = {}
    array = min(folder.glob("*-I3D-JOINTFeatures.npy"), default=None)
    labels = min(folder.glob("*/videoname.npy"), default=None)
    if array is not None and "features" not in stated:
        names["features"] = {**LAYOUTS["wtalc"]["features"], "folder": array.name}
    if labels is not None and "annotations" not in stated:
        names["annotations"] = labels.parent.name
    return names
