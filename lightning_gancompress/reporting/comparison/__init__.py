"""Comparison of experiments over several seeds: their runs, and tables and plots of the results."""

from lightning_gancompress.reporting.comparison.jobs import Cluster, Launcher, execute_jobs
from lightning_gancompress.reporting.comparison.plan import Run, plan
from lightning_gancompress.reporting.comparison.results import (
    Row,
    found_runs,
    read_rows,
    with_larger_budgets,
)
from lightning_gancompress.reporting.comparison.runs import execute
from lightning_gancompress.reporting.comparison.tables import require_own, write_comparison

__all__ = [
    "Cluster",
    "Launcher",
    "Row",
    "Run",
    "execute",
    "execute_jobs",
    "found_runs",
    "plan",
    "read_rows",
    "require_own",
    "with_larger_budgets",
    "write_comparison",
]
