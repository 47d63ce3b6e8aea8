// Measuring the machine, and a last word where it fails, for Python, beside bind.cpp.
#include "bind_measuring.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <signal.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "bind_arrays.h"
#include "bind_checks.h"
#include "ceilings.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace scrimp {
namespace {

std::vector<double> bandwidth(int64_t bytes, int threads, int repeats, int64_t least, const std::string& isa) {
  require(bytes / 512 >= threads && threads > 0 && threads <= 1024 && repeats > 0 && least >= 0 && least <= 1 << 30,
          "settings out of range");
  const Kernels& kernels = pick(isa.empty() ? available_isas().back() : isa);
  const Kernels& reader = kernels.read != nullptr ? kernels : kScalarKernels;
  std::vector<double> out(static_cast<size_t>(repeats));
  nb::gil_scoped_release release;
  read_bandwidth(reader, bytes, least, threads, repeats, out.data());
  return out;
}

double reading(const std::vector<Bytes>& arrays, int threads, const std::string& isa) {
  require(threads > 0 && threads <= 1024, "settings out of range");
  std::vector<std::pair<const uint8_t*, int64_t>> plain;
  for (const Bytes& array : arrays) {
    require(reinterpret_cast<uintptr_t>(array.data()) % 64 == 0, "arrays begin on 64-byte boundaries");
    plain.emplace_back(array.data(), static_cast<int64_t>(array.nbytes()));
  }
  const Kernels& kernels = pick(isa);
  nb::gil_scoped_release release;
  return read_arrays(kernels.read != nullptr ? kernels : kScalarKernels, plain, threads);
}

std::vector<double> measure_peak(const std::string& numbers, int threads, int repeats, const std::string& isa) {
  require((numbers == "int8" || numbers == "f32" || numbers == "bf16") && threads > 0 && threads <= 1024 && repeats > 0,
          "settings out of range");
  const Kernels& kernels = pick(isa);
  const auto kernel = numbers == "int8" ? kernels.int8_peak : numbers == "bf16" ? kernels.bf16.peak : kernels.f32_peak;
  std::vector<double> out(static_cast<size_t>(kernel == nullptr ? 0 : repeats));
  nb::gil_scoped_release release;
  if (kernel != nullptr) peak(kernel, threads, repeats, out.data());
  return out;
}

// A mapped file that shrinks while it is read raises SIGBUS in whichever thread reads it, and no exception can tell of
// it: the command line says what happened and leaves.
void explain_bus_errors() {
  struct sigaction action = {};
  action.sa_handler = [](int) {
    constexpr char kText[] =
        "error: A file became shorter while it was read.\nhint:  something else is writing it; run again when it is "
        "done\n";
    const ssize_t written = write(STDERR_FILENO, kText, sizeof kText - 1);
    _exit(written >= 0 ? 1 : 2);
  };
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace

void bind_measuring(nb::module_& m) {
  m.def("explain_bus_errors", &explain_bus_errors,
        "From now on a file that shrinks under a mapping ends the process in words.");
  m.def("read_bandwidth", &bandwidth, "bytes"_a, "threads"_a, "repeats"_a = 5, "least"_a = 0, "isa"_a = "",
        "GB/s of plain reading, one figure per repeat; each thread reads its part until it has read `least` bytes.");
  m.def("read_arrays", &reading, "arrays"_a, "threads"_a, "isa"_a,
        nb::sig("def read_arrays(arrays: Sequence[NDArray[np.uint8]], threads: int, isa: str) -> float"),
        "GB/s of plain reading of these arrays; of each, what is no multiple of 512 bytes is left out.");
  m.def(
      "peak", &measure_peak, "numbers"_a, "threads"_a, "repeats"_a, "isa"_a,
      "G multiply-adds a second of int8, f32 or bf16 in registers, one figure per repeat; none where it is not known.");
}

}  // namespace scrimp
