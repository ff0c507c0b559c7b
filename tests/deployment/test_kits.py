"""Kits: keys, certificates, rotation and revocation."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from deployment.federation import load_federation
from deployment.kits import provision, revoke_partner, rotate_partner
from scripts import cli
from tests.deployment.kit import FEDERATION, kit


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    file = tmp_path / "federation.yaml"
    file.write_text(yaml.safe_dump(FEDERATION))
    provision(load_federation(file), tmp_path / "kits")
    return file, tmp_path / "kits"


def test_each_kit_holds_its_own_key_and_no_other(made: tuple[Path, Path]) -> None:
    _, out = made
    kits = {name: kit(out, name) for name in ("north", "south")}
    assert kits["north"]["node.key"] != kits["south"]["node.key"]
    for name, files in kits.items():
        private = load_ssh_private_key(files["node.key"], None)
        public = load_ssh_public_key((out / "coordinator/partners" / f"{name}.pub").read_bytes())
        assert private.public_key().public_numbers() == public.public_numbers()  # type: ignore
        assert sum(b"PRIVATE KEY" in content for content in files.values()) == 1
        other = kits["south" if name == "north" else "north"]["node.key"]
        assert not any(other in content for content in files.values())
    everything = [p for p in out.rglob("*") if p.is_file()]
    assert all(p.stat().st_mode & 0o777 == 0o600 for p in everything)
    assert all(p.stat().st_mode & 0o777 == 0o700 for p in out.rglob("*") if p.is_dir())
    holding = {p.name for p in everything if b"PRIVATE KEY" in p.read_bytes()}
    assert holding == {"ca.key", "server.key"}


def test_the_server_certificate_is_for_its_names_and_signed_by_the_authority(
    made: tuple[Path, Path],
) -> None:
    _, out = made
    authority = x509.load_pem_x509_certificate((out / "coordinator/ca.pem").read_bytes())
    server = x509.load_pem_x509_certificate((out / "coordinator/server.pem").read_bytes())
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["server.example.org", "localhost"]
    assert [str(x) for x in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7", "127.0.0.1"]


def test_rotation_and_revocation_touch_one_partner(made: tuple[Path, Path]) -> None:
    file, out = made

    def state() -> dict[str, bytes]:
        return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}

    before = state()
    assert provision(load_federation(file), out) == []
    assert state() == before
    rotate_partner(load_federation(file), out, "north")
    after = state()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"partners/north.tar.gz", "coordinator/partners/north.pub"}
    revoke_partner(out, "south")
    assert set(after) - set(state()) == {
        "partners/south.tar.gz",
        "coordinator/partners/south.pub",
    }


def test_nothing_secret_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "federation.yaml"
    file.write_text(yaml.safe_dump(FEDERATION))
    assert cli.main(["provision", str(file), "--out", str(tmp_path / "kits")]) == 0
    printed = "".join(capsys.readouterr())
    secrets = (tmp_path / "kits/authority/ca.key").read_text().splitlines()[1:-1]
    assert "PRIVATE" not in printed
    assert not any(line in printed for line in secrets)
