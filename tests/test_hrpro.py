"""HR-Pro's snippet network, its memory, and the seeds that grow from points."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fustal_core.hrpro import HRPro, SnippetOutput, class_sums, expand_points
from fustal_core.hrpro_blocks import InputProjection, ReliabilityAwareBlock
from fustal_core.reference_hrpro import expand_points_by_loops
from fustal_core.stage_settings import HRProSettings

CHANNELS, CLASSES = 16, 3


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def network(channels: int = CHANNELS, **changes: Any) -> HRPro:
    """Random weights, biases and prototypes in double precision."""
    model = HRPro(channels, CLASSES, HRProSettings(**changes)).double()
    rng = seeded(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=rng))
    model.prototypes = torch.randn(model.prototypes.shape, generator=rng, dtype=torch.float64)
    return model


# --- the network ----------------------------------------------------------------------------------


def affine(layer: nn.Module, x: np.ndarray) -> np.ndarray:
    weight = layer.weight.detach().numpy()
    return weight @ x + (0 if layer.bias is None else layer.bias.detach().numpy())


def normed(layer: nn.LayerNorm, x: np.ndarray) -> np.ndarray:
    scaled = (x - x.mean()) / math.sqrt(x.var() + 1e-5)
    return layer.weight.detach().numpy() * scaled + layer.bias.detach().numpy()


def block_by_loops(block: ReliabilityAwareBlock, tokens: np.ndarray, heads: int = 8) -> np.ndarray:
    """(L, D) -> (L, D), token by token and head by head."""
    width = tokens.shape[1] // heads
    query = [affine(block.query, x) for x in tokens]
    key = [affine(block.key, x) for x in tokens]
    first, _, _, second = block.feed_forward
    results = []
    for x, q in zip(tokens, query, strict=True):
        attended = np.zeros_like(x)
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            weights = np.exp([q[part] @ k[part] / math.sqrt(width) for k in key])
            for weight, value in zip(weights / weights.sum(), tokens, strict=True):
                attended[part] += weight * value[part]
        y = normed(block.attention_norm, x + attended)
        hidden = np.maximum(affine(first, y), 0)
        results.append(normed(block.feed_forward_norm, y + affine(second, hidden)))
    return np.array(results)


def output_by_loops(model: HRPro, features: np.ndarray) -> dict[str, np.ndarray]:
    """The network's formulas for one video (T, D)."""
    length = len(features)
    tokens = np.concatenate([features, model.prototypes.numpy()])
    for block in model.blocks:
        tokens = block_by_loops(block, tokens)
    padded = np.pad(tokens[:length], ((1, 1), (0, 0)))
    taps, bias = (p.detach().numpy() for p in model.embedding.parameters())
    embeddings = np.array(
        [
            np.maximum(sum(taps[:, :, k] @ padded[t + k] for k in range(3)) + bias, 0)
            for t in range(length)
        ]
    )
    logits = np.array([affine(model.classifier[1], e) for e in embeddings])
    scores = 1 / (1 + np.exp(-logits))
    k = max(1, length // 8)
    return {
        "embeddings": embeddings,
        "class_scores": scores[:, :-1],
        "background": scores[:, -1],
        "cas": scores[:, :-1] * (1 - scores[:, -1:]),
        "actionness": 1 - scores[:, -1],
        "video_scores": np.array([np.mean(sorted(curve)[-k:]) for curve in scores[:, :-1].T]),
    }


@pytest.mark.parametrize("length", [1, 2, 3, 15, 16, 17])
def test_forward_equals_the_formulas(length: int) -> None:
    model, features = network().eval(), drawn(2, length, CHANNELS)
    output = model(features)
    for video in range(2):
        for name, expected in output_by_loops(model, features[video].numpy()).items():
            found = getattr(output, name)[video].detach().numpy()
            assert found.shape == expected.shape, name
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, err_msg=name)


def test_sizes_of_the_paper() -> None:
    with torch.device("meta"):
        model = HRPro(2048, 20, HRProSettings())
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    block = {
        "query": [(2048, 2048), (2048,)],
        "key": [(2048, 2048), (2048,)],
        "attention_norm": [(2048,), (2048,)],
        "feed_forward.0": [(128, 2048), (128,)],
        "feed_forward.3": [(2048, 128), (2048,)],
        "feed_forward_norm": [(2048,), (2048,)],
    }
    expected = {
        f"blocks.{i}.{layer}.{kind}": shape
        for i in range(2)
        for layer, sizes in block.items()
        for kind, shape in zip(("weight", "bias"), sizes, strict=True)
    }
    expected |= {"embedding.weight": (2048, 2048, 3), "embedding.bias": (2048,)}
    expected |= {"classifier.1.weight": (21, 2048), "prototypes": (20, 2048)}
    assert shapes == expected


def test_video_scores_by_hand() -> None:
    scores = torch.zeros(1, 17, 2)  # floor(17 / 8) = 2
    scores[0, [0, 5, 9], 0] = torch.tensor([0.25, 1.0, 0.5])
    scores[0, :, 1] = 0.125
    output = SnippetOutput(torch.zeros(1, 17, 8), scores, torch.zeros(1, 17))
    assert output.video_scores.tolist() == [[0.75, 0.125]]
    short = SnippetOutput(torch.zeros(1, 7, 8), scores[:, :7], torch.zeros(1, 7))
    assert short.video_scores.tolist() == [[1.0, 0.125]]


@pytest.mark.parametrize("shape", [(7, 16), (2, 7, 8), (1, 2, 7, 16)])
def test_wrong_features_are_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    model = network()
    for call in (model, model.model_features):
        with pytest.raises(ValueError, match=r"expected features \(B, T, 16\), got \(") as error:
            call(torch.zeros(shape, dtype=torch.float64))
        assert str(shape) in str(error.value)


@pytest.mark.parametrize(
    ("channels", "heads"), [(8, 8), (24, 8), (12, 6), (50, 5), (9, 3), (22, 2), (11, 1)]
)
def test_heads_are_eight_or_as_many_as_divide_the_channels(channels: int, heads: int) -> None:
    block = network(channels).blocks[0].eval()
    tokens = drawn(1, 9, channels)
    found = block(tokens)[0].detach().numpy()
    expected = block_by_loops(block, tokens[0].numpy(), heads)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_eval_is_deterministic_and_training_is_not() -> None:
    model, features = network(), drawn(1, 30, CHANNELS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = model(features), model(features)
        torch.manual_seed(0)
        again = model(features)
    for name in ("embeddings", "class_scores", "background"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.allclose(getattr(first, name), getattr(second, name))
    model.eval()
    state = torch.get_rng_state()
    assert torch.equal(model(features).class_scores, model(features).class_scores)
    assert torch.equal(torch.get_rng_state(), state)


def test_videos_do_not_see_each_other() -> None:
    model, features = network().eval(), drawn(3, 20, CHANNELS)
    together = model(features)
    for video in range(3):
        alone = model(features[video : video + 1])
        for name in ("embeddings", "class_scores", "background"):
            assert torch.allclose(getattr(together, name)[video], getattr(alone, name)[0])


def test_prototypes_reach_every_snippet_through_the_attention() -> None:
    model, features = network().eval(), drawn(1, 12, CHANNELS)
    before = model(features).embeddings
    model.prototypes = model.prototypes.clone()
    model.prototypes[1] += 1
    changed = (model(features).embeddings - before).abs().amax(2)[0]
    assert changed.shape == (12,)
    assert (changed > 1e-6).all()


def test_order_of_the_prototypes_does_not_matter_to_the_snippets() -> None:
    """They are tokens without a place, and no convolution reaches over to them."""
    model, features = network().eval(), drawn(1, 12, CHANNELS)
    before = model(features).embeddings
    model.prototypes = model.prototypes.flip(0)
    assert torch.allclose(model(features).embeddings, before)


def plain_block(length: int) -> tuple[ReliabilityAwareBlock, Tensor]:
    """A block of uniform attention without dropouts but its own, and tokens of ones: (1, L, 64)."""
    block = ReliabilityAwareBlock(64)
    with torch.no_grad():
        block.query.weight.zero_()
        block.query.bias.zero_()
    return block, torch.ones(1, length, 64)


def inputs_of(layer: nn.Module, block: nn.Module, x: Tensor) -> Tensor:
    """What reaches a layer of the block."""
    seen = []
    hook = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block(x)
    hook.remove()
    return seen[0]


def test_attention_drops_a_tenth_of_its_weights() -> None:
    block, x = plain_block(200)
    block.dropout.p = 0.0
    kept = (inputs_of(block.attention_norm, block, x) - 1)[0] * 0.9  # (200, 64)
    assert kept.mean().item() == pytest.approx(0.9, abs=0.01)
    # The number kept of 200 is binomial for each token and head, and the same in a head's channels.
    heads = kept.view(200, 8, 8)
    assert torch.allclose(heads, heads[..., :1].expand_as(heads))
    assert heads[..., 0].std().item() == pytest.approx(math.sqrt(0.1 * 0.9 / 200), rel=0.1)
    assert torch.allclose(inputs_of(block.attention_norm, block.eval(), x), torch.tensor(2.0))


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_attention_dropout_is_a_setting_of_every_block(share: float) -> None:
    for block in HRPro(64, CLASSES, HRProSettings(attention_dropout=share)).blocks:
        block.dropout.p = 0.0
        with torch.no_grad():
            block.query.weight.zero_()
            block.query.bias.zero_()
        kept = (inputs_of(block.attention_norm, block, torch.ones(1, 200, 64)) - 1) * (1 - share)
        assert kept.mean().item() == pytest.approx(1 - share, abs=0.02)
        assert kept.std().item() == pytest.approx(math.sqrt(share * (1 - share) / 200), abs=0.005)


def test_blocks_drop_three_tenths_of_the_attention_and_of_the_hidden_channels() -> None:
    block, x = plain_block(200)
    added = inputs_of(block.attention_norm, block, x) - 1
    assert (added == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert added.mean().item() == pytest.approx(1, abs=0.02)
    with torch.no_grad():
        block.feed_forward[0].weight.zero_()
        block.feed_forward[0].bias.fill_(7)
    hidden = inputs_of(block.feed_forward[3], block, x) / 7
    assert hidden.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert (hidden == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)


def test_the_classifier_drops_seven_tenths_and_the_embeddings_nothing() -> None:
    model, x = network(), drawn(1, 300, CHANNELS)
    reached = inputs_of(model.classifier[1], model, x)
    embedded = inputs_of(model.classifier, model, x)
    active = embedded > 0
    factors = (reached / embedded)[active].round(decimals=9).unique()
    assert factors.tolist() == pytest.approx([0, 1 / 0.3])
    assert (reached[active] == 0).double().mean().item() == pytest.approx(0.7, abs=0.03)


def test_gradients_flow_to_every_weight_and_none_to_the_memory() -> None:
    model = network()
    output = model(drawn(1, 12, CHANNELS))
    (output.cas.sum() + output.background.square().sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # Softmax does not see what is added to all the logits of a query.
        assert (parameter.grad.abs().max() > 1e-9) != name.endswith("key.bias"), name
    assert not model.prototypes.requires_grad


# --- the input's projection -----------------------------------------------------------------------


def test_projection_equals_its_formula() -> None:
    model = network(channels=5, projected_channels=24).eval()
    mean, deviation = torch.arange(5.0), torch.tensor([1.0, 2.0, 0.5, 4.0, 0.0])
    features = drawn(2, 6, 5)
    weight = model.projection.weight.numpy()
    for statistics in ((torch.zeros(5), torch.ones(5)), (mean, deviation)):
        model.projection.set_statistics(*statistics)
        centre, scale = (value.double().numpy() for value in statistics)
        scale = np.where(scale > 0, scale, 1)  # of a channel that never changes
        expected = np.maximum(((features.numpy() - centre) / scale) @ weight, 0)
        found = model.model_features(features)
        assert found.shape == (2, 6, 24)
        np.testing.assert_allclose(found.numpy(), expected)
        projected = output_by_loops(model, expected[0])
        found = model(features).class_scores[0].detach().numpy()
        np.testing.assert_allclose(found, projected["class_scores"], rtol=1e-9)


def test_projection_is_drawn_and_never_learnt() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        projection = InputProjection(400, 64)
    assert not list(projection.parameters())
    assert set(projection.state_dict()) == {"mean", "deviation", "weight"}
    assert projection.weight.shape == (400, 64)
    assert projection.weight.std().item() == pytest.approx(1 / 20, rel=0.02)
    assert projection.weight.mean().item() == pytest.approx(0, abs=1e-3)


def test_without_projection_the_features_are_taken_as_they_are() -> None:
    model, features = network(), drawn(1, 6, CHANNELS)
    assert torch.equal(model.model_features(features), features)
    assert not any(name.startswith("projection") for name in model.state_dict())


# --- the memory -----------------------------------------------------------------------------------


def test_memory_starts_at_zero() -> None:
    assert not HRPro(CHANNELS, CLASSES, HRProSettings()).prototypes.any()


def test_prototypes_move_by_a_thousandth_and_only_with_seeds() -> None:
    model = network()
    old, embeddings = model.prototypes, drawn(4, CHANNELS)
    seeds = torch.tensor([[1, 0, 0], [1, 0, 1], [0, 0, 0], [1, 0, 0]])
    model.update_prototypes(embeddings, seeds)
    mean = (embeddings[0] + embeddings[1] + embeddings[3]) / 3
    assert torch.allclose(model.prototypes[0], 0.999 * old[0] + 0.001 * mean, rtol=1e-12)
    assert torch.equal(model.prototypes[1], old[1])
    assert torch.allclose(model.prototypes[2], 0.999 * old[2] + 0.001 * embeddings[1], rtol=1e-12)
    assert torch.equal(model.state_dict()["prototypes"], model.prototypes)


def test_momentum_is_a_setting() -> None:
    model = network(memory_momentum=1.0)
    embeddings = drawn(2, CHANNELS)
    model.update_prototypes(embeddings, torch.eye(3)[:2])
    assert torch.equal(model.prototypes[:2], embeddings)


def test_update_leaves_graphs_and_the_old_buffer_alone() -> None:
    model = network()
    old = model.prototypes
    kept, output = old.clone(), model(drawn(1, 5, CHANNELS))
    model.update_prototypes(output.embeddings[0], torch.ones(5, CLASSES))
    assert torch.equal(old, kept)
    assert not torch.equal(model.prototypes, kept)
    assert not model.prototypes.requires_grad
    output.cas.sum().backward()  # fails if the tokens were written to


def test_class_sums_by_hand() -> None:
    embeddings = torch.tensor([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])
    sums, counts = class_sums(embeddings, torch.tensor([[1, 0, 1], [0, 0, 1], [1, 0, 0]]))
    assert sums.tolist() == [[101, 202], [0, 0], [11, 22]]
    assert counts.tolist() == [2, 0, 2]


# --- seeds ----------------------------------------------------------------------------------------


def grown(b: list[float], points: str) -> tuple[str, str]:
    """Seeds of a video as text: a letter for each class, ``-`` for background, ``.`` for neither."""
    classes = sorted(set(points) - {"."}) or ["a"]
    rows = torch.tensor([[float(mark == c) for c in classes] for mark in points])
    seeds = expand_points(torch.tensor(b), rows)
    action = ["".join(c for c, y in zip(classes, row, strict=True) if y) for row in seeds.action]
    assert set(seeds.background.tolist()) <= {0.0, 1.0}
    pairs = zip(action, seeds.background.bool().tolist(), strict=True)
    return "".join(own + "-" * seed or "." for own, seed in pairs)


HIGH, LOW, MIDDLE = 0.99, 0.01, 0.5
BY_HAND = {
    "first gap: from the start to the last high": (
        [MIDDLE, HIGH, MIDDLE, HIGH, MIDDLE, HIGH, HIGH],
        ".....a.",
        "----.a-",
    ),
    "first gap without: up to the largest": (
        [0.3, 0.7, 0.6, MIDDLE, HIGH],
        "...a.",
        "--.a-",
    ),
    "last gap: from the first high to the end": (
        [MIDDLE, 0.3, HIGH, LOW, HIGH, 0.3],
        "a.....",
        "a.----",
    ),
    "last gap without: from the largest": ([HIGH, 0.3, 0.6, 0.8, 0.7], "a....", "a..--"),
    "largest at the ends is the first of equals": (
        [0.4, 0.4, HIGH, 0.2, 0.4, 0.4],
        "..a...",
        "-.a.--",
    ),
    "between two points: from the first to the last high": (
        [MIDDLE, 0.3, HIGH, LOW, MIDDLE, HIGH, 0.4, MIDDLE],
        "a......b",
        "a.----.b",
    ),
    "one high alone": ([MIDDLE, 0.5, HIGH, 0.6, MIDDLE], "a...b", "a.-.b"),
    "none high: the largest alone": ([HIGH, 0.5, 0.4, 0.6, HIGH], "a...b", "a..-b"),
    "the first largest alone": ([HIGH, 0.5, 0.6, 0.6, HIGH], "a...b", "a.-.b"),
    "neighbours have nothing between them": ([LOW, HIGH, LOW, LOW], ".aab", "-aab"),
    "a gap of one is background however low": ([LOW, LOW, LOW], "a.b", "a-b"),
    "action spreads to both sides up to the first that fails": (
        [0.9, LOW, 0.2, 0.1, LOW, HIGH, 0.1, 0.11, LOW, 0.9],
        ".....a....",
        "-..aaaa..-",
    ),
    "action of two points up to the background between them": (
        [MIDDLE, 0.01, 0.02, 0.05, 0.02, 0.01, MIDDLE],
        "a.....b",
        "aaa-bbb",
    ),
    "action does not pass a neighbouring point": (
        [LOW, LOW, LOW, MIDDLE, MIDDLE, LOW, LOW, 0.05],
        "...ab...",
        "-aaabbb-",
    ),
    "exactly at the threshold is high": ([0.97, 0.95, 0.9, MIDDLE], "...a", "--.a"),
    "nothing is high beside a point at the border": ([LOW, HIGH], "a.", "a-"),
    "one labelled snippet": ([HIGH], "a", "a"),
    "one snippet without a label": ([HIGH], ".", "."),
    "no points, no seeds": ([LOW, HIGH, LOW], "...", "..."),
}


@pytest.mark.parametrize(("b", "points", "expected"), BY_HAND.values(), ids=BY_HAND)
def test_seeds_by_hand(b: list[float], points: str, expected: str) -> None:
    assert grown(b, points) == expected
    backwards = grown(b[::-1], points[::-1])
    if len(set(b)) == len(b):  # of equal scores the first counts, not the last
        assert backwards == expected[::-1]


def test_points_that_share_a_snippet_spread_together() -> None:
    points = torch.tensor([[0, 0, 0], [1, 0, 1], [0, 0, 0], [0, 0, 0]])
    action, background = expand_points(torch.tensor([0.5, 0.5, 0.02, 0.5]), points)
    assert action.tolist() == [[0, 0, 0], [1, 0, 1], [1, 0, 1], [0, 0, 0]]
    assert background.tolist() == [1, 0, 0, 1]


def test_thresholds_are_arguments() -> None:
    b, points = torch.tensor([0.2, 0.7, 0.6, 0.4, 0.1, 0.8]), torch.eye(6)[3:4].T
    default, own = expand_points(b, points), expand_points(b, points, 0.65, 0.6)
    assert default.action[:, 0].tolist() == [0, 0, 0, 1, 1, 0]
    assert default.background.tolist() == [1, 1, 0, 0, 0, 1]
    assert own.action[:, 0].tolist() == [0, 0, 0, 1, 1, 0]
    assert own.background.tolist() == [1, 1, 1, 0, 0, 1]
    assert expand_points(b, points, 0.65).action[:, 0].tolist() == [0, 0, 1, 1, 1, 0]


@pytest.mark.parametrize("dtype", [np.bool_, np.int64, np.float32, np.float64])
def test_arrays_come_back_as_tensors_of_the_points_type(dtype: type) -> None:
    points = np.array([[0, 0], [0, 1], [0, 0], [0, 0]], dtype=dtype)
    seeds = expand_points(np.array([0.99, 0.5, 0.05, 0.7]), points)
    assert seeds.action.dtype == seeds.background.dtype == torch.as_tensor(points).dtype
    assert seeds.action.int().tolist() == [[0, 0], [0, 1], [0, 1], [0, 0]]
    assert seeds.background.int().tolist() == [1, 0, 0, 1]


def test_seeds_carry_no_gradient_and_leave_the_points_alone() -> None:
    b = torch.tensor([0.05, 0.5, 0.05, 0.99], requires_grad=True)
    points = torch.tensor([[0.0], [1.0], [0.0], [0.0]])
    kept = points.clone()
    seeds = expand_points(b, points)
    assert not seeds.action.requires_grad
    assert not seeds.background.requires_grad
    assert torch.equal(points, kept)


@pytest.mark.parametrize(("b", "points"), [((4,), (3, 2)), ((1, 4), (4, 2)), ((4,), (4,))])
def test_arrays_of_other_shapes_are_refused(b: tuple[int, ...], points: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=r"expected background \(T,\) and points \(T, C\)"
    ) as error:
        expand_points(torch.zeros(b), torch.zeros(points))
    assert f"got {b} and {points}" in str(error.value)


def near(value: float) -> list[float]:
    """A threshold, and the numbers next to it in both precisions."""
    single = np.float32(value)
    neighbours = [
        np.nextafter(x, x.dtype.type(way)) for x in (single, np.float64(value)) for way in (0, 1)
    ]
    return [value, *(float(x) for x in neighbours)]


SCORES = st.one_of(
    st.sampled_from([0.0, 0.05, 0.5, 0.97, 1.0, *near(0.1), *near(0.95)]), st.floats(0, 1, width=32)
)


@st.composite
def videos(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Background scores (T,) and points (T, C): none, some, neighbours, shared, at both ends."""
    length = draw(st.integers(1, 30))
    scores = draw(st.sampled_from([SCORES, st.sampled_from([0.02, 0.5, 0.98]), st.just(0.05)]))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    b = np.array(draw(st.lists(scores, min_size=length, max_size=length)), dtype)
    points = np.zeros((length, draw(st.integers(1, 3))))
    places = st.tuples(st.integers(0, length - 1), st.integers(0, points.shape[1] - 1))
    for place in draw(st.lists(places, max_size=8)):
        points[place] = 1
    if draw(st.booleans()):
        points[[0, -1], 0] = 1
    return b, points


@settings(max_examples=400)
@given(videos())
def test_seeds_equal_the_walk_snippet_by_snippet(video: tuple[np.ndarray, np.ndarray]) -> None:
    found = expand_points(*video)
    expected = expand_points_by_loops(*video)
    for name, ours, theirs in zip(found._fields, found, expected, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs, err_msg=name)


@given(videos())
def test_every_gap_has_background_and_no_snippet_is_both(
    video: tuple[np.ndarray, np.ndarray],
) -> None:
    b, points = video
    action, background = (seeds.numpy() > 0 for seeds in expand_points(b, points))
    labelled = points.any(1)
    assert not (action.any(1) & background).any()
    assert (action[labelled] == (points[labelled] > 0)).all()
    assert (b[action.any(1) & ~labelled] <= b.dtype.type(0.1)).all()
    if labelled.any():
        gaps = np.split(background, np.flatnonzero(labelled))
        inside = [gaps[0], *(gap[1:] for gap in gaps[1:])]
        assert all(gap.any() for gap in inside if len(gap))
    else:
        assert not action.any()
        assert not background.any()


def test_long_videos_equal_the_walk_too() -> None:
    rng = np.random.default_rng(0)
    b = rng.beta(0.3, 0.3, 3000)
    points = np.eye(20)[rng.integers(20, size=3000)] * (rng.random((3000, 1)) < 0.03)
    found, expected = expand_points(b, points), expand_points_by_loops(b, points)
    assert 0 < found.background.sum() < 2990
    assert found.action.any(1).sum() > 1.3 * points.any(1).sum()
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs)
