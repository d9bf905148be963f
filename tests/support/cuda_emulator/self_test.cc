// The emulator's own test. Without arguments: kernels that must run, and launches that must fail.
// With --bug NAME: one kernel with a bug, which must be reported, by the launch or by a sanitizer.
// Exit status 0 from that means that this build did not notice.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

using cuda_emulator::Message;
using cuda_emulator::Order;

int failures = 0;

#define CHECK(condition)                                                               \
  do {                                                                                 \
    if (!(condition)) {                                                                \
      ++failures;                                                                      \
      std::printf("%s:%d: %s is false. Message: %s\n", __FILE__, __LINE__, #condition, \
                  Message().c_str());                                                  \
    }                                                                                  \
  } while (false)

constexpr unsigned kAll = 0xffffffffu;

template <typename... Parameters, typename... Arguments>
cudaError_t Launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, Arguments... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

// Memory of the device, zeros at first.
template <typename T>
class Buffer {
 public:
  explicit Buffer(std::size_t n) {
    CHECK(cudaMalloc(&data_, n * sizeof(T)) == cudaSuccess);
    CHECK(cudaMemsetAsync(data_, 0, n * sizeof(T)) == cudaSuccess);
  }
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() { return data_; }
  T& operator[](std::size_t i) { return data_[i]; }

 private:
  T* data_ = nullptr;
};

// ---- Kernels that must run ----------------------------------------------------------------------

__global__ void CountVisits(unsigned* out) {
  const unsigned t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  out[b * blockDim.x * blockDim.y * blockDim.z + t] += b * 1000 + t;
}

__global__ void RecordOrder(int* next, int* out) {
  out[atomicAdd(next, 1)] = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

__global__ void UseWarp(int* out) {
  const int t = static_cast<int>(threadIdx.x), lane = t % warpSize;
  int* o = out + t * 9;
  o[0] = __shfl_sync(kAll, t, 5);
  o[1] = __shfl_up_sync(kAll, t, 2);
  o[2] = __shfl_down_sync(kAll, t, 2);
  o[3] = __shfl_xor_sync(kAll, t, 1);
  o[4] = static_cast<int>(__ballot_sync(kAll, lane % 3 == 0));
  o[5] = __any_sync(kAll, lane == 31) * 2 + __all_sync(kAll, lane >= 0);
  if (lane < 16) {  // each half apart, at the same time
    o[6] = __shfl_xor_sync(0xffffu, lane, 8);
  } else {
    o[6] = __shfl_down_sync(0xffff0000u, lane, 1);
  }
  o[7] = __shfl_sync(kAll, t, 1, 8);
  o[8] = __shfl_xor_sync(kAll, t, 8, 8);
}

__global__ void UseBlock(int* out) {
  __shared__ int shared[64];
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  __syncthreads();
  const int other = shared[63 - threadIdx.x];
  const int count = __syncthreads_count(threadIdx.x % 2);
  const int all = __syncthreads_and(1) + __syncthreads_and(threadIdx.x != 9);
  const int any = __syncthreads_or(threadIdx.x == 9) + __syncthreads_or(0);
  out[blockIdx.x * 64 + threadIdx.x] = other + 100 * count + 10000 * all + 100000 * any;
}

template <typename T>
__global__ void AddAll(T* sum) {
  atomicAdd(sum, 1);
}

__global__ void UseAtomics(int* i, unsigned* u, unsigned long long* l, float* f) {
  const int t = static_cast<int>(threadIdx.x);
  atomicSub(&i[0], 1);
  atomicMin(&i[1], -t);
  atomicMax(&i[2], t);
  atomicOr(&u[0], 1u << t);
  atomicAnd(&u[1], ~(1u << t));
  atomicXor(&u[2], 3u << t);
  atomicMax(&l[0], 1ull << (32 + t));
  atomicCAS(&u[3], t, t + 1);
  atomicExch(f, 2.5f);
}

// The sum by the block that ends last: a fence and a counter.
__global__ void SumInLastBlock(const int* in, int* partial, unsigned* count, int* sum) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = in[blockIdx.x];
    __threadfence();
    last = atomicAdd(count, 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    __threadfence();
    int s = 0;
    for (unsigned i = 0; i < gridDim.x; ++i) s += partial[i];
    *sum = s;
  }
}

__global__ void CountUnderLock(int* lock, int* n) {
  while (atomicCAS(lock, 0, 1) != 0) __nanosleep(20);
  __threadfence();
  *n = *n + 1;
  __threadfence();
  atomicExch(lock, 0);
}

// Each thread waits for the next one, then the previous one: ends in any order of threads.
__global__ void WaitForOthers(int* flags) {
  const int t = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
  atomicExch(&flags[t], 1);
  while (atomicAdd(&flags[(t + 1) % n], 0) == 0) {
  }
  while (atomicAdd(&flags[(t + n - 1) % n], 0) == 0) {
  }
}

__global__ void Nothing() {}

// ---- Launches that must fail --------------------------------------------------------------------

__global__ void DivergentBarrier() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void ReturnBeforeBarrier() {
  if (threadIdx.x == 3) return;
  __syncthreads();
}
__global__ void NotInMask() {
  if (threadIdx.x < 8) __shfl_sync(0xf0u, 1, 4);
}
__global__ void WholeMask(int* out) { *out = __shfl_sync(kAll, 1, 0); }
__global__ void ReadOutsideMask(int* out) {
  if (threadIdx.x < 8) *out = __shfl_sync(0xffu, 1, 9);
}
__global__ void DifferentMasks() { __syncwarp(threadIdx.x < 8 ? 0xffffu : kAll); }

bool Says(const char* text) { return Message().find(text) != std::string::npos; }

void TestFailures() {
  Buffer<int> out(1);
  CHECK(Launch(DivergentBarrier, 1, 64) == cudaErrorLaunchFailure);
  CHECK(Says("different barriers: thread (") && Says("self_test.cc:"));
  CHECK(cudaGetErrorString(cudaErrorLaunchFailure) == Message());
  CHECK(cudaPeekAtLastError() == cudaErrorLaunchFailure);
  CHECK(cudaGetLastError() == cudaErrorLaunchFailure);
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(Launch(ReturnBeforeBarrier, dim3(1, 2), 64) == cudaErrorLaunchFailure);
  CHECK(Says("deadlock: thread (0,0,0) of block (0,") && Says("thread (3,0,0) of block (0,"));
  CHECK(Says("has returned"));
  CHECK(Launch(NotInMask, 1, 32) == cudaErrorLaunchFailure && Says("not in its own mask"));
  CHECK(Launch(WholeMask, 1, 20, out.get()) == cudaErrorLaunchFailure && Says("beyond the end"));
  CHECK(Launch(ReadOutsideMask, 1, 32, out.get()) == cudaErrorLaunchFailure);
  CHECK(Says("outside its mask"));
  CHECK(Launch(DifferentMasks, 1, 32) == cudaErrorLaunchFailure && Says("deadlock"));
  CHECK(Launch(Nothing, 1, 1025) == cudaErrorInvalidConfiguration);
  CHECK(Says("invalid launch configuration: grid (1,1,1), block (1025,1,1)"));
  CHECK(Launch(Nothing, dim3(1, 65536), 1) == cudaErrorInvalidConfiguration);
  CHECK(Launch(Nothing, 0, 1) == cudaErrorInvalidConfiguration);
  CHECK(Launch(Nothing, 1, dim3(1, 1, 65)) == cudaErrorInvalidConfiguration);
  CHECK(Launch(Nothing, 1, 1) == cudaSuccess && Message().empty());
}

void TestIndices() {
  Buffer<unsigned> visits(12 * 24);
  CHECK(Launch(CountVisits, dim3(2, 3, 2), dim3(4, 2, 3), visits.get()) == cudaSuccess);
  for (unsigned i = 0; i < 12 * 24; ++i) CHECK(visits[i] == i / 24 * 1000 + i % 24);
}

void TestWarp() {
  Buffer<int> out(64 * 9);
  CHECK(Launch(UseWarp, 1, 64, out.get()) == cudaSuccess);
  for (int t = 0; t < 64; ++t) {
    const int lane = t % 32, first = t - lane;
    const int* o = &out[t * 9];
    CHECK(o[0] == first + 5);
    CHECK(o[1] == (lane < 2 ? t : t - 2));
    CHECK(o[2] == (lane > 29 ? t : t + 2));
    CHECK(o[3] == (t ^ 1));
    CHECK(o[4] == 0x49249249);
    CHECK(o[5] == 3);
    CHECK(o[6] == (lane < 16 ? lane ^ 8 : lane == 31 ? 31 : lane + 1));
    CHECK(o[7] == (t & ~7) + 1);
    CHECK(o[8] == (lane / 8 % 2 == 1 ? t - 8 : t));
  }
}

void TestBlock() {
  Buffer<int> out(3 * 64);
  CHECK(Launch(UseBlock, 3, 64, out.get()) == cudaSuccess);
  for (int i = 0; i < 3 * 64; ++i) CHECK(out[i] == 63 - i % 64 + 3200 + 10000 + 100000);
}

template <typename T>
void TestAtomicAdd() {
  Buffer<T> sum(1);
  CHECK(Launch(AddAll<T>, 5, 40, sum.get()) == cudaSuccess);
  CHECK(sum[0] == T{200});
}

void TestAtomics() {
  TestAtomicAdd<int>();
  TestAtomicAdd<unsigned>();
  TestAtomicAdd<unsigned long long>();
  TestAtomicAdd<float>();
  TestAtomicAdd<double>();
  Buffer<int> i(3);
  Buffer<unsigned> u(4);
  Buffer<unsigned long long> l(1);
  Buffer<float> f(1);
  u[1] = kAll;
  CHECK(Launch(UseAtomics, 1, 31, i.get(), u.get(), l.get(), f.get()) == cudaSuccess);
  CHECK(i[0] == -31 && i[1] == -30 && i[2] == 30);
  CHECK(u[0] == 0x7fffffffu && u[1] == 0x80000000u && u[2] == 0x80000001u);
  CHECK(u[3] >= 1 && u[3] <= 31);
  CHECK(l[0] == 1ull << 62);
  CHECK(f[0] == 2.5f);
}

void TestSynchronisation() {
  Buffer<int> in(10), partial(10), sum(1), lock(1), n(1), flags(64);
  Buffer<unsigned> count(1);
  for (int i = 0; i < 10; ++i) in[i] = 3;
  CHECK(Launch(SumInLastBlock, 10, 64, in.get(), partial.get(), count.get(), sum.get()) ==
        cudaSuccess);
  CHECK(sum[0] == 30);
  CHECK(Launch(CountUnderLock, 4, 32, lock.get(), n.get()) == cudaSuccess);
  CHECK(n[0] == 128);
  CHECK(Launch(WaitForOthers, 1, 64, flags.get()) == cudaSuccess);
}

// Launches by many OS threads, as a thread pool's; each must see its own message.
void TestThreads() {
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([i, &wrong] {
      for (int repeat = 0; repeat < 10; ++repeat) {
        Buffer<int> out(3 * 64);
        wrong[i] += Launch(UseBlock, 3, 64, out.get()) != cudaSuccess || !Message().empty();
        wrong[i] += out[5] != 63 - 5 + 3200 + 10000 + 100000;
        if (i % 2 == 0) continue;
        wrong[i] += Launch(ReturnBeforeBarrier, 1, 64) != cudaErrorLaunchFailure;
        wrong[i] += !Says("deadlock");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4));
}

void TestSizes() {
  const cuda_emulator::Stats before = cuda_emulator::GetStats();
  Buffer<unsigned> visits(3000);
  CHECK(Launch(CountVisits, 2, 1024, visits.get()) == cudaSuccess);
  CHECK(Launch(CountVisits, 3000, 1, visits.get()) == cudaSuccess);
  const cuda_emulator::Stats after = cuda_emulator::GetStats();
  CHECK(after.launches == before.launches + 2);
  CHECK(after.blocks == before.blocks + 3002);
  CHECK(after.threads == before.threads + 5048);
}

std::vector<int> OrderOfThreads() {
  Buffer<int> next(1), out(96);
  CHECK(Launch(RecordOrder, 3, 32, next.get(), out.get()) == cudaSuccess);
  return {out.get(), out.get() + 96};
}

void TestOrders() {
  cuda_emulator::SetOrder(Order::kForward);
  std::vector<int> forward = OrderOfThreads();
  CHECK(std::is_sorted(forward.begin(), forward.end()));
  cuda_emulator::SetOrder(Order::kReverse);
  std::vector<int> reverse = OrderOfThreads();
  CHECK(std::is_sorted(reverse.rbegin(), reverse.rend()));
  cuda_emulator::SetOrder(Order::kRandom, 1);
  std::vector<int> random = OrderOfThreads();
  CHECK(random != forward && random != reverse);
  CHECK(OrderOfThreads() != random);
  cuda_emulator::SetOrder(Order::kRandom, 1);
  CHECK(OrderOfThreads() == random);
  std::sort(random.begin(), random.end());
  CHECK(random == forward);
}

// ---- Kernels with a bug -------------------------------------------------------------------------

// Out of line, so that the array's size is unknown to the compiler, which would warn.
__attribute__((noinline)) void Write(int* array, unsigned i) { array[i] = 1; }

__global__ void GlobalOverrun(int* out) { Write(out, threadIdx.x); }

template <int size>
__global__ void SharedOverrun(int* out) {
  __shared__ int shared[size];
  Write(shared, threadIdx.x);
  __syncthreads();
  *out = shared[0];
}

// The values of this and the next may come out right, by the order of threads.
__global__ void MissingBarrier(int* out) {
  __shared__ int shared[63];
  shared[threadIdx.x] = 1;
  out[threadIdx.x] = shared[(threadIdx.x + 1) % blockDim.x];
}

__global__ void LostAtomic(int* out) { *out += 1; }

// In different blocks, which run one after another.
__global__ void LostAtomicAcrossBlocks(int* out) {
  if (threadIdx.x == 0) *out += 1;
}

__global__ void LostCas(int* out) {
  if (*out == 0) *out = 1;
}

__global__ void LostExchange(int* lock, int* n) {
  while (atomicCAS(lock, 0, 1) != 0) {
  }
  __threadfence();
  *n = *n + 1;
  __threadfence();
  *lock = 0;
}

cudaError_t RunBug(const std::string& name) {
  Buffer<int> out(63), n(1);
  if (name == "global_overrun") return Launch(GlobalOverrun, 1, 64, out.get());
  if (name == "shared_overrun") return Launch(SharedOverrun<63>, 1, 64, out.get());
  if (name == "divergent_barrier") return Launch(DivergentBarrier, 1, 64);
  if (name == "deadlock") return Launch(ReturnBeforeBarrier, 1, 64);
  if (name == "missing_barrier") return Launch(MissingBarrier, 1, 63, out.get());
  if (name == "lost_atomic") return Launch(LostAtomic, 1, 64, out.get());
  if (name == "lost_atomic_across_blocks") return Launch(LostAtomicAcrossBlocks, 8, 32, out.get());
  if (name == "lost_cas") return Launch(LostCas, 1, 64, out.get());
  if (name == "lost_exchange") return Launch(LostExchange, 1, 64, out.get(), n.get());
  std::printf("no such bug: %s\n", name.c_str());
  std::exit(2);
}

int ReportBug(const char* name) {
  const cudaError_t error = RunBug(name);
  if (error == cudaSuccess) {
    std::printf("the launch of %s succeeded\n", name);
    return 0;
  }
  std::printf("reported: %s\n", cudaGetErrorString(error));
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "--bug") == 0) return ReportBug(argv[2]);
  for (int repeat = 0; repeat < 3; ++repeat) {  // failed launches must not spoil later ones
    TestIndices();
    TestWarp();
    TestBlock();
    TestAtomics();
    TestSynchronisation();
    TestFailures();
    TestThreads();
  }
  TestSizes();
  TestOrders();
  std::printf("%d failed checks\n", failures);
  return failures == 0 ? 0 : 1;
}
