"""The student network against the released formulation: (B, C, T) layout, level by level."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from student_helpers import random_input, random_network, random_output, small_settings
from torch import Tensor, nn

from fustal_core.reference_student import distances_at, network_by_levels
from fustal_core.student import TriDet, decode_offsets, make_grid
from fustal_core.student_blocks import AffineDropPath, SGPBlock, large_window


@pytest.mark.parametrize(
    ("global_mean", "lengths"), [("padded", [32, 19, 3]), ("masked", [32, 32, 32])]
)
def test_network_equals_the_released_one_level_by_level(
    global_mean: str, lengths: list[int]
) -> None:
    model = random_network(small_settings(global_mean=global_mean))
    features, mask = random_input(lengths, 32)
    with torch.no_grad():
        output = model(features, mask)
        expected = network_by_levels(model, features, mask)
    levels = torch.cat([torch.arange(own.start, own.stop) for own in output.grid.slices()])
    heads = (output.class_logits, output.start_logits, output.end_logits, output.offsets.flatten(2))
    for got, wanted in zip(heads, expected, strict=True):
        torch.testing.assert_close(got[:, levels], wanted, rtol=1e-4, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 32), st.integers(0, 1000))
def test_masked_padding_is_as_if_it_did_not_exist(length: int, seed: int) -> None:
    # Four channels a group: with one, a level of one position has variance 0 up to rounding.
    model = random_network(small_settings(width=64))
    features, mask = random_input([length, 64], 64, seed=seed)
    features[0, length:] = 100.0
    short = -(-length // 4) * 4
    with torch.no_grad():
        together = model(features, mask)
        alone = model(features[:1, :short], mask[:1, :short])
    for long, own in zip(together.grid.slices(), alone.grid.slices(), strict=True):
        count = own.stop - own.start
        for name in ("class_logits", "start_logits", "end_logits", "offsets", "mask"):
            wanted = getattr(alone, name)[0, own]
            got = getattr(together, name)[0, long.start : long.start + count]
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_padded_mean_depends_on_the_padding() -> None:
    model = random_network(small_settings(global_mean="padded"))
    features, mask = random_input([16], 64)
    with torch.no_grad():
        short, long = model(features[:, :16], mask[:, :16]), model(features, mask)
    assert (short.class_logits[0, 0] - long.class_logits[0, 0]).abs().max() > 1e-3


def test_masks_and_points_of_every_level() -> None:
    grid = make_grid(16, 3, torch.device("cpu"))
    assert grid.lengths == (16, 8, 4)
    assert grid.level.tolist() == [0] * 16 + [-1] + [1] * 8 + [-1] + [2] * 4
    time = [grid.time[s].tolist() for s in grid.slices()]
    assert time == [list(range(16)), list(range(0, 16, 2)), list(range(0, 16, 4))]
    ranges = [(grid.low[s.start].item(), grid.high[s.start].item()) for s in grid.slices()]
    assert ranges == [(0, 4), (4, 8), (8, 10_000)]
    six = make_grid(32, 6, torch.device("cpu"))
    ranges = [(six.low[s.start].item(), six.high[s.start].item()) for s in six.slices()]
    assert ranges == [(0, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, 10_000)]
    output = random_network(small_settings())(*random_input([5], 16))
    kept = [output.mask[0, s].tolist() for s in output.grid.slices()]
    assert kept == [
        [i < 5 for i in range(16)],
        [i < 3 for i in range(8)],
        [i < 2 for i in range(4)],
    ]
    assert not output.mask[0, output.grid.level < 0].any()


def test_grid_made_in_inference_mode_serves_training() -> None:
    make_grid.cache_clear()
    model = random_network(small_settings())
    with torch.inference_mode():
        model(*random_input([32], 32))
    model(*random_input([32], 32)).offsets.sum().backward()
    assert model.level_scale.grad.abs().sum() > 0


def test_initial_values() -> None:
    model = TriDet(5, 3, small_settings(stem_blocks=2, init_scale=1e-4))
    prior = -math.log(0.99 / 0.01)
    for head in (model.class_head, model.start_head, model.end_head):
        assert head.last.bias.detach().numpy() == pytest.approx(prior)
    assert not model.offset_head.last.bias.any()
    assert model.level_scale.tolist() == [1, 1, 1]
    for block in [*model.stem, *model.branch]:
        for conv in (block.fc, block.global_fc, block.psi, block.convw, block.convkw):
            assert not conv.weight.any()
            assert not conv.bias.any()
            assert conv.groups == 16
        assert block.convkw.kernel_size == (11,)
        assert block.mlp_in.weight.any()
        assert not block.mlp_in.bias.any()
    assert [len(block.paths) for block in [*model.stem, *model.branch]] == [0, 0, 2, 2]
    scales = [path.scale for block in model.branch for path in block.paths]
    assert all((scale == 1e-4).all() for scale in scales)
    assert all(path.drop == 0.1 for block in model.branch for path in block.paths)


def test_initial_weights_come_from_the_generator_alone() -> None:
    def weights(seed: int) -> Tensor:
        model = TriDet(5, 3, small_settings(), torch.Generator().manual_seed(seed))
        return torch.cat([p.flatten() for p in model.parameters()])

    torch.manual_seed(0)
    first = weights(1)
    torch.manual_seed(99)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))


def moves(parameter: Tensor) -> bool:
    """Whether it has a gradient that is not 0."""
    return parameter.grad is not None and bool(parameter.grad.any())


@pytest.mark.parametrize(("std", "alive"), [(0.0, False), (0.1, True)])
def test_depthwise_weights_that_start_at_zero_never_move(
    std: float, alive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SGPBlock, "_has_depthwise", lambda _: True)  # else they are left out
    model = TriDet(5, 3, small_settings(depthwise_std=std), torch.Generator().manual_seed(0))
    output = model(*random_input([32], 32))
    (output.class_logits.square().sum() + output.offsets.sum()).backward()
    for block in [*model.stem, *model.branch]:
        for conv in (block.psi, block.convw, block.convkw):
            assert moves(conv.weight) is alive
            assert moves(conv.bias) is alive
        if not alive:
            assert not moves(block.fc.weight)
            assert not moves(block.global_fc.weight)


@pytest.mark.parametrize(
    ("where", "moving"),
    [(None, False), ("fc.weight", False), ("convkw.bias", True), ("psi.bias", True)],
)
def test_only_depthwise_weights_that_are_all_zero_are_left_out(
    where: str | None, moving: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, and so are all gradients; those of what is left out are 0."""
    block = SGPBlock(small_settings(), downsample=False)
    depthwise = ("fc", "global_fc", "psi", "convw", "convkw")
    layers = [getattr(block, name) for name in depthwise]
    for layer in layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    if where:
        nn.init.normal_(block.get_parameter(where))
    x, mask = random_input([12, 9], 12, channels=16)
    given = x.clone().requires_grad_()

    def outcome() -> list[Tensor]:
        y, _ = block(given, mask[..., None].float())
        parameters = [given, *block.parameters()]
        found = torch.autograd.grad(y.square().sum(), parameters, allow_unused=True)
        pairs = zip(parameters, found, strict=True)
        return [y, *(torch.zeros_like(p) if g is None else g for p, g in pairs)]

    ours = outcome()
    with monkeypatch.context() as patch:
        patch.setattr(SGPBlock, "_has_depthwise", lambda _: True)
        whole = outcome()
    assert all(torch.equal(a, b) for a, b in zip(ours, whole, strict=True))
    gradients = zip([name for name, _ in block.named_parameters()], ours[2:], strict=True)
    assert any(bool(g.any()) for name, g in gradients if name.startswith(depthwise)) is moving


def test_border_heads_read_detached_features() -> None:
    model = random_network(small_settings())
    output = model(*random_input([32], 32))
    (output.start_logits.sum() + output.end_logits.sum()).backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {"start_head", "end_head"}
    model(*random_input([32], 32)).class_logits.sum().backward()
    assert model.embedding.convs[0].weight.grad.abs().sum() > 0


def test_drop_path_drops_whole_videos_and_keeps_the_expectation() -> None:
    path = AffineDropPath(3, 0.25, 2.0).train()
    x = torch.rand(4000, 2, 3, generator=torch.Generator().manual_seed(0)) + 0.5
    dropped = path(x, torch.Generator().manual_seed(1))
    gone = (dropped == 0).all((1, 2))
    torch.testing.assert_close(dropped[~gone], x[~gone] * 2 / 0.75)
    assert gone.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(dropped, path(x, torch.Generator().manual_seed(1)))
    assert torch.equal(path.eval()(x, None), 2 * x)


@pytest.mark.parametrize(("window", "factor", "size"), [(1, 5, 11), (1, 1.5, 3), (3, 1.5, 7)])
def test_large_window(window: int, factor: float, size: int) -> None:
    assert large_window(window, factor) == size


def test_trident_decoding_equals_a_loop_over_positions() -> None:
    _, output = random_output()
    for level in output.grid.slices():
        start, end = output.start_logits[:, level], output.end_logits[:, level]
        offsets = output.offsets[:, level]
        B, T, C = start.shape
        entries = [(b, t, c) for b in range(B) for t in range(T) for c in range(C)]
        video, place, label = torch.tensor(entries).T
        got = decode_offsets(output, video, place + level.start, label)
        for (b, t, c), pair in zip(entries, got, strict=True):
            borders = start[b, :, c], end[b, :, c]
            wanted = distances_at(*borders, offsets[b, t].flatten(), t)
            assert pair.tolist() == pytest.approx([x.item() for x in wanted], abs=1e-4)


def test_trident_decoding_by_hand() -> None:
    _, output = random_output()
    for field in (output.start_logits, output.end_logits, output.offsets):
        field.zero_()
    one = torch.tensor([1])
    # Nothing said: every distance 0..4 is as likely, the mean is 2.
    assert decode_offsets(output, one * 0, one * 10, one)[0].tolist() == pytest.approx([2, 2])
    output.start_logits[0, 7, 1] = 100
    output.end_logits[0, 11, 1] = 100
    assert decode_offsets(output, one * 0, one * 10, one)[0].tolist() == pytest.approx([3, 1])
    # Another class has borders of its own.
    assert decode_offsets(output, one * 0, one * 10, one * 2)[0].tolist() == pytest.approx([2, 2])


def test_wrong_shapes_are_named() -> None:
    model = random_network(small_settings())
    with pytest.raises(ValueError, match="multiple of 4 positions, got 30"):
        model(torch.zeros(1, 30, 5), torch.ones(1, 30, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\(1, 32\), got \(1, 31\)"):
        model(torch.zeros(1, 32, 5), torch.ones(1, 31, dtype=torch.bool))
