"""``dataset.yaml``: what a data folder holds, in words that a person writes.

Only ``features`` and ``annotations`` are needed, and where a released layout is recognised
(:mod:`fustal_core.layouts`) not even those; what the file says wins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fustal_core.annotations import LARGEST, SMALLEST, Report, in_short

FILE = "dataset.yaml"
STREAMS = ("rgb", "flow")
"""Two-stream features are joined along the channels in this order."""

LayoutName = Literal["cola", "acmnet", "hrpro", "actionformer", "fustal", "wtalc", "own"]


class FeatureSource(BaseModel):
    """Where features lie and how they were cut.

    folder: of the ``VIDEO.npy`` files, relative to the data folder; ``{subset}`` in it stands for
        "train" or "test", ``{stream}`` for "rgb" and "flow", which are joined.
    stride_frames, window_frames: step and length of a snippet in frames.
    fps: of the frames that these count; left out: taken per video from the annotations.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    folder: str
    stride_frames: int = Field(gt=0, le=10**6)
    window_frames: int = Field(gt=0, le=10**6)
    fps: float | None = Field(default=None, ge=SMALLEST, le=LARGEST)


def _printable(name: str) -> str:
    if not name.strip() or not name.isprintable():
        raise ValueError("expected a name that can be printed")
    return name


class Description(BaseModel):
    """What a data folder holds; paths are relative to it.

    name: left out, the folder's own.
    layout: the released layout that the rest follows; left out: recognised.
    train_subset, test_subset: spellings of the annotations; left out: the split files decide, or
        the usual meaning of the spellings found.
    splits: name of the files that list the videos, a line each; ``{subset}`` is "train" or "test".
    classes: all names that may occur; left out: those of THUMOS'14 if most are, else those found.
    outside_segments: ``keep`` accepts annotated segments beyond their video's stated duration; they
        stay in what is measured.
    origin: "simulated" marks what ``fustal simulate`` wrote, so that no table calls it real.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, AfterValidator(_printable)]
    layout: LayoutName | None = None
    annotations: str
    train_subset: str | None = None
    test_subset: str | None = None
    splits: str | None = None
    classes: list[str] | None = None
    features: FeatureSource
    student_features: FeatureSource | None = None
    points: str | None = None
    outside_segments: Literal["error", "keep"] = "error"
    origin: Literal["real", "simulated"] = "real"


def validate_description(values: dict[str, Any], path: Path, report: Report) -> Description | None:
    """The description, or ``None`` with every problem reported in the words of the file."""
    try:
        return Description.model_validate(values)
    except ValidationError as error:
        for problem in error.errors():
            report.problem("dataset.yaml", f"{path}: {_explain(problem)}")
        return None


def _explain(problem: dict) -> str:
    """One pydantic error: which key, what was found, what is expected."""
    key = ".".join(map(str, problem["loc"]))
    model = FeatureSource if len(problem["loc"]) > 1 else Description
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}, expected one of {', '.join(model.model_fields)}"
    if problem["type"] == "missing":
        return f"missing key {key!r}"
    return f"key {key!r}: {problem['msg']}, found {in_short(problem['input'])}"
