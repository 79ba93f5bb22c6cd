"""Beam search, hypothesis for hypothesis as transformers' `generate` does it with `early_stopping=False`.

Beams of a source share its memory; finished sources leave the batch, crowd by crowd.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sourcewise.config import GenerationConfig
from sourcewise.generation.candidates import likeliest, log_normaliser
from sourcewise.generation.sampling import Hypothesis, constrain, who_stays
from sourcewise.model.protocol import Memory, Network

NEVER = -1.0e9  # score of a hypothesis that does not exist


class _Finished:
    """The best finished hypotheses of each source, best first."""

    def __init__(self, sources: int, beams: int, steps: int, pad_id: int, device: torch.device) -> None:
        self.tokens = torch.full((sources, beams, steps), pad_id, device=device)
        self.scores = torch.full((sources, beams), NEVER, device=device)
        self.there = torch.zeros(sources, beams, dtype=torch.bool, device=device)

    def add(self, tokens: Tensor, scores: Tensor, ended: Tensor) -> None:
        """Merge candidates (sources, n, steps) whose `ended` is true, keeping the best."""
        beams = self.scores.shape[1]
        scores = torch.cat((self.scores, scores + ~ended * NEVER), dim=1)
        there = torch.cat((self.there, ended), dim=1)
        best = scores.topk(beams).indices
        tokens = torch.cat((self.tokens, tokens), dim=1)
        self.tokens = tokens.gather(1, best[..., None].expand(-1, -1, tokens.shape[2]))
        self.scores, self.there = scores.gather(1, best), there.gather(1, best)

    def select(self, rows: Tensor) -> None:
        """Keep these sources."""
        self.tokens, self.scores, self.there = self.tokens[rows], self.scores[rows], self.there[rows]


def beam_search(network: Network, memory: Memory, options: GenerationConfig) -> list[list[Hypothesis]]:
    """The `beams` best hypotheses of each source, best first, scored by Σ ln p / length^length_penalty."""
    beams, steps, device = options.beams, options.max_new_tokens, memory.mask.device
    rows = torch.arange(memory.batch, device=device)
    is_open = torch.ones_like(rows, dtype=torch.bool)
    out: list[list[Hypothesis]] = [[] for _ in range(memory.batch)]
    finished = _Finished(memory.batch, beams, steps, network.pad_id, device)
    running = torch.zeros(memory.batch, beams, 0, dtype=torch.long, device=device)
    scores = torch.full((memory.batch, beams), NEVER, device=device)
    scores[:, 0] = 0.0  # all beams are the same before the first token: only one may speak
    cache = network.new_cache(memory, 1, steps)
    last = torch.full((memory.batch, 1), network.start_id, device=device)
    for step in range(steps):
        logits = network.decode(last, memory, cache)[:, -1]
        if step == 0:  # one row a source so far
            logits = logits.repeat_interleave(beams, 0)
            cache.select(torch.arange(memory.batch, device=device)[:, None].expand(-1, beams))
        total, parent, token = _candidates(logits, running, scores, options, network)
        extended = torch.cat((running.gather(1, parent[..., None].expand(-1, -1, step)), token[..., None]), dim=2)
        ended = (token == network.eos_id) | (step + 1 == steps)

        # Only the best `beams` candidates may finish, those that exist; the others are spare ones to go on with.
        first = (torch.arange(total.shape[1], device=device) < beams) & (total > NEVER / 2)
        padded = torch.nn.functional.pad(extended, (0, steps - step - 1), value=network.pad_id)
        finished.add(padded, total / (step + 1) ** options.length_penalty, ended & first)
        going_on, chosen = (total + ended * NEVER).topk(beams)
        scores = going_on
        running = extended.gather(1, chosen[..., None].expand(-1, -1, step + 1))
        parent = parent.gather(1, chosen)

        best_possible = scores[:, :1] / (step + 1) ** options.length_penalty
        worst = torch.where(finished.there, finished.scores.min(1, keepdim=True).values, NEVER)
        closing = is_open & ~((best_possible > worst).any(1) & (step + 1 < steps))
        for i in closing.nonzero().squeeze(1).tolist():
            out[int(rows[i])] = _hypotheses(finished.tokens[i], finished.scores[i], network.eos_id)
        is_open &= ~closing
        if not bool(is_open.any()):
            break
        staying = who_stays(is_open)
        if staying is None:
            staying = torch.arange(len(rows), device=device)
        else:
            memory, rows, running, scores = memory.select(staying), rows[staying], running[staying], scores[staying]
            finished.select(staying)
            is_open = is_open[staying]
        cache.select(staying[:, None] * beams + parent[staying])
        last = running[:, :, -1].reshape(-1, 1)
    return out


def _candidates(
    logits: Tensor, running: Tensor, scores: Tensor, options: GenerationConfig, network: Network
) -> tuple[Tensor, Tensor, Tensor]:
    """The 2 × beams likeliest continuations of each source: total ln p, beam they extend, token; best first.

    Only each beam's own best are compared: the best of all are among them.
    """
    sources, beams, _ = running.shape
    normaliser = log_normaliser(logits)
    logits = constrain(logits, running.flatten(0, 1), options, network)
    most = min(2 * beams, logits.shape[-1])
    values, tokens = likeliest(logits, most)
    total = (values - normaliser).view(sources, beams, most) + scores[..., None]
    best = total.flatten(1).topk(min(2 * beams, beams * most))
    parent = best.indices // most
    return best.values, parent, tokens.view(sources, -1).gather(1, best.indices)


def _hypotheses(tokens: Tensor, scores: Tensor, eos_id: int) -> list[Hypothesis]:
    out = []
    for row, score in zip(tokens.tolist(), scores.tolist(), strict=True):
        if score <= NEVER / 2:
            continue
        ended = eos_id in row
        out.append(Hypothesis(row[: row.index(eos_id)] if ended else row, score, ended))
    return out
