"""Variable Shared Meta Learning: networks of LSTM synapses that learn by running forward.

From Python, without a configuration file: build tasks with `vsml.tasks`, a learner with `vsml.learners`, an
outer loop with `vsml.meta`, and iterate over `vsml.train.meta_train`. From the command line: `launch.py`.
"""
