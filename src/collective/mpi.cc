#include <mpi.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "collective/collective.h"

namespace llmc {
namespace {

using Clock = std::chrono::steady_clock;

// Messages are cut into pieces of this size, which pass through a buffer of our
// own: MPI never holds the caller's memory, so giving up on a peer is safe.
constexpr int64_t kPieceBytes = int64_t{8} << 20;

// After this long without a result a waiting rank sleeps between looks, leaving
// the core to the ranks that it waits for.
constexpr auto kSpinTime = std::chrono::milliseconds(5);
constexpr auto kNapTime = std::chrono::microseconds(100);

// A large message moves a little at each look; looks come in bursts, so that the
// core is not given away after each of them.
constexpr int kLooksInBurst = 100;

// From this size on, reductions and broadcasts are made of point-to-point
// messages: the non-blocking ones of MPI libraries move far less per look.
constexpr int64_t kDirectBytes = int64_t{64} << 10;

std::string MpiErrorText(int error) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  if (MPI_Error_string(error, text, &length) != MPI_SUCCESS) return absl::StrCat(error);
  return std::string(text, length);
}

class MpiCollective final : public Collective {
 public:
  explicit MpiCollective(const CollectiveOptions& options)
      : timeout_(options.timeout), buffer_(kPieceBytes / 8), incoming_(kPieceBytes / 8) {}

  ~MpiCollective() override {
    if (broken_.ok()) MPI_Finalize();
  }

  absl::Status Start() {
    int provided = 0;
    if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided) != MPI_SUCCESS) {
      broken_ = absl::UnavailableError("MPI_Init_thread failed");
      return broken_;
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &world_size_);
    if (provided < MPI_THREAD_SERIALIZED) {
      return absl::UnavailableError("MPI: no thread support, expected MPI_THREAD_SERIALIZED");
    }
    MPI_Comm host = MPI_COMM_NULL;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &host);
    MPI_Comm_rank(host, &rank_on_host_);
    MPI_Comm_size(host, &ranks_on_host_);
    MPI_Comm_free(&host);
    return absl::OkStatus();
  }

  int rank() const override { return rank_; }
  int world_size() const override { return world_size_; }
  int ranks_on_host() const override { return ranks_on_host_; }
  int rank_on_host() const override { return rank_on_host_; }

  void Abort(absl::string_view why) override {
    std::fprintf(stderr, "rank %d ends the world: %.*s\n", rank_, static_cast<int>(why.size()),
                 why.data());
    // MPI_Abort may itself wait for a stuck thread; leaving makes mpirun end the rest.
    std::thread([] {
      std::this_thread::sleep_for(std::chrono::seconds(3));
      _exit(1);
    }).detach();
    MPI_Abort(MPI_COMM_WORLD, 1);
    _exit(1);
  }

 private:
  absl::Status DoReduce(absl::string_view name, std::span<int64_t> values, Op op,
                        int root) override {
    if (world_size_ == 1) return broken_;
    const size_t piece = kPieceBytes / sizeof(int64_t);
    for (size_t begin = 0; begin < values.size(); begin += piece) {
      const auto part = values.subspan(begin, std::min(piece, values.size() - begin));
      LLMC_RETURN_IF_ERROR(ReducePiece(name, part, op, root));
    }
    return broken_;
  }

  absl::Status ReducePiece(absl::string_view name, std::span<int64_t> part, Op op, int root) {
    LLMC_RETURN_IF_ERROR(broken_);
    std::copy(part.begin(), part.end(), buffer_.begin());
    if (static_cast<int64_t>(part.size_bytes()) < kDirectBytes) {
      LLMC_RETURN_IF_ERROR(ReduceSmall(name, part.size(), op, root));
    } else {
      LLMC_RETURN_IF_ERROR(ReduceDirectly(name, part.size(), op, root));
    }
    if (root == kAllRanks || root == rank_) {
      std::copy_n(buffer_.begin(), part.size(), part.begin());
    }
    return absl::OkStatus();
  }

  absl::Status ReduceSmall(absl::string_view name, size_t size, Op op, int root) {
    const MPI_Op mpi_op = op == Op::kSum ? MPI_SUM : op == Op::kMax ? MPI_MAX : MPI_MIN;
    const bool receives = root == kAllRanks || root == rank_;
    void* const send = receives ? MPI_IN_PLACE : buffer_.data();
    const int count = static_cast<int>(size);
    MPI_Request request = MPI_REQUEST_NULL;
    const int error = root == kAllRanks ? MPI_Iallreduce(send, buffer_.data(), count, MPI_INT64_T,
                                                         mpi_op, MPI_COMM_WORLD, &request)
                                        : MPI_Ireduce(send, buffer_.data(), count, MPI_INT64_T,
                                                      mpi_op, root, MPI_COMM_WORLD, &request);
    return Finish(name, error, {&request, 1});
  }

  // Every rank reduces one slice, then the slices go where they are wanted: about
  // twice the data over each link, however many ranks there are.
  absl::Status ReduceDirectly(absl::string_view name, size_t size, Op op, int root) {
    const std::span<int64_t> all(buffer_.data(), size);
    const std::span<int64_t> mine = SliceOf(all, rank_);
    for (int step = 1; step < world_size_; ++step) {
      const int to = (rank_ + step) % world_size_;
      const int from = (rank_ + world_size_ - step) % world_size_;
      const std::span<int64_t> theirs(incoming_.data(), mine.size());
      LLMC_RETURN_IF_ERROR(Exchange(name, {to, SliceOf(all, to)}, {from, theirs}));
      Combine(op, theirs, mine);
    }
    if (root == kAllRanks) return ShareSlices(name, all);
    if (root != rank_) return Exchange(name, {root, mine}, {});
    for (int r = 0; r < world_size_; ++r) {
      if (r != rank_) LLMC_RETURN_IF_ERROR(Exchange(name, {}, {r, SliceOf(all, r)}));
    }
    return absl::OkStatus();
  }

  std::span<int64_t> SliceOf(std::span<int64_t> all, int r) const {
    const size_t begin = all.size() * r / world_size_;
    return all.subspan(begin, all.size() * (r + 1) / world_size_ - begin);
  }

  static void Combine(Op op, std::span<const int64_t> from, std::span<int64_t> into) {
    for (size_t i = 0; i < into.size(); ++i) {
      if (op == Op::kSum) {
        into[i] += from[i];
      } else {
        into[i] = op == Op::kMax ? std::max(into[i], from[i]) : std::min(into[i], from[i]);
      }
    }
  }

  // Every rank's own slice to every other rank.
  absl::Status ShareSlices(absl::string_view name, std::span<int64_t> all) {
    for (int step = 1; step < world_size_; ++step) {
      const int to = (rank_ + step) % world_size_;
      const int from = (rank_ + world_size_ - step) % world_size_;
      LLMC_RETURN_IF_ERROR(Exchange(name, {to, SliceOf(all, rank_)}, {from, SliceOf(all, from)}));
    }
    return absl::OkStatus();
  }

  // One side of an exchange; without a peer, nothing.
  struct Side {
    int peer = -1;
    std::span<int64_t> values;
  };
  absl::Status Exchange(absl::string_view name, const Side& send, const Side& receive) {
    MPI_Request requests[2] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};
    int error = MPI_SUCCESS;
    if (receive.peer >= 0) {
      error = MPI_Irecv(receive.values.data(), static_cast<int>(receive.values.size()), MPI_INT64_T,
                        receive.peer, 0, MPI_COMM_WORLD, &requests[0]);
    }
    if (send.peer >= 0 && error == MPI_SUCCESS) {
      error = MPI_Isend(send.values.data(), static_cast<int>(send.values.size()), MPI_INT64_T,
                        send.peer, 0, MPI_COMM_WORLD, &requests[1]);
    }
    return Finish(name, error, requests);
  }

  absl::Status DoBroadcast(absl::string_view name, std::span<std::byte> bytes, int root) override {
    if (world_size_ == 1) return broken_;
    for (size_t begin = 0; begin < bytes.size(); begin += kPieceBytes) {
      LLMC_RETURN_IF_ERROR(broken_);
      const auto part = bytes.subspan(begin, std::min<size_t>(kPieceBytes, bytes.size() - begin));
      if (rank_ == root) std::memcpy(buffer_.data(), part.data(), part.size());
      if (static_cast<int64_t>(part.size()) < kDirectBytes) {
        LLMC_RETURN_IF_ERROR(BroadcastSmall(name, part.size(), root));
      } else {
        LLMC_RETURN_IF_ERROR(BroadcastDirectly(name, part.size(), root));
      }
      if (rank_ != root) std::memcpy(part.data(), buffer_.data(), part.size());
    }
    return broken_;
  }

  absl::Status BroadcastSmall(absl::string_view name, size_t num_bytes, int root) {
    MPI_Request request = MPI_REQUEST_NULL;
    const int error = MPI_Ibcast(buffer_.data(), static_cast<int>(num_bytes), MPI_BYTE, root,
                                 MPI_COMM_WORLD, &request);
    return Finish(name, error, {&request, 1});
  }

  // A slice to each rank, then every rank passes its slice on.
  absl::Status BroadcastDirectly(absl::string_view name, size_t num_bytes, int root) {
    const std::span<int64_t> all(buffer_.data(), (num_bytes + 7) / 8);
    if (rank_ != root) {
      LLMC_RETURN_IF_ERROR(Exchange(name, {}, {root, SliceOf(all, rank_)}));
    }
    for (int r = 0; r < world_size_ && rank_ == root; ++r) {
      if (r != root) LLMC_RETURN_IF_ERROR(Exchange(name, {r, SliceOf(all, r)}, {}));
    }
    for (int step = 1; step < world_size_; ++step) {
      const int to = (rank_ + step) % world_size_;
      const int from = (rank_ + world_size_ - step) % world_size_;
      const Side send = to == root ? Side{} : Side{to, SliceOf(all, rank_)};
      const Side receive = rank_ == root ? Side{} : Side{from, SliceOf(all, from)};
      LLMC_RETURN_IF_ERROR(Exchange(name, send, receive));
    }
    return absl::OkStatus();
  }

  absl::Status DoGather(absl::string_view name, std::span<const std::byte> mine,
                        std::span<const int64_t> offsets, std::span<std::byte> out,
                        int root) override {
    LLMC_RETURN_IF_ERROR(broken_);
    const auto place = [&](int r) { return out.subspan(offsets[r], offsets[r + 1] - offsets[r]); };
    if ((root == kAllRanks || root == rank_) && !mine.empty()) {
      std::memmove(place(rank_).data(), mine.data(), mine.size());
    }
    for (int r = 0; r < world_size_; ++r) {
      if (root == kAllRanks) {
        LLMC_RETURN_IF_ERROR(DoBroadcast(name, place(r), r));
      } else if (r != root && rank_ == root) {
        LLMC_RETURN_IF_ERROR(Receive(name, place(r), r));
      } else if (r != root && rank_ == r) {
        LLMC_RETURN_IF_ERROR(Send(name, mine, root));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Send(absl::string_view name, std::span<const std::byte> bytes, int to) {
    for (size_t begin = 0; begin < bytes.size(); begin += kPieceBytes) {
      const size_t size = std::min<size_t>(kPieceBytes, bytes.size() - begin);
      std::memcpy(buffer_.data(), bytes.data() + begin, size);
      MPI_Request request = MPI_REQUEST_NULL;
      const int error = MPI_Isend(buffer_.data(), static_cast<int>(size), MPI_BYTE, to, 0,
                                  MPI_COMM_WORLD, &request);
      LLMC_RETURN_IF_ERROR(Finish(name, error, {&request, 1}));
    }
    return absl::OkStatus();
  }

  absl::Status Receive(absl::string_view name, std::span<std::byte> bytes, int from) {
    for (size_t begin = 0; begin < bytes.size(); begin += kPieceBytes) {
      const size_t size = std::min<size_t>(kPieceBytes, bytes.size() - begin);
      MPI_Request request = MPI_REQUEST_NULL;
      const int error = MPI_Irecv(buffer_.data(), static_cast<int>(size), MPI_BYTE, from, 0,
                                  MPI_COMM_WORLD, &request);
      LLMC_RETURN_IF_ERROR(Finish(name, error, {&request, 1}));
      std::memcpy(bytes.data() + begin, buffer_.data(), size);
    }
    return absl::OkStatus();
  }

  absl::Status DoBarrier() override {
    LLMC_RETURN_IF_ERROR(broken_);
    MPI_Request request = MPI_REQUEST_NULL;
    const int error = MPI_Ibarrier(MPI_COMM_WORLD, &request);
    return Finish("Barrier", error, {&request, 1});
  }

  // Waits for what has been started. Polls, because MPI_Wait has no time limit.
  absl::Status Finish(absl::string_view name, int error, std::span<MPI_Request> requests) {
    const Clock::time_point begin = Clock::now();
    int done = 0;
    while (error == MPI_SUCCESS) {
      for (int look = 0; look < kLooksInBurst && !done && error == MPI_SUCCESS; ++look) {
        error = MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done,
                            MPI_STATUSES_IGNORE);
      }
      if (done || error != MPI_SUCCESS) break;
      const auto waited = Clock::now() - begin;
      if (waited > timeout_)
        return Fail(name, absl::StrCat("a rank did not arrive within ", timeout_.count(), " ms"));
      if (waited < kSpinTime) {
        sched_yield();
      } else {
        std::this_thread::sleep_for(kNapTime);
      }
    }
    return error == MPI_SUCCESS ? absl::OkStatus() : Fail(name, MpiErrorText(error));
  }

  absl::Status Fail(absl::string_view name, absl::string_view what) {
    // A request may still refer to the buffers, for as long as the process lives.
    new std::vector<int64_t>(std::move(buffer_));
    new std::vector<int64_t>(std::move(incoming_));
    broken_ = absl::UnavailableError(absl::StrCat(name, ": ", what));
    return broken_;
  }

  const std::chrono::milliseconds timeout_;
  std::vector<int64_t> buffer_;
  std::vector<int64_t> incoming_;
  absl::Status broken_;
  int rank_ = 0;
  int world_size_ = 1;
  int rank_on_host_ = 0;
  int ranks_on_host_ = 1;
};

}  // namespace

bool LaunchedByMpi() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

absl::StatusOr<std::unique_ptr<Collective>> MakeMpiCollective(const CollectiveOptions& options) {
  static std::atomic<bool> is_started{false};
  if (is_started.exchange(true)) {
    return absl::FailedPreconditionError("MPI: started before, expected once in a process");
  }
  auto collective = std::make_unique<MpiCollective>(options);
  LLMC_RETURN_IF_ERROR(collective->Start());
  return std::unique_ptr<Collective>(std::move(collective));
}

}  // namespace llmc
