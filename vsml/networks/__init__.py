"""Networks of synapses: cells, wirings, sweeps over layers, and the kernels that make them tick."""
