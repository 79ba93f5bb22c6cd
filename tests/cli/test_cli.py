"""The shell: help, exit statuses, and errors in one line."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import sourcewise
from sourcewise.cli import main
from sourcewise.cli.parser import COMMANDS
from sourcewise.errors import RequestError
from sourcewise.evaluation.results import Evaluation, Row

pytestmark = pytest.mark.pages

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "pydantic", "numpy", "datasets", "rich", "yaml", "matplotlib")

# (words, exit status, what the line on standard error begins with)
REFUSED = [
    ("trian", "trian: no such command; did you mean train?"),
    ("frobnicate", "frobnicate: no such command; known: demo, train, tokenizer, compare, generate"),
    ("--halp", "--halp: no such command; "),
    ("train", "nothing to train on: name a RECIPE (chat, dates, digits, "),
    ("train nope", "nope: no such recipe; a file, a run folder, or one of chat, dates, digits"),
    ("train digits extra", "extra: not understood; see sourcewise train --help"),
    ("train digits --train.stepz 4", "--train.stepz: unknown key; did you mean --train.steps?"),
    ("train digits --train.steps", "--train.steps: a value is missing"),
    ("train digits --train.steps --seed 1", "--train.steps: a value is missing"),
    ("train digits --train.steps few", "--train.steps should be a valid integer, not 'few'"),
    ("train digits --train.steps 0", "--train.steps should be greater than 0, not 0"),
    ("train digits --tarin.steps 5", "--tarin.steps: unknown key; did you mean --train.steps?"),
    ("train digits --resum", "--resum: a value is missing"),
    ("demo digit", "digit: no such demo; there are digits and dates"),
    ("demo digits --train.epochs -1", "--train.epochs should be greater than 0, not -1"),
    ("generate", "the following arguments are required: MODEL; see sourcewise generate --help"),
    ("generate m --beam 3", "--beam: not understood; did you mean --beams?; see sourcewise generate --help"),
    ("generate m --beams x", "argument --beams: invalid int value: 'x'; see sourcewise generate --help"),
    ("generate m a b", "b: not understood; see sourcewise generate --help"),
    ("evaluate m", "the following arguments are required: DATA; see sourcewise evaluate --help"),
    ("evaluate m d --require bleu~3", "--require bleu~3: not understood; give a figure, a comparison and a number"),
    ("evaluate m d --require blue>=3", "--require blue>=3: no figure blue; did you mean bleu?"),
    ("evaluate m d --require bleu>=1.2.3", "--require bleu>=1.2.3: 1.2.3 is not a number"),
    ("explain SRC01", "SRC01: no such rule; did you mean SRC001?"),
    ("report nowhere", "nowhere: no such run folder"),
    ("tokenizer missing.txt -o t.json", "missing.txt: no such file"),
    ("tokenizer t.txt", "the following arguments are required: -o/--output; see sourcewise tokenizer --help"),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOURCEWISE_TRACEBACK", raising=False)
    return tmp_path


def test_importing_the_library_and_the_shell_is_light() -> None:
    code = f"import sys, sourcewise, sourcewise.cli; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["-h"]):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert all(f"\n  {name} " in out for name in COMMANDS)
        assert "example" in out and len(out.splitlines()) <= 24 and max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_of_a_command_fits_a_screen_and_shows_an_example(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "82")
    assert main([name, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 30 and max(map(len, lines)) <= 82
    assert any(line in ("example:", "examples:") for line in lines)
    assert any(f"sourcewise {name}" in line for line in lines[2:])


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_examples_of_a_help_parse(name: str) -> None:
    for example in COMMANDS[name].examples:
        words = example.split("| ")[-1].replace("'", "").split()
        assert words[:2] == ["sourcewise", name]
        COMMANDS[name].parse(words[2:])


@pytest.mark.parametrize(("words", "line"), REFUSED, ids=[words for words, _ in REFUSED])
def test_a_wrong_request_is_one_line_and_exit_2(
    words: str, line: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"sourcewise: error: {line}") and said.err.count("\n") == 1
    assert list(elsewhere.iterdir()) == []  # nothing half-written


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["dynamic"] == ["version"]  # it is written once, in the package
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sourcewise {sourcewise.__version__}\n"


def test_options_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    from sourcewise.config.files import options

    assert main(["train", "--options"]) == 0
    out = capsys.readouterr().out
    for key, *_ in options():
        assert f"--{key} " in out or key.startswith(("data.valid.", "data.test.")), key


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (RequestError("a.tsv:3: two fields"), 2, "sourcewise: error: a.tsv:3: two fields\n"),
        (OSError(28, "No space left on device", "runs/x"), 2, "sourcewise: error: runs/x: No space left on device\n"),
        (MemoryError(), 2, "sourcewise: error: out of memory; set a smaller batch_tokens"),
        (KeyError("weights"), 70, "sourcewise: error: KeyError: 'weights' (a bug of sourcewise; "),
        (ValueError("two\nlines"), 70, "sourcewise: error: ValueError: two lines (a bug of sourcewise; "),
        (KeyboardInterrupt(), 130, "sourcewise: interrupted\n"),
        (KeyboardInterrupt("saved; go on with: …"), 130, "sourcewise: saved; go on with: …\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_no_error_leaves_a_traceback(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(sourcewise, "load", fail)
    assert main(["generate", "m", str(Path(__file__))]) == status
    said = capsys.readouterr()
    assert said.err.startswith(line) and said.err.count("\n") == 1 and "Traceback" not in said.err


def test_a_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCEWISE_TRACEBACK", "1")
    with pytest.raises(RequestError):
        main(["train", "nope"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_and_a_closed_pipe_are_quiet() -> None:
    command = f"{sys.executable} -m sourcewise train --options"
    full = subprocess.run(f"{command} > /dev/full", shell=True, cwd=ROOT, capture_output=True, text=True)
    assert (full.returncode, full.stderr) == (2, "sourcewise: error: cannot write: No space left on device\n")
    closed = subprocess.run(f"{command} | head -1", shell=True, cwd=ROOT, capture_output=True, text=True)
    assert closed.stderr == "" and closed.stdout.count("\n") == 1


def test_options_and_arguments_come_in_any_order() -> None:
    parsed = COMMANDS["generate"].parse(["--beams", "2", "m", "-o", "out.txt", "in.txt", "--json"])
    assert (parsed.model, parsed.sources, parsed.output, parsed.beams) == ("m", "in.txt", "out.txt", 2)
    parsed = COMMANDS["train"].parse(["--train.steps", "5", "digits", "--resume", "--seed=3"])
    assert (parsed.recipe, parsed.resume, parsed.overrides) == ("digits", True, {"train.steps": 5, "seed": 3})


class FakeModel:
    """What `generate` needs of a model."""

    def __init__(self, **data: Any) -> None:
        from sourcewise.config import DataConfig

        self.data = DataConfig.model_validate(data)
        self.settings: dict[str, Any] = {}

    def generate(self, sources: Any, *, progress: Any = None, **settings: Any) -> Any:
        from sourcewise.generation.outputs import Generated, Output, Outputs

        self.settings = settings
        return Generated(Outputs((Output(f"{example.source}\n!", 0.0, True),)) for example in sources)


def test_generate_writes_one_output_a_line(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FakeModel(train={"pairs": "t.tsv", "prefix": "upper: "})
    monkeypatch.setattr(sourcewise, "load", lambda name, **_: model)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("eins\nzwölf\n".encode())))
    assert main(["generate", "m", "--beams", "2", "--sample"]) == 0
    assert capsys.readouterr().out == "upper: eins !\nupper: zwölf !\n"
    assert model.settings == {"beams": 2, "sample": True, "first": 0, "n_best": 1, "scores": False}

    (elsewhere / "in.txt").write_text("a\nb\n", encoding="utf-8")
    assert main(["generate", "m", "in.txt", "--prefix", "", "-o", "new/out.txt"]) == 0
    assert (elsewhere / "new" / "out.txt").read_text(encoding="utf-8") == "a !\nb !\n"

    assert main(["generate", "m", "in.txt", "--json", "--prefix", ""]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows == [{"id": "1", "source": "a", "output": "a\n!"}, {"id": "2", "source": "b", "output": "b\n!"}]


def test_generate_refuses_before_it_works(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "in.txt").write_bytes(b"good\nbad \xff\n")
    assert main(["generate", "m", "in.txt", "-o", str(elsewhere)]) == 2
    assert "is a folder; name a file to write" in capsys.readouterr().err
    assert main(["generate", "m", "in.txt", "-o", "in.txt/out"]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """`sourcewise.evaluate` replaced; holds what it was called with."""
    from sourcewise.metrics.outputs import output_metrics

    texts = ["four zero seven one", "one two three four", "nine nine one two"]
    rows = [Row(str(i), "", text, text) for i, text in enumerate(texts)]
    metrics = output_metrics(texts, texts, [True] * 3)
    metrics |= {"loss": 0.5, "source_bits": float("nan"), "source_bits_ci95": [1.0, 2.0], "target_tokens": 12}
    called: dict[str, Any] = {}

    def evaluate(*words: Any, **options: Any) -> Evaluation:
        called.update(options, words=words)
        return Evaluation({**metrics, "verdict": "fine"}, rows)

    monkeypatch.setattr(sourcewise, "evaluate", evaluate)
    return called


def test_evaluate_prints_and_requires(
    evaluated: dict[str, Any], elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "m", "d.tsv", "--source", "en", "--beams", "2", "-o", "results"]
    assert main([*words, "--require", "bleu>=99", "--require", "wer<0.1"]) == 0
    assert evaluated["words"] == ("m", "d.tsv")
    assert (evaluated["source"], evaluated["target"], evaluated["generation"]) == ("en", None, {"beams": 2})
    assert (elsewhere / "results" / "metrics.json").is_file() and (elsewhere / "results" / "translations.tsv").is_file()
    out = capsys.readouterr().out
    assert "reference: four zero seven one\toutput: four zero seven one" in out
    assert "BLEU\t100.00" in out and "excellent" in out

    assert main(["evaluate", "m", "d.tsv", "--require", "length_ratio>1", "--require", "source_bits>=0"]) == 1
    err = capsys.readouterr().err
    assert "sourcewise: required length_ratio>1, but length_ratio is 1\n" in err
    assert "sourcewise: required source_bits>=0, but source_bits is nan\n" in err


def test_evaluate_json_is_json(evaluated: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "m", "d.tsv", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert figures["source_bits"] is None and figures["exact_match_pct"] == 100


@pytest.mark.parametrize("ill", [True, False])
def test_diagnose_exits_1_for_an_error(
    ill: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sourcewise.diagnosis.answer import Diagnosis
    from sourcewise.diagnosis.finding import Finding

    found = [Finding("SRC001", "source unused", "error" if ill else "warning", "0.02 bits", "look\n  sourcewise train")]
    monkeypatch.setattr(sourcewise, "diagnose", lambda *_, task: Diagnosis(found, ["the weather"], 0.1))
    assert main(["diagnose", "m"]) == (1 if ill else 0)
    out = capsys.readouterr().out
    assert ("ill" if ill else "healthy") in out.splitlines()[0]
    assert "SRC001 source unused" in out and "not checked: the weather" in out
    assert main(["diagnose", "m", "--json"]) == (1 if ill else 0)
    assert json.loads(capsys.readouterr().out)["findings"][0]["code"] == "SRC001"


def test_explain_lists_and_tells(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    listed = capsys.readouterr().out
    assert "SRC001  error    source unused" in listed
    assert main(["explain", "src001"]) == 0
    assert "What it measures" in capsys.readouterr().out


def test_tokenizer_is_trained_on_files(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sourcewise.data.tokenizers.tokenizer import Tokenizer

    (elsewhere / "a.txt").write_text("four zero seven\none two\n", encoding="utf-8")
    assert main(["tokenizer", "a.txt", "-o", "new.json", "--vocabulary", "40"]) == 0
    tokenizer = Tokenizer.load(elsewhere / "new.json")
    assert tokenizer.decode(tokenizer.encode("zero two")) == "zero two"
    assert main(["tokenizer", "a.txt", "-o", "words.json", "--unit", "words"]) == 0
    assert len(Tokenizer.load(elsewhere / "words.json").encode("zero two")) == 3
    capsys.readouterr()
    assert main(["tokenizer", "a.txt", "-o", "new.json", "--unit", "letters"]) == 2
    assert "letters" in capsys.readouterr().err


def test_train_passes_the_recipe_and_its_overrides(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sourcewise.config import Recipe
    from sourcewise.config.files import load_recipe

    called: list[Any] = []

    def train(recipe: Any, overrides: Any = None, **options: Any) -> Any:
        recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
        called.append((recipe, options))
        return SimpleNamespace(folder=Path(recipe.output) / recipe.name, evaluation=None)

    monkeypatch.setattr(sourcewise, "train", train)
    assert main(["train", "digits", "--train.steps", "5", "--model", "t5-small"]) == 0
    recipe, options = called.pop()
    assert (recipe.train.steps, recipe.model.weights, options["resume"]) == (5, "t5-small", False)
    assert "report\truns/digits/report.html" in capsys.readouterr().out

    assert main(["train", "--data.train.pairs", "t.tsv", "--name", "mine", "--resume"]) == 0
    recipe, options = called.pop()
    assert (recipe.data.train.pairs, recipe.name, options["resume"]) == ("t.tsv", "mine", True)

    (elsewhere / "here" / "digits").mkdir(parents=True)
    assert main(["demo", "digits", "-o", "here"]) == 0  # another name where the demo's run is there already
    recipe, _ = called.pop()
    assert Path(recipe.output) / recipe.name == Path("here/digits-2")


def test_demo_alone_lists_the_demos(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in listed] == [["sourcewise", "demo", name] for name in ("digits", "dates")]
    assert main(["demo", "-o", "here"]) == 2
    assert capsys.readouterr().err == "sourcewise: error: which demo? digits or dates\n"


def test_the_types_of_the_library_are_for_others_too() -> None:
    assert (Path(sourcewise.__file__).parent / "py.typed").is_file()  # hatch packs every file of the folder
