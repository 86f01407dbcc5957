"""Features of simulated videos: a path through a latent space, averaged over windows and mapped.

A video is a path z(t) in :data:`LATENT_DIM` dimensions on a fine step of 4 frames. What happens adds
up in it: the middle of an action follows its class's prototype, the beginning and end weaker ones
that classes share; scenes, context, motion, distractors, a shift of the whole video and correlated
noise come on top. Features are the mean of z over 16-frame windows at a stride of 4 frames, a random
linear map, and a ReLU. The path runs in seconds, its steps are frames of the setting's rate; features
of another rate are cut from the same path.

Symbols: N actions or bursts, S fine steps, K latent dimensions, C classes, D channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fustal_core.simulated_annotations import NESTED, SEQUENCE, Event, class_statistics
from fustal_core.simulated_windows import FINE_FRAMES
from fustal_core.simulator_settings import SimulatorSettings

LATENT_DIM = 64
NUM_DISTRACTORS = 12
"""Kinds of bursts, the same in all videos."""
NESTED_SIMILARITY = 0.6
SCENE_SIMILARITY = 0.8
"""How far a nested class looks like the wider one, and how far related classes share their scene; both
times ``class_relation``."""
RAMP = 0.08
"""Softness of the border between an action's core and its ends, as a share of the action."""
MARGIN_S = (0.5, 4.0)
"""Shortest and longest context on either side of an action."""
SLOW_S = 6.0
"""Time constant of what changes slowly (scene, motion), in seconds."""

Part = tuple[np.ndarray, np.ndarray]
"""How strong at each step (N, S), and which direction (N, K)."""


@dataclass(frozen=True)
class World:
    """What all videos share.

    names: of the C classes.
    core, begin, end, before, after, scene, context: (C, K) prototypes of length 1.
    motion: (K,). distractors: (:data:`NUM_DISTRACTORS`, K). weight: (K, D). bias: (D,).
    """

    names: tuple[str, ...]
    core: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    before: np.ndarray
    after: np.ndarray
    scene: np.ndarray
    context: np.ndarray
    motion: np.ndarray
    distractors: np.ndarray
    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Actions:
    """Actions of a video: class index (N,), start and end in seconds (N,)."""

    label: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _blend(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Unit vectors with about ``share`` of their squared length from ``second``."""
    return _unit(np.sqrt(1 - share) * first + np.sqrt(share) * second)


def draw_world(
    settings: SimulatorSettings, rng: np.random.Generator, classes: Sequence[str] | None = None
) -> World:
    """Draw prototypes of classes and the linear map.

    classes: any names; ``None``: those of THUMOS'14, all of them whatever ``num_classes`` is.
    Classes that are related in THUMOS'14 (:data:`NESTED`, :data:`SEQUENCE`) are so wherever both
    are there.
    """
    names = list(class_statistics().index if classes is None else classes)
    own = _unit(rng.normal(size=(5, len(names), LATENT_DIM)))
    shared = _unit(rng.normal(size=(5 + NUM_DISTRACTORS, LATENT_DIM)))
    core, scene = _blend(own[0], shared[0], settings.class_similarity), own[1].copy()
    for first, second in _present([*NESTED.items(), SEQUENCE], names):
        i, j = names.index(first), names.index(second)
        scene[i] = _blend(scene[i], scene[j], SCENE_SIMILARITY * settings.class_relation)
    for narrow, wide in _present(NESTED.items(), names):
        i, j = names.index(narrow), names.index(wide)
        core[i] = _blend(core[i], core[j], NESTED_SIMILARITY * settings.class_relation)
    begin = _blend(own[2], shared[1], settings.end_sharing)
    end = _blend(own[3], shared[2], settings.end_sharing)
    return World(
        names=tuple(names),
        core=core,
        begin=begin,
        end=end,
        before=_blend(shared[4], begin, settings.border_ambiguity),
        after=_blend(shared[4], end, settings.border_ambiguity),
        scene=scene,
        context=own[4],
        motion=shared[3],
        distractors=shared[5:],
        weight=rng.normal(size=(LATENT_DIM, settings.feature_dim)).astype(np.float32),
        bias=rng.normal(0, 0.2, settings.feature_dim).astype(np.float32),
    )


def _present(pairs: Iterable[tuple[str, str]], names: list[str]) -> list[tuple[str, str]]:
    return [pair for pair in pairs if set(pair) <= set(names)]


def correlated_noise(
    shape: tuple[int, ...], constant_s: float, step_s: float, rng: np.random.Generator
) -> np.ndarray:
    """Unit-variance noise, float32, with autocorrelation exp(-lag / constant_s) along axis 0."""
    from scipy.signal import lfilter  # takes half a second, for which the command line would wait

    decay = np.exp(-step_s / constant_s) if constant_s > 0 else 0.0
    white = rng.standard_normal(shape, dtype=np.float32)
    white[1:] *= np.sqrt(1 - decay**2)
    return lfilter(np.float32([1]), np.float32([1, -decay]), white, axis=0)


def inside_share(times_s: np.ndarray, start_s: np.ndarray, end_s: np.ndarray) -> np.ndarray:
    """Share of each time step (S,), given by its middle, inside each interval (N,): (N, S)."""
    step_s = times_s[1] - times_s[0]
    first = np.maximum(times_s - step_s / 2, start_s[:, None])
    last = np.minimum(times_s + step_s / 2, end_s[:, None])
    return np.clip((last - first) / step_s, 0, 1)


def core_share(
    progress: np.ndarray, settings: SimulatorSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """How far each moment of an action looks like its class, and whether it is before the core.

    progress: (N, S), 0 at the start and 1 at the end of the action. The core is a plateau of random
    width and place in the action, with soft borders; ``incompleteness`` is the share it leaves, on
    average. Returns (N, S) in [0, 1] and (N, S) booleans: nearer to the start than the core's middle.
    """
    count = len(progress)
    left = np.clip(settings.incompleteness * rng.uniform(0.6, 1.4, (count, 1)), 0, 0.9)
    centre = left * rng.uniform(0.3, 0.7, (count, 1)) + (1 - left) / 2
    beyond = np.maximum(np.abs(progress - centre) - (1 - left) / 2, 0)
    return np.exp(-0.5 * (beyond / RAMP) ** 2), progress < centre


def _action_parts(
    times_s: np.ndarray,
    actions: Actions,
    world: World,
    settings: SimulatorSettings,
    rng: np.random.Generator,
) -> tuple[list[Part], np.ndarray]:
    """What the actions of a video add to z, and how much moves at each step (S,)."""
    start_s, end_s, label = actions.start_s, actions.end_s, actions.label
    length_s = end_s - start_s
    strength = np.exp(settings.instance_spread * rng.normal(size=len(label)))[:, None]
    core, early = core_share((times_s - start_s[:, None]) / length_s[:, None], settings, rng)
    margin_s = np.clip(length_s * rng.uniform(0.3, 1.0, len(label)), *MARGIN_S)
    inside = inside_share(times_s, start_s, end_s)
    around = inside_share(times_s, start_s - 2 * margin_s, end_s + 2 * margin_s)
    weak = settings.end_strength * strength
    ends = weak * (1 - core) * inside
    parts = [
        (strength * core * inside, world.core[label]),
        (ends * early, world.begin[label]),
        (ends * ~early, world.end[label]),
        (weak * inside_share(times_s, start_s - margin_s, start_s), world.before[label]),
        (weak * inside_share(times_s, end_s, end_s + margin_s), world.after[label]),
        (settings.context_strength * around, world.context[label]),
    ]
    return parts, np.maximum(inside, 0.5 * around).max(axis=0, initial=0)


def _distractor_part(
    times_s: np.ndarray,
    own_core: np.ndarray,
    world: World,
    settings: SimulatorSettings,
    rng: np.random.Generator,
) -> tuple[Part, np.ndarray]:
    """Bursts that are no action, some like the video's own classes (own_core), and their motion."""
    count = rng.poisson(settings.distractor_rate * times_s[-1] / 60)
    start_s = rng.uniform(0, times_s[-1], count)
    inside = inside_share(times_s, start_s, start_s + np.exp(rng.normal(0.7, 0.6, count)))
    vector = world.distractors[rng.integers(NUM_DISTRACTORS, size=count)]
    if len(own_core):
        like = own_core[rng.integers(len(own_core), size=count)]
        vector = np.where(rng.random((count, 1)) < settings.lookalike_share, like, vector)
    strength = np.exp(settings.instance_spread * rng.normal(size=(count, 1)))
    part = settings.distractor_strength * strength * inside, vector
    return part, inside.max(axis=0, initial=0)


def draw_path(
    steps: int,
    classes: tuple[str, ...],
    events: Sequence[Event],
    world: World,
    settings: SimulatorSettings,
    rng: np.random.Generator,
) -> np.ndarray:
    """The latent path z of one video, (S, K) float32.

    steps: S, of 4 frames at the setting's rate each.
    classes: shown in the video; their scenes are seen throughout.
    events: actions, which may lie beyond the end.
    """
    names = pd.Index(world.names)
    step_s = FINE_FRAMES / settings.fps
    times_s = (np.arange(steps) + 0.5) * step_s
    shown = names.get_indexer(classes)
    noise = correlated_noise((steps, LATENT_DIM), settings.noise_correlation_s, step_s, rng)
    slow = correlated_noise((steps, 2), SLOW_S, step_s, rng)
    label, start_s, end_s = zip(*events, strict=True) if events else ((), (), ())
    actions = Actions(names.get_indexer(label), np.array(start_s), np.array(end_s))
    parts, action_motion = _action_parts(times_s, actions, world, settings, rng)
    burst, burst_motion = _distractor_part(times_s, world.core[shown], world, settings, rng)
    moving = np.maximum.reduce([action_motion, burst_motion, 0.5 * slow[:, 1]])
    scene = settings.scene_strength * world.scene[shown].sum(0)
    shift = settings.video_shift * _unit(rng.normal(size=LATENT_DIM))
    z = np.float32(settings.noise) * noise
    for strength, vectors in [*parts, burst]:
        z += strength.astype(np.float32).T @ vectors.astype(np.float32)
    z += (shift + scene * (0.7 + 0.3 * slow[:, :1])).astype(np.float32)
    z += (settings.motion_strength * moving[:, None] * world.motion).astype(np.float32)
    return z


def map_windows(windows: np.ndarray, world: World) -> np.ndarray:
    """Features of window means (T, K): the linear map and the ReLU, (T, D) float32, >= 0."""
    features = windows @ world.weight
    features += world.bias
    return np.maximum(features, 0, out=features)
