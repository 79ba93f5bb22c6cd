"""A step of decoding as one graph of an accelerator's work: recorded once, then repeated without the host.

The kernels of a step take less time there than starting them one by one from Python. What is recorded has fixed shapes
and addresses, so it holds while the sources of a group stay the same, for the tokens of a `Window`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from sourcewise.errors import tell
from sourcewise.model.protocol import Network

WINDOW = 64  # tokens of a hypothesis for which a recording holds
FEWEST = 8  # for fewer tokens it is not worth one

Replay = Callable[[], object]
Step = Callable[[], Tensor]


class Recorded:
    """The next steps of a group: `network.decode`, recorded. `window` has its cache meanwhile."""

    def __init__(self, network: Network, memory: Any, cache: Any, beams: int, tokens: int, last: Tensor) -> None:
        self.window = network.body.new_window(cache, beams, tokens)  # type: ignore[attr-defined]
        self._tokens = last.clone()
        self._replay, self._logits = record(lambda: network.decode(self._tokens, memory, self.window), self.window)

    def __call__(self, last: Tensor) -> Tensor:
        """Logits (rows, 1, vocabulary) after the tokens `last` (rows, 1); they hold until the next call."""
        self._tokens.copy_(last)
        self._replay()
        self.window.taken += 1
        return self._logits


def next_steps(network: Network, memory: Any, cache: Any, beams: int, left: int, last: Tensor) -> Recorded | None:
    """A recording of at most `left` further steps of a network that `can_record`; None where it is not worth it.

    What cannot be recorded is told once, and decoded step by step.
    """
    if left < FEWEST or network in _FAILED:
        return None
    try:
        return Recorded(network, memory, cache, beams, min(left, WINDOW), last)
    except RuntimeError as error:  # of the driver, or an operation that cannot be recorded
        _FAILED.add(network)
        tell(
            f"generation: its steps cannot be recorded as one graph ({str(error).splitlines()[0]}); one by one instead"
        )
        return None


_FAILED: WeakSet[Any] = WeakSet()  # networks whose steps could not be recorded


def can_record(network: Network) -> bool:
    """Whether the network's device records graphs, and its steps can be recorded."""
    return network.device.type == "cuda" and bool(getattr(getattr(network, "body", None), "records", False))


def record(step: Step, window: Any) -> tuple[Replay, Tensor]:
    """What repeats a step, and its logits, which each repetition overwrites."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # libraries that set themselves up at their first use cannot be recorded
        step()
        window.rewind()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_pool(), capture_error_mode="thread_local"):  # others may copy meanwhile
        logits = step()
    return graph.replay, logits


@cache
def _pool() -> Any:
    """Memory that recordings share: of one process only one is repeated at a time."""
    return torch.cuda.graph_pool_handle()
