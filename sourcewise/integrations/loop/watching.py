"""The calls of somebody's modules in one step of a loop: what each is given, what it gives, what the loss makes of it.

Only a step that is watched has hooks, and they change no number: what a module is given and gives is looked at, and the
gradient of what it gave as it passes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sourcewise.diagnosis.measures.objective import Said, said_by
from sourcewise.integrations.loop.batches import raw_tensors

FUSED = (nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention)  # in evaluation, without hooks
Named = list[tuple[str, nn.Module]]


@dataclass
class Call:
    """One call of a module from outside of all that is watched, and its tensors by path."""

    module: nn.Module
    name: str
    given: Sequence[Any]
    named: dict[str, Any]
    out: Any = None
    out_gradients: dict[str, float] = field(default_factory=dict)  # path → largest; none: not in the loss
    sizes: Tensor | None = None  # of an embedding: mean squares of the gradient at what it gave, as its ids lie
    said: dict[str, Said] = field(default_factory=dict)  # outputs that the loss takes labels for
    dropout: float = 0.0  # the highest of what learns here, of a call from outside
    quiet: bool = False  # whether all of it is off, the modules being in eval mode

    @property
    def parameters(self) -> list[str]:
        """The names of what it may be given; [] where it does not tell."""
        try:
            return list(inspect.signature(self.module.forward).parameters)
        except (TypeError, ValueError):
            return []

    @property
    def arguments(self) -> dict[str, Any]:
        """What it is given, by the names of its parameters."""
        names = [*self.parameters, *(str(i) for i in range(len(self.parameters), len(self.given)))]
        return {**dict(zip(names, self.given, strict=False)), **self.named}

    def name_of(self, path: str) -> str:
        """An argument's name, by its path in (given, named)."""
        side, _, rest = path.partition(".")
        first, dot, inner = rest.partition(".")
        names = self.parameters
        name = names[int(first)] if side == "0" and int(first) < len(names) else first
        return f"{name}{dot}{inner}"

    @property
    def outputs(self) -> dict[str, Tensor]:
        """The tensors that it gave, by path."""
        return dict(raw_tensors(self.out))


class Hook:
    """A hook that nobody copies or saves along with a model: its copy does nothing."""

    def __init__(self, called: Callable[..., None]) -> None:
        self.called = called

    def __call__(self, *given: Any) -> None:
        """What happened; nothing of it is changed."""
        self.called(*given)

    def __reduce__(self) -> Any:
        return (Hook, (_nothing,))


def _nothing(*given: Any) -> None:
    """A hook of a copy."""


class Watching:
    """The calls of one training step, from `start` to `stop`; evaluation in between is not looked at."""

    def __init__(self, modules: Named, guard: Callable[[str], Any]) -> None:
        """The modules whose calls count, by name; `guard` keeps what goes wrong from whoever trains."""
        self.modules, self.guard = list(modules), guard
        self.begins: Callable[[], None] = lambda: None  # told of the first call of a step
        self.half = False  # whether a call was autocast to float16
        self.deep = False  # whether outputs of inner layers may be what the loss takes labels for
        self.calls: list[Call] = []  # from outside
        self.ungraded: set[str] = set()  # modules in training mode that were called without gradients
        self.inner: list[Call] = []  # of encoders and decoders within, and where `deep` of matrices
        self.recurrent: list[Call] = []  # of cells and recurrent layers, wherever they are
        self._hooks: list[Any] = []
        self._fused: Named = []
        self._late: list[Any] = []  # hooks of what is fused, while a call is open
        self._open: list[Call] = []

    @property
    def on(self) -> bool:
        """Whether calls are looked at."""
        return bool(self._hooks)

    @property
    def saying(self) -> list[Call]:
        """The calls that give what the loss takes labels for, in order."""
        return [call for call in self.calls if call.said] or [call for call in self.inner if call.said]

    @property
    def partly(self) -> bool:
        """Whether a module that says labels was called for others, too, of which the loss is another."""
        saying = self.saying
        own = {id(call.module) for call in saying}
        return len(saying) > 1 and any(
            id(c.module) in own and c.out_gradients and not c.said for c in (*self.calls, *self.inner)
        )

    def start(self) -> None:
        """From now on; what was seen before is forgotten."""
        self.stop()
        self.calls, self.inner, self.recurrent, self._open, self.ungraded = [], [], [], [], set()
        plain, self._fused = _within(self.modules)
        self._hooks = [hook for name, module in plain for hook in self._hooked(name, module)]

    def add(self, name: str, module: nn.Module) -> None:
        """The calls of this module, too, from now on."""
        known = {id(inner) for _, each in self.modules for inner in each.modules()}
        if id(module) in known:
            return
        self.modules.append((name, module))
        plain, fused = _within([(name, module)])
        self._fused += [pair for pair in fused if id(pair[1]) not in known]
        new = [pair for pair in plain if id(pair[1]) not in known]
        self._hooks += [hook for path, each in new for hook in self._hooked(path, each)]

    def stop(self) -> None:
        """No longer."""
        for hook in (*self._hooks, *self._late):
            hook.remove()
        self._hooks, self._late = [], []

    def forget(self) -> None:
        """What was seen, which holds a step's tensors."""
        self.calls, self.inner, self.recurrent, self._open, self.ungraded = [], [], [], [], set()

    def _hooked(self, name: str, module: nn.Module) -> list[Any]:
        before, after = Hook(partial(self._before, name)), Hook(self._after)
        return [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after, with_kwargs=True),
        ]

    def _before(self, name: str, module: nn.Module, given: Any, named: dict[str, Any]) -> None:
        if not torch.is_grad_enabled():
            if module.training:
                self.ungraded.add(name)
            return
        if not self._open and not self.calls:
            self.half = self.half or _half()
            self.begins()
        if not self._open and not self._late:  # a training step has begun: what is fused is not so in one
            self._late = [hook for path, each in self._fused for hook in self._hooked(path, each)]
        noise = [] if self._open else noises(module)
        quiet = bool(noise) and not any(on for _, on in noise)
        highest = max((p for p, _ in noise), default=0.0)
        self._open.append(Call(module, name, given, named, dropout=highest, quiet=quiet))

    def _after(self, module: nn.Module, given: Any, named: dict[str, Any], out: Any) -> None:
        if not torch.is_grad_enabled():
            return
        with self.guard("the calls of the model"):
            while self._open and self._open[-1].module is not module:
                self._open.pop()  # a call that raised
            if self._open:
                self._left(self._open.pop(), out)
        if not self._open:
            for hook in self._late:
                hook.remove()
            self._late = []

    def _left(self, call: Call, out: Any) -> None:
        call.out = out
        if isinstance(call.module, (nn.RNNCellBase, nn.RNNBase)):
            self.recurrent.append(call)
        if self._open and not self._wanted(call):
            return
        (self.inner if self._open else self.calls).append(call)
        for path, tensor in call.outputs.items():
            if tensor.requires_grad and tensor.is_floating_point():
                tensor.register_hook(Hook(partial(self._gradient, call, path, tensor.detach())))

    def _wanted(self, call: Call) -> bool:
        """Whether a call from within is looked at."""
        kept = side_of(call.name) != "" or isinstance(call.module, (nn.Embedding, nn.MultiheadAttention))
        return kept or (self.deep and isinstance(call.module, nn.Linear))

    def _gradient(self, call: Call, path: str, out: Tensor, gradient: Tensor) -> None:
        with self.guard("the gradient at the model's outputs"):
            call.out_gradients[path] = float(gradient.detach().abs().max())
            if isinstance(call.module, nn.Embedding):
                call.sizes = gradient.detach().float().square().mean(-1)
                return
            found = said_by(out, gradient)
            if found is not None:
                call.said[path] = found


def noises(module: nn.Module) -> list[tuple[float, bool]]:
    """The dropouts within a module that learns: how much, and whether it is on."""
    if not any(p.requires_grad for p in module.parameters()):
        return []
    found = []
    for each in module.modules():
        if isinstance(each, nn.modules.dropout._DropoutNd):
            found.append((float(each.p), each.training))
        elif isinstance(each, (nn.RNNBase, nn.MultiheadAttention)):
            found.append((float(each.dropout), each.training))
    return [each for each in found if each[0] > 0]


def _half() -> bool:
    """Whether what is computed here is autocast to float16, on whatever device."""
    kinds = [kind for kind in ("cuda", "cpu", "mps") if torch.is_autocast_enabled(kind)]
    return any(torch.get_autocast_dtype(kind) == torch.float16 for kind in kinds)


def side_of(name: str) -> Literal["encoder", "decoder", ""]:
    """Whether the last word of a module's path, or the name of its class, says that it is an encoder or a decoder."""
    last = name.rpartition(".")[2].lower()
    found = [side for side in ("encoder", "decoder") if re.search(rf"{side[:3]}(oder)?(?![a-z]|ing)|{side}", last)]
    return found[0] if len(found) == 1 and "pos" not in last else ""  # type: ignore[return-value]


def _within(modules: Named) -> tuple[Named, Named]:
    """The modules and all within them but what is compiled; and of these such as are fused, unless they were given."""
    plain: dict[int, tuple[str, nn.Module]] = {}
    fused: dict[int, tuple[str, nn.Module]] = {}
    for name, module in modules:
        plain[id(module)] = (name, module)
        found = list(module.named_modules())
        compiled = {id(inner) for _, each in found if is_compiled(each) for inner in each.modules()}
        inside = {id(inner) for _, each in found if isinstance(each, FUSED) for inner in each.modules()}
        for path, each in found:
            if id(each) in compiled or isinstance(each, (nn.ModuleList, nn.ModuleDict)):
                continue
            (fused if id(each) in inside else plain).setdefault(id(each), (f"{name}.{path}", each))
    return list(plain.values()), [pair for key, pair in fused.items() if key not in plain]


def is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile made it, or compiled it in place."""
    return "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None
