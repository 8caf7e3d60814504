"""Every setting of the program: name, meaning, default, bounds. Read once, then frozen.

`talon.yaml` < environment < flags. A setting has one name, and three spellings that are derived from it by rule
(`talon.cli.leaves`): `worker.drain_timeout_s`, `TALON_WORKER_DRAIN_TIMEOUT_S`, `--worker-drain-timeout-s`.
`extra` of a field: `inactive` marks what this version stores but does not act on, `expects` says in words what fits.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from talon.domain.ids import is_name
from talon.providers.kinds import KINDS, ProviderKind

INACTIVE: dict[str, Any] = {"inactive": True}


def _worker_name(value: str) -> str:
    if value and not is_name(value):
        raise ValueError("not a name")
    return value


def _host_entry(value: str) -> str:
    host, colon, port = value.rpartition(":") if value.count(":") == 1 else (value, "", "")
    if not host or "/" in value or any(c.isspace() for c in value) or (colon and not (port.isdigit() and 0 < int(port) < 65536)):
        raise ValueError("not a host")
    return value.lower()


def _host_name(value: str) -> str:
    if not value or any(c in "/:" or c.isspace() for c in value):
        raise ValueError("not a host name")
    return value.lower()


def _http_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", value):
        raise ValueError("not a URL")
    return value.rstrip("/")


HostName = Annotated[str, AfterValidator(_host_name)]
HostEntry = Annotated[str, AfterValidator(_host_entry)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
HOSTS: dict[str, Any] = {"expects": "a list of hosts, each `host` or `host:port`"}
URL: dict[str, Any] = {"expects": "a URL that begins with http:// or https://"}


class Group(BaseModel):
    """Base of all groups: frozen, no unknown fields, no infinite numbers, and no value in pydantic's own messages."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class Jwt(Group):
    """Tokens that somebody else signs."""

    algorithm: Literal["HS256", "RS256", "ES256", "EdDSA"] | None = Field(
        default=None, description="the one signature that counts; HS256 needs a secret, the others public keys"
    )
    secret: SecretStr | None = Field(
        default=None,
        description="secret of HS256, of 32 bytes or more; best in the environment",
        json_schema_extra={"expects": "a text of 32 bytes or more"},
    )
    key_file: Path | None = Field(default=None, description="PEM file with the public key (or certificate) of whoever signs")
    jwks_url: HttpUrl | None = Field(
        default=None,
        description="where the keys of whoever signs are published (JWKS); read again as they change",
        json_schema_extra=URL,
    )
    issuer: str = Field(default="", description="what a token's `iss` must be")
    audience: str = Field(default="", description="what a token's `aud` must be or contain")
    skew_s: float = Field(default=30.0, ge=0, le=300, description="seconds that clocks may differ")
    grants_claim: str = Field(
        default="talon_grants", description="the claim with the grants: ROLE@NAMESPACE, a list or a text with spaces"
    )


class Oidc(Group):
    """Browsers that log in with an identity provider (OpenID Connect)."""

    issuer: HttpUrl | None = Field(
        default=None, description="the identity provider; its /.well-known/openid-configuration is read", json_schema_extra=URL
    )
    client_id: str = Field(default="", description="the name that this server has there; its callback is ORIGIN/v1/auth/callback")
    client_secret: SecretStr | None = Field(default=None, description="its secret there, if it has one (PKCE is always used)")
    algorithm: Literal["RS256", "ES256", "EdDSA"] = Field(default="RS256", description="the one signature of ID tokens that counts")
    scopes: tuple[str, ...] = Field(default=("openid", "profile"), description="what is asked for; `openid` always is")
    grants_claim: str = Field(default="talon_grants", description="the ID token's claim with the grants, as in gateway.auth.jwt")


class Auth(Group):
    """Who may come in."""

    mode: tuple[Literal["none", "api_key", "jwt", "oidc"], ...] = Field(
        default=("none",),
        description="how callers are recognised, each way that is listed; none: nobody is asked, on loopback only",
        json_schema_extra={"expects": "none, or a list of api_key, jwt and oidc"},
    )
    bootstrap_key: SecretStr | None = Field(
        default=None,
        description="the first admin key, talon_ID_SECRET; best in the environment (default: one is made when there is none, and "
        "written to admin.key in the data directory)",
        json_schema_extra={"expects": "talon_ID_SECRET: an id of 4 to 32 of a-z and 0-9, a secret of 32 to 128 of A-Z a-z 0-9 _ -"},
    )
    row_level_security: Literal["auto", "required", "off"] = Field(
        default="auto",
        description="whether PostgreSQL too holds callers back from what they may not see: where it can, not without it, or not",
    )
    session_max_s: int = Field(default=28_800, ge=60, le=2_592_000, description="seconds after which a browser must log in again")
    jwt: Jwt = Jwt()
    oidc: Oidc = Oidc()


class Tls(Group):
    """Encrypted connections."""

    cert: Path | None = Field(default=None, description="PEM file with the server's certificate and those between it and the root")
    key: Path | None = Field(default=None, description="PEM file with its private key; both are read again when they change")
    client_ca: Path | None = Field(
        default=None, description="PEM file with the authorities whose certificates clients must show (default: none is asked for)"
    )


class Gateway(Group):
    """The servers: HTTP and gRPC."""

    host: str = Field(default="127.0.0.1", description="address to listen on; any but loopback needs gateway.auth.mode")
    port: int = Field(
        default=19789, ge=0, le=65535, description="HTTP port; 0 picks a free one and prints it (of `talon worker`: 19790)"
    )
    grpc: bool = Field(default=True, description="serve gRPC too")
    grpc_host: str = Field(
        default="", description="address to listen on for gRPC (default: gateway.host); any but loopback needs gateway.auth.mode"
    )
    grpc_port: int = Field(
        default=50051,
        ge=0,
        le=65535,
        description="gRPC port; 0 picks a free one and prints it (as does gateway.port 0, where this is not given)",
    )
    allow_hosts: tuple[HostName, ...] = Field(
        default=(),
        description="further names in Host headers to answer, beside loopback names",
        json_schema_extra={"expects": "a list of host names without a port"},
    )
    allow_origins: tuple[HttpUrl, ...] = Field(
        default=(),
        description="further browser origins that may call, beside the server's own",
        json_schema_extra={"expects": "a list of origins, each `http(s)://host[:port]`"},
    )
    message_max_bytes: int = Field(default=1_048_576, ge=1, le=67_108_864, description="longest message content, in UTF-8 bytes")
    image_max_bytes: int = Field(
        default=3_932_160, ge=1, le=67_108_864, description="largest image of a message, in bytes before base64"
    )
    message_images_max: int = Field(default=8, ge=0, le=64, description="most images of one message; 0: messages have none")
    body_max_bytes: int = Field(default=8_388_608, ge=1024, le=268_435_456, description="longest request body, in bytes")
    metadata_max_bytes: int = Field(
        default=65_536, ge=2, le=16_777_216, description="longest metadata of a message or session, in bytes"
    )
    headers_max_bytes: int = Field(
        default=65_536, ge=8192, le=1_048_576, description="longest request headers with the URL, in bytes"
    )
    page_max: int = Field(default=500, ge=50, le=1000, description="most items of one page of a list")
    connections_max: int = Field(default=20_000, ge=1, description="connections at once; more are closed at the door")
    streams_max: int = Field(default=16_384, ge=1, description="open streams at once; more are refused with too_many_streams")
    principal_streams_max: int = Field(
        default=4096, ge=1, description="open streams of one principal at once; more are refused with too_many_streams"
    )
    principal_requests_per_s: float = Field(
        default=1000.0,
        ge=0,
        description="requests a second of one principal to one gateway, on average; more: too_many_requests; 0: no limit",
    )
    principal_requests_burst: int = Field(
        default=2000, ge=1, description="requests of one principal that may come at once after a pause"
    )
    access_lines: Literal["none", "stderr", "file"] = Field(
        default="none",
        description="where the access log also goes as JSON lines; file: access.jsonl in the data directory",
    )
    stream_buffer_bytes: int = Field(
        default=1_048_576, ge=65_536, description="unsent bytes at which a slow stream reader is cut off"
    )
    heartbeat_s: float = Field(default=15.0, ge=0.1, le=300, description="seconds between heartbeats on an idle stream")
    auth: Auth = Auth()
    tls: Tls = Tls()


class Worker(Group):
    """Running turns."""

    name: Annotated[str, AfterValidator(_worker_name)] = Field(
        default="",
        description="this worker's name: at a restart under it, it takes its sessions back at once (empty: host and port)",
        json_schema_extra={"expects": "a name of a-z, 0-9 and -, at most 63 characters, that differs between workers"},
    )
    concurrency: int = Field(
        default=10_000, ge=1, le=100_000, description="turns that run at once; one that waits for its model takes some 60 kB"
    )
    lease_ttl_s: float = Field(
        default=10.0, ge=3, le=600, description="seconds without a heartbeat after which others take its sessions"
    )
    drain_timeout_s: float = Field(default=30.0, ge=0, le=3600, description="seconds for running steps to finish after SIGTERM")
    cancel_grace_s: float = Field(default=5.0, ge=0, le=600, description="seconds that tools get to stop when a turn is cancelled")
    sweep_s: float = Field(default=1.0, ge=0.05, le=60, description="seconds between looks for work that no broker announced")
    attempts_max: int = Field(default=5, ge=1, le=1000, description="attempts without progress after which a turn fails")
    namespace_turns_max: int = Field(
        default=0, ge=0, description="turns of one namespace that run at once over all workers; 0: no limit"
    )
    agent_turns_max: int = Field(default=0, ge=0, description="turns of one agent that run at once over all workers; 0: no limit")
    pull_mode: bool = Field(default=False, description="pull work from the broker", json_schema_extra=INACTIVE)
    mcp_routes: tuple[str, ...] = Field(default=(), description="MCP routes on the worker's own port", json_schema_extra=INACTIVE)


class DatabaseGroup(Group):
    """Where the journal is kept."""

    driver: Literal["sqlite", "postgres"] | None = Field(
        default=None, description="kind of database (default: from the URL, else sqlite)"
    )
    url: SecretStr | None = Field(
        default=None,
        description="postgresql://USER:PASSWORD@HOST/NAME or sqlite:///PATH (default: SQLite in the data directory)",
        json_schema_extra={"expects": "postgresql://… or sqlite:///PATH"},
    )


class MessageBroker(Group):
    """What rings the bell for workers. Correctness does not hang on it."""

    driver: Literal["local", "postgres", "nats", "gcp_pubsub"] | None = Field(
        default=None,
        description="local (one process) or postgres (LISTEN/NOTIFY) (default: as the database)",
        json_schema_extra={"inactive_values": ["nats", "gcp_pubsub"]},
    )


class CloudTasks(Group):
    """Google Cloud Tasks as a second clock of schedules."""

    project: str = Field(default="", description="the project of the queue")
    location: str = Field(default="", description="the location of the queue, as europe-west3")
    queue: str = Field(default="", description="the queue; it must exist")
    callback_url: HttpUrl | None = Field(
        default=None,
        description="where Cloud Tasks reaches the worker's own port; it calls /v1/callbacks/schedules below that",
        json_schema_extra=URL,
    )
    service_account: str = Field(
        default="", description="the service account whose OIDC token Cloud Tasks shows when it calls; other accounts' are refused"
    )
    audience: str = Field(default="", description="what that token's `aud` is (default: the URL that is called)")
    issuer: str = Field(default="https://accounts.google.com", description="what that token's `iss` must be")
    jwks_url: HttpUrl = Field(
        default="https://www.googleapis.com/oauth2/v3/certs",
        description="where the keys that sign it (RS256) are published",
        json_schema_extra=URL,
    )
    secret: SecretStr | None = Field(
        default=None,
        description="instead of a service account: what Talon signs a token for each task with, the same for all processes; "
        "best in the environment",
        json_schema_extra={"expects": "a text of 32 bytes or more"},
    )
    endpoint: HttpUrl | None = Field(
        default=None,
        description="where Cloud Tasks is (default: Google's own); http:// for an emulator on this machine",
        json_schema_extra=URL,
    )
    late_s: float = Field(
        default=10.0, ge=1, le=45, description="seconds after which the database fires an occurrence that no call came for"
    )
    port: int = Field(
        default=19790,
        ge=0,
        le=65535,
        description="of `talon up`: the port that calls come to, at gateway.host; 0 picks a free one and prints it (`talon worker` "
        "and `talon scheduler` have them on their own port)",
    )


class Scheduler(Group):
    """What keeps timers."""

    backend: Literal["local", "cloud_tasks"] = Field(
        default="local",
        description="what keeps the time of schedules: the database alone, or Google Cloud Tasks before it (needs the extra "
        "`google`, and a queue)",
    )
    in_workers: bool = Field(
        default=True, description="`talon worker` fires schedules too; false leaves that to `talon scheduler` and `talon up`"
    )
    hold_s: float = Field(
        default=10.0, ge=1, le=60, description="seconds after which others fire what a scheduler took and did not fire"
    )
    cloud_tasks: CloudTasks = CloudTasks()


class ControlPlane(Group):
    """State and delivery."""

    database: DatabaseGroup = DatabaseGroup()
    message_broker: MessageBroker = MessageBroker()
    scheduler: Scheduler = Scheduler()


class Session(Group):
    """Bounds of one session."""

    queue_max: int = Field(
        default=100, ge=1, le=100_000, description="queued turns of one session; more are refused with queue_full"
    )


class Secrets(Group):
    """The keys that secrets are encrypted with."""

    key: SecretStr | None = Field(
        default=None,
        description="keys, the newest first: base64 of 32 random bytes each; best in the environment, the same for all processes",
        json_schema_extra={"expects": "base64 of 32 random bytes; several are separated by commas, the newest first"},
    )
    key_file: Path | None = Field(
        default=None,
        description="file with the keys, readable by its owner only (default on SQLite: secrets.key in the data directory, made "
        "when it is first needed; on PostgreSQL: none)",
    )


class Context(Group):
    """How much of a session's past a model call is built from."""

    entries_max: int = Field(default=80, ge=10, le=100_000, description="newest journal entries that are read for a model call")
    chars_max: int = Field(default=16_000, ge=1000, le=100_000_000, description="characters of earlier turns in a model call")
    tool_result_chars_max: int = Field(
        default=2000, ge=100, le=100_000_000, description="characters of a tool's result in a model call, once it is not the newest"
    )
    images_max: int = Field(default=8, ge=0, le=100, description="images in a model call: the newest of the conversation")
    images_max_bytes: int = Field(
        default=12_582_912, ge=0, le=268_435_456, description="bytes of all images in a model call, before base64"
    )


class Provider(Group):
    """One model endpoint, by the name that `modelPolicy` refers to."""

    kind: ProviderKind | None = Field(
        default=None,
        description="; ".join(f"{name}: {kind.about}" for name, kind in KINDS.items())
        + "; scripted: answers from a file, for demos and tests (default: what the provider's name says)",
    )
    base_url: HttpUrl | None = Field(
        default=None, description="where the API begins (default: the vendor's own address)", json_schema_extra=URL
    )
    api_key: SecretStr | None = Field(
        default=None,
        description="the vendor's key, or secret:NAMESPACE/NAME: the value of that secret; of kind bedrock: a Bedrock API key or "
        "ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN] (default: none; bedrock: what AWS's own search finds); never shown",
    )
    region: str | None = Field(
        default=None, description="of kind bedrock: the AWS region (default: of its base_url, else AWS_REGION)"
    )
    script: Path | None = Field(default=None, description="file with the answers of a scripted provider")
    connect_timeout_s: float = Field(default=10.0, gt=0, le=600, description="seconds to connect")
    first_token_timeout_s: float = Field(default=60.0, gt=0, le=3600, description="seconds to the first piece of an answer")
    idle_timeout_s: float = Field(default=60.0, gt=0, le=3600, description="seconds between two pieces of an answer")
    total_timeout_s: float = Field(default=600.0, gt=0, le=86_400, description="seconds for a whole answer")
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = Field(
        default=None,
        description="of kinds openai and openrouter: the server's name for the output limit (default: chosen by the host)",
    )
    answer_max: int = Field(
        default=10_000_000, ge=1, le=1_000_000_000, description="characters of an answer: text, reasoning and arguments together"
    )
    tool_calls_max: int = Field(default=128, ge=1, le=10_000, description="tool calls of one answer")
    requests_per_minute: int = Field(
        default=0,
        ge=0,
        le=10_000_000,
        description="calls of all workers together; more wait in a queue that is fair by namespace; 0: no limit",
    )
    tokens_per_minute: int = Field(
        default=0, ge=0, le=100_000_000_000, description="tokens, in and out, of all workers together; 0: no limit"
    )
    line_max: int = Field(default=1_048_576, ge=1024, le=1_000_000_000, description="bytes of one event of an answer's stream")


class ModelsGroup(Group):
    """What is known of models."""

    catalogue: Path | None = Field(
        default=None, description="file with models' tiers, windows and prices, over those that are built in"
    )


class HttpRequest(Group):
    """The built-in tool `http_request`."""

    allow_hosts: tuple[HostEntry, ...] = Field(
        default=(), description="private or loopback hosts that it may call all the same", json_schema_extra=HOSTS
    )
    idempotent_hosts: tuple[HostEntry, ...] = Field(
        default=(), description="hosts that honour Idempotency-Key: calls to them may be repeated", json_schema_extra=HOSTS
    )
    timeout_s: float = Field(default=30.0, gt=0, le=3600, description="seconds for one request")


class Tools(Group):
    """Tools of agents."""

    modules: tuple[str, ...] = Field(
        default=(),
        description="Python modules with @tool functions",
        json_schema_extra={"expects": "a list of Python modules, each `package.module`"},
    )
    path: tuple[Path, ...] = Field(default=(), description="directories to import them from (default: that of talon.yaml)")
    http_request: HttpRequest = HttpRequest()


class Observe(Group):
    """Logs and traces."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least severe log line to write")
    log_format: Literal["auto", "text", "json"] = Field(default="auto", description="auto: text on a terminal, else json")
    exporter: Literal["none", "console", "otlp"] = Field(default="none", description="where spans go; otlp needs the extra `otel`")
    otlp_endpoint: HttpUrl = Field(default="http://127.0.0.1:4318", description="OTLP/HTTP endpoint", json_schema_extra=URL)


class Settings(Group):
    """All of it."""

    data_dir: Path = Field(default=Path("talon-data"), description="directory of the embedded database")
    apply: tuple[Path, ...] = Field(
        default=(), description="manifests (files or directories) that `talon up` applies when it starts"
    )
    gateway: Gateway = Gateway()
    worker: Worker = Field(default_factory=Worker)
    control_plane: ControlPlane = ControlPlane()
    session: Session = Session()
    secrets: Secrets = Secrets()
    context: Context = Context()
    providers: dict[str, Provider] = Field(default={}, description="model endpoints by name")
    models: ModelsGroup = ModelsGroup()
    tools: Tools = Tools()
    observe: Observe = Observe()
