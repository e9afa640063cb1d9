"""HTTP/2 (RFC 9113): our own engine, sans-IO."""
