"""Settings of each stage and method: a frozen, validated object each, with the published values.

:mod:`fustal_core.config` puts them together from a profile and overrides.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fustal_core.simulator_settings import STRENGTHS

Fraction = Annotated[float, Field(ge=0, le=1)]
TIoU = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Method = Literal["cross-video", "cola", "acm-net", "ftcl", "hr-pro-snippet", "hr-pro"]
"""The generators of the study."""
PointSource = Literal["auto", "given", "gaussian", "uniform", "centre", "start"]
"""Where point labels come from: the data, or a place in each true segment."""
Precision = Literal["float32", "tf32", "bfloat16"]
"""Of products of matrices in training, see :mod:`fustal_core.precision`."""
Constants = Literal["thumos14", "activitynet13", "salads50"]
"""Data sets that have constants of their own."""


def _spread(low: float, step: float, high: float) -> tuple[float, ...]:
    """``low``, ``low + step`` .. ``high``, both included, without the noise of binary fractions.

    Raises:
        ValueError: steps that do not end at ``high``, or more than a thousand.
    """
    count = (high - low) / step
    if abs(count - round(count)) > 1e-6 or not 0 <= count <= 1000:
        raise ValueError
    return tuple(round(low + step * i, 10) for i in range(round(count) + 1))


def _read_thresholds(value: Any) -> Any:
    """``"0.15:0.05:0.95"`` or ``"0.15, 0.2"``, as a command line has them, to numbers."""
    if not isinstance(value, str):
        return value
    is_range = ":" in value
    try:
        numbers = [float(x) for x in value.strip("[]() ").split(":" if is_range else ",")]
        return _spread(*numbers) if is_range else numbers
    except (ValueError, TypeError, ArithmeticError):
        raise ValueError("expected numbers as in 0.15,0.2 or LOW:STEP:HIGH") from None


def read_seeds(value: Any) -> Any:
    """``"0:3"`` to [0, 1, 2], ``"0,3"`` to [0, 3]; what is no text stays.

    Raises:
        ValueError: neither of these.
    """
    if not isinstance(value, str):
        return value
    try:
        if ":" in value:
            first, end = map(int, value.split(":"))
            return list(range(first, min(end, first + MOST_SEEDS + 1)))
        return [int(part) for part in value.strip("[]() ").split(",")]
    except ValueError:
        raise ValueError("expected FIRST:END, or whole numbers as in 0,3,4") from None


def _not_one(channels: int) -> int:
    if channels == 1:  # HR-Pro's second stage halves them
        raise ValueError("expected 0, or 2 and more")
    return channels


def _all_different(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("expected different seeds")
    return seeds


def refuse_unknown(names: Collection[str], known: Collection[str]) -> None:
    """Check names of which "all" stands for all.

    Raises:
        ValueError: unknown names, with the known ones.
    """
    unknown = [name for name in names if name not in (*known, "all")]
    if unknown:
        raise ValueError(f"unknown {', '.join(map(repr, unknown))}; known: all, {', '.join(known)}")


def _only(known: Collection[str]) -> AfterValidator:
    def checked(names: tuple[str, ...]) -> tuple[str, ...]:
        refuse_unknown(names, known)
        return names

    return AfterValidator(checked)


def _read_names(value: Any) -> Any:
    """``"a, b"``, as a command line has it, to names."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return value


MOST_SEEDS = 1000
# Studies count on from a run's seed, and torch takes less than 2**63.
Seed = Annotated[int, Field(ge=0, le=2**62)]
Seeds = Annotated[
    tuple[Seed, ...],
    Field(min_length=1, max_length=MOST_SEEDS),
    BeforeValidator(read_seeds),
    AfterValidator(_all_different),
]
Thresholds = Annotated[tuple[Fraction, ...], Field(min_length=1), BeforeValidator(_read_thresholds)]


class FrozenSettings(BaseModel):
    """Validated when made, and never changed; an unknown name is an error."""

    # Defaults are converted as well: 5 and 5.0 would be two settings to a hash of them.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )


class FeatureSettings(FrozenSettings):
    """How the features of a data folder are kept."""

    memory_gb: Positive = Field(
        8.0, description="features beyond this are mapped from a file in the run directory"
    )
    dtype: Literal["auto", "float32", "float16"] = Field(
        "auto", description="auto: float16 if all files are, else float32"
    )


class TrainingSettings(FrozenSettings):
    """What the trainings of all generators share."""

    batch_size: Count = Field(16, description="videos per step")
    learning_rate: Positive = Field(1e-4, description="Adam's learning rate")
    weight_decay: NonNegative = Field(5e-4, description="Adam's L2 weight decay")
    evaluate_every: int = Field(
        0, ge=0, description="iterations between evaluations on test; 0: never"
    )
    select: Literal["last", "best-on-test"] = Field(
        "last", description="which weights are kept; best-on-test looks at test labels"
    )
    checkpoint_every: Count = Field(100, description="iterations between checkpoints")

    @model_validator(mode="after")
    def _best_needs_evaluations(self) -> Self:
        if self.select == "best-on-test" and self.evaluate_every == 0:
            raise ValueError("select=best-on-test needs evaluate_every > 0")
        return self


class GeneratorSettings(TrainingSettings):
    """What all generators share: their training, and how proposals are cut."""

    iterations: Count = Field(6000, description="optimiser steps")
    class_threshold: Fraction = Field(0.2, description="classes of a video: video score p >= this")
    nms_tiou: Fraction = Field(0.5, description="NMS per class keeps tIoU below this")
    legacy_plus_one: bool = Field(
        True, description="lengths taken as end - start + 1 seconds in the NMS, as releases do"
    )
    train_classes: Literal["predicted", "video labels"] = Field(
        "predicted",
        description="classes proposed for training videos: those predicted, or the known labels",
    )


class SampledGeneratorSettings(GeneratorSettings):
    """What the generators share that see a fixed number of snippets of a video."""

    hidden_channels: Count = Field(2048, description="embedding channels H")
    length: Annotated[int, Field(ge=20, le=10**9)] = Field(
        750, description="snippets fed to the model, T'"
    )


class GenerationSettings(SampledGeneratorSettings):
    """FuSTAL stage 1: whose proposals go on, and the cross-video contrastive generator."""

    method: Method = Field(
        "cross-video",
        description="whose proposals go on: cross-video (FuSTAL's), cola (without the cross-video "
        "term), acm-net, ftcl, hr-pro-snippet, hr-pro (with points); all but the first two have "
        "settings of their own",
    )
    contrast_weight: NonNegative = Field(0.01, description="weight of L_IV + cross-video part")
    cross_video_weight: NonNegative = Field(
        0.2, description="weight of the mean over pairs of L_CV"
    )
    cross_video_pairs: int = Field(
        0, ge=0, le=10**9, description="pairs of a batch in L_CV at most, the first ones; 0: all"
    )


class ACMNetSettings(SampledGeneratorSettings):
    """ACM-Net: three-branch attention. FTCL has the same network and localises in the same way."""

    iterations: Count = Field(6500, description="optimiser steps (500 epochs of 13 on THUMOS'14)")
    weight_decay: NonNegative = Field(5e-5, description="Adam's L2 weight decay")
    instance_share: Count = Field(8, description="k of the instance branch: floor(T / this)")
    context_share: Count = Field(3, description="k of the context branch")
    background_share: Count = Field(3, description="k of the background branch")
    instance_weight: NonNegative = Field(1.0, description="weight of the instance term of L_cls")
    guide_weight: NonNegative = Field(2e-3, description="weight of the guide loss")
    norm_weight: NonNegative = Field(5e-5, description="weight of the feature norm loss")
    norm_margin: NonNegative = Field(50.0, description="margin between the branches' norms")
    sparsity_weight: NonNegative = Field(2e-4, description="weight of the sparsity loss")
    class_threshold: Fraction = Field(0.25, description="classes of a video: video score > this")
    cas_thresholds: Thresholds = Field(
        (0.15, 0.2), description="cuts of a class's T-CAS: numbers, or LOW:STEP:HIGH"
    )
    attention_thresholds: Thresholds = Field(
        _spread(0.15, 0.05, 0.95), description="cuts of the instance attention"
    )
    min_max: bool = Field(
        False,
        description="cut curves scaled to [0, 1] over the video, as CoLA does, not as they are",
    )
    nms_tiou: Fraction = Field(0.55, description="NMS per class keeps tIoU below this")


class FTCLSettings(TrainingSettings):
    """FTCL: what comes on top of a trained ACM-Net."""

    epochs: Count = Field(25, description="passes over the pairs of videos")
    batch_size: Count = Field(16, description="pairs of videos per step")
    pairs_per_epoch: int = Field(
        0, ge=0, description="positive pairs a pass takes at random, as many negative; 0: all"
    )
    weight_decay: NonNegative = Field(5e-5, description="Adam's L2 weight decay")
    lcs_weight: NonNegative = Field(0.1, description="weight of L_LCS; 0: without it")
    fsd_weight: NonNegative = Field(0.8, description="weight of L_FSD; 0: without it")
    lcs_snippets: Count = Field(30, description="candidates of the LCS")
    lcs_threshold: Fraction = Field(0.92, description="snippets match above this cosine")
    fsd_snippets: Count = Field(5, description="candidates of the FSD, action and background each")
    fsd_channels: Annotated[int, Field(ge=2, multiple_of=2)] = Field(
        1024, description="channels of FSD candidates: half for the match, half for the gap"
    )
    fsd_gamma: Positive = Field(0.1, description="smoothness of the FSD's maximum")
    evaluate_every: int = Field(0, ge=0, description="epochs between evaluations on test; 0: never")


class HRProSettings(GeneratorSettings):
    """HR-Pro, stage 1: snippets, from one labelled point per action; whole videos are fed."""

    points: PointSource = Field(
        "auto",
        description="point labels: those given with the data, or drawn from the true segments of the "
        "training videos; auto: given if there are any, else gaussian",
    )
    projected_channels: Annotated[int, AfterValidator(_not_one)] = Field(
        0,
        ge=0,
        description="features standardised, projected at random to so many channels, and rectified; "
        "0: taken as they are",
    )
    iterations: Count = Field(1000, description="optimiser steps")
    action_threshold: Fraction = Field(
        0.1, description="a point spreads over snippets of a background score up to this"
    )
    background_threshold: Fraction = Field(
        0.95, description="background seeds: background score of at least this"
    )
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1,
        description="of the attention's weights; at 0 torch's fast attention serves CPUs as well",
    )
    memory_momentum: Fraction = Field(
        0.001, description="share of a video's own prototype in the memory's update"
    )
    video_weight: NonNegative = Field(0.0, description="weight of the video loss")
    frame_weight: NonNegative = Field(0.5, description="weight of the loss at the points")
    background_weight: NonNegative = Field(
        1.0, description="weight of the loss at background seeds"
    )
    contrast_weight: NonNegative = Field(1.0, description="weight of the contrast with prototypes")
    class_threshold: Fraction = Field(0.5, description="classes of a video: video score >= this")
    cas_thresholds: Thresholds = Field(
        _spread(0.0, 0.025, 0.225), description="cuts of a class's T-CAS: numbers, or LOW:STEP:HIGH"
    )
    action_thresholds: Thresholds = Field(
        _spread(0.5, 0.025, 0.7), description="cuts of 1 - background score"
    )
    nms_sigma: Positive = Field(0.3, description="Gaussian soft-NMS per class of detections")
    nms_tiou: Fraction = Field(
        0.5, description="NMS per class of the proposals that selection is given"
    )

    @property
    def length(self) -> int:
        """Snippets fed to the model at most: as many as a video has."""
        return sys.maxsize


class HRProInstanceSettings(TrainingSettings):
    """HR-Pro, stage 2: how complete a proposal is, and where it really ends."""

    epochs: Count = Field(20, description="passes over the training videos")
    batch_size: Count = Field(10, description="videos per step")
    learning_rate: Positive = Field(5e-5, description="Adam's learning rate")
    max_proposals: Count = Field(1000, description="proposals of a video in a training step")
    extension: NonNegative = Field(
        0.25, description="a proposal is pooled with so much of its length on both sides"
    )
    positive_tiou: Fraction = Field(
        0.3, description="proposals with this tIoU with a reliable one are refined towards it"
    )
    evaluate_every: int = Field(0, ge=0, description="epochs between evaluations on test; 0: never")


class EvaluationSettings(FrozenSettings):
    """What of the test videos is not measured, and at which tIoU they are measured besides."""

    exclude: Annotated[tuple[str, ...], BeforeValidator(_read_names)] = Field(
        (), description="test videos that are left out, separated by commas"
    )
    ambiguous: str = Field(
        "",
        description="file of ambiguous intervals (video, start, end in s); what touches one is out",
    )
    further_tiou: Annotated[tuple[TIoU, ...], BeforeValidator(_read_thresholds)] = Field(
        (),
        description="tIoU thresholds measured besides THUMOS'14's 0.1:0.7, with their average: "
        "numbers, or LOW:STEP:HIGH; ActivityNet's are 0.5:0.05:0.95",
    )


GROUPS: dict[str, str] = {
    "stages": "every stage on and off",
    "gamma": "threshold of the IoU score, selection.iou_threshold",
    "eta": "threshold of the confidence, selection.confidence_threshold",
    "contrast weight": "weight of the cross-video term, generation.cross_video_weight",
    "pairs": "pairs of a batch in the cross-video term, generation.cross_video_pairs",
    "EMA decay": "student.ema_decay",
    "switch epoch": "epoch from which EMA labels take over, student.switch_epoch",
    "EMA threshold": "threshold of EMA labels, student.ema_label_threshold",
    "legacy + 1": "lengths in the generator's NMS as end - start + 1, generation.legacy_plus_one",
    "IoU-score overlap": "proposals that count in the IoU score, selection.overlap",
    "IoU-score reduction": "sum of the tIoUs, or mean of the three largest, selection.reduce",
    "fallback": "videos in which nothing is selected, selection.fallback",
    "k of the video loss": "student.mil_k",
    "checkpoint": "the last weights, or the best on test (generation.select, student.select)",
}
"""Groups of the ablation's cells (see grid.py), and what each varies."""


class AblationSettings(FrozenSettings):
    """What of the grid of settings is tried, with which seeds."""

    groups: Annotated[
        tuple[str, ...], Field(min_length=1), BeforeValidator(_read_names), _only(GROUPS)
    ] = Field(("stages",), description="groups of cells, separated by commas (see grid.py), or all")
    seeds: Seeds = Field(
        (0, 1, 2), description="FIRST:END, the end left out, or a list as in 0,3,4"
    )
    resamples: Count = Field(400, description="draws of test videos for the intervals")


class AnalysisSettings(FrozenSettings):
    """How far those notebooks go that train again: with more seeds, on easier and harder data."""

    term_seeds: int = Field(
        3, ge=2, description="how many seeds FTCL and its terms are trained with"
    )
    difficulties: Annotated[
        tuple[str, ...],
        Field(min_length=1),
        BeforeValidator(_read_names),
        _only(STRENGTHS),
    ] = Field(
        (
            "video_shift",
            "instance_spread",
            "incompleteness",
            "border_ambiguity",
            "scene_strength",
            "distractor_rate",
        ),
        description="strengths of the simulator that are turned down and up, one at a time, "
        "separated by commas, or all",
    )
    difficulty_seeds: Seeds = Field(
        (0, 1), description="of easier and harder data and its trainings"
    )
    difficulty_students: bool = Field(
        False, description="train students there too, not only generators"
    )


class SelectionSettings(FrozenSettings):
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


class StudentSettings(FrozenSettings):
    """FuSTAL stage 3: the TriDet student and its EMA distillation."""

    width: int = Field(
        512, ge=16, multiple_of=16, description="embedding channels, in 16 groups for GroupNorm"
    )
    mlp_width: Count = Field(768, description="hidden channels of the SGP block's MLP")
    levels: Annotated[int, Field(ge=1, le=6)] = Field(6, description="pyramid levels")
    stem_blocks: Annotated[int, Field(ge=0, le=100)] = Field(
        2, description="SGP blocks at stride 1"
    )
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
    max_length: Annotated[int, Field(ge=32, le=2**20, multiple_of=32)] = Field(
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
