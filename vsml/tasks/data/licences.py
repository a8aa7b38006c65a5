"""Licences of data sets, as far as their publishers state one: docs/data.md has their names and places."""

from collections.abc import Mapping
from typing import Any

DRAWN = "none: drawn by this library"
"""Stands for data that nobody has published."""

LICENCES: Mapping[str, str] = {
    "digits": "CC BY 4.0",
    "mnist": "CC BY-SA 3.0",
    "fashion_mnist": "MIT",
    "kmnist": "CC BY-SA 4.0",
    "omniglot": "MIT",
    "random": DRAWN,
    "sum": DRAWN,
    "tables": DRAWN,
    "linear_map": DRAWN,
    "tanh_network": DRAWN,
    "noisy_functions": DRAWN,
    "logic_and": DRAWN,
    "logic_or": DRAWN,
    "logic_xor": DRAWN,
    "a_plus_b": DRAWN,
}

NOT_STATED = "not stated by its publisher"


def licences_of(dataset: Any) -> dict[str, str]:
    """Return the licence of each data set of a setting.

    Args:
        dataset: a name, or names of a mixture as `{split: [...]}`, as `training.dataset` has them.
    """
    named = dataset["split"] if isinstance(dataset, Mapping) else [dataset]
    return {name: LICENCES.get(name, NOT_STATED) for name in dict.fromkeys(named)}
