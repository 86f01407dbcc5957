"""What the machine can do at best, measured: matrix products and copies in memory."""

from __future__ import annotations

import platform
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from fustal_core.bench_case import time_calls
from fustal_core.config import SettingsError
from fustal_core.linear import linear
from fustal_core.precision import tf32_allowed
from fustal_core.rundir import device_name

MATRIX_SIZES = {"cpu": (1024, 2048, 4096), "cuda": (4096, 8192, 16384)}
"""Rows and columns of the matrices that are multiplied."""
COPIED_BYTES = 2**28
"""Of the array that is copied: more than the caches hold."""


@dataclass(frozen=True)
class Machine:
    """A device and its limits.

    Attributes:
        device: "cpu" or "cuda".
        name: of the hardware.
        threads: of torch on the CPU.
        matrix_size: rows and columns of the float32 matrices whose product was the fastest.
        matrix_gflops: rate of such products, 10^9 operations a second, by precision: "float32",
            in which all parts are timed and limits are told, "bfloat16", and on a GPU "TF32".
        copy_gb_s: rate of a copy in the device's memory, 10^9 bytes read or written a second.
    """

    device: str
    name: str
    threads: int
    matrix_size: int
    matrix_gflops: dict[str, float]
    copy_gb_s: float

    def limit_s(self, limited_by: str, flops: float, copied_bytes: float) -> float:
        """Seconds that a part takes at least; NaN if nothing is known to limit it.

        Args:
            limited_by: "matrix products", "memory", or "".
            flops: operations of the part's matrix products.
            copied_bytes: that it reads and writes at least.
        """
        if limited_by == "matrix products":
            return flops / (1e9 * self.matrix_gflops["float32"])
        if limited_by == "memory":
            return copied_bytes / (1e9 * self.copy_gb_s)
        return float("nan")

    def text(self) -> str:
        """One line about all this."""
        rates = ", ".join(f"{name} {rate:.0f}" for name, rate in self.matrix_gflops.items())
        return (
            f"{self.name}; torch {torch.__version__}, {self.threads} CPU threads. Matrix products of "
            f"{self.matrix_size} x {self.matrix_size}, GFLOP/s: {rates} (limits: float32). "
            f"Copies in memory: {self.copy_gb_s:.1f} GB/s, read and written."
        )


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        SettingsError: neither "cpu" nor "cuda", or "cuda" where torch sees no GPU.
    """
    if device not in MATRIX_SIZES:
        raise SettingsError(f"--device: expected cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("--device cuda: torch sees no GPU here; without it the CPU is measured")


def measure_machine(
    device: str,
    matrix_sizes: tuple[int, ...] | None = None,
    copied_bytes: int = COPIED_BYTES,
) -> Machine:
    """Measure a device.

    Args:
        device: "cpu" or "cuda".
        matrix_sizes: the device's in ``MATRIX_SIZES`` if None.
        copied_bytes: size of the array that is copied.
    """
    sizes = matrix_sizes or MATRIX_SIZES[device]
    rates = {size: _matrix_rate(size, device) for size in sizes}
    best = max(rates, key=rates.__getitem__)
    by_precision = {"float32": rates[best]}
    if device == "cuda":
        by_precision["TF32"] = _matrix_rate(best, device, tf32=True)
    by_precision["bfloat16"] = _matrix_rate(best, device, torch.bfloat16)
    return Machine(
        device=device,
        name=_cpu_name() if device == "cpu" else device_name(device),
        threads=torch.get_num_threads(),
        matrix_size=best,
        matrix_gflops=by_precision,
        copy_gb_s=_copy_rate(copied_bytes, device),
    )


def _matrix_rate(
    size: int, device: str, dtype: torch.dtype = torch.float32, *, tf32: bool = False
) -> float:
    rng = torch.Generator(device).manual_seed(0)
    a, b = (torch.rand(size, size, generator=rng, device=device).to(dtype) for _ in range(2))
    with tf32_allowed(tf32):
        seconds, _ = time_calls(lambda: linear(a, b), device)
    return 2 * size**3 / seconds / 1e9


def _copy_rate(num_bytes: int, device: str) -> float:
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.zeros_like(source)
    seconds, _ = time_calls(lambda: target.copy_(source), device)
    return 2 * source.nbytes / seconds / 1e9


def _cpu_name() -> str:
    """Model and number of cores, as far as the system tells them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0]}, {device_name('cpu')}" if models else f"{platform.system()}, cpu"


def peak_memory_gb(device: str = "cpu") -> float:
    """The most memory that this process has held so far on a device, in GB (10^9 bytes)."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # the unit of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
