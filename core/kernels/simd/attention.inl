// Attention by blocks of positions with an online softmax: causal, or of all tokens of the call. Included inside the
// namespace of an instruction set.
//
// Scores and outputs are products of the same kind as linear_f32: keys are a panel [d][position], as they lie in a
// page, and values one of [position][d]; a page is a block. Few queries (heads sharing the key/value head x tokens)
// read both from the cache as they multiply; for many, they are widened to float32 first, once for a query block. Per
// query: peak m, sum l and the unscaled output o are carried on:
//
//   m' = max(m, scores),  p = exp(scores - m'),  l = l exp(m - m') + sum p,  o = o exp(m - m') + p V,  at the end o / l
//
// A query's result has the same bits however queries are split over calls and threads: blocks are pages, and what a
// query does not see adds exact zeros. With a window, blocks before a query's first position are not looked at for it.
// Cost: keys and values, 4 D bytes per position and head in f16, are read once per query block; panels and query block
// stay in L2.
//
// Error: a score s has |ds| <= gamma(D + 1) scale |q|.|k|; every weight p then has a relative error of at most
// 2 max|ds| + u (2|s - m'| + 6 + 4 blocks), and o and l add gamma(kPagePositions + 2 blocks) each. A cap makes no |ds|
// larger, and adds 9 u cap to it.

namespace {

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
  float* keys;     // [head_dim][kPagePositions]
  float* values;   // [kPagePositions][width]
  float* queries;  // [max_queries][head_dim], times scale
  float* scores;   // [max_queries][kPagePositions], then their exponentials
  float* outputs;  // [max_queries][width]
  float* peaks;    // [max_queries]
  float* sums;     // [max_queries][kLanes]
  float* scales;   // [row_scales][kPagePositions] of keys, then of values
};

inline AttentionScratch carve(const Attention& a, uint8_t* bytes) {
  AttentionScratch s;
  s.width = (a.head_dim + kLanes - 1) / kLanes * kLanes;
  const int64_t scales = 2 * kPagePositions * a.row_scales;
  const int64_t room =
      static_cast<int64_t>(kScratchBytes / sizeof(float)) - kPagePositions * (a.head_dim + s.width) - scales;
  const int64_t fit = room / (a.head_dim + kPagePositions + s.width + 1 + kLanes);
  s.max_queries = fit < kMaxQueries ? fit : kMaxQueries;
  s.keys = reinterpret_cast<float*>(bytes);
  s.values = s.keys + a.head_dim * kPagePositions;
  s.queries = s.values + kPagePositions * s.width;
  s.scores = s.queries + s.max_queries * a.head_dim;
  s.outputs = s.scores + s.max_queries * kPagePositions;
  s.peaks = s.outputs + s.max_queries * s.width;
  s.sums = s.peaks + s.max_queries;
  s.scales = s.sums + s.max_queries * kLanes;
  return s;
}

// A panel of the cache as float32 [inner][stride]; rows are a multiple of kLanes.
// Not inlined: GCC 12 keeps less in registers where it is.
template <class Panel>
__attribute__((noinline)) void to_floats(const Panel& from, int64_t inner, int64_t rows, float* to, int64_t stride) {
  for (int64_t k = 0; k < inner; ++k)
    for (int64_t r = 0; r < rows; r += kLanes) store(to + k * stride + r, from.at(k, r));
}

// One query, one block: scores become exponentials (0 from `visible` on), peak, sums and output move to the new peak.
// What takes all lanes together waits: the sums until the end, the peak of a block until one is above all before it.
inline void soften(float* scores, int64_t visible, int64_t positions, bool begin, float* peak, float* sums,
                   float* output, int64_t width) {
  const Vec lowest = broadcast(-__builtin_inff());
  Vec top = lowest;
  for (int64_t p = 0; p < visible; p += kLanes)
    top = max(p + kLanes <= visible ? load(scores + p) : load_first(scores + p, visible - p, lowest), top);
  Vec before = broadcast(0.0F);
  if (begin) {
    *peak = largest(top);
  } else {
    before = load(sums);
    if (any_above(top, broadcast(*peak))) {
      const float block_peak = largest(top);
      const Vec shrink = exp(broadcast(*peak - block_peak));
      for (int64_t d = 0; d < width; d += kLanes) store(output + d, load(output + d) * shrink);
      before = before * shrink;
      *peak = block_peak;
    }
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
  store(sums, before + total);
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
    const Vec total = broadcast(sum(load(s.sums + i * kLanes)));
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
  return from > 0 ? from / kPagePositions * kPagePositions : 0;
}

// The queries of a block that see some of `positions` from p on: [begin, end).
struct Seeing {
  int64_t begin, end;
};

inline Seeing seeing(const Attention& a, const QueryBlock& block, int64_t p, int64_t positions) {
  return {a.causal ? block.index_of(p - a.start) : 0,
          a.window > 0 ? least(block.index_of(p + positions - 1 + a.window - a.start), block.count) : block.count};
}

// Scores of a block of positions from p on.
template <class Keys>
inline void score(const Attention& a, const QueryBlock& block, const AttentionScratch& s, int64_t p, int64_t positions,
                  const Keys& keys) {
  const auto [i, to] = seeing(a, block, p, positions);
  product(keys, positions, a.head_dim, s.queries + i * a.head_dim, a.head_dim, to - i, s.scores + i * kPagePositions,
          kPagePositions, false);
}

// The same positions, whose scores are there: their part in peaks, sums and outputs.
template <class Values>
inline void gather(const Attention& a, const QueryBlock& block, const AttentionScratch& s, int64_t p, int64_t positions,
                   const Values& values) {
  const auto [i, to] = seeing(a, block, p, positions);
  // For the queries from `fresh` on this is the first block.
  const int64_t fresh = p == 0 ? i : a.window > 0 ? least(block.index_of(p + a.window - 1 - a.start), to) : to;
  for (int64_t j = i; j < to; ++j) {
    float* row = s.scores + j * kPagePositions;
    const int64_t at = a.start + block.token(j) - p;  // the query's own position
    if (a.softcap > 0.0F)
      for (int64_t k = 0; k < positions; k += kLanes) store(row + k, capped(load(row + k), a.softcap));
    if (a.window > 0)
      for (int64_t k = 0; k <= at - a.window && k < positions; ++k) row[k] = -__builtin_inff();
    soften(row, a.causal ? least(at + 1, positions) : positions, positions, j >= fresh, s.peaks + j,
           s.sums + j * kLanes, s.outputs + j * s.width, s.width);
  }
  const auto add = [&](int64_t begin, int64_t end, bool accumulate) {
    if (begin < end)
      product(values, s.width, positions, s.scores + begin * kPagePositions, kPagePositions, end - begin,
              s.outputs + begin * s.width, s.width, accumulate);
  };
  add(i, fresh, true);
  add(fresh, to, false);
}

template <class Keys, class Values>
inline void attend_block(const Attention& a, int64_t kv_head, const QueryBlock& block, const AttentionScratch& s) {
  float* value_scales = s.scales + kPagePositions * a.row_scales;
  pack_queries(a, block, s.queries);
  const bool few = block.count <= kProductTokens;
  const int64_t end = a.start + (a.causal ? block.token(block.count - 1) + 1 : a.tokens);
  for (int64_t p = first_block(a, block.token(0)); p < end; p += kPagePositions) {
    const int64_t next = p + kPagePositions, positions = least(end - p, kPagePositions);
    const bool last = next >= end;
    const int64_t next_head = last && kv_head + 1 < a.kv_heads ? kv_head + 1 : kv_head;
    const Place here = {kv_head, p, next_head, !last ? next : next_head > kv_head ? first_block(a, block.token(0)) : p};
    const auto keys = Keys::of(a, here, s.scales);
    if (few) {
      score(a, block, s, p, positions, keys);
      gather(a, block, s, p, positions, Values::of(a, here, value_scales));
    } else {
      to_floats(keys, a.head_dim, positions, s.keys, kPagePositions);
      to_floats(Values::of(a, here, value_scales), positions, s.width, s.values, s.width);
      score(a, block, s, p, positions, FloatPanel{s.keys, kPagePositions});
      gather(a, block, s, p, positions, FloatPanel{s.values, s.width});
    }
  }
  finish_outputs(a, block, s);
}

}  // namespace

void attention(const Attention& a, int64_t head_begin, int64_t head_end, int64_t token_begin, int64_t token_end,
               uint8_t* scratch) {
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
          attend_block<FloatKeys<uint16_t>, FloatValues<uint16_t>>(a, kv_head, block, s);
          break;
        case CacheType::kF32:
          attend_block<FloatKeys<float>, FloatValues<float>>(a, kv_head, block, s);
          break;
        case CacheType::kInt8:
          attend_block<Int8Keys, Int8Values>(a, kv_head, block, s);
          break;
        case CacheType::kInt4:
          attend_block<Int4Keys, Int4Values>(a, kv_head, block, s);
          break;
      }
    }
    head = next;
  }
}
