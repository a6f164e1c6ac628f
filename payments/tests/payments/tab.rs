//! The tab: its rules one by one, and both machines together through loss, doubling, crashes and cheats.

mod rules;
mod simulation;
