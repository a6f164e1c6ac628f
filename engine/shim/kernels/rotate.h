// Rotary positions; keys and values into the store.

// As in engine/src/kernels.rs.
struct Heads {
  int64_t tokens, heads, kv_heads, width, block_tokens;
  // Of queries and of keys; null where they are not normed.
  const float *query_norm, *key_norm;
  float epsilon;
};

// One head, normed where there is a norm, and rotated.
template <typename T>
inline void rotate_head(const T* head, const float* norm, float epsilon, const T* cosines,
                        const T* sines, T* out, int64_t width) {
  float plain[MAX_HEAD_WIDTH];
  const float factor = norm == nullptr ? 1.0f : norm_factor(head, width, epsilon);
  for (int64_t i = 0; i < width; i++) {
    plain[i] = wide(head[i]) * factor * (norm == nullptr ? 1.0f : norm[i]);
  }
  const int64_t half = width / 2;
  for (int64_t i = 0; i < half; i++) {
    put(plain[i] * wide(cosines[i]) - plain[half + i] * wide(sines[i]), out[i]);
  }
  for (int64_t i = half; i < width; i++) {
    put(plain[i] * wide(cosines[i]) + plain[i - half] * wide(sines[i]), out[i]);
  }
}

// all: [tokens, heads + 2 * kv_heads, width]; cosines, sines: [tokens, width];
// queries: [tokens, heads, width]; keys, values: the store, [blocks, kv_heads,
// block_tokens, width].
template <typename T>
void rotate_tokens(const Heads& shape, const T* all, const T* cosines, const T* sines,
                   const int64_t* slots, T* queries, T* keys, T* values) {
  const int64_t width = shape.width, heads = shape.heads, kv_heads = shape.kv_heads;
#pragma omp parallel for if (shape.tokens >= 16)
  for (int64_t token = 0; token < shape.tokens; token++) {
    const T* in = all + token * (heads + 2 * kv_heads) * width;
    const T *cos = cosines + token * width, *sin = sines + token * width;
    for (int64_t head = 0; head < heads; head++) {
      rotate_head(in + head * width, shape.query_norm, shape.epsilon, cos, sin,
                  queries + (token * heads + head) * width, width);
    }
    const int64_t block = slots[token] / shape.block_tokens;
    const int64_t inside = slots[token] % shape.block_tokens;
    for (int64_t head = 0; head < kv_heads; head++) {
      const int64_t place = ((block * kv_heads + head) * shape.block_tokens + inside) * width;
      rotate_head(in + (heads + head) * width, shape.key_norm, shape.epsilon, cos, sin,
                  keys + place, width);
      __builtin_memcpy(values + place, in + (heads + kv_heads + head) * width, width * sizeof(T));
    }
  }
}

void rotate_and_keep(bool half, const Heads* shape, const void* all, const void* cosines,
                     const void* sines, const int64_t* slots, void* queries, void* keys,
                     void* values) {
  if (half) {
    rotate_tokens(*shape, static_cast<const bf16*>(all), static_cast<const bf16*>(cosines),
                  static_cast<const bf16*>(sines), slots, static_cast<bf16*>(queries),
                  static_cast<bf16*>(keys), static_cast<bf16*>(values));
  } else {
    rotate_tokens(*shape, static_cast<const float*>(all), static_cast<const float*>(cosines),
                  static_cast<const float*>(sines), slots, static_cast<float*>(queries),
                  static_cast<float*>(keys), static_cast<float*>(values));
  }
}
