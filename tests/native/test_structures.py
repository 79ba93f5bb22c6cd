"""Structs that C++ declares are those that Python fills."""

from __future__ import annotations

import ctypes
from pathlib import Path

from sourcewise.generation.engine import layout
from sourcewise.native.structures import structures
from sourcewise.native.training import attention, attention_part

CODE = """
struct Pair {  // of numbers
    const float *one, *other;  // two pointers; and more
    int32_t counts[2], last;

    int32_t first() const { return counts[0]; }
};

struct Held {
    std::vector<float> values;
    float score = 0;
};

struct Both {
    Pair left, right;
    const Held* held;
    uint64_t seed;
};
"""


class Pair(ctypes.Structure):
    _fields_ = [
        ("one", ctypes.c_void_p),
        ("other", ctypes.c_void_p),
        ("counts", ctypes.c_int32 * 2),
        ("last", ctypes.c_int32),
    ]


class Both(ctypes.Structure):
    _fields_ = [("left", Pair), ("right", Pair), ("held", ctypes.c_void_p), ("seed", ctypes.c_uint64)]


def test_fields_are_those_that_are_declared(tmp_path: Path) -> None:
    path = tmp_path / "it.h"
    path.write_text(CODE)
    found = structures(path)
    for mine in (Pair, Both):
        theirs = getattr(found, mine.__name__)
        assert ctypes.sizeof(theirs) == ctypes.sizeof(mine)
        assert [name for name, _ in theirs._fields_] == [name for name, _ in mine._fields_]
        assert all(getattr(theirs, name).offset == getattr(mine, name).offset for name, _ in mine._fields_)
    assert not hasattr(found, "Held"), "it holds what only C++ knows"


def test_every_struct_that_is_filled_is_found() -> None:
    for made, names in (
        (attention.C, ("Shape", "Strides", "Dropout")),
        (attention_part.C, ("Part",)),
        (layout.C, ("Linear", "FeedForward", "EncoderLayer", "DecoderLayer", "Network", "Options")),
    ):
        assert all(issubclass(getattr(made, name), ctypes.Structure) for name in names)
