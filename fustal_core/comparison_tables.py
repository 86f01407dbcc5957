"""What ``fustal compare`` writes: its rows, means over seeds, what steps gain, and a figure."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fustal_core.figures import save_figure
from fustal_core.figures_generators import plot_generators
from fustal_core.files import remove_partial_files, write_text
from fustal_core.metrics import AVERAGE
from fustal_core.naming import (
    BASELINES,
    CROSS_VIDEO,
    DISTILLED,
    FUSTAL,
    RAW,
    STEPS,
    STUDENT,
    TRAINED,
    without_seeds,
)
from fustal_core.reporting import MAP_COLUMNS
from fustal_core.resampling import t_interval
from fustal_core.rounding import mean_and_spread


def marked(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose generators say what test labels chose in any of their steps, for tables by step.

    A generator's last row is taken to be of its last step, which owes most to such choices.
    """
    of_last_step = rows.groupby("generator")["weights"].transform("last")
    return rows.assign(generator=rows["generator"] + _note(of_last_step))


def _note(weights: pd.Series) -> pd.Series:
    return (" (" + weights + ")").where(weights != "last", "")


def methods_over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """The main table's methods over seeds: generators, FuSTAL's student, and FuSTAL.

    Args:
        rows: as from ``comparison.compare_generators``.

    Returns:
        ``method``, ``supervision`` and test mAP by threshold and its average, mean ± standard deviation
        as text.
    """
    is_raw = rows["step"] == RAW
    students = rows["step"].map({TRAINED: STUDENT, DISTILLED: FUSTAL})
    students = students.where(rows["generator"] == CROSS_VIDEO)
    named = rows.assign(method=rows["generator"].where(is_raw, students) + _note(rows["weights"]))
    shown = pd.concat([named[is_raw], named[~is_raw].dropna(subset=["method"])])
    groups = shown.groupby(["method", "supervision"], sort=False)
    return groups[[*MAP_COLUMNS, AVERAGE]].agg(mean_and_spread).reset_index()


def summarise(rows: pd.DataFrame, measure: str = AVERAGE, scale: float = 1.0) -> pd.DataFrame:
    """Mean and standard deviation over seeds: a row per generator, a column per step, as text.

    Args:
        rows: as from ``comparison.compare_generators``.
        measure: one of its numbers; steps for which it is unknown are left out.
        scale: 100 for fractions.
    """
    known = rows.dropna(subset=[measure])
    text = known.pivot_table(
        index="generator",
        columns="step",
        values=measure,
        aggfunc=lambda values: mean_and_spread(scale * values),
    )
    order = [step for step in STEPS if step in text.columns]
    return text.reindex(index=rows["generator"].unique(), columns=order)


def step_gains(rows: pd.DataFrame) -> pd.DataFrame:
    """What steps gain, in points of average mAP (0.1:0.7) with the same seed: a row per generator, text.

    The last column compares students: with that of the first generator.

    Args:
        rows: as from ``comparison.compare_generators``.
    """
    score = rows.pivot_table(index="seed", columns=["generator", "step"], values=AVERAGE)
    first, *others = rows["generator"].unique()
    found: dict[str, dict[str, str]] = {}
    for name in (first, *others):
        own = score[name]
        found[name] = {
            f"{TRAINED} over {RAW}": gain_and_interval(own[TRAINED] - own[RAW]),
            f"{DISTILLED} over {TRAINED}": gain_and_interval(own[DISTILLED] - own[TRAINED]),
        }
        if name != first:
            gain = own[TRAINED] - score[first, TRAINED]
            found[name][f"{TRAINED} over that of {first}"] = gain_and_interval(gain)
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("generator").fillna("")


def baseline_gains(rows: pd.DataFrame) -> pd.DataFrame:
    """What the proposals of generators gain over those of their baselines, as in :func:`step_gains`.

    Args:
        rows: as from ``comparison.compare_generators``.

    Returns:
        ``generator``, ``baseline`` and ``gain``, a row for each of ``naming.BASELINES`` that is there.
    """
    raw = rows[rows["step"] == RAW]
    score = raw.pivot_table(index="seed", columns="generator", values=AVERAGE)
    names = dict(zip(raw["generator"], marked(raw)["generator"], strict=True))
    found = [
        [names[better], names[worse], gain_and_interval(score[better] - score[worse])]
        for better, worse in BASELINES.items()
        if {better, worse} <= set(names)
    ]
    return pd.DataFrame(found, columns=["generator", "baseline", "gain"])


def gain_and_interval(gains: pd.Series) -> str:
    """``+9.9 ± 1.1 (+7.2 to +12.6)``: mean, standard deviation, Student's 95 % interval over seeds."""
    mean = mean_and_spread(gains, "+")
    if len(gains) == 1:
        return mean
    found = t_interval(gains.to_numpy())
    return f"{mean} ({found.low:+.1f} to {found.high:+.1f})"


def write_comparison(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Write ``generators.csv`` (every seed), ``generators.md`` (means and gains) and the figure."""
    seeds = ", ".join(map(str, rows["seed"].unique()))
    data = ", ".join(rows["data"].unique())
    about = f"{data}; {without_seeds(rows['source'])}; seeds {seeds}"
    remove_partial_files(folder)
    named = marked(rows)
    gains = "points with the same seed (in brackets 95 % by Student's t)"
    parts = {
        "mAP on the test videos, percent": methods_over_seeds(rows),
        "average mAP (0.1:0.7) on the test videos, percent": summarise(named).reset_index(),
        "F1 of the training videos' labels at tIoU 0.5, percent": summarise(
            marked(rows[rows["f1@0.5"].notna()]), "f1@0.5", 100
        ).reset_index(),
        f"gains of steps, {gains}": step_gains(named).reset_index(),
        f"gains of proposals over the baseline's, {gains}": baseline_gains(rows),
    }
    spread = "mean ± standard deviation over seeds"
    text = "\n".join(
        f"{title}; {spread}; measured on {about}\n\n{table.fillna('').to_markdown(index=False)}\n"
        for title, table in parts.items()
        if len(table)
    )
    write_text(folder / "generators.csv", rows.to_csv(index=False))
    write_text(folder / "generators.md", text)
    figures = save_figure(plot_generators(named), folder / "generators")
    return [folder / "generators.csv", folder / "generators.md", *figures]
