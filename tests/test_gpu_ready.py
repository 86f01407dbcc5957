"""How often a step of each training reads a value of a tensor: on a GPU it would wait there."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from student_helpers import random_input, random_network, small_settings
from student_helpers import tiny_dataset as student_dataset
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fustal_core import hrpro_training
from fustal_core.config import make_settings
from fustal_core.data import Dataset
from fustal_core.distillation import find_ema_labels, make_ema
from fustal_core.features import to_device
from fustal_core.ftcl_training import acm_net_task, ftcl_task
from fustal_core.generation import generator_task, propose
from fustal_core.generator import CrossVideoGenerator, generator_loss
from fustal_core.generator_training import Task
from fustal_core.hrpro import HRPro, expand_points
from fustal_core.hrpro_loss import snippet_loss
from fustal_core.hrpro_training import instance_task, snippet_task
from fustal_core.mining import snippet_mask
from fustal_core.point_supervision import PointSupervision, supervision_of
from fustal_core.stage_settings import StudentSettings
from fustal_core.student_batches import Batch, TrainingSet, grid_labels, make_batch
from fustal_core.student_blocks import SGPBlock
from fustal_core.student_loss import video_loss
from fustal_core.student_training import _epoch_generators, _start, _train_step

SMOKE = make_settings(profile="smoke")
CPU = torch.device("cpu")
READS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.repeat_interleave.Tensor,
    torch.ops.aten.unique_consecutive.default,
}
"""What a GPU's queue is read or waited for by; so is an index of booleans."""


class CountReads(TorchDispatchMode):
    """Counts them by name while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        masks = args[1] if name in ("index", "index_put", "index_put_") else ()
        if func in READS or any(mask is not None and mask.dtype == torch.bool for mask in masks):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def reads_of(step: Callable[[], Tensor]) -> dict[str, int]:
    """Reads of a loss and of its backward pass."""
    with CountReads() as mode:
        step().backward()
    return dict(mode.found)


def reads_of_task(task: Task, items: list) -> dict[str, int]:
    task.model.train()
    rngs = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    return reads_of(lambda: task.losses(items, *rngs)[0])


@pytest.fixture(scope="module")
def points(tiny_dataset: Dataset) -> PointSupervision:
    return supervision_of(tiny_dataset, "uniform", 0)


def test_reads_are_counted() -> None:
    x = torch.tensor([1.0, 0.0, 2.0], requires_grad=True)
    assert reads_of(lambda: x * x.sum().item() @ x.detach()) == {"_local_scalar_dense": 1}
    assert reads_of(lambda: x[x > 0].sum()) == {"index": 1, "index_put": 1}
    assert reads_of(lambda: (x * len(x.nonzero())).sum()) == {"nonzero": 1}


@pytest.mark.parametrize("method", ["cola", "cross-video"])
def test_the_generator_reads_nothing(tiny_dataset: Dataset, method: str) -> None:
    how = SMOKE.generation.model_copy(update={"method": method, "cross_video_pairs": 2})
    assert reads_of_task(generator_task(how, tiny_dataset, 0), [0, 1, 2, 3]) == {}


def test_acm_net_and_ftcl_read_nothing(tiny_dataset: Dataset) -> None:
    acm_net = acm_net_task(SMOKE.acm_net, tiny_dataset, 0)
    assert reads_of_task(acm_net, [0, 1, 2, 3]) == {}
    ftcl = ftcl_task(SMOKE.ftcl, SMOKE.acm_net, acm_net.model, tiny_dataset, 0)
    assert reads_of_task(ftcl, [[0, 1], [2, 3], [4, 5]]) == {}


def test_hr_pro_reads_its_seed_and_on_a_cpu_which_classes_have_seeds(
    points: PointSupervision,
) -> None:
    # The seed of the dropout is drawn on the CPU whatever the device.
    found = reads_of_task(snippet_task(SMOKE.hr_pro, points, 0), [0])
    assert found == {"_local_scalar_dense": 1, "nonzero": 1}


def test_the_second_stage_reads_its_seed_and_its_proposals(
    points: PointSupervision, tiny_dataset: Dataset
) -> None:
    snippet = snippet_task(SMOKE.hr_pro, points, 0).model
    found = propose(
        snippet, tiny_dataset, "train", SMOKE.hr_pro, purpose="all", known=points.labels()
    )
    task = instance_task(SMOKE.hr_pro_instance, SMOKE.hr_pro, snippet, found, points, 0)
    # All on the CPU whatever the device: of which video each proposal is, twice, and the samples.
    counted = reads_of_task(task, [0, 1])
    assert counted == {"_local_scalar_dense": 1, "repeat_interleave": 3}


# Tensors of the meta device have no values: whoever asks for one fails. What differs from a CPU on a
# GPU is done on it as on a GPU.


def test_on_a_device_that_is_no_cpu_the_generator_reads_nothing() -> None:
    with torch.device("meta"):
        model = CrossVideoGenerator(8, 4, 16)
        output = model(torch.empty(3, 64, 8))
        loss = generator_loss(output, torch.empty(3, 4), snippet_mask(output.actionness, None))
    loss.total.backward()
    assert model.embedding.weight.grad.shape == (16, 8, 3)


def test_on_a_device_that_is_no_cpu_hr_pro_reads_nothing() -> None:
    how = SMOKE.hr_pro
    with torch.device("meta"):
        model = HRPro(16, 3, how)
        points = torch.empty(40, 3)
        output = model(torch.empty(1, 40, 16))
        seeds = expand_points(output.background[0], points)
        loss = snippet_loss(output, points, seeds, model.prototypes, how)
        model.update_prototypes(output.embeddings[0], seeds.action)
    loss.total.backward()
    assert model.embedding.weight.grad.shape == model.embedding.weight.shape


@pytest.mark.parametrize("k_from", ["video", "batch"])
def test_on_a_device_that_is_no_cpu_the_video_loss_reads_nothing(k_from: str) -> None:
    logits = torch.empty(2, 40, 3, device="meta", requires_grad=True)
    mask = torch.empty(2, 40, dtype=torch.bool, device="meta")
    video_loss(logits, mask, torch.empty(2, 3, device="meta"), k_from=k_from).backward()
    assert logits.grad.shape == logits.shape


def test_on_a_device_that_is_no_cpu_a_step_of_the_second_stage_reads_nothing(
    points: PointSupervision, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once its examples, which are read from stage 1, are there."""
    snippet = snippet_task(SMOKE.hr_pro, points, 0).model
    found = propose(
        snippet, tiny_dataset, "train", SMOKE.hr_pro, purpose="all", known=points.labels()
    )
    examples = hrpro_training.instance_examples(snippet, SMOKE.hr_pro, found, points, 0)
    monkeypatch.setattr(hrpro_training, "instance_examples", lambda *_: examples)
    task = instance_task(SMOKE.hr_pro_instance, SMOKE.hr_pro, snippet, found, points, 0, "meta")
    cpu = torch.Generator().manual_seed(0)
    task.losses([0, 1], cpu, cpu)[0].backward()
    weight = task.model.instance.fuse.weight
    assert weight.grad.shape == weight.shape


# --- student --------------------------------------------------------------------------------------


def a_batch(options: StudentSettings) -> Batch:
    data = student_dataset()
    names, store = data.video_names("train"), data.student_features
    labels = grid_labels(data.truth("train"), store, names, data.classes)
    training = TrainingSet(names, store, data.video_labels("train"), labels)
    rngs = _epoch_generators(0, 0, CPU)
    return make_batch(training, np.array([0, 1, 2]), options, *rngs, CPU)


def test_a_step_of_the_student_reads_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SGPBlock, "_has_depthwise", lambda _: True)  # asked on a CPU alone
    options = small_settings()
    batch = a_batch(options)
    classes, channels = batch.video_labels.shape[1], batch.features.shape[2]
    state = _start(options, channels, classes, 3, 0, CPU)
    rng = torch.Generator().manual_seed(0)
    with CountReads() as mode:
        _train_step(state, batch, classes, options, rng)
    # On the CPU whatever the device: where each of three boundary heads must run, and what is decoded.
    # On a CPU alone: the largest k of the video loss, and that no label is too small or large.
    assert mode.found == {"nonzero": 4, "_local_scalar_dense": 3}


@pytest.mark.parametrize("padding", ["masked", "padded"])
def test_on_a_device_that_is_no_cpu_a_step_of_the_student_reads_nothing(
    padding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels, and so where the boundary heads run and what is decoded, are known on the CPU."""
    monkeypatch.setattr(torch.optim, "AdamW", partial(without_fused, torch.optim.AdamW))
    options = small_settings(global_mean=padding)
    on_cpu = a_batch(options)
    assert any(len(given.labels) for given in on_cpu.given)
    features, mask, shown = (
        x.to("meta") for x in (on_cpu.features, on_cpu.mask, on_cpu.video_labels)
    )
    batch = replace(on_cpu, features=features, mask=mask, video_labels=shown)
    classes, channels = shown.shape[1], features.shape[2]
    state = _start(options, channels, classes, 3, 0, torch.device("meta"))
    _train_step(state, batch, classes, options, None)
    for name, weight in state.model.named_parameters():
        assert weight.grad is not None or not weight.requires_grad, name


def without_fused(optimiser: type[torch.optim.Optimizer], *arguments: Any, **options: Any) -> Any:
    """The meta device has no fused optimiser."""
    return optimiser(*arguments, **options | {"fused": False})


def test_ema_labels_are_read() -> None:
    options = small_settings(ema_label_threshold=0.0)
    features, mask = random_input([32, 19], 32)
    average = make_ema(random_network(options), 0.9)
    batch = type("Batch", (), {"features": features, "mask": mask})
    with CountReads() as mode:
        found = find_ema_labels(average, batch, options)
    # Which segments survive is known by their scores alone: soft-NMS waits, often.
    assert len(found)
    assert sum(mode.found.values()) > 5


def test_on_a_cpu_nothing_is_copied_to_its_device() -> None:
    x = torch.arange(3)
    assert to_device(x, "cpu") is x


ELSEWHERE = ("yaml", "matplotlib", "seaborn", "papermill", "nbformat", "distributed", "ipywidgets")
MODELS = ("weights", "generation", "generator_training", "ftcl_training", "hrpro_training")
MODELS += ("student_training", "data")
BARE = f"""
import importlib, sys
for name in {ELSEWHERE}:
    sys.modules[name] = None  # as if it were not installed
for name in {MODELS}:
    importlib.import_module(f"fustal_core.{{name}}")
"""


def test_a_bare_node_trains_and_loads_models() -> None:
    """With the libraries of numbers alone: no notebooks, no figures, no clusters, no YAML."""
    result = subprocess.run(
        [sys.executable, "-c", BARE], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
