"""From the path of a simulated video to windows of frames, at any rate.

A path is a row of steps of 4 frames at the setting's rate. Windows are 16 frames long, at a stride of
4 frames: of the same rate, so that they begin where steps do, or of the video's own.

Symbols: S steps, K latent dimensions, T windows.
"""

from __future__ import annotations

import math

import numpy as np

from fustal_core.simulator_settings import SimulatorSettings

FINE_FRAMES = 4
WINDOW_FRAMES = 16
WINDOW_STEPS = WINDOW_FRAMES // FINE_FRAMES


def path_steps(duration_s: float, fps: float, settings: SimulatorSettings) -> int:
    """Fine steps S of a video, long enough for two snippets at either rate.

    fps: of the student's features; the generator's and the steps have the setting's.
    """
    steps = int(duration_s / (FINE_FRAMES / settings.fps))
    two_snippets = math.ceil((WINDOW_FRAMES + FINE_FRAMES) / fps * settings.fps / FINE_FRAMES)
    return max(steps, 2 * WINDOW_STEPS, two_snippets)


def path_windows(z: np.ndarray) -> np.ndarray:
    """Mean of z (S, K) over every window of 16 frames at a stride of 4: (S - 3, K)."""
    count = len(z) - WINDOW_STEPS + 1
    return sum(z[lag : lag + count] for lag in range(WINDOW_STEPS)) / np.float32(WINDOW_STEPS)


def num_windows(steps: int, fps: float, settings: SimulatorSettings) -> int:
    """Windows of 16 frames at a stride of 4 that fit in S steps, the frames at ``fps``."""
    # Rounded, because a rate such as 29.97 leaves whole numbers a little below themselves.
    frames = round(steps * FINE_FRAMES * fps / settings.fps, 6)
    return int((frames - WINDOW_FRAMES) // FINE_FRAMES) + 1


def path_windows_at(z: np.ndarray, fps: float, settings: SimulatorSettings) -> np.ndarray:
    """The same for frames at another rate than the setting's, which steps do not begin with: (T, K).

    Between its steps the path stays where it is, so its integral is linear there.
    """
    steps_per_frame = settings.fps / fps / FINE_FRAMES
    count = num_windows(len(z), fps, settings)
    first = np.arange(count) * FINE_FRAMES * steps_per_frame
    width = WINDOW_FRAMES * steps_per_frame
    until = np.zeros((len(z) + 1, z.shape[1]))
    np.cumsum(z, axis=0, dtype=np.float64, out=until[1:])

    def integral(at: np.ndarray) -> np.ndarray:
        step = np.minimum(at.astype(int), len(z) - 1)
        return until[step] + (at - step)[:, None] * z[step]

    return ((integral(first + width) - integral(first)) / width).astype(np.float32)
