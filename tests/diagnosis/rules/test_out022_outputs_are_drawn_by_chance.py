"""OUT022: outputs are drawn by chance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sourcewise.integrations.loop.evaluating import drawn_again
from tests.diagnosis.instances.loops import Gru, found
from tests.diagnosis.instances.test_other_kinds_of_loops import trained
from tests.integrations.loops import SOS, batches, words
from tests.integrations.test_transformers import codes, watched
from tests.integrations.trainings import bart, t5, tokenizer, trainer


def saying(modules: Any, choose: Callable[[Tensor], Tensor]) -> Callable[[Any], list[Tensor]]:
    """The decoder of two modules, letter by letter, the next of which is chosen by its logits."""

    def generate(batch: Any) -> list[Tensor]:
        encoder, decoder = modules
        memory, state = encoder(batch[0])
        token, out = torch.full((len(batch[0]), 1), SOS), []
        for _ in range(8):
            scores = decoder.score(torch.tanh(decoder.query(state[-1])[:, None] + decoder.key(memory)))
            context = (torch.softmax(scores, 1) * memory).sum(1, keepdim=True)
            made, state = decoder.gru(torch.cat((decoder.embedding(token), context), -1), state)
            token = choose(decoder.out(made)[:, 0])
            out.append(token)
        return list(torch.cat(out, 1))

    return generate


def drawn(logits: Tensor) -> Tensor:
    return torch.multinomial(torch.softmax(logits, -1), 1)


def of_three(logits: Tensor) -> Tensor:
    best, places = logits.topk(3)
    return places.gather(1, drawn(best))


def likeliest(logits: Tensor) -> Tensor:
    return logits.argmax(-1, keepdim=True)


@pytest.mark.parametrize(("choose", "said"), [(drawn, True), (of_three, True), (likeliest, False)])
def test_outputs_of_a_loop(choose: Callable[[Tensor], Tensor], said: bool) -> None:
    loop = Gru()
    doctor = trained(loop, 31, generate=saying(loop.modules, choose))
    doctor.evaluate(list(batches(words(64, seed=5))))
    assert (dict(found(doctor)).get("OUT022") == "warning") is said


@pytest.mark.parametrize("made", [t5, bart])
@pytest.mark.parametrize(("draws", "top_k", "said"), [(True, 50, True), (True, 1, False), (False, 50, False)])
def test_the_settings_of_a_trainer(made: Any, draws: bool, top_k: int, said: bool, tmp_path: Path) -> None:
    model = made()
    model.generation_config.do_sample, model.generation_config.top_k = draws, top_k
    of = trainer(tmp_path, model, steps=4, processing=tokenizer())
    callback = watched(of)
    of.train()
    assert ("OUT022" in codes(callback, "warning")) is said


def test_few_that_are_others_are_none() -> None:
    assert drawn_again(["a"] * 20, ["a"] * 19 + ["b"]) == ""
    assert drawn_again([[1, 2], [3]], [[1, 2], [4]]) == "made again, 1 of 2 outputs of a batch are others"
