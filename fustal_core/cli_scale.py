"""The command ``scale``: how time and memory grow with the data, and what ActivityNet would cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fustal_core.annotations import DataError
from fustal_core.cli_options import SetOptions, check_writable
from fustal_core.config import SettingsError, make_settings, parse_overrides

if TYPE_CHECKING:
    import pandas as pd


def scale(
    sizes: Annotated[
        str,
        typer.Option(help="In THUMOS'14's numbers of videos, three or more, separated by commas."),
    ] = "1,10,50",
    out: Annotated[
        Path,
        typer.Option(help="Folder for scale.csv, scale.md, scale_estimate.csv and the figure."),
    ] = Path("figures"),
    work: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder for the data while they are measured; by default the system's temporary one.",
        ),
    ] = None,
    measured_in: Annotated[
        Path | None,
        typer.Option(
            "--measured", metavar="FILE", help="Measure nothing: take an earlier scale.csv."
        ),
    ] = None,
    set_: SetOptions = None,
) -> None:
    """Run the pipeline's parts on simulated data of growing size, each size in a fresh process.

    Takes about a quarter of an hour on one thread. A page says how time and memory grow, and what that
    means for real ActivityNet 1.3.
    """
    overrides: dict[str, Any] = parse_overrides(set_ or [])
    wanted = read_sizes(sizes)
    make_settings(overrides=overrides)  # refused before the slow imports

    from fustal_core.progress import show_progress
    from fustal_core.scale import measure_scale, write_scale
    from fustal_core.scale_parts import settings_of_size

    for size in wanted:
        settings_of_size(size, overrides)
    check_writable(out / "scale.csv", "--out")
    if measured_in is not None:
        table = read_measured(measured_in)
    else:
        with show_progress("measuring") as progress:
            table = measure_scale(wanted, work, overrides, progress)
    for path in write_scale(out, table, overrides):
        typer.echo(path)


def read_measured(path: Path) -> pd.DataFrame:
    """An earlier ``scale.csv``.

    Raises:
        DataError: not one.
    """
    import pandas as pd
    from pandas.api.types import is_numeric_dtype

    from fustal_core.scale_parts import COLUMNS

    try:
        table = pd.read_csv(path)
    except ValueError as error:
        raise DataError([f"{path}: expected a scale.csv: {error}"]) from None
    numbers = [column for column in COLUMNS if column != "part"]
    wrong = [name for name in numbers if name not in table or not is_numeric_dtype(table[name])]
    if wrong or "part" not in table:
        raise DataError(
            [f"{path}: expected a scale.csv, with 'part' and numbers in {', '.join(numbers)}"]
        )
    if table["videos"].nunique() < 3:
        raise DataError([f"{path}: expected three sizes or more, got {table['videos'].nunique()}"])
    return table


def read_sizes(text: str) -> list[float]:
    """``"1,10,50"`` to numbers.

    Raises:
        SettingsError: fewer than three different numbers above 0.
    """
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        found = []
    if len(found) < 3 or not 0 < found[0] <= found[-1] < float("inf"):
        raise SettingsError(f"--sizes: expected three numbers or more as in 1,10,50, got {text!r}")
    return found
