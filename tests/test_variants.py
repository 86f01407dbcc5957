"""Variants of a study: they share what their change does not touch, and nothing else."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from filelock import FileLock
from safetensors import safe_open
from training_helpers import TINY, assert_same_weights

from fustal_core import ftcl_terms, making, rundir, stages
from fustal_core.annotations import DataError
from fustal_core.config import SettingsError, make_settings
from fustal_core.files import load_checkpoint
from fustal_core.generation import propose
from fustal_core.label_cost import on_share
from fustal_core.locks import RunDirectoryBusyError, making_lock
from fustal_core.metrics import AVERAGE, map_summary
from fustal_core.progress import Progress
from fustal_core.rundir import Product
from fustal_core.stage_settings import Method
from fustal_core.stages import Study, open_study
from fustal_core.student_inference import detect
from fustal_core.weights import load_model

SETTINGS = {**TINY, "acm_net.checkpoint_every": 2, "hr_pro.checkpoint_every": 2}
METHODS = ("cola", "cross-video", "acm-net", "ftcl", "hr-pro-snippet", "hr-pro")
POINTS = {"hr-pro-snippet", "hr-pro"}
PHASES = ("phase_one", "plain", "ema")
STUDENTS = {f"{labels} {phase}" for labels in ("selected", "raw") for phase in PHASES}
TRUTH = {f"truth {phase}" for phase in PHASES}
FIRST_PHASES = {f"{labels} phase_one" for labels in ("selected", "raw", "truth")}


@pytest.fixture(scope="module", autouse=True)
def sources_are_read_once() -> Iterator[None]:
    """Every key has a hash of the sources; these tests ask for hundreds of keys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "code_hash", cache(stages.code_hash))
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of which all generators and the students of two kinds of labels are made."""
    study = open_study(profile="smoke", run_dir=tmp_path_factory.mktemp("base"), overrides=SETTINGS)
    for method in METHODS:
        study.generation(method)
    study.student("selected", distill=False)
    study.student("truth", distill=False)
    return study


@pytest.fixture
def unmade(base: Study, tmp_path: Path) -> Study:
    """The same settings and data in a directory where nothing is made."""
    return with_data_of(base, Study(base.settings, tmp_path))


def with_data_of(base: Study, study: Study) -> Study:
    study.data = base.dataset
    return study


def products(study: Study) -> dict[str, Product]:
    """All that a study can make, by name."""
    found = {method: study.generation_product(method) for method in METHODS}
    for labels in ("selected", "raw", "truth"):
        for phase in PHASES:
            found[f"{labels} {phase}"] = study.student_product(labels, phase)
    return found


def snapshot(run_dir: Path) -> dict[Path, tuple[int, int]]:
    """Every file of a run directory, and which writing of it; locks change at every look."""
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in run_dir.rglob("*")
        if path.is_file() and not path.name.endswith("lock")
    }


def weights(study: Study, method: str) -> bytes:
    """The weight file of a generator, made if it is not there."""
    study.generation(method)
    return (study.generation_product(method).folder / "weights.safetensors").read_bytes()


# --- what is shared -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "touched"),
    [
        ({}, set()),
        ({"ftcl.fsd_weight": "0.8"}, set()),  # what it is already
        ({"student.window_factor": 5, "student.warmup_epochs": 1}, set()),
        ({"ftcl.fsd_weight": 0.0}, {"ftcl"}),
        ({"acm_net.iterations": 5}, {"acm-net", "ftcl"}),
        ({"generation.iterations": 5}, {"cola", "cross-video", *STUDENTS}),
        ({"generation.cross_video_pairs": 1}, {"cola", "cross-video", *STUDENTS}),
        ({"ablation.seeds": "0:2", "analysis.difficulty_seeds": "3"}, set()),
        ({"hr_pro.iterations": 5}, POINTS),
        ({"hr_pro.points": "centre"}, POINTS),
        ({"hr_pro_instance.epochs": 2}, {"hr-pro"}),
        ({"generation.method": "ftcl"}, STUDENTS),
        ({"generation.method": "hr-pro"}, STUDENTS),
        ({"selection.iou_threshold": 0.3}, STUDENTS),
        (
            {"student.epochs": 3},
            {*STUDENTS, *TRUTH} - FIRST_PHASES,
        ),
        ({"student.width": 16}, {*STUDENTS, *TRUTH}),
        ({"student.learning_rate": 0.01}, {*STUDENTS, *TRUTH}),
        ({"student.ema_decay": 0.5}, {*STUDENTS, *TRUTH}),
        # What only the distillation or the detection reads: nothing is measured along these students.
        ({"student.ema_label_threshold": 0.2}, {*STUDENTS, *TRUTH} - FIRST_PHASES),
        (
            {"student.nms_sigma": 0.2, "student.max_detections": 7},
            {*STUDENTS, *TRUTH} - FIRST_PHASES,
        ),
        (
            {"student.nms_sigma": 0.2, "student.evaluate_every": 1},
            {*STUDENTS, *TRUTH} - {"raw phase_one", "truth phase_one"},
        ),
        ({"generation.method": "ftcl", "ftcl.epochs": 2}, {"ftcl", *STUDENTS}),
    ],
)
def test_a_variant_shares_what_its_change_does_not_touch(
    base: Study, overrides: dict[str, object], touched: set[str]
) -> None:
    own, theirs = products(base.variant("v", overrides=overrides)), products(base)
    assert {name for name in own if own[name].key != theirs[name].key} == touched
    for name, product in own.items():
        if name in touched:
            inside = theirs[name].folder.relative_to(base.run_dir)
            assert product.folder == base.run_dir / "variants" / "v" / inside
        else:
            assert product == theirs[name]


def test_what_was_measured_last_is_not_detected_again(
    unmade: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student that is measured at its end has the detections of that measurement."""
    calls = []

    def counted(*inputs: Any, **options: Any) -> pd.DataFrame:
        calls.append(1)
        return detect(*inputs, **options)

    monkeypatch.setattr(making, "detect", counted)
    study = unmade.variant("measured", overrides={"student.evaluate_every": 1})
    student = study.student(distill=False)
    assert len(calls) == len(student.history) == student.history[AVERAGE].notna().sum()
    settings = study.settings.student
    pd.testing.assert_frame_equal(
        student.detections, detect(student.model, study.dataset, "test", settings)
    )
    calls.clear()
    study.student("truth", distill=False)  # measured at its end alone
    assert len(calls) == 1


def test_students_of_another_generator_are_not_the_base_s(base: Study) -> None:
    """Only if nothing differs: a variant that asks for the run's own generator is the run."""
    same = base.variant("v", overrides={"generation.method": "cross-video"})
    assert products(same) == products(base)
    own = products(base.variant("v", overrides={"generation.method": "cola"}))
    for name in STUDENTS:
        assert own[name].key != products(base)[name].key


def test_a_variant_reads_the_base_s_products_and_makes_none(base: Study) -> None:
    before = snapshot(base.run_dir)
    variant = base.variant("reader", overrides={"ftcl.lcs_weight": 0.0})
    for method in ("cola", "cross-video", "acm-net"):
        variant.generation(method)
    variant.student("selected", distill=False)
    variant.student("truth", distill=False)
    base.variant("same seed", seed=base.settings.seed).generation("ftcl")
    assert snapshot(base.run_dir) == before


def test_a_variant_makes_what_differs_in_its_own_folder_alone(base: Study) -> None:
    """The base's own student is still there afterwards, as it was."""
    before = snapshot(base.run_dir)
    student = base.variant("longer", overrides={"student.epochs": 3}).student(distill=False)
    assert len(student.history) == 3
    after = snapshot(base.run_dir)
    assert {path: after.get(path) for path in before} == before
    made = {path.relative_to(base.run_dir).parts[:4] for path in after.keys() - before}
    assert made == {("variants", "longer", "03_training", "selected")}
    assert len(base.student(distill=False).history) == 2


def test_a_variant_makes_a_missing_product_where_the_base_looks_for_it(unmade: Study) -> None:
    variant = unmade.variant("first", overrides={"ftcl.fsd_weight": 0.0})
    variant.generation("ftcl")
    assert unmade.generation_product("acm-net").is_made
    assert not unmade.generation_product("ftcl").is_made
    before = snapshot(unmade.run_dir)
    unmade.generation("acm-net")
    assert snapshot(unmade.run_dir) == before


def test_a_variant_does_not_take_another_variant_of_the_same_folder_for_its_own(
    unmade: Study,
) -> None:
    for weight in (0.0, 0.5):
        variant = unmade.variant("v", overrides={"ftcl.fsd_weight": weight})
        assert not variant.generation_product("ftcl").is_made
        variant.generation("ftcl")
        product = variant.generation_product("ftcl")
        assert product.is_made
        with safe_open(product.folder / "weights.safetensors", framework="pt") as file:
            description = json.loads(file.metadata()["fustal"])
        assert description["ftcl"]["fsd_weight"] == weight


def test_the_number_of_pairs_changes_the_weights(base: Study) -> None:
    fewer = base.variant("pairs", overrides={"generation.cross_video_pairs": 1})
    assert_same_weights(fewer.generation("cola").model, base.generation("cola").model)
    own, theirs = (study.generation("cross-video").losses for study in (fewer, base))
    assert not own["cross_video"].equals(theirs["cross_video"])


# --- seeds ----------------------------------------------------------------------------------------


def test_a_seed_changes_the_training_and_not_the_data(base: Study) -> None:
    variant = base.variant("seed1", seed=1)
    assert variant.dataset is base.dataset
    assert variant.settings.seed == 1
    changes = variant.settings.model_copy(update={"seed": base.settings.seed})
    assert changes == base.settings
    own, theirs = products(variant), products(base)
    assert {name for name in own if own[name].key == theirs[name].key} == set()
    for name, product in own.items():
        inside = theirs[name].folder.relative_to(base.run_dir)
        assert product.folder == base.run_dir / "variants/seed1" / inside


@pytest.mark.parametrize("method", ["cross-video", "ftcl", "hr-pro"])
def test_the_seed_alone_decides_the_bits(base: Study, tmp_path: Path, method: str) -> None:
    """Another one gives other weights; the same one the same file, wherever it is made."""
    first = weights(base.variant("seed1", seed=1), method)
    assert first != weights(base, method)
    for seed, expected in ((0, weights(base, method)), (1, first)):
        settings = base.settings.model_copy(update={"seed": seed})
        alone = with_data_of(base, Study(settings, tmp_path / str(seed)))
        assert weights(alone, method) == expected


# --- variants of variants -------------------------------------------------------------------------


def test_a_variant_of_a_variant_shares_with_the_nearest(base: Study) -> None:
    of_seed = base.variant("seed1", seed=1)
    nested = of_seed.variant("without", overrides={"ftcl.fsd_weight": 0.0})
    own, theirs = products(nested), products(of_seed)
    assert {name for name in own if own[name] != theirs[name]} == {"ftcl"}
    assert own["ftcl"].folder == of_seed.run_dir / "variants/without/01_generation/ftcl"
    assert nested.data_owner is base

    same = base.variant("seed0", seed=0).variant("nothing", overrides={})
    assert products(same) == products(base)


def test_the_terms_of_a_seed_start_from_one_acm_net(base: Study) -> None:
    variants = {name: ftcl_terms.term(base, 1, name) for name in ftcl_terms.TERMS}
    starts = {variant.generation_product("acm-net").folder for variant in variants.values()}
    assert starts == {base.run_dir / "variants/seed1/01_generation/acm-net"}
    contrasts = {
        name: (variant.settings.ftcl.fsd_weight, variant.settings.ftcl.lcs_weight)
        for name, variant in variants.items()
    }
    usual = base.settings.ftcl
    assert contrasts == {
        "ACM-Net": (usual.fsd_weight, usual.lcs_weight),
        "trained on, no contrast": (0, 0),
        "without FSD": (0, usual.lcs_weight),
        "without LCS": (usual.fsd_weight, 0),
        "FTCL": (usual.fsd_weight, usual.lcs_weight),
    }
    folders = {name: own.generation_product("ftcl").folder for name, own in variants.items()}
    assert len(set(folders.values())) == 4  # the first has the FTCL of the last
    for name in ftcl_terms.TERMS:
        own = ftcl_terms.term(base, base.settings.seed, name)
        is_base = own.generation_product("ftcl") == base.generation_product("ftcl")
        assert is_base == (name in ("ACM-Net", "FTCL"))


def test_terms_over_seeds_are_measured_as_the_study_measures(base: Study) -> None:
    rows = ftcl_terms.terms_over_seeds(base, [0, 1])
    assert rows[["variant", "seed"]].to_numpy().tolist() == [
        [name, seed] for seed in (0, 1) for name in ftcl_terms.TERMS
    ]
    assert (rows["data"] == base.data_name).all()
    assert (rows["weights"] == "last").all()
    table = rows.set_index(["variant", "seed"])["avg 0.1:0.7"]
    for name, method in (("ACM-Net", "acm-net"), ("FTCL", "ftcl")):
        expected = base.measure(base.generation(method).detections)["avg 0.1:0.7"]
        assert table[name, 0] == expected
    before = snapshot(base.run_dir)
    again = ftcl_terms.terms_over_seeds(base, [0, 1])
    assert again.equals(rows)
    assert snapshot(base.run_dir) == before


def test_weights_chosen_by_test_labels_are_said(unmade: Study) -> None:
    """Of the ACM-Net alone: FTCL's start from it."""
    chosen = {"acm_net.select": "best-on-test", "acm_net.evaluate_every": 2}
    rows = ftcl_terms.terms_over_seeds(unmade.variant("best", overrides=chosen), [0])
    assert rows["weights"].tolist() == ["best-on-test"] * 5


# --- HR-Pro ---------------------------------------------------------------------------------------


def test_both_stages_of_hr_pro_are_made_and_read(base: Study) -> None:
    for method in ("hr-pro-snippet", "hr-pro"):
        found, again = base.generation(method), base.generation(method)
        settings = base.generator_settings(method)
        for subset, proposals in (("train", found.train), ("test", found.test)):
            expected = propose(found.model, base.dataset, subset, settings, purpose="labels")
            pd.testing.assert_frame_equal(proposals, expected, check_exact=True)
        expected = propose(found.model, base.dataset, "test", settings)
        pd.testing.assert_frame_equal(found.detections, expected, check_exact=True)
        assert len(found.detections) > len(found.test)
        assert_same_weights(found.model, again.model)
        assert (found.looks != {}) == (method == "hr-pro-snippet")
    snippet, detector = (base.generation(m).model for m in ("hr-pro-snippet", "hr-pro"))
    assert_same_weights(detector.snippet, snippet)


def test_hr_pro_does_not_see_where_actions_end(base: Study, tmp_path: Path) -> None:
    """With the points that the data has, false segments give the same weights and proposals."""
    assert not base.dataset.points.empty
    false = base.dataset.segments.assign(t_start=0.0, t_end=0.5)
    blind = Study(base.settings, tmp_path)
    blind.data = replace(base.dataset, segments=false)
    for method in ("hr-pro-snippet", "hr-pro"):
        assert weights(blind, method) == weights(base, method)
        pd.testing.assert_frame_equal(
            blind.generation(method).train, base.generation(method).train, check_exact=True
        )


def test_points_are_drawn_as_the_settings_say(base: Study) -> None:
    pd.testing.assert_frame_equal(base.points.points, base.dataset.points)
    starts = base.variant("starts", overrides={"hr_pro.points": "start"}).points.points
    truth = base.dataset.truth("train")
    assert starts["t"].tolist() == truth["t_start"].tolist()
    bare = Study(base.settings, base.run_dir)
    bare.data = replace(base.dataset, points=base.dataset.points[:0])
    with pytest.raises(DataError, match="no point labels"):
        _ = bare.variant("given", overrides={"hr_pro.points": "given"}).points


# --- what is not measured -------------------------------------------------------------------------


def measuring(base: Study, **evaluation: str) -> Study:
    """The study with other ``evaluation`` settings, in its own directory."""
    overrides = SETTINGS | {f"evaluation.{name}": value for name, value in evaluation.items()}
    return with_data_of(
        base, Study(make_settings("simulated", "smoke", 0, overrides), base.run_dir)
    )


def test_excluded_videos_are_out_of_truth_and_detections(base: Study) -> None:
    detections, truth = base.generation("hr-pro").detections, base.dataset.truth("test")
    first, second, *_ = truth["video"].unique()
    study = measuring(base, exclude=f"{first}, {second}, nowhere")
    found, true = study.measured(detections)
    for kept, whole in ((found, detections), (true, truth)):
        expected = whole[~whole["video"].isin([first, second])]
        # A class of which no segment is left is not measured.
        expected = expected[expected["label"].isin(true["label"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(kept, expected)
    assert study.measure(detections) == map_summary(found, true)
    assert study.measure(detections) != base.measure(detections)
    # As if the two videos were not there.
    assert study.measure(found) == study.measure(detections)
    whole = base.measured(detections)
    pd.testing.assert_frame_equal(whole[0], detections)
    pd.testing.assert_frame_equal(whole[1], truth)


def test_a_class_that_no_test_video_shows_is_not_measured(base: Study) -> None:
    """Models predict every class of the training videos."""
    truth = base.dataset.truth("test")
    label = truth["label"].iloc[0]
    study = measuring(base)
    segments = base.dataset.segments
    gone = (segments["label"] == label) & segments["video"].isin(truth["video"])
    study.data = replace(base.dataset, segments=segments[~gone])
    perfect = truth.assign(score=1.0)
    assert study.measure(perfect)["mAP@0.5"] == pytest.approx(100)
    assert label not in set(study.measured(perfect)[0]["label"])


def test_what_touches_an_ambiguous_interval_is_out(base: Study, tmp_path: Path) -> None:
    """Detections alone: the truth stays, and is missed where its detections are gone."""
    truth = base.dataset.truth("test")
    perfect = truth.assign(score=1.0)
    assert base.measure(perfect)["mAP@0.5"] == pytest.approx(100)
    one = truth.iloc[0]
    listed = tmp_path / "Ambiguous_test.txt"
    listed.write_text(f"{one['video']} {one['t_start']} {one['t_end']}\n")
    study = measuring(base, ambiguous=str(listed))
    found, true = study.measured(perfect)
    pd.testing.assert_frame_equal(true, truth)
    inside = (truth["t_start"] < one["t_end"]) & (truth["t_end"] > one["t_start"])
    gone = inside & (truth["video"] == one["video"])
    assert len(found) == len(truth) - gone.sum()
    assert study.measure(perfect)["mAP@0.5"] < 99.9
    both = measuring(base, ambiguous=str(listed), exclude=one["video"])
    assert both.measure(perfect)["mAP@0.5"] == pytest.approx(100)


def test_what_is_not_measured_changes_no_training(base: Study) -> None:
    first = base.dataset.video_names("test")[0]
    own, theirs = products(measuring(base, exclude=first)), products(base)
    assert own == theirs


def test_one_first_phase_serves_all_thresholds_of_ema_labels(
    base: Study, unmade: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In siblings through their base; with the bits that a study of that threshold alone has."""
    trained: list[Path] = []
    train = stages.run_student_training

    def remember(study: Study, settings: Any, labels: Any, product: Product, *rest: Any) -> Any:
        trained.append(product.folder)
        return train(study, settings, labels, product, *rest)

    monkeypatch.setattr(stages, "run_student_training", remember)
    thresholds = [
        unmade.variant(f"t{value}", overrides={"student.ema_label_threshold": value})
        for value in (0.0, 0.9)
    ]
    first, second = [study.phase_one("truth") for study in thresholds]
    assert first == second == unmade.phase_one("truth")
    assert trained == [unmade.run_dir / "03_training/truth_phase_one"]
    found = [study.student("truth", distill=True).ema_labels for study in thresholds]
    assert len(found[1]) < len(found[0])
    assert found[0]["score"].max() > 0
    assert not found[0].equals(found[1])
    slower = unmade.variant("lr", overrides={"student.learning_rate": 1e-4})
    assert slower.phase_one("truth") != first
    states = [
        load_checkpoint(base_or_own, None) for base_or_own in (first, base.phase_one("truth"))
    ]
    for name, value in states[0]["model"].items():
        assert torch.equal(value, states[1]["model"][name]), name


def test_ambiguous_intervals_are_known_by_what_they_say(base: Study, tmp_path: Path) -> None:
    """Not by where their file lies, nor by how it is written."""
    video = base.dataset.video_names("test")[0]
    lines = {"a": f"{video} 1 2\n", "b": f"\n{video}  1.0 2.0", "c": f"{video} 1 3\n"}
    for name, line in lines.items():
        (tmp_path / name).write_text(line)
    every = {"hr_pro.evaluate_every": 2, "student.evaluate_every": 1}
    own = {
        name: products(
            base.variant("v", overrides={**every, "evaluation.ambiguous": str(tmp_path / name)})
        )
        for name in lines
    }
    assert own["a"] == own["b"]
    along = products(base.variant("v", overrides=every))
    measured = {*POINTS, *(f"selected {phase}" for phase in PHASES)}
    for other in (own["c"], along):
        assert {name for name in other if other[name].key != own["a"][name].key} == measured


def test_a_list_that_cannot_be_read_claims_no_directory(tmp_path: Path) -> None:
    bad = tmp_path / "ambiguous.txt"
    bad.write_text("video 5\n")
    with pytest.raises(DataError, match=r"ambiguous\.txt"):
        open_study(
            profile="smoke",
            run_dir=tmp_path / "run",
            overrides={"evaluation.ambiguous": str(bad)},
        )
    assert not (tmp_path / "run").exists()


def test_what_is_measured_along_a_training_is_part_of_it(base: Study) -> None:
    """Its curve, and what best-on-test keeps, are other ones where other videos are measured."""
    first = base.dataset.video_names("test")[0]
    every = {"hr_pro.evaluate_every": 2, "student.evaluate_every": 1}
    along = base.variant("along", overrides=every)
    without = base.variant("without", overrides={**every, "evaluation.exclude": first})
    own, theirs = products(without), products(along)
    changed = {name for name in own if own[name].key != theirs[name].key}
    # Floor and ceiling are measured at their end alone; what starts from a changed one changes.
    assert changed == {*POINTS, *(f"selected {phase}" for phase in PHASES)}


def test_a_variant_that_leaves_out_nothing_or_all_is_refused(base: Study) -> None:
    names = base.dataset.video_names("test")
    for exclude in ("nowhere", ", ".join(names)):
        with pytest.raises(DataError, match="left out of the test"):
            base.variant("out", overrides={"evaluation.exclude": exclude})


def test_training_videos_without_a_point_get_no_proposals(base: Study, tmp_path: Path) -> None:
    """Though their video labels are known: they follow from the points."""
    points = base.dataset.points
    video = points["video"].iloc[0]
    study = Study(base.settings, tmp_path)
    study.data = replace(
        base.dataset, points=points[points["video"] != video], fingerprint="fewer points"
    )
    for method in ("hr-pro-snippet", "hr-pro"):
        found = study.generation(method)
        assert video not in set(found.train["video"])
        assert set(found.train["video"]) <= set(study.points.points["video"])


@pytest.mark.parametrize(
    ("evaluation", "fragment"),
    [
        ({"ambiguous": "no/such/list.txt"}, "list.txt: cannot be read"),
        ({"ambiguous": "LIST"}, "line 2"),
        ({"exclude": "nowhere, elsewhere"}, "'elsewhere', 'nowhere': expected a test video"),
        ({"exclude": "sim_train_0000"}, "expected a test video"),
        ({"exclude": "ALL"}, "nothing is left to measure against"),
    ],
)
def test_lists_of_what_not_to_measure_are_checked_with_the_data(
    base: Study, tmp_path: Path, evaluation: dict[str, str], fragment: str
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("video_test_0000001 1 2\nvideo_test_0000001 2 1\n")
    places = {"ALL": ",".join(base.dataset.video_names("test")), "LIST": str(listed)}
    overrides = {f"evaluation.{key}": places.get(own, own) for key, own in evaluation.items()}
    settings = make_settings("simulated", "smoke", 0, SETTINGS | overrides)
    with pytest.raises(DataError, match=fragment):
        _ = Study(settings, tmp_path / "run").dataset


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "fragment"),
    [
        ({"ftcl.epoch": 3}, "ftcl.epochs"),
        ({"ftcl.epochs": 0}, "ftcl.epochs"),
        ({"generation.method": "coal"}, "coal"),
        ({"student.select": "best-on-test"}, "evaluate_every"),
        ({"simulation.train_videos": 5}, "same data"),
        ({"features.dtype": "float16"}, "same data"),
        ({"constants": "salads50"}, "constants"),
        ({"seed": 3}, "seed"),
        ({"data": "elsewhere"}, "data"),
        ({"profile": "paper"}, "profile"),
    ],
)
def test_a_wrong_override_is_refused(
    base: Study, overrides: dict[str, object], fragment: str
) -> None:
    with pytest.raises(SettingsError, match=fragment):
        base.variant("wrong", overrides=overrides)
    assert not (base.run_dir / "variants" / "wrong").exists()


def test_a_negative_seed_is_refused(base: Study) -> None:
    with pytest.raises(SettingsError, match="seed"):
        base.variant("wrong", seed=-1)


# --- killed, and two at once ----------------------------------------------------------------------


class Killed(Exception):
    pass


@pytest.mark.parametrize(("first", "second"), [("acm-net", "ftcl"), ("hr-pro-snippet", "hr-pro")])
def test_killed_in_the_middle_a_variant_goes_on_to_the_same_bits(
    base: Study, unmade: Study, monkeypatch: pytest.MonkeyPatch, first: Method, second: Method
) -> None:
    expected = {
        method: weights(base.variant("seed1", seed=1), method) for method in (first, second)
    }
    variant = unmade.variant("seed1", seed=1)

    def killed_after(step: int) -> None:
        @contextmanager
        def show_progress(what: str) -> Iterator[Progress]:
            def progress(done: int, total: int, note: str) -> None:
                if done == step:
                    raise Killed

            yield progress

        monkeypatch.setattr(making, "show_progress", show_progress)

    killed_after(3)  # a step after the first one's checkpoint
    with pytest.raises(Killed):
        variant.generation(second)
    start = variant.generation_product(first)
    assert start.checkpoint.exists()
    assert torch.load(start.checkpoint, weights_only=True)["done"] == 2
    assert not start.is_made
    monkeypatch.undo()
    for method in (first, second):
        assert weights(variant, method) == expected[method]


def test_ftcl_that_needs_an_acm_net_does_not_wait_for_itself(
    unmade: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither does a student that needs everything before it; with no patience it would fail."""
    monkeypatch.setattr(stages, "making_lock", partial(making_lock, patience_s=0))
    variant = unmade.variant("v", overrides={"generation.method": "ftcl", "ftcl.fsd_weight": 0.0})
    variant.student()
    assert variant.generation_product("ftcl").is_made
    start = load_model(variant.generation_product("acm-net").folder / "weights.safetensors")
    assert start.kind == "acm-net"


def test_what_another_process_makes_is_waited_for_and_nothing_else(
    unmade: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One lock for each product, where it lies: a variant's of a variant may be the first one's."""
    monkeypatch.setattr(stages, "making_lock", partial(making_lock, patience_s=0))
    nested = unmade.variant("a", seed=1).variant("b", overrides={"ftcl.fsd_weight": 0.0})
    product = nested.generation_product("acm-net")
    product.folder.mkdir(parents=True)
    with FileLock(product.folder / ".making.lock"):
        for method in ("acm-net", "ftcl"):
            with pytest.raises(RunDirectoryBusyError, match="another process makes"):
                nested.generation(method)
        assert not list(unmade.run_dir.rglob("made.json"))
        nested.generation("cola")
        unmade.generation("acm-net")
        assert not product.is_made
    nested.generation("acm-net")
    assert product.is_made


def test_who_waited_for_a_product_reads_it(unmade: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not there when it was asked for, and is when the lock is free."""
    product = unmade.generation_product("cola")
    held = making_lock

    @contextmanager
    def after_another(folder: Path) -> Iterator[None]:
        monkeypatch.setattr(stages, "making_lock", held)
        unmade.generation("cola")
        monkeypatch.setattr(stages, "make_generation", None)
        with held(folder):
            yield

    monkeypatch.setattr(stages, "making_lock", after_another)
    assert not product.is_made
    assert not unmade.generation("cola").train.empty


# --- threads --------------------------------------------------------------------------------------


def test_a_product_is_made_on_one_thread(unmade: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever torch was set to, which it is again afterwards, if it fails as well."""
    seen: list[int] = []

    def make(*of_a_generation: object) -> None:
        seen.append(torch.get_num_threads())
        raise Killed

    monkeypatch.setattr(stages, "make_generation", make)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with pytest.raises(Killed):
                unmade.generation("cola")
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1]


def test_the_bits_do_not_depend_on_the_number_of_threads(base: Study, unmade: Study) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        found = weights(unmade, "cross-video")
    finally:
        torch.set_num_threads(before)
    assert found == weights(base, "cross-video")


# --- other data -----------------------------------------------------------------------------------


def test_another_study_has_the_data_of_its_seed(base: Study, tmp_path: Path) -> None:
    """That of a run of that seed, with the same bits of what is trained on it."""
    other = base.other("seed1", seed=1)
    assert other.run_dir == base.run_dir / "variants/seed1"
    assert other.data_owner is other
    alone = open_study(profile="smoke", seed=1, run_dir=tmp_path, overrides=SETTINGS)
    assert other.settings == alone.settings
    assert other.dataset.fingerprint == alone.dataset.fingerprint != base.dataset.fingerprint
    own, theirs = products(other), products(alone)
    assert not {p.key for p in own.values()} & {p.key for p in products(base).values()}
    for name, product in own.items():
        inside = theirs[name].folder.relative_to(alone.run_dir)
        assert product.folder == base.run_dir / "variants/seed1" / inside
    assert weights(other, "cola") == weights(alone, "cola") != weights(base, "cola")
    assert json.loads((other.run_dir / "provenance.json").read_text())["seed"] == 1


def test_another_study_may_change_the_simulator(base: Study) -> None:
    other = base.other("short", overrides={"simulation.max_video_s": 30.0, "student.epochs": 3})
    assert other.dataset.videos["duration_s"].max() <= 30
    assert other.settings.seed == base.settings.seed
    assert not {p.key for p in products(other).values()} & {p.key for p in products(base).values()}
    variant = other.variant("longer", overrides={"student.epochs": 4})
    assert variant.dataset is other.dataset
    assert variant.data_owner is other
    assert products(variant)["cola"] == products(other)["cola"]
    with pytest.raises(SettingsError, match="same data"):
        other.variant("wrong", overrides={"simulation.max_video_s": 20.0})


def test_data_of_another_seed_is_known_by_the_statistics_it_follows(
    base: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = base.other("o", seed=5).fingerprint
    assert base.other("o", seed=5).fingerprint == before
    monkeypatch.setattr(stages, "statistics_digest", lambda: "other tables")
    assert base.other("o", seed=5).fingerprint != before


@pytest.mark.parametrize("module", ["making", "stages", "made_from", "weights", "results"])
def test_what_every_product_passes_through_is_part_of_its_key(
    base: Study, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    before = {name: product.key for name, product in products(base).items()}
    monkeypatch.setitem(rundir.SOURCES, module, "otherwise")
    after = {name: product.key for name, product in products(base).items()}
    assert all(after[name] != before[name] for name in before)


def test_another_study_without_a_change_is_the_same_study(base: Study) -> None:
    other = base.other("same")
    assert products(other) == products(base)
    assert other.dataset is base.dataset


def test_another_study_of_a_data_folder_shares_it(base: Study, tmp_path: Path) -> None:
    settings = base.settings.model_copy(update={"data": str(tmp_path)})
    real = with_data_of(base, Study(settings, tmp_path / "run"))
    other = real.other("seed1", seed=1)
    assert other.dataset is real.dataset
    assert other.data_owner is real
    assert other.settings.seed == 1
    with pytest.raises(SettingsError, match="same data"):
        real.other("wrong", overrides={"simulation.max_video_s": 30.0})


@pytest.mark.parametrize(
    ("overrides", "fragment"),
    [({"features.dtype": "float16"}, "same data"), ({"simulation.videos": 3}, "simulation.videos")],
)
def test_a_wrong_override_of_other_data_is_refused(
    base: Study, overrides: dict[str, object], fragment: str
) -> None:
    with pytest.raises(SettingsError, match=fragment):
        base.other("wrong", overrides=overrides)
    assert not (base.run_dir / "variants" / "wrong").exists()


# --- sent to another process ----------------------------------------------------------------------


def test_a_study_is_sent_without_its_data(base: Study) -> None:
    """It knows its products at once, and makes its data when it is asked for it."""
    variant = base.variant("seed1", seed=1)
    expected = products(variant)
    sent = pickle.dumps(variant)
    assert len(sent) < 50_000
    found = pickle.loads(sent)
    assert products(found) == expected
    assert found.data is found.base.data is None
    assert found.data_owner is found.base
    owner = found.data_owner
    pd.testing.assert_frame_equal(owner.dataset.segments, base.dataset.segments)
    assert found.dataset is owner.dataset
    assert found.dataset.fingerprint == base.dataset.fingerprint
    assert found.points.points.equals(variant.points.points)


def test_a_share_of_the_training_videos_is_sent_as_such(base: Study) -> None:
    part = on_share(base, 0.5)
    expected = part.dataset.video_names("train")
    assert 0 < len(expected) < len(base.dataset.video_names("train"))
    key = part.student_product("truth", "plain").key
    found = pickle.loads(pickle.dumps(part))
    assert found.student_product("truth", "plain").key == key
    assert found.data_owner.settings == base.settings
    assert found.dataset.video_names("train") == expected
