// Attention within the bound that tests/core/test_attention.py derives, and rows of the cache bit for bit.
#include <numeric>

#include "check.h"
#include "kernels/scalar/cache.h"

namespace scrimp {
namespace {

// Pages of a pool, in a shuffled order, with the keys and values of one sequence.
struct Cache {
  CacheType type;
  int64_t kv_heads, head_dim, positions, row_bytes, row_scales;
  int64_t codes, page_bytes;  // of the keys in a page; of all
  std::vector<int32_t> pages;
  Guarded<uint8_t> memory;

  static int64_t bytes_of(CacheType type, int64_t head_dim) {
    if (type == CacheType::kF32) return 4 * head_dim;
    if (type == CacheType::kF16) return 2 * head_dim;
    return type == CacheType::kInt8 ? head_dim : (head_dim + 31) / 32 * 16;
  }

  Cache(Check& c, CacheType t, int64_t heads, int64_t dim, int64_t count)
      : type(t),
        kv_heads(heads),
        head_dim(dim),
        positions(count),
        row_bytes(bytes_of(t, dim)),
        row_scales(t == CacheType::kInt8 || t == CacheType::kInt4 ? (dim + 31) / 32 : 0),
        codes(heads * kPagePositions * row_bytes),
        page_bytes(2 * codes + 4 * heads * row_scales * kPagePositions),
        pages(static_cast<size_t>((count - 1) / kPagePositions + 1)),
        memory(static_cast<int64_t>(pages.size()) * page_bytes + 64, 64) {
    std::iota(pages.begin(), pages.end(), 0);
    for (size_t i = pages.size(); i > 1; --i)
      std::swap(pages[i - 1], pages[static_cast<size_t>(c.random.below(static_cast<int64_t>(i)))]);
  }

  uint8_t* keys() { return memory.data(); }
  uint8_t* values() { return memory.data() + codes; }
  uint16_t* key_scales() { return reinterpret_cast<uint16_t*>(memory.data() + 2 * codes); }
  uint16_t* value_scales() { return key_scales() + kv_heads * row_scales * kPagePositions; }

  void store(const float* x, int64_t head, int64_t position, uint8_t* plane, uint16_t* scales) {
    const int64_t page = pages[static_cast<size_t>(position / kPagePositions)] * page_bytes;
    const int64_t row = position % kPagePositions;
    std::vector<uint8_t> stored(static_cast<size_t>(row_bytes));
    if (type == CacheType::kF32)
      std::memcpy(stored.data(), x, static_cast<size_t>(row_bytes));
    else if (type == CacheType::kF16)
      kScalarKernels.to_f16(x, head_dim, reinterpret_cast<uint16_t*>(stored.data()));
    else
      kScalarKernels.to_codes(x, head_dim, type, 32, stored.data(),
                              scales + page / 2 + head * row_scales * kPagePositions + row, kPagePositions);
    const int64_t unit = type == CacheType::kF32 ? 4 : type == CacheType::kF16 ? 2 : 1;
    uint8_t* to = plane + page + head * kPagePositions * row_bytes;
    for (int64_t at = 0; at < row_bytes; at += unit)
      std::memcpy(to + (plane == keys() ? at * kPagePositions + row * unit : row * row_bytes + at),
                  &stored[static_cast<size_t>(at)], static_cast<size_t>(unit));
  }
};

// The scalar kernel works in double precision. Weights are off by a factor of at most 1 +- r; see the test in Python.
void compare(Check& c, const Attention& a, const float* got, const float* exact) {
  const int64_t share = a.heads / a.kv_heads;
  for (int64_t t = 0; t < a.tokens; ++t) {
    for (int64_t h = 0; h < a.heads; ++h) {
      const int64_t last = a.start + (a.causal ? t : a.tokens - 1);
      const int64_t begin = a.window > 0 ? std::max<int64_t>(0, last - a.window + 1) : 0, seen = last + 1 - begin;
      std::vector<double> s(static_cast<size_t>(seen)), e(s);
      double top = -INFINITY, most = 0;
      for (int64_t p = 0; p < seen; ++p) {
        double dot = 0, size = 0;
        for (int64_t d = 0; d < a.head_dim; ++d) {
          const double term = static_cast<double>(a.q[t * a.q_stride + h * a.head_dim + d]) *
                              static_cast<double>(scalar::cached(a, true, h / share, begin + p, d));
          dot += term;
          size += std::fabs(term);
        }
        const auto i = static_cast<size_t>(p);
        s[i] = dot * static_cast<double>(a.scale);
        e[i] = gamma_of(a.head_dim + 1) * static_cast<double>(a.scale) * size;
        if (const double cap = static_cast<double>(a.softcap); cap > 0) {
          s[i] = cap * std::tanh(s[i] / cap);
          e[i] += 9 * kUnit * cap;
        }
        top = std::max(top, s[i]);
        most = std::max(most, e[i]);
      }
      double total = 0, lost = 0;
      std::vector<double> wr(s);
      const int64_t blocks = last / 32 - begin / 32 + 1;
      for (size_t p = 0; p < s.size(); ++p) {
        const double weight = std::exp(s[p] - top), below = top - s[p];
        wr[p] = weight * std::expm1(e[p] + kUnit * (below + e[p] + most) + gamma_of(6 * blocks + 33));
        total += weight;
        lost += wr[p];
      }
      for (int64_t d = 0; d < a.head_dim; ++d) {
        double size = 0, largest = 0;
        for (int64_t p = 0; p < seen; ++p) {
          const double v = std::fabs(static_cast<double>(scalar::cached(a, false, h / share, begin + p, d)));
          size += wr[static_cast<size_t>(p)] / total * v;
          largest = std::max(largest, v);
        }
        const int64_t at = t * a.out_stride + h * a.head_dim + d;
        const double out = std::fabs(static_cast<double>(exact[at]));
        const double bound = (size + out * lost / total) / (1 - lost / total) + kUnit * out +
                             static_cast<double>(seen) * (1 + largest) * 0x1p-140;
        c.within("attention", got[at], exact[at], bound,
                 "cache " + std::to_string(static_cast<int>(a.cache)) + " head_dim " + std::to_string(a.head_dim) +
                     " at " + std::to_string(a.start + t));
      }
    }
  }
}

void one_case(Check& c, CacheType type, int64_t head_dim, int64_t share) {
  const int64_t kv_heads = c.random.from(1, 2), heads = share * kv_heads;
  const int64_t start = c.random.one_of<int64_t>({0, 1, 31, 32, 33, 70}), tokens = c.random.from(1, 20);
  Cache cache(c, type, kv_heads, head_dim, start + tokens + c.random.below(3));
  std::vector<float> row(static_cast<size_t>(head_dim));
  for (int64_t h = 0; h < kv_heads; ++h) {
    for (int64_t p = 0; p < cache.positions; ++p) {
      c.random.fill(row);
      cache.store(row.data(), h, p, cache.keys(), cache.key_scales());
      c.random.fill(row);
      cache.store(row.data(), h, p, cache.values(), cache.value_scales());
    }
  }
  const int64_t stride = heads * head_dim;
  const bool causal = c.random.below(4) > 0;
  Guarded<float> q(tokens * stride), got(tokens * stride), apart(tokens * stride), exact(tokens * stride);
  c.random.fill(q, 2);
  Attention a{.heads = heads,
              .kv_heads = kv_heads,
              .head_dim = head_dim,
              .start = start,
              .window = causal ? c.random.one_of<int64_t>({0, 0, 1, 7, 40}) : 0,
              .causal = causal,
              .softcap = c.random.one_of({0.0F, 0.0F, 2.0F}),
              .tokens = tokens,
              .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(head_dim))),
              .q = q.data(),
              .q_stride = stride,
              .cache = type,
              .row_bytes = cache.row_bytes,
              .row_scales = cache.row_scales,
              .cache_block_log2 = 5,
              .pages = cache.pages.data(),
              .page_bytes = cache.page_bytes,
              .keys = cache.keys(),
              .values = cache.values(),
              .key_scales = cache.key_scales(),
              .value_scales = cache.value_scales(),
              .out = got.data(),
              .out_stride = stride};
  c.kernels.attention(a, 0, heads, 0, tokens, c.scratch());
  a.out = apart.data();  // other pieces, same bits
  for (int64_t t = 0; t < tokens; ++t) c.kernels.attention(a, 0, heads, t, t + 1, c.scratch());
  c.same("attention_pieces", apart.data(), got.data(), static_cast<size_t>(tokens * stride) * 4, "one by one");
  a.out = exact.data();
  kScalarKernels.attention(a, 0, heads, 0, tokens, c.scratch());
  compare(c, a, got.data(), exact.data());
}

}  // namespace

void check_attention(Check& c) {
  for (auto type : {CacheType::kF16, CacheType::kF32, CacheType::kInt8, CacheType::kInt4})
    for (int64_t head_dim : {4, 6, 16, 20, 64, 80, 128}) {
      if (!c.full && c.random.below(3) > 0) continue;
      for (int64_t share : {1, 3}) one_case(c, type, head_dim, share);
    }
}

void check_cache(Check& c) {
  for (int n = 0; n < (c.full ? 600 : 100); ++n) {
    const auto type = n % 2 == 0 ? CacheType::kInt8 : CacheType::kInt4;
    const int64_t count = c.random.from(1, 140), block = c.random.one_of<int64_t>({32, 64, 128});
    const int64_t scales = (count + block - 1) / block;
    Guarded<float> x(count);
    c.random.fill(x, std::exp2(c.random.one_of({0, -20, -26, 12, 16})));
    if (n % 10 == 0) x[c.random.below(count)] = c.random.one_of({NAN, INFINITY, -INFINITY, 3e38F});
    if (n % 7 == 0) std::fill_n(x.data(), std::min<int64_t>(count, 32), 0.0F);
    Guarded<uint8_t> got(Cache::bytes_of(type, count)), exact(got.size());
    Guarded<uint16_t> got_scales(scales * 3), exact_scales(scales * 3);
    c.kernels.to_codes(x.data(), count, type, block, got.data(), got_scales.data(), 3);
    kScalarKernels.to_codes(x.data(), count, type, block, exact.data(), exact_scales.data(), 3);
    for (int64_t i = 0; i < got_scales.size(); ++i)  // any NaN is one
      if ((got_scales[i] & 0x7FFF) > 0x7C00 && (exact_scales[i] & 0x7FFF) > 0x7C00) got_scales[i] = exact_scales[i];
    // what pads the last numbers of kInt4 is never read as a number
    const int64_t whole = type == CacheType::kInt8 ? count : count / 32 * 16;
    c.same("to_codes", got.data(), exact.data(), static_cast<size_t>(whole), std::to_string(count) + " codes");
    for (int64_t k = whole * 2; type == CacheType::kInt4 && k < count; ++k) {
      const int shift = k % 32 < 16 ? 0 : 4;
      const int64_t at = k / 32 * 16 + k % 16;
      const int a = got[at] >> shift & 15, b = exact[at] >> shift & 15;
      c.same("to_codes", &a, &b, sizeof a, std::to_string(count) + " last codes");
    }
    c.same("to_codes", got_scales.data(), exact_scales.data(), static_cast<size_t>(got_scales.size()) * 2, "scales");
  }
}

}  // namespace scrimp
