"""Compress image-to-image GANs to a compute budget by preserving their local density structure.

``import lightning_gancompress`` stays light: it loads no Lightning, so that a deployment can call
`load_generator` with torch alone.
"""

from lightning_gancompress.checkpoints import load_generator
from lightning_gancompress.errors import UserError

__version__ = "0.1.0"

__all__ = ["UserError", "__version__", "load_generator"]
