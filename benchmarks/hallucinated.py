"""Whether source bits mark outputs that have nothing to do with their source, without a reference.

    python benchmarks/hallucinated.py RUN DATA [--features DIR] [--count 200] [--json]

Half of the sources of a set get the outputs that the model gives for them. The same sources are then scored with the
outputs that it gives for other sources, of nearest length and not among the sources that bits are measured against:
fluent, of the right kind, and detached. Printed is the AUC of each figure: the share of pairs of a true and a detached
output that it orders rightly. 0.5 is chance. Log-probability and length are the plain rivals. The score of the search
is what a detached output had when it was made, for the source that it was made from.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from scipy.stats import rankdata

import sourcewise
from sourcewise.data.encoding import ExampleSet
from sourcewise.generation.generate import generate_lists
from sourcewise.generation.model import Model
from sourcewise.generation.outputs import Output
from sourcewise.generation.sampling import Hypothesis
from sourcewise.generation.scores import scored


def auc(higher: np.ndarray, lower: np.ndarray) -> float:
    """The share of pairs of which the one of `higher` is larger; ties count half."""
    ranks = rankdata(np.concatenate([higher, lower]))[: len(higher)]
    return float((ranks.sum() - len(higher) * (len(higher) + 1) / 2) / (len(higher) * len(lower)))


def figures(outputs: list[Output]) -> dict[str, np.ndarray]:
    """The figures of outputs, each higher where an output is better founded (length: a guess)."""
    own = [[token for token in output.tokens if not token.given] for output in outputs]
    return {
        "source bits per token": np.array([output.source_bits for output in outputs]),
        "source bits, the best of the others": np.array([output.least_bits for output in outputs]),
        "source bits, sum": np.array([sum(t.source_bits for t in tokens) for tokens in own]),
        "log-probability per token": np.array([o.log_probability / len(t) for o, t in zip(outputs, own, strict=True)]),
        "log-probability, sum": np.array([output.log_probability for output in outputs]),
        "score of the search that made it": np.array([output.score for output in outputs]),
        "length (tokens)": np.array([float(len(tokens)) for tokens in own]),
    }


def halves(encoded: ExampleSet, count: int) -> tuple[list[int], list[int]]:
    """`count` sources, and for each a donor of nearest length from as many others."""
    chosen = np.random.default_rng(0).permutation(len(encoded))[: 2 * count]
    own, donors = chosen[: len(chosen) // 2], chosen[len(chosen) // 2 :][: len(chosen) // 2]
    lengths = np.asarray(encoded.source_lengths)
    by_length = [sorted(rows, key=lambda i: (lengths[i], i)) for rows in (own, donors)]
    return [int(i) for i in by_length[0]], [int(i) for i in by_length[1]]


def measure(model: Model, encoded: ExampleSet, count: int) -> dict[str, object]:
    """AUC of each figure, and what became of the sources."""
    own, donors = halves(encoded, count)
    kept = encoded.select(own)
    said: list[list[list[Hypothesis]]] = [
        generate_lists(model.network, encoded.select(rows), model.generation) for rows in (own, donors)
    ]
    texts = [[model.tokenizer.decode(several[0].said) for several in found] for found in said]
    differing = [i for i, (a, b) in enumerate(zip(*texts, strict=True)) if a != b]
    true, detached = (
        [each.best for each in scored(model, kept.select(differing), [found[i] for i in differing])] for found in said
    )
    sound, wrong = figures(true), figures(detached)
    return {
        "model": model.name,
        "pairs": len(differing),
        "auc": {name: round(auc(sound[name], wrong[name]), 4) for name in sound},
        "source bits at 1, 5, 50, 95, 99 %": [
            np.percentile(x["source bits per token"], (1, 5, 50, 95, 99)).round(2).tolist() for x in (sound, wrong)
        ],
        "made up, %": [100 * sum(o.made_up for o in each) / len(each) for each in (true, detached)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("data")
    parser.add_argument("--features")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    from sourcewise.evaluation.evaluate import lay_out

    model = sourcewise.load(given.run)
    found = measure(model, lay_out(model, given.data, features=given.features), given.count)
    if given.json:
        print(json.dumps(found, ensure_ascii=False))
        return
    print(f"{found['model']}: {found['pairs']} true and as many detached outputs")
    for name, value in dict(found["auc"]).items():  # type: ignore[call-overload]
        print(f"  AUC {value:.3f}  {name}")
    for name in ("source bits at 1, 5, 50, 95, 99 %", "made up, %"):
        print(f"  {name}, true and detached: {found[name]}")


if __name__ == "__main__":
    main()
