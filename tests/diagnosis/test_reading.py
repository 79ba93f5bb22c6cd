"""The rules over how a trained network reads: silent on one that reads, and each finds its fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.config import DataConfig
from sourcewise.data.encoding import Encoded
from sourcewise.data.examples import Dataset, Example
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.diagnosis.measures.reading import measure_gains, measure_gaze, measure_memory
from sourcewise.diagnosis.ranking import ranked
from sourcewise.diagnosis.rules import RULES, look
from sourcewise.diagnosis.trained import Trained
from sourcewise.diagnosis.wiring import one_batch
from sourcewise.evaluation.source_bits import source_bits
from sourcewise.model.families.recurrent import Recurrent, RecurrentConfig
from sourcewise.model.generation_defaults import GenerationDefaults
from sourcewise.model.network import Seq2Seq
from tests.model.networks import network

LETTERS = "abcdefgh"
LATER = 7  # an id
TOKENIZER = Tokenizer.train([" ".join(LETTERS)] * 3, 40)


def copying(count: int = 80, longest: int = 14) -> Encoded:
    """Texts of single letters whose targets are themselves, of 4 to `longest` letters."""
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(list(LETTERS), draw.integers(4, longest + 1))) for _ in range(count)]
    return Encoded(Dataset([Example(str(i), t, t) for i, t in enumerate(texts)]), TOKENIZER, DataConfig())


class Reader(torch.nn.Module):
    """A network of the protocol that reads slot t for target token t, as well as `certain` says, or not at all.

    Its memory's states are the tokens one by one; what is wrong with it is handed in.
    """

    start_id, eos_id, pad_id = TOKENIZER.pad_id, TOKENIZER.eos_id, TOKENIZER.pad_id
    positions, joins, dims = None, False, 0
    defaults = GenerationDefaults((TOKENIZER.eos_id,))
    vocabulary = TOKENIZER.size
    device = torch.device("cpu")

    def __init__(self, reads: Callable[[Tensor, Tensor], Tensor] | None = None, gaze: Any = None, states: Any = None):
        super().__init__()
        self.reads = reads or (lambda place, length: torch.ones_like(place, dtype=torch.bool))
        self.gaze, self.states = gaze, states

    def encode(self, source: Any) -> Any:
        states = F.one_hot(source.tokens, self.vocabulary).float() + 0.1
        if self.states is not None:
            states = self.states(states)
        return Remembered(source.tokens, source.token_mask, states)

    def decode(self, tokens: Tensor, memory: Any, cache: Any = None) -> Tensor:
        time, width = tokens.shape[1], memory.tokens.shape[1]
        read = memory.tokens[:, torch.arange(time).clamp(max=width - 1)]
        place, length = torch.arange(time).expand(len(tokens), time), memory.mask.sum(1, keepdim=True)
        return 4.0 * F.one_hot(read, self.vocabulary) * self.reads(place, length)[..., None]

    def cross_attention(self, tokens: Tensor, memory: Any) -> Tensor:
        rows, time, width = *tokens.shape, memory.tokens.shape[1]
        if self.gaze is not None:
            return self.gaze(rows, time, memory.mask)
        places = torch.arange(time).clamp(max=width - 1)
        return F.one_hot(places, width).float().expand(2, rows, 3, time, width)

    def loss(self, batch: Any, label_smoothing: float = 0.0) -> Any: ...

    def new_cache(self, memory: Any, beams: int, steps: int) -> Any: ...


class Remembered:
    """What `Reader` remembers."""

    def __init__(self, tokens: Tensor, mask: Tensor, states: Tensor) -> None:
        self.tokens, self.mask, self.states = tokens, mask, states
        self.batch = len(tokens)

    def select(self, rows: Tensor) -> Remembered:
        return Remembered(self.tokens[rows], self.mask[rows], self.states[rows])


def looked(made: Any, encoded: Encoded | None = None) -> Trained:
    encoded = encoded or copying()
    return Trained(made, encoded, one_batch(encoded))


def even(rows: int, time: int, mask: Tensor) -> Tensor:
    return (mask / mask.sum(1, keepdim=True))[:, None, None].expand(rows, 3, time, -1).expand(2, -1, -1, -1, -1)


def on_first(rows: int, time: int, mask: Tensor) -> Tensor:
    weights = torch.zeros(2, rows, 3, time, mask.shape[1])
    weights[..., 0] = 0.95
    return weights + 0.05 * even(rows, time, mask)


FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "attention even": ("ATT001", {"gaze": even}),
    "attention on one slot": ("ATT002", {"gaze": on_first}),
    "memory of nothing": ("MEM001", {"states": lambda s: torch.ones_like(s) + 1e-3 * s}),
    "memory of positions alone": ("MEM001", {"states": lambda s: s[:1].expand_as(s)}),
    "memory pooled": ("MEM002", {"states": lambda s: s.mean(1, keepdim=True).expand_as(s)}),
    "only the beginning is read": ("SRC002", {"reads": lambda place, length: place < 3}),
    "long sources unread": ("SRC003", {"reads": lambda place, length: (length < 10).expand_as(place)}),
}


def test_nothing_is_found_where_the_source_is_read() -> None:
    assert look(looked(Reader())).findings == []
    assert look(looked(Reader())).not_checked == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_by_its_rule_alone(name: str) -> None:
    code, fault = FAULTS[name]
    found = look(looked(Reader(**fault))).findings
    assert [finding.code for finding in ranked(found)] == [code]
    assert any(digit in found[0].evidence for digit in "0123456789")


def test_every_rule_is_tested() -> None:
    assert {code for code, _ in FAULTS.values()} == {code for code, rule in RULES.items() if rule.subject is Trained}


def test_what_is_certain_needs_no_reading() -> None:
    """Later tokens, or long targets, that are known without the source gain nothing from it, and that is no fault."""
    certain = Reader()
    decode = certain.decode

    def knowing(tokens: Tensor, memory: Any, cache: Any = None) -> Tensor:
        logits = decode(tokens, memory)
        logits[:, 3:] = 0
        logits[:, 3:, LATER] = 9.0
        return logits

    certain.decode = knowing  # type: ignore[method-assign]
    texts = copying()
    ids = [[*target[:3], *[LATER] * (len(target) - 3)] for target in texts.targets]
    texts.targets = ids
    assert [f.code for f in look(looked(certain, texts)).findings] == []


def test_gains_are_the_source_bits_of_the_set() -> None:
    made, encoded = network(), copying(40)
    gains = measure_gains(made, encoded)
    assert gains is not None
    whole, expected = gains.bits(gains.places >= 0), source_bits(made, encoded)
    assert whole.bits == pytest.approx(expected.bits, abs=1e-5)
    assert whole.tokens.sum() == expected.tokens.sum()
    part = gains.bits(gains.places < 3)
    rest = gains.bits(gains.places >= 3)
    assert part.tokens.sum() + rest.tokens.sum() == whole.tokens.sum()
    assert part.nats.sum() + rest.nats.sum() == pytest.approx(whole.nats.sum())


def test_batches_change_nothing() -> None:
    made, encoded = network(), copying(20)
    whole, single = measure_gains(made, encoded), measure_gains(made, encoded, batch_tokens=1)
    assert whole is not None and single is not None
    np.testing.assert_allclose(single.own, whole.own, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(single.other, whole.other, rtol=1e-4, atol=1e-5)


def test_what_a_network_does_not_have_is_not_checked() -> None:
    shape = RecurrentConfig(vocabulary=40, d_model=16, encoder_layers=1, decoder_layers=1, attention="none")
    fixed = looked(Seq2Seq(Recurrent(shape)).eval())
    assert measure_gaze(fixed.network, fixed.batch) is None
    assert [words.split(" (")[0] for words in look(fixed).not_checked] == ["cross-attention"]

    class Stateless(Reader):
        def encode(self, source: Any) -> Any:
            memory = super().encode(source)
            del memory.states
            memory.select = None
            return memory

    assert [words.split(" (")[0] for words in look(looked(Stateless()), codes="MEM* ATT*").not_checked] == [
        "memory alike"
    ]


def test_padding_is_not_looked_at() -> None:
    encoded = copying(12)
    batch = one_batch(encoded)
    made = Reader()
    before = measure_memory(made, batch), measure_gaze(made, batch)
    assert batch.source.tokens is not None
    batch.source.tokens = F.pad(batch.source.tokens, (0, 9), value=5)
    batch.labels = F.pad(batch.labels, (0, 9), value=-100)
    after = measure_memory(made, batch)
    assert after is not None and before[0] is not None
    assert (after.examples, after.slots) == pytest.approx((before[0].examples, before[0].slots))
    assert measure_gaze(made, batch) == before[1]
