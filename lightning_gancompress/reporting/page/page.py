"""Assembly of the page: headline, pictures, kept channels, curves, quality, settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from lightning_gancompress.evaluation.table import notes
from lightning_gancompress.files import user_path, write_files
from lightning_gancompress.reporting.page.channels import finding, kept_channels
from lightning_gancompress.reporting.page.curve_charts import curve_charts
from lightning_gancompress.reporting.page.curves import read_curves
from lightning_gancompress.reporting.page.headline import headline, tiles
from lightning_gancompress.reporting.page.making import config, facts, use
from lightning_gancompress.reporting.page.pictures import origin, pictures
from lightning_gancompress.reporting.page.quality import advice, quality_advice, quality_rows
from lightning_gancompress.reporting.page.rendering import render
from lightning_gancompress.reporting.page.run import Compression, read_run

PAGE = "report.html"


def write_page(
    folder: str | Path,
    networks: Mapping[str, nn.Module] | None = None,
    phase: str = "finetune",
    preprocessing: Mapping[str, Any] | None = None,
) -> Path:
    """Write `report.html` into the folder of a compression, from the files there.

    Args:
        folder: The run's `default_root_dir`.
        networks: Networks by names like `teacher.generator`; None reads them, and the following, from
            `checkpoints/last.ckpt`.
        phase: "search" if the student is a masked network, else "finetune".
        preprocessing: Preprocessing of the images, used where no small model records it.

    Raises:
        UserError: The folder holds no compression, or can't be written to.
    """
    folder = user_path(folder)
    page = folder / PAGE
    write_files({page: page_of(read_run(folder, networks, phase, preprocessing)).encode()})
    return page


def page_of(run: Compression) -> str:
    """The HTML of a run."""
    channels, (code, commands) = kept_channels(run), use(run)
    return render(
        "page.html",
        run=run,
        headline=headline(run),
        tiles=tiles,
        origin=origin,
        pictures=pictures,
        no_pictures=advice(run, "No pictures yet."),
        channels=channels,
        channels_finding=finding(channels),
        charts=curve_charts(read_curves(run.folder / "logs"), run),
        quality_rows=quality_rows,
        quality_advice=quality_advice(run),
        notes=notes,
        facts=facts(run),
        code=code,
        commands=commands,
        config=config(run),
    )
