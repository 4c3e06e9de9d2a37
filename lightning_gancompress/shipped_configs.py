"""The configurations that are part of the package; run as a program, it prints their folder."""

from __future__ import annotations

from pathlib import Path

from lightning_gancompress.errors import UserError, did_you_mean
from lightning_gancompress.files import user_path


def configs_folder() -> Path:
    """The folder of the shipped configurations: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def shipped() -> list[str]:
    """Names of the shipped configurations; files of sweeps and clusters, in folders, are none."""
    return sorted(path.name for path in configs_folder().glob("*.yaml") if path.name != "defaults.yaml")


def find_config(name: str | Path) -> Path:
    """Path of a configuration: a file of the user's, else a shipped one.

    Raises:
        UserError: There is no such file.
    """
    for path in (user_path(name), configs_folder() / name):
        if path.is_file():
            return path
    names = shipped()
    raise UserError(
        f"There is no configuration {name}, neither here nor among the shipped ones: {', '.join(names)}."
        + did_you_mean(str(name), names)
    )


def read_config(name: str | Path) -> str:
    """The text of a configuration.

    Raises:
        UserError: There is no such file, or it is no text.
    """
    path = find_config(name)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeError as error:
        raise UserError(
            f"{path} is no text: give a YAML file with keys such as model, data or trainer."
        ) from error


if __name__ == "__main__":
    print(configs_folder())
