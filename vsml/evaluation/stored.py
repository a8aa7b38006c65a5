"""Meta-parameters from files: the one way from a name to meta-parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
from pydantic import ValidationError

from vsml.config.files import ConfigError
from vsml.config.model import ModelConfig, ModelSettings
from vsml.learners import LEARNERS, Learner
from vsml.registry import suggestion
from vsml.runs import checkpoint
from vsml.runs.wandb import fetch_from_wandb, is_wandb_path
from vsml.settings import differences
from vsml.system.comm import Communicator
from vsml.types import Params

_FREE = frozenset(
    ["init_scale", "init", "init_rate", "init_bias_rate", "state_dtype", "product_dtype", "kernel"]
)
"""Model settings that do not make another learning algorithm."""

NETWORK = (
    "random_features",
    "regression",
    "restart",
    "views",
    "layers",
    "graph",
    "init_weights",
    "error_scale",
)
"""What of the network around the synapses may differ from their file, where it is asked for."""


@dataclass(frozen=True)
class StoredParams:
    """Meta-parameters from a file.

    Attributes:
        path: where they are from.
        data: content of the file.
        model: settings of the learner that they were found for, if the file says so.
    """

    path: str
    data: bytes
    model: ModelSettings | None

    @classmethod
    def read(cls, path: str, comm: Communicator) -> "StoredParams":
        """Read a file, or what a run's folder or wandb has to offer, which only rank 0 has to see.

        Args:
            path: a file, a run's folder, a run or an artifact of wandb (entity/project/name), or
                `pretrained:NAME` of one that comes with the library.
            comm: the ranks.

        Raises:
            FileNotFoundError: there is none.
            OSError: wandb cannot be asked.
            CheckpointError: it is damaged.
            ConfigError: its model settings are none that exist here.
        """
        data = comm.bcast(_content(path) if comm.rank == 0 else b"")
        _, metadata = checkpoint.params_from_bytes(data, path)
        config = metadata.get("config", {})
        if not isinstance(config, dict):
            got = type(config).__name__
            raise checkpoint.CheckpointError(f"{path}: got a {got} as its config, expected an object")
        saved = config.get("model")
        if saved is None:
            return cls(path, data, None)
        try:
            model = ModelConfig.model_validate(saved)
        except ValidationError as error:
            raise ConfigError([f"{path}: its model settings are unknown here: {error}"]) from error
        return cls(path, data, model)

    def fit(self, learner: Learner) -> Params:
        """Return the meta-parameters for a learner.

        Raises:
            CheckpointError: it has others.
        """
        template = jax.eval_shape(learner.init_params, jax.random.key(0))
        params, _ = checkpoint.params_from_bytes(self.data, self.path, template)
        return params

    def check(self, model: ModelSettings, free: Sequence[str] = ()) -> None:
        """Compare model settings with those that the meta-parameters were found for.

        How they are initialised, and how synapses are computed, is free.

        Args:
            model: the settings.
            free: names of more settings, or of groups of them, that may differ.

        Raises:
            ConfigError: they would be another learning algorithm.
        """
        if self.model is None:
            return
        mistakes = []
        for key, saved, configured in differences(_described(self.model), _described(model)):
            parts = set(key.split("."))
            if parts & (_FREE | set(free)):
                continue
            mistake = f"model.{key}: got {configured!r}, expected {saved!r} as in {self.path}"
            if parts & set(NETWORK):
                mistake += " (or checkpoint.other_network: true)"
            mistakes.append(mistake)
        if mistakes:
            raise ConfigError(mistakes)


def _described(model: ModelSettings) -> dict[str, object]:
    """Return the type and the settings of that type alone."""
    section = model.type if model.type in LEARNERS else "options"
    return {"type": model.type, section: model.settings.model_dump(mode="json")}


def _content(path: str) -> bytes:
    if is_wandb_path(path):
        return fetch_from_wandb(path)
    try:
        return checkpoint.find_params(path).read_bytes()
    except FileNotFoundError as error:
        if Path(path).exists() or path.startswith(checkpoint.PRETRAINED_PREFIX):
            raise  # the message says what is missing there
        raise FileNotFoundError(_nothing_there(path)) from error


def _nothing_there(path: str) -> str:
    """Return the message about a path that is no file: perhaps a name was meant."""
    message = f"{path}: there is no such file or folder in {Path.cwd()}"
    if len(Path(path).parts) > 1 or Path(path).suffix:
        return message
    names = checkpoint.pretrained_names()
    known = f"{checkpoint.PRETRAINED_PREFIX}NAME is one of {', '.join(names)}"
    return f"{message}, nor does the library come with it: {known}{suggestion(path, names)}"
