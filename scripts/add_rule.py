"""Make the files of a new rule: the rule itself, its test, and its page.

python scripts/add_rule.py DAT099 pairs-of-one-language
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

GROUPS = {  # letters → folder, what the rules there look at, and the module of that
    "DAT": ("data", "Pairs", "sourcewise.diagnosis.pairs"),
    "WIR": ("wiring", "Wiring", "sourcewise.diagnosis.wiring"),
    "TRN": ("training", "Course", "sourcewise.diagnosis.course"),
    "MEM": ("source", "Trained", "sourcewise.diagnosis.trained"),
    "ATT": ("source", "Trained", "sourcewise.diagnosis.trained"),
    "SRC": ("source", "Trained", "sourcewise.diagnosis.trained"),
    "OUT": ("outputs", "Outputs", "sourcewise.diagnosis.outputs"),
}
RULE = '''from {module} import {subject}
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class {title}(Rule[{subject}]):
    """TODO

    ## Why that is bad
    TODO

    ## Threshold and its origin
    Warning from {{warning:%}}, error from {{error:%}}. TODO: measured on what?
    """

    code, name, level = "{code}", "{words}", "error"
    explained_by = ""
    warning, error = 0.1, 0.5  # TODO: of what
    cures = Cure("TODO: words, and below them options:", {{"data.train.limit": 1000}})

    def check(self, {argument}: {subject}) -> Findings:
        share = 0.0  # TODO; `raise CannotTell(what, why)` where there is nothing to tell by
        if level := self.from_on(share):
            yield self.finding(f"{{100 * share:.0f}} % of TODO", level)
'''
TEST = '''"""{code}: {words}."""

import pytest

from sourcewise.diagnosis.rules import RULES


@pytest.mark.skip(reason="TODO: plant the fault, and show that healthy ones have no finding")
def test_{name}() -> None:
    assert RULES["{code}"]
'''


def main(code: str, name: str) -> None:
    """Write the files. Raises SystemExit with a line that says what is wrong."""
    if not re.fullmatch(r"[A-Z]{3}\d{3}", code) or code[:3] not in GROUPS:
        raise SystemExit(f"{code}: a code is one of {', '.join(GROUPS)} and three digits, such as DAT099")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise SystemExit(f"{name}: a name is words of small letters, such as pairs-of-one-language")
    root = Path(__file__).parents[1]
    group, subject, module = GROUPS[code[:3]]
    folder = root / "sourcewise" / "diagnosis" / "rules" / group
    if there := list(folder.glob(f"{code.lower()}_*.py")):
        raise SystemExit(f"{there[0].relative_to(root)}: there is a rule {code} already")
    words, under = name.replace("-", " "), name.replace("-", "_")
    texts = {"code": code, "words": words, "name": under, "title": words.title().replace(" ", ""), "module": module}
    texts |= {"subject": subject, "argument": subject.lower()}
    rule = folder / f"{code.lower()}_{under}.py"
    test = root / "tests" / "diagnosis" / "rules" / f"test_{code.lower()}_{under}.py"
    test.parent.mkdir(parents=True, exist_ok=True)
    rule.write_text(RULE.format(**texts), encoding="utf-8")
    test.write_text(TEST.format(**texts), encoding="utf-8")
    pages = [sys.executable, "-m", "sourcewise.diagnosis.rules.pages", "docs/rules"]
    subprocess.run(pages, cwd=root, check=True)
    for path in (rule, test, root / "docs" / "rules" / f"{code}.md"):
        print(path.relative_to(root))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
