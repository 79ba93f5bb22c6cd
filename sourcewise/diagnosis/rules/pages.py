"""The rules as Markdown, a page each and an index, of the same text as `sourcewise explain`.

python -m sourcewise.diagnosis.rules.pages docs/rules
"""

from __future__ import annotations

import re
import sys
import textwrap
from itertools import groupby
from pathlib import Path
from typing import Any

from sourcewise.diagnosis.rules import RULES, Rule
from sourcewise.diagnosis.symptoms import SYMPTOMS, Symptom
from sourcewise.errors import RequestError
from sourcewise.runtime.files import write_atomically

INDEX, SYMPTOM = "README.md", "symptom-"  # file of the index, and beginning of those of symptoms
LINE = 120  # characters
KINDS = {  # by the letters of a code, in the order in which causes come before symptoms
    "DAT": "Data",
    "WIR": "Wiring",
    "TRN": "Training",
    "MEM": "Memory",
    "ATT": "Cross-attention",
    "SRC": "Source use",
    "OUT": "Outputs",
}
_SPECIAL = re.compile(r"([\\*_<>\[\]])")
_MADE = "<!-- Made by `python -m sourcewise.diagnosis.rules.pages docs/rules`; what is written here is lost. -->"


def pages() -> dict[str, str]:
    """File name → Markdown: one page per rule, one per symptom, and the index."""
    ours = [rule for rule in RULES.values() if not rule.package]
    of_symptoms = {f"{SYMPTOM}{each.slug}.md": symptom_page(each) for each in SYMPTOMS}
    return {INDEX: index(ours), **{f"{rule.code}.md": page(rule) for rule in ours}, **of_symptoms}


def symptom_page(symptom: Symptom) -> str:
    """One symptom: what to ask first, and the rules that find its causes, in that order."""
    rows = [f"| [{code}]({code}.md) | {_escaped(RULES[code].name)} | {RULES[code].level} |" for code in symptom.rules]
    table = "\n".join(["| code | name | level |", "|---|---|---|", *rows])
    first = symptom.first[0].upper() + symptom.first[1:]
    command = f'`sourcewise explain "{symptom.name}"` says the same; `sourcewise diagnose RUN` asks all of these rules.'
    title = f"# Symptom: {symptom.name}"
    return (
        "\n\n".join([_MADE, title, _filled(_escaped(first)), table, _filled(command), f"[All rules]({INDEX})"]) + "\n"
    )


def index(rules: list[Rule[Any]]) -> str:
    """All rules by kind: code, name, level, and what is measured."""
    parts = [
        _MADE,
        "# Rules",
        _filled(
            "What `sourcewise diagnose` looks for. An error makes a model useless as it is, a warning costs quality, a "
            "note is worth knowing; the level is the gravest that a rule has. `sourcewise explain CODE` shows a page "
            "in the terminal."
        ),
    ]
    links = ", ".join(f"[{each.name}]({SYMPTOM}{each.slug}.md)" for each in SYMPTOMS)
    parts += ["## By symptom", _filled(f"{links}.")]
    order = [*KINDS, *sorted({_letters(rule) for rule in rules} - {*KINDS})]
    ordered = sorted(rules, key=lambda rule: (order.index(_letters(rule)), rule.code))
    for letters, found in groupby(ordered, key=_letters):
        rows = [f"| [{rule.code}]({rule.code}.md) | {_escaped(rule.name)} | {rule.level} |" for rule in found]
        parts += [f"## {KINDS.get(letters, letters)}", "\n".join(["| code | name | level |", "|---|---|---|", *rows])]
    return "\n\n".join(parts) + "\n"


def page(rule: Rule[Any]) -> str:
    """One rule in full."""
    parts = [_MADE, f"# {rule.code}: {_escaped(rule.name)}", f"Level: {rule.level}."]
    for title, text in rule.sections:
        parts += [f"## {title}", _markdown(text)]
    if rule.causes:
        codes = ", ".join(f"[{code}]({code}.md)" for code in rule.causes)
        parts += ["## Look first at", _filled(f"{codes}: where one is found, it is the cause.")]
    return "\n\n".join([*parts, f"[All rules]({INDEX})"]) + "\n"


def write(folder: Path) -> None:
    """Write all pages into a folder; those of rules that are no more are removed. Raises RequestError."""
    made = pages()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in made.items():
            write_atomically(folder / name, text)
        for pattern in ("[A-Z][A-Z][A-Z][0-9]*.md", f"{SYMPTOM}*.md"):
            for old in folder.glob(pattern):
                if old.name not in made:
                    old.unlink()
    except OSError as error:
        raise RequestError(f"{folder}: cannot be written ({error.strerror})") from None


def _letters(rule: Rule[Any]) -> str:
    return rule.code.rstrip("0123456789")


def _markdown(text: str) -> str:
    """Paragraphs; lines that begin with two spaces are to be pasted."""
    blocks = []
    for pasted, lines in groupby(text.split("\n"), key=lambda line: line.startswith("  ")):
        if pasted:
            blocks.append("\n".join(["```sh", *(line.strip() for line in lines), "```"]))
        else:
            blocks += [_filled(_escaped(line)) for line in lines if line.strip()]
    return "\n\n".join(blocks)


def _filled(paragraph: str) -> str:
    """A paragraph in lines as long as those of the code."""
    return textwrap.fill(paragraph, LINE, break_long_words=False, break_on_hyphens=False)


def _escaped(text: str) -> str:
    """What Markdown would take for its own, outside of `code`."""
    parts = text.split("`")
    marked = (part if place % 2 else _SPECIAL.sub(r"\\\1", part) for place, part in enumerate(parts))
    return "`".join(marked).replace("\\<", "&lt;").replace("\\>", "&gt;")  # the site's Markdown knows no \\<


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        write(Path(sys.argv[1]))
    except RequestError as problem:
        print(f"sourcewise: error: {problem}", file=sys.stderr)
        sys.exit(2)
