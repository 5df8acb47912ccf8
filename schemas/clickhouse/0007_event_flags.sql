-- events: what the collector found about an event without refusing it.
ALTER TABLE ${database}.events ADD COLUMN IF NOT EXISTS flags Array(LowCardinality(String)) COMMENT 'late_clamped, skew_corrected, bot, plan_violation' AFTER faults;
