"""The command `features`."""

from __future__ import annotations

import json
import sys
from argparse import Namespace

from sourcewise.cli.options import JSON
from sourcewise.cli.parser import argument, command, filled, path


@command(
    "make features of recordings or videos by a pretrained encoder",
    "FILES… --with MODEL -o FOLDER [options]",
    [
        "sourcewise features clips --with facebook/dinov2-base -o features",
        "sourcewise features wav --with facebook/hubert-base-ls960 --layer 9 -o hubert",
        "sourcewise features videos --with google/vit-base-patch16-224 --rate 12.5 -o vit",
    ],
    argument("files", nargs="+", type=path, metavar="FILES", help="recordings or videos, or folders of them"),
    argument("--with", dest="model", required=True, type=path, metavar="MODEL", help="wav2vec2, HuBERT, Whisper; ViT, "
        "CLIP, DINOv2: a folder or hub name"),
    argument("-o", "--output", required=True, type=path, metavar="FOLDER", help="where ID.npy and features.json go"),
    argument("--layer", type=int, metavar="N", help="of the encoder, from 1 on (default: its output)"),
    argument("--stride", type=int, default=1, metavar="N", help="of a video every N-th picture is read; of a recording "
        "every N-th vector kept"),
    argument("--rate", type=float, metavar="X", help="pictures a second of a video (default: its own)"),
    JSON,
)  # fmt: skip
def features(arguments: Namespace) -> int:
    """Write one .npy for each file, and features.json, which says how.

    `train` and `diagnose` tell of sets that were made differently. The same command
    goes on after Ctrl-C or a kill. Exit status 1 if a file could not be read.
    """
    from sourcewise.extraction.extract import extract

    done = extract(
        arguments.files,
        filled(arguments.model),
        arguments.output,
        layer=arguments.layer,
        stride=arguments.stride,
        rate=arguments.rate,
        progress=_bar if sys.stderr.isatty() else None,
    )
    for remark, count in done.remarks.items():
        print(f"sourcewise: {count:,} files {remark}", file=sys.stderr)
    if done.bad:
        more = f"; and {len(done.bad) - 1:,} more files" if len(done.bad) > 1 else ""
        print(f"sourcewise: no features of {done.bad[0]}{more}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(done.to_dict(), indent=2, ensure_ascii=False))
    else:
        kept = f", {done.kept:,} were there" if done.kept else ""
        print(f"{done.folder}\t{done.made:,} made{kept}\t{done.record['dims']} dims")
    return 1 if done.bad else 0


def _bar(done: int, of: int) -> None:
    width = 30
    full = width * done // max(1, of)
    end = "\n" if done == of else ""
    print(f"\rfeatures [{'█' * full}{' ' * (width - full)}] {done:,}/{of:,} ", end=end, file=sys.stderr, flush=True)
