"""Arrays in .safetensors files, and torch's tensors as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sourcewise.data.formats.store import Arrays, Header, Source, Store

_TYPES = {
    "F16": "float16", "BF16": "float32", "F32": "float32", "F64": "float64", "BOOL": "bool",
    "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "U8": "uint8", "U16": "uint16",
}  # fmt: skip


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """The numbers of a tensor; bfloat16, which numpy lacks, becomes float32, which is exact."""
    if tensor.is_quantized:
        raise ValueError("holds a quantised tensor; save its numbers (tensor.dequantize())")
    if tensor.layout != torch.strided:
        raise ValueError(f"holds a {tensor.layout} tensor; save it dense (tensor.to_dense())")
    tensor = tensor.detach()
    return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().resolve_conj().numpy())


def open_safetensors(source: Source) -> Store:
    """The tensors of a .safetensors file by name."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        if isinstance(source, Path):
            return SafetensorsFile(source)
        return Arrays({key: as_array(tensor) for key, tensor in load(source.read()).items()})
    except SafetensorError as error:
        raise ValueError(f"is no readable .safetensors ({error}); write it again") from None


class SafetensorsFile:
    """Tensors of a .safetensors file, each read alone."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self._file: Any = safe_open(path, "pt")
        self._headers: dict[str, Header | None] = dict.fromkeys(self._file.keys())

    def keys(self) -> Sequence[str]:
        """The names of the tensors."""
        return list(self._headers)

    def header(self, key: str) -> Header:
        """Shape and type, from the beginning of the file."""
        known = self._headers[key]
        if known is None:
            part = self._file.get_slice(key)
            stored = str(part.get_dtype())
            if stored not in _TYPES:
                raise ValueError(f"holds {stored}, not numbers of a known type; save it as float16 or float32")
            known = self._headers[key] = Header(tuple(part.get_shape()), np.dtype(_TYPES[stored]))
        return known

    def read(self, key: str, rows: slice) -> np.ndarray:
        """These rows of a tensor, read from the file alone."""
        self.header(key)
        return as_array(self._file.get_slice(key)[rows])
