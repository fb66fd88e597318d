// Who suppresses whom, as bits: what propose and detect share of non-maximum suppression.
//
//   boxes  (sets, capacity)         Box
//   bits   (sets, capacity, words)  bit j of row i: the IoU of boxes i and j is above the limit
#pragma once

#include "../boxes.h"
#include "primitives.cuh"

namespace zsd {
namespace nms_cuda {

constexpr int kThreads = 128;  // rows of a block; its columns are the 32 of one word

struct OverlapArguments {
  const Box* boxes;
  const std::int32_t* counts;  // (sets,) boxes in each
  const std::int32_t* groups;  // (sets, capacity) or null; only equals suppress each other
  std::uint32_t* bits;
  int capacity, words;
  float limit;
};

struct Shared {
  Box boxes[kWarp];
  float areas[kWarp];
  std::int32_t groups[kWarp];
};

// One warp: which of 32 boxes in order are kept, at most `most`. Lane j says whether box j is a
// candidate, and brings the word of its row that names those of the 32 it suppresses.
ZSD_DEVICE std::uint32_t keep_in_order(bool candidate, std::uint32_t row, std::uint32_t suppressed,
                                       int most) {
  std::uint32_t alive = ballot(candidate) & ~suppressed, kept = 0;
  for (int j = 0; j < kWarp; ++j) {
    const std::uint32_t theirs = shuffle(row, j);
    if (alive >> j & 1 && count_bits(kept) < most) {
      kept |= 1u << j;
      alive &= ~theirs;
    }
  }
  return kept;
}

// Whom the kept ones of 32 boxes suppress in word `w`; `rows` are theirs, `words` long.
ZSD_DEVICE std::uint32_t suppressed_by(std::uint32_t kept, const std::uint32_t* rows, int words,
                                       int w) {
  std::uint32_t bits = 0;
  for (std::uint32_t rest = kept; rest; rest &= rest - 1) {
    const int j = count_bits((rest & (0u - rest)) - 1);  // the lowest box of the rest
    bits |= rows[std::int64_t{j} * words + w];
  }
  return bits;
}

// kLaterOnly: bits of j > i only, for boxes that are in order.
template <bool kLaterOnly>
__global__ void __launch_bounds__(kThreads) overlap_kernel(const OverlapArguments p) {
  auto& shared = *reinterpret_cast<Shared*>(shared_memory());
  const int set = blockIdx.z, word = blockIdx.x;
  const int count = p.counts[set];
  const int row = blockIdx.y * kThreads + threadIdx.x, first = kWarp * word;
  if (static_cast<int>(blockIdx.y) * kThreads >= count || first >= count) return;  // all threads
  const Box* boxes = p.boxes + std::int64_t{set} * p.capacity;
  const std::int32_t* groups = p.groups ? p.groups + std::int64_t{set} * p.capacity : nullptr;
  if (threadIdx.x < kWarp && first + static_cast<int>(threadIdx.x) < count) {
    const Box box = boxes[first + threadIdx.x];
    shared.boxes[threadIdx.x] = box;
    shared.areas[threadIdx.x] = area(box);
    shared.groups[threadIdx.x] = groups ? groups[first + threadIdx.x] : 0;
  }
  sync_block();
  if (row >= count) return;
  const Box box = boxes[row];
  const float own_area = area(box);
  const std::int32_t group = groups ? groups[row] : 0;
  std::uint32_t bits = 0;
  for (int j = 0; j < kWarp && first + j < count; ++j) {
    const bool asked = kLaterOnly ? first + j > row : first + j != row;
    if (asked && shared.groups[j] == group &&
        iou(box, shared.boxes[j], own_area, shared.areas[j]) > p.limit) {
      bits |= 1u << j;
    }
  }
  p.bits[(std::int64_t{set} * p.capacity + row) * p.words + word] = bits;
}

template <bool kLaterOnly>
cudaError_t launch_overlap(const OverlapArguments& arguments, int sets, cudaStream_t stream) {
  const dim3 grid(arguments.words, (arguments.capacity + kThreads - 1) / kThreads, sets);
  return launch(overlap_kernel<kLaterOnly>, grid, kThreads, sizeof(Shared), stream, arguments);
}

}  // namespace nms_cuda
}  // namespace zsd
