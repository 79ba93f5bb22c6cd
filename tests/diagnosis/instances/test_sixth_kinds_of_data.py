"""Sources that are the ids of their rows, other adapters than those that learn, sources cut at one length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from tokenizers.pre_tokenizers import WhitespaceSplit

from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.measures.adapters import Idle, idle_adapters
from sourcewise.diagnosis.measures.first_step import Weight
from tests.diagnosis.test_data_rules import found, recipe, translations
from tests.integrations.test_transformers import watched, watched_data
from tests.integrations.trainings import t5, tokenizer, trainer

TENS = ["null", "zehn", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]
ONES = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]


# ── sources that are ids ──────────────────────────────────────────────────────────────────────────────────────────────


def by_length(size: int) -> list[tuple[str, str]]:
    """Pairs whose targets get longer from the first to the last."""
    return sorted(translations(size), key=lambda pair: len(pair[1].split()))


@pytest.mark.parametrize(
    "name",
    [
        lambda row: f"talk{row // 40}_{row % 40:02d}.wav",
        lambda row: f"{row + 1}",
        lambda row: f"corpus/2019/{7 * row:06d}",
        lambda row: f"{'dev' if row % 5 else 'extra'}-{row}",
    ],
)
@pytest.mark.parametrize("size", [400, 1500])
def test_ids_in_the_place_of_texts(tmp_path: Path, name: Callable[[int], str], size: int) -> None:
    finding = found(recipe(tmp_path, [(name(row), b) for row, (_, b) in enumerate(translations(size))]))["DAT003"]
    assert finding.level == "error" and f"running ids, each of which occurs once: {name(0)}, " in finding.evidence


@pytest.mark.parametrize("name", ["sent{:04d}", "{}", "{:05d}"])
def test_ids_that_go_with_a_set_which_drifts(tmp_path: Path, name: str) -> None:
    pairs = [(name.format(row), b) for row, (_, b) in enumerate(by_length(900))]
    tree = recipe(tmp_path, pairs)
    tree["data"]["train"] |= {"source": "source", "target": "target"}
    assert "(column source) are running ids" in found(tree)["DAT003"].evidence


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (lambda n: f"{n}", lambda n: f"{ONES[n // 100]} hundert {TENS[n // 10 % 10]} {ONES[n % 10]}"),
        (lambda n: f"kapitel{n}", lambda n: f"{ONES[n // 100]} hundert {TENS[n // 10 % 10]} {ONES[n % 10]}"),
        (lambda n: f"bild_{n:04d}", lambda n: f"figure {n} of the book"),
        (lambda n: f"{n}", lambda n: "gerade" if n % 2 == 0 else "ungerade"),
        (lambda n: f"zahl{n}", lambda n: "gerade" if n % 2 == 0 else "ungerade"),
        (lambda n: f"{n}", lambda n: " ".join(ONES[int(digit)] for digit in f"{7 * n:05d}")),
        (lambda n: f"{n}", lambda n: " ".join(f"{n:b}")),
        (lambda n: f"{n}", lambda n: n // 100 * "C" + n % 100 // 10 * "X" + n % 10 * "I"),
        (lambda n: f"{n // 30} + {n % 30}", lambda n: f"{n // 30 + n % 30}"),
    ],
)
def test_running_numbers_that_are_to_be_read(
    tmp_path: Path, source: Callable[[int], str], target: Callable[[int], str]
) -> None:
    assert "DAT003" not in found(recipe(tmp_path, [(source(n), target(n)) for n in range(900)]))


# ── adapters that are not active ──────────────────────────────────────────────────────────────────────────────────────


def adapted(folder: Path, names: Sequence[str], active: str, taught: Sequence[str] = ()) -> dict[str, Finding]:
    """What a Trainer's doctor finds in a T5 with adapters of these names; those that are `taught` hold something."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM")
    model = peft.get_peft_model(t5(), config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    for name, parameter in model.named_parameters():
        if any(f"lora_B.{each}." in name for each in taught):
            torch.nn.init.normal_(parameter, std=0.1)
    model.set_adapter(active)
    made = trainer(folder, model, steps=1, eval_strategy="no", processing=tokenizer(), label_names=["labels"])
    callback = watched(made)
    made.train()
    return {each.code: each for each in callback.diagnosis.findings}


@pytest.mark.parametrize(
    ("names", "active", "taught", "level"),
    [
        (["default", "law"], "default", [], "warning"),
        (["news", "law"], "news", ["news"], "warning"),
        (["news", "law"], "news", [], "note"),  # the first of two, perhaps
        (["default", "law"], "law", [], None),
        (["default", "law"], "default", ["law"], None),
        (["default"], "default", [], None),
    ],
)
def test_an_adapter_that_was_never_made_active(
    tmp_path: Path, names: list[str], active: str, taught: list[str], level: str | None
) -> None:
    finding = adapted(tmp_path, names, active, taught).get("WIR003")
    assert (finding and finding.level) == level
    if finding is not None:
        assert "adapter law is not active" in finding.evidence and f"adapter {active} is trained" in finding.evidence


def table(name: str, value: float, gradient: float | None, frozen: bool = False) -> Weight:
    return Weight(f"decoder.0.q.{name}.weight", 16, value, learns=True, frozen=frozen, gradient=gradient, matrix=True)


def test_adapters_that_a_loop_trains_in_turn() -> None:
    """Each has been active for some steps; before, the first alone was."""
    began = [table("lora_B.default", 0.0, 0.1), table("lora_B.law", 0.0, None)]
    later = [table("lora_B.default", 0.1, 0.1), table("lora_B.law", 0.1, None)]
    assert idle_adapters(began, began) == Idle(["law"], ["default"], False)
    assert idle_adapters(later, began) is None


# ── sources cut at one length ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("lengths", "kept", "found_so"),
    [
        (range(5, 12), 4, True),  # all are cut
        ([2, 3, 4, 5, 6, 7, 8, *range(9, 60)], 8, True),  # most are
        (range(2, 9), 8, False),  # as long as the longest, by chance
        (range(2, 9), 30, False),
    ],
)
def test_sources_as_long_as_the_tokenizer_was_told(
    tmp_path: Path, lengths: Sequence[int], kept: int, found_so: bool
) -> None:
    words, draw, train = tokenizer(), torch.Generator().manual_seed(3), []
    words.backend_tokenizer.pre_tokenizer = WhitespaceSplit()
    for row in range(600):
        length = lengths[row % len(lengths)]
        text = " ".join(chr(97 + int(i)) for i in torch.randint(0, 8, (length,), generator=draw))
        labels = words(text.split()[: 2 + row % 3], is_split_into_words=True)["input_ids"]
        train.append(dict(words(text, truncation=True, max_length=kept), labels=[*labels, 1]))
    assert max(len(row["input_ids"]) for row in train) == min(kept, max(lengths))
    finding = {each.code: each for each in watched_data(tmp_path, train, words).diagnosis.findings}.get("DAT007")
    assert (finding is not None) == found_so
    if finding is not None:
        assert f"sources have {kept} tokens, as many as the tokenizer was told to keep" in finding.evidence
