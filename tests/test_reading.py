"""Features are read once: into memory or into a mapped file, with the same result."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layout_helpers import LAYOUTS, LayoutFolder, values, write_wtalc

from fustal_core.check import check_folder
from fustal_core.config import make_settings
from fustal_core.data import DataError, Dataset, load_dataset
from fustal_core.pipeline import run_notebooks
from fustal_core.reading import Statistics, checksum, statistics_of
from fustal_core.stage_settings import FeatureSettings

TINY = FeatureSettings(memory_gb=1e-9)


def load_mapped(folder: Path, cache: Path) -> Dataset:
    return load_dataset(folder, TINY, cache=cache)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_mapped_store_holds_the_same(tmp_path: Path, layout: str) -> None:
    LayoutFolder(tmp_path / "data", layout)
    plain = load_dataset(tmp_path / "data")
    mapped = load_mapped(tmp_path / "data", tmp_path / "cache")
    assert mapped.fingerprint == plain.fingerprint
    for name in ("generator_features", "student_features"):
        one, other = getattr(plain, name), getattr(mapped, name)
        assert one.mapping is None
        assert other.mapping is not None
        assert torch.equal(one.array, other.array)
        for video in "abcd":
            assert torch.equal(one[video], other[video])
            assert torch.equal(one.sample_uniform(video, 20), other.sample_uniform(video, 20))
        batches = [
            store.sample_random(list("abc"), 40, torch.Generator().manual_seed(1))
            for store in (one, other)
        ]
        assert torch.equal(*batches)


def test_only_what_exceeds_the_budget_is_mapped(tmp_path: Path) -> None:
    LayoutFolder(tmp_path / "data", "fustal")
    size = load_dataset(tmp_path / "data").generator_features.nbytes
    budget = FeatureSettings(memory_gb=1.5 * size / 1e9)
    data = load_dataset(tmp_path / "data", budget, cache=tmp_path / "cache")
    assert data.generator_features.mapping is None
    assert data.student_features.mapping is not None


def test_a_cache_is_used_until_the_features_change(tmp_path: Path) -> None:
    folder, cache = LayoutFolder(tmp_path / "data", "acmnet"), tmp_path / "cache"
    first = load_mapped(folder.root, cache)
    (binary,) = cache.glob("*.bin")
    before = binary.stat().st_mtime_ns
    assert load_mapped(folder.root, cache).fingerprint == first.fingerprint
    assert binary.stat().st_mtime_ns == before
    changed = values("a", 62)
    changed[0, 0] = 7.0
    folder.save("a", changed)
    os.utime(folder.paths("a")[0], ns=(1, 1))
    again = load_mapped(folder.root, cache)
    assert again.fingerprint != first.fingerprint
    assert again.generator_features["a"][0, 0] == 7.0
    assert len(list(cache.glob("*.bin"))) == 1


def test_what_a_killed_process_left_of_a_cache_is_removed_by_who_fills_it(tmp_path: Path) -> None:
    """And not by a run that begins meanwhile, for it may be somebody's who fills it now."""
    folder, cache = LayoutFolder(tmp_path / "data", "acmnet"), tmp_path / "cache"
    load_mapped(folder.root, cache)
    (binary,) = cache.glob("*.bin")
    half = cache / f".{binary.name}.partial-abc.bin"
    half.touch()
    run_notebooks([], make_settings(), {}, tmp_path, "data", nullcontext())
    assert half.exists()
    binary.unlink()
    load_mapped(folder.root, cache)
    assert not half.exists()


@pytest.mark.parametrize("lost", ["sums", "values"])
def test_a_cache_that_is_not_whole_is_made_again(tmp_path: Path, lost: str) -> None:
    folder, cache = LayoutFolder(tmp_path / "data", "acmnet"), tmp_path / "cache"
    expected = load_mapped(folder.root, cache).generator_features.array.clone()
    for path in cache.glob("*.json" if lost == "sums" else "*.bin"):
        content = path.read_bytes()[:-8]
        path.unlink()
        if lost == "values":
            path.write_bytes(content)
    assert torch.equal(load_mapped(folder.root, cache).generator_features.array, expected)


@pytest.mark.parametrize("sums", ['{"x": 1}', '["a"]', "[" * 100_000])
def test_a_cache_whose_sums_are_of_something_else_is_made_again(tmp_path: Path, sums: str) -> None:
    folder, cache = LayoutFolder(tmp_path / "data", "acmnet"), tmp_path / "cache"
    fingerprint = load_mapped(folder.root, cache).fingerprint
    for path in cache.glob("*.json"):
        path.write_text(sums)
    assert load_mapped(folder.root, cache).fingerprint == fingerprint


def test_unsound_features_leave_no_cache(tmp_path: Path) -> None:
    folder, cache = LayoutFolder(tmp_path / "data", "cola"), tmp_path / "cache"
    bad = values("b", 62)
    bad[5] = np.nan
    folder.save("b", bad)
    with pytest.raises(DataError, match="NaN or Inf in 1 of 62"):
        load_mapped(folder.root, cache)
    assert not [path for path in cache.iterdir() if path.suffix == ".bin"]


@pytest.mark.parametrize(
    ("dtype", "source", "expected"),
    [
        ("auto", np.float32, torch.float32),
        ("auto", np.float16, torch.float16),
        ("auto", np.float64, torch.float32),
        ("float16", np.float32, torch.float16),
        ("float32", np.float16, torch.float32),
    ],
)
def test_precision(tmp_path: Path, dtype: str, source: type, expected: torch.dtype) -> None:
    folder = LayoutFolder(tmp_path, "own")
    for video in "abcd":
        folder.save(video, values(video, 62).astype(source))
    store = load_dataset(tmp_path, FeatureSettings(dtype=dtype)).generator_features
    assert store.array.dtype == expected
    assert store["a"].dtype == torch.float32
    wanted = values("a", 62).astype(source)
    wanted = torch.from_numpy(wanted).to(expected).float()
    assert torch.equal(store["a"], wanted)


def test_values_beyond_half_precision_are_a_problem(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "own")
    folder.save("a", np.full((62, 8), 1e5, dtype=np.float32))
    load_dataset(tmp_path)
    with pytest.raises(DataError, match="NaN or Inf in 62 of 62"):
        load_dataset(tmp_path, FeatureSettings(dtype="float16"))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_ways_to_write_an_array(tmp_path: Path, order: str, version: tuple[int, int]) -> None:
    folder = LayoutFolder(tmp_path, "own")
    array = np.asarray(values("a", 62), order=order)
    with folder.paths("a")[0].open("wb") as file:
        np.lib.format.write_array(file, array, version=version)
    np.testing.assert_array_equal(load_dataset(tmp_path).generator_features["a"], array)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_check_gives_the_fingerprint_of_the_loaded_data(tmp_path: Path, layout: str) -> None:
    LayoutFolder(tmp_path, layout)
    assert check_folder(tmp_path).fingerprint == load_dataset(tmp_path).fingerprint


def test_a_check_of_pickles_gives_the_same_fingerprint(tmp_path: Path) -> None:
    write_wtalc(tmp_path)
    checked = check_folder(tmp_path, trust_pickle=True)
    assert checked.fingerprint == load_dataset(tmp_path, trust_pickle=True).fingerprint


def test_statistics_of_streams(tmp_path: Path) -> None:
    folder = LayoutFolder(tmp_path, "cola")
    for video in "abcd":
        folder.save(video, np.hstack([np.zeros((62, 4)), np.tile([1.0, 3.0], (62, 2))]))
    table = check_folder(tmp_path).features.set_index("source")
    assert table["mean"].tolist() == [0.0, 2.0]
    assert table["std"].tolist() == [0.0, 1.0]
    assert table["zeros"].tolist() == [1.0, 0.0]


@given(
    st.lists(
        st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20), min_size=1, max_size=5
    )
)
def test_statistics_add_up(parts: list[list[float]]) -> None:
    total = sum((statistics_of(np.array(part, dtype=np.float32)) for part in parts), Statistics())
    flat = np.concatenate([np.array(part) for part in parts])
    assert total.count == len(flat)
    assert total.mean == pytest.approx(flat.mean(), abs=1e-3)
    assert total.std == pytest.approx(flat.std(), abs=0.05)
    assert total.zero_share == (flat == 0).mean()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("channels", [1, 3, 4, 90])
def test_a_checksum_changes_with_every_value_row_and_column(dtype: type, channels: int) -> None:
    array = np.random.default_rng(0).random((7, channels)).astype(dtype)
    sums = {checksum(array)}
    for place in np.ndindex(array.shape):
        other = array.copy()
        other[place] = np.nextafter(other[place], dtype(2))
        sums.add(checksum(other))
    sums.add(checksum(array[[1, 0, *range(2, 7)]]))
    assert len(sums) == array.size + 2
    if channels > 1:
        assert checksum(np.ascontiguousarray(array[:, ::-1])) not in sums


def test_more_files_than_may_be_open_at_once(tmp_path: Path) -> None:
    LayoutFolder(tmp_path, "fustal")
    script = """
        import resource, sys
        from pathlib import Path
        from fustal_core.data import load_dataset
        resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
        print(len(load_dataset(Path(sys.argv[1])).videos))
    """
    assert run_script(script, tmp_path) == "4"


def test_memory_stays_within_the_budget(tmp_path: Path) -> None:
    """320 MB of features, 32 MB granted: loading and sampling all of them needs far less."""
    folder = LayoutFolder(tmp_path / "data", "own")
    for video in "abcd":
        folder.database[video]["duration"] = 80_000 * 16 / 25
        folder.save(video, np.ones((80_000, 250), dtype=np.float32))
    folder.write_annotations()
    script = """
        import sys
        from pathlib import Path
        import torch
        from fustal_core.stage_settings import FeatureSettings
        from fustal_core.data import load_dataset
        from fustal_core.bench_machine import peak_memory_gb
        before = peak_memory_gb()
        folder = Path(sys.argv[1])
        settings = FeatureSettings(memory_gb=0.032)
        store = load_dataset(folder / "data", settings, cache=folder / "cache").generator_features
        rng = torch.Generator().manual_seed(0)
        for _ in range(40):
            store.sample_random(list("abcd"), 750, rng)
        for video in "abcd":
            store[video]
        print(round(1000 * (peak_memory_gb() - before)))
    """
    assert int(run_script(script, tmp_path)) < 32 + 220


def run_script(script: str, folder: Path) -> str:
    command = [sys.executable, "-c", textwrap.dedent(script), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
