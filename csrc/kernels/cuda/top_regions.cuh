// The best regions that a given detector offers, on a GPU: three kernels, all shapes fixed.
//
//   best    one warp per query finds its highest logit
//   choose  one block per image takes its `count` best queries (topk.cuh), orders them by counting,
//           makes boxes of them and lists those that are large enough
//   emit    one warp per row of the output packs the images and empties the rest
//
// Twin        zsd_core/kernels/offered.py::top_regions; change both in one commit.
#pragma once

#include "../fuse.h"
#include "launch.h"
#include "topk.cuh"

namespace zsd {
namespace top_regions_cuda {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

struct Buffers {
  float* best;             // (B, Q) the highest logit of a query, NaN if one is
  Key* taken;              // (B, top) the best queries, in no order
  std::int32_t* queries;   // (B, top) from here on best first
  Box* boxes;              // (B, top)
  std::int32_t* kept;      // (B, top) places in that order
  std::int32_t* num_kept;  // (B,)
  int top;
};

inline Buffers share_out(const TopRegionsParams& p, Workspace& workspace) {
  const std::int64_t top = p.count < p.queries ? p.count : p.queries;
  Buffers buffers{};
  buffers.best = workspace.take<float>(p.batch * p.queries);
  buffers.taken = workspace.take<Key>(p.batch * top);
  buffers.queries = workspace.take<std::int32_t>(p.batch * top);
  buffers.boxes = workspace.take<Box>(p.batch * top);
  buffers.kept = workspace.take<std::int32_t>(p.batch * top);
  buffers.num_kept = workspace.take<std::int32_t>(p.batch);
  buffers.top = static_cast<int>(top);
  return buffers;
}

__global__ void __launch_bounds__(kThreads)
    best_kernel(const TopRegionsParams p, const Buffers buffers, const float* logits) {
  const std::int64_t query = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (query >= p.batch * p.queries) return;  // a whole warp
  const int lane = threadIdx.x % kWarp;
  const float* own = logits + query * p.classes;
  float highest = -INFINITY;
  bool missing = false;
  for (std::int64_t c = lane; c < p.classes; c += kWarp) {
    missing |= own[c] != own[c];
    highest = fmaxf(highest, own[c]);
  }
  highest = warp_largest(highest);
  missing = ballot(missing) != 0;
  if (lane == 0) buffers.best[query] = missing ? NAN : highest;
}

__global__ void __launch_bounds__(kThreads)
    choose_kernel(const TopRegionsParams p, const Buffers buffers, const float* boxes,
                  const float* image_sizes) {
  auto& shared = *reinterpret_cast<CutShared*>(shared_memory());
  const int image = blockIdx.x, lane = threadIdx.x % kWarp, top = buffers.top;
  const float* best = buffers.best + image * p.queries;
  const std::int64_t base = std::int64_t{image} * top;
  take_best(
      [&](int i) {  // NaN is a key too, behind every score
        const auto query = static_cast<std::uint32_t>(i);
        return best[i] == best[i] ? make_key(best[i], query) : Key{0xffffffffu - query};
      },
      static_cast<int>(p.queries), top, shared, buffers.taken + base, buffers.num_kept + image);
  for (int i = threadIdx.x; i < top; i += kThreads) {
    const Key key = buffers.taken[base + i];
    const std::int64_t place = base + rank_of(key, buffers.taken + base, top);
    const std::uint32_t query = key_index(key);
    buffers.queries[place] = static_cast<std::int32_t>(query);
    buffers.boxes[place] =
        offered_box(boxes + 4 * (image * p.queries + query), image_sizes + 2 * image);
  }
  sync_block();
  if (threadIdx.x >= kWarp) return;  // one warp lists what is large
  int kept = 0;
  for (int first = 0; first < top; first += kWarp) {
    const int own = first + lane;
    const bool large = own < top && has_min_size(buffers.boxes[base + own], p.min_size);
    const std::uint32_t votes = ballot(large);
    if (large) buffers.kept[base + kept + count_bits(votes & ((1u << lane) - 1))] = own;
    kept += count_bits(votes);
  }
  if (lane == 0) buffers.num_kept[image] = kept;
}

__global__ void __launch_bounds__(kThreads)
    emit_kernel(const TopRegionsParams p, const Buffers buffers, const float* logits,
                const TopRegionsOutput output) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp, batch = static_cast<int>(p.batch);
  const Place found = place_of(row, buffers.num_kept, batch);
  if (row == 0 && lane == 0) *output.count = total_of(buffers.num_kept, batch);
  if (row >= p.batch * p.count) return;
  const bool used = found.image >= 0;
  Box box{};
  float objectness = 0.f;
  const float* own = logits;
  if (used) {
    const std::int64_t base = std::int64_t{found.image} * buffers.top;
    const int place = buffers.kept[base + found.index];
    const std::int64_t query = found.image * p.queries + buffers.queries[base + place];
    box = buffers.boxes[base + place];
    objectness = sigmoid(buffers.best[query]);
    own = logits + query * p.classes;
  }
  for (std::int64_t c = lane; c < p.classes; c += kWarp) {
    output.logits[row * p.classes + c] = used ? own[c] : 0.f;
  }
  if (lane == 0) {
    const float sides[] = {box.x1, box.y1, box.x2, box.y2};
    for (int k = 0; k < 4; ++k) output.rois[4 * row + k] = sides[k];
    output.batch_indices[row] = found.image;
    output.objectness[row] = objectness;
  }
}

}  // namespace top_regions_cuda
}  // namespace zsd
