"""What the papers say, claim by claim: the single list of it, with where it is said.

Beside the papers' claims stand the targets of the simulated data and this study's own questions; their
source says so. What was measured of each is in `fustal_core.claims`.
"""

from __future__ import annotations

from dataclasses import dataclass

from fustal_core.ema_quality import GAIN as EMA_GAIN
from fustal_core.metrics import AVERAGE
from fustal_core.stage_settings import Method

F1, PRECISION = "f1@0.5", "precision@0.5"
MEASURES = {
    AVERAGE: "average mAP (0.1:0.7)",
    F1: "F1 at tIoU 0.5",
    PRECISION: "precision at tIoU 0.5",
    EMA_GAIN: "F1 at tIoU 0.5, last epoch",
}
"""Columns of results, and what claims call them. The first is in percent, the others are fractions."""


@dataclass(frozen=True)
class Claim:
    """What somebody says.

    Attributes:
        key: what notebooks call it.
        says, where: the wording, published numbers included, and its source.
        measure: the column of results in which it is a gain; empty: measured in a way of its own.
        cells: of the ablation, the better and the worse one (group and name, see `grid`); a single
            one whose measure is a gain itself; empty: none.
        methods: the generators it is about; empty: the run's own.
    """

    key: str
    says: str
    where: str
    measure: str = ""
    cells: tuple[tuple[str, str], ...] = ()
    methods: tuple[Method, ...] = ()


_COLA, _GENERATOR = ("stages", "none"), ("stages", "G")
_FILTERS = (("stages", "G+S"), ("stages", "G+C"))
_STUDENT, _FUSTAL = ("stages", "G+S+T"), ("stages", "G+S+T+D")
_STAGE_1: tuple[Method, ...] = ("cola", "cross-video")
_FTCL: tuple[Method, ...] = ("acm-net", "ftcl")
_HR_PRO: tuple[Method, ...] = ("hr-pro-snippet", "hr-pro")

DATA = (
    Claim(
        "calibration",
        "target of the calibration: CoLA at 40 ± 3 average mAP (0.1:0.7; real THUMOS'14: 41.7)",
        "CoLA, README of the release",
        methods=("cola",),
    ),
    Claim(
        "several-classes",
        "13.5 % of training videos show several classes (± 5), as in THUMOS'14",
        "THUMOS'14 annotations",
    ),
    Claim(
        "durations",
        "median durations rank the classes as in THUMOS'14 (correlation > 0.8)",
        "THUMOS'14 annotations",
    ),
)
FUSTAL = (
    Claim(
        "contrast",
        "the cross-video contrast improves the generator's localization",
        "FuSTAL, stage 1",
        AVERAGE,
        (_GENERATOR, _COLA),
        _STAGE_1,
    ),
    Claim(
        "contrast-labels",
        "the cross-video contrast gives better pseudo labels",
        "FuSTAL, stage 1",
        F1,
        (("stages", "G+S"), ("stages", "S")),
        _STAGE_1,
    ),
    Claim(
        "agreement",
        "the share of true proposals rises with the IoU score",
        "FuSTAL, histogram",
    ),
    Claim(
        "filter-purity",
        "the IoU-score filter gives purer labels than the confidence filter",
        "FuSTAL, stage 2",
        PRECISION,
        _FILTERS,
    ),
    Claim(
        "filter",
        "the IoU-score filter gives better labels over all than the confidence filter",
        "FuSTAL, stage 2",
        F1,
        _FILTERS,
    ),
    Claim(
        "selection-labels",
        "selected proposals are better labels than all proposals",
        "FuSTAL, stage 2",
        F1,
        (("stages", "G+S"), _GENERATOR),
    ),
    Claim(
        "selection",
        "selected labels train a better student than all proposals",
        "FuSTAL, stage 2",
        AVERAGE,
        (_STUDENT, ("stages", "G+T")),
    ),
    Claim(
        "student",
        "a student trained on selected labels is better than its generator",
        "FuSTAL, stage 3",
        AVERAGE,
        (_STUDENT, _GENERATOR),
    ),
    Claim(
        "ema",
        "EMA distillation improves the student",
        "FuSTAL, stage 3",
        AVERAGE,
        (_FUSTAL, _STUDENT),
    ),
    Claim(
        "ema-labels",
        "EMA labels are better than the selected labels in the same crops",
        "FuSTAL, stage 3",
        EMA_GAIN,
        (_FUSTAL,),
    ),
    Claim(
        "fustal",
        "FuSTAL as a whole improves on CoLA (published on THUMOS'14: 50.8 and 41.7)",
        "FuSTAL, abstract; CoLA, README of the release",
        AVERAGE,
        (_FUSTAL, _COLA),
        _STAGE_1,
    ),
)
OTHERS = (
    Claim(
        "alignment",
        "FTCL improves on the ACM-Net it starts from (published on THUMOS'14: 43.6 and 42.6)",
        "FTCL, ablation",
        AVERAGE,
        methods=_FTCL,
    ),
    Claim(
        "alignment-alone",
        "FTCL's gain is due to the alignment, not to more training",
        "control of this study, not in the paper",
        AVERAGE,
        methods=_FTCL,
    ),
    Claim("fsd", "FTCL's FSD contrast contributes", "FTCL, ablation", AVERAGE, methods=_FTCL),
    Claim("lcs", "FTCL's LCS contrast contributes", "FTCL, ablation", AVERAGE, methods=_FTCL),
    Claim(
        "unstable",
        "ACM-Net's training is unstable over seeds",
        "README of FTCL's release",
        methods=("acm-net",),
    ),
    Claim(
        "stage-2",
        "HR-Pro's stage 2 improves detection (published on THUMOS'14: 60.4 over 56.5)",
        "HR-Pro; log of the release",
        AVERAGE,
        methods=_HR_PRO,
    ),
    Claim(
        "stage-2-ranks",
        "HR-Pro's stage 2 ranks proposals better by their tIoU with the truth",
        "HR-Pro",
        methods=_HR_PRO,
    ),
    Claim(
        "points-over-classes",
        "HR-Pro, told points, detects better than FuSTAL, told classes alone",
        "question of this study, not in the paper",
        AVERAGE,
        methods=_HR_PRO,
    ),
    Claim(
        "points-over-segments",
        "HR-Pro detects better than a student on segments that cost the same labelling time",
        "question of this study, not in the paper",
        AVERAGE,
        methods=_HR_PRO,
    ),
)
CLAIMS = (*DATA, *FUSTAL, *OTHERS)
