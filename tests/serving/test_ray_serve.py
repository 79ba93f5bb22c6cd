"""The example of docs/scale.md for Ray Serve: replicas answer as the model does."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import sourcewise
from tests.commands import Models
from tests.training.worlds import environment

DOCS = Path(__file__).parents[2] / "docs" / "scale.md"


def example(model: Path) -> str:
    (found,) = [each for each in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL) if "serve" in each]
    assert 'MODEL = "runs/mine"' in found
    return found.replace('"runs/mine"', repr(str(model)))


def test_the_example_is_python(models: Models) -> None:
    compile(example(models.text), str(DOCS), "exec")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_replicas_answer_as_the_model_does(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray import serve

    (tmp_path / "serve_on_ray.py").write_text(example(models.text))
    monkeypatch.syspath_prepend(tmp_path)
    path = f"{tmp_path}{os.pathsep}{environment()['PYTHONPATH']}"
    for name, value in {"PYTHONPATH": path, "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}.items():
        monkeypatch.setenv(name, value)
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"port": 8765})
        import serve_on_ray

        serve.run(serve_on_ray.app)
        sources = ["ba do", "ki", "lu me no", "ba"]
        for options in ({"beams": 1}, {"beams": 3, "max_new_tokens": 4}):
            said = list(sourcewise.load(models.text).generate(sources, **options))
            assert ask({"sources": sources, **options}) == said
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask({"sources": sources, "beams": 0})
        assert refused.value.code == 400 and "beams should be greater than 0" in refused.value.read().decode()
    finally:
        serve.shutdown()
        ray.shutdown()


def ask(words: dict[str, Any]) -> Any:
    request = urllib.request.Request("http://127.0.0.1:8765/", json.dumps(words).encode())
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)
