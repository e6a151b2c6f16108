#include "service/tls_certificate.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <ctime>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "llmc/file.h"
#include "service/json_log.h"

namespace llmc {
namespace {

constexpr int64_t kMaxPemBytes = 1 << 20;

// What reading leaves in this thread's queue of errors, the end of a PEM file among it,
// would be taken for an error of the thread's next connection.
struct ErrorsCleared {
  ~ErrorsCleared() { ERR_clear_error(); }
};

struct FreeBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};

absl::StatusOr<std::unique_ptr<BIO, FreeBio>> OpenPem(const std::string& file, std::string& text) {
  LLMC_ASSIGN_OR_RETURN(text, ReadFile(file, kMaxPemBytes));
  return std::unique_ptr<BIO, FreeBio>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

absl::Status BadPem(const std::string& file, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": expected ", expected, " in PEM form"));
}

absl::Status ReadChain(const std::string& file,
                       std::vector<std::unique_ptr<X509, TlsMaterial::Free>>& chain) {
  std::string text;
  LLMC_ASSIGN_OR_RETURN(const auto bio, OpenPem(file, text));
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
    chain.emplace_back(certificate);
  }
  return chain.empty() ? BadPem(file, "a certificate") : absl::OkStatus();
}

// No password is ever asked for.
int NoPassword(char*, int, int, void*) { return 0; }

int OnHandshake(SSL* ssl, void* certificate) {
  const std::shared_ptr<const TlsMaterial> material =
      static_cast<TlsCertificate*>(certificate)->Current();
  STACK_OF(X509)* rest = sk_X509_new_null();
  for (size_t i = 1; i < material->chain.size(); ++i) sk_X509_push(rest, material->chain[i].get());
  // Takes references of its own.
  const int done =
      SSL_use_cert_and_key(ssl, material->chain[0].get(), material->key.get(), rest, 1);
  sk_X509_free(rest);
  if (done != 1) return 0;
  return material->client_ca == nullptr ||
         SSL_set1_verify_cert_store(ssl, material->client_ca.get());
}

}  // namespace

absl::StatusOr<std::shared_ptr<const TlsMaterial>> TlsMaterial::Load(const TlsOptions& options) {
  const ErrorsCleared errors_cleared;
  auto material = std::make_shared<TlsMaterial>();
  LLMC_RETURN_IF_ERROR(ReadChain(options.certificate_file, material->chain));
  std::string text;
  LLMC_ASSIGN_OR_RETURN(const auto bio, OpenPem(options.key_file, text));
  material->key.reset(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassword, nullptr));
  if (material->key == nullptr) return BadPem(options.key_file, "a key without a password");
  if (X509_check_private_key(material->chain[0].get(), material->key.get()) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.key_file, ": not the key of ", options.certificate_file));
  }
  if (options.client_ca_file.empty()) return material;
  std::vector<std::unique_ptr<X509, Free>> authorities;
  LLMC_RETURN_IF_ERROR(ReadChain(options.client_ca_file, authorities));
  material->client_ca.reset(X509_STORE_new());
  for (const auto& authority : authorities) {
    X509_STORE_add_cert(material->client_ca.get(), authority.get());
  }
  return material;
}

int64_t TlsMaterial::expires_at_s() const {
  std::tm time{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(chain[0].get()), &time) != 1) return 0;
  return timegm(&time);
}

absl::StatusOr<std::unique_ptr<TlsCertificate>> TlsCertificate::Open(const TlsOptions& options) {
  std::unique_ptr<TlsCertificate> opened(new TlsCertificate(options));
  opened->read_at_ = opened->ReadTimes();
  LLMC_ASSIGN_OR_RETURN(opened->material_, TlsMaterial::Load(options));
  return opened;
}

TlsCertificate::Times TlsCertificate::ReadTimes() const {
  Times times;
  for (const std::string& file :
       {options_.certificate_file, options_.key_file, options_.client_ca_file}) {
    std::error_code error;
    if (!file.empty()) times.push_back(std::filesystem::last_write_time(file, error));
  }
  return times;
}

std::shared_ptr<const TlsMaterial> TlsCertificate::Current() {
  std::lock_guard<std::mutex> lock(mutex_);
  Times times = ReadTimes();
  if (times == read_at_) return material_;
  read_at_ = std::move(times);
  absl::StatusOr<std::shared_ptr<const TlsMaterial>> loaded = TlsMaterial::Load(options_);
  if (loaded.ok()) {
    material_ = *std::move(loaded);
    LogJson("info", "the certificate was read again");
  } else {
    LogJson("warning", absl::StrCat("the old certificate is kept: ", loaded.status().message()));
  }
  return material_;
}

bool TlsCertificate::ServeWith(SSL_CTX& context) {
  SSL_CTX_set_min_proto_version(&context, TLS1_2_VERSION);
  // A resumed session would not show its certificate again.
  SSL_CTX_set_options(&context, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_session_cache_mode(&context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(&context, 0);
  SSL_CTX_set_cert_cb(&context, OnHandshake, this);
  if (!options_.client_ca_file.empty()) {
    SSL_CTX_set_verify(&context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  return true;
}

}  // namespace llmc
