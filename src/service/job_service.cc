#include "service/job_service.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "control/transition.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "rpc/rpc_status.h"
#include "service/job_filter.h"
#include "service/job_validation.h"
#include "service/job_watch.h"
#include "service/json_log.h"

namespace llmc {
namespace {

constexpr char kService[] = "llmc.v1.JobService";

constexpr size_t kBackupPartBytes = size_t{256} << 10;
constexpr int kDefaultPageSize = 50;
constexpr int kMaxPageSize = 1000;

// Of what the client asked for, without what may differ between repeats.
std::string DigestOf(v1::CreateJobRequest request, const std::string& submitter) {
  request.clear_request_id();
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    request.SerializeToCodedStream(&coded);
  }
  return Sha256(absl::StrCat(submitter, "\n", bytes));
}

// Sixteen letters and digits; the first is a letter.
std::string RandomJobId() {
  static constexpr char kAlphabet[] = "abcdefghijklmnopqrstuvwxyz0123456789";
  std::random_device device;
  std::string id;
  for (int i = 0; i < 16; ++i) id.push_back(kAlphabet[device() % (i == 0 ? 26 : 36)]);
  return id;
}

grpc::Status InvalidField(const std::string& field, const std::string& what) {
  return ToRpcStatus(std::vector<FieldViolation>{{field, what}});
}

template <typename T>
grpc::Status Answer(absl::StatusOr<T> result, T& response) {
  if (!result.ok()) return ToRpcStatus(result.status());
  response = *std::move(result);
  return grpc::Status::OK;
}

// Submitters change their own jobs, administrators all.
absl::Status MayChange(const Coordinator& coordinator, absl::string_view id, const Principal& who) {
  const store::v1::JobRecord* record = coordinator.Find(id);
  const bool may =
      record == nullptr || who.Has(AccessRole::kAdmin) || record->job().submitter() == who.name;
  if (may) return absl::OkStatus();
  return WithReason("NOT_SUBMITTER", absl::PermissionDeniedError(absl::StrCat(
                                         who.name, " may not change jobs/", id, ", it is ",
                                         record->job().submitter(), "'s")));
}

}  // namespace

grpc::Status JobServiceImpl::CreateJob(grpc::ServerContext* call,
                                       const v1::CreateJobRequest* request, v1::Job* response) {
  return parts_.gate->Serve(*call, {kService, "CreateJob", AccessRole::kSubmit},
                            [&](const Principal& who) { return Create(*request, who, *response); });
}

grpc::Status JobServiceImpl::Create(const v1::CreateJobRequest& request, const Principal& who,
                                    v1::Job& response) {
  const std::string& request_id = request.request_id();
  const auto is_ascii = [](unsigned char c) { return c > 32 && c < 127; };
  if (request_id.size() > 36 || !std::all_of(request_id.begin(), request_id.end(), is_ascii)) {
    return InvalidField("request_id", "expected at most 36 printable ASCII characters");
  }
  if (const std::string problem = JobIdProblem(request.job_id());
      !request.job_id().empty() && !problem.empty()) {
    return InvalidField("job_id", problem);
  }
  NewJob job;
  job.request_id = request_id;
  job.request_digest = DigestOf(request, who.name);
  // A repeat is answered before the checks: its output may exist by now.
  if (!request_id.empty() && !request.validate_only()) {
    const absl::StatusOr<store::v1::JobRecord> first = parts_.plane->GetByRequest(request_id);
    if (first.ok() && first->request_digest() == job.request_digest) {
      response = first->job();
      return grpc::Status::OK;
    }
  }
  ValidatedJob checked = ValidateJob(request.job(), *parts_.roots);
  if (!checked.violations.empty()) return ToRpcStatus(checked.violations);
  job.job_id = request.job_id().empty() ? RandomJobId() : request.job_id();
  *job.job.mutable_spec() = std::move(checked.spec);
  *job.job.mutable_plan() = std::move(checked.plan);
  *job.job.mutable_labels() = request.job().labels();
  job.job.set_priority(request.job().has_priority() ? request.job().priority() : 50);
  job.job.set_min_ranks(request.job().min_ranks());
  job.job.set_submitter(who.name);
  if (request.validate_only()) {
    response = std::move(job.job);
    return grpc::Status::OK;
  }
  return Answer(parts_.plane->Decide([&](const Coordinator& coordinator, Now now) {
    return coordinator.Create(job, now);
  }),
                response);
}

grpc::Status JobServiceImpl::GetJob(grpc::ServerContext* call, const v1::GetJobRequest* request,
                                    v1::Job* response) {
  return parts_.gate->Serve(*call, {kService, "GetJob", AccessRole::kWatch}, [&](const Principal&) {
    return Answer(parts_.plane->Get(JobIdOf(request->name())), *response);
  });
}

grpc::Status JobServiceImpl::ListJobs(grpc::ServerContext* call, const v1::ListJobsRequest* request,
                                      v1::ListJobsResponse* response) {
  return parts_.gate->Serve(*call, {kService, "ListJobs", AccessRole::kWatch},
                            [&](const Principal&) { return List(*request, *response); });
}

grpc::Status JobServiceImpl::List(const v1::ListJobsRequest& request,
                                  v1::ListJobsResponse& response) const {
  if (request.page_size() < 0) return InvalidField("page_size", "expected 0 to 1000");
  const auto wanted = ParseJobFilter(request.filter());
  if (!wanted.ok()) return InvalidField("filter", std::string(wanted.status().message()));
  const std::string scope = absl::StrCat("list ", request.filter());
  std::optional<Coordinator::Position> after;
  if (!request.page_token().empty()) {
    const auto token = ReadToken(parts_.plane->secret(), scope, request.page_token());
    if (!token.ok()) return InvalidField("page_token", std::string(token.status().message()));
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(*token, absl::MaxSplits(' ', 1));
    after.emplace(0, parts.second);
    if (!absl::SimpleAtoi(parts.first, &after->first)) return InvalidField("page_token", "broken");
  }
  const int size = request.page_size() == 0 ? kDefaultPageSize : request.page_size();
  const size_t limit = static_cast<size_t>(std::min(size, kMaxPageSize));
  Coordinator::Position last;
  std::vector<v1::Job> jobs = parts_.plane->List(after, limit, *wanted, &last);
  const bool is_full = jobs.size() == limit;
  for (v1::Job& job : jobs) *response.add_jobs() = std::move(job);
  if (is_full) {
    response.set_next_page_token(
        SignToken(parts_.plane->secret(), scope, absl::StrCat(last.first, " ", last.second)));
  }
  return grpc::Status::OK;
}

grpc::Status JobServiceImpl::WatchJob(grpc::ServerContext* call, const v1::WatchJobRequest* request,
                                      grpc::ServerWriter<v1::WatchJobResponse>* writer) {
  return parts_.gate->Serve(
      *call, {kService, "WatchJob", AccessRole::kWatch}, [&](const Principal&) {
        if (parts_.metrics->watch_streams() >= kMaxWatchStreams) {
          return ToRpcStatus(WithReason("TOO_MANY_WATCHERS",
                                        absl::ResourceExhaustedError("too many open watches")));
        }
        parts_.metrics->AddWatchStream(1);
        JobWatch watch(
            *parts_.plane,
            [&](const v1::WatchJobResponse& message) { return writer->Write(message); },
            [&] { return call->IsCancelled(); });
        const absl::Status status = watch.Run(*request);
        parts_.metrics->AddWatchStream(-1);
        return ToRpcStatus(status);
      });
}

template <typename Request>
grpc::Status JobServiceImpl::Change(grpc::ServerContext* call, const char* method,
                                    const Request& request, const Verb& verb, v1::Job& response) {
  return parts_.gate->Serve(
      *call, {kService, method, AccessRole::kSubmit}, [&](const Principal& who) {
        const absl::string_view id = JobIdOf(request.name());
        const absl::StatusOr<v1::Job> changed = parts_.plane->Decide(
            [&](const Coordinator& coordinator, Now now) -> absl::StatusOr<Decision> {
              LLMC_RETURN_IF_ERROR(MayChange(coordinator, id, who));
              return verb(coordinator, {id, request.etag()}, now);
            });
        LogJson("info", method,
                {{"job", std::string(id)},
                 {"by", who.name},
                 {"code", absl::StatusCodeToString(changed.status().code())}});
        return Answer(changed, response);
      });
}

grpc::Status JobServiceImpl::CancelJob(grpc::ServerContext* call,
                                       const v1::CancelJobRequest* request, v1::Job* response) {
  return Change(
      call, "CancelJob", *request,
      [](const Coordinator& coordinator, const Target& job, Now now) {
        return coordinator.Cancel(job.id, job.etag, now);
      },
      *response);
}

grpc::Status JobServiceImpl::PauseJob(grpc::ServerContext* call, const v1::PauseJobRequest* request,
                                      v1::Job* response) {
  return Change(
      call, "PauseJob", *request,
      [](const Coordinator& coordinator, const Target& job, Now now) {
        return coordinator.Pause(job.id, job.etag, now);
      },
      *response);
}

grpc::Status JobServiceImpl::ResumeJob(grpc::ServerContext* call,
                                       const v1::ResumeJobRequest* request, v1::Job* response) {
  return Change(
      call, "ResumeJob", *request,
      [](const Coordinator& coordinator, const Target& job, Now now) {
        return coordinator.Resume(job.id, job.etag, now);
      },
      *response);
}

grpc::Status JobServiceImpl::RetryJob(grpc::ServerContext* call, const v1::RetryJobRequest* request,
                                      v1::Job* response) {
  return Change(
      call, "RetryJob", *request,
      [](const Coordinator& coordinator, const Target& job, Now now) {
        return coordinator.Retry(job.id, job.etag, now);
      },
      *response);
}

grpc::Status JobServiceImpl::DeleteJob(grpc::ServerContext* call,
                                       const v1::DeleteJobRequest* request,
                                       google::protobuf::Empty*) {
  v1::Job ignored;
  return Change(
      call, "DeleteJob", *request,
      [](const Coordinator& coordinator, const Target& job, Now) {
        return coordinator.Delete(job.id, job.etag);
      },
      ignored);
}

grpc::Status JobServiceImpl::GetReport(grpc::ServerContext* call,
                                       const v1::GetReportRequest* request,
                                       v1::GetReportResponse* response) {
  return parts_.gate->Serve(*call, {kService, "GetReport", AccessRole::kWatch},
                            [&](const Principal&) {
                              return Answer(parts_.plane->Report(JobIdOf(request->name())),
                                            *response->mutable_report_json());
                            });
}

grpc::Status JobServiceImpl::ListPools(grpc::ServerContext* call, const v1::ListPoolsRequest*,
                                       v1::ListPoolsResponse* response) {
  return parts_.gate->Serve(*call, {kService, "ListPools", AccessRole::kWatch},
                            [&](const Principal&) {
                              for (v1::Pool& pool : parts_.plane->Pools())
                                *response->add_pools() = std::move(pool);
                              return grpc::Status::OK;
                            });
}

grpc::Status JobServiceImpl::BackupStore(grpc::ServerContext* call, const v1::BackupStoreRequest*,
                                         grpc::ServerWriter<v1::BackupStoreResponse>* writer) {
  return parts_.gate->Serve(*call, {kService, "BackupStore", AccessRole::kAdmin},
                            [&](const Principal& who) {
                              LogJson("info", "BackupStore", {{"by", who.name}});
                              return ToRpcStatus(SendBackup(*writer));
                            });
}

absl::Status JobServiceImpl::SendBackup(grpc::ServerWriter<v1::BackupStoreResponse>& writer) {
  // One at a time: each is a whole copy on the disk of the store.
  std::lock_guard<std::mutex> lock(backup_mutex_);
  const std::filesystem::path file = parts_.plane->state_dir() / "backup.tmp";
  std::error_code error;
  std::filesystem::remove(file, error);  // Of a coordinator that was killed.
  LLMC_RETURN_IF_ERROR(parts_.plane->BackUp(file));
  std::ifstream stream(file, std::ios::binary);
  std::filesystem::remove(file, error);
  std::string part(kBackupPartBytes, '\0');
  while (stream.read(part.data(), std::ssize(part)) || stream.gcount() > 0) {
    v1::BackupStoreResponse response;
    response.set_part(part.data(), static_cast<size_t>(stream.gcount()));
    if (!writer.Write(response)) return absl::CancelledError("the client is gone");
  }
  if (stream.bad()) return absl::UnavailableError("the backup cannot be read back");
  return absl::OkStatus();
}

}  // namespace llmc
