"""`sourcewise serve`: one model over HTTP. Its libraries are an optional extra, imported on use."""

from __future__ import annotations

import os
from argparse import Namespace

from sourcewise.errors import RequestError

READ = ("max_source", "max_frames", "source_language", "target_language")  # options of `load`
EXTRA = ("fastapi", "starlette", "uvicorn", "prometheus_client")


def serve(arguments: Namespace) -> None:
    """Serve with the arguments of the command line until a signal ends the server. Raises RequestError.

    The token may be in SOURCEWISE_TOKEN, where `ps` does not show it.
    """
    try:
        from sourcewise.serving import server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        raise RequestError(f"serve needs {error.name}: pip install 'sourcewise[serve]'") from None
    from sourcewise.config import GenerationConfig

    token = arguments.token or os.environ.get("SOURCEWISE_TOKEN") or None
    read = {name: given for name in READ if (given := getattr(arguments, name, None))}
    found = {name: getattr(arguments, name, None) for name in GenerationConfig.model_fields}
    search = {name: value for name, value in found.items() if value is not None}
    names = [arguments.model, *(getattr(arguments, "ensemble", None) or [])]
    where = (arguments.host, arguments.port, token, arguments.precision, arguments.queue)
    server.serve(names if len(names) > 1 else arguments.model, *where, search, **read)
