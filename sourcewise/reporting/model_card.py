"""README.md of a checkpoint: its model card, as hubs show it.

It says where the model lies beside the baselines, whether it reads its source, what was found wrong, and what it was
made from and how. Whoever is given the weights has this beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from sourcewise.config import Recipe
from sourcewise.evaluation.verdict import Verdict, verdict_of
from sourcewise.reporting.again import environment, times
from sourcewise.reporting.baselines import baseline_note, baseline_table
from sourcewise.reporting.checked import Checked
from sourcewise.reporting.pages import markdown_table
from sourcewise.reporting.run_files import RunFiles
from sourcewise.reporting.terminal import measured
from sourcewise.runtime.files import write_atomically

CARD_FILE = "README.md"
NO_LICENSE = "not stated; `license` in the recipe states it"
SETS = ("train", "valid", "test")
HUB_METRICS = {"bleu": "bleu", "chrf": "chrf", "wer": "wer", "cer": "cer", "exact_match_pct": "exact_match"}


def write_model_card(run: RunFiles, checked: Checked) -> Path | None:
    """Write the card into the best checkpoint of a run that was evaluated, atomically, and return its path.

    None where there is no such checkpoint, or nothing was measured on it yet. Raises RequestError for a folder that
    cannot be written.
    """
    folder = run.folder / "checkpoints" / "best"
    if not folder.is_dir() or not run.final:
        return None
    write_atomically(folder / CARD_FILE, model_card(run, checked))
    return folder / CARD_FILE


def model_card(run: RunFiles, checked: Checked) -> str:
    """The card of a run's best checkpoint, as Markdown with the header that hubs read."""
    said = verdict_of(run.evaluation)
    parts = [_header(run), f"# {run.name}", _verdict(said), *_figures(run), *_baselines(run), _findings(checked)]
    return "\n\n".join([*parts, *_made(run), _use(run)]) + "\n"


def _header(run: RunFiles) -> str:
    """What a hub lists a model by: licence, base model, and its figures with the set that they were measured on."""
    model = run.recipe.get("model") or {}
    about: dict[str, Any] = {"library_name": "sourcewise", "tags": ["sourcewise", "encoder-decoder"]}
    if run.recipe.get("license"):
        about["license"] = run.recipe["license"]
    weights = model.get("weights") if isinstance(model, Mapping) else None
    if isinstance(weights, str) and not Path(weights).exists():
        about["base_model"] = weights
    found = [
        {"type": kind, "value": round(run.metrics[key], 4), "name": key}
        for key, kind in HUB_METRICS.items()
        if isinstance(run.metrics.get(key), (int, float))
    ]
    if found:
        dataset = {"type": "other", "name": _named(run, "test") or _named(run, "valid") or "not named"}
        results = {"task": {"type": "text2text-generation"}, "dataset": dataset, "metrics": found}
        about["model-index"] = [{"name": run.name, "results": [results]}]
    return "---\n" + yaml.safe_dump(about, sort_keys=False, allow_unicode=True) + "---"


def _verdict(said: Verdict | None) -> str:
    if said is None:
        return "**No verdict**: the outputs of the evaluation are not in the run folder."
    return f"**{said.level}**: {said.text}"


def _figures(run: RunFiles) -> Iterator[str]:
    if not run.metrics:
        return
    yield f"## Figures, on {run.measured_on or 'a set that the recipe does not name'}"
    yield markdown_table(["figure", "value"], measured(run.metrics))


def _baselines(run: RunFiles) -> Iterator[str]:
    titles, rows = baseline_table(run.metrics)
    if rows:
        yield "## Beside baselines, which need no model"
        yield markdown_table(titles, rows)
        yield f"Taken {baseline_note(run.metrics)}."


def _findings(checked: Checked) -> str:
    found = [
        f"- **{each.finding.code}, {each.finding.name}** ({each.finding.level}): {each.finding.evidence}"
        for each in checked.findings
    ]
    return "\n".join(["## What `sourcewise diagnose` finds", "", *(found or ["Nothing in what was checked."])])


def _made(run: RunFiles) -> Iterator[str]:
    """Data, licence, command, time and versions, and the recipe whole."""
    about = [f"- {name}: `{_named(run, name)}`" for name in SETS if _named(run, name)]
    about += [f"- licence: {run.recipe.get('license') or NO_LICENSE}", f"- seed: {run.recipe.get('seed', 0)}"]
    about += [f"- {name}: {words}" for name, words in (*times(run), *environment(run.lines))]
    yield "\n".join(["## Data, and how it was made", "", *about])
    if run.recipe:
        chosen = yaml.safe_dump(_chosen(run.recipe), sort_keys=False, allow_unicode=True)
        yield f"`sourcewise train recipe.yaml` with this recipe, the rest as by default:\n\n```yaml\n{chosen}```"


def _chosen(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What of a recipe is not the default; all of it, where this version does not know some option."""
    try:
        return Recipe.model_validate(recipe).model_dump(mode="json", exclude_defaults=True, exclude={"output"})
    except ValueError:
        return dict(recipe)


def _named(run: RunFiles, use: str) -> str:
    """The set or sets of a recipe in words; empty if it names none."""
    data = run.recipe.get("data")
    found = data.get(use) if isinstance(data, Mapping) else None
    words = []
    for each in found if isinstance(found, list) else [found]:
        if isinstance(each, Mapping):
            kinds = ("pairs", "manifest", "conversations", "text", "builtin", "matrices")
            words += [str(each[kind]) for kind in kinds if each.get(kind)][:1]
    return ", ".join(words)


def _use(run: RunFiles) -> str:
    of_features = (run.folder / "checkpoints" / "best" / "bridge.safetensors").is_file()
    words = "clips.tsv --features FOLDER" if of_features else "sources.txt"
    return f"## How to use it\n\n```sh\npip install sourcewise\nsourcewise generate CHECKPOINT {words}\n```"
