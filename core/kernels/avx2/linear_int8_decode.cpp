// One token times a matrix of integer codes: the kernel that generates text. It is bound by reading memory.
#include "kernels/avx2/linear_int8.h"

namespace scrimp::avx2 {
namespace {

// The 16 outputs of one tile while they are being summed: an int32 sum per segment, a float sum per group.
template <bool kMins>
struct Tile {
  const Matrix& w;
  const Pieces& token;
  int64_t scale_at;
  Floats y = zeros();
  Floats group = zeros();
  Vector sum;

  SCRIMP_INLINE Tile(const Matrix& matrix, const Pieces& t, int64_t tile)
      : w(matrix), token(t), scale_at(tile * matrix.scale_tile_stride) {
    begin_segment(0);
  }

  SCRIMP_INLINE void begin_segment(int64_t i) {
    const __m256i start = _mm256_set1_epi32(token.start[i]);
    sum = {{start, start}};
  }

  SCRIMP_INLINE void end_segment(int64_t i) {
    add_scaled(group, to_floats(sum), token.scale[i]);
    begin_segment(i + 1);
  }

  SCRIMP_INLINE void end_group(int64_t g) {
    add_product(y, load_scales(w.scales, w.scale_type, scale_at), group);
    if constexpr (kMins) add_scaled(y, load_scales(w.mins, w.scale_type, scale_at), token.group_sums[g]);
    group = zeros();
    scale_at += kTileRows;
  }
};

// 32 inputs.
template <class Format>
SCRIMP_INLINE void step(const Format& format, Vector& sum, const uint8_t* const planes[2], const int8_t* x) {
  Vector narrow[2] = {};
  format.step(planes, [&](auto part, auto q, const Vector& codes) __attribute__((always_inline)) {
    dot(narrow[part.value], codes, broadcast(x + 4 * q.value));
  });
  each<Format::parts>(
      [&](auto part) __attribute__((always_inline)) { widen(sum, narrow[part.value], Format::weight(part.value)); });
}

template <class Format, bool kMins>
SCRIMP_INLINE Floats tile_of_planes(const Format& format, const Matrix& w, const Pieces& token, int64_t segment,
                                    const int8_t* x, int64_t tile) {
  Tile<kMins> out(w, token, tile);
  Cursor<Format> planes(w, tile, 0);
  int64_t i = 0;
  int64_t k = 0;
  for (int64_t g = 0; g < w.groups; ++g) {
    const int64_t group_begin = g * w.group;
    const int64_t group_end = smaller(w.cols - group_begin, w.group) + group_begin;
    while (k < group_end) {
      const int64_t end = smaller(group_begin + end_of(k - group_begin, segment, w.cols), group_end);
      for (; k + kStepCols <= end; k += kStepCols) {
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
template <bool kMins>
SCRIMP_INLINE Floats tile_of_trits(const Matrix& w, const Pieces& token, int64_t segment, const int8_t* x,
                                   int64_t tile) {
  const __m256i weight = _mm256_set1_epi16(1);
  const uint8_t* p = w.plane[0] + tile * w.vectors[0] * kVectorBytes;
  Tile<kMins> out(w, token, tile);
  Vector narrow = {};
  int64_t i = 0;
  int64_t g = 0;
  int64_t k = 0;  // inputs done, at multiples of 32
  int64_t segment_end = smaller(segment, w.cols);
  int64_t group_end = smaller(w.group, w.cols);

  const auto boundary = [&]() __attribute__((always_inline)) {
    widen(out.sum, narrow, weight);
    narrow = {};
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
      trits(p + n.value * kVectorBytes, [&](auto q, const Vector& codes) __attribute__((always_inline)) {
        constexpr int kQuad = n.value * 5 + q.value;
        dot(narrow, codes, broadcast(x + 4 * kQuad));
        if constexpr (kQuad % 8 == 7) boundary();
      });
    });
    p += 8 * kVectorBytes;
    x += 160;
  }
  int64_t quad = v * 5;
  for (; v < w.vectors[0]; ++v, p += kVectorBytes) {
    trits(p, [&](auto, const Vector& codes) __attribute__((always_inline)) {
      dot(narrow, codes, broadcast(x));
      x += 4;
      if (++quad % 8 == 0 && g < w.groups) boundary();
    });
  }
  if (g < w.groups) {  // a ragged row: its last segment ended between the places looked at
    widen(out.sum, narrow, weight);
    out.end_segment(i);
    out.end_group(g);
  }
  return out.y;
}

template <bool kMins>
void decode(const Matrix& w, const Pieces& token, int64_t segment, const int8_t* x, int64_t tile_begin,
            int64_t tile_end, float* y) {
  const auto tiles = [&](auto product) __attribute__((always_inline)) {
    for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
      store_rows(y + tile * kTileRows, w.rows - tile * kTileRows, times(product(tile), w.factor));
    }
  };
  if (w.element == Element::kTernary) {
    tiles([&](int64_t tile)
              __attribute__((always_inline)) { return tile_of_trits<kMins>(w, token, segment, x, tile); });
    return;
  }
  with_format(w, [&](auto format) {
    tiles([&](int64_t tile) __attribute__((always_inline)) {
      return tile_of_planes<decltype(format), kMins>(format, w, token, segment, x, tile);
    });
  });
}

}  // namespace

// y[n] = sum_g s[n,g] * sum_{a in g} sx[a] * (sum_{k in a} u[n,k]*x[k] - zero*sum_{k in a} x[k])  [+ m[n,g] * sum ...]
//
// Shapes: w N x K in tiles of 16 rows, x one row of int8; y gets the rows of tiles [tile_begin, tile_end).
// Exactness: the inner sum starts at -zero * sum of x and is exact (16 bits for 8 quads of 4-bit parts, then 32 bits);
// one rounding per scale and per addition.
// Cost: every stored byte is read once, tiles in order: one contiguous stream per plane and thread. Per quad and half
// (32 weights) and part a shift, a mask, vpmaddubsw and an addition; per 8 of them vpmaddwd and an addition.
// Scratch: three words per 32 inputs.
void linear_int8_decode(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                        uint8_t* scratch) {
  const int64_t most = (w.cols + kStepCols - 1) / kStepCols + 16;
  float* words = reinterpret_cast<float*>(scratch);
  const Pieces token = {reinterpret_cast<int32_t*>(words), words + most, words + 2 * most};
  describe_pieces(w, x, 0, w.cols, 0, token);
  const int64_t segment = segment_inputs(w, x);
  if (w.mins == nullptr)
    decode<false>(w, token, segment, x.quads, tile_begin, tile_end, y);
  else
    decode<true>(w, token, segment, x.quads, tile_begin, tile_end, y);
}

}  // namespace scrimp::avx2
