"""Planted secrets: every booted product of the tests is given more than fifty, and whatever it leaves behind is searched for them.

    given     by the environment (settings, vendors' variables, what else stands in a process's environment), in the database's URL,
              in headers and metadata of every request
    searched  stdout, stderr, every file below its directories, answers, streams, what commands print; its PostgreSQL database, when
              that is dropped, and the server's log. At every stop, SIGKILL included.

Each value begins and ends with one mark, so that a handful of needles finds all of them, cut off or whole, in every usual encoding
(`NEEDLES`). What a product makes itself (its first key, its key ring, the keys that a test has it mint) has no mark and is searched
for by value (`support.canary`). Reversed texts are not looked for: nothing on the way reverses any.

A value lawfully stands encrypted or hashed, and in the files that are there to keep one (`LAWFUL`).
"""

from __future__ import annotations

import base64
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from support.canary import files, leaks
from talon.providers.kinds import KINDS

MARK = "PlantedQ7xWm2Zt9"
#: What encodings treat each in its own way.
_AWKWARD = '"\\/+%7Q<&>'
#: Files whose use is to keep a value; the last is the test's own.
LAWFUL = frozenset({"secrets.key", "admin.key", "credentials.json", "talon.yaml"})
_RUN = secrets.token_hex(6)
#: Every value by what it is.
PLANTED: dict[str, str] = {}
_DATABASES: set[str] = set()
#: By the address of the gateway that made them.
_MINTED: defaultdict[str, set[str]] = defaultdict(set)


def plant(what: str, *, plain: bool = False) -> str:
    """A value of its own; `plain` ones have only letters and digits."""
    PLANTED[what] = f"{MARK}{len(PLANTED):02d}{'' if plain else _AWKWARD}{_RUN}{MARK}"
    return PLANTED[what]


def _vault_key() -> str:
    """Base64 of 32 bytes that begins with the mark."""
    PLANTED["key ring"] = f"{MARK}{len(PLANTED):02d}{secrets.token_hex(12)}A="
    return PLANTED["key ring"]


def _settings() -> Iterator[tuple[str, str]]:
    """The secret settings, but for those that change what a product does."""
    yield "TALON_GATEWAY_AUTH_JWT_SECRET", plant("secret of JWTs")
    yield "TALON_GATEWAY_AUTH_OIDC_CLIENT_SECRET", plant("secret of the OpenID Connect client")
    yield "TALON_GATEWAY_AUTH_BOOTSTRAP_KEY", f"talon_planted_{plant('first key', plain=True)}"


def _more() -> Iterator[tuple[str, str]]:
    """A provider of each kind, where nobody is, and the vendors' own variables; a secret that is not used, which is warned of."""
    yield "TALON_CONTROL_PLANE_SCHEDULER_CLOUD_TASKS_SECRET", plant("secret of Cloud Tasks")
    yield "AWS_REGION", "eu-central-1"
    yield "TALON_PROVIDERS_PLANTED_BEDROCK_REGION", "eu-central-1"
    for kind, about in KINDS.items():
        name = f"TALON_PROVIDERS_PLANTED_{kind.upper()}"
        key = [plant(f"{kind} key{part}") for part in ((" id", " secret", " session") if kind == "bedrock" else ("",))]
        yield from ((f"{name}_KIND", kind), (f"{name}_BASE_URL", "http://127.0.0.1:9"), (f"{name}_API_KEY", ":".join(key)))
        if about.key_env:
            yield about.key_env, plant(about.key_env)


def _strangers() -> Iterator[tuple[str, str]]:
    """What else stands in the environment of a process, and is none of Talon's business."""
    for name in (
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_CLIENT_SECRET", "GOOGLE_API_KEY", "HF_TOKEN"),
        *(
            "MISTRAL_API_KEY",
            "COHERE_API_KEY",
            "DEEPSEEK_API_KEY",
            "GROQ_API_KEY",
            "VAULT_TOKEN",
            "CONSUL_HTTP_TOKEN",
            "PGPASSWORD",
        ),
        *("GITHUB_TOKEN", "GITLAB_TOKEN", "NPM_TOKEN", "PYPI_TOKEN", "DOCKER_AUTH_CONFIG", "SLACK_BOT_TOKEN", "DISCORD_TOKEN"),
        *("STRIPE_SECRET_KEY", "TWILIO_AUTH_TOKEN", "SENDGRID_API_KEY", "SMTP_PASSWORD", "DD_API_KEY", "NEW_RELIC_LICENSE_KEY"),
        *("HEROKU_API_KEY", "CLOUDFLARE_API_TOKEN", "DIGITALOCEAN_TOKEN", "FLY_API_TOKEN", "VERCEL_TOKEN", "SNYK_TOKEN"),
        *("PINECONE_API_KEY", "LANGSMITH_API_KEY", "WANDB_API_KEY", "NOTION_TOKEN", "LINEAR_API_KEY", "SONAR_TOKEN"),
        *("COOKIE_SECRET", "SESSION_SIGNING_KEY", "JWT_SIGNING_KEY", "CSRF_SECRET", "MYSQL_PASSWORD", "ENCRYPTION_KEY"),
    ):
        yield name, plant(name)
    for name, scheme in (("REDIS_URL", "redis"), ("AMQP_URL", "amqp"), ("SENTRY_DSN", "https")):
        yield name, f"{scheme}://talon:{quote(plant(name), safe='')}@127.0.0.1:9/0"
    yield "OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{plant('OTEL_EXPORTER_OTLP_HEADERS', plain=True)}"


def _shown() -> Iterator[tuple[str, str]]:
    """What a client may send without being asked."""
    for name in (
        *("Proxy-Authorization", "X-Api-Key", "X-Auth-Token", "X-Access-Token", "X-Amz-Security-Token"),
        *("X-Forwarded-Access-Token", "X-Goog-Api-Key", "X-Csrf-Token"),
    ):
        yield name, plant(f"header {name}")
    yield "Cookie", f"talon={plant('cookie', plain=True)}; other={plant('cookie of another', plain=True)}"
    yield "Referer", f"http://127.0.0.1/?token={quote(plant('key in a Referer'), safe='')}"


_SETTINGS, _STRANGERS = dict(_settings()), dict(_strangers())
#: For a product that may have more models than a test names: a route by tier would find these too.
MORE = dict(_more())
_HEADERS = dict(_shown())
_BEARER, _BASIC, _API_KEY = plant("Authorization: Bearer"), plant("Authorization: Basic"), plant("TALON_API_KEY", plain=True)
_METADATA = [(name, plant(f"metadata {name}", plain=True)) for name in ("x-api-key", "cookie", "x-goog-iam-authorization-token")]
DATABASE_PASSWORD = plant("password of the database")
#: Values of resources of kind Secret, by their names.
SECRETS = {f"s{number}": plant(f"Secret s{number}") for number in range(4)}
#: No product starts with it.
URL_PASSWORD = plant("password in a provider's URL")
#: The key of the fake model on the stage.
STAGE_KEY = plant("key of the stage's model")
VAULT_KEY = _vault_key()


# --- given ------------------------------------------------------------------------------------------------------------------------


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """For a booted product: all that is planted, and `more`, which wins. A PostgreSQL URL gets a password."""
    given = {**_STRANGERS, **_SETTINGS, "TALON_OBSERVE_LOG_LEVEL": "debug", **more}
    user, at, where = given.get("DATABASE_URL", "").partition("@")
    if at:
        _DATABASES.add(where)
        if user.count(":") == 1:
            given["DATABASE_URL"] = f"{user}:{quote(DATABASE_PASSWORD, safe='')}@{where}"
    return given


def of_commands(more: Mapping[str, str]) -> dict[str, str]:
    """For a command that asks a server."""
    return environment({"TALON_API_KEY": _API_KEY, **more})


def headers(authorization: str = "") -> dict[str, str]:
    """For requests of clients; without an `authorization` there is one that nobody asked for."""
    return {**_HEADERS, "Authorization": authorization or f"Bearer {_BEARER}"}


def basic() -> str:
    """An `Authorization` that Talon does not take."""
    return "Basic " + base64.b64encode(f"talon:{_BASIC}".encode()).decode()


def metadata() -> list[tuple[str, str]]:
    """For gRPC calls, beside their own."""
    return list(_METADATA)


def answered(server: str, what: str, raw: bytes | str, head: object, body: Any) -> None:
    """An answer of `server`: nothing planted may be in it, and a credential that was made is searched for from now on."""
    nothing_in(f"the answer to {what}", raw, repr(head))
    if isinstance(body, dict):
        minted(server, cast(dict[str, Any], body).get("secret"))


def minted(server: str, credential: object) -> None:
    """A credential that `server` made: its secret half is searched for in what that server leaves."""
    if isinstance(credential, str):
        _MINTED[server].add(credential.rpartition("_")[2])


# --- searched ---------------------------------------------------------------------------------------------------------------------


def _cores(data: bytes) -> list[bytes]:
    """What of `data` is the same wherever it stands in something that is base64."""
    found: list[bytes] = []
    for offset in range(3):
        cut = len(data) - (len(data) + offset) % 3
        found.append(base64.b64encode(bytes(offset) + data[:cut])[offset + 1 if offset else 0 :])
    return found


def needles(mark: str = MARK) -> list[bytes]:
    """`mark` in every encoding: raw, as UTF-16, in lower case, in hex with and without separators, with every character escaped for
    JSON, Python, URLs or HTML, in base64 (in both alphabets, which differ in nothing that the mark has) at each offset, that in
    base64 once more, hex in base64, base64 in hex. The decoded mark is the beginning of the planted key ring's bytes."""
    data = mark.encode()
    forms = [data, data.lower(), mark.encode("utf-16-be")[1:], base64.b64decode(data), base64.b64decode(data).hex().encode()]
    small = [f"{byte:02x}" for byte in data]
    for digits in (small, [digit.upper() for digit in small]):
        forms += [between.join(digits).encode() for between in ("", ":", " ")]
        forms += ["".join(escape + digit for digit in digits).encode() for escape in ("\\x", "\\u00", "%")]
    forms += ["".join(f"&#{byte};" for byte in data).encode(), "".join(f"&#x{digit};" for digit in small).encode()]
    forms.append("".join(f"\\{byte:03o}" for byte in data).encode())
    once = _cores(data)
    forms += [*once, *(again for core in once for again in _cores(core))]
    forms += [*_cores(data.hex().encode()), *(core.hex().encode() for core in once)]
    return list(dict.fromkeys(forms))


NEEDLES = needles()


def marks(data: bytes) -> list[str]:
    """Where something planted stands in `data`, in which form and with what is around it."""
    return [
        f"{needle!r} in {data[max(0, at - 120) : at + len(needle) + 60]!r}" for needle in NEEDLES if (at := data.find(needle)) >= 0
    ]


def nothing_in(what: str, *said: bytes | str) -> None:
    """Fails if something planted stands in `said`."""
    for text in said:
        found = marks(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        assert not found, f"{what} has something that was planted: " + "\n".join(found)


def search(what: str, said: bytes, directories: Iterable[Path] = (), servers: Iterable[str] = ()) -> None:
    """Fails if something planted, a credential that one of `servers` made, or a key that is kept below `directories`, stands in
    `said` or in a file there."""
    nothing_in(what, said)
    places = list({directory.resolve(): None for directory in directories if directory.is_dir()})
    kept = [*_kept(places), *(secret for server in servers for secret in _MINTED[server])]
    found = leaks(said, *kept)
    for path, data in files(*places):
        if path.name not in LAWFUL:
            nothing_in(str(path), data)
            found += [f"{path}: {leak}" for leak in leaks(data, *kept)]
    assert not found, f"{what} has left a key: " + "\n".join(found)


def search_database(where: str, rows: bytes) -> None:
    """The same in a database, for what any server of this process made."""
    search(where, rows, servers=list(_MINTED))


def _kept(places: list[Path]) -> list[str]:
    """What stands in the files that keep keys."""
    texts = [data.decode() for path, data in files(*places) if path.name in ("secrets.key", "admin.key")]
    return [line.strip().rpartition("_")[2] for text in texts for line in text.splitlines() if line.strip()]


def is_planted(url: str) -> bool:
    """Whether a product was given this database."""
    return url.partition("@")[2] in _DATABASES
