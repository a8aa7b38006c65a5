"""Whether a run goes on as it was: its settings and its kernel beside those that made its checkpoint."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from vsml.config.files import ConfigError
from vsml.config.renamed import with_present_keys
from vsml.config.schema import Config
from vsml.runs.directory import RunDirectory
from vsml.settings import differences
from vsml.system.files import check_own, read_regular

_FREE = (
    "name",
    "tracking",
    "summary",
    "checkpoint",
    "evaluation",
    "data.root",
    "data.verify",
    "training.time_limit_s",
    "training.callbacks",
)
"""Settings, and sections of them, that do not change what is found."""

_KERNEL = "model.vsml.kernel"


@dataclass(frozen=True)
class Continuation:
    """A checkpoint that a run is to go on from.

    Attributes:
        checkpoint: what messages call it.
        metadata: of the checkpoint.
        config: what the run is to go on with, settings of the command line among them.
        kernel: what synapses tick by here; None for a learner without synapses.
    """

    checkpoint: str
    metadata: Mapping[str, Any]
    config: Config
    kernel: str | None

    def changes(self) -> list[tuple[str, Any, Any]]:
        """Return the settings that are not those of the checkpoint: path, value then, value now."""
        return list(_compare(self.metadata.get("config"), self.config, self.checkpoint))

    def check(self, run: RunDirectory) -> None:
        """Refuse what would silently make another run of it.

        Settings that the command line changes are the user's wish; so config.yaml, which is as it was before,
        tells them from those that somebody has written into the folder.

        Args:
            run: its folder.

        Raises:
            ConfigError: config.yaml is not of the run that the checkpoint is of, or the kernel is another.
        """
        stored = _stored_config(run)
        changed_by_hand = {path for path, _, _ in _compare(stored, self.config, str(run.config))}
        changes = self.changes()
        mistakes = []
        for path, before, now in changes:
            if path in changed_by_hand or _is_free(path):
                continue
            mistakes.append(
                f"{path}: got {now!r} from {run.config}, expected {before!r} as in {self.checkpoint}: "
                f"they are of different runs, or the file was changed. To go on as before: "
                f"--config {path}={_as_yaml(before)}"
            )
        saved = self.metadata.get("kernel")
        kernel_was_chosen = any(path == _KERNEL for path, _, _ in changes)
        if saved is not None and saved != self.kernel and not kernel_was_chosen:
            mistakes.append(
                f"{_KERNEL}: synapses tick by {self.kernel} here, expected {saved}, which made "
                f"{self.checkpoint} and rounds otherwise: make it usable here (a warning may say what it "
                f"lacks), or go on with other bits: --config {_KERNEL}={self.kernel}"
            )
        if mistakes:
            raise ConfigError(mistakes)


def _compare(saved: Any, config: Config, where: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield path, value there and value here of the settings that differ; nothing where none are saved."""
    if not isinstance(saved, Mapping):
        return
    present = with_present_keys(saved, where)
    here = config.model_dump(mode="json")
    try:
        # Through the schema, which fills in what an older version did not have.
        there = type(config).model_validate(present).model_dump(mode="json")
    except ValidationError:
        # Of another version: what both have can be compared all the same.
        for path, before, now in differences(present, here):
            if before is not None and now is not None:
                yield path, before, now
        return
    yield from differences(there, here)


def _stored_config(run: RunDirectory) -> Any:
    """Return what config.yaml of a run says."""
    check_own(run.config)
    return yaml.safe_load(read_regular(run.config)) if run.config.exists() else None


def _is_free(path: str) -> bool:
    """Whether a setting may be changed in config.yaml without making another run of it."""
    return any(path == name or path.startswith(f"{name}.") for name in _FREE)


def _as_yaml(value: Any) -> str:
    """Return a value as `--config` takes it, on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")
