"""Freed memory is kept for a training, and handed back after it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from fustal_core import memory
from fustal_core.memory import all_freed_memory_kept, keep_freed_memory

is_glibc = pytest.mark.skipif(
    not (sys.platform == "linux" and memory._glibc()), reason="only glibc lets one ask for it"
)
PROGRAM = """
import json, resource
import numpy as np
from fustal_core.memory import all_freed_memory_kept, keep_freed_memory

def faults():  # pages that the system had to give
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def new_pages(bytes_each):
    np.ones(bytes_each, np.uint8)  # the first is new in any case
    before = faults()
    for _ in range(4):
        np.ones(bytes_each, np.uint8)
    return faults() - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

found = {"by default": new_pages(2**26)}
before = resident()
with all_freed_memory_kept():
    found["in a training"] = new_pages(2**26)
    found["kept"] = resident() - before
found["left"] = resident() - before
found["large afterwards"] = new_pages(2**26)
found["small afterwards"] = new_pages(2**24)
keep_freed_memory()
found["small"] = new_pages(2**24)
print(json.dumps(found))
"""


@is_glibc
def test_what_a_training_frees_is_taken_again_and_handed_back_at_its_end() -> None:
    """In a process of its own, told as dask tells its workers to keep nothing; in pages of 4 kB."""
    strict = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536", "NUMPY_MADVISE_HUGEPAGE": "0"}
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=strict, capture_output=True, text=True, check=True
    )
    found = json.loads(told.stdout)
    four_arrays = 4 * 2**26 // os.sysconf("SC_PAGE_SIZE")
    assert found["by default"] >= four_arrays
    assert found["in a training"] < four_arrays / 100
    assert found["kept"] > 0.9 * 2**26 > 3.6 * found["left"]
    assert found["large afterwards"] >= four_arrays
    assert max(found["small afterwards"], found["small"]) < four_arrays / 100


def test_where_the_c_library_has_no_such_function_nothing_is_asked_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    keep_freed_memory()
    with all_freed_memory_kept():
        pass
    with pytest.raises(KeyError), all_freed_memory_kept():
        raise KeyError
