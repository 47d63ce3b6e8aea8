// Stored codes to float32, kLanes rows of one tile at a time. Included inside the namespace of an instruction set.
//
//   panel[(k - k_begin) * stride + r] = value of row r, input k
//
// The value is rounded exactly as `scale * (step*code - zero)`, `scale * numbers[code]` or `scale*code + min` in
// float32, multiply then add: step*code - zero is a small integer, so fusing that part changes nothing. Up to 3 inputs
// past k_end are written (to a whole quad); k_begin is a multiple of 160, where vectors of every width begin.

namespace {

// The scale and min of kLanes rows, following k from group to group.
struct ScaleCursor {
  const Matrix& w;
  int64_t index;  // of the first of these rows, in scale elements, in group 0
  int64_t group, end;
  Vec scale, min;

  ScaleCursor(const Matrix& matrix, int64_t tile, int64_t part, int64_t k)
      : w(matrix), index(tile * matrix.scale_tile_stride + part * kLanes), group(k / matrix.group), end(0) {
    scale = broadcast(1.0F);
    min = broadcast(0.0F);
    load_group();
  }

  // k grows by at most one group between calls.
  void reach(int64_t k) {
    if (k < end) return;
    ++group;
    load_group();
  }

 private:
  void load_group() {
    end = (group + 1) * w.group;
    if (w.scales != nullptr) scale = read(w.scales);
    if (w.mins != nullptr) min = read(w.mins);
  }

  Vec read(const void* plane) const {
    const int64_t at = index + group * kTileRows;
    if (w.scale_type == ScaleType::kF32) return load(static_cast<const float*>(plane) + at);
    if (w.scale_type == ScaleType::kE8m0) return load_e8m0(static_cast<const uint8_t*>(plane) + at);
    const uint16_t* halves = static_cast<const uint16_t*>(plane) + at;
    return w.scale_type == ScaleType::kBf16 ? load_bf16(halves) : load_f16(halves);
  }
};

// Quad `slot` (0..7) of the 32 inputs that begin at `plane`, from a plane of kWidth bits.
template <int kWidth>
Quad field(const uint8_t* plane, int slot) {
  constexpr int kPerVector = 8 / kWidth;
  constexpr uint32_t kMask = ((1u << kWidth) - 1u) * 0x01010101u;
  return shift_right(load_quad(plane + slot / kPerVector * kVectorBytes),
                     static_cast<unsigned>(kWidth * (slot % kPerVector))) &
         kMask;
}

// What a code means before its scale: step * code - zero, with mins the code itself.
template <bool kMins>
struct Linear {
  Vec step, minus_zero;
  explicit Linear(const Matrix& w)
      : step(broadcast(static_cast<float>(w.step))), minus_zero(broadcast(static_cast<float>(-w.zero))) {}
  Vec value(Quad code, const ScaleCursor& s) const {
    if constexpr (kMins) return s.scale * from_integers(code) + s.min;
    return s.scale * fma(step, from_integers(code), minus_zero);
  }
};

// Or a number of a table.
struct Listed {
  Table numbers;
  explicit Listed(const Matrix& w) : numbers(w.numbers) {}
  Vec value(Quad code, const ScaleCursor& s) const { return s.scale * look_up(numbers, code); }
};

// Four inputs of kLanes rows.
template <class Meaning>
void emit(Quad codes, const Meaning& meaning, const ScaleCursor& s, float* to, int64_t stride) {
#pragma GCC unroll 4
  for (unsigned j = 0; j < 4; ++j) store(to + j * stride, meaning.value(shift_right(codes, 8 * j) & 0xFFu, s));
}

// Codes of kLow bits in plane 0 and kHigh more in plane 1.
template <int kLow, int kHigh, class Meaning>
void decode_fields(const Matrix& w, int64_t tile, int64_t part, int64_t k_begin, int64_t k_end, float* panel,
                   int64_t stride) {
  const int64_t lane_bytes = part * kLanes * 4;
  const uint8_t* low = w.plane[0] + (tile * w.vectors[0] + k_begin / 32 * kLow) * kVectorBytes + lane_bytes;
  const uint8_t* high = nullptr;
  if constexpr (kHigh > 0) high = w.plane[1] + (tile * w.vectors[1] + k_begin / 32 * kHigh) * kVectorBytes + lane_bytes;
  const Meaning meaning(w);
  ScaleCursor s(w, tile, part, k_begin);
  for (int64_t k = k_begin; k < k_end;) {
#pragma GCC unroll 8
    for (int slot = 0; slot < 8; ++slot) {
      if (k >= k_end) return;
      s.reach(k);
      Quad codes = field<kLow>(low, slot);
      if constexpr (kHigh > 0) codes = codes | shift_left(field<kHigh>(high, slot), kLow);
      emit(codes, meaning, s, panel, stride);
      panel += 4 * stride;
      k += 4;
    }
    low += kLow * kVectorBytes;
    if constexpr (kHigh > 0) high += kHigh * kVectorBytes;
  }
}

// Five trits a byte. x / 3 = (171 x) >> 9 for x < 256, on 16 bits; even and odd bytes apart.
template <bool kMins>
void decode_trits(const Matrix& w, int64_t tile, int64_t part, int64_t k_begin, int64_t k_end, float* panel,
                  int64_t stride) {
  const uint8_t* plane = w.plane[0] + (tile * w.vectors[0] + k_begin / 20) * kVectorBytes + part * kLanes * 4;
  const Linear<kMins> meaning(w);
  ScaleCursor s(w, tile, part, k_begin);
  for (int64_t k = k_begin; k < k_end; plane += kVectorBytes) {
    const Quad bytes = load_quad(plane);
    Quad even = bytes & 0x00FF00FFu;
    Quad odd = shift_right16(bytes, 8);
#pragma GCC unroll 5
    for (int slot = 0; slot < 5; ++slot) {
      if (k >= k_end) return;
      s.reach(k);
      const Quad even_rest = shift_right16(multiply16(even, 171), 9);
      const Quad odd_rest = shift_right16(multiply16(odd, 171), 9);
      const Quad even_code = subtract16(even, multiply16(even_rest, 3));
      const Quad odd_code = subtract16(odd, multiply16(odd_rest, 3));
      emit(even_code | shift_left(odd_code, 8), meaning, s, panel, stride);
      even = even_rest;
      odd = odd_rest;
      panel += 4 * stride;
      k += 4;
    }
  }
}

// Half `j` of the 32 bits of each row, 0 the low one.
template <Element kElement>
Vec half_value(Quad pair, int64_t j) {
  if constexpr (kElement == Element::kF16) return from_low_half(j != 0 ? shift_right(pair, 16) : pair);
  return from_bits(j != 0 ? pair & 0xFFFF0000u : shift_left(pair, 16));
}

template <Element kElement>
Vec float_value(const uint8_t* plane, int64_t k) {
  if constexpr (kElement == Element::kF32) return from_bits(load_quad(plane + k * kVectorBytes));
  return half_value<kElement>(load_quad(plane + k / 2 * kVectorBytes), k & 1);
}

template <Element kElement>
void decode_floats(const Matrix& w, int64_t tile, int64_t part, int64_t k_begin, int64_t k_end, float* panel,
                   int64_t stride) {
  const uint8_t* plane = w.plane[0] + tile * w.vectors[0] * kVectorBytes + part * kLanes * 4;
  if (w.scales == nullptr) {
    for (int64_t k = k_begin; k < k_end; ++k, panel += stride) store(panel, float_value<kElement>(plane, k));
    return;
  }
  ScaleCursor s(w, tile, part, k_begin);
  for (int64_t k = k_begin; k < k_end; ++k, panel += stride) {
    s.reach(k);
    const Vec scaled = s.scale * float_value<kElement>(plane, k);
    store(panel, w.mins != nullptr ? scaled + s.min : scaled);
  }
}

template <bool kMins>
void decode_codes(const Matrix& w, int64_t tile, int64_t part, int64_t k_begin, int64_t k_end, float* panel,
                  int64_t stride) {
  if (w.element == Element::kTernary) return decode_trits<kMins>(w, tile, part, k_begin, k_end, panel, stride);
  switch (w.bits) {
    case 1:
      return decode_fields<1, 0, Linear<kMins>>(w, tile, part, k_begin, k_end, panel, stride);
    case 2:
      return decode_fields<2, 0, Linear<kMins>>(w, tile, part, k_begin, k_end, panel, stride);
    case 3:
      return decode_fields<2, 1, Linear<kMins>>(w, tile, part, k_begin, k_end, panel, stride);
    case 4:
      return decode_fields<4, 0, Linear<kMins>>(w, tile, part, k_begin, k_end, panel, stride);
    case 5:
      return decode_fields<4, 1, Linear<kMins>>(w, tile, part, k_begin, k_end, panel, stride);
    case 6:
      return decode_fields<4, 2, Linear<kMins>>(w, tile, part, k_begin, k_end, panel, stride);
    default:
      return decode_fields<8, 0, Linear<kMins>>(w, tile, part, k_begin, k_end, panel, stride);
  }
}

inline void decode_listed(const Matrix& w, int64_t tile, int64_t part, int64_t k_begin, int64_t k_end, float* panel,
                          int64_t stride) {
  if (w.bits == 2) return decode_fields<2, 0, Listed>(w, tile, part, k_begin, k_end, panel, stride);
  if (w.bits == 3) return decode_fields<2, 1, Listed>(w, tile, part, k_begin, k_end, panel, stride);
  decode_fields<4, 0, Listed>(w, tile, part, k_begin, k_end, panel, stride);
}

// Rows part*kLanes .. of one tile.
inline void decode(const Matrix& w, int64_t tile, int64_t part, int64_t k_begin, int64_t k_end, float* panel,
                   int64_t stride) {
  switch (w.element) {
    case Element::kF32:
      return decode_floats<Element::kF32>(w, tile, part, k_begin, k_end, panel, stride);
    case Element::kF16:
      return decode_floats<Element::kF16>(w, tile, part, k_begin, k_end, panel, stride);
    case Element::kBf16:
      return decode_floats<Element::kBf16>(w, tile, part, k_begin, k_end, panel, stride);
    default:
      break;
  }
  if (w.element == Element::kTable) return decode_listed(w, tile, part, k_begin, k_end, panel, stride);
  if (w.mins != nullptr) return decode_codes<true>(w, tile, part, k_begin, k_end, panel, stride);
  return decode_codes<false>(w, tile, part, k_begin, k_end, panel, stride);
}

}  // namespace
