"""Memory of back-propagation through long episodes, as the compiler plans it; nothing is run."""

import jax
import numpy as np
import pytest
from flat_vsml import flat_vsml

from vsml.learners import Vsml
from vsml.meta import BackPropagation, group_trials, meta_adam
from vsml.meta.objectives.episode import segments_of, trial_result
from vsml.meta.optimizers.base import _evaluate
from vsml.meta.optimizers.gradient import differentiate_trial
from vsml.meta.trials import chunks_of
from vsml.tasks import Dataset, build_task
from vsml.types import Episode


@pytest.mark.slow
def test_500_steps_at_28x28_of_8_episodes_at_once_fit_in_2_gb():
    images, labels = np.zeros((20, 28, 28, 1), np.uint8), np.arange(20, dtype=np.int32) % 10
    source = Dataset(
        images=jax.numpy.asarray(images),
        labels=jax.numpy.asarray(labels),
        name="blank",
        num_classes=10,
        scale=255.0,
        mean=0.0,
        std=1.0,
    )
    (group,) = group_trials([build_task(source, 500)], 8, Vsml)
    (chunk,) = chunks_of([group], 8)
    params = group.learner.init_params(jax.random.key(0))
    optimizer = BackPropagation(meta_adam(1e-3))
    key, real = jax.random.key(1), np.ones(8, bool)
    static = (differentiate_trial, optimizer.objective, group.learner)
    arguments = (params, group.tasks, chunk.trials, chunk.options, real, key)
    memory = _evaluate.lower(*static, *arguments).compile().memory_analysis()
    per_device = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    assert segments_of(group.learner, 500, 1) > 1
    assert per_device * jax.local_device_count() < 2e9


@pytest.mark.slow
def test_8_episodes_side_by_side_fit_too():
    """As an accelerator takes them."""
    learner = flat_vsml((28, 28, 1), 10)
    params = learner.init_params(jax.random.key(0))
    x = jax.ShapeDtypeStruct((8, 500, 1, 28, 28, 1), np.float32)
    labels = jax.ShapeDtypeStruct((8, 500, 1), np.int32)

    def loss(params, x, labels):
        episode = Episode(x=x, y=labels, weight=jax.numpy.ones(labels.shape))
        segments = segments_of(learner, 500, 1)
        return trial_result(learner, "mean", params, episode, jax.random.key(0), segments).loss

    gradients = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0)))
    memory = gradients.lower(params, x, labels).compile().memory_analysis()
    assert memory.temp_size_in_bytes + memory.output_size_in_bytes < 2e9
