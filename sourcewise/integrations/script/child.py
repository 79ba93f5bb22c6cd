"""The process that somebody's script runs in: `child.py RESULT STEPS SCRIPT ARGUMENTS…`, by its path.

Torch and all else is imported by the script, when it does; only then it is watched. The process ends as it would have:
by the script's own exit status, after its `atexit` functions; 0 where it was ended after the steps that were wanted.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

INTERRUPTED = 130


def main(result: str, steps: str, name: str, *arguments: str) -> int:
    """Run the script; what was seen of it is written to `result`, as JSON. Gives the exit status."""
    from sourcewise.errors import RequestError
    from sourcewise.integrations.script.imports import AfterImport
    from sourcewise.integrations.script.program import Program, show
    from sourcewise.integrations.script.report import Ended, Report

    report = Report(Path(result), int(steps))
    AfterImport(report.after).install()
    try:
        try:
            code, module = Program(name, arguments).main()
        except RequestError as problem:
            report.refused = str(problem)
            return 2
        exec(code, module.__dict__)
    except Ended:
        return 0
    except SystemExit as stop:
        if stop.code is not None and not isinstance(stop.code, int):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as problem:
        report.raised(problem)
        show(problem)
        return INTERRUPTED if isinstance(problem, KeyboardInterrupt) else 1
    finally:
        report.write()
    return 0


if __name__ == "__main__":
    if importlib.util.find_spec("sourcewise") is None:
        sys.path.append(str(Path(__file__).parents[3]))  # a checkout that is not installed
    sys.exit(main(*sys.argv[1:]))
