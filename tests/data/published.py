"""Small sets in the form in which other people's code writes them, all with the same matrices and texts."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

NAMES = ("train/01_Mon-1", "train/02_Tue-7", "train/03_Wed-2", "train/04_Thu-3")
TEXTS = ("heute regen", 'am tag "sonne"', "und nun wind", "morgen schnee im norden")
LENGTHS = (6, 9, 4, 7)
DIMS = 5

Words = Mapping[str, Any]  # of data.train


def matrices() -> dict[str, np.ndarray]:
    """Name → (frames, dims)."""
    rng = np.random.default_rng(7)
    return {
        name: rng.standard_normal((frames, DIMS)).astype(np.float32)
        for name, frames in zip(NAMES, LENGTHS, strict=True)
    }


def flat(name: str) -> str:
    """An id without a folder."""
    return name.partition("/")[2]


def _table(path: Path, *rows: tuple[object, ...], header: str = "") -> None:
    lines = [*([header] if header else []), *("\t".join(map(str, row)) for row in rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _each() -> list[tuple[str, np.ndarray, str]]:
    return [(name, matrix, text) for (name, matrix), text in zip(matrices().items(), TEXTS, strict=True)]


def npy(folder: Path) -> Words:
    for name, matrix, _ in _each():
        (folder / "features" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / "features" / f"{name}.npy", matrix)
    _table(folder / "m.tsv", *((name, text) for name, _, text in _each()), header="id\ttext")
    return {"manifest": "m.tsv", "features": "features", "quoting": "text"}


def neccam(folder: Path) -> Words:
    """phoenix14t.pami0.train: a list of dicts in a pickle within gzip."""
    rows = [
        {"name": n, "signer": f"Signer0{i}", "gloss": "WETTER", "text": t, "sign": torch.from_numpy(m)}
        for i, (n, m, t) in enumerate(_each())
    ]
    with gzip.open(folder / "phoenix14t.pami0.train", "wb") as file:
        pickle.dump(rows, file)
    return {"manifest": "phoenix14t.pami0.train"}


def gfslt_labels(folder: Path) -> Words:
    """labels.train: a dict of dicts in a pickle within gzip, and a folder of features."""
    npy(folder)
    labels = {
        n: {"name": n, "gloss": "WETTER", "text": t, "length": 3 * len(m), "imgs_path": [f"{n}/1.png", f"{n}/2.png"]}
        for n, m, t in _each()
    }
    with gzip.open(folder / "labels.train", "wb") as file:
        pickle.dump(labels, file)
    return {"manifest": "labels.train", "features": "features"}


def gfslt_features(folder: Path) -> Words:
    """features.train, as save_vlp_features.py writes it: the tensor is in the label."""
    labels = {n: {"name": n, "text": t, "length": 9, "feature": torch.from_numpy(m)} for n, m, t in _each()}
    with gzip.open(folder / "features.train", "wb") as file:
        pickle.dump(labels, file)
    return {"manifest": "features.train"}


def spamo(folder: Path) -> Words:
    """train_info_ml.npy: a dict by number, with a text among the records; features FILEID_s2wrapping.npy."""
    info: dict[Any, Any] = {"prefix": "/data/phoenix/"}
    for i, (name, matrix, text) in enumerate(_each()):
        info[i] = {"fileid": flat(name), "folder": f"{name}/1/*.png", "signer": "S1", "text": text, "gloss": "X"}
        (folder / "feats/train").mkdir(parents=True, exist_ok=True)
        np.save(folder / "feats/train" / f"{flat(name)}_s2wrapping.npy", matrix)
    np.save(folder / "train_info_ml.npy", np.array(info, dtype=object), allow_pickle=True)
    return {"manifest": "train_info_ml.npy", "features": "feats/train/{id}_s2wrapping.npy"}


def ssvp(folder: Path) -> Words:
    """manifests/train_features.tsv without a header; features/EPOCH/FIRST FIVE LETTERS/NAME.pt."""
    rows = []
    for name, matrix, text in _each():
        place = folder / "features/0" / flat(name)[:5] / f"{flat(name)}.pt"
        place.parent.mkdir(parents=True, exist_ok=True)
        torch.save(torch.from_numpy(matrix), place)
        rows.append((f"{flat(name)}.mp4", len(matrix), text))
    _table(folder / "manifests/train_features.tsv", *rows)
    return {"manifest": "manifests/train_features.tsv", "features": "features/0"}


def how2sign(folder: Path) -> Words:
    """slt_how2sign: one matrix of a video, rows of it by offset and length."""
    (folder / "i3d").mkdir()
    np.save(folder / "i3d/video.npy", np.concatenate(list(matrices().values())))
    rows, offset = [], 0
    for name, matrix, text in _each():
        rows.append((flat(name), "/far/away/i3d/video.npy", offset, len(matrix), "i3d", "asl", text, "en", "1"))
        offset += len(matrix)
    columns = "id signs_file signs_offset signs_length signs_type signs_lang translation translation_lang topic"
    _table(folder / "cvpr23.train.tsv", *rows, header=columns.replace(" ", "\t"))
    return {"manifest": "cvpr23.train.tsv", "features": "i3d", "quoting": "text"}


def multimodalhugs(folder: Path) -> Words:
    npy(folder)
    rows = [(f"features/{n}.npy", 0, 0, "", "", text) for n, _, text in _each()]
    columns = "signal signal_start signal_end encoder_prompt decoder_prompt output"
    _table(folder / "train.tsv", *rows, header=columns.replace(" ", "\t"))
    return {"manifest": "train.tsv", "quoting": "text"}


def fairseq(folder: Path) -> Words:
    """fbank80.zip of .npy, uncompressed; audio names offset and length."""
    with zipfile.ZipFile(folder / "fbank80.zip", "w", zipfile.ZIP_STORED) as archive:
        for name, matrix, _ in _each():
            data = io.BytesIO()
            np.save(data, matrix)
            archive.writestr(f"{flat(name)}.npy", data.getvalue())
    rows, content = [], (folder / "fbank80.zip").read_bytes()
    with zipfile.ZipFile(folder / "fbank80.zip") as archive:
        for (name, matrix, text), info in zip(_each(), archive.infolist(), strict=True):
            begin = content.index(b"\x93NUMPY", info.header_offset)
            rows.append((flat(name), f"fbank80.zip:{begin}:{info.file_size}", len(matrix), text, "spk1"))
    _table(folder / "train_st.tsv", *rows, header="id\taudio\tn_frames\ttgt_text\tspeaker")
    return {"manifest": "train_st.tsv"}


def kaldi(folder: Path) -> Words:
    """data/train with feats.scp, text, utt2spk; raw_fbank.ark of float matrices."""
    data, scp = b"", []
    for name, matrix, _ in _each():
        data += flat(name).encode() + b" "
        scp.append((flat(name), f"fbank/raw_fbank.ark:{len(data)}"))
        data += b"\0BFM " + struct.pack("<bibi", 4, matrix.shape[0], 4, matrix.shape[1]) + matrix.tobytes()
    (folder / "fbank").mkdir()
    (folder / "fbank/raw_fbank.ark").write_bytes(data)
    home = folder / "data/train"
    home.mkdir(parents=True)
    for file, values in {
        "feats.scp": dict(scp),
        "text": {flat(n): t for n, _, t in _each()},
        "utt2spk": {flat(n): "spk" for n in NAMES},
        "utt2num_frames": {flat(n): len(m) for n, m, _ in _each()},
    }.items():
        (home / file).write_text("".join(f"{key} {value}\n" for key, value in values.items()), encoding="utf-8")
    return {"manifest": "data/train"}


def csv(folder: Path) -> Words:
    """A spreadsheet with a column of paths."""
    npy(folder)
    quoted = ('"{}"'.format(text.replace('"', '""')) for text in TEXTS)
    rows = [f"{i},features/{name}.npy,{text}" for i, (name, text) in enumerate(zip(NAMES, quoted, strict=True))]
    (folder / "train.csv").write_text("number,feature_path,translation\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return {"manifest": "train.csv", "file": "feature_path"}


def hdf5(folder: Path) -> Words:
    """All clips in one file, by id."""
    import h5py

    npy(folder)
    with h5py.File(folder / "clips.h5", "w") as file:
        for name, matrix, _ in _each():
            file[name] = matrix
    return {"manifest": "m.tsv", "features": "clips.h5", "quoting": "text"}


def safetensors(folder: Path) -> Words:
    from safetensors.numpy import save_file

    npy(folder)
    save_file(matrices(), folder / "clips.safetensors")
    return {"manifest": "m.tsv", "features": "clips.safetensors", "quoting": "text"}


def npz(folder: Path) -> Words:
    npy(folder)
    np.savez_compressed(folder / "clips.npz", **matrices())  # type: ignore[arg-type]
    return {"manifest": "m.tsv", "features": "clips.npz", "quoting": "text"}


def torch_dict(folder: Path) -> Words:
    npy(folder)
    torch.save({name: torch.from_numpy(matrix) for name, matrix in matrices().items()}, folder / "clips.pt")
    return {"manifest": "m.tsv", "features": "clips.pt", "quoting": "text"}


def parquet(folder: Path) -> Words:
    """A table with a column of matrices, as datasets and pandas write them."""
    import pyarrow
    import pyarrow.parquet

    columns = {"id": list(NAMES), "features": [m.tolist() for m in matrices().values()], "text": list(TEXTS)}
    kinds = {"features": pyarrow.list_(pyarrow.list_(pyarrow.float32()))}
    arrays = {name: pyarrow.array(values, kinds.get(name)) for name, values in columns.items()}
    pyarrow.parquet.write_table(pyarrow.table(arrays), folder / "train.parquet", row_group_size=3)
    return {"manifest": "train.parquet"}


def arrow(folder: Path) -> Words:
    """datasets' save_to_disk: an Arrow stream."""
    import datasets

    columns = {"id": list(NAMES), "features": [m.tolist() for m in matrices().values()], "text": list(TEXTS)}
    datasets.Dataset.from_dict(columns).cast_column(
        "features", datasets.List(datasets.List(datasets.Value("float32")))
    ).save_to_disk(folder / "set")
    return {"manifest": "set/data-00000-of-00001.arrow"}


def webdataset(folder: Path) -> Words:
    """Two shards of KEY.npy and KEY.txt or KEY.json."""
    for shard, part in enumerate((_each()[:2], _each()[2:])):
        with tarfile.open(folder / f"train-00{shard}.tar", "w") as file:
            for name, matrix, text in part:
                data = io.BytesIO()
                np.save(data, matrix)
                for ending, content in (("npy", data.getvalue()), ("json", json.dumps({"text": text}).encode())):
                    info = tarfile.TarInfo(f"{name}.{ending}")
                    info.size = len(content)
                    file.addfile(info, io.BytesIO(content))
    return {"manifest": "train-{000..001}.tar"}


def recordings() -> dict[str, np.ndarray]:
    """Name → samples at 16,000 a second."""
    rng = np.random.default_rng(3)
    return {
        flat(name): (rng.standard_normal(160 * frames * 3) * 0.1).astype(np.float32)
        for name, frames in zip(NAMES, LENGTHS, strict=True)
    }


def recorded(folder: Path) -> Words:
    """The features of the recordings as .npy: log-mel as Whisper's, by transformers' own extractor."""
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=80)
    (folder / "mel").mkdir()
    for name, samples in _stored().items():
        found = extractor(samples, sampling_rate=16_000, padding=False, return_tensors="np")
        np.save(folder / "mel" / f"{name}.npy", found["input_features"][0].T)
    _table(folder / "m.tsv", *zip(map(flat, NAMES), TEXTS, strict=True), header="id\ttext")
    return {"manifest": "m.tsv", "features": "mel", "quoting": "text"}


def _stored() -> dict[str, np.ndarray]:
    """What a file of 16 bits gives back."""
    return {name: np.round(samples * 32768).astype(np.float32) / 32768 for name, samples in recordings().items()}


def _write(path: Path, name: str) -> None:
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, _stored()[name], 16_000, subtype="PCM_16")


def wavs(folder: Path) -> Words:
    """Our own layout, with a folder of recordings."""
    for name in recordings():
        _write(folder / "wavs" / f"{name}.wav", name)
    _table(folder / "m.tsv", *zip(map(flat, NAMES), TEXTS, strict=True), header="id\ttext")
    return {"manifest": "m.tsv", "features": "wavs", "quoting": "text"}


def espnet(folder: Path) -> Words:
    """dump/raw/train with wav.scp, text and utt2spk."""
    home = folder / "dump/raw/train"
    for name in recordings():
        _write(home / "data" / f"{name}.flac", name)
    (home / "wav.scp").write_text("".join(f"{name} dump/raw/train/data/{name}.flac\n" for name in recordings()))
    (home / "text").write_text("".join(f"{flat(n)} {t}\n" for n, t in zip(NAMES, TEXTS, strict=True)))
    (home / "utt2spk").write_text("".join(f"{flat(n)} spk\n" for n in NAMES))
    return {"manifest": "dump/raw/train"}


def common_voice(folder: Path) -> Words:
    """cv/train.tsv with client_id, path, sentence; recordings in cv/clips. (Theirs are .mp3, which loses samples.)"""
    for name in recordings():
        _write(folder / "cv/clips" / f"{name}.flac", name)
    rows = [("c0ffee", f"{flat(n)}.flac", "", t, "domain", 2, 0) for n, t in zip(NAMES, TEXTS, strict=True)]
    columns = "client_id path sentence_id sentence sentence_domain up_votes down_votes"
    _table(folder / "cv/train.tsv", *rows, header=columns.replace(" ", "\t"))
    return {"manifest": "cv/train.tsv"}


def audio_column(folder: Path) -> Words:
    """Parquet as the hub keeps recordings: a column of {bytes, path}."""
    import pyarrow
    import pyarrow.parquet

    wavs(folder)
    cells = [{"bytes": (folder / f"wavs/{name}.wav").read_bytes(), "path": f"{name}.wav"} for name in recordings()]
    table = pyarrow.table({"id": [*map(flat, NAMES)], "audio": cells, "sentence": list(TEXTS)})
    pyarrow.parquet.write_table(table, folder / "train.parquet")
    return {"manifest": "train.parquet"}


def fairseq_audio(folder: Path) -> Words:
    """fairseq's archives of recordings: audio names offset and length of a .flac."""
    for name in recordings():
        _write(folder / f"{name}.flac", name)
    with zipfile.ZipFile(folder / "flac.zip", "w", zipfile.ZIP_STORED) as archive:
        for name in recordings():
            archive.write(folder / f"{name}.flac", f"{name}.flac")
    content, rows = (folder / "flac.zip").read_bytes(), []
    for name, text in zip(recordings(), TEXTS, strict=True):
        data = (folder / f"{name}.flac").read_bytes()
        rows.append((name, f"flac.zip:{content.index(data)}:{len(data)}", text))
    _table(folder / "train_st.tsv", *rows, header="id\taudio\ttgt_text")
    return {"manifest": "train_st.tsv"}


RECORDED: dict[str, Callable[[Path], Words]] = {
    "a folder": wavs,
    "ESPnet": espnet,
    "fairseq's recordings": fairseq_audio,
    "Common Voice": common_voice,
    "the hub's audio": audio_column,
}
PUBLISHED = (  # other people's; docs/features.md has the words of each
    *("neccam/slt", "GFSLT, labels", "GFSLT, features", "SpaMo", "ssvp_slt", "slt_how2sign", "multimodalhugs"),
    *("fairseq S2T", "Kaldi", "ESPnet", "Common Voice", "CSV", "Parquet", "WebDataset"),
)
LAYOUTS: dict[str, Callable[[Path], Words]] = {
    "neccam/slt": neccam,
    "GFSLT, labels": gfslt_labels,
    "GFSLT, features": gfslt_features,
    "SpaMo": spamo,
    "ssvp_slt": ssvp,
    "slt_how2sign": how2sign,
    "multimodalhugs": multimodalhugs,
    "fairseq S2T": fairseq,
    "Kaldi": kaldi,
    "CSV": csv,
    "HDF5": hdf5,
    "safetensors": safetensors,
    "npz": npz,
    "torch": torch_dict,
    "Parquet": parquet,
    "Arrow": arrow,
    "WebDataset": webdataset,
}
