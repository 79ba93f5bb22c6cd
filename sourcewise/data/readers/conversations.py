"""Conversations in ShareGPT's layout → pairs of a history and a reply.

A file is a list of {"id": …, "conversations": [{"from": "human", "value": …}, {"from": "gpt", "value": …}, …]}, or one
such object per line (.jsonl). Each reply makes a pair: the source is the history before it, which ends with the mark
of the model's turn; the target is the reply. Roles and the format of turns are set by `data.chat`.

Irregular turns are noted with the conversation's id and the number of the turn, never dropped silently:

an unknown role, an empty turn, a system prompt after the first turn     left out
two turns in a row of one role                                           joined, a line end between them
the model speaks first                                                   no pair; part of the history of the next ones
no reply after the last human turn                                       no pair
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sourcewise.config import ChatConfig
from sourcewise.data.examples import Dataset, Example, Note
from sourcewise.data.readers.doubtful import doubts
from sourcewise.data.readers.lines import read_lines
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError

HUMAN, MODEL, SYSTEM = "human", "model", "system"
LAYOUT = '{"id": …, "conversations": [{"from": "human", "value": …}, …]}'


@dataclass(slots=True)
class Turn:
    """A turn with its speaker; `number` is its place in the file's list, from 1."""

    number: int
    role: str
    text: str


def read_conversations(
    path: str | Path, chat: ChatConfig, *, limit: int | None = None, need_target: bool = True
) -> Dataset:
    """The pairs of a .json or .jsonl of conversations, in order, with notes; an id is `CONVERSATION#TURN of the reply`.

    `limit` counts conversations. Without `need_target` a last human turn without a reply is an example, too, with an
    empty target. Raises RequestError that names the file and, if known, the conversation.
    """
    examples: list[Example] = []
    notes: list[Note] = []
    for place, tree in enumerate(_objects(Path(path))[:limit], start=1):
        name, raw = _checked(tree, f"{path}: conversation {place}")
        name = name or str(place)
        where = f"{path}: conversation {name}"

        def note(what: str, number: int | None = None, name: str = name) -> None:
            notes.append(Note(str(path), name if number is None else f"{name}#{number}", what))

        system, turns = _settled(raw, chat, where, note)
        found = pairs(turns, chat, chat.system if system is None else system)
        if need_target:
            found = [(number, history, reply) for number, history, reply in found if reply]
            if turns and turns[-1].role == HUMAN:
                note("no reply follows, so it is no pair", turns[-1].number)
            if not found:
                note("a conversation without a pair")
        for number, history, reply in found:
            text = "".join(history)
            examples.append(Example(f"{name}#{number}", reply, text, where=f"{where}#{number}", turns=history))
    for side, texts in (("sources", [e.source for e in examples]), ("replies", [e.target for e in examples])):
        notes += [Note(str(path), examples[place].id, what) for place, what in doubts(texts, side)]
    return Dataset(examples, str(path), notes=notes)


def are_conversations(path: str | Path) -> bool:
    """Whether a file holds conversations: any .json, and a .jsonl whose first line is one."""
    suffix = Path(path).suffix.lower()
    if suffix != ".jsonl" or not Path(path).is_file():
        return suffix == ".json"
    with Path(path).open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
    try:
        return isinstance(json.loads(first).get("conversations"), list)
    except (ValueError, AttributeError):
        return False  # its reader reports the error


def pairs(turns: Sequence[Turn], chat: ChatConfig, system: str) -> list[tuple[int, tuple[str, ...], str]]:
    """(number of the turn, history in pieces, reply) of each reply; a last human turn has the reply "".

    The first piece is the formatted system prompt, or empty; the last one ends with the mark of the model's turn.
    `turns` are alternately those of human and model.
    """
    pieces = [chat.head.replace("{text}", system) if system else ""]
    mark = _written(chat, MODEL)[0]
    found = []
    for place, turn in enumerate(turns):
        if turn.role == MODEL and place:
            found.append((turn.number, (*pieces[:-1], pieces[-1] + mark), turn.text))
        before, after = _written(chat, turn.role)
        pieces.append(before + turn.text + after)
    if turns and turns[-1].role == HUMAN:
        found.append((turns[-1].number, (*pieces[:-1], pieces[-1] + mark), ""))
    return found


def opening(text: str, chat: ChatConfig) -> tuple[str, ...]:
    """The history, in pieces, of a conversation in which a human has said only this text."""
    return pairs([Turn(1, HUMAN, text)], chat, chat.system)[0][1]


def fit(turns: Sequence[str], longest: int, tokenizer: Tokenizer) -> list[int]:
    """Ids of a truncated history: its head and as many of its last turns as fit into `longest` ids.

    If the last turn does not fit beside the head, it is used alone; if it is too long by itself, its end is used.
    """
    head, *said = turns

    def ids(first: int) -> list[int]:
        return tokenizer.encode(head + "".join(said[first:]))

    first = bisect_left(range(len(said)), True, key=lambda place: len(ids(place)) <= longest)
    return ids(first) if first < len(said) else tokenizer.encode(said[-1], longest, from_left=True)


def _written(chat: ChatConfig, role: str) -> tuple[str, str]:
    """The text before and after a turn's own text, by the template."""
    before, after = chat.turn.replace("{role}", chat.human if role == HUMAN else chat.model).split("{text}")
    return before, after


def _settled(
    raw: Sequence[Any], chat: ChatConfig, where: str, note: Callable[..., None]
) -> tuple[str | None, list[Turn]]:
    """(system prompt, alternating turns of human and model), by the rules at the top of this file."""
    roles = {name.lower(): HUMAN for name in chat.human_roles} | {name.lower(): MODEL for name in chat.model_roles}
    roles |= {name.lower(): SYSTEM for name in chat.system_roles}
    system: str | None = None
    turns: list[Turn] = []
    for number, item in enumerate(raw, start=1):
        name, text = _said(item, f"{where}#{number}")
        role = roles.get(name.lower())
        if role is None:
            note(f"unknown role {name!r}, left out", number)
        elif not text.strip():
            note("empty turn, left out", number)
        elif role == SYSTEM and turns:
            note("system prompt after the first turn, left out", number)
        elif role == SYSTEM:
            if system is not None:
                note("second system prompt in a row, joined to the first", number)
            system = text if system is None else f"{system}\n{text}"
        elif turns and turns[-1].role == role:
            note(f"second {role} turn in a row, joined to the one before", number)
            turns[-1].text += f"\n{text}"
        else:
            if role == MODEL and not turns:
                note("the model speaks first: no pair, kept in the history", number)
            turns.append(Turn(number, role, text))
    return system, turns


def _objects(path: Path) -> list[Any]:
    """The objects of a file. Raises RequestError with the line of invalid JSON."""
    name = str(path)
    lines = read_lines(path)
    if path.suffix.lower() == ".jsonl":
        return [_parsed(line, name, number) for number, line in enumerate(lines, start=1) if line.strip()]
    tree = _parsed("\n".join(lines), name, 1)
    if not isinstance(tree, list):
        raise RequestError(f"{name}: a JSON {type(tree).__name__}; it should be a list of {LAYOUT}")
    return tree


def _parsed(text: str, name: str, line: int) -> Any:
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise RequestError(f"{name}:{line + error.lineno - 1}: not JSON: {error.msg}") from None
    if "\\ud" in text.lower():  # half of a surrogate pair cannot be encoded
        try:
            json.dumps(tree, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise RequestError(f"{name}:{line}: half of a surrogate pair (\\ud…); write both halves") from None
    return tree


def _checked(tree: Any, where: str) -> tuple[str, list[Any]]:
    """(id, turns) of one conversation. Raises RequestError if it is none."""
    turns = tree.get("conversations") if isinstance(tree, dict) else None
    if not isinstance(turns, list):
        raise RequestError(f"{where}: has no list of turns; it should be {LAYOUT}")
    return str(tree.get("id", "")), turns


def _said(item: Any, where: str) -> tuple[str, str]:
    """(from, value) of one turn; null becomes an empty text. Raises RequestError if it is no turn."""
    name, text = (item.get("from"), item.get("value")) if isinstance(item, dict) else (None, None)
    text = "" if text is None else text
    if not isinstance(name, str) or not isinstance(text, str):
        raise RequestError(f'{where}: no turn; it should be {{"from": "human", "value": "text"}}')
    return name, text
