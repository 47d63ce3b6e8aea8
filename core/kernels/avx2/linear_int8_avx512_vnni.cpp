// vpdpbusd of AVX512-VNNI in registers of 256 bits (AVX512-VL), for processors without what ../avx512 asks for besides:
// Cascade Lake and Cooper Lake have no VBMI.
#include "kernels/avx2/linear_int8.h"

namespace scrimp::avx2::avx512_vnni {
#define SCRIMP_DPBUSD "%{evex%} vpdpbusd"
#include "kernels/avx2/linear_int8_vnni.inl"
}  // namespace scrimp::avx2::avx512_vnni
