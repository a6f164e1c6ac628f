//! Serving text: many requests of one model, computed together.
//!
//! A [`Server`] owns two threads: one turns prompts into tokens, the other runs the
//! [`Scheduler`] on the model. The scheduler works in rounds. In each it lets go of
//! what nobody wants any more, takes in whoever is next, and has the network compute
//! one batch: the next token of every answer that is under way, and beside those as
//! many tokens of prompts as do not hold them up.
//!
//! **Memory.** Keys and values lie in blocks, of which there is a fixed number
//! ([`crate::cache`]). A request is taken in when there is room for its prompt, and
//! takes further blocks as its answer grows. Where none is left, the request that has
//! the least claim gives up its own and waits; what it had computed is found again
//! as long as nobody needs the room, and is computed again where not. No request is
//! taken that could not be answered alone.
//!
//! **Order.** Customers share the computation ([`shares::Shares`]): whoever has been given
//! the least, measured by what it pays, is next. Nobody starves, whatever others pay.
//!
//! **Readers** pay as they read: an answer goes no further than
//! [`MAX_AHEAD`](crate::port::MAX_AHEAD) steps ahead of its reader, and who reads
//! nothing holds neither a place in the batch nor blocks that others need.
//!
//! **Invariant:** each answer is the one that its request would be given alone, but
//! for the rounding of floating-point sums, which may differ with the size of a
//! batch. In f32 that changes no greedy answer of the models that the tests know.

mod budget;
mod network;
mod scheduler;
mod sequence;
mod server;
mod shares;

pub(crate) use budget::{Needs, blocks};
pub(crate) use network::{Loaded, Network};
pub(crate) use scheduler::{Limits, Round, Scheduler};
pub(crate) use sequence::{Asked, Drawing, Read, Sequence, Text};
pub(crate) use server::Server;
