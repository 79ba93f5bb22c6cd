"""What the columns of a manifest mean: our own layout, and those of other code bases, known by their columns.

layout         columns; features; text
sourcewise     `id`, `n_frames` (checked); ID.npy or another ending; `text` or `target`
slt_how2sign   `signs_file`, `signs_offset`, `signs_length`; frames [offset, offset + length), cut at the end of the
               file as its own loader does, which is noted; `translation`
fairseq S2T    `audio`, `n_frames` (checked), never quoted; a file, or ARCHIVE.zip:OFFSET:BYTES; `tgt_text`
multimodalhugs `signal`, `signal_start`, `signal_end`; frames [start, end); as in its own reader a start of 0 or nothing
               is that of the file, an end of 0 or nothing its end; milliseconds of .pose and recordings; `output`,
               prompt in `encoder_prompt`; `decoder_prompt` is not used
ssvp_slt       no header: name, length (not checked), label; FIRST FIVE LETTERS OF NAME/NAME.pt
neccam/slt     a pickle's `name`, `signer`, `gloss`, `text`, `sign`, which is the tensor
GFSLT          a pickle's `name`, `gloss`, `text`, `length`, `imgs_path`; the tensor in `feature`, else NAME.npy
SpaMo          an annotation's `fileid`, `folder`, `text`; FILEID.npy
Kaldi, ESPnet  a folder of `text`, `feats.scp` or `wav.scp`, `segments`, `utt2spk`
Common Voice   `client_id`, `path`, `sentence`
WebDataset     shards of KEY.npy, KEY.txt, KEY.json

A column of matrices or recordings called `features`, `feature`, `audio` or `sign` (Parquet, Arrow, pickles) holds the
features themselves. `file` of a set names any other column of files or of matrices.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

TEXTS = (
    *("text", "target", "tgt_text", "sentence", "translation", "transcription", "transcript", "label"),
    *("output", "txt"),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """The meaning of a manifest's columns."""

    name: str
    file: str  # the column that names the file or holds the matrix, and identifies the layout
    targets: tuple[str, ...]  # columns of targets; the first existing one is used
    prompt: str = ""
    frames: str = ""  # a count to check
    start: str = ""
    stop: str = ""
    length: str = ""
    clamp: bool = False
    literal: bool = False  # fields are never quoted
    any_of: tuple[str, ...] = ()  # one of these columns must be there, too
    bare: bool = False  # names are without an ending
    timed: bool = False  # start and stop are milliseconds where the file is a pose or a recording
    folder: int = 0  # so many first letters of a name are the folder of its file
    holds: bool = False  # the column must hold matrices; names of files do not count


LAYOUTS = (
    Layout("slt_how2sign", "signs_file", ("translation",), start="signs_offset", length="signs_length", clamp=True),
    Layout(
        "multimodalhugs",
        "signal",
        ("output",),
        prompt="encoder_prompt",
        start="signal_start",
        stop="signal_end",
        timed=True,
    ),
    Layout("neccam/slt", "sign", ("text",), holds=True),
    Layout("GFSLT", "feature", TEXTS, holds=True),
    Layout("features", "features", TEXTS, holds=True),
    Layout("audio", "audio", TEXTS, holds=True),
    Layout("fairseq S2T", "audio", ("tgt_text",), frames="n_frames", literal=True, any_of=("tgt_text", "n_frames")),
    Layout("audio", "audio", TEXTS),
    Layout("Kaldi", "feats.scp", ("text",), frames="utt2num_frames"),
    Layout("ESPnet", "wav.scp", ("text",)),
    Layout("ssvp_slt", "video_name", ("label",), bare=True, folder=5, any_of=("label",), literal=True),
    Layout("GFSLT", "name", ("text",), bare=True, any_of=("imgs_path",)),
    Layout("SpaMo", "fileid", ("text", "label"), bare=True),
    Layout("Common Voice", "path", ("sentence",), any_of=("client_id",), literal=True),
    Layout("sourcewise", "id", ("text", "target"), frames="n_frames", bare=True),
)


def layout_of(columns: Collection[str], holding: Collection[str] = (), file: str | None = None) -> Layout | None:
    """The layout whose file column is among `columns`; None if there is none.

    `holding` are the columns that hold matrices, `file` is the column that a user names.
    """
    if file:
        own = next((layout for layout in LAYOUTS if layout.file == file and layout.bare), None)
        return own or Layout(file, file, TEXTS, frames="n_frames", holds=file in holding)
    for layout in LAYOUTS:
        if layout.file not in columns or (layout.any_of and not set(layout.any_of) & set(columns)):
            continue
        if layout.holds == (layout.file in holding):
            return layout
    return None
