// Score every (region, class) pair: element-wise product, then a two-layer MLP (eq. 6), as one
// GEMM.
//
//   regions     (R, D)  T       contiguous
//   prototypes  (K, D)  T       contiguous
//   weight1     (M, D)  T, or int8 with weight_scale, slope (M,), direction (D,)
//   bias1, weight2 (M,), bias2 (1,), output (R, K)    float
//
// Work split  a block takes 128 pairs (rows) and all of M, 128 hidden units at a time; each of its
//             8 warps holds 64 x 32 sums in registers. No (R, K, D) and no (R, K, M) exists.
// Pipeline    three stages of 64 bytes of D. weight1 arrives by asynchronous copies; the products
//             v * a are formed in registers on their way from global into shared memory.
// Epilogue    bias, ReLU and the dot product with weight2 on the sums, then one sum per pair over
//             lanes and warps, always in the same order: the result is deterministic.
// Precision   half, bfloat16: the product is rounded once to T, as torch does; sums are float.
//             float: each operand is split in two TF32 parts and three products are summed, which
//             keeps float accuracy for finite values.
//             int8: as mlp_int8.h defines it.
// Edges       D and M divide nothing; rows that are not 16-byte aligned take a slower path.
// Twin        zsd_core/kernels/reference.py::product_mlp; change both in one commit.
#pragma once

#include <climits>
#include <type_traits>

#include "../mlp_int8.h"
#include "launch.h"
#include "primitives.cuh"

namespace zsd {
namespace product_mlp_cuda {

constexpr int kThreads = 256;
constexpr int kRows = 128;     // pairs of a block
constexpr int kColumns = 128;  // hidden units of a pass
constexpr int kDepthBytes = 64;
constexpr int kStages = 3;
constexpr int kWarpColumns = 4;  // warps side by side; 8 / 4 = 2 above each other
constexpr int kRowTiles = 4;     // 16-row tiles of a warp
constexpr int kColumnTiles = 4;  // 8-column tiles of a warp

struct Stage {
  unsigned char products[kRows * kDepthBytes];
  unsigned char weights[kColumns * kDepthBytes];
};
constexpr int kSharedBytes = kStages * sizeof(Stage);

// Where 16 bytes of a tile lie. Neighbouring pairs of rows are rotated against each other, so that
// eight rows of one column cover all 32 banks.
ZSD_DEVICE int tile_offset(int row, int chunk) {
  return row * kDepthBytes + (chunk ^ (row >> 1 & 3)) * 16;
}

// One 16 x 8 tile of sums.
ZSD_DEVICE void multiply(half, float (&sums)[4], const std::uint32_t (&a)[4],
                         const std::uint32_t (&b)[2]) {
  multiply_half(sums, a, b);
}
ZSD_DEVICE void multiply(bfloat16, float (&sums)[4], const std::uint32_t (&a)[4],
                         const std::uint32_t (&b)[2]) {
  multiply_bfloat16(sums, a, b);
}
ZSD_DEVICE void multiply(std::int8_t, std::int32_t (&sums)[4], const std::uint32_t (&a)[4],
                         const std::uint32_t (&b)[2]) {
  multiply_bytes(sums, a, b);
}
ZSD_DEVICE void multiply(float, float (&sums)[4], const std::uint32_t (&a)[4],
                         const std::uint32_t (&b)[2]) {
  multiply_float(sums, a, b);
}

// A product as an integer; `inverse` is kInt8Levels / the largest of its pair.
ZSD_DEVICE std::uint32_t quantize(float product, float inverse) {
  return static_cast<std::uint32_t>(round_product<float>(product, inverse, kInt8Levels));
}

// One thread's share of a stage's products: the same 16 bytes of two rows, 64 rows apart. Only one
// row at a time is held in registers, between its loads and its store.
template <typename T, typename Weight>
struct ProductLoader {
  using Arguments = ProductMlpArguments<T, Weight>;
  static constexpr bool kQuantized = std::is_same_v<Weight, std::int8_t>;
  static constexpr int kElements = 16 / sizeof(Weight);       // of a chunk in shared memory
  static constexpr int kInputs = sizeof(T) / sizeof(Weight);  // chunks read for one written

  int region[2], prototype[2];  // -1: there is no such pair
  float inverse[2];             // quantized only: kInt8Levels / the row's largest product
  Chunk regions[kInputs], prototypes[kInputs];

  ZSD_DEVICE ProductLoader(const Arguments& p, int row, int first_pair) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int pair = first_pair + row + i * kRows / 2;
      const bool valid = pair < p.num_regions * p.num_classes;
      region[i] = valid ? pair / p.num_classes : -1;
      prototype[i] = valid ? pair % p.num_classes : -1;
      inverse[i] = 0.f;
    }
  }

  ZSD_DEVICE const T* region_row(const Arguments& p, int i) const {
    return p.regions + std::int64_t{region[i]} * p.depth;
  }
  ZSD_DEVICE const T* prototype_row(const Arguments& p, int i) const {
    return p.prototypes + std::int64_t{prototype[i]} * p.depth;
  }

  // Elements `begin` on of row i into registers; zero behind its end.
  ZSD_DEVICE void load(const Arguments& p, int i, int begin) {
    const bool inside = region[i] >= 0 && begin < p.depth;
#pragma unroll
    for (int c = 0; c < kInputs; ++c) {
      const int at = begin + c * kElements / kInputs;
      regions[c] = inside ? *reinterpret_cast<const Chunk*>(region_row(p, i) + at) : Chunk{};
      prototypes[c] = inside ? *reinterpret_cast<const Chunk*>(prototype_row(p, i) + at) : Chunk{};
    }
  }

  // The products of the loaded row, to where this thread's 16 bytes of it lie.
  ZSD_DEVICE void store(unsigned char* target, int i) const {
    Chunk product;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if constexpr (kQuantized) {  // four bytes from two words of halves
        std::uint32_t packed = 0;
#pragma unroll
        for (int e = 3; e >= 0; --e) {
          const int from = w % 2 * 2 + e / 2;
          const float v = half_of_word(regions[w / 2].words[from], e % 2);
          const float a = half_of_word(prototypes[w / 2].words[from], e % 2);
          packed = packed << 8 | quantize(v * a, inverse[i]);
        }
        product.words[w] = packed;
      } else {
        product.words[w] = multiply_words<T>(regions[0].words[w], prototypes[0].words[w]);
      }
    }
    *reinterpret_cast<Chunk*>(target) = product;
  }

  // The path for rows that are not aligned: straight into shared memory, element by element.
  ZSD_DEVICE void store_slowly(const Arguments& p, unsigned char* target, int i, int begin) const {
#pragma unroll 1
    for (int e = 0; e < kElements; ++e) {
      const int at = begin + e;
      const float product = region[i] >= 0 && at < p.depth
                                ? to_float(region_row(p, i)[at]) * to_float(prototype_row(p, i)[at])
                                : 0.f;
      if constexpr (kQuantized) {
        target[e] = static_cast<unsigned char>(quantize(product, inverse[i]));
      } else {
        reinterpret_cast<T*>(target)[e] = from_float<T>(product);
      }
    }
  }

  // The largest product of each row, shared by the four lanes that load it, and the products'
  // projection on the direction, which keeps NaN; infinity makes its row NaN.
  ZSD_DEVICE void survey(const Arguments& p, int chunk, float (&largest)[2],
                         float (&projection)[2]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      largest[i] = projection[i] = 0.f;
      for (int at = chunk; region[i] >= 0 && at < p.depth; at += 4) {
        const float product = to_float(region_row(p, i)[at]) * to_float(prototype_row(p, i)[at]);
        largest[i] = fmaxf(largest[i], product);
        projection[i] += product * p.direction[at];
      }
      largest[i] = fmaxf(largest[i], shuffle_xor(largest[i], 1));
      largest[i] = fmaxf(largest[i], shuffle_xor(largest[i], 2));
      projection[i] += shuffle_xor(projection[i], 1);
      projection[i] += shuffle_xor(projection[i], 2);
      inverse[i] = largest[i] > 0.f ? kInt8Levels / largest[i] : 0.f;
    }
  }
};

// The same for the weights of hidden unit `unit`.
template <bool kAligned, typename T, typename Weight>
ZSD_DEVICE void load_weights(const ProductMlpArguments<T, Weight>& p, unsigned char* target,
                             int unit, int begin) {
  const bool inside = unit < p.hidden && begin < p.depth;
  const Weight* source = p.weight1 + (inside ? std::int64_t{unit} * p.depth + begin : 0);
  if (kAligned) {
    copy_async(target, source, inside ? 16 : 0);
  } else {
    constexpr int kElements = 16 / sizeof(Weight);
#pragma unroll 1
    for (int e = 0; e < kElements; ++e) {
      reinterpret_cast<Weight*>(target)[e] = inside && begin + e < p.depth ? source[e] : Weight{};
    }
  }
}

// Blocks that should fit a multiprocessor at once, which bounds the registers. sm_75 has shared
// memory for one; float, int8 and unaligned rows take the registers of both.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
template <typename T, typename Weight, bool kAligned>
constexpr int kBlocks = 1;
#else
template <typename T, typename Weight, bool kAligned>
constexpr int kBlocks = std::is_same_v<T, Weight> && sizeof(T) == 2 && kAligned ? 2 : 1;
#endif

// kAligned: every row starts at a multiple of 16 bytes, so that as many can move as one.
template <typename T, typename Weight, bool kAligned>
__global__ void __launch_bounds__(kThreads, (kBlocks<T, Weight, kAligned>))
    product_mlp_kernel(const ProductMlpArguments<T, Weight> p) {
  using Loader = ProductLoader<T, Weight>;
  using Sum = std::conditional_t<Loader::kQuantized, std::int32_t, float>;
  constexpr int kDepth = kDepthBytes / sizeof(Weight);
  auto* stages = reinterpret_cast<Stage*>(shared_memory());
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int warp_row = warp / kWarpColumns * (16 * kRowTiles);
  const int warp_column = warp % kWarpColumns * (8 * kColumnTiles);
  const int row = threadIdx.x / 4, chunk = threadIdx.x % 4;  // of this thread's loads
  const int first_pair = blockIdx.x * kRows;

  Loader loader(p, row, first_pair);
  // Quantized only: what one step of a product is worth, and the products' projection.
  float row_scale[kRowTiles][2], row_projection[kRowTiles][2];
  if constexpr (Loader::kQuantized) {
    auto* scales = reinterpret_cast<float*>(shared_memory());
    float* projections = scales + kRows;
    float largest[2], projection[2];
    loader.survey(p, chunk, largest, projection);
    if (chunk == 0) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        scales[row + i * kRows / 2] = largest[i] / kInt8Levels;
        projections[row + i * kRows / 2] = projection[i];
      }
    }
    sync_block();
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        row_scale[i][h] = scales[warp_row + 16 * i + lane / 4 + 8 * h];
        row_projection[i][h] = projections[warp_row + 16 * i + lane / 4 + 8 * h];
      }
    }
    sync_block();
  }

  // Where this thread writes into a tile, and reads from it; a row further down by a multiple of
  // eight lies that many rows further on, and the other half step 32 bytes away.
  constexpr int kHalfTile = kRows / 2 * kDepthBytes;
  const int own = tile_offset(row, chunk);
  const int read_products = tile_offset(warp_row + lane % 16, lane / 16);
  const int read_weights = tile_offset(warp_column + lane % 8 + lane / 16 * 8, lane / 8 % 2);

  const int depth_steps = (p.depth + kDepth - 1) / kDepth;
  // The elements and hidden units to load next.
  int fill_begin = chunk * Loader::kElements, fill_unit = 0;
  auto start_weights = [&](int fill) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      load_weights<kAligned>(p, stages[fill].weights + own + i * kHalfTile,
                             fill_unit + row + i * kColumns / 2, fill_begin);
    }
  };
  auto load_row = [&](int i) {
    if (kAligned) loader.load(p, i, fill_begin);
  };
  auto store_row = [&](int fill, int i) {
    unsigned char* target = stages[fill].products + own + i * kHalfTile;
    if (kAligned) {
      loader.store(target, i);
    } else {
      loader.store_slowly(p, target, i, fill_begin);
    }
  };
  auto next_fill = [&] {
    fill_begin += kDepth;
    if (fill_begin >= depth_steps * kDepth) {
      fill_begin = chunk * Loader::kElements;
      fill_unit += kColumns;
    }
  };
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (fill_unit < p.hidden) {
      start_weights(stage);
      for (int i = 0; i < 2; ++i) load_row(i), store_row(stage, i);
      next_fill();
    }
    copy_async_commit();
  }

  Sum sums[kRowTiles][kColumnTiles][4] = {};
  float scores[kRowTiles][2] = {};  // of rows g and g + 8 of each tile
  int current = 0, depth_step = 0, first_unit = 0;
  while (first_unit < p.hidden) {
    copy_async_wait<kStages - 2>();
    sync_block();  // this stage is complete, and the one before it free again
    const bool more = fill_unit < p.hidden;
    const int fill = current ? current - 1 : kStages - 1;  // the one before
    if (more) start_weights(fill);
    copy_async_commit();

    const Stage& stage = stages[current];
#pragma unroll
    for (int half_step = 0; half_step < 2; ++half_step) {
      if (more) load_row(half_step);  // in flight while the tensor cores work
      std::uint32_t b[kColumnTiles][2];
#pragma unroll
      for (int j = 0; j < kColumnTiles; j += 2) {
        std::uint32_t words[4];
        load_matrices(words, stage.weights + (read_weights ^ 32 * half_step) + 8 * j * kDepthBytes);
        b[j][0] = words[0], b[j][1] = words[1];
        b[j + 1][0] = words[2], b[j + 1][1] = words[3];
      }
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) {
        std::uint32_t a[4];
        load_matrices(a, stage.products + (read_products ^ 32 * half_step) + 16 * i * kDepthBytes);
#pragma unroll
        for (int j = 0; j < kColumnTiles; ++j) multiply(Weight{}, sums[i][j], a, b[j]);
      }
      if (more) store_row(fill, half_step);
    }
    if (more) next_fill();
    current = current + 1 < kStages ? current + 1 : 0;

    if (++depth_step < depth_steps) continue;
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int unit = first_unit + warp_column + 8 * j + lane % 4 * 2 + c;
        const bool inside = unit < p.hidden;
        const float bias = inside ? p.bias1[unit] : 0.f, weight = inside ? p.weight2[unit] : 0.f;
        const float scale = Loader::kQuantized && inside ? p.weight_scale[unit] : 1.f;
        const float slope = Loader::kQuantized && inside ? p.slope[unit] : 0.f;
#pragma unroll
        for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            float hidden = static_cast<float>(sums[i][j][2 * h + c]);
            if constexpr (Loader::kQuantized) {
              hidden = hidden * (scale * row_scale[i][h]) + slope * row_projection[i][h];
            }
            hidden += bias;
            // Written so that NaN stays NaN.
            scores[i][h] += (hidden <= 0.f ? 0.f : hidden) * weight;
            sums[i][j][2 * h + c] = Sum{};
          }
        }
      }
    }
    depth_step = 0;
    first_unit += kColumns;
  }

  copy_async_wait<0>();
  sync_block();  // the stages are free: their memory takes the warps' shares of every row
  auto* shares = reinterpret_cast<float (*)[kWarpColumns]>(shared_memory());
#pragma unroll
  for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float score = scores[i][h];
      score += shuffle_xor(score, 1);
      score += shuffle_xor(score, 2);
      const int tile_row = warp_row + 16 * i + lane / 4 + 8 * h;
      if (lane % 4 == 0) shares[tile_row][warp % kWarpColumns] = score;
    }
  }
  sync_block();
  const int pair = first_pair + static_cast<int>(threadIdx.x);
  if (threadIdx.x < kRows && pair < p.num_regions * p.num_classes) {
    const float* share = shares[threadIdx.x];
    p.output[pair] = share[0] + share[1] + (share[2] + share[3]) + p.bias2[0];
  }
}

}  // namespace product_mlp_cuda

template <typename T, typename Weight>
cudaError_t launch_product_mlp(const ProductMlpArguments<T, Weight>& params, cudaStream_t stream) {
  using namespace product_mlp_cuda;
  const std::int64_t pairs = std::int64_t{params.num_regions} * params.num_classes;
  if (params.num_regions < 0 || params.num_classes < 0 || params.depth < 1 || params.hidden < 1 ||
      pairs > INT_MAX - kRows) {
    return cudaErrorInvalidValue;
  }
  if (pairs == 0) return cudaSuccess;
  const auto starts = reinterpret_cast<std::uintptr_t>(params.regions) |
                      reinterpret_cast<std::uintptr_t>(params.prototypes) |
                      reinterpret_cast<std::uintptr_t>(params.weight1) |
                      params.depth * sizeof(Weight);
  const auto kernel =
      starts % 16 == 0 ? product_mlp_kernel<T, Weight, true> : product_mlp_kernel<T, Weight, false>;
  const auto blocks = static_cast<unsigned>((pairs + kRows - 1) / kRows);
  return launch(kernel, blocks, kThreads, kSharedBytes, stream, params);
}

}  // namespace zsd
