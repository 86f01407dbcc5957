"""Commands about data folders: ``check`` and ``simulate``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from fustal_core.annotations import Annotations, Report, read_annotations
from fustal_core.cli_options import Json, Profile, TrustPickle
from fustal_core.config import (
    Settings,
    SettingsError,
    make_settings,
    parse_overrides,
    setting_names,
)


def check(
    folder: Annotated[Path, typer.Argument(help="Data folder, in any of the released layouts.")],
    trust_pickle: TrustPickle = False,
    json_: Json = False,
) -> None:
    """Every problem of a data folder in one report, and what is in it; status 1 if there is any."""
    from fustal_core.check import check_folder, to_dict, to_text
    from fustal_core.progress import show_progress

    with show_progress("reading the features") as progress:
        found = check_folder(folder, trust_pickle=trust_pickle, progress=progress)
    print(json.dumps(to_dict(found), indent=1, allow_nan=False) if json_ else to_text(found))
    raise SystemExit(0 if found.is_sound else 1)


def fingerprint_of_sound_data(settings: Settings) -> str | None:
    """Check a run's data and say what is odd; with a problem, report all of them and end with status 1.

    Nothing of the data is kept. Simulated data have no fingerprint before they are drawn: None.

    Raises:
        DataError: ``evaluation`` leaves out of the test what is not there, all of it, or by a list that
            cannot be read.
    """
    from fustal_core.left_out import check_excluded
    from fustal_core.results import read_ambiguous
    from fustal_core.rundir import resolve_file

    if settings.evaluation.ambiguous:
        read_ambiguous(resolve_file(settings.evaluation.ambiguous))
    if settings.data == "simulated":
        from fustal_core.simulated_videos import truth_frame
        from fustal_core.simulator import plan_simulation

        videos = plan_simulation(settings.simulation, settings.seed).videos
        check_excluded(
            settings.evaluation.exclude, truth_frame(v for v in videos if v.subset == "test")
        )
        return None
    from fustal_core.check import check_folder, to_text
    from fustal_core.progress import show_progress, to_stderr

    with show_progress("checking the data") as progress:
        checked = check_folder(
            Path(settings.data),
            settings.features,
            trust_pickle=settings.trust_pickle,
            progress=progress,
        )
    if not checked.is_sound:
        to_stderr(to_text(checked))
        to_stderr("fustal: the data is not sound; nothing was run")
        raise SystemExit(1)
    for line in (*checked.report.found, *checked.report.warnings):
        to_stderr(f"{checked.folder.name}: {line}")
    check_excluded(settings.evaluation.exclude, checked.truth)
    return checked.fingerprint


def simulate(
    folder: Annotated[Path, typer.Argument(help="Folder to write, new or empty.")],
    layout: Annotated[
        str, typer.Option(help="own, cola, acmnet, hrpro, actionformer or fustal.")
    ] = "own",
    annotations: Annotated[
        Path | None,
        typer.Option(help="ActivityNet-style file whose videos and segments are taken."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    feature_dim: Annotated[int | None, typer.Option(help="Channels D.")] = None,
    profile: Profile = "quick",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="simulation.NAME=VALUE", help="Override a setting."),
    ] = None,
) -> None:
    """Write simulated data as a folder that 'fustal run --data FOLDER' takes like real data."""
    overrides = _simulation_overrides(set_ or [], feature_dim, with_annotations=bool(annotations))
    settings = make_settings("simulated", profile, seed, overrides).simulation

    from fustal_core.progress import show_progress, to_stderr
    from fustal_core.simulated_folder import refuse_layout, refuse_occupied, write_simulation
    from fustal_core.simulator import plan_simulation

    refuse_layout(layout, settings)
    refuse_occupied(folder)
    given = None if annotations is None else _read_sound_annotations(annotations)
    simulation = plan_simulation(settings, seed, given)
    with show_progress(f"writing {folder}") as progress:
        size = write_simulation(folder, simulation, layout, progress)
    to_stderr(
        f"{folder}: {len(simulation.videos)} videos of {len(simulation.classes)} classes, simulated, "
        f"layout {layout}, {size / 1e6:.0f} MB of features\n"
        f"next: {_next_command(folder, profile, seed)}"
    )


_WITHOUT_ANNOTATIONS = ("num_classes", "train_videos", "test_videos", "max_video_s")
_WITHOUT_ANNOTATIONS += ("action_share", "actions_per_video", "video_s", "several_classes")


def _simulation_overrides(
    assignments: list[str], feature_dim: int | None, *, with_annotations: bool
) -> dict[str, str]:
    """Settings of ``--set`` and ``--feature-dim``.

    Raises:
        SettingsError: one that has no meaning for simulated data, or beside annotations.
    """
    overrides = parse_overrides(assignments)
    for name in overrides:
        if name in setting_names() and not name.startswith("simulation."):
            raise SettingsError(
                f"{name!r} says nothing about simulated data: set it in 'fustal run'"
            )
        if with_annotations and name.removeprefix("simulation.") in _WITHOUT_ANNOTATIONS:
            raise SettingsError(f"{name!r} has no meaning with --annotations, which decide it")
    if feature_dim is not None:
        if "simulation.feature_dim" in overrides:
            raise SettingsError(
                "--feature-dim and --set simulation.feature_dim: expected one of them"
            )
        overrides["simulation.feature_dim"] = str(feature_dim)
    return overrides


def _read_sound_annotations(path: Path) -> Annotations:
    """Annotations of which data can be made.

    Raises:
        DataError: every problem of the file.
    """
    from fustal_core.simulated_videos import check_annotations

    report = Report()
    annotations = read_annotations(path, report)
    if annotations is not None:
        check_annotations(annotations, str(path), report)
    report.raise_problems()
    return annotations


def _next_command(folder: Path, profile: str, seed: int) -> str:
    """What runs the study on the folder as on the built-in data of this profile and seed."""
    words = ["fustal", "run", "--data", str(folder)]
    words += ["--profile", profile] if profile != "quick" else []
    words += ["--seed", str(seed)] if seed else []
    return shlex.join(words)
