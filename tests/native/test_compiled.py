"""C++ that is compiled on first use: kept, made anew when it changes, and done without where it cannot be."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from sourcewise.errors import Notice
from sourcewise.native import compiled

CODE = 'extern "C" int answer() { return %d; }\n'


def code(source: Path, needs: tuple[str, ...] = ()) -> compiled.Code:
    return compiled.Code("it", "answers", source, needs)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if not any(compiled.shutil.which(name) for name in compiled.COMPILERS):
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("SOURCEWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SOURCEWISE_COMPILE", raising=False)
    compiled._loaded.cache_clear()
    (tmp_path / "code").mkdir()
    path = tmp_path / "code" / "it.cpp"
    path.write_text(CODE % 42)
    yield path
    compiled._loaded.cache_clear()


def test_it_is_compiled_once_and_again_when_it_or_a_header_changes(source: Path, tmp_path: Path) -> None:
    first = code(source).load()
    assert first is not None and first.answer() == 42
    kept = list((tmp_path / "cache").iterdir())
    assert len(kept) == 1 and kept[0].suffix == ".so"
    written = kept[0].stat().st_ino
    compiled._loaded.cache_clear()
    assert code(source).load() is not None and kept[0].stat().st_ino == written
    source.with_name("more.h").write_text("// more\n")
    compiled._loaded.cache_clear()
    assert code(source).load() is not None and len(list((tmp_path / "cache").iterdir())) == 2


def test_code_that_does_not_compile_leaves_nothing(source: Path, tmp_path: Path) -> None:
    source.write_text("this is no code")
    with pytest.warns(Notice, match=r"native code \(it.cpp\) is not used, .*failed: .*it\.cpp:1:1: error: "):
        assert code(source).load() is None
    assert "error: " in str(code(source).why_not())
    assert list((tmp_path / "cache").iterdir()) == []


def test_where_nobody_asked_for_it_nothing_is_warned_of(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setenv("SOURCEWISE_COMPILE", "0")
        assert code(source).load() is None and code(source).why_not() == "SOURCEWISE_COMPILE is 0"
        monkeypatch.delenv("SOURCEWISE_COMPILE")
        assert code(source, ("an-instruction-of-the-future",)).why_not() == (
            "the processor has no an-instruction-of-the-future"
        )
        monkeypatch.setattr(compiled, "COMPILERS", ("no-such-compiler",))
        monkeypatch.delenv("CXX", raising=False)
        compiled._loaded.cache_clear()
        assert code(source).why_not() == "no C++ compiler (no-such-compiler)"


def test_a_compiler_that_was_asked_for_and_is_not_there(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.warns(Notice, match=r"no-such-compiler: no such compiler \(CXX\)"):
        assert code(source).load() is None


def test_a_cache_that_cannot_be_written_is_named(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SOURCEWISE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(Notice, match=r"file/cache: Not a directory \(SOURCEWISE_CACHE names another folder for it\)"):
        assert code(source).load() is None


def test_what_nobody_used_for_long_is_taken_out(source: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    old, fresh, other = (cache / f"{name}.so" for name in ("it-0", "it-1", "that-0"))
    for path in (old, fresh, other):
        path.write_bytes(b"")
    for path in (old, other):
        os.utime(path, (0, 0))
    assert code(source).load() is not None
    assert not old.exists() and fresh.exists() and other.exists()


def test_a_compiler_that_does_not_know_all_options_is_asked_without_them(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "OF_GCC", ("-fno-such-option",))
    found = code(source).load()
    assert found is not None and found.answer() == 42
