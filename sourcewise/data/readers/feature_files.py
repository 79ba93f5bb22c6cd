"""Finds the feature file of each row of a manifest.

Names are used as written. If no file is found so, leading folders are dropped from all names alike, since manifests
move between machines. Names may be spelled differently from their files: blanks around them, `\\\\` for `/`, with or
without `.npy`, another case or Unicode form. Ambiguous names, and names that share one file, are refused.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sourcewise.data.formats.npy import NPY
from sourcewise.data.formats.registry import ending_of
from sourcewise.errors import RequestError

NO_FILE = "no such file; `features` should name the folder that holds it"
RECORDINGS = frozenset(  # a row may name the recording that its features were extracted from
    [".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".mp4", ".mkv", ".webm", ".avi", ".mov", ".pose", ".png", ".jpg"]
)
_SAMPLE = 64  # names from which the number of leading folders to drop is inferred
_MOST = 5000  # files of a folder that are compared with a name
_HINTS = 3  # names for which similar files are suggested

Parts = list[str]


@dataclass(slots=True)
class FoundFiles:
    """`paths` maps each name to its file, or to the expected place; `wrong` maps names to errors."""

    paths: dict[str, Path] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    respelled: list[str] = field(default_factory=list)  # names that are spelled differently from their files
    dropped: bool = False  # leading folders of the names were dropped


@dataclass(frozen=True, slots=True)
class _Search:
    """A folder to search, and the parts of a name to use there."""

    folder: Path
    drop: int = 0  # number of leading parts to drop
    keep: int = 0  # number of last parts to keep; 0: all

    @property
    def as_written(self) -> bool:
        return not (self.drop or self.keep)

    def of(self, parts: Parts) -> Parts:
        """The used parts of a name, at least the last."""
        return parts[-self.keep :] if self.keep else parts[min(self.drop, len(parts) - 1) :]


class FileFinder:
    """Finds the files of names; with `bare`, names have no ending: `ID` means `ID.npy`, or ID with another `ending`."""

    def __init__(self, folders: Sequence[Path], *, bare: bool, ending: str = NPY) -> None:
        self.folders, self.bare, self.ending = list(folders), bare, ending
        self._listed: dict[Path, dict[str, list[str]]] = {}

    def find(self, names: Sequence[str]) -> FoundFiles:
        """The files of all names of a manifest. Raises RequestError if two names would lead to one file."""
        each = list(dict.fromkeys(names))
        search, fold = self._choose(each)
        found = FoundFiles(dropped=not search.as_written)
        for name in each:
            path = self._at(search, name, fold)
            if path is None:
                self._miss(search, name, found)
                continue
            found.paths[name] = path
            last = name.rpartition("/")[2]
            if name != name.strip() or path.name not in self._forms(last) or path.name in self._extracted(last):
                found.respelled.append(name)
        self._check_apart(found)
        return found

    def _forms(self, name: str) -> list[str]:
        """Possible file names of a name."""
        if self.bare:
            ends = ending_of(name) == self.ending or name.strip().lower().endswith(".zip")
            return [name + self.ending, name] if ends else [name + self.ending, *self._extracted(name)]
        ends = bool(ending_of(name)) or name.strip().lower().endswith(".zip")
        return [name] if ends else [name + self.ending]

    def _extracted(self, name: str) -> list[str]:
        """Name of the feature file of a recording, as a list; empty if the name is not that of a recording."""
        stem, dot, last = name.strip().rpartition(".")
        ending = dot + last.lower()
        return [stem + self.ending] if stem and ending in RECORDINGS and ending != self.ending else []

    def _choose(self, names: list[str]) -> tuple[_Search, bool]:
        """The search that finds the most names, as written if that finds any; and whether it ignores case."""
        written, shorter = [_Search(folder) for folder in self.folders], list(self._shorter(names))
        sample = names[:: max(1, len(names) // _SAMPLE)]
        for searches, some in ((written, names), (shorter, sample)):
            for fold in (False, True):
                best = self._best(searches, some, fold)
                if best:
                    return best, fold
        return written[0], False

    def _shorter(self, names: list[str]) -> Iterator[_Search]:
        """Searches that drop leading folders: the same number from each name, or all but the same number."""
        deepest = max((len(_parts(name)) for name in names), default=1)
        for count in range(1, deepest):
            yield from (_Search(folder, drop=count) for folder in self.folders)
        for count in range(deepest - 1, 0, -1):
            yield from (_Search(folder, keep=count) for folder in self.folders)

    def _best(self, searches: list[_Search], names: list[str], fold: bool) -> _Search | None:
        """The first search that finds the most names; None if none finds any."""
        best, most = None, 0
        for search in searches:
            count = sum(self._at(search, name, fold) is not None for name in names)
            if count > most:
                best, most = search, count
            if most == len(names):
                break
        return best

    def _at(self, search: _Search, name: str, fold: bool) -> Path | None:
        """The file of a name: as written, else the only similar one (`fold`: ignoring case)."""
        absolute = Path(name).is_absolute()
        if search.as_written or absolute:
            written = (search.folder / form for form in self._forms(name))
            path = next((path for path in written if _is_file(path)), None)
            if path or (search.as_written and absolute):
                return path
        parts = search.of(_parts(name))
        if ".." in parts:
            return None
        place: Path | None = search.folder
        for part in parts[:-1]:
            place = place and self._only(place, [part], fold)
        return place and self._only(place, self._forms(parts[-1]), fold)

    def _only(self, folder: Path, forms: list[str], fold: bool) -> Path | None:
        """The file in a folder with one of these names, else the only one with a similar name."""
        listed = self._list(folder)
        for form in forms:
            alike = [name for name in listed.get(_key(form), []) if fold or _form(name) == _form(form)]
            if form in alike:
                return folder / form
            if len(alike) == 1:
                return folder / alike[0]
        return None

    def _list(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._listed:
            listed: dict[str, list[str]] = {}
            with contextlib.suppress(OSError):  # no such folder
                for entry in folder.iterdir():
                    listed.setdefault(_key(entry.name), []).append(entry.name)
            self._listed[folder] = listed
        return self._listed[folder]

    def _miss(self, search: _Search, name: str, found: FoundFiles) -> None:
        inside = name if search.as_written else "/".join(search.of(_parts(name)))
        found.paths[name] = search.folder / self._forms(inside)[0]
        near = self._near(search, name) if len(found.wrong) < _HINTS else ""
        found.wrong[name] = NO_FILE + near

    def _near(self, search: _Search, name: str) -> str:
        """A hint at the file that a name may mean, in words."""
        parts = _parts(name)
        wanted = self._forms(parts[-1])[0]
        for folder in dict.fromkeys((search.folder.joinpath(*search.of(parts)[:-1]), search.folder, *self.folders)):
            there = [name for names in self._list(folder).values() for name in names]
            if wanted in there:
                return f"; {folder / wanted} is there: another's, or this one's?"
            other = [*(mark.join(parts) + self.ending for mark in "_-."), *self._extracted(parts[-1])]
            other = [each for each in other if each in there]
            likely = self._list(folder).get(_key(wanted), []) or other or _alike(wanted, there)
            stem = wanted.removesuffix(self.ending)
            unread = [each for each in there if each.startswith(f"{stem}.") and not ending_of(each)]
            if unread and set(likely) <= {*unread, *_alike(wanted, there)}:
                return f"; {folder / unread[0]} is there, whose ending is not read: unpack it, or save it as .npy"
            if likely:
                shown = " and ".join(str(folder / each) for each in likely[:2])
                return f"; {shown} {'are' if len(likely) > 1 else 'is'} there: is the name spelled otherwise?"
        return ""

    def _plain(self, name: str) -> str:
        """The name without all that may differ between names of one file."""
        return _form("/".join(_parts(name))).removesuffix(self.ending)

    def _check_apart(self, found: FoundFiles) -> None:
        """Record an error for different names that lead to one file, except for its own name."""
        owners: dict[Path, str] = {}
        there = [name for name in found.paths if name not in found.wrong]
        for name in sorted(there, key=found.respelled.__contains__):
            path = found.paths[name]
            other = owners.setdefault(path, name)
            if self._plain(other) == self._plain(name) or not (found.dropped or name in found.respelled):
                continue
            if found.dropped:
                raise RequestError(
                    f"{path}: would be the file of both {other} and {name}; "
                    "`features` should name the folder above, where they lie apart"
                )
            found.wrong[name] = f"is the file of {other}, not of {name}, which is not there"


def _alike(wanted: str, there: list[str]) -> list[str]:
    """Names with the same numbers, another ending, or nearly the same letters."""
    stem = Path(wanted).stem
    number = _number(stem.removesuffix(NPY))
    same = [name for name in there if Path(name).stem == stem]
    same = same or [name for name in there if number is not None and _number(Path(name).stem) == number]
    numbered = [name for name in there[:_MOST] if _digits(name) == _digits(wanted)]  # clip80 is no slip of clip8
    return same or difflib.get_close_matches(wanted, numbered, n=1, cutoff=0.8)


def _parts(name: str) -> Parts:
    """The parts of a name, separated by slashes of either kind."""
    return [part for part in name.strip().replace("\\", "/").split("/") if part not in ("", ".")] or [name]


def _form(name: str) -> str:
    """The name without blanks around it, in one Unicode form, with a lower-case ending."""
    stem, dot, ending = unicodedata.normalize("NFC", name.strip()).rpartition(".")
    return stem + dot + (ending.lower() if dot else ending)


def _key(name: str) -> str:
    """The same in lower case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name.strip()).casefold())


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _digits(name: str) -> list[str]:
    return re.findall(r"\d+", name)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # too long for a name
        return False
