"""Kinds of faults in loops of one's own: two modules, an `nn.Transformer`, and the first under accelerate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.diagnosis.answer import Diagnosis
from tests.diagnosis.instances import test_gradients_of_loops as gradients
from tests.diagnosis.instances import test_rows_of_loops as rows_of
from tests.diagnosis.instances import test_steps_of_loops as steps_of
from tests.diagnosis.instances import test_targets_of_loops as targets
from tests.diagnosis.instances.instance import EVERYWHERE, STEPS, Build, Instance
from tests.diagnosis.instances.loops import Gru, Loop, Transformer, adam, copied, sgd
from tests.integrations.loops import PAD


class Accelerated(Gru):
    """The loop of two modules, its optimizers and backward() by accelerate."""

    def __init__(self, optimizers: Any = adam) -> None:
        from accelerate import Accelerator

        super().__init__(optimizers)
        self.accelerator = Accelerator(cpu=True)
        self.optimizers = [self.accelerator.prepare(each) for each in self.optimizers]

    def update(self, loss: Tensor) -> None:
        for each in self.optimizers:
            each.zero_grad()
        self.accelerator.backward(loss)
        for each in self.optimizers:
            each.step()


HOSTS: dict[str, type[Loop]] = {"gru": Gru, "transformer": Transformer, "accelerate": Accelerated}


def overridden(kind: type[Loop], changes: dict[str, Any], optimizers: Any, steps: int) -> Build:
    """A loop some of whose methods are others."""

    def run(folder: Path) -> Diagnosis:
        made: Any = type(kind.__name__, (kind,), {"steps": steps, **changes})
        return made(optimizers).run().diagnosis  # type: ignore[no-any-return]

    return run


def changed(kind: type[Loop], change: Callable[[Any], None], steps: int = STEPS) -> Build:
    """A loop that is changed before it runs."""

    def run(folder: Path) -> Diagnosis:
        loop = kind()
        loop.steps = steps
        change(loop)
        return loop.run().diagnosis

    return run


def zeroed(what: str) -> Callable[[Any], None]:
    """The tables whose names end so are all zeros."""

    def change(loop: Any) -> None:
        found = [p for each in modules_of(loop) for name, p in each.named_parameters() if name.endswith(what)]
        assert found, what
        for p in found:
            nn.init.zeros_(p)

    return change


def modules_of(loop: Any) -> tuple[nn.Module, ...]:
    return loop.modules if isinstance(loop.modules, tuple) else (loop.modules,)


def broken(value: float, at: int) -> Callable[[Any], None]:
    """One weight of a table is no finite number."""

    def change(loop: Any) -> None:
        tables = [p for each in modules_of(loop) for p in each.parameters()]
        tables[at].data.flatten()[0] = value

    return change


def unheld(share: slice) -> Callable[[list[nn.Parameter]], list[Any]]:
    """An optimizer that has some of the weights."""
    return lambda parameters: [torch.optim.Adam(parameters[share], lr=3e-3)]


def at_rate(rate: float) -> Callable[[list[nn.Parameter]], list[Any]]:
    return lambda parameters: [torch.optim.Adam(parameters, lr=rate)]


def drawn(loop: Any, deviation: float) -> None:
    """All matrices of one deviation."""
    for each in modules_of(loop):
        for p in each.parameters():
            if p.ndim > 1:
                nn.init.normal_(p, 0, deviation)


def noisy(how: str) -> Callable[[Any], None]:
    """Noise in what the embedding gives, in training and evaluation alike."""

    def change(loop: Any) -> None:
        embedding = next(m for each in modules_of(loop) for m in each.modules() if isinstance(m, nn.Embedding))
        plain = embedding.forward

        def forward(ids: Tensor) -> Tensor:
            out = plain(ids)
            if how == "dropout":
                return nn.functional.dropout(out, 0.3)
            return out + 0.2 * (torch.randn_like(out) if how == "normal" else torch.rand_like(out))

        embedding.forward = forward  # type: ignore[method-assign]

    return change


def with_loss(form: str) -> dict[str, Any]:
    """Another loss, of probabilities say."""

    def loss(self: Loop, said: Tensor, labels: Tensor) -> Tensor:
        flat, ids = said.flatten(0, 1), labels.flatten()
        if form == "nll of softmax":
            return nn.functional.nll_loss(flat.softmax(-1), ids, ignore_index=PAD)
        if form == "nll of logits":
            return nn.functional.nll_loss(flat, ids, ignore_index=PAD)
        return nn.functional.cross_entropy(flat.softmax(-1), ids, ignore_index=PAD)

    return {"loss": loss}


def state_of(what: str) -> Callable[[Any], None]:
    """What the encoder gave is thrown away."""

    def handed(memory: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        made = torch.randn if what == "noise" else torch.zeros
        return made(memory.shape), (torch.ones if what == "ones" else torch.zeros)(state.shape)

    return lambda loop: setattr(loop, "handed", handed)


def of_one_target(src: Tensor, tgt: Tensor, which: int) -> tuple[Tensor, Tensor]:
    """Every target is the same."""
    one = torch.tensor([1, 3 + which, 7, 5 + which, 2])
    return src, one.expand(len(tgt), -1).clone()


def data(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> dict[str, Any]:
    return {"batch": lambda self, src, tgt: change(src, tgt)}


OVERRIDES: list[tuple[str, str, str, dict[str, Any], str]] = [  # kind, codes, hosts, what is other, name
    *(
        ("gradients add up", "WIR029", "gru transformer", {"update": u}, u.__name__)
        for u in (gradients.never, gradients.once_only, gradients.of_another)
    ),
    *(
        ("no step is taken", "WIR030", "gru transformer", {"update": u}, u.__name__)
        for u in (gradients.no_step, gradients.erased, gradients.too_early)
    ),
    *(
        (
            "clipped while scaled",
            "WIR035",
            "gru transformer",
            {"update": steps_of.scaled(s, c, "clip divide")},
            f"{s:g}",
        )
        for s, c in ((65536.0, 1.0), (4096.0, 0.1), (2.0**18, 2.0))
    ),
    *(
        ("padding counts", "WIR008", "transformer", c, n)
        for c, n in (({"ignored": -100}, "counted"), ({"ignored": -100, "batch": targets.padded}, "padded further"))
    ),
    *(
        ("the end is missing", "WIR009", "transformer", {"batch": b}, b.__name__)
        for b in (targets.without_end, targets.cut)
    ),
    *(
        ("the mask is wrong", "WIR005", "transformer", c, n)
        for c, n in (
            ({"batch": targets.wider, "padding": targets.inverted}, "inverted"),
            ({"padding": targets.bare}, "none"),
        )
    ),
    *(
        ("the future is seen", "WIR006 WIR007", "transformer", {"later": f}, f.__name__)
        for f in (targets.bare, targets.backwards, targets.shows_one)
    ),
    ("not shifted", "WIR007", "transformer", {"cut": targets.unshifted}, "reads what it says"),
    ("begins otherwise", "WIR010", "transformer", {"begin": False}, "no start token"),
    *(
        ("not log-probabilities", "WIR027", EVERYWHERE, with_loss(f), f)
        for f in ("nll of softmax", "nll of logits", "softmax twice")
    ),
    *(
        (
            "pairs that do not belong",
            "DAT003",
            "gru accelerate",
            data(lambda s, t, k=k: (s.roll(k, 0), t)) | {"steps": 70},
            f"{k} off",
        )
        for k in (1, 3)
    ),
    *(
        (
            "one target",
            "DAT004",
            "gru accelerate",
            data(partial(of_one_target, which=k)) | {"steps": 70},
            f"row {k}",
        )
        for k in (0, 2)
    ),
]
OPTIMIZED: list[tuple[str, str, str, Any, str]] = [
    *(("weights of no optimizer", "WIR003", "gru transformer", o, n) for o, n in (
        (copied, "copies"), (unheld(slice(3)), "three tables"), (unheld(slice(-2, None)), "the last"),
        (gradients.of_doubles, "doubles"))),
    *(("a rate too high", "WIR014 TRN009", EVERYWHERE, at_rate(r), f"{r:g}") for r in (3.0, 10.0)),
]  # fmt: skip
CHANGES: list[tuple[str, str, str, Callable[[Any], None], str]] = [
    *(("not finite", "WIR001", EVERYWHERE, broken(v, a), f"{v} in {a}")
      for v, a in ((float("nan"), 0), (float("inf"), 1), (float("nan"), -1))),
    *(("noise at evaluation", "WIR021", EVERYWHERE, noisy(h), h) for h in ("dropout", "normal", "uniform")),
    *(("state thrown away", "WIR028 WIR011 WIR012", "gru accelerate", state_of(w), w)
      for w in ("zeros", "ones", "noise")),
    *(("drawn for another width", "WIR034 WIR002", EVERYWHERE, partial(drawn, deviation=d), f"{d}")
      for d in (0.005, 0.01, 0.02)),
]  # fmt: skip


def detached(kind: type[Loop], handed: Callable[[Tensor], Tensor]) -> Callable[[Any], None]:
    def change(loop: Any) -> None:
        if kind is Transformer:
            loop.modules.handed = handed
        else:
            loop.handed = lambda memory, state: (handed(memory), handed(state))

    return change


def unloaded(loop: Any) -> None:
    """A frozen encoder into which no key of a checkpoint went."""
    steps_of.encoder_of(loop).requires_grad_(False)
    loop.optimizers = adam([p for p in loop.parameters() if p.requires_grad])


def loops() -> Iterator[Instance]:
    """Of all kinds in loops."""
    for kind, codes, hosts, changes, name in OVERRIDES:
        for host in hosts.split():
            own = dict(changes)
            yield Instance(
                kind,
                host,
                name,
                codes,
                overridden(HOSTS[host], own, sgd if "scaled" in kind else adam, own.pop("steps", 45)),
            )
    for kind, codes, hosts, optimizers, name in OPTIMIZED:
        for host in hosts.split():
            yield Instance(kind, host, name, codes, overridden(HOSTS[host], {}, optimizers, STEPS))
    for kind, codes, hosts, change, name in CHANGES:
        for host in hosts.split():
            yield Instance(kind, host, name, codes, changed(HOSTS[host], change))
    for host, loop in HOSTS.items():
        for way in (gradients.detached, gradients.data, gradients.through_numpy):
            yield Instance("encoder detached", host, way.__name__, "WIR012", changed(loop, detached(loop, way)))
        yield Instance("checkpoint that matches nothing", host, "frozen", "WIR003", changed(loop, unloaded))
    for name, made in rows_of.MIXED.items():
        yield Instance("rows read each other", "gru" if name != "transformer" else name, name, "WIR032", mixed(made))


def mixed(made: Callable[[], Loop]) -> Build:
    def run(folder: Path) -> Diagnosis:
        loop = made()
        loop.steps = STEPS
        return loop.run().diagnosis

    return run
