"""`federation.yaml`: who takes part in a federation, and where partners reach the server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from common.settings_file import Port, Settings, Text, read_settings

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
# `fedaccord provision --rotate server` means the server and not a partner.
SERVER = "server"


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError(
            "is not a valid name; use at most 63 letters, digits, '-', '_' and '.', and begin with "
            "a letter or digit"
        )
    return value


Name = Annotated[str, AfterValidator(_name)]


class ServerSettings(Settings):
    """The section `server`.

    Attributes:
        host: The name or address that partners connect to.
        port: TCP port for partners.
        control_port: TCP port for the coordinator's own commands, on the loopback interface.
        names: Further names or addresses that the server's certificate is valid for.
    """

    host: Text
    port: Port = 9443
    control_port: Port = 9444
    names: list[Text] = Field(default_factory=list)

    @field_validator("control_port")
    @classmethod
    def _another_port(cls, value: int, info: ValidationInfo) -> int:
        return differs_from_port(value, info)


class Federation(Settings):
    """The whole file.

    Attributes:
        federation: The name of the federation; it becomes the name of its authority.
        server: Where the server is reached.
        partners: The names of the partners, each once.
    """

    federation: Name
    server: ServerSettings
    partners: Annotated[list[Name], Field(min_length=1)]

    @field_validator("partners")
    @classmethod
    def _distinct(cls, value: list[str]) -> list[str]:
        if len({name.lower() for name in value}) < len(value):
            raise ValueError("must not name a partner twice, in upper or lower case; rename one")
        if SERVER in value:
            raise ValueError(f"must not contain '{SERVER}'; rename that partner")
        return value

    @property
    def address(self) -> str:
        """HOST:PORT, as partners write it into their files."""
        return f"{self.server.host}:{self.server.port}"


def differs_from_port(value: int, info: ValidationInfo) -> int:
    """The control port, if it is another than `port`.

    Raises:
        ValueError: They are equal.
    """
    if value == info.data.get("port"):
        raise ValueError("must differ from port; choose another one")
    return value


def load_federation(path: Path) -> Federation:
    """Read `federation.yaml`.

    Raises:
        UserError: The file is wrong; the message names file, key, problem and remedy.
    """
    return read_settings(path, Federation)
