"""What the benchmark prints and writes: tables for readers, JSON for machines, a figure."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from fustal_core.bench import Benchmark
from fustal_core.files import write_text

_GROWTH_COLUMNS = ["part", "along", "device", "sizes", "seconds", "exponent", "standard_error"]


def bench_text(benchmark: Benchmark) -> str:
    """The machines, and the tables in Markdown, numbers with three digits; empty: nothing to tell."""
    machines = [machine.text() for machine in benchmark.machines.values()]
    memory = [f"{value:.2f} GB ({device})" for device, value in benchmark.peak_memory_gb.items()]
    blocks = [
        "\n\n".join(machines),
        _markdown(benchmark.parts.assign(agree=benchmark.parts["agree"].map(_tiny))),
        f"Peak memory of the process: {', '.join(memory)}",
    ]
    if len(benchmark.growth):
        blocks.append(_markdown(benchmark.growth[_GROWTH_COLUMNS]))
    return "\n\n".join(blocks) + "\n"


def _markdown(table: pd.DataFrame) -> str:
    shown = table.map(_cell)
    return shown.to_markdown(index=False, disable_numparse=True)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.3g}"
    return str(value)


def _tiny(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.0e}"


def bench_json(benchmark: Benchmark) -> str:
    """All numbers as they are: ``machines``, ``parts``, ``growth``, ``peak_memory_gb``; NaN is null."""
    content = {
        "machines": [asdict(machine) for machine in benchmark.machines.values()],
        "parts": _records(benchmark.parts),
        "growth": _records(benchmark.growth),
        "peak_memory_gb": benchmark.peak_memory_gb,
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return json.loads(table.to_json(orient="records", double_precision=15))


def write_benchmark(benchmark: Benchmark, folder: Path) -> list[Path]:
    """Write ``bench.csv``, ``bench.md`` and ``bench.json``; with growth, its table and figure too.

    Returns:
        The files written.
    """
    texts = {
        "bench.csv": benchmark.parts.to_csv(index=False),
        "bench.md": bench_text(benchmark),
        "bench.json": bench_json(benchmark),
    }
    if len(benchmark.growth):
        joined = {
            name: benchmark.growth[name].map(lambda values: " ".join(map(str, values)))
            for name in ("sizes", "seconds")
        }
        table = benchmark.growth.assign(**joined)[_GROWTH_COLUMNS]
        texts["growth.csv"] = table.to_csv(index=False)
    for name, text in texts.items():
        write_text(folder / name, text)
    written = [folder / name for name in texts]
    if len(benchmark.growth):
        from fustal_core.bench_figure import plot_growth
        from fustal_core.figures import save_figure

        written += save_figure(plot_growth(benchmark.growth), folder / "growth")
    return written
