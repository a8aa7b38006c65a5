"""The battery: what a learning algorithm can do and cannot do. Tests are in `abilities/`, a file each.

    python -m vsml.battery sgd general rule:backprop

Nothing is imported here, as that would start JAX before `vsml.system.devices.prepare`.
"""
