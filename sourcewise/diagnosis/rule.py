"""A rule: one class in one file, that says what it measures, why, from where on, and what to do, and looks for it."""

from __future__ import annotations

import inspect
import re
import string
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Generic, TypeVar, get_args

from sourcewise.diagnosis.answer import Piece
from sourcewise.diagnosis.cure import Cure, pasted
from sourcewise.diagnosis.finding import Finding, Level
from sourcewise.diagnosis.measured import told

__all__ = ["CannotTell", "Cure", "Findings", "Rule"]

S = TypeVar("S")  # what a rule looks at

WIDTH = 88  # columns of `sourcewise explain`
TITLES = ("What it measures", "Why that is bad", "Threshold and its origin")  # of a docstring
CURES = "What to do"
IN_WORDS = {
    1e-4: "a ten-thousandth", 0.001: "a thousandth", 0.01: "a hundredth", 0.05: "a twentieth", 0.1: "a tenth",
    0.2: "a fifth", 0.25: "a quarter", 1 / 3: "a third", 0.5: "half",
    1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 8: "eight", 9: "nine",
}  # fmt: skip


class CannotTell(Exception):
    """What cannot be looked at here, and why, in words for whoever reads the diagnosis; a rule raises or yields it."""

    def __init__(self, what: str, why: str = "") -> None:
        super().__init__(what, why)
        self.what, self.why = what, why


Findings = Iterator[Finding | CannotTell]


class Rule(Generic[S]):
    """What every rule has. A rule is a subclass that says what it looks at: `class EmptyOutputs(Rule[Outputs])`.

    Its docstring is its page: what it measures, and the other sections of `TITLES`, in paragraphs. The numbers of the
    class are its thresholds: the check uses them as attributes, the page as placeholders, so that both say the same.
    `{bound}` is the number, `{share:%}` a share in percent, `{share:points}` the same without the sign, and
    `{share:words}` "a tenth".
    """

    code: ClassVar[str]
    name: ClassVar[str]  # a fault, as in "allow empty outputs"
    level: ClassVar[Level]  # the gravest level its findings have
    cures: ClassVar[Cure | tuple[Cure, ...]]
    explained_by: ClassVar[str] = ""  # its causes, as patterns (see `matching`): it is never listed above them
    explains: ClassVar[str] = ""  # the same from the other end, for symptoms that do not know this rule
    implied_by: ClassVar[str] = ""  # codes that say it already; "OUT001:error": where that is an error
    implies: ClassVar[str] = ""  # the same from the other end, as patterns
    excuses: ClassVar[str] = ""  # codes that are notes where this is found, and `softens` those a level lower
    softens: ClassVar[str] = ""
    learned: ClassVar[bool]  # it is of what a training has come to: a note while it is too early to judge that
    says_why: ClassVar[str] = ""  # codes of errors beside which it is then a level lower, and no note
    until_the_end: ClassVar[bool] = False  # a note on a training's own sets as long as that gets better
    gets_better: ClassVar[bool] = False  # where it is found, one that is over still got better
    error: ClassVar[float]  # thresholds of `from_on` and `below`
    warning: ClassVar[float]
    rank: ClassVar[float]  # among those of one level in its group: its number, unless it is given

    all_cures: ClassVar[tuple[Cure, ...]]
    cure: ClassVar[str]  # the same as our own recipes take them
    subject: ClassVar[type]
    written: ClassVar[tuple[str, ...]]  # the sections of its docstring

    causes: tuple[str, ...] = ()  # the codes that explain it, of the rules that there are
    package: str = ""  # that brought it, where it is none of ours

    def __init_subclass__(cls) -> None:
        if "code" not in cls.__dict__:
            return  # what several rules have in common
        cls.rank = cls.__dict__.get("rank", float(re.sub(r"\D", "", cls.code)))
        bases = [base for of in cls.__mro__ for base in getattr(of, "__orig_bases__", ())]
        cls.subject = next(get_args(base)[0] for base in bases if get_args(base))
        cls.learned = cls.__dict__.get("learned", getattr(cls.subject, "learned", False))
        texts = parsed(inspect.cleandoc(cls.__doc__ or ""))
        if tuple(texts) != TITLES or not getattr(cls, "cures", ()):
            raise TypeError(f"{cls.__name__}: its docstring has the sections {', '.join(TITLES)}, and it has cures")
        cls.written = tuple(_Filled(cls).format(text) for text in texts.values())
        cls.all_cures = (cls.cures,) if isinstance(cls.cures, Cure) else cls.cures
        cls.cure = pasted(cls.all_cures)

    def check(self, subject: S) -> Findings:
        """What it finds, and what it cannot tell; what several rules cannot tell in the same words is listed once."""
        raise NotImplementedError

    def excusing(self, found: Mapping[str, Level]) -> bool:
        """Whether it excuses anything beside all that is `found`, by code."""
        return True

    @classmethod
    def finding(cls, evidence: str, level: Level | None = None, *cures: Cure) -> Finding:
        """This rule found, with the numbers that show it; level and cures are the rule's own unless given."""
        chosen = cures or cls.all_cures
        return Finding(cls.code, cls.name, level or cls.level, evidence, pasted(chosen), chosen)

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
        measured = told(self.all_cures)
        texts = zip((*TITLES, CURES), (*self.written, self.cure), strict=True)
        return (*texts, *([("What that did when it was measured", measured)] if measured else []))

    def page(self) -> str:
        """The rule in full, for a terminal."""
        parts = [f"{self.code}: {self.name} ({self.level}{self.package and f', of {self.package}'})"]
        parts += [f"{title}\n{_folded(text)}" for title, text in self.sections]
        if self.causes:
            parts.append(f"Look first at\n{_folded(', '.join(self.causes) + ': where one is found, it is the cause.')}")
        return "\n\n".join(parts)


def parsed(text: str) -> dict[str, str]:
    """A docstring's sections, by title, one line per paragraph; its beginning is the first of `TITLES`."""
    found: dict[str, str] = {}
    for block in re.split(r"^## ", f"## {TITLES[0]}\n{text}", flags=re.MULTILINE)[1:]:
        title, _, body = block.partition("\n")
        found[title.strip()] = "\n".join(" ".join(lines.split()) for lines in body.strip().split("\n\n"))
    return found


def matching(patterns: str, codes: Sequence[str]) -> list[str]:
    """The codes that patterns mean, "DAT* -DAT008 TRN001..TRN005": all of a kind, but not one; from one to another."""
    found: set[str] = set()
    for pattern in patterns.split():
        first, _, last = pattern.removeprefix("-").partition("..")
        these = {code for code in codes if (first <= code <= last if last else fnmatchcase(code, first))}
        found = found - these if pattern.startswith("-") else found | these
    return [code for code in codes if code in found]


def span(codes: Collection[str]) -> str:
    """Codes in words: "MEM001, MEM002", "SRC001, OUT001 to OUT009"; their letters in the order in which they come."""
    runs: list[list[str]] = []
    order = list(dict.fromkeys(code.rstrip("0123456789") for code in codes))
    for code in sorted(codes, key=lambda code: (order.index(code.rstrip("0123456789")), code)):
        letters, number = code.rstrip("0123456789"), int(re.sub(r"\D", "", code) or 0)
        if runs and runs[-1][-1] == f"{letters}{number - 1:03d}":
            runs[-1].append(code)
        else:
            runs.append([code])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(run) for run in runs)


def asked(rules: Iterable[Rule[Any]], subjects: Sequence[Any]) -> Piece:
    """What these rules find, each of the subjects that it is over, and what they cannot tell."""
    found: dict[Rule[Any], list[Finding]] = {}
    missing: dict[tuple[str, str], dict[str, None]] = {}  # what and why → whose codes say so
    for rule in rules:
        for subject in (each for each in subjects if isinstance(each, rule.subject)):
            try:
                for said in rule.check(subject):
                    if isinstance(said, CannotTell):
                        missing.setdefault((said.what, said.why), {})[rule.code] = None
                    else:
                        found.setdefault(rule, []).append(said)
            except CannotTell as said:
                missing.setdefault((said.what, said.why), {})[rule.code] = None
            except Exception as problem:
                if not rule.package:
                    raise
                why = f"{type(problem).__name__}: {problem}"
                missing[rule.name, why] = {f"{rule.code}, of {rule.package}": None}
    listed = [each for rule, findings in found.items() if not _implied(rule, found) for each in findings]
    return Piece(listed, [not_checked(what, codes, why) for (what, why), codes in missing.items()])


def not_checked(what: str, codes: Collection[str], why: str) -> str:
    """What could not be looked at, which rules would have, and why, in a line."""
    return f"{what} ({span(codes)})" + (f": {why}" if why else "")


def _implied(rule: Rule[Any], found: dict[Rule[Any], list[Finding]]) -> bool:
    """Whether what a rule found is said by another that is listed."""
    by = dict(pattern.partition(":")[::2] for pattern in rule.implied_by.split())
    for other, said in found.items():
        named = other.code in by and any(by[other.code] in ("", each.level) for each in said)
        if (named or (other is not rule and matching(other.implies, [rule.code]))) and not _implied(other, found):
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
