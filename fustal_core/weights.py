"""Weight files: safetensors with all that is needed to use the model elsewhere written inside.

Next to the tensors lies one line of JSON under the key ``fustal``: which model it is, its classes and
settings, the clock of the features it was trained with, and where it comes from. Nothing in such a
file can run code, and two identical runs write the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fustal_core.annotations import DataError
from fustal_core.config import GenerationSettings, StudentSettings
from fustal_core.data import Dataset
from fustal_core.features import FeatureStore
from fustal_core.files import write_bytes
from fustal_core.generator import CrossVideoGenerator
from fustal_core.student import TriDet

KEY = "fustal"
"""Where the description lies in the metadata. One key alone: safetensors orders several at random."""

WEIGHTS_FORMAT = 1
"""Of the description; a file of another one is refused."""


class Clock(BaseModel):
    """When a snippet is: step and length in frames, and the frames a second that these count.

    ``fps`` is None where the videos that the model was trained on have different ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    stride_frames: int = Field(gt=0)
    window_frames: int = Field(gt=0)
    fps: float | None = Field(gt=0, allow_inf_nan=False)

    @staticmethod
    def of(store: FeatureStore) -> Clock:
        """The clock of a store, with its ``fps`` if all videos have the same."""
        rates = set(store.fps.values())
        fps = float(rates.pop()) if len(rates) == 1 else None
        return Clock(stride_frames=store.stride_frames, window_frames=store.window_frames, fps=fps)


class Origin(BaseModel):
    """Where a model comes from.

    version: of this package. data, data_origin: name of the data set, "simulated" or "real".
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: str
    data: str
    data_origin: str
    seed: int


class _Description(BaseModel):
    """What every weight file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    in_channels: Annotated[int, Field(gt=0)]
    precision: Literal["float32", "float16"]
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    clock: Clock
    origin: Origin


class _GeneratorDescription(_Description):
    kind: Literal["generator"]
    settings: GenerationSettings


class _StudentDescription(_Description):
    kind: Literal["student"]
    settings: StudentSettings


@dataclass(frozen=True)
class LoadedModel:
    """A trained model and all that is needed to use it.

    Attributes:
        model: in eval mode, on the CPU unless moved.
        settings: of its stage.
        classes: names, in the order of its outputs.
        in_channels: D of the features it takes.
        precision: in which training kept them; new ones are rounded to it as well.
        clock: of the features it was trained with.
        origin: where it comes from.
    """

    model: CrossVideoGenerator | TriDet
    settings: GenerationSettings | StudentSettings
    classes: tuple[str, ...]
    in_channels: int
    precision: Literal["float32", "float16"]
    clock: Clock
    origin: Origin

    @property
    def kind(self) -> Literal["generator", "student"]:
        """Which of the two models it is."""
        return "generator" if isinstance(self.model, CrossVideoGenerator) else "student"


def save_model(
    path: Path,
    model: CrossVideoGenerator | TriDet,
    settings: GenerationSettings | StudentSettings,
    dataset: Dataset,
    seed: int,
) -> None:
    """Write a trained model atomically, so that :func:`load_model` needs the file alone.

    Args:
        path: file to write; its folder is made if needed.
        model: a generator or a student.
        settings: of its stage, those it was trained with.
        dataset: what it was trained on: its classes, and name, channels and clock of its features.
        seed: of the training.
    """
    is_generator = isinstance(model, CrossVideoGenerator)
    store = dataset.generator_features if is_generator else dataset.student_features
    description = (_GeneratorDescription if is_generator else _StudentDescription)(
        format=WEIGHTS_FORMAT,
        kind="generator" if is_generator else "student",
        in_channels=store.dim,
        precision=str(store.array.dtype).removeprefix("torch."),
        classes=dataset.classes,
        clock=Clock.of(store),
        origin=Origin(
            version=_package_version(),
            data=dataset.name,
            data_origin=dataset.origin,
            seed=seed,
        ),
        settings=settings,
    )
    metadata = {KEY: json.dumps(description.model_dump(mode="json"), sort_keys=True)}
    state = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    write_bytes(path, save(state, metadata))  # save_file hides a full disk behind its own error


def _package_version() -> str:
    try:
        return version("fustal-study")
    except PackageNotFoundError:  # run from its source without an installation
        return "not installed"


def load_model(path: str | Path) -> LoadedModel:
    """A model as :func:`save_model` wrote it, rebuilt from the file alone.

    A setting that the file does not have yet takes its default.

    Raises:
        DataError: no such file, not a weight file, settings of another version, or tensors that do
            not fit the settings; every problem is listed.
    """
    path = Path(path)
    metadata, state = _read(path)
    description = _describe(path, metadata)
    # Without memory and random numbers, until it is known that the tensors fit.
    with torch.device("meta"):
        model = _empty_model(description)
    problems = _misfits(state, model.state_dict())
    if problems:
        raise DataError([f"{path}: {problem}" for problem in problems])
    model = model.to_empty(device="cpu")
    model.load_state_dict(state)
    return LoadedModel(
        model.eval(),
        description.settings,
        description.classes,
        description.in_channels,
        description.precision,
        description.clock,
        description.origin,
    )


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file."""
    if not path.is_file():
        raise DataError([f"{path}: no such file, expected weights that a run saved"])
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return metadata, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError([f"{path}: not a whole safetensors file: {reason}"]) from None


def _describe(
    path: Path, metadata: Mapping[str, str]
) -> _GeneratorDescription | _StudentDescription:
    if KEY not in metadata:
        raise DataError(
            [f"{path}: no description of the model inside, expected weights that a run saved"]
        )
    try:
        content = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        raise DataError([f"{path}: the description inside is not JSON: {error}"]) from None
    kind = content.get("kind") if isinstance(content, dict) else None
    kinds = {"generator": _GeneratorDescription, "student": _StudentDescription}
    if not isinstance(kind, str) or kind not in kinds:
        raise DataError([f"{path}: kind {kind!r}, expected {' or '.join(kinds)}"])
    try:
        return kinds[kind].model_validate(content)
    except ValidationError as error:
        raise DataError([f"{path}: {_explain(item)}" for item in error.errors()]) from None


def _explain(problem: dict) -> str:
    name = ".".join(map(str, problem["loc"])) or "settings"
    if problem["type"] == "extra_forbidden":
        return f"{name} = {problem['input']!r} is unknown to this version: saved by another one?"
    if problem["type"] == "missing":
        return f"{name} is missing: saved by another version?"
    return f"{name}: {problem['msg']}, found {problem['input']!r}"


def _empty_model(
    description: _GeneratorDescription | _StudentDescription,
) -> CrossVideoGenerator | TriDet:
    channels, classes = description.in_channels, len(description.classes)
    if description.kind == "generator":
        return CrossVideoGenerator(channels, classes, description.settings.hidden_channels)
    return TriDet(channels, classes, description.settings)


def _misfits(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """What of the tensors does not fit the model of the settings, a line each."""
    lines = [f"tensor {name} is missing" for name in expected if name not in found]
    lines += [f"tensor {name} is none of the model's" for name in found if name not in expected]
    for name in expected.keys() & found.keys():
        sides = [f"{tuple(side[name].shape)} {side[name].dtype}" for side in (found, expected)]
        if sides[0] != sides[1]:
            lines.append(f"tensor {name}: found {sides[0]}, expected {sides[1]} by its settings")
    return sorted(lines)
