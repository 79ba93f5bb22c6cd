"""The trackers, each by its own library: opened for a run of ours, or the one that somebody's training has opened."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any

from sourcewise.errors import RequestError
from sourcewise.tracking.base import KINDS, PROJECT, Place, Tracker, only_here

LEVELS = {"error": "ERROR", "warning": "WARN", "note": "INFO"}


class TensorBoard:
    """Figures as scalars, findings as texts."""

    name = "tensorboard"

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    @classmethod
    def opened(cls, place: Place) -> TensorBoard:
        """Event files in the run's folder."""
        from torch.utils.tensorboard import SummaryWriter

        return cls(SummaryWriter(str(place.folder / "tensorboard"), purge_step=place.step + 1 if place.step else None))

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """See Tracker."""
        for key, value in numbers.items():
            self.writer.add_scalar(key, value, step)

    def alert(self, title: str, text: str, level: str, step: int) -> None:
        """See Tracker."""
        self.writer.add_text(f"sourcewise/{title.split()[0]}", f"**{level} {title}**: {text}", step)
        self.writer.flush()

    def close(self) -> None:
        """See Tracker."""
        self.writer.close()


class WandB:
    """Figures in the history, findings as alerts; offline unless WANDB_MODE says otherwise."""

    name = "wandb"

    def __init__(self, run: Any, *, own: bool = False) -> None:
        self.run, self.own = run, own

    @classmethod
    def opened(cls, place: Place) -> WandB:
        """A run in the folder; the same one where a training goes on."""
        import wandb

        mode: Any = os.environ.get("WANDB_MODE", "offline")
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        settings = wandb.Settings(console="off", silent=True)
        words = {"id": place.id, "resume": "allow", "config": dict(place.settings), "settings": settings}
        return cls(
            wandb.init(project=project, name=place.folder.name, dir=str(place.folder), mode=mode, **words), own=True
        )

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """See Tracker. In somebody's own run they go with the figures that it logs next."""
        if self.own:
            self.run.log(dict(numbers), step=step)
        else:
            self.run.log(dict(numbers), commit=False)

    def alert(self, title: str, text: str, level: str, step: int) -> None:
        """See Tracker."""

        self.run.alert(title=title[:64], text=f"step {step}: {text}", level=LEVELS[level])

    def close(self) -> None:
        """See Tracker."""
        if self.own:
            self.run.finish()


class MLflow:
    """Figures as metrics, findings as tags: `sourcewise.WIR003`."""

    name = "mlflow"

    def __init__(self, client: Any, run: str, *, own: bool = False) -> None:
        self.client, self.run, self.own = client, run, own

    @classmethod
    def opened(cls, place: Place) -> MLflow:
        """A run where MLFLOW_TRACKING_URI says, else beside the run's other files."""
        from mlflow import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri and importlib.util.find_spec("sqlalchemy") is not None:
            uri = f"sqlite:///{(place.folder / 'mlflow.db').resolve()}"
        elif not uri:
            only_here("MLFLOW_ALLOW_FILE_STORE", "true")  # what mlflow-skinny has
            uri = (place.folder / "mlruns").resolve().as_uri()
        client = MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if known is None else known.experiment_id
        before = (
            client.search_runs([experiment], f"tags.`sourcewise.id` = '{place.id}'", max_results=1)
            if place.step
            else []
        )
        if before:
            run = before[0].info.run_id
            client.update_run(run, status="RUNNING")
        else:
            run = client.create_run(
                experiment, tags={"sourcewise.id": place.id}, run_name=place.folder.name
            ).info.run_id
            for key, value in place.settings.items():
                client.log_param(run, key, str(value)[:6000])
        return cls(client, run, own=True)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """See Tracker."""
        for key, value in numbers.items():
            self.client.log_metric(self.run, key, value, step=step)

    def alert(self, title: str, text: str, level: str, step: int) -> None:
        """See Tracker."""
        self.client.set_tag(self.run, f"sourcewise.{title.split()[0]}", f"step {step}: {level} {title}: {text}"[:5000])

    def close(self) -> None:
        """See Tracker."""
        if self.own:
            self.client.set_terminated(self.run)


class Trackio:
    """Figures in its local database, findings as alerts."""

    name = "trackio"

    def __init__(self, run: Any, *, own: bool = False) -> None:
        self.run, self.own = run, own

    @classmethod
    def opened(cls, place: Place) -> Trackio:
        """A run in trackio's own folder (TRACKIO_DIR)."""
        import trackio

        project, name = os.environ.get("TRACKIO_PROJECT", PROJECT), f"{place.folder.name}-{place.id[:6]}"
        quiet: dict[str, Any] = {"auto_log_gpu": False, "auto_log_cpu": False, "embed": False}
        return cls(trackio.init(project, name, config=dict(place.settings), resume="allow", **quiet), own=True)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """See Tracker."""
        self.run.log(dict(numbers), step=step)

    def alert(self, title: str, text: str, level: str, step: int) -> None:
        """See Tracker."""
        import trackio

        self.run.alert(title, text=f"step {step}: {text}", level=trackio.AlertLevel[LEVELS[level]])

    def close(self) -> None:
        """See Tracker."""
        if self.own:
            import trackio

            trackio.finish()


OPEN: Mapping[str, Callable[[Place], Tracker]] = {
    "tensorboard": TensorBoard.opened,
    "wandb": WandB.opened,
    "mlflow": MLflow.opened,
    "trackio": Trackio.opened,
}


def tracker_of(given: Any) -> Tracker:
    """A tracker of somebody's own: a SummaryWriter, a run of W&B or trackio, or by name the run that is open.

    Raises RequestError for what is none, and where none is open.
    """
    if hasattr(given, "add_scalar") and hasattr(given, "add_text"):
        return TensorBoard(given)
    if given in ("wandb", "trackio", "mlflow"):
        found = active(given)
        if found is None:
            raise RequestError(f"track: no run of {given} is open; begin it before the doctor")
        return found
    if hasattr(given, "log") and hasattr(given, "alert"):
        return Trackio(given) if type(given).__module__.startswith("trackio") else WandB(given)
    names = ", ".join(each for each in KINDS if each != "tensorboard")
    raise RequestError(
        f"track: {given!r:.60} is no tracker; a SummaryWriter, a run of W&B or trackio, or one of {names}"
    )


def active(name: str) -> Tracker | None:
    """The run that is open in this process; None where none is."""
    if name == "wandb":
        import wandb

        return None if wandb.run is None else WandB(wandb.run)
    if name == "mlflow":
        import mlflow

        run = mlflow.active_run()
        return None if run is None else MLflow(mlflow.MlflowClient(), run.info.run_id)
    from trackio import context_vars

    run = context_vars.current_run.get()
    return None if run is None else Trackio(run)
