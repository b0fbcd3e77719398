"""The shipped configurations of Envoy and nginx, in front of real servers."""
