"""The command ``compare``: every generator's proposals through FuSTAL's later stages, over seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import TypeAdapter, ValidationError

from fustal_core.cli_data import fingerprint_of_sound_data
from fustal_core.cli_options import Data, Profile, Scheduler, SetOptions, Workers, check_writable
from fustal_core.config import SettingsError, make_settings, parse_overrides
from fustal_core.interruption import resumable
from fustal_core.stage_settings import MOST_SEEDS, Method, Seeds

_METHODS: tuple[str, ...] = get_args(Method)


def compare(
    seeds: Annotated[
        str, typer.Option(help="FIRST:END, the end left out, or a list as in 0,3,4.")
    ] = "0:5",
    generators: Annotated[str, typer.Option(help="Which, separated by commas.")] = ",".join(
        _METHODS
    ),
    data: Data = "simulated",
    profile: Profile = "quick",
    output: Annotated[
        Path | None,
        typer.Option(help="Where the table goes; by default runs/DATA-PROFILE-generators."),
    ] = None,
    set_: SetOptions = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Take over run directories made with other settings: what their notebooks wrote goes.",
        ),
    ] = False,
) -> None:
    """Send every generator's proposals through selection, student and distillation, over seeds.

    Models and proposals lie in the seeds' own run directories; what is there is not made again, and
    a killed comparison goes on. The table has every seed, and mean and standard deviation.
    """
    overrides: dict[str, Any] = parse_overrides(set_ or [])
    chosen_seeds, methods = read_seeds(seeds), _read_methods(generators)
    make_settings(data, profile, chosen_seeds[0], overrides)  # refused before the slow imports

    from fustal_core.comparison import compare_generators, comparison_dir
    from fustal_core.comparison_tables import write_comparison
    from fustal_core.jobs import offered, worker_count
    from fustal_core.progress import to_stderr
    from fustal_core.rundir import resolve_data, resolve_overrides, torch_device
    from fustal_core.workers import JobError

    data, overrides = resolve_data(data), resolve_overrides(overrides)
    folder = output or comparison_dir(data, profile, overrides)
    check_writable(folder / "generators.csv")
    settings = make_settings(data, profile, chosen_seeds[0], overrides)
    torch_device(settings)
    try:
        with resumable():
            if data != "simulated":
                fingerprint_of_sound_data(settings)
            with offered(scheduler, workers or worker_count(settings)):
                rows = compare_generators(
                    chosen_seeds, methods, data, profile, overrides, force=force, say=to_stderr
                )
            written = write_comparison(rows, folder)
    except JobError as error:
        raise SystemExit(f"fustal: {error}") from None
    for path in written:
        typer.echo(path)


def read_seeds(text: str) -> list[int]:
    """``"0:3"`` to [0, 1, 2], ``"0,3"`` to [0, 3].

    Raises:
        SettingsError: neither of these, a negative seed, or no seed at all.
    """
    try:
        return list(TypeAdapter(Seeds).validate_python(text))
    except ValidationError:
        raise SettingsError(
            f"--seeds: expected FIRST:END or different whole numbers as in 0,3,4 (at most "
            f"{MOST_SEEDS}), got {text!r}"
        ) from None


def _read_methods(text: str) -> list[Any]:
    methods = [part.strip() for part in text.split(",")]
    unknown = [method for method in methods if method not in _METHODS]
    if unknown:
        raise SettingsError(
            f"--generators: unknown {', '.join(map(repr, unknown))}; known: {', '.join(_METHODS)}"
        )
    return list(dict.fromkeys(methods))
