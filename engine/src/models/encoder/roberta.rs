//! RoBERTa (arXiv:1907.11692) and XLM-RoBERTa, which are one computation:
//! all-roberta, multilingual-e5, bge-m3. As in fairseq, positions are counted
//! behind the number of the token that pads.

use super::Family;

pub(super) const FAMILY: Family = Family {
    name: "roberta",
    architectures: &[
        "RobertaModel",
        "RobertaForMaskedLM",
        "XLMRobertaModel",
        "XLMRobertaForMaskedLM",
    ],
    root: "roberta.",
    first_position: |config| config.padding().saturating_add(1),
};
