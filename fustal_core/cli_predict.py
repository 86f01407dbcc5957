"""The command ``predict``: a trained model on new features."""

from __future__ import annotations

import math
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fustal_core.annotations import MEASURE, is_measure
from fustal_core.cli_options import check_writable
from fustal_core.config import SettingsError, make_settings

if TYPE_CHECKING:
    from fustal_core.weights import Clock

WeightFile = Annotated[
    Path,
    typer.Argument(metavar="WEIGHTS", help="weights.safetensors of a generator or student."),
]
_TRAINED = "as in training"


def predict(
    weights: WeightFile,
    features: Annotated[
        Path, typer.Option(help="Folder of VIDEO.npy (T, D), or of rgb/ and flow/ of such.")
    ],
    output: Annotated[Path, typer.Option(help="ActivityNet-style result file to write.")],
    stride_frames: Annotated[
        int | None, typer.Option(min=1, help="Step between snippets.", show_default=_TRAINED)
    ] = None,
    window_frames: Annotated[
        int | None, typer.Option(min=1, help="Frames of a snippet.", show_default=_TRAINED)
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            help="Frames a second that these count.",
            show_default="that of --durations, else as in training",
        ),
    ] = None,
    durations: Annotated[
        Path | None,
        typer.Option(
            help="ActivityNet-style annotations, or {VIDEO: seconds}.",
            show_default="what the snippets span",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    min_score: Annotated[float | None, typer.Option(help="Leave out lower scores.")] = None,
    top: Annotated[
        int | None, typer.Option(min=1, max=10**9, help="At most so many detections a video.")
    ] = None,
) -> None:
    """Detections of a trained model in new videos, which need no annotations."""
    settings = make_settings(overrides={"device": device})  # refused before the slow imports
    if fps is not None and not is_measure(fps):
        raise SettingsError(f"--fps: expected {MEASURE}, got {fps:g}")
    if min_score is not None and not math.isfinite(min_score):
        raise SettingsError(f"--min-score: expected a finite number, got {min_score:g}")
    read = filter(None, (weights, durations))
    check_writable(output, inputs=chain(read, features.rglob("*.npy")))

    from fustal_core import predict as prediction
    from fustal_core.feature_folder import FeatureFolder
    from fustal_core.progress import show_progress
    from fustal_core.results import write_detections
    from fustal_core.rundir import torch_device
    from fustal_core.weights import load_model

    target = torch_device(settings)
    loaded = load_model(weights)
    loaded.model.to(target)
    durations_s, rates = prediction.read_durations(durations) if durations else (None, {})
    folder = FeatureFolder(features)
    origin = loaded.origin
    trained = f"{loaded.kind} trained on {origin.data} ({origin.data_origin}), seed {origin.seed}"
    typer.echo(f"{trained}; {len(folder)} videos", err=True)
    clock = _clock_line(loaded.clock, stride_frames, window_frames, fps, rates, durations)
    typer.echo(clock, err=True)
    with show_progress("predicting") as progress:
        found = prediction.predict(
            loaded,
            folder,
            stride_frames=stride_frames,
            window_frames=window_frames,
            fps=fps if fps is not None else (rates or None),
            durations_s=durations_s,
            min_score=min_score,
            top=top,
            progress=progress,
        )
    write_detections(output, found, f"{trained}; fustal-study {origin.version}", folder)
    typer.echo(f"{len(found)} detections: {output}", err=True)


def _clock_line(
    trained: Clock,
    stride_frames: int | None,
    window_frames: int | None,
    fps: float | None,
    rates: dict[str, float],
    durations: Path | None,
) -> str:
    """What times are counted with, and where each number is from."""
    stride = f"stride {stride_frames or trained.stride_frames} frames" + _source(stride_frames)
    window = f"window {window_frames or trained.window_frames} frames" + _source(window_frames)
    if fps is not None:
        rate = f"{fps:g} fps (given)"
    elif rates:
        rate = f"fps by video (of {durations})"
    else:
        rate = f"{trained.fps:g} fps (as in training)" if trained.fps else "no fps"
    return f"clock: {stride}, {window}, {rate}"


def _source(given: int | None) -> str:
    return " (as in training)" if given is None else " (given)"
