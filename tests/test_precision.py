"""Precision of products of matrices: what it changes, and that it is undone."""

from __future__ import annotations

from typing import get_args

import pandas as pd
import pytest
import torch
from student_helpers import small_settings
from student_helpers import tiny_dataset as student_dataset

from fustal_core.config import make_settings
from fustal_core.data import Dataset
from fustal_core.ftcl_training import acm_net_task, ftcl_task
from fustal_core.generation import generator_task
from fustal_core.generator_training import Task, train
from fustal_core.hrpro_training import snippet_task
from fustal_core.point_supervision import supervision_of
from fustal_core.precision import Precision, computing_in, in_float32
from fustal_core.stage_settings import TrainingSettings
from fustal_core.student_training import train_student

SMOKE = make_settings(profile="smoke")
OTHERS = get_args(Precision)[1:]


def flags() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precision", get_args(Precision))
def test_all_is_as_before_afterwards(precision: Precision, tiny_dataset: Dataset) -> None:
    model = generator_task(SMOKE.generation, tiny_dataset, 0).model
    before = flags()

    def fail() -> None:
        with computing_in(precision, model):
            assert flags() == ((True, True) if precision == "tf32" else (False, False))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert flags() == before
    assert "forward" not in vars(model)


def test_bfloat16_is_of_the_forward_pass_in_training_alone(tiny_dataset: Dataset) -> None:
    model = generator_task(SMOKE.generation, tiny_dataset, 0).model
    features = tiny_dataset.generator_features.sample_uniform("sim_train_0000", 64)[None]
    exact = model.eval()(features).embeddings
    with computing_in("bfloat16", model):
        assert torch.equal(model.eval()(features).embeddings, exact)
        rounded = model.train()(features).embeddings
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, rounded.bfloat16().float())
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0.02)
    assert not torch.equal(rounded, exact)


def test_what_is_no_narrow_tensor_stays_as_it_is() -> None:
    assert in_float32("x") == "x"
    double = torch.ones(2, dtype=torch.float64)
    assert in_float32(double) is double
    assert in_float32(double.bfloat16()).dtype == torch.float32


def task_of(method: str, dataset: Dataset) -> tuple[Task, TrainingSettings]:
    if method == "generator":
        return generator_task(SMOKE.generation, dataset, 0), SMOKE.generation
    if method == "hr-pro":
        return snippet_task(SMOKE.hr_pro, supervision_of(dataset, "uniform", 0), 0), SMOKE.hr_pro
    acm_net = acm_net_task(SMOKE.acm_net, dataset, 0)
    if method == "acm-net":
        return acm_net, SMOKE.acm_net
    return ftcl_task(SMOKE.ftcl, SMOKE.acm_net, acm_net.model, dataset, 0), SMOKE.ftcl


@pytest.mark.parametrize("method", ["generator", "acm-net", "ftcl", "hr-pro"])
def test_generators_train_in_each_precision(method: str, tiny_dataset: Dataset) -> None:
    exact, tf32, bfloat16 = (
        train(*task_of(method, tiny_dataset), 0, precision=precision).losses
        for precision in get_args(Precision)
    )
    pd.testing.assert_frame_equal(exact, tf32, check_exact=True)  # on a CPU it is no other
    assert not exact.equals(bfloat16)
    # Which snippets FTCL matches is a matter of a threshold: rounding moves that by whole snippets.
    part = "acm_net" if method == "ftcl" else "total"
    # Before the first step the weights are the same: what is left is the rounding of the forward pass.
    assert bfloat16[part].iloc[0] == pytest.approx(exact[part].iloc[0], rel=0.01)
    assert bfloat16[part].iloc[-1] == pytest.approx(exact[part].iloc[-1], rel=0.1)


@pytest.mark.parametrize("precision", OTHERS)
def test_the_student_trains_in_each_precision(precision: Precision) -> None:
    data, options = student_dataset(), small_settings(epochs=3, switch_epoch=2)
    exact, other = (
        train_student(options, data, data.truth("train"), 0, precision=which).history["loss"]
        for which in ("float32", precision)
    )
    assert exact.equals(other) == (precision == "tf32")
    assert other.to_numpy() == pytest.approx(exact.to_numpy(), rel=0.05)
