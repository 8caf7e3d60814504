"""Settings: one name, three spellings, and what is said when something is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin

import pytest
import yaml
from pydantic import SecretStr

from talon.cli import leaves
from talon.cli.errors import WrongUse
from talon.cli.leaves import Leaf
from talon.cli.load import (
    NOT_ACTIVE,
    Loaded,
    PostgresAt,
    SqliteAt,
    broker_of,
    database_of,
    describe,
    grpc_port_of,
    load,
    port_of,
    secret_of,
)
from talon.cli.scheduler_settings import is_active
from talon.cli.settings import Settings

SEED = """
gateway:
  grpcAddr: 0.0.0.0:50051

control_plane:
  database:
    driver: postgres
  message_broker:
    driver: gcp_pubsub
  scheduler:
    backend: cloud_tasks

worker:
  pullMode: true
  mcpRoutes:
    - /mcp/talon-ops
"""


def read(tmp_path: Path, text: str = "", env: dict[str, str] | None = None, **flags: str) -> Loaded:
    """Load `text` as talon.yaml in `tmp_path`; keyword `a__b` is the flag of the setting `a.b`."""
    if text:
        (tmp_path / "talon.yaml").write_text(text)
    return load({path.replace("__", "."): value for path, value in flags.items()}, environ=env or {}, cwd=tmp_path)


def mistakes(tmp_path: Path, text: str = "", env: dict[str, str] | None = None, **flags: str) -> tuple[str, ...]:
    with pytest.raises(WrongUse) as caught:
        read(tmp_path, text, env, **flags)
    return caught.value.lines


FIRST = f"talon_admin_{'s' * 40}"
KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
#: Valid values that no test of the rules below can guess: (in the file, as text, as it is read).
SPECIAL: dict[str, tuple[Any, str]] = {
    "gateway.host": ("::1", "::1"),
    "gateway.grpc_host": ("::1", "::1"),
    "worker.name": ("w-7", "w-7"),
    "control_plane.database.url": ("sqlite:///x.db", "sqlite:///x.db"),
    "control_plane.message_broker.driver": ("local", "local"),
    "gateway.allow_origins": (["https://a.example"], "https://a.example"),
    "secrets.key": (KEY, KEY),
    "gateway.auth.mode": (["api_key"], "api_key"),
    "gateway.auth.bootstrap_key": (FIRST, FIRST),
    "gateway.auth.jwt.secret": (KEY, KEY),
    "gateway.auth.oidc.issuer": ("https://idp.example", "https://idp.example"),
}
#: What else must be given with it.
WITH = {
    "gateway.tls.cert": {"gateway.tls.key": "key.pem"},
    "gateway.tls.key": {"gateway.tls.cert": "cert.pem"},
    "gateway.tls.client_ca": {"gateway.tls.cert": "cert.pem", "gateway.tls.key": "key.pem"},
}


def sample(leaf: Leaf) -> tuple[Any, str]:
    """A valid value other than the default: (as YAML has it, as text has it)."""
    if leaf.path in SPECIAL:
        return SPECIAL[leaf.path]
    if get_origin(leaf.type) is Literal:
        value = next(v for v in get_args(leaf.type) if v != leaf.info.default)
        return value, value
    if leaf.type is bool:
        return (not leaf.info.default), str(not leaf.info.default).lower()
    if leaf.is_number:
        number = (leaf.info.default or 1) + 1
        return number, str(number)
    if leaf.is_list:
        return ["a.b", "c.d"], "a.b, c.d"
    if leaf.path.endswith("_url") or leaf.path.endswith("endpoint"):
        return "http://x.example/v1", "http://x.example/v1"
    return "some-text", "some-text"


def nested(path: str, value: Any) -> str:
    for part in reversed(path.split(".")):
        value = {part: value}
    return yaml.safe_dump(value)


def value_at(settings: Settings, path: str) -> Any:
    node: Any = settings
    for part in path.split("."):
        node = cast(dict[str, Any], node)[part] if isinstance(node, dict) else getattr(node, part)
    return node.get_secret_value() if isinstance(node, SecretStr) else node


@pytest.mark.parametrize("path", list(leaves.leaves()))
def test_every_setting_can_be_given_in_the_file_the_environment_and_by_a_flag(path: str, tmp_path: Path) -> None:
    leaf = leaves.leaves()[path]
    concrete = path.replace("*", "my-llm")
    in_file, text = sample(leaf)
    base = {"providers.my-llm.kind": "openai"} if "*" in path and not path.endswith("kind") else {}
    sets = tuple(f"{p}={v}" for p, v in (base | WITH.get(path, {})).items())
    if path == "providers.*.kind":
        in_file = text = "openai"
    if path == "providers.*.script":
        in_file = text = "s.yaml"

    def from_file() -> Loaded:
        (tmp_path / "c.yaml").write_text(nested(concrete, in_file))
        return load({}, sets, environ={}, config=tmp_path / "c.yaml", cwd=tmp_path)

    def from_env() -> Loaded:
        return load({}, sets, environ={leaf.env.replace("NAME", "MY_LLM") if "*" in path else leaf.env: text}, cwd=tmp_path)

    def from_flag() -> Loaded:
        if "*" in path:
            return load({}, (*sets, f"{concrete}={text}"), environ={}, cwd=tmp_path)
        return load({path: text}, sets, environ={}, cwd=tmp_path)

    seen = [value_at(loaded.settings, concrete) for loaded in (from_file(), from_env(), from_flag())]
    assert seen[0] == seen[1] == seen[2]
    if path != "providers.*.kind":
        assert seen[0] != leaf.info.get_default(call_default_factory=True, validated_data={})
    assert leaf.info.description, "every setting says what it means"


def test_no_two_settings_share_a_spelling() -> None:
    table = leaves.leaves().values()
    assert len({leaf.env for leaf in table}) == len(table)
    flags = [leaf.flag for leaf in table if leaf.flag] + [f for p, f in leaves.SHORT_FLAGS.items() if f != leaves.leaves()[p].flag]
    assert len(set(flags)) == len(flags)


def test_the_rule_of_the_names() -> None:
    leaf = leaves.leaves()["worker.drain_timeout_s"]
    assert (leaf.env, leaf.flag) == ("TALON_WORKER_DRAIN_TIMEOUT_S", "--worker-drain-timeout-s")
    assert leaves.from_env_name("TALON_PROVIDERS_MY_LLM_FIRST_TOKEN_TIMEOUT_S") == (
        "providers.my-llm.first_token_timeout_s",
        leaves.leaves()["providers.*.first_token_timeout_s"],
    )
    assert leaves.from_env_name("TALON_PROVIDERS_API_KEY") is None  # no name in it


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    text = "worker: {concurrency: 1, attempts_max: 1, sweep_s: 0.5}"
    env = {"TALON_WORKER_CONCURRENCY": "2", "TALON_WORKER_ATTEMPTS_MAX": "2"}
    loaded = read(tmp_path, text, env, worker__concurrency="3")
    worker = loaded.settings.worker
    assert (worker.concurrency, worker.attempts_max, worker.sweep_s) == (3, 2, 0.5)
    assert loaded.where["worker.concurrency"] == "flag --worker-concurrency"
    assert loaded.where["worker.attempts_max"] == "environment variable TALON_WORKER_ATTEMPTS_MAX"
    assert loaded.where["worker.sweep_s"].endswith("talon.yaml line 1")


def test_the_first_documents_talon_yaml_is_accepted_and_what_is_not_active_is_named(tmp_path: Path) -> None:
    loaded = read(tmp_path, SEED, {"DATABASE_URL": "postgresql://u:pw@db/talon", "TALON_GATEWAY_AUTH_MODE": "api_key"})
    assert (loaded.settings.gateway.grpc_host, grpc_port_of(loaded.settings)) == ("0.0.0.0", 50051)
    assert database_of(loaded.settings) == PostgresAt("postgresql://u:pw@db/talon")
    assert broker_of(loaded.settings) == "postgres"
    warned = {line.split(" = ")[0] for line in loaded.warnings if line.endswith(NOT_ACTIVE)}
    assert warned == {
        "control_plane.message_broker.driver",
        "worker.pull_mode",
        "worker.mcp_routes",
    }
    (told,) = [line for line in loaded.warnings if line.startswith("control_plane.scheduler.backend")]
    assert "names no queue, so the database alone keeps the time" in told
    assert not is_active(loaded.settings)


QUEUE = {"project": "p", "location": "europe-west3", "queue": "q"}
CALLED = {"callback_url": "https://w.example", "service_account": "a@p.example"}


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        ({**QUEUE, **CALLED}, ()),
        ({**QUEUE, "callback_url": "http://127.0.0.1:19790", "secret": KEY, "endpoint": "http://localhost:8123"}, ()),
        (
            {"late_s": 5},
            ("project: not given", "location: not given", "queue: not given", "callback_url: not given", "give a service"),
        ),
        ({**QUEUE, **CALLED, "queue": "a/b"}, ("queue: 'a/b' is none",)),
        ({**QUEUE, **CALLED, "callback_url": "http://w.example"}, ("callback_url: 'http://w.example' is not encrypted",)),
        ({**QUEUE, **CALLED, "jwks_url": "http://k.example"}, ("jwks_url: 'http://k.example' is not encrypted",)),
        ({**QUEUE, **CALLED, "endpoint": "http://t.example"}, ("endpoint: 'http://t.example' is not encrypted",)),
        ({**QUEUE, "callback_url": "https://w.example", "secret": "sekret"}, ("secret: the value (hidden) is shorter than 32",)),
    ],
)
def test_cloud_tasks_is_told_what_it_needs_or_the_program_does_not_start(
    given: dict[str, Any], lines: tuple[str, ...], tmp_path: Path
) -> None:
    scheduler = {"backend": "cloud_tasks", "cloud_tasks": given}
    text = yaml.safe_dump({"control_plane": {"scheduler": scheduler}})
    if not lines:
        assert is_active(read(tmp_path, text).settings)
        return
    found = mistakes(tmp_path, text)
    assert len(found) == len(lines)
    for line, expected in zip(found, lines, strict=True):
        assert line.startswith("control_plane.scheduler.cloud_tasks")
        assert expected in line
        assert "sekret" not in line


def test_what_is_said_of_cloud_tasks_and_not_used_is_a_warning(tmp_path: Path) -> None:
    loaded = read(tmp_path, yaml.safe_dump({"control_plane": {"scheduler": {"cloud_tasks": QUEUE}}}))
    (line,) = loaded.warnings
    assert "not used, control_plane.scheduler.backend is 'local'" in line
    assert not is_active(loaded.settings)


def test_a_vendor_without_its_key_is_a_warning_that_names_the_variable(tmp_path: Path) -> None:
    text = "providers: {openai: {}, mine: {kind: anthropic, api_key: ''}, ollama: {}, bedrock: {region: eu-central-1}, %s}"
    text %= "vllm: {kind: openai, base_url: 'http://127.0.0.1:8000/v1'}, gemini: {api_key: 'secret:default/gemini'}"
    said = [
        "providers.openai has no api_key, and api.openai.com answers nobody without one: set OPENAI_API_KEY",
        "providers.mine has no api_key, and api.anthropic.com answers nobody without one: set TALON_PROVIDERS_MINE_API_KEY",
    ]
    assert list(read(tmp_path, text).warnings) == said
    env = {"OPENAI_API_KEY": "sk-of-openai", "TALON_PROVIDERS_MINE_API_KEY": "sk-of-mine"}
    assert read(tmp_path, text, env).warnings == ()


def test_postgres_without_a_url_says_what_to_set(tmp_path: Path) -> None:
    line, open_door = mistakes(tmp_path, SEED)
    assert "DATABASE_URL=postgresql://" in line
    assert "talon.yaml line 7" in line
    assert "gateway.grpc_host: '0.0.0.0' can be reached from other machines" in open_door
    assert "gateway.auth.mode" in open_door
    assert "talon.yaml line 3" in open_door


@pytest.mark.parametrize("spelling", ["drain_timeout_s", "drainTimeoutS"])
def test_keys_of_the_file_may_be_camel_case(spelling: str, tmp_path: Path) -> None:
    assert read(tmp_path, f"worker: {{{spelling}: 7}}").settings.worker.drain_timeout_s == 7


def test_a_key_in_both_cases_is_a_mistake(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, "worker:\n  drain_timeout_s: 7\n  drainTimeoutS: 8\n")
    assert line.startswith("worker.drain_timeout_s: given twice")
    assert "line 3" in line


def test_unknown_keys_are_named_with_line_and_the_nearest_known_one(tmp_path: Path) -> None:
    lines = mistakes(tmp_path, "gatway: {}\nworker:\n  concurency: 3\nproviders:\n  x:\n    kind: openai\n    api_kee: sekret\n")
    assert "unknown key 'gatway'" in lines[0]
    assert "line 1" in lines[0]
    assert "'gateway'" in lines[0]
    assert "worker.concurency" in lines[1]
    assert "line 3" in lines[1]
    assert "'concurrency'" in lines[1]
    assert "'api_key'" in lines[2]
    assert "sekret" not in "".join(lines)


@pytest.mark.parametrize(
    ("text", "path", "shown", "expected"),
    [
        ("gateway: {port: 70000}", "gateway.port", "70000", "a whole number from 0 to 65535"),
        ("gateway: {port: http}", "gateway.port", "'http'", "a whole number"),
        ("worker: {concurrency: true}", "worker.concurrency", "True", "a whole number from 1 to 100000"),
        ("worker: {lease_ttl_s: .inf}", "worker.lease_ttl_s", "'.inf'", "a number from 3 to 600"),
        ("observe: {log_level: loud}", "observe.log_level", "'loud'", "one of debug | info | warning | error"),
        ("providers: {openai: {idle_timeout_s: 0}}", "providers.openai.idle_timeout_s", "0", "a number above 0 to 3600"),
        ("providers: {openai: {base_url: 'ftp://u:pw@x'}}", "providers.openai.base_url", "'ftp://…@x'", "http"),
        ("tools: {modules: toolbox}", "tools.modules", "'toolbox'", "a list of Python modules"),
        ("tools: {http_request: {allow_hosts: [ok, 'a/b']}}", "tools.http_request.allow_hosts[1]", "'a/b'", "host:port"),
        ("worker: {name: Not A Name}", "worker.name", "'Not A Name'", "a name of a-z"),
    ],
)
def test_a_wrong_value_names_key_value_expectation_and_source(
    text: str, path: str, shown: str, expected: str, tmp_path: Path
) -> None:
    (line,) = mistakes(tmp_path, text)
    assert line.startswith(f"{path}: {shown} does not fit: expected ")
    assert expected in line
    assert line.endswith("talon.yaml line 1)")


def test_all_mistakes_are_told_at_once_wherever_they_come_from(tmp_path: Path) -> None:
    lines = mistakes(tmp_path, "gateway: {prt: 1}", {"TALON_WORKER_SWEEP_S": "x"}, gateway__port="y")
    assert [line.split(":")[0] for line in lines] == ["gateway.prt", "gateway.port", "worker.sweep_s"]
    assert "flag --port" in lines[1]
    assert "environment variable TALON_WORKER_SWEEP_S" in lines[2]


@pytest.mark.parametrize(
    ("text", "env"),
    [
        ("providers: {openai: {api_key: [sekret]}}", {}),
        ("control_plane: {database: {url: 'mysql://u:sekret@h/x'}}", {}),
        ("", {"DATABASE_URL": "mysql://u:sekret@h/x"}),
        ("providers: {openai: sekret}", {}),
    ],
)
def test_secrets_are_in_no_message(text: str, env: dict[str, str], tmp_path: Path) -> None:
    assert "sekret" not in "".join(mistakes(tmp_path, text, env))


def test_secrets_are_in_no_representation(tmp_path: Path) -> None:
    env = {"OPENAI_API_KEY": "sekret", "DATABASE_URL": "postgresql://u:sekret@h/x?password=sekret"}
    loaded = read(tmp_path, "", env)
    assert "sekret" not in repr(loaded)
    assert describe(database_of(loaded.settings)) == "postgresql://h/x"


@pytest.mark.parametrize(
    "key", ["secret:openai", "secret:a/b/c", "secret:/openai", "secret:default/", "secret:Default/x", "secret:"]
)
def test_a_reference_to_a_secret_has_one_form(key: str, tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, env={"OPENAI_API_KEY": key})
    assert line.startswith("providers.openai.api_key: a reference to a secret is written secret:NAMESPACE/NAME")
    assert secret_of("secret:acme:eu/openai") == ("acme:eu", "openai")
    assert secret_of("sk-secret:default/openai") is None


@pytest.mark.parametrize(("value", "part"), [("c2hvcnQ=", "key 1 of 1 has 5 bytes"), (f"{KEY},§", "key 2 of 2 is not base64")])
def test_a_key_for_secrets_that_is_none_keeps_the_program_from_starting_and_is_not_shown(
    value: str, part: str, tmp_path: Path
) -> None:
    (line,) = mistakes(tmp_path, env={"TALON_SECRETS_KEY": value})
    assert line.startswith(f"secrets.key: the value (hidden) {part}")
    assert value[:6] not in line


def test_the_keys_for_secrets_are_in_one_place(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, "secrets: {key_file: k}", {"TALON_SECRETS_KEY": KEY})
    assert "both given" in line
    assert KEY not in line


def test_a_worker_has_a_port_of_its_own_unless_one_is_given(tmp_path: Path) -> None:
    assert port_of(read(tmp_path, "").settings, "worker") == 19790
    assert port_of(read(tmp_path, "").settings, "gateway") == 19789
    assert port_of(read(tmp_path, "", {"TALON_GATEWAY_PORT": "19789"}).settings, "worker") == 19789


def test_a_database_on_a_unix_socket_is_described_as_a_url(tmp_path: Path) -> None:
    loaded = read(tmp_path, "", {"DATABASE_URL": "postgresql://u@/talon?host=/run/postgresql"})
    assert describe(database_of(loaded.settings)) == "postgresql:///talon"


def test_unknown_variables_with_our_prefix_are_a_warning(tmp_path: Path) -> None:
    loaded = read(tmp_path, "", {"TALON_WORKR_NAME": "x", "TALON_SERVER": "http://x", "PATH": "/bin"})
    (line,) = loaded.warnings
    assert "TALON_WORKR_NAME" in line
    assert "TALON_WORKER_NAME" in line


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    assert read(tmp_path, "", {"TALON_GATEWAY_PORT": "", "DATABASE_URL": ""}).settings.gateway.port == 19789


def test_the_vendors_variables_make_a_provider_and_explicit_configuration_wins_by_field(tmp_path: Path) -> None:
    env = {"OPENAI_API_KEY": "from-vendor", "OPENAI_BASE_URL": "http://vendor/v1"}
    provider = read(tmp_path, "", env).settings.providers["openai"]
    assert provider.kind == "openai"
    assert provider.base_url == "http://vendor/v1"
    provider = read(tmp_path, "providers: {openai: {base_url: 'http://mine/v1/'}}", env).settings.providers["openai"]
    assert provider.base_url == "http://mine/v1"
    assert provider.api_key is not None
    assert provider.api_key.get_secret_value() == "from-vendor"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("10.0.0.7", "http://10.0.0.7:11434"),
        (":9000", "http://127.0.0.1:9000"),
        ("box:9000/ollama", "http://box:9000/ollama"),
        ("[::1]", "http://[::1]:11434"),
        ("https://ollama.com", "https://ollama.com"),
    ],
)
def test_ollamas_address_may_lack_its_scheme_its_port_or_its_host(tmp_path: Path, host: str, url: str) -> None:
    assert read(tmp_path, "", {"OLLAMA_HOST": host}).settings.providers["ollama"].base_url == url


def test_a_region_holds_for_the_providers_that_are_there_and_makes_none_exist(tmp_path: Path) -> None:
    env = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "eu-west-3"}
    assert read(tmp_path, "", env).settings.providers == {}
    text = "providers: {bedrock: {}, claude: {kind: bedrock, region: eu-north-1}, openai: {}, mine: {kind: bedrock, base_url: 'http://x'}}"
    loaded = read(tmp_path, text, env)
    regions = {name: provider.region for name, provider in loaded.settings.providers.items()}
    assert regions == {"bedrock": "eu-west-3", "claude": "eu-north-1", "openai": None, "mine": None}
    assert loaded.where["providers.bedrock.region"] == "environment variable AWS_REGION"


def test_every_vendor_has_its_variables_and_a_name_says_its_kind(tmp_path: Path) -> None:
    providers = read(tmp_path, "providers: {openai-responses: {line_max: 2048}}", {"ANTHROPIC_API_KEY": "k"}).settings.providers
    assert {name: provider.kind for name, provider in providers.items()} == {
        "openai-responses": "openai_responses",
        "anthropic": "anthropic",
    }
    assert providers["openai-responses"].line_max == 2048
    assert providers["anthropic"].base_url is None  # the vendor's own


def test_without_a_vendors_variable_there_is_no_provider(tmp_path: Path) -> None:
    assert read(tmp_path).settings.providers == {}


def test_a_provider_needs_a_kind_and_a_scripted_one_a_script(tmp_path: Path) -> None:
    lines = mistakes(tmp_path, "providers: {acme: {base_url: 'http://x'}, scripted: }")
    assert lines[0].startswith("providers.acme.kind: not given")
    assert lines[1].startswith("providers.scripted.script: a scripted provider needs")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.com", ""])
def test_a_host_that_others_can_reach_is_refused_where_nobody_is_asked_who_he_is(host: str, tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, f"gateway: {{host: '{host}'}}")
    assert line.startswith("gateway.host: ")
    assert "set gateway.auth.mode to api_key" in line
    assert "line 1" in line


def test_with_keys_on_any_host_may_be_had_and_a_warning_says_what_is_not_encrypted(tmp_path: Path) -> None:
    text = "gateway: {host: 0.0.0.0, auth: {mode: [api_key]}"
    (warning,) = read(tmp_path, text + "}").warnings
    assert "gateway.tls" in warning
    assert read(tmp_path, text + ", tls: {cert: c.pem, key: k.pem}}").warnings == ()


ISSUED = "algorithm: ES256, issuer: i, audience: a"


@pytest.mark.parametrize(
    ("auth", "found"),
    [
        ("mode: []", ["gateway.auth.mode: expected"]),
        ("mode: [api_key, api_key]", ["gateway.auth.mode: expected"]),
        ("mode: [none, api_key]", ["gateway.auth.mode: none stands alone"]),
        ("mode: [password]", ["gateway.auth.mode[0]: 'password' does not fit"]),
        ("bootstrap_key: sekret", ["gateway.auth.bootstrap_key: the value (hidden)"]),
        ("mode: [jwt]", ["gateway.auth.jwt.algorithm", "gateway.auth.jwt.issuer", "gateway.auth.jwt.audience"]),
        (f"mode: [jwt], jwt: {{{ISSUED}}}", ["gateway.auth.jwt: ES256 needs exactly one"]),
        (f"mode: [jwt], jwt: {{{ISSUED}, secret: '{KEY}'}}", ["gateway.auth.jwt: ES256 needs exactly one"]),
        (f"mode: [jwt], jwt: {{{ISSUED}, key_file: k, jwks_url: 'https://x'}}", ["gateway.auth.jwt: ES256 needs exactly one"]),
        (f"mode: [jwt], jwt: {{{ISSUED}, jwks_url: 'http://x'}}", ["gateway.auth.jwt.jwks_url: 'http://x' is not encrypted"]),
        ("mode: [jwt], jwt: {algorithm: HS256, issuer: i, audience: a, key_file: k}", ["gateway.auth.jwt: HS256 needs"]),
        (
            "mode: [jwt], jwt: {algorithm: HS256, issuer: i, audience: a, secret: sekret}",
            ["gateway.auth.jwt.secret: the value (hidden)"],
        ),
        ("mode: [oidc]", ["gateway.auth.oidc.issuer: not given", "gateway.auth.oidc.client_id: not given"]),
        (
            "mode: [oidc], oidc: {issuer: 'http://idp.example', client_id: t}",
            ["gateway.auth.oidc.issuer: 'http://idp.example' is not"],
        ),
    ],
)
def test_each_mode_has_what_it_needs_or_says_what_is_missing(auth: str, found: list[str], tmp_path: Path) -> None:
    lines = mistakes(tmp_path, f"gateway: {{auth: {{{auth}}}}}")
    assert [line[: len(start)] for line, start in zip(lines, found, strict=True)] == found
    assert "sekret" not in "".join(lines)


@pytest.mark.parametrize(
    ("tls", "missing"), [("cert: c", "gateway.tls.key"), ("key: k", "gateway.tls.cert"), ("client_ca: c", "gateway.tls.client_ca")]
)
def test_tls_needs_a_certificate_and_its_key(tls: str, missing: str, tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, f"gateway: {{tls: {{{tls}}}}}")
    assert line.startswith(missing)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_hosts_are_accepted(host: str, tmp_path: Path) -> None:
    assert read(tmp_path, "", gateway__host=host).settings.gateway.host == host


def test_databases_by_url(tmp_path: Path) -> None:
    assert database_of(read(tmp_path).settings) == SqliteAt(tmp_path / "talon-data" / "talon.db")
    assert database_of(read(tmp_path, "", {"DATABASE_URL": "sqlite:////abs/x.db"}).settings) == SqliteAt(Path("/abs/x.db"))
    loaded = read(tmp_path, "", {"DATABASE_URL": "postgres://h/x"})
    assert isinstance(database_of(loaded.settings), PostgresAt)
    assert broker_of(read(tmp_path).settings) == "local"


def test_driver_and_url_may_not_contradict_each_other(tmp_path: Path) -> None:
    env = {"DATABASE_URL": "postgresql://h/x"}
    (line,) = mistakes(tmp_path, "control_plane: {database: {driver: sqlite}}", env)
    assert "change one of them" in line
    (line,) = mistakes(tmp_path, "control_plane: {message_broker: {driver: postgres}}")
    assert "needs PostgreSQL" in line


def test_our_own_variable_wins_over_the_common_one(tmp_path: Path) -> None:
    env = {"DATABASE_URL": "postgresql://common/x", "TALON_CONTROL_PLANE_DATABASE_URL": "postgresql://ours/x"}
    assert database_of(read(tmp_path, "", env).settings) == PostgresAt("postgresql://ours/x")


def test_paths_of_the_file_are_meant_from_its_directory_others_from_here(tmp_path: Path) -> None:
    below = tmp_path / "conf"
    below.mkdir()
    (below / "talon.yaml").write_text("data_dir: d\ntools: {path: [lib]}\nproviders: {scripted: {script: s.yaml}}\n")
    settings = load({}, environ={}, config=Path("conf/talon.yaml"), cwd=tmp_path).settings
    assert settings.data_dir == below / "d"
    assert settings.tools.path == (below / "lib",)
    assert settings.providers["scripted"].script == below / "s.yaml"
    settings = load({"data_dir": "e"}, environ={"TALON_CONFIG": "conf/talon.yaml"}, cwd=tmp_path).settings
    assert settings.data_dir == tmp_path / "e"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (b"a: [", "no YAML"),
        (b"\xff", "not UTF-8"),
        (b"- a\n", "expected settings"),
        (b"gateway: 3\n", "gateway: expected keys below it (host, port"),
        (b"a: 1\n---\nb: 2\n", "2 documents"),
        (b"worker: {name: a, name: b}\n", "given twice"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(text: bytes, part: str, tmp_path: Path) -> None:
    (tmp_path / "talon.yaml").write_bytes(text)
    line, *_ = mistakes(tmp_path)
    assert str(tmp_path / "talon.yaml") in line
    assert part in line


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="cannot be read: No such file"):
        load({}, environ={}, config=tmp_path / "gone.yaml")


def test_an_empty_file_is_no_mistake(tmp_path: Path) -> None:
    assert read(tmp_path, "# nothing yet\n").settings.gateway.port == 19789


@pytest.mark.parametrize(
    ("texts", "part"),
    [
        (("worker.concurrency",), "expected PATH=VALUE"),
        (("worker.concurency=3",), "did you mean 'worker.concurrency'"),
        (("providers.Not_A_Name.kind=openai",), "is no name"),
        (("worker.concurrency=3", "worker.concurrency=4"), "given twice"),
    ],
)
def test_wrong_uses_of_set(texts: tuple[str, ...], part: str, tmp_path: Path) -> None:
    with pytest.raises(WrongUse) as caught:
        load({}, texts, environ={}, cwd=tmp_path)
    assert part in caught.value.lines[0]


def test_a_setting_by_flag_and_by_set_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="given twice, by --worker-concurrency and by --set"):
        load({"worker.concurrency": "1"}, ("worker.concurrency=2",), environ={}, cwd=tmp_path)
