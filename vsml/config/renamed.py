"""Old keys of the configuration, which work for one version, with a warning."""

import warnings
from collections.abc import Mapping
from typing import Any

RENAMED_KEYS = {"evaluation.untrained": "evaluation.start"}
"""Old dotted paths, each with the present one; only the last part differs."""


def with_present_keys(tree: Any, source: str, above: str = "") -> Any:
    """Return settings with old keys replaced.

    Args:
        tree: settings, as YAML gives them.
        source: where they are from, for the warning.
        above: dotted path of the tree itself.
    """
    if not isinstance(tree, Mapping):
        return tree
    present = {}
    for key, value in tree.items():
        path = f"{above}.{key}" if above else str(key)
        present[present_key(path, key, source)] = with_present_keys(value, source, path)
    return present


def present_key(path: str, key: Any, source: str) -> Any:
    """Return the present last part of a dotted path, and warn where it is an old one.

    Args:
        path: dotted, `key` being its last part.
        key: as it is given.
        source: where it is from, for the warning.
    """
    new = RENAMED_KEYS.get(path)
    if new is None:
        return key
    message = f"{path} is {new} now; the old key goes with version 0.3 (from {source})"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return new.rpartition(".")[-1]
