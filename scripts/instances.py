"""Run every instance of tests/diagnosis/instances/kinds.py: how often the cause stands first, and false alarms.

python scripts/instances.py                 # all
python scripts/instances.py --only mask     # by kind, host or name
python scripts/instances.py --every 5       # each fifth
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.diagnosis.instances.kinds import Instance, every, healthy, is_first


def main() -> int:
    """Count; 1 where less than nine in ten have their cause first, or a healthy training an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a part of a kind, a host or a name")
    parser.add_argument("--every", type=int, default=1, help="each so manieth")
    arguments = parser.parse_args()
    faults, controls = (
        [i for i in of if arguments.only in f"{i.kind} {i.host} {i.name}"] for of in (every(), healthy())
    )
    first = errors = warned = 0
    for instance in faults[:: arguments.every]:
        said, grave = looked_at(instance)
        first += said
        print(
            f"{'first' if said else 'NOT FIRST'}: {instance.kind}, {instance.host}, {instance.name}: {grave}",
            flush=True,
        )
    for instance in controls[:: arguments.every]:
        _, grave = looked_at(instance)
        errors, warned = errors + ("error" in grave), warned + ("warning" in grave)
        if grave:
            print(f"FALSE ALARM: {instance.host}, {instance.name}: {grave}", flush=True)
    count, of = len(faults[:: arguments.every]), len(controls[:: arguments.every])
    print(f"{first} of {count} first; of {of} healthy ones {errors} with an error, {warned} with a warning")
    return int(first < 0.9 * count or errors > 0)


def looked_at(instance: Instance) -> tuple[bool, str]:
    """Whether the cause is first, and all errors and warnings in words."""
    silent = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            try:
                diagnosis = instance.run(Path(folder))
            except Exception as problem:
                return False, f"error: {type(problem).__name__}: {problem}"
    grave = [f"{each.level} {each.code}" for each in diagnosis.findings if each.level != "note"]
    return is_first(instance, diagnosis), ", ".join(grave)


if __name__ == "__main__":
    sys.exit(main())
