"""Sets of references and outputs in many languages and forms, and what the command lines of others print of them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEXTS = {
    "en": 'the cat sat on the mat . a dog, quite old, runs in the park today ! It isn\'t 3.5 km; is it? "Yes" said he',
    "de": "Über den Wolken muß die Freiheit wohl grenzenlos sein , sagte Änne und lachte – laut .",
    "ru": "Кошка сидит на ковре , а собака бежит в парк . Это не так далеко , правда ?",
    "ko": "고양이가 매트 위에 앉아 있다 . 개가 오늘 공원에서 뛰고 있습니다 그것은 아주 멀지 않다 정말요 ?",
    "tr": "Isparta'dan İstanbul'a giden yol çok uzun değil , dedi ve güldü .",
}
UNSPACED = {
    "zh": "我们今天去公园里散步猫坐在垫子上狗跑得很快,你好吗?他说3月5日不远。",
    "ja": "猫はマットの上に座っています。今日は公園で犬が走る、とても遠くない3キロです。",
    "th": "แมวนั่งอยู่บนเสื่อสุนัขวิ่งในสวนสาธารณะวันนี้ไม่ไกลมาก",
}


@dataclass(frozen=True)
class Case:
    """A set in files, and the options that both sides get."""

    name: str
    references: list[list[str]]  # files of lines
    outputs: list[str]
    ours: tuple[str, ...] = ()
    sacrebleu: tuple[str, ...] = ()
    end: str = "\n"

    @property
    def for_jiwer(self) -> bool:
        """Whether jiwer's command line takes it: it has no option for case, and leaves out lines of one character."""
        texts = [*self.outputs, *self.references[0]]
        return "--lowercase" not in self.ours and all(len(text.strip()) > 1 for text in texts)


def spaced(language: str, seed: int, lines: int = 40) -> tuple[list[str], list[str]]:
    """References of words, and outputs with some of them changed."""
    draw, words = random.Random(seed), TEXTS[language].split()
    references = [" ".join(draw.choices(words, k=draw.randint(2, 18))) for _ in range(lines)]
    return references, [" ".join(_noisy(text.split(), words, draw)) for text in references]


def unspaced(language: str, seed: int, lines: int = 40) -> tuple[list[str], list[str]]:
    """The same of characters."""
    draw, letters = random.Random(seed), list(UNSPACED[language])
    references = ["".join(draw.choices(letters, k=draw.randint(4, 25))) for _ in range(lines)]
    return references, ["".join(_noisy(list(text), letters, draw)) for text in references]


def _noisy(parts: list[str], known: Sequence[str], draw: random.Random) -> list[str]:
    found = []
    for part in parts:
        chance = draw.random()
        if chance < 0.7:
            found.append(part)
        elif chance < 0.85:
            found += [draw.choice(known)] * draw.randint(1, 2)
    return found or [parts[0]]


def cases() -> list[Case]:
    """Twenty sets."""
    found = []
    for language in TEXTS:
        references, outputs = spaced(language, len(found))
        found.append(Case(language, [references], outputs))
    for language, tokenize in (("zh", "zh"), ("ja", "char"), ("th", "char"), ("zh", "13a"), ("ja", "intl")):
        references, outputs = unspaced(language, len(found))
        chosen = ("--bleu-tokenize", tokenize), ("--tokenize", tokenize)
        found.append(Case(f"{language}-{tokenize}", [references], outputs, *chosen))
    return found + _options() + _several() + _odd()


def _options() -> list[Case]:
    references, outputs = spaced("en", 11)
    shouted = [text.upper() if i % 2 else text for i, text in enumerate(outputs)]
    lower = ("-lc", "--chrf-lowercase")
    asian, their_asian = ("--ter-normalized", "--ter-asian"), ("--ter-normalized", "--ter-asian-support")
    zh = unspaced("zh", 12)
    return [
        Case("lower", [references], shouted, ("--lowercase",), lower),
        Case("tokenised", [references], outputs, ("--bleu-tokenize", "none"), ("--tokenize", "none")),
        Case("smooth", [references], outputs, ("--bleu-smooth", "add-k"), ("--smooth-method", "add-k")),
        Case("ter-zh", [zh[0]], zh[1], ("--bleu-tokenize", "zh", *asian), ("--tokenize", "zh", *their_asian)),
    ]


def _several() -> list[Case]:
    first, outputs = spaced("en", 13)
    second, third = spaced("en", 13)[1], spaced("de", 14)[0]
    zh, said = unspaced("zh", 15)
    other = unspaced("zh", 15)[1][::-1]
    tokenize = ("--bleu-tokenize", "zh"), ("--tokenize", "zh")
    return [
        Case("two references", [first, second[::-1]], outputs),
        Case("three references", [first, third, second], outputs[::-1]),
        Case("zh, two references", [zh, other], said, *tokenize),
    ]


def _odd() -> list[Case]:
    references, outputs = spaced("en", 16)
    gaps = ["" if i % 7 == 3 else text + "  " * (i % 2) for i, text in enumerate(outputs)]
    inside = [text.replace(" ", "\u2028", 1) if i % 5 == 0 else f"{text}\u00a0" for i, text in enumerate(outputs)]
    empty = ["" if i % 9 == 4 else text for i, text in enumerate(references)]
    return [
        Case("empty outputs", [references], gaps),
        Case("empty references and line ends of DOS", [empty], outputs, end="\r\n"),
        Case("separators of Unicode", [references], inside),
    ]


def written(case: Case, folder: Path) -> tuple[list[str], str]:
    """(files of references, file of outputs)."""
    files = []
    for i, lines in enumerate([*case.references, case.outputs]):
        file = folder / f"{case.name}.{i}".replace(" ", "_").replace(",", "")
        file.write_bytes("".join(line + case.end for line in lines).encode())
        files.append(str(file))
    return files[:-1], files[-1]


def run(*words: str) -> str:
    """Standard output of a command line."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def of_sacrebleu(references: Sequence[str], outputs: Sequence[str], *options: str) -> list[dict[str, Any]]:
    """What `sacrebleu -f json` prints."""
    words = [sys.executable, "-m", "sacrebleu", *references, "-i", *outputs, "-f", "json", "--force", *options]
    printed = json.loads(run(*words))
    return printed if isinstance(printed, list) else [printed]


def of_jiwer(references: str, outputs: str, *options: str) -> float:
    """What `jiwer` prints."""
    return float(run(sys.executable, "-m", "jiwer.cli", "-r", references, "-h", outputs, *options))
