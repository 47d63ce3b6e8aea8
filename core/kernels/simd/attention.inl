// Attention by blocks of positions with an online softmax: causal, or of all tokens of the call. Included inside the
// namespace of an instruction set.
//
// For each block of positions of one key/value head, keys become a panel [d][position] and values a panel
// [position][d] of float32, once for all queries (heads sharing the key/value head x tokens) of a query block. Scores
// and outputs are then products of the same kind as linear_f32. Per query: peak m, sum l and the unscaled output o are
// carried on:
//
//   m' = max(m, scores),  p = exp(scores - m'),  l = l exp(m - m') + sum p,  o = o exp(m - m') + p V,  at the end o / l
//
// A query's result has the same bits however queries are split over calls and threads: blocks begin at multiples of
// kPositions, and what a query does not see adds exact zeros. With a window, blocks before a query's first position are
// not looked at for it.
// Cost: keys and values, 4 D bytes per position and head in f16, are read once per query block; panels and query block
// stay in L2.
//
// Error: a score s has |ds| <= gamma(D + 1) scale |q|.|k|; every weight p then has a relative error of at most
// 2 max|ds| + u (2|s - m'| + 6 + 4 blocks), and o and l add gamma(kPositions + 2 blocks) each. A cap makes no |ds|
// larger, and adds 9 u cap to it.

constexpr int64_t kMaxQueries = 96;  // per query block, fewer when heads are very wide

// Queries `first ..` of all (token, head) pairs of one key/value head, heads fastest.
struct QueryBlock {
  int64_t head_begin, heads;
  int64_t token_begin;
  int64_t first, count;

  int64_t token(int64_t i) const { return token_begin + (first + i) / heads; }
  int64_t head(int64_t i) const { return head_begin + (first + i) % heads; }
  // The first query of a token at or after `token`.
  int64_t index_of(int64_t of_token) const {
    const int64_t i = (of_token - token_begin) * heads - first;
    return i > 0 ? i : 0;
  }
};

struct AttentionScratch {
  int64_t width;  // head_dim rounded up to kLanes
  int64_t max_queries;
  float* keys;     // [head_dim][kPositions]
  float* values;   // [kPositions][width]
  float* queries;  // [max_queries][head_dim], times scale
  float* scores;   // [max_queries][kPositions], then their exponentials
  float* outputs;  // [max_queries][width]
  float* peaks;    // [max_queries]
  float* sums;     // [max_queries]
  float* scales;   // [kPositions][row_scales] of keys, then of values, each rounded up to kLanes
};

inline AttentionScratch carve(const Attention& a, uint8_t* bytes) {
  AttentionScratch s;
  s.width = (a.head_dim + kLanes - 1) / kLanes * kLanes;
  const int64_t scales = 2 * kPositions * a.row_scales;
  const int64_t room =
      static_cast<int64_t>(kScratchBytes / sizeof(float)) - kPositions * (a.head_dim + s.width) - scales;
  const int64_t fit = room / (a.head_dim + kPositions + s.width + 2);
  s.max_queries = fit < kMaxQueries ? fit : kMaxQueries;
  s.keys = reinterpret_cast<float*>(bytes);
  s.values = s.keys + a.head_dim * kPositions;
  s.queries = s.values + kPositions * s.width;
  s.scores = s.queries + s.max_queries * a.head_dim;
  s.outputs = s.scores + s.max_queries * kPositions;
  s.peaks = s.outputs + s.max_queries * s.width;
  s.sums = s.peaks + s.max_queries;
  s.scales = s.sums + s.max_queries;
  return s;
}

// keys[position][d] -> panel[d][position] f32; positions up to a multiple of kLanes become 0.
// Not inlined, as the next one: GCC 12 keeps less in registers when both are (attention 5 % slower).
template <class Rows>
__attribute__((noinline)) void transpose_keys(const Rows& keys, int64_t positions, int64_t head_dim, float* panel) {
  for (int64_t p = 0; p < positions; p += kLanes) {
    for (int64_t d = 0; d < head_dim; d += kLanes) {
      Vec square[kLanes];
      if (d % Rows::kPerLine == 0)
        for (int64_t i = 0; i < kLanes; ++i) keys.prefetch(p + i, d);
      if (p + kLanes <= positions && d + kLanes <= head_dim) {
        keys.read_columns(p, d, square);
      } else {
        for (int64_t i = 0; i < kLanes; ++i)
          square[i] = p + i < positions ? keys.read_first(p + i, d, head_dim - d) : broadcast(0.0F);
        transpose(square);
      }
      float* to = panel + d * kPositions + p;
      if (d + kLanes <= head_dim) {
#pragma GCC unroll 16
        for (int64_t i = 0; i < kLanes; ++i) store(to + i * kPositions, square[i]);
      } else {
        for (int64_t i = 0; i < head_dim - d; ++i) store(to + i * kPositions, square[i]);
      }
    }
  }
}

// values[position][d] -> panel[position][width] f32, columns past head_dim 0.
template <class Rows>
__attribute__((noinline)) void widen_values(const Rows& values, int64_t positions, int64_t head_dim, int64_t width,
                                            float* panel) {
  for (int64_t p = 0; p < positions; ++p)
    for (int64_t d = 0; d < head_dim; d += kLanes) {
      if (d % Rows::kPerLine == 0) values.prefetch(p, d);
      const bool whole = d + kLanes <= head_dim;
      store(panel + p * width + d, whole ? values.read(p, d) : values.read_first(p, d, head_dim - d));
    }
}

// One query, one block: scores become exponentials (0 from `visible` on), peak, sum and output move to the new peak.
inline void soften(float* scores, int64_t visible, int64_t positions, bool begin, float* peak, float* sum_of,
                   float* output, int64_t width) {
  const Vec lowest = broadcast(-__builtin_inff());
  Vec top = lowest;
  for (int64_t p = 0; p < visible; p += kLanes)
    top = max(p + kLanes <= visible ? load(scores + p) : load_first(scores + p, visible - p, lowest), top);
  const float block_peak = largest(top);

  if (begin) {
    *peak = block_peak;
    *sum_of = 0.0F;
  } else if (block_peak > *peak) {
    const Vec shrink = exp(broadcast(*peak - block_peak));
    for (int64_t d = 0; d < width; d += kLanes) store(output + d, load(output + d) * shrink);
    store_first(sum_of, broadcast(*sum_of) * shrink, 1);
    *peak = block_peak;
  }

  const Vec middle = broadcast(*peak);
  Vec total = broadcast(0.0F);
  for (int64_t p = 0; p < positions; p += kLanes) {
    Vec e = broadcast(0.0F);
    if (p < visible) e = exp(load(scores + p) - middle);
    if (p < visible && p + kLanes > visible) e = keep_first(e, visible - p);
    store(scores + p, e);
    total = total + e;
  }
  *sum_of += sum(total);
}

inline void pack_queries(const Attention& a, const QueryBlock& block, float* queries) {
  const Vec scale = broadcast(a.scale);
  for (int64_t i = 0; i < block.count; ++i) {
    const float* from = a.q + block.token(i) * a.q_stride + block.head(i) * a.head_dim;
    float* to = queries + i * a.head_dim;
    int64_t d = 0;
    for (; d + kLanes <= a.head_dim; d += kLanes) store(to + d, load(from + d) * scale);
    if (d < a.head_dim) store_first(to + d, load_first(from + d, a.head_dim - d, scale) * scale, a.head_dim - d);
  }
}

inline void finish_outputs(const Attention& a, const QueryBlock& block, const AttentionScratch& s) {
  for (int64_t i = 0; i < block.count; ++i) {
    const Vec total = broadcast(s.sums[i]);
    const float* from = s.outputs + i * s.width;
    float* to = a.out + block.token(i) * a.out_stride + block.head(i) * a.head_dim;
    for (int64_t d = 0; d < a.head_dim; d += kLanes) {
      const Vec o = load(from + d) / total;
      if (d + kLanes <= a.head_dim) {
        store(to + d, o);
      } else {
        store_first(to + d, o, a.head_dim - d);
      }
    }
  }
}

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// The block of positions that holds the first one a token sees.
inline int64_t first_block(const Attention& a, int64_t token) {
  const int64_t from = a.window > 0 ? a.start + token - a.window + 1 : 0;
  return from > 0 ? from / kPositions * kPositions : 0;
}

template <class Rows>
inline void attend_block(const Attention& a, int64_t kv_head, const QueryBlock& block, const AttentionScratch& s) {
  float* value_scales = s.scales + kPositions * a.row_scales;
  pack_queries(a, block, s.queries);
  const int64_t end = a.start + (a.causal ? block.token(block.count - 1) + 1 : a.tokens);
  for (int64_t p = first_block(a, block.token(0)); p < end; p += kPositions) {
    const int64_t positions = end - p < kPositions ? end - p : kPositions;
    const Stretch stretch{kv_head, p, positions, p + positions < end ? p + positions : p};
    transpose_keys(Rows::at(a, a.keys, a.key_scales, stretch, s.scales), positions, a.head_dim, s.keys);
    widen_values(Rows::at(a, a.values, a.value_scales, stretch, value_scales), positions, a.head_dim, s.width,
                 s.values);

    // Queries [i, to) see this block, and for those from `fresh` on it is the first one.
    const int64_t i = a.causal ? block.index_of(p - a.start) : 0;
    const int64_t to =
        a.window > 0 ? least(block.index_of(p + kPositions - 1 + a.window - a.start), block.count) : block.count;
    const int64_t fresh = p == 0 ? i : a.window > 0 ? least(block.index_of(p + a.window - 1 - a.start), to) : to;
    product(s.keys, kPositions, positions, a.head_dim, s.queries + i * a.head_dim, a.head_dim, to - i,
            s.scores + i * kPositions, kPositions, false);
    for (int64_t j = i; j < to; ++j) {
      float* scores = s.scores + j * kPositions;
      const int64_t at = a.start + block.token(j) - p;  // the query's own position
      if (a.softcap > 0.0F)
        for (int64_t k = 0; k < positions; k += kLanes) store(scores + k, capped(load(scores + k), a.softcap));
      if (a.window > 0)
        for (int64_t k = 0; k <= at - a.window && k < positions; ++k) scores[k] = -__builtin_inff();
      soften(scores, a.causal ? least(at + 1, positions) : positions, positions, j >= fresh, s.peaks + j, s.sums + j,
             s.outputs + j * s.width, s.width);
    }
    const auto gather = [&](int64_t begin, int64_t stop, bool add) {
      if (begin < stop)
        product(s.values, s.width, s.width, positions, s.scores + begin * kPositions, kPositions, stop - begin,
                s.outputs + begin * s.width, s.width, add);
    };
    gather(i, fresh, true);
    gather(fresh, to, false);
  }
  finish_outputs(a, block, s);
}

inline void attention_body(const Attention& a, int64_t head_begin, int64_t head_end, int64_t token_begin,
                           int64_t token_end, uint8_t* scratch) {
  const int64_t share = a.heads / a.kv_heads;
  const AttentionScratch s = carve(a, scratch);
  for (int64_t head = head_begin; head < head_end;) {
    const int64_t kv_head = head / share;
    const int64_t next = (kv_head + 1) * share < head_end ? (kv_head + 1) * share : head_end;
    const int64_t queries = (next - head) * (token_end - token_begin);
    for (int64_t first = 0; first < queries; first += s.max_queries) {
      const int64_t count = queries - first < s.max_queries ? queries - first : s.max_queries;
      const QueryBlock block{head, next - head, token_begin, first, count};
      switch (a.cache) {
        case CacheType::kF16:
          attend_block<F16Rows>(a, kv_head, block, s);
          break;
        case CacheType::kF32:
          attend_block<F32Rows>(a, kv_head, block, s);
          break;
        case CacheType::kInt8:
          attend_block<Int8Rows>(a, kv_head, block, s);
          break;
        case CacheType::kInt4:
          attend_block<Int4Rows>(a, kv_head, block, s);
          break;
      }
    }
    head = next;
  }
}
