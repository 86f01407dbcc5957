"""Commands about result files of any method: ``evaluate`` and ``audit``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fustal_core.annotations import DataError
from fustal_core.config import SettingsError

Predictions = Annotated[Path, typer.Argument(help="ActivityNet-style result file of any method.")]
GroundTruth = Annotated[Path, typer.Argument(help="ActivityNet-style annotation file.")]
Subset = Annotated[str | None, typer.Option(help="Subset of the annotations, e.g. test; all.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def evaluate(
    predictions: Predictions,
    ground_truth: GroundTruth,
    subset: Subset = None,
    tiou: Annotated[
        str, typer.Option(help="Thresholds: LOW:HIGH in steps of 0.1, LOW:STEP:HIGH, or A,B,C.")
    ] = "0.1:0.7",
    json_: Json = False,
) -> None:
    """Detection mAP of a result file, percent; with --json fractions."""
    from fustal_core.metrics import average_ranges, detection_map
    from fustal_core.results import read_detections, read_ground_truth

    thresholds = parse_tiou(tiou)
    truth = read_ground_truth(ground_truth, subset).segments
    detections = read_detections(predictions)
    try:
        table = detection_map(detections, truth, thresholds)
    except ValueError as error:
        raise DataError([f"{predictions}: {error}"]) from None
    means = table.mean()
    averages = {
        f"{low:g}:{high:g}": float(means[members].mean())
        for (low, high), members in average_ranges(thresholds).items()
    }
    if json_:
        per_class = {
            label: {f"{t:g}": value for t, value in row.items()} for label, row in table.iterrows()
        }
        mean_ap = {f"{t:g}": value for t, value in means.items()}
        print(json.dumps({"mAP": mean_ap, "average": averages, "per_class": per_class}, indent=1))
        return
    table.loc["mAP"] = means
    print((100 * table).rename(columns="{:g}".format).to_string(float_format="{:.1f}".format))
    for name, value in averages.items():
        print(f"avg {name:14}{100 * value:.1f}")


def audit(
    proposals: Predictions, ground_truth: GroundTruth, subset: Subset = None, json_: Json = False
) -> None:
    """Pseudo-label quality of anyone's proposals: precision, recall, borders, kinds of error."""
    from fustal_core.quality import pseudo_label_quality
    from fustal_core.results import read_detections, read_ground_truth

    truth = read_ground_truth(ground_truth, subset)
    labels = read_detections(proposals)
    try:
        row = pseudo_label_quality(labels, truth.segments, truth.videos["duration_s"]).iloc[0]
    except ValueError as error:
        raise DataError([f"{proposals}: {error}"]) from None
    print(row.to_json(indent=1) if json_ else row.to_string(float_format="{:.3f}".format))


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
            count = round((high - low) / width) if len(step) <= 1 and width > 0 else -1
            values = [round(low + i * width, 10) for i in range(count + 1)]
    except ValueError:
        values = []
    if not values or not all(0 < value <= 1 for value in values):
        raise SettingsError(f"--tiou: expected e.g. 0.1:0.7, 0.5:0.05:0.95 or 0.5, got {text!r}")
    return values
