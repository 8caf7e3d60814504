-- The kernel: sessions, their journals, the projections beside them, dispatch, manifests.
-- min_program: 1
--
-- Columns are named as the fields of the row structs in talon.domain.session, talon.store.model and talon.store.resources. Times
-- are Unix milliseconds by this database's clock. Payloads, JSON and streamed text are bytea: bytes in, bytes out, NUL included.
-- No foreign keys on the journal: they double what a commit costs, and nothing is ever deleted that one would guard.
-- Names and ids compare by bytes (COLLATE "C"): lists have one order everywhere, and indexes are cheap.

CREATE TABLE schema_info (
    version     integer PRIMARY KEY,   -- number of the migration
    min_program integer NOT NULL,      -- the oldest program (its newest migration) that may use the schema from here on
    at_ms       bigint  NOT NULL
);

-- One row per incarnation. While `owner` holds the session, `wake_at_ms` is null. `min_reader` is the highest of its entries.
-- `unguarded` is the id of the newest append that came without `if_last_seq`: one whose answer was lost is known by it.
-- What changes most stands last, and no index has it: an update stays in its page and writes little into the log. Room is left for it.
CREATE TABLE sessions (
    sid           bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uid           uuid    NOT NULL,
    first_seq     bigint  NOT NULL,
    created_at_ms bigint  NOT NULL,
    namespace     text    COLLATE "C" NOT NULL,
    agent         text    COLLATE "C" NOT NULL,
    id            text    COLLATE "C" NOT NULL,
    profile       text    COLLATE "C" NOT NULL,
    config        bytea   NOT NULL DEFAULT '\x7b7d',
    key_id        text    COLLATE "C" NOT NULL,
    metadata      bytea   NOT NULL,
    features      bytea   NOT NULL,
    min_reader    integer NOT NULL DEFAULT 1,
    deleted_at_ms bigint,
    wake_at_ms    bigint,
    fence         bigint  NOT NULL,
    last_seq      bigint  NOT NULL,
    updated_at_ms bigint  NOT NULL,
    queued        integer NOT NULL,
    state         text    COLLATE "C" NOT NULL,
    turn_id       uuid,
    owner         text    COLLATE "C",
    unguarded     uuid,
    CHECK (owner IS NULL OR wake_at_ms IS NULL),
    CHECK (queued >= 0)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
-- Names and the order of lists are expressions here, so that a query has one index to choose from, whatever the planner thinks of
-- the table's size when it makes its plan. (No part of a name holds a slash.)
-- Each incarnation begins behind the one before it; so two that are made at once are one too many here, and the living one is the last.
CREATE UNIQUE INDEX sessions_incarnations ON sessions ((namespace || '/' || agent || '/' || id), first_seq);
CREATE INDEX sessions_of_agent ON sessions ((namespace || '/' || agent), (-sid)) WHERE deleted_at_ms IS NULL;
CREATE INDEX sessions_of_namespace ON sessions ((namespace || '/'), (-sid)) WHERE deleted_at_ms IS NULL;
CREATE INDEX sessions_wake ON sessions (wake_at_ms) WHERE wake_at_ms IS NOT NULL;
CREATE INDEX sessions_wake_agent ON sessions (namespace, agent, wake_at_ms) WHERE wake_at_ms IS NOT NULL;

-- The sessions that are owned, by their `owner`: as many rows as turns run now.
CREATE TABLE held (
    sid   bigint NOT NULL PRIMARY KEY,
    owner text   COLLATE "C" NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- `queued` says what `state` says, and changes once: so the index over it is left alone by the turn's further life. What changes most
-- stands last.
CREATE TABLE turns (
    turn_id       uuid    NOT NULL PRIMARY KEY,
    sid           bigint  NOT NULL,
    seq           bigint  NOT NULL,
    created_at_ms bigint  NOT NULL,
    started_at_ms bigint,
    strategy      text    COLLATE "C" NOT NULL,
    source        text    COLLATE "C" NOT NULL,
    queued        boolean NOT NULL,
    priority      integer NOT NULL,
    steered       integer NOT NULL DEFAULT 0,
    revision      integer NOT NULL,
    attempts      integer NOT NULL,
    input_tokens  bigint  NOT NULL,
    output_tokens bigint  NOT NULL,
    ended_at_ms   bigint,
    state         text    COLLATE "C" NOT NULL,
    reason        text    COLLATE "C" NOT NULL,
    waiting_for   text    COLLATE "C" NOT NULL,
    loop          bytea   NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX turns_of_session ON turns (sid, seq);
CREATE INDEX turns_queued ON turns (sid, priority DESC, seq) WHERE queued;

-- The journal: a row per append or inbox operation, of all its entries (talon.store.pack). It is the entries up to `last_seq`, from the
-- row before it on. `types` is the set of their types as bits; `append_id` is that of the append, or marks the delivery.
CREATE TABLE journal (
    sid       bigint NOT NULL,
    last_seq  bigint NOT NULL,
    at_ms     bigint NOT NULL,
    types     bigint NOT NULL,
    append_id uuid,
    pack      bytea  NOT NULL,
    PRIMARY KEY (sid, last_seq)
);
-- CONTEXT_BITS and MESSAGE_BITS of talon.store.pack; a test compares them.
CREATE INDEX journal_context ON journal (sid, last_seq) WHERE (types & 3269873158) <> 0;
CREATE INDEX journal_messages ON journal (sid, last_seq) WHERE (types & 6) <> 0;

CREATE TABLE fragments (
    sid      bigint NOT NULL,
    seq      bigint NOT NULL,
    kind     text   COLLATE "C" NOT NULL,
    "offset" bigint NOT NULL,
    text     bytea  NOT NULL,  -- UTF-8
    PRIMARY KEY (sid, seq, kind, "offset")
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- `namespace` is its session's, for lists.
CREATE TABLE approvals (
    id             text    COLLATE "C" NOT NULL PRIMARY KEY,
    sid            bigint  NOT NULL,
    namespace      text    COLLATE "C" NOT NULL,
    turn_id        uuid    NOT NULL,
    call           integer NOT NULL,
    kind           text    COLLATE "C" NOT NULL,
    state          text    COLLATE "C" NOT NULL,
    payload        bytea   NOT NULL,
    outcome        text    COLLATE "C" NOT NULL,
    resolved_by    text    COLLATE "C" NOT NULL,
    created_at_ms  bigint  NOT NULL,
    resolved_at_ms bigint
);
CREATE INDEX approvals_of_turn ON approvals (sid, turn_id);
CREATE INDEX approvals_of_namespace ON approvals (namespace, created_at_ms, id);
CREATE INDEX approvals_of_state ON approvals (namespace, state, created_at_ms, id);

-- Idempotency keys and the receipts that they give (talon.domain.inbox.Key, Receipt).
CREATE TABLE keys (
    namespace   text   COLLATE "C" NOT NULL,
    source      text   COLLATE "C" NOT NULL,
    key         text   COLLATE "C" NOT NULL,
    body_sha256 text   COLLATE "C" NOT NULL,
    sid         bigint NOT NULL,
    session_uid text   COLLATE "C" NOT NULL,
    seq         bigint NOT NULL,
    turn_id     text   COLLATE "C" NOT NULL,
    strategy    text   COLLATE "C" NOT NULL,
    at_ms       bigint NOT NULL,
    PRIMARY KEY (namespace, source, key)
);
CREATE INDEX keys_age ON keys (at_ms);

CREATE TABLE workers (
    id            text    COLLATE "C" NOT NULL PRIMARY KEY,  -- name/boot
    name          text    COLLATE "C" NOT NULL,
    expires_at_ms bigint  NOT NULL,
    draining      boolean NOT NULL,
    catalogue     bytea   NOT NULL,
    started_at_ms bigint  NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE definitions (
    digest text  COLLATE "C" NOT NULL PRIMARY KEY,
    body   bytea NOT NULL
);

CREATE TABLE resources (
    namespace      text    COLLATE "C" NOT NULL,
    kind           text    COLLATE "C" NOT NULL,
    name           text    COLLATE "C" NOT NULL,
    uid            text    COLLATE "C" NOT NULL,
    generation     integer NOT NULL,
    revision       integer NOT NULL,
    version        bigint  NOT NULL,
    body           bytea   NOT NULL,
    created_at_ms  bigint  NOT NULL,
    updated_at_ms  bigint  NOT NULL,
    deleting_at_ms bigint,
    PRIMARY KEY (kind, namespace, name)
);
CREATE INDEX resources_of_namespace ON resources ((namespace || '/'), kind, name);
CREATE INDEX resources_deleting ON resources ((kind || '/'), deleting_at_ms, namespace, name) WHERE deleting_at_ms IS NOT NULL;

-- What selectors look for, in one namespace or in all.
CREATE TABLE resource_labels (
    namespace text COLLATE "C" NOT NULL,
    kind      text COLLATE "C" NOT NULL,
    name      text COLLATE "C" NOT NULL,
    key       text COLLATE "C" NOT NULL,
    value     text COLLATE "C" NOT NULL,
    PRIMARY KEY (kind, key, value, namespace, name)
);
CREATE INDEX resource_labels_of ON resource_labels ((namespace || '/' || kind || '/' || name));

CREATE TABLE resource_refs (
    namespace text COLLATE "C" NOT NULL,
    kind      text COLLATE "C" NOT NULL,
    name      text COLLATE "C" NOT NULL,
    to_kind   text COLLATE "C" NOT NULL,
    to_name   text COLLATE "C" NOT NULL,
    PRIMARY KEY (to_kind, to_name, namespace, kind, name)
);
CREATE INDEX resource_refs_of ON resource_refs ((namespace || '/' || kind || '/' || name));

-- The version of the newest change of a namespace, and of the newest that is forgotten. A row stays when its namespace goes.
CREATE TABLE namespace_versions (
    namespace text   COLLATE "C" NOT NULL PRIMARY KEY,
    version   bigint NOT NULL,
    forgotten bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- Each change of a resource, with the row as it was written, for watches. `labels_before` is JSON.
CREATE TABLE resource_events (
    namespace      text    COLLATE "C" NOT NULL,
    version        bigint  NOT NULL,
    event          text    COLLATE "C" NOT NULL,
    kind           text    COLLATE "C" NOT NULL,
    name           text    COLLATE "C" NOT NULL,
    uid            text    COLLATE "C" NOT NULL,
    generation     integer NOT NULL,
    revision       integer NOT NULL,
    body           bytea   NOT NULL,
    created_at_ms  bigint  NOT NULL,
    updated_at_ms  bigint  NOT NULL,
    deleting_at_ms bigint,
    labels_before  bytea   NOT NULL,
    at_ms          bigint  NOT NULL,
    PRIMARY KEY (namespace, version)
);
CREATE INDEX resource_events_of_kind ON resource_events ((namespace || '/' || kind), version);
CREATE INDEX resource_events_age ON resource_events (at_ms);

CREATE TABLE sealed_values (
    namespace text  COLLATE "C" NOT NULL,
    name      text  COLLATE "C" NOT NULL,
    uid       text  COLLATE "C" NOT NULL,
    key_id    text  COLLATE "C" NOT NULL,
    sealed    bytea NOT NULL,
    PRIMARY KEY (namespace, name)
);

CREATE TABLE secret_uses (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace text   COLLATE "C" NOT NULL,
    name      text   COLLATE "C" NOT NULL,
    used_by   text   COLLATE "C" NOT NULL,
    purpose   text   COLLATE "C" NOT NULL,
    at_ms     bigint NOT NULL
);
CREATE INDEX secret_uses_of ON secret_uses ((namespace || '/' || name), id);
CREATE INDEX secret_uses_age ON secret_uses (at_ms);

-- Whether a session may begin: its agent is still the one that was looked at, and stays until this transaction ends. The lock is the
-- one that the end of an agent takes alone; what is asked after it was waited for is true, which one statement by itself cannot say.
CREATE FUNCTION agent_stays(agent_lock bigint, place text, agent text, newest integer) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(agent_lock);
    RETURN EXISTS (
        SELECT FROM resources r
        WHERE r.kind = 'Agent' AND r.namespace = place AND r.name = agent AND r.revision = newest AND r.deleting_at_ms IS NULL);
END $$;

CREATE TABLE revisions (
    namespace     text    COLLATE "C" NOT NULL,
    agent         text    COLLATE "C" NOT NULL,
    revision      integer NOT NULL,
    effective     bytea   NOT NULL,
    digest        text    COLLATE "C" NOT NULL,
    cause         text    COLLATE "C" NOT NULL,
    body          bytea   NOT NULL,
    created_at_ms bigint  NOT NULL,
    PRIMARY KEY (namespace, agent, revision)
);

-- Payloads over 64 KiB, per namespace. `put_at_ms` is when it was last put: it is collected 24 h later unless it is `kept`: an entry
-- names it, and entries stay for ever.
CREATE TABLE blobs (
    namespace text   COLLATE "C" NOT NULL,
    digest    text   COLLATE "C" NOT NULL,
    key_id    text   COLLATE "C" NOT NULL,
    payload   bytea  NOT NULL,
    put_at_ms bigint NOT NULL,
    kept      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (namespace, digest)
);
CREATE INDEX blobs_age ON blobs (put_at_ms) WHERE NOT kept;

-- What recognises somebody: keys, clients' tokens, browser sessions (talon.store.access). `grants` is JSON. `number` is the order
-- in which they were made, `revoked_version` the access version that a revocation made.
CREATE TABLE credentials (
    number          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id              text   COLLATE "C" NOT NULL,
    kind            text   COLLATE "C" NOT NULL,
    digest          bytea  NOT NULL,
    name            text   COLLATE "C" NOT NULL,
    grants          bytea  NOT NULL,
    agent           text   COLLATE "C" NOT NULL,
    session         text   COLLATE "C" NOT NULL,
    parent          text   COLLATE "C" NOT NULL,
    created_by      text   COLLATE "C" NOT NULL,
    created_at_ms   bigint NOT NULL,
    expires_at_ms   bigint,
    revoked_at_ms   bigint,
    used_at_ms      bigint,
    revoked_version bigint
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX credentials_id ON credentials (id);
CREATE INDEX credentials_of_kind ON credentials ((kind || '/'), (-number));
CREATE INDEX credentials_of_parent ON credentials (parent) WHERE parent <> '';
CREATE INDEX credentials_revoked ON credentials (revoked_version) WHERE revoked_version IS NOT NULL;
CREATE INDEX credentials_revoked_age ON credentials (revoked_at_ms) WHERE revoked_at_ms IS NOT NULL;
CREATE INDEX credentials_expired_age ON credentials (expires_at_ms) WHERE expires_at_ms IS NOT NULL;

-- One row: the number of the newest revocation. Who revokes, and who makes the first key, holds it to the commit.
CREATE TABLE access_state (
    one     integer PRIMARY KEY CHECK (one = 1),
    version bigint  NOT NULL
) WITH (fillfactor = 50);
INSERT INTO access_state (one, version) VALUES (1, 0);

-- Who did what.
CREATE TABLE access_log (
    number     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_ms      bigint NOT NULL,
    who        text   COLLATE "C" NOT NULL,
    verb       text   COLLATE "C" NOT NULL,
    operation  text   COLLATE "C" NOT NULL,
    namespace  text   COLLATE "C" NOT NULL,
    object     text   COLLATE "C" NOT NULL,
    outcome    text   COLLATE "C" NOT NULL,
    request_id text   COLLATE "C" NOT NULL,
    address    text   COLLATE "C" NOT NULL,
    via        text   COLLATE "C" NOT NULL
);
CREATE INDEX access_log_of_who ON access_log ((who || '/'), (-number));
CREATE INDEX access_log_of_namespace ON access_log ((namespace || '/'), (-number));
CREATE INDEX access_log_refused ON access_log ((-number)) WHERE outcome <> 'ok';

-- Where each schedule stands (talon.store.schedules): one row beside its resource, written with it. `plan` is JSON.
CREATE TABLE schedules (
    uid           text    COLLATE "C" PRIMARY KEY,
    namespace     text    COLLATE "C" NOT NULL,
    name          text    COLLATE "C" NOT NULL,
    generation    integer NOT NULL,
    enabled       boolean NOT NULL,
    plan          bytea   NOT NULL,
    since_ms      bigint  NOT NULL,
    occurrence_ms bigint,
    due_ms        bigint,
    look_ms       bigint,
    done_ms       bigint  NOT NULL,
    tzdata        text    COLLATE "C" NOT NULL,
    fired         bigint  NOT NULL,
    recorded      bigint  NOT NULL,
    failures      integer NOT NULL,
    error         text    COLLATE "C" NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX schedules_due ON schedules (look_ms) WHERE look_ms IS NOT NULL;
CREATE INDEX schedules_held ON schedules (look_ms) WHERE look_ms > due_ms + 60000;  -- talon.store.schedules.LATE_MAX_MS
CREATE INDEX schedules_zones ON schedules (tzdata, uid) WHERE occurrence_ms IS NOT NULL;

-- Occurrences that somebody outside was told of, and that a change of their schedule took away (talon.store.schedules.Dropped).
CREATE TABLE dropped_occurrences (
    uid           text   COLLATE "C" NOT NULL,
    since_ms      bigint NOT NULL,
    occurrence_ms bigint NOT NULL,
    PRIMARY KEY (uid, since_ms, occurrence_ms)
);

-- What became of their occurrences, the newest of each schedule. `number` counts them.
CREATE TABLE firings (
    uid           text    COLLATE "C" NOT NULL,
    number        bigint  NOT NULL,
    outcome       text    COLLATE "C" NOT NULL,
    occurrence_ms bigint  NOT NULL,
    last_ms       bigint  NOT NULL,
    count         integer NOT NULL,
    due_ms        bigint  NOT NULL,
    at_ms         bigint  NOT NULL,
    manual        boolean NOT NULL,
    agent         text    COLLATE "C" NOT NULL,
    session       text    COLLATE "C" NOT NULL,
    sid           bigint  NOT NULL,
    turn_id       text    COLLATE "C" NOT NULL,
    why           text    COLLATE "C" NOT NULL,
    PRIMARY KEY (uid, number)
);

-- Small states that all workers share: circuits and quotas of providers (talon.store.shared).
CREATE TABLE shared_states (
    name  text COLLATE "C" NOT NULL PRIMARY KEY,
    state bytea NOT NULL
);
