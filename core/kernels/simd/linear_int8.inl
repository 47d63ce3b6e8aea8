// What the products of integer codes with one token and with many share: pieces of a row, and the sums of a tile.
// Included inside the namespace of a folder whose registers hold kRegRows rows, after these of it:
//
//   FloatReg, IntReg, kRegs                kRegs * kRegRows == kTileRows
//   zero(), all_rows(float), times(a, float), to_float(IntReg)
//   fma(sum, a, b)                         sum + a * b, b a register or one float for all rows
//   load_scale_reg(plane, type, at)        kRegRows scales (or mins) from element `at` on
//   kAheadBytes                            how far ahead of the products codes are asked for, 0: not at all
//   load_rows(y, count), store_rows(y, count, values)   the first `count` rows, the others neither read nor written

// Inputs [begin, end) are cut at the ends of groups and segments into pieces: one int32 sum each.
struct Pieces {
  int32_t* start;     // [pieces][stride] where the int32 sum begins: (bias - zero) * sum of the activations
  float* scale;       // [pieces][stride] of the activations
  float* group_sums;  // [groups][stride] scaled sums of the activations, for mins
  int64_t stride;     // tokens, at least those there are
};

// Fill them for the token block that begins with token `first`. Returns how many pieces there are.
int64_t describe_pieces(const Matrix& w, const Activations& x, int64_t begin, int64_t end, int64_t first,
                        const Pieces& pieces);

namespace {

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Where the segment, group or chunk that holds input k ends.
constexpr int64_t end_of(int64_t k, int64_t length, int64_t limit) { return smaller((k / length + 1) * length, limit); }

// Inputs whose products are summed in int32 before a scale is applied: a block of activations or a group of weights,
// whichever is shorter, and never so long that int32 could overflow (255 * 127 * 65536 < 2^31).
inline int64_t segment_inputs(const Matrix& w, const Activations& x) {
  constexpr int64_t kLongest = 65536;
  return smaller(smaller(smaller(w.group, x.block), w.cols), kLongest);
}

// f(k, end, ends) for each piece of [begin, end): `ends` where the piece is the last of its group within them.
template <class F>
SCRIMP_INLINE void each_piece(const Matrix& w, int64_t segment, int64_t begin, int64_t end, F f) {
  for (int64_t k = begin; k < end;) {
    const int64_t group_begin = k / w.group * w.group;
    const int64_t group_end = end_of(k, w.group, end);
    while (k < group_end) {
      const int64_t piece_end = smaller(group_begin + end_of(k - group_begin, segment, w.cols), group_end);
      f(k, piece_end, piece_end == group_end);
      k = piece_end;
    }
  }
}

// 16 rows of a tile.
struct Floats {
  FloatReg rows[kRegs];
};

struct Integers {
  IntReg rows[kRegs];
};

SCRIMP_INLINE Floats zeros() {
  Floats found;
  each<kRegs>([&](auto r) __attribute__((always_inline)) { found.rows[r.value] = zero(); });
  return found;
}

// y += a * b
SCRIMP_INLINE void add_product(Floats& y, const Floats& a, const Floats& b) {
  each<kRegs>([&](auto r) __attribute__((always_inline)) {
    y.rows[r.value] = fma(y.rows[r.value], a.rows[r.value], b.rows[r.value]);
  });
}

// y += a * scale, the same for all rows
SCRIMP_INLINE void add_scaled(Floats& y, const Floats& a, float scale) {
  each<kRegs>([&](auto r)
                  __attribute__((always_inline)) { y.rows[r.value] = fma(y.rows[r.value], a.rows[r.value], scale); });
}

SCRIMP_INLINE Floats to_floats(const Integers& v) {
  Floats found;
  each<kRegs>([&](auto r) __attribute__((always_inline)) { found.rows[r.value] = to_float(v.rows[r.value]); });
  return found;
}

// 16 scales (or mins) of one tile and group, as float.
SCRIMP_INLINE Floats load_scales(const void* plane, ScaleType type, int64_t at) {
  Floats found;
  each<kRegs>([&](auto r) __attribute__((always_inline)) {
    found.rows[r.value] = load_scale_reg(plane, type, at + kRegRows * r.value);
  });
  return found;
}

}  // namespace
