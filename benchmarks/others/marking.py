"""Marking: where the cause stands in what the doctor said of a case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from others.case import Case, names_cause

VERDICTS = ("first", "among three", "named", "symptom only", "wrong", "nothing", "crashed or harmed", "skipped")
# Rules that say what goes wrong, not why. All others name a cause, and as an error the wrong one where it is not this.
SYMPTOMS = ("OUT", "SRC", "MEM", "ATT", "TRN001", "TRN002", "TRN003", "TRN004", "TRN005", "TRN007", "TRN008", "TRN011")
CAUSES = ("OUT011", "OUT013")  # references of another convention, or of other rows
COURSE = ("TRN013", "TRN014")  # how far it has come: true of whatever is short


def resolved(case: Case, keys: Mapping[str, str]) -> dict[str, str]:
    """The codes accepted, each with its pattern: keys of rules that did not exist are turned into codes."""
    found: dict[str, str] = {}
    for code, pattern in case.accepts.items():
        if not code.startswith("new:"):
            found[code] = pattern
        else:
            for word in keys.get(code, "").split():
                known, _, words = word.partition("=")
                found.setdefault(known, words)
    return found


def marked(case: Case, row: Mapping[str, Any], keys: Mapping[str, str]) -> str:
    """One of VERDICTS, for a case in its broken form. A cause that is told as a note only is "named"."""
    if row["skipped"]:
        return "skipped"
    if row["error"] or row["harmed"]:
        return "crashed or harmed"
    accepts = resolved(case, keys)
    findings: Sequence[Mapping[str, str]] = row["findings"]
    grave = [each for each in findings if each["level"] != "note"]
    rank = next((place for place, each in enumerate(grave, 1) if names_cause(each, accepts)), None)
    if rank is not None:
        return "first" if rank == 1 else "among three" if rank <= 3 else "named"
    if any(names_cause(each, accepts) for each in findings):
        return "named"
    aside = {*case.also, *COURSE}
    if any(each["level"] == "error" and is_cause(each["code"]) and each["code"] not in aside for each in grave):
        return "wrong"
    return "symptom only" if grave else "nothing"


def is_cause(code: str) -> bool:
    """Whether a rule says why something goes wrong."""
    return code in CAUSES or not code.startswith(SYMPTOMS)


def false_alarms(row: Mapping[str, Any]) -> dict[str, list[str]]:
    """Errors and warnings on a healthy form, by level."""
    found: dict[str, list[str]] = {"error": [], "warning": []}
    for each in row["findings"]:
        if each["level"] in found:
            found[each["level"]].append(each["code"])
    if row["error"] or row["harmed"]:
        found["error"].append("crashed or harmed")
    return found


def summary(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts: of the faults by verdict, of the healthy forms by false alarms; what was skipped counts nowhere."""
    rows = list(rows)
    faults = [row for row in rows if row["form"] == "broken"]
    healthy = [row for row in rows if row["form"] != "broken" and not row["skipped"]]
    return {
        "faults": sum(row["verdict"] != "skipped" for row in faults),
        **{verdict: sum(row["verdict"] == verdict for row in faults) for verdict in VERDICTS},
        "not at fault": sum(row["at_fault"] is False for row in rows),
        "healthy forms": len(healthy),
        "with false errors": sum(bool(row["alarms"]["error"]) for row in healthy),
        "with false warnings": sum(bool(row["alarms"]["warning"]) for row in healthy),
    }
