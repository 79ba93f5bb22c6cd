"""Imports only ever go down the layers, and no module imports itself by way of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import grimp
import pytest

import sourcewise

# From top to bottom. What stands on one layer does not import each other.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("api", "serving"),
    ("integrations", "reporting"),
    ("diagnosis",),
    ("comparison",),
    ("training", "scoring", "exporting", "extraction"),
    ("evaluation",),
    ("baselines",),
    ("generation",),
    ("model",),
    ("data", "importing"),
    ("config",),
    ("metrics",),
    ("figures",),
    ("runtime", "tracking"),
    ("native",),
    ("errors",),
)
# `import sourcewise` gives everything, by lazy imports that no graph shows; so only these may: `cli` for all it
# offers, `serving` for the version.
MAY_IMPORT_THE_ROOT = {"cli", "serving"}

Arrow = tuple[str, str]


def graph(package: str) -> grimp.ImportGraph:
    """Who imports whom, inside functions too; under TYPE_CHECKING nothing is imported."""
    return grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)


def arrows(imports: grimp.ImportGraph, package: str) -> list[Arrow]:
    """(importer, imported) without the package's name; the package itself is ""."""
    found = []
    for module in sorted(imports.modules):
        for other in sorted(imports.find_modules_directly_imported_by(module)):
            found.append((_inside(module, package), _inside(other, package)))
    return found


def _inside(module: str, package: str) -> str:
    return module.removeprefix(package).removeprefix(".")


def upward(found: Sequence[Arrow], layers: Sequence[Sequence[str]]) -> list[str]:
    """Imports from one part of the package to another that does not stand below it."""
    height = {part: -place for place, layer in enumerate(layers) for part in layer}
    between = [(a, b) for a, b in found if a and b and a.partition(".")[0] != b.partition(".")[0]]
    wrong = [(a, b) for a, b in between if height[a.partition(".")[0]] <= height[b.partition(".")[0]]]
    return [f"{a} → {b}" for a, b in wrong]


def cycles(imports: grimp.ImportGraph, package: str) -> set[frozenset[str]]:
    """Modules that import each other, by way of others or at once."""
    above = {module: imports.find_upstream_modules(module) for module in imports.modules}
    found = set()
    for module, others in above.items():
        round_trip = {other for other in others if module in above[other]}
        if round_trip:
            found.add(frozenset(_inside(each, package) for each in round_trip | {module}))
    return found


@pytest.fixture(scope="module")
def ours() -> grimp.ImportGraph:
    return graph("sourcewise")


def test_every_part_has_its_layer(ours: grimp.ImportGraph) -> None:
    parts = {_inside(module, "sourcewise").partition(".")[0] for module in ours.modules} - {""}
    listed = [part for layer in LAYERS for part in layer]
    assert sorted(listed) == sorted(parts)


def test_no_file_holds_texts_alone() -> None:
    assert not list(Path(sourcewise.__file__).parent.rglob("*_texts.py"))


def test_few_modules_stand_beside_the_packages() -> None:
    top = {path.name for path in Path(sourcewise.__file__).parent.glob("*.py")}
    assert top == {"__init__.py", "__main__.py", "api.py", "errors.py", "figures.py"}


def test_imports_only_go_down(ours: grimp.ImportGraph) -> None:
    assert upward(arrows(ours, "sourcewise"), LAYERS) == []


def test_only_what_stands_on_top_imports_the_root(ours: grimp.ImportGraph) -> None:
    importers = {a.partition(".")[0] for a, b in arrows(ours, "sourcewise") if b == ""}
    assert importers == MAY_IMPORT_THE_ROOT


def test_no_module_imports_itself_by_way_of_others(ours: grimp.ImportGraph) -> None:
    assert cycles(ours, "sourcewise") == set()


def test_an_import_upward_and_a_cycle_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks themselves, on a package of two layers."""
    files = {
        "stack/__init__.py": "",
        "stack/upper.py": "from stack import lower\n",
        "stack/lower/__init__.py": "",
        "stack/lower/a.py": "def late():\n    import stack.lower.b\n",
        "stack/lower/b.py": "from stack.lower import a\n",
        "stack/lower/c.py": "from stack import upper\n",
        "stack/lower/d.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from stack import upper\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    imports = graph("stack")
    assert upward(arrows(imports, "stack"), (("upper",), ("lower",))) == ["lower.c → upper"]
    assert upward(arrows(imports, "stack"), (("upper", "lower"),)) == ["lower.c → upper", "upper → lower"]
    assert cycles(imports, "stack") == {frozenset({"lower.a", "lower.b"})}
