"""EMA, EMA labels, batches, detection, and the training that puts them together."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from student_helpers import CLASSES, random_input, random_network, small_settings, tiny_dataset

from fustal_core.data import Dataset
from fustal_core.distillation import (
    ema_label_part,
    ema_label_table,
    find_ema_labels,
    initial_share,
    make_ema,
    relabel,
)
from fustal_core.proposals import soft_nms
from fustal_core.reference_detection import detections_by_loops, ema_labels_by_loops
from fustal_core.stage_settings import StudentSettings
from fustal_core.student import TriDet
from fustal_core.student_batches import (
    Batch,
    GridLabels,
    TrainingSet,
    grid_labels,
    make_batch,
    pad_features,
    random_crop,
    stack_labels,
    training_batches,
)
from fustal_core.student_inference import Found, detect, find_candidates, rank_in_video, suppress
from fustal_core.student_training import StudentResult, train_student, weight_groups

CPU = torch.device("cpu")


def training_set(dataset: Dataset) -> TrainingSet:
    names = dataset.video_names("train")
    store = dataset.student_features
    labels = grid_labels(dataset.truth("train"), store, names, dataset.classes)
    return TrainingSet(names, store, dataset.video_labels("train"), labels)


def some_batch(options: StudentSettings, dataset: Dataset | None = None) -> Batch:
    data = training_set(dataset or tiny_dataset())
    rngs = np.random.default_rng(0), torch.Generator().manual_seed(0)
    return make_batch(data, np.array([0, 1, 2]), options, *rngs, CPU)


def test_ema_is_a_plain_average_of_all_weights() -> None:
    model = TriDet(5, 3, small_settings(), torch.Generator().manual_seed(0))
    plain = {name: p.detach().clone() for name, p in model.named_parameters()}
    average = make_ema(model, 0.9)
    rng = torch.Generator().manual_seed(1)
    for _ in range(3):
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.add_(torch.randn(p.shape, generator=rng))
                plain[name] = 0.9 * plain[name] + 0.1 * p
        average.update_parameters(model)
    for name, p in average.module.named_parameters():
        torch.testing.assert_close(p, plain[name])


def test_share_of_the_random_start_left_in_the_ema() -> None:
    model = TriDet(5, 3, small_settings())
    average = make_ema(model, 0.5)
    start = model.level_scale.detach().clone()
    with torch.no_grad():
        model.level_scale.zero_()
    for _ in range(3):
        average.update_parameters(model)
    torch.testing.assert_close(average.module.level_scale.detach(), initial_share(0.5, 3) * start)
    # fustal.md: 25 steps an epoch, decay 0.999: 22 % at epoch 60, 10 % at 90.
    assert initial_share(0.999, 60 * 25) == pytest.approx(0.22, abs=0.005)
    assert initial_share(0.999, 90 * 25) == pytest.approx(0.10, abs=0.01)


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.99999])
def test_ema_labels_are_those_of_full_inference(threshold: float) -> None:
    options = small_settings(ema_label_threshold=threshold, pre_nms_top_k=200, max_detections=100)
    model = random_network(options)
    batch = some_batch(options)
    found = find_ema_labels(make_ema(model, 0.9), batch, options)
    with torch.no_grad():
        full = suppress(find_candidates(model, batch.features, batch.mask, options), options)
    keep = (full.scores > threshold) | (rank_in_video(full.video) == 0)
    assert 0 < keep.sum() < len(full)
    torch.testing.assert_close(found.segments, full.segments[keep])
    torch.testing.assert_close(found.scores, full.scores[keep])
    assert torch.equal(found.label, full.label[keep])
    assert set(found.video.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("threshold", [0.0, 0.6, 0.99999])
def test_detections_and_ema_labels_equal_plain_loops(threshold: float) -> None:
    """From features to what is found, position by position."""
    options = small_settings(global_mean="padded", max_length=96, ema_label_threshold=threshold)
    model = random_network(options)
    batch = some_batch(options)
    assert not batch.mask.all(1).any()  # padding is not found
    average = make_ema(model, 0.9)
    with torch.no_grad():
        candidates = find_candidates(model, batch.features, batch.mask, options)
    for found, by_loops in (
        (suppress(candidates, options), detections_by_loops),
        (find_ema_labels(average, batch, options), ema_labels_by_loops),
    ):
        wanted = [
            (video, *one)
            for video, own in enumerate(by_loops(model, batch.features, batch.mask, options))
            for one in own
        ]
        video, score, label, start, end = zip(*wanted, strict=True)
        assert found.video.tolist() == list(video)
        assert found.label.tolist() == list(label)
        assert found.scores.tolist() == pytest.approx(score, abs=1e-5)
        assert found.segments[:, 0].tolist() == pytest.approx(start, abs=1e-3)
        assert found.segments[:, 1].tolist() == pytest.approx(end, abs=1e-3)


def test_video_without_ema_labels_keeps_its_own_and_nothing_else_changes() -> None:
    options = small_settings()
    batch = some_batch(options)
    found = Found(
        torch.tensor([0, 2, 2]),
        torch.tensor([1, 0, 2]),
        torch.tensor([[2.0, 4.0], [-9.0, 3.0], [5.0, 999.0]]),
        torch.tensor([0.9, 0.8, 0.7]),
    )
    new = relabel(batch, found, half=0.5)
    assert new.given[1] is batch.given[1]
    assert new.given[0].segments.tolist() == [[2, 4]]
    assert new.given[0].labels.tolist() == [1]
    last = batch.mask[2].sum().item() - 1
    assert new.given[2].segments.tolist() == [[-0.5, 3], [5, last + 0.5]]
    nothing = small_settings(min_length_grid=1e6)
    empty = find_ema_labels(make_ema(random_network(nothing), 0.9), batch, nothing)
    assert len(empty) == 0
    assert relabel(batch, empty, half=0.5).given == batch.given


def test_ema_labels_are_recorded_in_seconds_of_the_video() -> None:
    dataset = tiny_dataset()
    batch = some_batch(small_settings(crop_min=0.5), dataset)
    found = Found(
        torch.tensor([1]), torch.tensor([2]), torch.tensor([[-9.0, 4.0]]), torch.tensor([0.75])
    )
    part = ema_label_part(batch, found, dataset.student_features, epoch=7)
    table = ema_label_table([part], dataset.classes)
    first, length = batch.first[1], batch.mask[1].sum().item()
    assert first > 0
    assert table.iloc[0][["epoch", "video", "label", "score"]].tolist() == [
        7,
        "train1",
        "run",
        0.75,
    ]
    # Snippet i lasts from i/5 to (i+1)/5 s: position 4 of the crop is the middle of snippet first + 4.
    times = table.iloc[0][["t_start", "t_end", "crop_start_s", "crop_end_s"]].tolist()
    wanted = [first / 5, (first + 4.5) / 5, first / 5, (first + length) / 5]
    assert times == pytest.approx(wanted)


def test_grid_labels_know_the_clock_and_the_classes() -> None:
    dataset = tiny_dataset()
    store = replace(dataset.student_features, stride_frames=4, window_frames=16)
    table = pd.DataFrame(
        [["train1", "run", 4.0, 8.0], ["train0", "dive", 1.6, 2.4]],
        columns=["video", "label", "t_start", "t_end"],
    )
    labels = grid_labels(table, store, ["train0", "train1", "train2"], CLASSES)
    # 5 fps: (t * 5 - 8) / 4.
    assert labels["train0"].segments.tolist() == [[0, 1]]
    assert labels["train1"].segments.tolist() == [[3, 8]]
    assert labels["train1"].labels.tolist() == [2]
    assert labels["train2"].segments.shape == (0, 2)
    with pytest.raises(ValueError, match="among dive, jump, run, got swim"):
        grid_labels(table.assign(label="swim"), store, ["train0"], CLASSES)


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 150),
    ends=st.lists(st.tuples(st.floats(0, 140), st.floats(0.5, 40)), max_size=4),
    seed=st.integers(0, 10_000),
)
def test_crop_keeps_what_at_least_half_remains_of(
    length: int, ends: list[tuple[float, float]], seed: int
) -> None:
    options = small_settings(crop_min=0.7)
    segments = torch.tensor([[start, start + size] for start, size in ends]).reshape(-1, 2)
    given_labels = GridLabels(segments, torch.arange(len(ends)))
    rng = np.random.default_rng(seed)
    first, size, labels = random_crop(given_labels, length, 0.5, options, rng)
    assert 0 <= first <= first + size <= length
    assert size == 64 if length > 64 else round(0.7 * length) <= size
    if size == length:
        assert labels is given_labels
        return
    begin, finish = first - 0.5, first + size - 0.5
    kept = []
    for index, (start, end) in enumerate(segments.tolist()):
        inside = min(end, finish) - max(start, begin)
        if inside >= 0.5 * (end - start) + 1e-3:
            assert index in labels.labels
            kept.append(index)
            place = labels.labels.tolist().index(index)
            wanted = [max(start, begin) - first, min(end, finish) - first]
            assert labels.segments[place].tolist() == pytest.approx(wanted, abs=1e-4)
        elif inside < 0.5 * (end - start) - 1e-3:
            assert index not in labels.labels
    reachable = [start for start, end in segments.tolist() if end <= length]
    if reachable and min(e - s for s, e in segments.tolist()) > size / 4:
        # Places that keep such a segment are not rare: 200 tries find one.
        assert len(labels.labels)


def test_batches_visit_every_video_once_in_an_order_from_the_generator() -> None:
    data = training_set(tiny_dataset())

    def videos(seed: int) -> list[list[str]]:
        rngs = np.random.default_rng(seed), torch.Generator().manual_seed(0)
        return [b.videos for b in training_batches(data, small_settings(), *rngs, CPU)]

    first = videos(0)
    assert [len(v) for v in first] == [3, 3, 1]
    assert sorted(name for batch in first for name in batch) == data.names
    assert videos(0) == first
    assert videos(1) != first


def test_batch_holds_the_crops_with_noise_and_zeros_behind() -> None:
    dataset = tiny_dataset()
    batch = some_batch(small_settings(input_noise=0.01), dataset)
    T = batch.features.shape[1]
    assert T % 4 == 0
    for i, name in enumerate(batch.videos):
        size = int(batch.mask[i].sum())
        clean = dataset.student_features[name][batch.first[i] : batch.first[i] + size]
        noise = batch.features[i, :size] - clean
        assert 0.005 < noise.std() < 0.02
        assert not batch.features[i, size:].any()
        assert batch.mask[i, :size].all()
    assert torch.equal(batch.video_labels, dataset.video_labels("train")[:3])
    segments, labels = stack_labels(batch.given)
    for i, own in enumerate(batch.given):
        count = len(own.labels)
        assert torch.equal(segments[i, :count], own.segments)
        assert labels[i].tolist() == own.labels.tolist() + [-1] * (labels.shape[1] - count)


@pytest.mark.parametrize(
    ("global_mean", "lengths", "padded"),
    [("masked", [5, 9], 12), ("padded", [5, 9], 64), ("padded", [65], 68)],
)
def test_padding_length(global_mean: str, lengths: list[int], padded: int) -> None:
    crops = [torch.ones(n, 5) for n in lengths]
    features, mask = pad_features(crops, small_settings(global_mean=global_mean), CPU)
    assert features.shape == (len(lengths), padded, 5)
    assert mask.sum(1).tolist() == lengths
    assert torch.equal(features.any(-1), mask)


def test_candidates_are_the_best_of_each_level() -> None:
    model = random_network(small_settings())
    batch = random_input([32, 19], 32)
    with torch.no_grad():
        output = model(*batch)
    scores = torch.sigmoid(output.class_logits)
    threshold = scores[output.mask].quantile(0.9).item()
    options = small_settings(pre_nms_top_k=7, score_threshold=threshold)
    with torch.no_grad():
        found = find_candidates(model, *batch, options)
    wanted = []
    for level in output.grid.slices():
        for video in range(2):
            valid = scores[video, level][output.mask[video, level]].flatten()
            best = valid.sort(descending=True)[0][:7].tolist()
            wanted += [score for score in best if score > threshold]
    assert 7 < len(wanted) < 42
    assert sorted(found.scores.tolist()) == pytest.approx(sorted(wanted))
    lengths = found.segments[:, 1] - found.segments[:, 0]
    limit = lengths.median().item()
    with torch.no_grad():
        longer = find_candidates(
            model, *batch, options.model_copy(update={"min_length_grid": limit})
        )
    assert len(longer) == (lengths > limit + 1e-6).sum()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 40))
def test_suppression_equals_soft_nms_of_each_class_alone(seed: int, count: int, most: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    segments = torch.rand(count, 2, generator=rng).cumsum(1) * 10
    found = Found(
        torch.randint(0, 2, (count,), generator=rng),
        torch.randint(0, 3, (count,), generator=rng),
        segments,
        torch.rand(count, generator=rng),
    )
    options = small_settings(max_detections=most, score_threshold=0.05)
    got = suppress(found, options)
    for video in range(2):
        wanted = []
        for label in range(3):
            own = (found.video == video) & (found.label == label)
            if own.any():
                _, scores = soft_nms(segments[own], found.scores[own], 0.5, min_score=0.05)
                wanted += [(score, label) for score in scores.tolist()]
        wanted = sorted(wanted, reverse=True)[:most]
        own = got.video == video
        assert got.scores[own].tolist() == pytest.approx([score for score, _ in wanted])
        assert got.label[own].tolist() == [label for _, label in wanted]


@pytest.mark.parametrize("global_mean", ["masked", "padded"])
def test_detections_do_not_depend_on_the_batch(
    global_mean: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = small_settings(global_mean=global_mean, max_length=32)
    dataset, model = tiny_dataset(), random_network(options)
    calls = []
    together = detect(model, dataset, "test", options, progress=lambda *call: calls.append(call))
    monkeypatch.setattr("fustal_core.student_inference.POSITIONS_PER_PASS", {"cpu": 1})
    in_passes = detect(model, dataset, "test", options)
    monkeypatch.setattr("fustal_core.student_inference.POSITIONS_PER_BATCH", 1)
    alone = detect(model, dataset, "test", options)
    for other in (in_passes, alone):
        assert together["video"].tolist() == other["video"].tolist()
        for column, tolerance in (("score", 1e-4), ("t_start", 1e-2), ("t_end", 1e-2)):
            expected = pytest.approx(other[column].to_numpy(), abs=tolerance)
            assert together[column].to_numpy() == expected
    assert calls[-1] == (4, 4, "detecting")
    assert together["video"].drop_duplicates().tolist() == dataset.video_names("test")
    assert (together.groupby("video")["score"].diff().dropna() <= 0).all()
    assert together["t_start"].min() >= 0
    assert (together["t_end"] <= together["video"].map(dataset.videos["duration_s"])).all()
    assert set(together["label"]) <= set(CLASSES)
    assert together.groupby("video").size().max() <= options.max_detections


def test_weight_decay_is_for_convolutions_only() -> None:
    model = TriDet(5, 3, small_settings())
    decayed, others = (group["params"] for group in weight_groups(model, 0.05))
    names = {id(p): name for name, p in model.named_parameters()}
    assert len(decayed) + len(others) == len(names)
    kinds = {type(m) for m in model.modules() for p in decayed if p is getattr(m, "weight", None)}
    assert kinds == {torch.nn.Conv1d}
    others = {names[id(p)].split(".")[-1] for p in others}
    assert others == {"bias", "weight", "scale", "level_scale"}


def train(options: StudentSettings, **arguments: Any) -> StudentResult:
    dataset = tiny_dataset()
    return train_student(options, dataset, dataset.truth("train"), 5, **arguments)


def assert_same(a: StudentResult, b: StudentResult) -> None:
    states = a.model.state_dict(), b.model.state_dict()
    for name in states[0]:
        assert torch.equal(states[0][name], states[1][name]), name
    pd.testing.assert_frame_equal(a.history, b.history)
    pd.testing.assert_frame_equal(a.ema_labels, b.ema_labels)


def test_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    path = tmp_path / "student.pt"
    options = small_settings(evaluate_every=1)
    undisturbed = train(options, evaluate=lambda model: {"a": 1.0})
    calls = []

    def killer(model: TriDet) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return {"a": 1.0}

    with pytest.raises(KeyboardInterrupt):
        train(options, checkpoint=path, key="k", evaluate=killer)
    steps = []
    resumed = train(
        options,
        checkpoint=path,
        key="k",
        evaluate=lambda model: {"a": 1.0},
        progress=lambda done, total, note: steps.append((done, total)),
    )
    assert steps[0] == (10, 12)
    assert_same(resumed, undisturbed)
    assert undisturbed.history["phase"].tolist() == ["pseudo labels"] * 2 + ["EMA labels"] * 2
    assert set(undisturbed.ema_labels["epoch"]) == {2, 3}
    assert not list(tmp_path.glob("*.tmp"))


def test_two_continuations_of_one_first_phase(tmp_path: Path) -> None:
    shared = tmp_path / "shared.pt"
    first = train(small_settings(epochs=2), checkpoint=shared, key="first")
    assert len(first.history) == 2
    options = small_settings()
    for distill in (True, False):
        own = tmp_path / f"{distill}.pt"
        forked = train(options, initial=shared, checkpoint=own, key="x", distill=distill)
        assert_same(forked, train(options, distill=distill))
    both = [train(options, initial=shared, distill=d) for d in (True, False)]
    pd.testing.assert_frame_equal(both[0].history[:2], both[1].history[:2])
    assert both[0].history["loss"][2] != both[1].history["loss"][2]
    assert len(both[1].ema_labels) == 0


def test_checkpoint_of_other_settings_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "student.pt"
    options = small_settings(epochs=2)
    train(options, checkpoint=path, key="one")
    steps = []
    train(options, checkpoint=path, key="two", progress=lambda done, *_: steps.append(done))
    assert steps == [1, 2, 3, 4, 5, 6]
    train(options, checkpoint=path, key="two", progress=lambda done, *_: steps.append(done))
    assert len(steps) == 6


def test_history_and_warm_up() -> None:
    history = train(small_settings(warmup_epochs=2)).history
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    # 3 steps an epoch: after 3 of 6 warm-up steps the next runs at 4/6 of the rate.
    assert history["learning_rate"].tolist() == pytest.approx([4 / 6 * 1e-3, 1e-3, 1e-3, 1e-3])
    assert history["initial_share"].tolist() == pytest.approx(
        [0.9 ** (3 * n) for n in (1, 2, 3, 4)]
    )
    parts = history[["classification", "regression", "video"]].sum(axis=1)
    assert history["loss"].to_numpy() == pytest.approx(parts.to_numpy(), rel=1e-5)


@pytest.mark.parametrize(("select", "epoch"), [("best-on-test", 1), ("last", 3)])
def test_test_set_chooses_the_epoch_only_when_asked(select: str, epoch: int) -> None:
    scores = iter([10.0, 30.0, 20.0, 30.0])
    seen = []

    def evaluate(model: TriDet) -> dict[str, float]:
        seen.append(model.level_scale.detach().clone())
        return {"avg 0.1:0.7": next(scores)}

    result = train(small_settings(select=select, evaluate_every=1), evaluate=evaluate)
    assert result.epoch == epoch
    assert torch.equal(result.model.level_scale, seen[epoch])
    assert result.history["avg 0.1:0.7"].tolist() == [10, 30, 20, 30]
    assert not result.model.training


def test_a_training_that_diverged_says_so() -> None:
    with pytest.raises(FloatingPointError, match=r"diverged: .* after \d+ steps; is the learning"):
        train(small_settings(learning_rate=1e30))


def test_training_leaves_torch_s_own_random_numbers_alone() -> None:
    before = torch.random.get_rng_state()
    train(small_settings())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_student_learns_where_the_actions_are() -> None:
    dataset = tiny_dataset(num_train=12)
    options = small_settings(
        epochs=25, switch_epoch=15, learning_rate=5e-3, width=32, mlp_width=32, batch_size=4
    )
    result = train_student(options, dataset, dataset.truth("train"), 0)
    found = detect(result.model, dataset, "test", options)
    found = found[found["score"] > 0.3]
    hits = 0
    truth = dataset.truth("test")
    for row in truth.itertuples():
        same = found[(found["video"] == row.video) & (found["label"] == row.label)]
        inter = np.minimum(same["t_end"], row.t_end) - np.maximum(same["t_start"], row.t_start)
        union = np.maximum(same["t_end"], row.t_end) - np.minimum(same["t_start"], row.t_start)
        hits += bool((inter / union > 0.6).any())
    assert hits > 0.8 * len(truth)
