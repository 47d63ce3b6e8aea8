#include "integer.h"

#include <algorithm>
#include <atomic>

#include "integer_stage.h"

namespace scrimp {
namespace {

// Numbers of the largest activation of a batch: what one operation reads and writes stays in the second cache.
constexpr int64_t kBatchNumbers = 1 << 16;
constexpr int64_t kMostPictures = 32;

}  // namespace

IntegerEngine::IntegerEngine(std::vector<IntegerOp> ops, std::vector<Image> buffers, int32_t zero, int32_t pixel_shift,
                             int threads, const Kernels& kernels)
    : kernels_(kernels),
      ops_(std::move(ops)),
      buffers_(std::move(buffers)),
      zero_(zero),
      pixel_shift_(pixel_shift),
      pool_(threads) {
  int64_t largest = 1;
  for (const Image& image : buffers_) largest = std::max(largest, image.size());
  batch_ = std::clamp<int64_t>(kBatchNumbers / largest, 1, kMostPictures);
  place_buffers();
  size_t gathered = 0, summed = 0;
  for (const IntegerOp& op : ops_) {
    stages_.push_back(prepare(op, buffers_));
    gathered = std::max(gathered, static_cast<size_t>(stages_.back().gathered()));
    summed = std::max(summed, static_cast<size_t>(stages_.back().summed()));
  }
  workers_.resize(static_cast<size_t>(threads));
  for (IntegerWorker& worker : workers_) {
    for (int64_t numbers : slot_numbers_) worker.slots.emplace_back(static_cast<size_t>(numbers * batch_));
    worker.inputs.resize(gathered);
    worker.sums.resize(summed);
  }
}

IntegerEngine::~IntegerEngine() = default;

// In the order of the operations every buffer takes a slot that nothing alive lies in. The logits need none.
void IntegerEngine::place_buffers() {
  std::vector<size_t> last(buffers_.size(), 0);  // 1 + the operation that reads it last
  for (size_t i = 0; i < ops_.size(); ++i)
    for (int input : ops_[i].inputs) last[static_cast<size_t>(input)] = i + 1;
  std::vector<size_t> free_from;  // of each slot: the first operation that may write into it
  slots_.assign(buffers_.size(), -1);
  const auto place = [&](int buffer, size_t now) {
    const auto index = static_cast<size_t>(buffer);
    size_t slot = 0;
    while (slot < free_from.size() && free_from[slot] > now) ++slot;
    if (slot == free_from.size()) {
      free_from.push_back(0);
      slot_numbers_.push_back(0);
    }
    free_from[slot] = std::max(last[index], now + 1);
    slot_numbers_[slot] = std::max(slot_numbers_[slot], buffers_[index].size());
    slots_[index] = static_cast<int>(slot);
  };
  place(0, 0);
  for (size_t i = 0; i + 1 < ops_.size(); ++i) place(ops_[i].output, i);
}

void IntegerEngine::run(const uint8_t* pictures, int64_t count, int32_t* logits) {
  const std::lock_guard<std::mutex> alone(busy_);
  const int64_t share = (count + pool_.threads() - 1) / pool_.threads();
  const int64_t batch = std::clamp<int64_t>(share, 1, batch_);
  std::atomic<int64_t> next{0};
  pool_.run([&](int thread) {
    IntegerWorker& worker = workers_[static_cast<size_t>(thread)];
    for (int64_t first; (first = next.fetch_add(batch)) < count;)
      walk(worker, pictures + first * picture().size(), std::min(batch, count - first), logits + first * classes());
  });
}

void IntegerEngine::walk(IntegerWorker& worker, const uint8_t* pictures, int64_t count, int32_t* logits) const {
  const auto slot = [&](int buffer) {
    return worker.slots[static_cast<size_t>(slots_[static_cast<size_t>(buffer)])].data();
  };
  int16_t* codes = slot(0);
  for (int64_t i = 0; i < count * picture().size(); ++i)
    codes[i] = static_cast<int16_t>((static_cast<int32_t>(pictures[i]) - zero_) >> pixel_shift_);
  for (const IntegerStage& stage : stages_) {
    const IntegerOp& op = *stage.op;
    const bool last = &stage == &stages_.back();
    const int16_t* second = op.inputs.size() > 1 ? slot(op.inputs[1]) : nullptr;
    scrimp::run(stage, {slot(op.inputs[0]), second, count, last ? nullptr : slot(op.output), last ? logits : nullptr},
                worker, kernels_);
  }
}

}  // namespace scrimp
