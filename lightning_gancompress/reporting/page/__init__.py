"""The HTML page of a compression, written from the files of its run. Imports no Lightning."""

from lightning_gancompress.reporting.page.page import PAGE, write_page

__all__ = ["PAGE", "write_page"]
