"""Source bits of one batch: the figure is that of its definition, for our networks, Hugging Face's and functions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sourcewise
from sourcewise.data.batches import IGNORED, Batch, length_mask
from sourcewise.errors import RequestError
from sourcewise.model.protocol import token_nats
from tests.model.networks import VOCABULARY, feature_source, network, text_source

transformers = pytest.importorskip("transformers")
LENGTHS = [3, 5, 5, 9, 3, 8]


def labels(rows: int = len(LENGTHS)) -> Tensor:
    """Targets of 2 to 4 tokens and their end."""
    out = torch.full((rows, 5), IGNORED)
    for i in range(rows):
        count = 3 + i % 3
        out[i, :count] = torch.randint(3, VOCABULARY, (count,), generator=torch.Generator().manual_seed(i))
        out[i, count - 1] = 1
    return out


def collated() -> dict[str, Tensor]:
    """A batch as transformers' collator makes it."""
    source = text_source(LENGTHS)
    assert source.tokens is not None and source.token_lengths is not None
    return {"input_ids": source.tokens, "attention_mask": source.token_mask.long(), "labels": labels()}


def t5(**changes: Any) -> Any:
    """A random T5 in training mode, with dropout."""
    torch.manual_seed(3)
    shape = {"vocab_size": VOCABULARY, "d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 3}
    config = transformers.T5Config(**shape, decoder_start_token_id=0, dropout_rate=0.3, **changes)
    return transformers.T5ForConditionalGeneration(config).train()


def bart() -> Any:
    torch.manual_seed(3)
    shape = {f"{stack}_{what}": n for stack in ("encoder", "decoder") for what, n in (("layers", 2), ("ffn_dim", 32))}
    config = transformers.BartConfig(vocab_size=VOCABULARY, d_model=24, max_position_embeddings=32, **shape)
    config.encoder_attention_heads = config.decoder_attention_heads = 3
    return transformers.BartForConditionalGeneration(config).train()


@torch.no_grad()
@pytest.mark.parametrize("make", [t5, bart])
def test_a_model_of_hugging_face_is_measured_by_the_definition(make: Any) -> None:
    model, batch = make(), collated()
    found = sourcewise.source_bits(model, batch)
    assert model.training and all(module.training for module in model.modules())

    model.eval()
    partners = [4, 2, 1, 5, 0, 3]  # of nearest length
    other = {name: batch[name][partners] for name in ("input_ids", "attention_mask")}
    for i in range(len(LENGTHS)):
        count = int((batch["labels"][i] != IGNORED).sum())
        for source, summed in ((batch, found.nats), (batch | other, found.shuffled)):
            row = {name: value[i : i + 1] for name, value in source.items()}
            logits = model(**row).logits[0, :count]
            assert math.isclose(
                F.cross_entropy(logits, row["labels"][0, :count], reduction="sum"), summed[i], rel_tol=1e-4
            )
    assert found.tokens.tolist() == [3, 4, 5, 3, 4, 5]
    low, high = found.ci95()
    assert low <= found.bits <= high


def test_no_example_depends_on_where_in_the_batch_it_stands() -> None:
    model, batch = t5(), collated()
    order = torch.tensor([3, 0, 5, 2, 1, 4])
    mixed = sourcewise.source_bits(model, {name: value[order] for name, value in batch.items()})
    assert mixed.nats == pytest.approx(sourcewise.source_bits(model, batch).nats[order], rel=1e-4)


def test_decoder_inputs_stay_the_examples_own() -> None:
    model, batch = t5(), collated()
    found = sourcewise.source_bits(model, batch)
    given = model.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
    again = sourcewise.source_bits(model, {**batch, "decoder_input_ids": given})
    assert again.shuffled == pytest.approx(found.shuffled, rel=1e-5)


def test_vectors_and_left_padding_are_sources_too() -> None:
    model, batch = t5(), collated()
    vectors = model.get_input_embeddings()(batch["input_ids"]).detach()
    by_vectors = {"inputs_embeds": vectors, "attention_mask": batch["attention_mask"], "labels": batch["labels"]}
    assert sourcewise.source_bits(model, by_vectors).bits == pytest.approx(
        sourcewise.source_bits(model, batch).bits, 1e-4
    )
    rolled = {
        n: torch.stack([r.roll(-k) for r, k in zip(batch[n], LENGTHS, strict=True)]) for n in batch if n != "labels"
    }
    other = sourcewise.source_bits(model, {**rolled, "labels": batch["labels"]})
    assert other.bits == pytest.approx(sourcewise.source_bits(model, batch).bits, rel=1e-3)  # relative positions


@pytest.mark.parametrize("features", [False, True])
def test_a_network_of_ours_is_measured_by_the_same_lines(features: bool) -> None:
    made = network("projection" if features else None)
    source = feature_source(LENGTHS) if features else text_source(LENGTHS)
    batch = Batch(source, labels(), list(range(len(LENGTHS))))
    found = sourcewise.source_bits(made, batch)
    expected = token_nats(made, made.encode(source), batch.labels).sum(1)
    assert found.nats == pytest.approx(expected.detach().numpy(), rel=1e-4)
    assert found.bits != 0


def test_a_function_from_a_batch_to_logits_will_do() -> None:
    batch = {"source": torch.arange(6)[:, None].expand(6, 4), "labels": torch.arange(6)[:, None].expand(6, 3).clone()}

    def reads(given: dict[str, Tensor]) -> Tensor:
        return 5.0 * F.one_hot(given["source"][:, :3], 6)

    def deaf(given: dict[str, Tensor]) -> Tensor:
        return torch.zeros(6, 3, 6)

    assert sourcewise.source_bits(reads, batch).bits == pytest.approx(5 / math.log(2))
    assert sourcewise.source_bits(deaf, batch).bits == 0
    assert sourcewise.source_bits(deaf, batch).loss == pytest.approx(math.log(6))


def test_a_module_of_ones_own_is_called_with_keywords() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 9)
            self.drop = nn.Dropout(0.5)

        def forward(self, words: Tensor, labels: Tensor) -> Tensor:
            return self.drop(self.table(words[:, : labels.shape[1]]))  # type: ignore[no-any-return]

    words = torch.arange(18).view(2, 9) % 9
    words[1] = words[1].roll(1)
    made = Own()
    found = sourcewise.source_bits(made, {"words": words, "labels": words[:, :4]})
    again = sourcewise.source_bits(made, {"words": words, "labels": words[:, :4]})
    assert found.bits == again.bits and made.training


def test_alike_sources_have_no_partner_but_others_do() -> None:
    batch = {"source": torch.tensor([[1, 2], [1, 2], [1, 2]]), "labels": torch.ones(3, 2, dtype=torch.long)}
    with pytest.raises(RequestError, match="the 3 sources of the batch are all alike"):
        sourcewise.source_bits(lambda given: torch.zeros(3, 2, 4), batch)
    batch["source"] = torch.tensor([[1, 2], [1, 2], [1, 3]])
    assert sourcewise.source_bits(lambda given: torch.zeros(3, 2, 4), batch).bits == 0


def test_padding_tells_no_two_sources_apart() -> None:
    mask = length_mask(torch.tensor([2, 2]), 3)
    batch = {
        "input_ids": torch.tensor([[1, 2, 0], [1, 2, 7]]),
        "attention_mask": mask,
        "labels": torch.ones(2, 1).long(),
    }
    with pytest.raises(RequestError, match="all alike"):
        sourcewise.source_bits(lambda given: torch.zeros(2, 1, 4), batch)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"labels": None}, "no labels"),
        ({"labels": torch.full((6, 5), IGNORED)}, "no label of the batch counts"),
        ({"input_ids": None, "attention_mask": None}, "no source among the keys"),
    ],
)
def test_what_a_batch_lacks_is_said(change: dict[str, Any], problem: str) -> None:
    batch = {name: value for name, value in (collated() | change).items() if value is not None}
    with pytest.raises(RequestError, match=problem):
        sourcewise.source_bits(t5(), batch)


def test_what_cannot_be_measured_is_said() -> None:
    batch = collated()
    with pytest.raises(RequestError, match="a batch of 1"):
        sourcewise.source_bits(t5(), {name: value[:1] for name, value in batch.items()})
    gpt = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(RequestError, match="GPT2LMHeadModel is decoder-only"):
        sourcewise.source_bits(gpt, batch)
    with pytest.raises(RequestError, match="a dict of tensors, not list"):
        sourcewise.source_bits(t5(), [1])
    with pytest.raises(RequestError, match="Batch is for a network of sourcewise"):
        sourcewise.source_bits(t5(), Batch(text_source(LENGTHS), labels(), [0]))
    with pytest.raises(RequestError, match="gives no logits"):
        sourcewise.source_bits(lambda given: None, batch)
    with pytest.raises(RequestError, match="one row of logits per label"):
        sourcewise.source_bits(lambda given: torch.zeros(6, 2, 4), batch)
