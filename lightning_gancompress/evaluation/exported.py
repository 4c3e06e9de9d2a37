"""Exported files of generators, which a test measures beside the networks."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_gancompress.errors import UserError
from lightning_gancompress.tasks.role import Role
from lightning_gancompress.translation.model import ImageModel
from lightning_gancompress.translation.opening import open_model


class ExportedFiles:
    """The files, opened while a test runs.

    Args:
        paths: ONNX files, OpenVINO's `.xml`, or small models. Where two generators are compressed, the names
            have their directions: `generator_AtoB.int8.onnx`.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths
        self._models: list[ImageModel] = []
        self._several = False

    def open(self, roles: Sequence[Role]) -> None:
        """Open all files.

        Args:
            roles: Roles of the compressed generators.

        Raises:
            UserError: A file is missing or holds something else, its direction is unclear, or two of them
                have the same name.
        """
        self._models, self._several = [open_model(path, "cpu") for path in self.paths], len(roles) > 1
        names = [model.path.name for model in self._models]
        for name in names:
            if names.count(name) > 1:
                raise UserError(
                    f"exported has two files called {name}: rename one, so that tables tell them."
                )
            if self._several and sum(role.suffix in name for role in roles) != 1:
                raise UserError(
                    f"exported {name} doesn't tell which generator it is: give it a name with one of "
                    f"{', '.join(role.suffix for role in roles)}."
                )

    def close(self) -> None:
        """Free the models."""
        self._models = []

    def of(self, role: Role) -> dict[str, ImageModel]:
        """The open files of a role, by name."""
        return {m.path.name: m for m in self._models if not self._several or role.suffix in m.path.name}
