"""Ray: work for the machines of a cluster. Functions of the packages above are called there, none is known here.

All machines have sourcewise and its extras, and see the folders that are named. What a lost machine was doing is done
again by another one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sourcewise.errors import ElsewhereError, GoneError, RequestError
from sourcewise.runtime.extras import taken

RETRIES = 20  # of what was lost with its machine
POLL_SECONDS = 1.0
PATIENCE = 120.0  # seconds that a stopped task has to save in
Worker = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Machines:
    """What a cluster has: processors and accelerators."""

    cpus: int
    gpus: int

    @property
    def workers(self) -> int:
        """How many processes work at a time: one on each accelerator, or on each processor where there is none."""
        return max(1, self.gpus or self.cpus)

    @property
    def each(self) -> dict[str, float]:
        """What one of them takes."""
        return {"num_cpus": 1, "num_gpus": 1} if self.gpus else {"num_cpus": 1}


@contextlib.contextmanager
def connected(address: str) -> Iterator[Machines]:
    """Within: this process is a driver of the cluster at an address, such as `auto`. Raises RequestError."""
    ray = taken("ray", "cluster", f"--ray {address}")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError, AssertionError) as error:
        said = (str(error).splitlines() or ["no answer"])[0]
        raise RequestError(f"--ray {address}: no cluster there ({said[:160]}); start one: ray start --head") from None
    try:
        has = ray.cluster_resources()
        yield Machines(int(has.get("CPU", 0)), int(has.get("GPU", 0)))
    finally:
        ray.shutdown()


def over_pool(machines: Machines, make: Callable[[], Worker], items: Sequence[Any]) -> Iterator[Any]:
    """Yields what workers return for items, in any order, by Ray Data over a pool of actors.

    `make` is called once in each actor, and gives the function that is called for an item. Raises RequestError of a
    worker's.
    """
    data: Any = taken("ray.data", "cluster", "--ray")
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    here = str(Path.cwd())
    pool = data.ActorPoolStrategy(min_size=1, max_size=min(machines.workers, len(items)))
    rows = data.from_items([{"item": item} for item in items], override_num_blocks=len(items))
    found = rows.map_batches(
        _Actor, fn_constructor_args=(make, here), batch_size=1, batch_format="numpy", compute=pool, **machines.each
    )
    with _own_errors():
        for row in found.iter_rows():
            yield row["result"]


class _Actor:
    """A process of a pool."""

    def __init__(self, make: Callable[[], Worker], folder: str) -> None:
        _go_to(folder)
        self.work = make()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        results = np.empty(len(batch["item"]), dtype=object)
        for place, item in enumerate(batch["item"]):
            results[place] = self.work(item)
        return {"result": results}


def as_tasks(
    machines: Machines,
    work: Callable[[Any], None],
    items: Sequence[Any],
    cpus: int,
    polled: Callable[[Sequence[Any]], None],
) -> Iterator[tuple[Any, str | None]]:
    """Calls work(item) as a task each; yields the items as they end, with an error in words or None.

    A lost one is begun again elsewhere. After a KeyboardInterrupt the running ones get one, too, and may end.
    """
    ray = taken("ray", "cluster", "--ray")
    options = {**machines.each, "num_cpus": cpus, "max_retries": RETRIES}
    task, here = ray.remote(**options)(_in_folder), str(Path.cwd())
    waiting = {task.remote(here, work, item): item for item in items}
    try:
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1, timeout=POLL_SECONDS)
            polled(list(waiting.values()))
            for each in done:
                item, error = waiting.pop(each), None
                try:
                    with _own_errors():
                        ray.get(each)
                except (RequestError, ray.exceptions.RayError) as problem:
                    error = (str(problem).strip().splitlines() or [type(problem).__name__])[-1][:400]
                yield item, error
    finally:
        for each in waiting:
            ray.cancel(each, force=False)
        if waiting:
            ray.wait(list(waiting), num_returns=len(waiting), timeout=PATIENCE)


def _in_folder(folder: str, work: Callable[[Any], None], item: Any) -> None:
    _go_to(folder)
    work(item)


def _go_to(folder: str) -> None:
    """Let paths mean here what they mean where the work was asked for. Raises RequestError."""
    try:
        os.chdir(folder)
    except OSError as error:
        problem = f"the folder {folder} is not there ({error.strerror}); all machines need to see it"
        raise RequestError(f"{socket.gethostname()}: {problem}") from None


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    """Within: an error of Ray's that a RequestError caused is that RequestError."""
    try:
        yield
    except Exception as error:
        seen: BaseException | None = error
        while seen is not None and not isinstance(seen, RequestError):
            seen = getattr(seen, "cause", None) or seen.__cause__
        if seen is None:
            raise
        raise RequestError(str(seen)) from None


def as_ranks(
    machines: Machines, work: Callable[[], None], workers: tuple[int, int], cpus: int, timeout: float, kept: str
) -> None:
    """Calls work() in several processes of a cluster, which meet as those of torchrun do; see runtime/ranks.py.

    There are as many as there is room for, between two numbers. When a process or a machine is lost, all are begun
    again on what is left. `kept` is a folder for what Ray Train itself keeps. Raises RequestError of a process.
    """
    ray, train = taken("ray", "cluster", "--ray"), taken("ray.train", "cluster", "--ray")
    torch = taken("ray.train.torch", "cluster", "--ray")
    said = ray.remote(num_cpus=0)(_Said).remote()
    trainer = torch.TorchTrainer(
        _as_rank,
        train_loop_config={"work": work, "folder": str(Path.cwd()), "said": said},
        scaling_config=train.ScalingConfig(
            num_workers=workers if workers[0] < workers[1] else workers[0],
            use_gpu=bool(machines.gpus),
            resources_per_worker={"CPU": cpus, **({"GPU": 1} if machines.gpus else {})},
        ),
        run_config=train.RunConfig(
            name=uuid.uuid4().hex, storage_path=kept, failure_config=train.FailureConfig(max_failures=RETRIES)
        ),
        torch_config=torch.TorchConfig(
            backend="cpu:gloo,cuda:nccl" if machines.gpus else "gloo", timeout_s=max(1, int(timeout))
        ),
    )
    try:
        trainer.fit()
    except train.TrainingFailedError as error:
        raise RequestError(f"--ray: the training was given up after {RETRIES} losses ({error})") from None
    if told := ray.get(said.all.remote()):
        raise RequestError(told[0])


class _Said:
    """An actor that keeps what processes say."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        self.lines.append(line)

    def all(self) -> list[str]:
        return self.lines


def _as_rank(config: dict[str, Any]) -> None:
    """The function of a process of Ray Train, whose store and group are there already."""
    _go_to(config["folder"])
    os.environ.update(TORCHELASTIC_RUN_ID="ray", TORCHELASTIC_USE_AGENT_STORE="True")
    try:
        config["work"]()
    except GoneError as error:
        raise RuntimeError(str(error)) from None  # Ray Train begins all again
    except ElsewhereError:
        return  # told by another process
    except RequestError as error:
        taken("ray", "cluster", "--ray").get(config["said"].add.remote(str(error)))
