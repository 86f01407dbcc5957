"""What this study measured of what the papers say: rows of claims tables, and the table of a run.

Every notebook ends with the claims it can measure (``claims.csv`` in its folder); `collect` puts those
of a run together. What is claimed is in `fustal_core.claim_list` alone: a row is known by its wording.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fustal_core.claim_list import CLAIMS, MEASURES, Claim
from fustal_core.config import SettingsError
from fustal_core.files import write_text
from fustal_core.metrics import AVERAGE
from fustal_core.naming import BEST_ON_TEST, choices_on_test, own_generator
from fustal_core.progress import say_note
from fustal_core.reporting import figures_dir
from fustal_core.rundir import project_root

if TYPE_CHECKING:
    from fustal_core.ablation import Results
    from fustal_core.resampling import Interval
    from fustal_core.stages import Study

COLUMNS = ["claim", "where", "measured here", "interval", "holds", "data", "seeds"]
CLAIM_POINTS = 1.0
"""In a single run a gain in mAP, or in the quality of labels, counts from more than this many points,
and so does a loss; between the two it says nothing."""
NOISE = (
    "In the literature the seeds of training alone move results by 0.3 to 0.5 points; on this study's "
    "simulated data, five seeds of data and training together move CoLA's average mAP (0.1:0.7) by "
    "1.8 (standard deviation, README), and what one student gains over another on the same data by 1.7 "
    "to 2.9; sums in another order alone moved a student by 2. In a single run 'yes' is a gain of more "
    "than 1.0 point, 'no' a loss of more, and what lies between is undecided. Between students a point "
    "is within this noise: 'yes' and 'no' are what was seen in this run, not what is shown."
)
SEVERAL_SEEDS = (
    "Over several seeds: 'yes' if the whole 95 % interval lies above 0, 'no' if the whole of it lies "
    "below, else 'undecided'; ± is the standard deviation over seeds."
)
README_BEGIN = "<!-- claims: figures/claims.md, put here by fustal publish -->"
README_END = "<!-- end of claims -->"
_LEVEL = "95 %"  # of all intervals, and how they begin
_BY_KEY = {claim.key: claim for claim in CLAIMS}


def few_seeds(count: int) -> str:
    """What an interval that draws so few seeds again cannot say; of one seed, `NOISE`."""
    if count == 1:
        return NOISE
    return (
        f"{count} seeds are few: drawing them again cannot show what other seeds would do, so the "
        f"intervals tend to be too narrow. A stage that is worth nothing still gains with all {count} "
        f"seeds once in {2**count} times. So 'yes' means that these seeds and videos agree, no more."
    )


def row(
    study: Study,
    key: str,
    measured: str,
    holds: bool | str,
    *,
    interval: str = "none (one seed)",
    seeds: str = "1",
) -> dict[str, str]:
    """One row of a claims table: what the paper says and what this run measured.

    Args:
        key: of a claim.
        measured: in words and numbers.
        holds: whether; or "undecided".
        interval: of what was measured.
        seeds: how many there were, and of what.

    Returns:
        ``COLUMNS``. The data's column also says what was chosen by test labels, and which generator
        the run's own labels are from if not FuSTAL's.

    Raises:
        KeyError: no such claim.
    """
    claim = _BY_KEY[key]
    chosen = choices_on_test(study, *claim.methods)
    note = f"; {' and '.join(chosen)} {BEST_ON_TEST}" if chosen else ""
    if not claim.methods and study.settings.generation.method != "cross-video":
        note += f"; labels from {own_generator(study)}"
    answer = holds if isinstance(holds, str) else "yes" if holds else "no"
    cells = [claim.says, claim.where, measured, interval, answer, f"{study.data_name}{note}", seeds]
    return dict(zip(COLUMNS, cells, strict=True))


def gain(study: Study, key: str, points: float, note: str = "") -> dict[str, str]:
    """The row of a gain in a single run: "yes", "no" or "undecided" by ``CLAIM_POINTS``.

    Args:
        key: of a claim with a measure.
        points: gained, in percentage points.
        note: what else to say of it.
    """
    measured = f"{_of_measure(key, points)} {note}".strip()
    return row(study, key, measured, _in_one_run(points))


def over_seeds(study: Study, key: str, interval: Interval, of: str = "") -> dict[str, str]:
    """The row of a gain over seeds: "yes", "no" or "undecided" by its interval.

    A single seed has an interval over its videos alone, and is judged as any single run.

    Args:
        key: of a claim with a measure.
        interval: of the difference, in points.
        of: what differs between the seeds ("training", say).
    """
    count = interval.seeds
    measured = _of_measure(key, interval.mean)
    return row(
        study,
        key,
        measured if count == 1 else f"{measured} ± {interval.sd:.1f}",
        _verdict(interval),
        interval=_in_words(interval),
        seeds=f"{count} of {of}" if of and count > 1 else f"{count}",
    )


def ablation_rows(study: Study, results: Results) -> list[dict[str, str]]:
    """The rows of all claims that an ablation measured.

    Args:
        study: whose ablation it is. If its own generator is not FuSTAL's, claims about the
            cross-video contrast are left out.
        results: of `ablation.run_grid`.
    """
    of = "training" if results.shared_videos else "data and training"
    return [
        over_seeds(study, claim.key, _points(results, claim), of)
        for claim in _measured(study, results)
    ]


def ablation_gains(study: Study, results: Results) -> pd.DataFrame:
    """The numbers of `ablation_rows`, in points, for a picture.

    Returns:
        ``claim``, ``measure`` (texts), ``mean``, ``low``, ``high``, ``differences`` (a list, one per
        seed).
    """
    rows = []
    for claim in _measured(study, results):
        found = _points(results, claim)
        by_seed = results.differences(*claim.cells, measure=claim.measure)
        differences = (_scale(claim) * by_seed).tolist()
        numbers = [found.mean, found.low, found.high, differences]
        rows.append([claim.says, MEASURES[claim.measure], *numbers])
    return pd.DataFrame(rows, columns=["claim", "measure", "mean", "low", "high", "differences"])


def _measured(study: Study, results: Results) -> list[Claim]:
    has_contrast = study.settings.generation.method == "cross-video"
    return [
        claim
        for claim in CLAIMS
        if claim.cells
        if all(claim.measure in results.samples.get(cell, {}) for cell in claim.cells)
        if has_contrast or not claim.methods
    ]


def _points(results: Results, claim: Claim) -> Interval:
    found = results.difference(*claim.cells, measure=claim.measure)
    numbers = {name: getattr(found, name) for name in ("mean", "low", "high", "sd")}
    return replace(found, **{name: _scale(claim) * value for name, value in numbers.items()})


def _scale(claim: Claim) -> int:
    return 1 if claim.measure == AVERAGE else 100


def _of_measure(key: str, points: float) -> str:
    return f"{MEASURES[_BY_KEY[key].measure]} {_signed(points)}"


def _signed(points: float) -> str:
    return f"{points:+z.1f}"  # z: +0.0, not -0.0


def _verdict(interval: Interval) -> str:
    if interval.seeds == 1:
        return _in_one_run(interval.mean)
    if interval.low > 0:
        return "yes"
    return "no" if interval.high < 0 else "undecided"


def _in_one_run(points: float) -> str:
    if points > CLAIM_POINTS:
        return "yes"
    return "no" if points < -CLAIM_POINTS else "undecided"


def _in_words(interval: Interval) -> str:
    count = interval.seeds
    if np.isnan(interval.low):
        return "none (one seed)" if count == 1 else "none"
    over = interval.over.replace("seeds", f"{count} seeds")
    who = "one seed: videos alone" if count == 1 else f"over {over}"
    if interval.over == "seeds":
        who += " (Student's t)"
    return f"{_LEVEL}: {interval.low:+.1f} to {interval.high:+.1f}, {who}"


def collect(run_dir: Path, until: str = "") -> pd.DataFrame:
    """All claims that a run's notebooks measured, each once, in the order of ``CLAIMS``.

    Of a claim that several notebooks measured, the row with an interval is shown, or else that of the
    first of them; the others stay in their notebooks.

    Args:
        run_dir: with the notebooks' folders.
        until: the last notebook that counts, by its full name; all by default.

    Returns:
        ``notebook``, then ``COLUMNS``; text. A table that cannot be read counts as not there, and that
        is said.
    """
    paths = sorted(run_dir.glob("[0-9][0-9]_*/claims.csv"))
    own = [_read(path) for path in paths if not until or path.parent.name <= until]
    table = pd.concat([pd.DataFrame(columns=["notebook", *COLUMNS]), *own], ignore_index=True)
    place = table["claim"].map({claim.says: i for i, claim in enumerate(CLAIMS)})
    table = table.assign(place=place, bare=~table["interval"].str.startswith(_LEVEL))
    table = table.dropna(subset=["place"])  # worded otherwise: by an older version of a notebook
    table = table.sort_values(["place", "bare"]).drop_duplicates("place")
    return table[["notebook", *COLUMNS]].reset_index(drop=True)


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:  # empty, binary, or no table
        say_note(f"{path}: not a readable table, going on without it ({error})")
        table = pd.DataFrame(columns=COLUMNS)
    table = table.reindex(columns=COLUMNS, fill_value="").fillna("")
    return table.assign(notebook=path.parent.name)


def write_claims(study: Study) -> list[Path]:
    """Write ``claims.csv`` and ``claims.md`` of a run, from the claims of its notebooks.

    Those of the default run are also written to the checkout's ``figures``, once every claim is
    measured: a part of the table does not take the place of a whole one.

    Returns:
        The files.
    """
    table = collect(study.run_dir)
    published = figures_dir(study) if len(table) == len(CLAIMS) else None
    written = []
    for folder in [study.run_dir, *([published] if published else [])]:
        written += [folder / "claims.csv", folder / "claims.md"]
        write_text(written[-2], table.to_csv(index=False))
        write_text(written[-1], table.to_markdown(index=False, disable_numparse=True) + "\n")
    return written


def refresh_readme() -> Path:
    """Put the table of ``figures/claims.md`` into the checkout's README; returns the README.

    Raises:
        OSError: there is no such table.
        SettingsError: the README has no place for it.
    """
    path = project_root() / "README.md"
    table = (project_root() / "figures" / "claims.md").read_text(encoding="utf-8")
    write_text(path, fill_readme(path.read_text(encoding="utf-8"), table))
    return path


def fill_readme(readme: str, table: str) -> str:
    """The README's text with the claims table between its two markers replaced.

    Args:
        readme: its text. table: in Markdown.

    Raises:
        SettingsError: without the two markers, in their order.
    """
    before, begin, rest = readme.partition(README_BEGIN)
    _, end, after = rest.partition(README_END)
    if not (begin and end):
        raise SettingsError(f"README.md: expected the lines {README_BEGIN} and {README_END}")
    return f"{before}{begin}\n\n{table.strip()}\n\n{end}{after}"
