"""Outputs and source bits of a set by the machines of a cluster, which open model and data themselves."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from sourcewise.config import GenerationConfig
from sourcewise.data.encoding import ExampleSet
from sourcewise.errors import RequestError
from sourcewise.evaluation.evaluate import lay_out
from sourcewise.evaluation.shared import Found, Part, found_in, put_together
from sourcewise.generation.model import Model, load
from sourcewise.runtime.cluster import Machines, over_pool

SHARES = 4  # of the batches, for each process of the cluster


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What another machine has to know to find outputs of a set: names and values alone."""

    models: str | list[str]
    data: str
    reading: dict[str, Any] = field(default_factory=dict)  # of `lay_out`
    options: dict[str, Any] = field(default_factory=dict)  # of GenerationConfig
    limits: dict[str, Any] = field(default_factory=dict)  # of `load`

    def found_by(self, machines: Machines, model: Model, encoded: ExampleSet, options: GenerationConfig) -> Found:
        """What the machines find for the set, which is this process's as well."""
        shares, digest = machines.workers * SHARES, encoded.digest()
        parts = list(over_pool(machines, lambda: self.worker(shares, digest), range(shares)))
        return put_together(parts, encoded, options)

    def worker(self, shares: int, digest: str) -> Callable[[int], Part]:
        """A function that finds one of the shares. Raises RequestError where this machine has other data."""
        torch.set_num_threads(1)  # there is a process for each core
        model = load(self.models, **self.limits)
        encoded, options = lay_out(model, self.data, **self.reading), model.options(**self.options)
        if encoded.digest() != digest:
            raise RequestError(f"{socket.gethostname()}: {self.data} or the tokenizer of {self.models} is another one")
        return lambda share: found_in(model.network, encoded, options, (int(share), shares))
