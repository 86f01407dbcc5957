"""What the three stages leave behind, as a notebook is handed it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file

from fustal_core.student import TriDet
from fustal_core.weights import GeneratorModel, load_model


@dataclass(frozen=True)
class _Made:
    """What lies in a folder; each part of it is read when it is first asked for.

    Attributes:
        folder: where it lies.
        device: where the model is put.
    """

    folder: Path
    device: str

    def _table(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.folder / f"{name}.parquet")

    def _model(self) -> Any:
        return load_model(self.folder / "weights.safetensors").model.to(self.device)


class Generation(_Made):
    """Stage 1: a trained generator and its proposals, as ``making.make_generation`` wrote them."""

    @cached_property
    def model(self) -> GeneratorModel:
        """In eval mode."""
        return self._model()

    @cached_property
    def train(self) -> pd.DataFrame:
        """Proposals of the training videos, as selection is given them."""
        return self._table("proposals_train")

    @cached_property
    def test(self) -> pd.DataFrame:
        """Proposals of the test videos, likewise."""
        return self._table("proposals_test")

    @cached_property
    def detections(self) -> pd.DataFrame:
        """On the test videos, what the method is measured by; ``test`` itself but for HR-Pro, whose own
        NMS is soft."""
        return self._table("detections")

    @cached_property
    def losses(self) -> pd.DataFrame:
        """Per iteration."""
        return self._table("losses")

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """Test mAP along the training, may be empty."""
        return self._table("evaluations")

    @cached_property
    def looks(self) -> dict[str, torch.Tensor]:
        """Of FTCL, the tables of two pairs after each epoch (see ``ftcl_training.look_at_pair``); of
        HR-Pro's stage 1, its prototypes and some snippets (see ``hrpro_training``)."""
        return load_file(self.folder / "looks.safetensors")


@dataclass(frozen=True)
class Selection:
    """Stage 2: all training proposals with ``iou_score``, and the selected ones."""

    scored: pd.DataFrame
    selected: pd.DataFrame


class Student(_Made):
    """Stage 3: a trained student (its EMA weights), as ``making.make_student`` wrote it."""

    @cached_property
    def model(self) -> TriDet:
        """The EMA weights, in eval mode."""
        return self._model()

    @cached_property
    def detections(self) -> pd.DataFrame:
        """On the test videos."""
        return self._table("detections")

    @cached_property
    def history(self) -> pd.DataFrame:
        """Per epoch, see ``student_training.train_student``."""
        return self._table("history")

    @cached_property
    def ema_labels(self) -> pd.DataFrame:
        """The EMA labels of each distillation epoch, in seconds; empty without distillation."""
        return self._table("ema_labels")
