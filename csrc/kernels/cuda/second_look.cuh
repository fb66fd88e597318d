// Regions worth a second look, on a GPU: two kernels, all shapes fixed.
//
//   overlap  who suppresses whom (nms.cuh)
//   look     one block; a warp walks an image's regions in their order, 32 at a time, up to
//            `count`; then all threads pack the images and empty the rest
//
// Order       regions of an image are best first already, as top_regions leaves them.
// Twin        zsd_core/kernels/offered.py::second_look; change both in one commit.
#pragma once

#include "launch.h"
#include "nms.cuh"
#include "topk.cuh"

namespace zsd {
namespace second_look_cuda {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

struct Buffers {
  std::uint32_t* bits;     // (R, words)
  std::int32_t* kept;      // (B, count) positions of regions
  std::int32_t* num_kept;  // (B,)
  int words;
};

inline Buffers share_out(const SecondLookParams& p, Workspace& workspace) {
  const std::int64_t words = (p.regions + kWarp - 1) / kWarp;
  Buffers buffers{};
  buffers.bits = workspace.take<std::uint32_t>(p.regions * words);
  buffers.kept = workspace.take<std::int32_t>(p.batch * p.count);
  buffers.num_kept = workspace.take<std::int32_t>(p.batch);
  buffers.words = static_cast<int>(words);
  return buffers;
}

__global__ void __launch_bounds__(kThreads)
    look_kernel(const SecondLookParams p, const Buffers buffers, const float* rois,
                const std::int32_t* batch_indices, const std::int32_t* num_regions,
                const SecondLookOutput output) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int batch = static_cast<int>(p.batch), most = static_cast<int>(p.count);
  const int regions = *num_regions, words = (regions + kWarp - 1) / kWarp;
  auto* suppressed = reinterpret_cast<std::uint32_t*>(shared_memory()) + warp * buffers.words;
  for (int image = warp; image < batch; image += kWarps) {
    for (int w = lane; w < words; w += kWarp) suppressed[w] = 0;
    sync_warp();
    int num_kept = 0;
    for (int word = 0; word < words && num_kept < most; ++word) {
      const int own = kWarp * word + lane;
      const bool candidate = own < regions && batch_indices[own] == image;
      const std::uint32_t* rows = buffers.bits + std::int64_t{kWarp} * word * buffers.words;
      const std::uint32_t row = own < regions ? rows[lane * buffers.words + word] : 0;
      const std::uint32_t kept =
          nms_cuda::keep_in_order(candidate, row, suppressed[word], most - num_kept);
      if (kept >> lane & 1) {
        const int place = num_kept + count_bits(kept & ((1u << lane) - 1));
        buffers.kept[image * p.count + place] = own;
      }
      num_kept += count_bits(kept);
      for (int w = word + 1 + lane; w < words; w += kWarp) {
        suppressed[w] |= nms_cuda::suppressed_by(kept, rows, buffers.words, w);
      }
      sync_warp();  // before the next word is read
    }
    if (lane == 0) buffers.num_kept[image] = num_kept;
  }
  sync_block();  // all images are walked
  const int capacity = static_cast<int>(p.batch * p.count);
  for (int row = threadIdx.x; row < capacity; row += kThreads) {
    const Place found = place_of(row, buffers.num_kept, batch);
    const bool used = found.image >= 0;
    const int region = used ? buffers.kept[found.image * p.count + found.index] : -1;
    output.positions[row] = region;
    output.batch_indices[row] = found.image;
    for (int k = 0; k < 4; ++k) {
      output.rois[4 * std::int64_t{row} + k] = used ? rois[4 * std::int64_t{region} + k] : 0.f;
    }
  }
  if (threadIdx.x == 0) *output.count = total_of(buffers.num_kept, batch);
}

}  // namespace second_look_cuda
}  // namespace zsd
