// Memory of large results and working copies, kept for the next ones.
//
// Why         malloc gives blocks of megabytes back to the system, which takes them page by page
//             when the next result is written: on virtual machines a third of a detector's time.
// Footprint   what is idle and what is in use are together never more than was in use at one time,
//             and a block that has not been asked for in kPatience takes is freed.
// Slack       a block serves no result of less than 1 / kSlack of it, which a caller may keep.
// Fork        a child process may use it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>

namespace zsd {

class BlockCache {
 public:
  static constexpr std::uint64_t kPatience = 256;
  static constexpr std::size_t kSlack = 4;
  static constexpr std::size_t kAlignment = 64;

  struct Block {
    void* data;
    std::size_t bytes;
  };

  ~BlockCache();

  // At least `bytes` of it, not zeroed; std::bad_alloc where there is no more.
  Block take(std::size_t bytes);
  void give(Block block);

  std::size_t used_bytes() const;
  std::size_t idle_bytes() const;

  // Around a fork, so that the child does not inherit a lock that nobody opens.
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  struct Idle {
    Block block;
    std::uint64_t since;  // takes_ when it was given back
  };

  void forget(std::list<Idle>::iterator idle);

  mutable std::mutex mutex_;
  std::list<Idle> idle_;  // the longest idle first
  std::size_t used_ = 0, peak_ = 0, kept_ = 0;
  std::uint64_t takes_ = 0;
};

// Of the process; it lives as long, since arrays may outlive the module.
BlockCache& block_cache();

// A block of it for as long as this lives.
class Borrowed {
 public:
  explicit Borrowed(std::size_t bytes) : block_(block_cache().take(bytes)) {}
  ~Borrowed() { block_cache().give(block_); }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;

  float* floats() const { return static_cast<float*>(block_.data); }

 private:
  BlockCache::Block block_;
};

}  // namespace zsd
