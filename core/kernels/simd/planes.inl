// Walking the stored planes of codes, included in the unnamed namespace of a folder after its formats (Planes, Bytes,
// TwiceBits, Levels: `vectors` of each plane in a step, `step(planes, f)`), load(p) and store(p, Quad) of a vector.

// f(format) for the planes of w, which is not ternary.
template <class F>
SCRIMP_INLINE void with_format(const Matrix& w, F f) {
  if (w.element == Element::kTable) {
    if (w.bits == 2) return f(Levels<2, 0>(w));
    if (w.bits == 3) return f(Levels<2, 1>(w));
    return f(Levels<4, 0>(w));
  }
  if (w.element == Element::kBinary) {
    if (w.mins == nullptr) return f(TwiceBits{});
    return f(Planes<1, 0>{});
  }
  switch (w.bits) {
    case 2:
      return f(Planes<2, 0>{});
    case 3:
      return f(Planes<2, 1>{});
    case 4:
      return f(Planes<4, 0>{});
    case 5:
      return f(Planes<4, 1>{});
    case 6:
      return f(Planes<4, 2>{});
    default:
      return f(Bytes{});
  }
}

// The planes of one tile from input k (a multiple of 32) on.
template <class Format>
struct Cursor {
  const uint8_t* at[2] = {};
  int64_t left[2] = {};  // vectors

  Cursor(const Matrix& w, int64_t tile, int64_t k) {
    for (int p = 0; p < 2; ++p) {
      if (Format::vectors[p] == 0) continue;
      const int64_t done = k / kStepCols * Format::vectors[p];
      at[p] = w.plane[p] + (tile * w.vectors[p] + done) * kVectorBytes;
      left[p] = w.vectors[p] - done;
    }
  }

  SCRIMP_INLINE void advance() {
    each<2>([&](auto p) __attribute__((always_inline)) { at[p.value] += Format::vectors[p.value] * kVectorBytes; });
  }
};

// The vectors of a row's last, partial step, followed by zeros: read from here, not to read beyond the planes.
template <class Format>
struct Rest {
  alignas(64) uint8_t bytes[2][8 * kVectorBytes] = {};

  Rest(const Matrix& w, int64_t tile) {
    const Cursor<Format> from(w, tile, w.cols);
    for (int p = 0; p < 2; ++p)
      for (int64_t v = 0; v < from.left[p]; ++v)
        store(bytes[p] + v * kVectorBytes, load(from.at[p] + v * kVectorBytes));
  }
};
