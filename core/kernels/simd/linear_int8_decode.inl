// One token times a matrix of integer codes: the kernel that generates text. It is bound by reading memory.
// Included inside the namespace of a processor, after its `Dot`:
//
//   begin(start)     16 sums that begin at `start`
//   add<kReg, kQuad, kMost, kRun>(codes, x)
//                    += register kReg of a quad, codes of at most kMost, times lane kQuad % 4 of x. Quads come in runs
//                    of kRun (8 or 1): kQuad counts from 0 in each.
//   add_apart<kReg, kQuad, kMost, kLane>(codes, x)
//                    times lane kLane; in runs of 8 that count only when whole: registers may be in the next one before
//                    `total` and `begin` are called for this one
//   total()          the sums of whole runs
//
// and four_quads(x): 16 activations as `add` takes them, load_reg(p): a register of codes.

// The 16 outputs of one tile while they are being summed: an int32 sum per segment, a float sum per group.
struct Tile {
  const Matrix& w;
  const Pieces& token;
  int64_t scale_at;
  Floats y = zeros();
  Floats group = zeros();
  Dot sum;

  SCRIMP_INLINE Tile(const Matrix& matrix, const Pieces& t, int64_t tile)
      : w(matrix), token(t), scale_at(tile * matrix.scale_tile_stride) {
    sum.begin(token.start[0]);
  }

  SCRIMP_INLINE void end_segment(int64_t i) {
    add_scaled(group, to_floats(sum.total()), token.scale[i]);
    sum.begin(token.start[i + 1]);
  }

  SCRIMP_INLINE void end_group(int64_t g) {
    add_product(y, load_scales(w.scales, w.scale_type, scale_at), group);
    if (w.mins != nullptr) add_scaled(y, load_scales(w.mins, w.scale_type, scale_at), token.group_sums[g]);
    group = zeros();
    scale_at += kTileRows;
  }
};

// Ask for what the streams of planes hold kAheadBytes further on, an address only: it may lie past the plane.
template <class Format>
SCRIMP_INLINE void prefetch(const Cursor<Format>& planes) {
  if constexpr (kAheadBytes > 0 && Format::vectors[0] + Format::vectors[1] < 6) {
    each<2>([&](auto p) __attribute__((always_inline)) {
      const uintptr_t from = reinterpret_cast<uintptr_t>(planes.at[p.value]) + kAheadBytes;
      each<Format::vectors[p.value]>([&](auto v) __attribute__((always_inline)) {
        __builtin_prefetch(reinterpret_cast<const void*>(from + v.value * kVectorBytes));
      });
    });
  }
}

// 32 inputs.
template <class Format>
SCRIMP_INLINE void step(const Format& format, Dot& sum, const uint8_t* const planes[2], const int8_t* at) {
  const FourQuads x[2] = {four_quads(at), four_quads(at + 16)};
  format.step(planes, [&](auto q, const Quad& codes) __attribute__((always_inline)) {
    each<kRegs>([&](auto r) __attribute__((always_inline)) {
      sum.template add<r.value, q.value, Format::most, kStepQuads>(codes.rows[r.value], x[q.value / 4]);
    });
  });
}

template <class Format>
SCRIMP_INLINE Floats tile_of_planes(const Format& format, const Matrix& w, const Pieces& token, int64_t segment,
                                    const int8_t* x, int64_t tile) {
  Tile out(w, token, tile);
  Cursor<Format> planes(w, tile, 0);
  int64_t i = 0;
  int64_t k = 0;
  for (int64_t g = 0; g < w.groups; ++g) {
    const int64_t group_begin = g * w.group;
    const int64_t group_end = smaller(w.cols - group_begin, w.group) + group_begin;
    while (k < group_end) {
      const int64_t end = smaller(group_begin + end_of(k - group_begin, segment, w.cols), group_end);
      for (; k + kStepCols <= end; k += kStepCols) {
        prefetch(planes);
        step(format, out.sum, planes.at, x + k);
        planes.advance();
      }
      if (k < end) {
        const Rest<Format> rest(w, tile);
        const uint8_t* const from[2] = {rest.bytes[0], rest.bytes[1]};
        step(format, out.sum, from, x + k);
        k = end;
      }
      out.end_segment(i++);
    }
    out.end_group(g);
  }
  return out.y;
}

// One tile of trits: 5 quads per vector, so segments (8, 16, ... quads) and groups end in the middle of vectors. Eight
// vectors are 40 quads: a segment can end only at the five places where 8 divides the count.
SCRIMP_INLINE Floats tile_of_trits(const Matrix& w, const Pieces& token, int64_t segment, const int8_t* x,
                                   int64_t tile) {
  const uint8_t* p = w.plane[0] + tile * w.vectors[0] * kVectorBytes;
  Tile out(w, token, tile);
  int64_t i = 0;
  int64_t g = 0;
  int64_t k = 0;  // inputs done, at multiples of 32
  int64_t segment_end = smaller(segment, w.cols);
  int64_t group_end = smaller(w.group, w.cols);

  const auto boundary = [&]() __attribute__((always_inline)) {
    k += kStepCols;
    if (k < segment_end) return;
    out.end_segment(i++);
    if (k >= group_end) {
      out.end_group(g++);
      group_end += smaller(w.group, w.cols - group_end);
    }
    segment_end += smaller(segment, group_end - segment_end);
  };

  int64_t v = 0;
  for (; v + 8 <= w.vectors[0]; v += 8) {
    each<8>([&](auto n) __attribute__((always_inline)) {
      constexpr int kFirst = n.value * 5;
      const FourQuads inputs[2] = {four_quads(x + 4 * kFirst), four_quads(x + 4 * kFirst + 16)};
      Dot sum = out.sum;  // a value, not memory: else GCC stores each product
      trits(p + n.value * kVectorBytes, [&](auto r, auto t, auto codes) __attribute__((always_inline)) {
        constexpr int kLane = t.value % 4;  // of `inputs`, which begin with the first quad of the vector
        sum.template add_apart<r.value, (kFirst + t.value) % 8, kMostTrit, kLane>(codes, inputs[t.value / 4]);
      });
      out.sum = sum;
      if constexpr (kFirst / 8 != (kFirst + 5) / 8) boundary();
    });
    p += 8 * kVectorBytes;
    x += 160;
  }
  int64_t quad = v * 5;
  for (; v < w.vectors[0]; ++v, p += kVectorBytes) {
    alignas(kVectorBytes) uint8_t quads[5 * kVectorBytes];
    unpack_vector(p, quads);
    for (int64_t t = 0; t < 5; ++t, x += 4) {
      const FourQuads inputs = four_quads(x);
      each<kRegs>([&](auto r) __attribute__((always_inline)) {
        const auto codes = load_reg(quads + t * kVectorBytes + 4 * kRegRows * r.value);
        out.sum.template add<r.value, 0, kMostTrit, 1>(codes, inputs);
      });
      if (++quad % 8 == 0 && g < w.groups) boundary();
    }
  }
  if (g < w.groups) {  // a ragged row: its last segment ended between the places looked at
    out.end_segment(i);
    out.end_group(g);
  }
  return out.y;
}

inline void decode(const Matrix& w, const Pieces& token, int64_t segment, const int8_t* x, int64_t tile_begin,
                   int64_t tile_end, float* y) {
  const auto tiles = [&](auto product) __attribute__((always_inline)) {
    for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
      const Floats rows = product(tile);
      const int64_t at = tile * kTileRows;
      for (int64_t r = 0; r < kRegs; ++r) {
        const int64_t row = at + kRegRows * r;
        if (w.rows > row) store_rows(y + row, w.rows - row, times(rows.rows[r], w.factor));
      }
    }
  };
  if (w.element == Element::kTernary) {
    tiles([&](int64_t tile) __attribute__((always_inline)) { return tile_of_trits(w, token, segment, x, tile); });
    return;
  }
  with_format(w, [&](auto format) {
    tiles([&](int64_t tile)
              __attribute__((always_inline)) { return tile_of_planes(format, w, token, segment, x, tile); });
  });
}

// y[n] = sum_g s[n,g] * sum_{a in g} sx[a] * (sum_{k in a} u[n,k]*x[k] - zero*sum_{k in a} x[k])  [+ m[n,g] * sum ...]
//
// Shapes: w N x K in tiles of 16 rows, x one row of int8; y gets the rows of tiles [tile_begin, tile_end).
// Exactness: the inner sum starts at (bias - zero) * sum of x and is exact in int32; one rounding per scale and per
// addition.
// Cost: every stored byte is read once, tiles in order: one contiguous stream per plane and thread. Per 16 weights a
// shift, a mask (an insertion, for two planes) and a dot product.
// Scratch: three words per 32 inputs.
inline void decode_body(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                        uint8_t* scratch) {
  const int64_t most = (w.cols + kStepCols - 1) / kStepCols + 16;
  float* words = reinterpret_cast<float*>(scratch);
  const Pieces token = {reinterpret_cast<int32_t*>(words), words + most, words + 2 * most, 1};
  const int64_t pieces = describe_pieces(w, x, 0, w.cols, 0, token);
  token.start[pieces] = 0;  // where nothing begins
  decode(w, token, segment_inputs(w, x), x.quads, tile_begin, tile_end, y);
}
