"""Variable Shared Meta Learning: networks of LSTM synapses that learn by running forward."""
