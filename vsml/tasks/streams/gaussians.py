"""Gaussian streams: classes that are mixtures of Gaussians, so that the Bayes accuracy is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import Field

from vsml.settings import Bool, Float, Int, Positive, Section
from vsml.tasks.distribution import TaskDistribution
from vsml.tasks.streams.base import Stream
from vsml.types import Array, Classes, Episode, Outputs

# Purposes: what a key is folded with.
_CENTRES, _EXAMPLES, _ORDER, _LABELS, _SCALE = range(5)


class GaussiansConfig(Section):
    """Settings of Gaussian streams."""

    inputs: Positive = Field(default=32, description="dimensions d of an input")
    classes: Annotated[Int, Field(ge=2)] = Field(default=10, description="classes C, equally often")
    components: Positive = Field(default=2, description="Gaussians of a class, equally often")
    spread: Annotated[Float, Field(gt=0)] = Field(
        default=0.5,
        description="deviation of the centres in each dimension; that of the examples around them is 1",
    )
    task_length: Positive = Field(default=2000, description="examples of a task")
    permute_inputs: Bool = Field(default=False, description="each task has its own order of the inputs")
    permute_labels: Bool = Field(default=False, description="each task has its own numbers of the classes")
    scale: Annotated[Float, Field(ge=1)] = Field(
        default=1.0,
        description="each task multiplies all inputs by a number between 1 / scale and scale, "
        "uniform in its logarithm",
    )
    recur: Positive | None = Field(
        default=None, description="after so many tasks the first comes again; null: never"
    )


@struct.dataclass
class Gaussians:
    """Mixtures of Gaussians with known classes: `x = m_ck + noise`, with `m_ck ~ N(0, spread^2)` drawn once.

    What a task changes (the order of the inputs, the numbers of the classes, the scale) does not change how
    well the classes can be told apart: the Bayes accuracy differs by the examples drawn alone.

    Attributes:
        config: settings.
    """

    config: GaussiansConfig = struct.field(pytree_node=False, default=GaussiansConfig())

    @property
    def name(self) -> str:
        """What tables call it: the things that change."""
        config = self.config
        changes = {
            "inputs": config.permute_inputs,
            "labels": config.permute_labels,
            "scale": config.scale > 1,
            "recurring": config.recur is not None,
        }
        named = [what for what, is_on in changes.items() if is_on]
        return "+".join(["gaussians", *named])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """A row of numbers, as an image."""
        return (1, self.config.inputs, 1)

    @property
    def outputs(self) -> Outputs:
        """The classes."""
        return Classes(self.config.classes)

    @property
    def task_length(self) -> int:
        """Examples of a task."""
        return self.config.task_length

    def task(self, key: Array, number: Array) -> Episode:
        """Draw the examples of a task: x [T, 1, 1, d, 1], y [T, 1]."""
        x, y, _ = self._draw(key, number)
        config = self.config
        task_key = self._task_key(key, number)
        if config.permute_inputs:
            order = jax.random.permutation(jax.random.fold_in(task_key, _ORDER), config.inputs)
            x = x[:, order]
        if config.permute_labels:
            names = jax.random.permutation(jax.random.fold_in(task_key, _LABELS), config.classes)
            y = names[y]
        if config.scale > 1:
            most = jnp.log(config.scale)
            logarithm = jax.random.uniform(
                jax.random.fold_in(task_key, _SCALE), (), minval=-most, maxval=most
            )
            x = x * jnp.exp(logarithm)
        T = config.task_length
        return Episode(
            x=x.reshape(T, 1, *self.input_shape),
            y=y.reshape(T, 1),
            weight=jnp.ones((T, 1)),
        )

    def best_score(self, key: Array, number: Array) -> Array:
        """Return the Bayes accuracy on the examples of a task: the mean of the largest posterior."""
        _, _, posterior = self._draw(key, number)
        return posterior.max(-1).mean()

    def _task_key(self, key: Array, number: Array) -> Array:
        """Return the key of what a task changes."""
        if self.config.recur is not None:
            number = number % self.config.recur
        return jax.random.fold_in(key, number)

    def _draw(self, key: Array, number: Array) -> tuple[Array, Array, Array]:
        """Draw inputs [T, d] before any change, their classes [T], and the posterior of classes [T, C]."""
        config = self.config
        shape = (config.classes, config.components, config.inputs)
        centres = config.spread * jax.random.normal(jax.random.fold_in(key, _CENTRES), shape)
        examples_key = jax.random.fold_in(jax.random.fold_in(key, _EXAMPLES), number)
        class_key, component_key, noise_key = jax.random.split(examples_key, 3)
        T = config.task_length
        y = jax.random.randint(class_key, (T,), 0, config.classes)
        component = jax.random.randint(component_key, (T,), 0, config.components)
        x = centres[y, component] + jax.random.normal(noise_key, (T, config.inputs))
        # log N(x; m, 1) = m . x - |m|^2 / 2, and what is the same for all centres.
        closeness = jnp.einsum("td,ckd->tck", x, centres) - jnp.square(centres).sum(-1)[None] / 2
        log_likelihood = jax.nn.logsumexp(closeness, axis=-1)
        return x, y, jax.nn.softmax(log_likelihood)


@dataclass(frozen=True)
class GaussianStreams:
    """`stream.kind: gaussians`: mixtures of Gaussians.

    Attributes:
        config: its settings.
    """

    config: GaussiansConfig = GaussiansConfig()

    needs_data = False

    def streams(self, tasks: Sequence[tuple[str, TaskDistribution]]) -> list[Stream]:
        """Return the one stream."""
        del tasks
        return [Gaussians(config=self.config)]
