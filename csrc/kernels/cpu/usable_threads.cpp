#include "usable_threads.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif
#include <unistd.h>

namespace zsd {
namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();

// Cores of one group: "quota period" of version 2, two files of version 1.
double cores_of(const std::string& folder, bool unified) {
  std::ifstream quota_file(folder + (unified ? "/cpu.max" : "/cpu.cfs_quota_us"));
  double quota = 0, period = 0;  // "max" of version 2 and -1 of version 1 mean no limit
  if (!(quota_file >> quota) || quota <= 0) return kNone;
  if (unified) {
    quota_file >> period;
  } else {
    std::ifstream(folder + "/cpu.cfs_period_us") >> period;
  }
  return period > 0 ? quota / period : kNone;
}

// The least of a group and those above it; a path that this mount does not show is stepped over.
double least_cores(const std::string& mount, std::string path, bool unified) {
  double cores = cores_of(mount, unified);
  while (path.size() > 1) {
    cores = std::min(cores, cores_of(mount + path, unified));
    path.resize(path.rfind('/'));
  }
  return cores;
}

bool names_cpu(const std::string& controllers) {
  std::istringstream names(controllers);
  for (std::string name; std::getline(names, name, ',');)
    if (name == "cpu") return true;
  return false;
}

// Cores that are online; hardware_concurrency may count those of the affinity only.
int machine() {
#ifdef _SC_NPROCESSORS_ONLN
  const long cores = sysconf(_SC_NPROCESSORS_ONLN);
#else
  const long cores = long(std::thread::hardware_concurrency());
#endif
  return int(std::clamp<long>(cores, 1, kMostThreads));
}

int affinity() {
#ifdef __linux__
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof(cores), &cores) == 0) return CPU_COUNT(&cores);
#endif
  return machine();
}

}  // namespace

double quota_cores(const std::string& root) {
  double cores = kNone;
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "number:controllers:path"
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (names.empty())
      cores = std::min(cores, least_cores(root + "/sys/fs/cgroup", path, true));
    else if (names_cpu(names))
      cores = std::min(cores, least_cores(root + "/sys/fs/cgroup/cpu", path, false));
  }
  return cores;
}

int thread_limit() {
  if (const char* wanted = std::getenv("OMP_NUM_THREADS")) {
    char* end = nullptr;
    const long count = std::strtol(wanted, &end, 10);  // a list is by depth: the first counts
    if (end != wanted && count > 0) return int(std::min<long>(count, kMostThreads));
  }
  const int share = int(std::max(1.0, std::min(double(affinity()), quota_cores())));
  return share < machine() ? share : 0;
}

int usable_threads() {
  const int limit = thread_limit();
  return limit ? limit : machine();
}

}  // namespace zsd
