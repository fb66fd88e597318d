// Detections on a GPU: five kernels on one stream, all shapes fixed.
//
//   refine   decodes and clips every region's box, once for all classes
//   overlap  who suppresses whom (nms.cuh), likewise once
//   suppress one block per class orders its regions by score and walks them
//   select   one block per image finds its best max_detections (topk.cuh)
//   emit     places each by counting, packs the images and empties the rest
//
// Twin        zsd_core/kernels/reference.py::detect; change both in one commit.
#pragma once

#include "launch.h"
#include "nms.cuh"
#include "topk.cuh"

namespace zsd {
namespace detect_cuda {

constexpr int kThreads = 256;
constexpr int kClassThreads = 128;

struct Buffers {
  Box* boxes;                 // (R,)
  std::uint8_t* large;        // (R,) 1: the box is not too small and its image exists
  std::int32_t* num_regions;  // (1,) R, where overlap reads it
  std::uint32_t* bits;        // (R, words)
  Key* survivors;             // (R C,) what NMS kept, of all images, in no order
  std::int32_t* num_survivors;
  Key* taken;               // (B, max_detections) the best of each image, in no order
  std::int32_t* num_taken;  // (B,)
  int words;
};

inline Buffers share_out(const DetectParams& p, Workspace& workspace) {
  const std::int64_t words = (p.regions + kWarp - 1) / kWarp;
  Buffers buffers{};
  buffers.boxes = workspace.take<Box>(p.regions);
  buffers.large = workspace.take<std::uint8_t>(p.regions);
  buffers.num_regions = workspace.take<std::int32_t>(1);
  buffers.bits = workspace.take<std::uint32_t>(p.regions * words);
  buffers.survivors = workspace.take<Key>(p.regions * p.classes);
  buffers.num_survivors = workspace.take<std::int32_t>(1);
  buffers.taken = workspace.take<Key>(p.batch * p.max_detections);
  buffers.num_taken = workspace.take<std::int32_t>(p.batch);
  buffers.words = static_cast<int>(words);
  return buffers;
}

__global__ void __launch_bounds__(kThreads)
    refine_kernel(const DetectParams p, const Buffers buffers, const float* deltas,
                  const float* rois, const std::int32_t* batch_indices, const float* image_sizes) {
  const int r = blockIdx.x * kThreads + threadIdx.x;
  if (r == 0) {
    *buffers.num_regions = static_cast<std::int32_t>(p.regions);
    *buffers.num_survivors = 0;
  }
  if (r >= p.regions) return;
  const int image = batch_indices[r];
  const bool known = image >= 0 && image < p.batch;
  const Box box = known ? refine_box(rois + 4 * r, deltas + 4 * r, image_sizes + 2 * image) : Box{};
  buffers.boxes[r] = box;
  buffers.large[r] = known && has_min_size(box, p.min_size);
}

// Shared memory of one class: keys (R), order (R), suppressed (words), how many.
inline std::size_t suppress_bytes(std::int64_t regions, int words) {
  return regions * (sizeof(Key) + sizeof(std::int32_t)) + words * 4 + 4;
}

__global__ void __launch_bounds__(kClassThreads)
    suppress_kernel(const DetectParams p, const Buffers buffers, const float* class_scores,
                    const float* thresholds) {
  const int regions = static_cast<int>(p.regions), classes = static_cast<int>(p.classes);
  auto* keys = reinterpret_cast<Key*>(shared_memory());
  auto* order = reinterpret_cast<std::int32_t*>(keys + regions);
  auto* suppressed = reinterpret_cast<std::uint32_t*>(order + regions);
  auto* count = reinterpret_cast<std::int32_t*>(suppressed + buffers.words);
  const int column = blockIdx.x;
  for (int w = threadIdx.x; w < buffers.words; w += kClassThreads) suppressed[w] = 0;
  if (threadIdx.x == 0) *count = 0;
  sync_block();
  for (int r = threadIdx.x; r < regions; r += kClassThreads) {
    const float score = class_scores[r * classes + column];
    if (buffers.large[r] && score > thresholds[column]) {
      keys[atomic_add(count, 1)] = make_key(score, r);
    }
  }
  sync_block();
  const int candidates = *count;
  for (int i = threadIdx.x; i < candidates; i += kClassThreads) {
    order[rank_of(keys[i], keys, candidates)] = static_cast<std::int32_t>(key_index(keys[i]));
  }
  sync_block();
  if (threadIdx.x >= kWarp) return;  // one warp walks the order
  for (int i = 0; i < candidates; ++i) {
    const int r = order[i];
    const bool kept = !(suppressed[r / kWarp] >> (r % kWarp) & 1);
    sync_warp();  // all lanes have read before any writes
    if (!kept) continue;
    for (int w = threadIdx.x; w < buffers.words; w += kWarp) {
      suppressed[w] |= buffers.bits[std::int64_t{r} * buffers.words + w];
    }
    if (threadIdx.x == 0) {
      const int flat = r * classes + column;
      buffers.survivors[atomic_add(buffers.num_survivors, 1)] = make_key(class_scores[flat], flat);
    }
    sync_warp();
  }
}

__global__ void __launch_bounds__(kThreads)
    select_kernel(const DetectParams p, const Buffers buffers, const std::int32_t* batch_indices) {
  auto& shared = *reinterpret_cast<CutShared*>(shared_memory());
  const int image = blockIdx.x;
  const auto classes = static_cast<std::uint32_t>(p.classes);
  take_best(
      [&](int i) {
        const Key key = buffers.survivors[i];
        return batch_indices[key_index(key) / classes] == image ? key : Key{0};
      },
      *buffers.num_survivors, static_cast<int>(p.max_detections), shared,
      buffers.taken + image * p.max_detections, buffers.num_taken + image);
}

__global__ void __launch_bounds__(kThreads)
    emit_kernel(const DetectParams p, const Buffers buffers, const float* class_scores,
                const DetectOutput output) {
  const int image = blockIdx.x, images = gridDim.x;
  const auto classes = static_cast<std::uint32_t>(p.classes);
  int offset = 0, total = 0;
  for (int i = 0; i < images; ++i) {
    offset += i < image ? buffers.num_taken[i] : 0;
    total += buffers.num_taken[i];
  }
  const int taken = buffers.num_taken[image];
  const Key* keys = buffers.taken + image * p.max_detections;
  for (int i = threadIdx.x; i < taken; i += kThreads) {
    const std::uint32_t flat = key_index(keys[i]);
    const int place = offset + rank_of(keys[i], keys, taken);
    const Box box = buffers.boxes[flat / classes];
    const float sides[] = {box.x1, box.y1, box.x2, box.y2};
    for (int k = 0; k < 4; ++k) output.boxes[4 * std::int64_t{place} + k] = sides[k];
    output.scores[place] = class_scores[flat];
    output.columns[place] = static_cast<std::int32_t>(flat % classes);
    output.batch_indices[place] = image;
  }
  const int capacity = static_cast<int>(images * p.max_detections);
  for (int i = total + image * kThreads + threadIdx.x; i < capacity; i += images * kThreads) {
    for (int k = 0; k < 4; ++k) output.boxes[4 * std::int64_t{i} + k] = 0.f;
    output.scores[i] = 0.f;
    output.columns[i] = 0;
    output.batch_indices[i] = -1;
  }
  if (image == 0 && threadIdx.x == 0) *output.count = total;
}

// For no regions, classes or images: an empty result.
__global__ void __launch_bounds__(kThreads)
    empty_kernel(const DetectOutput output, std::int64_t capacity) {
  for (std::int64_t i = threadIdx.x; i < capacity; i += kThreads) {
    for (int k = 0; k < 4; ++k) output.boxes[4 * i + k] = 0.f;
    output.scores[i] = 0.f;
    output.columns[i] = 0;
    output.batch_indices[i] = -1;
  }
  if (threadIdx.x == 0) *output.count = 0;
}

}  // namespace detect_cuda
}  // namespace zsd
