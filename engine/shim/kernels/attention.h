// Attention of single tokens over the paged store.

extern "C" int omp_get_max_threads();

// The longest block.
constexpr int64_t MAX_BLOCK_TOKENS = 64;
// Query heads that one thread takes through a block together.
constexpr int64_t MAX_SHARE = 8;

// As in engine/src/kernels.rs.
struct Paged {
  int64_t rows, heads, kv_heads, width, block_tokens;
  // [rows, table_width]: the blocks of each row, in order.
  const int64_t* tables;
  int64_t table_width;
  // [rows]: tokens each row sees, itself the last.
  const int64_t* lengths;
  // Of them, how many at most; 0 for all.
  int64_t window;
  float scale;
};

// A softmax over what came so far: the greatest score, the sum of weights
// relative to it, and the weighted sum of values.
struct Found {
  float greatest, weights;
  float values[MAX_HEAD_WIDTH];
};

// Adds tokens of one block to what a query found.
template <typename T>
inline void look_at(Found& found, const T* query, const T* keys, const T* values, int64_t tokens,
                    int64_t width, float scale) {
  float scores[MAX_BLOCK_TOKENS];
  float greatest = found.greatest;
  for (int64_t token = 0; token < tokens; token++) {
    scores[token] = dot(query, keys + token * width, width) * scale;
  }
  for (int64_t token = 0; token < tokens; token++) {
    // Written so that what is no number stays to be seen.
    greatest = scores[token] <= greatest ? greatest : scores[token];
  }
  float weights = 0.0f;
#pragma omp simd reduction(+ : weights)
  for (int64_t token = 0; token < tokens; token++) {
    scores[token] = exponential(scores[token] - greatest);
    weights += scores[token];
  }
  if (greatest != found.greatest) {
    const float shrink = exponential(found.greatest - greatest);
    found.weights *= shrink;
    for (int64_t i = 0; i < width; i++) found.values[i] *= shrink;
  }
  found.greatest = greatest;
  found.weights += weights;
  for (int64_t token = 0; token < tokens; token++) {
    const T* value = values + token * width;
    const float weight = scores[token];
#pragma omp simd
    for (int64_t i = 0; i < width; i++) found.values[i] += weight * wide(value[i]);
  }
}

// What heads of one row find that share a key head.
template <typename T>
void attend_heads(const Paged& shape, int64_t row, int64_t kv_head, int64_t heads,
                  const T* queries, const T* keys, const T* values, T* out) {
  Found found[MAX_SHARE];
  for (int64_t head = 0; head < heads; head++) {
    found[head].greatest = -3.0e38f;
    found[head].weights = 0.0f;
    for (int64_t i = 0; i < shape.width; i++) found[head].values[i] = 0.0f;
  }
  const int64_t end = shape.lengths[row], size = shape.block_tokens;
  const int64_t begin = shape.window > 0 && shape.window < end ? end - shape.window : 0;
  for (int64_t at = begin; at < end;) {
    const int64_t block = shape.tables[row * shape.table_width + at / size], inside = at % size;
    const int64_t tokens = size - inside < end - at ? size - inside : end - at;
    const int64_t place = ((block * shape.kv_heads + kv_head) * size + inside) * shape.width;
    for (int64_t head = 0; head < heads; head++) {
      look_at(found[head], queries + head * shape.width, keys + place, values + place, tokens,
              shape.width, shape.scale);
    }
    at += tokens;
  }
  for (int64_t head = 0; head < heads; head++) {
    T* to = out + head * shape.width;
    for (int64_t i = 0; i < shape.width; i++) {
      put(found[head].values[i] / found[head].weights, to[i]);
    }
  }
}

// queries, out: [rows, heads, width]; keys, values: [blocks, kv_heads,
// block_tokens, width].
template <typename T>
void attend_rows(const Paged& shape, const T* queries, const T* keys, const T* values, T* out) {
  const int64_t group = shape.heads / shape.kv_heads, pairs = shape.rows * shape.kv_heads;
  // Heads that share a key head read it once; but every thread shall have work.
  const int64_t together = group < MAX_SHARE ? group : MAX_SHARE;
  const int64_t share = pairs >= 4 * omp_get_max_threads() ? together : 1;
  const int64_t shares = (group + share - 1) / share;
#pragma omp parallel for schedule(dynamic)
  for (int64_t task = 0; task < pairs * shares; task++) {
    const int64_t row = task / (shape.kv_heads * shares);
    const int64_t kv_head = task / shares % shape.kv_heads;
    const int64_t first = task % shares * share;
    const int64_t heads = share < group - first ? share : group - first;
    const int64_t place = (row * shape.heads + kv_head * group + first) * shape.width;
    attend_heads(shape, row, kv_head, heads, queries + place, keys, values, out + place);
  }
}

void attend(bool half, const Paged* shape, const void* queries, const void* keys,
            const void* values, void* out) {
  if (half) {
    attend_rows(*shape, static_cast<const bf16*>(queries), static_cast<const bf16*>(keys),
                static_cast<const bf16*>(values), static_cast<bf16*>(out));
  } else {
    attend_rows(*shape, static_cast<const float*>(queries), static_cast<const float*>(keys),
                static_cast<const float*>(values), static_cast<float*>(out));
  }
}
