"""After the seventh set: another Unicode form, another end of text, features that a Trainer removes, slow adapters."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sourcewise.data.batches import IGNORED, Batch
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.measures.characters import form_known, lost_characters
from sourcewise.diagnosis.rules import look
from sourcewise.diagnosis.rules.data.dat006_lost_characters import other_form
from sourcewise.diagnosis.wiring import Wiring
from sourcewise.integrations.collated import Collated, CollatedNetwork, Speaker
from sourcewise.integrations.overwritten import left_behind
from tests.diagnosis.rules.test_wir031_adapters_too_few_or_slow import found as of_adapters
from tests.diagnosis.test_borrowing import collation
from tests.integrations.test_transformers import codes, watched
from tests.integrations.trainings import EOS, bart, collate, rows, t5, tokenizer, trainer

# ── another Unicode form ──────────────────────────────────────────────────────────────────────────────────────────────

TEXTS = {
    "vietnamese": ["một con mèo trắng", "hai người đàn ông", "bốn chiếc ghế gỗ", "cô gái đứng trước nhà"] * 20,
    "korean": ["고양이가 잔다", "나는 학교에 간다", "비가 많이 온다"] * 20,
    "german": ["schöne grüne Bäume", "der Käse fällt über Bücher", "größere Töpfe"] * 20,
}


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize(("trained", "read"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_texts_in_the_form_that_the_vocabulary_has_not(language: str, trained: str, read: str) -> None:
    known, asked = (
        [unicodedata.normalize(form, text) for text in TEXTS[language]]  # type: ignore[arg-type]
        for form in (trained, read)
    )
    words = Tokenizer.train(known, 400, unit="words")
    gone, total, _ = lost_characters(words, asked, True)
    share = sum(gone.values()) / total
    assert share > 0.2 and form_known(words, asked, True, share) == trained
    assert form_known(words, ["xyz " + text for text in known], True, 0.2) is None  # lost for another reason


def test_the_cure_is_of_the_side() -> None:
    assert {"data.train.source_form"} == other_form("sources", "NFC").options
    assert 'unicodedata.normalize("NFD", text)' in other_form("targets", "NFD").ways[0]


# ── another end of text ───────────────────────────────────────────────────────────────────────────────────────────────


def ended_by(model: Any, last: int, *, named: int) -> list[Finding]:
    """What WIR009 says of labels that end with one id where the configuration names another."""
    given: dict[str, Tensor] = collation(12, 8)
    given["labels"][given["labels"] == EOS] = last
    model.config.eos_token_id = model.generation_config.eos_token_id = named
    network = CollatedNetwork(model)
    batch: Batch = Collated([given], Speaker(None, network)).batch(range(12))
    return list(look(Wiring(network, batch), codes="WIR009").findings)


@pytest.mark.parametrize("model", [t5, bart])
def test_the_end_of_text_of_another_vocabulary_is_named(model: Any) -> None:
    (said,) = ended_by(model(), EOS, named=3)
    assert "eos_token_id, 3); 12 end with the id 1, which stands nowhere else" in said.evidence
    assert "eos_token_id = tokenizer.eos_token_id" in said.cure
    assert ended_by(model(), EOS, named=EOS) == []


def test_targets_that_end_with_a_word_of_their_own_are_only_not_ended() -> None:
    model = t5()
    given = collation(12, 8)
    given["labels"][given["labels"] == EOS] = 7
    given["labels"][0, 0] = 7  # it stands elsewhere, too
    network = CollatedNetwork(model)
    batch = Collated([given], Speaker(None, network)).batch(range(12))
    assert (batch.labels == EOS).sum() == 0 and (batch.labels != IGNORED).any()
    (said,) = look(Wiring(network, batch), codes="WIR009").findings
    assert "another vocabulary" not in said.evidence


# ── features that a Trainer removes ───────────────────────────────────────────────────────────────────────────────────


class Prompted(nn.Module):
    """A T5 behind a prompt and features, which forward takes by their name or by **kwargs."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.model, self.name = t5(), name
        self.config, self.generation_config = self.model.config, self.model.generation_config
        self.project = nn.Linear(6, self.config.d_model)

    def forward(self, input_ids: Any = None, attention_mask: Any = None, labels: Any = None, **more: Any) -> Any:
        read = self.model.get_input_embeddings()(input_ids)
        if self.name in more:
            read = torch.cat((read, self.project(more[self.name])), 1)
        return self.model(inputs_embeds=read, labels=labels)


def prompted(folder: Path, name: str, *, removed: bool) -> Any:
    """The callback of a training with one prompt before all features."""
    draw = torch.Generator().manual_seed(0)
    examples = [row | {"input_ids": [4, 5, EOS], name: torch.randn(5, 6, generator=draw).tolist()} for row in rows(600)]

    def collated(chosen: list[Any]) -> dict[str, Tensor]:
        batch = collate(chosen)
        if name in chosen[0]:
            batch[name] = torch.tensor([row[name] for row in chosen])
        return batch

    made = trainer(
        folder, Prompted(name), steps=19, train=examples, eval_strategy="no", processing=tokenizer(),
        collator=collated, remove_unused_columns=removed, label_names=["labels"], save_strategy="no",
    )  # fmt: skip
    callback = watched(made)
    made.train()
    return callback


@pytest.mark.parametrize("name", ["features", "pose"])
def test_features_that_forward_does_not_name(name: str, tmp_path: Path) -> None:
    callback = prompted(tmp_path, name, removed=True)
    said = next(each for each in callback.diagnosis.findings if each.code == "DAT002")
    assert f"the data set has the columns {name}, which no batch holds" in said.evidence
    assert "remove_unused_columns=False" in said.cure
    assert not any("no model of transformers" in words for words in callback.diagnosis.not_checked)


def test_a_prompt_beside_features_is_no_source_of_its_own(tmp_path: Path) -> None:
    callback = prompted(tmp_path, "features", removed=False)
    assert codes(callback) == codes(callback, "warning") == []
    assert any("input_ids and features together" in words for words in callback.diagnosis.not_checked)


def test_columns_that_are_no_features_are_not_named() -> None:
    row = {
        "input_ids": [4],
        "text": "a",
        "score": 0.5,
        "ids": [4, 5],
        "ragged": [[0.5], [0.5, 1.0]],
        "wave": [0.5, 1.0],
    }
    assert left_behind([row], [{"input_ids": torch.tensor([[4]])}]) == ("wave",)
    assert left_behind([], []) == left_behind(None, []) == left_behind(["a"], []) == ()


# ── slow adapters ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("rate", "said"), [(5e-5, True), (1e-4, False)])
def test_the_default_rate_of_a_trainer_is_one_for_whole_models(rate: float, said: bool, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    assert ("WIR031" in of_adapters(tmp_path, "t5", {"targets": ["q", "v"]}, rate)) is said
