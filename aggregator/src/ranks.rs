//! What is told to others of providers: ranks and bans.
