// Which look holds for each region, and its box offsets, on a GPU: one thread per region.
//
//   rois           (R, 4)  float
//   batch_indices  (R,)    int32
//   positions      (L,)    int32  regions that were looked at, the better ones first; -1: none
//   deltas         (L, 4)  float  what the head says of each
//   places         (R,)    int32  the first look of the region itself, or of one of the same image
//                                 that it overlaps by more than the threshold; -1: none
//   offsets        (R, 4)  float  deltas of the regions that were looked at, zeros of the others
//
// Twin        zsd_core/stages.py::describe; change both in one commit.
#pragma once

#include <climits>

#include "../boxes.h"
#include "launch.h"
#include "primitives.cuh"

namespace zsd {
namespace spoken_for_cuda {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads)
    spoken_for_kernel(const SpokenForParams p, const SpokenForInput input, std::int32_t* places,
                      float* offsets) {
  const std::int64_t r = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (r >= p.regions) return;
  const Box box = input.rois[r];
  const std::int32_t image = input.batch_indices[r];
  std::int32_t place = -1;
  float moved[4] = {};
  for (std::int64_t l = 0; l < p.looked; ++l) {
    const std::int64_t position = input.positions[l];
    if (position < 0 || position >= p.regions) continue;
    if (position == r) {
      for (int k = 0; k < 4; ++k) moved[k] = input.deltas[4 * l + k];
    }
    if (place >= 0 || input.batch_indices[position] != image) continue;
    const Box other = input.rois[position];
    if (position == r || iou(other, box, area(other), area(box)) > p.limit) {
      place = static_cast<std::int32_t>(l);
    }
  }
  places[r] = image < 0 ? -1 : place;
  for (int k = 0; k < 4; ++k) offsets[4 * r + k] = moved[k];
}

}  // namespace spoken_for_cuda
}  // namespace zsd
