"""The record of a training run: metrics, checkpoints and meta-parameters, on disk and in wandb."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vsml.runs.checkpoint import EXPORT_NAME, CheckpointStore, export_params
from vsml.runs.commands import resume_command
from vsml.runs.directory import RunDirectory
from vsml.runs.metrics import MetricsLog
from vsml.runs.wandb import WandbTracker
from vsml.system.files import atomic_write
from vsml.types import Params

CHECKPOINT = "the checkpoint"
"""What messages call the file that a run goes on from."""


@dataclass
class RunRecord:
    """Writes what a run leaves. What the disk refuses is told once and tried again; training goes on.

    Attributes:
        run: where to write, on rank 0; None on the other ranks, which write nothing.
        config: text of config.yaml.
        keep: newest checkpoints that stay.
        tracker: the copy in wandb.
        note: tells the user something.
        failing: what could not be written at the last try.
    """

    run: RunDirectory | None
    config: str
    keep: int
    tracker: WandbTracker
    note: Callable[[str], None]
    failing: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._store = CheckpointStore(self.run.checkpoints, self.keep) if self.run is not None else None
        self._metrics = MetricsLog(self.run.metrics) if self.run is not None else None

    def log(self, step: int, line: Mapping[str, Any]) -> None:
        """Write a line of metrics."""
        if self._metrics is not None:
            self._metrics.append(step, line)
            self.attempt(step, "metrics.jsonl", self._metrics.flush)
        self.tracker.log(line, step)

    def save(self, step: int, tree: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
        """Write the checkpoint of a step; return whether it worked."""
        return self.attempt(step, CHECKPOINT, lambda: self._save(step, tree, metadata))

    def save_best(self, step: int, params: Params, metadata: Mapping[str, Any]) -> bool:
        """Replace the best meta-parameters; return whether it worked."""

        def write() -> None:
            if self._store is not None:
                path = self._store.save_best(step, {"params": params}, metadata)
                self.tracker.log_file(path, "best", step)

        return self.attempt(step, "best.safetensors", write)

    def export(self, step: int, params: Params, metadata: Mapping[str, Any]) -> None:
        """Write learner.safetensors: the learning algorithm itself."""
        if self.run is not None:
            path = self.run.path / EXPORT_NAME
            export_params(path, params, metadata)
            self.tracker.log_file(path, "learner", step)

    def attempt(self, step: int, what: str, write: Callable[[], None]) -> bool:
        """Write what the disk may refuse, say so once, and return whether it worked."""
        try:
            write()
        except OSError as error:
            if what not in self.failing:
                self.failing.add(what)
                self.note(
                    f"cannot write {what}: {error}. Training goes on, and it will be tried again: make room, "
                    "or bring the folder back. What was saved before is untouched"
                )
            return False
        if what in self.failing:
            self.failing.remove(what)
            self.note(f"step {step}: {what} is written again")
        return True

    def save_or_rescue(self, step: int, tree: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        """Save before the end; where the run's folder refuses, into a new one among the temporary files.

        Raises:
            OSError: the run's folder refused; the message names the new one, which can be resumed.
        """
        if self.run is None or self._metrics is None:
            return
        try:
            self._save(step, tree, metadata)
            self._metrics.flush()
        except OSError as error:
            rescue = self._rescue(self.run, self._metrics, step, tree, metadata)
            raise OSError(
                f"cannot write to {self.run.path}: {error}\nThe state after meta step {step} is in "
                f"{rescue.path}; to go on: {resume_command(rescue.path)}"
            ) from error

    def _save(self, step: int, tree: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        if self._store is None or self.run is None:
            return
        if not self.run.config.exists():  # the folder has been away, and another one is in its place
            atomic_write(self.run.config, self.config)
        path = self._store.save(step, tree, metadata)
        self.tracker.log_file(path, "checkpoint", step)

    def _rescue(
        self,
        run: RunDirectory,
        metrics: MetricsLog,
        step: int,
        tree: Mapping[str, Any],
        metadata: Mapping[str, Any],
    ) -> RunDirectory:
        """Save into a new folder that can be resumed, and return it."""
        rescue = RunDirectory(Path(tempfile.mkdtemp(prefix=f"{run.path.name}-")))
        atomic_write(rescue.config, self.config)
        CheckpointStore(rescue.checkpoints).save(step, tree, metadata)
        metrics.copy_to(rescue.metrics)
        if self.tracker.run_id is not None:
            atomic_write(rescue.wandb_id, self.tracker.run_id)
        return rescue
