"""What `fustal evaluate` and `fustal audit` print for readers: aligned tables with units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd


def map_text(table: pd.DataFrame, averages: Mapping[str, float]) -> str:
    """AP per class and threshold, their mean, and the averages over thresholds, in percent.

    Args:
        table: index class, one column per tIoU threshold, fractions (`detection_map`).
        averages: range of thresholds -> mean of the mAP over them, a fraction.
    """
    names = [str(name) for name in table.index]
    width = max(map(len, [*names, _AP, *(f"avg {name}" for name in averages)]))
    rule = "-" * (width + 7 * len(table.columns))
    lines = [_row(_AP, [f"{t:g}" for t in table.columns], width), rule]
    for name, values in zip(names, 100 * table.to_numpy(), strict=True):
        lines.append(_row(name, [f"{value:.1f}" for value in values], width))
    means = [f"{100 * value:.1f}" for value in table.mean()]
    lines += [rule, _row("mAP", means, width)]
    lines += [
        _row(f"avg {name}", [f"{100 * value:.1f}"], width) for name, value in averages.items()
    ]
    return "\n".join(lines)


def count_of(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 video", "1,200 videos"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


_AP = "AP (%) at tIoU"


def _row(name: str, cells: Sequence[str], width: int) -> str:
    return name.ljust(width) + "".join(cell.rjust(7) for cell in cells)


def quality_text(row: pd.Series) -> str:
    """The quality report in groups, with units.

    Args:
        row: of `pseudo_label_quality`, fractions and seconds.
    """
    tious = [name.partition("@")[2] for name in row.index if name.startswith("precision@")]
    lines = [
        _line("proposals", f"{row['proposals']:,.0f}"),
        _line("true segments", f"{row['instances']:,.0f}"),
        _line("proposals per true segment", f"{row['proposals_per_instance']:.2f}"),
        _line("  that touch it, if any does", _number(row["fragments"], "{:.2f}")),
        "",
        _row("Agreement (%) at tIoU", tious, _NAMES),
    ]
    for name, key in (("precision", "precision"), ("recall", "recall"), ("F1", "f1")):
        lines.append(_row(f"  {name}", [_percent(row[f"{key}@{t}"]) for t in tious], _NAMES))
    lines += ["", "Borders of the pairs matched at tIoU 0.5, mean absolute error"]
    for side in ("start", "end"):
        seconds = _number(row[f"{side}_error_s"], "{:.2f}")
        share = _percent(row[f"{side}_error_relative"])
        lines.append(f"{_line(f'  {side}', seconds)} s {share:>7} % of the true length")
    lines.append(_line("  mean tIoU of the pairs", _number(row["mean_tiou"], "{:.3f}")))
    for title, entries in (("Video time with wrong labels (%)", TIME), ("Kinds (%)", KINDS)):
        lines += ["", title]
        lines += [
            f"{_line(f'  {name}', _percent(row[key]))}   {what}" for key, name, what in entries
        ]
    return "\n".join(lines)


def by_class_text(table: pd.DataFrame) -> str:
    """Agreement at tIoU 0.5, a line for each class of `quality_by_class`."""
    width = max([_NAMES, *(len(name) + 4 for name in table.index)])
    head = ("prop.", "true", "prec.", "recall", "F1")
    lines = [_row("Classes, agreement (%) at 0.5", head, width)]
    for name, row in table.iterrows():
        shares = [_percent(row[f"{key}@0.5"]) for key in ("precision", "recall", "f1")]
        cells = [f"{row['proposals']:.0f}", f"{row['instances']:.0f}", *shares]
        lines.append(_row(f"  {name}", cells, width))
    return "\n".join(lines)


TIME = (
    ("wrong_time", "any class wrong", "a class too many or too few"),
    ("spurious_time", "spurious", "a class too many"),
    ("missed_time", "missed", "a class too few"),
)
KINDS = (
    ("true", "true", "takes a segment of its class, tIoU >= 0.5"),
    ("duplicate", "duplicate", "its segment is taken by a better-scored one"),
    ("localisation", "localisation", "0.1 <= tIoU < 0.5 with its class"),
    ("wrong_class", "wrong class", "tIoU >= 0.1 with another class only"),
    ("background", "background", "tIoU < 0.1 with every segment"),
)
_NAMES = 30


def _line(name: str, cell: str) -> str:
    return _row(name, [cell], _NAMES)


def _percent(fraction: float) -> str:
    return _number(100 * fraction, "{:.1f}")


def _number(value: float, form: str) -> str:
    """A number, or a dash where there was nothing to average."""
    return "-" if pd.isna(value) else form.format(value)
