"""Shared by all commands: parsing of words, help texts, errors in one line.

Exit status: 0 done · 1 the work ran and the answer is bad · 2 the request was wrong · 70 a bug of ours ·
130 interrupted. `SOURCEWISE_TRACEBACK=1` shows the traceback of any error.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
import sys
import warnings
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from sourcewise.errors import ElsewhereError, Notice, RequestError, printable

ABOUT = """\
Trains, runs, measures and debugs encoder-decoder models, on text and on feature
sequences, and tells whether the decoder reads its source."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a command, in argparse's terms."""

    flags: tuple[str, ...]
    settings: dict[str, Any]


def filled(word: str) -> str:
    """argparse type of a word that may not be empty: an empty path would mean the current folder."""
    if not word.strip():
        raise ArgumentTypeError("is empty; a shell variable that is not set?")
    return word


def path(word: str) -> str:
    """argparse type of a file or folder: not empty; `~` becomes the home folder."""
    return os.path.expanduser(filled(word))  # noqa: PTH111  (a Path would lose the ./ of a folder that is no hub name)


def argument(*flags: str, **settings: Any) -> Argument:
    """The arguments of a later call of `add_argument`."""
    return Argument(flags, settings)


@dataclass(frozen=True, slots=True)
class Command:
    """One command of `sourcewise`: its function, help texts and arguments."""

    run: Callable[[Namespace], int]
    summary: str
    usage: str
    examples: tuple[str, ...]
    arguments: tuple[Argument, ...]
    overrides: bool  # also takes --section.key value
    passes_on: tuple[str, ...] = ()  # options of a program to run, with which all behind -- is that program's

    @property
    def name(self) -> str:
        """The word on the command line: the function's name, where `import_` stands for Python's own word."""
        return self.run.__name__.rstrip("_")

    def parser(self) -> Parser:
        """The argparse parser of this command."""
        name = self.name
        lines = [f"  {example}" for example in self.examples]
        parser = Parser(
            prog=f"sourcewise {name}",
            usage=f"sourcewise {name} {self.usage}",
            description=(self.run.__doc__ or "").replace("\n    ", "\n").strip(),
            epilog="\n".join(["example:" if len(lines) == 1 else "examples:", *lines]),
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        for item in self.arguments:
            parser.add_argument(*item.flags, **item.settings)
        return parser

    def parse(self, words: list[str]) -> Namespace:
        """Words → arguments, options and positions in any order. Raises RequestError."""
        parser, given = self.parser(), list(words)
        overrides: list[str] = []
        script: list[str] = []
        if "--" in words and any(word.partition("=")[0] in self.passes_on for word in words[: words.index("--")]):
            words, script = words[: words.index("--")], words[words.index("--") + 1 :]
        if self.overrides:
            words, overrides = _set_overrides_apart(words, parser.flags)
        arguments, unknown = parser.parse_known_intermixed_args(words)
        if unknown:
            near = difflib.get_close_matches(unknown[0].split("=")[0], parser.flags, n=1)
            parser.error(f"{unknown[0]}: not understood" + (f"; did you mean {near[0]}?" if near else ""))
        if self.overrides:
            from sourcewise.config.files import parse_overrides

            arguments.overrides = parse_overrides(overrides)
        if self.passes_on:
            arguments.passed_on = script
        arguments.words = given
        return arguments


COMMANDS: dict[str, Command] = {}


def command(
    summary: str,
    usage: str,
    examples: list[str],
    *arguments: Argument,
    overrides: bool = False,
    passes_on: tuple[str, ...] = (),
) -> Callable[[Callable[[Namespace], int]], Callable[[Namespace], int]]:
    """Decorator: registers a function as the command of its name, with its docstring as description."""

    def register(function: Callable[[Namespace], int]) -> Callable[[Namespace], int]:
        made = Command(function, summary, usage, tuple(examples), arguments, overrides, passes_on)
        COMMANDS[made.name] = made
        return function

    return register


class Parser(ArgumentParser):
    """An ArgumentParser that raises RequestError."""

    @property
    def flags(self) -> list[str]:
        """All option strings of the command, such as `--json`."""
        return list(self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        """Raises RequestError instead of printing the usage and exiting."""
        raise RequestError(f"{message}; see {self.prog} --help")


class _Formatter(RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, 100) - 2
        super().__init__(prog, max_help_position=26, width=width)


def main(words: list[str]) -> int:
    """Run a command and return its exit status. Errors are printed, and raised only under SOURCEWISE_TRACEBACK."""
    try:
        _open_closed_streams()
        with _notices_printed():
            status = _dispatch(words)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `sourcewise … | head`
        _drop_output()
        return 141
    except KeyboardInterrupt as stop:  # a training's message says how to continue
        if not _another_tells():
            _tell(str(stop) or "interrupted")
        return 130
    except ElsewhereError as error:  # the other process tells it
        return error.status
    except Exception as error:
        if os.environ.get("SOURCEWISE_TRACEBACK"):
            raise
        if isinstance(error, OSError):
            _drop_output()
        status, message = _status_and_message(error)
        _tell(f"error: {' '.join(message.split())}")
        return status


def overview() -> str:
    """The help of `sourcewise` alone."""
    rows = [f"  {name:11}{each.summary}" for name, each in COMMANDS.items()]
    return "\n".join(
        [
            "usage: sourcewise COMMAND …",
            ABOUT,
            "",
            *rows,
            "",
            "example: sourcewise demo digits",
            "`sourcewise COMMAND --help` says more. Exit: 0 done; 1 bad answer; 2 bad request",
        ]
    )


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] in ("-V", "--version"):
        from sourcewise import __version__

        print(f"sourcewise {__version__}")
        return 0
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(COMMANDS)}"
        raise RequestError(f"{words[0]}: no such command; {hint}")
    chosen = COMMANDS[words[0]]
    try:
        arguments = chosen.parse(words[1:])
    except SystemExit as stop:  # --help
        return int(stop.code or 0)
    except RequestError as error:
        raise (ElsewhereError() if _another_tells() else error) from None
    return chosen.run(arguments)


def _another_tells() -> bool:
    """Whether torchrun has started this command several times, and this is not the first of its processes."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0"


def _set_overrides_apart(words: list[str], flags: list[str]) -> tuple[list[str], list[str]]:
    """(words of the command itself, `--section.key value` words): long options outside `flags` are overrides."""
    own: list[str] = []
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word.partition("=")[0] in flags:
            own.append(word)
            continue
        overrides.append(word)
        if "=" not in word and rest and not rest[0].startswith("--"):
            overrides.append(rest.pop(0))
    return own, overrides


def without(words: list[str], flag: str) -> list[str]:
    """The words of a command without an option and its value."""
    places = [place for place, word in enumerate(words) if word == flag]
    gone = {*places, *(place + 1 for place in places)}
    return [word for i, word in enumerate(words) if i not in gone and not word.startswith(f"{flag}=")]


def _status_and_message(error: Exception) -> tuple[int, str]:
    """Exit status and message of an error."""
    if isinstance(error, RequestError):
        return 2, str(error)
    if isinstance(error, UnicodeEncodeError):
        return 2, f"cannot write {error.object[error.start]!a} in {error.encoding}; set PYTHONIOENCODING=utf-8"
    if isinstance(error, OSError):
        problem = error.strerror or str(error)
        return 2, f"{error.filename}: {problem}" if error.filename else f"cannot write: {problem}"
    if _is_out_of_memory(error):
        return 2, "out of memory; set a smaller batch_tokens (of train or generation), or cut long sources"
    return 70, f"{type(error).__name__}: {error} (a bug of sourcewise; SOURCEWISE_TRACEBACK=1 shows where)"


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody can be told
        print(f"sourcewise: {printable(text)}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _notices_printed() -> Iterator[None]:
    """Within: each `Notice` is a line on standard error."""
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if issubclass(category, Notice):
            _tell(" ".join(str(message).split()))
        else:
            shown(message, category, *rest, **named)

    with warnings.catch_warnings():
        warnings.simplefilter("always", Notice)
        warnings.showwarning = show
        yield


def _open_closed_streams() -> None:
    """A stream that the caller closed (`>&-`) is None in Python; it reads nothing and takes everything instead."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _is_out_of_memory(error: Exception) -> bool:
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch's, of an accelerator
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))  # torch's, of the CPU
    )


def _drop_output() -> None:
    """Nobody can take what is still in standard output's buffer: let Python not try again at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
