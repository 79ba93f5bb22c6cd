"""Denoising for pre-training: spans of tokens are dropped from the source and become the target.

Span corruption as in T5 (Raffel et al. 2020, `t5/data/preprocessors.py`):

```
piece    Thank you for inviting me to your party last
source   Thank you <extra_id_0> me to your party <extra_id_1> </s>
target   <extra_id_0> for inviting <extra_id_1> last </s>
```
Of n tokens `dropped = round(n × density)` are dropped, in `spans = round(dropped / mean span)` spans. Kept and dropped
spans alternate, beginning with a kept one, so that a piece ends with a dropped one; all such choices are equally
likely. Hence

    source = n − dropped + spans + 1        target = dropped + spans + 1        (1: the end of text)

The target ends with the end of text alone. The paper's Figure 2 shows one more sentinel before it; T5's code, which
trained T5, has none: 568 tokens give 512 and 85 + 28 + 1 = 114.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.tokenizers.backends import SENTINEL

SENTINELS = 100  # as many as T5 has
NLU, NLG, S2S = MODES = ("[NLU]", "[NLG]", "[S2S]")  # UL2's words for regular, extreme and sequential denoising


@dataclass(frozen=True, slots=True)
class Denoiser:
    """One way to corrupt a piece of text; `mode` is a token before the source.

    `sequential`: one span at the end of the piece, of a uniform length from 1 to half of the piece, without sentinels:
    a prefix language model. Its `density` and `mean_span` (of the piece) are averages.
    """

    mean_span: float
    density: float
    mode: str = ""
    sequential: bool = False

    def drops(self, tokens: int) -> tuple[int, int]:
        """(dropped tokens, spans) of a piece of so many tokens; 0 spans: no sentinels. At least one token is kept."""
        dropped = min(max(round(tokens * self.density), 1), tokens - 1)
        if self.sequential:
            return dropped, 0
        return dropped, min(max(round(dropped / self.mean_span), 1), tokens - dropped)

    def lengths(self, tokens: int) -> tuple[int, int]:
        """Lengths of source and target of a piece, with end of text, without mode; of sequential ones the longest."""
        dropped, spans = self.drops(tokens)
        if self.sequential:
            return tokens, max(1, tokens // 2 - 1) + 1
        return tokens - dropped + spans + 1, dropped + spans + 1

    def piece(self, budget: int) -> int:
        """Tokens of a piece whose source has exactly `budget` tokens with end of text (T5's `random_spans_helper`).

        With a sequential denoiser the source has at most so many.
        """
        if self.sequential:
            return budget - 1
        tokens = budget - 1
        while self.lengths(tokens + 1)[0] <= budget:
            tokens += 1
        # As in T5: if half of the tokens are dropped, the target should not be longer than the source.
        return tokens - 1 if self.density == 0.5 and self.lengths(tokens)[1] > budget else tokens


# UL2 (Tay et al. 2023, Table 1): R, X and S, all seven equally often ("rates: None" in the code of its appendix). The
# mean span of S is a quarter of the piece. Its code draws span lengths as T5 does; its text says normal.
UL2 = (
    Denoiser(3, 0.15, NLU),
    Denoiser(8, 0.15, NLU),
    Denoiser(3, 0.5, NLG),
    Denoiser(8, 0.5, NLG),
    Denoiser(64, 0.15, NLG),
    Denoiser(64, 0.5, NLG),
    Denoiser(0.25, 0.25, S2S, sequential=True),
)


def denoisers(config: DatasetConfig) -> tuple[Denoiser, ...]:
    """The denoisers of a set of plain text."""
    return UL2 if config.denoise == "ul2" else (Denoiser(config.mean_span, config.noise_density),)


def most_spans(config: DatasetConfig, data: DataConfig) -> int:
    """Number of sentinels that a set of plain text needs: the most spans of a source, without counting modes."""
    budget = config.max_source or data.max_source
    return max(each.drops(each.piece(budget))[1] for each in denoisers(config))


def special_tokens(config: DatasetConfig, data: DataConfig) -> list[str]:
    """Special tokens of a tokenizer for a set of plain text, in the order of ids: modes, then sentinels in reverse.

    As in T5 the sentinels have the highest ids, and there are 100 of them, or more if a source has more spans.
    """
    count = max(SENTINELS, most_spans(config, data))
    return [*MODES, *(SENTINEL.format(i) for i in reversed(range(count)))]


def corrupt(
    piece: np.ndarray, dropped: int, spans: int, sentinels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Source and target of a piece, without ends of text; with 0 spans the target is the last `dropped` tokens."""
    if not spans:
        return piece[:-dropped], piece[-dropped:]
    kept, gone = _parts(len(piece) - dropped, spans, rng), _parts(dropped, spans, rng)
    is_gone = np.repeat(np.tile([False, True], spans), np.stack((kept, gone), axis=1).ravel())
    source = np.insert(piece[~is_gone], np.cumsum(kept), sentinels[:spans])
    return source, np.insert(piece[is_gone], np.cumsum(gone) - gone, sentinels[:spans])


def _parts(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` positive integers with the sum `total`; all such choices are equally likely."""
    cuts = np.sort(rng.choice(max(1, total - 1), count - 1, replace=False)) + 1
    return np.diff(np.concatenate(([0], cuts, [total])))
