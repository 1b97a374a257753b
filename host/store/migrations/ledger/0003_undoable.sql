-- Retention must not forget an action that can still be undone.
ALTER TABLE action ADD COLUMN undoable INTEGER NOT NULL DEFAULT 0;
UPDATE action SET undoable = coalesce(json_extract(json, '$.undoable'), 0);
CREATE INDEX action_open ON action (id) WHERE undoable = 1;
