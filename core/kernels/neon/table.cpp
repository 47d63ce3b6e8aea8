// The tables of this folder: they differ in the integer product. Constant-initialised: nothing here runs before main,
// so no instruction of these sets either.
#include "kernels/neon/isa.h"

namespace scrimp {
namespace {

constexpr Kernels with_products(const char* isa, decltype(Kernels::linear_int8) linear_int8) {
  return {
      .isa = isa,
      .read = neon::read,
      .int8_peak = nullptr,
      .f32_peak = neon::f32_peak,
      .quantize = neon::quantize,
      .linear_int8 = linear_int8,
      .linear_f32 = neon::linear_f32,
      .scratch_bytes = neon::kScratchBytes,
      .rms_norm = neon::rms_norm,
      .layer_norm = neon::layer_norm,
      .activation = neon::activation,
      .softcap = neon::softcap,
      .add = neon::add,
      .rope = neon::rope,
      .to_f16 = neon::to_f16,
      .to_codes = neon::to_codes,
      .attention = neon::attention,
      .log_sum_exp = neon::log_sum_exp,
      .divergence = neon::divergence,
      .weighted_sums = neon::weighted_sums,
      .sweep = neon::sweep,
      .gram = neon::gram,
      .cholesky_diagonal = neon::cholesky_diagonal,
      .cholesky_solve = neon::cholesky_solve,
      .cholesky_subtract = neon::cholesky_subtract,
      .integer_product = neon::integer_product,
      .requantize = neon::requantize,
  };
}

}  // namespace

constinit const Kernels kNeonKernels = with_products("neon", neon::linear_int8);
constinit const Kernels kNeonDotprodKernels = with_products("neon_dotprod", neon::dotprod::linear_int8);
constinit const Kernels kNeonI8mmKernels = with_products("neon_i8mm", neon::i8mm::linear_int8);

}  // namespace scrimp
