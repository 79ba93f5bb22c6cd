"""A diagnosis as JUnit XML, as continuous integration reads it: a test case for each rule."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from sourcewise.diagnosis.answer import Diagnosis
from sourcewise.diagnosis.rules import RULES


def as_junit(diagnosis: Diagnosis, name: str) -> str:
    """Errors are failures; warnings and notes are written beside a case that passed; the rest is what was looked at.

    What was not checked is skipped, each reason as a case of its own.
    """
    suite = ET.Element("testsuite", name="sourcewise diagnose", time=f"{diagnosis.seconds:.3f}")
    found = {finding.code: finding for finding in diagnosis.findings}
    unseen = {code for code in RULES if any(code in words for words in diagnosis.not_checked)}
    for code, rule in RULES.items():
        if code in unseen and code not in found:
            continue
        case = ET.SubElement(suite, "testcase", classname=name, name=f"{code} {rule.name}")
        finding = found.get(code)
        if finding is None:
            continue
        text = f"{finding.evidence}\n\n{finding.cure}"
        if finding.level == "error":
            ET.SubElement(case, "failure", message=_said(finding.evidence), type=finding.level).text = _said(text)
        else:
            ET.SubElement(case, "system-out").text = _said(f"{finding.level}: {text}")
    for words in diagnosis.not_checked:
        case = ET.SubElement(suite, "testcase", classname=name, name=_said(f"not checked: {words}"))
        ET.SubElement(case, "skipped", message=_said(words))
    cases = list(suite)
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    suite.set("skipped", str(sum(case.find("skipped") is not None for case in cases)))
    ET.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"


def _said(text: str) -> str:
    """Without the control characters that XML cannot hold."""
    return "".join(c for c in text if c in "\n\t" or (ord(c) >= 32 and not 0xD800 <= ord(c) <= 0xDFFF))
