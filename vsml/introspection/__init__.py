"""Experiments on learning algorithms, and their figures.

`experiments` asks what a learner answers in the middle of an episode and what its synapses hold;
`trajectories` lets a network of clones and back-propagation learn the same stream; `plots` draws the former.
`effective` follows the effective weights of synapses; `distilling`, `living` and `distilled` make a rule of
how they change.
The calls `introspect` and `clone` run them.
"""

from vsml.moved import old_names

__getattr__ = old_names(__name__)
