"""Simulated data that a run draws once: its features lie in files, which all its processes map.

So the data of a run are the same bits wherever it goes on, and are in memory once, not once for each
worker and each notebook.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from filelock import FileLock

from fustal_core.data import Dataset
from fustal_core.files import write_bytes, write_text
from fustal_core.progress import Progress
from fustal_core.rundir import Product, code_hash, hash_of
from fustal_core.simulated_annotations import statistics_digest
from fustal_core.simulator import (
    dataset_of,
    drawn_features,
    feature_stores,
    fingerprint_of,
    plan_simulation,
)
from fustal_core.simulator_settings import SimulatorSettings


def kept_simulation(
    settings: SimulatorSettings, seed: int, folder: Path, progress: Progress | None = None
) -> Dataset:
    """As :func:`fustal_core.simulator.simulate`, with features mapped from files, drawn if missing.

    Files of other settings or code, or that are not as they were written, are drawn anew.

    Args:
        settings, seed: of the simulation.
        folder: of the files, made if missing.
        progress: called as progress(done, total, note), if anything is drawn.

    Raises:
        OSError: the files cannot be written.
    """
    simulation = plan_simulation(settings, seed)
    made_from = (settings.model_dump(), seed, statistics_digest(), code_hash(["simulator"]))
    product = Product(folder, hash_of(*made_from))
    paths = [folder / f"{name}.bin" for name in ("generator", "student")]
    fingerprint = folder / "fingerprint.txt"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):  # whoever comes second finds it made, and maps what he found
        if not product.is_made:
            product.begin()
            stores = drawn_features(simulation, progress)
            for path, store in zip(paths, stores, strict=False):
                write_bytes(path, store.array.numpy().data.cast("B"))
            write_text(fingerprint, fingerprint_of(simulation, stores))
            product.finish()
        rest = iter(paths)
        stores = feature_stores(
            simulation, lambda shape: np.memmap(next(rest), np.float32, "c", shape=shape)
        )
        return dataset_of(simulation, stores, fingerprint.read_text(encoding="utf-8"))
