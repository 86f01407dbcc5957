"""THUMOS'14-like data made on the spot: annotations and features with known truth.

Annotations follow the class statistics of THUMOS'14 (:mod:`fustal_core.simulated_annotations`), are few
and long as in ActivityNet (:mod:`fustal_core.simulated_long`), or are given. Features come from a
generative model with the difficulties of the real task (:mod:`fustal_core.simulated_features`), each
with a strength in :class:`SimulatorSettings`. The default strengths are calibrated on the baseline
alone: CoLA's generator has about the mAP on this data that it has on THUMOS'14.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

from fustal_core.annotations import Annotations
from fustal_core.data import Dataset, FeatureStore
from fustal_core.points import POINT_COLUMNS
from fustal_core.progress import Progress
from fustal_core.simulated_features import World, draw_path, draw_world, map_windows
from fustal_core.simulated_long import long_class_names
from fustal_core.simulated_videos import (
    SimulatedVideo,
    annotated_videos,
    draw_points,
    drawn_videos,
    truth_frame,
    videos_frame,
)
from fustal_core.simulated_windows import (
    FINE_FRAMES,
    WINDOW_FRAMES,
    num_windows,
    path_steps,
    path_windows,
    path_windows_at,
)
from fustal_core.simulator_settings import SimulatorSettings

__all__ = ["Simulation", "SimulatorSettings", "plan_simulation", "simulate", "simulated_features"]

GENERATOR_STRIDE_FRAMES = 16
STUDENT_STRIDE_FRAMES = FINE_FRAMES
_EVERY = GENERATOR_STRIDE_FRAMES // STUDENT_STRIDE_FRAMES


@dataclass(frozen=True)
class Simulation:
    """Everything about simulated data but its features, which :func:`simulated_features` draws.

    name: of the data set.
    """

    name: str
    settings: SimulatorSettings
    seed: int
    videos: tuple[SimulatedVideo, ...]
    world: World

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that some video shows, sorted."""
        return tuple(sorted(self.shown("train") | self.shown("test")))

    def shown(self, subset: str) -> set[str]:
        """Classes that the "train" or the "test" videos show."""
        return {name for v in self.videos if v.subset == subset for name in v.classes}

    def snippet_counts(self, video: SimulatedVideo) -> tuple[int, int]:
        """Snippets of a video's features, the generator's and the student's."""
        steps = path_steps(video.duration_s, video.fps, self.settings)
        generator = -(-num_windows(steps, self.settings.fps, self.settings) // _EVERY)
        return generator, num_windows(steps, video.fps, self.settings)


def plan_simulation(
    settings: SimulatorSettings, seed: int, annotations: Annotations | None = None
) -> Simulation:
    """Draw all of a simulation that comes before its features; see :func:`simulate`."""
    rng = np.random.default_rng([seed, 0])
    if annotations is None:
        names = long_class_names(settings.num_classes) if settings.action_share else None
        videos, world = drawn_videos(settings, seed), draw_world(settings, rng, names)
        name = "ActivityNet-like" if settings.action_share else "THUMOS'14-like"
        return Simulation(name, settings, seed, tuple(videos), world)
    videos = annotated_videos(annotations, settings, seed)
    labels = sorted({label for video in videos for label in video.classes})
    world = draw_world(settings, rng, labels)
    return Simulation("THUMOS'14-like, given annotations", settings, seed, tuple(videos), world)


def simulated_features(
    simulation: Simulation,
) -> Iterator[tuple[SimulatedVideo, np.ndarray, np.ndarray]]:
    """Each video with its features for the generator and for the student, (T, D) float32 each.

    Both are cut from one path: the generator's at a stride of 16 frames of the setting's rate, the
    student's of 4 frames of the video's own. A video too short for two snippets is made that long,
    what is annotated beyond a video's end is not seen.
    """
    libraries = ThreadpoolController()
    for video in simulation.videos:
        # On several threads the last bits of a product of matrices depend on how many there are.
        with libraries.limit(limits=1, user_api="blas"):
            arrays = _features(simulation, video)
        yield video, *arrays


def _features(simulation: Simulation, video: SimulatedVideo) -> tuple[np.ndarray, np.ndarray]:
    settings, world = simulation.settings, simulation.world
    steps = path_steps(video.duration_s, video.fps, settings)
    # A copy, so that the features can be drawn again.
    rng = deepcopy(video.rng)
    z = draw_path(steps, video.classes, video.events, world, settings, rng)
    if video.fps == settings.fps:
        student = map_windows(path_windows(z), world)
        return student[::_EVERY], student
    student = map_windows(path_windows_at(z, video.fps, settings), world)
    return map_windows(path_windows(z)[::_EVERY], world), student


def simulate(
    settings: SimulatorSettings,
    seed: int,
    progress: Progress | None = None,
    annotations: Annotations | None = None,
) -> Dataset:
    """Simulated data, the same to the bit for the same settings and seed on one machine, whatever its
    number of threads.

    Args:
        settings: with annotations given, those of classes, videos and actions have no meaning.
        seed: of everything random.
        progress: called as progress(done, total, note).
        annotations: take videos, durations, segments and the student's frame rates from these,
            instead of drawing them. Classes may have any names; subsets play the roles that
            :func:`fustal_core.annotations.subset_roles` gives them.

    Raises:
        DataError: annotations of which no data set can be made, with every problem.
    """
    simulation = plan_simulation(settings, seed, annotations)
    stores = drawn_features(simulation, progress)
    return dataset_of(simulation, stores, fingerprint_of(simulation, stores))


def feature_stores(
    simulation: Simulation, array_of: Callable[[tuple[int, int]], np.ndarray]
) -> list[FeatureStore]:
    """Stores of the generator's and the student's features, one alone where they share it.

    array_of: gives each of them in turn its float32 array of a shape.
    """
    names = [video.name for video in simulation.videos]
    counts = np.array([simulation.snippet_counts(video) for video in simulation.videos])
    starts = np.cumsum(counts, axis=0) - counts
    settings = simulation.settings
    rates = (
        dict.fromkeys(names, settings.fps),
        {video.name: video.fps for video in simulation.videos},
    )
    strides = (GENERATOR_STRIDE_FRAMES, STUDENT_STRIDE_FRAMES)
    stores = []
    for column, stride in enumerate(strides[:1] if settings.shared_features else strides):
        spans = zip(starts[:, column].tolist(), counts[:, column].tolist(), strict=True)
        offsets = dict(zip(names, spans, strict=True))
        array = torch.from_numpy(array_of((int(counts[:, column].sum()), settings.feature_dim)))
        stores.append(FeatureStore(array, offsets, stride, WINDOW_FRAMES, rates[column]))
    return stores


def drawn_features(simulation: Simulation, progress: Progress | None = None) -> list[FeatureStore]:
    """Draw the features of a simulation: the stores of :func:`feature_stores`, in memory."""
    stores = feature_stores(simulation, lambda shape: np.empty(shape, np.float32))
    for done, (video, *arrays) in enumerate(simulated_features(simulation), start=1):
        for store, features in zip(stores, arrays, strict=False):
            first, count = store.offsets[video.name]
            store.array.numpy()[first : first + count] = features
        if progress is not None:
            progress(done, len(simulation.videos), video.name)
    return stores


def fingerprint_of(simulation: Simulation, stores: list[FeatureStore]) -> str:
    """sha256, hexadecimal, of annotations and features."""
    digest = sha256(videos_frame(simulation.videos).to_json().encode())
    digest.update(truth_frame(simulation.videos).to_json().encode())
    digest.update(stores[-1].array.numpy().data)
    return digest.hexdigest()


def dataset_of(simulation: Simulation, stores: list[FeatureStore], fingerprint: str) -> Dataset:
    """The data set of a simulation whose features were drawn."""
    return Dataset(
        name=simulation.name,
        origin="simulated",
        classes=simulation.classes,
        videos=videos_frame(simulation.videos),
        segments=truth_frame(simulation.videos),
        generator_features=stores[0],
        student_features=stores[-1],
        fingerprint=fingerprint,
        points=draw_points(simulation.videos, simulation.seed)[list(POINT_COLUMNS)],
    )
