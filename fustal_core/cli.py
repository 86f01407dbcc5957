"""The command ``fustal``.

Exit status: 0 done, 1 the work failed or the data is bad, 2 the command line is wrong.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from fustal_core.annotations import DataError
from fustal_core.config import (
    PROFILES,
    SettingsError,
    make_settings,
    parse_overrides,
    setting_names,
)

app = typer.Typer(
    help="FuSTAL: the quality of pseudo labels in weakly supervised temporal action localization.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point: a user's mistake ends in a message and a status, never in a traceback."""
    try:
        app()
    except SettingsError as error:
        sys.exit(_fail(error, 2))
    except DataError as error:
        sys.exit(_fail(error, 1))


def _fail(message: object, status: int) -> int:
    print(f"fustal: {message}", file=sys.stderr)
    return status


@app.command()
def run(
    stages: Annotated[
        list[str] | None,
        typer.Argument(help="Notebooks to run, e.g. 'generation selection'; all if none is named."),
    ] = None,
    data: Annotated[str, typer.Option(help="'simulated' or a data folder.")] = "simulated",
    profile: Annotated[str, typer.Option(help=f"One of {', '.join(PROFILES)}.")] = "quick",
    seed: Annotated[int, typer.Option(help="Seed of data, weights and batches.")] = 0,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where results go [runs/DATA-PROFILE-seedN].")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Override a setting; see 'settings'."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Take over a run directory made with other settings.")
    ] = False,
) -> None:
    """Run the study: the notebooks in order, with figures and tables; resumes what was begun."""
    overrides = parse_overrides(set_ or [])
    make_settings(data, profile, seed, overrides)  # refuse mistakes before the slow imports

    from fustal_core.pipeline import NotebookError, choose_stages, run_notebooks, to_stderr
    from fustal_core.rundir import claim_run_dir, default_run_dir, resolve_data, torch_device
    from fustal_core.stages import load_data

    settings = make_settings(resolve_data(data), profile, seed, overrides)
    torch_device(settings)
    chosen = choose_stages(stages or [])
    dataset = load_data(settings)
    for warning in dataset.warnings:
        to_stderr(f"{dataset.name}: {warning}")
    fingerprint = dataset.fingerprint
    del dataset  # the notebooks' kernels hold the data; this process needs it no more
    folder = run_dir or default_run_dir(settings)
    claim_run_dir(folder, settings, force=force)
    try:
        run_notebooks(chosen, settings, overrides, folder, fingerprint, say=to_stderr)
    except NotebookError as error:
        raise SystemExit(_fail(error, 1)) from None
    except KeyboardInterrupt:
        raise SystemExit(_fail("interrupted; the same command goes on from here", 1)) from None
    to_stderr(f"results: {folder}")


Predictions = Annotated[Path, typer.Argument(help="ActivityNet-style result file of any method.")]
GroundTruth = Annotated[Path, typer.Argument(help="ActivityNet-style annotation file.")]
Subset = Annotated[str | None, typer.Option(help="Subset of the annotations, e.g. test; all.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command()
def evaluate(
    predictions: Predictions,
    ground_truth: GroundTruth,
    subset: Subset = None,
    tiou: Annotated[
        str, typer.Option(help="Thresholds: LOW:HIGH in steps of 0.1, LOW:STEP:HIGH, or A,B,C.")
    ] = "0.1:0.7",
    json_: Json = False,
) -> None:
    """Detection mAP of a result file, percent; with --json fractions."""
    from fustal_core.metrics import average_ranges, detection_map
    from fustal_core.results import read_detections, read_ground_truth

    thresholds = parse_tiou(tiou)
    truth = read_ground_truth(ground_truth, subset).segments
    detections = read_detections(predictions)
    try:
        table = detection_map(detections, truth, thresholds)
    except ValueError as error:
        raise DataError([f"{predictions}: {error}"]) from None
    means = table.mean()
    averages = {
        f"{low:g}:{high:g}": float(means[members].mean())
        for (low, high), members in average_ranges(thresholds).items()
    }
    if json_:
        per_class = {
            label: {f"{t:g}": value for t, value in row.items()} for label, row in table.iterrows()
        }
        mean_ap = {f"{t:g}": value for t, value in means.items()}
        print(json.dumps({"mAP": mean_ap, "average": averages, "per_class": per_class}, indent=1))
        return
    table.loc["mAP"] = means
    print((100 * table).rename(columns="{:g}".format).to_string(float_format="{:.1f}".format))
    for name, value in averages.items():
        print(f"avg {name:14}{100 * value:.1f}")


@app.command()
def audit(
    proposals: Predictions, ground_truth: GroundTruth, subset: Subset = None, json_: Json = False
) -> None:
    """Pseudo-label quality of anyone's proposals: precision, recall, borders, kinds of error."""
    from fustal_core.quality import pseudo_label_quality
    from fustal_core.results import read_detections, read_ground_truth

    truth = read_ground_truth(ground_truth, subset)
    labels = read_detections(proposals)
    try:
        row = pseudo_label_quality(labels, truth.segments, truth.videos["duration_s"]).iloc[0]
    except ValueError as error:
        raise DataError([f"{proposals}: {error}"]) from None
    print(row.to_json(indent=1) if json_ else row.to_string(float_format="{:.3f}".format))


def parse_tiou(text: str) -> list[float]:
    """Thresholds of ``"0.1:0.7"``, ``"0.5:0.05:0.95"`` or ``"0.3,0.5"``, in (0, 1].

    Raises:
        SettingsError: anything else.
    """
    try:
        if "," in text or ":" not in text:
            values = [float(part) for part in text.split(",")]
        else:
            low, *step, high = (float(part) for part in text.split(":"))
            width = step[0] if step else 0.1
            count = round((high - low) / width) if len(step) <= 1 and width > 0 else -1
            values = [round(low + i * width, 10) for i in range(count + 1)]
    except ValueError:
        values = []
    if not values or not all(0 < value <= 1 for value in values):
        raise SettingsError(f"--tiou: expected e.g. 0.1:0.7, 0.5:0.05:0.95 or 0.5, got {text!r}")
    return values


@app.command()
def settings() -> None:
    """List every setting that --set can override, with its meaning."""
    for name, description in setting_names().items():
        print(f"{name:36}{description}")


@app.command()
def bench(
    json_: Json = False,
) -> None:
    """Time the hot parts next to plain reference implementations, in one run on this machine."""
    from fustal_core.bench import run_benchmark
    from fustal_core.progress import show_progress

    with show_progress("timing") as progress:
        table = run_benchmark(progress)
    print(table.to_json(orient="records", indent=1) if json_ else table.to_string(index=False))


@app.command()
def publish(
    run_dir: Annotated[Path, typer.Argument(help="A run directory with all notebooks executed.")],
) -> None:
    """Copy a run's executed outputs into the checkout's notebooks, for readers on the web."""
    from fustal_core.pipeline import publish_notebooks

    for path in publish_notebooks(run_dir):
        print(path)
