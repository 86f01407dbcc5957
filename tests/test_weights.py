"""Weight files: the same model out as in, from the file alone; and what is said of bad ones."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from student_helpers import (
    CLASSES,
    random_input,
    random_network,
    small_settings,
    tiny_dataset,
)

from fustal_core.acmnet import ACMNet
from fustal_core.annotations import DataError
from fustal_core.ftcl import FTCL, build_ftcl
from fustal_core.generation import propose
from fustal_core.generator import CrossVideoGenerator
from fustal_core.hrpro import HRPro
from fustal_core.hrpro_inference import HRProDetector
from fustal_core.stage_settings import (
    ACMNetSettings,
    FTCLSettings,
    GenerationSettings,
    HRProInstanceSettings,
    HRProSettings,
)
from fustal_core.weights import KEY, Clock, load_model, save_model

GENERATION = GenerationSettings(hidden_channels=6, length=32, class_threshold=0.3)
ACM_NET = ACMNetSettings(
    hidden_channels=6,
    length=32,
    instance_share=4,
    cas_thresholds="0.1:0.1:0.3",
    attention_thresholds="0.2,0.4,0.6",
)
FTCL_SETTINGS = FTCLSettings(fsd_channels=10, lcs_snippets=7)
HR_PRO = HRProSettings(projected_channels=8, class_threshold=0.4, action_thresholds="0.3,0.5")
HR_PRO_INSTANCE = HRProInstanceSettings(extension=0.5, epochs=3)


def save_generator(path: Path) -> CrossVideoGenerator:
    torch.manual_seed(0)
    model = CrossVideoGenerator(5, len(CLASSES), 6)
    save_model(path, model, GENERATION, tiny_dataset(), seed=7)
    return model


def save_acm_net(path: Path) -> ACMNet:
    torch.manual_seed(1)
    model = ACMNet(5, len(CLASSES), ACM_NET)
    save_model(path, model, ACM_NET, tiny_dataset(), seed=7)
    return model


def save_ftcl(path: Path) -> FTCL:
    torch.manual_seed(2)
    model = build_ftcl(5, len(CLASSES), ACM_NET, FTCL_SETTINGS)
    save_model(path, model, ACM_NET, tiny_dataset(), seed=7, later=FTCL_SETTINGS)
    return model


def save_hr_pro_snippet(path: Path) -> HRPro:
    torch.manual_seed(3)
    model = HRPro(5, len(CLASSES), HR_PRO)
    fill_buffers(model)
    save_model(path, model, HR_PRO, tiny_dataset(), seed=7)
    return model


def save_hr_pro(path: Path) -> HRProDetector:
    torch.manual_seed(4)
    model = HRProDetector(HRPro(5, len(CLASSES), HR_PRO), HR_PRO_INSTANCE.extension)
    fill_buffers(model.snippet)
    save_model(path, model, HR_PRO, tiny_dataset(), seed=7, later=HR_PRO_INSTANCE)
    return model


def fill_buffers(model: HRPro) -> None:
    """As after training: a memory, and statistics of features."""
    model.prototypes = torch.rand_like(model.prototypes)
    model.projection.set_statistics(torch.rand(5), 0.5 + torch.rand(5))


def description_of(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()[KEY])


def rewrite(path: Path, change: Callable[[dict, dict], None]) -> None:
    """Change the description or the tensors of a file."""
    description, state = description_of(path), load_file(path)
    change(description, state)
    save_file(state, path, {KEY: json.dumps(description)})


def test_a_generator_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "weights.safetensors"
    model = save_generator(path).eval()
    loaded = load_model(path)
    assert loaded.kind == "generator"
    assert loaded.settings == GENERATION
    assert loaded.classes == CLASSES
    assert loaded.in_channels == 5
    assert loaded.clock == Clock(stride_frames=1, window_frames=1, fps=5.0)
    assert (loaded.origin.data, loaded.origin.data_origin) == ("tiny", "simulated")
    assert loaded.origin.seed == 7
    assert not loaded.model.training
    features = torch.randn(2, 20, 5)
    assert torch.equal(loaded.model(features).cas, model(features).cas)


@pytest.mark.parametrize(("kind", "save"), [("acm-net", save_acm_net), ("ftcl", save_ftcl)])
def test_acm_net_and_ftcl_come_back_and_localise_the_same(
    tmp_path: Path, kind: str, save: Callable[[Path], ACMNet | FTCL]
) -> None:
    path = tmp_path / "weights.safetensors"
    model = save(path).eval()
    loaded = load_model(path)
    assert loaded.kind == kind
    assert loaded.settings == ACM_NET
    assert loaded.settings.cas_thresholds == (0.1, 0.2, 0.3)
    assert (loaded.classes, loaded.in_channels, loaded.origin.seed) == (CLASSES, 5, 7)
    assert not loaded.model.training
    state = loaded.model.state_dict()
    assert state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value), name
    features = torch.randn(2, 40, 5)
    expected, found = model(features), loaded.model(features)
    for name, value in vars(expected).items():
        assert torch.equal(getattr(found, name), value), name
    ours, theirs = (propose(m, tiny_dataset(), "test", ACM_NET) for m in (model, loaded.model))
    assert len(ours) > 0
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


@pytest.mark.parametrize(
    ("kind", "save"), [("hr-pro-snippet", save_hr_pro_snippet), ("hr-pro", save_hr_pro)]
)
def test_hr_pro_comes_back_and_localises_the_same(
    tmp_path: Path, kind: str, save: Callable[[Path], HRPro | HRProDetector]
) -> None:
    """With its memory, its projection, and by how much it extends proposals."""
    path = tmp_path / "weights.safetensors"
    model = save(path).eval()
    loaded = load_model(path)
    assert loaded.kind == kind
    assert loaded.settings == HR_PRO
    assert loaded.settings.action_thresholds == (0.3, 0.5)
    assert (loaded.classes, loaded.in_channels, loaded.origin.seed) == (CLASSES, 5, 7)
    assert not loaded.model.training
    state = loaded.model.state_dict()
    assert state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value), name
    buffers = {name.rpartition(".")[2] for name, _ in loaded.model.named_buffers()}
    assert buffers == {"prototypes", "mean", "deviation", "weight"}
    ours, theirs = (propose(m, tiny_dataset(), "test", HR_PRO) for m in (model, loaded.model))
    assert len(ours) > 0
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_what_hr_pro_has_of_its_own_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    model = save_hr_pro(path)
    assert load_model(path).model.extension == 0.5
    assert description_of(path)["instance"] == HR_PRO_INSTANCE.model_dump(mode="json")
    rewrite(path, lambda description, _: description["settings"].update(projected_channels=0))
    with pytest.raises(DataError, match=r"prototypes: found \(3, 8\).*expected \(3, 5\)"):
        load_model(path)
    rewrite(path, lambda description, _: description.pop("instance"))
    with pytest.raises(DataError, match="instance is missing"):
        load_model(path)
    with pytest.raises(ValueError, match="instance"):
        save_model(path, model, HR_PRO, tiny_dataset(), seed=7)
    with pytest.raises(ValueError, match="ftcl"):  # another method's
        save_model(path, model.snippet, HR_PRO, tiny_dataset(), seed=7, later=FTCL_SETTINGS)


def test_what_ftcl_has_of_its_own_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_ftcl(path)
    assert description_of(path)["ftcl"] == FTCL_SETTINGS.model_dump(mode="json")
    rewrite(path, lambda description, _: description["ftcl"].update(fsd_channels=8))
    with pytest.raises(DataError, match=r"fsd_embedding.weight: found \(10, 6\).*\(8, 6\)"):
        load_model(path)
    rewrite(path, lambda description, _: description.pop("ftcl"))
    with pytest.raises(DataError, match="ftcl is missing"):
        load_model(path)
    with pytest.raises(ValueError, match="ftcl"):
        save_model(path, build_ftcl(5, 3, ACM_NET, FTCL_SETTINGS), ACM_NET, tiny_dataset(), seed=7)


def test_a_student_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    settings = small_settings(global_mean="padded")
    model = random_network(settings)
    save_model(path, model, settings, tiny_dataset(), seed=0)
    loaded = load_model(str(path))
    assert loaded.kind == "student"
    assert loaded.settings == settings
    batch = random_input([32, 19], 32)
    with torch.no_grad():
        expected, found = model(*batch), loaded.model(*batch)
    assert torch.equal(found.class_logits, expected.class_logits)
    assert torch.equal(found.offsets, expected.offsets)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.safetensors" for i in range(5)]
    for path in paths:
        save_generator(path)
    assert len({path.read_bytes() for path in paths}) == 1
    with safe_open(paths[0], framework="pt") as file:
        assert list(file.metadata()) == [KEY]


def test_the_clock_has_no_fps_where_videos_differ(tmp_path: Path) -> None:
    path, dataset = tmp_path / "weights.safetensors", tiny_dataset()
    fps = {**dataset.student_features.fps, "train0": 6.0}
    dataset = replace(dataset, student_features=replace(dataset.student_features, fps=fps))
    settings = small_settings()
    save_model(path, random_network(settings), settings, dataset, seed=0)
    assert load_model(path).clock == Clock(stride_frames=1, window_frames=1, fps=None)


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    path, settings = tmp_path / "weights.safetensors", small_settings()
    save_model(path, random_network(settings), settings, tiny_dataset(), seed=0)
    before = torch.random.get_rng_state()
    load_model(path)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_setting_that_is_newer_than_the_file_takes_its_default(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_generator(path)
    rewrite(path, lambda description, _: description["settings"].pop("legacy_plus_one"))
    assert load_model(path).settings == GENERATION


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        (lambda d, s: d["settings"].update(speed=3, mood="x"), ["settings.speed", "settings.mood"]),
        (lambda d, s: d["settings"].update(length="long"), ["settings.length", "'long'"]),
        (
            lambda d, s: d.update(kind="detector"),
            ["'detector'", "generator or acm-net or ftcl or hr-pro-snippet or hr-pro or student"],
        ),
        (lambda d, s: d.update(kind="student"), ["settings.hidden_channels"]),
        (lambda d, s: d.update(kind="acm-net"), ["settings.method", "settings.contrast_weight"]),
        (lambda d, s: d.update(kind="ftcl"), ["settings.method", "ftcl is missing"]),
        (lambda d, s: d.update(ftcl={}), ["ftcl = {} is unknown"]),
        (lambda d, s: d.update(kind=["generator"]), ["['generator']"]),
        (lambda d, s: d.update(format=2), ["format", "found 2"]),
        (lambda d, s: d.pop("classes"), ["classes is missing"]),
        (lambda d, s: d["clock"].update(stride_frames=0), ["clock.stride_frames", "found 0"]),
        (lambda d, s: d.update(in_channels=8), ["embedding.weight", "(6, 5, 3)", "(6, 8, 3)"]),
        (lambda d, s: d["classes"].append("\ud800"), ["surrogates not allowed"]),
        (lambda d, s: d["classes"].append("x"), ["classifier.weight", "(3, 6, 1)", "(4, 6, 1)"]),
        (
            lambda d, s: s.update(extra=s.pop("embedding.bias")),
            ["embedding.bias is missing", "extra is none of the model's"],
        ),
        (lambda d, s: s.update({"embedding.bias": s["embedding.bias"].half()}), ["float16"]),
        (lambda d, s: s["embedding.bias"][:1].fill_(torch.nan), ["embedding.bias: NaN or Inf"]),
        (lambda d, s: d["clock"].update(fps=1e-310), ["clock.fps"]),
        (lambda d, s: d["clock"].update(stride_frames=10**400), ["clock.stride_frames"]),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[dict, dict], None], fragments: list[str]
) -> None:
    path = tmp_path / "weights.safetensors"
    save_generator(path)
    rewrite(path, change)
    with pytest.raises(DataError) as caught:
        load_model(path)
    assert all(line.startswith(f"{path}: ") for line in caught.value.problems)
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("section", "change", "fragment"),
    [
        (None, {"in_channels": 10**17}, "in_channels: Input should be less"),
        ("settings", {"width": 16 * 10**30}, "no model can have its sizes"),
        ("settings", {"window_factor": 1e300}, "no model can have its sizes"),
        ("settings", {"stem_blocks": 10**7}, "settings.stem_blocks"),
        ("settings", {"max_detections": 10**30}, "settings.max_detections"),
        ("settings", {"max_length": 32 * 10**20}, "settings.max_length"),
    ],
)
def test_absurd_sizes_are_refused(
    tmp_path: Path, section: str | None, change: dict[str, float], fragment: str
) -> None:
    path, settings = tmp_path / "weights.safetensors", small_settings()
    save_model(path, random_network(settings), settings, tiny_dataset(), seed=0)
    rewrite(path, lambda d, _: (d[section] if section else d).update(change))
    with pytest.raises(DataError, match=fragment):
        load_model(path)


def test_what_is_no_weight_file_is_refused(tmp_path: Path) -> None:
    whole, plain = tmp_path / "whole.safetensors", tmp_path / "plain.safetensors"
    save_generator(whole)
    save_file({"a": torch.zeros(2)}, plain)
    odd = tmp_path / "odd.safetensors"
    save_file({"a": torch.zeros(2)}, odd, {KEY: "{"})
    cut, empty, text = tmp_path / "cut", tmp_path / "empty", tmp_path / "text"
    cut.write_bytes(whole.read_bytes()[:-20])
    empty.touch()
    text.write_text("weights\n" * 9)
    for path, fragment in (
        (plain, "no description of the model"),
        (odd, "not JSON"),
        (cut, "not a whole safetensors file"),
        (empty, "not a whole safetensors file"),
        (text, "not a whole safetensors file"),
        (tmp_path, "no such file"),
        (tmp_path / "none", "no such file"),
    ):
        with pytest.raises(DataError, match=fragment):
            load_model(path)


class _Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    bait, checkpoint = tmp_path / "bait.safetensors", tmp_path / "checkpoint.pt"
    bait.write_bytes(pickle.dumps(_Trap(sprung)))
    torch.save({"state": _Trap(sprung)}, checkpoint)
    for path in (bait, checkpoint):
        with pytest.raises(DataError, match="not a whole safetensors file"):
            load_model(path)
    assert not sprung.exists()
