"""The page that a compression leaves: reads a run's files, writes one HTML file. No Lightning."""

from lightning_gancompress.reporting.page.page import PAGE, write_page

__all__ = ["PAGE", "write_page"]
