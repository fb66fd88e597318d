// The one answer to "how many threads", for the kernels, the backends and training.
#pragma once

#include <string>

namespace zsd {

constexpr int kMostThreads = 1024;  // that anyone may ask for; as in zsd_core/kernels/info.py

// Threads that this process may keep busy where that is not the whole machine, otherwise 0:
// OMP_NUM_THREADS where it is set; if not, the cores of its affinity, and no more than the whole
// cores of its cgroup's quota (version 1 or 2, of the group itself or one above it), at least 1.
int thread_limit();

// The limit, or all of the machine.
int usable_threads();

// Cores of the quota, such as 0.5; infinity without one. `root` stands before /proc and /sys.
double quota_cores(const std::string& root = "");

}  // namespace zsd
