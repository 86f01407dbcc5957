"""Settings of the simulated data: its size, and a strength for each difficulty of the real task."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Strength = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class SimulatorSettings(BaseModel):
    """Size and difficulties of the simulated data. A strength of 0 switches its difficulty off.

    Strengths are lengths in the latent space, where the prototype of a class has length 1, unless
    the description says otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_classes: int = Field(20, ge=1, le=20, description="the first classes of THUMOS'14, by name")
    train_videos: int = Field(200, ge=1, description="at least one per class")
    test_videos: int = Field(210, ge=1, description="at least one per class")
    feature_dim: int = Field(128, ge=1, description="feature channels D")
    max_video_s: float = Field(1680.0, ge=20, allow_inf_nan=False, description="longest video, s")
    fps: float = Field(25.0, gt=0, allow_inf_nan=False, description="frames a second")

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
    video_shift: Strength = Field(1.0, description="a shift of the whole video: camera, light")
    instance_spread: Strength = Field(
        0.5, description="log standard deviation of an action's strength"
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
