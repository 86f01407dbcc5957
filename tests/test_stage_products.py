"""A product in a folder, as a notebook is handed it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fustal_core.stage_products import Generation, Student


@pytest.mark.parametrize("kind", [Generation, Student])
def test_a_part_is_read_when_it_is_asked_for_and_once(
    kind: type[Generation | Student], tmp_path: Path
) -> None:
    """Of a folder that holds nothing else."""
    product = kind(tmp_path, "cpu")
    expected = pd.DataFrame({"video": ["a"], "score": [0.5]})
    expected.to_parquet(tmp_path / "detections.parquet")
    found = product.detections
    pd.testing.assert_frame_equal(found, expected)
    (tmp_path / "detections.parquet").unlink()
    assert product.detections is found
    assert kind(tmp_path, "cpu") == product
    with pytest.raises(FileNotFoundError):
        _ = kind(tmp_path, "cpu").detections
