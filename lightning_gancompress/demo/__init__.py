"""The demo: a page on which a teacher and its student translate a picture. Imports no Lightning."""

from lightning_gancompress.demo.server import serve

__all__ = ["serve"]
