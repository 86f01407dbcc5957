"""Settings of the study: one frozen, validated object per stage, and the profiles that fill them.

A profile is a set of values: ``paper`` holds the published hyper-parameters, ``quick`` (the default)
fits two CPU cores, ``smoke`` takes seconds and serves the tests. Every value can be overridden by its
dotted name, ``generation.iterations=100``.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fustal_core.simulator_settings import SimulatorSettings

Profile = Literal["smoke", "quick", "paper"]
PROFILES: tuple[str, ...] = ("smoke", "quick", "paper")

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class SettingsError(ValueError):
    """An unknown setting or a bad value; the message names it and what is allowed."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FeatureSettings(_Settings):
    """How the features of a data folder are kept."""

    memory_gb: Positive = Field(
        8.0, description="features beyond this are mapped from a file in the run directory"
    )
    dtype: Literal["auto", "float32", "float16"] = Field(
        "auto", description="auto: float16 if all files are, else float32"
    )


class GenerationSettings(_Settings):
    """FuSTAL stage 1: the cross-video contrastive generator and its proposals."""

    method: Literal["cross-video", "cola"] = Field(
        "cross-video", description="cross-video: with the cross-video contrast; cola: without it"
    )
    hidden_channels: Count = Field(2048, description="embedding channels H")
    length: Annotated[int, Field(ge=20)] = Field(750, description="snippets fed to the model, T'")
    iterations: Count = Field(6000, description="optimiser steps")
    batch_size: Count = Field(16, description="videos per step")
    learning_rate: Positive = Field(1e-4, description="Adam's learning rate")
    weight_decay: NonNegative = Field(5e-4, description="Adam's L2 weight decay")
    contrast_weight: NonNegative = Field(0.01, description="weight of L_IV + cross-video part")
    cross_video_weight: NonNegative = Field(
        0.2, description="weight of the mean over pairs of L_CV"
    )
    class_threshold: Fraction = Field(0.2, description="classes of a video: video score p >= this")
    nms_tiou: Fraction = Field(0.5, description="NMS per class keeps tIoU below this")
    legacy_plus_one: bool = Field(
        True, description="lengths taken as end - start + 1 seconds in the NMS, as the release does"
    )
    train_classes: Literal["predicted", "video labels"] = Field(
        "predicted",
        description="classes proposed for training videos: those predicted, or the known labels",
    )
    evaluate_every: int = Field(
        0, ge=0, description="iterations between evaluations on test; 0: never"
    )
    select: Literal["last", "best-on-test"] = Field(
        "last", description="which weights are kept; best-on-test looks at test labels"
    )
    checkpoint_every: Count = Field(100, description="iterations between checkpoints")

    @model_validator(mode="after")
    def _best_needs_evaluations(self) -> GenerationSettings:
        if self.select == "best-on-test" and self.evaluate_every == 0:
            raise ValueError("select=best-on-test needs evaluate_every > 0")
        return self


class SelectionSettings(_Settings):
    """FuSTAL stage 2: prior-based filtering of proposals by their IoU score."""

    iou_threshold: NonNegative = Field(0.2, description="gamma: keep proposals with s_i >= gamma")
    confidence_threshold: float = Field(
        0.4, description="eta: keep proposals with confidence > eta"
    )
    overlap: Literal["all", "class"] = Field(
        "all", description="proposals that count in s_i: all of the video, or of the same class"
    )
    reduce: Literal["sum", "top3"] = Field(
        "sum", description="s_i as sum of the tIoUs, or mean of the 3 largest"
    )
    fallback: Literal["best", "none"] = Field(
        "best", description="video without survivors: keep the best proposal per class, or none"
    )


class StudentSettings(_Settings):
    """FuSTAL stage 3: the TriDet student and its EMA distillation."""

    width: int = Field(
        512, ge=16, multiple_of=16, description="embedding channels, in 16 groups for GroupNorm"
    )
    mlp_width: Count = Field(768, description="hidden channels of the SGP block's MLP")
    levels: Annotated[int, Field(ge=1, le=6)] = Field(6, description="pyramid levels")
    stem_blocks: Annotated[int, Field(ge=0)] = Field(2, description="SGP blocks at stride 1")
    bins: Count = Field(16, description="trident bins on each side of a border")
    window_factor: Positive = Field(5, description="k of the SGP block: large window of (w+1)*k")
    drop_path: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="in branch blocks")
    init_scale: NonNegative = Field(1e-4, description="initial scale of the affine drop path")
    depthwise_std: NonNegative = Field(
        0.0, description="initial depth-wise weights of the SGP block; at 0 they stay 0"
    )
    mil_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.7, description="dropout on the logits of L_MIL"
    )
    global_mean: Literal["padded", "masked"] = Field(
        "padded", description="mean_t of the SGP block over padded length or valid positions"
    )
    max_length: Annotated[int, Field(ge=32, multiple_of=32)] = Field(
        2304, description="grid positions of a training crop"
    )
    switch_epoch: Annotated[int, Field(ge=1)] = Field(
        61, description="epochs on the given labels; then, with distillation, on EMA labels"
    )
    epochs: Count = Field(101, description="epochs in all")
    batch_size: Count = Field(8, description="videos per step")
    learning_rate: Positive = Field(1e-4, description="AdamW's learning rate after warm-up")
    warmup_epochs: NonNegative = Field(1, description="epochs of linear warm-up")
    weight_decay: NonNegative = Field(0.05, description="on convolution weights only")
    clip_norm: Positive = Field(1.0, description="gradient norm is clipped to this")
    input_noise: NonNegative = Field(5e-4, description="standard deviation of noise on features")
    crop_min: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9, description="smallest share of a video kept by the random crop"
    )
    mil_weight: NonNegative = Field(1.0, description="weight of the video-level loss L_MIL")
    mil_k: Literal["video", "batch"] = Field(
        "video", description="k of L_MIL from a video's valid positions, or from the whole batch's"
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] = Field(0.999, description="per step")
    ema_label_threshold: Fraction = Field(0.4, description="EMA labels: score above this")
    score_threshold: Fraction = Field(0.001, description="detections: sigmoid score above this")
    pre_nms_top_k: Count = Field(2000, description="candidates per level")
    max_detections: Count = Field(2000, description="detections per video")
    min_length_grid: NonNegative = Field(0.05, description="shortest detection, grid units")
    nms_sigma: Positive = Field(0.5, description="Gaussian soft-NMS")
    evaluate_every: int = Field(0, ge=0, description="epochs between evaluations on test; 0: never")
    select: Literal["last", "best-on-test"] = Field(
        "last", description="which weights are kept; best-on-test looks at test labels"
    )

    @model_validator(mode="after")
    def _consistent(self) -> StudentSettings:
        if self.switch_epoch > self.epochs:
            raise ValueError("switch_epoch must not exceed epochs")
        if self.select == "best-on-test" and self.evaluate_every == 0:
            raise ValueError("select=best-on-test needs evaluate_every > 0")
        return self


class Settings(_Settings):
    """All settings of one run."""

    data: str = Field("simulated", description="'simulated' or a data folder")
    profile: Profile = "quick"
    seed: int = Field(0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    trust_pickle: bool = False
    features: FeatureSettings = FeatureSettings()
    simulation: SimulatorSettings = SimulatorSettings()
    generation: GenerationSettings = GenerationSettings()
    selection: SelectionSettings = SelectionSettings()
    student: StudentSettings = StudentSettings()


_QUICK_STUDENT = {
    "width": 96,
    "mlp_width": 144,
    "max_length": 384,
    "global_mean": "masked",
    "switch_epoch": 12,
    "epochs": 20,
    "learning_rate": 1e-3,
    "ema_decay": 0.99,
    "pre_nms_top_k": 200,
    "max_detections": 400,
    "evaluate_every": 4,
}

_PROFILE_VALUES: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {"student": {"evaluate_every": 10}},
    "quick": {
        "generation": {
            "hidden_channels": 256,
            "length": 400,
            "iterations": 300,
            "learning_rate": 1e-3,
            "train_classes": "video labels",
        },
        "student": _QUICK_STUDENT,
    },
    "smoke": {
        "simulation": {
            "num_classes": 4,
            "train_videos": 12,
            "test_videos": 8,
            "feature_dim": 16,
            "max_video_s": 60.0,
        },
        "generation": {
            "hidden_channels": 32,
            "length": 64,
            "iterations": 20,
            "batch_size": 8,
            "learning_rate": 1e-3,
            "train_classes": "video labels",
            "checkpoint_every": 10,
        },
        "student": {
            **_QUICK_STUDENT,
            "width": 32,
            "mlp_width": 48,
            "max_length": 128,
            "switch_epoch": 2,
            "epochs": 4,
            "ema_decay": 0.9,
            "pre_nms_top_k": 50,
            "max_detections": 100,
            "evaluate_every": 1,
        },
    },
}


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
        seed: seed of everything random in the run, >= 0.
        overrides: values by dotted name, e.g. ``{"generation.iterations": 100}``; strings are
            converted to the setting's type.

    Raises:
        SettingsError: unknown profile or setting, or a bad value; names it and the allowed ones.
    """
    if profile not in PROFILES:
        raise SettingsError(f"unknown profile {profile!r}; allowed: {', '.join(PROFILES)}")
    values: dict[str, Any] = {k: dict(v) for k, v in _PROFILE_VALUES[profile].items()}
    values |= {"data": str(data), "profile": profile, "seed": seed}
    problems = []
    for name, value in (overrides or {}).items():
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
        "device": "auto, cpu or cuda",
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
    except (ValidationError, ValueError, OSError) as error:
        raise SettingsError(f"{path}: not a configuration of this version: {error}") from None


def changed_settings(old: Settings, new: Settings) -> list[str]:
    """Lines ``name: old -> new`` for every setting that differs, empty if none does."""
    before, after = _flatten(old.model_dump()), _flatten(new.model_dump())
    return [f"{k}: {before[k]!r} -> {after[k]!r}" for k in after if before.get(k) != after[k]]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
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
        lines.append(f"bad value for {name!r}: {item['msg']} (got {item['input']!r})")
    return "\n".join(lines)
