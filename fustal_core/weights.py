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

from fustal_core.acmnet import ACMNet
from fustal_core.annotations import LARGEST, SMALLEST, DataError
from fustal_core.data import Dataset
from fustal_core.features import FeatureStore
from fustal_core.files import write_bytes
from fustal_core.ftcl import FTCL, build_ftcl
from fustal_core.generator import CrossVideoGenerator
from fustal_core.hrpro import HRPro
from fustal_core.hrpro_inference import HRProDetector
from fustal_core.stage_settings import (
    ACMNetSettings,
    Count,
    FTCLSettings,
    GenerationSettings,
    GeneratorSettings,
    HRProInstanceSettings,
    HRProSettings,
    StudentSettings,
)
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

    stride_frames: int = Field(gt=0, le=int(LARGEST))
    window_frames: int = Field(gt=0, le=int(LARGEST))
    fps: float | None = Field(ge=SMALLEST, le=LARGEST)

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
    """What every weight file says; each kind adds its ``kind`` and ``settings``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    in_channels: Count
    precision: Literal["float32", "float16"]
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    clock: Clock
    origin: Origin


class _GeneratorDescription(_Description):
    kind: Literal["generator"]
    settings: GenerationSettings


class _ACMNetDescription(_Description):
    kind: Literal["acm-net"]
    settings: ACMNetSettings


class _FTCLDescription(_Description):
    kind: Literal["ftcl"]
    settings: ACMNetSettings
    ftcl: FTCLSettings


class _HRProSnippetDescription(_Description):
    kind: Literal["hr-pro-snippet"]
    settings: HRProSettings


class _HRProDescription(_Description):
    kind: Literal["hr-pro"]
    settings: HRProSettings
    instance: HRProInstanceSettings


class _StudentDescription(_Description):
    kind: Literal["student"]
    settings: StudentSettings


_DESCRIPTIONS: dict[str, type[_Description]] = {
    "generator": _GeneratorDescription,
    "acm-net": _ACMNetDescription,
    "ftcl": _FTCLDescription,
    "hr-pro-snippet": _HRProSnippetDescription,
    "hr-pro": _HRProDescription,
    "student": _StudentDescription,
}
GeneratorModel = CrossVideoGenerator | ACMNet | FTCL | HRPro | HRProDetector
_KINDS: dict[type[GeneratorModel | TriDet], str] = {
    CrossVideoGenerator: "generator",
    ACMNet: "acm-net",
    FTCL: "ftcl",
    HRPro: "hr-pro-snippet",
    HRProDetector: "hr-pro",
    TriDet: "student",
}


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

    model: GeneratorModel | TriDet
    settings: GeneratorSettings | StudentSettings
    classes: tuple[str, ...]
    in_channels: int
    precision: Literal["float32", "float16"]
    clock: Clock
    origin: Origin

    @property
    def kind(self) -> str:
        """Which model it is: "generator" (FuSTAL's and CoLA's), another generator's, or "student"."""
        return _KINDS[type(self.model)]


def save_model(
    path: Path,
    model: GeneratorModel | TriDet,
    settings: GeneratorSettings | StudentSettings,
    dataset: Dataset,
    seed: int,
    later: FTCLSettings | HRProInstanceSettings | None = None,
) -> None:
    """Write a trained model atomically, so that :func:`load_model` needs the file alone.

    Args:
        path: file to write; its folder is made if needed.
        model: of any kind.
        settings: of its stage, those it was trained with.
        dataset: what it was trained on: its classes, and name, channels and clock of its features.
        seed: of the training.
        later: of FTCL and HR-Pro, the settings of what comes after their first training.
    """
    kind = _KINDS[type(model)]
    store = dataset.student_features if kind == "student" else dataset.generator_features
    names = {FTCLSettings: "ftcl", HRProInstanceSettings: "instance"}
    extra = {names[type(later)]: later} if later is not None else {}
    description = _DESCRIPTIONS[kind](
        format=WEIGHTS_FORMAT,
        kind=kind,
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
        **extra,
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
    try:
        with torch.device("meta"):
            model = _empty_model(description)
    except (RuntimeError, TypeError, ValueError, OverflowError, MemoryError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError([f"{path}: no model can have its sizes: {reason}"]) from None
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


def _describe(path: Path, metadata: Mapping[str, str]) -> _Description:
    if KEY not in metadata:
        raise DataError(
            [f"{path}: no description of the model inside, expected weights that a run saved"]
        )
    try:
        content = json.loads(metadata[KEY])
        json.dumps(content, ensure_ascii=False).encode()  # an escape may be half a character
    except (ValueError, RecursionError) as error:
        raise DataError([f"{path}: the description inside is not JSON: {error}"]) from None
    kind = content.get("kind") if isinstance(content, dict) else None
    if not isinstance(kind, str) or kind not in _DESCRIPTIONS:
        raise DataError([f"{path}: kind {kind!r}, expected {' or '.join(_DESCRIPTIONS)}"])
    try:
        return _DESCRIPTIONS[kind].model_validate(content)
    except ValidationError as error:
        raise DataError([f"{path}: {_explain(item)}" for item in error.errors()]) from None


def _explain(problem: dict) -> str:
    name = ".".join(map(str, problem["loc"])) or "settings"
    if problem["type"] == "extra_forbidden":
        return f"{name} = {problem['input']!r} is unknown to this version: saved by another one?"
    if problem["type"] == "missing":
        return f"{name} is missing: saved by another version?"
    return f"{name}: {problem['msg']}, found {problem['input']!r}"


def _empty_model(description: _Description) -> GeneratorModel | TriDet:
    sizes = description.in_channels, len(description.classes)
    match description:
        case _GeneratorDescription():
            return CrossVideoGenerator(*sizes, description.settings.hidden_channels)
        case _ACMNetDescription():
            return ACMNet(*sizes, description.settings)
        case _FTCLDescription():
            return build_ftcl(*sizes, description.settings, description.ftcl)
        case _HRProSnippetDescription():
            return HRPro(*sizes, description.settings)
        case _HRProDescription():
            snippet = HRPro(*sizes, description.settings)
            return HRProDetector(snippet, description.instance.extension)
        case _StudentDescription():
            return TriDet(*sizes, description.settings)


def _misfits(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """What of the tensors does not fit the model of the settings, a line each."""
    lines = [f"tensor {name} is missing" for name in expected if name not in found]
    lines += [f"tensor {name} is none of the model's" for name in found if name not in expected]
    for name in expected.keys() & found.keys():
        sides = [f"{tuple(side[name].shape)} {side[name].dtype}" for side in (found, expected)]
        if sides[0] != sides[1]:
            lines.append(f"tensor {name}: found {sides[0]}, expected {sides[1]} by its settings")
        elif not found[name].isfinite().all():
            lines.append(f"tensor {name}: NaN or Inf, expected finite numbers")
    return sorted(lines)
