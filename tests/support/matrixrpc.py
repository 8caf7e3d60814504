"""The authorization matrix's caller over gRPC."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import grpc

from support.matrix import GHOST_ID, Got, Target, agent_document
from support.rpc import Client, ref, refusal_of
from talon.gateway.api.collections import BY_KIND
from talon.v1 import talon_pb2 as pb

#: No resource has come so far: who may delete one deletes nothing.
NEVER = "999999999"
Ask = Callable[[Target], tuple[Any, Any]]


class Rpc:
    """By generated stubs. Each method of the contract is asked once at least; those of `Resources` once for each kind."""

    name = "grpc"

    def __init__(self, client: Client) -> None:
        self._asks: dict[str, Ask] = {}
        for kind, collection in BY_KIND.items():
            self._asks |= _of_kind(client, kind, collection.one, collection.many)
        self._asks |= _sessions(client) | _approvals(client) | _documents(client) | _schedules(client) | _models(client)

    def operations(self) -> list[str]:
        return sorted(self._asks)

    async def ask(self, operation: str, target: Target, authorization: str) -> Got:
        method, message = self._asks[operation](target)
        call = method(message, metadata=(("authorization", authorization),) if authorization else ())
        try:
            # Of a stream its first message.
            answer = await (call.read() if hasattr(call, "read") else call)
        except grpc.aio.AioRpcError as error:
            said = refusal_of(error)
            return Got(said.code, said.detail, f"{said} {error.trailing_metadata()} {error.initial_metadata()}")
        finally:
            call.cancel()
        return Got("", "", str(answer))


class Watches(Rpc):
    """Lists as they are watched."""

    name = "grpc watch"

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._asks = {f"list{one.many}": _watch(client, kind) for kind, one in BY_KIND.items()}


def _of_kind(client: Client, kind: str, one: str, many: str) -> dict[str, Ask]:
    stubs = client.resources
    if kind == "Namespace":
        return {
            "getNamespace": lambda at: (client.namespaces.Get, pb.GetNamespaceRequest(name=at.namespace)),
            "listNamespaces": lambda at: (client.namespaces.List, pb.ListNamespacesRequest()),
            "createNamespace": lambda at: (client.namespaces.Create, pb.CreateNamespaceRequest(name=at.namespace)),
            "deleteNamespace": lambda at: (
                stubs.Delete,
                pb.DeleteResourceRequest(kind=kind, name=at.namespace, if_resource_version=NEVER),
            ),
        }
    wrong = json.dumps({"nothing": True})
    return {
        f"create{one}": lambda at: (
            stubs.Create,
            pb.WriteResourceRequest(namespace=at.namespace, kind=kind, manifest_json=wrong),
        ),
        f"get{one}": lambda at: (stubs.Get, pb.GetResourceRequest(namespace=at.namespace, kind=kind, name="ghost")),
        f"list{many}": lambda at: (stubs.List, pb.ListResourcesRequest(namespace=at.namespace, kind=kind)),
        f"delete{one}": lambda at: (stubs.Delete, pb.DeleteResourceRequest(namespace=at.namespace, kind=kind, name="ghost")),
    }


def _watch(client: Client, kind: str) -> Ask:
    return lambda at: (client.resources.Watch, pb.WatchRequest(namespace="" if kind == "Namespace" else at.namespace, kind=kind))


def _documents(client: Client) -> dict[str, Ask]:
    return {
        "apply": lambda at: (
            client.resources.Apply,
            pb.ApplyRequest(manifests=agent_document(at.namespace).decode(), dry_run=True),
        )
    }


def _sessions(client: Client) -> dict[str, Ask]:
    stubs = client.sessions

    def at_session(at: Target) -> pb.SessionRef:
        return ref(at.session, at.agent, at.namespace)

    return {
        "createSession": lambda at: (
            stubs.Create,
            pb.CreateSessionRequest(namespace=at.namespace, agent=at.agent, profile="none"),
        ),
        "getSession": lambda at: (stubs.Get, at_session(at)),
        "listSessions": lambda at: (stubs.List, pb.ListSessionsRequest(namespace=at.namespace, agent=at.agent)),
        "sendMessage": lambda at: (stubs.Send, pb.SendRequest(session=at_session(at))),
        "getImage": lambda at: (stubs.GetImage, pb.ImageRef(session=at_session(at), seq=1)),
        "streamSession": lambda at: (stubs.Stream, pb.StreamRequest(session=at_session(at), turn_id=GHOST_ID)),
        "cancelTurn": lambda at: (stubs.Cancel, pb.CancelRequest(session=at_session(at), turn_id=GHOST_ID)),
        "getLoopState": lambda at: (stubs.State, at_session(at)),
    }


def _approvals(client: Client) -> dict[str, Ask]:
    stubs = client.approvals
    return {
        "listApprovals": lambda at: (stubs.List, pb.ListApprovalsRequest(namespace=at.namespace)),
        "getApproval": lambda at: (stubs.Get, pb.ApprovalRef(namespace=at.namespace, id=GHOST_ID)),
        "resolveApproval": lambda at: (stubs.Resolve, pb.ResolveRequest(namespace=at.namespace, id=GHOST_ID, outcome="retry")),
    }


def _schedules(client: Client) -> dict[str, Ask]:
    stubs = client.schedules

    def ghost(at: Target) -> pb.ScheduleRef:
        return pb.ScheduleRef(namespace=at.namespace, name="ghost")

    return {
        "pauseSchedule": lambda at: (stubs.Pause, ghost(at)),
        "resumeSchedule": lambda at: (stubs.Resume, ghost(at)),
        "triggerSchedule": lambda at: (stubs.Trigger, pb.TriggerRequest(schedule=ghost(at))),
        "listScheduleTimes": lambda at: (stubs.Next, pb.NextTimesRequest(schedule=ghost(at))),
        "listScheduleHistory": lambda at: (stubs.History, pb.HistoryRequest(schedule=ghost(at))),
    }


def _models(client: Client) -> dict[str, Ask]:
    stubs = client.models
    return {
        "listModels": lambda at: (stubs.List, pb.ListModelsRequest()),
        "getModelTiers": lambda at: (stubs.Tiers, pb.ModelTiersRequest()),
        "selectModel": lambda at: (stubs.Select, pb.TaskContext(type="nothing")),
        "estimateCost": lambda at: (stubs.Estimate, pb.EstimateRequest(model="nothing")),
        "explainModels": lambda at: (stubs.Explain, pb.ExplainModelsRequest(namespace=at.namespace, agent=at.agent)),
    }
