"""The compiled search against the one in Python, on a network whose products round as the engine's do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from ctypes import c_float
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sourcewise
from sourcewise.config import GenerationConfig
from sourcewise.data.batches import Source
from sourcewise.errors import NotFinite, Notice, RequestError
from sourcewise.generation.engine import search
from sourcewise.generation.engine.search import Engine, why_not
from sourcewise.generation.sampling import Hypothesis
from sourcewise.model.blocks.cache import KeyValueCache
from sourcewise.model.blocks.sublayers import ForDecoding
from sourcewise.model.generation_defaults import GenerationDefaults
from sourcewise.model.network import Seq2Seq
from sourcewise.native.codes import SEARCH
from sourcewise.native.compiled import Code
from tests.commands import Models
from tests.generation.searching import beam_search, greedy_or_sample
from tests.model.networks import feature_source, network, rows, text_source

REASON = why_not(network(), torch.device("cpu"))
needs_engine = pytest.mark.skipif(REASON is not None, reason=f"int8 {REASON}")
LENGTHS = [9, 3, 5, 17, 1, 2, 8, 30, 12, 12, 4, 7]


class Sources:
    """What the engine asks of an `Encoded`."""

    def __init__(self, source: Source) -> None:
        self.all = source
        lengths = source.token_lengths if source.frames is None else source.frames
        assert lengths is not None
        self.source_lengths = lengths.numpy()

    def __len__(self) -> int:
        return len(self.source_lengths)

    def source(self, indices: Sequence[int]) -> Source:
        return rows(self.all, list(indices))


def rounded(x: Tensor, levels: float = 127) -> Tensor:
    """Rows as signed whole numbers of at most `levels`, times a scale."""
    most = x.abs().amax(-1, keepdim=True).clamp(min=1e-30)
    return (x * (levels / most)).round() * (most / levels)  # in the engine's order, or ties fall to the other side


def largest() -> float:
    """What the engine makes of a row's largest activation: 127, or 63 where products are added in 16 bits."""
    code = SEARCH.load()
    assert code is not None
    code.sourcewise_largest.restype = c_float
    return float(code.sourcewise_largest())


class RoundedLinear(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.out_features = nn.Parameter(rounded(weight.detach())), len(weight)

    def forward(self, x: Tensor) -> Tensor:
        return rounded(x, largest()) @ self.weight.T


class Rounded(Seq2Seq):
    """A network that rounds where the engine does."""

    def __init__(self, whole: Seq2Seq) -> None:
        super().__init__(whole.body, whole.bridge, whole.route)
        body: Any = whole.body
        scale = body.config.d_model**-0.5 if body.config.scaled else 1.0
        self.head = RoundedLinear(body.output_matrix * scale)
        self.undo = 1 / scale
        for block in (*body.encoder, *body.decoder):
            for part in (block.attention, getattr(block, "cross", None), block.feedforward):
                layers = [] if part is None else list(part.named_children())
                for name, layer in ((name, each) for name, each in layers if isinstance(each, nn.Linear)):
                    setattr(part, name, RoundedLinear(layer.weight))

    def decode(self, tokens: Tensor, memory: Any, cache: Any = None) -> Tensor:
        return self.head(self.body.run_decoder(tokens, memory, cache) * self.undo)


@pytest.fixture
def short_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept keys and values are rounded to bf16."""

    def short(x: Tensor) -> Tensor:
        return x.bfloat16().float()

    extend = KeyValueCache._extend
    monkeypatch.setattr(ForDecoding, "forward", lambda self, heads: short(heads))
    monkeypatch.setattr(KeyValueCache, "_extend", lambda self, place, k, v: extend(self, place, short(k), short(v)))


@torch.inference_mode()
def sharpened(**shape: Any) -> Seq2Seq:
    """A network that is seldom in doubt, says various things, and ends about half of its outputs early."""
    made = network(**{"tied": False, **shape})
    body: Any = made.body
    body.embedding.weight.mul_(0.5)
    if not body.config.tied:  # else it would repeat its last token for ever
        body.head.weight.copy_(3 * body.embedding.weight.roll(7, 0))
    said = greedy_or_sample(made, made.encode(text_source(LENGTHS)), options(), list(range(len(LENGTHS))))
    counts = Counter(token for h in said for token in set(h.ids[2:]) - set(h.ids[:2]))
    if counts:
        made.eos_id = min(counts, key=lambda token: abs(counts[token] - len(LENGTHS) / 2))
        made.defaults = GenerationDefaults((made.eos_id,))
    return made


def options(**changes: Any) -> GenerationConfig:
    return GenerationConfig.model_validate({"beams": 1, "max_new_tokens": 12, **changes})


@torch.inference_mode()
def expected(made: Seq2Seq, source: Source, wanted: GenerationConfig) -> list[Hypothesis]:
    reference = Rounded(made)
    reference.eos_id, reference.defaults = made.eos_id, made.defaults
    memory = reference.encode(source)
    if wanted.beams == 1:
        return greedy_or_sample(reference, memory, wanted, list(range(memory.batch)))
    return [best[0] for best in beam_search(reference, memory, wanted)]


SHAPES: dict[str, dict[str, Any]] = {
    "relu": {"d_ff": 48},
    "tied": {"tied": True},
    "gated gelu, not scaled": {"activation": "gated-gelu", "scaled": False},
    "gated silu, odd widths": {"activation": "gated-silu", "d_model": 50, "d_kv": 9, "d_ff": 37, "heads": 5},
    "decoder positions": {"decoder_positions": True},
    "wide heads": {"d_kv": 80, "heads": 2, "decoder_layers": 1},
}


@needs_engine
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "wanted",
    [options(), options(min_new_tokens=5), options(beams=4), options(beams=3, length_penalty=0.2, min_new_tokens=3)],
    ids=["greedy", "greedy, at least 5", "beam 4", "beam 3, short ones preferred"],
)
@pytest.mark.usefixtures("short_keys")
def test_hypotheses_are_those_of_the_search_in_python(shape: str, wanted: GenerationConfig) -> None:
    source = text_source(LENGTHS)
    found = Engine(sharpened(**SHAPES[shape])).search(Sources(source), wanted)  # type: ignore[arg-type]
    said = expected(sharpened(**SHAPES[shape]), source, wanted)
    same = [a.ids == b.ids and a.finished == b.finished for a, b in zip(found, said, strict=True)]
    assert sum(same) >= len(same) - 1  # a byte may fall to the other side of a tie
    for mine, theirs, equal in zip(found, said, same, strict=True):
        assert not equal or mine.score == pytest.approx(theirs.score, abs=0.15)
    assert len({len(h.ids) for h in said}) > 1 or shape == "tied"


@needs_engine
@pytest.mark.parametrize("route", ["encoder", "bypass"])
@pytest.mark.parametrize("prompts", [None, [1, 3, 2, 4]])
@pytest.mark.usefixtures("short_keys")
def test_features_and_prompts_enter_as_in_python(route: str, prompts: list[int] | None) -> None:
    source = feature_source([12, 30, 7, 19], prompts)
    wanted = options(beams=2)
    found = Engine(sharpened(bridge="convolution", route=route)).search(Sources(source), wanted)  # type: ignore[arg-type]
    said = expected(sharpened(bridge="convolution", route=route), source, wanted)
    assert [h.ids for h in found] == [h.ids for h in said]


@needs_engine
@pytest.mark.parametrize("beams", [1, 3])
def test_no_hypothesis_depends_on_its_neighbours_or_on_threads(beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [1 + i * 7 % 23 for i in range(300)]
    engine, source, wanted = Engine(sharpened()), text_source(lengths), options(beams=beams)
    together = engine.search(Sources(source), wanted)  # type: ignore[arg-type]
    for i in (0, 57, 299):
        assert engine.search(Sources(rows(source, [i])), wanted) == [together[i]]  # type: ignore[arg-type]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(search, "CHUNK", 7)
    assert engine.search(Sources(source), wanted) == together  # type: ignore[arg-type]


@needs_engine
def test_sources_too_long_for_its_table_are_encoded_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, source = Engine(sharpened()), text_source(LENGTHS)
    usual = engine.search(Sources(source), options())  # type: ignore[arg-type]
    monkeypatch.setattr(search, "LONGEST", 4)
    found = engine.search(Sources(source), options())  # type: ignore[arg-type]
    same = sum(a.ids == b.ids for a, b in zip(found, usual, strict=True))
    assert same >= len(LENGTHS) - 3  # the encoder does not round there


@needs_engine
def test_weights_that_are_not_numbers_are_named() -> None:
    made = network()
    with torch.no_grad():
        for p in made.parameters():
            p.fill_(torch.nan)
    for beams in (1, 3):
        with pytest.raises(NotFinite, match="values are not finite"):
            Engine(made).search(Sources(text_source([3, 4])), options(beams=beams))  # type: ignore[arg-type]


@needs_engine
def test_an_interrupted_search_stops() -> None:
    def interrupt(done: int, of: int) -> None:
        raise KeyboardInterrupt

    wanted = options(beams=8, max_new_tokens=5000, min_new_tokens=4999)
    with pytest.raises(KeyboardInterrupt):
        Engine(network()).search(Sources(text_source([5] * 400)), wanted, interrupt)  # type: ignore[arg-type]


@needs_engine
def test_a_model_in_int8_searches_with_the_engine_and_samples_with_torch(models: Models) -> None:
    model = sourcewise.load(models.text, precision="int8")
    exact = sourcewise.load(models.text)
    texts = ["ba do ki", "lu me", "no"]
    assert model.engine is not None and exact.engine is None
    seen: list[int] = []
    assert len(model.generate(texts, progress=lambda done, of: seen.append(done))) == 3
    assert seen[-1] == 3
    assert model.generate(texts, sample=True, seed=1) == model.generate(texts, sample=True, seed=1)
    assert np.shape(model.generate(model.encode(texts), beams=2)) == (3,)


def test_where_it_cannot_work_it_says_why(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Code, "why_not", lambda code: "no C++ compiler")
    with pytest.raises(
        RequestError, match=r"precision int8 needs a processor with AVX2 .*: no C\+\+ compiler; take bf16 or fp32"
    ):
        sourcewise.load(models.text, precision="int8")
    assert why_not(network(), torch.device("meta")) == "is for the CPU, not meta"


@needs_engine
def test_what_the_native_search_cannot_do_is_named() -> None:
    engine = Engine(network())
    plain = GenerationConfig(beams=3, max_new_tokens=9, length_penalty=0.5, min_new_tokens=2, top_k=5)
    assert engine.why_not(plain) == ""
    assert engine.why_not(plain, count=2) == "n_best"
    assert engine.why_not(plain, allowed=True) == "allowed_tokens"
    for option, value in (
        *(("suppress", ["lu"]), ("force", ["lu"]), ("stop", ["lu"]), ("target_prefix", "lu"), ("mbr", "chrf")),
        *(("early_stopping", "never"), ("repetition_penalty", 2.0), ("no_repeat_ngram", 2), ("sample", True)),
    ):
        assert engine.why_not(plain.model_copy(update={option: value})) == option
    with pytest.warns(Notice, match="int8: stop is not in the native search; the plain one does it, slower"):
        engine.tell("stop")


@needs_engine
def test_the_plain_search_does_what_the_native_one_cannot(models: Models) -> None:
    fast, plain = sourcewise.load(models.text, precision="int8", beside="fp32"), sourcewise.load(models.text)
    with pytest.warns(Notice, match="int8: n_best is not in the native search"):
        found = fast.generate(["word 1", "word 2"], n_best=3, beams=3, max_new_tokens=5)
    expected = plain.generate(["word 1", "word 2"], n_best=3, beams=3, max_new_tokens=5)
    assert [[o.text for o in e.best_first] for e in found.of] == [[o.text for o in e.best_first] for e in expected.of]
    assert len(fast.generate(["word 1"], scores=True, beams=2, max_new_tokens=5).of[0].best.tokens) > 0
