// The HTTP port's certificate, read again when its files change. The gRPC port has a
// provider of its own that does the same.
#ifndef LLMC_SERVICE_TLS_CERTIFICATE_H_
#define LLMC_SERVICE_TLS_CERTIFICATE_H_

#include <openssl/ssl.h>

#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "llmc/status.h"

namespace llmc {

struct TlsOptions {
  std::string certificate_file;  // PEM chain; empty: no TLS.
  std::string key_file;
  std::string client_ca_file;  // Given: clients must show a certificate of this CA.
};

// A certificate, its chain and key, and whose certificates clients must show.
struct TlsMaterial {
  struct Free {
    void operator()(X509* x) const { X509_free(x); }
    void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
    void operator()(X509_STORE* store) const { X509_STORE_free(store); }
  };
  std::vector<std::unique_ptr<X509, Free>> chain;  // The server's own one first.
  std::unique_ptr<EVP_PKEY, Free> key;
  std::unique_ptr<X509_STORE, Free> client_ca;  // Null: clients need none.

  // kInvalidArgument: no PEM, or the key is not the certificate's.
  static absl::StatusOr<std::shared_ptr<const TlsMaterial>> Load(const TlsOptions& options);
  int64_t expires_at_s() const;  // Since 1970, UTC.
};

// Thread-safe.
class TlsCertificate {
 public:
  static absl::StatusOr<std::unique_ptr<TlsCertificate>> Open(const TlsOptions& options);

  // Looks at the files; broken ones leave what there was, with a line in the log.
  std::shared_ptr<const TlsMaterial> Current();
  // Every connection of `context` gets what is current when it begins. This object
  // must outlive the context.
  bool ServeWith(SSL_CTX& context);

 private:
  using Times = std::vector<std::filesystem::file_time_type>;
  explicit TlsCertificate(TlsOptions options) : options_(std::move(options)) {}
  Times ReadTimes() const;

  const TlsOptions options_;
  std::mutex mutex_;
  Times read_at_;
  std::shared_ptr<const TlsMaterial> material_;
};

}  // namespace llmc

#endif  // LLMC_SERVICE_TLS_CERTIFICATE_H_
