#include "block_cache.h"

#include <pthread.h>

#include <algorithm>
#include <new>

namespace zsd {
namespace {

constexpr std::align_val_t kAligned{BlockCache::kAlignment};

}  // namespace

BlockCache::~BlockCache() {
  while (!idle_.empty()) forget(idle_.begin());
}

BlockCache::Block BlockCache::take(std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++takes_;
  auto best = idle_.end();
  std::size_t least = kSlack * bytes + 1;
  for (auto it = idle_.begin(); it != idle_.end(); ++it) {
    if (it->block.bytes < bytes || it->block.bytes >= least) continue;
    best = it;
    least = it->block.bytes;
  }
  Block block{nullptr, bytes};
  if (best != idle_.end()) {
    block = best->block;
    kept_ -= block.bytes;
    idle_.erase(best);
  } else {
    const std::size_t peak = std::max(peak_, used_ + bytes);
    while (!idle_.empty() && used_ + kept_ + bytes > peak) forget(idle_.begin());
    block.data = ::operator new(bytes, kAligned);
  }
  used_ += block.bytes;
  peak_ = std::max(peak_, used_);
  return block;
}

void BlockCache::give(Block block) {
  const std::lock_guard<std::mutex> lock(mutex_);
  used_ -= block.bytes;
  while (!idle_.empty() && takes_ - idle_.front().since > kPatience) forget(idle_.begin());
  try {
    idle_.push_back({block, takes_});
    kept_ += block.bytes;
  } catch (const std::bad_alloc&) {
    ::operator delete(block.data, kAligned);
  }
}

std::size_t BlockCache::used_bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return used_;
}

std::size_t BlockCache::idle_bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return kept_;
}

void BlockCache::forget(std::list<Idle>::iterator idle) {
  kept_ -= idle->block.bytes;
  ::operator delete(idle->block.data, kAligned);
  idle_.erase(idle);
}

BlockCache& block_cache() {
  static BlockCache* const cache = [] {
    static BlockCache* const made = new BlockCache;
    pthread_atfork([] { made->lock(); }, [] { made->unlock(); }, [] { made->unlock(); });
    return made;
  }();
  return *cache;
}

}  // namespace zsd
