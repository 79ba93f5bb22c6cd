"""Which C++ there is, what it is for, and whether this machine uses it."""

from __future__ import annotations

from pathlib import Path

from sourcewise.native.compiled import Code

HERE = Path(__file__).parent
AMX = ("amx_tile", "amx_bf16", "avx512f", "avx512bw", "avx512_bf16", "vaes", "fma")

KERNELS = Code("kernels", "loss, norm, dropout of a bf16 training step", HERE / "training" / "kernels.cpp", ("avx2",))
ATTENTION = Code("attention", "of a bf16 training step", HERE / "training" / "attention.cpp", ("avx2", "fma"))
TILES = Code("tiles", "matrix products of a bf16 training step (AMX)", HERE / "training" / "tiles.cpp", AMX)
SEARCH = Code("search", "a T5's generation in int8", HERE / "search" / "engine.cpp", ("avx2", "fma"))

CODES = (KERNELS, ATTENTION, TILES, SEARCH)
OF_TRAINING = (KERNELS, ATTENTION, TILES)


def of_training(device: str, precision: str, threads: int) -> str:
    """Which native code a training uses on this type of device, in this precision; `threads` of torch a part of a step.

    Compiles it where that was not done yet.
    """
    if device != "cpu":
        return f"none (it is for the CPU, not {device})"
    if precision != "bf16":
        return f"none (it is for bf16, not {precision})"
    without = {code.name: why for code in OF_TRAINING if (why := code.why_not()) is not None}
    if threads > 1 and TILES.name not in without:
        without[TILES.name] = f"a part of a step has {threads} threads, it uses one"
    found = ", ".join(code.name for code in OF_TRAINING if code.name not in without) or "none"
    reasons: dict[str, list[str]] = {}
    for name, why in without.items():
        reasons.setdefault(why, []).append(name)
    lacking = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
    return f"{found} (without {lacking})" if lacking else found
