"""Decodes on a device that is not there, in a process of its own: prints the steps before the first wait, and the wait.

python -m tests.generation.on_absent BEAMS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import torch
from on_gpu.absent import READS, OnAbsent, register

from sourcewise.config import GenerationConfig
from sourcewise.generation import beam, sampling
from sourcewise.model.place import place
from tests.model.networks import network, text_source


def main(beams: int) -> None:
    device = register()
    made: Any = network()
    options = GenerationConfig(beams=beams, max_new_tokens=64)
    steps, usual, tensor = 0, made.decode, torch.tensor
    torch.tensor = lambda data, device=None, **kind: tensor(data, **kind).to(device)  # the device cannot be written to

    def counted(*given: Any) -> Any:
        nonlocal steps
        steps += 1
        return usual(*given)

    with OnAbsent(device) as mode, torch.no_grad():
        made = place(made, device)
        made.decode = counted
        source = text_source([3, 9, 5]).to(device)
        memory = made.encode(source)
        before = len(mode.waits)
        try:
            search = beam.beam_search if beams > 1 else sampling.greedy_or_sample
            search(made, [([0, 1, 2], memory)], options)
        except READS:
            pass
        print(json.dumps([steps, mode.waits[before:]]))


if __name__ == "__main__":
    main(int(sys.argv[1]))
