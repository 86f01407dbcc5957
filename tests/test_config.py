"""Settings: the paper's constants, profiles, overrides, and messages that help."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from fustal_core import (
    acmnet,
    alignment,
    generator,
    metrics,
    mining,
    proposals,
    student,
    student_batches,
    student_blocks,
    student_loss,
)
from fustal_core.config import (
    PROFILES,
    Settings,
    SettingsError,
    changed_settings,
    make_settings,
    override,
    parse_overrides,
    read_settings,
    setting_names,
)
from fustal_core.stage_settings import ACMNetSettings

PAPER_SETTINGS = {
    "generation": {
        "method": "cross-video",
        "hidden_channels": 2048,
        "length": 750,
        "iterations": 6000,
        "batch_size": 16,
        "learning_rate": 1e-4,
        "weight_decay": 5e-4,
        "contrast_weight": 0.01,
        "cross_video_weight": 0.2,
        "class_threshold": 0.2,
        "nms_tiou": 0.5,
        "legacy_plus_one": True,
        "select": "last",
    },
    "acm_net": {
        "hidden_channels": 2048,
        "length": 750,
        "iterations": 6500,
        "batch_size": 16,
        "learning_rate": 1e-4,
        "weight_decay": 5e-5,
        "instance_share": 8,
        "context_share": 3,
        "background_share": 3,
        "instance_weight": 1,
        "guide_weight": 2e-3,
        "norm_weight": 5e-5,
        "norm_margin": 50,
        "sparsity_weight": 2e-4,
        "class_threshold": 0.25,
        "cas_thresholds": (0.15, 0.2),
        "attention_thresholds": tuple(i / 20 for i in range(3, 20)),
        "nms_tiou": 0.55,
        "legacy_plus_one": True,
        "train_classes": "predicted",
        "evaluate_every": 0,
        "select": "last",
    },
    "ftcl": {
        "epochs": 25,
        "batch_size": 16,
        "pairs_per_epoch": 0,
        "learning_rate": 1e-4,
        "weight_decay": 5e-5,
        "lcs_weight": 0.1,
        "fsd_weight": 0.8,
        "lcs_snippets": 30,
        "lcs_threshold": 0.92,
        "fsd_snippets": 5,
        "fsd_channels": 1024,
        "fsd_gamma": 0.1,
        "evaluate_every": 0,
        "select": "last",
    },
    "selection": {
        "iou_threshold": 0.2,
        "confidence_threshold": 0.4,
        "overlap": "all",
        "reduce": "sum",
        "fallback": "best",
    },
    "student": {
        "width": 512,
        "mlp_width": 768,
        "levels": 6,
        "stem_blocks": 2,
        "bins": 16,
        "window_factor": 5,
        "drop_path": 0.1,
        "init_scale": 1e-4,
        "depthwise_std": 0,
        "global_mean": "padded",
        "max_length": 2304,
        "switch_epoch": 61,
        "epochs": 101,
        "batch_size": 8,
        "learning_rate": 1e-4,
        "warmup_epochs": 1,
        "weight_decay": 0.05,
        "clip_norm": 1,
        "input_noise": 0.0005,
        "crop_min": 0.9,
        "mil_weight": 1,
        "mil_dropout": 0.7,
        "mil_k": "video",
        "ema_decay": 0.999,
        "ema_label_threshold": 0.4,
        "score_threshold": 0.001,
        "pre_nms_top_k": 2000,
        "max_detections": 2000,
        "min_length_grid": 0.05,
        "nms_sigma": 0.5,
        "select": "last",
    },
}

# What ACM-Net and FTCL were published with on ActivityNet 1.3, where that differs.
ACTIVITYNET = {
    "acm_net": {
        "length": 75,
        "instance_share": 2,
        "context_share": 10,
        "background_share": 10,
        "instance_weight": 5,
        "guide_weight": 5e-3,
        "sparsity_weight": 0,
        "weight_decay": 1e-3,
        "class_threshold": 0.1,
        "nms_tiou": 0.9,
    },
    "ftcl": {"weight_decay": 1e-3},
    "generation": {"length": 75, "class_threshold": 0.1, "nms_tiou": 0.9},
    "hr_pro": {"nms_tiou": 0.9},
    "student": {"max_length": 384},
    "evaluation": {"further_tiou": metrics.ACTIVITYNET_TIOU},
    "simulation": {
        "action_share": 0.5,
        "actions_per_video": 1.5,
        "video_s": 120,
        "shared_features": True,
    },
}

PAPER_CONSTANTS = [
    (mining, "EASY_SHARE", 5),
    (mining, "HARD_SHARE", 20),
    (mining, "SMALL_WINDOW", 3),
    (mining, "LARGE_WINDOW", 6),
    (generator, "TEMPERATURE", 0.07),
    (proposals.FUSTAL, "upsampling", 24),
    (proposals.FUSTAL, "margin", 0.25),
    (proposals.FUSTAL, "class_score_weight", 0.2),
    (proposals.FUSTAL, "min_max", True),
    (proposals.FUSTAL, "at_class_threshold", True),
    (acmnet, "DROPOUT", 0.7),
    (acmnet, "EPSILON", 1e-10),
    (alignment, "GAMMA", 0.1),
    (alignment, "MATCH_THRESHOLD", 0.92),
    (student, "PRIOR", 0.01),
    (student, "NO_LIMIT", 10_000),
    (student_blocks, "GROUPS", 16),
    (student_batches, "CROP_TRIES", 200),
    (student_batches, "KEPT_SHARE", 0.5),
    (student_loss, "CENTRE_RADIUS", 1.5),
    (student_loss, "SAME_LENGTH", 1e-3),
    (student_loss, "FOCAL_ALPHA", 0.25),
    (student_loss, "FOCAL_GAMMA", 2),
    (student_loss, "OVERLAP_POWER", 0.2),
    (student_loss, "NORMALISER_START", 100),
    (student_loss, "NORMALISER_MOMENTUM", 0.9),
    (student_loss, "MIL_SHARE", 5),
]


# --- the paper's constants ------------------------------------------------------------------------


@pytest.mark.parametrize("section", PAPER_SETTINGS)
def test_paper_profile(section: str) -> None:
    values = getattr(make_settings(profile="paper"), section).model_dump()
    assert {name: values[name] for name in PAPER_SETTINGS[section]} == PAPER_SETTINGS[section]


@pytest.mark.parametrize(("module", "name", "value"), PAPER_CONSTANTS)
def test_paper_constant(module: Any, name: str, value: float) -> None:
    assert getattr(module, name) == value


def test_defaults_of_the_functions_are_the_papers() -> None:
    def defaults(function: Any) -> dict[str, Any]:
        parameters = inspect.signature(function).parameters
        return {name: p.default for name, p in parameters.items() if p.default is not p.empty}

    assert defaults(generator.generator_loss) == {
        "mask": None,
        "contrast_weight": 0.01,
        "cross_video_weight": 0.2,
        "cross_video_pairs": 0,
    }
    assert defaults(proposals.generate_proposals) == {
        "how": proposals.FUSTAL,
        "nms": True,
        "nms_tiou": 0.5,
        "class_threshold": 0.2,
        "legacy_plus_one": True,
        "classes": None,
    }
    assert defaults(generator.CrossVideoGenerator) == {"hidden_channels": 2048}


@pytest.mark.parametrize("profile", PROFILES)
def test_constants_of_activitynet_replace_those_of_thumos14_alone(profile: str) -> None:
    usual = make_settings(profile=profile)
    other = make_settings(profile=profile, overrides={"constants": "activitynet13"})
    changes = {
        (section, name)
        for section, values in other.model_dump().items()
        if isinstance(values, dict)
        for name, value in values.items()
        if value != usual.model_dump()[section][name]
    }
    named = {(section, name) for section, own in ACTIVITYNET.items() for name in own}
    assert changes == named
    for section, own in ACTIVITYNET.items():
        for name, value in own.items():
            assert getattr(getattr(other, section), name) == value, name
    assert make_settings(profile=profile, overrides={"constants": "thumos14"}) == usual
    own = {"constants": "activitynet13", "acm_net.length": 60}
    assert make_settings(profile=profile, overrides=own).acm_net.length == 60


def test_regression_ranges_and_large_window() -> None:
    grid = student.make_grid(64, 6, torch.device("cpu"))
    ranges = [
        (grid.low[part].unique().item(), grid.high[part].unique().item()) for part in grid.slices()
    ]
    assert ranges == [(0, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, 10_000)]
    assert student_blocks.large_window(1, 5) == 11


# --- profiles and overrides -----------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_valid_and_knows_its_name(profile: str) -> None:
    settings = make_settings(profile=profile, seed=3)
    assert (settings.profile, settings.seed, settings.data) == (profile, 3, "simulated")


def test_profiles_grow() -> None:
    smoke, quick, paper = (make_settings(profile=profile) for profile in PROFILES)
    assert make_settings() == quick
    for section, name in [
        ("generation", "iterations"),
        ("generation", "hidden_channels"),
        ("acm_net", "iterations"),
        ("acm_net", "hidden_channels"),
        ("ftcl", "epochs"),
        ("ftcl", "fsd_channels"),
        ("student", "epochs"),
        ("student", "width"),
    ]:
        values = [getattr(getattr(s, section), name) for s in (smoke, quick, paper)]
        assert values == sorted(set(values))
    assert quick.simulation == paper.simulation


def test_overrides_replace_single_values_and_convert_strings() -> None:
    overrides = {
        "generation.iterations": "100",
        "generation.learning_rate": "1e-2",
        "generation.legacy_plus_one": "false",
        "selection.overlap": "class",
        "simulation.noise": 0.5,
        "device": "cpu",
    }
    settings = make_settings(profile="smoke", overrides=overrides)
    assert settings.generation.iterations == 100
    assert settings.generation.learning_rate == 0.01
    assert settings.generation.legacy_plus_one is False
    assert settings.selection.overlap == "class"
    assert settings.simulation.noise == 0.5
    assert settings.device == "cpu"
    assert settings.generation.batch_size == make_settings(profile="smoke").generation.batch_size
    assert make_settings(profile="smoke").generation.iterations != 100


def test_every_listed_setting_can_be_set() -> None:
    settings = make_settings(profile="smoke")
    values = {}
    for name in setting_names():
        section, _, field = name.rpartition(".")
        values[name] = getattr(getattr(settings, section) if section else settings, field)
    assert make_settings(profile="smoke", overrides=values) == settings
    assert len(values) > 50
    assert all(setting_names().values()), "every setting says what it means"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.15:0.4:0.95", (0.15, 0.55, 0.95)),
        ("0.1:0.1:0.3", (0.1, 0.2, 0.3)),  # not 0.30000000000000004
        ("0.5:0.1:0.5", (0.5,)),
        (" 0.2, 0.1 ", (0.2, 0.1)),
        ("0.3", (0.3,)),
        ("[0, 1]", (0, 1)),
        ("(0.1, 0.2)", (0.1, 0.2)),
        ([0.1, 0.2], (0.1, 0.2)),
        ((0.25,), (0.25,)),
    ],
)
def test_thresholds_are_lists_or_ranges(text: Any, expected: tuple[float, ...]) -> None:
    settings = make_settings(overrides={"acm_net.cas_thresholds": text})
    assert settings.acm_net.cas_thresholds == expected
    assert settings.acm_net.attention_thresholds == ACMNetSettings().attention_thresholds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "high",
        "0.1,,0.2",
        "0.1:0.5",
        "0.1:0.5:0.1:0.2",
        "0.1:0:0.5",
        "0.5:0.1:0.1",
        "0.15:0.95:0.05",  # the step comes second
        "0.1:0.3:0.9",  # does not end at 0.9
        "0:1e-9:1",
        "0:1:inf",
        "nan:0.1:1",
        "0.1,nan",
        "0.5,1.1",
        "-0.1,0.5",
        [],
        [0.1, "x"],
        0.5,
    ],
)
def test_bad_thresholds_are_refused_and_named(text: Any) -> None:
    with pytest.raises(SettingsError, match=r"acm_net\.cas_thresholds"):
        make_settings(overrides={"acm_net.cas_thresholds": text})


def test_a_bad_range_is_told_what_is_expected() -> None:
    with pytest.raises(SettingsError, match=r"0\.15,0\.2 or LOW:STEP:HIGH"):
        make_settings(overrides={"acm_net.attention_thresholds": "0.1-0.5"})


def test_settings_with_single_values_replaced() -> None:
    settings = make_settings(profile="smoke", seed=3, overrides={"ftcl.epochs": 7})
    other = override(settings, {"ftcl.lcs_weight": "0", "acm_net.cas_thresholds": "0.3"})
    assert (other.ftcl.lcs_weight, other.acm_net.cas_thresholds) == (0, (0.3,))
    assert (other.ftcl.epochs, other.seed, other.profile) == (7, 3, "smoke")
    assert settings.ftcl.lcs_weight == 0.1
    assert override(settings, {}) == settings
    with pytest.raises(SettingsError, match=r"'ftcl\.epoch'.*did you mean: ftcl\.epochs"):
        override(settings, {"ftcl.epoch": 3})
    with pytest.raises(SettingsError, match=r"ftcl\.epochs"):
        override(settings, {"ftcl.epochs": 0})


def test_constants_are_chosen_when_settings_are_made() -> None:
    settings = make_settings(overrides={"constants": "activitynet13"})
    assert override(settings, {}) == settings
    with pytest.raises(SettingsError, match="constants: cannot be changed for the same data"):
        override(settings, {"constants": "thumos14"})


@pytest.mark.parametrize("name", ["simulation.train_videos", "features.memory_gb", "trust_pickle"])
def test_what_makes_the_data_cannot_be_overridden_later(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}: cannot be changed for the same data"):
        override(make_settings(), {name: 40})


def test_another_seed_for_the_same_data() -> None:
    settings = make_settings(seed=1)
    assert override(settings, {}, seed=3) == make_settings(seed=3)
    with pytest.raises(SettingsError, match="'seed'"):
        override(settings, {}, seed=-1)


def test_defaults_are_of_their_own_type() -> None:
    """Whole numbers for fractions would give settings that are equal and have different hashes."""
    settings = make_settings(profile="paper")
    as_read = Settings.model_validate_json(settings.model_dump_json())
    assert settings.model_dump_json() == as_read.model_dump_json()
    assert settings.model_dump_json() == override(settings, {}).model_dump_json()


def test_assignments_of_the_command_line() -> None:
    assert parse_overrides(["a.b=1", " c = x=y "]) == {"a.b": "1", "c": "x=y"}
    assert parse_overrides([]) == {}
    with pytest.raises(SettingsError, match=r"NAME=VALUE, got 'a\.b'"):
        parse_overrides(["a.b"])


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "fragments"),
    [
        ({"generation.iteration": 5}, ["'generation.iteration'", "generation.iterations"]),
        ({"student.zzz": 5}, ["'student.zzz'", "student.width", "student.ema_decay"]),
        ({"zzz": 5}, ["'zzz'", "generation.length", "device"]),
        ({"seed": 5}, ["'seed'", "--seed"]),
        ({"generation.iterations": "many"}, ["generation.iterations", "integer", "'many'"]),
        ({"generation.iterations": 0}, ["generation.iterations", "greater than or equal to 1"]),
        (
            {"generation.method": "acm"},
            ["generation.method", "'hr-pro-snippet' or 'hr-pro'", "'acm'"],
        ),
        ({"constants": "charades"}, ["constants", "'activitynet13' or 'salads50'"]),
        ({"acm_net.iteration": 5}, ["'acm_net.iteration'", "acm_net.iterations"]),
        ({"acm_net.instance_share": 0}, ["acm_net.instance_share", "greater than or equal to 1"]),
        ({"acm_net.select": "best-on-test"}, ["evaluate_every > 0"]),
        ({"ftcl.select": "best-on-test"}, ["evaluate_every > 0"]),
        ({"ftcl.fsd_channels": 5}, ["ftcl.fsd_channels", "multiple of 2"]),
        ({"ftcl.fsd_gamma": 0}, ["ftcl.fsd_gamma", "greater than 0"]),
        ({"ftcl.pairs_per_epoch": -1}, ["ftcl.pairs_per_epoch"]),
        ({"selection.fallback": "worst"}, ["selection.fallback", "'best' or 'none'"]),
        ({"student.ema_decay": 1}, ["student.ema_decay", "less than 1"]),
        ({"student.max_length": 100}, ["student.max_length", "multiple of 32"]),
        ({"student.switch_epoch": 26}, ["switch_epoch must not exceed epochs"]),
        ({"generation.select": "best-on-test"}, ["evaluate_every > 0"]),
        ({"simulation.train_videos": 5}, ["train_videos", "num_classes = 20"]),
        ({"device": "tpu"}, ["device", "'auto', 'cpu' or 'cuda'"]),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(overrides: dict, fragments: list[str]) -> None:
    with pytest.raises(SettingsError) as error:
        make_settings(overrides=overrides)
    for fragment in fragments:
        assert fragment in str(error.value)


def test_all_mistakes_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        make_settings(overrides={"generation.a": 1, "student.b": 2})
    assert "generation.a" in str(error.value)
    assert "student.b" in str(error.value)
    with pytest.raises(SettingsError) as error:
        make_settings(overrides={"generation.length": 1, "student.width": 0})
    assert "generation.length" in str(error.value)
    assert "student.width" in str(error.value)


def test_unknown_profile_and_bad_seed() -> None:
    with pytest.raises(SettingsError, match="unknown profile 'huge'; allowed: smoke, quick, paper"):
        make_settings(profile="huge")
    with pytest.raises(SettingsError, match="seed"):
        make_settings(seed=-1)
    with pytest.raises(SettingsError, match="seed"):
        make_settings(seed=2**63)
    with pytest.raises(SettingsError, match=r"ablation\.seeds"):
        make_settings(overrides={"ablation.seeds": f"0,{2**63}"})


def test_settings_are_frozen() -> None:
    settings = make_settings()
    with pytest.raises(ValidationError):
        settings.generation.iterations = 5


# --- kept in a run directory ----------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_settings_survive_json(profile: str, tmp_path: Path) -> None:
    settings = make_settings("some/folder", profile, 4, {"student.nms_sigma": 0.3})
    path = tmp_path / "config.json"
    path.write_text(json.dumps(settings.model_dump()))
    assert read_settings(path) == settings
    assert isinstance(read_settings(path), Settings)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "[" * 100_000, '{"profile": "huge"}', '{"generation": {"old": 1}}'],
    ids=len,
)
def test_a_configuration_of_another_version_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match="not a configuration of this version") as error:
        read_settings(path)
    assert str(path) in str(error.value)


def test_changed_settings_are_listed() -> None:
    old = make_settings()
    new = make_settings(seed=1, overrides={"generation.iterations": 7})
    assert changed_settings(old, old) == []
    assert changed_settings(old, new) == ["seed: 0 -> 1", "generation.iterations: 300 -> 7"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("selection.confidence_threshold", "nan"),
        ("generation.learning_rate", "inf"),
        ("student.width", "100"),
        ("simulation.feature_dim", "1"),
        ("hr_pro.projected_channels", "1"),
    ],
)
def test_values_that_would_fail_later_are_refused_at_the_door(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        make_settings(overrides={name: value})


def test_names_of_what_is_not_measured_come_as_text_or_as_a_list() -> None:
    for given in ("a, b", ["a", "b"], ("a", "b")):
        made = make_settings(overrides={"evaluation.exclude": given})
        assert made.evaluation.exclude == ("a", "b")
    assert make_settings(overrides={"evaluation.exclude": ""}).evaluation.exclude == ()


def test_constants_of_50_salads_reach_hr_pro_after_the_profile() -> None:
    for profile in ("quick", "paper"):
        made = make_settings(profile=profile, overrides={"constants": "salads50"})
        assert (made.hr_pro.projected_channels, made.hr_pro.iterations) == (256, 400)
        assert made.hr_pro_instance.epochs == 9
        assert made.hr_pro.batch_size == make_settings(profile=profile).hr_pro.batch_size
