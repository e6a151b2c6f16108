#include "service/control_plane.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "control/transition.h"

namespace llmc {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr auto kTick = std::chrono::milliseconds(200);

}  // namespace

ControlPlane::ControlPlane(std::unique_ptr<JobStore> store, const CoordinatorOptions& options,
                           ChangeObserver* observer)
    : store_(std::move(store)), coordinator_(options), observer_(observer) {}

ControlPlane::~ControlPlane() { Stop(); }

Now ControlPlane::ReadClocks() {
  using std::chrono::duration_cast;
  using std::chrono::milliseconds;
  return {duration_cast<milliseconds>(SteadyClock::now().time_since_epoch()).count(),
          duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count()};
}

absl::Status ControlPlane::Start() {
  std::lock_guard<std::mutex> lock(mutex_);
  LLMC_ASSIGN_OR_RETURN(std::vector<store::v1::JobRecord> records, store_->LoadJobs());
  coordinator_.Restore(std::move(records), ReadClocks());
  ticker_ = std::make_unique<std::thread>([this] { LetTimePass(); });
  return absl::OkStatus();
}

void ControlPlane::Stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (ticker_ != nullptr && ticker_->joinable()) ticker_->join();
}

bool ControlPlane::stopping() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return stopping_;
}

void ControlPlane::LetTimePass() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    const Now now = ReadClocks();
    // A store that fails is asked again at the next tick, also when there is nothing to
    // write: clients may be waiting for it to serve again.
    if (store_->failing()) (void)store_->Probe();
    (void)Commit(coordinator_.Tick(now), now);
    changed_.wait_for(lock, kTick, [this] { return stopping_; });
  }
}

absl::Status ControlPlane::Commit(const Change& change, Now now) {
  if (!change.empty()) {
    const SteadyClock::time_point begin = SteadyClock::now();
    LLMC_RETURN_IF_ERROR(WithReason("STORE_UNAVAILABLE", store_->Write(change)));
    if (observer_ != nullptr) observer_->OnChange(change, SteadyClock::now() - begin);
    ++version_;
  }
  coordinator_.Apply(change, now);
  if (!change.empty()) changed_.notify_all();
  return absl::OkStatus();
}

absl::StatusOr<v1::Job> ControlPlane::Decide(const Verb& verb) {
  std::lock_guard<std::mutex> lock(mutex_);
  const Now now = ReadClocks();
  LLMC_ASSIGN_OR_RETURN(const Decision decision, verb(coordinator_, now));
  LLMC_RETURN_IF_ERROR(Commit(decision.change, now));
  const store::v1::JobRecord* record = coordinator_.Find(decision.job_id);
  return record == nullptr ? v1::Job() : record->job();
}

absl::StatusOr<v1::Job> ControlPlane::Get(absl::string_view id) const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (const store::v1::JobRecord* record = coordinator_.Find(id); record != nullptr) {
    v1::Job job = record->job();
    job.set_waits_for(coordinator_.WaitsFor(*record, ReadClocks()));
    return job;
  }
  return WithReason("JOB_NOT_FOUND",
                    absl::NotFoundError(absl::StrCat("jobs/", id, ": no such job")));
}

absl::StatusOr<store::v1::JobRecord> ControlPlane::GetByRequest(
    absl::string_view request_id) const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (const store::v1::JobRecord* record = coordinator_.FindRequest(request_id);
      record != nullptr) {
    return *record;
  }
  return absl::NotFoundError("no such request");
}

std::vector<v1::Job> ControlPlane::List(const std::optional<Coordinator::Position>& after,
                                        size_t limit,
                                        const std::function<bool(const v1::Job&)>& wanted,
                                        Coordinator::Position* last) const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<v1::Job> jobs;
  const Now now = ReadClocks();
  coordinator_.VisitNewestFirst(after, [&](const store::v1::JobRecord& record) {
    if (!wanted(record.job())) return true;
    v1::Job& job = jobs.emplace_back(record.job());
    job.set_waits_for(coordinator_.WaitsFor(record, now));
    // A thousand recipes would not fit into one message.
    if (job.spec().has_recipe_text()) job.mutable_spec()->set_recipe_text("");
    job.clear_partition();
    *last = {record.create_millis(), std::string(JobIdOf(record.job().name()))};
    return jobs.size() < limit;
  });
  return jobs;
}

void ControlPlane::Visit(const std::function<void(const v1::Job&)>& visit) const {
  std::lock_guard<std::mutex> lock(mutex_);
  coordinator_.VisitNewestFirst(std::nullopt, [&](const store::v1::JobRecord& record) {
    visit(record.job());
    return true;
  });
}

std::vector<v1::Pool> ControlPlane::Pools() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return coordinator_.Pools(ReadClocks());
}

absl::StatusOr<std::string> ControlPlane::Report(absl::string_view id) const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (coordinator_.Find(id) == nullptr) {
    return WithReason("JOB_NOT_FOUND",
                      absl::NotFoundError(absl::StrCat("jobs/", id, ": no such job")));
  }
  absl::StatusOr<std::string> report = store_->ReadReport(id);
  if (absl::IsNotFound(report.status())) return WithReason("NO_REPORT", report.status());
  return report;
}

absl::StatusOr<std::vector<v1::JobEvent>> ControlPlane::Events(absl::string_view id, int64_t after,
                                                               int limit) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const store::v1::JobRecord* record = coordinator_.Find(id);
  if (record == nullptr) {
    return WithReason("JOB_NOT_FOUND",
                      absl::NotFoundError(absl::StrCat("jobs/", id, ": no such job")));
  }
  if (after + 1 < record->first_sequence() || after > record->job().sequence()) {
    return WithReason("RESUME_TOKEN_EXPIRED",
                      absl::OutOfRangeError(absl::StrCat(
                          "jobs/", id, ": events ", record->first_sequence(), " to ",
                          record->job().sequence(), " are kept, asked for those after ", after)));
  }
  if (after == record->job().sequence()) return std::vector<v1::JobEvent>();
  return store_->ReadEvents(id, after, limit);
}

absl::StatusOr<v1::Attached> ControlPlane::Attach(const v1::Attach& request) {
  std::lock_guard<std::mutex> lock(mutex_);
  const Now now = ReadClocks();
  LLMC_ASSIGN_OR_RETURN(const AttachDecision decision, coordinator_.Attach(request, now));
  LLMC_RETURN_IF_ERROR(Commit(decision.change, now));
  ++version_;
  changed_.notify_all();
  return decision.attached;
}

void ControlPlane::Detach(absl::string_view instance, bool goodbye) {
  std::lock_guard<std::mutex> lock(mutex_);
  const Now now = ReadClocks();
  // When the store fails, the lease ends by its time.
  (void)Commit(coordinator_.Detach(instance, goodbye, now), now);
  ++version_;
  changed_.notify_all();
}

absl::StatusOr<v1::HeartbeatAck> ControlPlane::Beat(absl::string_view instance,
                                                    const v1::Heartbeat& beat) {
  std::lock_guard<std::mutex> lock(mutex_);
  const Now now = ReadClocks();
  LLMC_ASSIGN_OR_RETURN(const HeartbeatDecision decision, coordinator_.Beat(instance, beat, now));
  // A start that cannot be stored is stored with a later heartbeat.
  (void)Commit(decision.change, now);
  return decision.ack;
}

absl::StatusOr<v1::ReportRankResponse> ControlPlane::BeatRank(
    const v1::ReportRankRequest& request) {
  std::lock_guard<std::mutex> lock(mutex_);
  const Now now = ReadClocks();
  LLMC_ASSIGN_OR_RETURN(v1::ReportRankResponse response, coordinator_.BeatRank(request, now));
  if (!request.has_steps()) return response;
  const absl::StatusOr<Change> change =
      coordinator_.ReportSteps(request.instance(), request.steps(), now);
  // Steps of a lost lease are dropped; a store that fails gets them again.
  response.set_steps_kept(!change.ok() || Commit(*change, now).ok());
  return response;
}

absl::StatusOr<std::optional<v1::LeaseOffer>> ControlPlane::NextLease(absl::string_view instance) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (stopping_) return std::nullopt;
  const Now now = ReadClocks();
  const std::optional<LeaseDecision> decision = coordinator_.NextLease(instance, now);
  if (!decision) return std::nullopt;
  LLMC_RETURN_IF_ERROR(Commit(decision->change, now));
  return decision->offer;
}

absl::Status ControlPlane::ReportSteps(absl::string_view instance, const v1::ReportSteps& report) {
  std::lock_guard<std::mutex> lock(mutex_);
  const Now now = ReadClocks();
  LLMC_ASSIGN_OR_RETURN(const Change change, coordinator_.ReportSteps(instance, report, now));
  return Commit(change, now);
}

absl::StatusOr<bool> ControlPlane::AskPublish(absl::string_view instance,
                                              const v1::LeaseId& lease) {
  std::lock_guard<std::mutex> lock(mutex_);
  const Now now = ReadClocks();
  bool granted = false;
  LLMC_ASSIGN_OR_RETURN(const Decision decision,
                        coordinator_.AskPublish(instance, lease, now, &granted));
  LLMC_RETURN_IF_ERROR(Commit(decision.change, now));
  return granted;
}

absl::Status ControlPlane::Finish(absl::string_view instance, const v1::Finished& finished) {
  std::lock_guard<std::mutex> lock(mutex_);
  const Now now = ReadClocks();
  LLMC_ASSIGN_OR_RETURN(const Change change, coordinator_.Finish(instance, finished, now));
  return Commit(change, now);
}

absl::Status ControlPlane::BackUp(const std::filesystem::path& file) {
  std::lock_guard<std::mutex> lock(mutex_);
  return WithReason("STORE_UNAVAILABLE", store_->BackUp(file));
}

int64_t ControlPlane::Version() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return version_;
}

int64_t ControlPlane::WaitForChange(int64_t seen, std::chrono::milliseconds timeout) const {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait_for(lock, timeout, [&] { return stopping_ || version_ != seen; });
  return version_;
}

bool ControlPlane::store_failing() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return store_->failing();
}

StoreSize ControlPlane::store_size() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return store_->Size();
}

}  // namespace llmc
