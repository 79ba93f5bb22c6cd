"""C++ that is compiled on first use: kept, made anew when it changes, and done without where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from sourcewise import compiled

CODE = 'extern "C" int answer() { return %d; }\n'


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if not any(compiled.shutil.which(name) for name in compiled.COMPILERS):
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("SOURCEWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SOURCEWISE_COMPILE", raising=False)
    compiled.machine_code.cache_clear()
    (tmp_path / "code").mkdir()
    path = tmp_path / "code" / "it.cpp"
    path.write_text(CODE % 42)
    yield path
    compiled.machine_code.cache_clear()


def test_it_is_compiled_once_and_again_when_it_or_a_header_changes(source: Path, tmp_path: Path) -> None:
    first = compiled.machine_code(source)
    assert first is not None and first.answer() == 42
    kept = list((tmp_path / "cache").iterdir())
    assert len(kept) == 1 and kept[0].suffix == ".so"
    written = kept[0].stat().st_mtime_ns
    compiled.machine_code.cache_clear()
    assert compiled.machine_code(source) is not None and kept[0].stat().st_mtime_ns == written
    source.with_name("more.h").write_text("// more\n")
    compiled.machine_code.cache_clear()
    assert compiled.machine_code(source) is not None and len(list((tmp_path / "cache").iterdir())) == 2


def test_code_that_does_not_compile_leaves_nothing(source: Path, tmp_path: Path) -> None:
    source.write_text("this is no code")
    assert compiled.machine_code(source) is None
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(("name", "value"), [("CXX", "no-such-compiler"), ("SOURCEWISE_COMPILE", "0")])
def test_without_a_compiler_there_is_none(source: Path, name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert compiled.machine_code(source) is None


def test_a_processor_without_what_it_needs_gets_none(source: Path) -> None:
    assert compiled.machine_code(source, ("an-instruction-of-the-future",)) is None


def test_a_compiler_that_does_not_know_all_options_is_asked_without_them(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "OF_GCC", ("-fno-such-option",))
    found = compiled.machine_code(source)
    assert found is not None and found.answer() == 42
