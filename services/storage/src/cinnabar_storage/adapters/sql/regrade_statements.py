"""The statements of regrades. States and kinds are the numbers of the proto: 3 is SHADOW and CANCELLED."""

from __future__ import annotations

from cinnabar_storage.adapters.sql.held import held

# A regrade belongs to no submission: its own audit rows name it in the detail.
CREATE = """
WITH made AS (
    INSERT INTO regrades (regrade_id, tenant, course, assignment, filter, revision_id, shadow, reason, actor,
                          priority, claimed_until)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, now() + $11 * interval '1 second')
    ON CONFLICT (regrade_id) DO NOTHING
    RETURNING tenant, actor, regrade_id, reason
)
INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, detail)
SELECT tenant, actor, 'create-regrade', '', '', 0, regrade_id || ' ' || reason FROM made
"""
_COLUMNS = """
SELECT regrade_id, tenant, course, assignment, filter, revision_id, shadow, reason, actor, priority,
       create_time, wanted, decided_by, busy
FROM regrades
"""
GET = f"{_COLUMNS} WHERE tenant = $1 AND regrade_id = $2"
LIST = f"""{_COLUMNS}
WHERE tenant = $1 AND course = $2 AND assignment = $3 AND ($4 = '' OR regrade_id < $4)
ORDER BY regrade_id DESC LIMIT $5
"""
DECIDE = """
WITH decided AS (
    UPDATE regrades
    SET wanted = $3::smallint, decided_by = $4, busy = true, claimed_until = now() + $5 * interval '1 second'
    WHERE tenant = $1 AND regrade_id = $2 AND wanted = 1
    RETURNING tenant, regrade_id
)
INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, detail)
SELECT tenant, $4, $6 || '-regrade', '', '', 0, regrade_id FROM decided
"""
# Of all tenants: whoever runs takes over from whoever died.
CLAIM = f"""
UPDATE regrades SET claimed_until = now() + $2 * interval '1 second'
WHERE regrade_id IN (
    SELECT regrade_id FROM regrades WHERE busy AND claimed_until <= now() AND {held("regrade_id", "$3", "$4")}
    ORDER BY claimed_until LIMIT $1 FOR UPDATE SKIP LOCKED
)
RETURNING tenant, regrade_id
"""
ADVANCED = """
UPDATE regrades SET busy = $4, claimed_until = now() + $5 * interval '1 second'
WHERE tenant = $1 AND regrade_id = $2 AND wanted = $3
RETURNING true
"""
# A later decision begins anew; an earlier one finds that it is too late. So does
# the same one begin anew when the buckets of this shard have changed: what it did
# before, here or where a bucket was then, it finds done.
ENTER = """
INSERT INTO regrade_parts AS p (tenant, regrade_id, phase, version)
SELECT $1, $2, $3, coalesce((SELECT version FROM bucket_guard), 0)
ON CONFLICT (regrade_id) DO UPDATE
SET phase = excluded.phase, version = excluded.version, done = false, submission_id = '',
    skipped = CASE WHEN p.phase = excluded.phase AND p.phase = 1 THEN 0 ELSE p.skipped END,
    overtaken = 0
WHERE p.tenant = excluded.tenant
    AND (p.phase < excluded.phase OR (p.phase = excluded.phase AND p.version <> excluded.version))
"""
PART = """
SELECT phase, done, submission_id FROM regrade_parts WHERE tenant = $1 AND regrade_id = $2 FOR UPDATE
"""
CURSOR = """
SELECT submission_id FROM regrade_parts WHERE tenant = $1 AND regrade_id = $2 AND phase = $3
"""
MOVED = """
UPDATE regrade_parts
SET submission_id = $3, done = $4, opened = opened + $5, skipped = skipped + $6, promoted = promoted + $7,
    overtaken = overtaken + $8
WHERE tenant = $1 AND regrade_id = $2
"""
_PAGE = f"""
SELECT submission_id, revision_id FROM submissions
WHERE tenant = $1 AND course = $2 AND assignment = $3 AND submission_id > $4
    AND create_time >= timestamptz 'epoch' + $5::bigint * interval '1 microsecond'
    AND create_time < timestamptz 'epoch' + $6::bigint * interval '1 microsecond'
    AND ($7::text[] IS NULL OR author = ANY($7))
    AND {held("submission_id", "$9", "$10")}
ORDER BY submission_id LIMIT $8
"""
PAGE = f"{_PAGE} FOR UPDATE"
UPCOMING_REVISIONS = f"""
WITH page AS ({_PAGE})
SELECT revision_id FROM page
UNION
SELECT g.revision_id FROM page
JOIN grades g ON g.submission_id = page.submission_id AND g.tenant = $1
WHERE $11 AND g.revision_id IS NOT NULL
"""
LOCK = """
SELECT submission_id, revision_id FROM submissions
WHERE tenant = $1 AND submission_id = ANY($2) ORDER BY submission_id FOR UPDATE
"""
CANDIDATES = """
SELECT submission_id, item_id, coalesce(g.generation, 0), coalesce(g.kind, 0)::int, coalesce(g.score, 0),
       coalesce(g.revision_id, ''), greatest(g.last, t.generation), coalesce(t.state, 0)::int,
       coalesce(t.regrade_id = $3, false) OR coalesce(g.regraded, false)
FROM (
    SELECT submission_id, item_id, max(generation) AS last,
           bool_or(coalesce(regrade_id = $3, false)) AS regraded,
           max(generation) FILTER (WHERE kind <> 3) AS generation,
           (array_agg(kind ORDER BY generation DESC) FILTER (WHERE kind <> 3))[1] AS kind,
           (array_agg(score ORDER BY generation DESC) FILTER (WHERE kind <> 3))[1] AS score,
           (array_agg(revision_id ORDER BY generation DESC) FILTER (WHERE kind <> 3))[1] AS revision_id
    FROM grades WHERE tenant = $1 AND submission_id = ANY($2)
    GROUP BY submission_id, item_id
) AS g
FULL JOIN (
    SELECT submission_id, item_id, generation, state, regrade_id
    FROM tasks WHERE tenant = $1 AND submission_id = ANY($2)
) AS t USING (submission_id, item_id)
ORDER BY submission_id, item_id
"""
# A row that is there was left behind by a regrade. Whoever redrove it just now keeps it.
OPEN = """
WITH opened AS (
    INSERT INTO tasks AS t (submission_id, item_id, tenant, queue, state, generation, fence, deadline_lifted,
                            priority, shadow, revision_id, regrade_id)
    SELECT given.submission_id, given.item_id, $5, given.queue, 1, given.generation, 0, true,
           $6, $7, nullif($8, ''), nullif($9, '')
    FROM unnest($1::text[], $2::text[], $3::text[], $4::int[])
        AS given(submission_id, item_id, queue, generation)
    ON CONFLICT (submission_id, item_id) DO UPDATE
    SET queue = excluded.queue, state = 1, generation = excluded.generation, fence = 0, reason = '',
        attempts = 0, update_time = now(), deadline_lifted = true, priority = excluded.priority,
        shadow = excluded.shadow, revision_id = excluded.revision_id, regrade_id = excluded.regrade_id,
        upgrade = false
    WHERE t.state <> 1 AND t.generation < excluded.generation AND t.tenant = excluded.tenant
    RETURNING submission_id, item_id, generation, tenant
), audited AS (
    INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, detail)
    SELECT tenant, $10, 'regrade', submission_id, item_id, generation, $11 FROM opened
)
SELECT submission_id, item_id, generation FROM opened
"""
OPENED = """
SELECT submission_id, item_id, tenant, queue, generation, priority, revision_id, answers, create_time,
       grade_after, grade_by, upgrade
FROM (
    SELECT t.submission_id, t.item_id, t.tenant, t.queue, t.generation,
           coalesce(t.priority, s.priority) AS priority,
           coalesce(t.revision_id, s.revision_id) AS revision_id,
           s.answers, s.create_time, s.grade_after,
           CASE WHEN t.deadline_lifted THEN NULL ELSE s.grade_by END AS grade_by, t.upgrade,
           row_number() OVER given AS number,
           sum(octet_length(s.answers)) OVER (given ROWS UNBOUNDED PRECEDING) AS bytes
    FROM unnest($1::text[], $2::text[], $3::int[]) AS k(submission_id, item_id, generation)
    JOIN tasks t ON t.submission_id = k.submission_id AND t.item_id = k.item_id
        AND t.generation = k.generation AND t.tenant = $4 AND t.state = 1
    JOIN submissions s ON s.submission_id = t.submission_id AND s.tenant = t.tenant
    WINDOW given AS (ORDER BY t.submission_id, t.item_id)
) AS sized
WHERE bytes <= $5::bigint OR number = 1
ORDER BY submission_id, item_id
"""
CANCEL = f"""
WITH picked AS (
    SELECT submission_id, item_id FROM tasks
    WHERE tenant = $1 AND regrade_id = $2 AND state IN (1, 2) AND {held("submission_id", "$5", "$6")}
    ORDER BY submission_id, item_id LIMIT $3 FOR UPDATE
), cancelled AS (
    UPDATE tasks t SET state = 3, update_time = now() FROM picked
    WHERE t.submission_id = picked.submission_id AND t.item_id = picked.item_id AND t.tenant = $1
        AND t.regrade_id = $2 AND t.state IN (1, 2)
    RETURNING t.submission_id, t.item_id, t.queue, t.generation
), audited AS (
    INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, detail)
    SELECT $1, $4, 'cancel-regrade', submission_id, item_id, generation, $2 FROM cancelled
)
SELECT submission_id, item_id, queue FROM cancelled
"""
SHADOWS = f"""
SELECT DISTINCT submission_id FROM grades
WHERE tenant = $1 AND regrade_id = $2 AND kind = 3 AND submission_id > $3
    AND {held("submission_id", "$5", "$6")}
ORDER BY submission_id LIMIT $4
"""
PROMOTE = """
WITH judged AS (
    SELECT g.*, greatest(
               (SELECT max(a.generation) FROM grades a
                WHERE a.submission_id = g.submission_id AND a.item_id = g.item_id AND a.tenant = g.tenant),
               (SELECT t.generation FROM tasks t
                WHERE t.submission_id = g.submission_id AND t.item_id = g.item_id AND t.tenant = g.tenant)
           ) AS last,
           EXISTS (SELECT FROM grades c
                   WHERE c.submission_id = g.submission_id AND c.item_id = g.item_id AND c.tenant = g.tenant
                       AND c.kind <> 3 AND c.generation > g.generation)
           OR EXISTS (SELECT FROM tasks t
                      WHERE t.submission_id = g.submission_id AND t.item_id = g.item_id
                          AND t.tenant = g.tenant AND t.state = 1 AND NOT t.shadow
                          AND t.generation > g.generation) AS overtaken
    FROM grades g
    WHERE g.tenant = $1 AND g.regrade_id = $2 AND g.kind = 3 AND g.submission_id = ANY($3)
        AND NOT EXISTS (SELECT FROM grades p
                        WHERE p.submission_id = g.submission_id AND p.item_id = g.item_id
                            AND p.tenant = g.tenant AND p.regrade_id = g.regrade_id AND p.kind = 4)
), promoted AS (
    INSERT INTO grades (submission_id, item_id, generation, tenant, score, grade, lease_token, worker, fence,
                        kind, revision_id, regrade_id, flags, max_score)
    SELECT submission_id, item_id, last + 1, tenant, score, grade, lease_token, worker, fence,
           4, revision_id, regrade_id, flags, max_score
    FROM judged WHERE NOT overtaken
    RETURNING submission_id, item_id, tenant, generation, score, max_score, flags
), ended AS (
    DELETE FROM reviews r USING promoted p
    WHERE r.submission_id = ANY($3) AND r.submission_id = p.submission_id AND r.item_id = p.item_id
        AND r.tenant = $1 AND r.generation < p.generation AND p.flags IS NULL
), waiting AS (
    INSERT INTO reviews AS r (submission_id, item_id, tenant, course, assignment, generation, score,
                              max_score, flags)
    SELECT p.submission_id, p.item_id, p.tenant, s.course, s.assignment, p.generation, p.score,
           p.max_score, p.flags
    FROM promoted p JOIN submissions s ON s.submission_id = p.submission_id AND s.tenant = p.tenant
    WHERE p.flags IS NOT NULL
    ON CONFLICT (submission_id, item_id) DO UPDATE
    SET generation = excluded.generation, score = excluded.score, max_score = excluded.max_score,
        flags = excluded.flags, create_time = excluded.create_time
    WHERE r.generation < excluded.generation AND r.tenant = excluded.tenant
), audited AS (
    INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, detail)
    SELECT $1, $4, 'promote', submission_id, item_id, generation, $2 FROM promoted
)
SELECT (SELECT count(*) FROM promoted), (SELECT count(*) FROM judged WHERE overtaken)
"""
TALLIES = f"""
SELECT coalesce(p.opened, 0), coalesce(p.skipped, 0), coalesce(p.promoted, 0), coalesce(p.overtaken, 0),
       (SELECT count(*) FROM tasks t
        WHERE t.tenant = k.tenant AND t.regrade_id = k.regrade_id AND t.state = 1
            AND {held("t.submission_id", "$3", "$4")}),
       (SELECT count(*) FROM grades g
        WHERE g.tenant = k.tenant AND g.regrade_id = k.regrade_id AND g.kind IN (1, 3)
            AND {held("g.submission_id", "$3", "$4")})
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k(tenant, regrade_id, n)
LEFT JOIN regrade_parts p ON p.regrade_id = k.regrade_id AND p.tenant = k.tenant
ORDER BY k.n
"""
