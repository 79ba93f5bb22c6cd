"""WIR022 and WIR023: sources whose order is not read, and tokens that look alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from sourcewise.diagnosis.wiring import one_batch
from sourcewise.model.families.huggingface import HuggingFaceNetwork
from tests.diagnosis.test_wiring import DIGITS, check_network, codes, prepared


def stranger(family: str, vocabulary: int) -> Any:
    """A fresh T5 or BART of transformers."""
    torch.manual_seed(0)
    if family == "t5":
        shape = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
        return transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=vocabulary, **shape)).eval()
    shape = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 64, "init_std": 0.2}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "decoder_start_token_id": 1}
    config = transformers.BartConfig(vocab_size=vocabulary, **shape, **heads, **ids)
    return transformers.BartForConditionalGeneration(config).eval()


def no_positions(model: Any) -> None:
    """All tables of positions of the encoder are zero."""
    for name, module in model.named_modules():
        if "encoder" in name and ("relative_attention_bias" in name or "embed_positions" in name):
            module.weight.data.zero_()


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_an_encoder_without_positions(family: str) -> None:
    training = prepared()
    batch, model = one_batch(training.train), stranger(family, training.network.vocabulary)
    assert "WIR022" not in [each.code for each in check_network(HuggingFaceNetwork(model), batch)]
    no_positions(model)
    found = {each.code: each for each in check_network(HuggingFaceNetwork(model), batch)}
    assert found["WIR022"].level == "error" and "turned from end to beginning" in found["WIR022"].evidence


@pytest.mark.parametrize("changes", [{}, {"model__family": "bart"}])
def test_ours_without_positions(changes: dict[str, Any]) -> None:
    training = prepared(**changes)
    assert codes(training) == []
    for name, module in training.network.body.named_modules():
        if "position" in name or "bias" in name or "relative" in name:
            for parameter in module.parameters():
                parameter.data.zero_()
    assert "WIR022" in codes(training)


def test_a_bag_of_words() -> None:
    """Each source is sorted before it is read."""
    training = prepared()
    encode = training.network.encode

    def sorted_first(source: Any) -> Any:
        tokens = source.tokens.clone()
        for row, length in enumerate(source.token_lengths.tolist()):
            tokens[row, : length - 1] = tokens[row, : length - 1].sort().values
        return encode(source.with_content(tokens))

    training.network.encode = sorted_first
    assert codes(training) == ["WIR022"]


def resized_with_zeros(table: torch.Tensor) -> None:
    table[len(table) // 2 :] = 0


def all_the_mean(table: torch.Tensor) -> None:
    table[10:] = table.mean(0)


def every_second_like_the_first(table: torch.Tensor) -> None:
    table[1::2] = table[: len(table[1::2]) * 2 : 2]


def clamped(table: torch.Tensor) -> None:
    """Ids above a bound read the last row, as where a table is too small and ids are clamped."""
    table[20:] = table[20]


@pytest.mark.parametrize("change", [resized_with_zeros, all_the_mean, every_second_like_the_first, clamped])
@pytest.mark.parametrize("whose", ["ours", "rnn", "t5", "bart"])
def test_rows_that_are_zero_or_equal(change: Any, whose: str) -> None:
    training = prepared(**({"model__family": "rnn"} if whose == "rnn" else {}))
    batch = one_batch(training.train)
    if whose in ("t5", "bart"):
        model = stranger(whose, training.network.vocabulary)
        network: Any = HuggingFaceNetwork(model)
        table = model.get_input_embeddings().weight.data
    else:
        network, table = training.network, training.network.body.embedding.weight.data
    before = [each.code for each in check_network(network, batch)]
    assert "WIR023" not in before
    change(table)
    found = {each.code: each for each in check_network(network, batch)}
    assert found["WIR023"].level == "error", found


def test_features_have_no_tokens() -> None:
    training = prepared(**DIGITS)
    training.network.body.embedding.weight.data.zero_()
    assert "WIR023" not in codes(training)
