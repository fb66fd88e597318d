// The CUDA names that both kernels and bindings use: streams, status, half and bfloat16.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef ZSD_CUDA_SHIM
#include "shim.h"  // tests/helpers/cuda_proof: the same names for a CPU
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

namespace zsd {

using half = __half;
using bfloat16 = __nv_bfloat16;

}  // namespace zsd
