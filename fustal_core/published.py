"""What the literature reports, to stand beside what a run measured and never mixed with it.

The numbers are other people's, in percent mAP; each row's ``source`` says where it was read (a
paper's abstract, a README of the authors, a list kept by others). An empty cell was not reported in
that source. Nothing here was measured by this package.
"""

from importlib import resources

import pandas as pd


def _table(name: str) -> pd.DataFrame:
    path = resources.files("fustal_core") / "tables" / name
    with path.open(encoding="utf-8") as file:
        return pd.read_csv(file)


def thumos14() -> pd.DataFrame:
    """Results on the THUMOS'14 test videos.

    Returns:
        ``method``, ``year``, ``supervision`` (video, point or full), ``features``, ``mAP@0.1`` to
        ``mAP@0.7``, ``avg 0.1:0.5``, ``avg 0.3:0.7``, ``avg 0.1:0.7`` (percent), ``source``.
    """
    return _table("published_thumos14.csv")


def activitynet13() -> pd.DataFrame:
    """Results on ActivityNet 1.3, validation subset.

    Returns:
        ``method``, ``year``, ``supervision``, ``mAP@0.5``, ``mAP@0.75``, ``mAP@0.95``,
        ``avg 0.5:0.95`` (percent), ``source``.
    """
    return _table("published_activitynet13.csv")


def paper_iou_histogram() -> pd.DataFrame:
    """True and false proposals per IoU score on THUMOS'14, from the FuSTAL paper's histogram.

    Source: FuSTAL (arXiv 2407.08971), the figure on selection, read off its pixels: counts are
    right to a few proposals.

    Returns:
        ``bin_low``, ``bin_high`` (IoU score, ten bins of 0.1), ``false_positives``,
        ``true_positives`` (counts).
    """
    return _table("paper_iou_histogram.csv")


def thumos14_summary() -> pd.DataFrame:
    """What the public annotations of THUMOS'14 hold, in the columns of ``views.summary``.

    Source: annotations of the ActionFormer release (``thumos14.json``), videos of the usual splits.
    """
    return _table("thumos14_summary.csv")
