"""`--push` uploads the folder with its card; without a token or a hub it is refused in one line, before the work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sourcewise.cli import main
from tests.commands import Models


class FakeHub:
    """In the place of huggingface_hub.HfApi."""

    calls: list[tuple[str, dict[str, Any]]] = []
    files: dict[str, bytes] = {}
    fails: dict[str, Exception] = {}

    def __init__(self, **_: Any) -> None: ...

    def _call(self, name: str, given: dict[str, Any]) -> None:
        self.calls.append((name, given))
        if name in self.fails:
            raise self.fails[name]

    def whoami(self) -> dict[str, str]:
        self._call("whoami", {})
        return {"name": "someone"}

    def create_repo(self, **given: Any) -> None:
        self._call("create_repo", given)

    def upload_folder(self, **given: Any) -> None:
        self._call("upload_folder", given)
        self.files.update({p.name: p.read_bytes() for p in Path(given["folder_path"]).iterdir()})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeHub]]:
    monkeypatch.setattr("huggingface_hub.HfApi", FakeHub)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    yield FakeHub
    for each in (FakeHub.calls, FakeHub.files, FakeHub.fails):
        each.clear()  # type: ignore[attr-defined]


def test_the_folder_is_uploaded_with_its_card(
    hub: type[FakeHub], models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    card = models.text / "checkpoints" / "best" / "README.md"
    card.write_text("# text\n")
    try:
        assert main(["export", str(models.text), "--push", "hub:someone/german"]) == 0
    finally:
        card.unlink()
    assert capsys.readouterr().out == "https://huggingface.co/someone/german\n"
    assert [name for name, _ in hub.calls] == ["whoami", "create_repo", "upload_folder"]
    assert hub.calls[1][1] == {"repo_id": "someone/german", "private": True, "exist_ok": True}
    assert hub.files["README.md"] == b"# text\n"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(hub.files)


def test_a_folder_is_kept_beside_the_upload_and_a_missing_card_is_told(
    hub: type[FakeHub], models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(models.text), "-o", str(tmp_path / "out"), "--push", "hub:german"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [str(tmp_path / "out"), "https://huggingface.co/german"]
    assert "no model card: it has none from an evaluated run" in said.err
    assert set(hub.files) == {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize("where", ["german", "hub:", "hub:a/b/c", "hub:-x--"])
def test_a_wrong_name(where: str, hub: type[FakeHub], models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(models.text), "--push", where]) == 2
    assert capsys.readouterr().err.startswith(f"sourcewise: error: --push {where}: ")
    assert hub.calls == []


def test_nobody_is_logged_in(
    hub: type[FakeHub], models: Models, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert main(["export", str(models.text), "--push", "hub:someone/german"]) == 2
    assert "nobody is logged in; `hf auth login`, or set HF_TOKEN" in capsys.readouterr().err
    assert hub.calls == []


@pytest.mark.parametrize("step", ["whoami", "create_repo", "upload_folder"])
def test_a_hub_that_refuses_is_one_line(
    step: str, hub: type[FakeHub], models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.fails[step] = OSError("403 Forbidden: you need write access\nto this\n")
    assert main(["export", str(models.text), "--push", "hub:someone/german"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == ("sourcewise: error: --push hub:someone/german: not uploaded: 403 Forbidden: you need write access")


def test_the_hub_is_switched_off(
    models: Models, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["export", str(models.text), "--push", "hub:someone/german"]) == 2
    error = capsys.readouterr().err
    assert "not uploaded: the hub is switched off (HF_HUB_OFFLINE)\n" in error and error.count("\n") == 1


def test_other_outputs_are_not_uploaded(
    hub: type[FakeHub], models: Models, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sourcewise.exporting.huggingface.generated", lambda m, t, encoded, o: [[5]] * len(encoded))
    assert main(["export", str(models.text), "--push", "hub:someone/german"]) == 1
    assert "not uploaded to hub:someone/german, since outputs are others" in capsys.readouterr().err
    assert [name for name, _ in hub.calls] == ["whoami"]
