"""How the synapses of a layer are made to tick: one formulation a file."""
