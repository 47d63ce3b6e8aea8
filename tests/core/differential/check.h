// Comparing the kernels of one instruction set with the scalar ones and with double precision, in one program: for
// processors that only an emulator plays, where there is no Python.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace scrimp {

constexpr double kUnit = 0x1p-24, kTiniest = 0x1p-149;

// The relative error of n roundings.
inline double gamma_of(int64_t n, double unit = kUnit) {
  const double all = static_cast<double>(n) * unit;
  return all / (1 - all);
}

// n zeros that end where a page ends that can't be read: one element too far is a fault.
template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t n, int64_t more = 0) : size_(n) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), bytes = static_cast<size_t>(n + more) * sizeof(T);
    room_ = (bytes + page - 1) / page * page + page;
    base_ = static_cast<uint8_t*>(mmap(nullptr, room_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(base_ + room_ - page, page, PROT_NONE);
    at_ = reinterpret_cast<T*>(base_ + room_ - page - bytes);
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  Guarded(Guarded&& other) noexcept : size_(other.size_), room_(other.room_), base_(other.base_), at_(other.at_) {
    other.base_ = nullptr;
  }
  ~Guarded() {
    if (base_ != nullptr) munmap(base_, room_);
  }
  T* data() { return at_; }
  const T* data() const { return at_; }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) { return at_[i]; }
  const T& operator[](int64_t i) const { return at_[i]; }
  T* begin() { return at_; }
  T* end() { return at_ + size_; }

 private:
  int64_t size_;
  size_t room_;
  uint8_t* base_;
  T* at_;
};

struct Random {
  std::mt19937_64 engine{12345};

  int64_t below(int64_t n) { return static_cast<int64_t>(engine() % static_cast<uint64_t>(n)); }
  int64_t from(int64_t low, int64_t high) { return low + below(high - low + 1); }
  template <class T>
  T one_of(std::initializer_list<T> all) {
    return all.begin()[below(static_cast<int64_t>(all.size()))];
  }
  float normal(double scale = 1) { return static_cast<float>(scale * std::normal_distribution<double>()(engine)); }
  template <class Floats>
  void fill(Floats& x, double scale = 1) {
    for (auto& value : x) value = normal(scale);
  }
};

// What was compared, and how near each kernel came to its bound.
struct Check {
  const Kernels& kernels;
  bool full;
  Random random;

  struct Found {
    int64_t cases = 0, failures = 0;
    double worst = 0;  // error / bound
  };
  std::map<std::string, Found> found;
  std::vector<uint8_t> room = std::vector<uint8_t>(2 << 20);

  uint8_t* scratch() {
    const uintptr_t at = reinterpret_cast<uintptr_t>(room.data());
    return room.data() + (64 - at % 64);
  }

  void fail(const std::string& kernel, const std::string& what) {
    if (++found[kernel].failures <= 5) std::printf("%s %s: %s\n", kernels.isa, kernel.c_str(), what.c_str());
  }
  void within(const std::string& kernel, double got, double exact, double bound, const std::string& what) {
    Found& f = found[kernel];
    ++f.cases;
    const double error = std::fabs(got - exact);
    if (bound > 0 && error / bound > f.worst) f.worst = error / bound;
    if (error <= bound) return;
    char text[160];
    std::snprintf(text, sizeof text, "%s: %.9g is not %.9g within %.3g", what.c_str(), got, exact, bound);
    fail(kernel, text);
  }
  void same(const std::string& kernel, const void* got, const void* exact, size_t bytes, const std::string& what) {
    ++found[kernel].cases;
    if (std::memcmp(got, exact, bytes) != 0) fail(kernel, what + ": other bits than scalar");
  }
};

void check_quantize(Check& c);
void check_linear_int8(Check& c);
void check_linear_f32(Check& c);
void check_attention(Check& c);
void check_cache(Check& c);
void check_rows(Check& c);
void check_rounding(Check& c);
void check_moments(Check& c);
void check_integers(Check& c);

}  // namespace scrimp
