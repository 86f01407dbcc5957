"""What a run directory holds, collected for its report: figures with their captions, tables, claims.

Only files are read, nothing is computed again. What is missing or damaged becomes a note, which the
report shows where the thing would have been: no part of a run is left out silently.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fustal_core.annotations import DataError
from fustal_core.config import SettingsError, flatten, make_settings, setting_names
from fustal_core.report_section import (
    Section,
    Table,
    read_object,
    read_section,
    read_table,
    reason_of,
)
from fustal_core.rundir import CACHE


@dataclass
class RunReport:
    """All that a report shows of a run.

    settings: rows ``name``, ``value``, ``default``, ``meaning`` and ``changed`` (bool), all of them.
    provenance: name -> value, nested names joined by dots: of who opened the run directory last, and
        of what made its products.
    claims: rows of the notebooks' claims, the column ``notebook`` last; text.
    """

    name: str
    settings: pd.DataFrame
    provenance: dict[str, Any]
    sections: list[Section]
    claims: pd.DataFrame
    notes: list[str]

    def setting(self, name: str) -> str:
        """A setting's value as text, empty if the run has none of this name."""
        values = self.settings.loc[self.settings["name"] == name, "value"]
        return str(values.iloc[0]) if len(values) else ""

    @property
    def data_name(self) -> str:
        """What the tables call the data, else what the settings do."""
        return next((s.data_name for s in self.sections if s.data_name), self.setting("data"))

    @property
    def main_results(self) -> Table | None:
        """The main table, of the first notebook that has one."""
        return next((s.main_results for s in self.sections if s.main_results), None)


def collect_run(run_dir: Path, expected: Sequence[str] = ()) -> RunReport:
    """Read what the notebooks of a run left in its directory.

    Args:
        run_dir: with the ``config.json`` that every run writes first.
        expected: notebooks such as ``"00_data"`` that a complete run has; one that is missing is said
            to be. Others that are there are collected as well.

    Raises:
        SettingsError: not a run directory.
        DataError: its ``config.json`` is damaged.
        OSError: it cannot be read.
    """
    if not (run_dir / "config.json").is_file():
        raise SettingsError(f"{run_dir} is no run directory: it has no config.json; see fustal run")
    try:
        settings, notes = _settings(read_object(run_dir / "config.json"))
    except (ValueError, RecursionError) as error:
        raise DataError([f"{run_dir / 'config.json'}: {error}"]) from None
    provenance = {}
    try:
        provenance = flatten(read_object(run_dir / "provenance.json"))
    except (ValueError, RecursionError, OSError) as error:
        notes.append(f"provenance.json: {reason_of(error)}")
    provenance |= _made_with(run_dir)
    found = {path.name for path in run_dir.glob("[0-9][0-9]_*") if path.is_dir()}
    sections = [read_section(run_dir / name) for name in sorted(found | set(expected))]
    claims = _claims(run_dir / "claims.csv", all_claims(sections), notes)
    return RunReport(run_dir.resolve().name, settings, provenance, sections, claims, notes)


def _made_with(run_dir: Path) -> dict[str, str]:
    """Devices, revisions and versions that made the run's products, and how many each did."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    data = set(run_dir.glob(f"{CACHE}/**/made.json"))  # drawn on a CPU, whatever trains on it
    for path in sorted(set(run_dir.rglob("made.json")) - data):
        # What is damaged is made again.
        with suppress(ValueError, RecursionError, OSError, KeyError, AttributeError):
            for name, value in read_object(path)["made_with"].items():
                counts[f"products.{name}"][str(value)] += 1
    return {
        name: ", ".join(f"{value} ({count})" for value, count in found.most_common())
        for name, found in counts.items()
    }


def _settings(stored: dict[str, Any]) -> tuple[pd.DataFrame, list[str]]:
    """Stored settings beside the defaults of their profile, as far as this version knows them."""
    notes, defaults = [], {}
    try:
        plain = make_settings(
            str(stored.get("data", "")),
            str(stored.get("profile")),
            stored.get("seed", 0),
            {"constants": stored.get("constants", "thumos14")},
        )
        defaults = flatten(plain.model_dump(mode="json"))
    except SettingsError as error:
        notes.append(f"config.json: cannot be compared with this version's defaults: {error}")
    meanings = setting_names()
    rows = [
        {
            "name": name,
            "value": value,
            "default": defaults.get(name, "unknown"),
            "meaning": meanings.get(name, ""),
            "changed": name not in defaults or value != defaults[name],
        }
        for name, value in flatten(stored).items()
    ]
    return pd.DataFrame(rows, columns=["name", "value", "default", "meaning", "changed"]), notes


def all_claims(sections: Sequence[Section]) -> pd.DataFrame:
    """The claims of all notebooks in one table, whatever columns they have.

    The first column of each is the claim itself, under whatever name; differing names are joined.
    A column ``notebook`` with the section's name comes last.
    """
    frames = [s.claims.assign(notebook=s.name) for s in sections if s.claims is not None]
    if not frames:
        return pd.DataFrame()
    firsts = list(dict.fromkeys(frame.columns[0] for frame in frames))
    first = " / ".join(sorted(firsts, key=lambda name: -sum(f.columns[0] == name for f in frames)))
    frames = [frame.rename(columns={frame.columns[0]: first}) for frame in frames]
    order = max(frames, key=lambda frame: frame.shape[1]).columns
    table = pd.concat(frames, ignore_index=True).fillna("")
    others = [name for name in table if name not in order]
    return table[[*order.drop("notebook"), *others, "notebook"]]


def _claims(path: Path, every: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """The run's own table, which has each claim once; all rows where it is not of these notebooks."""
    try:
        chosen = read_table(path)
    except FileNotFoundError:
        return every
    except (OSError, ValueError) as error:
        notes.append(f"{path.name}: {reason_of(error)}")
        return every
    known = {"notebook"} <= set(chosen) <= set(every)
    if known and set(_rows(chosen)) <= set(_rows(every[chosen.columns])):
        return chosen[[*chosen.columns.drop("notebook"), "notebook"]]
    notes.append(
        f"{path.name}: not what the notebooks say now; the claims of all are shown instead"
    )
    return every


def _rows(frame: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    return frame.itertuples(index=False, name=None)
