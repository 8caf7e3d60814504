import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateNamespaceRequest(_message.Message):
    __slots__ = ("name", "labels", "annotations")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class AnnotationsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    labels: _containers.ScalarMap[str, str]
    annotations: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., annotations: _Optional[_Mapping[str, str]] = ...) -> None: ...

class GetNamespaceRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListNamespacesRequest(_message.Message):
    __slots__ = ("limit", "cursor", "label_selector")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    LABEL_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    limit: int
    cursor: str
    label_selector: str
    def __init__(self, limit: _Optional[int] = ..., cursor: _Optional[str] = ..., label_selector: _Optional[str] = ...) -> None: ...

class DeleteNamespaceRequest(_message.Message):
    __slots__ = ("name", "cascade")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CASCADE_FIELD_NUMBER: _ClassVar[int]
    name: str
    cascade: bool
    def __init__(self, name: _Optional[str] = ..., cascade: _Optional[bool] = ...) -> None: ...

class Resource(_message.Message):
    __slots__ = ("kind", "namespace", "name", "uid", "resource_version", "manifest_json")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_VERSION_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_JSON_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    manifest_json: str
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., uid: _Optional[str] = ..., resource_version: _Optional[str] = ..., manifest_json: _Optional[str] = ...) -> None: ...

class WriteResourceRequest(_message.Message):
    __slots__ = ("namespace", "kind", "manifest_json")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_JSON_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    kind: str
    manifest_json: str
    def __init__(self, namespace: _Optional[str] = ..., kind: _Optional[str] = ..., manifest_json: _Optional[str] = ...) -> None: ...

class GetResourceRequest(_message.Message):
    __slots__ = ("namespace", "kind", "name", "effective")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    kind: str
    name: str
    effective: bool
    def __init__(self, namespace: _Optional[str] = ..., kind: _Optional[str] = ..., name: _Optional[str] = ..., effective: _Optional[bool] = ...) -> None: ...

class ListResourcesRequest(_message.Message):
    __slots__ = ("namespace", "kind", "limit", "cursor", "label_selector")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    LABEL_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    kind: str
    limit: int
    cursor: str
    label_selector: str
    def __init__(self, namespace: _Optional[str] = ..., kind: _Optional[str] = ..., limit: _Optional[int] = ..., cursor: _Optional[str] = ..., label_selector: _Optional[str] = ...) -> None: ...

class ListResourcesResponse(_message.Message):
    __slots__ = ("items", "next_cursor", "resource_version")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_VERSION_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Resource]
    next_cursor: str
    resource_version: str
    def __init__(self, items: _Optional[_Iterable[_Union[Resource, _Mapping]]] = ..., next_cursor: _Optional[str] = ..., resource_version: _Optional[str] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("manifests", "dry_run", "prune", "label_selector")
    MANIFESTS_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    PRUNE_FIELD_NUMBER: _ClassVar[int]
    LABEL_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    manifests: str
    dry_run: bool
    prune: bool
    label_selector: str
    def __init__(self, manifests: _Optional[str] = ..., dry_run: _Optional[bool] = ..., prune: _Optional[bool] = ..., label_selector: _Optional[str] = ...) -> None: ...

class ApplyResponse(_message.Message):
    __slots__ = ("items", "warnings", "dry_run")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[AppliedItem]
    warnings: _containers.RepeatedCompositeFieldContainer[Warning]
    dry_run: bool
    def __init__(self, items: _Optional[_Iterable[_Union[AppliedItem, _Mapping]]] = ..., warnings: _Optional[_Iterable[_Union[Warning, _Mapping]]] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class AppliedItem(_message.Message):
    __slots__ = ("document", "kind", "namespace", "name", "action", "changes", "cause", "fires")
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    FIRES_FIELD_NUMBER: _ClassVar[int]
    document: int
    kind: str
    namespace: str
    name: str
    action: str
    changes: _containers.RepeatedCompositeFieldContainer[FieldChange]
    cause: str
    fires: _containers.RepeatedCompositeFieldContainer[FireTime]
    def __init__(self, document: _Optional[int] = ..., kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., action: _Optional[str] = ..., changes: _Optional[_Iterable[_Union[FieldChange, _Mapping]]] = ..., cause: _Optional[str] = ..., fires: _Optional[_Iterable[_Union[FireTime, _Mapping]]] = ...) -> None: ...

class FireTime(_message.Message):
    __slots__ = ("at", "local")
    AT_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    at: str
    local: str
    def __init__(self, at: _Optional[str] = ..., local: _Optional[str] = ...) -> None: ...

class FieldChange(_message.Message):
    __slots__ = ("field", "before_json", "after_json")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    BEFORE_JSON_FIELD_NUMBER: _ClassVar[int]
    AFTER_JSON_FIELD_NUMBER: _ClassVar[int]
    field: str
    before_json: str
    after_json: str
    def __init__(self, field: _Optional[str] = ..., before_json: _Optional[str] = ..., after_json: _Optional[str] = ...) -> None: ...

class Warning(_message.Message):
    __slots__ = ("field", "message")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    field: str
    message: str
    def __init__(self, field: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("namespace", "kind", "resource_version", "label_selector")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_VERSION_FIELD_NUMBER: _ClassVar[int]
    LABEL_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    kind: str
    resource_version: str
    label_selector: str
    def __init__(self, namespace: _Optional[str] = ..., kind: _Optional[str] = ..., resource_version: _Optional[str] = ..., label_selector: _Optional[str] = ...) -> None: ...

class WatchEvent(_message.Message):
    __slots__ = ("type", "resource_version", "object")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_VERSION_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    type: str
    resource_version: str
    object: Resource
    def __init__(self, type: _Optional[str] = ..., resource_version: _Optional[str] = ..., object: _Optional[_Union[Resource, _Mapping]] = ...) -> None: ...

class DeleteResourceRequest(_message.Message):
    __slots__ = ("namespace", "kind", "name", "cascade", "if_resource_version")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CASCADE_FIELD_NUMBER: _ClassVar[int]
    IF_RESOURCE_VERSION_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    kind: str
    name: str
    cascade: bool
    if_resource_version: str
    def __init__(self, namespace: _Optional[str] = ..., kind: _Optional[str] = ..., name: _Optional[str] = ..., cascade: _Optional[bool] = ..., if_resource_version: _Optional[str] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("gone",)
    GONE_FIELD_NUMBER: _ClassVar[int]
    gone: bool
    def __init__(self, gone: _Optional[bool] = ...) -> None: ...

class SessionRef(_message.Message):
    __slots__ = ("namespace", "agent", "session_id")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    agent: str
    session_id: str
    def __init__(self, namespace: _Optional[str] = ..., agent: _Optional[str] = ..., session_id: _Optional[str] = ...) -> None: ...

class SessionConfig(_message.Message):
    __slots__ = ("model", "thinking_level", "verbose_level")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    THINKING_LEVEL_FIELD_NUMBER: _ClassVar[int]
    VERBOSE_LEVEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    thinking_level: str
    verbose_level: bool
    def __init__(self, model: _Optional[str] = ..., thinking_level: _Optional[str] = ..., verbose_level: _Optional[bool] = ...) -> None: ...

class CreateSessionRequest(_message.Message):
    __slots__ = ("namespace", "agent", "session_id", "metadata_json", "features_json", "profile", "idempotency_key", "config")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    FEATURES_JSON_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    agent: str
    session_id: str
    metadata_json: str
    features_json: str
    profile: str
    idempotency_key: str
    config: SessionConfig
    def __init__(self, namespace: _Optional[str] = ..., agent: _Optional[str] = ..., session_id: _Optional[str] = ..., metadata_json: _Optional[str] = ..., features_json: _Optional[str] = ..., profile: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., config: _Optional[_Union[SessionConfig, _Mapping]] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("id", "uid", "namespace", "agent", "status", "state", "turn_id", "queued", "last_seq", "metadata_json", "features_json", "profile", "created_at", "updated_at", "config")
    ID_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    FEATURES_JSON_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    id: str
    uid: str
    namespace: str
    agent: str
    status: str
    state: str
    turn_id: str
    queued: int
    last_seq: int
    metadata_json: str
    features_json: str
    profile: str
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    config: SessionConfig
    def __init__(self, id: _Optional[str] = ..., uid: _Optional[str] = ..., namespace: _Optional[str] = ..., agent: _Optional[str] = ..., status: _Optional[str] = ..., state: _Optional[str] = ..., turn_id: _Optional[str] = ..., queued: _Optional[int] = ..., last_seq: _Optional[int] = ..., metadata_json: _Optional[str] = ..., features_json: _Optional[str] = ..., profile: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., config: _Optional[_Union[SessionConfig, _Mapping]] = ...) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ("namespace", "agent", "limit", "cursor")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    agent: str
    limit: int
    cursor: str
    def __init__(self, namespace: _Optional[str] = ..., agent: _Optional[str] = ..., limit: _Optional[int] = ..., cursor: _Optional[str] = ...) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("items", "next_cursor")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Session]
    next_cursor: str
    def __init__(self, items: _Optional[_Iterable[_Union[Session, _Mapping]]] = ..., next_cursor: _Optional[str] = ...) -> None: ...

class SendRequest(_message.Message):
    __slots__ = ("session", "content", "strategy", "metadata_json", "idempotency_key", "create", "parts")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    CREATE_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    session: SessionRef
    content: str
    strategy: str
    metadata_json: str
    idempotency_key: str
    create: bool
    parts: _containers.RepeatedCompositeFieldContainer[ContentPart]
    def __init__(self, session: _Optional[_Union[SessionRef, _Mapping]] = ..., content: _Optional[str] = ..., strategy: _Optional[str] = ..., metadata_json: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., create: _Optional[bool] = ..., parts: _Optional[_Iterable[_Union[ContentPart, _Mapping]]] = ...) -> None: ...

class ContentPart(_message.Message):
    __slots__ = ("text", "image")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    text: str
    image: ContentImage
    def __init__(self, text: _Optional[str] = ..., image: _Optional[_Union[ContentImage, _Mapping]] = ...) -> None: ...

class ContentImage(_message.Message):
    __slots__ = ("media_type", "data")
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    media_type: str
    data: bytes
    def __init__(self, media_type: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class ImageRef(_message.Message):
    __slots__ = ("session", "seq", "number")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    session: SessionRef
    seq: int
    number: int
    def __init__(self, session: _Optional[_Union[SessionRef, _Mapping]] = ..., seq: _Optional[int] = ..., number: _Optional[int] = ...) -> None: ...

class SendResponse(_message.Message):
    __slots__ = ("session_id", "turn_id", "seq", "strategy", "replayed")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    turn_id: str
    seq: int
    strategy: str
    replayed: bool
    def __init__(self, session_id: _Optional[str] = ..., turn_id: _Optional[str] = ..., seq: _Optional[int] = ..., strategy: _Optional[str] = ..., replayed: _Optional[bool] = ...) -> None: ...

class StreamRequest(_message.Message):
    __slots__ = ("session", "after", "turn_id")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    session: SessionRef
    after: str
    turn_id: str
    def __init__(self, session: _Optional[_Union[SessionRef, _Mapping]] = ..., after: _Optional[str] = ..., turn_id: _Optional[str] = ...) -> None: ...

class StreamEvent(_message.Message):
    __slots__ = ("cursor", "seq", "turn_id", "type", "at", "payload_json")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_JSON_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    seq: int
    turn_id: str
    type: str
    at: _timestamp_pb2.Timestamp
    payload_json: str
    def __init__(self, cursor: _Optional[str] = ..., seq: _Optional[int] = ..., turn_id: _Optional[str] = ..., type: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., payload_json: _Optional[str] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("session", "turn_id", "idempotency_key")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    session: SessionRef
    turn_id: str
    idempotency_key: str
    def __init__(self, session: _Optional[_Union[SessionRef, _Mapping]] = ..., turn_id: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class SessionState(_message.Message):
    __slots__ = ("session", "turn")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    session: Session
    turn: Turn
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ..., turn: _Optional[_Union[Turn, _Mapping]] = ...) -> None: ...

class LoopState(_message.Message):
    __slots__ = ("phase", "iteration", "max_iterations", "goal", "pending", "completed", "total_tokens_used", "total_cost")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    MAX_ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    GOAL_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TOKENS_USED_FIELD_NUMBER: _ClassVar[int]
    TOTAL_COST_FIELD_NUMBER: _ClassVar[int]
    phase: str
    iteration: int
    max_iterations: int
    goal: str
    pending: _containers.RepeatedScalarFieldContainer[str]
    completed: _containers.RepeatedScalarFieldContainer[str]
    total_tokens_used: int
    total_cost: float
    def __init__(self, phase: _Optional[str] = ..., iteration: _Optional[int] = ..., max_iterations: _Optional[int] = ..., goal: _Optional[str] = ..., pending: _Optional[_Iterable[str]] = ..., completed: _Optional[_Iterable[str]] = ..., total_tokens_used: _Optional[int] = ..., total_cost: _Optional[float] = ...) -> None: ...

class Turn(_message.Message):
    __slots__ = ("turn_id", "session_id", "state", "strategy", "source", "seq", "revision", "attempts", "reason", "waiting_for", "loop", "input_tokens", "output_tokens", "created_at", "started_at", "ended_at")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    LOOP_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    session_id: str
    state: str
    strategy: str
    source: str
    seq: int
    revision: int
    attempts: int
    reason: str
    waiting_for: str
    loop: LoopState
    input_tokens: int
    output_tokens: int
    created_at: _timestamp_pb2.Timestamp
    started_at: _timestamp_pb2.Timestamp
    ended_at: _timestamp_pb2.Timestamp
    def __init__(self, turn_id: _Optional[str] = ..., session_id: _Optional[str] = ..., state: _Optional[str] = ..., strategy: _Optional[str] = ..., source: _Optional[str] = ..., seq: _Optional[int] = ..., revision: _Optional[int] = ..., attempts: _Optional[int] = ..., reason: _Optional[str] = ..., waiting_for: _Optional[str] = ..., loop: _Optional[_Union[LoopState, _Mapping]] = ..., input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ApprovalRef(_message.Message):
    __slots__ = ("namespace", "id")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    id: str
    def __init__(self, namespace: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class Approval(_message.Message):
    __slots__ = ("id", "namespace", "agent", "session_id", "turn_id", "kind", "state", "name", "call", "arguments", "arguments_sha256", "outcome", "resolved_by", "created_at", "resolved_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_BY_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    namespace: str
    agent: str
    session_id: str
    turn_id: str
    kind: str
    state: str
    name: str
    call: int
    arguments: str
    arguments_sha256: str
    outcome: str
    resolved_by: str
    created_at: _timestamp_pb2.Timestamp
    resolved_at: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., namespace: _Optional[str] = ..., agent: _Optional[str] = ..., session_id: _Optional[str] = ..., turn_id: _Optional[str] = ..., kind: _Optional[str] = ..., state: _Optional[str] = ..., name: _Optional[str] = ..., call: _Optional[int] = ..., arguments: _Optional[str] = ..., arguments_sha256: _Optional[str] = ..., outcome: _Optional[str] = ..., resolved_by: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., resolved_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListApprovalsRequest(_message.Message):
    __slots__ = ("namespace", "state", "limit", "cursor")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    state: str
    limit: int
    cursor: str
    def __init__(self, namespace: _Optional[str] = ..., state: _Optional[str] = ..., limit: _Optional[int] = ..., cursor: _Optional[str] = ...) -> None: ...

class ListApprovalsResponse(_message.Message):
    __slots__ = ("items", "next_cursor")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Approval]
    next_cursor: str
    def __init__(self, items: _Optional[_Iterable[_Union[Approval, _Mapping]]] = ..., next_cursor: _Optional[str] = ...) -> None: ...

class ResolveRequest(_message.Message):
    __slots__ = ("namespace", "id", "outcome", "result", "note", "idempotency_key")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    id: str
    outcome: str
    result: str
    note: str
    idempotency_key: str
    def __init__(self, namespace: _Optional[str] = ..., id: _Optional[str] = ..., outcome: _Optional[str] = ..., result: _Optional[str] = ..., note: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class ScheduleRef(_message.Message):
    __slots__ = ("namespace", "name")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class TriggerRequest(_message.Message):
    __slots__ = ("schedule", "idempotency_key")
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    schedule: ScheduleRef
    idempotency_key: str
    def __init__(self, schedule: _Optional[_Union[ScheduleRef, _Mapping]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class TriggerResponse(_message.Message):
    __slots__ = ("outcome", "agent", "session_id", "turn_id", "seq", "replayed")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    outcome: str
    agent: str
    session_id: str
    turn_id: str
    seq: int
    replayed: bool
    def __init__(self, outcome: _Optional[str] = ..., agent: _Optional[str] = ..., session_id: _Optional[str] = ..., turn_id: _Optional[str] = ..., seq: _Optional[int] = ..., replayed: _Optional[bool] = ...) -> None: ...

class NextTimesRequest(_message.Message):
    __slots__ = ("schedule", "count")
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    schedule: ScheduleRef
    count: int
    def __init__(self, schedule: _Optional[_Union[ScheduleRef, _Mapping]] = ..., count: _Optional[int] = ...) -> None: ...

class NextTimesResponse(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[FireTime]
    def __init__(self, items: _Optional[_Iterable[_Union[FireTime, _Mapping]]] = ...) -> None: ...

class HistoryRequest(_message.Message):
    __slots__ = ("schedule", "limit", "cursor")
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    schedule: ScheduleRef
    limit: int
    cursor: str
    def __init__(self, schedule: _Optional[_Union[ScheduleRef, _Mapping]] = ..., limit: _Optional[int] = ..., cursor: _Optional[str] = ...) -> None: ...

class HistoryResponse(_message.Message):
    __slots__ = ("items", "next_cursor")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Occurrence]
    next_cursor: str
    def __init__(self, items: _Optional[_Iterable[_Union[Occurrence, _Mapping]]] = ..., next_cursor: _Optional[str] = ...) -> None: ...

class Occurrence(_message.Message):
    __slots__ = ("at", "local", "outcome", "reason", "decided_at", "lag_ms", "count", "last_at", "manual", "agent", "session_id", "turn_id")
    AT_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DECIDED_AT_FIELD_NUMBER: _ClassVar[int]
    LAG_MS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_AT_FIELD_NUMBER: _ClassVar[int]
    MANUAL_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    local: str
    outcome: str
    reason: str
    decided_at: _timestamp_pb2.Timestamp
    lag_ms: int
    count: int
    last_at: _timestamp_pb2.Timestamp
    manual: bool
    agent: str
    session_id: str
    turn_id: str
    def __init__(self, at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., local: _Optional[str] = ..., outcome: _Optional[str] = ..., reason: _Optional[str] = ..., decided_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., lag_ms: _Optional[int] = ..., count: _Optional[int] = ..., last_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., manual: _Optional[bool] = ..., agent: _Optional[str] = ..., session_id: _Optional[str] = ..., turn_id: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("limit", "cursor")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    limit: int
    cursor: str
    def __init__(self, limit: _Optional[int] = ..., cursor: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("items", "next_cursor")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ModelConfig]
    next_cursor: str
    def __init__(self, items: _Optional[_Iterable[_Union[ModelConfig, _Mapping]]] = ..., next_cursor: _Optional[str] = ...) -> None: ...

class ModelPrices(_message.Message):
    __slots__ = ("input", "output", "cache_read", "cache_write", "currency", "date")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    CACHE_READ_FIELD_NUMBER: _ClassVar[int]
    CACHE_WRITE_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    DATE_FIELD_NUMBER: _ClassVar[int]
    input: str
    output: str
    cache_read: str
    cache_write: str
    currency: str
    date: str
    def __init__(self, input: _Optional[str] = ..., output: _Optional[str] = ..., cache_read: _Optional[str] = ..., cache_write: _Optional[str] = ..., currency: _Optional[str] = ..., date: _Optional[str] = ...) -> None: ...

class ModelConfig(_message.Message):
    __slots__ = ("id", "provider", "tier", "context_window", "supports_tools", "supports_vision", "cost_per_1k_input", "cost_per_1k_output", "output_max", "prices", "resting_ms", "prefill")
    ID_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_WINDOW_FIELD_NUMBER: _ClassVar[int]
    SUPPORTS_TOOLS_FIELD_NUMBER: _ClassVar[int]
    SUPPORTS_VISION_FIELD_NUMBER: _ClassVar[int]
    COST_PER_1K_INPUT_FIELD_NUMBER: _ClassVar[int]
    COST_PER_1K_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_MAX_FIELD_NUMBER: _ClassVar[int]
    PRICES_FIELD_NUMBER: _ClassVar[int]
    RESTING_MS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_FIELD_NUMBER: _ClassVar[int]
    id: str
    provider: str
    tier: str
    context_window: int
    supports_tools: bool
    supports_vision: bool
    cost_per_1k_input: float
    cost_per_1k_output: float
    output_max: int
    prices: ModelPrices
    resting_ms: int
    prefill: bool
    def __init__(self, id: _Optional[str] = ..., provider: _Optional[str] = ..., tier: _Optional[str] = ..., context_window: _Optional[int] = ..., supports_tools: _Optional[bool] = ..., supports_vision: _Optional[bool] = ..., cost_per_1k_input: _Optional[float] = ..., cost_per_1k_output: _Optional[float] = ..., output_max: _Optional[int] = ..., prices: _Optional[_Union[ModelPrices, _Mapping]] = ..., resting_ms: _Optional[int] = ..., prefill: _Optional[bool] = ...) -> None: ...

class ModelTiersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ModelTiers(_message.Message):
    __slots__ = ("cheap", "mid", "premium")
    CHEAP_FIELD_NUMBER: _ClassVar[int]
    MID_FIELD_NUMBER: _ClassVar[int]
    PREMIUM_FIELD_NUMBER: _ClassVar[int]
    cheap: _containers.RepeatedCompositeFieldContainer[ModelConfig]
    mid: _containers.RepeatedCompositeFieldContainer[ModelConfig]
    premium: _containers.RepeatedCompositeFieldContainer[ModelConfig]
    def __init__(self, cheap: _Optional[_Iterable[_Union[ModelConfig, _Mapping]]] = ..., mid: _Optional[_Iterable[_Union[ModelConfig, _Mapping]]] = ..., premium: _Optional[_Iterable[_Union[ModelConfig, _Mapping]]] = ...) -> None: ...

class TaskContext(_message.Message):
    __slots__ = ("type", "complexity", "input_tokens")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    COMPLEXITY_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    type: str
    complexity: str
    input_tokens: int
    def __init__(self, type: _Optional[str] = ..., complexity: _Optional[str] = ..., input_tokens: _Optional[int] = ...) -> None: ...

class SelectedModel(_message.Message):
    __slots__ = ("model", "rules")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    model: ModelConfig
    rules: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[_Union[ModelConfig, _Mapping]] = ..., rules: _Optional[_Iterable[str]] = ...) -> None: ...

class EstimateRequest(_message.Message):
    __slots__ = ("task", "model")
    TASK_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    task: TaskContext
    model: str
    def __init__(self, task: _Optional[_Union[TaskContext, _Mapping]] = ..., model: _Optional[str] = ...) -> None: ...

class CostEstimate(_message.Message):
    __slots__ = ("input_tokens", "output_tokens", "estimated_cost", "model", "amount", "currency")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_COST_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    output_tokens: int
    estimated_cost: float
    model: str
    amount: str
    currency: str
    def __init__(self, input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., estimated_cost: _Optional[float] = ..., model: _Optional[str] = ..., amount: _Optional[str] = ..., currency: _Optional[str] = ...) -> None: ...

class ExplainModelsRequest(_message.Message):
    __slots__ = ("namespace", "agent", "session_id", "data_tier")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_TIER_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    agent: str
    session_id: str
    data_tier: int
    def __init__(self, namespace: _Optional[str] = ..., agent: _Optional[str] = ..., session_id: _Optional[str] = ..., data_tier: _Optional[int] = ...) -> None: ...

class ModelExplanation(_message.Message):
    __slots__ = ("candidates", "rules", "problem")
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    candidates: _containers.RepeatedCompositeFieldContainer[ModelCandidate]
    rules: _containers.RepeatedScalarFieldContainer[str]
    problem: str
    def __init__(self, candidates: _Optional[_Iterable[_Union[ModelCandidate, _Mapping]]] = ..., rules: _Optional[_Iterable[str]] = ..., problem: _Optional[str] = ...) -> None: ...

class ModelCandidate(_message.Message):
    __slots__ = ("profile", "provider", "name", "known")
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    profile: str
    provider: str
    name: str
    known: ModelConfig
    def __init__(self, profile: _Optional[str] = ..., provider: _Optional[str] = ..., name: _Optional[str] = ..., known: _Optional[_Union[ModelConfig, _Mapping]] = ...) -> None: ...
