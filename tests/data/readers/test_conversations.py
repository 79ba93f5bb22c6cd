from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sourcewise.config import ChatConfig, DataConfig, DatasetConfig
from sourcewise.data.encoding import Encoded
from sourcewise.data.open import config_for, open_dataset, open_sources
from sourcewise.data.readers.conversations import are_conversations, fit, opening, read_conversations
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError

FILES = Path(__file__).parent / "conversations"
SHORT = {"human": "H", "model": "M", "turn": "{role}: {text}\n", "system": "Be kind."}
CHAT = ChatConfig.model_validate(SHORT)
EXPECTED = json.loads((FILES / "awkward.pairs.json").read_text(encoding="utf-8"))
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ\n\t0123456789 .:;,!?'+=()[]{}<>/\\_-#"


@pytest.fixture(scope="module")
def characters():
    """A character is a token: lengths can be counted by hand."""
    return Tokenizer.train([LETTERS], 200, "characters")


@pytest.fixture
def talk(write_text):
    """Writes one conversation of (from, value) turns; returns the file."""

    def write(*turns, name="x.json", **more):
        tree = [{"id": "c", "conversations": [{"from": who, "value": said} for who, said in turns], **more}]
        return write_text(name, json.dumps(tree))

    return write


def test_awkward_conversations_give_the_pairs_written_by_hand():
    dataset = read_conversations(FILES / "awkward.json", CHAT)
    assert [[e.id, e.source, e.target] for e in dataset] == EXPECTED["pairs"]
    assert [[n.where, n.what] for n in dataset.notes] == EXPECTED["notes"]
    assert all("".join(e.turns) == e.source for e in dataset)
    assert {n.file for n in dataset.notes} == {str(FILES / "awkward.json")}


def test_what_is_too_long_is_cut_at_a_turn_and_keeps_its_end(characters):
    cut = EXPECTED["cut"]
    limits = {name: cut[name] for name in ("max_source", "max_target")}
    data = DataConfig.model_validate({"chat": SHORT})
    dataset = open_dataset(DatasetConfig(conversations=str(FILES / "awkward.json"), **limits), data)
    encoded = Encoded(dataset, characters, data)
    shown = {
        example.id: [characters.decode(ids) for ids in (encoded.sources[i], encoded.targets[i])]
        for i, example in enumerate(dataset)
    }
    assert shown == cut["pairs"]
    assert [[n.where, n.what] for n in encoded.notes] == EXPECTED["notes"] + cut["notes"]
    assert encoded.source_lengths.max() <= 40 and encoded.target_lengths.max() == 15
    labels = encoded.batch([len(dataset) - 1]).labels  # the cut reply: its end of text is trained, nothing is padding
    assert labels.shape == (1, 15) and labels[0, -1] == characters.eos_id and (labels >= 0).all()


@given(
    said=st.lists(st.text("abc ", min_size=1, max_size=12), min_size=1, max_size=6),
    head=st.sampled_from(["", "Be kind.\n\n"]),
    longest=st.integers(4, 60),
)
def test_a_history_is_cut_between_turns_unless_the_last_is_too_long_alone(characters, said, head, longest):
    turns = (head, *(f"H: {text}\n" for text in said[:-1]), f"H: {said[-1]}\nM: ")
    ids = fit(turns, longest, characters)
    assert len(ids) <= longest and ids[-1] == characters.eos_id
    whole = [characters.encode(head + "".join(turns[k:])) for k in range(1, len(turns))]
    last = characters.encode(turns[-1])
    fitting = [each for each in whole if len(each) <= longest]
    assert ids == (fitting[0] if fitting else last if len(last) <= longest else last[-longest:])


def test_fastchats_form_is_the_default(talk):
    path = talk(("human", "Who are you?"), ("gpt", "Vicuna."), ("human", "Bye"), ("gpt", "Goodbye!"))
    first, second = read_conversations(path, ChatConfig())
    system = ChatConfig().system
    assert first.source == f"{system}\n\n### Human: Who are you?\n### Assistant: " and first.target == "Vicuna."
    assert second.source == f"{first.source}Vicuna.\n### Human: Bye\n### Assistant: "


def test_roles_and_separators_are_the_recipes(talk):
    path = talk(("Kunde", "Hallo"), ("Bot", "Guten Tag"), ("human", "?"))
    form = {"turn": "<{role}>{text}</s>", "system": "S", "head": "[{text}]"}
    chat = ChatConfig.model_validate({**form, "human_roles": ["kunde"], "model_roles": ["bot"]})
    dataset = read_conversations(path, chat)
    assert [(e.source, e.target) for e in dataset] == [("[S]<Human>Hallo</s><Assistant>", "Guten Tag")]
    assert [n.what for n in dataset.notes] == ["unknown role 'human', left out"]
    silent = read_conversations(path, chat.model_copy(update={"system": ""}))
    assert silent[0].source == "<Human>Hallo</s><Assistant>"


def test_braces_in_a_turn_are_text(talk):
    said = "{role} {text} {0} {"
    example = read_conversations(talk(("human", said), ("gpt", said)), CHAT)[0]
    assert example.source == f"Be kind.\n\nH: {said}\nM: " and example.target == said


def test_a_conversation_without_a_pair_is_noted(talk):
    dataset = read_conversations(talk(("gpt", "Hello"), ("system", "S"), ("system", "")), CHAT)
    assert len(dataset) == 0
    assert [(n.where, n.what) for n in dataset.notes][-1] == ("c", "a conversation without a pair")
    with pytest.raises(RequestError, match=r"x\.json: no examples"):
        open_dataset(DatasetConfig(conversations=str(talk(("human", "Hello")))))


def test_two_system_prompts_are_joined(talk):
    dataset = read_conversations(talk(("system", "S"), ("system", "T"), ("human", "A"), ("gpt", "B")), CHAT)
    assert dataset[0].turns[0] == "S\nT\n\n"
    assert [(n.where, n.what) for n in dataset.notes] == [("c#2", "second system prompt in a row, joined to the first")]


def test_prefix_and_case_reach_the_pieces(talk, characters):
    path = talk(("human", "A" * 30), ("gpt", "B"), ("human", "C"), ("gpt", "D"))
    data = DataConfig.model_validate({"chat": SHORT, "max_source": 29})
    dataset = open_dataset(DatasetConfig(conversations=str(path), prefix="chat> ", lowercase=True), data)
    assert dataset[1].source == "".join(dataset[1].turns)
    assert characters.decode(Encoded(dataset, characters, data).sources[1]) == "chat> be kind.\n\nh: c\nm: "


def test_lines_of_json_and_missing_ids(write_text):
    turns = [{"from": "human", "value": "A"}, {"from": "gpt", "value": "B"}]
    path = write_text("x.jsonl", "".join(json.dumps({"conversations": turns}) + "\n" for _ in range(3)))
    assert [e.id for e in read_conversations(path, CHAT)] == ["1#2", "2#2", "3#2"]
    assert [e.id for e in read_conversations(path, CHAT, limit=2)] == ["1#2", "2#2"]
    assert are_conversations(path) and config_for(str(path)).conversations == str(path)
    other = write_text("y.jsonl", '{"source": "a", "target": "b"}\n')
    assert not are_conversations(other) and config_for(str(other)).pairs == str(other)
    assert not are_conversations(write_text("z.jsonl", "{")) and not are_conversations("none.jsonl")


def test_to_generate_from_the_last_turn_needs_no_reply(talk):
    path = talk(("human", "A"), ("gpt", "B"), ("human", "C"))
    dataset = open_sources(path, chat=CHAT)
    assert [(e.id, e.source) for e in dataset] == [
        ("c#2", "Be kind.\n\nH: A\nM: "),
        ("c#3", "Be kind.\n\nH: A\nM: B\nH: C\nM: "),
    ]
    assert [n.what for n in dataset.notes] == []


def test_a_line_is_what_a_human_says_first(characters):
    dataset = open_sources(["Hello", "x" * 99], chat=CHAT)
    assert dataset[0].source == "Be kind.\n\nH: Hello\nM: " == "".join(opening("Hello", CHAT))
    encoded = Encoded(dataset, characters, DataConfig(max_source=20))
    assert characters.decode(encoded.sources[1]) == "x" * 15 + "\nM: "
    assert open_sources(["Hello"])[0].source == "Hello"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"conversations": [}]', r"x\.json:1: not JSON"),
        ('[\n{"a": 1},\n{"a" 1}]', r"x\.json:3: not JSON"),
        ('{"id": "c", "conversations": []}', r"x\.json: a JSON dict; it should be a list of"),
        ('[{"id": "c", "messages": []}]', r"conversation 1: has no list of turns"),
        ('[{"id": "c", "conversations": ["Hello"]}]', r"conversation c#1: no turn"),
        ('[{"id": "c", "conversations": [{"from": "human", "value": 3}]}]', r"conversation c#1: no turn"),
        ('[{"conversations": [{"value": "text"}]}]', r"conversation 1#1: no turn"),
        ('["\\ud83d"]', r"x\.json:1: half of a surrogate pair"),
        ("[]", r"x\.json: no examples"),
        (b"[\xff]", r"x\.json:1: not UTF-8"),
    ],
)
def test_what_is_no_conversation_is_refused_in_one_line(write_text, content, message):
    path = write_text("x.json", content)
    with pytest.raises(RequestError, match=message) as caught:
        open_dataset(DatasetConfig(conversations=str(path)))
    assert "\n" not in str(caught.value)


def test_null_is_an_empty_turn(talk):
    dataset = read_conversations(talk(("human", "A"), ("human", None), ("gpt", "B")), CHAT)
    assert len(dataset) == 1 and dataset.notes[0].what == "empty turn, left out"
