// A panel of weights unpacked for many tokens, and the pieces that its sums are cut into. Internal linkage, as isa.h.
#pragma once

#include "kernels/avx512/linear_int8.h"

namespace scrimp::avx512 {
namespace {

constexpr int kMostTiles = 2;                     // tiles in a panel
constexpr int64_t kBlockTokens = 6;               // of a register block: 12 int32 and 12 float sums for 2 tiles
constexpr int64_t kMostPieces = kPanelCols / 32;  // of a panel

// A panel: tiles [tile, tile + tiles) and inputs [begin, end), unpacked. `first_piece` counts the pieces of the row
// before it.
struct Panel {
  int64_t tile;
  int tiles;
  int64_t begin, end;
  int64_t first_piece, pieces;
  int64_t first_known, groups;
  int32_t quads[kMostPieces];  // of each piece; with groups of several pieces negative for the last one of a group
  bool one_piece_groups, eights;
  uint8_t* codes;        // [quads][tiles][64]
  float *scales, *mins;  // [groups][tiles][16]
};

// The sums and scales of the activations of every piece, for the tokens [first, first + 12) etc. of one call.
//
// A piece is what is summed in int32: the inputs of one segment, group and panel. With a scale per A inputs it is a
// block of activations, whose sums are known; with one scale per token they are computed into scratch.
struct Pieces {
  int64_t segment;
  int64_t count;         // of a row
  const int32_t* known;  // block b begins at token * count; inside [count][w]
  bool per_block;        // the scales, too, are [pieces][w]; else [w]
};

constexpr int64_t kCodeBytes = kMostTiles * kVectorBytes * (kPanelCols / 4 + 8);
constexpr int64_t kPanelBytes = kCodeBytes + 2 * kMostPieces * kMostTiles * kTileRows * 4;
constexpr int64_t kKnownWords = (static_cast<int64_t>(kScratchBytes) - kPanelBytes) / 4;

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

// The inputs of a panel: a row in equal parts of whole units, of planes and of trits. No unit cuts a stored vector, a
// block of activations or a group of 2^n <= 512 inputs.
constexpr int64_t kUnit[2] = {512, 640};
int64_t panel_inputs(const Matrix& w, const Activations& x) {
  const int64_t least = kUnit[w.element == Element::kTernary];
  const int64_t unit = x.block < w.cols && least % x.block != 0 ? 2 * least : least;
  const int64_t panels = (w.cols + kPanelCols - 1) / kPanelCols;
  return (w.cols + panels * unit - 1) / (panels * unit) * unit;
}

// The same for all panels of a row, one after the other.
template <class F>
SCRIMP_INLINE void each_panel_piece(const Matrix& w, int64_t segment, int64_t panel_cols, F f) {
  for (int64_t begin = 0; begin < w.cols; begin += panel_cols) {
    each_piece(w, segment, begin, smaller(begin + panel_cols, w.cols), f);
  }
}

// The codes of one tile for the inputs of a panel: quad q at out + q * stride, in bytes.
template <class Codes>
void unpack_planes(const Codes& unpacked, const Matrix& w, const Panel& panel, int64_t tile, uint8_t* out,
                   int64_t stride) {
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
    unpacked.step(p0, p1, [&](auto q, auto, __m512i codes) __attribute__((always_inline)) {
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
    trits.vector(from, [&](auto q, __m512i codes)
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
      with_planes(w,
                  [&](const auto& codes) { unpack_planes(codes, w, panel, panel.tile + i, to, tiles * kVectorBytes); });
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

// What products need of the activations of token blocks [first, end of tokens), the same for every row.
void find_known(const Matrix& w, const Activations& x, const Pieces& pieces, int64_t panel_cols, int64_t first,
                int64_t tokens_end, int32_t* known) {
  const __m512i minus_zero = _mm512_set1_epi32(-w.zero);
  for (; first < tokens_end; first += kTokenBlock) {
    const int64_t width = smaller(tokens_end - first, kTokenBlock);
    const __mmask16 tokens = static_cast<__mmask16>((1 << width) - 1);
    const int8_t* quads = x.quads + first * x.cols_padded;
    const int32_t* sums = x.sums + first * x.blocks;
    const float* scales = x.scales + first * x.blocks;
    __m512 offset = _mm512_setzero_ps();  // a lane per token
    each_panel_piece(w, pieces.segment, panel_cols, [&](int64_t k, int64_t end, int64_t, bool ends) {
      const __m512i sum = pieces.per_block ? _mm512_maskz_loadu_epi32(tokens, sums) : sums_of(quads, width, k, end);
      if (w.mins == nullptr) {
        _mm512_mask_storeu_epi32(known, tokens, _mm512_mullo_epi32(sum, minus_zero));
        known += width;
      } else {
        offset = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(tokens, scales), _mm512_cvtepi32_ps(sum), offset);
        if (ends) {
          _mm512_mask_storeu_ps(known, tokens, offset);
          known += width;
          offset = _mm512_setzero_ps();
        }
      }
      if (!pieces.per_block) return;
      sums += width;
      scales += width;
    });
  }
}

}  // namespace
}  // namespace scrimp::avx512
