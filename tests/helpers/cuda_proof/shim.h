// The CUDA names that the kernels use, for a CPU: csrc/kernels/*.cu compile with g++ against this
// file, and a block's threads run as fibers under a schedule chosen to expose missing barriers.
//
// What it checks: a lane missing from a warp operation, threads of one block waiting at different
// barriers, asynchronous copies read before they were waited for (they land only then) or left
// behind, misaligned vector accesses, shared memory that starts as garbage in every block, and
// under AddressSanitizer every access out of bounds. What it does not: rounding order inside a
// tensor core, weak memory order between blocks, and time.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
enum cudaError : int { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorUnknown = 999 };
using cudaError_t = cudaError;
struct CUstream_st;
using cudaStream_t = CUstream_st*;
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorInvalidValue ? "invalid argument" : "unknown error";
}

// Same names and sizes as the toolkit's, so that a kernel's mangled name is the same too.
struct alignas(2) __half {
  std::uint16_t bits;
  operator float() const;
};
struct alignas(2) __nv_bfloat16 {
  std::uint16_t bits;
  operator float() const;
};
float __half2float(__half value);
__half __float2half_rn(float value);
float __bfloat162float(__nv_bfloat16 value);
__nv_bfloat16 __float2bfloat16_rn(float value);
inline __half::operator float() const { return __half2float(*this); }
inline __nv_bfloat16::operator float() const { return __bfloat162float(*this); }

namespace shim {

dim3 thread_index();
dim3 block_index();
dim3 block_size();
dim3 grid_size();

unsigned char* shared_memory();
void sync_block();

// Runs `operation` once for the 32 slots of a warp, when all its lanes have arrived.
using Operation = void (*)(void* const (&slots)[32]);
void whole_warp(Operation operation, void* slot);

void copy_async(void* shared, const void* global, int bytes);
void copy_async_commit();
void copy_async_wait(int pending);

struct Matrices {
  const void* row;
  std::uint32_t* words;
};
void load_matrices(void* const (&slots)[32]);

enum class Element { kHalf, kBfloat16, kTf32, kBytes };
struct Product {
  void* sums;  // float[4], or int32[4] for bytes
  const std::uint32_t* a;
  const std::uint32_t* b;
};
template <Element element>
void multiply(void* const (&slots)[32]);

// Runs the grid, or hands it to the hook (the PTX interpreter) with its parameters as bytes.
cudaError_t run(const void* kernel, dim3 grid, dim3 block, std::size_t shared, int count,
                const void* const* parameters, const std::size_t* sizes,
                const std::function<void()>& body);

}  // namespace shim

#define threadIdx (shim::thread_index())
#define blockIdx (shim::block_index())
#define blockDim (shim::block_size())
#define gridDim (shim::grid_size())

namespace zsd {

inline unsigned char* shared_memory() { return shim::shared_memory(); }
inline void sync_block() { shim::sync_block(); }
inline void sync_warp() {
  shim::whole_warp([](void* const(&)[32]) {}, nullptr);
}

template <typename T>
struct Exchange {
  T value, result;
  int lane;
};
template <typename T>
T shuffle(T value, int lane) {
  Exchange<T> slot{value, value, lane};
  shim::whole_warp(
      [](void* const(&slots)[32]) {
        for (void* own : slots) {
          auto* exchange = static_cast<Exchange<T>*>(own);
          exchange->result = static_cast<Exchange<T>*>(slots[exchange->lane & 31])->value;
        }
      },
      &slot);
  return slot.result;
}
template <typename T>
T shuffle_xor(T value, int bits) {
  return shuffle(value, static_cast<int>(threadIdx.x % 32) ^ bits);
}
inline std::uint32_t ballot(bool vote) {
  std::uint32_t slot = vote;
  shim::whole_warp(
      [](void* const(&slots)[32]) {
        std::uint32_t votes = 0;
        for (int lane = 0; lane < 32; ++lane) {
          votes |= *static_cast<std::uint32_t*>(slots[lane]) << lane;
        }
        for (void* own : slots) *static_cast<std::uint32_t*>(own) = votes;
      },
      &slot);
  return slot;
}

inline void atomic_add(float* target, float value) { *target += value; }
inline int atomic_add(int* target, int value) {
  const int before = *target;
  *target += value;
  return before;
}

inline void copy_async(void* shared, const void* global, int bytes) {
  shim::copy_async(shared, global, bytes);
}
inline void copy_async_commit() { shim::copy_async_commit(); }
template <int kPending>
void copy_async_wait() {
  shim::copy_async_wait(kPending);
}

inline void load_matrices(std::uint32_t (&words)[4], const void* row) {
  shim::Matrices slot{row, words};
  shim::whole_warp(shim::load_matrices, &slot);
}

template <shim::Element element, typename Sum>
void shim_multiply(Sum (&sums)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  shim::Product slot{sums, a, b};
  shim::whole_warp(shim::multiply<element>, &slot);
}
inline void multiply_half(float (&sums)[4], const std::uint32_t (&a)[4],
                          const std::uint32_t (&b)[2]) {
  shim_multiply<shim::Element::kHalf>(sums, a, b);
}
inline void multiply_bfloat16(float (&sums)[4], const std::uint32_t (&a)[4],
                              const std::uint32_t (&b)[2]) {
  shim_multiply<shim::Element::kBfloat16>(sums, a, b);
}
inline void multiply_tf32(float (&sums)[4], const std::uint32_t (&a)[4],
                          const std::uint32_t (&b)[2]) {
  shim_multiply<shim::Element::kTf32>(sums, a, b);
}
inline void multiply_bytes(std::int32_t (&sums)[4], const std::uint32_t (&a)[4],
                           const std::uint32_t (&b)[2]) {
  shim_multiply<shim::Element::kBytes>(sums, a, b);
}

template <typename T>
std::uint32_t multiply_words(std::uint32_t left, std::uint32_t right);
template <>
inline std::uint32_t multiply_words<float>(std::uint32_t left, std::uint32_t right) {
  float x, y;
  std::memcpy(&x, &left, 4);
  std::memcpy(&y, &right, 4);
  x *= y;
  std::memcpy(&left, &x, 4);
  return left;
}
template <>
inline std::uint32_t multiply_words<__half>(std::uint32_t left, std::uint32_t right) {
  std::uint32_t word = 0;
  for (int shift = 0; shift < 32; shift += 16) {  // the product of two halves is exact in float
    const __half x{static_cast<std::uint16_t>(left >> shift)};
    const __half y{static_cast<std::uint16_t>(right >> shift)};
    word |= std::uint32_t{__float2half_rn(__half2float(x) * __half2float(y)).bits} << shift;
  }
  return word;
}
template <>
inline std::uint32_t multiply_words<__nv_bfloat16>(std::uint32_t left, std::uint32_t right) {
  std::uint32_t word = 0;
  for (int shift = 0; shift < 32; shift += 16) {
    const __nv_bfloat16 x{static_cast<std::uint16_t>(left >> shift)};
    const __nv_bfloat16 y{static_cast<std::uint16_t>(right >> shift)};
    word |= std::uint32_t{__float2bfloat16_rn(__bfloat162float(x) * __bfloat162float(y)).bits}
            << shift;
  }
  return word;
}

template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared,
                   cudaStream_t, const Arguments&... arguments) {
  std::tuple<Parameters...> values(arguments...);
  return std::apply(
      [&](const Parameters&... each) {
        const void* pointers[] = {static_cast<const void*>(&each)...};
        const std::size_t sizes[] = {sizeof each...};
        return shim::run(reinterpret_cast<const void*>(kernel), grid, block, shared,
                         static_cast<int>(sizeof...(Parameters)), pointers, sizes,
                         [&] { kernel(each...); });
      },
      values);
}

}  // namespace zsd
