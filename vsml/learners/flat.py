"""The flat settings of VSML that version 0.1 took as keywords, `Vsml(shape, classes, state_size=8)`."""

import warnings
from collections.abc import Mapping
from typing import Any

from vsml.settings import Section

PATHS: dict[str, tuple[str, ...]] = {
    "activation": ("random_features", "activation"),
    "backward_pass": ("backward_pass",),
    "error_scale": ("error_scale",),
    "feed_label": ("feed_label",),
    "init": ("synapse", "init"),
    "init_activation": ("synapse", "init_activation"),
    "init_bias_rate": ("synapse", "init_bias_rate"),
    "init_max_weight": ("synapse", "init_max_weight"),
    "init_rate": ("synapse", "init_rate"),
    "init_scale": ("synapse", "init_scale"),
    "init_weights": ("synapse", "init_weights"),
    "keep_input": ("random_features", "keep_input"),
    "kernel": ("kernel",),
    "layer_norm": ("synapse", "layer_norm"),
    "layerwise": ("layerwise",),
    "logit_bound": ("logit_bound",),
    "message_size": ("synapse", "message_size"),
    "micro_ticks": ("micro_ticks",),
    "output_channel": ("output_channel",),
    "product_dtype": ("product_dtype",),
    "random_features": ("random_features", "count"),
    "random_fraction": ("synapse", "random_fraction"),
    "separate_backward": ("separate_backward",),
    "state_dtype": ("state_dtype",),
    "state_size": ("synapse", "state_size"),
}
"""Flat settings, and where they stand in `VsmlConfig`. One more is `hidden`, the layers before the last."""


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return flat settings as `VsmlConfig.model_validate` takes them.

    Args:
        flat: settings by their old names; `hidden` is a sequence of numbers of units and of sections of
            layers.

    Raises:
        TypeError: there is no such setting.
    """
    config: dict[str, Any] = {}
    for name, value in flat.items():
        if name == "hidden":
            # The last layer, which feeds the outputs, was never named.
            config["layers"] = [*(_layer(each) for each in value), {}]
            continue
        if name not in PATHS:
            raise TypeError(f"Vsml: got an unexpected keyword argument {name!r}, expected config=VsmlConfig")
        *sections, key = PATHS[name]
        place = config
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return config


def _layer(hidden: int | Section) -> Any:
    """Return one layer before the last: a dense one was its number of units."""
    return {"out_size": hidden} if isinstance(hidden, int) else hidden


def warn(what: str, config: Mapping[str, Any]) -> None:
    """Say that an old form is used, and what stands for it now."""
    warnings.warn(
        f"{what} is of version 0.1 and goes with version 0.3; pass "
        f"config=VsmlConfig.model_validate({dict(config)!r}) instead",
        DeprecationWarning,
        stacklevel=3,
    )
