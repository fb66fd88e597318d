// Resize, normalise and pad on a GPU: one output pixel, three channels, per thread.
//
// Work split  a block takes 8 x 32 pixels. Where its rows and columns lie in the image is found
//             once per block, since that arithmetic is double.
// Edges       outside (height, width) the output is 0.
// Twin        zsd_core/kernels/reference.py::preprocess; change both in one commit.
#pragma once

#include <climits>

#include "launch.h"
#include "primitives.cuh"

namespace zsd {
namespace preprocess_cuda {

constexpr int kRows = 8;
constexpr int kColumns = 32;

// Two blocks of pixels along one axis: [begin, end), and the weight of each pixel in them.
struct Span {
  int begin[2], end[2];
  float weight[2];
};
struct Shared {
  Span rows[kRows], columns[kColumns];
};

ZSD_DEVICE Span find_span(const ResizeAxis& axis, std::int64_t index) {
  const ResizeSample sample = resize_sample(axis, index);
  Span span;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const std::int64_t block = i ? sample.high : sample.low;
    const std::int64_t pixels = block < axis.blocks - 1 ? axis.block : axis.last;
    span.begin[i] = static_cast<int>(block * axis.block);
    span.end[i] = span.begin[i] + static_cast<int>(pixels);
    span.weight[i] = (i ? sample.fraction : 1.f - sample.fraction) / static_cast<float>(pixels);
  }
  return span;
}

template <typename T>
__global__ void __launch_bounds__(kRows* kColumns)
    preprocess_kernel(const PreprocessParams p, const std::uint8_t* image, T* output) {
  auto& shared = *reinterpret_cast<Shared*>(shared_memory());
  const int first_row = blockIdx.y * kRows, first_column = blockIdx.x * kColumns;
  const int thread = threadIdx.x;
  if (thread < kColumns && first_column + thread < p.width) {
    shared.columns[thread] = find_span(resize_axis(p.image_width, p.width), first_column + thread);
  } else if (thread >= kColumns && thread < kColumns + kRows &&
             first_row + thread - kColumns < p.height) {
    shared.rows[thread - kColumns] =
        find_span(resize_axis(p.image_height, p.height), first_row + thread - kColumns);
  }
  sync_block();
  const int row = first_row + thread / kColumns, column = first_column + thread % kColumns;
  if (row >= p.padded_height || column >= p.padded_width) return;
  const bool inside = row < p.height && column < p.width;

  float sums[3] = {};  // in the image's order of channels
  if (inside) {
    const Span& vertical = shared.rows[thread / kColumns];
    const Span& horizontal = shared.columns[thread % kColumns];
    for (int i = 0; i < 2; ++i) {
      for (int j = 0; j < 2; ++j) {
        int block[3] = {};
        for (int y = vertical.begin[i]; y < vertical.end[i]; ++y) {
          const std::uint8_t* pixel = image + 3 * (y * p.image_width + horizontal.begin[j]);
          for (int x = horizontal.begin[j]; x < horizontal.end[j]; ++x, pixel += 3) {
#pragma unroll
            for (int c = 0; c < 3; ++c) block[c] += pixel[c];
          }
        }
        const float weight = vertical.weight[i] * horizontal.weight[j];
#pragma unroll
        for (int c = 0; c < 3; ++c) sums[c] += weight * static_cast<float>(block[c]);
      }
    }
  }
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    const float value = p.bgr ? sums[2 - c] : sums[c];
    const float normal = inside ? normalised(value, p.mean[c], p.std[c]) : 0.f;
    output[(c * p.padded_height + row) * p.padded_width + column] = from_float<T>(normal);
  }
}

}  // namespace preprocess_cuda

template <typename T>
cudaError_t launch_preprocess(const PreprocessParams& params, const std::uint8_t* image, T* output,
                              cudaStream_t stream) {
  using namespace preprocess_cuda;
  const std::int64_t rows = (params.padded_height + kRows - 1) / kRows;
  const std::int64_t columns = (params.padded_width + kColumns - 1) / kColumns;
  if (params.height < 1 || params.width < 1 || params.image_height < 1 || params.image_width < 1 ||
      params.height > params.padded_height || params.width > params.padded_width ||
      params.image_height * params.image_width > INT_MAX || rows > 65535 || columns > INT_MAX) {
    return cudaErrorInvalidValue;
  }
  const std::int64_t block = resize_axis(params.image_height, params.height).block *
                             resize_axis(params.image_width, params.width).block;
  if (block > INT_MAX / 255) return cudaErrorInvalidValue;  // the kernel sums a block in int
  return launch(preprocess_kernel<T>,
                dim3(static_cast<unsigned>(columns), static_cast<unsigned>(rows)), kRows * kColumns,
                sizeof(Shared), stream, params, image, output);
}

}  // namespace zsd
