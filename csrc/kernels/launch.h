// The operators on a GPU: raw device pointers, a stream, a status. Nothing here synchronises or
// allocates, and every shape of a result is fixed before the launch, so that all of it can be
// captured in a CUDA graph; where the number of results depends on the data it is written to a
// `count` and the rows behind it are zero.
//
// Boxes are float32 x1 y1 x2 y2, pixels of the network input. T is float, half or bfloat16; sums
// are float for each.
// Includes    CUDA and the standard library only; ../cuda_bindings.cpp calls these.
#pragma once

#include "device_types.h"

namespace zsd {

// (R, D), (K, D) to (R, K): see product_mlp.cuh.
template <typename T, typename Weight = T>
struct ProductMlpArguments {
  const T* regions;           // (R, D)
  const T* prototypes;        // (K, D)
  const Weight* weight1;      // (M, D)
  const float* weight_scale;  // (M,), for an int8 weight1 = integer * scale; else unused
  const float* bias1;         // (M,)
  const float* weight2;       // (M,)
  const float* bias2;         // (1,)
  float* output;              // (R, K)
  int num_regions;
  int num_classes;
  int depth;   // D
  int hidden;  // M
};
template <typename T, typename Weight>
cudaError_t launch_product_mlp(const ProductMlpArguments<T, Weight>& params, cudaStream_t stream);

}  // namespace zsd
