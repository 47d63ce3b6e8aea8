// Measuring the machine, and a last word where it fails, for Python, beside bind.cpp.
#include "bind_measuring.h"

#include <nanobind/stl/vector.h>
#include <signal.h>
#include <unistd.h>

#include <vector>

#include "bind_checks.h"
#include "score.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace scrimp {
namespace {

std::vector<double> bandwidth(int64_t bytes, int threads, int repeats) {
  require(bytes >= 4096 && threads > 0 && threads <= 1024 && repeats > 0, "settings out of range");
  std::vector<double> out(static_cast<size_t>(repeats));
  nb::gil_scoped_release release;
  read_bandwidth(bytes, threads, repeats, out.data());
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
  m.def("read_bandwidth", &bandwidth, "bytes"_a, "threads"_a, "repeats"_a = 5);
}

}  // namespace scrimp
