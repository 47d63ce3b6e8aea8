// Arrays of NumPy as the bind_*.cpp take and give them.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <vector>

namespace scrimp {

namespace nb = nanobind;

using Bytes = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
template <typename T>
using Array = nb::ndarray<nb::numpy, T>;

// Zeros.
template <typename T>
Array<T> make_array(std::vector<size_t> shape) {
  size_t count = 1;
  for (size_t side : shape) count *= side;
  T* data = new T[count]();
  nb::capsule owner(data, [](void* memory) noexcept { delete[] static_cast<T*>(memory); });
  return Array<T>(data, shape.size(), shape.data(), owner);
}

}  // namespace scrimp
