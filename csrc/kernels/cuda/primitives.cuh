// Every instruction of ours that C++ cannot say: barriers, shuffles, asynchronous copies, matrices.
//
// Each primitive has a device body here and a host body in the shim of the tests, so that the same
// kernels run on a CPU. Kernels hold no inline PTX of their own.
//
// Fragments   a 16 x 32-byte tile A and an 8 x 32-byte tile B (rows contiguous along the
//             contraction) make a 16 x 8 tile of sums. Lane 4 g + t holds, as 32-bit words,
//             A (g, 4t), (g + 8, 4t), (g, 4t + 16), (g + 8, 4t + 16), B (g, 4t), (g, 4t + 16)
//             and the sums (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1); columns of A and B
//             in bytes. This is m16n8k16 for 16-bit, m16n8k8 for 32-bit and m16n8k32 for 8-bit.
// sm_75       has m16n8k8 in half and m8n8k16 in int8 only, and no asynchronous copy: halves and
//             bytes take two and four smaller steps, bfloat16 and float go through shuffles
//             (correct, several times slower; the static table says so).
#pragma once

#include "device_types.h"

#ifdef __CUDACC__
#define ZSD_DEVICE __device__ __forceinline__
#else
#define ZSD_DEVICE inline
#endif

namespace zsd {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarp = 32;

// Sixteen bytes that move as one.
struct alignas(16) Chunk {
  std::uint32_t words[4];
};

ZSD_DEVICE std::uint32_t float_bits(float value) {
#ifdef __CUDACC__
  return __float_as_uint(value);
#else
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

ZSD_DEVICE float bits_float(std::uint32_t bits) {
#ifdef __CUDACC__
  return __uint_as_float(bits);
#else
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

ZSD_DEVICE float to_float(float value) { return value; }
ZSD_DEVICE float to_float(half value) { return __half2float(value); }
ZSD_DEVICE float to_float(bfloat16 value) { return __bfloat162float(value); }

template <typename T>
ZSD_DEVICE T from_float(float value);
template <>
ZSD_DEVICE float from_float<float>(float value) {
  return value;
}
template <>
ZSD_DEVICE half from_float<half>(float value) {
  return __float2half_rn(value);
}
template <>
ZSD_DEVICE bfloat16 from_float<bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// All bits set in a word.
ZSD_DEVICE int count_bits(std::uint32_t word) {
#ifdef __CUDACC__
  return __popc(word);
#else
  return __builtin_popcount(word);
#endif
}

// One of the two halves of a word.
ZSD_DEVICE float half_of_word(std::uint32_t word, int index) {
  const auto bits = static_cast<std::uint16_t>(index ? word >> 16 : word);
#ifdef __CUDACC__
  return to_float(__ushort_as_half(bits));
#else
  return to_float(half{bits});
#endif
}

// Nearest value with a 10-bit mantissa, ties away from zero: what cvt.rna.tf32 gives.
ZSD_DEVICE std::uint32_t tf32_bits(float value) { return (float_bits(value) + 0x1000u) & ~0x1fffu; }

#ifdef __CUDACC__

ZSD_DEVICE unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char zsd_shared[];
  return zsd_shared;
}
ZSD_DEVICE std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

ZSD_DEVICE void sync_block() { __syncthreads(); }
ZSD_DEVICE void sync_warp() { __syncwarp(); }
template <typename T>
ZSD_DEVICE T shuffle(T value, int lane) {
  return __shfl_sync(kAllLanes, value, lane);
}
template <typename T>
ZSD_DEVICE T shuffle_xor(T value, int bits) {
  return __shfl_xor_sync(kAllLanes, value, bits);
}
ZSD_DEVICE std::uint32_t ballot(bool vote) { return __ballot_sync(kAllLanes, vote); }

ZSD_DEVICE void atomic_add(float* target, float value) { atomicAdd(target, value); }
ZSD_DEVICE int atomic_add(int* target, int value) { return atomicAdd(target, value); }

// Copies `bytes` (0 to 16) of 16 and zeroes the rest. Finished for this thread by
// copy_async_wait, for the block by the barrier after it.
ZSD_DEVICE void copy_async(void* shared, const void* global, int bytes) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(bytes)
               : "memory");
#else
  Chunk chunk{};
  if (bytes == 16) {
    chunk = *static_cast<const Chunk*>(global);
  } else {
    for (int i = 0; i < bytes; ++i) {
      reinterpret_cast<unsigned char*>(&chunk)[i] = static_cast<const unsigned char*>(global)[i];
    }
  }
  *static_cast<Chunk*>(shared) = chunk;
#endif
}
ZSD_DEVICE void copy_async_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits until at most `kPending` of this thread's committed groups are unfinished.
template <int kPending>
ZSD_DEVICE void copy_async_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

// Four 8 x 16-byte matrices; lanes 8 i to 8 i + 7 name the rows of matrix i, lane 4 g + t gets
// word t of row g of each.
ZSD_DEVICE void load_matrices(std::uint32_t (&words)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(row))
               : "memory");
}

// One step of a product on the CUDA cores for the cards without the instruction: every lane
// fetches the words of its rows and columns. `kPerWord` elements lie in a word.
template <int kPerWord, typename Decode>
ZSD_DEVICE void multiply_by_shuffles(float (&sums)[4], const std::uint32_t (&a)[4],
                                     const std::uint32_t (&b)[2], Decode decode) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
#pragma unroll 1
  for (int step = 0; step < 8; ++step) {
    const int half_tile = step / 4, column = step % 4;
    const std::uint32_t upper = shuffle(half_tile ? a[2] : a[0], 4 * g + column);
    const std::uint32_t lower = shuffle(half_tile ? a[3] : a[1], 4 * g + column);
    const std::uint32_t left = shuffle(half_tile ? b[1] : b[0], 8 * t + column);
    const std::uint32_t right = shuffle(half_tile ? b[1] : b[0], 8 * t + 4 + column);
#pragma unroll
    for (int i = 0; i < kPerWord; ++i) {
      sums[0] = fmaf(decode(upper, i), decode(left, i), sums[0]);
      sums[1] = fmaf(decode(upper, i), decode(right, i), sums[1]);
      sums[2] = fmaf(decode(lower, i), decode(left, i), sums[2]);
      sums[3] = fmaf(decode(lower, i), decode(right, i), sums[3]);
    }
  }
}

ZSD_DEVICE void multiply_half(float (&sums)[4], const std::uint32_t (&a)[4],
                              const std::uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
#pragma unroll
  for (int step = 0; step < 2; ++step) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[2 * step]), "r"(a[2 * step + 1]), "r"(b[step]));
  }
#endif
}

ZSD_DEVICE void multiply_bfloat16(float (&sums)[4], const std::uint32_t (&a)[4],
                                  const std::uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  multiply_by_shuffles<2>(sums, a, b, [](std::uint32_t word, int i) {
    return bits_float(i ? word & 0xffff0000u : word << 16);
  });
#endif
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
ZSD_DEVICE void multiply_tf32(float (&sums)[4], const std::uint32_t (&a)[4],
                              const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// Unsigned A, signed B.
ZSD_DEVICE void multiply_bytes(std::int32_t (&sums)[4], const std::uint32_t (&a)[4],
                               const std::uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    const int rows = step % 2;  // upper or lower eight
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.u8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
                 : "+r"(sums[2 * rows]), "+r"(sums[2 * rows + 1])
                 : "r"(a[step]), "r"(b[step / 2]));
  }
#endif
}

// Element by element, rounded once to the element type; two halves or bfloat16 at a time.
template <typename T>
ZSD_DEVICE std::uint32_t multiply_words(std::uint32_t left, std::uint32_t right);
template <>
ZSD_DEVICE std::uint32_t multiply_words<float>(std::uint32_t left, std::uint32_t right) {
  return float_bits(bits_float(left) * bits_float(right));
}
template <>
ZSD_DEVICE std::uint32_t multiply_words<half>(std::uint32_t left, std::uint32_t right) {
  const __half2 product =
      __hmul2(*reinterpret_cast<const __half2*>(&left), *reinterpret_cast<const __half2*>(&right));
  return *reinterpret_cast<const std::uint32_t*>(&product);
}
template <>
ZSD_DEVICE std::uint32_t multiply_words<bfloat16>(std::uint32_t left, std::uint32_t right) {
  const __nv_bfloat162 product = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&left),
                                         *reinterpret_cast<const __nv_bfloat162*>(&right));
  return *reinterpret_cast<const std::uint32_t*>(&product);
}

// Enqueues a kernel and returns the status of the launch; the kernel's own errors surface later,
// where the caller synchronises.
template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared,
                   cudaStream_t stream, const Arguments&... arguments) {
  kernel<<<grid, block, shared, stream>>>(arguments...);
  return cudaGetLastError();
}

#endif  // __CUDACC__

// Float accuracy from TF32: an operand is a sum of two parts with 11 bits each; the product of the
// two low parts is below float's rounding and left out.
ZSD_DEVICE void multiply_float(float (&sums)[4], const std::uint32_t (&a)[4],
                               const std::uint32_t (&b)[2]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  multiply_by_shuffles<1>(sums, a, b, [](std::uint32_t word, int) { return bits_float(word); });
#else
  std::uint32_t a_high[4], a_low[4], b_high[2], b_low[2];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    a_high[i] = tf32_bits(bits_float(a[i]));
    a_low[i] = tf32_bits(bits_float(a[i]) - bits_float(a_high[i]));
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    b_high[i] = tf32_bits(bits_float(b[i]));
    b_low[i] = tf32_bits(bits_float(b[i]) - bits_float(b_high[i]));
  }
  multiply_tf32(sums, a_low, b_high);
  multiply_tf32(sums, a_high, b_low);
  multiply_tf32(sums, a_high, b_high);
#endif
}

// Over the lanes of a warp, the same in each and always in the same order.
ZSD_DEVICE float warp_sum(float value) {
#pragma unroll
  for (int bits = kWarp / 2; bits; bits /= 2) value += shuffle_xor(value, bits);
  return value;
}
ZSD_DEVICE float warp_largest(float value) {
#pragma unroll
  for (int bits = kWarp / 2; bits; bits /= 2) value = fmaxf(value, shuffle_xor(value, bits));
  return value;
}

}  // namespace zsd
