"""The same operations through two doors, HTTP and gRPC, and what they answer in one form, so that the answers can be compared."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, cast
from urllib.parse import quote, urlencode

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from support.bootedgateway import Booted, Stream
from support.rpc import Client, ref, refusal_of
from talon.gateway.api.collections import BY_KIND
from talon.v1 import talon_pb2 as pb

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?(?:Z|[+-]\d\d:\d\d)")
#: Times that are further off are not those of the run.
NEAR = timedelta(days=2)
UNDER = re.compile(r"([A-Z])")
SHA = re.compile(r"\b[0-9a-f]{64}\b")
#: How fields are called in requests over gRPC, where that differs.
FIELDS = {
    "idempotency_key": "Idempotency-Key",
    "metadata_json": "metadata",
    "features_json": "features",
    "input_tokens": "inputTokens",
}
#: What differs between two runs of the same: where a message came from, and how late a schedule fired.
OF_THE_RUN = ("source", "lag_ms")
WAIT_S = 10.0


@dataclass(frozen=True)
class Outcome:
    """What an operation answered: a value, or a code with its words, its fields and whether to try again."""

    value: Any = None
    code: str = ""
    detail: str = ""
    fields: frozenset[str] = frozenset()
    retry: bool = False
    status: str = ""


class Door(Protocol):
    """One way in. Each call is remembered in `log`, with ids and times by their order."""

    log: list[tuple[str, Outcome]]

    async def call(self, operation: str, **given: Any) -> Outcome:
        """Do it."""
        ...


def masked(value: Any, names: dict[str, str]) -> Any:
    """`value` with ids numbered in the order of their coming, times of the run as `<time>`, and without what is `OF_THE_RUN`."""

    def name(match: re.Match[str]) -> str:
        return names.setdefault(match[0], f"<{len(names) + 1}>")

    def time(match: re.Match[str]) -> str:
        return "<time>" if abs(datetime.fromisoformat(match[0]) - datetime.now(UTC)) < NEAR else match[0]

    if isinstance(value, str):
        return SHA.sub("<sha>", TIME.sub(time, UUID.sub(name, value)))
    if isinstance(value, dict):
        inside = cast(dict[str, Any], value)
        return {key: masked(inner, names) for key, inner in inside.items() if key not in OF_THE_RUN}
    if isinstance(value, list):
        return [masked(inner, names) for inner in cast(list[Any], value)]
    return "" if value is None else value


@dataclass
class HttpDoor:
    """Through HTTP."""

    gateway: Booted
    log: list[tuple[str, Outcome]] = field(default_factory=list[tuple[str, Outcome]])
    names: dict[str, str] = field(default_factory=dict[str, str])

    async def call(self, operation: str, **given: Any) -> Outcome:
        """See `Door.call`."""
        outcome = await getattr(self, f"_{operation}")(**given)
        shown = Outcome(
            masked(outcome.value, self.names), outcome.code, masked(outcome.detail, self.names), outcome.fields, outcome.retry
        )
        self.log.append((operation, shown))
        return outcome

    async def _do(self, method: str, path: str, body: Any = None, key: str = "", **query: Any) -> Outcome:
        asked = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items() if value}
        headers = {"Idempotency-Key": key} if key else {}
        answer = await self.gateway.call(method, path + (f"?{urlencode(asked)}" if asked else ""), body, **headers)
        if answer.status >= 400:
            return problem(answer.body, "Retry-After" in answer.headers, str(answer.status))
        return Outcome(answer.body)

    def _session(self, session: tuple[str, str, str], more: str = "") -> str:
        ns, agent, name = map(quote, session)
        return f"/v1/ns/{ns}/agents/{agent}/sessions/{name}{more}"

    async def _create_session(self, ns: str, agent: str, key: str = "", **fields: Any) -> Outcome:
        return await self._do("POST", f"/v1/ns/{ns}/agents/{agent}/sessions", fields, key)

    async def _get_session(self, session: tuple[str, str, str]) -> Outcome:
        return await self._do("GET", self._session(session))

    async def _list_sessions(self, ns: str, agent: str, **query: Any) -> Outcome:
        return await self._do("GET", f"/v1/ns/{ns}/agents/{agent}/sessions", **query)

    async def _send(self, session: tuple[str, str, str], key: str = "", create: bool = False, **body: Any) -> Outcome:
        return await self._do("POST", self._session(session, "/message"), body, key, create=create)

    async def _cancel(self, session: tuple[str, str, str], turn: str, key: str = "") -> Outcome:
        outcome = await self._do("POST", self._session(session, f"/turns/{turn}/cancel"), None, key)
        if outcome.value:
            outcome.value.update(outcome.value.pop("usage"))
        return outcome

    async def _state(self, session: tuple[str, str, str]) -> Outcome:
        return await self._do("GET", self._session(session, "/state"))

    async def _get_approval(self, ns: str, id: str) -> Outcome:
        return await self._do("GET", f"/v1/ns/{ns}/approvals/{id}")

    async def _list_approvals(self, ns: str, **query: Any) -> Outcome:
        return await self._do("GET", f"/v1/ns/{ns}/approvals", **query)

    async def _resolve(self, ns: str, id: str, key: str = "", **body: Any) -> Outcome:
        return await self._do("POST", f"/v1/ns/{ns}/approvals/{id}", body, key)

    def _resources(self, kind: str, ns: str) -> str:
        return BY_KIND[kind].path.replace("{ns}", quote(ns))

    async def _create(self, kind: str, manifest: Any, ns: str = "") -> Outcome:
        return await self._do("POST", self._resources(kind, ns), manifest)

    async def _get(self, kind: str, name: str, ns: str = "", effective: bool = False) -> Outcome:
        return await self._do("GET", f"{self._resources(kind, ns)}/{quote(name)}", effective=effective)

    async def _list(self, kind: str, ns: str = "", **query: Any) -> Outcome:
        return await self._do("GET", self._resources(kind, ns), **query)

    async def _apply(self, text: str, **query: Any) -> Outcome:
        asked = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
        path = "/v1/apply" + (f"?{urlencode(asked)}" if asked else "")
        answer = await self.gateway.call("POST", path, data=text.encode(), Content_Type="application/yaml")
        if answer.status >= 400:
            return problem(answer.body, "Retry-After" in answer.headers, str(answer.status))
        return Outcome(answer.body)

    async def _delete(self, kind: str, name: str, ns: str = "", cascade: bool = False, version: str = "") -> Outcome:
        query = "?cascade=true" if cascade else ""
        headers = {"If-Match": f'"{version}"'} if version else {}
        answer = await self.gateway.call("DELETE", f"{self._resources(kind, ns)}/{quote(name)}{query}", **headers)
        if answer.status >= 400:
            return problem(answer.body, "Retry-After" in answer.headers, str(answer.status))
        return Outcome({"gone": answer.status == 204})

    async def _pause(self, schedule: tuple[str, str]) -> Outcome:
        return await self._do("POST", self._schedule(schedule, "pause"))

    async def _resume(self, schedule: tuple[str, str]) -> Outcome:
        return await self._do("POST", self._schedule(schedule, "resume"))

    async def _trigger(self, schedule: tuple[str, str], key: str = "") -> Outcome:
        return await self._do("POST", self._schedule(schedule, "trigger"), None, key)

    async def _next(self, schedule: tuple[str, str], **query: Any) -> Outcome:
        return await self._do("GET", self._schedule(schedule, "next"), **query)

    async def _history(self, schedule: tuple[str, str], **query: Any) -> Outcome:
        return await self._do("GET", self._schedule(schedule, "history"), **query)

    def _schedule(self, schedule: tuple[str, str], more: str) -> str:
        ns, name = map(quote, schedule)
        return f"/v1/ns/{ns}/schedules/{name}/{more}"

    async def _list_models(self, **query: Any) -> Outcome:
        return await self._do("GET", "/v1/models", **query)

    async def _tiers(self) -> Outcome:
        return await self._do("GET", "/v1/models/tiers")

    async def _select(self, **task: Any) -> Outcome:
        return await self._do("POST", "/v1/models/select", task)

    async def _estimate(self, **task: Any) -> Outcome:
        return await self._do("POST", "/v1/models/estimate", task)

    async def _explain(self, ns: str, agent: str, **query: Any) -> Outcome:
        return await self._do("GET", f"/v1/ns/{ns}/agents/{agent}/models", **query)

    async def _stream(self, session: tuple[str, str, str], after: str = "", turn: str = "", count: int = 1_000) -> Outcome:
        query = {name: value for name, value in (("after", after), ("turn", turn)) if value}
        return await self._events(self._session(session, "/stream") + (f"?{urlencode(query)}" if query else ""), count)

    async def _watch(self, kind: str, ns: str = "", version: str = "", selector: str = "", count: int = 1_000) -> Outcome:
        query = {"watch": "true", "resource_version": version, "label_selector": selector}
        asked = urlencode({name: value for name, value in query.items() if value})
        return await self._events(f"{self._resources(kind, ns)}?{asked}", count)

    async def _events(self, path: str, count: int) -> Outcome:
        async with Stream(self.gateway, path, {}) as stream:
            response = stream.response
            assert response is not None
            if response.status >= 400:
                return problem(await response.json(content_type=None), "Retry-After" in response.headers, str(response.status))
            found: list[Any] = []
            while len(found) < count and (event := await stream.next(WAIT_S)) is not None:
                found.append({"cursor": event.id, **event.data})
        return Outcome(found)


def problem(body: Any, retry: bool, status: str) -> Outcome:
    """A problem document."""
    return Outcome(None, body["code"], body["detail"], frozenset(one["field"] for one in body["errors"]), retry, status)


def plain(message: Message) -> dict[str, Any]:
    """A message as the JSON that HTTP would show: times as text, `…_json` as what they hold, what is not there as ""."""
    shown: dict[str, Any] = {}
    for one in message.DESCRIPTOR.fields:
        value: Any = getattr(message, one.name)
        if one.is_repeated:
            shown[one.name] = [plain(inner) if isinstance(inner, Message) else inner for inner in value]
        elif isinstance(value, Timestamp):
            shown[one.name] = value.ToJsonString() if message.HasField(one.name) else ""
            if shown[one.name] and "." not in shown[one.name]:
                shown[one.name] = shown[one.name].replace("Z", ".000Z")
        elif one.has_presence and not message.HasField(one.name):
            shown[one.name] = ""
        elif isinstance(value, Message):
            shown[one.name] = plain(value)
        elif one.name.endswith("_json"):
            shown[one.name.removesuffix("_json")] = json.loads(value) if value else ""
        else:
            shown[one.name] = value
    return shown


@dataclass
class RpcDoor:
    """Through gRPC, by generated stubs."""

    client: Client
    log: list[tuple[str, Outcome]] = field(default_factory=list[tuple[str, Outcome]])
    names: dict[str, str] = field(default_factory=dict[str, str])

    async def call(self, operation: str, **given: Any) -> Outcome:
        """See `Door.call`."""
        try:
            outcome = Outcome(await getattr(self, f"_{operation}")(**given))
        except grpc.aio.AioRpcError as error:
            said = refusal_of(error)
            fields = frozenset(FIELDS.get(name, name) for name in said.fields)
            detail = said.detail
            for ours, theirs in FIELDS.items():
                detail = detail.replace(ours, theirs)
            outcome = Outcome(None, said.code, detail, fields, said.retry_s is not None, said.status)
        shown = Outcome(
            masked(outcome.value, self.names), outcome.code, masked(outcome.detail, self.names), outcome.fields, outcome.retry
        )
        self.log.append((operation, shown))
        return outcome

    async def _create_session(self, ns: str, agent: str, key: str = "", **fields: Any) -> Any:
        message = pb.CreateSessionRequest(
            namespace=ns,
            agent=agent,
            session_id=fields.get("id", ""),
            metadata_json=_json(fields.get("metadata")),
            features_json=_json(fields.get("features")),
            profile=fields.get("profile", ""),
            config=pb.SessionConfig(**{UNDER.sub(r"_\1", name).lower(): value for name, value in fields.get("config", {}).items()}),
            idempotency_key=key,
        )
        return _session(await self.client.sessions.Create(message))

    async def _get_session(self, session: tuple[str, str, str]) -> Any:
        return _session(await self.client.sessions.Get(_ref(session)))

    async def _list_sessions(self, ns: str, agent: str, **query: Any) -> Any:
        page = await self.client.sessions.List(pb.ListSessionsRequest(namespace=ns, agent=agent, **query))
        return {**plain(page), "items": [_session(one) for one in page.items]}

    async def _send(self, session: tuple[str, str, str], key: str = "", create: bool = False, **body: Any) -> Any:
        message = pb.SendRequest(
            session=_ref(session),
            content=body.get("content", ""),
            strategy=body.get("strategy", ""),
            metadata_json=_json(body.get("metadata")),
            idempotency_key=key,
            create=create,
        )
        shown = plain(await self.client.sessions.Send(message))
        del shown["replayed"]  # a header over HTTP
        return shown

    async def _cancel(self, session: tuple[str, str, str], turn: str, key: str = "") -> Any:
        shown = plain(await self.client.sessions.Cancel(pb.CancelRequest(session=_ref(session), turn_id=turn, idempotency_key=key)))
        shown["loop"] = _camel(shown["loop"])
        return shown

    async def _state(self, session: tuple[str, str, str]) -> Any:
        state = await self.client.sessions.State(_ref(session))
        return _camel(plain(state.turn.loop if state.HasField("turn") else pb.LoopState(phase="planning", max_iterations=10)))

    async def _get_approval(self, ns: str, id: str) -> Any:
        return plain(await self.client.approvals.Get(pb.ApprovalRef(namespace=ns, id=id)))

    async def _list_approvals(self, ns: str, **query: Any) -> Any:
        return plain(await self.client.approvals.List(pb.ListApprovalsRequest(namespace=ns, **query)))

    async def _resolve(self, ns: str, id: str, key: str = "", **body: Any) -> Any:
        return plain(await self.client.approvals.Resolve(pb.ResolveRequest(namespace=ns, id=id, idempotency_key=key, **body)))

    async def _create(self, kind: str, manifest: Any, ns: str = "") -> Any:
        if kind == "Namespace" and set(manifest) == {"metadata"} and set(manifest["metadata"]) <= {"name", "labels", "annotations"}:
            return self._shown(await self.client.namespaces.Create(pb.CreateNamespaceRequest(**manifest["metadata"])))
        message = pb.WriteResourceRequest(namespace=ns, kind=kind, manifest_json=json.dumps(manifest))
        return self._shown(await self.client.resources.Create(message))

    async def _get(self, kind: str, name: str, ns: str = "", effective: bool = False) -> Any:
        if kind == "Namespace":
            return self._shown(await self.client.namespaces.Get(pb.GetNamespaceRequest(name=name)))
        message = pb.GetResourceRequest(namespace=ns, kind=kind, name=name, effective=effective)
        return self._shown(await self.client.resources.Get(message))

    async def _list(self, kind: str, ns: str = "", **query: Any) -> Any:
        if kind == "Namespace":
            page = await self.client.namespaces.List(pb.ListNamespacesRequest(**query))
        else:
            page = await self.client.resources.List(pb.ListResourcesRequest(namespace=ns, kind=kind, **query))
        shown = plain(page)
        shown["items"] = [self._shown(one) for one in page.items]
        return shown

    async def _apply(self, text: str, **query: Any) -> Any:
        shown = plain(await self.client.resources.Apply(pb.ApplyRequest(manifests=text, **query)))
        for item in shown["items"]:
            item["changes"] = [{key: value for key, value in change.items() if value != ""} for change in item["changes"]]
        return shown

    async def _delete(self, kind: str, name: str, ns: str = "", cascade: bool = False, version: str = "") -> Any:
        if kind == "Namespace" and not version:
            return plain(await self.client.namespaces.Delete(pb.DeleteNamespaceRequest(name=name, cascade=cascade)))
        message = pb.DeleteResourceRequest(namespace=ns, kind=kind, name=name, cascade=cascade, if_resource_version=version)
        return plain(await self.client.resources.Delete(message))

    async def _pause(self, schedule: tuple[str, str]) -> Any:
        return self._shown(await self.client.schedules.Pause(_schedule(schedule)))

    async def _resume(self, schedule: tuple[str, str]) -> Any:
        return self._shown(await self.client.schedules.Resume(_schedule(schedule)))

    async def _trigger(self, schedule: tuple[str, str], key: str = "") -> Any:
        message = pb.TriggerRequest(schedule=_schedule(schedule), idempotency_key=key)
        shown = plain(await self.client.schedules.Trigger(message))
        del shown["replayed"]  # a header over HTTP
        return shown

    async def _next(self, schedule: tuple[str, str], **query: Any) -> Any:
        page = await self.client.schedules.Next(pb.NextTimesRequest(schedule=_schedule(schedule), **query))
        return {**plain(page), "next_cursor": ""}

    async def _history(self, schedule: tuple[str, str], **query: Any) -> Any:
        return plain(await self.client.schedules.History(pb.HistoryRequest(schedule=_schedule(schedule), **query)))

    async def _list_models(self, **query: Any) -> Any:
        page = await self.client.models.List(pb.ListModelsRequest(**query))
        return {"items": [_camel(plain(one)) for one in page.items], "next_cursor": page.next_cursor}

    async def _tiers(self) -> Any:
        return _camel(plain(await self.client.models.Tiers(pb.ModelTiersRequest())))

    async def _select(self, **task: Any) -> Any:
        return _camel(plain(await self.client.models.Select(_task(task))))

    async def _estimate(self, model: str = "", **task: Any) -> Any:
        return _camel(plain(await self.client.models.Estimate(pb.EstimateRequest(task=_task(task), model=model))))

    async def _explain(self, ns: str, agent: str, session: str = "", data_tier: int = 0) -> Any:
        message = pb.ExplainModelsRequest(namespace=ns, agent=agent, session_id=session, data_tier=data_tier)
        return _camel(plain(await self.client.models.Explain(message)))

    async def _stream(self, session: tuple[str, str, str], after: str = "", turn: str = "", count: int = 1_000) -> Any:
        events = self.client.sessions.Stream(pb.StreamRequest(session=_ref(session), after=after, turn_id=turn))
        return await self._events(events, count, lambda event: plain(event))

    async def _watch(self, kind: str, ns: str = "", version: str = "", selector: str = "", count: int = 1_000) -> Any:
        wanted = pb.WatchRequest(namespace=ns, kind=kind, resource_version=version, label_selector=selector)

        def shown(event: pb.WatchEvent) -> dict[str, Any]:
            place = {"metadata": {"resourceVersion": event.resource_version}}
            shown = self._shown(event.object) if event.HasField("object") else place
            return {"cursor": event.resource_version, "type": event.type, "object": shown}

        return await self._events(self.client.resources.Watch(wanted), count, shown)

    async def _events(self, events: Any, count: int, shown: Callable[[Any], dict[str, Any]]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        try:
            while len(found) < count:
                async with asyncio.timeout(WAIT_S):
                    event = await events.read()
                if event is grpc.aio.EOF:
                    break
                found.append(shown(event))
        finally:
            events.cancel()
        return found

    def _shown(self, resource: pb.Resource) -> Any:
        """The manifest; the other fields must say the same."""
        manifest = json.loads(resource.manifest_json)
        metadata = manifest["metadata"]
        assert (resource.kind, resource.namespace, resource.name, resource.uid, resource.resource_version) == (
            manifest["kind"],
            metadata.get("namespace", ""),
            metadata["name"],
            metadata["uid"],
            metadata["resourceVersion"],
        )
        return manifest


def _ref(session: tuple[str, str, str]) -> pb.SessionRef:
    namespace, agent, name = session
    return ref(name, agent, namespace)


def _schedule(schedule: tuple[str, str]) -> pb.ScheduleRef:
    return pb.ScheduleRef(namespace=schedule[0], name=schedule[1])


def _task(task: dict[str, Any]) -> pb.TaskContext:
    given = dict(task)
    return pb.TaskContext(input_tokens=given.pop("inputTokens", 0), **given)


def _json(value: Any) -> str:
    return "" if value is None else json.dumps(value)


def _session(message: pb.Session) -> dict[str, Any]:
    """With the config in the documents' spelling, and only what is in it."""
    config = {name: value for name, value in plain(message.config).items() if value != ""}
    return {**plain(message), "config": _camel(config)}


def _camel(shown: Any) -> Any:
    """In the documents' spelling."""
    if isinstance(shown, list):
        return [_camel(inner) for inner in cast(list[Any], shown)]
    if not isinstance(shown, dict):
        return shown
    inside = cast(dict[str, Any], shown)
    return {re.sub(r"_(\w)", lambda match: match[1].upper(), name): _camel(value) for name, value in inside.items()}


Case = Callable[[Door, Booted], Awaitable[None]]
