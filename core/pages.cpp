#include "pages.h"

#include <mutex>

namespace scrimp {

std::shared_ptr<uint8_t> weight_memory(size_t bytes) {
  constexpr size_t kBlock = size_t{16} << 20;
  bytes = std::max<size_t>(bytes, 1);
  const auto fresh = [](size_t size) {
    return std::shared_ptr<uint8_t>(allocate<uint8_t>(static_cast<int64_t>(size), true).release(), Free{});
  };
  if (bytes > kBlock) return fresh((bytes + kHugePage - 1) / kHugePage * kHugePage);
  static std::mutex turn;
  static std::weak_ptr<uint8_t> block;  // weak: what nobody needs any more is not kept for the next
  static size_t used = 0;
  const std::lock_guard lock(turn);
  std::shared_ptr<uint8_t> whole = block.lock();
  if (!whole || used + bytes > kBlock) {
    block = whole = fresh(kBlock);
    used = 0;
  }
  const size_t at = used;
  used = (used + bytes + 63) / 64 * 64;
  return {whole, whole.get() + at};
}

}  // namespace scrimp
