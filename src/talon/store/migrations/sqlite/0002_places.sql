-- The namespaces that a credential reaches, beside it, for lists of those that somebody manages: JSON, sorted.
-- min_program: 1

ALTER TABLE credentials ADD COLUMN places TEXT NOT NULL DEFAULT '[]';
UPDATE credentials SET places = (
    SELECT json_group_array(place) FROM (
        SELECT DISTINCT json_extract(g.value, '$.namespace') AS place FROM json_each(CAST(grants AS TEXT)) g ORDER BY 1))
WHERE length(grants) > 0;
CREATE INDEX credentials_of_place ON credentials (kind, json_extract(places, '$[0]'), number);
