"""FTCL with and without its terms, over seeds of the training alone: what each contrast is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from fustal_core import jobs
from fustal_core.metrics import AVERAGE
from fustal_core.naming import ACM_NET, BEST_ON_TEST, FTCL, choices_on_test
from fustal_core.stage_settings import Method
from fustal_core.stages import Study

TRAINED_ON = "trained on, no contrast"
TERMS: dict[str, dict[str, Any] | None] = {
    ACM_NET: None,
    TRAINED_ON: {"ftcl.fsd_weight": 0.0, "ftcl.lcs_weight": 0.0},
    "without FSD": {"ftcl.fsd_weight": 0.0},
    "without LCS": {"ftcl.lcs_weight": 0.0},
    FTCL: {},
}
"""FTCL with and without its terms -> settings; None: before its training. The second sees the same pairs
as often, so that what more training does is not taken for what a contrast does."""

_METHODS: dict[str, Method] = {
    name: "acm-net" if changes is None else "ftcl" for name, changes in TERMS.items()
}


def training_seeds(study: Study) -> list[int]:
    """The run's own seed and those after it."""
    return [study.settings.seed + more for more in range(study.settings.analysis.term_seeds)]


def term_jobs(study: Study, seeds: Sequence[int]) -> list[jobs.Job]:
    """The trainings of :func:`terms_over_seeds`."""
    return [
        jobs.generation(term(study, seed, name), method)
        for seed in seeds
        for name, method in _METHODS.items()
    ]


def terms_over_seeds(study: Study, seeds: Sequence[int]) -> pd.DataFrame:
    """FTCL with and without its terms on the study's data, over seeds of the training alone.

    Returns:
        ``variant`` (of ``TERMS``), ``seed``, ``data``, ``weights`` ("last" or "best-on-test"), test
        mAP in percent. All variants of a seed start from the same ACM-Net.
    """
    jobs.make(term_jobs(study, seeds))
    rows = []
    for seed in seeds:
        for name, method in _METHODS.items():
            found = term(study, seed, name).generation(method).detections
            chosen = BEST_ON_TEST if "generator" in choices_on_test(study, method) else "last"
            row = {"variant": name, "seed": seed, "data": study.data_name, "weights": chosen}
            rows.append(row | study.measure(found))
    return pd.DataFrame(rows)


def term(study: Study, seed: int, name: str) -> Study:
    """The study with another seed of the training, and with some of FTCL's terms (of ``TERMS``)."""
    of_seed = study.variant(f"seed{seed}", seed=seed)
    overrides = TERMS[name]
    if not overrides:
        return of_seed
    return of_seed.variant(name.replace(",", "").replace(" ", "-"), overrides=overrides)


def paired_difference(
    rows: pd.DataFrame, better: str, worse: str, measure: str = AVERAGE
) -> pd.Series:
    """What one variant gains over another with the same seed, in points; index seed.

    Args:
        rows: as from :func:`terms_over_seeds`.
        better, worse: variants.
        measure: a column of it.
    """
    table = rows.pivot_table(index="seed", columns="variant", values=measure)
    return table[better] - table[worse]
