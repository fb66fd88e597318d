// A pool of plain threads behind one loop.
//
// Order       chunks have fixed bounds, so a body that writes only its own chunk gives the same
//             result with any number of threads.
// Reentry     a loop inside a loop, or a second caller while one runs, runs in its own thread.
// Fork        a child process starts its own pool on first use.
// Size        usable_threads(), until set_num_threads; fewer where the system starts no more, which
//             num_threads() says after the first loop.
#pragma once

#include <cstdint>
#include <functional>

namespace zsd {

int num_threads();
void set_num_threads(int count);

// Calls body(begin, end) for chunks of `grain` of [0, count). The first exception is rethrown.
void parallel_for(std::int64_t count, std::int64_t grain,
                  const std::function<void(std::int64_t, std::int64_t)>& body);

}  // namespace zsd
