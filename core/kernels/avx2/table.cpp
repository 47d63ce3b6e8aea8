// The table of this folder. Constant-initialised: nothing here runs before main, so no instruction of this set either.
#include "kernels/avx2/isa.h"

namespace scrimp {

constinit const Kernels kAvx2Kernels = {
    .isa = "avx2",
    .read = avx2::read,
    .int8_peak = avx2::int8_peak,
    .f32_peak = avx2::f32_peak,
    .quantize = avx2::quantize,
    .linear_int8 = avx2::linear_int8,
    .linear_f32 = avx2::linear_f32,
    .scratch_bytes = avx2::kScratchBytes,
    .rms_norm = avx2::rms_norm,
    .layer_norm = avx2::layer_norm,
    .activation = avx2::activation,
    .softcap = avx2::softcap,
    .add = avx2::add,
    .rope = avx2::rope,
    .to_f16 = avx2::to_f16,
    .to_codes = avx2::to_codes,
    .attention = avx2::attention,
    .log_sum_exp = avx2::log_sum_exp,
    .divergence = avx2::divergence,
    .weighted_sums = avx2::weighted_sums,
    .sweep = avx2::sweep,
    .gram = avx2::gram,
    .cholesky_diagonal = avx2::cholesky_diagonal,
    .cholesky_solve = avx2::cholesky_solve,
    .cholesky_subtract = avx2::cholesky_subtract,
    .integer_product = avx2::integer_product,
    .requantize = avx2::requantize,
};

}  // namespace scrimp
