"""What docs/reference/grpc.md says of the contract: services, methods and messages with the comments of the proto."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

from talon.domain import errors

HERE = Path(__file__).resolve().parent
FILE = "talon/v1/talon.proto"
#: Where things stand in a file (descriptor.proto): messages, services; a message's fields, a service's methods.
_MESSAGES, _SERVICES, _MEMBERS = 4, 6, 2
_SYNTAX = 12
_TYPES = {
    FieldDescriptorProto.TYPE_STRING: "text",
    FieldDescriptorProto.TYPE_BOOL: "bool",
    FieldDescriptorProto.TYPE_INT32: "int32",
    FieldDescriptorProto.TYPE_INT64: "int64",
    FieldDescriptorProto.TYPE_DOUBLE: "double",
}
Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


class Contract:
    """The proto with its comments."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            into = Path(name) / "set"
            command = ("-m", "grpc_tools.protoc", f"-I{HERE}", f"--descriptor_set_out={into}", "--include_source_info", FILE)
            subprocess.run([sys.executable, *command], check=True)
            self._file: FileDescriptorProto = FileDescriptorSet.FromString(into.read_bytes()).file[0]
        self._said = {tuple(one.path): one.leading_comments for one in self._file.source_code_info.location}

    def said(self, *path: int) -> str:
        """The comment above something, as one line for each paragraph."""
        paragraphs = self._said.get(path, "").strip().split("\n\n")
        return "\n\n".join(" ".join(line.strip() for line in one.splitlines() if line.strip()) for one in paragraphs)

    @property
    def intro(self) -> str:
        """What the file says of itself."""
        lines = [line.strip() for line in self._said[_SYNTAX,].splitlines()]
        return "\n".join(lines).strip()

    def services(self, table: Table) -> Iterator[str]:
        """A section for each service."""
        for number, service in enumerate(self._file.service):
            rows = [
                (f"`{one.name}`", _name(one.input_type), _name(one.output_type, stream=one.server_streaming), self.said(*at))
                for at, one in (((_SERVICES, number, _MEMBERS, index), one) for index, one in enumerate(service.method))
            ]
            yield f"## {self._file.package}.{service.name}\n\n{table(('method', 'request', 'answer', ''), rows)}"

    def messages(self, table: Table) -> Iterator[str]:
        """A section for each message."""
        for number, message in enumerate(self._file.message_type):
            rows = [
                (f"`{one.name}`", _type(message, one), self.said(_MESSAGES, number, _MEMBERS, index))
                for index, one in enumerate(message.field)
            ]
            about = self.said(_MESSAGES, number)
            yield "\n\n".join(part for part in (f"### {message.name}", about, table(("field", "type", ""), rows)) if part)


def grpc_status(code: str, http_status: str) -> str:
    """The gRPC status of an error's code with that HTTP status; "" for one that does not leave over gRPC."""
    families = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TalonError)]
    found = {str(kind.http_status): kind.grpc_status for kind in families}
    ours = {"stream_too_slow": errors.Unavailable.grpc_status, **errors.GRPC_STATUS}
    return ours.get(code) or found.get(http_status, "")


def _name(full: str, *, stream: bool = False) -> str:
    name = full.rpartition(".")[2]
    return f"{'stream of ' if stream else ''}[{name}](#{name.lower()})"


def _type(message: DescriptorProto, one: FieldDescriptorProto) -> str:
    if any(one.type_name.endswith(f".{nested.name}") and nested.options.map_entry for nested in message.nested_type):
        return "map of text"
    plain = _TYPES.get(one.type) or ("time" if one.type_name.endswith(".Timestamp") else _name(one.type_name))
    optional = "optional " if one.proto3_optional else ""
    return f"list of {plain}" if one.label == FieldDescriptorProto.LABEL_REPEATED else optional + plain
