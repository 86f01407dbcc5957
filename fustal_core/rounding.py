"""How the numbers of a table are shown to people."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import pandas as pd

_SHORT = 4


def decimals(numbers: Iterable[float]) -> int:
    """Decimals that a column of a table is shown with.

    Settings, which have at most four, are shown as they are; of measured numbers three decimals if all
    are fractions (below 2), else one, and fewer if these would be zeros.
    """
    finite = [number for number in numbers if math.isfinite(number)]
    most = 3 if max(map(abs, finite), default=0) < 2 else 1
    exact = [round(number, 9) for number in finite]
    short = [digits for digits in range(_SHORT + 1) if _rounded(finite, digits) == exact]
    same = [d for d in range(most + 1) if _rounded(finite, d) == _rounded(finite, most)]
    return min(short or same)


def _rounded(numbers: list[float], digits: int) -> list[float]:
    return [round(number, digits) for number in numbers]


def mean_and_spread(values: pd.Series, sign: Literal["", "+"] = "") -> str:
    """``41.4 ± 1.8``: mean and standard deviation (n - 1); of a single value, it alone.

    sign: "+" writes that of differences, ``+1.2 ± 0.3``.
    """
    mean = f"{values.mean():{sign}z.1f}"  # z: 0.0, not -0.0
    return f"{mean} ± {values.std():.1f}" if len(values) > 1 else mean
