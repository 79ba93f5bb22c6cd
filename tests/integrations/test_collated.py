"""Collated batches as a set of ours, and a Trainer's course as lines of ours."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, processors

pytest.importorskip("transformers")

from sourcewise.data.batches import IGNORED, Source
from sourcewise.diagnosis.plan import Plan
from sourcewise.errors import RequestError
from sourcewise.integrations.collated import Collated, CollatedNetwork, Speaker, with_prompts
from sourcewise.integrations.recorder import Recorder
from sourcewise.model.families.huggingface import parts_of
from tests.generation.folders import TOKENIZER
from tests.integrations.trainings import EOS, PAD, bart, collate, rows, t5


@pytest.fixture(scope="module")
def network() -> CollatedNetwork:
    return CollatedNetwork(t5()).eval()


def test_a_set_holds_what_the_collator_was_given(network: CollatedNetwork) -> None:
    given = rows(20)
    encoded = Collated([collate(given[:8]), collate(given[8:])], Speaker(None, network))
    assert encoded.sources is not None
    assert [list(ids) for ids in encoded.sources] == [row["input_ids"] for row in given]
    assert encoded.targets == [row["labels"] for row in given]
    assert encoded.dataset[0].target == " ".join(map(str, given[0]["labels"][:-1]))  # without the end of text
    batch = encoded.batch([3, 5])
    assert batch.labels.shape[0] == 2 and set(batch.labels[batch.labels < 0].tolist()) <= {IGNORED}


def test_what_a_tokenizer_puts_before_every_text_is_known(network: CollatedNetwork, tmp_path: Path) -> None:
    import transformers

    TOKENIZER.save(tmp_path)
    assert Speaker(transformers.AutoTokenizer.from_pretrained(tmp_path), network).begins is None
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3}, unk_token="[PAD]"))
    words.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    bert = transformers.PreTrainedTokenizerFast(tokenizer_object=words, cls_token="[CLS]", sep_token="[SEP]")
    assert Speaker(bert, network).begins == 1
    assert Speaker(SimpleNamespace(tokenizer=bert, decode=bert.decode), network).begins == 1  # a processor
    for nothing in (None, object(), SimpleNamespace(decode=str), transformers.ByT5Tokenizer()):
        assert Speaker(nothing, network).begins is None


@pytest.mark.parametrize("where", ["left", "inverted"])
def test_padding_on_the_left_and_an_inverted_mask_are_seen_through(where: str, network: CollatedNetwork) -> None:
    given, batch = rows(6), collate(rows(6))
    if where == "inverted":
        batch["attention_mask"] = 1 - batch["attention_mask"]
    else:
        shifts = [batch["input_ids"].shape[1] - len(row["input_ids"]) for row in given]
        for name in ("input_ids", "attention_mask"):
            batch[name] = torch.stack([row.roll(by) for row, by in zip(batch[name], shifts, strict=True)])
    encoded = Collated([batch], Speaker(None, network))
    assert encoded.sources is not None
    assert [list(ids) for ids in encoded.sources] == [row["input_ids"] for row in given]


def test_vectors_are_features_and_read_as_the_model_reads_them(network: CollatedNetwork) -> None:
    batch = collate(rows(6))
    vectors = network.model.get_input_embeddings()(batch.pop("input_ids")).detach()
    encoded = Collated([{"inputs_embeds": vectors, **batch}], Speaker(None, network))
    assert encoded.dataset.dims == 48
    reader = CollatedNetwork(network.model, 48).eval()
    with torch.inference_mode():
        memory = reader.encode(encoded.source(range(6)))
        mask = batch["attention_mask"]
        expected = network.model.get_encoder()(inputs_embeds=vectors, attention_mask=mask).last_hidden_state
    real = mask.bool()
    torch.testing.assert_close(memory.states[memory.mask], expected[real], rtol=1e-4, atol=1e-5)


def test_what_a_set_cannot_hold_is_said(network: CollatedNetwork) -> None:
    speaker, batch = Speaker(None, network), collate(rows(4))
    with pytest.raises(RequestError, match="the batch has sounds, labels"):
        Collated([{"sounds": batch["input_ids"], "labels": batch["labels"]}], speaker)
    with pytest.raises(RequestError, match="no example with a label that counts"):
        Collated([batch | {"labels": torch.full_like(batch["labels"], IGNORED)}], speaker)


def test_a_speaker_speaks_as_its_tokenizer_does(network: CollatedNetwork) -> None:
    class Tokenizer:
        def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
            return "".join(chr(96 + i) for i in ids if not (skip_special_tokens and i in (EOS, PAD))) + " "

    speaker = Speaker(Tokenizer(), network)
    assert speaker.decode_batch([[5, 6, EOS], [EOS]]) == ["ef", ""]
    assert Speaker(object(), network).decode([5, 6, EOS]) == "5 6"


@pytest.mark.parametrize("make", [t5, bart])
def test_every_weight_belongs_to_a_part(make: Any) -> None:
    assert {info.part for info in parts_of(make())} == {"embedding", "encoder", "decoder"}


def test_a_course_is_made_of_what_a_trainer_logs() -> None:
    model = t5()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    recorder = Recorder(Plan(steps=30, clip=0.1))
    recorder.started()
    recorder.entropy(2.5)
    for step in range(1, 4):
        optimizer.zero_grad()
        loss = model(**collate(rows(8))).loss
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1))
        recorder.before_step(model)
        optimizer.step()
        recorder.after_step(model, optimizer)
        recorder.logged({"loss": loss.item(), "grad_norm": norm, "learning_rate": 1e-2}, step)
    recorder.evaluated({"loss": 2.0, "source_bits": 0.5}, 3)
    course = recorder.course
    assert (course.total, course.step, course.target_entropy, course.fresh) == (30, 3, 2.5, True)
    assert course.evaluations[0]["source_bits"] == 0.5
    line = course.train[-1]
    whole = sum(each**2 for each in line["gradient_norms"].values()) ** 0.5
    assert whole == pytest.approx(line["gradient_norm"])  # before clipping
    assert set(line["update_ratios"]) == {"embedding", "encoder", "decoder"}
    assert 0 < line["update_ratios"]["decoder"] < 1
    assert line["clipped"] == 1.0
    assert not Recorder(Plan(fresh=False)).course.fresh


def test_a_text_network_refuses_nothing_it_read_before(network: CollatedNetwork) -> None:
    batch = collate(rows(3))
    source = Source(batch["input_ids"], batch["attention_mask"].sum(1))
    with torch.inference_mode():
        memory = network.encode(source)
    assert memory.states.shape[:2] == batch["input_ids"].shape


def test_a_prompt_is_told_from_padding_and_from_labels_that_are_not_shifted() -> None:
    labels = torch.tensor([[IGNORED, IGNORED, 7, 8, EOS], [IGNORED, 9, EOS, IGNORED, IGNORED]])
    read = torch.tensor([[PAD, 4, 5, 7, 8], [PAD, 6, 9, EOS, PAD]])
    found = with_prompts({"labels": labels, "decoder_input_ids": read}, PAD)
    assert found is not None
    assert found["labels"].tolist() == [[4, 5, 7, 8, EOS], [6, 9, EOS, IGNORED, IGNORED]]
    padded = torch.where(torch.tensor([[0, 1, 1, 0, 0], [0, 1, 0, 0, 0]]).bool(), PAD, read)
    for other in (padded, labels, read[:, :4]):  # the decoder reads padding, or something else than labels shifted
        assert with_prompts({"labels": labels, "decoder_input_ids": other}, PAD) is None
    assert with_prompts({"labels": labels}, PAD) is None


def test_labels_that_do_not_count_stay_in_their_place_or_are_left_out(network: CollatedNetwork) -> None:
    batch = collate(rows(8))
    labels = batch["labels"].clone()
    labels[:, 1], labels[3] = IGNORED, IGNORED
    encoded = Collated([batch | {"labels": labels}], Speaker(None, network))
    assert len(encoded) == 7 and encoded.targets[0] == labels[0][: len(encoded.targets[0])].tolist()
    assert encoded.target_lengths.sum() == (labels != IGNORED).sum()
    assert torch.equal(encoded.batch([0, 1]).labels, labels[:2, : encoded.batch([0, 1]).labels.shape[1]])
    counted = Collated([batch | {"labels": labels}], Speaker(None, network), counted=True)
    assert all(IGNORED not in target for target in counted.targets)
