"""A network that learns one example at a time, and whose outputs may become more."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vsml.config.model import ModelConfig
from vsml.learners import Learner
from vsml.online import steps
from vsml.online.estimator import GRADIENT_DESCENT
from vsml.pretrained import load_learner
from vsml.settings import deep_merge
from vsml.types import Classes, Outputs

_NEW_CLASS = 1000
"""The key of a network is folded with this and the number of its class for synapses of a new class."""


Example = tuple[np.ndarray, np.ndarray | np.int32, np.float32 | None]
"""What enters the network, the target, and the factor on its feedback."""


class OnlineNetwork:
    """A learner and its state, for inputs that are standardised.

    It is compiled for a number of outputs once, for all networks alike. What it computes is kept on the
    device; pickles and copies of it hold numpy arrays.

    Args:
        learner: name or file of a learning algorithm; None: gradient descent.
        model: settings that differ from those of the file.
        units: input units.
        outputs: what it answers with.
        seed: of the first state.
    """

    def __init__(
        self,
        learner: str | Path | None,
        model: Mapping[str, Any] | None,
        units: int,
        outputs: Outputs,
        seed: int,
    ) -> None:
        self.units = units
        self.outputs = outputs
        self.seed = seed
        if learner is None:
            merged = ModelConfig.model_validate(deep_merge(GRADIENT_DESCENT, model or {}))
            self._model = json.dumps(merged.model_dump(mode="json"))
            self._params = self.learner.init_params(jax.random.key(0))
        else:
            loaded = load_learner(str(learner), input_shape=(units,), outputs=outputs, model=model)
            self._model = json.dumps(loaded.model.model_dump(mode="json"))
            self._params = loaded.params
        self._state = steps.start(self.learner, self._params, jax.random.key(seed))

    @property
    def learner(self) -> Learner:
        """The learner for the outputs of now; the same object as long as these are the same."""
        return steps.build_learner(self._model, self.units, self.outputs)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds: arrays that any machine reads."""
        held = dict(vars(self))
        for name in ("_params", "_state"):
            held[name] = jax.tree.map(np.asarray, held[name])
        return held

    def __setstate__(self, held: dict[str, Any]) -> None:
        """Put arrays on the device, copies of their own, as the memory of a state is used again."""
        vars(self).update(held)
        for name in ("_params", "_state"):
            setattr(self, name, jax.tree.map(lambda leaf: jax.numpy.array(leaf, copy=True), held[name]))

    def answer(self, x: np.ndarray) -> np.ndarray:
        """Return the answer [C or D] to x float32 [units]; nothing is learned."""
        return np.asarray(steps.answer_one(self.learner, self._params, self._state, x))

    def learn(self, x: np.ndarray, y: np.ndarray | np.int32, taught: np.float32 | None = None) -> None:
        """Learn one example.

        Args:
            x: float32 [units].
            y: the number of its output int32 [], or values float32 [D].
            taught: factor on the feedback, above 0; None: 1.

        Raises:
            ValueError: the state would not be finite any more; it is as it was.
        """
        learner = self.learner
        self._state, _, is_sound = steps.learn_one(learner, self._params, self._state, x, y, taught)
        if not is_sound:
            raise ValueError(
                "learn_one: got an example after which the state is not finite, expected one that can be "
                "learned; the network is as it was. A learning algorithm that diverges needs smaller steps, "
                "or was meta-trained on other outputs"
            )

    def learn_anew(self, examples: Iterable[Example]) -> None:
        """Forget what was learned, and learn examples from a fresh state.

        Args:
            examples: x, y and taught of each, as of `learn`.

        Raises:
            ValueError: the state would not be finite any more; it is as it was.
        """
        before = self._state
        self._state = steps.start(self.learner, self._params, jax.random.key(self.seed))
        try:
            for x, y, taught in examples:
                self.learn(x, y, taught)
        except BaseException:
            self._state = before
            raise

    def renew(self, output: int) -> None:
        """Give an output fresh synapses; where there are too few outputs, double them until it is there.

        Raises:
            FixedOutputsError: the learner cannot get other outputs.
        """
        kept = np.arange(self.outputs.size) != output
        size = self.outputs.size
        while size <= output:
            size *= 2
        wider = steps.build_learner(self._model, self.units, Classes(size))
        key = jax.random.fold_in(jax.random.key(self.seed), _NEW_CLASS + output)
        self._state = steps.grow(wider, self._params, self._state, kept, key)
        self.outputs = Classes(size)
