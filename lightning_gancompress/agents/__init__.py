"""The recurrent policy network of the pruning agents."""

from lightning_gancompress.agents.policy import PruningAgent, binarize, gumbel, relax

__all__ = ["PruningAgent", "binarize", "gumbel", "relax"]
