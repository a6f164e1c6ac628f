//! What the GGUF files of an architecture call their tensors, and how they lay
//! them out, where that differs from transformers.

/// A name in transformers, and the one in GGUF; both without `.weight` or
/// `.bias`.
pub(crate) type Names = &'static [(&'static str, &'static str)];

/// How the GGUF files of one architecture are laid out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// What transformers puts before a layer's number: `model.layers.`. In a
    /// GGUF that is always `blk.`.
    pub(crate) layers: &'static str,
    /// Names inside a layer: the first that fits counts, in the first table that
    /// has one.
    pub(crate) inside: &'static [Names],
    /// Names outside the layers. What is not named here has the same name.
    pub(crate) outside: Names,
    /// Do the rows of queries and keys lie interleaved? llama.cpp computes
    /// rotary positions of some architectures on neighbours, where transformers
    /// takes the two halves of a head.
    pub(crate) interleaved: bool,
    /// Are the norms' weights one greater than transformers'?
    pub(crate) norms_plus_one: bool,
}

/// The decoders that are laid out like Llama, but for its interleaved rows.
pub(crate) const DECODER: Layout = Layout {
    layers: "model.layers.",
    inside: &[ATTENTION, FEED_FORWARD, TWO_NORMS],
    outside: &[
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
    ],
    interleaved: false,
    norms_plus_one: false,
};

/// Attention's projections, and the norms of queries and keys.
pub(crate) const ATTENTION: Names = &[
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
];

/// A gated feed-forward's matrices.
pub(crate) const FEED_FORWARD: Names = &[
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// Norms before attention and before the feed-forward.
pub(crate) const TWO_NORMS: Names = &[
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
];

/// Norms before and after both, as in Gemma 2 and 3.
pub(crate) const FOUR_NORMS: Names = &[
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

impl Layout {
    /// A tensor's name in GGUF; `None` if this layout has none for it.
    pub(super) fn name(&self, name: &str) -> Option<String> {
        let Some(inside) = name.strip_prefix(self.layers) else {
            let (stem, end) = name.rsplit_once('.').unwrap_or((name, ""));
            return Some(match find(self.outside, stem) {
                Some(stem) => format!("{stem}.{end}"),
                None => name.to_owned(),
            });
        };
        let (layer, part) = inside.split_once('.')?;
        let (part, end) = part.rsplit_once('.')?;
        let part = self.inside.iter().find_map(|names| find(names, part))?;
        Some(format!("blk.{layer}.{part}.{end}"))
    }
}

fn find(names: Names, wanted: &str) -> Option<&'static str> {
    let found = names.iter().find(|(name, _)| *name == wanted)?;
    Some(found.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_names_of_both_worlds() {
        for (name, expected) in [
            ("model.embed_tokens.weight", Some("token_embd.weight")),
            ("lm_head.weight", Some("output.weight")),
            ("rope_freqs.weight", Some("rope_freqs.weight")),
            (
                "model.layers.12.self_attn.k_proj.bias",
                Some("blk.12.attn_k.bias"),
            ),
            (
                "model.layers.3.self_attn.q_norm.weight",
                Some("blk.3.attn_q_norm.weight"),
            ),
            (
                "model.layers.0.post_attention_layernorm.weight",
                Some("blk.0.ffn_norm.weight"),
            ),
            ("model.layers.0.mlp.experts.weight", None),
            ("model.layers.0", None),
        ] {
            assert_eq!(DECODER.name(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn a_family_may_name_its_own() {
        let gemma = Layout {
            inside: &[FOUR_NORMS, ATTENTION, FEED_FORWARD],
            ..DECODER
        };
        let name = gemma.name("model.layers.0.post_attention_layernorm.weight");
        assert_eq!(name.as_deref(), Some("blk.0.post_attention_norm.weight"));
    }
}
