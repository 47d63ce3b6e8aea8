// vpdpbusd of AVX-VNNI (Intel's from Alder Lake, AMD's from Zen 5 on).
#include "kernels/avx2/linear_int8.h"

namespace scrimp::avx2::avx_vnni {
#define SCRIMP_DPBUSD "%{vex%} vpdpbusd"
#include "kernels/avx2/linear_int8_vnni.inl"
}  // namespace scrimp::avx2::avx_vnni
