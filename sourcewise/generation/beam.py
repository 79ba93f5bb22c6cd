"""Beam search with the same hypotheses as transformers' `generate`.

The beams of a source share its memory; finished sources leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sourcewise.config import GenerationConfig
from sourcewise.generation.candidates import logsumexp, top_k
from sourcewise.generation.flow import Feed, Known, groups
from sourcewise.generation.forced import forced_candidates
from sourcewise.generation.rules import ReadSource, Rules
from sourcewise.generation.sampling import Hypothesis
from sourcewise.model.protocol import Network

NEVER = -1.0e9  # score of a missing hypothesis

# Called at each step with, as (sources, candidates): total ln p, extended beam, token, finished; and as
# (sources, beams): the candidates that are kept, −1 for none.
Observer = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]


def beam_search(
    network: Network,
    feed: Feed,
    options: GenerationConfig,
    observe: Observer | None = None,
    read: ReadSource | None = None,
) -> dict[int, list[Hypothesis]]:
    """Position of a source in the set → its `beams` best hypotheses, best first.

    The score is Σ ln p / length^length_penalty. `read` knows the examples, for rules that use them.
    """
    out: dict[int, list[Hypothesis]] = {}
    rules = Rules(network, options, read)
    steps, given, words = rules.steps, rules.given, rules.words
    ends = torch.tensor(network.defaults.ends, device=network.device)

    def fresh(indices: list[int]) -> Known:
        return _fresh(torch.tensor(indices, device=network.device), options.beams, steps, network)

    for group in groups(network, feed, options.beams, steps, fresh):
        known, step = group.known, group.step
        total, parent, token = _candidates(group.decode(known["last"].view(-1, 1)), known, rules)
        group.check_finite(total)
        extended = known["running"].gather(1, parent[..., None].expand(-1, -1, step))
        extended = torch.cat((extended, token[..., None]), dim=2)
        ended = torch.isin(token, ends) | (step + 1 == steps) | words.ended(extended, given)
        length = max(1, step + 1 - given)  # a given beginning does not count

        # Only the best `beams` candidates may finish; the others replace finished ones among the beams.
        first = (torch.arange(total.shape[1], device=total.device) < options.beams) & (total > NEVER / 2)
        padded = torch.nn.functional.pad(extended, (0, steps - step - 1), value=network.pad_id)
        may_finish = ended & first & known["is_open"][:, None]
        _finish(known, padded, total / length**options.length_penalty, may_finish, step + 1)
        chosen = _going_on(ended, options.beams)
        known["scores"] = (total + ended * NEVER).gather(1, chosen)
        known["running"] = extended.gather(1, chosen[..., None].expand(-1, -1, step + 1))
        known["last"] = token.gather(1, chosen)
        if observe is not None:
            observe(total, parent, token, ended & first, chosen.masked_fill(known["scores"] <= NEVER / 2, -1))

        going_on = _can_improve(known, length, options) & (step + 1 < steps)
        known["is_open"] = known["is_open"] & going_on
        if group.looks(step + 1):
            for i in (~known["is_open"] & ~known["told"]).nonzero().squeeze(1).tolist():
                out[int(known["names"][i])] = _hypotheses(known, i, rules)
            known["told"] = ~known["is_open"]
        group.go_on(parent.gather(1, chosen))
    return out


def _fresh(names: Tensor, beams: int, steps: int, network: Network) -> Known:
    """State of the search for sources before their first token."""
    shape, device = (len(names), beams), names.device
    scores = torch.full(shape, NEVER, device=device)
    scores[:, 0] = 0.0  # before the first token all beams are equal: only one may be extended
    return {
        "names": names,
        "is_open": torch.ones_like(names, dtype=torch.bool),
        "told": torch.zeros_like(names, dtype=torch.bool),  # finished, and taken to the host
        "last": torch.full(shape, network.start_id, device=device),
        "scores": scores,
        "running": torch.empty((*shape, 0), dtype=torch.long, device=device),  # tokens so far
        # The best finished hypotheses, best first.
        "done": torch.full((*shape, steps), network.pad_id, device=device),
        "done_scores": torch.full(shape, NEVER, device=device),
        "lengths": torch.zeros(shape, dtype=torch.long, device=device),
        "there": torch.zeros(shape, dtype=torch.bool, device=device),
    }


def _candidates(logits: Tensor, known: Known, rules: Rules) -> tuple[Tensor, Tensor, Tensor]:
    """The 2 × beams likeliest continuations of each source: total ln p, extended beam, token; best first.

    With several end tokens there are more, so that `beams` of them can go on. Only each beam's own best are compared:
    they contain the best of all.
    """
    sources, beams = known["scores"].shape
    count = beams * max(2, 1 + len(rules.ends))
    most = min(count, logits.shape[-1])
    scores, free = rules.for_beams(logits, known["running"].flatten(0, 1), known["names"].repeat_interleave(beams))
    if rules.words.forced and known["running"].shape[2] >= rules.given:
        log_p = scores.float() if free is None else scores.float() - logsumexp(free)
        last = known["running"].shape[2] + 1 == rules.steps
        shaped, asked = log_p.view(sources, beams, -1), (rules.words.forced, rules.ends, count, last)
        return forced_candidates(shaped, known["scores"], known["running"], *asked)
    values, tokens = top_k(scores, most)
    if free is not None:
        values = values - logsumexp(free)
    total = values.view(sources, beams, most) + known["scores"][..., None]
    best = total.flatten(1).topk(min(count, beams * most))
    return best.values, best.indices // most, tokens.view(sources, -1).gather(1, best.indices)


def _going_on(ended: Tensor, beams: int) -> Tensor:
    """The first `beams` candidates that have not ended, in order, then some that have: (sources, beams) indices."""
    return ended.to(torch.uint8).argsort(dim=1, stable=True)[:, :beams]


def _can_improve(known: Known, length: int, options: GenerationConfig) -> Tensor:
    """Whether a running hypothesis may still beat the worst finished one: (sources,) bool."""
    if options.early_stopping == "never" and options.length_penalty > 0:
        length = options.max_new_tokens
    best_possible = known["scores"].amax(1, keepdim=True) / length**options.length_penalty
    worst = torch.where(known["there"], known["done_scores"].min(1, keepdim=True).values, NEVER)
    better = (best_possible > worst).any(1)
    return better & ~known["there"].all(1) if options.early_stopping is True else better


def _finish(known: Known, tokens: Tensor, scores: Tensor, ended: Tensor, length: int) -> None:
    """Merge candidates (sources, n, steps) with `ended` into the finished hypotheses and keep the best."""
    beams = known["done_scores"].shape[1]
    scores = torch.cat((known["done_scores"], scores + ~ended * NEVER), dim=1)
    there = torch.cat((known["there"], ended), dim=1)
    lengths = torch.cat((known["lengths"], torch.full_like(ended, length, dtype=torch.long)), dim=1)
    best = scores.topk(beams).indices
    tokens = torch.cat((known["done"], tokens), dim=1)
    known["done"] = tokens.gather(1, best[..., None].expand(-1, -1, tokens.shape[2]))
    known["done_scores"], known["there"] = scores.gather(1, best), there.gather(1, best)
    known["lengths"] = lengths.gather(1, best)


def _hypotheses(known: Known, source: int, rules: Rules) -> list[Hypothesis]:
    """The finished hypotheses of a source, best first."""
    out = []
    rows = (known[name][source].tolist() for name in ("done", "done_scores", "lengths"))
    for row, score, length in zip(*rows, strict=True):
        if score > NEVER / 2:
            ids = row[:length]
            end = ids.pop() if ids[-1] in rules.ends else None
            stopped = rules.words.ends(ids, rules.given)
            out.append(Hypothesis(ids, score, end, stopped, given=rules.given))
    return out
