"""Small studies, killing a training, and comparing what came of it."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import torch
from torch import nn

from fustal_core.generator_training import Trained

TINY = {
    "simulation.num_classes": 2,
    "simulation.train_videos": 6,
    "simulation.test_videos": 4,
    "simulation.max_video_s": 45.0,
    "generation.iterations": 4,
    "acm_net.iterations": 4,
    "ftcl.epochs": 1,
    "hr_pro.iterations": 4,
    "hr_pro_instance.epochs": 1,
    "student.switch_epoch": 1,
    "student.epochs": 2,
    "student.evaluate_every": 0,
}
"""A study of seconds, for tests of whole runs: settings beside the smoke profile's."""


class Killed(Exception):
    pass


def kill_at(iteration: int) -> Callable[[int, int, str], None]:
    """A progress callback that ends the training after an iteration."""

    def progress(done: int, total: int, note: str) -> None:
        if done == iteration:
            raise Killed

    return progress


def scores_in_turn(*values: float) -> Callable[[nn.Module], dict[str, float]]:
    """An evaluation that returns one value after the other and keeps the weights it saw."""
    left = list(values)

    def evaluate(model: nn.Module) -> dict[str, float]:
        evaluate.seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return {"avg 0.1:0.7": left.pop(0)}

    evaluate.seen = []
    return evaluate


def assert_same_weights(a: nn.Module, b: nn.Module) -> None:
    assert a.state_dict().keys() == b.state_dict().keys()
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name]), name


def assert_same_trainings(a: Trained, b: Trained) -> None:
    """Weights, losses, evaluations and looks are the same to the bit."""
    assert_same_weights(a.model, b.model)
    pd.testing.assert_frame_equal(a.losses, b.losses, check_exact=True)
    pd.testing.assert_frame_equal(a.evaluations, b.evaluations, check_exact=True)
    assert a.looks.keys() == b.looks.keys()
    for name, value in a.looks.items():
        assert torch.equal(value, b.looks[name]), name
