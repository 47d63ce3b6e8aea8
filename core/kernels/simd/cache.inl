// A key/value cache: read as panels of product.inl, and its codes written. Included inside the namespace of an
// instruction set.
//
// Of keys a panel has inputs d and rows that are positions, as a page holds them; of values inputs that are positions
// and rows d. What lies past the last position written, or past head_dim, is no number: it stays in lanes of its own.

namespace {

static_assert(kPagePositions % kLanes == 0);

inline int64_t page_of(const Attention& a, int64_t position) {
  return a.pages[position / kPagePositions] * a.page_bytes;
}

// Keys or values of one head, in the page that a position is in.
inline const uint8_t* head_of(const Attention& a, const uint8_t* plane, int64_t head, int64_t position) {
  return plane + page_of(a, position) + head * kPagePositions * a.row_bytes;
}

// Where a panel begins, and where the one after it will: its lines are asked for while this one is read, since they are
// far away and too few for the hardware to run ahead. Asking past the end is harmless.
struct Place {
  int64_t head, position, next_head, next;
};

// Scales of a head in the page of a position as float32, [row_scales][kPagePositions].
inline const float* widen_scales(const Attention& a, const uint16_t* scales, int64_t head, int64_t position,
                                 float* wide) {
  const int64_t count = a.row_scales * kPagePositions;
  const uint16_t* from = scales + page_of(a, position) / 2 + head * count;
  for (int64_t i = 0; i < count; i += kLanes) store(wide + i, load_f16(from + i));
  return wide;
}

inline Vec load_number(const float* p) { return load(p); }
inline Vec load_number(const uint16_t* p) { return load_f16(p); }

template <typename Number>
struct FloatKeys {
  const Number* numbers;
  const Number* next;

  static FloatKeys of(const Attention& a, const Place& at, float*) {
    const auto from = [&](int64_t head, int64_t position) {
      return reinterpret_cast<const Number*>(head_of(a, a.keys, head, position)) + position % kPagePositions;
    };
    return {from(at.head, at.position), from(at.next_head, at.next)};
  }
  Vec at(int64_t d, int64_t p) const {
    __builtin_prefetch(next + d * kPagePositions + p, 0, 2);
    return load_number(numbers + d * kPagePositions + p);
  }
};

template <typename Number>
struct FloatValues {
  const Number* numbers;
  const Number* next;
  int64_t head_dim;

  static FloatValues of(const Attention& a, const Place& at, float*) {
    const auto from = [&](int64_t head, int64_t position) {
      const auto* page = reinterpret_cast<const Number*>(head_of(a, a.values, head, position));
      return page + position % kPagePositions * a.head_dim;
    };
    return {from(at.head, at.position), from(at.next_head, at.next), a.head_dim};
  }
  Vec at(int64_t p, int64_t d) const {
    __builtin_prefetch(next + p * head_dim + d, 0, 2);
    return load_number(numbers + p * head_dim + d);
  }
};

struct Int8Keys {
  const uint8_t* codes;
  const uint8_t* next;
  const float* scales;
  int32_t block_log2;

  static Int8Keys of(const Attention& a, const Place& at, float* wide) {
    const int64_t first = at.position % kPagePositions;
    return {head_of(a, a.keys, at.head, at.position) + first,
            head_of(a, a.keys, at.next_head, at.next) + at.next % kPagePositions,
            widen_scales(a, a.key_scales, at.head, at.position, wide) + first, a.cache_block_log2};
  }
  Vec at(int64_t d, int64_t p) const {
    __builtin_prefetch(next + d * kPagePositions + p, 0, 2);
    return load_int8(codes + d * kPagePositions + p) * load(scales + (d >> block_log2) * kPagePositions + p);
  }
};

struct Int8Values {
  const uint8_t* codes;
  const uint8_t* next;
  const float* scales;
  int64_t row_bytes;
  int32_t block_log2;

  static Int8Values of(const Attention& a, const Place& at, float* wide) {
    const int64_t first = at.position % kPagePositions;
    return {head_of(a, a.values, at.head, at.position) + first * a.row_bytes,
            head_of(a, a.values, at.next_head, at.next) + at.next % kPagePositions * a.row_bytes,
            widen_scales(a, a.value_scales, at.head, at.position, wide) + first, a.row_bytes, a.cache_block_log2};
  }
  Vec at(int64_t p, int64_t d) const {
    __builtin_prefetch(next + p * row_bytes + d, 0, 2);
    return load_int8(codes + p * row_bytes + d) * broadcast(scales[(d >> block_log2) * kPagePositions + p]);
  }
};

// Where kInt4 has number d of a row, and from which bit on.
inline int64_t byte_of(int64_t d) { return (d >> 5 << 4) + (d & 15); }
inline int half_of(int64_t d) { return static_cast<int>(d >> 2 & 4); }

struct Int4Keys {
  const uint8_t* codes;
  const uint8_t* next;
  const float* scales;
  int32_t block_log2;

  static Int4Keys of(const Attention& a, const Place& at, float* wide) {
    const int64_t first = at.position % kPagePositions;
    return {head_of(a, a.keys, at.head, at.position) + first,
            head_of(a, a.keys, at.next_head, at.next) + at.next % kPagePositions,
            widen_scales(a, a.key_scales, at.head, at.position, wide) + first, a.cache_block_log2};
  }
  Vec at(int64_t d, int64_t p) const {
    const int64_t byte = byte_of(d) * kPagePositions + p;
    __builtin_prefetch(next + byte, 0, 2);
    return load_int4(codes + byte, half_of(d)) * load(scales + (d >> block_log2) * kPagePositions + p);
  }
};

struct Int4Values {
  const uint8_t* codes;
  const uint8_t* next;
  const float* scales;
  int64_t row_bytes;
  int32_t block_log2;

  static Int4Values of(const Attention& a, const Place& at, float* wide) {
    const int64_t first = at.position % kPagePositions;
    return {head_of(a, a.values, at.head, at.position) + first * a.row_bytes,
            head_of(a, a.values, at.next_head, at.next) + at.next % kPagePositions * a.row_bytes,
            widen_scales(a, a.value_scales, at.head, at.position, wide) + first, a.row_bytes, a.cache_block_log2};
  }
  Vec at(int64_t p, int64_t d) const {
    const int64_t byte = p * row_bytes + byte_of(d);
    __builtin_prefetch(next + byte, 0, 2);
    return load_int4(codes + byte, half_of(d)) * broadcast(scales[(d >> block_log2) * kPagePositions + p]);
  }
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

}  // namespace

void to_codes(const float* x, int64_t n, CacheType type, int64_t block, uint8_t* codes, uint16_t* scales,
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
