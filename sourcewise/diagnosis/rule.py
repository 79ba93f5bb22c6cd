"""A rule: one class in one file, that says what it measures, why, from where on, and what to do, and looks for it."""

from __future__ import annotations

import inspect
import re
import string
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Generic, TypeVar, get_args

from sourcewise.diagnosis.answer import Piece
from sourcewise.diagnosis.finding import Finding, Level
from sourcewise.diagnosis.measured import told

S = TypeVar("S")  # what a rule looks at
Findings = Iterator[Finding]

WIDTH = 88  # columns of `sourcewise explain`
TITLES = ("What it measures", "Why that is bad", "Threshold and its origin", "What to do")
IN_WORDS = {
    1e-4: "a ten-thousandth", 0.001: "a thousandth", 0.01: "a hundredth", 0.05: "a twentieth", 0.1: "a tenth",
    0.2: "a fifth", 0.25: "a quarter", 1 / 3: "a third", 0.5: "half",
    1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 8: "eight", 9: "nine",
}  # fmt: skip


class CannotTell(Exception):
    """What a rule, or what it measures by, cannot look at here, and why, in words for whoever reads the diagnosis."""


class Rule(Generic[S]):
    """What every rule has. A rule is a subclass that says what it looks at: `class EmptyOutputs(Rule[Outputs])`.

    Its docstring is its page: the sections of `TITLES`, in paragraphs; indented lines are to be pasted. The numbers of
    the class are its thresholds: the check uses them as attributes, the page as placeholders, so that both say the
    same. `{bound}` is the number, `{share:%}` a share in percent, `{share:points}` the same without the sign, and
    `{share:words}` "a tenth".
    """

    code: ClassVar[str]
    name: ClassVar[str]
    level: ClassVar[Level]  # the gravest level its findings have
    explained_by: ClassVar[str] = ""  # its causes, as patterns (see `matching`): it is never listed above them
    explains: ClassVar[str] = ""  # the same from the other end, for symptoms that do not know this rule
    implied_by: ClassVar[str] = ""  # codes that say it already; "OUT001:error": where that is an error
    error: ClassVar[float]  # thresholds of `from_on` and `below`
    warning: ClassVar[float]
    rank: ClassVar[float]  # among those of one level in its group: its number, unless it is given

    what: ClassVar[str]  # the four sections of the page
    why: ClassVar[str]
    threshold: ClassVar[str]
    cure: ClassVar[str]
    subject: ClassVar[type]

    causes: tuple[str, ...] = ()  # the codes that explain it, of the rules that there are
    package: str = ""  # that brought it, where it is none of ours

    def __init_subclass__(cls) -> None:
        if "code" not in cls.__dict__:
            return  # what several rules have in common
        cls.rank = cls.__dict__.get("rank", float(re.sub(r"\D", "", cls.code)))
        bases = [base for of in cls.__mro__ for base in getattr(of, "__orig_bases__", ())]
        cls.subject = next(get_args(base)[0] for base in bases if get_args(base))
        texts = parsed(inspect.cleandoc(cls.__doc__ or ""))
        if tuple(texts) != TITLES:
            raise TypeError(f"{cls.__name__}: its docstring has the sections {', '.join(TITLES)}, in this order")
        pages = [_Filled(cls).format(text) for text in texts.values()]
        cls.what, cls.why, cls.threshold, cls.cure = pages

    def check(self, subject: S) -> Findings:
        """What it finds. Raises CannotTell where there is nothing to tell by; what several say so is listed once."""
        raise NotImplementedError

    @classmethod
    def finding(cls, evidence: str, level: Level | None = None, cure: str | None = None) -> Finding:
        """This rule found, with the numbers that show it; level and cure are the rule's own unless given."""
        return Finding(cls.code, cls.name, level or cls.level, evidence, cure or cls.cure)

    @classmethod
    def from_on(cls, value: float) -> Level | None:
        """How grave a value is that is worse the larger it is: from `warning` and from `error` on."""
        return "error" if value >= cls.error else "warning" if value >= cls.warning else None

    @classmethod
    def below(cls, value: float) -> Level | None:
        """How grave a value is that is worse the smaller it is: below `warning` and below `error`."""
        return "error" if value < cls.error else "warning" if value < cls.warning else None

    @classmethod
    def thresholds(cls) -> dict[str, float]:
        """Its numbers, by their names."""
        members = {name: value for of in reversed(cls.__mro__) for name, value in vars(of).items()}
        numbers = {n: v for n, v in members.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
        return {n: v for n, v in numbers.items() if n != "rank" and not n.startswith("_")}

    @property
    def sections(self) -> tuple[tuple[str, str], ...]:
        """Titles and texts of its page."""
        measured = told(self.cure)
        texts = zip(TITLES, (self.what, self.why, self.threshold, self.cure), strict=True)
        return (*texts, *([("What that did when it was measured", measured)] if measured else []))

    def page(self) -> str:
        """The rule in full, for a terminal."""
        parts = [f"{self.code}: {self.name} ({self.level}{self.package and f', of {self.package}'})"]
        parts += [f"{title}\n{_folded(text)}" for title, text in self.sections]
        if self.causes:
            parts.append(f"Look first at\n{_folded(', '.join(self.causes) + ': where one is found, it is the cause.')}")
        return "\n\n".join(parts)


def parsed(text: str) -> dict[str, str]:
    """A docstring's sections, by title: a paragraph a line, and lines that are to be pasted, indented by two spaces."""
    found: dict[str, list[str]] = {}
    for block in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = block.partition("\n")
        lines: list[str] = []
        goes_on = False
        for line in body.splitlines():
            pasted = line.startswith("  ")
            if goes_on and line and not pasted:
                lines[-1] += " " + line
            elif line:
                lines.append("  " + line.strip() if pasted else line)
            goes_on = bool(line) and not pasted
        found[title.strip()] = lines
    return {title: "\n".join(lines) for title, lines in found.items()}


def matching(patterns: str, codes: Sequence[str]) -> list[str]:
    """The codes that patterns mean, "DAT* -DAT008 TRN001..TRN005": all of a kind, but not one; from one to another."""
    found: set[str] = set()
    for pattern in patterns.split():
        first, _, last = pattern.removeprefix("-").partition("..")
        these = {code for code in codes if (first <= code <= last if last else fnmatchcase(code, first))}
        found = found - these if pattern.startswith("-") else found | these
    return [code for code in codes if code in found]


def asked(rules: Iterable[Rule[Any]], subject: Any) -> Piece:
    """What these rules find, of those that are over such a subject, and what they cannot tell."""
    found: dict[Rule[Any], list[Finding]] = {}
    missing: dict[str, None] = {}  # what several cannot tell in the same words is said once
    for rule in rules:
        if isinstance(subject, rule.subject):
            found[rule] = []
            try:
                found[rule].extend(rule.check(subject))
            except CannotTell as why:
                missing[str(why)] = None
            except Exception as problem:
                if not rule.package:
                    raise
                missing[f"{rule.name} ({rule.code}, of {rule.package}): {type(problem).__name__}: {problem}"] = None
    return Piece([each for rule, said in found.items() if not _implied(rule, found) for each in said], [*missing])


def _implied(rule: Rule[Any], found: dict[Rule[Any], list[Finding]]) -> bool:
    """Whether what a rule found is said by another that is listed."""
    for pattern in rule.implied_by.split():
        code, _, level = pattern.partition(":")
        for other, said in found.items():
            if other.code == code and any(level in ("", each.level) for each in said) and not _implied(other, found):
                return True
    return False


class _Filled(string.Formatter):
    """Placeholders for attributes of a class, numbers in the ways in which pages say them."""

    def __init__(self, of: type) -> None:
        self.of = of

    def get_value(self, key: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The attribute of this name."""
        return getattr(self.of, str(key))

    def format_field(self, value: Any, spec: str) -> Any:
        """See `Rule`."""
        if not isinstance(value, (int, float)):
            return value
        if spec in ("%", "points"):
            return f"{100 * value:.6g}" + " %" * (spec == "%")
        if spec in ("words", "Words"):
            words = IN_WORDS.get(value) or _number(value)
            return words if spec == "words" else words[0].upper() + words[1:]
        return _number(value) if not spec else super().format_field(value, spec)


def _number(value: float) -> str:
    if 0 < abs(value) < 1e-3:
        return re.sub(r"e-0*", "e-", f"{value:.0e}")
    return f"{value:,.6g}"


def _folded(text: str) -> str:
    """Paragraphs folded to the width; lines that begin with two spaces (to paste) stay as they are."""
    lines = []
    for line in text.split("\n"):
        if line.startswith("  "):
            lines.append("  " + line)
        else:
            lines += textwrap.wrap(line, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(lines)
