"""Compress image-to-image GANs to a compute budget by preserving their local density structure.

``import lightning_gancompress`` loads nothing: the command line handles signals before it loads torch, and a
deployment can call `load_generator` and `Translator` with torch alone.
"""

from typing import TYPE_CHECKING, Any

from lightning_gancompress.errors import UserError
from lightning_gancompress.version import __version__

if TYPE_CHECKING:
    from lightning_gancompress.api import compress
    from lightning_gancompress.checkpoints import load_generator
    from lightning_gancompress.publishing import push_to_hub
    from lightning_gancompress.translation import Translator

__all__ = ["Translator", "UserError", "__version__", "compress", "load_generator", "push_to_hub"]


def __getattr__(name: str) -> Any:
    if name == "compress":
        from lightning_gancompress.api import compress

        return compress
    if name == "load_generator":
        from lightning_gancompress.checkpoints import load_generator

        return load_generator
    if name == "push_to_hub":
        from lightning_gancompress.publishing import push_to_hub

        return push_to_hub
    if name == "Translator":
        from lightning_gancompress.translation import Translator

        return Translator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
