//! BERT: all-MiniLM, bge, e5.

use super::Family;

pub(super) const FAMILY: Family = Family {
    name: "bert",
    architectures: &["BertModel", "BertForMaskedLM"],
    root: "bert.",
    first_position: |_| 0,
};
