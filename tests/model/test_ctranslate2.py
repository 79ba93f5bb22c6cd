"""A folder of ours converts with CTranslate2's converter, and its outputs are ours.

Four things differ by design:

- CTranslate2 4.8 takes `tie_word_embeddings` for "scale the decoder's output", and transformers ≥ 5 sets that key to
  true for every T5. An untied T5 (v1.1, flan) is therefore converted with flattened logits, ours and Google's alike:
  greedy outputs are right, scores and beams are not. `unscaled` undoes it.
- Both divide Σ ln p by length^length_penalty (the end of text counts). CTranslate2 stops once `patience` × `beams`
  hypotheses have ended, by default at once; we, as transformers with `early_stopping=False`, once the likeliest
  unfinished one is worse by the same measure than the worst that ended. Without a length penalty and with a large
  patience neither misses anything, and all outputs are the same; with one, now and then one search goes further.
- CTranslate2 bars an empty output unless `min_decoding_length` is 0.
- A source of nothing but the end of text gives CTranslate2 an empty output without a look at the model.
"""

from __future__ import annotations

from typing import Any

import pytest
import tokenizers
import torch

from sourcewise.config import GenerationConfig
from sourcewise.data.batches import Source, length_mask
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.model.families.transformer import Transformer, TransformerConfig
from sourcewise.model.network import Seq2Seq
from sourcewise.model.weights.checkpoint import save_network
from tests.generation.searching import beam_search, greedy_or_sample

ctranslate2 = pytest.importorskip("ctranslate2")
model_spec = pytest.importorskip("ctranslate2.specs.model_spec")
SOURCES, LONGEST, STEPS = 100, 12, 15


def unscaled(get_model_spec: Any) -> Any:
    """T5Loader.get_model_spec that asks the key transformers ≥ 5 keeps the scale under."""

    def asked(loader: Any, model: Any) -> Any:
        spec = get_model_spec(loader, model)
        if not getattr(model.config, "scale_decoder_outputs", True):
            spec.decoder.scale_outputs = model_spec.OPTIONAL
        return spec

    return asked


@pytest.fixture(scope="module", params=["relu tied", "gated-gelu untied"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Seq2Seq, Any, Tokenizer]:
    """A random network of ours, CTranslate2's translator made from its folder, and the tokenizer."""
    activation, tied = request.param.split()[0], request.param.endswith(" tied")
    folder = tmp_path_factory.mktemp("folder")
    tokenizer = Tokenizer.train(["ba do ki lu me no one two three four five six"] * 5, 64)
    torch.manual_seed(0)
    shape: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 48, "encoder_layers": 2, "decoder_layers": 2}
    config = TransformerConfig(tokenizer.size, **shape, activation=activation, tied=tied, scaled=tied)
    network = Seq2Seq(Transformer(config)).eval()
    for name, weight in network.named_parameters():  # large enough that outputs differ from source to source
        if weight.ndim > 1 and not (tied and "embedding" in name):
            torch.nn.init.normal_(weight, 0, 0.4)
    save_network(network, folder / "ours", tokenizer)
    converter = ctranslate2.converters.transformers.T5Loader
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converter, "get_model_spec", unscaled(converter.get_model_spec))
        made = ctranslate2.converters.TransformersConverter(str(folder / "ours")).convert(str(folder / "converted"))
    return network, ctranslate2.Translator(made, compute_type="float32", intra_threads=1), tokenizer


def random_sources(size: int) -> Source:
    """Tokens (SOURCES, LONGEST) that end with the end of text, and their lengths."""
    draw = torch.Generator().manual_seed(1)
    lengths = torch.randint(2, LONGEST + 1, (SOURCES,), generator=draw)
    tokens = torch.randint(3, size, (SOURCES, LONGEST), generator=draw)
    tokens[torch.arange(SOURCES), lengths - 1] = 1
    return Source(tokens.masked_fill(~length_mask(lengths, LONGEST), 0), lengths)


def translated(
    translator: Any, tokenizer: Tokenizer, source: Source, beams: int, length_penalty: float = 1.0
) -> tuple[list[list[int]], list[float]]:
    """CTranslate2's ids and scores."""
    assert source.tokens is not None and source.token_lengths is not None
    ids = dict(tokenizers.Tokenizer.from_str(tokenizer._backend.to_json()).get_vocab())
    names = {i: name for name, i in ids.items()}
    lengths = source.token_lengths.tolist()
    found = translator.translate_batch(
        [[names[i] for i in row[:length]] for row, length in zip(source.tokens.tolist(), lengths, strict=True)],
        beam_size=beams,
        length_penalty=length_penalty,
        patience=10,
        min_decoding_length=0,
        max_decoding_length=STEPS,
        return_scores=True,
    )
    return [[ids[name] for name in f.hypotheses[0]] for f in found], [f.scores[0] for f in found]


@torch.inference_mode()
def test_greedy_outputs_are_the_same(opened: tuple[Seq2Seq, Any, Tokenizer]) -> None:
    network, translator, tokenizer = opened
    source = random_sources(tokenizer.size)
    options = GenerationConfig(beams=1, max_new_tokens=STEPS)
    found = greedy_or_sample(network, network.encode(source), options, list(range(SOURCES)))
    assert [h.ids for h in found] == translated(translator, tokenizer, source, 1)[0]


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@torch.inference_mode()
def test_beam_outputs_and_scores_are_the_same(opened: tuple[Seq2Seq, Any, Tokenizer], length_penalty: float) -> None:
    network, translator, tokenizer = opened
    source = random_sources(tokenizer.size)
    options = GenerationConfig(beams=4, max_new_tokens=STEPS, length_penalty=length_penalty)
    best = [beams[0] for beams in beam_search(network, network.encode(source), options)]
    outputs, scores = translated(translator, tokenizer, source, 4, length_penalty)
    same = [h.ids == ids for h, ids in zip(best, outputs, strict=True)]
    assert sum(same) >= (SOURCES if length_penalty == 0 else 0.97 * SOURCES)
    for hypothesis, score, equal in zip(best, scores, same, strict=True):
        assert not equal or hypothesis.score == pytest.approx(score, abs=1e-3)
    assert len({tuple(ids) for ids in outputs}) > 5  # the sources matter
