"""Bundles, partner.yaml, the outer door and refusals, without a running federation."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import HTTPException
from flwr.app import Context, Message, RecordDict
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.task_identity import TaskIdentity

from client import session, task
from client.deployed import load_partner_file, localised, rows
from client.deployed_session import explain, open_session
from client.ledger import BudgetExceeded, LedgerError
from common import messages
from common.bundle import build_bundle, check_bundle
from common.config import Config, DataConfig, to_json
from common.errors import UserError
from common.refusals import Reason, Refused
from deployment.federation import load_federation
from deployment.kits import provision
from deployment.partner_check import check_data
from server.superlink import FleetOnly, of_itself
from tests.deployment.kit import FEDERATION, kit


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    file = tmp_path / "federation.yaml"
    file.write_text(yaml.safe_dump(FEDERATION))
    provision(load_federation(file), tmp_path / "kits")
    return file, tmp_path / "kits"


def with_file(name: str) -> bytes:
    buffer = io.BytesIO(build_bundle())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(name, "import os")
    return buffer.getvalue()


def test_only_our_own_bundle_without_code_is_accepted() -> None:
    check_bundle(build_bundle())
    assert build_bundle() == build_bundle()
    for name in ("client/app.py", "sitecustomize.py", "conf/x.yaml"):
        with pytest.raises(UserError, match="files besides"):
            check_bundle(with_file(name))
    with pytest.raises(UserError, match=r"fedaccord 9\.9\.9"):
        check_bundle(build_bundle("9.9.9"))
    with pytest.raises(UserError, match="cannot be read"):
        check_bundle(b"no archive")
    spoilt = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(build_bundle())) as old,
        zipfile.ZipFile(spoilt, "w") as new,
    ):
        for entry in old.infolist():
            content = old.read(entry).replace(b"client.app:app", b"os:system")
            new.writestr(entry, content)
    with pytest.raises(UserError, match="not the bundle of a fedaccord run"):
        check_bundle(spoilt.getvalue())


def partner_file(out: Path, tmp_path: Path, **change: Any) -> Path:
    tree = yaml.safe_load(kit(out, "north")["partner.yaml"])
    tree["data"]["labels"] = ["bad", "good"]
    path = tmp_path / "partner.yaml"
    path.write_text(yaml.safe_dump({**tree, **change}))
    return path


def asked(**model: str) -> Config:
    config = Config(data=DataConfig(source="sql", path="/etc/passwd", labels=["bad", "good"]))
    return replace(config, model=replace(config.model, **model))


def test_where_the_rows_are_never_comes_from_the_coordinator(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    own = load_partner_file(partner_file(made[1], tmp_path))
    config = localised(own, asked())
    assert config.data == own.data
    assert config.data.path == str(tmp_path / "FILL-IN.csv")
    assert (config.run.seed, config.split_seed) == (asked().run.seed, 0)
    for wrong, words in (
        (asked(base="/etc"), "model.base"),
        (replace(asked(), attack={"_target_": "x"}), "attack"),
        (replace(asked(), data=DataConfig(labels=["good", "bad"])), "data.labels"),
    ):
        with pytest.raises(UserError, match=words):
            localised(own, wrong)


def test_the_partner_alone_names_the_revision_of_a_model(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    models = {"mini": "org/mini@abc1", "plain": "org/plain", "here": "folder", "e": "embedded"}
    own = load_partner_file(partner_file(made[1], tmp_path, models=models))

    def taken(name: str, revision: str | None) -> tuple[str, str | None]:
        model = asked(base=name).model
        config = asked()
        config.model = replace(model, revision=revision)
        found = localised(own, config).model
        return found.base, found.revision

    assert taken("mini", None) == taken("mini", "abc1") == ("org/mini", "abc1")
    assert taken("plain", None) == ("org/plain", None)
    # Nothing is downloaded.
    assert taken("here", "refs/pr/7") == (str(tmp_path / "folder"), None)
    assert taken("e", "refs/pr/7") == ("embedded", None)
    for name, revision in (("mini", "refs/pr/7"), ("plain", "refs/pr/7"), ("mini", "")):
        with pytest.raises(Refused) as caught:
            taken(name, revision)
        assert (caught.value.reason, caught.value.key) == (Reason.REVISION, "model.revision")


def test_a_partner_file_is_text_too(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "hunter2")
    labels = ["${oc.env:A_SECRET}", "good"]
    own = load_partner_file(partner_file(made[1], tmp_path, data={"labels": labels}))
    assert own.data.labels == labels
    with pytest.raises(UserError, match=r"data\.labels\[0\].*quotes"):
        load_partner_file(partner_file(made[1], tmp_path, data={"labels": [False, True]}))


def test_what_a_partner_says_of_a_strange_bundle(caplog: pytest.LogCaptureFixture) -> None:
    """Flower sends the text of the error to the coordinator."""
    for content in (b"", build_bundle("6.6.6\x1b"), build_bundle("6.6.6-c4n4ry")):
        with pytest.raises(UserError) as caught:
            task._refuse_code(content)
        assert str(caught.value) in (Reason.BUNDLE.sentence(), Reason.VERSION.sentence())
        assert caught.value.__suppress_context__
    assert "c4n4ry" in caplog.text
    assert "\x1b" not in caplog.text


def test_only_the_group_columns_that_a_run_asks_for_are_used(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    data = {"labels": ["bad", "good"], "path": "notes.csv", "columns": {"groups": ["ward", "sex"]}}
    own = load_partner_file(partner_file(made[1], tmp_path, data=data))

    def groups(*names: str) -> list[str]:
        request = asked()
        request.data.columns.groups = list(names)
        return localised(own, request).data.columns.groups

    assert own.data.columns.groups == ["ward", "sex"]
    assert (groups(), groups("sex")) == ([], ["sex"])
    with pytest.raises(Refused) as caught:
        groups("sex", "diagnosis")
    assert caught.value.sentence == Reason.OTHER_DATA.sentence("data.columns.groups")


def test_a_partner_de_identifies_by_its_own_choice(made: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("presidio_analyzer", reason="the extra deidentify is not installed")
    (tmp_path / "names").mkdir()
    data = {"labels": ["bad", "good"], "path": "notes.csv", "deidentify": True}
    own = load_partner_file(partner_file(made[1], tmp_path, data={**data, "names_model": "names"}))
    assert own.data.names_model == str(tmp_path / "names")
    own = load_partner_file(partner_file(made[1], tmp_path, data={**data, "names_model": "none"}))
    (tmp_path / "notes.csv").write_text(
        "text,label\n" + "\n".join(f"room {i} of a{i}b,{('bad', 'good')[i % 2]}" for i in range(40))
    )
    # What a coordinator asks neither switches it on nor off.
    assert localised(own, asked()).data == own.data
    train, validation = rows(own)
    assert {*train.texts, *validation.texts} == {"room <NUMBER> of <IDENTIFIER>"}
    assert len(train) + len(validation) == 40
    said = check_data(own)
    assert said.endswith("replaced in all of them: 40 identifiers, 40 numbers")
    assert "room" not in said


def test_the_outer_door_serves_partners_only() -> None:
    reached: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])

    async def ask(path: str) -> list[int]:
        sent: list[int] = []

        async def send(message: Any) -> None:
            if "status" in message:
                sent.append(message["status"])

        await FleetOnly(inner)({"type": "http", "path": path}, None, send)
        return sent

    for path in (
        "/v1/control/start-run",
        "/v1/runtime/acquire-task",
        "/v1/fleet/register-node",
        "/docs",
        "/health",
        "/v1/fleet/../control/start-run",
    ):
        found = asyncio.run(ask(path))
        if ".." in path:
            # Passed on as it is: the router knows no such path and answers 404 itself.
            assert reached == [path]
            reached.clear()
        else:
            assert found == [404], path
    assert reached == []
    asyncio.run(ask("/v1/fleet/pull-messages"))
    assert reached == ["/v1/fleet/pull-messages"]


def test_a_request_ends_at_the_largest_size() -> None:
    """However its sender puts it: with a length, with a wrong one, or with none."""
    seen: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        while (event := await receive()).get("more_body"):
            seen.append("part")
        seen.append(event["type"])

    async def ask(headers: list[tuple[bytes, bytes]], parts: int) -> list[int]:
        left = [
            {"type": "http.request", "body": b"0" * 10, "more_body": i > 0} for i in range(parts)
        ]
        sent: list[int] = []

        async def receive() -> Any:
            return left.pop()

        async def send(message: Any) -> None:
            sent.append(message.get("status", 0))

        scope = {"type": "http", "path": "/v1/fleet/push-object", "headers": headers}
        await FleetOnly(inner, largest=25)(scope, receive, send)
        return sent

    assert asyncio.run(ask([(b"content-length", b"26")], 3))[0] == 413
    assert asyncio.run(ask([(b"content-length", b"-1")], 3))[0] == 413
    assert seen == []
    asyncio.run(ask([(b"content-length", b"20")], 2))
    assert seen == ["part", "http.request"]
    seen.clear()
    asyncio.run(ask([(b"content-length", b"20")], 9))
    asyncio.run(ask([], 9))
    assert seen == 2 * ["part", "part", "http.disconnect"]


@pytest.mark.parametrize(
    ("source", "question", "fine"),
    [(7, "q", True), (8, "q", False), (1, "", False), (7, "", False)],
)
def test_a_partner_speaks_for_itself_alone(source: int, question: str, fine: bool) -> None:
    request = PushMessagesRequest(node=Node(node_id=7))
    metadata = request.messages_list.add().metadata
    metadata.src_node_id, metadata.reply_to_message_id = source, question
    passed: list[object] = []
    push = of_itself(lambda request, state: passed.append(request))
    if fine:
        push(request=request, state=None)
    else:
        with pytest.raises(HTTPException) as refused:
            push(request=request, state=None)
        assert refused.value.status_code == 403
    assert passed == ([request] if fine else [])


def test_paths_of_a_partner_stay_in_its_own_log(
    made: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever goes wrong with its files: settings, rows, model, ledger, disk."""
    monkeypatch.delenv("FEDACCORD_SIMULATION", raising=False)
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    config = asked(base="embedded")
    context = Context(1, 1, {}, RecordDict(), {"config": to_json(config)})

    def raising(error: Exception) -> Any:
        def handle(*_: object) -> Any:
            raise error

        return handle

    def refusal(opener: Any = open_session) -> str:
        message = Message(messages.pack(messages.Request("r", 1)), 1, messages.TRAIN)
        message.metadata.__dict__["_message_id"] = "m"
        handle = raising(AssertionError())
        body = messages.unpack(session.answer(message, context, handle, opener, explain).content)
        assert isinstance(body, messages.Refusal)
        assert str(tmp_path) not in body.reason
        return body.reason

    path = tmp_path / "partner.yaml"
    monkeypatch.setenv("FEDACCORD_PARTNER", str(path))
    for problem, words in (
        ({"directory": 3}, "its settings cannot be used"),
        ({}, "its data cannot be used"),
    ):
        partner_file(made[1], tmp_path, **problem)
        assert words in refusal()
    assert str(tmp_path) in caplog.text
    (tmp_path / "FILL-IN.csv").write_text("text,label\n" + "so so,good\nno,bad\n" * 20)
    partner_file(made[1], tmp_path, models={"embedded": str(tmp_path / "nothing")})
    assert "its model cannot be used" in refusal()
    damaged = raising(LedgerError(f"{path} is damaged"))
    assert "its files cannot be used" in refusal(damaged)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    assert "its files cannot be used" in refusal(raising(full))
    assert "(No space left on device)" in caplog.text
    # Neither its text nor its type or place: they can depend on a row.
    quoting = raising(RuntimeError("a patient's name"))
    assert refusal(quoting) == Reason.INTERNAL.sentence()
    assert "patient" not in caplog.text
    assert refusal(raising(BudgetExceeded("epsilon 3.2 of 8"))) == Reason.BUDGET.sentence()
