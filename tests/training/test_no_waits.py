"""Between two lines of the log nothing waits for an accelerator, whatever the network and the options.

The accelerator is one that is not there (`benchmarks/on_gpu/absent.py`): its tensors have no values, so that whoever
looks at a number, a count or a place of it is found. On a GPU `benchmarks/gpu.py` looks again, by torch's own guard.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.commands import ENVIRONMENT
from tests.training.on_absent import STEPS

Case = dict[str, Any]
FAMILIES: list[Case] = [
    {"model__dropout": 0.1},
    {"model__family": "bart", "model__dropout": 0.1, "train__label_smoothing": 0.1},
    {"model__family": "decoder", "model__dropout": 0.1},
    {"model__family": "rnn"},
]
TRAIN: Case = {
    "accumulate": 2,
    "attention_mass": 0.1,
    "checkpointing": "blocks",
    "clip": 0.0,
    "contrastive": 0.2,
    "ctc_weight": 0.2,
    "deterministic": True,
    "focal": 1.0,
    "freeze": ["embedding"],
    "guided_attention": 0.1,
    "label_smoothing": 0.1,
    "precision": "fp32",
    "resample_below": 0.3,
    "scale_updates": True,
    "text_noise__drop": 0.1,
    "token_weights": "inverse_frequency",
    "unfreeze__encoder": 0.01,
    "word_dropout": 0.1,
}
SAMPLED = ("linear", "exponential", "inverse_sigmoid")
BRIDGES = ("projection", "attention", "convolution", "perceiver")
OURS: Case = {"transformers": "t5", "train__lora__rank": 2, "train__lora__dropout": 0.1}
FOREIGN: Case = {"train__precision": "fp32"}  # autocast wants kernels of the device
OTHERS: list[Case] = [
    *({f"train__{name}": value} for name, value in TRAIN.items()),
    *({"train__scheduled_sampling": kind, "train__word_dropout": 0.1} for kind in SAMPLED),
    *({"model__family": "rnn", "model__cell": "lstm", "model__attention": kind} for kind in ("bahdanau", "none")),
    *({"features": True, "model__bridge__kind": kind, "train__augment__noise": 0.1} for kind in BRIDGES),
    {"train__r_drop": 1.0, "model__dropout": 0.1},
    {"features": True, "model__bridge__kind": "projection", "model__route": "bypass"},
    {"features": True, "model__family": "bart", "model__bridge__kind": "convolution", "train__ctc_weight": 0.2},
    {"features": True, "model__family": "rnn", "model__bridge__kind": "attention"},
    OURS,
    {"transformers": "m2m_100", **FOREIGN},
    {"transformers": "umt5", **FOREIGN, "train__lora__rank": 2, "train__contrastive": 0.2},
    {
        "transformers": "pegasus",
        **FOREIGN,
        "train__scheduled_sampling": "linear",
        "train__guided_attention": 0.1,
        "train__ctc_weight": 0.1,
        "train__focal": 1.0,
    },
]


def told(cases: list[Case]) -> list[dict[str, Any]]:
    """What each case waited for, by a process of its own, in which the device is known."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.on_absent", json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-4000:]
    return list(json.loads(done.stdout.splitlines()[-1]))


def check(cases: list[Case]) -> None:
    found = list(zip(cases, told(cases), strict=True))
    assert [(case, one["waits"]) for case, one in found if one["waits"]] == []
    assert {(one["steps"], one["unread"]) for _, one in found} == {(STEPS, STEPS)}


@pytest.mark.slow
def test_a_step_of_each_family_waits_for_nothing() -> None:
    check(FAMILIES)


@pytest.mark.slow
def test_a_step_with_each_option_bridge_and_foreign_model_waits_for_nothing() -> None:
    check(OTHERS)


@pytest.mark.slow
def test_what_waits_is_found_where_it_waits() -> None:
    """Of a line of the log its norms are read; of units how many slots a source has, which shapes all that follows."""
    logged, units = told([{"train__log_every": 2}, {"features": True, "model__bridge__kind": "units"}])
    assert any(line.startswith("training/statistics.py:") for line in logged["waits"]) and logged["steps"] == 1
    assert [line.partition(":")[0] for line in units["waits"]] == ["model/inputs/bridges.py"]
