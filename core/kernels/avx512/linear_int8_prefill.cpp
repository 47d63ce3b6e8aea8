// Many tokens times a matrix of integer codes: the kernel that reads prompts. It is bound by vpdpbusd.
#include "kernels/avx512/linear_int8.h"

namespace scrimp::avx512 {
namespace {

constexpr int kMostTiles = 2;                        // tiles in a panel
constexpr int64_t kShortPanelCols[2] = {512, 1280};  // of planes, of trits: 32 rows fit in the L1 cache

// A panel: tiles [tile, tile + tiles) and inputs [begin, end). `first_piece` counts the pieces of the row before it.
struct Panel {
  int64_t tile;
  int tiles;
  int64_t begin, end;
  int64_t first_piece;
};

// The sums and scales of the activations of every piece, for the tokens [first, first + 12) etc. of one call.
//
// A piece is what is summed in int32: the inputs of one segment, group and panel. With a scale per A inputs it is a
// block of activations, whose sums are known; with one scale per token they are computed into scratch.
struct Pieces {
  int64_t segment;
  int64_t count;        // of a row
  const int32_t* sums;  // block b begins at token * count; inside [pieces][w]
  bool per_block;       // the scales, too, are [pieces][w]; else [w]
};

constexpr int64_t kPanelBytes = kMostTiles * kVectorBytes * (kPanelCols / 4 + 8);
constexpr int64_t kSumsWords = (static_cast<int64_t>(kScratchBytes) - kPanelBytes) / 4;

// f(begin, end, group, last of its group) for the pieces of inputs [begin, end).
template <class F>
SCRIMP_INLINE void each_piece(const Matrix& w, int64_t segment, int64_t begin, int64_t end, F f) {
  int64_t g = begin / w.group;
  for (int64_t k = begin; k < end; ++g) {
    const int64_t group_end = smaller(w.cols - g * w.group, w.group) + g * w.group;
    const int64_t stop = smaller(group_end, end);
    while (k < stop) {
      const int64_t piece_end = smaller(k + segment, stop);
      f(k, piece_end, g, piece_end == stop);
      k = piece_end;
    }
  }
}

// The codes of one tile for the inputs of a panel: quad q at out + q * stride, in bytes.
template <class Codes>
void unpack_planes(const Matrix& w, const Panel& panel, int64_t tile, uint8_t* out, int64_t stride) {
  const uint8_t* from[2] = {};
  int64_t left[2] = {};  // vectors
  each<2>([&](auto p) __attribute__((always_inline)) {
    if constexpr (Codes::kVectors[p.value] != 0) {
      const int64_t done = panel.begin / 32 * Codes::kVectors[p.value];
      from[p.value] = w.plane[p.value] + (tile * w.vectors[p.value] + done) * kVectorBytes;
      left[p.value] = w.vectors[p.value] - done;
    }
  });
  const auto step = [&](const uint8_t* p0, const uint8_t* p1) __attribute__((always_inline)) {
    Codes::step(p0, p1, [&](auto q, auto, __m512i codes) __attribute__((always_inline)) {
      _mm512_store_si512(out + q.value * stride, codes);
    });
    out += 8 * stride;
  };
  for (int64_t n = (panel.end - panel.begin) / 32; n > 0; --n) {
    step(from[0], from[1]);
    each<2>([&](auto p) __attribute__((always_inline)) {
      from[p.value] += Codes::kVectors[p.value] * kVectorBytes;
      left[p.value] -= Codes::kVectors[p.value];
    });
  }
  if ((panel.end - panel.begin) % 32 == 0) return;
  alignas(64) uint8_t rest[2][8 * kVectorBytes] = {};  // the last, partial step: a copy, not to read beyond the planes
  each<2>([&](auto p) __attribute__((always_inline)) {
    for (int64_t v = 0; v < left[p.value]; ++v) {
      _mm512_store_si512(rest[p.value] + v * kVectorBytes, load(from[p.value], v));
    }
  });
  step(rest[0], rest[1]);
}

void unpack_trits(const Matrix& w, const Panel& panel, int64_t tile, uint8_t* out, int64_t stride) {
  const Trits trits;
  const uint8_t* from = w.plane[0] + (tile * w.vectors[0] + panel.begin / 20) * kVectorBytes;
  for (int64_t n = (panel.end - panel.begin + 19) / 20; n > 0; --n) {
    trits.vector(from, [&](auto q, auto, __m512i codes)
                           __attribute__((always_inline)) { _mm512_store_si512(out + q.value * stride, codes); });
    from += kVectorBytes;
    out += 5 * stride;
  }
}

void unpack(const Matrix& w, const Panel& panel, uint8_t* out) {
  const int tiles = panel.tiles;
  for (int i = 0; i < tiles; ++i) {
    uint8_t* to = out + i * kVectorBytes;
    if (w.element == Element::kTernary) {
      unpack_trits(w, panel, panel.tile + i, to, tiles * kVectorBytes);
    } else {
      with_planes(
          w, [&](auto codes) { unpack_planes<decltype(codes)>(w, panel, panel.tile + i, to, tiles * kVectorBytes); });
    }
  }
}

// Sums of the activations of inputs [begin, end) for each of `width` tokens, from the quads of one token block.
// Four sums side by side, not to wait for each other.
__m512i sums_of(const int8_t* quads, int64_t width, int64_t begin, int64_t end) {
  const __mmask16 tokens = static_cast<__mmask16>((1 << width) - 1);
  const __m512i one = _mm512_set1_epi8(1);
  __m512i sums[4] = {};
  const auto add = [&](__m512i& sum, int64_t k) __attribute__((always_inline)) {
    sum = _mm512_dpbusd_epi32(sum, one, _mm512_maskz_loadu_epi32(tokens, quads + k * width));
  };
  int64_t k = begin;
  for (; k + 16 <= end; k += 16) {
    each<4>([&](auto i) __attribute__((always_inline)) { add(sums[i.value], k + 4 * i.value); });
  }
  for (; k < end; k += 4) add(sums[0], k);
  return _mm512_add_epi32(_mm512_add_epi32(sums[0], sums[1]), _mm512_add_epi32(sums[2], sums[3]));
}

// The sums of every piece of the token blocks [first, end of tokens) into `sums`.
void sum_pieces(const Matrix& w, const Activations& x, int64_t segment, int64_t panel_cols, int64_t first,
                int64_t tokens_end, int32_t* sums) {
  for (; first < tokens_end; first += kTokenBlock) {
    const int64_t width = smaller(tokens_end - first, kTokenBlock);
    const __mmask16 tokens = static_cast<__mmask16>((1 << width) - 1);
    for (int64_t begin = 0; begin < w.cols; begin += panel_cols) {
      each_piece(w, segment, begin, smaller(begin + panel_cols, w.cols), [&](int64_t k, int64_t end, int64_t, bool) {
        _mm512_mask_storeu_epi32(sums, tokens, sums_of(x.quads + first * x.cols_padded, width, k, end));
        sums += width;
      });
    }
  }
}

// What becomes of the int32 sums of a piece, for it may be the only one, the first, a middle or the last one of its
// group.
enum class Place { kOnly, kFirst, kMiddle, kLast };

// The float sums of a register block: of the current group, and of the row.
template <int kTiles, int kWidth>
struct Sums {
  __m512 group[kTiles * kWidth];
  __m512 row[kTiles * kWidth];
};

// f(Index<token>, Index<tile>, Index<token * kTiles + tile>)
template <int kTiles, int kWidth, class F>
SCRIMP_INLINE void each_sum(F f) {
  each<kWidth>([&](auto t) __attribute__((always_inline)) {
    each<kTiles>([&](auto i) __attribute__((always_inline)) { f(t, i, Index<t.value * kTiles + i.value>{}); });
  });
}

// One piece: `count` (at least 1) quads of kTiles x 16 rows times kWidth tokens, scaled and added to `sums`.
//
// The int32 sums (24 registers for 2 tiles and 12 tokens) live in registers, the float sums in the L1 cache. Each
// broadcast activation feeds kTiles dot products. A function of its own, and a loop without a way around it, because
// otherwise GCC 12 moves the 24 registers through the stack.
template <int kTiles, int kWidth, Place kPlace>
__attribute__((noinline)) void multiply_piece(const uint8_t* codes, const int8_t* quads, int64_t count,
                                              const int32_t* start, const float* scale, const __m512* row_scale,
                                              Sums<kTiles, kWidth>& sums) {
  __m512i sum[kTiles * kWidth];
  each_sum<kTiles, kWidth>([&](auto t, auto, auto n)
                               __attribute__((always_inline)) { sum[n.value] = _mm512_set1_epi32(start[t.value]); });
  do {
    __m512i u[kTiles];
    each<kTiles>([&](auto i) __attribute__((always_inline)) { u[i.value] = load(codes, i.value); });
    each<kWidth>([&](auto t) __attribute__((always_inline)) {
      if constexpr (kTiles == 2)
        dot(sum[2 * t.value], sum[2 * t.value + 1], u[0], u[1], quads + 4 * t.value);
      else
        dot(sum[t.value], u[0], quads + 4 * t.value);
    });
    codes += kTiles * kVectorBytes;
    quads += 4 * kWidth;
  } while (--count > 0);
  each_sum<kTiles, kWidth>([&](auto t, auto i, auto n) __attribute__((always_inline)) {
    const __m512 exact = _mm512_cvtepi32_ps(sum[n.value]);
    const __m512 x_scale = _mm512_set1_ps(scale[t.value]);
    constexpr bool kBegins = kPlace == Place::kOnly || kPlace == Place::kFirst;
    const __m512 group = kBegins ? _mm512_mul_ps(exact, x_scale) : _mm512_fmadd_ps(exact, x_scale, sums.group[n.value]);
    if constexpr (kPlace == Place::kFirst || kPlace == Place::kMiddle)
      sums.group[n.value] = group;
    else
      sums.row[n.value] = _mm512_fmadd_ps(row_scale[i.value], group, sums.row[n.value]);
  });
}

// One panel of kTiles x 16 rows times kWidth tokens, the block that begins with token `first`.
template <int kTiles, int kWidth, bool kMins>
void multiply(const Matrix& w, const Activations& x, const Panel& panel, const Pieces& pieces, const uint8_t* codes,
              int64_t first, const int32_t* piece_sums, float* y, int64_t y_stride) {
  constexpr __mmask16 kTokens = (1 << kWidth) - 1;
  Sums<kTiles, kWidth> sums;
  const auto at = [&](int t, int i) { return y + (first + t) * y_stride + (panel.tile + i) * kTileRows; };
  for (int t = 0; t < kWidth; ++t) {
    for (int i = 0; i < kTiles; ++i) {
      sums.row[t * kTiles + i] =
          panel.begin == 0 ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(rows_of(w, panel.tile + i), at(t, i));
    }
  }
  const int8_t* quads = x.quads + first * x.cols_padded + panel.begin * kWidth;
  const float* scale = x.scales + first * x.blocks + (pieces.per_block ? panel.first_piece * kWidth : 0);
  const __m512i minus_zero = _mm512_set1_epi32(-w.zero);
  alignas(64) int32_t start[16] = {};   // -zero * sum of the activations; 0 with mins
  __m512 offset = _mm512_setzero_ps();  // with mins: scaled sums of the activations of a group, a lane per token
  bool begins = true;

  each_piece(w, pieces.segment, panel.begin, panel.end, [&](int64_t k, int64_t end, int64_t g, bool ends) {
    const __m512i x_sums = _mm512_maskz_loadu_epi32(kTokens, piece_sums);
    if constexpr (kMins) {
      offset = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(kTokens, scale), _mm512_cvtepi32_ps(x_sums), offset);
    } else {
      _mm512_store_si512(start, _mm512_mullo_epi32(x_sums, minus_zero));
    }
    __m512 row_scale[kTiles];
    const auto scales_at = [&](int i) { return (panel.tile + i) * w.scale_tile_stride + g * kTileRows; };
    if (ends) {
      for (int i = 0; i < kTiles; ++i) row_scale[i] = load_scales(w.scales, w.scale_type, scales_at(i));
    }
    const auto piece =
        ends
            ? (begins ? multiply_piece<kTiles, kWidth, Place::kOnly> : multiply_piece<kTiles, kWidth, Place::kLast>)
            : (begins ? multiply_piece<kTiles, kWidth, Place::kFirst> : multiply_piece<kTiles, kWidth, Place::kMiddle>);
    const int64_t count = (end - k + 3) / 4;
    piece(codes, quads, count, start, scale, row_scale, sums);
    codes += count * kTiles * kVectorBytes;
    quads += count * 4 * kWidth;
    piece_sums += kWidth;
    if (pieces.per_block) scale += kWidth;
    begins = ends;
    if constexpr (kMins) {
      if (!ends) return;
      alignas(64) float offsets[16];
      _mm512_store_ps(offsets, offset);
      offset = _mm512_setzero_ps();
      for (int i = 0; i < kTiles; ++i) {
        const __m512 mins = load_scales(w.mins, w.scale_type, scales_at(i));
        for (int t = 0; t < kWidth; ++t) {
          __m512& row = sums.row[t * kTiles + i];
          row = _mm512_fmadd_ps(mins, _mm512_set1_ps(offsets[t]), row);
        }
      }
    }
  });

  for (int t = 0; t < kWidth; ++t) {
    for (int i = 0; i < kTiles; ++i) {
      _mm512_mask_storeu_ps(at(t, i), rows_of(w, panel.tile + i), sums.row[t * kTiles + i]);
    }
  }
}

using Multiply = void (*)(const Matrix&, const Activations&, const Panel&, const Pieces&, const uint8_t*, int64_t,
                          const int32_t*, float*, int64_t);

template <int kTiles, bool kMins, int kWidth = 1>
SCRIMP_INLINE Multiply multiply_of(int64_t width) {
  if constexpr (kWidth < kTokenBlock) {
    if (width > kWidth) return multiply_of<kTiles, kMins, kWidth + 1>(width);
  }
  return multiply<kTiles, kWidth, kMins>;
}

Multiply multiply_for(const Matrix& w, int tiles, int64_t width) {
  if (w.mins == nullptr) return tiles == 2 ? multiply_of<2, false>(width) : multiply_of<1, false>(width);
  return tiles == 2 ? multiply_of<2, true>(width) : multiply_of<1, true>(width);
}

// Tokens [first, end) times all panels.
void multiply_tokens(const Matrix& w, const Activations& x, const Pieces& pieces, int64_t panel_cols, int64_t first,
                     int64_t tokens_end, int64_t tile_begin, int64_t tile_end, float* y, int64_t y_stride,
                     uint8_t* codes) {
  Panel panel = {};
  for (panel.tile = tile_begin; panel.tile < tile_end; panel.tile += kMostTiles) {
    panel.tiles = tile_end - panel.tile >= kMostTiles ? kMostTiles : 1;
    panel.first_piece = 0;
    for (panel.begin = 0; panel.begin < w.cols; panel.begin = panel.end) {
      panel.end = smaller(panel.begin + panel_cols, w.cols);
      unpack(w, panel, codes);
      for (int64_t t = first; t < tokens_end; t += kTokenBlock) {
        const int64_t width = smaller(tokens_end - t, kTokenBlock);
        const int32_t* sums = pieces.sums + (t - first) * pieces.count + panel.first_piece * width;
        multiply_for(w, panel.tiles, width)(w, x, panel, pieces, codes, t, sums, y, y_stride);
      }
      each_piece(w, pieces.segment, panel.begin, panel.end,
                 [&](int64_t, int64_t, int64_t, bool) { ++panel.first_piece; });
    }
  }
}

}  // namespace

// y[t,n] = sum_g s[n,g] * sum_{a in g} sx[t,a] * (sum_{k in a} u[n,k]*x[t,k] - zero*sum_{k in a} x[t,k])   [+ mins]
//
// Shapes: w N x K in tiles of 16 rows; x in blocks of 12 tokens, 4 inputs of each token side by side; y [T][y_stride].
// Panels of 32 rows outermost, then chunks of inputs, then blocks of tokens: a chunk is unpacked once into scratch
// (80 KiB, in the L2 cache; with one block of tokens 16 KiB, in L1) and read once per block of tokens.
// Scratch: the panel, and with one activation scale per token a word per token and piece: cols <= 2^18 always fits.
// Exactness: as for one token: exact int32 inner sums, one rounding per scale and per addition. A segment that a chunk
// cuts in two counts as two. Cost: one vpdpbusd per 64 products; per segment and 16 outputs a convert and one or two
// multiply-adds (A = 32: 1 per 8).
void linear_int8_prefill(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                         int64_t y_stride, uint8_t* scratch) {
  const bool trits = w.element == Element::kTernary;
  const int64_t panel_cols = x.tokens > kTokenBlock ? kPanelCols : kShortPanelCols[trits];
  Pieces pieces = {segment_inputs(w, x), 0, x.sums, x.block < w.cols};
  for (int64_t begin = 0; begin < w.cols; begin += panel_cols) {
    const int64_t end = smaller(begin + panel_cols, w.cols);
    each_piece(w, pieces.segment, begin, end, [&](int64_t, int64_t, int64_t, bool) { ++pieces.count; });
  }
  if (pieces.per_block) {
    multiply_tokens(w, x, pieces, panel_cols, 0, x.tokens, tile_begin, tile_end, y, y_stride, scratch);
    return;
  }
  // Sums that are not known: as many tokens at a time as have room for them.
  int32_t* sums = reinterpret_cast<int32_t*>(scratch + kPanelBytes);
  pieces.sums = sums;
  const int64_t room = kSumsWords / pieces.count / kTokenBlock * kTokenBlock;
  for (int64_t first = 0; first < x.tokens; first += room) {
    const int64_t end = smaller(first + room, x.tokens);
    sum_pieces(w, x, pieces.segment, panel_cols, first, end, sums);
    multiply_tokens(w, x, pieces, panel_cols, first, end, tile_begin, tile_end, y, y_stride, scratch);
  }
}

}  // namespace scrimp::avx512
