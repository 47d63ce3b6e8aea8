// differential           the instruction sets of this processor, a line each
// differential ISA       compare them; `full` after it for more cases. A line for each kernel, exit status 1 if one
//                        is wrong
#include "check.h"
#include "dispatch.h"

int main(int count, char** words) {
  using namespace scrimp;
  if (count < 2) {
    for (const auto& isa : available_isas()) std::puts(isa.c_str());
    return 0;
  }
  const Kernels* kernels = kernels_for(words[1]);
  if (kernels == nullptr) {
    std::printf("this machine cannot run %s\n", words[1]);
    return 2;
  }
  Check check{*kernels, count > 2, {}, {}};
  check_quantize(check);
  check_linear_int8(check);
  check_linear_f32(check);
  check_attention(check);
  check_cache(check);
  check_rows(check);
  check_rounding(check);
  check_moments(check);
  check_integers(check);
  bool wrong = false;
  for (const auto& [kernel, found] : check.found) {
    std::printf("%s %s cases %lld failures %lld worst %.3f\n", kernels->isa, kernel.c_str(),
                static_cast<long long>(found.cases), static_cast<long long>(found.failures), found.worst);
    wrong |= found.failures > 0;
  }
  return wrong ? 1 : 0;
}
