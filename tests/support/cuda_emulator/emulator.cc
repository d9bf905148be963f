#include "emulator.h"

#include <algorithm>
#include <cfenv>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <numeric>
#include <utility>
#include <vector>

#include "fibers.h"

#ifdef TFSEG_EMULATOR_TSAN
#include <thread>
#endif

namespace cuda_emulator {
namespace {

// An atomic this often in a row lets others run: the thread may be waiting for one of them.
constexpr unsigned kAtomicsInARow = 1024;

enum class State { kReady, kWaiting, kDone };

struct Thread {
  int id;
  uint3 index;
  State state = State::kReady;
  Request request = {};
  std::uint64_t result = 0;
  Fiber* fiber = nullptr;
};

// The race detector's handle on those who meet at a barrier. Two, used by turns: some may arrive at
// the next meeting while others have yet to leave this one.
struct MeetingPoint {
  unsigned meetings = 0;
  char tokens[2];
  char* Token() { return &tokens[meetings & 1]; }
};

struct Warp {
  unsigned waiting = 0;  // lanes
  MeetingPoint barrier;
};

// The threads that can go on, first come first served.
class Queue {
 public:
  explicit Queue(std::size_t capacity) : threads_(capacity) {}
  bool empty() const { return size_ == 0; }
  std::size_t size() const { return size_; }
  Thread*& operator[](std::size_t i) { return threads_[(head_ + i) % threads_.size()]; }
  void Push(Thread& t) { (*this)[size_++] = &t; }
  Thread& Pop() {
    Thread& first = *threads_[head_];
    if (++head_ == threads_.size()) head_ = 0;
    --size_;
    return first;
  }

 private:
  std::vector<Thread*> threads_;
  std::size_t head_ = 0, size_ = 0;
};

// On the heap, and new for each: the race detector forgets what it knows of a token with its
// memory.
struct Block {
  explicit Block(unsigned size)
      : threads(size), warps((size + warpSize - 1) / warpSize), ready(size) {}
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Queue ready;
  std::size_t at_barrier = 0;
  MeetingPoint barrier;
};

// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). Not from std, whose functions the linker may
// take from an instrumented file: the race detector would see fibers share the state.
class Random {
 public:
  void Seed(std::uint64_t seed) { state_ = seed; }
  std::uint64_t Below(std::uint64_t n) {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (z ^ (z >> 31)) % n;
  }

 private:
  std::uint64_t state_ = 0;
};

// Launches take turns, so the state of the running one can be global.
std::mutex launch_mutex;
Order order = Order::kForward;
Random generator;
Stats stats;
std::string failure;
const std::function<void()>* kernel_body;
Block* block;
Thread* current;
unsigned atomics_in_a_row;
char launch_token, block_token, end_token, fence_token;

// Of the OS thread that launches. Kernels and fibers never touch them.
thread_local std::string last_message;
thread_local cudaError_t last_error = cudaSuccess;

void SwitchToScheduler() {
  Release(&end_token);  // now, because after a failure this fiber never goes on
  Suspend();
}

// ---- Messages -----------------------------------------------------------------------------------

std::string Name(uint3 v) {
  return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
}
std::string Name(const Thread& t) {
  return "thread " + Name(t.index) + " of block " + Name(blockIdx);
}
std::string Name(Site s) { return std::string(s.file) + ":" + std::to_string(s.line); }

std::string DescribeDeadlock() {
  constexpr int kMaxGroups = 8;
  std::string text = "deadlock: ", last;
  int groups = 0;
  for (const Thread& t : block->threads) {  // the first of each run of threads at one place
    std::string where =
        t.state == State::kDone ? " has returned" : " waits at " + Name(t.request.site);
    if (where == last) continue;
    if (groups == kMaxGroups) return text + "; and so on";
    text += (groups++ == 0 ? "" : "; ") + Name(t) + where;
    last = std::move(where);
  }
  return text;
}

// ---- In the scheduler ---------------------------------------------------------------------------

void MakeReady(Thread& t) {
  t.state = State::kReady;
  block->ready.Push(t);
}

// Calls fn(i) for each i in [0, n), in the order of threads.
template <typename Fn>
void ForEachInOrder(int n, Fn fn) {
  for (int i = 0; i < n; ++i) fn(order == Order::kReverse ? n - 1 - i : i);
}

Thread& NextReady() {
  Queue& ready = block->ready;
  if (order == Order::kRandom) std::swap(ready[0], ready[generator.Below(ready.size())]);
  return ready.Pop();
}

bool SamePlace(const Request& a, const Request& b) {
  return a.kind == b.kind && a.site.line == b.site.line &&
         (a.site.file == b.site.file || std::strcmp(a.site.file, b.site.file) == 0);
}

// Wakes all threads of the block if the last one is there.
void ArriveAtBarrier(const Thread& last) {
  Block& b = *block;
  if (++b.at_barrier < b.threads.size()) return;
  std::uint64_t votes = 0;
  for (const Thread& t : b.threads) {
    votes += t.request.bits;
    if (!SamePlace(t.request, last.request)) {
      failure = "different barriers: " + Name(t) + " is at " + Name(t.request.site) + ", " +
                Name(last) + " at " + Name(last.request.site);
      return;
    }
  }
  b.at_barrier = 0;
  ++b.barrier.meetings;
  ForEachInOrder(static_cast<int>(b.threads.size()), [&](int i) {
    b.threads[i].result = votes;
    MakeReady(b.threads[i]);
  });
}

// What is wrong with a request, or null. `existing` are the warp's lanes, all 32 but in the last.
const char* MaskFault(const Request& request, int lane, unsigned existing) {
  if ((request.mask >> lane & 1) == 0) return " is not in its own mask";
  if ((request.mask & ~existing) != 0) return " names lanes beyond the end of the block";
  if (request.source >= 0 && (request.mask >> request.source & 1) == 0) {
    return " reads a lane outside its mask";
  }
  return nullptr;
}

// Wakes the lanes of the mask if the last one is there.
void ArriveInWarp(const Thread& last) {
  Block& b = *block;
  const Request& request = last.request;
  const int lane = last.id % warpSize;
  Thread* const lanes = &b.threads[last.id - lane];
  const int count = std::min(warpSize, static_cast<int>(b.threads.size()) - (last.id - lane));
  const unsigned existing = count == warpSize ? ~0u : (1u << count) - 1;
  if (const char* fault = MaskFault(request, lane, existing)) {
    failure = "bad mask: " + Name(last) + " at " + Name(request.site) + fault;
    return;
  }
  const auto takes_part = [&](int l) { return (request.mask >> l & 1) != 0; };
  Warp& warp = b.warps[last.id / warpSize];
  warp.waiting |= 1u << lane;
  if ((warp.waiting & request.mask) != request.mask) return;
  unsigned votes = 0;
  for (int l = 0; l < count; ++l) {
    if (!takes_part(l)) continue;
    const Request& other = lanes[l].request;
    if (other.kind != request.kind || other.mask != request.mask) return;  // ends as a deadlock
    votes |= static_cast<unsigned>(other.bits & 1) << l;
  }
  warp.waiting &= ~request.mask;
  ++warp.barrier.meetings;
  ForEachInOrder(count, [&](int l) {
    if (!takes_part(l)) return;
    Thread& t = lanes[l];
    const int source = t.request.source < 0 ? l : t.request.source;
    t.result = request.kind == Kind::kShuffle ? lanes[source].request.bits : votes;
    MakeReady(t);
  });
}

void RunUntilItWaits(Thread& t) {
  if (t.fiber == nullptr) t.fiber = GetFiber();
  current = &t;
  threadIdx = t.index;
  atomics_in_a_row = 0;
  Resume(t.fiber);
  current = nullptr;
}

bool IsBlockBarrier(Kind kind) { return kind == Kind::kBarrier || kind == Kind::kBarrierCount; }

void RunThreads() {
  std::size_t done = 0;
  while (done < block->threads.size()) {
    if (block->ready.empty()) {
      failure = DescribeDeadlock();
      return;
    }
    Thread& t = NextReady();
    RunUntilItWaits(t);
    if (t.state == State::kDone) {
      PutFiber(t.fiber);
      ++done;
    } else if (t.state == State::kReady) {
      block->ready.Push(t);  // it has let others go first
    } else if (IsBlockBarrier(t.request.kind)) {
      ArriveAtBarrier(t);
    } else {
      ArriveInWarp(t);
    }
    if (!failure.empty()) return;
  }
}

void RunBlock() {
  const dim3 size = blockDim;
  const int n = static_cast<int>(size.x * size.y * size.z);
  const auto owner = std::make_unique<Block>(n);
  block = owner.get();
  uint3 index = {0, 0, 0};
  for (int i = 0; i < n; ++i) {
    block->threads[i].id = i;
    block->threads[i].index = index;
    if (++index.x == size.x) index.x = 0, ++index.y;
    if (index.y == size.y) index.y = 0, ++index.z;
  }
  ForEachInOrder(n, [](int i) { block->ready.Push(block->threads[i]); });
  BecomeScheduler();
  Release(&block_token);
  RunThreads();
  if (!failure.empty()) {
    for (Thread& t : block->threads) {
      if (t.fiber == nullptr || t.state == State::kDone) continue;
      Restart(t.fiber);
      PutFiber(t.fiber);
    }
  }
  stats.threads += n;
  ++stats.blocks;
}

// A step that visits all blocks, in an order that looks random.
std::uint64_t RandomStep(std::uint64_t blocks) {
  std::uint64_t step;
  do {
    step = 1 + generator.Below(blocks);
  } while (std::gcd(step, blocks) != 1);
  return step;
}

void RunGrid() {
  const dim3 grid = gridDim;
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  const std::uint64_t step = order == Order::kForward   ? 1
                             : order == Order::kReverse ? blocks - 1
                                                        : RandomStep(blocks);
  std::uint64_t i = order == Order::kReverse ? blocks - 1 : 0;
  Release(&launch_token);
  for (std::uint64_t k = 0; failure.empty() && k < blocks; ++k, i = (i + step) % blocks) {
    blockIdx = {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                static_cast<unsigned>(i / grid.x / grid.y)};
#ifdef TFSEG_EMULATOR_TSAN
    std::thread(RunBlock).join();  // see __shared__
#else
    RunBlock();
#endif
  }
  Acquire(&end_token);
}

// The limits of all devices from compute capability 3.0 on.
bool IsValid(const cudaLaunchConfig_t& config) {
  const dim3 grid = config.gridDim, size = config.blockDim;
  const auto between = [](unsigned v, unsigned max) { return v >= 1 && v <= max; };
  return between(grid.x, 0x7fffffff) && between(grid.y, 65535) && between(grid.z, 65535) &&
         between(size.x, 1024) && between(size.y, 1024) && between(size.z, 64) &&
         size.x * size.y * size.z <= 1024 && config.dynamicSmemBytes == 0 && config.numAttrs == 0;
}

std::string DescribeInvalid(const cudaLaunchConfig_t& config) {
  const dim3 grid = config.gridDim, size = config.blockDim;
  return "invalid launch configuration: grid " + Name(uint3{grid.x, grid.y, grid.z}) + ", block " +
         Name(uint3{size.x, size.y, size.z}) + ", " + std::to_string(config.dynamicSmemBytes) +
         " bytes of dynamic shared memory, " + std::to_string(config.numAttrs) + " attributes";
}

void SetOrderFromEnvironment() {
  const char* text = std::getenv("TFSEG_CUDA_ORDER");
  if (text == nullptr || std::strcmp(text, "forward") == 0) return;
  if (std::strcmp(text, "reverse") == 0) return SetOrder(Order::kReverse);
  char* end;
  const std::uint64_t seed = std::strtoull(text, &end, 10);
  if (end == text || *end != '\0') {
    std::fprintf(stderr, "TFSEG_CUDA_ORDER: Expected forward, reverse or a number. Received: %s\n",
                 text);
    std::exit(1);
  }
  SetOrder(Order::kRandom, seed);
}

[[maybe_unused]] const bool order_is_set = (SetOrderFromEnvironment(), true);

}  // namespace

void SetOrder(Order new_order, std::uint64_t seed) {
  const std::lock_guard<std::mutex> lock(launch_mutex);
  order = new_order;
  generator.Seed(seed);
}

const std::string& Message() { return last_message; }

Stats GetStats() {
  const std::lock_guard<std::mutex> lock(launch_mutex);
  return stats;
}

cudaError_t Run(const cudaLaunchConfig_t& config, const std::function<void()>& body) {
  last_message.clear();
  cudaError_t error = cudaSuccess;
  if (!IsValid(config)) {
    last_message = DescribeInvalid(config);
    error = cudaErrorInvalidConfiguration;
  } else {
    const std::lock_guard<std::mutex> lock(launch_mutex);
    ++stats.launches;
    failure.clear();
    kernel_body = &body;
    gridDim = config.gridDim;
    blockDim = config.blockDim;
    // A device keeps subnormal numbers, whatever mode the calling thread is in.
    std::fenv_t environment;
    std::fegetenv(&environment);
    std::fesetenv(FE_DFL_ENV);
    RunGrid();
    std::fesetenv(&environment);
    last_message = failure;
    if (!failure.empty()) error = cudaErrorLaunchFailure;
  }
  if (error != cudaSuccess) last_error = error;
  return error;
}

void RunThread() {
  Acquire(&launch_token);
  Acquire(&block_token);
  (*kernel_body)();
  Release(&end_token);
  current->state = State::kDone;
}

std::uint64_t Wait(const Request& request) {
  Thread& self = *current;
  self.request = request;
  self.state = State::kWaiting;
  // Barriers order the threads' accesses to memory; shuffles and votes do not.
  char* token = nullptr;
  if (IsBlockBarrier(request.kind)) token = block->barrier.Token();
  if (request.kind == Kind::kWarpBarrier) token = block->warps[self.id / warpSize].barrier.Token();
  if (token != nullptr) Release(token);
  SwitchToScheduler();
  if (token != nullptr) Acquire(token);
  return self.result;
}

int Lane() { return current->id % warpSize; }

void Yield() { SwitchToScheduler(); }

void AtomicPoint() {
  if (current == nullptr) return;  // in a host function that shares code with a kernel
  if (++atomics_in_a_row == kAtomicsInARow || (order == Order::kRandom && generator.Below(4) == 0))
    Yield();
}

void Fence() {
  Release(&fence_token);
  Acquire(&fence_token);
}

}  // namespace cuda_emulator

cudaError_t cudaPeekAtLastError() { return cuda_emulator::last_error; }

cudaError_t cudaGetLastError() { return std::exchange(cuda_emulator::last_error, cudaSuccess); }

const char* cudaGetErrorString(cudaError_t error) {
  const std::string& message = cuda_emulator::Message();
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return message.empty() ? "invalid configuration argument" : message.c_str();
    case cudaErrorLaunchFailure:
      return message.empty() ? "unspecified launch failure" : message.c_str();
  }
  return "unrecognized error code";
}
