#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <vector>

#include "absl/strings/str_cat.h"
#include "collective/collective.h"

namespace llmc {
namespace {

// One rank's part in an operation.
struct Arrival {
  std::string name;
  int64_t size = 0;  // Elements or bytes, as all ranks must agree.
  int root = 0;
  std::span<int64_t> values = {};         // Reduce.
  std::span<const std::byte> bytes = {};  // What this rank gives.
  std::span<std::byte> out = {};          // What it receives.
};

// Where the ranks meet: the last to arrive does the operation for all.
class MeetingPoint {
 public:
  MeetingPoint(int world_size, std::chrono::milliseconds timeout)
      : arrivals_(world_size), has_arrived_(world_size, false), timeout_(timeout) {}

  int world_size() const { return static_cast<int>(arrivals_.size()); }

  // `operate` gets the arrivals of all ranks.
  template <typename Operate>
  absl::Status Meet(int rank, Arrival arrival, const Operate& operate) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!broken_.ok()) return broken_;
    arrivals_[rank] = std::move(arrival);
    has_arrived_[rank] = true;
    if (std::count(has_arrived_.begin(), has_arrived_.end(), true) < world_size()) {
      return WaitForPeers(lock, rank);
    }
    broken_ = CheckAgreement();
    all_arrived_.notify_all();
    if (!broken_.ok()) return broken_;
    operate(arrivals_);
    has_arrived_.assign(world_size(), false);
    ++generation_;
    return broken_;
  }

  // A rank is gone: what its peers wait for cannot happen.
  void Leave(const std::string& why) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (broken_.ok()) broken_ = absl::UnavailableError(why);
    all_arrived_.notify_all();
  }

 private:
  absl::Status WaitForPeers(std::unique_lock<std::mutex>& lock, int rank) {
    const int64_t generation = generation_;
    const auto is_over = [&] { return generation_ != generation || !broken_.ok(); };
    if (!all_arrived_.wait_for(lock, timeout_, is_over)) {
      broken_ =
          absl::UnavailableError(absl::StrCat(arrivals_[rank].name, ": rank ", FirstAbsent(),
                                              " did not arrive within ", timeout_.count(), " ms"));
      all_arrived_.notify_all();
    }
    return generation_ != generation ? absl::OkStatus() : broken_;
  }

  int FirstAbsent() const {
    return static_cast<int>(std::find(has_arrived_.begin(), has_arrived_.end(), false) -
                            has_arrived_.begin());
  }

  absl::Status CheckAgreement() const {
    const Arrival& first = arrivals_[0];
    for (int r = 1; r < world_size(); ++r) {
      const Arrival& other = arrivals_[r];
      if (other.name == first.name && other.size == first.size && other.root == first.root) {
        continue;
      }
      return absl::InternalError(absl::StrCat(
          "collective: rank 0 called ", first.name, " of ", first.size, " with root ", first.root,
          ", rank ", r, " called ", other.name, " of ", other.size, " with root ", other.root));
    }
    return absl::OkStatus();
  }

  std::mutex mutex_;
  std::condition_variable all_arrived_;
  std::vector<Arrival> arrivals_;
  std::vector<bool> has_arrived_;
  const std::chrono::milliseconds timeout_;
  int64_t generation_ = 0;
  absl::Status broken_;
};

void CopyBytes(std::span<const std::byte> from, std::span<std::byte> to) {
  if (!from.empty()) std::memmove(to.data(), from.data(), from.size());
}

class ThreadCollective final : public Collective {
 public:
  ThreadCollective(int rank, std::shared_ptr<MeetingPoint> point)
      : rank_(rank), point_(std::move(point)) {}
  ~ThreadCollective() override {
    point_->Leave(absl::StrCat("collective: rank ", rank_, " has left"));
  }

  int rank() const override { return rank_; }
  int world_size() const override { return point_->world_size(); }
  int ranks_on_host() const override { return point_->world_size(); }
  int rank_on_host() const override { return rank_; }
  void Abort(absl::string_view why) override {
    point_->Leave(absl::StrCat("rank ", rank_, " aborted: ", why));
  }

 private:
  absl::Status DoReduce(absl::string_view name, std::span<int64_t> values, Op op,
                        int root) override {
    Arrival arrival{.name = std::string(name), .size = std::ssize(values), .root = root};
    arrival.values = values;
    return point_->Meet(rank_, std::move(arrival), [op](const std::vector<Arrival>& all) {
      std::vector<int64_t> result(all[0].values.begin(), all[0].values.end());
      for (size_t r = 1; r < all.size(); ++r) Combine(op, all[r].values, result);
      for (size_t r = 0; r < all.size(); ++r) {
        const bool receives = all[0].root == kAllRanks || all[0].root == static_cast<int>(r);
        if (receives) std::copy(result.begin(), result.end(), all[r].values.begin());
      }
    });
  }

  absl::Status DoBroadcast(absl::string_view name, std::span<std::byte> bytes, int root) override {
    Arrival arrival{.name = std::string(name), .size = std::ssize(bytes), .root = root};
    arrival.bytes = arrival.out = bytes;
    return point_->Meet(rank_, std::move(arrival), [root](const std::vector<Arrival>& all) {
      for (const Arrival& to : all) CopyBytes(all[root].bytes, to.out);
    });
  }

  absl::Status DoGather(absl::string_view name, std::span<const std::byte> mine,
                        std::span<const int64_t> offsets, std::span<std::byte> out,
                        int root) override {
    Arrival arrival{.name = std::string(name), .size = offsets.back(), .root = root};
    arrival.bytes = mine;
    if (root == kAllRanks || root == rank_) arrival.out = out;
    return point_->Meet(rank_, std::move(arrival), [&](const std::vector<Arrival>& all) {
      for (const Arrival& to : all) {
        if (to.out.empty()) continue;
        for (size_t r = 0; r < all.size(); ++r) {
          CopyBytes(all[r].bytes, to.out.subspan(offsets[r], offsets[r + 1] - offsets[r]));
        }
      }
    });
  }

  absl::Status DoBarrier() override {
    return point_->Meet(rank_, {.name = "Barrier"}, [](const std::vector<Arrival>&) {});
  }

  static void Combine(Op op, std::span<const int64_t> values, std::vector<int64_t>& result) {
    for (size_t i = 0; i < result.size(); ++i) {
      if (op == Op::kSum) {
        result[i] = static_cast<int64_t>(static_cast<uint64_t>(result[i]) +
                                         static_cast<uint64_t>(values[i]));
      } else {
        result[i] =
            op == Op::kMax ? std::max(result[i], values[i]) : std::min(result[i], values[i]);
      }
    }
  }

  const int rank_;
  const std::shared_ptr<MeetingPoint> point_;
};

}  // namespace

std::vector<std::unique_ptr<Collective>> MakeThreadCollectives(int world_size,
                                                               const CollectiveOptions& options) {
  const auto point = std::make_shared<MeetingPoint>(world_size, options.timeout);
  std::vector<std::unique_ptr<Collective>> ranks;
  for (int r = 0; r < world_size; ++r) {
    ranks.push_back(std::make_unique<ThreadCollective>(r, point));
  }
  return ranks;
}

}  // namespace llmc
