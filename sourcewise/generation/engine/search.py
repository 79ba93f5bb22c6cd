"""Search on a CPU in native code: the complete generation of a T5 in one call, with weights and activations in int8.

Eager decoding takes hundreds of operations per token, microseconds each, most of them in Python. Here sources are
encoded without padding, all hypotheses pass the decoder in one batch, new sources replace finished ones, and logits are
never stored. Weights are quantised per output, activations per row; cached keys and values are bf16, the rest is fp32.
Read the C++ (native/search) in the order products.h, layers.h, network.h, search.h.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from ctypes import Structure, byref, c_int64, c_void_p
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sourcewise.config import GenerationConfig
from sourcewise.data.encoding import ExampleSet
from sourcewise.errors import tell
from sourcewise.generation.engine.layout import LONGEST, C, Layout, computes
from sourcewise.generation.rules import Rules
from sourcewise.generation.sampling import Hypothesis
from sourcewise.model import protocol
from sourcewise.model.families.transformer import Transformer
from sourcewise.model.finite import not_finite
from sourcewise.model.network import Seq2Seq
from sourcewise.native.codes import SEARCH
from sourcewise.runtime.device import is_host

# Limits of the work given to a thread at a time: sources, memory positions, tokens of outputs.
CHUNK, CHUNK_SLOTS, CHUNK_TOKENS = 1024, 65536, 2**22
TOGETHER = 32  # sources embedded at a time
OPTIONS = GenerationConfig.model_fields
SUPPORTED = ("beams", "max_new_tokens", "min_new_tokens", "length_penalty", "seed", "batch_tokens", "mbr_candidates")
SAMPLED = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
PATIENCE = 0.1  # seconds between checks of the progress


def why_not(network: protocol.Network, device: torch.device) -> str | None:
    """Why this network cannot be searched in int8 on this device, in words that follow "int8"; None if it can."""
    body: Any = network.body if isinstance(network, Seq2Seq) else None
    if not isinstance(body, Transformer) or not computes(body.config):
        return "is for the T5 family"
    if not is_host(device):
        return f"is for the CPU, not {device}"
    if (lacking := SEARCH.why_not()) is not None:
        return f"needs a processor with AVX2 and a C++ compiler (g++ or clang++): {lacking}"
    return None


class Engine:
    """The weights of a network in int8, and searches with them."""

    def __init__(self, network: Seq2Seq) -> None:
        code = SEARCH.load()
        assert code is not None
        self.network, self.code = network, code
        self.layout = Layout(code, network.body)
        self.told: set[str] = set()

    def why_not(
        self, options: GenerationConfig, encoded: ExampleSet | None = None, count: int = 1, allowed: bool = False
    ) -> str:
        """The option that the native search does not support; empty if it supports them all."""
        neutral = {name: field.get_default(call_default_factory=True) for name, field in OPTIONS.items()}
        asked = [name for name in OPTIONS if name not in SUPPORTED and getattr(options, name) != neutral[name]]
        asked = [name for name in asked if options.sample or name not in SAMPLED]
        if options.beams == 1:
            asked = [name for name in asked if name != "early_stopping"]
        asked += ["n_best"] if count > 1 else []
        asked += ["allowed_tokens"] if allowed else []
        if not asked and not Rules(self.network, options).plain:
            asked = ["what generation_config.json asks for"]
        if not asked and encoded is not None and encoded.begins is not None:
            asked = ["target_language"]
        return asked[0] if asked else ""

    def tell(self, why: str) -> None:
        """Say once that an option is searched without native code."""
        if why not in self.told:
            self.told.add(why)
            tell(f"int8: {why} is not in the native search; the plain one does it, slower")

    def search(
        self, encoded: ExampleSet, options: GenerationConfig, progress: Callable[[int, int], None] | None = None
    ) -> list[Hypothesis]:
        """The best hypothesis of every source, in the order of the set; each CPU thread takes chunks of them."""
        out: list[Hypothesis] = [Hypothesis([], 0.0)] * len(encoded)
        layout, tables = self.layout.for_steps(options.max_new_tokens)
        threads = torch.get_num_threads()
        done, stop = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)

        def run(rows: list[int]) -> None:
            for row, hypothesis in zip(rows, self._search(layout, encoded, rows, options, done, stop), strict=True):
                out[row] = hypothesis

        chunks = _chunks(np.asarray(encoded.source_lengths), threads, options.max_new_tokens)
        if len(chunks) == 1 and len(encoded) == 1:
            run(chunks[0])
            return out
        with ThreadPoolExecutor(threads, "search", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            running = [pool.submit(run, chunk) for chunk in chunks]
            try:
                _watch(running, lambda: progress(int(done[0]), len(encoded)) if progress else None)
            except BaseException:
                stop[0] = 1
                for future in running:
                    future.cancel()
                raise
        del tables  # not before
        return out

    @torch.inference_mode()
    def _search(
        self,
        layout: Structure,
        encoded: ExampleSet,
        rows: list[int],
        options: GenerationConfig,
        done: np.ndarray,
        stop: np.ndarray,
    ) -> Iterator[Hypothesis]:
        """The best hypotheses of the sources at `rows`, in order."""
        vectors, lengths, read = self._vectors(encoded, rows)
        starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        steps = options.max_new_tokens
        asked = C.Options(
            *(options.beams, steps, options.min_new_tokens, options.length_penalty),
            *(self.network.start_id, self.network.eos_id, int(read)),
        )
        tokens = np.zeros((len(rows), steps), dtype=np.int32)
        counts, scores = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.float32)
        failed = self.code.sourcewise_search(
            *(byref(layout), c_void_p(vectors.data_ptr()), _pointer(starts), c_int64(len(rows)), byref(asked)),
            *(_pointer(tokens), _pointer(counts), _pointer(scores), _pointer(done), _pointer(stop)),
        )
        if failed:
            raise RuntimeError("memory ran out; lower generation.beams or generation.max_new_tokens")
        if np.isnan(scores).any():
            raise not_finite(self.network, "the logits of the search in int8")
        for row, count, score in zip(tokens, counts.tolist(), scores.tolist(), strict=True):
            ids = row[:count].tolist()
            ended = bool(ids) and ids[-1] == self.network.eos_id
            yield Hypothesis(ids[:-1] if ended else ids, score, ids[-1] if ended else None)

    def _vectors(self, encoded: ExampleSet, rows: list[int]) -> tuple[Tensor, np.ndarray, bool]:
        """Packed vectors of the sources (positions, d_model), the length of each, and whether they are encoded."""
        sources = (encoded.source(rows[i : i + TOGETHER]) for i in range(0, len(rows), TOGETHER))
        embed, bypassed, device = self.network.embed, self.network.bypassed, self.network.device
        pieces = [(*embed(source.to(device)), bypassed(source)) for source in sources]
        read = pieces[0][2]
        if not read and max(layout.width for _, layout, _ in pieces) > LONGEST:
            encoder = self.layout.body.run_encoder
            pieces, read = [(encoder(vectors, layout)[1], layout, True) for vectors, layout, _ in pieces], True
        vectors = torch.cat([layout.compact().pack(vectors).float() for vectors, layout, _ in pieces])
        return vectors, np.concatenate([layout.lengths for _, layout, _ in pieces]), read


def _chunks(lengths: np.ndarray, threads: int, steps: int) -> list[list[int]]:
    """Indices of a set, longest sources first, distributed over `threads` or more chunks."""
    order = np.argsort(-lengths, kind="stable")
    needs = (len(order) / CHUNK, int(lengths.sum()) / CHUNK_SLOTS, len(order) * steps / CHUNK_TOKENS)
    count = min(len(order), max(threads, *(math.ceil(need) for need in needs)))
    return [order[i::count].tolist() for i in range(count)]


def _watch(running: Sequence[Future[None]], tell: Callable[[], Any]) -> None:
    """Wait for all, reporting the progress; raises the first error."""
    while True:
        done, pending = wait(running, PATIENCE, FIRST_EXCEPTION)
        tell()
        for future in done:
            future.result()
        if not pending:
            return


def _pointer(array: np.ndarray) -> c_void_p:
    return c_void_p(array.ctypes.data)
