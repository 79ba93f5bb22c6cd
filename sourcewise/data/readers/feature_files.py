"""Which file a row of a manifest means, in the folders where files may lie: its own, or none.

A name is taken as it is written; where no row's file is found so, all rows drop leading folders alike, since manifests
travel between machines. A name may be spelled otherwise than its file: blanks around it, `\\\\` for `/`, `.npy` or
not, another case or Unicode form. What could mean two files, or two rows' one, is refused.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sourcewise.errors import RequestError

NPY = ".npy"
NO_FILE = "no such file; `features` should name the folder that holds it"
RECORDINGS = frozenset(  # a row may name what its features were extracted from
    [".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".mp4", ".mkv", ".webm", ".avi", ".mov", ".pose", ".png", ".jpg"]
)
_SAMPLE = 64  # names that show how many leading folders are another machine's
_MOST = 5000  # files of a folder that are compared with a name
_HINTS = 3  # names whose neighbours are looked for

Parts = list[str]


@dataclass(slots=True)
class FoundFiles:
    """`paths[name]` is each name's file, or where it should be; `wrong` says what is wrong with a name."""

    paths: dict[str, Path] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    respelled: list[str] = field(default_factory=list)  # names that are spelled otherwise than their files
    dropped: bool = False  # leading folders of the names were left out


@dataclass(frozen=True, slots=True)
class _Way:
    """A folder, and what of a name to look for in it."""

    folder: Path
    drop: int = 0  # leading parts that are left out
    keep: int = 0  # last parts that alone are looked for; 0: all

    @property
    def as_written(self) -> bool:
        return not (self.drop or self.keep)

    def of(self, parts: Parts) -> Parts:
        """What is left of a name's parts, the last at least."""
        return parts[-self.keep :] if self.keep else parts[min(self.drop, len(parts) - 1) :]


class FileFinder:
    """Finds the files of names. With `bare` names have no ending: `ID` means `ID.npy`."""

    def __init__(self, folders: Sequence[Path], *, bare: bool) -> None:
        self.folders, self.bare = list(folders), bare
        self._listed: dict[Path, dict[str, list[str]]] = {}

    def find(self, names: Sequence[str]) -> FoundFiles:
        """The files of all names of a manifest. Raises RequestError where two names would lead to one file."""
        each = list(dict.fromkeys(names))
        way, fold = self._way(each)
        found = FoundFiles(dropped=not way.as_written)
        for name in each:
            path = self._at(way, name, fold)
            if path is None:
                self._miss(way, name, found)
                continue
            found.paths[name] = path
            last = name.rpartition("/")[2]
            if name != name.strip() or path.name not in self._forms(last) or path.name in _extracted(last):
                found.respelled.append(name)
        self._check_apart(found)
        return found

    def _forms(self, name: str) -> list[str]:
        """File names that a name may mean."""
        ends = name.strip().lower().endswith((NPY, ".zip"))
        if self.bare:
            return [name + NPY, name] if ends else [name + NPY, *_extracted(name)]
        return [name] if ends else [name + NPY]

    def _way(self, names: list[str]) -> tuple[_Way, bool]:
        """The way by which most names are found, as written if any is; and whether in another case than written."""
        written, shorter = [_Way(folder) for folder in self.folders], list(self._shorter(names))
        sample = names[:: max(1, len(names) // _SAMPLE)]
        for ways, some in ((written, names), (shorter, sample)):
            for fold in (False, True):
                best = self._best(ways, some, fold)
                if best:
                    return best, fold
        return written[0], False

    def _shorter(self, names: list[str]) -> Iterator[_Way]:
        """Ways that leave out leading folders: as many of each name, or all but as many last parts."""
        deepest = max((len(_parts(name)) for name in names), default=1)
        for count in range(1, deepest):
            yield from (_Way(folder, drop=count) for folder in self.folders)
        for count in range(deepest - 1, 0, -1):
            yield from (_Way(folder, keep=count) for folder in self.folders)

    def _best(self, ways: list[_Way], names: list[str], fold: bool) -> _Way | None:
        """The first way by which the most names are found; None where none is."""
        best, most = None, 0
        for way in ways:
            count = sum(self._at(way, name, fold) is not None for name in names)
            if count > most:
                best, most = way, count
            if most == len(names):
                break
        return best

    def _at(self, way: _Way, name: str, fold: bool) -> Path | None:
        """The file of a name: as it is written, else the only one that is spelled alike (`fold`: in any case)."""
        absolute = Path(name).is_absolute()
        if way.as_written or absolute:
            written = (way.folder / form for form in self._forms(name))
            path = next((path for path in written if _is_file(path)), None)
            if path or (way.as_written and absolute):
                return path
        parts = way.of(_parts(name))
        if ".." in parts:
            return None
        place: Path | None = way.folder
        for part in parts[:-1]:
            place = place and self._only(place, [part], fold)
        return place and self._only(place, self._forms(parts[-1]), fold)

    def _only(self, folder: Path, forms: list[str], fold: bool) -> Path | None:
        """What lies in a folder under one of these names: the very name, else the only one that is spelled alike."""
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
            with contextlib.suppress(OSError):  # no folder: nothing is in it
                for entry in folder.iterdir():
                    listed.setdefault(_key(entry.name), []).append(entry.name)
            self._listed[folder] = listed
        return self._listed[folder]

    def _miss(self, way: _Way, name: str, found: FoundFiles) -> None:
        inside = name if way.as_written else "/".join(way.of(_parts(name)))
        found.paths[name] = way.folder / self._forms(inside)[0]
        near = self._near(way, name) if len(found.wrong) < _HINTS else ""
        found.wrong[name] = NO_FILE + near

    def _near(self, way: _Way, name: str) -> str:
        """Words about the file that the name may mean."""
        parts = _parts(name)
        wanted = self._forms(parts[-1])[0]
        for folder in dict.fromkeys((way.folder.joinpath(*way.of(parts)[:-1]), way.folder, *self.folders)):
            there = [name for names in self._list(folder).values() for name in names]
            if wanted in there:
                return f"; {folder / wanted} is there: another's, or this one's?"
            other = [*(mark.join(parts) + NPY for mark in "_-."), *_extracted(parts[-1])]
            other = [each for each in other if each in there]
            likely = self._list(folder).get(_key(wanted), []) or other or _alike(wanted, there)
            if likely:
                shown = " and ".join(str(folder / each) for each in likely[:2])
                return f"; {shown} {'are' if len(likely) > 1 else 'is'} there: is the name spelled otherwise?"
        return ""

    def _check_apart(self, found: FoundFiles) -> None:
        """Names that differ may not lead to one file: it is one's, and not the other's."""
        owners: dict[Path, str] = {}
        there = [name for name in found.paths if name not in found.wrong]
        for name in sorted(there, key=found.respelled.__contains__):
            path = found.paths[name]
            other = owners.setdefault(path, name)
            if _plain(other) == _plain(name) or not (found.dropped or name in found.respelled):
                continue
            if found.dropped:
                raise RequestError(
                    f"{path}: would be the file of both {other} and {name}; "
                    "`features` should name the folder above, where they lie apart"
                )
            found.wrong[name] = f"is the file of {other}, not of {name}, which is not there"


def _extracted(name: str) -> list[str]:
    """The file of features that were extracted from a recording of this name, none where it names none."""
    stem, dot, ending = name.strip().rpartition(".")
    return [stem + NPY] if stem and dot + ending.lower() in RECORDINGS else []


def _alike(wanted: str, there: list[str]) -> list[str]:
    """Names that say the same number, have another ending, or nearly the same letters."""
    stem = Path(wanted).stem
    number = _number(stem.removesuffix(NPY))
    same = [name for name in there if Path(name).stem == stem]
    same = same or [name for name in there if number is not None and _number(Path(name).stem) == number]
    numbered = [name for name in there[:_MOST] if _digits(name) == _digits(wanted)]  # clip80 is no slip of clip8
    return same or difflib.get_close_matches(wanted, numbered, n=1, cutoff=0.8)


def _parts(name: str) -> Parts:
    """What stands between the slashes, of either kind, of a name."""
    return [part for part in name.strip().replace("\\", "/").split("/") if part not in ("", ".")] or [name]


def _form(name: str) -> str:
    """What is alike in names that differ in blanks around them, in Unicode form, and in the case of their ending."""
    stem, dot, ending = unicodedata.normalize("NFC", name.strip()).rpartition(".")
    return stem + dot + (ending.lower() if dot else ending)


def _key(name: str) -> str:
    """What is alike in names that differ in case, too."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name.strip()).casefold())


def _plain(name: str) -> str:
    """A name without what may differ between two names of one file."""
    return _form("/".join(_parts(name))).removesuffix(NPY)


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
