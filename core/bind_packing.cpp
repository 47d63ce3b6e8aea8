// Codes to planes and back.
#include "bind_packing.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <utility>
#include <vector>

#include "bind_arrays.h"
#include "bind_checks.h"
#include "packing.h"
#include "pages.h"

using namespace nanobind::literals;

namespace scrimp {
namespace {

// An array in weight_memory, not filled.
Array<uint8_t> weight_array(size_t dims, const size_t* shape) {
  size_t bytes = 1;
  for (size_t i = 0; i < dims; ++i) bytes *= shape[i];
  auto memory = std::make_unique<std::shared_ptr<uint8_t>>(weight_memory(bytes));
  uint8_t* data = memory->get();
  nb::capsule owner(memory.get(), [](void* held) noexcept { delete static_cast<std::shared_ptr<uint8_t>*>(held); });
  memory.release();
  return Array<uint8_t>(data, dims, shape, owner);
}

nb::list pack_codes(nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu> codes,
                    const std::vector<int>& widths) {
  const auto rows = static_cast<int64_t>(codes.shape(0)), cols = static_cast<int64_t>(codes.shape(1));
  nb::list planes;
  int shift = 0;
  for (int width : widths) {
    const int64_t span = plane_span(width);
    const size_t shape[3] = {static_cast<size_t>((rows + kTileRows - 1) / kTileRows),
                             static_cast<size_t>((cols + span - 1) / span), static_cast<size_t>(kVectorBytes)};
    Array<uint8_t> plane = weight_array(3, shape);
    {
      nb::gil_scoped_release release;
      pack_plane(codes.data(), rows, cols, shift, width, plane.data());
    }
    planes.append(plane);
    shift += width;
  }
  return planes;
}

Array<uint8_t> unpack_codes(const std::vector<Bytes>& planes, const std::vector<int>& widths,
                            std::pair<int64_t, int64_t> shape) {
  const auto [rows, cols] = shape;
  require(planes.size() == widths.size(), "a width per plane is needed");
  auto codes = make_array<uint8_t>({static_cast<size_t>(rows), static_cast<size_t>(cols)});
  int shift = 0;
  for (size_t i = 0; i < planes.size(); ++i) {
    const int64_t span = plane_span(widths[i]);
    require(static_cast<int64_t>(planes[i].nbytes()) ==
                (rows + kTileRows - 1) / kTileRows * ((cols + span - 1) / span) * kVectorBytes,
            "a plane does not have the size of its shape");
    nb::gil_scoped_release release;
    unpack_plane(planes[i].data(), cols, shift, widths[i], 0, rows, codes.data());
    shift += widths[i];
  }
  return codes;
}

}  // namespace

void bind_packing(nb::module_& m) {
  m.def(
      "weight_bytes", [](size_t bytes) { return weight_array(1, &bytes); }, "bytes"_a,
      nb::sig("def weight_bytes(bytes: int) -> NDArray[np.uint8]"));
  m.def("pack_codes", &pack_codes, "codes"_a, "widths"_a,
        nb::sig("def pack_codes(codes: NDArray[np.uint8], widths: Sequence[int]) -> list[NDArray[np.uint8]]"));
  m.def("unpack_codes", &unpack_codes, "planes"_a, "widths"_a, "shape"_a);
}

}  // namespace scrimp
