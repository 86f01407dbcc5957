"""Settings of the simulated data: its size, and a strength for each difficulty of the real task."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Strength = Annotated[float, Field(ge=0, le=10_000)]
Videos = Annotated[int, Field(ge=1, le=10**7)]
Share = Annotated[float, Field(ge=0, le=1)]
THUMOS_CLASSES = 20

SIZES = (
    "num_classes",
    "train_videos",
    "test_videos",
    "feature_dim",
    "max_video_s",
    "fps",
    "action_share",
    "actions_per_video",
    "video_s",
    "shared_features",
    "several_classes",
)
"""Settings that say how much there is and in what form; all others are difficulties."""


class SimulatorSettings(BaseModel):
    """Size and difficulties of the simulated data. A strength of 0 switches its difficulty off.

    Strengths are lengths in the latent space, where the prototype of a class has length 1, unless
    the description says otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_classes: int = Field(
        20, ge=1, le=200, description="the first classes of THUMOS'14, by name, or any up to 200"
    )
    train_videos: Videos = Field(200, description="at least one per class")
    test_videos: Videos = Field(210, description="at least one per class")
    feature_dim: int = Field(128, ge=2, le=2**20, description="feature channels D")
    max_video_s: float = Field(1680.0, ge=20, le=10**6, description="longest video, s")
    fps: float = Field(25.0, ge=0.1, le=10_000, description="frames a second")
    action_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of a video that its actions take on average, one class a video, as in "
        "ActivityNet; 0: many short actions, by the statistics of THUMOS'14",
    )
    actions_per_video: Strength = Field(
        0.0, description="actions of a video on average, where action_share is above 0"
    )
    video_s: Strength = Field(
        0.0,
        description="mean duration of a video in seconds, before max_video_s cuts the longest, where "
        "action_share is above 0",
    )
    shared_features: bool = Field(
        False,
        description="the student is given the generator's features too, as where a data set comes "
        "with one set; else some of a quarter of the stride",
    )
    several_classes: Strength = Field(
        1.0,
        description="how many videos show several classes, for one of THUMOS'14; 0: only those of a "
        "class within another",
    )

    incompleteness: Share = Field(
        0.5, description="share of an action, on average, that looks like its ends, not its class"
    )
    end_strength: Strength = Field(0.6, description="prototypes of the beginning and the end")
    end_sharing: Share = Field(
        0.7, description="1: all classes begin and end alike, 0: each its own way"
    )
    border_ambiguity: Share = Field(
        0.7, description="how far what comes just before and after resembles beginning and end"
    )
    scene_strength: Strength = Field(0.6, description="class scene, seen in and out of the action")
    context_strength: Strength = Field(
        0.4, description="class context, seen around the actions only"
    )
    motion_strength: Strength = Field(0.5, description="'something moves', in actions and at times")
    distractor_rate: Strength = Field(3.0, description="bursts a minute that are no action")
    distractor_strength: Strength = Field(0.9, description="of a burst")
    lookalike_share: Share = Field(
        0.3,
        description="share of the bursts that resemble the video's own class (warm-ups, replays)",
    )
    class_similarity: Share = Field(0.3, description="what all class prototypes have in common")
    class_relation: Share = Field(
        1.0,
        description="how much more alike related classes are: CliffDiving, which is Diving, and the "
        "two of Cricket, which share a scene",
    )
    video_shift: Strength = Field(1.0, description="a shift of the whole video: camera, light")
    instance_spread: Strength = Field(
        0.5,
        le=10,
        description="log standard deviation of the strength of an action, and of a distractor",
    )
    noise: Strength = Field(0.13, description="standard deviation per latent dimension")
    noise_correlation_s: Strength = Field(0.5, description="time constant of the noise in seconds")

    @model_validator(mode="after")
    def _every_class_is_shown(self) -> SimulatorSettings:
        smallest = min(self.train_videos, self.test_videos)
        if smallest < self.num_classes:
            raise ValueError(
                f"train_videos and test_videos must be at least num_classes = {self.num_classes}, "
                f"got {smallest}"
            )
        return self

    @model_validator(mode="after")
    def _statistics_are_there(self) -> SimulatorSettings:
        if self.action_share and (self.actions_per_video < 1 or self.video_s < 20):
            raise ValueError(
                "action_share needs actions_per_video of at least 1 and video_s of at least 20, "
                f"got {self.actions_per_video:g} and {self.video_s:g}"
            )
        if self.num_classes > THUMOS_CLASSES and not self.action_share:
            raise ValueError(
                f"num_classes: THUMOS'14 has statistics of {THUMOS_CLASSES}; more need action_share, "
                f"got {self.num_classes}"
            )
        return self


STRENGTHS = tuple(name for name in SimulatorSettings.model_fields if name not in SIZES)
"""Names of the difficulties."""
