// Scores of the method "prototypes" on a GPU: three kernels, all shapes fixed.
//
//   product  (L, P) x (P, Ks + U): logits of every look and class
//   rival    one block per look finds the best of either role, where roles contest
//   combine  one thread per score
//
// Work split  of the product: a block takes 32 classes and 8 looks. The looks' rows lie in shared
//             memory, 512 numbers of them at a time; each of 8 warps reads 4 classes' rows once,
//             its lanes side by side, and keeps 4 x 8 sums a lane. L is small and U large, so what
//             bounds the time is reading the prototypes once; tensor cores would not help.
// Sums        run over a lane's numbers, then over the lanes, always in the same order.
// In use      classes that are room for classes to come are not read and score 0.
// Edges       P divides nothing and its rows need no alignment.
// Twin        zsd_core/scoring/prototypes.py::PrototypeScorer.score; change both in one commit.
#pragma once

#include <climits>

#include "../fuse.h"
#include "launch.h"
#include "topk.cuh"

namespace zsd {
namespace score_prototypes_cuda {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kLooks = 8;    // of a block
constexpr int kClasses = 4;  // of a warp
constexpr int kDepth = 512;  // numbers of a look in shared memory
constexpr int kBlockClasses = kWarps * kClasses;
constexpr int kSharedBytes = kLooks * kDepth * sizeof(float);
static_assert(kLooks * kClasses == kWarp, "every lane ends with one sum");

struct Buffers {
  float* logits;  // (L, Ks + U) of the columns in use
  float* unseen;  // (L,) what the best unseen class asked for is worth
  float* seen;    // (L,) the logit of the best seen class, at least 0
};

inline Buffers share_out(const PrototypeParams& p, Workspace& workspace) {
  Buffers buffers{};
  buffers.logits = workspace.take<float>(p.looked * (p.seen + p.unseen));
  buffers.unseen = workspace.take<float>(p.looked);
  buffers.seen = workspace.take<float>(p.looked);
  return buffers;
}

// Of 32 values in each lane, lane v gets the sum of all lanes' value v: 31 shuffles, not 160. A
// template, not a loop: a loop that is left a loop would put the values into memory.
template <int kHalf = kWarp / 2>
ZSD_DEVICE float warp_sums(float (&values)[kWarp]) {
  if constexpr (kHalf == 0) {
    return values[0];
  } else {
    const bool upper = threadIdx.x & kHalf;
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const float given = upper ? values[i] : values[i + kHalf];
      values[i] = (upper ? values[i + kHalf] : values[i]) + shuffle_xor(given, kHalf);
    }
    return warp_sums<kHalf / 2>(values);
  }
}

// Which columns are classes.
struct InUse {
  std::int64_t room_seen, seen, unseen;

  ZSD_DEVICE InUse(const PrototypeParams& p, const std::int32_t* in_use)
      : room_seen(p.seen),
        seen(in_use ? in_use[0] : p.seen),
        unseen(in_use ? in_use[1] : p.unseen) {}
  ZSD_DEVICE bool operator()(std::int64_t column) const {
    return column < room_seen ? column < seen : column - room_seen < unseen;
  }
};

__global__ void __launch_bounds__(kThreads)
    product_kernel(const PrototypeParams p, const PrototypeInput input, const Buffers buffers) {
  auto* tile = reinterpret_cast<float*>(shared_memory());  // (kLooks, kDepth)
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const InUse in_use(p, input.in_use);
  const std::int64_t columns = p.seen + p.unseen;
  const std::int64_t block_class = std::int64_t{blockIdx.x} * kBlockClasses;
  if (block_class >= p.seen + in_use.unseen) return;  // all threads
  const std::int64_t first_class = block_class + warp * kClasses;
  const std::int64_t first_look = std::int64_t{blockIdx.y} * kLooks;
  bool wanted[kClasses];
#pragma unroll
  for (int k = 0; k < kClasses; ++k) {
    wanted[k] = first_class + k < columns && in_use(first_class + k);
  }
  float sums[kWarp] = {};  // of class k and look l at k kLooks + l
  for (std::int64_t begin = 0; begin < p.width; begin += kDepth) {
    sync_block();  // the tile before is read
    for (int i = threadIdx.x; i < kLooks * kDepth; i += kThreads) {
      const std::int64_t l = first_look + i / kDepth, d = begin + i % kDepth;
      tile[i] = l < p.looked && d < p.width ? input.embeddings[l * p.width + d] : 0.f;
    }
    sync_block();  // the tile is complete
    const int depth = static_cast<int>(p.width - begin < kDepth ? p.width - begin : kDepth);
    for (int d = lane; d < depth; d += kWarp) {
      float look[kLooks];
#pragma unroll
      for (int l = 0; l < kLooks; ++l) look[l] = tile[l * kDepth + d];
#pragma unroll
      for (int k = 0; k < kClasses; ++k) {
        const std::int64_t at = (first_class + k) * p.width + begin + d;
        const float number = wanted[k] ? input.prototypes[at] : 0.f;
#pragma unroll
        for (int l = 0; l < kLooks; ++l) {
          sums[k * kLooks + l] = fmaf(number, look[l], sums[k * kLooks + l]);
        }
      }
    }
  }
  const float logit = warp_sums(sums);  // of class lane / kLooks and look lane % kLooks
  const std::int64_t c = first_class + lane / kLooks, l = first_look + lane % kLooks;
  if (c < columns && l < p.looked) buffers.logits[l * columns + c] = logit;
}

__global__ void __launch_bounds__(kThreads)
    rival_kernel(const PrototypeParams p, const PrototypeInput input, const Buffers buffers) {
  auto* shared = reinterpret_cast<float*>(shared_memory());  // (3, kWarps)
  const InUse in_use(p, input.in_use);
  const float* logits = buffers.logits + std::int64_t{blockIdx.x} * (p.seen + p.unseen);
  float seen = 0.f, unseen = -INFINITY, asked = 0.f;
  for (std::int64_t s = threadIdx.x; s < in_use.seen; s += kThreads) seen = fmaxf(seen, logits[s]);
  for (std::int64_t u = threadIdx.x; u < in_use.unseen; u += kThreads) {
    if (!(input.thresholds[p.seen + u] < INFINITY)) continue;
    unseen = fmaxf(unseen, logits[p.seen + u]);
    asked += 1.f;
  }
  seen = warp_largest(seen);
  unseen = warp_largest(unseen);
  asked = warp_sum(asked);
  if (threadIdx.x % kWarp == 0) {
    const int warp = threadIdx.x / kWarp;
    shared[warp] = seen;
    shared[kWarps + warp] = unseen;
    shared[2 * kWarps + warp] = asked;
  }
  sync_block();  // all warps have said theirs
  if (threadIdx.x > 0) return;
  for (int w = 1; w < kWarps; ++w) {
    seen = fmaxf(seen, shared[w]);
    unseen = fmaxf(unseen, shared[kWarps + w]);
    asked += shared[2 * kWarps + w];
  }
  buffers.seen[blockIdx.x] = seen;
  buffers.unseen[blockIdx.x] = unseen - logf(asked > 1.f ? asked : 1.f);
}

__global__ void __launch_bounds__(kThreads)
    combine_kernel(const PrototypeParams p, const PrototypeInput input, const Buffers buffers,
                   float* output) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::int64_t columns = p.seen + p.unseen, r = i / columns, c = i % columns;
  if (r >= p.regions) return;
  float score = 0.f;
  if (InUse(p, input.in_use)(c)) {
    const std::int64_t place = p.looked > 0 ? input.places[r] : -1;
    const bool looked = place >= 0 && place < p.looked;
    const float logit = looked ? buffers.logits[place * columns + c] : 0.f;
    if (c >= p.seen) {
      if (looked) {
        const float rival = p.rivalry > 0.f ? p.rivalry * buffers.seen[place] : 0.f;
        score = sigmoid(logit - rival) * powf(input.objectness[r], p.objectness_power);
      }
    } else {
      score = sigmoid(input.logits[r * p.seen + c]) * p.seen_scale;
      if (looked && p.contest > 0.f) {
        const float ahead = buffers.unseen[place] - (logit > 0.f ? logit : 0.f);
        score *= sigmoid(p.contest * (p.contest_margin - ahead));
      }
    }
  }
  output[i] = score;
}

}  // namespace score_prototypes_cuda
}  // namespace zsd
