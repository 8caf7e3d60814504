"""`grpc.reflection.v1` and `v1alpha`: what grpcurl and its like ask, so that they need no copy of the proto."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Any, cast

import grpc_reflection.v1alpha.reflection as alpha
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2 as pb

ALPHA = "grpc.reflection.v1alpha.ServerReflection"
V1 = "grpc.reflection.v1.ServerReflection"


class Reflection:
    """Answers questions about `services`. The messages of v1 and of v1alpha are the same on the wire."""

    def __init__(self, services: Collection[str]) -> None:
        _describe_v1()
        self._servicer = cast(Any, alpha).aio.ReflectionServicer((*services, ALPHA, V1))

    def answer(self, questions: AsyncIterator[pb.ServerReflectionRequest]) -> AsyncIterator[pb.ServerReflectionResponse]:
        """One answer to each question, in order."""
        return self._servicer.ServerReflectionInfo(questions, None)


def _describe_v1() -> None:
    """Make v1 known, of which the library has no description: it is v1alpha under another name."""
    pool = descriptor_pool.Default()
    try:
        pool.FindServiceByName(V1)
    except KeyError:
        file = FileDescriptorProto()
        pb.DESCRIPTOR.CopyToProto(file)
        file.name, file.package = "grpc/reflection/v1/reflection.proto", "grpc.reflection.v1"
        for field in (field for message in file.message_type for field in message.field):
            if field.type_name:
                field.type_name = field.type_name.replace(".v1alpha.", ".v1.")
        for method in (method for service in file.service for method in service.method):
            method.input_type = method.input_type.replace(".v1alpha.", ".v1.")
            method.output_type = method.output_type.replace(".v1alpha.", ".v1.")
        pool.Add(file)  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
