#include "dispatch.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace scrimp {
namespace {

#if defined(__x86_64__)

struct Cpu {
  unsigned leaf1_ecx = 0, leaf7_ebx = 0, leaf7_ecx = 0, leaf71_eax = 0;
  bool saves_ymm = false, saves_zmm = false;  // the operating system keeps these registers (XGETBV)
};

Cpu read_cpu() {
  Cpu cpu;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d)) cpu.leaf1_ecx = c;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
    cpu.leaf7_ebx = b;
    cpu.leaf7_ecx = c;
  }
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) cpu.leaf71_eax = a;
  if (cpu.leaf1_ecx & bit_OSXSAVE) {
    unsigned low = 0, high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    cpu.saves_ymm = (low & 0x6) == 0x6;
    cpu.saves_zmm = (low & 0xE6) == 0xE6;
  }
  return cpu;
}

const Cpu& cpu() {
  static const Cpu value = read_cpu();
  return value;
}

bool has_avx2() {
  return cpu().saves_ymm && (cpu().leaf1_ecx & bit_FMA) && (cpu().leaf1_ecx & bit_F16C) && (cpu().leaf7_ebx & bit_AVX2);
}

bool has_avx_vnni() { return has_avx2() && (cpu().leaf71_eax & (1u << 4)); }

bool has_avx512_vnni() {
  constexpr unsigned kEbx = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
  constexpr unsigned kVnni = 1u << 11;
  return has_avx2() && cpu().saves_zmm && (cpu().leaf7_ebx & kEbx) == kEbx && (cpu().leaf7_ecx & kVnni);
}

bool has_avx512() {
  constexpr unsigned kVbmi = 1u << 1;
  return has_avx512_vnni() && (cpu().leaf7_ecx & kVbmi);
}

bool has_avx512_bf16() { return has_avx512() && (cpu().leaf71_eax & (1u << 5)); }

#elif defined(__aarch64__)

// Advanced SIMD itself is part of every such processor. What the compiler may use anyway is there, too.
#if defined(__linux__)
bool kernel_reports(unsigned long type, unsigned long bit) { return (getauxval(type) & bit) != 0; }
#else
bool kernel_reports(unsigned long, unsigned long) { return false; }
#endif

bool has_dotprod() {
#if defined(__ARM_FEATURE_DOTPROD)
  return true;
#else
  return kernel_reports(16, 1UL << 20);  // AT_HWCAP, HWCAP_ASIMDDP
#endif
}

bool has_i8mm() {
#if defined(__ARM_FEATURE_MATMUL_INT8)
  return has_dotprod();
#else
  return has_dotprod() && kernel_reports(26, 1UL << 13);  // AT_HWCAP2, HWCAP2_I8MM
#endif
}

#endif

std::vector<std::string> find_isas() {
  std::vector<std::string> isas = {"scalar"};
#if defined(__x86_64__)
  if (has_avx2()) isas.emplace_back("avx2");
  if (has_avx_vnni() || has_avx512_vnni()) isas.emplace_back("avx2_vnni");
  if (has_avx512()) isas.emplace_back("avx512");
  if (has_avx512_bf16()) isas.emplace_back("avx512_bf16");
#elif defined(__aarch64__)
  isas.emplace_back("neon");
  if (has_dotprod()) isas.emplace_back("neon_dotprod");
  if (has_i8mm()) isas.emplace_back("neon_i8mm");
#endif
  return isas;
}

}  // namespace

const std::vector<std::string>& available_isas() {
  static const std::vector<std::string> isas = find_isas();
  return isas;
}

const Kernels* kernels_for(const std::string& isa) {
  for (const auto& name : available_isas()) {
    if (name != isa) continue;
    if (isa == "scalar") return &kScalarKernels;
#if defined(__x86_64__)
    if (isa == "avx2") return &kAvx2Kernels;
    if (isa == "avx2_vnni") return has_avx_vnni() ? &kAvxVnniKernels : &kAvx512VnniKernels;
    if (isa == "avx512") return &kAvx512Kernels;
    if (isa == "avx512_bf16") return &kAvx512Bf16Kernels;
#elif defined(__aarch64__)
    if (isa == "neon") return &kNeonKernels;
    if (isa == "neon_dotprod") return &kNeonDotprodKernels;
    if (isa == "neon_i8mm") return &kNeonI8mmKernels;
#endif
  }
  return nullptr;
}

std::vector<std::string> cpu_features() {
  std::vector<std::string> features;
#if defined(__x86_64__)
  const Cpu& c = cpu();
  const auto add = [&](bool present, const char* name) {
    if (present) features.emplace_back(name);
  };
  add(c.leaf1_ecx & bit_FMA, "fma");
  add(c.leaf1_ecx & bit_F16C, "f16c");
  add(c.leaf7_ebx & bit_AVX2, "avx2");
  add(c.leaf71_eax & (1u << 4), "avx_vnni");
  add(c.leaf7_ebx & bit_AVX512F, "avx512f");
  add(c.leaf7_ebx & bit_AVX512BW, "avx512bw");
  add(c.leaf7_ecx & (1u << 1), "avx512_vbmi");
  add(c.leaf7_ecx & (1u << 11), "avx512_vnni");
  add(c.leaf71_eax & (1u << 5), "avx512_bf16");
  add(c.saves_ymm, "os_saves_ymm");
  add(c.saves_zmm, "os_saves_zmm");
#elif defined(__aarch64__)
  features.emplace_back("asimd");
  if (has_dotprod()) features.emplace_back("asimddp");
  if (has_i8mm()) features.emplace_back("i8mm");
#endif
  return features;
}

}  // namespace scrimp
