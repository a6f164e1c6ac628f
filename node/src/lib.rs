//! What every process of the market is made of: keys, configuration, logs, shutdown and the link to relays.
