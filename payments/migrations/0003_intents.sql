-- Who opens a tab asks for what is open on it, who publishes a receipt for what was paid about its award.
CREATE INDEX intents_by_counterparty ON intents (counterparty, state);
CREATE INDEX intents_by_award ON intents (award);
