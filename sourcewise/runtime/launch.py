"""Starts a command as several processes of this machine, by the agent of torchrun."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence

from sourcewise.errors import RequestError
from sourcewise.runtime.ranks import launched

SHUTDOWN = 60  # seconds to save in after a Ctrl-C; a second one ends at once


def launch(words: Sequence[str], count: int) -> int:
    """Run `python -m sourcewise WORDS` as `count` processes; returns their exit status.

    Raises RequestError in a process that torchrun has started, and where all processes were killed.
    """
    if launched():
        raise RequestError("--ranks: torchrun has started this process already; leave --ranks out")
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable()  # the processes tell what happened
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of the processes: no stack where a store is gone
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        shutdown_timeout=SHUTDOWN,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "sourcewise", *words)
    except SignalException:
        return 130
    except ChildFailedError as error:
        statuses = [each.exitcode for each in error.failures.values()]
        told = [status for status in statuses if status > 0]
        if not told and len(statuses) == count:
            names = ", ".join(sorted({signal.Signals(-status).name for status in statuses}))
            raise RequestError(f"all processes were killed ({names}); go on with --resume") from None
        return told[0] if told else 128 - statuses[0]
    finally:
        logging.disable(logging.NOTSET)
    return 0
