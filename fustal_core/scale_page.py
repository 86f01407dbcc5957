"""One page about cost: what was measured at growing sizes, and what real ActivityNet would take."""

from __future__ import annotations

import pandas as pd

from fustal_core.scale_estimate import Corpus, Measured
from fustal_core.scale_parts import AT_REST
from fustal_core.scale_passes import LABELS

LINEAR = 1.1
"""An exponent above this counts as more than linear."""


def render_page(
    table: pd.DataFrame,
    fits: pd.DataFrame,
    measured: Measured,
    stages: pd.DataFrame,
    needed: pd.DataFrame,
    corpus: Corpus,
) -> str:
    """The page, in Markdown.

    Args:
        table, fits: from :mod:`fustal_core.scale`.
        measured: of the largest size.
        stages, needed: from ``scale_estimate.estimate`` and ``storage``.
        corpus: they are about.
    """
    parts = [
        "# What it costs: simulated data of growing size, and real " + corpus.name,
        _about(table, measured),
        "![CPU seconds and peaks of memory of every part over the number of videos](scale.png)",
        "## Measured: CPU seconds",
        _times(table, fits),
        _verdict(fits),
        "## Measured: memory",
        _memory(table, fits),
        _budget(table),
        f"## Worked out: {corpus.name}",
        _reasoning(measured, corpus),
        _stages(stages),
        _totals(stages),
        needed.assign(gb=needed["gb"].map("{:.1f}".format)).to_markdown(index=False),
    ]
    return "\n\n".join(parts) + "\n"


def _about(table: pd.DataFrame, measured: Measured) -> str:
    own = measured.settings
    sizes = ", ".join(f"{size:g}" for size in sorted(table["size"].unique()))
    return (
        f"Simulated data in ActivityNet's shape ({own.simulation.num_classes} classes, "
        f"{own.simulation.actions_per_video:g} actions a video, which take "
        f"{100 * own.simulation.action_share:.0f} % of it), {sizes} times as many videos as THUMOS'14 "
        f"has. Few channels: {own.simulation.feature_dim} of the features, "
        f"{own.generation.hidden_channels} of the generator, {own.student.width} of the student. One "
        "round of the generator's training, one epoch of each phase of the student's. One thread, each "
        f"size in a process of its own. Machine: {measured.rates.text}"
    )


def _times(table: pd.DataFrame, fits: pd.DataFrame) -> str:
    timed = table[table["part"] != AT_REST]
    by_size = {"index": "part", "columns": "videos", "sort": False}
    seconds = timed.pivot_table(values="cpu_seconds", **by_size)
    clock = timed.pivot_table(values="seconds", **by_size).iloc[:, -1]
    seconds.columns = [f"{videos:,} videos" for videos in seconds.columns]
    shown = seconds.map("{:.2f}".format)
    by_part = fits.set_index("part").loc[shown.index]
    errors = zip(by_part["exponent"], by_part["standard_error"], strict=True)
    shown["exponent"] = [f"{exponent:.2f} ± {error:.2f}" for exponent, error in errors]
    shown["between the largest"] = by_part["last_exponent"].map("{:.2f}".format)
    shown["largest, by the clock"] = clock.map("{:.2f}".format)
    shown["exponent by the clock"] = by_part["clock_exponent"].map("{:.2f}".format)
    return shown.to_markdown(disable_numparse=True)


def _verdict(fits: pd.DataFrame) -> str:
    about = (
        "CPU seconds grow as videos to the power of the exponent; those by the clock hold waiting for "
        "the disk and for other processes of the machine too, so their exponents say less. Parts "
        "below 1 have a constant share, or less to do for a video: a larger size trains its generator "
        "longer, which changes how much it proposes."
    )
    steep = fits[fits["exponent"] > LINEAR]
    if steep.empty:
        return f"{about} No exponent is above {LINEAR:g}: the cost is linear."
    names = ", ".join(steep["part"])
    return f"{about} Above {LINEAR:g}, so more than linear within what was measured: {names}."


def _memory(table: pd.DataFrame, fits: pd.DataFrame) -> str:
    peaks = table.pivot_table(index="part", columns="videos", values="peak_gb", sort=False)
    peaks.columns = [f"{videos:,} videos" for videos in peaks.columns]
    shown = peaks.map("{:.2f}".format)
    slopes = fits.set_index("part")["gb_per_1000_videos"].reindex(shown.index)
    shown["GB per 1000 videos"] = slopes.map("{:.3f}".format).where(slopes.notna(), "")
    return shown.to_markdown(disable_numparse=True)


def _budget(table: pd.DataFrame) -> str:
    largest = table[table["videos"] == table["videos"].max()]
    features, budget = largest["features_gb"].iloc[0], largest["budget_gb"].iloc[0]
    rest = largest.loc[largest["part"] == AT_REST, "peak_gb"].iloc[0]
    mapped = "mapped from a file" if features > budget else "in memory"
    return (
        f"Features of the largest size take {features:.2f} GB, the budget (`features.memory_gb`) is "
        f"{budget:g} GB: they are {mapped}. A process that has done nothing yet holds {rest:.2f} GB. "
        "What else grows with the videos is segments: labels, proposals, detections."
    )


def _reasoning(measured: Measured, corpus: Corpus) -> str:
    return (
        f"{corpus.train_videos:,} training and {corpus.test_videos:,} validation videos of about "
        f"{corpus.video_s:g} s, {corpus.classes} classes, {corpus.channels} channels every "
        f"{corpus.step_s:g} s; profile `paper` with its constants. A unit is a step or a video. It "
        "costs what its networks cost at that size, one pass through which was timed on this machine "
        "with random features, and what the same unit cost above at few channels, less the networks' "
        "share there. Beside it: what the operations of the networks alone would take at the machine's "
        f"{measured.rates.gflops:.0f} GFLOP/s. In a step of the student the boundary heads run around "
        f"{LABELS} labels in each video, as in the default run's crops; where videos are searched, they "
        "run everywhere, thus at most. Worked out, not measured: no feature of the real "
        "data was at hand."
    )


def _totals(stages: pd.DataFrame) -> str:
    operations = (stages["units"] * stages["gflop"]).sum()
    moved = (stages["units"] * stages["gb"]).sum()
    return (
        f"In all {stages['hours'].sum():.0f} hours of one core of this machine. The networks compute "
        f"{operations / 1e6:.1f} x 10^15 operations and, unfused, move {moved / 1e6:.2f} x 10^15 bytes: "
        "what the operations take at least on another device follows from its rate, and bytes are fewer "
        "where operations are fused. Hours go with the student's epochs, "
        "whose published number is THUMOS'14's; none is published for this data."
    )


def _stages(stages: pd.DataFrame) -> str:
    names = {
        "gflop": "GFLOP",
        "products_s": "products alone (s)",
        "network_s": "networks (s)",
        "rest_s": "rest (s)",
    }
    digits = {"gflop": 1, "products_s": 3, "network_s": 3, "rest_s": 4, "hours": 2}
    shown = stages.drop(columns="gb")
    for column, count in digits.items():
        shown[column] = shown[column].map(f"{{:.{count}f}}".format)
    shown["units"] = shown["units"].map("{:,}".format)
    return shown.rename(columns=names).to_markdown(index=False, disable_numparse=True)
