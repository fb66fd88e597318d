// The best of many scores, in order, with no sort: find the cut, take what is above, count ranks.
//
// A score and its index make one 64-bit key whose order is the wanted one: higher scores first,
// ties by the lower index. Keys are unique, so results do not depend on how threads interleave.
// 0 is no key.
#pragma once

#include "primitives.cuh"

namespace zsd {

using Key = std::uint64_t;

ZSD_DEVICE Key make_key(float score, std::uint32_t index) {
  const std::uint32_t bits = float_bits(score + 0.f);  // -0 becomes 0: they are a tie
  const std::uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return Key{ordered} << 32 | (0xffffffffu - index);
}
ZSD_DEVICE std::uint32_t key_index(Key key) {
  return 0xffffffffu - static_cast<std::uint32_t>(key);
}
ZSD_DEVICE float key_score(Key key) {
  const auto ordered = static_cast<std::uint32_t>(key >> 32);
  return bits_float(ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered);
}

struct CutShared {
  int histogram[256];
  int digit, need;
  int taken;
};

// The key such that at most `most` of key_of(0) ... key_of(count - 1) are not below it; 1 if there
// are no more than that. The whole block calls it. Radix selection, eight bits at a time.
template <typename KeyOf>
ZSD_DEVICE Key find_cut(KeyOf key_of, int count, int most, CutShared& shared) {
  Key prefix = 0, mask = 0;
  int need = most;
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int d = threadIdx.x; d < 256; d += blockDim.x) shared.histogram[d] = 0;
    if (threadIdx.x == 0) shared.digit = -1;
    sync_block();
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
      const Key key = key_of(i);
      if (key != 0 && (key & mask) == prefix) {
        atomic_add(&shared.histogram[static_cast<int>(key >> shift & 255)], 1);
      }
    }
    sync_block();
    for (int d = threadIdx.x; d < 256; d += blockDim.x) {
      int above = 0;
      for (int other = d + 1; other < 256; ++other) above += shared.histogram[other];
      if (above < need && above + shared.histogram[d] >= need) {
        shared.digit = d;
        shared.need = need - above;
      }
    }
    sync_block();
    const int digit = shared.digit;
    const bool all = digit < 0;
    const bool exact = !all && shared.histogram[digit] == shared.need;
    if (!all) need = shared.need;
    sync_block();  // before the next digit's counts
    if (all) return 1;
    prefix |= Key{static_cast<unsigned>(digit)} << shift;
    mask |= Key{255} << shift;
    if (exact) break;
  }
  return prefix ? prefix : 1;  // all of the lowest digit are in, and 0 is no key
}

// Copies the best `most` keys to `taken` in no order, and their number to `num_taken`.
template <typename KeyOf>
ZSD_DEVICE void take_best(KeyOf key_of, int count, int most, CutShared& shared, Key* taken,
                          std::int32_t* num_taken) {
  const Key cut = find_cut(key_of, count, most, shared);
  if (threadIdx.x == 0) shared.taken = 0;
  sync_block();
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const Key key = key_of(i);
    if (key >= cut) taken[atomic_add(&shared.taken, 1)] = key;
  }
  sync_block();
  if (threadIdx.x == 0) *num_taken = shared.taken;
}

// How many of `keys` come before `key`: its place in their order.
ZSD_DEVICE int rank_of(Key key, const Key* keys, int count) {
  int rank = 0;
  for (int i = 0; i < count; ++i) rank += keys[i] > key;
  return rank;
}

// Where a row of packed images comes from.
struct Place {
  int image, index;  // -1: it is behind them all
};
ZSD_DEVICE Place place_of(std::int64_t row, const std::int32_t* counts, int images) {
  std::int64_t before = 0;
  for (int image = 0; image < images; ++image) {
    if (row < before + counts[image]) return {image, static_cast<int>(row - before)};
    before += counts[image];
  }
  return {-1, -1};
}
ZSD_DEVICE std::int32_t total_of(const std::int32_t* counts, int images) {
  std::int32_t total = 0;
  for (int image = 0; image < images; ++image) total += counts[image];
  return total;
}

// Shares a caller's workspace out; with a null base it only counts the bytes.
class Workspace {
 public:
  explicit Workspace(void* base) : base_(static_cast<unsigned char*>(base)) {}
  template <typename T>
  T* take(std::int64_t count) {
    T* start = base_ ? reinterpret_cast<T*>(base_ + bytes_) : nullptr;
    bytes_ += (count * sizeof(T) + 255) / 256 * 256;
    return start;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  unsigned char* base_;
  std::size_t bytes_ = 0;
};

}  // namespace zsd
