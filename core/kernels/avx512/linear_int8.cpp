// Integer matrix products: the choice between one token, a few and many.
#include "kernels/avx512/linear_int8.h"

namespace scrimp::avx512 {

void linear_int8(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                 int64_t y_stride, uint8_t* scratch) {
  if (x.tokens == 1) return linear_int8_decode(w, x, tile_begin, tile_end, y, scratch);
  if (!takes_few(w, x)) return linear_int8_prefill(w, x, tile_begin, tile_end, y, y_stride, scratch);
  if (x.kept != nullptr) *x.kept = 0;
  linear_int8_few(w, x, tile_begin, tile_end, y, y_stride, scratch);
}

}  // namespace scrimp::avx512
