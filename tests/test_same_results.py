"""What was made faster gives what its plain form gives: losses, gradients and random draws."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fustal_core import linear
from fustal_core.acmnet import ACMNet, _means_at_top
from fustal_core.convolution import WIDE, convolve, convolve_neighbours
from fustal_core.distillation import ema_update, make_ema
from fustal_core.dropout import Dropout, dropout, dropout_of_channels
from fustal_core.ftcl import build_ftcl, find_candidates
from fustal_core.generator import (
    TEMPERATURE,
    CrossVideoGenerator,
    generator_loss,
    nce_table,
    top_mean,
)
from fustal_core.hrpro import Seeds, class_sums
from fustal_core.hrpro_loss import _contrast_of, contrast_loss
from fustal_core.mining import MinedSnippets, hard_regions, mine_snippets, snippet_mask
from fustal_core.seeding import seeded
from fustal_core.stage_settings import ACMNetSettings, FTCLSettings, StudentSettings
from fustal_core.student import TriDet
from fustal_core.student_blocks import MaskedReLU, masked_group_norm
from fustal_core.student_loss import diou_loss, overlap_of_distances, video_loss

ROUNDING = {"rtol": 1e-5, "atol": 1e-6}


def rng_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_same(
    ours: Callable[[], Tensor], plain: Callable[[], Tensor], *inputs: Tensor, **tolerance: float
) -> None:
    """Values and gradients are equal but for rounding."""
    for x in inputs:
        x.grad = None
    values, gradients = [], []
    for form in (ours, plain):
        value = form()
        weight = torch.randn(value.shape, generator=rng_of(9))
        values.append(value)
        gradients.append(torch.autograd.grad((value * weight).sum(), inputs))
    for found in (values, gradients):
        torch.testing.assert_close(*found, **ROUNDING | tolerance)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=rng_of(seed)).requires_grad_()


# --- dropout --------------------------------------------------------------------------------------


def plain_dropout(x: Tensor, p: float, rng: torch.Generator) -> Tensor:
    keep = torch.empty_like(x).bernoulli_(1 - p, generator=rng)
    return x * keep / (1 - p)


@pytest.mark.parametrize("p", [0.3, 0.7])
def test_dropout_draws_as_bernoulli_does(p: float) -> None:
    x = random(3, 50, 7)
    assert_same(lambda: dropout(x, p, rng_of(1)), lambda: plain_dropout(x, p, rng_of(1)), x)
    ours, plain = dropout(x, p, rng_of(1)), plain_dropout(x, p, rng_of(1))
    assert torch.equal(ours == 0, plain == 0)
    assert 0 < (ours == 0).sum() < ours.numel()


def test_dropout_leaves_the_generator_where_bernoulli_does() -> None:
    ours, plain = rng_of(1), rng_of(1)
    dropout(torch.ones(5, 7), 0.7, ours)
    plain_dropout(torch.ones(5, 7), 0.7, plain)
    assert torch.equal(ours.get_state(), plain.get_state())


def test_channels_are_dropped_one_after_the_other() -> None:
    x = random(3, 50, 7)

    def plain() -> Tensor:
        return plain_dropout(x.transpose(1, 2).contiguous(), 0.7, rng_of(1)).transpose(1, 2)

    assert_same(lambda: dropout_of_channels(x, 0.7, rng_of(1)), plain, x)


@pytest.mark.parametrize("transposed", [False, True])
def test_the_dropout_module_is_torchs_to_the_bit(transposed: bool) -> None:
    x = random(2, 30, 8).transpose(1, 2) if transposed else random(2, 30, 8)
    found = []
    for kind in (Dropout, nn.Dropout):
        with seeded(4):
            found.append(kind(0.3).train()(x))
    assert torch.equal(*found)
    assert (found[0] == 0).any()
    assert torch.equal(Dropout(0.3).eval()(x), x)


# --- generators -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [convolve, convolve_neighbours])
def test_every_form_of_a_convolution(form: Callable[[nn.Conv1d, Tensor], Tensor]) -> None:
    layer, features = nn.Conv1d(5, 8, 3, padding=1), random(2, 9, 5)
    inputs = (features, layer.weight, layer.bias)
    assert_same(lambda: form(layer, features), lambda: over_time(layer, features), *inputs)


def over_time(layer: nn.Conv1d, x: Tensor) -> Tensor:
    """torch's convolution of (B, T, C)."""
    return layer(x.transpose(1, 2)).transpose(1, 2)


@pytest.mark.parametrize(("size", "groups"), [(3, 1), (3, WIDE), (5, 1)])
def test_convolutions_of_many_channels_and_their_gradients(size: int, groups: int) -> None:
    layer = nn.Conv1d(WIDE, WIDE, size, padding=size // 2, groups=groups, bias=False).double()
    features = random(2, 5, WIDE).double()
    inputs = (features, layer.weight)
    assert_same(lambda: convolve(layer, features), lambda: over_time(layer, features), *inputs)


@pytest.mark.parametrize("channels", [WIDE - 1, WIDE])
def test_many_channels_make_a_product(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, features = nn.Conv1d(channels, WIDE, 3, padding=1, bias=False), random(2, 5, channels)
    monkeypatch.setattr(F, "conv2d", None)  # a product of matrices does without
    if channels < WIDE:
        with pytest.raises(TypeError):
            convolve(layer, features)
    else:
        convolve(layer, features)


@pytest.fixture
def seen_by_torch(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What F.linear was given since, on a processor whose large products are oneDNN's."""
    given, plain = [], F.linear
    monkeypatch.setattr(linear, "BY_ONEDNN", True)
    monkeypatch.setattr(linear, "LARGE", 10**8)
    monkeypatch.setattr(F, "linear", lambda x, *rest: given.append(x) or plain(x, *rest))
    return given


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_a_large_product_and_its_gradients_by_onednn(
    seen_by_torch: list[Tensor], bias: bool, transposed: bool
) -> None:
    layer = linear.Linear(250, 400, bias=bias)
    x = random(2, 250, 250).transpose(1, 2) if transposed else random(2, 250, 250)
    x = x.detach().requires_grad_()
    inputs = (x, *layer.parameters())
    assert 2 * x.numel() * 400 == linear.LARGE
    assert_same(lambda: layer(x), lambda: nn.Linear.forward(layer, x), *inputs, atol=1e-4)
    assert [given.is_mkldnn for given in seen_by_torch] == [True, False]
    assert layer(x).layout == torch.strided


@pytest.mark.parametrize("case", ["small", "narrow", "double", "bfloat16", "autocast"])
def test_other_products_are_left_to_torch(seen_by_torch: list[Tensor], case: str) -> None:
    rows, channels = {"small": (499, 250), "narrow": (4000, linear.NARROW)}.get(case, (500, 250))
    x, weight = random(rows, channels).detach(), random(400, channels).detach()
    if case in ("double", "bfloat16"):
        x, weight = (given.to(getattr(torch, case)) for given in (x, weight))
    with torch.autocast("cpu", enabled=case == "autocast"):
        found = linear.linear(x, weight)
    assert not seen_by_torch[0].is_mkldnn
    assert torch.allclose(found.double(), x.double() @ weight.double().T, rtol=0.1, atol=0.5)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"cpu_name": "AMD EPYC", "avx512_f": True}, True),
        ({"cpu_name": "AMD EPYC", "avx512_f": False}, False),
        ({"cpu_name": "AMD EPYC"}, False),
        ({"cpu_name": "Intel(R) Xeon(R) Processor", "avx512_f": True}, False),
        ({"architecture": "aarch64"}, False),
        (None, False),  # a torch that cannot tell
    ],
)
def test_only_amds_wide_processors_have_products_by_onednn(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object] | None, expected: bool
) -> None:
    if capabilities is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert linear._is_amd_with_avx512() == expected


def test_means_of_the_largest() -> None:
    x = random(2, 20, 3)
    assert_same(lambda: top_mean(x, 4), lambda: x.topk(4, dim=1).values.mean(1), x)


def plain_mining(actionness: Tensor, embeddings: Tensor, mask: Tensor) -> MinedSnippets:
    """Each kind gathered by itself."""
    actionness = actionness.detach()
    inner, outer = hard_regions(actionness)
    inactivity = actionness.amax(1, keepdim=True) - actionness

    def gathered(values: Tensor, share: int) -> Tensor:
        k = max(1, values.shape[1] // share)
        order = values.sort(dim=1, descending=True, stable=True).indices[:, :k]
        return embeddings.gather(1, order[:, :, None].expand(-1, -1, embeddings.shape[2]))

    return MinedSnippets(
        gathered(actionness * mask, 5),
        gathered(actionness * inner, 20),
        gathered(inactivity * mask, 5),
        gathered(actionness * outer, 20),
    )


def plain_nce(queries: Tensor, keys: Tensor, negatives: Tensor) -> Tensor:
    query, key = (F.normalize(x.mean(1), dim=1) for x in (queries, keys))
    negative = torch.einsum("jh,inh->jin", query, F.normalize(negatives, dim=2)) / TEMPERATURE
    positive = query @ key.T / TEMPERATURE
    return torch.cat([positive[:, :, None], negative], dim=2).logsumexp(2) - positive


def test_mined_snippets_and_their_gradient() -> None:
    embeddings, actionness = random(3, 60, 5), random(3, 60, seed=1).abs()
    mask = snippet_mask(actionness, rng_of(2))

    def stacked(mine: Callable[..., MinedSnippets]) -> Callable[[], Tensor]:
        return lambda: torch.cat(list(vars(mine(actionness, embeddings, mask)).values()), dim=1)

    assert_same(stacked(mine_snippets), stacked(plain_mining), embeddings)


def test_nce_of_snippets_of_any_length() -> None:
    parts = random(4, 2, 6), random(4, 5, 6, seed=1), random(4, 5, 6, seed=2)
    assert_same(lambda: nce_table(*parts), lambda: plain_nce(*parts), *parts)


def test_a_step_of_the_generator() -> None:
    model, features = CrossVideoGenerator(6, 3, 16).train(), random(4, 60, 6).detach()
    labels = F.one_hot(torch.tensor([0, 0, 1, 1]), 3).float()
    inputs = tuple(model.parameters())

    def ours() -> Tensor:
        output = model(features, rng := rng_of(3))
        return generator_loss(output, labels, snippet_mask(output.actionness, rng)).total

    def plain() -> Tensor:
        rng = rng_of(3)
        hidden = F.relu(model.embedding(features.transpose(1, 2)))
        cas = F.relu(model.classifier(plain_dropout(hidden, 0.7, rng))).transpose(1, 2)
        scores = cas.topk(12, dim=1).values.mean(1).softmax(1)
        actionness = cas.sum(2)
        mask = plain_dropout(torch.ones_like(actionness), 0.6, rng)
        mined = plain_mining(actionness, hidden.transpose(1, 2), mask)
        action = plain_nce(mined.hard_action, mined.easy_action, mined.easy_background)
        background = plain_nce(mined.hard_background, mined.easy_background, mined.easy_action)
        table = action + background
        cross_video = (table[0, 1] + table[1, 0] + table[2, 3] + table[3, 2]) / 4
        contrast = table.diagonal().mean() + 0.2 * cross_video
        return F.binary_cross_entropy(scores, labels) + 0.01 * contrast

    assert_same(ours, plain, *inputs)


def test_acm_net_in_training() -> None:
    settings = ACMNetSettings(hidden_channels=8)
    model, features = ACMNet(5, 3, settings).train(), random(2, 40, 5).detach()

    def ours() -> Tensor:
        output = model(features, rng_of(3))
        return torch.cat([output.branch_scores, output.branch_features], dim=2)

    def plain() -> Tensor:
        hidden, rng = F.relu(model.embedding(features.transpose(1, 2))), rng_of(3)
        attention = model.attention(hidden).transpose(1, 2).softmax(2)
        embeddings = hidden.transpose(1, 2)
        snippets = plain_dropout(torch.ones_like(embeddings[..., :1]), 0.7, rng)
        cas = model.classifier(plain_dropout(embeddings * snippets, 0.7, rng))
        parts = []
        for i, share in enumerate(model.shares):
            k = max(1, 40 // share)
            scores = (cas * attention[..., i, None]).topk(k, dim=1).values.mean(1).softmax(1)
            rows = attention[..., i].topk(k, dim=1).indices[..., None].expand(-1, -1, 8)
            parts.append(torch.cat([scores, embeddings.gather(1, rows).mean(1)], dim=1))
        return torch.stack(parts, dim=1)

    assert_same(ours, plain, *model.parameters())


def test_means_at_the_largest_attention_by_hand() -> None:
    embeddings = torch.tensor([[[1.0], [2.0], [4.0], [8.0]]])
    attention = torch.tensor([[[0.9, 0.1], [0.8, 0.2], [0.1, 0.7], [0.2, 0.6]]])
    assert _means_at_top(embeddings, attention, [2, 1]).flatten().tolist() == [1.5, 4.0]


def test_candidates_of_ftcl() -> None:
    how = FTCLSettings(lcs_snippets=6, fsd_snippets=4, fsd_channels=4)
    model = build_ftcl(5, 3, ACMNetSettings(hidden_channels=8), how).eval()
    output = model(random(2, 30, 5).detach())

    def ours() -> Tensor:
        found = find_candidates(model, output, how)
        parts = (found.lcs, found.fsd_action, found.fsd_background)
        return torch.cat([part.flatten() for part in parts])

    def plain() -> Tensor:
        ranked = output.actionness.argsort(dim=1, descending=True, stable=True)
        rows = [ranked[:, part].sort(1).values for part in (slice(6), slice(4), slice(4, 8))]
        chosen = [output.embeddings.gather(1, own[..., None].expand(-1, -1, 8)) for own in rows]
        parts = [chosen[0], *(model.fsd_embedding(own) for own in chosen[1:])]
        return torch.cat([part.flatten() for part in parts])

    assert_same(ours, plain, output.embeddings, model.fsd_embedding.weight)


# --- HR-Pro ---------------------------------------------------------------------------------------


def seeds_of(classes: list[int]) -> Seeds:
    """Three action seeds of each class in 30 snippets, and five of the background."""
    action, background = torch.zeros(30, 4), torch.zeros(30)
    for i, label in enumerate(classes):
        action[3 * i : 3 * i + 3, label] = 1
    background[20:25] = 1
    return Seeds(action, background)


def plain_contrast(embeddings: Tensor, seeds: Seeds, prototypes: Tensor) -> Tensor:
    cosines = F.normalize(embeddings, dim=1) @ F.normalize(prototypes, dim=1).T
    near = (cosines / 0.1).exp()
    own = seeds.action.any(0).nonzero().flatten()
    sums, counts = class_sums(near, seeds.action[:, own])
    action = sums / counts[:, None]
    of_own = action.gather(1, own[:, None])[:, 0]
    background = (seeds.background @ near / seeds.background.sum().clamp(min=1))[own]
    terms = (action.sum(1) / of_own).log() + (background / of_own).log1p()
    return 0.5 * terms.sum() / max(1, len(own))


@pytest.mark.parametrize("classes", [[], [2], [0, 3], [0, 1, 2, 3]])
def test_contrast_of_points(classes: list[int]) -> None:
    embeddings, prototypes, seeds = random(30, 6), random(4, 6, seed=1), seeds_of(classes)
    inputs = (embeddings, prototypes)
    assert_same(
        lambda: contrast_loss(embeddings, seeds, prototypes),
        lambda: plain_contrast(embeddings, seeds, prototypes),
        *inputs,
    )


@pytest.mark.parametrize("classes", [[], [2], [0, 3], [0, 1, 2, 3]])
def test_contrast_of_all_classes_counts_those_with_seeds(classes: list[int]) -> None:
    near, seeds = random(30, 4).detach().exp().requires_grad_(), seeds_of(classes)
    has_seeds = seeds.action.any(0)

    def of(own: Tensor) -> Tensor:
        return _contrast_of(own, has_seeds, near, seeds)

    assert_same(lambda: of(torch.arange(4)), lambda: of(has_seeds.nonzero().flatten()), near)


# --- student --------------------------------------------------------------------------------------


def test_the_offset_of_centres_to_the_bit() -> None:
    predicted, wanted = random(50, 2).detach().abs().requires_grad_(), random(50, 2, seed=1).abs()

    def plain() -> Tensor:
        enclosing = torch.maximum(predicted, wanted).sum(1).clamp(min=1e-8)
        shift = ((predicted - wanted) @ torch.tensor([-0.5, 0.5])) / enclosing
        return 1 - overlap_of_distances(predicted, wanted) + shift.square()

    assert torch.equal(diou_loss(predicted, wanted), plain())
    gradients = [
        torch.autograd.grad(x.sum(), predicted)[0] for x in (diou_loss(predicted, wanted), plain())
    ]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("k_from", ["video", "batch"])
def test_the_video_loss_may_look_at_more_than_it_takes(
    k_from: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, labels = random(3, 40, 4), F.one_hot(torch.tensor([0, 1, 2]), 4).float()
    mask = torch.arange(40) < torch.tensor([4, 17, 31])[:, None]

    def loss() -> Tensor:
        return video_loss(logits * mask[..., None], mask, labels, k_from=k_from, rng=rng_of(1))

    plain = loss(), torch.autograd.grad(loss(), logits)
    topk = Tensor.topk
    more = {"video": 40 // 5, "batch": 40}[k_from]
    monkeypatch.setattr(Tensor, "topk", lambda x, k, dim: topk(x, more, dim=dim))
    torch.testing.assert_close((loss(), torch.autograd.grad(loss(), logits)), plain, **ROUNDING)


def test_a_masked_relu_is_a_product_of_the_mask_to_the_bit() -> None:
    x, mask = random(3, 20, 7), (torch.arange(20) < torch.tensor([20, 3, 11])[:, None])[..., None]
    forms = (lambda: MaskedReLU.apply(2 * x, mask.float()), lambda: F.relu(2 * x) * mask.float())
    values = [form() for form in forms]
    assert torch.equal(*values)
    gradients = [torch.autograd.grad((y * y.sin()).sum(), x)[0] for y in values]
    assert torch.equal(*gradients)
    assert torch.equal(MaskedReLU.apply(x.detach().clone(), mask.float()), F.relu(x) * mask.float())


@pytest.mark.parametrize("lengths", [[12, 5, 1], [12, 12, 12], [7, 0, 12]])
def test_group_norm_of_what_is_not_masked(lengths: list[int]) -> None:
    """Each video's own positions alone through torch's."""
    norm, x = nn.GroupNorm(4, 12), random(3, 12, 12)
    with torch.no_grad():
        norm.weight.copy_(random(12, seed=1))
        norm.bias.copy_(random(12, seed=2))
    mask = (torch.arange(12) < torch.tensor(lengths)[:, None])[..., None].float()

    def plain() -> Tensor:
        parts = []
        for video, length in zip(x, lengths, strict=True):
            own = norm(video[None, :length].transpose(1, 2)).transpose(1, 2)[0] if length else []
            parts += [*own, *torch.zeros(12 - length, 12)]
        return torch.stack(parts).view(3, 12, 12)

    inputs = (x, norm.weight, norm.bias)
    assert_same(lambda: masked_group_norm(x, mask, norm) * mask, plain, *inputs)


def test_the_average_moves_as_torchs_does() -> None:
    settings = StudentSettings(width=16, mlp_width=16, levels=2, stem_blocks=1, bins=2)
    model = TriDet(5, 3, settings, rng_of(0))
    ours, plain = make_ema(model, 0.9), make_ema(model, 0.9)
    update = ema_update(ours, model, 0.9)
    for _ in range(3):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1)
        update()
        plain.update_parameters(model)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name
