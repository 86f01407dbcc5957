"""What the three stages leave behind, as a notebook is handed it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pandas as pd
import torch
from safetensors.torch import load_file

from fustal_core.student import TriDet
from fustal_core.weights import GeneratorModel, load_model


@dataclass(frozen=True)
class Generation:
    """Stage 1: a trained generator and its proposals.

    Attributes:
        model: in eval mode.
        train, test: proposals of the subset's videos, as selection is given them.
        detections: on the test videos, what the method is measured by; ``test`` itself but for HR-Pro,
            whose own NMS is soft.
        losses: per iteration. evaluations: test mAP along the training, may be empty.
        looks: of FTCL, the tables of two pairs after each epoch (see ``ftcl_training.look_at_pair``);
            of HR-Pro's stage 1, its prototypes and some snippets (see ``hrpro_training``).
    """

    model: GeneratorModel
    train: pd.DataFrame
    test: pd.DataFrame
    detections: pd.DataFrame
    losses: pd.DataFrame
    evaluations: pd.DataFrame
    looks: dict[str, torch.Tensor]

    @classmethod
    def read(cls, folder: Path, device: str) -> Self:
        """What :func:`fustal_core.making.make_generation` wrote into a folder."""
        names = ("proposals_train", "proposals_test", "detections", "losses", "evaluations")
        return cls(
            load_model(folder / "weights.safetensors").model.to(device),
            *(pd.read_parquet(folder / f"{name}.parquet") for name in names),
            load_file(folder / "looks.safetensors"),
        )


@dataclass(frozen=True)
class Selection:
    """Stage 2: all training proposals with ``iou_score``, and the selected ones."""

    scored: pd.DataFrame
    selected: pd.DataFrame


@dataclass(frozen=True)
class Student:
    """Stage 3: a trained student (its EMA weights).

    Attributes:
        model: the EMA weights, in eval mode.
        detections: on the test videos.
        history: per epoch, see ``student_training.train_student``.
        ema_labels: the EMA labels of each distillation epoch, in seconds; empty without distillation.
    """

    model: TriDet
    detections: pd.DataFrame
    history: pd.DataFrame
    ema_labels: pd.DataFrame

    @classmethod
    def read(cls, folder: Path, device: str) -> Self:
        """What :func:`fustal_core.making.make_student` wrote into a folder."""
        names = ("detections", "history", "ema_labels")
        return cls(
            load_model(folder / "weights.safetensors").model.to(device),
            *(pd.read_parquet(folder / f"{name}.parquet") for name in names),
        )
