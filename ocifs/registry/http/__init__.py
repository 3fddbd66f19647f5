"""HTTP connections: sockets, TLS, proxies, origins, error translation, throttling."""
