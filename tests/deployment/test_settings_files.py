"""federation.yaml, coordinator.yaml and partner.yaml: strict, and each error is one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from client.accounting import Budget
from client.deployed import load_partner_file
from common.errors import UserError
from deployment import templates
from deployment.coordinator import load_coordinator
from deployment.federation import load_federation

FEDERATION = """
federation: test
server:
  host: fed.example.org
  names: [10.0.0.7]
partners: [north, south]
"""
COORDINATOR = templates.COORDINATOR_FILE.format(port=9443, control_port=9444)
PARTNER = templates.PARTNER_FILE.format(name="north", server="fed.example.org:9443", sources="csv")
FILES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "federation": (FEDERATION, load_federation),
    "coordinator": (COORDINATOR, load_coordinator),
    "partner": (PARTNER, load_partner_file),
}


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("federation", "host:", "hots:", "server.hots: there is no such key; did you mean host?"),
        ("federation", "federation: test", "", "federation: is missing; add it"),
        ("federation", "[north, south]", "[]", "partners: must not be empty"),
        ("federation", "[north, south]", "north", "partners: must be a list"),
        ("federation", "[north, south]", "[north, 7]", "partners[1]: must be text; put"),
        ("federation", "[north, south]", "[../x]", "partners[0]: is not a valid name; use"),
        ("federation", "[north, south]", "[a, A]", "partners: must not name a partner twice"),
        ("federation", "[north, south]", "[server]", "partners: must not contain 'server'"),
        ("federation", "  host", "  port: 0\n  host", "server.port: must be a port number"),
        ("federation", "  host", "  port: true\n  host", "server.port: must be a whole number"),
        ("federation", "  host", "  port: '1'\n  host", "server.port: must be a whole number"),
        ("federation", "  host", "  port: 9444\n  host", "server.control_port: must differ"),
        ("federation", FEDERATION, "[]", "must hold keys and values; the keys are federation"),
        ("coordinator", "version: 1", "", "version: is missing; add it"),
        ("coordinator", "version: 1", "version: 2", "version: must be 1; install"),
        ("coordinator", "port: 9443", "port: 9444", "control_port: must differ from port"),
        ("coordinator", "host: 0.0.0.0", "host: 1", "host: must be text"),
        ("coordinator", "directory", "dir", "dir: there is no such key; did you mean directory?"),
        ("partner", "fed.example.org:9443", "fed.example.org", "server: must be HOST:PORT"),
        ("partner", "fed.example.org:9443", "h:99999", "server: must be HOST:PORT"),
        ("partner", "policy:", "polcy:", "polcy: there is no such key; did you mean policy?"),
        ("partner", "  path:", "  pth:", "data.pth: there is no such key; did you mean path?"),
        ("partner", "  source:", "  test_path: x\n  source:", "data.test_path: belongs to"),
        ("partner", "[negative, positive]", "[one]", "data.labels: must name at least 2; list"),
        ("partner", "[negative, positive]", "[no, yes]", "data.labels[0]: must be a text"),
        ("partner", "split_seed: 0", "split_seed: -1", "split_seed: must be from 0 to"),
        ("partner", "embedded: embedded", "embedded: 7", "models.embedded: must be text"),
        ("partner", "embedded: embedded", "[a]", "models: must hold keys and values; write KEY"),
        ("partner", "split_seed", "x", "x: there is no such key; the keys are version, name"),
        ("partner", "epsilon: 8.0", "epsilon: lots", "policy.lifetime.epsilon: must be a number"),
        ("partner", "epsilon: 8.0", "epsilon: true", "policy.lifetime.epsilon: must be a number"),
        ("partner", "epsilon: 8.0", "epsilon: 1:30", "is not YAML (1:30 is not a plain number)"),
        ("partner", "epsilon: 8.0", "epsilon: 010", "is not YAML (010 is not a plain number)"),
        ("partner", "epsilon: 8.0", f"epsilon: {'9' * 400}", "epsilon: must be a number"),
        ("partner", "epsilon: 8.0", f"epsilon: {'9' * 5000}", "is not YAML"),
        ("partner", "epsilon: 8.0", "epsilon: -1", "epsilon: must be a finite number above 0"),
        ("partner", "epsilon: 8.0", "epsilon: .inf", "epsilon: must be a finite number above 0"),
        ("partner", "epsilon: 8.0", "epsilon: .nan", "epsilon: must be a finite number above 0"),
        ("partner", "epsilon: 8.0, ", "", "policy.lifetime.epsilon: is missing; add it"),
        ("partner", "epsilon: 8.0", "epsilon: 8, epsilon: 80", "'epsilon': is given twice; keep"),
        ("partner", "{epsilon: 8.0,", "{<<: {epsilon: 80},", "is not YAML"),
        ("partner", "delta: 1.0e-5", "delta: 1", "policy.lifetime.delta: must be a number between"),
        ("partner", "delta: 1.0e-5", "deltas: 1.0e-5", "deltas: there is no such key; did you"),
        (
            "partner",
            "metrics: false",
            "metrics: 'no'",
            "exact_metrics: must be true or false",
        ),
        ("partner", "exact_metrics", "exact_metric", "did you mean allow_exact_metrics?"),
        ("partner", "tasks: [classification]", "tasks: x", "policy.tasks: must be a list"),
        ("partner", "tasks: [classification]", "", "policy.tasks: is missing; add it"),
        ("partner", "tasks:", "datasets:\n  tasks:", "policy.datasets: must be a list"),
        ("partner", "[text]", "[1]", "policy.columns.text[0]: must be text"),
        ("partner", "[classification]", "[" * 5000, "is nested too deeply"),
        ("partner", "[classification]", "!!python/name:os.system x", "is not YAML"),
        ("partner", "[classification]", "[", "is not YAML"),
    ],
)
def test_a_wrong_file_is_one_line_with_file_key_problem_and_remedy(
    tmp_path: Path, file: str, old: str, new: str, message: str
) -> None:
    text, load = FILES[file]
    assert old in text
    path = tmp_path / f"{file}.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError) as caught:
        load(path)
    found = str(caught.value)
    assert found.startswith(f"{path}: ")
    assert message in found
    assert "\n" not in found


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_one_line(tmp_path: Path, file: str) -> None:
    with pytest.raises(UserError, match=rf"{file}\.yaml: cannot be read \(FileNotFoundError\)"):
        FILES[file][1](tmp_path / f"{file}.yaml")


def test_values_of_the_files(tmp_path: Path) -> None:
    loaded = {}
    for name, (text, load) in FILES.items():
        (tmp_path / f"{name}.yaml").write_text(text)
        loaded[name] = load(tmp_path / f"{name}.yaml")
    federation, coordinator, partner = loaded.values()
    assert federation.address == "fed.example.org:9443"
    assert federation.server.names == ["10.0.0.7"]
    assert coordinator.directory == tmp_path / "state"
    assert coordinator.settings.control_port == 9444
    assert (partner.name, partner.server) == ("north", "fed.example.org:9443")
    assert partner.policy.budget == Budget(8.0, 1e-5)


def test_yaml_reads_1e_6_as_text_and_the_file_as_a_number(tmp_path: Path) -> None:
    path = tmp_path / "partner.yaml"
    path.write_text(PARTNER.replace("1.0e-5", "1e-6"))
    assert math.isclose(load_partner_file(path).policy.budget.delta, 1e-6)


@pytest.mark.parametrize("name", ["1", "no", "1e5", "2026-01-01", "0x10"])
def test_a_kit_is_read_for_every_name_that_a_federation_may_have(tmp_path: Path, name: str) -> None:
    federation = tmp_path / "federation.yaml"
    federation.write_text(yaml.safe_dump({**yaml.safe_load(FEDERATION), "partners": [name]}))
    assert load_federation(federation).partners == [name]
    path = tmp_path / "partner.yaml"
    path.write_text(templates.PARTNER_FILE.format(name=name, server="10:9443", sources="csv"))
    own = load_partner_file(path)
    assert (own.name, own.server) == (name, "10:9443")


def test_permissions_are_off_and_data_sets_unrestricted_unless_given(tmp_path: Path) -> None:
    tree = yaml.safe_load(PARTNER)
    for key in ("allow_non_private", "allow_exact_metrics", "allow_personal_models"):
        del tree["policy"][key]
    del tree["policy"]["columns"]["groups"]
    path = tmp_path / "partner.yaml"
    path.write_text(yaml.safe_dump(tree))
    policy = load_partner_file(path).policy
    assert not policy.allow_non_private
    assert not policy.allow_exact_metrics
    assert not policy.allow_personal_models
    assert policy.groups.refused(["ward"]) == ["ward"]
    assert policy.datasets.refused(["whatever"]) == []
    tree["policy"]["datasets"] = []
    path.write_text(yaml.safe_dump(tree))
    assert load_partner_file(path).policy.datasets.refused(["notes"]) == ["notes"]
