-- The checker's journal. Ids, hashes, verdicts, times and reasons; never texts, names or a verdict's reasoning.
-- Times are seconds since 1970 (UTC).
CREATE TABLE runs (
    workflow_id TEXT PRIMARY KEY,
    started_at  REAL NOT NULL,
    ended_at    REAL,
    status      TEXT NOT NULL DEFAULT 'RUNNING',  -- Temporal's word
    confirmed   INTEGER NOT NULL DEFAULT 0,       -- Temporal itself was seen to say so
    reason      TEXT,
    rounds      INTEGER NOT NULL DEFAULT 0,
    left_over   INTEGER NOT NULL DEFAULT 0        -- records in the last batch that the run could not settle
) WITHOUT ROWID;

CREATE TABLE items (
    workflow_id  TEXT NOT NULL REFERENCES runs ON DELETE CASCADE,
    item_id      TEXT NOT NULL,
    content_hash TEXT NOT NULL,
    content_type TEXT NOT NULL,
    state        TEXT NOT NULL DEFAULT 'found',   -- found classifying sending | submitted gone superseded failed
    last_round   INTEGER NOT NULL,                -- the last round whose batch held it; 0 once it was settled since
    times_superseded INTEGER NOT NULL DEFAULT 0,
    assumed      INTEGER NOT NULL DEFAULT 0,      -- the site's answer was lost, and the item was no longer scheduled
    is_spam      INTEGER,
    confidence   REAL,
    decided_by   TEXT,
    indicators   TEXT,                            -- JSON
    seconds      REAL,
    reason       TEXT,
    PRIMARY KEY (workflow_id, item_id, content_hash)
) WITHOUT ROWID;

-- Answers progress without touching the items themselves.
CREATE INDEX items_counts ON items (workflow_id, state, content_type, is_spam);

-- When an item was being classified; failed tries too.
CREATE TABLE spans (
    workflow_id TEXT NOT NULL REFERENCES runs ON DELETE CASCADE,
    started     REAL NOT NULL,
    ended       REAL NOT NULL
);
CREATE INDEX spans_by_start ON spans (workflow_id, started, ended);

CREATE TABLE workers (
    identity   TEXT PRIMARY KEY,
    beat_at    REAL NOT NULL,
    classifier TEXT NOT NULL,
    models     TEXT NOT NULL                      -- JSON: state by name
) WITHOUT ROWID;

-- What metrics count; kept when old runs are removed, because a counter must not go down.
CREATE TABLE totals (
    name         TEXT NOT NULL,
    content_type TEXT NOT NULL,
    label        TEXT NOT NULL,
    amount       REAL NOT NULL,
    PRIMARY KEY (name, content_type, label)
) WITHOUT ROWID;
