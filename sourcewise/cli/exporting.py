"""The command `export`."""

from __future__ import annotations

import json
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from sourcewise.cli.options import FEATURES, JSON, MODEL
from sourcewise.cli.parser import argument, command, filled, path
from sourcewise.errors import RequestError


@command(
    "write a model for another program, and put it on the hub",
    "MODEL [--to KIND] [-o FOLDER] [--push hub:NAME] [options]",
    [
        "sourcewise export runs/lora -o merged",
        "sourcewise export runs/german --to ctranslate2 -o german-ct2",
        "sourcewise export runs/german --push hub:someone/german",
    ],
    MODEL,
    argument(
        "--to",
        default="hf",
        metavar="KIND",
        help="hf (a Hugging Face folder), ctranslate2, onnx or gguf (T5 alone); all but hf need "
        "pip install 'sourcewise[export]'",
    ),
    argument("-o", "--output", type=path, metavar="FOLDER", help="a folder that is new or empty"),
    argument("--push", type=filled, metavar="hub:NAME", help="upload it with its model card; a new model is private"),
    argument("--check", type=path, metavar="FILE", help="compare outputs on its sources (default: 100 made ones)"),
    FEATURES,
    JSON,
)
def export(arguments: Namespace) -> int:
    """Write a run's best checkpoint, or any model, for another program. Adapters are
    merged; a bridge is kept in files of its own. Then 100 greedy outputs of what was
    written are compared with the model's; exit status 1 if any is another.
    """
    from sourcewise.exporting.export import export
    from sourcewise.exporting.push import check_hub, push

    if not arguments.output and not arguments.push:
        raise RequestError("where to? name a folder, -o FOLDER, or a hub model, --push hub:NAME")
    if arguments.push:
        check_hub(arguments.push)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.output or str(Path(scratch) / "model")
        done = export(arguments.model, folder, arguments.to, arguments.check, arguments.features)
        check = done.check
        made = "made sources" if check.made else arguments.check
        said = f"{check.same} of {check.sources} greedy outputs are the same ({made}, by {check.by})"
        print(f"sourcewise: {said}" + (f"; {check.first}" if check.first else ""), file=sys.stderr)
        address = None
        if arguments.push and check.equal:
            if not done.card:
                print("sourcewise: no model card: it has none from an evaluated run", file=sys.stderr)
            address = push(done.folder, arguments.push)
        elif arguments.push:
            print(f"sourcewise: not uploaded to {arguments.push}, since outputs are others", file=sys.stderr)
    if arguments.json:
        found = {**done.to_dict(), "pushed": address}
        print(json.dumps(found if arguments.output else {**found, "folder": None}, ensure_ascii=False, indent=2))
    else:
        for line in (arguments.output, address):
            if line:
                print(line)
    return 0 if check.equal else 1
