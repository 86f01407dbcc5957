"""Small settings, networks and data sets for the tests of the student."""

from typing import Any

import pandas as pd
import torch
from torch import Tensor

from fustal_core.data import Dataset
from fustal_core.features import FeatureStore
from fustal_core.stage_settings import StudentSettings
from fustal_core.student import StudentOutput, TriDet

CLASSES = ("dive", "jump", "run")


def small_settings(**changes: Any) -> StudentSettings:
    values = {
        "width": 16,
        "mlp_width": 24,
        "levels": 3,
        "stem_blocks": 1,
        "bins": 4,
        "max_length": 64,
        "global_mean": "masked",
        "switch_epoch": 2,
        "epochs": 4,
        "batch_size": 3,
        "learning_rate": 1e-3,
        "ema_decay": 0.9,
        "pre_nms_top_k": 20,
        "max_detections": 15,
    }
    return StudentSettings(**(values | changes))


def random_network(settings: StudentSettings, in_channels: int = 5, seed: int = 0) -> TriDet:
    """A network in eval mode all of whose parameters, norms and biases too, are random."""
    rng = torch.Generator().manual_seed(seed)
    model = TriDet(in_channels, len(CLASSES), settings, rng)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng))
    return model.eval()


def random_input(
    lengths: list[int], padded: int, channels: int = 5, seed: int = 1
) -> tuple[Tensor, Tensor]:
    """Features (B, T, channels) that are 0 behind each video's length, and their mask."""
    rng = torch.Generator().manual_seed(seed)
    mask = torch.arange(padded) < torch.tensor(lengths)[:, None]
    features = torch.randn(len(lengths), padded, channels, generator=rng)
    return features * mask[..., None], mask


def random_output(seed: int = 2) -> tuple[TriDet, StudentOutput]:
    model = random_network(small_settings(), seed=seed)
    with torch.no_grad():
        return model, model(*random_input([32, 19], 32, seed=seed))


def tiny_dataset(seed: int = 3, num_train: int = 7, num_test: int = 4) -> Dataset:
    """Videos of 20 to 90 snippets of 0.2 s; while class c is on, channel c is 3 higher."""
    rng = torch.Generator().manual_seed(seed)
    names = [f"train{i}" for i in range(num_train)] + [f"test{i}" for i in range(num_test)]
    rows, features, offsets, total = [], [], {}, 0
    for i, name in enumerate(names):
        length = int(torch.randint(20, 91, (1,), generator=rng))
        values = 0.3 * torch.randn(length, 5, generator=rng)
        for first in range(3, length - 8, 16):
            size, label = int(torch.randint(4, 9, (1,), generator=rng)), (i + first) % 3
            values[first : first + size, label] += 3
            rows.append([name, CLASSES[label], first * 0.2, (first + size) * 0.2])
        features.append(values)
        offsets[name], total = (total, length), total + length
    store = FeatureStore(torch.cat(features), offsets, 1, 1, dict.fromkeys(names, 5.0))
    videos = pd.DataFrame(
        {
            "subset": ["train"] * num_train + ["test"] * num_test,
            "duration_s": [offsets[name][1] * 0.2 for name in names],
        },
        index=pd.Index(names, name="video"),
    )
    segments = pd.DataFrame(rows, columns=["video", "label", "t_start", "t_end"])
    return Dataset("tiny", "simulated", CLASSES, videos, segments, store, store, "0")
