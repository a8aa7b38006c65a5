"""Snapshots: the meta-parameters of a run at chosen meta steps, to look at how they came about."""

from dataclasses import dataclass

import yaml
from pydantic import Field

from vsml.runs import checkpoint
from vsml.runs.callbacks.base import Event, StepTaken
from vsml.runs.directory import RunDirectory
from vsml.settings import Positive, Section
from vsml.system.files import read_regular
from vsml.system.guards import prove


class SnapshotsConfig(Section):
    """When meta-parameters are kept."""

    every: Positive = Field(default=100, description="meta steps from one snapshot to the next")
    steps: tuple[Positive, ...] = Field(default=(), description="meta steps that are kept besides")


@dataclass(frozen=True)
class Snapshots:
    """Keeps meta-parameters as snapshots/step_00000100.safetensors; `checkpoint.restore` takes such a file.

    Attributes:
        run: directory of the run.
        config: when they are kept.
    """

    run: RunDirectory
    config: SnapshotsConfig

    def __call__(self, event: Event) -> None:
        """Write a snapshot where one is due."""
        if not isinstance(event, StepTaken):
            return
        due = event.step % self.config.every == 0 or event.step in self.config.steps
        if not due:
            return
        folder = self.run.path / "snapshots"
        path = folder / f"step_{event.step:08d}.safetensors"
        prove(path)
        folder.mkdir(exist_ok=True)
        metadata = {
            "config": yaml.safe_load(read_regular(self.run.config)),
            "step": event.step,
            "metrics": dict(event.metrics),
        }
        checkpoint.export_params(path, event.params, metadata)
