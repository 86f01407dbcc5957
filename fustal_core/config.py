"""Settings of a run: those of every stage (`fustal_core.stage_settings`), from a profile and overrides.

Defaults are the published hyper-parameters; :mod:`fustal_core.profiles` says what each profile changes.
Every value can be overridden by its dotted name, ``generation.iterations=100``.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from fustal_core.profiles import CONSTANT_VALUES, PROFILE_VALUES
from fustal_core.simulator_settings import SimulatorSettings
from fustal_core.stage_settings import (
    AblationSettings,
    ACMNetSettings,
    AnalysisSettings,
    Constants,
    EvaluationSettings,
    FeatureSettings,
    FrozenSettings,
    FTCLSettings,
    GenerationSettings,
    HRProInstanceSettings,
    HRProSettings,
    Precision,
    Seed,
    SelectionSettings,
    StudentSettings,
)

Profile = Literal["smoke", "quick", "paper"]
PROFILES: tuple[str, ...] = ("smoke", "quick", "paper")


class SettingsError(ValueError):
    """An unknown setting or a bad value; the message names it and what is allowed."""


class Settings(FrozenSettings):
    """All settings of one run."""

    data: str = Field("simulated", description="'simulated' or a data folder")
    profile: Profile = "quick"
    seed: Seed = 0
    constants: Constants = "thumos14"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "float32"
    trust_pickle: bool = False
    features: FeatureSettings = FeatureSettings()
    simulation: SimulatorSettings = SimulatorSettings()
    generation: GenerationSettings = GenerationSettings()
    acm_net: ACMNetSettings = ACMNetSettings()
    ftcl: FTCLSettings = FTCLSettings()
    hr_pro: HRProSettings = HRProSettings()
    hr_pro_instance: HRProInstanceSettings = HRProInstanceSettings()
    selection: SelectionSettings = SelectionSettings()
    student: StudentSettings = StudentSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    ablation: AblationSettings = AblationSettings()
    analysis: AnalysisSettings = AnalysisSettings()


def make_settings(
    data: str = "simulated",
    profile: str = "quick",
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings of a profile with overrides applied.

    Args:
        data: ``"simulated"`` or the path of a data folder.
        profile: one of ``smoke``, ``quick``, ``paper``.
        seed: seed of everything random in the run, 0 to 2**62.
        overrides: values by dotted name, e.g. ``{"generation.iterations": 100}``; strings are
            converted to the setting's type.

    Raises:
        SettingsError: unknown profile or setting, or a bad value; names it and the allowed ones.
    """
    if profile not in PROFILES:
        raise SettingsError(f"unknown profile {profile!r}; allowed: {', '.join(PROFILES)}")
    overrides = overrides or {}
    values: dict[str, Any] = {k: dict(v) for k, v in PROFILE_VALUES[profile].items()}
    values |= {"data": str(data), "profile": profile, "seed": seed}
    # The data set's own constants come after the profile's sizes: they say what fits the data.
    for section, constants in CONSTANT_VALUES.get(
        str(overrides.get("constants", "thumos14")), {}
    ).items():
        values[section] = values.get(section, {}) | constants
    return _with_values(values, overrides)


def override(
    settings: Settings,
    overrides: Mapping[str, Any],
    seed: int | None = None,
    *,
    other_data: bool = False,
) -> Settings:
    """Settings with single values replaced.

    Args:
        settings: of a run.
        overrides: by dotted name as in :func:`make_settings`.
        seed: another one; None: the same.
        other_data: whether what makes simulated data may be replaced.

    Raises:
        SettingsError: unknown setting, or a bad value; names it and the allowed ones. Settings that
            make the data, and ``constants``, which only fill a new run's settings.
    """
    refused = set(_OF_THE_DATA) - ({"simulation"} if other_data else set())
    fixed = [name for name in overrides if name.partition(".")[0] in refused]
    if fixed:
        raise SettingsError(f"{', '.join(fixed)}: cannot be changed for the same data")
    same = {} if seed is None else {"seed": seed}
    return _with_values(settings.model_dump() | same, overrides)


_OF_THE_DATA = ("constants", "simulation", "features", "trust_pickle")


def _with_values(values: dict[str, Any], overrides: Mapping[str, Any]) -> Settings:
    problems = []
    for name, value in overrides.items():
        problem = _unknown_setting(name)
        if problem:
            problems.append(problem)
            continue
        section, _, field = name.rpartition(".")
        target = values.setdefault(section, {}) if section else values
        target[field] = value
    if problems:
        raise SettingsError("\n".join(problems))
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def parse_overrides(assignments: Iterable[str]) -> dict[str, str]:
    """``["generation.iterations=100"]`` to ``{"generation.iterations": "100"}``.

    Raises:
        SettingsError: an assignment without ``=``.
    """
    overrides = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise SettingsError(f"--set expects NAME=VALUE, got {assignment!r}")
        overrides[name.strip()] = value.strip()
    return overrides


def setting_names() -> dict[str, str]:
    """Every setting that can be overridden, by dotted name, with its description."""
    names = {
        "constants": "thumos14, activitynet13 or salads50: the data whose constants the methods, the "
        "evaluation and, for ActivityNet, simulated data take",
        "device": "auto, cpu or cuda",
        "precision": "float32, tf32 or bfloat16: of the products of matrices in training",
        "trust_pickle": "load object arrays of a data folder, which can run code",
    }
    for section, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for name, inner in field.annotation.model_fields.items():
                names[f"{section}.{name}"] = inner.description or ""
    return names


def read_settings(path: Path) -> Settings:
    """Settings stored by a run in its ``config.json``.

    Raises:
        SettingsError: the file is not a configuration this version can read.
    """
    try:
        return Settings.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (ValidationError, ValueError, RecursionError, OSError) as error:
        raise SettingsError(f"{path}: not a configuration of this version: {error}") from None


def changed_settings(old: Settings, new: Settings) -> list[str]:
    """Lines ``name: old -> new`` for every setting that differs, empty if none does."""
    before, after = flatten(old.model_dump()), flatten(new.model_dump())
    return [f"{k}: {before[k]!r} -> {after[k]!r}" for k in after if before.get(k) != after[k]]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, their names joined by dots after the prefix."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _unknown_setting(name: str) -> str | None:
    known = setting_names()
    if name in known:
        return None
    if name in ("data", "profile", "seed"):
        return f"{name!r} is an option of its own, not a setting: use --{name}"
    section = name.rpartition(".")[0]
    # All names of a section are somewhat alike.
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.8 if section else 0.6)
    allowed = close or [k for k in known if k.startswith(f"{section}.")] or list(known)
    return (
        f"unknown setting {name!r}; {'did you mean' if close else 'allowed'}: {', '.join(allowed)}"
    )


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        lines.append(f"bad value for {name!r}: {item['msg']} (got {item['input']!r:.200})")
    return "\n".join(lines)
