"""A Python that has imported the library once and forks for every program that it is given.

For tests that need many processes of their own (killed ones, other installed packages): each begins as a fresh Python
does after its imports, in a tenth of the time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

COMMAND = "import sys; from sourcewise.cli import main; sys.exit(main(sys.argv[1:]))"

SERVER = """
import json, os, sys
import sourcewise.api, sourcewise.training.loop, sourcewise.diagnosis.diagnose  # before the fork, once

def child(asked):
    os.chdir(asked["folder"])
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ["-c", *asked["words"]]
    try:
        exec(compile(asked["program"], "<program>", "exec"), {"__name__": "__main__"})
        return 0
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()

for line in sys.stdin:
    pid = os.fork()
    if not pid:
        os._exit(child(json.loads(line)))
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Forking:
    """Within: programs run one after another, each in a process of its own."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.server = subprocess.Popen([sys.executable, "-c", SERVER], env=dict(environment), text=True, **pipes)

    def __enter__(self) -> Forking:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self.server:
            assert self.server.stdin is not None
            self.server.stdin.close()

    def run(
        self, words: Sequence[str], program: str = COMMAND, folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program with these words behind its name (`sourcewise WORDS` if none is named), as `subprocess.run`."""
        assert self.server.stdin is not None and self.server.stdout is not None
        out, err = self.folder / "forked.out", self.folder / "forked.err"
        where = {"folder": str(folder or self.folder), "out": str(out), "err": str(err)}
        self.server.stdin.write(json.dumps({"program": program, "words": list(words), **where}) + "\n")
        self.server.stdin.flush()
        status = int(self.server.stdout.readline())
        return subprocess.CompletedProcess(list(words), status, out.read_text(), err.read_text())
