-- The kernel: sessions, their journals, the projections beside them, dispatch, manifests.
-- min_program: 1
--
-- Columns are named as the fields of the row structs in talon.domain.session, talon.store.model and talon.store.resources. Times
-- are Unix milliseconds. Payloads, JSON and streamed text are BLOBs: bytes in, bytes out, NUL included.
-- No foreign keys on the journal: they double what a commit costs, and nothing is ever deleted that one would guard.

CREATE TABLE schema_info (
    version     INTEGER PRIMARY KEY,   -- number of the migration
    min_program INTEGER NOT NULL,      -- the oldest program (its newest migration) that may use the schema from here on
    at_ms       INTEGER NOT NULL
);

-- One row per incarnation. While `owner` holds the session, `wake_at_ms` is null. `min_reader` is the highest of its entries.
-- `unguarded` is the id of the newest append that came without `if_last_seq`: one whose answer was lost is known by it.
CREATE TABLE sessions (
    sid           INTEGER PRIMARY KEY AUTOINCREMENT,
    uid           TEXT    NOT NULL,
    namespace     TEXT    NOT NULL,
    agent         TEXT    NOT NULL,
    id            TEXT    NOT NULL,
    state         TEXT    NOT NULL,
    first_seq     INTEGER NOT NULL,
    last_seq      INTEGER NOT NULL,
    fence         INTEGER NOT NULL,
    owner         TEXT,
    wake_at_ms    INTEGER,
    turn_id       TEXT,
    queued        INTEGER NOT NULL,
    metadata      BLOB    NOT NULL,
    features      BLOB    NOT NULL,
    profile       TEXT    NOT NULL,
    config        BLOB    NOT NULL DEFAULT x'7b7d',
    key_id        TEXT    NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    deleted_at_ms INTEGER,
    min_reader    INTEGER NOT NULL DEFAULT 1,
    unguarded     BLOB,
    CHECK (owner IS NULL OR wake_at_ms IS NULL),
    CHECK (queued >= 0)
);
-- Each incarnation begins behind the one before it; so two that are made at once are one too many here, and the living one is the last.
CREATE UNIQUE INDEX sessions_incarnations ON sessions (namespace, agent, id, first_seq);
CREATE INDEX sessions_of_agent ON sessions (namespace, agent, sid) WHERE deleted_at_ms IS NULL;
CREATE INDEX sessions_of_namespace ON sessions (namespace, sid) WHERE deleted_at_ms IS NULL;
CREATE INDEX sessions_wake ON sessions (wake_at_ms) WHERE wake_at_ms IS NOT NULL;
CREATE INDEX sessions_wake_namespace ON sessions (namespace, wake_at_ms) WHERE wake_at_ms IS NOT NULL;

-- The sessions that are owned, by their `owner`: as many rows as turns run now.
CREATE TABLE held (
    sid   INTEGER PRIMARY KEY,
    owner TEXT NOT NULL
);

-- `queued` says what `state` says, and changes once: so the index over it is left alone by the turn's further life.
CREATE TABLE turns (
    turn_id       TEXT    NOT NULL PRIMARY KEY,
    sid           INTEGER NOT NULL,
    seq           INTEGER NOT NULL,
    state         TEXT    NOT NULL,
    strategy      TEXT    NOT NULL,
    source        TEXT    NOT NULL,
    priority      INTEGER NOT NULL,
    attempts      INTEGER NOT NULL,
    revision      INTEGER NOT NULL,
    reason        TEXT    NOT NULL,
    waiting_for   TEXT    NOT NULL,
    loop          BLOB    NOT NULL,
    input_tokens  INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    started_at_ms INTEGER,
    ended_at_ms   INTEGER,
    steered       INTEGER NOT NULL DEFAULT 0,
    queued        INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX turns_of_session ON turns (sid, seq);
CREATE INDEX turns_queued ON turns (sid, priority DESC, seq) WHERE queued;

-- The journal: a row per append or inbox operation, of all its entries (talon.store.pack). It is the entries up to `last_seq`, from the
-- row before it on. `types` is the set of their types as bits; `append_id` is that of the append, null for inbox operations.
-- A rowid table: new rows of all sessions go to the same last page.
CREATE TABLE journal (
    sid       INTEGER NOT NULL,
    last_seq  INTEGER NOT NULL,
    at_ms     INTEGER NOT NULL,
    types     INTEGER NOT NULL,
    append_id BLOB,
    pack      BLOB    NOT NULL,
    PRIMARY KEY (sid, last_seq)
);
-- CONTEXT_BITS and MESSAGE_BITS of talon.store.pack; a test compares them.
CREATE INDEX journal_context ON journal (sid, last_seq) WHERE (types & 3269873158) <> 0;
CREATE INDEX journal_messages ON journal (sid, last_seq) WHERE (types & 6) <> 0;

CREATE TABLE fragments (
    sid      INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    "offset" INTEGER NOT NULL,
    text     BLOB    NOT NULL,  -- UTF-8
    PRIMARY KEY (sid, seq, kind, "offset")
) WITHOUT ROWID;

-- `namespace` is its session's, for lists.
CREATE TABLE approvals (
    id             TEXT    NOT NULL PRIMARY KEY,
    sid            INTEGER NOT NULL,
    namespace      TEXT    NOT NULL,
    turn_id        TEXT    NOT NULL,
    call           INTEGER NOT NULL,
    kind           TEXT    NOT NULL,
    state          TEXT    NOT NULL,
    payload        BLOB    NOT NULL,
    outcome        TEXT    NOT NULL,
    resolved_by    TEXT    NOT NULL,
    created_at_ms  INTEGER NOT NULL,
    resolved_at_ms INTEGER
) WITHOUT ROWID;
CREATE INDEX approvals_open ON approvals (sid, turn_id) WHERE state = 'open';
CREATE INDEX approvals_of_namespace ON approvals (namespace, created_at_ms, id);
CREATE INDEX approvals_of_state ON approvals (namespace, state, created_at_ms, id);

-- Idempotency keys and the receipts that they give (talon.domain.inbox.Key, Receipt).
CREATE TABLE keys (
    namespace   TEXT    NOT NULL,
    source      TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    body_sha256 TEXT    NOT NULL,
    sid         INTEGER NOT NULL,
    session_uid TEXT    NOT NULL,
    seq         INTEGER NOT NULL,
    turn_id     TEXT    NOT NULL,
    strategy    TEXT    NOT NULL,
    at_ms       INTEGER NOT NULL,
    PRIMARY KEY (namespace, source, key)
) WITHOUT ROWID;
CREATE INDEX keys_age ON keys (at_ms);

CREATE TABLE workers (
    id            TEXT    NOT NULL PRIMARY KEY,  -- name/boot
    name          TEXT    NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    draining      INTEGER NOT NULL,
    catalogue     BLOB    NOT NULL,
    started_at_ms INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE definitions (
    digest TEXT NOT NULL PRIMARY KEY,
    body   BLOB NOT NULL
);

CREATE TABLE resources (
    namespace      TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    name           TEXT    NOT NULL,
    uid            TEXT    NOT NULL,
    generation     INTEGER NOT NULL,
    revision       INTEGER NOT NULL,
    version        INTEGER NOT NULL,
    body           BLOB    NOT NULL,
    created_at_ms  INTEGER NOT NULL,
    updated_at_ms  INTEGER NOT NULL,
    deleting_at_ms INTEGER,
    PRIMARY KEY (kind, namespace, name)
);
CREATE INDEX resources_of_namespace ON resources (namespace, kind, name);
CREATE INDEX resources_deleting ON resources (kind, deleting_at_ms, namespace, name) WHERE deleting_at_ms IS NOT NULL;

-- What selectors look for, in one namespace or in all.
CREATE TABLE resource_labels (
    namespace TEXT NOT NULL,
    kind      TEXT NOT NULL,
    name      TEXT NOT NULL,
    key       TEXT NOT NULL,
    value     TEXT NOT NULL,
    PRIMARY KEY (kind, key, value, namespace, name)
) WITHOUT ROWID;
CREATE INDEX resource_labels_of ON resource_labels (namespace, kind, name);

CREATE TABLE resource_refs (
    namespace TEXT NOT NULL,
    kind      TEXT NOT NULL,
    name      TEXT NOT NULL,
    to_kind   TEXT NOT NULL,
    to_name   TEXT NOT NULL
);
CREATE UNIQUE INDEX resource_refs_to ON resource_refs (to_kind, to_name, namespace, kind, name);
CREATE INDEX resource_refs_of ON resource_refs (namespace, kind, name, to_kind, to_name);

-- The version of the newest change of a namespace, and of the newest that is forgotten. A row stays when its namespace goes.
CREATE TABLE namespace_versions (
    namespace TEXT    NOT NULL PRIMARY KEY,
    version   INTEGER NOT NULL,
    forgotten INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- Each change of a resource, with the row as it was written, for watches. `labels_before` is JSON.
CREATE TABLE resource_events (
    namespace      TEXT    NOT NULL,
    version        INTEGER NOT NULL,
    event          TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    name           TEXT    NOT NULL,
    uid            TEXT    NOT NULL,
    generation     INTEGER NOT NULL,
    revision       INTEGER NOT NULL,
    body           BLOB    NOT NULL,
    created_at_ms  INTEGER NOT NULL,
    updated_at_ms  INTEGER NOT NULL,
    deleting_at_ms INTEGER,
    labels_before  BLOB    NOT NULL,
    at_ms          INTEGER NOT NULL,
    PRIMARY KEY (namespace, version)
);
CREATE INDEX resource_events_of_kind ON resource_events (namespace, kind, version);
CREATE INDEX resource_events_age ON resource_events (at_ms);

CREATE TABLE sealed_values (
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    uid       TEXT NOT NULL,
    key_id    TEXT NOT NULL,
    sealed    BLOB NOT NULL,
    PRIMARY KEY (namespace, name)
);

CREATE TABLE secret_uses (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    used_by   TEXT    NOT NULL,
    purpose   TEXT    NOT NULL,
    at_ms     INTEGER NOT NULL
);
CREATE INDEX secret_uses_of ON secret_uses (namespace, name, id);
CREATE INDEX secret_uses_age ON secret_uses (at_ms);

CREATE TABLE revisions (
    namespace     TEXT    NOT NULL,
    agent         TEXT    NOT NULL,
    revision      INTEGER NOT NULL,
    effective     BLOB    NOT NULL,
    digest        TEXT    NOT NULL,
    cause         TEXT    NOT NULL,
    body          BLOB    NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (namespace, agent, revision)
);

-- Payloads over 64 KiB, per namespace. `put_at_ms` is when it was last put: it is collected 24 h later unless it is `kept`: an entry
-- names it, and entries stay for ever.
CREATE TABLE blobs (
    namespace TEXT    NOT NULL,
    digest    TEXT    NOT NULL,
    key_id    TEXT    NOT NULL,
    payload   BLOB    NOT NULL,
    put_at_ms INTEGER NOT NULL,
    kept      INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (namespace, digest)
);
CREATE INDEX blobs_age ON blobs (put_at_ms) WHERE NOT kept;

-- What recognises somebody: keys, clients' tokens, browser sessions (talon.store.access). `grants` is JSON. `number` is the order
-- in which they were made, `revoked_version` the access version that a revocation made.
CREATE TABLE credentials (
    number          INTEGER PRIMARY KEY AUTOINCREMENT,
    id              TEXT    NOT NULL UNIQUE,
    kind            TEXT    NOT NULL,
    digest          BLOB    NOT NULL,
    name            TEXT    NOT NULL,
    grants          BLOB    NOT NULL,
    agent           TEXT    NOT NULL,
    session         TEXT    NOT NULL,
    parent          TEXT    NOT NULL,
    created_by      TEXT    NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    expires_at_ms   INTEGER,
    revoked_at_ms   INTEGER,
    used_at_ms      INTEGER,
    revoked_version INTEGER
);
CREATE INDEX credentials_of_kind ON credentials (kind, number);
CREATE INDEX credentials_of_parent ON credentials (parent) WHERE parent <> '';
CREATE INDEX credentials_revoked ON credentials (revoked_version) WHERE revoked_version IS NOT NULL;
CREATE INDEX credentials_revoked_age ON credentials (revoked_at_ms) WHERE revoked_at_ms IS NOT NULL;
CREATE INDEX credentials_expired_age ON credentials (expires_at_ms) WHERE expires_at_ms IS NOT NULL;

-- One row: the number of the newest revocation.
CREATE TABLE access_state (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL
);
INSERT INTO access_state (one, version) VALUES (1, 0);

-- Who did what.
CREATE TABLE access_log (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms      INTEGER NOT NULL,
    who        TEXT    NOT NULL,
    verb       TEXT    NOT NULL,
    operation  TEXT    NOT NULL,
    namespace  TEXT    NOT NULL,
    object     TEXT    NOT NULL,
    outcome    TEXT    NOT NULL,
    request_id TEXT    NOT NULL,
    address    TEXT    NOT NULL,
    via        TEXT    NOT NULL
);
CREATE INDEX access_log_of_who ON access_log (who, number);
CREATE INDEX access_log_of_namespace ON access_log (namespace, number);
CREATE INDEX access_log_refused ON access_log (number) WHERE outcome <> 'ok';

-- Where each schedule stands (talon.store.schedules): one row beside its resource, written with it. `plan` is JSON.
CREATE TABLE schedules (
    uid           TEXT    PRIMARY KEY,
    namespace     TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    generation    INTEGER NOT NULL,
    enabled       INTEGER NOT NULL,
    plan          BLOB    NOT NULL,
    since_ms      INTEGER NOT NULL,
    occurrence_ms INTEGER,
    due_ms        INTEGER,
    look_ms       INTEGER,
    done_ms       INTEGER NOT NULL,
    tzdata        TEXT    NOT NULL,
    fired         INTEGER NOT NULL,
    recorded      INTEGER NOT NULL,
    failures      INTEGER NOT NULL,
    error         TEXT    NOT NULL
) WITHOUT ROWID;
CREATE INDEX schedules_due ON schedules (look_ms) WHERE look_ms IS NOT NULL;
CREATE INDEX schedules_held ON schedules (look_ms) WHERE look_ms > due_ms + 60000;  -- talon.store.schedules.LATE_MAX_MS
CREATE INDEX schedules_zones ON schedules (tzdata, uid) WHERE occurrence_ms IS NOT NULL;

-- Occurrences that somebody outside was told of, and that a change of their schedule took away (talon.store.schedules.Dropped).
CREATE TABLE dropped_occurrences (
    uid           TEXT    NOT NULL,
    since_ms      INTEGER NOT NULL,
    occurrence_ms INTEGER NOT NULL,
    PRIMARY KEY (uid, since_ms, occurrence_ms)
) WITHOUT ROWID;

-- What became of their occurrences, the newest of each schedule. `number` counts them.
CREATE TABLE firings (
    uid           TEXT    NOT NULL,
    number        INTEGER NOT NULL,
    outcome       TEXT    NOT NULL,
    occurrence_ms INTEGER NOT NULL,
    last_ms       INTEGER NOT NULL,
    count         INTEGER NOT NULL,
    due_ms        INTEGER NOT NULL,
    at_ms         INTEGER NOT NULL,
    manual        INTEGER NOT NULL,
    agent         TEXT    NOT NULL,
    session       TEXT    NOT NULL,
    sid           INTEGER NOT NULL,
    turn_id       TEXT    NOT NULL,
    why           TEXT    NOT NULL,
    PRIMARY KEY (uid, number)
) WITHOUT ROWID;

-- Small states that all workers share: circuits and quotas of providers (talon.store.shared).
CREATE TABLE shared_states (
    name  TEXT NOT NULL PRIMARY KEY,
    state BLOB NOT NULL
);
