// Rows of a key/value cache: written, and read back as float32. Included inside the namespace of an instruction set.

constexpr int64_t kPositions = 32;  // read at a time: both panels in L1 (decoding is 1.2 to 1.5 times faster than with
                                    // 64)
static_assert(kPositions % kLanes == 0 && kPagePositions % kPositions == 0);

// `positions` of them from `begin` on, in one page, of one key/value head; `next` is where the block after it begins.
struct Stretch {
  int64_t head, begin, positions, next;
};

inline int64_t page_of(const Attention& a, int64_t position) {
  return a.pages[position / kPagePositions] * a.page_bytes;
}

inline const uint8_t* rows_at(const Attention& a, const uint8_t* plane, int64_t head, int64_t position) {
  return plane + page_of(a, position) + (head * kPagePositions + position % kPagePositions) * a.row_bytes;
}

// The readers have the rows of a stretch. `read` gives kLanes numbers from d on, all of them stored; `read_first` the
// first `count` and then zeros; `read_columns` kLanes rows of them, transposed. Decoding one token streams rows from
// memory in pieces too short for the hardware to run ahead of, so the rows of the next block are asked for: one line
// holds kPerLine numbers, and asking past the end is harmless.

struct F32Rows {
  static constexpr int64_t kPerLine = 16;
  const float* rows;
  const float* next;
  int64_t head_dim;

  static F32Rows at(const Attention& a, const uint8_t* plane, const uint16_t*, const Stretch& s, float*) {
    return {reinterpret_cast<const float*>(rows_at(a, plane, s.head, s.begin)),
            reinterpret_cast<const float*>(rows_at(a, plane, s.head, s.next)), a.head_dim};
  }
  Vec read(int64_t p, int64_t d) const { return load(rows + p * head_dim + d); }
  Vec read_first(int64_t p, int64_t d, int64_t count) const {
    return count >= kLanes ? read(p, d) : load_first(rows + p * head_dim + d, count, broadcast(0.0F));
  }
  void read_columns(int64_t p, int64_t d, Vec (&square)[kLanes]) const {
#pragma GCC unroll 16
    for (int64_t i = 0; i < kLanes; ++i) square[i] = read(p + i, d);
    transpose(square);
  }
  void prefetch(int64_t p, int64_t d) const { __builtin_prefetch(next + p * head_dim + d); }
};

struct F16Rows {
  static constexpr int64_t kPerLine = 32;
  const uint16_t* rows;
  const uint16_t* next;
  int64_t head_dim;

  static F16Rows at(const Attention& a, const uint8_t* plane, const uint16_t*, const Stretch& s, float*) {
    return {reinterpret_cast<const uint16_t*>(rows_at(a, plane, s.head, s.begin)),
            reinterpret_cast<const uint16_t*>(rows_at(a, plane, s.head, s.next)), a.head_dim};
  }
  Vec read(int64_t p, int64_t d) const { return load_f16(rows + p * head_dim + d); }
  Vec read_first(int64_t p, int64_t d, int64_t count) const {
    return count >= kLanes ? read(p, d) : load_f16_first(rows + p * head_dim + d, count);
  }
  void read_columns(int64_t p, int64_t d, Vec (&square)[kLanes]) const {
#pragma GCC unroll 16
    for (int64_t i = 0; i < kLanes; ++i) square[i] = read(p + i, d);
    transpose(square);
  }
  void prefetch(int64_t p, int64_t d) const { __builtin_prefetch(next + p * head_dim + d); }
};

// Scales of a stretch as float32, [row_scales][kPositions]; up to kLanes - 1 more are read, of the same page.
inline const float* widen_scales(const Attention& a, const uint16_t* scales, const Stretch& s, float* wide) {
  const int64_t head = s.head * a.row_scales * kPagePositions;
  const uint16_t* from = scales + page_of(a, s.begin) / 2 + head + s.begin % kPagePositions;
  const uint16_t* next = scales + page_of(a, s.next) / 2 + head + s.next % kPagePositions;
  for (int64_t i = 0; i < a.row_scales; ++i) {
    __builtin_prefetch(next + i * kPagePositions);
    for (int64_t p = 0; p < s.positions; p += kLanes)
      store(wide + i * kPositions + p, load_f16(from + i * kPagePositions + p));
  }
  return wide;
}

struct Int8Rows {
  static constexpr int64_t kPerLine = 64;
  const uint8_t* rows;
  const uint8_t* next;
  const float* scales;
  int64_t row_bytes;
  int32_t block_log2;

  static Int8Rows at(const Attention& a, const uint8_t* plane, const uint16_t* scales, const Stretch& s, float* wide) {
    const float* found = widen_scales(a, scales, s, wide);
    return {rows_at(a, plane, s.head, s.begin), rows_at(a, plane, s.head, s.next), found, a.row_bytes,
            a.cache_block_log2};
  }
  Vec read(int64_t p, int64_t d) const {
    return load_int8(rows + p * row_bytes + d) * broadcast(scales[(d >> block_log2) * kPositions + p]);
  }
  Vec read_first(int64_t p, int64_t d, int64_t count) const {
    return count >= kLanes ? read(p, d) : keep_first(read(p, d), count);
  }
  void read_columns(int64_t p, int64_t d, Vec (&square)[kLanes]) const {
    transpose_int8(rows + p * row_bytes + d, row_bytes, square);
    const Vec scale = load(scales + (d >> block_log2) * kPositions + p);
#pragma GCC unroll 16
    for (int64_t i = 0; i < kLanes; ++i) square[i] = square[i] * scale;
  }
  void prefetch(int64_t p, int64_t d) const { __builtin_prefetch(next + p * row_bytes + d); }
};

struct Int4Rows {
  static constexpr int64_t kPerLine = 128;
  const uint8_t* rows;
  const uint8_t* next;
  const float* scales;
  int64_t row_bytes;
  int32_t block_log2;

  static Int4Rows at(const Attention& a, const uint8_t* plane, const uint16_t* scales, const Stretch& s, float* wide) {
    const float* found = widen_scales(a, scales, s, wide);
    return {rows_at(a, plane, s.head, s.begin), rows_at(a, plane, s.head, s.next), found, a.row_bytes,
            a.cache_block_log2};
  }
  Vec read(int64_t p, int64_t d) const {
    const uint8_t* from = rows + p * row_bytes + d / 32 * 16 + d % 16;
    return load_int4(from, d % 32 < 16 ? 0 : 4) * broadcast(scales[(d >> block_log2) * kPositions + p]);
  }
  Vec read_first(int64_t p, int64_t d, int64_t count) const {
    return count >= kLanes ? read(p, d) : keep_first(read(p, d), count);
  }
  void read_columns(int64_t p, int64_t d, Vec (&square)[kLanes]) const {
    transpose_int4(rows + p * row_bytes + d / 32 * 16 + d % 16, row_bytes, d % 32 < 16 ? 0 : 4, square);
    const Vec scale = load(scales + (d >> block_log2) * kPositions + p);
#pragma GCC unroll 16
    for (int64_t i = 0; i < kLanes; ++i) square[i] = square[i] * scale;
  }
  void prefetch(int64_t p, int64_t d) const { __builtin_prefetch(next + p * row_bytes + d / 2); }
};

inline Vec numbers(const float* x, int64_t count) {
  return count >= kLanes ? load(x) : load_first(x, count, broadcast(0.0F));
}

// f16(max|x| / limit); NaN where a number is not finite.
inline float store_scale(const float* x, int64_t n, float limit, uint16_t* stored) {
  const Vec zero = broadcast(0.0F);
  Vec top = zero;
  Vec poison = zero;  // max forgets a NaN, a sum of products with 0 does not
  for (int64_t k = 0; k < n; k += kLanes) {
    const Vec v = numbers(x + k, n - k);
    top = max(top, max(v, zero - v));
    poison = poison + v * zero;
  }
  store_f16_first(stored, broadcast((largest(top) + sum(poison)) / limit), 1);
  float scale;
  store_first(&scale, load_f16_first(stored, 1), 1);
  return scale;
}

// x, at most 32 numbers, as integers of 8 bits; what is missing is 0. Not usable: all 0.
inline void round_codes(const float* x, int64_t n, float scale, float limit, uint8_t* codes) {
  const bool usable = scale > 0.0F && scale <= __FLT_MAX__;
  const Vec high = broadcast(limit);
  const Vec low = broadcast(-limit);
  const Vec divisor = broadcast(scale);
  for (int64_t k = 0; k < 32; k += kLanes) {
    Vec code = broadcast(0.0F);
    if (usable && k < n) code = min(high, max(low, round_even(numbers(x + k, n - k) / divisor)));
    store_int8(codes + k, code);
  }
}

inline void to_codes_body(const float* x, int64_t n, CacheType type, int64_t block, uint8_t* codes, uint16_t* scales,
                          int64_t scale_stride) {
  const bool bytes = type == CacheType::kInt8;
  const float limit = bytes ? 127.0F : 7.0F;
  for (int64_t begin = 0; begin < n; begin += block) {
    const int64_t end = n - begin < block ? n : begin + block;
    const float scale = store_scale(x + begin, end - begin, limit, scales);
    scales += scale_stride;
    for (int64_t k = begin; k < end; k += 32) {
      uint8_t whole[32];
      round_codes(x + k, end - k, scale, limit, whole);
      const int64_t count = end - k < 32 ? end - k : 32;
      if (bytes)
        for (int64_t j = 0; j < count; ++j) codes[k + j] = whole[j];
      else
        for (int64_t j = 0; j < 16; ++j)
          codes[k / 2 + j] = static_cast<uint8_t>(((whole[j] + 8) & 15) | (whole[16 + j] + 8) << 4);
    }
  }
}
