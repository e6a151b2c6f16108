#include "service/http_server.h"

#include <httplib.h>

#include <algorithm>
#include <functional>
#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "control/transition.h"
#include "google/protobuf/util/json_util.h"
#include "report/run_report.h"
#include "service/page.h"

namespace llmc {
namespace {

constexpr int kNumThreads = 48;
constexpr int kMaxEventStreams = 32;
constexpr size_t kJobsOnPage = 100;  // Of each kind: at work, waiting, ended.
constexpr int kEventsAtATime = 1000;

// Nothing from elsewhere, nothing inline, no frames.
constexpr char kPolicy[] =
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
// The report is one file with its style inside and no script.
constexpr char kReportPolicy[] = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

void AppendJson(const google::protobuf::Message& message, std::string& out) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  std::string text;
  if (google::protobuf::util::MessageToJsonString(message, &text, options).ok()) {
    absl::StrAppend(&out, text);
  } else {
    absl::StrAppend(&out, "{}");
  }
}

template <typename Messages>
void AppendArray(const Messages& messages, std::string& out) {
  out += '[';
  bool first = true;
  for (const auto& message : messages) {
    if (!first) out += ',';
    first = false;
    AppendJson(message, out);
  }
  out += ']';
}

// Progress inside a step is of the moment; the page shows the job's own.
void DropProgress(v1::JobEvent& event) {
  if (!event.has_steps()) return;
  auto& steps = *event.mutable_steps()->mutable_steps();
  steps.erase(std::remove_if(steps.begin(), steps.end(),
                             [](const v1::StepRecord& step) {
                               return step.kind() == v1::StepRecord::KIND_PROGRESS;
                             }),
              steps.end());
}

void Send(httplib::Response& response, absl::string_view body, const char* type) {
  response.set_content(body.data(), body.size(), type);
}

void Refuse(httplib::Response& response, int code, absl::string_view why) {
  response.status = code;
  Send(response, absl::StrCat(why, "\n"), "text/plain; charset=utf-8");
}

}  // namespace

absl::Status HttpServer::MakeServer(const TlsOptions& tls) {
  if (tls.certificate_file.empty()) {
    server_ = std::make_unique<httplib::Server>();
    return absl::OkStatus();
  }
  LLMC_ASSIGN_OR_RETURN(certificate_, TlsCertificate::Open(tls));
  server_ = std::make_unique<httplib::SSLServer>(
      [this](SSL_CTX& context) { return certificate_->ServeWith(context); });
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpServerOptions& options,
                                                              const JobServiceParts& parts,
                                                              TokenFile* tokens) {
  std::unique_ptr<HttpServer> made(new HttpServer(parts, tokens));
  LLMC_RETURN_IF_ERROR(made->MakeServer(options.tls));
  httplib::Server& server = *made->server_;
  server.new_task_queue = [] { return new httplib::ThreadPool(kNumThreads); };
  server.set_payload_max_length(1024);
  server.set_read_timeout(5, 0);
  server.set_write_timeout(5, 0);
  server.set_keep_alive_max_count(100);
  server.set_keep_alive_timeout(5);
  made->AddRoutes();
  const size_t colon = options.address.rfind(':');
  std::string host = options.address.substr(0, colon);
  if (!host.empty() && host.front() == '[') host = host.substr(1, host.size() - 2);
  const int port = colon == std::string::npos ? 0 : std::atoi(options.address.c_str() + colon + 1);
  const bool bound =
      server.is_valid() && (port == 0 ? (made->port_ = server.bind_to_any_port(host.c_str())) > 0
                                      : server.bind_to_port(host.c_str(), port));
  if (!bound) {
    return absl::UnavailableError(
        absl::StrCat("--http-listen: cannot listen on ", options.address));
  }
  if (port != 0) made->port_ = port;
  made->thread_ = std::thread([raw = made->server_.get()] { raw->listen_after_bind(); });
  return made;
}

HttpServer::HttpServer(const JobServiceParts& parts, TokenFile* tokens)
    : parts_(parts), tokens_(tokens) {}

HttpServer::~HttpServer() { Stop(); }

void HttpServer::Stop() {
  stopping_ = true;
  if (server_ != nullptr) server_->stop();
  if (thread_.joinable()) thread_.join();
}

bool HttpServer::MayRead(const httplib::Request& request, httplib::Response& response) {
  if (tokens_ == nullptr) return true;
  const absl::StatusOr<Principal> who =
      tokens_->Authenticate(request.get_header_value("Authorization"));
  if (who.ok() && who->Has(AccessRole::kWatch)) return true;
  parts_.metrics->CountAuthFailure(who.ok() ? "ROLE_MISSING" : ReasonOf(who.status()));
  if (!who.ok()) response.set_header("WWW-Authenticate", "Basic realm=\"llmc\"");
  Refuse(response, who.ok() ? 403 : 401, who.ok() ? "not allowed" : "a token is required");
  return false;
}

void HttpServer::AddRoutes() {
  using httplib::Request;
  using httplib::Response;
  server_->set_default_headers({{"X-Content-Type-Options", "nosniff"},
                                {"Referrer-Policy", "no-referrer"},
                                {"Cache-Control", "no-store"}});
  server_->Get("/healthz",
               [](const Request&, Response& response) { Send(response, "ok\n", "text/plain"); });
  server_->Get("/readyz", [this](const Request&, Response& response) {
    if (parts_.plane->stopping() || parts_.plane->store_failing()) {
      return Refuse(response, 503, "the job store cannot be written");
    }
    Send(response, "ok\n", "text/plain");
  });
  const auto add = [this](const char* path, auto serve) {
    server_->Get(path, [this, serve](const Request& request, Response& response) {
      if (MayRead(request, response)) serve(request, response);
      const char kName[] = "Content-Security-Policy";
      if (!response.has_header(kName)) response.set_header(kName, kPolicy);
    });
  };
  add("/metrics", [this](const Request&, Response& response) {
    if (certificate_ != nullptr) {
      parts_.metrics->SetCertificateExpiry(certificate_->Current()->expires_at_s());
    }
    Send(response, parts_.metrics->Page(*parts_.plane), "text/plain; version=0.0.4");
  });
  const auto page = [](const Request&, Response& response) {
    Send(response, PageHtml(), "text/html; charset=utf-8");
  };
  add("/", page);
  add(R"(/jobs/[a-z0-9-]{1,63})", page);
  add("/page.css",
      [](const Request&, Response& response) { Send(response, PageStyle(), "text/css"); });
  add("/page.js",
      [](const Request&, Response& response) { Send(response, PageScript(), "text/javascript"); });
  add("/api/state", [this](const Request&, Response& response) { ServeState(response); });
  add("/events", [this](const Request&, Response& response) { ServeEvents(response); });
  add(R"(/api/jobs/([a-z0-9-]{1,63}))", [this](const Request& request, Response& response) {
    int64_t after = 0;
    if (request.has_param("after") &&
        (!absl::SimpleAtoi(request.get_param_value("after"), &after) || after < 0)) {
      return Refuse(response, 400, "after: expected a number");
    }
    ServeJob(request.matches[1], after, response);
  });
  add(R"(/jobs/([a-z0-9-]{1,63})/report)", [this](const Request& request, Response& response) {
    ServeReport(request.matches[1], response);
  });
}

void HttpServer::ServeState(httplib::Response& response) {
  std::map<std::string, int> counts;
  parts_.plane->Visit([&](const v1::Job& job) { ++counts[std::string(StateName(job.state()))]; });
  std::vector<std::string> pairs;
  for (const auto& [state, count] : counts)
    pairs.push_back(absl::StrCat("\"", state, "\":", count));
  // Those at work first, however many wait.
  std::vector<v1::Job> jobs;
  const auto append = [&](const std::function<bool(v1::JobState)>& wanted) {
    Coordinator::Position last;
    for (v1::Job& job : parts_.plane->List(
             std::nullopt, kJobsOnPage, [&](const v1::Job& job) { return wanted(job.state()); },
             &last)) {
      job.clear_plan();
      jobs.push_back(std::move(job));
    }
  };
  append([](v1::JobState state) { return HoldsLease(state); });
  append([](v1::JobState state) { return !HoldsLease(state) && !IsEnd(state); });
  append(IsEnd);
  std::string body =
      absl::StrCat("{\"version\":\"0.1.0\",\"counts\":{", absl::StrJoin(pairs, ","), "},\"jobs\":");
  AppendArray(jobs, body);
  absl::StrAppend(&body, ",\"pools\":");
  AppendArray(parts_.plane->Pools(), body);
  body += '}';
  Send(response, body, "application/json");
}

void HttpServer::ServeJob(const std::string& id, int64_t after, httplib::Response& response) {
  const absl::StatusOr<v1::Job> job = parts_.plane->Get(id);
  if (!job.ok()) return Refuse(response, 404, "no such job");
  absl::StatusOr<std::vector<v1::JobEvent>> events =
      parts_.plane->Events(id, after, kEventsAtATime);
  if (absl::IsOutOfRange(events.status())) {
    // From the oldest event that is kept.
    const int64_t dropped = job->sequence() - parts_.plane->options().max_events_per_job + 1;
    events = parts_.plane->Events(id, std::max<int64_t>(0, dropped), kEventsAtATime);
  }
  if (!events.ok()) return Refuse(response, 503, "the events cannot be read now");
  for (v1::JobEvent& event : *events) DropProgress(event);
  const bool more = !events->empty() && events->back().sequence() < job->sequence();
  std::string body = "{\"job\":";
  AppendJson(*job, body);
  absl::StrAppend(&body, ",\"more\":", more ? "true" : "false",
                  ",\"hasReport\":", parts_.plane->Report(id).ok() ? "true" : "false",
                  ",\"events\":");
  AppendArray(*events, body);
  body += '}';
  Send(response, body, "application/json");
}

void HttpServer::ServeReport(const std::string& id, httplib::Response& response) {
  const absl::StatusOr<std::string> json = parts_.plane->Report(id);
  if (!json.ok()) return Refuse(response, 404, "no report");
  const absl::StatusOr<RunReport> report = ReportFromJson(*json);
  if (!report.ok()) return Refuse(response, 500, "the report cannot be read");
  response.set_header("Content-Security-Policy", kReportPolicy);
  Send(response, ToHtml(*report), "text/html; charset=utf-8");
}

void HttpServer::ServeEvents(httplib::Response& response) {
  if (num_event_streams_ >= kMaxEventStreams) return Refuse(response, 503, "too many viewers");
  ++num_event_streams_;
  auto seen = std::make_shared<int64_t>(-1);
  response.set_chunked_content_provider(
      "text/event-stream",
      [this, seen](size_t, httplib::DataSink& sink) {
        const int64_t version = parts_.plane->WaitForChange(*seen, std::chrono::milliseconds(1000));
        if (stopping_ || parts_.plane->stopping()) return false;
        const std::string text = version == *seen ? std::string(": still here\n\n")
                                                  : absl::StrCat("data: ", version, "\n\n");
        *seen = version;
        if (!sink.write(text.data(), text.size())) return false;
        // The page cannot show more than a few changes a second.
        std::this_thread::sleep_for(std::chrono::milliseconds(300));
        return true;
      },
      [this](bool) { --num_event_streams_; });
}

}  // namespace llmc
