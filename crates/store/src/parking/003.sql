-- Version 3: dead letters that the broker refuses as a copy.

-- Both are set together. When such a message is due, publishing its copy is tried again, and nothing is run.
ALTER TABLE parked ADD COLUMN dead_letter_class TEXT;
ALTER TABLE parked ADD COLUMN dead_letter_reason TEXT;
