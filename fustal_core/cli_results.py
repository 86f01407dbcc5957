"""Commands about result files of any method: ``evaluate`` and ``audit``."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fustal_core.annotations import DataError
from fustal_core.cli_options import Json, check_writable
from fustal_core.config import SettingsError

if TYPE_CHECKING:
    import pandas as pd

    from fustal_core.evaluation import Compared

Predictions = Annotated[Path, typer.Argument(help="ActivityNet-style result file of any method.")]
GroundTruth = Annotated[Path, typer.Argument(help="ActivityNet-style annotation file.")]
Subset = Annotated[
    str | None, typer.Option(help="Subset of the annotations, e.g. test; by default all.")
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="VIDEO[,VIDEO...]",
        help="Leave these videos out of truth and predictions; may be given again. "
        "Moves the numbers either way.",
    ),
]
Ambiguous = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A list of 'VIDEO START END' in seconds: predictions that overlap an interval listed "
        "for their video, however little, are dropped. Usually moves the numbers up.",
    ),
]
PlusOne = Annotated[
    bool,
    typer.Option(
        "--plus-one",
        help="Lengths as end - start + 1 (s) in the tIoU, a habit from pixels. "
        "Moves the numbers up, most for short actions.",
    ),
]
OwnSubset = Annotated[
    bool,
    typer.Option(
        "--own-subset",
        help="Leave out predictions in videos of another subset than --subset, which count as false "
        "otherwise. Moves the numbers up.",
    ),
]
FigureFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Also draw it, into a .png, .pdf or .svg file.")
]
DEFAULT_TIOU = "0.1:0.7"
MOST_THRESHOLDS = 1000


def evaluate(
    predictions: Predictions,
    ground_truth: GroundTruth,
    subset: Subset = None,
    tiou: Annotated[
        str, typer.Option(help="Thresholds: LOW:HIGH in steps of 0.1, LOW:STEP:HIGH, or A,B,C.")
    ] = DEFAULT_TIOU,
    average: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LOW:HIGH",
            help="A further average, over the thresholds of --tiou from LOW to HIGH, which must be "
            "two of them; may be given again. Other numbers stay.",
        ),
    ] = None,
    exclude: Exclude = None,
    ambiguous: Ambiguous = None,
    plus_one: PlusOne = False,
    own_subset: OwnSubset = False,
    all_classes: Annotated[
        bool,
        typer.Option(
            "--all-classes",
            help="Count the annotation file's classes without a segment in what is measured as 0. "
            "Moves the mAP down.",
        ),
    ] = False,
    figure: FigureFile = None,
    json_: Json = False,
) -> None:
    """Detection mAP of a result file, percent; with --json fractions."""
    from fustal_core.evaluation import read_compared, without_unmeasured_classes
    from fustal_core.metrics import detection_map
    from fustal_core.progress import say_note
    from fustal_core.result_text import map_text

    thresholds = parse_tiou(tiou)
    ranges = choose_averages(thresholds, average or [])
    refuse_figure(figure)
    left_out = split_names(exclude or [])
    compared = read_compared(
        predictions, ground_truth, subset, left_out, ambiguous, own_subset=own_subset
    )
    compared = without_unmeasured_classes(compared)
    for note in compared.notes:
        say_note(note)
    truth = compared.truth.segments
    try:
        table = detection_map(compared.detections, truth, thresholds, plus_one=plus_one)
    except ValueError as error:
        raise DataError([f"{predictions}: {error}"]) from None
    if all_classes:
        table = table.reindex(list(compared.classes), fill_value=0.0)
    means = table.mean()
    averages = {name: float(means[members].mean()) for name, members in ranges.items()}
    if figure is not None:
        _draw_evaluation(figure, compared, table, plus_one=plus_one)
    used = stated(
        subset=subset,
        tiou=tiou if tiou != DEFAULT_TIOU else None,
        average=average,
        exclude=left_out,
        ambiguous=ambiguous and ambiguous.name,
        plus_one=plus_one,
        own_subset=own_subset,
        all_classes=all_classes,
    )
    if json_:
        print(map_json(table, averages, used))
    else:
        print(map_text(table, averages))
        print(footer(len(compared.detections), truth, used))


def _draw_evaluation(
    path: Path, compared: Compared, table: pd.DataFrame, *, plus_one: bool
) -> None:
    """The figure of a `detection_map`, with the curves of the threshold next to 0.5."""
    from fustal_core.figures import write_figure
    from fustal_core.figures_evaluation import plot_evaluation

    shown = min(table.columns, key=lambda t: abs(t - 0.5))
    truth = compared.truth.segments
    write_figure(plot_evaluation(compared.detections, truth, table, shown, plus_one=plus_one), path)


def audit(
    proposals: Predictions,
    ground_truth: GroundTruth,
    subset: Subset = None,
    exclude: Exclude = None,
    ambiguous: Ambiguous = None,
    plus_one: PlusOne = False,
    own_subset: OwnSubset = False,
    figure: FigureFile = None,
    json_: Json = False,
) -> None:
    """Pseudo-label quality of anyone's proposals: precision, recall, borders, kinds of error."""
    from fustal_core.evaluation import measured_durations, read_compared
    from fustal_core.progress import say_note
    from fustal_core.quality import pseudo_label_quality, quality_by_class
    from fustal_core.result_text import by_class_text, quality_text

    refuse_figure(figure)
    left_out = split_names(exclude or [])
    compared = read_compared(
        proposals, ground_truth, subset, left_out, ambiguous, own_subset=own_subset
    )
    durations_s, notes = measured_durations(compared)
    for note in (*compared.notes, *notes):
        say_note(note)
    labels, truth = compared.detections, compared.truth.segments
    row = pseudo_label_quality(labels, truth, durations_s, plus_one=plus_one).iloc[0]
    by_class = quality_by_class(labels, truth, plus_one=plus_one)
    if figure is not None:
        from fustal_core.figures import write_figure
        from fustal_core.figures_evaluation import plot_audit

        write_figure(plot_audit(labels, truth, plus_one=plus_one), figure)
    ambiguous_name = ambiguous and ambiguous.name
    used = stated(
        subset=subset,
        exclude=left_out,
        ambiguous=ambiguous_name,
        plus_one=plus_one,
        own_subset=own_subset,
    )
    if json_:
        classes = json.loads(by_class.to_json(orient="index"))
        content = {**json.loads(row.to_json()), "per_class": classes, "options": used}
        print(json.dumps(content, indent=1))
        return
    print(quality_text(row), by_class_text(by_class), sep="\n\n")
    print(footer(len(labels), truth, used))


def stated(**options: str | Sequence[str] | bool | None) -> dict[str, str | Sequence[str] | bool]:
    """The options that differ from their defaults, which are all empty or false."""
    return {name: value for name, value in options.items() if value}


def map_json(
    table: pd.DataFrame,
    averages: dict[str, float],
    used: dict[str, str | Sequence[str] | bool],
) -> str:
    """The numbers of a `detection_map` as fractions, with the options they were measured under."""
    columns = [f"{t:g}" for t in table.columns]
    content = {
        "mAP": dict(zip(columns, table.mean().tolist(), strict=True)),
        "average": averages,
        "per_class": {
            label: dict(zip(columns, row, strict=True))
            for label, row in zip(table.index, table.to_numpy().tolist(), strict=True)
        },
        "options": used,
    }
    return json.dumps(content, indent=1)


def footer(
    detections: int, truth: pd.DataFrame, used: dict[str, str | Sequence[str] | bool]
) -> str:
    """What was measured against what, and the options that differ from their defaults."""
    from fustal_core.result_text import count_of

    classes = count_of(truth["label"].nunique(), "class", "classes")
    against = f"{count_of(len(truth), 'segment')} of {classes}"
    videos = count_of(truth["video"].nunique(), "video")
    lines = ["", f"{count_of(detections, 'detection')} against {against} in {videos}"]
    for name, value in used.items():
        text = "yes" if value is True else value if isinstance(value, str) else ", ".join(value)
        lines.append(f"{name.replace('_', '-')}: {text}")
    return "\n".join(lines)


def split_names(texts: Sequence[str]) -> list[str]:
    """The names in comma-separated lists, each once."""
    names = (name.strip() for text in texts for name in text.split(","))
    return list(dict.fromkeys(name for name in names if name))


def choose_averages(thresholds: Sequence[float], asked: Sequence[str]) -> dict[str, list[float]]:
    """The averages to report: name -> the thresholds averaged.

    Those that the thresholds allow by themselves come first (`metrics.average_ranges`); a name of
    theirs means the same when it is asked for.

    Raises:
        SettingsError: a range whose ends are not two of the thresholds, the lower first.
    """
    from fustal_core.metrics import average_name, average_ranges

    ranges = average_ranges(thresholds)
    for text in asked:
        try:
            low, high = map(float, text.split(":"))
        except ValueError:
            low = high = 0.0
        if not (low < high and {low, high} <= set(thresholds)):
            known = ", ".join(f"{t:g}" for t in thresholds)
            expected = f"expected LOW:HIGH, two of the thresholds of --tiou ({known})"
            raise SettingsError(f"--average: {expected}, got {text!r}")
        if f"{low:g}:{high:g}" not in ranges:
            steps = sorted(t for t in thresholds if low <= t <= high)
            ranges[average_name(steps)] = steps
    return ranges


def refuse_figure(path: Path | None) -> None:
    """Refuse a figure file whose ending names no format, or that cannot be written, before the work."""
    from fustal_core.figures import FORMATS

    if path is None:
        return
    if path.suffix[1:].lower() not in FORMATS:
        allowed = ", ".join(f".{ending}" for ending in FORMATS)
        raise SettingsError(f"--figure: expected a file ending in {allowed}, got '{path}'")
    check_writable(path, "--figure")


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
            # A step that does not end at HIGH stops below it.
            count = math.floor((high - low) / width + 1e-9) if len(step) <= 1 and width > 0 else -1
            fits = count < MOST_THRESHOLDS and (count > 0 or low == high)
            values = [low + i * width for i in range(count + 1)] if fits else []
    except (ValueError, OverflowError):
        values = []
    values = list(dict.fromkeys(round(value, 10) for value in values))
    if not 1 <= len(values) <= MOST_THRESHOLDS or not all(0 < value <= 1 for value in values):
        expected = f"e.g. 0.1:0.7, 0.5:0.05:0.95 or 0.5, at most {MOST_THRESHOLDS} thresholds"
        raise SettingsError(f"--tiou: expected {expected}, got {text!r}")
    return values
