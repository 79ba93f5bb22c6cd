"""Adds entries to an existing tokenizer.json: texts that become one id each, and decode to exactly the same text.

A tokenizer that writes spaces as ▁ puts one before every word, also before a word that follows a new entry, and drops
the spaces beside the entry: `{"a": 1}` would be decoded as `{ "a": 1}`. So its settings are changed: ▁ is put before
the complete text only, and spaces beside new entries are kept. Texts without new entries keep their ids, except for a
space at the end. Tokenizers that were trained here keep all spaces anyway; their entries are matched in the complete
text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from sourcewise.data.tokenizers.training import FIRST

SPACES = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
TRIMS = ("Strip", "WhitespaceSplit")  # steps that drop spaces at the ends of the text between two entries


def add_entries(text: str, first_id: int, entries: Sequence[str]) -> str:
    """The text of a tokenizer.json with new entries, whose ids start at `first_id`."""
    tree = json.loads(text)
    if _metaspace(tree.get("pre_tokenizer")):
        _keep_spaces(tree)
    own = _trained_here(tree)
    if own is not None:  # else an entry that begins with a space would be matched with two
        own["pattern"]["Regex"] += "".join(f"(?!{re.escape(entry[1:])}\\z)" for entry in entries if entry[0] == " ")
    kind = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": own is not None, "special": False}
    tree["added_tokens"] = [
        *(tree.get("added_tokens") or []),
        *({"id": first_id + n, "content": entry, **kind} for n, entry in enumerate(entries)),
    ]
    return json.dumps(tree, ensure_ascii=False, indent=2)


def _trained_here(tree: dict[str, Any]) -> dict[str, Any] | None:
    """The normalizer's step that doubles a text's first space; None if there is none."""
    for step in _steps(tree.get("normalizer"), "normalizers"):
        if step["type"] == "Replace" and str(step["pattern"].get("Regex", "")).startswith(FIRST):
            return step if step["content"] == "  " else None
    return None


def _steps(part: dict[str, Any] | None, of: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, which is one step or a sequence; `of` is the sequence's key."""
    if part is None:
        return []
    return list(part[of]) if part["type"] == "Sequence" else [part]


def _metaspace(pre_tokenizer: dict[str, Any] | None) -> bool:
    """Whether spaces are written as ▁, with one before the text."""
    steps = [step for step in _steps(pre_tokenizer, "pretokenizers") if step["type"] == "Metaspace"]
    usual = ["always" if step.get("add_prefix_space", True) else "never" for step in steps]  # older files
    return any(step.get("prepend_scheme", scheme) == "always" for step, scheme in zip(steps, usual, strict=True))


def _keep_spaces(tree: dict[str, Any]) -> None:
    normalizers = [step for step in _steps(tree.get("normalizer"), "normalizers") if not _trims(step)]
    cuts = [step for step in _steps(tree["pre_tokenizer"], "pretokenizers") if not _trims(step)]
    cuts = [
        {"type": "Metaspace", "replacement": step["replacement"], "prepend_scheme": "first", "split": True}
        if step["type"] == "Metaspace"
        else step
        for step in cuts
    ]
    tree["normalizer"] = {"type": "Sequence", "normalizers": [*normalizers, SPACES]}
    tree["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": cuts}
    for entry in tree.get("added_tokens") or []:
        if entry["special"]:  # beside a sentinel no space is kept, as before
            entry["lstrip"] = True


def _trims(step: dict[str, Any]) -> bool:
    ends = step["type"] == "Replace" and r"\A" in str(step["pattern"].get("Regex", ""))
    return step["type"] in TRIMS or ends
