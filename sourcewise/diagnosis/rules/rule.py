"""A rule: what is measured, why that is bad, from where on, and what to do."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from sourcewise.diagnosis.finding import Finding, Level
from sourcewise.diagnosis.measured import told

WIDTH = 88  # columns of `sourcewise explain`


@dataclass(frozen=True, slots=True)
class Rule:
    """The text of one code. `causes` are the codes that explain this one away: it is never listed above them."""

    code: str
    name: str
    level: Level  # the gravest level its findings have
    what: str
    why: str
    threshold: str
    cure: str
    causes: tuple[str, ...] = ()

    def finding(self, evidence: str, level: Level | None = None, cure: str | None = None) -> Finding:
        """This rule found, with the numbers that show it; level and cure are the rule's own unless given."""
        return Finding(self.code, self.name, level or self.level, evidence, cure or self.cure)

    @property
    def sections(self) -> tuple[tuple[str, str], ...]:
        """Titles and texts of its page."""
        measured = told(self.cure)
        return (
            ("What it measures", self.what),
            ("Why that is bad", self.why),
            ("Threshold and its origin", self.threshold),
            ("What to do", self.cure),
            *([("What that did when it was measured", measured)] if measured else []),
        )

    def page(self) -> str:
        """The rule in full, for a terminal."""
        sections = [f"{self.code}: {self.name} ({self.level})"]
        sections += [f"{title}\n{_filled(text)}" for title, text in self.sections]
        if self.causes:
            sections.append(
                f"Look first at\n{_filled(', '.join(self.causes) + ': where one is found, it is the cause.')}"
            )
        return "\n\n".join(sections)


def _filled(text: str) -> str:
    """Paragraphs folded to the width; lines that begin with two spaces (to paste) stay as they are."""
    lines = []
    for line in text.split("\n"):
        if line.startswith("  "):
            lines.append("  " + line)
        else:
            lines += textwrap.wrap(line, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(lines)
