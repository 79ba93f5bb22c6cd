"""What rounds or draws in somebody's network: the wiring rules say nothing untrue of it, and leave it as it was."""

from __future__ import annotations

import contextlib
import random
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

transformers = pytest.importorskip("transformers")

from sourcewise.data.batches import IGNORED, Batch  # noqa: E402
from sourcewise.diagnosis.answer import Piece  # noqa: E402
from sourcewise.diagnosis.borrowing import PRODUCTS, borrowed, exact, rounding  # noqa: E402
from sourcewise.diagnosis.finding import Finding  # noqa: E402
from sourcewise.diagnosis.measures.wiring import between_passes, measure_loss, measure_paths  # noqa: E402
from sourcewise.diagnosis.rules import look  # noqa: E402
from sourcewise.diagnosis.wiring import Wiring  # noqa: E402
from sourcewise.integrations.collated import Collated, CollatedNetwork, Speaker  # noqa: E402
from sourcewise.integrations.subjects import SummedByModel  # noqa: E402
from tests.integrations.trainings import EOS, PAD, bart, t5  # noqa: E402

HALVES = [torch.bfloat16, torch.float16]
MAKERS = [t5, bart]


def collation(rows: int, longest: int) -> dict[str, Tensor]:
    """Words of 2 to `longest` letters, and as many labels."""
    draw = torch.Generator().manual_seed(3)
    lengths = torch.linspace(2, longest, rows).long()
    made = {name: torch.randint(4, 16, (rows, longest), generator=draw) for name in ("input_ids", "labels")}
    for row, length in enumerate(lengths.tolist()):
        for name, filled in (("input_ids", PAD), ("labels", IGNORED)):
            made[name][row, length - 1], made[name][row, length:] = EOS, filled
    return made | {"attention_mask": (made["input_ids"] != PAD).long()}


def judged(model: Any, rows: int = 12, longest: int = 8) -> list[Finding]:
    """What is found of a model, as the callback asks."""
    return list(look_at(model, rows, longest).findings)


def look_at(model: Any, rows: int = 12, longest: int = 8) -> Piece:
    network, batch, given = laid_out(model, rows, longest)
    return look(Wiring(network, batch, summed=(SummedByModel(network, given),)))


def laid_out(model: Any, rows: int = 12, longest: int = 8) -> tuple[CollatedNetwork, Batch, dict[str, Tensor]]:
    given, network = collation(rows, longest), CollatedNetwork(model)
    return network, Collated([given], Speaker(None, network)).batch(range(rows)), given


def inside(model: Any, context: Callable[[], Any]) -> Any:
    """Its forward enters a context, as accelerate's models and many people's own do."""
    usual = type(model).forward

    def forward(self: Any, *args: Any, **given: Any) -> Any:
        with context():
            return usual(self, *args, **given)

    model.forward = types.MethodType(forward, model)
    return model


LAYERS = ("o", "wo", "out_proj", "fc2")  # the last of each attention and feed-forward
TABLES = ("shared", "embed_tokens")


def hooked(model: Any, names: Sequence[str], change: Callable[[Tensor], Tensor]) -> Any:
    """What modules with these names give is changed."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in names:
            module.register_forward_hook(lambda module, given, out: change(out))
    return model


# ── rounding ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("rows", "longest"), [(2, 4), (12, 8), (64, 30)])
def test_autocast_in_a_models_forward_is_no_fault(make: Any, dtype: torch.dtype, rows: int, longest: int) -> None:
    """The encoder is called beside the forward, and so rounds otherwise: up to 8e-4 of the loss."""
    assert judged(inside(make(), lambda: torch.autocast("cpu", dtype=dtype)), rows, longest) == []


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("dtype", HALVES)
def test_autocast_around_the_look_is_no_fault(make: Any, dtype: torch.dtype) -> None:
    with torch.autocast("cpu", dtype=dtype):
        assert judged(make()) == []
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("dtype", HALVES)
def test_weights_in_half_precision_are_no_fault(make: Any, dtype: torch.dtype) -> None:
    model = make().to(dtype)
    assert judged(model) == []
    assert {p.dtype for p in model.parameters()} == {dtype}


@pytest.mark.parametrize("make", MAKERS)
def test_products_of_fp32_in_bf16_are_no_fault(make: Any) -> None:
    """`torch.set_float32_matmul_precision("medium")`: on CPUs with bf16, as TF32 on GPUs."""
    usual = [place.fp32_precision for place in PRODUCTS]
    try:
        torch.set_float32_matmul_precision("medium")
        asked = [place.fp32_precision for place in PRODUCTS]
        assert judged(make(), 64, 30) == []
        assert [place.fp32_precision for place in PRODUCTS] == asked != usual
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        for place, precision in zip(PRODUCTS, usual, strict=True):
            place.fp32_precision = precision


def in_half(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Computed in fewer bits whatever the weights are, as layers of quantised models do."""
    return lambda out: out.to(dtype)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("dtype", HALVES)
def test_layers_that_round_by_themselves_have_wider_bounds(make: Any, dtype: torch.dtype) -> None:
    def changed() -> Any:
        class Half(nn.Linear):
            def forward(self, x: Tensor) -> Tensor:
                return F.linear(x.to(dtype), self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype))

        model = make()
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = Half
        return model

    network, batch, _ = laid_out(changed(), 64, 30)
    assert measure_paths(network, batch).rounding.epsilon == torch.finfo(dtype).eps
    assert judged(changed(), 64, 30) == []
    batch.labels.masked_fill_(batch.labels == IGNORED, PAD)
    assert [found.code for found in look(Wiring(network, batch)).findings] == ["WIR008"]


class Unshifted(transformers.T5ForConditionalGeneration):
    """Reads the very tokens it is to say."""

    def _shift_right(self, input_ids: Tensor) -> Tensor:
        return input_ids.masked_fill(input_ids == IGNORED, PAD)


def test_a_fault_under_autocast_is_still_found() -> None:
    model = inside(Unshifted(t5().config), lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    assert [found.code for found in judged(model)] == ["WIR007"]


def test_even_logits_are_no_padding_in_the_loss() -> None:
    """A fresh BART with the usual initialisation: padding costs what targets do, to a ten-thousandth."""
    config = bart().config
    config.init_std, config.max_position_embeddings = 0.0005, 256
    torch.manual_seed(0)
    network, batch, given = laid_out(transformers.BartForConditionalGeneration(config), 12, 100)
    assert measure_loss(network, batch, SummedByModel(network, given)).like is None


# ── noise ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def seldom(out: Tensor) -> Tensor:
    return out if random.random() < 0.7 else out * 0


NOISES: dict[str, tuple[Sequence[str], Callable[[Tensor], Tensor]]] = {
    "dropout": (LAYERS, lambda out: F.dropout(out, 0.1, True)),
    "dropout of embeddings": (TABLES, lambda out: F.dropout(out, 0.1)),
    "noise of torch": (LAYERS, lambda out: out + 0.2 * out.std() * torch.randn_like(out)),
    "noise of numpy": (LAYERS, lambda out: out + float(np.random.rand()) * out),  # noqa: NPY002
    "layers left out by random": (LAYERS, seldom),
}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("name", NOISES)
def test_noise_at_evaluation_is_what_is_found(make: Any, name: str) -> None:
    random.seed(1)
    piece = look_at(hooked(make(), *NOISES[name]))
    found = piece.findings
    assert [(each.code, each.level) for each in found] == [("WIR021", "error")]
    assert "two passes over one batch" in found[0].evidence
    (left,) = piece.not_checked
    assert "WIR004 to WIR011" in left and "WIR021" in left


def test_a_little_noise_is_a_warning() -> None:
    found = judged(hooked(t5(), LAYERS, lambda out: out + 1e-3 * out.std() * torch.randn_like(out)))
    assert [(each.code, each.level) for each in found] == [("WIR021", "warning")]


def test_noise_hides_no_fault_of_the_labels() -> None:
    network, batch, _ = laid_out(hooked(t5(), *NOISES["dropout"]))
    batch.labels.masked_fill_(batch.labels == IGNORED, PAD)
    assert [each.code for each in look(Wiring(network, batch)).findings] == ["WIR021", "WIR008"]


@pytest.mark.parametrize("make", MAKERS)
def test_dropout_in_training_alone_is_no_noise(make: Any) -> None:
    model = make().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    network, batch, _ = laid_out(hooked(model, LAYERS, lambda out: F.dropout(out, 0.5, model.training)))
    assert between_passes(network, batch) == 0
    assert look_at(model) == Piece([], [])
    assert all(module.training for module in model.modules())


def test_what_is_drawn_and_not_used_is_no_noise() -> None:
    assert judged(hooked(t5(), LAYERS, lambda out: out if torch.rand(1) < 2 else out * 0)) == []


# ── afterwards all is as it was ───────────────────────────────────────────────────────────────────────────────────────


def test_random_states_and_running_means_are_given_back() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1
            return x

    model = hooked(t5(), LAYERS, seldom)
    model.shared.register_module("counting", Counting())
    hooked(model, LAYERS, model.shared.counting)

    def drawn() -> tuple[float, float, float]:
        return torch.rand(1).item(), np.random.rand(), random.random()  # noqa: NPY002

    def seeded() -> None:
        torch.manual_seed(4), np.random.seed(4), random.seed(4)  # noqa: NPY002

    seeded()
    expected = drawn()
    seeded()
    judged(model)
    assert drawn() == expected
    assert model.shared.counting.seen == 0


def test_other_threads_keep_their_autocast() -> None:
    kinds = {}

    def product(name: str) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            kinds[name] = (torch.ones(2, 2) @ torch.ones(2, 2)).dtype

    usual = torch.autocast.__enter__
    with exact("cpu"):
        product("own")
        other = threading.Thread(target=product, args=("other",))
        other.start()
        other.join()
    product("afterwards")
    assert kinds == {"own": torch.float32, "other": torch.bfloat16, "afterwards": torch.bfloat16}
    assert torch.autocast.__enter__ is usual


def test_a_failure_gives_all_back() -> None:
    usual, network = torch.autocast.__enter__, CollatedNetwork(t5().to(torch.bfloat16))

    @contextlib.contextmanager
    def everything() -> Iterator[None]:
        with borrowed(network), rounding(network):
            yield

    with pytest.raises(ZeroDivisionError), everything():
        raise ZeroDivisionError
    assert torch.autocast.__enter__ is usual
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}
    assert not any(module._forward_hooks for module in network.modules())
