"""Datasets of HDF5 files, by their path in the file (`clip1`, `train/clip1`). Links to other files are not followed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

from sourcewise.data.formats.store import Header, Source


class Hdf5File:
    """Numeric datasets of an HDF5 file."""

    def __init__(self, source: Source) -> None:
        try:
            self._file = h5py.File(source, "r")
        except OSError as error:
            if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):
                raise
            raise ValueError(f"is no readable HDF5 file ({str(error).splitlines()[0][:100]})") from None
        self._keys: dict[str, None] = {}
        self._collect(self._file, "")

    def _collect(self, group: Any, prefix: str) -> None:
        """All datasets below a group; only hard links are followed, each group once on its path."""
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            found = group[name]
            if isinstance(found, h5py.Dataset):
                self._keys[prefix + name] = None
            elif isinstance(found, h5py.Group) and prefix.count("/") < 32:
                self._collect(found, f"{prefix}{name}/")

    def keys(self) -> Sequence[str]:
        """Paths of the datasets."""
        return list(self._keys)

    def _dataset(self, key: str) -> Any:
        if key not in self._keys:
            raise KeyError(key)
        found = self._file[key]
        if found.external or found.is_virtual:
            raise ValueError("keeps its numbers in another file, which is not followed; copy them into this one")
        return found

    def header(self, key: str) -> Header:
        """Shape and type, without the numbers."""
        found = self._dataset(key)
        if found.shape is None:
            raise ValueError("is an empty dataset")
        return Header(found.shape, found.dtype)

    def read(self, key: str, rows: slice) -> np.ndarray:
        """These rows of a dataset, read from the file alone."""
        found = self._dataset(key)
        return np.asarray(found[rows] if found.shape else found[()])
