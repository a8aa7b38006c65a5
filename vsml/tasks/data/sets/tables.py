"""Tables: rows of made-up tables, three clusters a class, columns mixed and skewed."""

import jax.numpy as jnp
from jax import random

from vsml.tasks.data.generator import Generator
from vsml.types import Array, Classes

_COLUMNS = 16
_CLUSTERS_PER_CLASS = 3


def _draw(key: Array, n: int, num_classes: int) -> tuple[Array, Array]:
    """Draw rows of a made-up table: correlated, skewed columns of which some say nothing, standardised.

    A class is three clusters of rows, some more frequent than others, as is one class or another. How far
    clusters are apart, how columns are mixed and how skewed each is are drawn with the table.
    """
    (
        label_key,
        class_frequency_key,
        cluster_frequency_key,
        cluster_key,
        distance_key,
        informative_key,
        direction_key,
        noise_key,
        mixture_key,
        skew_key,
    ) = random.split(key, 10)
    # Which class and which of its clusters each row is of.
    clusters = (num_classes, _CLUSTERS_PER_CLASS)
    class_frequency = random.normal(class_frequency_key, (num_classes,)) / 2
    labels = random.categorical(label_key, class_frequency, shape=(n,))
    cluster_frequency = random.normal(cluster_frequency_key, clusters)
    frequency = cluster_frequency[labels]
    cluster = random.categorical(cluster_key, frequency)
    # Where the clusters are; in some columns all are at one place.
    distance = random.uniform(distance_key, minval=0.5, maxval=2.0)
    informative = random.bernoulli(informative_key, 0.7, (_COLUMNS,))
    directions = random.normal(direction_key, (*clusters, _COLUMNS))
    centres = distance * informative * directions
    noise = random.normal(noise_key, (n, _COLUMNS))
    rows = centres[labels, cluster] + noise
    # Columns become correlated.
    mixture = random.normal(mixture_key, (_COLUMNS, _COLUMNS))
    identity = jnp.eye(_COLUMNS)
    mixing = identity + 0.5 * mixture / _COLUMNS**0.5
    rows = rows @ mixing
    # Columns become skewed, some to either side, but for those whose skew is small.
    skew = 0.5 * random.normal(skew_key, (_COLUMNS,))
    skewed = jnp.expm1(skew * rows)
    is_small = abs(skew) < 0.1
    rows = jnp.where(is_small, rows, skewed)
    centred = rows - rows.mean(0)
    deviation = rows.std(0) + 1e-6
    standardised = centred / deviation
    return standardised[:, None, :, None], labels


TABLES = Generator(
    draw=_draw,
    name="tables",
    outputs=Classes(10),
    image_shape=(1, _COLUMNS, 1),
    classes_alike=True,
)
