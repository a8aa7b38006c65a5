"""Images: digits and clothes after 10, 100 and 1,000 of them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, NotApplicableError, Task
from vsml.battery.measures import accuracy
from vsml.tasks import Dataset, MissingDataError, load
from vsml.types import Array, Classes, Episode

CLASSES = 10


def image_task(name: str, examples: int, pool: int) -> Task:
    """Return the task: images of the test half, each once; answers count after so many of them.

    Args:
        name: of the data set.
        examples: after which answers count, of a tenth as many more, at least ten.
        pool: pixels that are averaged to one, on each side.

    Raises:
        NotApplicableError: the files are not there.
    """
    try:
        data = load(name, "test", download=False)
    except MissingDataError as error:
        raise NotApplicableError(f"{name}: its files are not here (docs/data.md): {error}") from error
    assert isinstance(data, Dataset)
    images = _standardised(data, pool)
    labels = jnp.asarray(data.labels, jnp.int32)
    steps = examples + max(10, examples // 10)

    def draw(key: Array) -> Episode:
        order_key, label_key = jax.random.split(key)
        order = jax.random.permutation(order_key, len(labels))[:steps]
        renamed = jax.random.permutation(label_key, CLASSES)
        counts = jnp.arange(steps) >= examples
        return stream(images[order], renamed[labels[order]], weight=counts)

    return Task(images.shape[1:], Classes(CLASSES), steps, draw)


def _standardised(data: Dataset, pool: int) -> Array:
    """Return images [n, H, W, 1] with mean 0 and variance 1 over all pixels, after pooling."""
    images = jnp.asarray(data.images, jnp.float32)
    count, height, width, channels = images.shape
    blocks = images.reshape(count, height // pool, pool, width // pool, pool, channels)
    pooled = blocks.mean((2, 4))
    return (pooled - pooled.mean()) / pooled.std()


def _of(name: str, pool: int) -> Callable[[int], Task]:
    def task(examples: int) -> Task:
        return image_task(name, examples, pool)

    return task


def _images(name: str, title: str, levels: tuple[int, ...], pool: int) -> LearningTest:
    return LearningTest(name, ("vision",), levels, _of(name, pool), accuracy, f"{title} after n images")


DIGITS = _images("digits", "scikit-learn's digits (8x8)", (10, 100, 400), 1)
MNIST = _images("mnist", "MNIST at 14x14", (10, 100, 1000), 2)
FASHION_MNIST = _images("fashion_mnist", "Fashion-MNIST at 14x14", (10, 100, 1000), 2)
KMNIST = _images("kmnist", "KMNIST at 14x14", (10, 100, 1000), 2)
