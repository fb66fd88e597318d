// Whether every number of an array is finite, on a GPU.
//
//   values  (R, D)  float
//   owners  (R,)    int32  or null; a row whose owner is negative is not looked at: it is room that
//                          nobody has used, and may hold anything
//   finite  (1,)    int32  becomes 0 if a number is NaN or infinite, and is left alone otherwise:
//                          the host sets it to 1 once, and again when it has seen a 0
//
// Method      a thread looks at numbers that lie a grid apart; several may write the same 0.
// Twin        zsd_core/stages.py::check_finite; change both in one commit.
#pragma once

#include <cfloat>
#include <climits>

#include "launch.h"
#include "primitives.cuh"

namespace zsd {
namespace all_finite_cuda {

constexpr int kThreads = 256;
constexpr int kEach = 8;      // numbers of a thread, in an array of ordinary size
constexpr int kBlocks = 256;  // most of a launch; beyond that a thread takes more numbers

__global__ void __launch_bounds__(kThreads)
    all_finite_kernel(const FiniteInput input, std::int32_t* finite) {
  const unsigned count = static_cast<unsigned>(input.rows * input.width);  // at most INT_MAX
  const unsigned width = static_cast<unsigned>(input.width);
  bool own = true;
  for (unsigned i = blockIdx.x * kThreads + threadIdx.x; i < count; i += gridDim.x * kThreads) {
    if (input.owners && input.owners[i / width] < 0) continue;
    own &= fabsf(input.values[i]) <= FLT_MAX;  // not so for NaN
  }
  if (!own) *finite = 0;
}

}  // namespace all_finite_cuda
}  // namespace zsd
