#include "thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "usable_threads.h"

namespace zsd {
namespace {

// Set while a thread is inside a loop's body; a loop started there runs in that thread.
thread_local bool inside_loop = false;

class Job {
 public:
  using Body = std::function<void(std::int64_t, std::int64_t)>;

  Job(std::int64_t count, std::int64_t grain, const Body& body)
      : count_(count), grain_(std::max<std::int64_t>(1, grain)), body_(body) {}

  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

  void run() {
    const bool outer = inside_loop;
    inside_loop = true;
    run_chunks();
    inside_loop = outer;
  }

 private:
  void run_chunks() {
    for (;;) {
      const std::int64_t begin = next_.fetch_add(grain_);
      if (begin >= count_) return;
      try {
        body_(begin, std::min(begin + grain_, count_));
      } catch (...) {
        const std::lock_guard<std::mutex> lock(error_mutex_);
        if (!error_) error_ = std::current_exception();
      }
    }
  }

  const std::int64_t count_, grain_;
  const Body& body_;
  std::atomic<std::int64_t> next_{0};
  std::mutex error_mutex_;
  std::exception_ptr error_;
};

class Pool {
 public:
  explicit Pool(int threads) {
    workers_.reserve(std::size_t(threads - 1));
    try {
      for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {  // a limit of processes: those there are do the work
    } catch (...) {                       // no destructor runs, and those there are wait
      stop();
      throw;
    }
  }

  ~Pool() { stop(); }

  int threads() const { return int(workers_.size()) + 1; }

  void run(Job& job) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      ++generation_;
    }
    wake_.notify_all();
    job.run();
    std::unique_lock<std::mutex> lock(mutex_);
    job_ = nullptr;  // who has not woken by now finds nothing
    idle_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void stop() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  void work() {
    std::unique_lock<std::mutex> lock(mutex_);
    std::uint64_t seen = 0;
    for (;;) {
      wake_.wait(lock, [&] { return stop_ || (job_ && generation_ != seen); });
      if (stop_) return;
      seen = generation_;
      Job* job = job_;
      ++busy_;
      lock.unlock();
      job->run();
      lock.lock();
      if (--busy_ == 0) idle_.notify_all();
    }
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_, idle_;
  Job* job_ = nullptr;
  std::uint64_t generation_ = 0;
  int busy_ = 0;
  bool stop_ = false;
};

// Never destroyed: threads of a library must not be joined while the process exits.
struct State {
  std::mutex owner;  // held by whoever runs a loop
  Pool* pool = nullptr;
  std::atomic<int> threads{0};
};

State& state() {
  static State* const instance = [] {
    auto* fresh = new State;
    fresh->threads = usable_threads();
    return fresh;
  }();
  static const int registered = pthread_atfork(nullptr, nullptr, [] {
    new (&instance->owner) std::mutex;  // the parent's threads do not exist here
    instance->pool = nullptr;
  });
  (void)registered;
  return *instance;
}

}  // namespace

int num_threads() { return state().threads; }

void set_num_threads(int count) { state().threads = std::max(1, count); }

void parallel_for(std::int64_t count, std::int64_t grain,
                  const std::function<void(std::int64_t, std::int64_t)>& body) {
  if (count <= 0) return;
  State& shared = state();
  Job job(count, grain, body);
  const int wanted = shared.threads;
  std::unique_lock<std::mutex> owner(shared.owner, std::defer_lock);
  if (wanted > 1 && count > grain && !inside_loop && owner.try_lock()) {
    if (!shared.pool || shared.pool->threads() != wanted) {
      delete shared.pool;
      shared.pool = nullptr;
      shared.pool = new Pool(wanted);
      int asked = wanted;  // unless another number was set meanwhile, it is what there is
      shared.threads.compare_exchange_strong(asked, shared.pool->threads());
    }
    shared.pool->run(job);
  } else {
    job.run();
  }
  job.rethrow();
}

}  // namespace zsd
