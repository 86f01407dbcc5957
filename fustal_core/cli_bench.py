"""The command ``bench``: the hot parts beside plain references and beside the machine's limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fustal_core.cli_options import Json, check_writable


def bench(
    device: Annotated[
        str, typer.Option(help="cpu, or cuda: what torch does is measured on the GPU.")
    ] = "cpu",
    growth: Annotated[
        bool,
        typer.Option(
            "--growth", help="Also how the parts grow with their sizes (a minute or two)."
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--out", "--output", metavar="FOLDER", help="Write tables and figure here."),
    ] = None,
    json_: Json = False,
) -> None:
    """Time the hot parts next to plain references and to the limits of this machine, in one run.

    About ten minutes on two cores: trainings are timed at their published size, beside plain loops.
    """
    if output is not None:
        check_writable(output / "bench.csv")

    from fustal_core.bench_machine import check_device

    check_device(device)

    from fustal_core.bench import run_benchmark
    from fustal_core.bench_growth import GROWTHS
    from fustal_core.bench_output import bench_json, bench_text, write_benchmark
    from fustal_core.progress import show_progress

    with show_progress("timing") as progress:
        benchmark = run_benchmark(progress, device=device, growths=GROWTHS if growth else ())
    if output is not None:
        for path in write_benchmark(benchmark, output):
            typer.echo(path, err=json_)
    typer.echo(bench_json(benchmark) if json_ else bench_text(benchmark), nl=False)
