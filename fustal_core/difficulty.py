"""Easier and harder simulated data: where each mechanism helps, and where it stops.

A strength of the simulator is turned down or up, all else staying as it is; both generators are trained
on data of that difficulty, and selection is measured on the proposals of FuSTAL's. Within a seed all
settings have the same videos with the same actions: only what they look like changes.

The settings are many, so the data and the generators are small (``SMALL``): these numbers are to be
compared with each other, not with those of the main table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from fustal_core.claims import CLAIM_POINTS
from fustal_core.config import Settings, make_settings
from fustal_core.jobs import Job, generation, student
from fustal_core.metrics import AVERAGE
from fustal_core.naming import COLA, CROSS_VIDEO, without_seeds
from fustal_core.rounding import mean_and_spread
from fustal_core.rundir import changed_results
from fustal_core.selection import score_proposals, select
from fustal_core.simulator_settings import STRENGTHS, SimulatorSettings
from fustal_core.stages import Study

KNOBS: dict[str, str] = {
    "video_shift": "camera and light of a whole video: what comparing videos is meant to overcome",
    "instance_spread": "weak actions and distractors beside strong ones: what a single video hides",
    "incompleteness": "less of an action looks like its class: proposals get too short",
    "border_ambiguity": "the time around an action looks like its ends: borders blur",
    "scene_strength": "the class's scene, in and out of the action: context taken for action",
    "distractor_rate": "bursts that are no action: lone proposals that selection should drop",
    "end_strength": "beginnings and ends, which classes share, and what lies around them are stronger",
    "end_sharing": "classes begin and end alike: ends tell less about the class",
    "context_strength": "what a class is seen in around its actions only: proposals get too long",
    "motion_strength": "'something moves', in actions and elsewhere: background taken for action",
    "distractor_strength": "stronger bursts that are no action: false proposals with high scores",
    "lookalike_share": "bursts that resemble the video's own class: false proposals of the right class",
    "class_similarity": "classes look alike: the wrong class",
    "class_relation": "related classes look more alike: the wrong one of two",
    "noise": "noise in every snippet: runs break up",
    "noise_correlation_s": "noise that lasts: it looks like short actions",
}
"""Every strength of the simulator -> the difficulty that it makes.

The first six are tried by default (``analysis.difficulties``), for each belongs to an aim of the paper:
two to that of cross-video contrast, two are errors of borders, which only the student can mend, and two
make the false proposals that selection is there for.
"""
FACTORS = (0.5, 2.0)
"""What the default of a strength is multiplied by."""
DEFAULT = "default"
SMALL: dict[str, float] = {
    "simulation.num_classes": 20,
    "simulation.train_videos": 60,
    "simulation.test_videos": 60,
    "simulation.max_video_s": 120.0,
    "simulation.feature_dim": 128,
    "generation.hidden_channels": 96,
    "generation.length": 200,
    "generation.iterations": 100,
}
"""Sizes at most. Chosen by what they cost, and so that CoLA on the default data has a task that can get
easier and harder: about 30 mAP. Chosen before any gain was looked at."""
_SAME: dict[str, Any] = {
    "generation.method": "cross-video",
    "generation.learning_rate": 1e-3,  # the published one does nothing in so few iterations
    "generation.train_classes": "video labels",
    "generation.select": "last",
    "generation.evaluate_every": 0,
    "student.select": "last",
    "student.evaluate_every": 0,
    "evaluation.exclude": (),
    "evaluation.ambiguous": "",
}
_LENGTHENED = ("epochs", "switch_epoch")
"""Settings of a student that grow as training videos become fewer."""

ALL, SELECTED, STUDENT, EMA = "all proposals", "selected proposals", "student", "student + EMA"
MECHANISMS: dict[str, tuple[str, str, str, float]] = {
    "cross-video contrast": (CROSS_VIDEO, COLA, AVERAGE, 1.0),
    "selection": (SELECTED, ALL, "f1@0.5", 100.0),
    "student": (STUDENT, CROSS_VIDEO, AVERAGE, 1.0),
    "EMA distillation": (EMA, STUDENT, AVERAGE, 1.0),
}
"""Mechanism -> with it, without it, the measure, and what makes points of the measure."""
_READ = ("mechanism", "knob", "points of", "at its lowest", DEFAULT, "at its highest", "change")
_READ += ("helps", "hurts")


@dataclass(frozen=True)
class Difficulty:
    """One setting of the simulator with one seed.

    Attributes:
        knob: the strength that was turned, or ``DEFAULT``.
        value: of it; NaN where nothing was.
        study: on data of this difficulty.
        reference: the study of the same seed where nothing was turned.
    """

    knob: str
    value: float
    study: Study
    reference: Study


def chosen_knobs(settings: Settings) -> list[str]:
    """The strengths that ``analysis.difficulties`` names, in the order of ``KNOBS``."""
    names = settings.analysis.difficulties
    return [knob for knob in KNOBS if knob in names or "all" in names]


def settings_grid(
    settings: SimulatorSettings,
    knobs: Iterable[str],
    factors: Sequence[float] = FACTORS,
) -> list[tuple[str, float, dict[str, float]]]:
    """What is tried: knob, its value, and the settings by dotted name.

    Args:
        settings: whose strengths are turned, one at a time.
        knobs: names of strengths.
        factors: >= 0, of the strength; a share is cut at 1, and what is no change is left out.

    Returns:
        ``(DEFAULT, nan, {})`` first, then the knobs in their order, values rising.

    Raises:
        ValueError: a knob that is no strength of the simulator (named), a negative factor.
    """
    if min(factors, default=0) < 0:
        raise ValueError(f"factors: expected numbers >= 0, got {min(factors)}")
    grid: list[tuple[str, float, dict[str, float]]] = [(DEFAULT, float("nan"), {})]
    for knob in knobs:
        usual, most = _strength(settings, knob)
        values = {min(usual * factor, most) for factor in factors} - {usual}
        grid += [(knob, value, {f"simulation.{knob}": value}) for value in sorted(values)]
    return grid


def _strength(settings: SimulatorSettings, knob: str) -> tuple[float, float]:
    """A strength's value, and the largest that is allowed."""
    if knob not in STRENGTHS:
        known = ", ".join(STRENGTHS)
        raise ValueError(f"{knob!r} is no strength of the simulator; these are: {known}")
    metadata = SimulatorSettings.model_fields[knob].metadata
    bounds = [float(bound.le) for bound in metadata if hasattr(bound, "le")]
    return getattr(settings, knob), min(bounds, default=np.inf)


def small_sizes(settings: Settings) -> dict[str, Any]:
    """Overrides that make a study small: no size above ``SMALL``, none above the study's own.

    A student has as many more epochs as there are fewer training videos: about as many steps.
    """
    sizes = {}
    for name, most in SMALL.items():
        section, _, field = name.partition(".")
        sizes[name] = min(most, getattr(getattr(settings, section), field))
    more = settings.simulation.train_videos / sizes["simulation.train_videos"]
    own = settings.student
    epochs = {name: round(getattr(own, name) * more) for name in _LENGTHENED}
    return sizes | _SAME | {f"student.{name}": number for name, number in epochs.items()}


def studies(
    study: Study,
    seeds: Sequence[int],
    knobs: Iterable[str],
    factors: Sequence[float] = FACTORS,
) -> list[Difficulty]:
    """Small studies on data of each difficulty, in ``variants/difficulty-*`` of the run directory.

    Args:
        study: of simulated data. One of a data folder has no strengths to turn, nor has one whose knobs
            are all off: they get no studies.
        seeds: of data and training, one data set each.
        knobs, factors: as in :func:`settings_grid`.

    Returns:
        Of each seed the default first.
    """
    if study.settings.data != "simulated":
        return []
    grid = settings_grid(study.settings.simulation, knobs, factors)
    if len(grid) == 1:  # the default alone has nothing to be compared with
        return []
    small = small_sizes(study.settings)
    made: list[Difficulty] = []
    for seed in seeds:
        reference: Study | None = None
        for knob, value, overrides in grid:
            turned = "" if knob == DEFAULT else f"-{knob}-{value:g}"
            own = study.other(
                f"difficulty{turned}-seed{seed}", seed=seed, overrides=small | overrides
            )
            reference = reference or own
            made.append(Difficulty(knob, value, own, reference))
    return made


def jobs_of(tried: Sequence[Difficulty], students: bool) -> list[Job]:
    """The trainings of the studies: both generators, and the two students where they are wanted."""
    wanted = []
    for one in tried:
        cola = generation(one.study, "cola")
        # One after the other, so that the same worker takes both and makes the data once.
        wanted += [cola, replace(generation(one.study, "cross-video"), after=(cola,))]
        if students:
            wanted += [student(one.study, distill=distill) for distill in (False, True)]
    return wanted


def measure(tried: Sequence[Difficulty], students: bool = False) -> pd.DataFrame:
    """What the trainings came to, made where they are not there yet.

    Returns:
        A row for each setting, seed and thing measured: ``knob``, ``value``, ``default`` (of the knob;
        both NaN where nothing was turned), ``seed``, ``measured``, ``avg 0.1:0.7`` (percent, on the test
        videos; generators and students), ``f1@0.5`` (fraction, of the training videos' labels; all
        proposals of FuSTAL's generator and the selected ones), ``data``, ``origin``, ``source``.
    """
    columns = ["knob", "value", "default", "seed", "measured", AVERAGE, "f1@0.5"]
    rows = []
    for one in tried:
        simulation = one.reference.settings.simulation
        about = {
            "knob": one.knob,
            "value": one.value,
            "default": np.nan if one.knob == DEFAULT else float(getattr(simulation, one.knob)),
            "seed": one.study.settings.seed,
            "data": one.reference.data_name,
            "origin": "measured",
            "source": _source(one.study),
        }
        rows += [about | own for own in _measured(one, students)]
    return pd.DataFrame(rows, columns=[*columns, "data", "origin", "source"])


def _measured(one: Difficulty, students: bool) -> list[dict[str, Any]]:
    """What was measured in a study, by its seed's reference: videos and actions are the same there."""
    study, reference = one.study, one.reference
    own = study.generation("cross-video")
    scored = score_proposals(own.train, study.settings.selection)
    selected = select(scored, study.settings.selection, reference.video_classes)
    found = {COLA: study.generation("cola").detections, CROSS_VIDEO: own.detections}
    if students:
        found[STUDENT] = study.student(distill=False).detections
        found[EMA] = study.student(distill=True).detections
    rows = [
        {"measured": name, AVERAGE: reference.measure(detections)[AVERAGE]}
        for name, detections in found.items()
    ]
    for name, labels in ((ALL, scored), (SELECTED, selected)):
        f1 = reference.measure_labels(labels)["f1@0.5"].iloc[0]
        rows.append({"measured": name, "f1@0.5": float(f1)})
    return rows


def _source(study: Study) -> str:
    settings = study.settings
    changes = changed_results(make_settings(settings.data, settings.profile), settings)
    known = {"seed", *SMALL, *_SAME, *(f"student.{name}" for name in _LENGTHENED)}
    others = [line for line in changes if line.partition(":")[0] not in known]
    small = "small data and trainings (difficulty.SMALL)"
    return ", ".join([f"profile {settings.profile}", f"seed {settings.seed}", small, *others])


def along_knobs(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of :func:`measure` with those of the default setting in each knob, at its default value.

    Knobs stay in their order; in each the values rise, then the seeds. Every knob has values then.
    """
    turned = rows[rows["knob"] != DEFAULT]
    usual = rows[rows["knob"] == DEFAULT].drop(columns=["knob", "value", "default"])
    knobs = turned[["knob", "default"]].drop_duplicates().reset_index(drop=True)
    at_default = knobs.assign(value=knobs["default"]).merge(usual, how="cross")
    both = pd.concat([turned, at_default[rows.columns]], ignore_index=True)
    place = both["knob"].map({knob: place for place, knob in enumerate(knobs["knob"])})
    ordered = both.assign(place=place).sort_values(["place", "value", "seed"], kind="stable")
    return ordered.drop(columns="place").reset_index(drop=True)


def gains(rows: pd.DataFrame) -> pd.DataFrame:
    """What each mechanism gains at every value of every knob, seed by seed.

    Args:
        rows: as from :func:`measure`.

    Returns:
        ``mechanism`` (those of ``MECHANISMS`` that were measured), ``knob``, ``value``, ``default``,
        ``seed``, ``gain`` in points of the test mAP, for selection of the F1 of the training labels.
    """
    keys, table, parts = ["knob", "value", "default", "seed"], along_knobs(rows), []
    for mechanism, (better, worse, measure, scale) in MECHANISMS.items():
        known = table[[*keys, "measured", measure]]
        both = known[known["measured"] == better].merge(
            known[known["measured"] == worse], on=keys, suffixes=("", " without")
        )
        gain = scale * (both[measure] - both[f"{measure} without"])
        parts.append(both[keys].assign(mechanism=mechanism, gain=gain))
    return pd.concat(parts, ignore_index=True)[["mechanism", *keys, "gain"]]


def read_gains(rows: pd.DataFrame) -> pd.DataFrame:
    """The gains in words: where each knob is lowest, at its default, and highest.

    Args:
        rows: as from :func:`measure`.

    Returns:
        A row per mechanism and knob: ``points of``, what is gained; ``at its lowest``, ``default``,
        ``at its highest`` (the knob's value, mean and standard deviation of the gain over seeds; empty
        where the default is the lowest or highest that was tried); ``change``, from the lowest to the
        highest, seed by seed; the values of the knob at which the mechanism ``helps`` or ``hurts`` by
        more than ``CLAIM_POINTS`` with every seed; ``seeds``, ``data`` and ``source``, of the default.
    """
    gained = gains(rows)
    about = {
        "seeds": ", ".join(map(str, sorted(rows["seed"].unique()))),
        "data": ", ".join(rows["data"].unique()),
        "source": without_seeds(rows.loc[rows["knob"] == DEFAULT, "source"]),
    }
    read = []
    for (mechanism, knob), own in gained.groupby(["mechanism", "knob"], sort=False):
        by_value = own.groupby("value")["gain"]
        by_seed = own.pivot_table("gain", index="seed", columns="value")
        low, usual, high = own["value"].min(), own["default"].iloc[0], own["value"].max()
        text = {value: f"{value:g}: {mean_and_spread(points, '+')}" for value, points in by_value}
        read.append(
            {
                "mechanism": mechanism,
                "knob": knob,
                "points of": unit(mechanism),
                "at its lowest": text[low] if low < usual else "",
                "default": text[usual],
                "at its highest": text[high] if high > usual else "",
                "change": mean_and_spread(by_seed[high] - by_seed[low], "+"),
                "helps": _names(by_value.min() > CLAIM_POINTS),
                "hurts": _names(by_value.max() < -CLAIM_POINTS),
                **about,
            }
        )
    return pd.DataFrame(read, columns=[*_READ, *about])


def unit(mechanism: str) -> str:
    """What the gain of a mechanism is points of."""
    measure = MECHANISMS[mechanism][2]
    return f"test mAP, {AVERAGE}" if measure == AVERAGE else "F1 of labels at tIoU 0.5"


def _names(chosen: pd.Series) -> str:
    return ", ".join(f"{value:g}" for value in chosen.index[chosen])


def about_seeds(count: int) -> str:
    """How far gains that were measured with so many seeds can be trusted."""
    line = f"A gain counts above {CLAIM_POINTS:g} point, "
    if count == 1:
        return f"{line}and even then a single seed is little evidence: there is no spread."
    return (
        f"{line}and in every one of the {count} seeds (of data and training). Where a mechanism does "
        f"nothing, chance alone lifts all {count} above zero in 1 case of {2**count}."
    )
