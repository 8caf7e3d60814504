-- The wall: row-level security for the role that gateways read with for their callers (decision 0017). And the namespaces that a
-- credential reaches, beside it, for lists of those that somebody manages.
-- min_program: 1
--
-- Whoever owns the tables (gateways, workers and upkeep by themselves) passes by row-level security, and runs the plans that it ran
-- before. The role itself is made when a gateway starts: who migrates may not be allowed to. A new table that has to do with a
-- namespace gets a policy here or in its own migration; a table without row-level security is not shown to the role at all.

ALTER TABLE credentials ADD COLUMN places text[] COLLATE "C" NOT NULL DEFAULT '{}';
UPDATE credentials c SET places = ARRAY(
    SELECT DISTINCT g.one ->> 'namespace' FROM jsonb_array_elements(convert_from(c.grants, 'UTF8')::jsonb) AS g(one) ORDER BY 1)
WHERE length(c.grants) > 0;
CREATE INDEX credentials_of_place ON credentials (kind, (places[1]), number);

-- What somebody sees stands in settings of the connection. `talon.namespaces`, each with a colon behind it, parted by spaces: they
-- are compared by segment, so `acme:` begins `acme:` and `acme:eu:`, and not `acme-two:`. `talon.above` are the namespaces that
-- these lie in, where references are resolved. `talon.agent` and `talon.session` narrow it. Where none is set nothing is seen.
CREATE FUNCTION in_sight(place text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (place || ':') COLLATE "C" ^@ ANY (array_remove(string_to_array(current_setting('talon.namespaces', true), ' '), ''))
$$;
CREATE FUNCTION is_above(place text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT place COLLATE "C" = ANY (string_to_array(current_setting('talon.above', true), ' '))
$$;
CREATE FUNCTION of_agent(agent text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(current_setting('talon.agent', true), '') COLLATE "C" IN ('', agent)
$$;
CREATE FUNCTION unscoped() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(current_setting('talon.agent', true), '') = ''
$$;
CREATE FUNCTION session_in_sight(place text, agent text, session text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT in_sight(place) AND of_agent(agent) AND coalesce(current_setting('talon.session', true), '') COLLATE "C" IN ('', session)
$$;

-- The role that the policies are for: named after the owner, and its member alone, so that installations of several owners on one
-- server have nothing of each other. Any other role sees what it is granted, as before.
DO $$
DECLARE
    owner text := current_user;
    named text := CASE WHEN length(owner) <= 50 THEN owner ELSE left(owner, 40) || '_' || left(md5(owner), 8) END || '_gateway';
    one record;
BEGIN
    EXECUTE format(
        'CREATE FUNCTION wall_role() RETURNS name LANGUAGE sql IMMUTABLE PARALLEL SAFE AS %L', format('SELECT %L::name', named));
    FOR one IN SELECT * FROM (VALUES
        ('sessions', 'session_in_sight(namespace, agent, id)'),
        ('held', '(SELECT true FROM sessions s WHERE s.sid = held.sid)'),
        ('turns', '(SELECT true FROM sessions s WHERE s.sid = turns.sid)'),
        ('journal', '(SELECT true FROM sessions s WHERE s.sid = journal.sid)'),
        ('fragments', '(SELECT true FROM sessions s WHERE s.sid = fragments.sid)'),
        ('approvals', '(SELECT true FROM sessions s WHERE s.sid = approvals.sid)'),
        ('keys', 'unscoped() AND in_sight(namespace)'),
        ('blobs', 'in_sight(namespace)'),
        ('resources', $p$CASE
            WHEN kind = 'Namespace' THEN in_sight(name) OR is_above(name)
            WHEN kind = 'Agent' THEN in_sight(namespace) AND of_agent(name)
            ELSE unscoped() AND (in_sight(namespace)
                OR (is_above(namespace) AND kind IN ('AgentTemplate', 'Knowledge', 'McpServer')))
            END$p$),
        ('resource_labels', $p$unscoped() AND in_sight(CASE kind WHEN 'Namespace' THEN name ELSE namespace END)$p$),
        ('resource_refs', $p$unscoped() AND in_sight(CASE kind WHEN 'Namespace' THEN name ELSE namespace END)$p$),
        ('resource_events', $p$unscoped() AND in_sight(CASE kind WHEN 'Namespace' THEN name ELSE namespace END)$p$),
        ('namespace_versions', $p$unscoped() AND (namespace = '' OR in_sight(namespace))$p$),
        ('revisions', 'in_sight(namespace) AND of_agent(agent)'),
        ('sealed_values', 'unscoped() AND in_sight(namespace)'),
        ('secret_uses', 'unscoped() AND in_sight(namespace)'),
        ('schedules', 'unscoped() AND in_sight(namespace)'),
        ('firings', '(SELECT true FROM schedules s WHERE s.uid = firings.uid)'),
        ('access_log', 'unscoped() AND in_sight(namespace)'),
        ('credentials', $p$unscoped() AND places <> '{}'
            AND NOT EXISTS (SELECT FROM unnest(places) AS p(place) WHERE in_sight(p.place) IS NOT TRUE)$p$)
    ) AS tables(name, seen) LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', one.name);
        EXECUTE format('CREATE POLICY wall ON %I FOR SELECT USING (%s)', one.name, one.seen);
        EXECUTE format('CREATE POLICY others ON %I USING (current_user <> wall_role())', one.name);
    END LOOP;
END $$;

-- What the wall finds by indexes over expressions. Behind row-level security the planner takes such an index for nothing that a row
-- has not passed its policy for, so each of these looks with the owner's rights, finds only what is in sight, and gives the keys of
-- rows; the rows themselves the policies show. (Labels and references are nothing but their keys.)
CREATE FUNCTION seen_session(place text, agent text, session text) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
BEGIN
    IF session_in_sight(place, agent, session) IS NOT TRUE THEN RETURN NULL; END IF;
    RETURN (SELECT s.sid FROM sessions s
        WHERE s.namespace || '/' || s.agent || '/' || s.id = $1 || '/' || $2 || '/' || $3 ORDER BY s.first_seq DESC LIMIT 1);
END $$;
CREATE FUNCTION seen_sessions(place text, agent text, before bigint, most bigint) RETURNS TABLE (sid bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
BEGIN
    IF in_sight(place) IS NOT TRUE THEN RETURN; END IF;
    IF agent = '' THEN
        RETURN QUERY SELECT s.sid FROM sessions s
            WHERE s.namespace || '/' = $1 || '/' AND -s.sid > -$3 AND s.deleted_at_ms IS NULL ORDER BY -s.sid LIMIT $4;
    ELSE
        RETURN QUERY SELECT s.sid FROM sessions s
            WHERE s.namespace || '/' || s.agent = $1 || '/' || $2 AND -s.sid > -$3 AND s.deleted_at_ms IS NULL
            ORDER BY -s.sid LIMIT $4;
    END IF;
END $$;
CREATE FUNCTION seen_resources(place text, after_kind text, after_name text, most bigint) RETURNS TABLE (kind text, name text)
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
BEGIN
    IF (unscoped() AND in_sight(place)) IS NOT TRUE THEN RETURN; END IF;
    RETURN QUERY SELECT r.kind, r.name FROM resources r
        WHERE r.namespace || '/' = $1 || '/' AND (r.kind, r.name) > ($2, $3) ORDER BY r.kind, r.name LIMIT $4;
END $$;
CREATE FUNCTION seen_labels(paths text[]) RETURNS TABLE (key text, value text)
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
BEGIN
    RETURN QUERY SELECT l.key, l.value FROM resource_labels l
        WHERE l.namespace || '/' || l.kind || '/' || l.name = ANY ($1)
        AND unscoped() AND in_sight(CASE l.kind WHEN 'Namespace' THEN l.name ELSE l.namespace END);
END $$;
CREATE FUNCTION seen_refs(paths text[]) RETURNS TABLE (namespace text, kind text, name text, to_kind text, to_name text)
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
BEGIN
    RETURN QUERY SELECT f.namespace, f.kind, f.name, f.to_kind, f.to_name FROM resource_refs f
        WHERE f.namespace || '/' || f.kind || '/' || f.name = ANY ($1)
        AND unscoped() AND in_sight(CASE f.kind WHEN 'Namespace' THEN f.name ELSE f.namespace END);
END $$;
CREATE FUNCTION seen_events(place text, of_kind text, after bigint, most bigint) RETURNS TABLE (version bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
BEGIN
    RETURN QUERY SELECT e.version FROM resource_events e
        WHERE e.namespace || '/' || e.kind = $1 || '/' || $2 AND e.version > $3
        AND unscoped() AND in_sight(CASE e.kind WHEN 'Namespace' THEN e.name ELSE e.namespace END) ORDER BY e.version LIMIT $4;
END $$;
CREATE FUNCTION seen_uses(place text, secret text, before bigint, most bigint) RETURNS TABLE (id bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
BEGIN
    IF (unscoped() AND in_sight(place)) IS NOT TRUE THEN RETURN; END IF;
    RETURN QUERY SELECT u.id FROM secret_uses u
        WHERE u.namespace || '/' || u.name = $1 || '/' || $2 AND u.id < $3 ORDER BY u.id DESC LIMIT $4;
END $$;
CREATE FUNCTION seen_log(which text, what text, before bigint, most bigint) RETURNS TABLE (number bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
BEGIN
    IF which = 'namespace' THEN
        RETURN QUERY SELECT l.number FROM access_log l WHERE -l.number > -$3 AND l.namespace || '/' = $2 || '/'
            AND unscoped() AND in_sight(l.namespace) ORDER BY -l.number LIMIT $4;
    ELSIF which = 'who' THEN
        RETURN QUERY SELECT l.number FROM access_log l WHERE -l.number > -$3 AND l.who || '/' = $2 || '/'
            AND unscoped() AND in_sight(l.namespace) ORDER BY -l.number LIMIT $4;
    ELSE
        RETURN QUERY SELECT l.number FROM access_log l WHERE -l.number > -$3 AND l.outcome <> 'ok'
            AND unscoped() AND in_sight(l.namespace) ORDER BY -l.number LIMIT $4;
    END IF;
END $$;
-- They look at the tables of this schema and of no other, whatever their caller's search path is, and are the role's alone to call.
DO $$
DECLARE
    one regprocedure;
BEGIN
    FOR one IN
        SELECT p.oid FROM pg_proc p WHERE p.pronamespace = current_schema()::regnamespace AND p.prosecdef AND p.proname LIKE 'seen\_%'
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', one, current_schema());
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', one);
    END LOOP;
END $$;
