"""Does `inputs_embeds=` go past T5's encoder? Three ways into Hugging Face's T5 and into ours, and what they train to.

    python benchmarks/inputs_embeds.py [--weights google-t5/t5-small] [--data FOLDER --runs FOLDER] [--json FILE]

Ways: `inputs_embeds` (the model is given vectors), `encoder by hand` (the encoder is called on the vectors, the model
is given its output), `bypass` (the model is given the vectors as if they were the encoder's output), all with the mask
of the padding; and `no mask`, the first without it. Told are the largest differences of logits from the first way's,
and the share of greedy outputs that are the same.

With --data the recipe `fsdd` is trained by both routes (`encoder`, which is the first two ways, and `bypass`), alike in
all else, with three seeds; trainings that are done already in --runs are not done again.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

import sourcewise
from sourcewise.config import BridgeConfig, GenerationConfig
from sourcewise.data.batches import Source
from sourcewise.evaluation.results import METRICS_FILE
from sourcewise.generation.sampling import greedy_or_sample
from sourcewise.model.inputs.registry import build_bridge
from sourcewise.model.network import Seq2Seq
from sourcewise.model.weights.checkpoint import find_folder, load_network

WAYS = ("inputs_embeds", "encoder by hand", "bypass", "no mask")
FRAMES, DIMS, STEPS = (3, 24, 17, 9, 21, 12), 40, 12
EPOCHS, SEEDS = 6, (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="a T5 folder or hub name; default: random weights of a small shape")
    parser.add_argument("--data", type=Path, help="folder with fsdd/, as the recipe's head says; default: no training")
    parser.add_argument("--runs", type=Path, default=Path("runs/inputs_embeds"), help="where the trainings go")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--json", type=Path, help="write rows, ratios and machine there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = find_folder(arguments.weights) if arguments.weights else random_t5(Path(name))
        rows: list[dict[str, Any]] = ways(folder)
    for row in rows:
        print(f"{row['engine']:14} {row['way']:16} logits {row['logits']:9.2e}   same outputs {row['same_pct']:5.1f} %")
    ratios: dict[str, Any] = {}
    if arguments.data:
        trained = train(arguments.data, arguments.runs, arguments.epochs)
        ratios = compared(trained)
        rows += trained
        print(json.dumps(ratios))
    machine = {"cpu": platform.processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "ratios": ratios, "machine": machine}, indent=2) + "\n")


# ── forward and generate ──────────────────────────────────────────────────────────────────────────────────────────────


def random_t5(folder: Path) -> Path:
    """A T5 whose outputs are of various lengths."""
    torch.manual_seed(0)
    shape = {"vocab_size": 120, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 3, "num_heads": 4}
    model = T5ForConditionalGeneration(T5Config(**shape, decoder_start_token_id=0))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, 1.0 if weight.ndim == 1 else 0.0, 0.25)
    model.save_pretrained(folder / "t5")
    return folder / "t5"


def ways(folder: Path) -> list[dict[str, Any]]:
    """A row an engine and way, over the same projected features."""
    theirs = T5ForConditionalGeneration.from_pretrained(folder).eval()
    body = load_network(folder)
    assert isinstance(body, Seq2Seq)
    torch.manual_seed(1)
    bridge = build_bridge(BridgeConfig(kind="projection"), DIMS, theirs.config.d_model, 0.0)
    made = {route: Seq2Seq(body.body, bridge, route).eval() for route in ("encoder", "bypass")}  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(2)
    frames = torch.tensor(FRAMES)
    features = torch.randn(len(FRAMES), max(FRAMES), DIMS, generator=draw)
    source = Source(features=features, frames=frames)
    tokens = torch.randint(2, theirs.config.vocab_size, (len(FRAMES), STEPS), generator=draw)
    tokens[:, 0] = theirs.config.decoder_start_token_id
    with torch.inference_mode():
        vectors, layout = made["encoder"].embed(source)
        found = {"transformers": of_transformers(theirs, vectors, layout.on("cpu").mask, tokens)}
        found["sourcewise"] = of_sourcewise(made, source, tokens)
    first = found["transformers"][WAYS[0]]
    return [
        {
            "work": "forward",
            "engine": engine,
            "way": way,
            "logits": float((logits - first[0]).abs().max()),
            "same_pct": 100 * statistics.mean(a == b for a, b in zip(outputs, first[1], strict=True)),
        }
        for engine, given in found.items()
        for way, (logits, outputs) in given.items()
    ]


Given = dict[str, tuple[Tensor, list[list[int]]]]  # way → logits, and greedy outputs


def of_transformers(model: Any, vectors: Tensor, mask: Tensor, tokens: Tensor) -> Given:
    """Hugging Face's four ways."""
    said = mask.long()
    states = model.get_encoder()(inputs_embeds=vectors, attention_mask=said).last_hidden_state
    inputs = {
        WAYS[0]: lambda: {"inputs_embeds": vectors, "attention_mask": said},
        WAYS[1]: lambda: {"encoder_outputs": BaseModelOutput(last_hidden_state=states), "attention_mask": said},
        WAYS[2]: lambda: {"encoder_outputs": BaseModelOutput(last_hidden_state=vectors), "attention_mask": said},
        WAYS[3]: lambda: {"inputs_embeds": vectors},
    }
    found: Given = {}
    for way, given in inputs.items():
        logits = model(**given(), decoder_input_ids=tokens).logits
        options = {"max_new_tokens": STEPS, "do_sample": False, "num_beams": 1}
        outputs = model.generate(**given(), **options)
        found[way] = (logits, [cut(row.tolist()[1:], model.config.eos_token_id) for row in outputs])
    return found


def of_sourcewise(made: dict[str, Seq2Seq], source: Source, tokens: Tensor) -> Given:
    """Ours: by the route `encoder`, its encoder called by hand, and by the route `bypass`."""
    network = made["encoder"]
    vectors, layout = network.embed(source)
    memories = {
        WAYS[0]: network.encode(source),
        WAYS[1]: network.body.encode(vectors, layout),
        WAYS[2]: made["bypass"].encode(source),
    }
    options = GenerationConfig(beams=1, max_new_tokens=STEPS)
    found: Given = {}
    for way, memory in memories.items():
        outputs = greedy_or_sample(network, [(list(range(memory.batch)), memory)], options)
        found[way] = network.decode(tokens, memory), [cut(outputs[i].ids, network.eos_id) for i in range(memory.batch)]
    return found


def cut(ids: list[int], end: int) -> list[int]:
    """Up to the end of text."""
    return ids[: ids.index(end)] if end in ids else ids


# ── what they train to ────────────────────────────────────────────────────────────────────────────────────────────────


def train(data: Path, runs: Path, epochs: int) -> list[dict[str, Any]]:
    """A row a route and seed: the recipe `fsdd`, so many epochs, on one thread, measured on its test set."""
    rows = []
    for seed in SEEDS:
        for route in ("encoder", "bypass"):
            name = f"{route}-{seed}"
            options = {
                "name": name,
                "output": str(runs),
                "seed": seed,
                "data.root": str(data),
                "model.route": route,
                "train.epochs": epochs,
                "train.threads": 1,
            }
            done = (runs / name / METRICS_FILE).is_file()
            if not done:
                sourcewise.train("fsdd", options, overwrite=True)
            figures = json.loads((runs / name / METRICS_FILE).read_text())
            kept = ("wer", "bleu", "exact_match_pct", "loss", "source_bits", "source_bits_ci95")
            rows.append({"work": "fsdd", "engine": "sourcewise", "route": route, "seed": seed, "epochs": epochs})
            rows[-1] |= {key: figures[key] for key in kept}
            print(f"fsdd {route:8} seed {seed}: WER {figures['wer']:.3f}, source bits {figures['source_bits']:.2f}")
    return rows


def compared(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Per route the mean WER and its range over seeds; and the mean difference, seed by seed."""
    of = {route: [row["wer"] for row in rows if row["route"] == route] for route in ("encoder", "bypass")}
    differences = [b - a for a, b in zip(of["encoder"], of["bypass"], strict=True)]
    return {
        **{f"wer_{route}": {"mean": statistics.mean(w), "least": min(w), "most": max(w)} for route, w in of.items()},
        "bypass_minus_encoder": {"mean": statistics.mean(differences), "each": differences},
    }


if __name__ == "__main__":
    main()
