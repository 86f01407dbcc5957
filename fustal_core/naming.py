"""What the study's tables call its methods."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from fustal_core.made_from import STARTS_FROM
from fustal_core.stage_settings import Method

if TYPE_CHECKING:
    import pandas as pd

    from fustal_core.stages import Study

COLA, CROSS_VIDEO, ACM_NET, FTCL = "CoLA", "FuSTAL generator", "ACM-Net", "FTCL"
HR_PRO_SNIPPET, HR_PRO = "HR-Pro (snippets)", "HR-Pro"
GENERATORS: dict[Method, str] = {
    "cola": COLA,
    "cross-video": CROSS_VIDEO,
    "acm-net": ACM_NET,
    "ftcl": FTCL,
    "hr-pro-snippet": HR_PRO_SNIPPET,
    "hr-pro": HR_PRO,
}
BASELINES = {CROSS_VIDEO: COLA} | {
    GENERATORS[method]: GENERATORS[baseline] for method, baseline in STARTS_FROM.items()
}
"""What a generator adds a part to: its own model without the contrast, or the one it starts from."""
FLOOR, STUDENT = "student on all proposals", "student on selected proposals"
FUSTAL = "FuSTAL (student + EMA distillation)"
CEILING = "student on true segments (ceiling)"
STEPS = RAW, SELECTED, TRAINED, DISTILLED = (
    "raw proposals",
    "selected proposals",
    "student",
    "student + EMA",
)
"""What becomes of a generator's proposals, in order."""
BEST_ON_TEST = "best-on-test"
_TRAINED_WITH: dict[Method, tuple[str, ...]] = {
    "cola": ("generation",),
    "cross-video": ("generation",),
    "acm-net": ("acm_net",),
    "ftcl": ("acm_net", "ftcl"),
    "hr-pro-snippet": ("hr_pro",),
    "hr-pro": ("hr_pro", "hr_pro_instance"),
}
"""Sections of the settings of each generator's training, and of the one whose weights it starts from."""


def supervision_name(method: Method) -> str:
    """What a generator's training is told: the classes of a "video", or a "point" of each action."""
    return "point" if method in ("hr-pro-snippet", "hr-pro") else "video"


def own_generator(study: Study) -> str:
    """Name of the generator whose proposals the run's pseudo labels are."""
    return GENERATORS[study.settings.generation.method]


def all_proposals(study: Study, method: Method) -> str:
    """What the label quality table calls a generator's proposals: plainly so for the run's own."""
    own = method == study.settings.generation.method
    return "all proposals" if own and method != "cola" else f"all proposals ({GENERATORS[method]})"


def display_name(study: Study, name: str) -> str:
    """What this run's tables call a method: its name and what the settings make of it.

    A student of proposals other than FuSTAL's says whose they are, and is not called FuSTAL; a row
    that owes its weights or its labels to a choice by test labels says "(best-on-test)". Else it is
    the name itself.

    Args:
        name: "student" is part of every student's name, "true segments" of the ceiling's.
    """
    own = study.settings.generation.method
    if "true segments" in name:
        chosen = _chosen_on_test(study, "student")
    elif "student" in name:
        chosen = _chosen_on_test(study, "student") or _generator_chosen_on_test(study, own)
        if own != "cross-video":
            plain = "student + EMA distillation" if name == FUSTAL else name
            name = f"{plain} [generator: {own}]"
    else:
        method = next((key for key, value in GENERATORS.items() if value == name), own)
        chosen = _generator_chosen_on_test(study, method)
    return f"{name} ({BEST_ON_TEST})" if chosen else name


def choices_on_test(study: Study, *methods: Method) -> list[str]:
    """Which of the generators and the students were chosen by test labels.

    methods: of the generators; none: the run's own.
    """
    generators = methods or (study.settings.generation.method,)
    chosen = {
        "generator": any(_generator_chosen_on_test(study, method) for method in generators),
        "students": _chosen_on_test(study, "student"),
    }
    return [name for name, is_chosen in chosen.items() if is_chosen]


def settings_on_test(study: Study) -> list[str]:
    """The settings by which weights of a run are chosen by test labels, ``generation.select``, say."""
    sections = dict.fromkeys([*chain.from_iterable(_TRAINED_WITH.values()), "student"])
    return [f"{name}.select" for name in sections if _chosen_on_test(study, name)]


def _generator_chosen_on_test(study: Study, method: Method) -> bool:
    return any(_chosen_on_test(study, name) for name in _TRAINED_WITH[method])


def _chosen_on_test(study: Study, section: str) -> bool:
    return getattr(study.settings, section).select == BEST_ON_TEST


def without_seeds(sources: pd.Series) -> str:
    """What rows of several seeds are from: their sources but for the seed, each once."""
    return "; ".join(sources.str.replace(r", seed \d+", "", regex=True).unique())
