#include "service/http_server.h"

#include <httplib.h>

#include "absl/strings/str_cat.h"
#include "control/transition.h"
#include "google/protobuf/util/json_util.h"
#include "report/run_report.h"
#include "service/page.h"

namespace llmc {
namespace {

constexpr int kNumThreads = 48;
constexpr int kMaxEventStreams = 32;
constexpr size_t kJobsOnPage = 200;
constexpr int kEventsOnPage = 20'000;

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

void Send(httplib::Response& response, absl::string_view body, const char* type) {
  response.set_content(body.data(), body.size(), type);
}

void Refuse(httplib::Response& response, int code, absl::string_view why) {
  response.status = code;
  Send(response, absl::StrCat(why, "\n"), "text/plain; charset=utf-8");
}

std::unique_ptr<httplib::Server> MakeServer(const TlsOptions& tls) {
  if (tls.certificate_file.empty()) return std::make_unique<httplib::Server>();
  return std::make_unique<httplib::SSLServer>(
      tls.certificate_file.c_str(), tls.key_file.c_str(),
      tls.client_ca_file.empty() ? nullptr : tls.client_ca_file.c_str());
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpServerOptions& options,
                                                              const JobServiceParts& parts,
                                                              TokenFile* tokens) {
  std::unique_ptr<HttpServer> made(new HttpServer(parts, tokens));
  made->server_ = MakeServer(options.tls);
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
  if (who.ok() && who->Has(Role::kWatch)) return true;
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
    ServeJob(request.matches[1], response);
  });
  add(R"(/jobs/([a-z0-9-]{1,63})/report)", [this](const Request& request, Response& response) {
    ServeReport(request.matches[1], response);
  });
}

void HttpServer::ServeState(httplib::Response& response) {
  Coordinator::Position last;
  const std::vector<v1::Job> jobs = parts_.plane->List(
      std::nullopt, kJobsOnPage, [](const v1::Job&) { return true; }, &last);
  std::string body = "{\"version\":\"0.1.0\",\"jobs\":";
  AppendArray(jobs, body);
  absl::StrAppend(&body, ",\"pools\":");
  AppendArray(parts_.plane->Pools(), body);
  body += '}';
  Send(response, body, "application/json");
}

void HttpServer::ServeJob(const std::string& id, httplib::Response& response) {
  const absl::StatusOr<v1::Job> job = parts_.plane->Get(id);
  if (!job.ok()) return Refuse(response, 404, "no such job");
  std::string body = "{\"job\":";
  AppendJson(*job, body);
  // From the oldest event that is kept.
  absl::StatusOr<std::vector<v1::JobEvent>> events = parts_.plane->Events(id, 0, kEventsOnPage);
  if (absl::IsOutOfRange(events.status())) {
    events = parts_.plane->Events(
        id, job->sequence() - parts_.plane->options().max_events_per_job + 1, kEventsOnPage);
  }
  absl::StrAppend(&body, ",\"events\":");
  if (events.ok()) {
    AppendArray(*events, body);
  } else {
    absl::StrAppend(&body, "[]");
  }
  absl::StrAppend(&body, ",\"hasReport\":", parts_.plane->Report(id).ok() ? "true" : "false", "}");
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
