-- events: the identifiers that did not count when it was decided whose the event is.
ALTER TABLE ${database}.events ADD COLUMN IF NOT EXISTS set_aside Array(LowCardinality(String)) COMMENT 'type:reason; reasons: limit, untrusted, governor, cut, shared_device, weak' AFTER flags;
