"""On an accelerator a search asks only every 16 tokens who is finished, and finds what it finds on the host."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch

from sourcewise.config import GenerationConfig
from sourcewise.generation import beam, flow, sampling
from sourcewise.generation.flow import PEEK
from sourcewise.model.generation_defaults import GenerationDefaults
from sourcewise.model.network import Seq2Seq
from tests.commands import ENVIRONMENT
from tests.model.networks import network, text_source

SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "greedy, 16 tokens": {"max_new_tokens": 16},
    "greedy, 17 tokens": {"max_new_tokens": 17},
    "greedy, at least 5": {"min_new_tokens": 5, "repetition_penalty": 1.3},
    "sampled": {"sample": True, "seed": 3, "temperature": 0.8},
    "beam 4": {"beams": 4},
    "beam 3, 9 tokens": {"beams": 3, "max_new_tokens": 9, "length_penalty": 0.3},
    "beam 3, the first three": {"beams": 3, "early_stopping": True},
    "beam 2, long ones": {"beams": 2, "length_penalty": 2.0, "early_stopping": "never"},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "t5": {"tied": False},
    "bart": {"family": "bart"},
    "gated": {"activation": "gated-gelu", "tied": False, "d_ff": 48},
}


def lively(**shape: Any) -> Seq2Seq:
    """A network whose outputs end after some tokens, each of its sources at another."""
    made = network(**shape)
    with torch.no_grad():
        made.body.embedding.weight.mul_(0.5)
    endless = GenerationConfig(beams=1, max_new_tokens=40, min_new_tokens=40)
    ids = [h.ids for h in searched(made, endless).values()]
    first = {
        token: {each.index(token) for each in ids if token in each}
        for token in {token for each in ids for token in each}
    }
    made.eos_id = max(first, key=lambda token: len(first[token]))
    made.defaults = GenerationDefaults((made.eos_id,))
    return made


@torch.inference_mode()
def searched(made: Seq2Seq, options: GenerationConfig) -> dict[int, Any]:
    """The searches over three batches of unlike sources."""
    sizes = ([9, 3, 5, 17, 1, 2, 8, 30], [12, 4, 7, 1], [6, 6, 20])
    feed, first = [], 0
    for number, lengths in enumerate(sizes):
        feed.append((list(range(first, first + len(lengths))), made.encode(text_source(lengths, seed=number))))
        first += len(lengths)
    if options.beams > 1:
        return beam.beam_search(made, feed, options)
    return sampling.greedy_or_sample(made, feed, options)


def told(found: dict[int, Any]) -> dict[int, Any]:
    return {
        name: [(h.ids, h.end, round(h.score, 3)) for h in (hs if isinstance(hs, list) else [hs])]
        for name, hs in found.items()
    }


@pytest.mark.parametrize("shape", NETWORKS)
@pytest.mark.parametrize("search", SEARCHES)
def test_looking_seldom_changes_nothing(shape: str, search: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = lively(**NETWORKS[shape])
    options = GenerationConfig.model_validate({"beams": 1, "max_new_tokens": 40, **SEARCHES[search]})
    often = told(searched(made, options))
    assert sorted(often) == list(range(15))
    monkeypatch.setattr(flow, "is_host", lambda device: False)
    assert told(searched(made, options)) == often


@pytest.mark.parametrize("shape", NETWORKS)
def test_outputs_end_at_various_tokens(shape: str) -> None:
    found = searched(lively(**NETWORKS[shape]), GenerationConfig(beams=1, max_new_tokens=40))
    lengths = {len(h.ids) for h in found.values()}
    assert len(lengths) >= 4 and min(lengths) < PEEK < max(lengths)


@pytest.mark.parametrize("beams", [1, 3])
def test_nothing_waits_for_an_accelerator_between_looks(beams: int) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.generation.on_absent", str(beams)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    steps, wait = json.loads(done.stdout.splitlines()[-1])
    assert steps == PEEK, wait
