"""The configurations that are part of the package; run as a program, it prints their folder."""

from __future__ import annotations

from pathlib import Path

from lightning_gancompress.errors import UserError
from lightning_gancompress.files import user_path


def configs_folder() -> Path:
    """The folder of the shipped configurations: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def shipped() -> str:
    """Names of the shipped configurations, as text; files of sweeps and clusters, in folders, are none."""
    return ", ".join(
        sorted(path.name for path in configs_folder().glob("*.yaml") if path.name != "defaults.yaml")
    )


def find_config(name: str | Path) -> Path:
    """Path of a configuration: a file of the user's, else a shipped one.

    Raises:
        UserError: There is no such file.
    """
    for path in (user_path(name), configs_folder() / name):
        if path.is_file():
            return path
    raise UserError(
        f"There is no configuration {name}, neither here nor among the shipped ones: {shipped()}."
    )


if __name__ == "__main__":
    print(configs_folder())
