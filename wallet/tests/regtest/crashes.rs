//! Killed at every point around paying and settling: nothing is paid twice, nothing is lost.
