-- Until when the result of an attempt may still come whose cost is not known: no relay could be asked.
ALTER TABLE attempts ADD COLUMN unclear_until_s INTEGER;
