"""The command ``fustal``.

Exit status: 0 done, 1 the work failed or the data is bad, 2 the command line is wrong.
"""

from __future__ import annotations

import re
import signal
import sys
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from fustal_core import (
    cli_bench,
    cli_compare,
    cli_data,
    cli_predict,
    cli_report,
    cli_results,
    cli_scale,
)
from fustal_core.annotations import DataError
from fustal_core.cli_options import Data, Profile, Scheduler, SetOptions, TrustPickle, Workers
from fustal_core.config import (
    SettingsError,
    make_settings,
    parse_overrides,
    setting_names,
)
from fustal_core.interruption import resumable
from fustal_core.locks import RunDirectoryBusyError, refuse_second_run, run_lock
from fustal_core.progress import to_stderr

app = typer.Typer(
    help="FuSTAL: the quality of pseudo labels in weakly supervised temporal action localization.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point: a user's mistake ends in a message and a status, never in a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)
    if sys.stdout is not None:  # it may be closed
        sys.stdout.reconfigure(errors="backslashreplace")  # names in a script the terminal lacks
    unreadable = [text for text in sys.argv if _is_undecodable(text)]
    if unreadable:
        sys.exit(_fail(f"expected arguments in UTF-8, got {', '.join(map(ascii, unreadable))}", 2))
    empty = _before_nothing(sys.argv[1:])
    if empty:
        sys.exit(_fail(f"expected something after {', '.join(empty)}, got an empty argument", 2))
    try:
        app()
    except SettingsError as error:
        sys.exit(_fail(error, 2))
    except (DataError, RunDirectoryBusyError) as error:
        sys.exit(_fail(error, 1))
    except OSError as error:
        sys.exit(_fail(_explain(error), 1))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):  # torch's
            raise
        sys.exit(_fail(f"not enough memory: {error}", 1))


def _is_undecodable(text: str) -> bool:
    """Whether an argument has bytes that are no UTF-8: files and messages could not name it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _before_nothing(arguments: list[str]) -> list[str]:
    """What an empty argument comes after; '--run-dir ""' would be the folder where one stands."""
    apart = [before for before, text in pairwise(["fustal", *arguments]) if before and not text]
    # Not '--set=NAME=', which empties a setting.
    return apart + [text for text in arguments if re.fullmatch("--[^=]+=", text)]


def _interrupt(*_: object) -> None:
    """What a scheduler's SIGTERM asks for is what Ctrl-C asks for."""
    raise KeyboardInterrupt


def _explain(error: OSError) -> str:
    """A full disk, a directory that cannot be written, a file that cannot be read: which, and why."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _fail(message: object, status: int) -> int:
    to_stderr(f"fustal: {message}")
    return status


@app.command()
def run(
    stages: Annotated[
        list[str] | None,
        typer.Argument(help="Notebooks to run, e.g. 'generation selection'; all if none is named."),
    ] = None,
    data: Data = "simulated",
    profile: Profile = "quick",
    seed: Annotated[int, typer.Option(help="Seed of data, weights and batches.")] = 0,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where results go; by default runs/DATA-PROFILE-seedN.")
    ] = None,
    set_: SetOptions = None,
    trust_pickle: TrustPickle = False,
    seeds: Annotated[
        str | None,
        typer.Option(help="Of the ablation: FIRST:END, the end left out, or a list as in 0,3,4."),
    ] = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Take over a run directory made with other settings: what its notebooks wrote goes.",
        ),
    ] = False,
) -> None:
    """Run the study: the notebooks in order, with figures and tables; resumes what was begun.

    'fustal run ablation', alone, tries the whole grid of settings with five seeds.
    """
    overrides: dict[str, Any] = _grid_overrides(stages or [], seeds) | parse_overrides(set_ or [])
    if trust_pickle:
        overrides["trust_pickle"] = True
    make_settings(data, profile, seed, overrides)  # refuse mistakes before the slow imports

    from fustal_core.execution import NotebookError
    from fustal_core.jobs import offered, worker_count
    from fustal_core.pipeline import choose_stages, run_notebooks
    from fustal_core.rundir import (
        CACHE,
        PROVENANCE,
        claim_run_dir,
        default_run_dir,
        resolve_data,
        resolve_overrides,
        torch_device,
        with_recorded_extent,
    )
    from fustal_core.stages import load_data
    from fustal_core.workers import begin_slow_imports, connect

    overrides = resolve_overrides(overrides)
    settings = make_settings(resolve_data(data), profile, seed, overrides)
    torch_device(settings)
    if scheduler:
        connect(scheduler).close()  # before anything is read or written
    chosen = choose_stages(stages or [])
    workers = workers or worker_count(settings)
    folder = run_dir or default_run_dir(settings)
    if not force:
        settings = with_recorded_extent(folder, settings, overrides)
    try:
        with resumable():
            refuse_second_run(folder)  # at once, before the data is read
            fingerprint = cli_data.fingerprint_of_sound_data(settings)
            with run_lock(folder):
                claim_run_dir(folder, settings, force=force)
                if not scheduler and workers > 1 and not (folder / PROVENANCE).exists():
                    begin_slow_imports()  # in a new directory all is due
                fingerprint = fingerprint or load_data(settings, folder / CACHE).fingerprint
                own = offered(scheduler, workers)
                run_notebooks(chosen, settings, overrides, folder, fingerprint, own, say=to_stderr)
    except NotebookError as error:
        raise SystemExit(_fail(error, 1)) from None
    to_stderr(f"results: {folder}")


def _grid_overrides(stages: list[str], seeds: str | None) -> dict[str, Any]:
    """What the ablation tries when it is asked for alone, and the seeds that were asked for."""
    alone = [stage.removeprefix("04_") for stage in stages] == ["ablation"]
    if seeds is not None and stages and not any(stage.endswith("ablation") for stage in stages):
        raise SettingsError("--seeds belongs to the ablation; for another run: --seed")
    asked: dict[str, Any] = {"ablation.groups": "all", "ablation.seeds": "0:5"} if alone else {}
    return asked | ({} if seeds is None else {"ablation.seeds": seeds})


app.command()(cli_compare.compare)
app.command()(cli_report.report)
app.command()(cli_data.check)
app.command()(cli_data.simulate)
app.command()(cli_predict.predict)
app.command()(cli_results.evaluate)
app.command()(cli_results.audit)
app.command()(cli_scale.scale)
app.command()(cli_bench.bench)


@app.command()
def settings() -> None:
    """List every setting that --set can override, with its meaning."""
    for name, description in setting_names().items():
        print(f"{name:36}{description}")


@app.command()
def publish(
    run_dir: Annotated[Path, typer.Argument(help="A run directory with all notebooks executed.")],
) -> None:
    """Copy a run's executed outputs into the checkout's notebooks, for readers on the web."""
    from fustal_core.publishing import publish_notebooks

    for path in publish_notebooks(run_dir):
        print(path)
