"""What fedaccord expects of the names that Flower does not promise to keep.

A new version of Flower is tried by running this file first.  What fails names the module of
`common/flower` that has to change.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from common.flower import clientapp, control, executor, superlink, supernode, transport
from common.flower.substitution import substitute

ROOT = Path(__file__).parents[2]
PUBLIC = ("flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.simulation")

# module and name: how many arguments we pass by position, and which by keyword.
CALLED: dict[str, tuple[int, list[str]]] = {
    "flwr.app.message:make_message": (1, ["error"]),
    "flwr.common.config:get_fab_config": (1, []),
    "flwr.common.serde:fab_to_proto": (1, []),
    "flwr.common.serde:user_config_to_proto": (1, []),
    "flwr.server.superlink.fleet.vce.backend.raybackend:RayBackend": (1, []),
    "flwr.server.superlink.fleet.vce.backend.raybackend:RayBackend.build": (2, []),
    "flwr.server.superlink.fleet.vce.backend.raybackend:RayBackend.init_ray": (2, []),
    "flwr.server.superlink.fleet.vce.vce_api:add_messages_to_queue": (4, []),
    "flwr.simulation.ray_transport.ray_actor:BasicActorPool": (3, []),
    "flwr.simulation.ray_transport.ray_actor:BasicActorPool.add_actors_to_pool": (2, []),
    "flwr.simulation.ray_transport.ray_actor:BasicActorPool.terminate_all_actors": (1, []),
    "flwr.simulation.run_simulation:_run_simulation": (
        0,
        [
            *("num_supernodes", "exit_event", "client_app", "server_app", "backend_name"),
            *("backend_config", "server_app_context", "app_dir", "is_app", "run"),
        ],
    ),
    "flwr.supercore.control:ControlHttpClient.from_server_address": (
        1,
        ["insecure", "root_certificates", "interceptors"],
    ),
    "flwr.supercore.fab:Fab": (3, []),
    "flwr.supercore.inflatable.inflatable_object:get_object_body": (2, []),
    "flwr.supercore.inflatable.inflatable_object:get_object_head_values_from_object_content": (
        1,
        [],
    ),
    "flwr.supercore.inflatable.inflatable_object:iterate_object_tree": (1, []),
    "flwr.supercore.inflatable.inflatable_protobuf_utils:make_pull_object_fn_protobuf": (3, []),
    "flwr.supercore.inflatable.inflatable_utils:inflate_object_from_contents": (2, []),
    "flwr.supercore.inflatable.inflatable_utils:pull_objects": (2, ["max_tries_per_object"]),
    "flwr.supercore.interceptors:RuntimeVersionHttpInterceptor": (0, ["component_name"]),
    "flwr.supercore.logger:mirror_output_to_queue": (1, []),
    "flwr.supercore.logger:restore_output": (0, []),
    "flwr.supercore.primitives.asymmetric:public_key_to_bytes": (1, []),
    "flwr.supercore.retry:exponential": (0, ["max_delay"]),
    "flwr.supercore.retry:make_simple_http_retry_invoker": (0, []),
    "flwr.supercore.run:Run.create_empty": (0, ["run_id"]),
    "flwr.supercore.tls:validate_and_resolve_root_certificates": (2, []),
    "flwr.superlink.cli.flower_superlink:_parse_superlink_lifespan_config": (0, []),
    "flwr.superlink.main:create_app": (2, []),
    "flwr.superlink.runtime.run_serverapp:run_serverapp": (
        0,
        [
            *("runtime_api_address", "log_queue", "token", "insecure", "certificates"),
            *("parent_pid", "runtime_dependency_install"),
        ],
    ),
    "flwr.superlink.servicer.fleet.fleet_handlers:push_messages": (0, ["request", "state"]),
    "flwr.supernode.runtime.run_clientapp:run_clientapp": (
        0,
        [
            *("runtime_api_address", "token", "insecure", "certificates"),
            *("parent_pid", "runtime_dependency_install"),
        ],
    ),
}
# module: the names in it that are replaced, or that Flower's own code looks up there.
REPLACED: dict[str, list[str]] = {
    "flwr.supernode.runtime.run_clientapp": ["install_from_fab", "get_load_client_app_fn"],
    "flwr.superlink.runtime.run_serverapp": [
        *("install_from_fab", "get_project_config", "get_fused_config_from_dir"),
        *("run_", "HttpGrid"),
    ],
    "flwr.supercore.superexec.run_superexec": ["get_executor"],
    "flwr.supernode.fleet_http_connection": [
        *("make_simple_http_retry_invoker", "HEARTBEAT_DEFAULT_INTERVAL"),
    ],
    "flwr.supercore.heartbeat": ["HEARTBEAT_DEFAULT_INTERVAL", "exponential"],
    "flwr.supernode.start_client_internal": ["time"],
    "flwr.superlink.servicer.fleet.fleet_handlers": ["push_messages"],
    "flwr.server.superlink.fleet.vce.backend.raybackend": ["RayBackend"],
    "flwr.server.superlink.fleet.vce.vce_api": ["add_messages_to_queue"],
}


def module_of(name: str) -> Any:
    return importlib.import_module(name)


def private_imports(path: Path) -> Iterator[str]:
    """The modules of Flower beyond its public ones that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found = [node.module]
        for name in found:
            inner = name in PUBLIC or name.startswith("flwr.serverapp.strategy")
            if name.partition(".")[0] == "flwr" and not inner:
                yield f"{path.relative_to(ROOT)}: {name}"


def test_flowers_private_names_are_used_in_one_folder_alone() -> None:
    rooms = [p for p in ROOT.iterdir() if (p / "__init__.py").exists() and p.name != "tests"]
    files = [f for room in rooms for f in room.rglob("*.py")]
    assert len(files) > 100
    seam = ROOT / "common" / "flower"
    assert [x for f in files if seam not in f.parents for x in private_imports(f)] == []


@pytest.mark.parametrize("place", CALLED)
def test_what_is_called_takes_what_is_passed(place: str) -> None:
    module, _, name = place.partition(":")
    found: Any = module_of(module)
    for part in name.split("."):
        found = getattr(found, part)
    positional, keywords = CALLED[place]
    # Raises TypeError for an argument that is missing or unknown.
    inspect.signature(found).bind(*[None] * positional, **dict.fromkeys(keywords))


@pytest.mark.parametrize("module", REPLACED)
def test_what_is_replaced_is_looked_up_there(module: str) -> None:
    """A name that the module imports or defines and never uses would be replaced for nothing."""
    found = module_of(module)
    source = inspect.getsource(found)
    for name in REPLACED[module]:
        assert hasattr(found, name), f"{module}.{name}"
        imported = r"from [\w.]+ import (\([^)]*\)|[^\n]*)"
        used = re.findall(rf"\b{name}\b", re.sub(imported, "", source))
        # The backend and the handler of messages are defined here and looked up by others.
        assert used, f"{module} does not use {name}"


def test_a_name_that_is_gone_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"common\.flower\.clientapp\.gone"):
        substitute(clientapp, "gone", None)


def test_the_arguments_of_a_task() -> None:
    names = {*inspect.signature(executor.ExecutionSpec).parameters}
    assert {
        *("task_type", "runtime_api_address", "token", "insecure"),
        *("root_certificates_path", "parent_pid"),
    } <= names
    assert {executor.TaskType.CLIENT_APP, executor.TaskType.SERVER_APP} <= set(executor.TaskType)
    assert hasattr(executor.LaunchResult, "accepted")
    assert hasattr(executor.LaunchResult, "failed")


def test_what_an_executor_is_asked() -> None:
    source = inspect.getsource(module_of("flwr.supercore.superexec.run_superexec"))
    called = set(re.findall(r"\bexecutor\.(\w+)\(", source))
    ours = {name for name, _ in inspect.getmembers(executor.Executor, inspect.isfunction)}
    assert called <= ours


def test_a_retry_invoker_has_what_is_replaced() -> None:
    invoker = supernode.make_simple_http_retry_invoker()
    assert callable(invoker.should_giveup)
    assert callable(invoker.wait_gen_factory)
    assert next(supernode.exponential(max_delay=4)) <= 4


def test_a_superlink_gives_its_settings() -> None:
    flower = module_of("flwr.superlink.cli.flower_superlink")
    assert hasattr(flower, "SuperLinkLifespan")
    assert callable(superlink.superlink)


def test_a_start_request_carries_bundle_and_settings() -> None:
    request = control.start_request(b"bundle", {"config": "{}"})
    assert request.fab.content == b"bundle"
    assert request.override_config["config"].string == "{}"
    for name in ("ListNodes", "ListRuns", "RegisterNode", "UnregisterNode", "StartRun", "StopRun"):
        assert callable(getattr(control.ControlHttpClient, name))


def test_a_message_is_taken_apart_and_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    array = Array("float32", (2,), "numpy.ndarray", b"12345678")
    message = Message(RecordDict({"a": ArrayRecord({"w": array})}), 1, "train")
    message.metadata.__dict__["_message_id"] = "m"
    objects = {i: o.deflate() for i, o in get_all_nested_objects(message).items()}
    kinds = [transport.get_object_head_values_from_object_content(o)[0] for o in objects.values()]
    assert kinds.count("Array") == kinds.count("ArrayRecord") == 1
    whole = transport.inflate_object_from_contents(message.object_id, dict(objects))
    assert isinstance(whole, Message)
    assert transport.CHUNK_BYTES > 1 << 20


def test_an_error_in_the_place_of_a_reply() -> None:
    reply = transport.error_reply(1, 2, "question", "why")
    assert reply.has_error()
    assert reply.error.reason == "why"
    assert reply.metadata.reply_to_message_id == "question"
    transport.set_question(reply, "another")
    assert reply.metadata.reply_to_message_id == "another"


def test_a_grid_has_what_is_overridden_and_used() -> None:
    source = inspect.getsource(transport.HttpGrid)
    for name in ("push_messages", "pull_messages", "_runtime_client", "node", "run"):
        assert re.search(rf"\b{name}\b", source), name
    for name in ("PullMessages", "PullObject", "ConfirmMessageReceived"):
        assert f"_runtime_client.{name}" in source, name


def test_the_state_that_messages_are_handed_out_from() -> None:
    from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState

    source = inspect.getsource(InMemoryLinkState)
    for name in ("lock", "message_ins_store", "_check_stored_messages"):
        assert re.search(rf"self\.{name}\b|def {name}\b", source), name


def test_a_pool_of_workers_has_what_is_changed() -> None:
    from flwr.simulation.ray_transport.ray_actor import BasicActorPool

    source = inspect.getsource(BasicActorPool)
    for name in ("pool", "num_actors", "actors_capacity"):
        assert re.search(rf"self\.{name}\b", source), name
