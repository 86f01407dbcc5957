"""``dataset.yaml``: what a data folder holds, in words that a person writes.

Only ``features`` and ``annotations`` are needed, and where a released layout is recognised
(:mod:`fustal_core.layouts`) not even those; what the file says wins.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from reprlib import Repr
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fustal_core.annotations import LARGEST, SMALLEST, Report, some_quoted

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

    name: str
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


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice, of which YAML's own loader silently takes the last.

    Merging of mappings (``<<``) is left out: a few lines of it can make more than memory holds.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        counts = Counter(k.value for k, _ in node.value if isinstance(k, yaml.ScalarNode))
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            problem = f"{some_quoted(twice)} written twice, expected once"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        value = super().construct_scalar(node)
        value.encode()  # a ValueError where an escape is half a character
        return value


def read_yaml(path: Path, report: Report) -> dict[str, Any]:
    """The keys of a ``dataset.yaml``, empty if there is no such file; what is wrong is reported."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        return {}
    except Exception as error:  # a strange file makes the loader fail in a dozen ways
        report.problem("dataset.yaml", f"{path}: not readable YAML: {' '.join(str(error).split())}")
        return {}
    odd = [key for key in content if not isinstance(key, str)] if isinstance(content, dict) else []
    if odd:
        report.problem("dataset.yaml", f"{path}: key {in_short(odd[0])}, expected a name")
        return {}
    if not isinstance(content, dict):
        found, keys = type(content).__name__, ", ".join(Description.model_fields)
        report.problem("dataset.yaml", f"{path}: found {found}, expected keys {keys}")
        return {}
    return content


def validate_description(values: dict[str, Any], path: Path, report: Report) -> Description | None:
    """The description, or ``None`` with every problem reported in the words of the file."""
    try:
        return Description.model_validate(values)
    except ValidationError as error:
        for problem in error.errors():
            report.problem("dataset.yaml", f"{path}: {_explain(problem)}")
        return None


def in_short(value: object) -> str:
    """What was found, in a line that stays short however large or deep it is."""
    short = Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 200, 200
    return short.repr(value)


def _explain(problem: dict) -> str:
    """One pydantic error: which key, what was found, what is expected."""
    key = ".".join(map(str, problem["loc"]))
    model = FeatureSource if len(problem["loc"]) > 1 else Description
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}, expected one of {', '.join(model.model_fields)}"
    if problem["type"] == "missing":
        return f"missing key {key!r}"
    return f"key {key!r}: {problem['msg']}, found {in_short(problem['input'])}"
