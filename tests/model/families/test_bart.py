"""A fresh BART as a recipe wants it, its limits, and its arithmetic in bf16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sourcewise.config import ModelConfig
from sourcewise.data.batches import Batch, Source
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError
from sourcewise.model.families.bart import Bart, make
from sourcewise.model.network import Seq2Seq
from sourcewise.model.weights.checkpoint import load_network, save_network
from sourcewise.training.freezing import freeze
from tests.model.networks import feature_source, loss, network, text_source

TOKENIZER = Tokenizer.train(["ba do ki lu me no"] * 3, 40)
SHAPE: dict[str, Any] = {"family": "bart", "d_model": 24, "heads": 3, "d_ff": 40, "positions": 20}


def fresh(**changes: Any) -> Bart:
    torch.manual_seed(0)
    return make(ModelConfig.model_validate(SHAPE | changes), TOKENIZER, False)


def test_every_option_of_a_recipe_is_respected() -> None:
    shape = {"encoder_layers": 3, "decoder_layers": 1, "dropout": 0.3, "attention_dropout": 0.2, "tied": False}
    c = fresh(**shape, activation="silu").config
    assert (c.d_model, c.heads, c.d_kv, c.d_ff, c.positions) == (24, 3, 8, 40, 20)
    assert (c.encoder_layers, c.decoder_layers, c.dropout, c.attention_dropout, c.tied) == (3, 1, 0.3, 0.2, False)
    assert (c.activation, c.vocabulary, c.vocabulary % 8) == ("silu", -(-TOKENIZER.size // 8) * 8, 0)
    assert (c.pad_id, c.eos_id, c.start_id) == (0, 1, 1)  # BART begins a target with the end of text


def test_it_starts_as_bart_does() -> None:
    body = fresh(d_model=96, d_ff=384)
    for name, parameter in body.named_parameters():
        if parameter.ndim > 1:
            assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.1), name
        else:
            assert bool((parameter == (0 if name.endswith("bias") else 1)).all()), name
    assert bool((body.embedding.weight[body.config.pad_id] == 0).all())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"activation": "gated-gelu"},
            "model.activation: gated-gelu is not for the family bart; relu or gelu or silu is",
        ),
        ({"d_kv": 16}, "model.d_kv: 16 is not for the family bart; 8 is"),
        ({"decoder_positions": False}, "model.decoder_positions: false is not for the family bart; true is"),
        ({"d_model": 25, "d_kv": 8}, "model.d_model: 25 is not a multiple of heads 3, as bart needs"),
    ],
)
def test_what_a_bart_cannot_be_is_refused(change: dict[str, Any], line: str) -> None:
    with pytest.raises(RequestError) as caught:
        fresh(**change)
    assert str(caught.value) == line


@pytest.mark.parametrize("tied", [True, False])
@torch.inference_mode()
def test_transformers_opens_a_fresh_one(tied: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours = Seq2Seq(fresh(tied=tied)).eval()
    save_network(ours, tmp_path)
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    assert isinstance(theirs, transformers.BartForConditionalGeneration)
    assert theirs.generation_config.forced_eos_token_id is None  # an output that does not end is to be seen as such
    draw = torch.Generator().manual_seed(1)
    source = Source(torch.randint(3, TOKENIZER.size, (2, 9), generator=draw), torch.tensor([9, 4]))
    targets = torch.randint(3, TOKENIZER.size, (2, 5), generator=draw)
    expected = theirs(
        input_ids=source.tokens, attention_mask=source.token_mask.long(), decoder_input_ids=targets
    ).logits
    torch.testing.assert_close(ours.decode(targets, ours.encode(source)), expected, atol=1e-5, rtol=0)
    again = load_network(tmp_path)
    assert isinstance(again, Seq2Seq) and again.body.config == ours.body.config
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), ours.parameters(), strict=True))


@pytest.mark.parametrize("family", ["bart", "marian"])
@torch.inference_mode()
def test_slots_past_the_last_position_are_cut_a_row_at_a_time(family: str) -> None:
    net = network("projection", stride=1, family=family, positions=12)
    frames, prompts = [30, 4, 30, 9], [3, 9, 9, 1]
    memory = net.encode(feature_source(frames, prompts))
    assert memory.mask.sum(1).tolist() == [12, 12, 12, 10]
    tokens = torch.randint(3, 40, (4, 6), generator=torch.Generator().manual_seed(1))
    together = net.decode(tokens, memory)
    for i in range(4):
        alone = feature_source(frames, prompts)
        assert alone.features is not None and alone.tokens is not None and alone.frames is not None
        one = Source(
            alone.tokens[[i], : prompts[i]],
            torch.tensor([prompts[i]]),
            alone.features[[i], : frames[i]],
            torch.tensor([frames[i]]),
        )
        torch.testing.assert_close(net.decode(tokens[[i]], net.encode(one))[0], together[i], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_past_the_encoder_there_is_no_limit() -> None:
    net = network("projection", "bypass", stride=1, family="bart", positions=12)
    assert net.encode(feature_source([30, 4])).mask.sum(1).tolist() == [30, 4]


@pytest.mark.parametrize("family", ["bart", "mbart", "marian"])
def test_bf16_is_fp32_rounded(family: str) -> None:
    source, labels = text_source([9, 4, 7]), torch.randint(3, 40, (3, 6), generator=torch.Generator().manual_seed(1))
    batch, found = Batch(source, labels, [0, 1, 2]), {}
    for precision in (torch.float32, torch.bfloat16):
        net = network(family=family, activation="gelu", init_std=0.1).to(precision)
        nats, count = loss(net, batch)
        (nats / count).backward()
        grads = torch.cat([p.grad.float().flatten() for p in net.parameters() if p.grad is not None])
        found[precision] = (float(nats.detach()), grads)
    exact, rounded = found[torch.float32], found[torch.bfloat16]
    assert rounded[0] == pytest.approx(exact[0], rel=0.02)
    assert float(torch.cosine_similarity(exact[1], rounded[1], dim=0)) > 0.99


@pytest.mark.parametrize(
    ("part", "learning"),
    [("encoder", {"embedding", "decoder", "bridge"}), ("decoder", {"embedding", "encoder", "bridge"})],
)
def test_parts_freeze_with_their_positions_and_norms(part: str, learning: set[str]) -> None:
    net = network("projection", family="bart")
    freeze(net, [part])
    free = {
        name.removeprefix("body.").split(".")[0].split("_")[0] for name, p in net.named_parameters() if p.requires_grad
    }
    assert free == learning
