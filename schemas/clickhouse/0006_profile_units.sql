-- profiles: how many products a person's orders have, as the profile says it.
ALTER TABLE ${database}.profiles ADD COLUMN IF NOT EXISTS units Decimal(18, 4) COMMENT 'products in these orders' AFTER orders;
