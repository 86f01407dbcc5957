"""What several test files share."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

from fustal_core.data import Dataset
from fustal_core.simulator import SimulatorSettings, simulate

# The same examples each time, on slow machines too.
settings.register_profile("study", deadline=None, derandomize=True)
settings.load_profile("study")


@pytest.fixture(autouse=True)
def same_chance() -> None:
    """Networks that a test makes without saying from which chance are the same each time."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_dataset() -> Dataset:
    """Simulated data of 3 classes, 8 + 8 videos of less than a minute and 16 channels."""
    size = SimulatorSettings(
        num_classes=3, train_videos=8, test_videos=8, feature_dim=16, max_video_s=45.0
    )
    return simulate(size, seed=0)
