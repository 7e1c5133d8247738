//! One HTTP/2 connection at a time: connecting, TLS, knowing its end.
