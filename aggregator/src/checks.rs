//! What is checked, by whom, and what is made of it.
