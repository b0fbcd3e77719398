"""What a hostile client costs the polite ones: floods of HTTP/2 frames, and the latency beside them."""
