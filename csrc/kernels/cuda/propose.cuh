// Region proposals on a GPU: five kernels on one stream, all shapes fixed.
//
//   select   one block per image finds its pre_nms_top best anchors (topk.cuh)
//   rank     places each by counting, decodes, clips and filters it there
//   overlap  who suppresses whom (nms.cuh)
//   scan     one block per image walks the order, 32 boxes at a time, up to post_nms_top
//   emit     packs the images one after the other and empties the rest
//
// Twin        zsd_core/kernels/reference.py::propose; change both in one commit.
#pragma once

#include "../fuse.h"
#include "launch.h"
#include "nms.cuh"
#include "topk.cuh"

namespace zsd {
namespace propose_cuda {

constexpr int kThreads = 256;

struct Buffers {
  Key* taken;              // (B, top) the best anchors, in no order
  std::int32_t* counts;    // (B,) how many
  Box* boxes;              // (B, top) from here on best first
  float* logits;           // (B, top)
  std::uint8_t* large;     // (B, top) 1: the box is not too small
  std::uint32_t* bits;     // (B, top, words)
  std::int32_t* kept;      // (B, post_nms_top) places in the order
  std::int32_t* num_kept;  // (B,)
  int top, words;
};

inline Buffers share_out(const ProposeParams& p, Workspace& workspace) {
  const std::int64_t anchors = p.anchors * p.height * p.width;
  const std::int64_t top = p.pre_nms_top < anchors ? p.pre_nms_top : anchors;
  const std::int64_t words = (top + kWarp - 1) / kWarp;
  Buffers buffers{};
  buffers.taken = workspace.take<Key>(p.batch * top);
  buffers.counts = workspace.take<std::int32_t>(p.batch);
  buffers.boxes = workspace.take<Box>(p.batch * top);
  buffers.logits = workspace.take<float>(p.batch * top);
  buffers.large = workspace.take<std::uint8_t>(p.batch * top);
  buffers.bits = workspace.take<std::uint32_t>(p.batch * top * words);
  buffers.kept = workspace.take<std::int32_t>(p.batch * p.post_nms_top);
  buffers.num_kept = workspace.take<std::int32_t>(p.batch);
  buffers.top = static_cast<int>(top);
  buffers.words = static_cast<int>(words);
  return buffers;
}

__global__ void __launch_bounds__(kThreads)
    select_kernel(const ProposeParams p, const Buffers buffers, const float* objectness) {
  auto& shared = *reinterpret_cast<CutShared*>(shared_memory());
  const int cells = static_cast<int>(p.height * p.width), anchors = static_cast<int>(p.anchors);
  const float* logits = objectness + std::int64_t{blockIdx.x} * anchors * cells;
  take_best(
      [&](int i) {  // in the order of memory, (A, H, W)
        const float logit = logits[i];
        return logit == logit ? make_key(logit, i % cells * anchors + i / cells) : Key{0};
      },
      anchors * cells, buffers.top, shared, buffers.taken + std::int64_t{blockIdx.x} * buffers.top,
      buffers.counts + blockIdx.x);
}

__global__ void __launch_bounds__(kThreads)
    rank_kernel(const ProposeParams p, const Buffers buffers, const float* deltas,
                const float* anchors, const float* image_sizes) {
  const int image = blockIdx.y, i = blockIdx.x * kThreads + threadIdx.x;
  const int count = buffers.counts[image];
  if (i >= count) return;
  const Key* keys = buffers.taken + std::int64_t{image} * buffers.top;
  const Key key = keys[i];
  const std::int64_t place = std::int64_t{image} * buffers.top + rank_of(key, keys, count);

  const std::int64_t flat = key_index(key), a = flat % p.anchors, cell = flat / p.anchors;
  const std::int64_t plane = p.height * p.width;
  const float* delta = deltas + (image * p.anchors + a) * 4 * plane + cell;
  const Box anchor = anchor_box(anchors, a, cell / p.width, cell % p.width, p.stride);
  Box box =
      decode_box(anchor, delta[0], delta[plane], delta[2 * plane], delta[3 * plane], 1.f, 1.f);
  box = clip_box(box, image_sizes[2 * image], image_sizes[2 * image + 1]);
  buffers.boxes[place] = box;
  buffers.logits[place] = key_score(key);
  buffers.large[place] = has_min_size(box, p.min_size);
}

__global__ void __launch_bounds__(kThreads)
    scan_kernel(const ProposeParams p, const Buffers buffers) {
  // Shared: one bit per box, 1 where it is suppressed; then what the first warp tells the others.
  auto* suppressed = reinterpret_cast<std::uint32_t*>(shared_memory());
  std::uint32_t* found = suppressed + buffers.words;
  const int image = blockIdx.x, lane = threadIdx.x % kWarp;
  const int count = buffers.counts[image], most = static_cast<int>(p.post_nms_top);
  const std::int64_t base = std::int64_t{image} * buffers.top;
  const int words = (count + kWarp - 1) / kWarp;
  for (int w = threadIdx.x; w < words; w += kThreads) suppressed[w] = 0;
  sync_block();
  int num_kept = 0;
  for (int word = 0; word < words && num_kept < most; ++word) {
    if (threadIdx.x < kWarp) {
      const int own = kWarp * word + lane;
      const bool large = own < count && buffers.large[base + own];
      const std::uint32_t row = own < count ? buffers.bits[(base + own) * buffers.words + word] : 0;
      const std::uint32_t kept =
          nms_cuda::keep_in_order(large, row, suppressed[word], most - num_kept);
      if (kept >> lane & 1) {
        const int place = num_kept + count_bits(kept & ((1u << lane) - 1));
        buffers.kept[image * p.post_nms_top + place] = own;
      }
      if (lane == 0) *found = kept;
    }
    sync_block();
    const std::uint32_t kept = *found;
    num_kept += count_bits(kept);
    const std::uint32_t* rows = buffers.bits + (base + kWarp * word) * buffers.words;
    for (int w = word + 1 + threadIdx.x; w < words; w += kThreads) {
      suppressed[w] |= nms_cuda::suppressed_by(kept, rows, buffers.words, w);
    }
    sync_block();
  }
  if (threadIdx.x == 0) buffers.num_kept[image] = num_kept;
}

__global__ void __launch_bounds__(kThreads)
    emit_kernel(const ProposeParams p, const Buffers buffers, const ProposeOutput output) {
  const int image = blockIdx.x, images = gridDim.x;
  int offset = 0, total = 0;
  for (int i = 0; i < images; ++i) {
    offset += i < image ? buffers.num_kept[i] : 0;
    total += buffers.num_kept[i];
  }
  // Every block writes its image's rows, then its share of the empty ones at the end.
  const int kept = buffers.num_kept[image];
  for (int i = threadIdx.x; i < kept; i += kThreads) {
    const std::int64_t from =
        std::int64_t{image} * buffers.top + buffers.kept[image * p.post_nms_top + i];
    const Box box = buffers.boxes[from];
    const float sides[] = {box.x1, box.y1, box.x2, box.y2};
    for (int k = 0; k < 4; ++k) output.rois[4 * std::int64_t{offset + i} + k] = sides[k];
    output.batch_indices[offset + i] = image;
    output.scores[offset + i] = sigmoid(buffers.logits[from]);
  }
  const int capacity = static_cast<int>(images * p.post_nms_top);
  for (int i = total + image * kThreads + threadIdx.x; i < capacity; i += images * kThreads) {
    for (int k = 0; k < 4; ++k) output.rois[4 * std::int64_t{i} + k] = 0.f;
    output.batch_indices[i] = -1;
    output.scores[i] = 0.f;
  }
  if (image == 0 && threadIdx.x == 0) *output.count = total;
}

// For no images or no anchors: an empty result.
__global__ void __launch_bounds__(kThreads)
    empty_kernel(const ProposeOutput output, std::int64_t capacity) {
  for (std::int64_t i = threadIdx.x; i < capacity; i += kThreads) {
    for (int k = 0; k < 4; ++k) output.rois[4 * i + k] = 0.f;
    output.batch_indices[i] = -1;
    output.scores[i] = 0.f;
  }
  if (threadIdx.x == 0) *output.count = 0;
}

}  // namespace propose_cuda
}  // namespace zsd
