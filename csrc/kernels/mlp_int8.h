// product_mlp in int8: one definition for the CPU, for CUDA and for the twin.
//
// Split       weight1 = slopes directionᵀ + rest. The direction, of unit length, is that of
//             weight2 weight1: the logit's gradient where every hidden unit is active; slopes =
//             weight1 direction. A hidden unit is then slope * projection + rest . products, where
//             the projection, direction . products, is computed in float, once per (region, class)
//             pair, and only the rest in integers. Trained scorers are nearly of rank one: the
//             rounding errors of the products, which the few largest of a pair make coarse, would
//             add up along the direction and cancel in the rest.
// Products    of a (region, class) pair must not be negative (regions and prototypes are outputs of
//             ReLUs). They are multiplied by kInt8Levels / the largest of the pair, and rounded,
//             halves up: 0 .. 127. A pair with a product that is not finite scores NaN.
// Weights     the rest of a hidden unit's is divided by its scale and rounded, halves to even: at
//             most -127 .. 127, less where neighbours would overflow the sums below.
// Sums        are exact, hence the same integers on every instruction set and GPU.
// Why 127     AVX2 multiplies unsigned by signed bytes and adds neighbours in 16 bits (vpmaddubsw),
//             which saturates, silently: 2 x 255 x 127 does not fit. With 127 not only a pair but
//             half a block of kInt8Block fits, and Arm's signed dot product takes the bytes as
//             well.
// Twin        zsd_core/kernels/reference.py::product_mlp_int8, split_weights and
//             quantize_weights.
// Includes    nothing: simd.h is compiled once per instruction set, so what it sees of functions
//             must be inlined there. The rule of rounding is one template for numbers and vectors.
#pragma once

#ifdef __CUDACC__
#define ZSD_INT8_RULE __host__ __device__ __forceinline__
#else
#define ZSD_INT8_RULE static inline __attribute__((always_inline))
#endif

namespace zsd {

constexpr int kInt8Levels = 127;
// Entries whose products are summed in 16 bits before they are summed in 32. Within a block two
// sums are kept per hidden unit: of entries 0 1 4 5 8 9 12 13, and of the others.
constexpr int kInt8Block = 16;
// What the positive weights of one such sum may add up to, and the negative.
constexpr int kInt8SumLimit = 258;

// Products times kInt8Levels / the largest of their pair, rounded to 0 .. kInt8Levels but still
// floats: V is a number or a vector of them, `most` kInt8Levels in every one. NaN becomes `most`.
template <typename V>
ZSD_INT8_RULE V round_product(V product, V factor, V most) {
  product = product * factor + 0.5f;
  product = product < most + 0.5f ? product : most;
  return product > 0.0f ? product : V{};
}
static_assert(kInt8Levels * kInt8SumLimit < 1 << 15, "16-bit sums must not saturate");

}  // namespace zsd
