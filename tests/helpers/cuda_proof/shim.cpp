// The scheduler behind shim.h. One block after another; in a block, one warp runs as far as it can
// (to a barrier of the block, or its end) before another is touched, so that nothing one warp wrote
// is seen by another unless a barrier ordered it. Which warp and which lane goes first is the
// schedule: forward, reverse or random.
#include "shim.h"

#include <dlfcn.h>
#include <ucontext.h>

#include <algorithm>
#include <deque>
#include <exception>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

float __bfloat162float(__nv_bfloat16 value) {
  const std::uint32_t bits = std::uint32_t{value.bits} << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

__nv_bfloat16 __float2bfloat16_rn(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if (std::isnan(value)) return {0x7fff};
  return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

float __half2float(__half value) {
  const int exponent = value.bits >> 10 & 31, mantissa = value.bits & 1023;
  float magnitude = exponent == 31 ? (mantissa ? NAN : INFINITY)
                    : exponent     ? std::ldexp(1024.f + mantissa, exponent - 25)
                                   : std::ldexp(float(mantissa), -24);
  return value.bits & 0x8000 ? -magnitude : magnitude;
}

__half __float2half_rn(float value) {
  if (std::isnan(value)) return {0x7fff};
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float magnitude = std::fabs(value);
  if (magnitude >= 65520.f) return {static_cast<std::uint16_t>(sign | 0x7c00)};
  if (magnitude < std::ldexp(1.f, -14)) {  // subnormal; 1024 is the smallest normal number
    return {static_cast<std::uint16_t>(sign | int(std::nearbyint(std::ldexp(magnitude, 24))))};
  }
  int exponent;
  const float fraction = std::frexp(magnitude, &exponent);             // in [0.5, 1)
  const int mantissa = int(std::nearbyint(std::ldexp(fraction, 11)));  // in [1024, 2048]
  return {static_cast<std::uint16_t>(sign | (((exponent + 13) << 10) + mantissa))};
}

namespace shim {
namespace {

constexpr std::size_t kStack = 64 * 1024;

enum class State { kReady, kAtBlockBarrier, kAtWarpOperation, kDone };

struct Copy {
  void* target;
  const void* source;
  int bytes;
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  dim3 index;
  State state = State::kReady;
  Operation operation = nullptr;
  void* slot = nullptr;
  std::vector<Copy> open;                // copies since the last commit
  std::deque<std::vector<Copy>> groups;  // committed and not yet waited for
};

struct Block {
  dim3 grid, size, index;
  std::vector<Fiber> fibers;
  std::unique_ptr<unsigned char[]> shared;  // exactly as large as asked for
  const std::function<void()>* body;
  ucontext_t scheduler;
  std::exception_ptr error;
};

Block* block = nullptr;
Fiber* current = nullptr;

enum Order { kForward, kReverse, kRandom };
int order = kForward;
std::mt19937 generator;
std::string message;
using Hook = int (*)(const char* kernel, const unsigned* grid, const unsigned* size,
                     std::size_t shared, int count, const void* const* parameters,
                     const std::size_t* sizes);
Hook hook = nullptr;

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

// AddressSanitizer must know which stack is in use.
#ifdef __SANITIZE_ADDRESS__
const void* scheduler_stack = nullptr;
std::size_t scheduler_size = 0;
#endif

void to_fiber(Fiber& fiber) {
  current = &fiber;
#ifdef __SANITIZE_ADDRESS__
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, fiber.stack.get(), kStack);
#endif
  swapcontext(&block->scheduler, &fiber.context);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void to_scheduler(State state) {
  current->state = state;
#ifdef __SANITIZE_ADDRESS__
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, scheduler_stack, scheduler_size);
#endif
  swapcontext(&current->context, &block->scheduler);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake, &scheduler_stack, &scheduler_size);
#endif
}

void fiber_main() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
#endif
  try {
    (*block->body)();
    if (!current->open.empty()) fail("a thread ends with asynchronous copies not committed");
    for (const auto& group : current->groups) {
      if (!group.empty()) fail("a thread ends with asynchronous copies not waited for");
    }
  } catch (...) {
    block->error = std::current_exception();
  }
  for (;;) to_scheduler(State::kDone);
}

void arrange(std::vector<int>& items) {
  if (order == kReverse) std::sort(items.rbegin(), items.rend());
  if (order == kRandom) std::shuffle(items.begin(), items.end(), generator);
}

// Runs one warp to the next barrier of the block; false when it could not move.
bool run_warp(int first, int last) {
  bool moved = false;
  for (;;) {
    std::vector<int> lanes(last - first);
    std::iota(lanes.begin(), lanes.end(), first);
    arrange(lanes);
    bool ran = false;
    for (int lane : lanes) {
      Fiber& fiber = block->fibers[lane];
      if (fiber.state != State::kReady) continue;
      to_fiber(fiber);
      if (block->error) std::rethrow_exception(block->error);
      ran = moved = true;
    }
    void* slots[32] = {};
    int waiting = 0;
    Operation operation = nullptr;
    for (int i = first; i < last; ++i) {
      Fiber& fiber = block->fibers[i];
      if (fiber.state != State::kAtWarpOperation) continue;
      if (waiting && fiber.operation != operation) {
        fail("lanes of one warp wait at different warp operations");
      }
      operation = fiber.operation;
      slots[i - first] = fiber.slot;
      ++waiting;
    }
    if (waiting == 32) {
      operation(slots);
      for (int i = first; i < last; ++i) block->fibers[i].state = State::kReady;
    } else if (!ran) {
      return moved;
    }
  }
}

void run_block() {
  const int threads = static_cast<int>(block->fibers.size());
  for (int i = 0; i < threads; ++i) {
    Fiber& fiber = block->fibers[i];
    const unsigned width = block->size.x, height = block->size.y, linear = i;
    fiber.index = dim3(linear % width, linear / width % height, linear / (width * height));
    fiber.state = State::kReady;
    fiber.open.clear();
    fiber.groups.clear();
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
  }
  for (;;) {
    std::vector<int> warps((threads + 31) / 32);
    std::iota(warps.begin(), warps.end(), 0);
    arrange(warps);
    for (int warp : warps) run_warp(32 * warp, std::min(threads, 32 * warp + 32));
    int done = 0, at_barrier = 0;
    for (const Fiber& fiber : block->fibers) {
      done += fiber.state == State::kDone;
      at_barrier += fiber.state == State::kAtBlockBarrier;
    }
    if (done == threads) return;
    if (done + at_barrier < threads) fail("some lanes of a warp never reach its warp operation");
    if (done) fail("some threads ended while others wait at a barrier of the block");
    for (Fiber& fiber : block->fibers) fiber.state = State::kReady;
  }
}

float decode(Element element, const unsigned char* bytes, int index) {
  std::uint32_t word = 0;
  switch (element) {
    case Element::kHalf:
      std::memcpy(&word, bytes + 2 * index, 2);
      return __half2float({static_cast<std::uint16_t>(word)});
    case Element::kBfloat16:
      std::memcpy(&word, bytes + 2 * index, 2);
      return __bfloat162float({static_cast<std::uint16_t>(word)});
    default:
      float value;
      std::memcpy(&word, bytes + 4 * index, 4);
      word &= ~0x1fffu;  // the tensor core does not see the lower bits
      std::memcpy(&value, &word, 4);
      return value;
  }
}

}  // namespace

dim3 thread_index() { return current->index; }
dim3 block_index() { return block->index; }
dim3 block_size() { return block->size; }
dim3 grid_size() { return block->grid; }
unsigned char* shared_memory() { return block->shared.get(); }
void sync_block() { to_scheduler(State::kAtBlockBarrier); }

void whole_warp(Operation operation, void* slot) {
  current->operation = operation;
  current->slot = slot;
  to_scheduler(State::kAtWarpOperation);
}

void copy_async(void* target, const void* source, int bytes) {
  if ((reinterpret_cast<std::uintptr_t>(target) | reinterpret_cast<std::uintptr_t>(source)) & 15) {
    fail("an asynchronous copy is not aligned to 16 bytes");
  }
  std::memset(target, 0xff, 16);  // garbage until it lands
  current->open.push_back({target, source, bytes});
}

void copy_async_commit() {
  current->groups.push_back(std::move(current->open));
  current->open.clear();
}

void copy_async_wait(int pending) {
  while (static_cast<int>(current->groups.size()) > pending) {
    for (const Copy& copy : current->groups.front()) {
      std::memset(copy.target, 0, 16);
      std::memcpy(copy.target, copy.source, copy.bytes);
    }
    current->groups.pop_front();
  }
}

void load_matrices(void* const (&slots)[32]) {
  for (int matrix = 0; matrix < 4; ++matrix) {
    for (int lane = 0; lane < 32; ++lane) {
      const auto* named = static_cast<Matrices*>(slots[8 * matrix + lane / 4]);
      if (reinterpret_cast<std::uintptr_t>(named->row) & 15) fail("a matrix row is not aligned");
      std::memcpy(&static_cast<Matrices*>(slots[lane])->words[matrix],
                  static_cast<const char*>(named->row) + 4 * (lane % 4), 4);
    }
  }
}

template <Element element>
void multiply(void* const (&slots)[32]) {
  unsigned char a[16][32], b[8][32];
  for (int lane = 0; lane < 32; ++lane) {
    const auto* product = static_cast<Product*>(slots[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i)
      std::memcpy(&a[g + 8 * (i % 2)][4 * t + 16 * (i / 2)], &product->a[i], 4);
    for (int i = 0; i < 2; ++i) std::memcpy(&b[g][4 * t + 16 * i], &product->b[i], 4);
  }
  for (int lane = 0; lane < 32; ++lane) {
    const auto* product = static_cast<Product*>(slots[lane]);
    for (int i = 0; i < 4; ++i) {
      const unsigned char* row = a[lane / 4 + 8 * (i / 2)];
      const unsigned char* column = b[2 * (lane % 4) + i % 2];
      if constexpr (element == Element::kBytes) {
        std::int32_t& sum = static_cast<std::int32_t*>(product->sums)[i];
        for (int k = 0; k < 32; ++k) sum += int(row[k]) * static_cast<signed char>(column[k]);
      } else {
        constexpr int kDepth = element == Element::kTf32 ? 8 : 16;
        float& sum = static_cast<float*>(product->sums)[i];
        for (int k = 0; k < kDepth; ++k)
          sum += decode(element, row, k) * decode(element, column, k);
      }
    }
  }
}
template void multiply<Element::kHalf>(void* const (&)[32]);
template void multiply<Element::kBfloat16>(void* const (&)[32]);
template void multiply<Element::kTf32>(void* const (&)[32]);
template void multiply<Element::kBytes>(void* const (&)[32]);

cudaError_t run(const void* kernel, dim3 grid, dim3 size, std::size_t shared, int count,
                const void* const* parameters, const std::size_t* sizes,
                const std::function<void()>& body) {
  if (hook) {
    Dl_info info{};
    dladdr(kernel, &info);
    const unsigned grid3[] = {grid.x, grid.y, grid.z}, size3[] = {size.x, size.y, size.z};
    const char* name = info.dli_sname ? info.dli_sname : "";
    return hook(name, grid3, size3, shared, count, parameters, sizes) ? cudaErrorUnknown
                                                                      : cudaSuccess;
  }
  try {
    if (!grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535) fail("grid size");
    if (size.x * size.y * size.z > 1024) fail("more than 1024 threads in a block");
    if (shared > 48 * 1024) fail("more than 48 KB of shared memory");
    Block own;
    block = &own;
    own.grid = grid;
    own.size = size;
    own.body = &body;
    own.fibers = std::vector<Fiber>(size.x * size.y * size.z);
    // Locals that were never set are the same garbage everywhere.
    for (Fiber& fiber : own.fibers) std::memset(fiber.stack.get(), 0xff, kStack);
    for (unsigned z = 0; z < grid.z; ++z) {
      for (unsigned y = 0; y < grid.y; ++y) {
        for (unsigned x = 0; x < grid.x; ++x) {
          own.index = dim3(x, y, z);
          own.shared.reset(new unsigned char[shared]);
          std::memset(own.shared.get(), 0xff, shared);
          run_block();
        }
      }
    }
    return cudaSuccess;
  } catch (const std::exception& error) {
    message = error.what();
    return cudaErrorUnknown;
  }
}

}  // namespace shim

extern "C" {
__attribute__((visibility("default"))) void shim_schedule(int order, unsigned seed) {
  shim::order = order;
  shim::generator.seed(seed);
}
__attribute__((visibility("default"))) void shim_hook(shim::Hook hook) { shim::hook = hook; }
__attribute__((visibility("default"))) const char* shim_error() { return shim::message.c_str(); }
__attribute__((visibility("default"))) void shim_convert(const float* values, std::uint16_t* halves,
                                                         std::uint16_t* bfloats, int count) {
  for (int i = 0; i < count; ++i) {
    halves[i] = __float2half_rn(values[i]).bits;
    bfloats[i] = __float2bfloat16_rn(values[i]).bits;
  }
}
// One product of a warp, for the test of the fragments' layout: words by lane.
__attribute__((visibility("default"))) void shim_product(int element, const std::uint32_t* a,
                                                         const std::uint32_t* b, void* sums) {
  shim::Product products[32];
  void* slots[32];
  for (int lane = 0; lane < 32; ++lane) {
    products[lane] = {static_cast<float*>(sums) + 4 * lane, a + 4 * lane, b + 2 * lane};
    slots[lane] = &products[lane];
  }
  using shim::Element;
  switch (static_cast<Element>(element)) {
    case Element::kHalf:
      return shim::multiply<Element::kHalf>(slots);
    case Element::kBfloat16:
      return shim::multiply<Element::kBfloat16>(slots);
    case Element::kTf32:
      return shim::multiply<Element::kTf32>(slots);
    case Element::kBytes:
      return shim::multiply<Element::kBytes>(slots);
  }
}
}
