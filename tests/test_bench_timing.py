"""How the benchmark times and counts, and what it says of a machine: hand-worked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from bench_helpers import TINY, tiny_machine
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fustal_core import bench_case, linear
from fustal_core.bench_case import Case, difference, least_traffic, time_case
from fustal_core.bench_data import Inputs
from fustal_core.bench_generators import generator_step_case, loss_case
from fustal_core.bench_growth import doublings, fit_exponent
from fustal_core.bench_machine import Machine, check_device, peak_memory_gb
from fustal_core.bench_students import ema_labels_case, student_settings
from fustal_core.config import SettingsError
from fustal_core.progress import Progress
from fustal_core.reference_losses import PlainGenerator
from fustal_core.reference_student_loss import PlainStudent


def case(**changes: object) -> Case:
    return Case(part="a part", size="small", **changes)


def inputs(folder: Path) -> Inputs:
    return Inputs(TINY, np.random.default_rng(0), "cpu", folder)


def clock(monkeypatch: pytest.MonkeyPatch, *readings: float) -> Iterator[float]:
    """What the benchmark's clock shows, reading by reading."""
    left = iter(readings)
    fake = SimpleNamespace(perf_counter=lambda: next(left))
    monkeypatch.setattr(bench_case, "time", fake)
    return left


def test_the_fastest_repeat_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    results = iter("abcd")
    clock(monkeypatch, 0.0, 0.1, 1.0, 1.1, 2.0, 2.2, 3.0, 3.1, 9.0)
    timing = time_case(case(ours=lambda: next(results)))  # 0.1 + 0.1 + 0.2 + 0.1 s are enough
    assert timing.seconds == pytest.approx(0.1)
    assert timing.result == "d"
    assert np.isnan(timing.flops)


def test_one_slow_repeat_is_not_all(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, 0.0, 3.0, 3.0, 3.2, 4.0, 4.1, 9.0)
    assert time_case(case(ours=lambda: None)).seconds == pytest.approx(0.1)


def test_what_takes_long_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, 0.0, 7.0)
    assert time_case(case(ours=lambda: None)).seconds == 7.0


def test_steps_after_the_first_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def steps(progress: Progress) -> None:
        for done in (1, 2, 4):  # the last is told with the one before
            progress(done, 4, "")

    left = clock(monkeypatch, 10.0, 13.0, 18.0)
    assert time_case(case(steps=steps)).seconds == 2.5
    assert next(left, None) is None


def test_operations_of_matrix_products_are_counted() -> None:
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    counted = time_case(case(ours=lambda: a @ b, limited_by="matrix products"), at_least_s=0.0)
    assert counted.flops == 2 * 3 * 5 * 7
    signal, kernel = torch.ones(2, 4, 10), torch.ones(8, 4, 3)
    work = case(ours=lambda: F.conv1d(signal, kernel, padding=1), limited_by="matrix products")
    assert time_case(work, at_least_s=0.0).flops == 2 * (2 * 8 * 10) * (4 * 3)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here")
@pytest.mark.parametrize(("wanted", "products_done"), [((), 1), (("w",), 2), (("x", "w"), 3)])
def test_operations_of_onednns_products_are_counted(
    monkeypatch: pytest.MonkeyPatch, wanted: tuple[str, ...], products_done: int
) -> None:
    monkeypatch.setattr(linear, "LARGE", 10**8)
    given, plain = [], F.linear
    monkeypatch.setattr(F, "linear", lambda x, *rest: given.append(x.is_mkldnn) or plain(x, *rest))
    leaves = {"x": torch.ones(2, 500, 100), "w": torch.ones(500, 100), "b": torch.ones(500)}
    for name in (*wanted, *(("b",) if wanted else ())):
        leaves[name].requires_grad_()

    def work() -> None:
        result = linear.linear(*leaves.values())
        if wanted:
            result.sum().backward()

    for by_onednn in (True, False):
        monkeypatch.setattr(linear, "BY_ONEDNN", by_onednn)
        timing = time_case(case(ours=work, limited_by="matrix products"), at_least_s=0.0)
        assert timing.flops == products_done * linear.LARGE
        assert set(given) == {by_onednn}
        given.clear()


def test_operations_of_one_step_are_counted() -> None:
    layer, features = nn.Linear(6, 3, bias=False), torch.ones(5, 6)

    def steps(progress: Progress) -> None:
        for done in range(1, 4):
            layer(features).sum().backward()
            progress(done, 3, "")

    timing = time_case(case(steps=steps, limited_by="matrix products"))
    # Forward, and the gradient of the weights: the features need none.
    assert timing.flops == 2 * (2 * 5 * 6 * 3)


def test_the_generators_step_has_the_operations_of_its_layers(tmp_path: Path) -> None:
    B, T, D, H, C = TINY.batch, TINY.length, TINY.channels, TINY.hidden, TINY.classes
    embedding = 2 * B * T * 3 * D * H  # a convolution of size 3
    classifier = 2 * B * T * H * C
    # The contrast: two tables of a query against each video's snippets and means, and their gradients.
    easy = T // 5
    contrast = 2 * 2 * B * B * H * (easy + 1)
    expected = 2 * embedding + 3 * classifier + 3 * contrast
    flops = time_case(generator_step_case(inputs(tmp_path))).flops
    assert flops == pytest.approx(expected, rel=0.05)


def test_least_traffic_by_hand() -> None:
    """Two float64 and a frame of 3 x 2 are read, three float32 written."""
    frame = pd.DataFrame(np.zeros((3, 2)))
    read_and_written = case(reads=(torch.zeros(2, dtype=torch.float64), frame))
    assert least_traffic(read_and_written, [torch.zeros(3)]) == 2 * 8 + 6 * 8 + 3 * 4
    assert least_traffic(case(copied_bytes=7.0), None) == 7
    assert np.isnan(least_traffic(case(), [torch.zeros(3)]))


def test_limits_by_hand() -> None:
    rates = {"float32": 4.0, "bfloat16": 64.0}
    cpu = Machine("cpu", "a chip", 2, 1024, rates, copy_gb_s=10.0)
    assert cpu.limit_s("matrix products", 8e9, np.nan) == 2.0
    assert cpu.limit_s("memory", np.nan, 5e9) == 0.5
    assert np.isnan(cpu.limit_s("", 8e9, 5e9))
    gpu = replace(cpu, device="cuda", matrix_gflops={"float32": 4.0, "TF32": 16.0})
    assert gpu.limit_s("matrix products", 8e9, np.nan) == 2.0  # parts compute in float32


def test_a_machine_is_measured_and_leaves_torch_as_it_was() -> None:
    before = torch.get_float32_matmul_precision()
    machine = tiny_machine("cpu")
    assert torch.get_float32_matmul_precision() == before
    assert machine.matrix_size in (8, 16)
    assert machine.matrix_gflops.keys() == {"float32", "bfloat16"}
    assert min(*machine.matrix_gflops.values(), machine.copy_gb_s) > 0
    assert machine.name in machine.text()
    assert 0.1 < peak_memory_gb() < 100


def test_a_gpu_is_waited_for_and_a_cpu_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(time.perf_counter()))
    time_case(case(ours=lambda: None))
    assert waits == []
    time_case(case(ours=lambda: time.sleep(0.2), device="cuda"))
    before, after = waits[::2], waits[1::2]
    assert len(before) == len(after) == 3
    assert all(end - start >= 0.2 for start, end in zip(before, after, strict=True))


def test_devices_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check_device("cpu")
    with pytest.raises(SettingsError, match="no GPU"):
        check_device("cuda")
    with pytest.raises(SettingsError, match="expected cpu or cuda, got 'tpu'"):
        check_device("tpu")


EXPONENTS = st.floats(-2, 3)
SECONDS = st.floats(1e-6, 1e3)


@settings(max_examples=50, deadline=None)
@given(EXPONENTS, SECONDS, st.integers(3, 6))
def test_known_exponents_are_found(exponent: float, factor: float, count: int) -> None:
    sizes = doublings(10, count)
    fit = fit_exponent(sizes, [factor * size**exponent for size in sizes])
    assert fit.exponent == pytest.approx(exponent, abs=1e-9)
    assert fit.factor == pytest.approx(factor, rel=1e-7)
    assert fit.standard_error == pytest.approx(0, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(EXPONENTS, st.lists(st.floats(-0.5, 0.5), min_size=4, max_size=6))
def test_the_standard_error_is_that_of_least_squares(exponent: float, noise: list[float]) -> None:
    x = np.log(doublings(3, len(noise)))
    y = exponent * x + noise
    fit = fit_exponent(np.exp(x), np.exp(y))
    centred = x - x.mean()
    slope = (centred * y).sum() / (centred**2).sum()
    residuals = y - y.mean() - slope * centred
    error = np.sqrt((residuals**2).sum() / (len(x) - 2) / (centred**2).sum())
    assert fit.exponent == pytest.approx(slope, abs=1e-9)
    assert fit.standard_error == pytest.approx(error, abs=1e-7)


def test_two_sizes_are_too_few() -> None:
    with pytest.raises(ValueError, match="at least three sizes, got 2"):
        fit_exponent([1, 2], [1.0, 2.0])


def test_different_results_do_not_agree() -> None:
    assert difference(np.array([1.0, 2.0]), torch.tensor([1.0, 2.5])) == 0.5
    assert difference(np.zeros(2), np.zeros(3)) == float("inf")
    assert difference([np.zeros(2)], [np.zeros(2), np.zeros(2)]) == float("inf")
    assert difference(np.zeros(0), np.zeros(0)) == 0.0
    assert difference(pd.DataFrame({"a": [1.0]}), np.array([[3.0]])) == 2.0
    named = {"b": np.array([2.0]), "a": np.array([1.0])}
    assert difference(named, {"a": np.array([1.0]), "b": np.array([2.0])}) == 0.0


def test_plain_losses_have_pairs_to_loop_over(tmp_path: Path) -> None:
    """At the published size the labels drawn at random repeat, so that both contrasts are timed."""
    sizes = replace(TINY, batch=8)
    work = loss_case(replace(inputs(tmp_path), sizes=sizes))
    assert difference(work.ours(), work.reference()) < 1e-6


def test_the_plain_generator_trains() -> None:
    model = PlainGenerator(4, 6, 3)
    before = model.embedding.weight.detach().clone()
    rng = torch.Generator().manual_seed(1)
    model.step(torch.rand(3, 40, 4, generator=rng), torch.eye(3))
    assert (model.embedding.weight != before).any()
    assert torch.isfinite(model.embedding.weight).all()


def test_the_average_labels_its_batch(tmp_path: Path) -> None:
    video, scores = ema_labels_case(inputs(tmp_path)).ours()
    assert set(video.tolist()) == set(range(TINY.student_videos))
    assert len(scores) > 2 * TINY.student_videos  # soft-NMS has something to do


def test_the_plain_student_trains() -> None:
    settings = student_settings(TINY)
    plain = PlainStudent(TINY.student_channels, TINY.classes, settings)
    before = plain.model.class_head.last.weight.detach().clone()
    rng = torch.Generator().manual_seed(1)
    features = torch.rand(1, TINY.student_length, TINY.student_channels, generator=rng)
    mask = torch.ones(features.shape[:2], dtype=torch.bool)
    plain.step(features, mask, [([(8.0, 11.0)], [2])], torch.eye(TINY.classes)[2:3])
    after = plain.model.class_head.last.weight
    assert torch.isfinite(after).all()
    assert (after != before).any()
    moved = settings.ema_decay * before + (1 - settings.ema_decay) * after
    torch.testing.assert_close(plain.average.class_head.last.weight, moved)
    assert plain.normaliser == pytest.approx(0.9 * 100 + 0.1 * 2)  # at 9 and 10
