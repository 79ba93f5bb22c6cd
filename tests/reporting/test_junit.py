"""A diagnosis for continuous integration."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from sourcewise.cli import main
from sourcewise.diagnosis.answer import Diagnosis
from sourcewise.diagnosis.rules import RULES
from sourcewise.reporting.junit import as_junit
from tests.diagnosis.test_data_alone import table
from tests.diagnosis.test_data_rules import shuffled, translations


def test_levels_and_what_was_not_checked() -> None:
    error, warning = RULES["DAT003"].finding("a < b & \x01"), RULES["DAT022"].finding("x", "warning")
    suite = ET.fromstring(as_junit(Diagnosis([error, warning], ["the wiring (WIR001): none"], 1.5), "runs/<mine>"))
    assert (suite.get("failures"), suite.get("skipped"), suite.get("time")) == ("1", "1", "1.500")
    cases = {case.get("name", "").split()[0]: case for case in suite}
    assert cases["DAT003"].find("failure").get("message") == "a < b & "  # type: ignore[union-attr]
    assert cases["DAT022"].find("failure") is None and "warning: x" in cases["DAT022"].findtext("system-out", "")
    assert "WIR001" not in cases and cases["not"].find("skipped") is not None
    assert len(suite) == len(RULES) and int(suite.get("tests", 0)) == len(suite)


def test_the_command_writes_it(tmp_path: Path) -> None:
    path, out = table(tmp_path / "t.tsv", shuffled(translations())), tmp_path / "out.xml"
    assert main(["diagnose", path, "--junit", str(out)]) == 1
    assert ET.parse(out).getroot().get("failures") == "1"
    assert main(["diagnose", path, "--junit", str(tmp_path / "no" / "where" / "x.xml")]) in (1, 2)
