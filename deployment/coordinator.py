"""`coordinator.yaml`: the settings of the coordinator's machine, and the files of its kit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationInfo, field_validator

from common.errors import UserError
from common.settings_file import Port, Settings, Text, read_settings
from deployment.federation import differs_from_port


class CoordinatorSettings(Settings):
    """The whole file.

    Attributes:
        version: The version of the file's form.
        host: The address of the interface that partners reach.
        port: TCP port for partners.
        control_port: TCP port for this machine's own commands, on the loopback interface.
        directory: The folder for the server's database and secrets, relative to the file.
    """

    version: Literal[1]
    host: Text = "0.0.0.0"
    port: Port
    control_port: Port
    directory: Text = "state"

    @field_validator("control_port")
    @classmethod
    def _another_port(cls, value: int, info: ValidationInfo) -> int:
        return differs_from_port(value, info)


@dataclass(frozen=True)
class Coordinator:
    """`coordinator.yaml` as it applies on this machine.

    Attributes:
        path: The absolute path of the file; the other files of the kit are in its folder.
        settings: The content of the file.
    """

    path: Path
    settings: CoordinatorSettings

    @property
    def directory(self) -> Path:
        """The absolute path of the folder for the server's state."""
        return self.path.parent / Path(self.settings.directory).expanduser()

    @property
    def authority(self) -> Path:
        """The certificate of the federation's authority.

        Raises:
            UserError: It is missing.
        """
        return self.kit_file("ca.pem")

    def kit_file(self, name: str) -> Path:
        """The path of a file of the kit.

        Raises:
            UserError: It is missing.
        """
        path = self.path.parent / name
        if not path.exists():
            raise UserError(f"{path}: is missing; copy it from the coordinator's kit")
        return path


def load_coordinator(path: Path) -> Coordinator:
    """Read `coordinator.yaml`.

    Raises:
        UserError: The file is wrong; the message names file, key, problem and remedy.
    """
    path = path.expanduser().absolute()
    return Coordinator(path, read_settings(path, CoordinatorSettings))
