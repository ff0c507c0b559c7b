"""How many updates become one model: screening, robust rules, fair weights, server optimisers.

The mathematics here work on tensors alone.  :mod:`strategies.pipeline` composes the stages and
:mod:`strategies.flower` is the only module that knows Flower.
"""
