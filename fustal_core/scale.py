"""How the pipeline grows with the data: time and memory of each part at 1, 10, 50 times THUMOS'14.

Each size runs in a fresh process (:mod:`fustal_core.scale_parts`), so that peaks of memory are its own.
What that says of real ActivityNet 1.3 is worked out in :mod:`fustal_core.scale_estimate`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fustal_core.bench_growth import fit_exponent
from fustal_core.bench_machine import measure_machine
from fustal_core.config import make_settings
from fustal_core.figures import save_figure
from fustal_core.figures_scale import plot_scale
from fustal_core.files import write_text
from fustal_core.progress import Progress
from fustal_core.scale_estimate import ACTIVITYNET, Measured, Rates, estimate, storage
from fustal_core.scale_page import render_page
from fustal_core.scale_parts import AT_REST, COLUMNS, measure_size, settings_of_size
from fustal_core.scale_passes import Shape, all_passes
from fustal_core.stages import one_thread

SIZES = (1.0, 10.0, 50.0)
"""THUMOS'14's number of videos, ActivityNet's and HACS's, roughly."""


def measure_scale(
    sizes: Sequence[float] = SIZES,
    work: Path | None = None,
    overrides: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Run all parts at each size, in a process of its own.

    Args:
        sizes: in THUMOS'14's numbers of videos, above 0.
        work: folder that gets a folder of data for each size in turn, removed when it was measured;
            None: the system's place for temporary files.
        overrides: settings by dotted name, besides ``scale_parts.REDUCED``.
        progress: called as ``progress(done, total, note)``.

    Returns:
        A row for each size and part: ``size``, ``videos`` (train and test), ``snippets`` (the
        generator's), ``part``, ``seconds``, ``cpu_seconds`` (of this process), ``seconds per 1000
        videos``, ``peak_gb`` (of memory while the part ran), ``features_gb``, ``budget_gb``
        (features beyond it are mapped from a file).
        ``AT_REST`` is the memory of a process that has done nothing yet.
    """
    rows: list[dict[str, Any]] = []
    for done, size in enumerate(sizes, start=1):
        with (
            tempfile.TemporaryDirectory(dir=work, prefix="fustal-scale-") as folder,
            # Not forked: a copy of this process would begin with this process's memory.
            ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        ):
            rows += pool.submit(measure_size, size, Path(folder), overrides).result()
        if progress:
            progress(done, len(sizes), f"{size:g} times THUMOS'14")
    return pd.DataFrame(rows, columns=COLUMNS)


def fit_growth(table: pd.DataFrame) -> pd.DataFrame:
    """How each part grows: time as a power of the number of videos, memory as a straight line.

    Args:
        table: from :func:`measure_scale`, at three sizes or more.

    Returns:
        A row for each part: ``part``, ``exponent`` of its CPU seconds (1: linear), which other
        processes disturb less than the clock's, with ``standard_error`` and ``factor`` (seconds =
        factor * videos ^ exponent); ``last_exponent`` between the two largest sizes;
        ``clock_exponent`` of the seconds by the clock; and ``gb_per_1000_videos``, the slope of the
        peak of memory.

    Raises:
        ValueError: fewer than three sizes.
    """
    rows = []
    for part, own in table[table["part"] != AT_REST].groupby("part", sort=False):
        own = own.sort_values("videos")
        videos, seconds = own["videos"].to_numpy(float), own["cpu_seconds"].to_numpy(float)
        fit = fit_exponent(videos, seconds)
        slope, _ = np.polyfit(videos / 1000, own["peak_gb"].to_numpy(float), 1)
        rows.append(
            {
                "part": part,
                "exponent": fit.exponent,
                "standard_error": fit.standard_error,
                "factor": fit.factor,
                "last_exponent": float(np.diff(np.log(seconds))[-1] / np.diff(np.log(videos))[-1]),
                "clock_exponent": fit_exponent(videos, own["seconds"].to_numpy(float)).exponent,
                "gb_per_1000_videos": float(slope),
            }
        )
    return pd.DataFrame(rows)


def measured_at_largest(
    table: pd.DataFrame, fits: pd.DataFrame, overrides: dict[str, Any] | None = None
) -> Measured:
    """What the estimate needs of the largest size, with the machine's rates measured now.

    Args:
        table, fits: from :func:`measure_scale` and :func:`fit_growth`.
        overrides: that it was made with.
    """
    own = table[table["videos"] == table["videos"].max()].set_index("part")
    settings = settings_of_size(float(own["size"].iloc[0]), overrides)
    simulation, videos = settings.simulation, int(own["videos"].iloc[0])
    snippets = round(own["snippets"].iloc[0] / videos)
    shape = Shape(simulation.feature_dim, simulation.num_classes, snippets)
    with one_thread():
        passes, machine = all_passes(settings, shape), measure_machine("cpu")
    rates = Rates(machine.text(), machine.matrix_gflops["float32"], machine.copy_gb_s)
    return Measured(
        own["cpu_seconds"].to_dict(),
        fits.set_index("part")["gb_per_1000_videos"].to_dict(),
        simulation.train_videos,
        simulation.test_videos,
        settings,
        passes,
        rates,
    )


def write_scale(
    out: Path, table: pd.DataFrame, overrides: dict[str, Any] | None = None
) -> list[Path]:
    """Write what was measured, what ActivityNet would cost, a page about both, and the figure.

    Args:
        out: folder for ``scale.csv``, ``scale_estimate.csv``, ``scale.md`` and the figure ``scale``.
        table: from :func:`measure_scale`.
        overrides: that it was made with.

    Returns:
        The files.
    """
    fits = fit_growth(table)
    # Kept at once: what follows times the networks, and may be killed.
    write_text(out / "scale.csv", table.to_csv(index=False))
    measured = measured_at_largest(table, fits, overrides)
    settings = make_settings(profile="paper", overrides={"constants": "activitynet13"})
    with one_thread():
        passes = all_passes(settings, ACTIVITYNET.shape)
    stages, needed = estimate(measured, settings, passes), storage(measured, settings)
    write_text(out / "scale_estimate.csv", stages.to_csv(index=False))
    page = render_page(table, fits, measured, stages, needed, ACTIVITYNET)
    write_text(out / "scale.md", page)
    written = [out / name for name in ("scale.csv", "scale_estimate.csv", "scale.md")]
    return written + save_figure(plot_scale(table, fits), out / "scale")
