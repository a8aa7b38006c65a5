"""The machine: devices, ranks, signals, caches, files."""
